//! Whole clusters of dispatchers: nothing is lost, nothing is issued twice, no slot leaks, and one issuer's trouble is nobody else's.

use proptest::prelude::*;

use super::cluster::{Chaos, Happening, Job, Key, Nature, START, World, millis};
use crate::{job::State, time::Timestamp};

fn chaos() -> impl Strategy<Value = Chaos> {
    prop_oneof![
        (0..100_usize).prop_map(Chaos::Kill),
        (0..4_usize, 0..3_u8).prop_map(|(issuer, how)| Chaos::Break(issuer, how)),
        (0..4_usize, any::<bool>()).prop_map(|(issuer, on)| Chaos::Disable(issuer, on)),
        Just(Chaos::LoseQueues),
        (0..3000_u64).prop_map(Chaos::StoreDown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_chaos_loses_a_job_issues_one_twice_or_leaks_a_slot(
        seed: u64,
        signers in 1..4_usize,
        arrivals in proptest::collection::vec((0..4000_u64, 0..4_usize), 1..250),
        blows in proptest::collection::vec((0..6000_u64, chaos()), 0..12),
    ) {
        let mut world = World::new(seed, signers, 4);
        for (at, issuer) in arrivals {
            world.later(at, Happening::Arrive(issuer));
        }
        for (at, blow) in blows {
            world.later(at, Happening::Chaos(blow));
        }
        world.run(world.now + millis(6500));
        world.settle();
        for (serial, job) in &world.jobs {
            prop_assert!(job.issued <= 1, "{serial} was issued {} times", job.issued);
            let issued = job.position.state == State::Issued;
            prop_assert!(!issued || job.nature == Nature::Good, "{serial}: {job:?}");
        }
    }
}

/// How many certificates issuer 1 gets in ten seconds at a steady rate while issuer 2 is flooded and its key is `key`.
fn throughput_beside(key: Key, flood: bool) -> usize {
    let mut world = World::new(99, 1, 3);
    world.keys[2] = key;
    if flood {
        for _ in 0..2000 {
            world.accept(2, Nature::Good);
        }
    }
    for at in 0..2000 {
        world.run(Timestamp::from_millis(START) + millis(at * 5));
        world.accept(1, Nature::Good);
    }
    world.run(Timestamp::from_millis(START) + millis(10_050));
    world.issued_by(1)
}

#[test]
fn an_issuer_that_fails_is_slow_or_is_flooded_takes_no_throughput_from_another() {
    let alone = throughput_beside(Key::Works, false);
    assert!(alone > 1700, "{alone}");
    for key in [Key::Fails, Key::Slow, Key::Works] {
        let beside = throughput_beside(key, true);
        assert!(beside * 100 >= alone * 97, "{key:?}: {beside} of {alone}");
    }
}

#[test]
fn a_job_that_kills_its_signers_is_parked_and_takes_no_other_with_it() {
    let mut world = World::new(5, 2, 2);
    for n in 0..60 {
        let nature = if n == 30 { Nature::Kills } else { Nature::Good };
        world.accept(1, nature);
    }
    world.run(world.now + millis(20_000));
    world.settle();
    let parked: Vec<&Job> = world
        .jobs
        .values()
        .filter(|job| job.position.state == State::Parked)
        .collect();
    assert_eq!((parked.len(), world.issued_by(1)), (1, 59));
    assert_eq!(parked[0].nature, Nature::Kills);
}

/// A job of twenty that were begun together, after its signer was killed under all of them and then twice more while the job ran alone.
#[test]
fn three_kills_at_the_wrong_moments_do_not_make_a_good_job_poison() {
    let mut world = World::new(5, 1, 2);
    for _ in 0..20 {
        world.accept(1, Nature::Good);
    }
    let mut unlucky = None;
    for kill in 0..3 {
        // Each signer is killed as soon as it has begun the job, or has taken it over.
        let under_way = |job: &Job| job.position.state == State::Signing && job.position.turn == kill + 1;
        let job = loop {
            world.run(world.now + millis(1));
            let under_way = world.jobs.iter().filter(|(_, job)| under_way(job));
            let found = under_way.map(|(serial, _)| *serial).next_back();
            if let Some(job) = found.filter(|job| unlucky.is_none_or(|unlucky| unlucky == *job)) {
                break job;
            }
        };
        unlucky = Some(job);
        let signer = usize::try_from(kill).unwrap();
        world.later(0, Happening::Chaos(Chaos::Kill(signer)));
    }
    world.settle();
    assert_eq!(world.issued_by(1), 20, "{:?}", unlucky.map(|job| &world.jobs[&job]));
}
