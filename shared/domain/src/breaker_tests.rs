//! The breaker step by step, and over a million random sequences of calls, orders and clocks.

use super::*;
use crate::backoff::Entropy;

const SETTINGS: Settings = Settings {
    consecutive: 5,
    window: Duration::from_secs(10),
    volume: 20,
    failure_percent: 50,
    slow: Duration::from_secs(1),
    slow_percent: 50,
    open: Backoff {
        first: Duration::from_millis(400),
        longest: Duration::from_secs(5),
        jitter_percent: 0,
    },
    ramp_step: Duration::from_millis(100),
};
const FAST: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(1500);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

/// One call from beginning to end.
fn call(breaker: &mut Breaker, outcome: Outcome, took: Duration, millis: i64) -> Option<Change> {
    let permit = breaker.permit(&SETTINGS, at(millis)).expect("it is allowed");
    breaker.record(&SETTINGS, permit, (outcome, took), at(millis), 0)
}

fn opened(millis: i64) -> Breaker {
    let mut breaker = Breaker::new();
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Outcome::Failed, FAST, millis), None);
    }
    let change = call(&mut breaker, Outcome::Failed, FAST, millis);
    assert_eq!(change, Some(Change::Opened(Cause::Consecutive)));
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::new();
    for round in 0..3 {
        for _ in 0..4 {
            assert_eq!(call(&mut breaker, Outcome::Failed, FAST, round), None);
        }
        assert_eq!(call(&mut breaker, Outcome::Succeeded, FAST, round), None);
    }
    assert_eq!(opened(0).standing(), Standing::Open);
}

#[test]
fn a_flickering_key_opens_it_by_its_rate_once_there_are_enough_calls() {
    let mut breaker = Breaker::new();
    for number in 0..19 {
        let outcome = if number % 2 == 0 {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        assert_eq!(call(&mut breaker, outcome, FAST, number * 100), None, "call {number}");
    }
    let change = call(&mut breaker, Outcome::Failed, FAST, 1900);
    assert_eq!(change, Some(Change::Opened(Cause::Rate)));
}

#[test]
fn old_failures_leave_the_window() {
    let mut breaker = Breaker::new();
    for number in 0..16 {
        let outcome = if number % 2 == 0 {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        assert_eq!(call(&mut breaker, outcome, FAST, 0), None);
    }
    // Eleven seconds later, of twenty calls a quarter fails.
    for number in 0..20 {
        let outcome = if number % 4 == 0 {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        assert_eq!(call(&mut breaker, outcome, FAST, 11_000), None);
    }
}

#[test]
fn slow_calls_open_it_and_a_slow_probe_keeps_it_open() {
    let mut breaker = Breaker::new();
    for number in 0..19 {
        assert_eq!(call(&mut breaker, Outcome::Succeeded, SLOW, number), None);
    }
    let change = call(&mut breaker, Outcome::Succeeded, SLOW, 20);
    assert_eq!(change, Some(Change::Opened(Cause::Slow)));
    let change = call(&mut breaker, Outcome::Succeeded, SLOW, 420);
    assert_eq!(change, Some(Change::Opened(Cause::Slow)));
    assert_eq!(call(&mut breaker, Outcome::Succeeded, FAST, 1220), Some(Change::Closed));
}

#[test]
fn a_key_that_is_gone_opens_it_at_once() {
    let mut breaker = Breaker::new();
    let change = call(&mut breaker, Outcome::Gone, FAST, 0);
    assert_eq!(change, Some(Change::Opened(Cause::Gone)));
}

#[test]
fn exactly_one_probe_is_out_and_each_that_fails_doubles_the_pause_up_to_the_cap() {
    let mut breaker = opened(0);
    let mut now = 0;
    for pause in [400, 800, 1600, 3200, 5000, 5000, 5000] {
        assert!(!breaker.admits(&SETTINGS, at(now + pause - 1)), "pause {pause}");
        assert_eq!(breaker.permit(&SETTINGS, at(now + pause - 1)), None);
        now += pause;
        let probe = breaker.permit(&SETTINGS, at(now)).unwrap();
        assert!(probe.is_probe());
        assert_eq!(breaker.standing(), Standing::HalfOpen);
        assert_eq!(breaker.permit(&SETTINGS, at(now + 60_000)), None, "one is out");
        let change = breaker.record(&SETTINGS, probe, (Outcome::Failed, FAST), at(now), 0);
        assert_eq!(change, Some(Change::Opened(Cause::Probe)));
    }
    assert_eq!(
        call(&mut breaker, Outcome::Succeeded, FAST, now + 5000),
        Some(Change::Closed)
    );
}

#[test]
fn a_late_answer_from_before_the_trip_proves_nothing() {
    let mut breaker = Breaker::new();
    let early: Vec<Permit> = (0..10).map(|_| breaker.permit(&SETTINGS, at(0)).unwrap()).collect();
    for permit in &early[..5] {
        breaker.record(&SETTINGS, *permit, (Outcome::Failed, FAST), at(10), 0);
    }
    assert_eq!(breaker.probe_at(), Some(at(410)));
    let late =
        |breaker: &mut Breaker, outcome, millis| breaker.record(&SETTINGS, early[7], (outcome, FAST), at(millis), 0);
    assert_eq!(late(&mut breaker, Outcome::Failed, 20), None);
    assert_eq!(breaker.probe_at(), Some(at(410)), "it lengthens no pause");
    assert_eq!(late(&mut breaker, Outcome::Succeeded, 30), None);
    let probe = breaker.permit(&SETTINGS, at(410)).unwrap();
    assert_eq!(late(&mut breaker, Outcome::Succeeded, 420), None);
    assert_eq!(breaker.standing(), Standing::HalfOpen, "it is not taken for the probe");
    let change = breaker.record(&SETTINGS, probe, (Outcome::Succeeded, FAST), at(430), 0);
    assert_eq!(change, Some(Change::Closed));
    for permit in &early {
        assert_eq!(
            breaker.record(&SETTINGS, *permit, (Outcome::Gone, FAST), at(440), 0),
            None
        );
    }
    assert_eq!(breaker.standing(), Standing::Closed);
}

#[test]
fn a_probe_that_proves_nothing_hands_its_place_back() {
    let mut breaker = opened(0);
    assert_eq!(call(&mut breaker, Outcome::Unproven, FAST, 400), None);
    assert_eq!(breaker.standing(), Standing::Open);
    assert_eq!(breaker.probe_at(), Some(at(800)), "and the pause is not longer for it");
    assert_eq!(call(&mut breaker, Outcome::Succeeded, FAST, 800), Some(Change::Closed));
}

#[test]
fn after_a_recovery_it_wakes_up_by_steps() {
    let mut breaker = opened(0);
    call(&mut breaker, Outcome::Succeeded, FAST, 400);
    let allowed = [0, 99, 100, 250, 900, 1000].map(|millis| breaker.allowance(&SETTINGS, at(400 + millis)));
    assert_eq!(allowed, [1, 1, 2, 4, 512, usize::MAX]);
    assert_eq!(breaker.ramps_at(&SETTINGS, at(450)), Some(at(550)));
    assert_eq!(breaker.ramps_at(&SETTINGS, at(1400)), None);
    assert_eq!(Breaker::new().allowance(&SETTINGS, at(0)), usize::MAX);
}

#[test]
fn one_that_opens_again_soon_stays_open_longer_and_after_a_good_while_does_not() {
    let mut breaker = opened(0);
    call(&mut breaker, Outcome::Succeeded, FAST, 400);
    call(&mut breaker, Outcome::Gone, FAST, 500);
    assert_eq!(breaker.probe_at(), Some(at(1300)));
    call(&mut breaker, Outcome::Succeeded, FAST, 1300);
    call(&mut breaker, Outcome::Gone, FAST, 11_300);
    assert_eq!(breaker.probe_at(), Some(at(11_700)));
}

#[test]
fn an_operator_has_the_last_word() {
    let mut breaker = Breaker::new();
    let before = breaker.permit(&SETTINGS, at(0)).unwrap();
    assert_eq!(
        breaker.force(Some(Force::Open), at(0)),
        Some(Change::Opened(Cause::Forced))
    );
    assert!(!breaker.admits(&SETTINGS, at(1_000_000)) && breaker.probe_at().is_none());
    assert_eq!(
        breaker.record(&SETTINGS, before, (Outcome::Succeeded, FAST), at(1), 0),
        None
    );
    assert_eq!(breaker.force(None, at(2)), None, "a probe comes first");
    assert_eq!(call(&mut breaker, Outcome::Succeeded, FAST, 2), Some(Change::Closed));

    breaker.force(Some(Force::Closed), at(3));
    for _ in 0..100 {
        assert_eq!(call(&mut breaker, Outcome::Gone, SLOW, 3), None);
    }
    let mut open = opened(0);
    assert_eq!(open.force(Some(Force::Closed), at(4)), Some(Change::Closed));
    assert_eq!(open.force(None, at(5)), None);
    assert_eq!(open.standing(), Standing::Closed);
}

#[test]
fn observed_only_it_says_what_it_would_do_as_often_as_it_would_and_never_acts() {
    let mut breaker = Breaker::new();
    breaker.force(Some(Force::ObserveOnly), at(0));
    let mut said = 0;
    for millis in 0..1000 {
        let change = call(&mut breaker, Outcome::Failed, FAST, millis);
        assert!(matches!(change, None | Some(Change::WouldOpen(Cause::Consecutive))));
        said += usize::from(change.is_some());
        assert_eq!(breaker.standing(), Standing::Closed);
    }
    assert_eq!(said, 3, "every 400 ms and five failures");
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_keeps_nobody_out_for_an_hour() {
    let mut breaker = opened(3_600_000);
    assert!(breaker.admits(&SETTINGS, at(0)));
    assert_eq!(call(&mut breaker, Outcome::Succeeded, FAST, 0), Some(Change::Closed));
    assert_eq!(call(&mut breaker, Outcome::Failed, FAST, -3_600_000), None);
    assert_eq!(breaker.allowance(&SETTINGS, at(-3_600_000)), usize::MAX);
}

/// What holds after every event of every sequence, whatever calls do, in whatever order their answers come.
#[test]
fn no_sequence_lets_two_probes_out_or_lets_a_stale_or_unproven_answer_move_it() {
    const SEQUENCES: u32 = 1_000_000;
    let mut entropy = Entropy::new(0x5EED);
    let mut trips = 0_u64;
    for _ in 0..SEQUENCES {
        let mut breaker = Breaker::new();
        let mut out: Vec<Permit> = Vec::new();
        let mut now = 0;
        // Some keys are fine, some are bad, some flicker.
        let badness = entropy.draw() % 4;
        for _ in 0..8 + entropy.draw() % 24 {
            let draw = entropy.draw();
            now += i64::try_from(draw % 300).unwrap();
            if (draw >> 16).is_multiple_of(64) {
                let forces = [None, Some(Force::Open), Some(Force::Closed), Some(Force::ObserveOnly)];
                breaker.force(forces[usize::try_from((draw >> 24) % 4).unwrap()], at(now));
                continue;
            }
            if (draw >> 16) % 8 < 4 || out.is_empty() {
                let admits = breaker.admits(&SETTINGS, at(now));
                let permit = breaker.permit(&SETTINGS, at(now));
                assert_eq!(permit.is_some(), admits);
                out.extend(permit);
                let probes = out
                    .iter()
                    .filter(|other| other.probe && other.generation == breaker.generation);
                assert_eq!(
                    probes.count(),
                    usize::from(breaker.state == State::HalfOpen),
                    "{breaker:?}"
                );
                continue;
            }
            let permit = out.swap_remove(usize::try_from((draw >> 32) % out.len() as u64).unwrap());
            let outcome = match (draw >> 40) % 4 {
                outcome if outcome >= badness => Outcome::Succeeded,
                0 => Outcome::Failed,
                1 => Outcome::Unproven,
                _ => Outcome::Gone,
            };
            let stale = permit.generation != breaker.generation;
            let (before, force) = (breaker.generation, breaker.force);
            let change = breaker.record(&SETTINGS, permit, (outcome, FAST), at(now), draw);
            assert!(change.is_none() || !stale, "a stale answer did something");
            assert!(change.is_none() || outcome != Outcome::Unproven, "nothing was proven");
            assert!(
                badness > 0 || !matches!(change, Some(Change::Opened(_))),
                "nothing failed"
            );
            let moves = matches!(change, Some(Change::Opened(_) | Change::Closed));
            assert_eq!(moves, breaker.generation != before);
            assert!(!moves || force.is_none(), "an operator had said otherwise");
            if let Some(until) = breaker.probe_at() {
                assert!(until.since(at(now)) <= SETTINGS.open.longest);
            }
            trips += u64::from(matches!(change, Some(Change::Opened(_))));
        }
    }
    assert!(
        trips > u64::from(SEQUENCES) / 20,
        "nothing ever opened: the sequences are too tame"
    );
}
