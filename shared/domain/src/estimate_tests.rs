//! What the estimate promises: it refuses what cannot be answered in time, and never locks itself shut.

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(6);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seen(millis: u64, open: u64, speed: f64) -> Look {
    Look {
        at: at(millis),
        open,
        key: Key::Usable,
        speed: Some(speed),
    }
}

fn unusable(millis: u64, open: u64) -> Look {
    Look {
        key: Key::Unusable,
        speed: Some(0.0),
        ..seen(millis, open, 0.0)
    }
}

/// A lane that has had this backlog at this speed for ten seconds, looked at every half second, last at 10 s.
fn backlog(open: u64, speed: f64) -> Estimate {
    let mut estimate = Estimate::default();
    for look in 0..=20 {
        estimate.look(seen(look * 500, open, speed));
    }
    estimate
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_answered_in_time_is_refused_and_told_when_it_could() {
    // 1,000 jobs at 50 a second take 20 s.
    let mut slow = backlog(1000, 50.0);
    let told = refusal(slow.decide(at(10_000), PATIENCE, 0));
    assert_eq!(told.why, Why::Overloaded);
    assert!((14..=16).contains(&told.retry_after.as_secs()), "{told:?}");
    assert_eq!(slow.decide(at(10_000), Duration::from_secs(40), 0), Decision::Admit);
    assert_eq!(backlog(1000, 1000.0).decide(at(10_000), PATIENCE, 0), Decision::Admit);
}

#[test]
fn a_lane_in_which_nothing_is_signed_is_unavailable_once_it_is_seen_for_a_while() {
    let mut estimate = Estimate::default();
    let mut refused_at = None;
    for look in 0..20 {
        estimate.look(seen(look * 500, 20, 0.0));
        if let Decision::Refuse(refusal) = estimate.decide(at(look * 500), PATIENCE, 0) {
            assert_eq!(refusal.why, Why::Unavailable);
            refused_at = refused_at.or(Some(look * 500));
        }
    }
    let refused_at = refused_at.expect("it is noticed");
    assert!((2500..=4500).contains(&refused_at), "{refused_at}");
}

#[test]
fn requests_since_the_last_look_are_ahead_as_well_and_what_was_ended_is_not() {
    let mut estimate = backlog(100, 100.0);
    let in_time = |estimate: &mut Estimate, now| estimate.decide(at(now), PATIENCE, 0) == Decision::Admit;
    assert!(in_time(&mut estimate, 10_000));
    for _ in 0..400 {
        estimate.arrived();
    }
    assert!(!in_time(&mut estimate, 10_000), "500 jobs at 100 a second");
    assert!(in_time(&mut estimate, 11_000), "100 of them are ended by then");
    estimate.look(seen(10_500, 100, 100.0));
    assert!(in_time(&mut estimate, 10_500), "a look has them in the ledger");
}

#[test]
fn a_burst_into_an_idle_lane_is_not_judged_by_its_idle_speed() {
    let mut estimate = Estimate::default();
    for look in 0..20 {
        estimate.look(seen(look * 500, 0, 1.0));
    }
    for _ in 0..1000 {
        assert_eq!(estimate.decide(at(9_600), PATIENCE, 0), Decision::Admit);
        estimate.arrived();
    }
    estimate.look(seen(10_000, 900, 200.0));
    assert_eq!(estimate.decide(at(10_000), PATIENCE, 0), Decision::Admit);
}

#[test]
fn a_breaker_that_closed_after_an_hour_admits_the_first_request_whatever_waits() {
    let mut estimate = Estimate::default();
    for look in 0..7200 {
        estimate.look(unusable(look * 500, 5000));
        let decision = estimate.decide(at(look * 500), PATIENCE, look);
        assert!(
            matches!(decision, Decision::Refuse(_) | Decision::Probe),
            "{decision:?}"
        );
    }
    estimate.look(seen(3_600_000, 5000, 0.0));
    assert_eq!(estimate.decide(at(3_600_000), PATIENCE, 0), Decision::Admit);
}

#[test]
fn a_key_that_no_signer_names_is_unusable_only_after_a_while() {
    let absent = |millis| Look {
        key: Key::Absent,
        ..seen(millis, 50, 0.0)
    };
    let mut estimate = backlog(50, 1000.0);
    for look in 21..=27 {
        estimate.look(absent(look * 500));
        assert_eq!(estimate.decide(at(look * 500), PATIENCE, 0), Decision::Admit, "{look}");
    }
    estimate.look(absent(14_000));
    assert_eq!(refusal(estimate.decide(at(14_000), PATIENCE, 0)).why, Why::Unavailable);
    // What was broken before it was taken away is still.
    let mut estimate = Estimate::default();
    estimate.look(unusable(0, 50));
    estimate.look(absent(500));
    assert_eq!(refusal(estimate.decide(at(500), PATIENCE, 0)).why, Why::Unavailable);
    estimate.look(seen(1000, 50, 0.0));
    assert_eq!(estimate.decide(at(1000), PATIENCE, 0), Decision::Admit);
}

#[test]
fn when_to_come_back_grows_with_an_outage_and_is_not_the_same_for_all() {
    let mut estimate = Estimate::default();
    let mut after = Vec::new();
    for look in 0..400 {
        estimate.look(unusable(look * 500, 50));
        if let Decision::Refuse(refusal) = estimate.decide(at(look * 500), PATIENCE, 0) {
            after.push(refusal.retry_after);
        }
    }
    assert!(after.is_sorted());
    assert_eq!((after.first(), after.last()), (Some(&SOONEST), Some(&LATEST)));
    let early = refusal(estimate.decide(at(200_000), PATIENCE, 0)).retry_after;
    let late = refusal(estimate.decide(at(200_000), PATIENCE, u64::MAX)).retry_after;
    assert!(
        late > early + LATEST / 3 && late <= LATEST * 3 / 2,
        "{early:?} {late:?}"
    );
}

#[test]
fn the_share_of_the_refused_grows_with_the_wait() {
    let mut before = 0;
    for open in (400..700).step_by(10) {
        let mut estimate = backlog(open, 100.0);
        let refused = (0..256_u64)
            .filter(|n| matches!(estimate.decide(at(10_000), PATIENCE, n << 24), Decision::Refuse(_)))
            .count();
        assert!(
            refused + 3 >= before,
            "{refused} of 256 with {open} ahead, and {before} with fewer"
        );
        assert!(refused <= before + 32, "a cliff from {before} to {refused} at {open}");
        before = refused;
    }
    assert!(before >= 250, "{before}");
}

#[test]
fn a_client_whose_load_is_above_capacity_settles_at_its_patience() {
    // 200 a second come, 100 are signed; whoever is refused goes away.
    let (mut estimate, mut open, mut depths) = (Estimate::default(), 0_u64, Vec::new());
    for step in 0..12_000_u64 {
        let now = at(step * 5);
        if step % 100 == 0 {
            estimate.look(seen(step * 5, open, if open > 0 { 100.0 } else { 0.0 }));
        }
        let entropy = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        if !matches!(estimate.decide(now, PATIENCE, entropy), Decision::Refuse(_)) {
            estimate.arrived();
            open += 1;
        }
        open = open.saturating_sub(step % 2);
        if step > 6000 {
            depths.push(open);
        }
    }
    let (least, most) = (depths.iter().min().unwrap(), depths.iter().max().unwrap());
    assert!(
        (440..=600).contains(least) && (440..=610).contains(most),
        "{least} to {most}"
    );
    assert!(most - least < 80, "it swings from {least} to {most}");
}

#[derive(Debug, Clone)]
enum Step {
    Look { open: u64, key: Key, speed: Option<f64> },
    Ask { patience_ms: u64, entropy: u64 },
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let key = prop_oneof![
        Just(Key::Unknown),
        Just(Key::Usable),
        Just(Key::Unusable),
        Just(Key::Absent)
    ];
    let speed = proptest::option::weighted(0.9, prop_oneof![Just(0.0), 0.0..10_000.0]);
    let open = prop_oneof![0..16_u64, 0..20_000_u64];
    let look = (open, key, speed).prop_map(|(open, key, speed)| Step::Look { open, key, speed });
    let ask = (1..60_000_u64, any::<u64>()).prop_map(|(patience_ms, entropy)| Step::Ask { patience_ms, entropy });
    let pause = prop_oneof![0..20_u64, 400..600_u64, 0..5000_u64];
    proptest::collection::vec((pause, prop_oneof![look, ask]), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn it_never_refuses_below_eight_ahead_nor_on_old_figures_nor_without_a_speed_of_a_usable_key(steps in steps()) {
        let mut estimate = Estimate::default();
        let (mut now, mut arrived) = (0, 0);
        let mut last: Option<Look> = None;
        let (mut usable_since, mut absent_since, mut broken) = (None, None, false);
        for (pause, step) in steps {
            now += pause;
            match step {
                Step::Look { open, key, speed } => {
                    let look = Look { at: at(now), open, key, speed };
                    estimate.look(look);
                    (last, arrived) = (Some(look), 0);
                    match key {
                        Key::Usable | Key::Unknown => {
                            usable_since = usable_since.or(Some(now));
                            (absent_since, broken) = (None, false);
                        }
                        Key::Unusable | Key::Absent => {
                            usable_since = None;
                            absent_since = absent_since.or(Some(now));
                            broken |= key == Key::Unusable;
                        }
                    }
                }
                Step::Ask { patience_ms, entropy } => {
                    let decision = estimate.decide(at(now), at(patience_ms), entropy);
                    let Decision::Refuse(refusal) = decision else {
                        estimate.arrived();
                        arrived += 1;
                        continue;
                    };
                    let look = last.expect("refused without a look");
                    prop_assert!(look.open + arrived >= SPARE);
                    prop_assert!(at(now) <= look.at + FRESH);
                    prop_assert!(refusal.retry_after >= SOONEST && refusal.retry_after <= LATEST * 3 / 2);
                    match look.key {
                        Key::Unusable => prop_assert_eq!(refusal.why, Why::Unavailable),
                        Key::Absent => {
                            prop_assert_eq!(refusal.why, Why::Unavailable);
                            let absent_for = look.at.saturating_sub(at(absent_since.expect("it is absent")));
                            prop_assert!(broken || absent_for > FRESH, "refused after {absent_for:?}");
                        }
                        Key::Usable | Key::Unknown => {
                            prop_assert!(look.speed.is_some() && look.open >= SPARE);
                            let usable_for = now - usable_since.expect("it is usable");
                            prop_assert!(at(usable_for) >= SETTLING, "refused {usable_for} ms after the key came back");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn of_a_hundred_requests_in_a_row_one_goes_on(
        open in 8..100_000_u64, speed in 0.0..100.0, gone in any::<bool>(), entropy in any::<u64>(),
    ) {
        let mut estimate = backlog(open, speed);
        if gone {
            estimate.look(unusable(10_000, open));
        }
        let mut in_a_row = 0;
        for n in 0..1000_u64 {
            let decision = estimate.decide(at(10_000), PATIENCE, entropy.rotate_left(u32::try_from(n % 64).unwrap()));
            in_a_row = if matches!(decision, Decision::Refuse(_)) { in_a_row + 1 } else { 0 };
            prop_assert!(in_a_row < PROBE_EVERY, "{in_a_row}");
        }
    }

    #[test]
    fn nobody_is_refused_whose_wait_is_well_within_his_patience(open in 0..100_000_u64, speed in 1.0..10_000.0, entropy in any::<u64>()) {
        let mut estimate = backlog(open, speed);
        let patience = Duration::from_secs_f64(number(open.max(1)) / speed * 1.4);
        prop_assert_eq!(estimate.decide(at(10_000), patience, entropy), Decision::Admit);
    }
}
