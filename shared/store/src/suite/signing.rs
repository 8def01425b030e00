//! Beginning, deferring, taking over, finishing, claiming.

use std::{collections::BTreeSet, time::Duration};

use domain::{bytes::Digest, issuer::IssuerState, job::State};

use super::{
    Harness,
    world::{World, issuer, lane, node, signature},
};
use crate::{Claim, Deferral, Finished, LaneSwitches, NotBegun, Outcome};

const LIMIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(2);

pub(crate) async fn of_two_signers_one_begins_a_job(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let begun = world.begin(&node("one"), job.job).await;
    assert_eq!((begun.turn, begun.strikes), (1, 0));
    assert_eq!(world.try_begin(&node("two"), job.job).await, Err(NotBegun::Elsewhere));
    let stored = world.get(job.job).await;
    assert_eq!(
        (stored.state, stored.turn, stored.owner),
        (State::Signing, 1, Some(node("one")))
    );
    let lane = world.lane("alpha.interactive").await;
    assert_eq!((lane.queued, lane.signing), (0, 1));
}

pub(crate) async fn a_begun_job_comes_with_everything_that_is_recorded(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    world.advance(Duration::from_mins(10));
    let begun = world.begin(&node("one"), job.job).await;
    assert_eq!((&begun.lane, &begun.account), (&job.lane, &job.account));
    assert_eq!(
        (&begun.request.profile, begun.request.profile_version),
        (&job.profile, job.profile_version)
    );
    assert_eq!((begun.sign_by, begun.remaining), (job.sign_by, Duration::from_mins(50)));
    assert_eq!((&begun.statement, &begun.proof), (&job.statement, &job.proof));
    assert_eq!((&begun.tbs, begun.intent), (&job.tbs, job.intent));
    assert!(begun.joined.is_empty());
}

pub(crate) async fn who_asks_again_for_what_it_has_begun_gets_the_same_answer(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let begun = world.begin(&node("one"), job.job).await;
    world.advance(Duration::from_secs(1));
    let again = world.begin(&node("one"), job.job).await;
    assert_eq!((again.turn, again.strikes, &again.tbs), (1, 0, &begun.tbs));
    assert_eq!(again.remaining + Duration::from_secs(1), begun.remaining);
    assert_eq!(world.try_begin(&node("two"), job.job).await, Err(NotBegun::Elsewhere));
    let lane = world.lane("alpha.interactive").await;
    assert_eq!((lane.queued, lane.signing), (0, 1));

    // What another has taken over meanwhile is not the first owner's any more.
    world.advance(LIMIT * 3);
    let taken = world
        .store
        .take_over(&node("two"), std::slice::from_ref(&job.lane), LIMIT, 1)
        .await
        .unwrap();
    assert_eq!(taken.begun.len(), 1, "{taken:?}");
    assert_eq!(world.try_begin(&node("one"), job.job).await, Err(NotBegun::Elsewhere));
    let again = world.begin(&node("two"), job.job).await;
    assert_eq!((again.turn, again.strikes), (2, 1));
}

pub(crate) async fn why_a_job_was_not_begun_is_said(harness: &impl Harness) {
    let world = World::new(harness).await;
    let owner = node("one");
    assert_eq!(world.try_begin(&owner, world.serial()).await, Err(NotBegun::Unknown));

    let job = world.accepted().await;
    let lane = job.lane.clone();
    let switch = |paused, diverted| LaneSwitches {
        paused,
        diverted,
        draining: false,
    };
    world.store.switch_lane(&lane, switch(true, false)).await.unwrap();
    assert_eq!(world.try_begin(&owner, job.job).await, Err(NotBegun::Paused));
    world.store.switch_lane(&lane, switch(false, true)).await.unwrap();
    let parked = world.accepted().await;
    assert_eq!(world.try_begin(&owner, parked.job).await, Err(NotBegun::Parked));
    world.store.switch_lane(&lane, switch(false, false)).await.unwrap();

    world.disable("alpha").await;
    assert_eq!(world.try_begin(&owner, job.job).await, Err(NotBegun::IssuerDisabled));
    world.put_issuers(&[issuer("alpha")]).await;
    let refused = world.accepted().await;
    world.refuse(&owner, refused.job, None).await;
    let ended = NotBegun::Ended(State::Refused);
    assert_eq!(world.try_begin(&owner, refused.job).await, Err(ended));

    let mut destroyed = issuer("alpha");
    destroyed.state = IssuerState::Destroyed;
    world.put_issuers(&[destroyed]).await;
    assert_eq!(world.try_begin(&owner, job.job).await, Err(NotBegun::IssuerDestroyed));
    world.advance(Duration::from_hours(1));
    assert_eq!(world.try_begin(&owner, job.job).await, Err(NotBegun::Late));
    assert_eq!(world.get(job.job).await.turn, 0);
}

pub(crate) async fn a_deferred_job_waits_again_without_a_strike(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("one");
    for turn in 1..=5 {
        let begun = world.begin(&owner, job.job).await;
        assert_eq!((begun.turn, begun.strikes), (turn, 0));
        let deferral = Deferral {
            job: job.job,
            turn,
            reason: "breaker open".into(),
        };
        world.store.defer(&owner, vec![deferral]).await.unwrap();
        let stored = world.get(job.job).await;
        assert_eq!((stored.state, stored.owner), (State::Queued, None));
    }
    let events = world.store.events(job.job).await.unwrap();
    assert!(
        events
            .iter()
            .any(|event| event.kind == "deferred" && event.detail == "breaker open")
    );
}

pub(crate) async fn only_the_owner_in_its_turn_defers(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let begun = world.begin(&node("one"), job.job).await;
    let defer = |turn| {
        vec![Deferral {
            job: job.job,
            turn,
            reason: String::new(),
        }]
    };
    world.store.defer(&node("two"), defer(begun.turn)).await.unwrap();
    world.store.defer(&node("one"), defer(begun.turn + 1)).await.unwrap();
    assert_eq!(world.state(job.job).await, State::Signing);
    world.store.defer(&node("one"), defer(begun.turn)).await.unwrap();
    assert_eq!(world.state(job.job).await, State::Queued);
}

pub(crate) async fn the_first_signature_counts_and_everybody_sees_it(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut job = world.job();
    job.waiter = Some(node("front"));
    world.accept(&job).await.unwrap();
    let owner = node("one");
    let begun = world.begin(&owner, job.job).await;
    world.advance(Duration::from_millis(5));
    let mine = signature(&job, begun.turn);
    let Finished::Issued { ended, first, revoked } = world.finish(&owner, mine.clone()).await else {
        panic!("not issued");
    };
    assert!(first && !revoked);
    assert_eq!(ended.waiters, [node("front")]);
    let outcome = Outcome::Issued {
        signature: mine.signature.clone(),
        at: world.now(),
    };
    assert_eq!((ended.job, &ended.outcome), (job.job, &outcome));

    let mut other = mine;
    other.signature = b"another one".to_vec();
    let Finished::Issued { ended, first, revoked } = world.finish(&node("two"), other).await else {
        panic!("not issued");
    };
    assert!(!first && !revoked);
    assert_eq!((&ended.outcome, ended.waiters.len()), (&outcome, 0));
    let stored = world.get(job.job).await;
    assert_eq!((stored.state, stored.outcome), (State::Issued, Some(outcome)));
    assert_eq!(world.lane("alpha.interactive").await.signing, 0);
}

pub(crate) async fn a_signature_over_another_intent_is_never_recorded(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("one");
    let begun = world.begin(&owner, job.job).await;
    let mut wrong = signature(&job, begun.turn);
    wrong.intent = Digest([9; 32]);
    assert_eq!(world.finish(&owner, wrong.clone()).await, Finished::IntentMismatch);
    assert_eq!(world.state(job.job).await, State::Signing);
    world.finish(&owner, signature(&job, begun.turn)).await;
    assert_eq!(world.finish(&owner, wrong).await, Finished::IntentMismatch);
}

pub(crate) async fn a_disabled_issuer_finishes_nothing(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("one");
    let begun = world.begin(&owner, job.job).await;
    world.disable("alpha").await;
    let finish = signature(&job, begun.turn);
    assert_eq!(world.finish(&owner, finish.clone()).await, Finished::IssuerOff);
    assert_eq!(world.state(job.job).await, State::Signing);
    // Enabled again, the signature counts.
    world.put_issuers(&[issuer("alpha")]).await;
    assert!(matches!(
        world.finish(&owner, finish).await,
        Finished::Issued { first: true, .. }
    ));
}

pub(crate) async fn the_first_owner_may_still_finish_after_a_take_over(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let (one, two) = (node("one"), node("two"));
    world.live(&one, LEASE).await;
    let begun = world.begin(&one, job.job).await;
    world.advance(LEASE);
    let taken = world
        .store
        .take_over(&two, std::slice::from_ref(&job.lane), LIMIT, 10)
        .await
        .unwrap();
    assert_eq!((taken.begun[0].turn, taken.begun[0].strikes), (2, 1));
    assert_eq!((&taken.begun[0].tbs, taken.poisoned.len()), (&job.tbs, 0));

    // Its turn is over: it may neither defer nor refuse. Its signature is over the intent: it counts.
    let deferral = Deferral {
        job: job.job,
        turn: 1,
        reason: String::new(),
    };
    world.store.defer(&one, vec![deferral]).await.unwrap();
    assert_eq!(world.refuse(&one, job.job, Some(1)).await, None);
    assert_eq!(world.state(job.job).await, State::Signing);
    let late = signature(&job, begun.turn);
    let finished = world.finish(&one, late.clone()).await;
    assert!(matches!(finished, Finished::Issued { first: true, .. }));
    let Finished::Issued { ended, first, .. } = world.finish(&two, signature(&job, 2)).await else {
        panic!("not issued");
    };
    let outcome = Outcome::Issued {
        signature: late.signature,
        at: world.now(),
    };
    assert_eq!((first, ended.outcome), (false, outcome));
}

pub(crate) async fn what_nobody_began_is_not_finished(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("one");
    assert_eq!(
        world.finish(&owner, signature(&job, 1)).await,
        Finished::Lost(Some(State::Queued))
    );
    world.refuse(&owner, job.job, None).await;
    assert_eq!(
        world.finish(&owner, signature(&job, 1)).await,
        Finished::Lost(Some(State::Refused))
    );
    assert_eq!(
        world.finish(&owner, signature(&world.job(), 1)).await,
        Finished::Lost(None)
    );
}

pub(crate) async fn a_job_that_loses_its_owner_three_times_alone_is_poison(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let lanes = [job.lane.clone()];
    let owners = [node("one"), node("two"), node("three"), node("four"), node("five")];
    world.live(&owners[0], LEASE).await;
    world.begin(&owners[0], job.job).await;
    for (strike, owner) in (1..).zip(&owners[1..4]) {
        world.advance(LEASE);
        world.live(owner, LEASE).await;
        let taken = world.store.take_over(owner, &lanes, LIMIT, 10).await.unwrap();
        assert_eq!(
            (taken.begun[0].strikes, taken.begun[0].turn),
            (strike, u32::from(strike) + 1)
        );
    }
    world.advance(LEASE);
    let taken = world.store.take_over(&owners[4], &lanes, LIMIT, 10).await.unwrap();
    assert_eq!(taken.begun, []);
    assert_eq!(taken.poisoned, [(job.job, job.lane.clone())]);
    let stored = world.get(job.job).await;
    assert_eq!(
        (stored.state, stored.strikes, stored.turn, stored.owner),
        (State::Parked, 3, 4, None)
    );
    assert_eq!(world.lane("alpha.interactive").await.parked, 1);
    let events = world.store.events(job.job).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["taken_over", "taken_over", "taken_over", "poisoned"]);
    assert_eq!(
        world.finish(&owners[3], signature(&job, 4)).await,
        Finished::Lost(Some(State::Parked))
    );
}

pub(crate) async fn a_stuck_owner_loses_its_job_though_it_lives(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let (one, two) = (node("one"), node("two"));
    world.begin(&one, job.job).await;
    world.live(&one, Duration::from_hours(1)).await;
    world.advance((LIMIT * 3).checked_sub(Duration::from_millis(1)).unwrap());
    let lanes = [job.lane.clone()];
    assert_eq!(world.store.take_over(&two, &lanes, LIMIT, 10).await.unwrap().begun, []);
    world.advance(Duration::from_millis(1));
    assert_eq!(
        world
            .store
            .take_over(&two, &lanes, LIMIT, 10)
            .await
            .unwrap()
            .begun
            .len(),
        1
    );
}

pub(crate) async fn a_live_owner_keeps_its_job(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let (one, two) = (node("one"), node("two"));
    world.live(&one, LEASE).await;
    world.begin(&one, job.job).await;
    let lanes = [job.lane.clone()];
    assert_eq!(world.store.take_over(&two, &lanes, LIMIT, 10).await.unwrap().begun, []);
    // A drained process says goodbye, and its jobs are free at once; those of other lanes are not asked for.
    world.store.goodbye(&one).await.unwrap();
    let other = [lane("alpha.bulk")];
    assert_eq!(world.store.take_over(&two, &other, LIMIT, 10).await.unwrap().begun, []);
    assert_eq!(
        world
            .store
            .take_over(&two, &lanes, LIMIT, 10)
            .await
            .unwrap()
            .begun
            .len(),
        1
    );
}

pub(crate) async fn a_take_over_brings_no_more_than_asked_for(harness: &impl Harness) {
    let world = World::new(harness).await;
    let one = node("one");
    for name in ["alpha.interactive", "alpha.interactive", "beta.bulk", "beta.bulk"] {
        let mut job = world.job();
        job.lane = lane(name);
        world.accept(&job).await.unwrap();
        world.begin(&one, job.job).await;
    }
    world.disable("beta").await;
    let lanes = [lane("beta.bulk"), lane("alpha.interactive")];
    // Jobs of a disabled issuer are not taken over, and do not stand in the way of the others.
    let taken = world.store.take_over(&node("two"), &lanes, LIMIT, 1).await.unwrap();
    assert_eq!(taken.begun.len(), 1);
    assert_eq!(taken.begun[0].lane, lane("alpha.interactive"));
}

pub(crate) async fn queued_jobs_are_claimable_oldest_first_and_account_by_account(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut alices = Vec::new();
    for _ in 0..20 {
        alices.push(world.accepted().await.job);
        world.advance(Duration::from_millis(10));
    }
    let mut bobs = world.job();
    bobs.account = "bob".parse().unwrap();
    world.accept(&bobs).await.unwrap();
    world.advance(Duration::from_millis(10));

    let claim = |accepted_before, limit| Claim {
        lane: bobs.lane.clone(),
        accepted_before,
        limit,
    };
    let found = world.store.claimable(&[claim(world.now(), 4)]).await.unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|claimable| claimable.lane == bobs.lane));
    // One account's backlog does not hide the other's job.
    assert!(
        found
            .iter()
            .any(|claimable| claimable.job == bobs.job && claimable.account == bobs.account)
    );
    let of_alice: Vec<_> = found
        .iter()
        .filter(|claimable| claimable.job != bobs.job)
        .map(|c| c.job)
        .collect();
    assert_eq!(of_alice, alices[..3]);

    let third = world.get(alices[2]).await.accepted_at;
    let found = world.store.claimable(&[claim(third, 10)]).await.unwrap();
    let jobs: Vec<_> = found.iter().map(|claimable| claimable.job).collect();
    assert_eq!(jobs, alices[..2]);
}

pub(crate) async fn claims_come_round_to_every_account(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut accounts = BTreeSet::new();
    for number in 0..6 {
        let mut job = world.job();
        job.account = format!("account-{number}").parse().unwrap();
        accounts.insert(job.account.clone());
        world.accept(&job).await.unwrap();
    }
    let claim = Claim {
        lane: lane("alpha.interactive"),
        accepted_before: world.now() + LEASE,
        limit: 2,
    };
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let found = world.store.claimable(std::slice::from_ref(&claim)).await.unwrap();
        assert_eq!(found.len(), 2);
        seen.extend(found.into_iter().map(|claimable| claimable.account));
    }
    assert_eq!(seen, accounts);
}

pub(crate) async fn nothing_is_claimable_that_could_not_be_begun(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let later = world.now() + Duration::from_secs(1);
    let claims = [Claim {
        lane: job.lane.clone(),
        accepted_before: later,
        limit: 10,
    }];
    let claimable = || async { world.store.claimable(&claims).await.unwrap().len() };
    assert_eq!(claimable().await, 1);
    let paused = LaneSwitches {
        paused: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&job.lane, paused).await.unwrap();
    assert_eq!(claimable().await, 0);
    world
        .store
        .switch_lane(&job.lane, LaneSwitches::default())
        .await
        .unwrap();
    world.disable("alpha").await;
    assert_eq!(claimable().await, 0);
    world.put_issuers(&[issuer("alpha")]).await;
    assert_eq!(claimable().await, 1);
    world.begin(&node("one"), job.job).await;
    assert_eq!(claimable().await, 0);
    let late = world.accepted().await;
    world.advance(Duration::from_hours(1));
    assert_eq!(world.state(late.job).await, State::Queued);
    assert_eq!(claimable().await, 0);
}
