//! One dispatcher, step by step.

use std::{collections::VecDeque, time::Duration};

use super::*;
use crate::{
    breaker,
    failure::{Failure, Refused},
    id::Serial,
    lane::Carrier,
    reconcile,
};

pub(super) const LIMITS: Limits = Limits {
    waiting: 4000,
    waiting_per_lane: 200,
    in_flight: 32,
    begin: 16,
    workers: 4,
    probes: 2,
    claims: reconcile::Limits {
        period: Duration::from_millis(250),
        lanes: 8,
        jobs: 50,
    },
    breaker: breaker::Settings {
        consecutive: 5,
        window: Duration::from_secs(10),
        volume: 20,
        failure_percent: 50,
        slow: Duration::from_secs(1),
        slow_percent: 50,
        open: crate::backoff::Backoff {
            first: Duration::from_millis(400),
            longest: Duration::from_secs(5),
            jitter_percent: 0,
        },
        ramp_step: Duration::from_millis(100),
    },
    force: None,
    take_over_period: Duration::from_millis(500),
};

/// How long a key operation takes that is not slow.
pub(super) const FAST: Duration = Duration::from_millis(2);

pub(super) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(super) fn lane(issuer: &str) -> Lane {
    format!("{issuer}.interactive").parse().unwrap()
}

pub(super) fn serial(number: u8) -> Serial {
    Serial::new(NOW, [number; 10])
}

pub(super) fn serving(carrier: Carrier, cost: u32, token: &str) -> Serving {
    Serving {
        carrier,
        cost,
        token: token.parse().unwrap(),
        enabled: true,
        probe_by: ProbeBy::OwnKey,
    }
}

pub(super) fn hint(number: u8) -> Hint {
    Hint {
        job: serial(number),
        account: "x".parse().unwrap(),
    }
}

pub(super) fn begun(lane: &Lane, jobs: &[Serial], turn: u32) -> Vec<Begun> {
    let of = |job: &Serial| Begun {
        job: *job,
        lane: lane.clone(),
        account: "x".parse().unwrap(),
        turn,
    };
    jobs.iter().map(of).collect()
}

/// A dispatcher and what it last asked for.
pub(super) struct Bench {
    pub(super) dispatcher: Dispatcher,
    pub(super) now: Timestamp,
    /// Probes that nobody has looked at yet.
    pub(super) probes: VecDeque<(u64, ProbeKey)>,
    /// When each probe was sent.
    pub(super) sent: Vec<Timestamp>,
}

impl Bench {
    pub(super) fn serving(issuers: &[&str]) -> Self {
        let mut bench = Self {
            dispatcher: Dispatcher::new(LIMITS, 7),
            now: NOW,
            probes: VecDeque::new(),
            sent: Vec::new(),
        };
        let lanes = issuers
            .iter()
            .map(|issuer| (lane(issuer), serving(Carrier::Own, 8, "hsm")));
        let lanes = lanes.collect();
        bench.dispatcher.taking_over = TakingOver::Idle {
            next: NOW + Duration::from_hours(1),
        };
        bench.dispatcher.next_claim = NOW + Duration::from_hours(1);
        assert_eq!(bench.handle(Event::Freed(Hindrance::Lease)), []);
        assert_eq!(bench.handle(Event::Served(lanes)), []);
        bench
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.dispatcher.handle(event, self.now, &mut effects);
        for effect in &effects {
            if let Effect::Probe { probe, key, .. } = effect {
                self.probes.push_back((*probe, key.clone()));
                self.sent.push(self.now);
            }
        }
        effects
    }

    pub(super) fn deliver(&mut self, tag: u64, issuer: &str, jobs: &[u8]) -> Vec<Effect> {
        let jobs = jobs.iter().map(|number| hint(*number)).collect();
        let lane = lane(issuer);
        self.handle(Event::Delivered { tag, lane, jobs })
    }

    pub(super) fn begin_all(&mut self, issuer: &str, jobs: &[u8], turn: u32) -> Vec<Effect> {
        let jobs: Vec<Serial> = jobs.iter().map(|number| serial(*number)).collect();
        let begun = begun(&lane(issuer), &jobs, turn);
        self.handle(Event::Begun { begun, not: Vec::new() })
    }

    pub(super) fn ran(&mut self, number: u8, turn: u32, result: Result<(), Failure>) -> Vec<Effect> {
        let job = serial(number);
        self.handle(Event::Ran {
            job,
            turn,
            result,
            took: FAST,
        })
    }

    pub(super) fn recorded(&mut self, number: u8, turn: u32) -> Vec<Effect> {
        let job = serial(number);
        let how = Recorded::Done;
        self.handle(Event::Recorded { job, turn, how })
    }

    /// Takes one job through begin and run to the given result.
    pub(super) fn attempt(&mut self, issuer: &str, number: u8, result: Result<(), Failure>) -> Vec<Effect> {
        let effects = self.deliver(u64::from(number), issuer, &[number]);
        assert_eq!(effects, [Effect::Begin(vec![serial(number)])]);
        let effects = self.begin_all(issuer, &[number], 1);
        let Some(Effect::Run { run, .. }) = effects.last() else {
            panic!("not run: {effects:?}");
        };
        let run = *run;
        let effects = self.ran(number, 1, result);
        self.handle(Event::RunEnded(run));
        self.recorded(number, 1);
        effects
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dispatcher.flights.is_clean() && self.dispatcher.intake.is_clean()
    }
}

#[test]
fn a_delivery_is_settled_when_all_its_jobs_are_begun_or_not_wanted() {
    let mut bench = Bench::serving(&["a"]);
    let effects = bench.deliver(7, "a", &[1, 2]);
    assert_eq!(effects, [Effect::Begin(vec![serial(1), serial(2)])]);
    assert_eq!(bench.deliver(8, "a", &[2, 3]), [], "one begin at a time");
    let effects = bench.handle(Event::Begun {
        begun: begun(&lane("a"), &[serial(1)], 1),
        not: vec![(serial(2), NotBegun::NotWanted)],
    });
    assert_eq!(effects[0], Effect::Settle(vec![7]));
    assert_eq!(effects[1], Effect::Begin(vec![serial(3)]));
    assert!(matches!(&effects[2], Effect::Run { jobs, .. } if *jobs == [(serial(1), 1)]));
    let effects = bench.begin_all("a", &[3], 1);
    assert_eq!(effects[0], Effect::Settle(vec![8]));
    assert_eq!(
        bench.deliver(9, "a", &[1, 3]),
        [Effect::Settle(vec![9])],
        "both are under way"
    );
    for number in [1, 3] {
        assert_eq!(
            bench.ran(number, 1, Ok(())),
            [Effect::Finish {
                job: serial(number),
                turn: 1
            }]
        );
        bench.recorded(number, 1);
    }
    bench.handle(Event::RunEnded(1));
    bench.handle(Event::RunEnded(2));
    assert!(bench.is_clean());
}

#[test]
fn after_a_begin_that_took_long_a_few_jobs_wait_for_more_and_many_do_not() {
    let millis = Duration::from_millis;
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1]);
    bench.deliver(2, "a", &[2]);
    bench.now = NOW + millis(5);
    let effects = bench.begin_all("a", &[1], 1);
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::Begin(_))),
        "{effects:?}"
    );
    assert_eq!(bench.dispatcher.deadline(), bench.now + millis(6));
    bench.now = bench.now + millis(6);
    assert_eq!(bench.handle(Event::Tick), [Effect::Begin(vec![serial(2)])]);

    let most: Vec<u8> = (3..).take(LIMITS.begin).collect();
    bench.deliver(3, "a", &most);
    bench.now = bench.now + millis(5);
    let effects = bench.begin_all("a", &[2], 1);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Begin(_))),
        "{effects:?}"
    );
}

#[test]
fn failures_of_requests_move_nothing() {
    let mut bench = Bench::serving(&["a"]);
    for round in 0..50 {
        let refused = |id| {
            let detail = String::new();
            Failure::Request(Refused { id, detail })
        };
        for (number, failure) in (round * 4..).zip([
            refused("policy_violation"),
            Failure::Panicked("index out of bounds".into()),
            Failure::Altered("statement".into()),
            Failure::TooLate,
        ]) {
            let effects = bench.attempt("a", number, Err(failure));
            assert!(
                matches!(effects.last(), Some(Effect::Refuse { .. } | Effect::Defer { .. })),
                "{effects:?}"
            );
        }
    }
    assert_eq!(bench.dispatcher.status().shut, 0);
    assert_eq!(bench.dispatcher.tokens_out().count(), 0);
    assert!(bench.dispatcher.status().beginning && bench.is_clean());
}

#[test]
fn a_disabled_issuers_jobs_are_refused_without_touching_its_key() {
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1, 2]);
    let not = vec![
        (serial(1), NotBegun::IssuerDisabled),
        (serial(2), NotBegun::IssuerDestroyed),
    ];
    let effects = bench.handle(Event::Begun { begun: Vec::new(), not });
    assert_eq!(effects[0], Effect::Settle(vec![1]));
    assert!(
        matches!(&effects[1], Effect::Refuse { id: "issuer_disabled", turn: 0, job, .. } if *job == serial(1)),
        "{effects:?}"
    );
    assert!(matches!(
        &effects[2],
        Effect::Refuse {
            id: "issuer_destroyed",
            ..
        }
    ));
    bench.recorded(1, 0);
    bench.recorded(2, 0);
    assert!(bench.is_clean());
}

#[test]
fn one_issuer_never_takes_every_slot_or_every_worker() {
    let mut bench = Bench::serving(&["a", "b"]);
    let numbers: Vec<u8> = (0..90).collect();
    let mut begins = bench.deliver(1, "a", &numbers);
    let (mut under_way, mut running) = (0, 0);
    while let Some(Effect::Begin(jobs)) = begins.iter().find(|e| matches!(e, Effect::Begin(_))) {
        let jobs = jobs.clone();
        under_way += jobs.len();
        begins = bench.handle(Event::Begun {
            begun: begun(&lane("a"), &jobs, 1),
            not: Vec::new(),
        });
        running += begins.iter().filter(|e| matches!(e, Effect::Run { .. })).count();
    }
    assert_eq!((under_way, running), (LIMITS.in_flight / 2, LIMITS.workers / 2));
    assert_eq!(bench.deliver(2, "b", &[200]), [Effect::Begin(vec![serial(200)])]);
    assert!(matches!(bench.begin_all("b", &[200], 1)[1], Effect::Run { .. }));
}

#[test]
fn one_issuer_leaves_room_on_its_token_for_its_neighbours() {
    let mut bench = Bench::serving(&[]);
    let on = |issuer: &str, token: &str| (lane(issuer), serving(Carrier::Own, 8, token));
    bench.handle(Event::Served(vec![
        on("hangs", "first"),
        on("neighbour", "first"),
        on("elsewhere", "second"),
    ]));
    let numbers: Vec<u8> = (0..90).collect();
    let mut effects = bench.deliver(1, "hangs", &numbers);
    let (mut under_way, mut running) = (0, 0);
    while let Some(Effect::Begin(jobs)) = effects.iter().find(|e| matches!(e, Effect::Begin(_))) {
        let jobs = jobs.clone();
        under_way += jobs.len();
        effects = bench.handle(Event::Begun {
            begun: begun(&lane("hangs"), &jobs, 1),
            not: Vec::new(),
        });
        running += effects.iter().filter(|e| matches!(e, Effect::Run { .. })).count();
    }
    assert_eq!((under_way, running), (LIMITS.in_flight / 4, LIMITS.workers / 4));
    for (number, issuer) in [(200, "neighbour"), (201, "elsewhere")] {
        assert_eq!(
            bench.deliver(u64::from(number), issuer, &[number]),
            [Effect::Begin(vec![serial(number)])],
            "{issuer}"
        );
        assert!(
            matches!(bench.begin_all(issuer, &[number], 1)[1], Effect::Run { .. }),
            "{issuer}"
        );
    }
}

#[test]
fn nothing_is_begun_while_the_store_the_clock_or_the_lease_is_in_doubt() {
    for hindrance in [Hindrance::Store, Hindrance::Clock, Hindrance::Lease] {
        let mut bench = Bench::serving(&["a"]);
        assert_eq!(bench.handle(Event::Hindered(hindrance)), [Effect::PauseLane(lane("a"))]);
        assert_eq!(bench.deliver(1, "a", &[1]), [], "the broker has it back");
        assert_eq!(bench.handle(Event::Freed(hindrance)), [Effect::ResumeLane(lane("a"))]);
        assert_eq!(bench.deliver(2, "a", &[1]), [Effect::Begin(vec![serial(1)])]);
    }
}

#[test]
fn nothing_is_begun_or_taken_over_before_there_is_a_lease() {
    let mut dispatcher = Dispatcher::new(LIMITS, 7);
    let mut handle = |event| {
        let mut effects = Vec::new();
        dispatcher.handle(event, NOW, &mut effects);
        effects
    };
    let serving = serving(Carrier::Own, 8, "hsm");
    assert_eq!(
        handle(Event::Served(vec![(lane("a"), serving)])),
        [Effect::PauseLane(lane("a"))]
    );
    let effects = handle(Event::Freed(Hindrance::Lease));
    assert!(
        matches!(&effects[..], [Effect::ResumeLane(_), Effect::TakeOver(_)]),
        "{effects:?}"
    );
}

#[test]
fn a_begin_that_fails_loses_no_job_and_is_not_tried_again_before_the_store_is_back() {
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1]);
    let effects = bench.handle(Event::BeginFailed(vec![serial(1)]));
    assert_eq!(effects, [Effect::PauseLane(lane("a"))]);
    assert_eq!(
        bench.handle(Event::Freed(Hindrance::Store)),
        [Effect::ResumeLane(lane("a")), Effect::Begin(vec![serial(1)])]
    );
}

#[test]
fn a_lane_without_room_is_paused_until_it_has_plenty() {
    let mut bench = Bench::serving(&["a"]);
    let mut tag = 0;
    let mut number = 0_u16;
    let full = loop {
        let jobs: Vec<Hint> = (0..10)
            .map(|i| {
                let [high, low] = (number * 10 + i).to_be_bytes();
                let job = Serial::new(NOW, [high, low, 0, 0, 0, 0, 0, 0, 0, 0]);
                let account = "x".parse().unwrap();
                Hint { job, account }
            })
            .collect();
        tag += 1;
        number += 1;
        let lane = lane("a");
        let effects = bench.handle(Event::Delivered { tag, lane, jobs });
        if effects.contains(&Effect::GiveBack(vec![tag])) {
            break effects;
        }
    };
    assert_eq!(full.last(), Some(&Effect::PauseLane(lane("a"))));
    let mut effects = Vec::new();
    for _ in 0..20 {
        let waiting = bench.dispatcher.status().waiting;
        let not: Vec<(Serial, NotBegun)> = bench
            .dispatcher
            .intake
            .beginning()
            .map(|job| (job, NotBegun::NotWanted))
            .collect();
        effects = bench.handle(Event::Begun { begun: Vec::new(), not });
        if effects.contains(&Effect::ResumeLane(lane("a"))) {
            assert!(waiting <= LIMITS.waiting_per_lane / 2);
            return;
        }
    }
    panic!("never resumed: {effects:?}");
}

#[test]
fn a_taken_over_job_runs_alone_and_the_next_one_after_it() {
    let mut bench = Bench::serving(&["a"]);
    bench.now = NOW + Duration::from_hours(1);
    let effects = bench.handle(Event::Tick);
    assert!(effects.contains(&Effect::TakeOver(vec![lane("a")])), "{effects:?}");
    let taken = begun(&lane("a"), &[serial(1)], 2).pop();
    let effects = bench.handle(Event::TakenOver(taken));
    assert!(matches!(
        effects[0],
        Effect::Note {
            kind: Notice::TakenOver,
            ..
        }
    ));
    assert!(matches!(&effects[1], Effect::Run { jobs, .. } if jobs.len() == 1));
    bench.now = bench.now + Duration::from_secs(10);
    let asks = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::TakeOver(_)));
    assert!(!asks(&bench.handle(Event::Tick)));
    bench.ran(1, 2, Ok(()));
    assert!(asks(&bench.recorded(1, 2)));
}

#[test]
fn lost_jobs_of_thousands_of_issuers_are_asked_for_in_questions_that_a_ledger_answers() {
    let names: Vec<String> = (0..12_000).map(|number| format!("i{number:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::serving(&names);
    bench.handle(Event::TakenOver(None));
    let mut asked = BTreeMap::new();
    for _ in 0..3 {
        bench.now = bench.now + Duration::from_secs(10);
        for effect in bench.handle(Event::Tick) {
            if let Effect::TakeOver(lanes) = effect {
                assert!(lanes.len() <= 5_000, "{} lanes", lanes.len());
                for lane in lanes {
                    *asked.entry(lane).or_insert(0) += 1;
                }
            }
        }
        bench.handle(Event::TakenOver(None));
    }
    assert_eq!(asked.len(), names.len(), "some were forgotten");
}

#[test]
fn draining_finishes_what_is_in_flight_and_gives_back_the_rest() {
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1]);
    bench.deliver(2, "a", &[2]);
    let effects = bench.handle(Event::Drain);
    assert_eq!(effects, [Effect::PauseLane(lane("a"))]);
    let effects = bench.begin_all("a", &[1], 1);
    assert!(matches!(effects[..], [Effect::Run { .. }]), "{effects:?}");
    bench.ran(1, 1, Ok(()));
    bench.handle(Event::RunEnded(1));
    assert_eq!(bench.recorded(1, 1), [Effect::Drained]);
    assert_eq!(bench.handle(Event::Tick), []);
    assert!(bench.is_clean());
}

#[test]
fn a_fault_of_the_program_ends_the_job_and_stops_the_signer() {
    let mut bench = Bench::serving(&["a"]);
    let effects = bench.attempt(
        "a",
        1,
        Err(Failure::Program("a valid signature over other bytes".into())),
    );
    assert!(
        matches!(
            &effects[..],
            [Effect::Refuse { id: "internal", .. }, Effect::Stop(_), ..]
        ),
        "{effects:?}"
    );
    assert_eq!(bench.deliver(2, "a", &[2]), []);
}

#[test]
fn the_ledger_has_the_last_word_on_a_signature() {
    let mut bench = Bench::serving(&["a"]);
    bench.deliver(1, "a", &[1]);
    bench.begin_all("a", &[1], 1);
    bench.ran(1, 1, Ok(()));
    let job = serial(1);
    let how = Recorded::IssuerOff;
    let effects = bench.handle(Event::Recorded { job, turn: 1, how });
    assert!(matches!(
        effects[..],
        [Effect::Refuse {
            id: "issuer_disabled",
            turn: 1,
            ..
        }]
    ));
}
