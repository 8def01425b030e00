//! Breakers, probes, canaries, back-off and standing down, step by step.

use super::{
    tests::{Bench, LIMITS, NOW, begun, lane, serial, serving},
    *,
};
use crate::{
    breaker::{Cause, Force, Standing},
    failure::{Failure, KeysFailure, Refused},
    lane::Carrier,
};

const FAILED: Failure = Failure::Keys(KeysFailure::OperationFailed);
const DEVICE: Failure = Failure::Keys(KeysFailure::Device);
const GONE: Failure = Failure::Keys(KeysFailure::KeyNotFound);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn probes(effects: &[Effect]) -> Vec<(u64, ProbeKey)> {
    let probe = |effect: &Effect| match effect {
        Effect::Probe { probe, key, .. } => Some((*probe, key.clone())),
        _ => None,
    };
    effects.iter().filter_map(probe).collect()
}

fn alerts(effects: &[Effect]) -> Vec<Alert> {
    let alert = |effect: &Effect| match effect {
        Effect::Alert(alert) => Some(alert.clone()),
        _ => None,
    };
    effects.iter().filter_map(alert).collect()
}

impl Bench {
    fn after(&mut self, count: u64) -> Vec<Effect> {
        self.now = self.now + millis(count);
        self.handle(Event::Tick)
    }

    fn probed(&mut self, probe: u64, result: Result<(), Failure>) -> Vec<Effect> {
        let took = millis(3);
        self.handle(Event::Probed { probe, result, took })
    }

    /// Ticks until a probe is sent, for at most a minute.
    fn next_probe(&mut self) -> (u64, ProbeKey) {
        for _ in 0..3000 {
            if let Some(probe) = self.probes.pop_front() {
                return probe;
            }
            self.after(20);
        }
        panic!("nothing is probed: {:?}", self.dispatcher.status());
    }

    /// Opens the breaker of an issuer by failures in a row.
    fn open(&mut self, issuer: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for number in 0..5 {
            effects = self.attempt(issuer, number, Err(FAILED));
        }
        effects
    }

    fn standing(&self, issuer: &str) -> Standing {
        let found = self.dispatcher.breakers().find(|(id, _)| id.as_str() == issuer);
        found.map_or(Standing::Closed, |(_, standing)| standing)
    }

    fn tokens_out(&self) -> usize {
        self.dispatcher.tokens_out().count()
    }
}

fn id(issuer: &str) -> IssuerId {
    issuer.parse().unwrap()
}

fn token(name: &str) -> TokenId {
    name.parse().unwrap()
}

#[test]
fn an_issuer_whose_key_fails_is_left_to_others_after_200_ms_and_costs_nobody_anything() {
    let mut bench = Bench::serving(&["a", "b"]);
    let effects = bench.open("a");
    assert_eq!(alerts(&effects), [Alert::BreakerOpened(id("a"), Cause::Consecutive)]);
    assert_eq!(bench.standing("a"), Standing::Open);
    let waiting: Vec<u8> = (10..100).collect();
    assert_eq!(bench.deliver(10, "a", &waiting), [], "it waits, and holds no slot");
    assert_eq!(bench.dispatcher.status().in_flight, 0);
    bench.attempt("b", 200, Ok(()));
    assert_eq!(bench.after(199), []);
    assert_eq!(
        bench.after(1),
        [Effect::PauseLane(lane("a"))],
        "what is held and not begun goes back"
    );
    assert_eq!(bench.dispatcher.status().waiting, 0);
    bench.attempt("b", 201, Ok(()));
    assert_eq!(bench.tokens_out(), 0);
}

#[test]
fn one_canary_with_its_own_key_finds_out_whether_it_works_and_does_not_take_up_its_lanes() {
    let mut bench = Bench::serving(&["a"]);
    bench.open("a");
    let (first, key) = bench.next_probe();
    assert_eq!(key, ProbeKey::Issuer(id("a")));
    assert_eq!(bench.standing("a"), Standing::HalfOpen);
    for _ in 0..100 {
        assert_eq!(bench.after(100), [], "one is out");
    }
    assert_eq!(bench.probed(first, Err(FAILED)), []);
    assert_eq!(bench.probed(first, Ok(())), [], "it was answered");
    let (second, _) = bench.next_probe();
    let effects = bench.probed(second, Ok(()));
    assert_eq!(
        effects,
        [
            Effect::Alert(Alert::BreakerClosed(id("a"))),
            Effect::ResumeLane(lane("a"))
        ]
    );
}

#[test]
fn lanes_of_a_flapping_issuer_are_taken_up_once_in_two_seconds() {
    let mut bench = Bench::serving(&["a"]);
    let mut resumed = Vec::new();
    for round in 0..200_u64 {
        if bench.standing("a") == Standing::Closed && bench.dispatcher.lanes.paused_len() == 0 {
            bench.attempt("a", u8::try_from(round).unwrap(), Err(GONE));
        }
        let effects = bench.after(50);
        let mut all = effects.clone();
        while let Some((probe, _)) = bench.probes.pop_front() {
            all.extend(bench.probed(probe, Ok(())));
        }
        if all.contains(&Effect::ResumeLane(lane("a"))) {
            resumed.push(bench.now);
        }
    }
    assert!(resumed.len() >= 3, "{resumed:?}");
    for pair in resumed.windows(2) {
        assert!(pair[1].since(pair[0]) >= Duration::from_secs(2), "{resumed:?}");
    }
}

#[test]
fn a_key_that_is_gone_opens_its_breaker_at_once_and_the_token_is_tested_and_cleared() {
    let mut bench = Bench::serving(&["a", "b"]);
    let effects = bench.attempt("a", 1, Err(GONE));
    assert_eq!(alerts(&effects), [Alert::BreakerOpened(id("a"), Cause::Gone)]);
    let (probe, key) = bench.next_probe();
    assert_eq!(key, ProbeKey::Canary);
    bench.probed(probe, Ok(()));
    assert_eq!((bench.tokens_out(), bench.standing("b")), (0, Standing::Closed));
}

#[test]
fn jobs_that_are_begun_and_have_no_worker_yet_go_back_when_the_breaker_opens() {
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let effects = bench.begin_all("a", &[1, 2, 3, 4, 5, 6, 7, 8], 1);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Run { .. })).count(), 2);
    let effects = bench.ran(1, 1, Err(GONE));
    let deferred = |e: &&Effect| matches!(e, Effect::Defer { .. });
    assert_eq!(
        effects.iter().filter(deferred).count(),
        7,
        "six that waited, and itself: {effects:?}"
    );
}

#[test]
fn where_its_key_may_sign_nothing_else_the_oldest_job_is_the_probe() {
    let mut bench = Bench::serving(&["a"]);
    let mut oldest = serving(Carrier::Own, 8, "hsm");
    oldest.probe_by = ProbeBy::OldestJob;
    bench.handle(Event::Served(vec![(lane("a"), oldest)]));
    bench.open("a");
    assert_eq!(bench.after(200), [Effect::PauseLane(lane("a"))]);
    bench.dispatcher.next_claim = bench.now;
    assert_eq!(bench.after(1), [], "nothing is claimed while it is open");
    bench.dispatcher.next_claim = bench.now + Duration::from_millis(300);
    let effects = bench.after(400);
    let Some(Effect::Claim(asked)) = effects.first() else {
        panic!("a job is wanted: {effects:?}");
    };
    let asked = asked.clone();
    let jobs = [7, 8].map(|number| (lane("a"), tests::hint(number))).into();
    let effects = bench.handle(Event::Claimable { asked, jobs });
    assert_eq!(effects, [Effect::Begin(vec![serial(7)])], "one, and only one");
    bench.begin_all("a", &[7], 1);
    bench.ran(
        7,
        1,
        Err(Failure::Request(Refused {
            id: "policy_violation",
            detail: String::new(),
        })),
    );
    assert_eq!(bench.standing("a"), Standing::Open, "it proved nothing");
    bench.recorded(7, 1);
    let effects = bench.after(500);
    assert!(effects.contains(&Effect::Begin(vec![serial(8)])), "{effects:?}");
    bench.begin_all("a", &[8], 1);
    let effects = bench.ran(8, 1, Ok(()));
    assert!(
        effects.contains(&Effect::Alert(Alert::BreakerClosed(id("a")))),
        "{effects:?}"
    );
}

#[test]
fn a_device_error_is_the_issuers_own_if_the_canary_works() {
    let mut bench = Bench::serving(&["a", "b"]);
    for number in 0..5 {
        assert_eq!(bench.standing("a"), Standing::Closed);
        bench.attempt("a", number, Err(DEVICE));
        let (probe, key) = bench.next_probe();
        assert_eq!(key, ProbeKey::Canary);
        let before = bench.now;
        let effects = bench.attempt("b", 100 + number, Ok(()));
        assert!(!effects.is_empty() && bench.now == before, "others go on");
        bench.probed(probe, Ok(()));
    }
    assert_eq!((bench.standing("a"), bench.tokens_out()), (Standing::Open, 0));
}

/// Answers canaries until none is sent for a second: with `works` for the canary key and for issuers' keys. How many were sent.
fn answer_canaries(bench: &mut Bench, canary: bool, issuers: bool) -> Vec<ProbeKey> {
    let mut sent = Vec::new();
    let mut quiet = 0;
    while quiet < 50 && sent.len() < 100 {
        quiet += 1;
        bench.after(20);
        while let Some((probe, key)) = bench.probes.pop_front() {
            sent.push(key.clone());
            quiet = 0;
            let works = if key == ProbeKey::Canary { canary } else { issuers };
            bench.probed(probe, if works { Ok(()) } else { Err(DEVICE) });
        }
        if bench.tokens_out() > 0 {
            break;
        }
    }
    sent
}

#[test]
fn a_token_is_out_when_the_canary_key_and_three_issuers_keys_fail_and_back_when_one_works() {
    let mut bench = Bench::serving(&["a", "b", "c", "d"]);
    bench.attempt("a", 1, Err(DEVICE));
    let sent = answer_canaries(&mut bench, false, false);
    let expected = ["a", "b", "c"].map(|issuer| ProbeKey::Issuer(id(issuer)));
    assert_eq!((&sent[0], &sent[1..]), (&ProbeKey::Canary, &expected[..]));
    for pair in bench.sent.windows(2) {
        assert!(pair[1].since(pair[0]) >= millis(200), "{:?}", bench.sent);
    }
    let status = bench.dispatcher.status();
    assert_eq!(
        (bench.tokens_out(), status.backs_off, status.shut),
        (1, true, 0),
        "no issuer's breaker hears of it"
    );
    assert_eq!(bench.deliver(50, "b", &[50]), [], "its lanes are left to others");
    let mut pauses = Vec::new();
    let mut last = bench.now;
    for _ in 0..8 {
        let (probe, _) = bench.next_probe();
        pauses.push(bench.now.since(last));
        last = bench.now;
        bench.probed(probe, Err(DEVICE));
    }
    assert!(
        pauses.iter().all(|pause| *pause <= Duration::from_secs(16)),
        "{pauses:?}"
    );
    assert!(pauses[7] > pauses[0] * 4, "they grow: {pauses:?}");
    let (probe, _) = bench.next_probe();
    let effects = bench.probed(probe, Ok(()));
    assert_eq!(alerts(&effects), [Alert::TokenBack(token("hsm")), Alert::BackOffEnded]);
    let resumed = effects.iter().filter(|e| matches!(e, Effect::ResumeLane(_)));
    assert_eq!(resumed.count(), 4);
    bench.attempt("b", 60, Ok(()));
}

#[test]
fn a_canary_key_that_is_missing_makes_no_token_sick_and_somebody_hears_of_it() {
    let mut bench = Bench::serving(&["a", "b"]);
    let mut told = 0;
    for number in 0..20 {
        bench.attempt("a", number, Err(DEVICE));
        for _ in 0..60 {
            bench.after(20);
            while let Some((probe, key)) = bench.probes.pop_front() {
                let result = if key == ProbeKey::Canary { Err(GONE) } else { Ok(()) };
                let effects = bench.probed(probe, result);
                told += alerts(&effects)
                    .iter()
                    .filter(|a| **a == Alert::CanaryKeyFails(token("hsm")))
                    .count();
                assert!(!effects.contains(&Effect::AskPermit), "nobody stands down for it");
            }
        }
        if bench.standing("a") != Standing::Closed {
            break;
        }
    }
    assert_eq!((told, bench.tokens_out(), bench.standing("a")), (1, 0, Standing::Open));
    bench.attempt("b", 200, Ok(()));
}

#[test]
fn a_refused_pin_takes_the_token_out_without_any_further_try_until_an_operator_says_so() {
    let mut bench = Bench::serving(&["a"]);
    let pin = || Failure::Keys(KeysFailure::PinRefused);
    let effects = bench.attempt("a", 1, Err(pin()));
    assert_eq!(
        alerts(&effects),
        [Alert::TokenOut(token("hsm"), true), Alert::BackedOff]
    );
    for _ in 0..1000 {
        assert_eq!(probes(&bench.after(100)), [], "that would be another try");
    }
    assert_eq!(bench.standing("a"), Standing::Closed);
    bench.handle(Event::TokenUnlocked(token("hsm")));
    let (probe, _) = bench.next_probe();
    let effects = bench.probed(probe, Ok(()));
    assert_eq!(alerts(&effects), [Alert::TokenBack(token("hsm")), Alert::BackOffEnded]);
}

#[test]
fn one_token_of_two_that_is_out_takes_its_issuers_alone() {
    let mut bench = Bench::serving(&[]);
    let lanes = vec![
        (lane("a"), serving(Carrier::Own, 8, "one")),
        (lane("b"), serving(Carrier::Own, 8, "two")),
    ];
    bench.handle(Event::Served(lanes));
    bench.attempt("a", 1, Err(DEVICE));
    let sent = answer_canaries(&mut bench, false, false);
    assert_eq!(sent.len(), 2, "its canary key, and the one issuer's: {sent:?}");
    assert_eq!((bench.tokens_out(), bench.dispatcher.status().backs_off), (1, false));
    bench.attempt("b", 2, Ok(()));
    assert_eq!(bench.deliver(3, "a", &[3]), []);
}

#[test]
fn a_token_that_hangs_leaves_slots_and_workers_to_another() {
    let mut bench = Bench::serving(&[]);
    let hanging: Vec<String> = (0..40).map(|number| format!("a{number}")).collect();
    let mut lanes: Vec<(Lane, Serving)> = hanging
        .iter()
        .map(|a| (lane(a), serving(Carrier::Own, 8, "one")))
        .collect();
    lanes.push((lane("b"), serving(Carrier::Own, 8, "two")));
    bench.handle(Event::Served(lanes));
    let mut number = 0;
    let mut effects = Vec::new();
    for issuer in &hanging {
        number += 1;
        effects.extend(bench.deliver(number.into(), issuer, &[number]));
    }
    let mut runs = 0;
    while let Some(Effect::Begin(jobs)) = effects.iter().find(|e| matches!(e, Effect::Begin(_))) {
        let of = |job: &crate::id::Serial| {
            let number = usize::from(job.as_bytes()[6]) - 1;
            begun(&lane(&hanging[number]), &[*job], 1)
        };
        let begun = jobs.iter().flat_map(of).collect();
        effects = bench.handle(Event::Begun { begun, not: Vec::new() });
        runs += effects.iter().filter(|e| matches!(e, Effect::Run { .. })).count();
    }
    assert_eq!(
        (bench.dispatcher.status().in_flight, runs),
        (LIMITS.in_flight / 2, LIMITS.workers / 2)
    );
    bench.attempt("b", 200, Ok(()));
}

/// Lets the token go out and come back three times, which is too often to be well.
fn flicker(bench: &mut Bench) -> Vec<Effect> {
    let mut effects = Vec::new();
    for number in 0..3 {
        assert!(
            !effects.contains(&Effect::AskPermit),
            "it is not asked for less than three troubles"
        );
        bench.attempt("a", number, Err(DEVICE));
        while bench.tokens_out() == 0 {
            let (probe, _) = bench.next_probe();
            bench.probed(probe, Err(DEVICE));
        }
        let (probe, _) = bench.next_probe();
        effects = bench.probed(probe, Ok(()));
    }
    effects
}

#[test]
fn a_signer_that_flickers_stands_down_with_a_permit_until_its_tokens_are_well() {
    let mut bench = Bench::serving(&["a"]);
    assert!(flicker(&mut bench).contains(&Effect::AskPermit));
    let effects = bench.handle(Event::PermitGranted);
    assert_eq!(alerts(&effects), [Alert::StoodDown]);
    assert!(bench.dispatcher.status().stands_down && !bench.dispatcher.status().beginning);
    assert_eq!(bench.deliver(90, "a", &[90]), []);
    let mut canaries = 0;
    let effects = loop {
        let (probe, _) = bench.next_probe();
        canaries += 1;
        let effects = bench.probed(probe, Ok(()));
        if effects.contains(&Effect::ReturnPermit) {
            break effects;
        }
        assert!(canaries < 20);
    };
    assert!(canaries >= 5, "{canaries}");
    assert!(effects.contains(&Effect::Alert(Alert::StandDownEnded)), "{effects:?}");
    bench.attempt("a", 91, Ok(()));
}

#[test]
fn without_a_permit_it_goes_on_with_one_job_a_token() {
    let mut bench = Bench::serving(&["a", "b"]);
    assert!(flicker(&mut bench).contains(&Effect::AskPermit));
    let effects = bench.handle(Event::PermitRefused);
    assert_eq!(alerts(&effects), [Alert::StandDownRefused]);
    assert_eq!(bench.deliver(100, "b", &[100, 101]), [Effect::Begin(vec![serial(100)])]);
    let effects = bench.begin_all("b", &[100], 1);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Begin(_))), "{effects:?}");
    bench.ran(100, 1, Ok(()));
    let effects = bench.recorded(100, 1);
    assert!(effects.contains(&Effect::Begin(vec![serial(101)])), "{effects:?}");
}

#[test]
fn a_permit_is_asked_for_anew_and_whoever_is_needed_takes_jobs_again() {
    let mut bench = Bench::serving(&["a"]);
    assert!(flicker(&mut bench).contains(&Effect::AskPermit));
    bench.handle(Event::PermitGranted);
    let asks = |effects: &[Effect]| effects.iter().filter(|e| **e == Effect::AskPermit).count();
    assert_eq!(asks(&bench.after(900)), 0);
    assert_eq!(asks(&bench.after(100)), 1);
    assert_eq!(asks(&bench.after(5000)), 0, "one question at a time");
    assert_eq!(alerts(&bench.handle(Event::PermitGranted)), []);
    assert!(bench.dispatcher.status().stands_down);
    assert_eq!(asks(&bench.after(1000)), 1);
    // The other holders are gone.
    let effects = bench.handle(Event::PermitRefused);
    assert_eq!(alerts(&effects), [Alert::StandDownRefused]);
    assert!(!bench.dispatcher.status().stands_down && bench.dispatcher.status().beginning);
    assert_eq!(bench.deliver(100, "a", &[100]), [Effect::Begin(vec![serial(100)])]);
}

#[test]
fn an_answer_from_before_the_lease_was_lost_gives_no_permit() {
    let mut bench = Bench::serving(&["a"]);
    flicker(&mut bench);
    bench.handle(Event::PermitGranted);
    let effects = bench.after(1000);
    assert!(effects.contains(&Effect::AskPermit), "{effects:?}");
    bench.handle(Event::Hindered(Hindrance::Lease));
    bench.handle(Event::Freed(Hindrance::Lease));
    let effects = bench.handle(Event::PermitGranted);
    assert!(effects.contains(&Effect::AskPermit), "{effects:?}");
    assert!(!bench.dispatcher.status().stands_down);
    bench.handle(Event::PermitGranted);
    assert!(bench.dispatcher.status().stands_down);
}

#[test]
fn a_permit_that_nobody_asked_for_any_more_goes_back() {
    let mut bench = Bench::serving(&["a"]);
    assert_eq!(bench.handle(Event::PermitGranted), [Effect::ReturnPermit]);
    assert!(!bench.dispatcher.status().stands_down);
}

#[test]
fn operators_force_breakers_and_take_their_orders_back() {
    let mut bench = Bench::serving(&["a", "b"]);
    let effects = bench.handle(Event::Forced(vec![(id("a"), Force::Open)]));
    assert_eq!(alerts(&effects), [Alert::BreakerOpened(id("a"), Cause::Forced)]);
    assert_eq!(bench.after(200), [Effect::PauseLane(lane("a"))]);
    for _ in 0..100 {
        assert_eq!(probes(&bench.after(100)), []);
    }
    bench.handle(Event::Forced(Vec::new()));
    let (probe, key) = bench.next_probe();
    assert_eq!(key, ProbeKey::Issuer(id("a")));
    bench.probed(probe, Ok(()));
    bench.handle(Event::Forced(vec![(id("a"), Force::ObserveOnly)]));
    let mut would = 0;
    for number in 0..15 {
        bench.now = bench.now + millis(250);
        let effects = bench.attempt("a", number, Err(FAILED));
        would += alerts(&effects).len();
        assert_eq!(bench.standing("a"), Standing::Closed);
    }
    assert!(would >= 1, "it says what it would do");
}

#[test]
fn a_disabled_issuers_breaker_is_nobodys_business_and_its_jobs_are_answered() {
    let mut bench = Bench::serving(&["a"]);
    bench.open("a");
    let mut disabled = serving(Carrier::Own, 8, "hsm");
    disabled.enabled = false;
    bench.handle(Event::Served(vec![(lane("a"), disabled)]));
    assert_eq!(bench.after(2000), [], "neither left to others nor probed");
    assert_eq!(bench.deliver(10, "a", &[10, 11]), [Effect::Begin(vec![serial(10)])]);
    let not = vec![(serial(10), NotBegun::IssuerDisabled)];
    bench.handle(Event::Begun { begun: Vec::new(), not });
    let effects = bench.recorded(10, 0);
    assert_eq!(effects, [Effect::Begin(vec![serial(11)])]);
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_stops_nothing() {
    let mut bench = Bench::serving(&["a"]);
    bench.open("a");
    bench.now = NOW + Duration::from_hours(1);
    let (probe, _) = bench.next_probe();
    bench.probed(probe, Err(FAILED));
    bench.now = NOW;
    let (probe, _) = bench.next_probe();
    assert!(bench.now.since(NOW) < Duration::from_secs(6));
    bench.probed(probe, Ok(()));
    assert_eq!(bench.standing("a"), Standing::Closed);
    assert!(bench.dispatcher.deadline().since(bench.now) < Duration::from_secs(1));
}
