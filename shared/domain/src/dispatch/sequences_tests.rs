//! A million random sequences of events over small worlds, with what must always be true asserted after every one of them.
//!
//! The world around the dispatcher answers whatever it was asked for, in any order and with any outcome that its mood allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    tests::{NOW, serving},
    *,
};
use crate::{
    backoff::Backoff,
    breaker::{self, Standing},
    failure::{Failure, KeysFailure, Refused},
    id::{AccountId, Serial},
    lane::Carrier,
    reconcile::{self, Claim},
};

const LIMITS: Limits = Limits {
    waiting: 48,
    waiting_per_lane: 12,
    in_flight: 6,
    begin: 3,
    workers: 3,
    probes: 1,
    claims: reconcile::Limits {
        period: Duration::from_millis(250),
        lanes: 4,
        jobs: 4,
    },
    breaker: breaker::Settings {
        consecutive: 2,
        window: Duration::from_secs(1),
        volume: 4,
        failure_percent: 50,
        slow: Duration::from_secs(1),
        slow_percent: 50,
        open: Backoff {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(1),
            jitter_percent: 25,
        },
        ramp_step: Duration::from_millis(100),
    },
    force: None,
    take_over_period: Duration::from_millis(500),
};

/// What may go wrong in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Requests are bad, issuers are disabled, the store and the clock fail.
    Requests,
    /// Keys fail as well, in every way that a key can, and tokens are fine: every canary key works.
    Issuers,
    /// Tokens fail as well.
    Everything,
}

/// Names that every world uses; made once.
struct Names {
    lanes: Vec<Lane>,
    account: AccountId,
}

#[expect(clippy::struct_excessive_bools, reason = "what is asked and not yet answered")]
struct World<'a> {
    names: &'a Names,
    mood: Mood,
    entropy: Entropy,
    dispatcher: Dispatcher,
    now: Timestamp,
    effects: Vec<Effect>,
    jobs: u64,
    tag: u64,
    lane_of: BTreeMap<Serial, usize>,
    out: BTreeMap<u64, usize>,
    paused: BTreeSet<Lane>,
    beginning: Option<Vec<Serial>>,
    claiming: Option<Vec<Claim>>,
    taking_over: bool,
    asked_permit: bool,
    /// Jobs that are begun here, and whether their end is being recorded.
    begun: BTreeMap<(Serial, u32), bool>,
    runs: Vec<(u64, Vec<(Serial, u32)>)>,
    recording: Vec<(Serial, u32)>,
    probes: Vec<(u64, TokenId, ProbeKey)>,
    /// Canaries of each token that have failed in a row, and whether it refused a PIN.
    failed: BTreeMap<TokenId, u32>,
    /// Lanes whose issuer's key has failed, or was slow, at least once.
    has_failed: BTreeSet<usize>,
    forced: bool,
    drained: bool,
}

impl<'a> World<'a> {
    fn new(names: &'a Names, seed: u64) -> Self {
        let mut entropy = Entropy::new(seed);
        let mood = match entropy.draw() % 3 {
            0 => Mood::Requests,
            1 => Mood::Issuers,
            _ => Mood::Everything,
        };
        let mut world = Self {
            names,
            mood,
            dispatcher: Dispatcher::new(LIMITS, entropy.draw()),
            entropy,
            now: NOW,
            effects: Vec::new(),
            jobs: 0,
            tag: 0,
            lane_of: BTreeMap::new(),
            out: BTreeMap::new(),
            paused: BTreeSet::new(),
            beginning: None,
            claiming: None,
            taking_over: false,
            asked_permit: false,
            begun: BTreeMap::new(),
            runs: Vec::new(),
            recording: Vec::new(),
            probes: Vec::new(),
            failed: BTreeMap::new(),
            has_failed: BTreeSet::new(),
            forced: false,
            drained: false,
        };
        world.tell(Event::Freed(Hindrance::Lease));
        world.serve();
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.entropy.draw() % below
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.draw(len as u64)).unwrap()
    }

    /// Three issuers on two tokens; one in eight is disabled, one in four is probed by its oldest job.
    fn serve(&mut self) {
        let draw = self.entropy.draw();
        let lanes = self
            .names
            .lanes
            .iter()
            .zip([0, 0, 1])
            .enumerate()
            .map(|(number, (lane, token))| {
                let carrier = if number == 0 { Carrier::Ledger } else { Carrier::Own };
                let mut serving = serving(carrier, 4, ["one", "two"][token]);
                serving.enabled = !(draw >> (8 * number)).is_multiple_of(8);
                serving.probe_by = match (draw >> (8 * number + 4)) % 4 {
                    0 => ProbeBy::OldestJob,
                    _ => ProbeBy::OwnKey,
                };
                (lane.clone(), serving)
            });
        let lanes = lanes.collect();
        self.tell(Event::Served(lanes));
    }

    fn job(&mut self, lane: usize) -> Hint {
        self.jobs += 1;
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&self.jobs.to_be_bytes());
        let job = Serial::new(self.now, entropy);
        self.lane_of.insert(job, lane);
        let account = self.names.account.clone();
        Hint { job, account }
    }

    fn tell(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.dispatcher.handle(event, self.now, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        self.check();
    }

    /// What is asked for is remembered until it is answered; what must not be asked for is found here.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Settle(tags) | Effect::GiveBack(tags) => {
                for tag in tags {
                    assert!(
                        self.out.remove(&tag).is_some(),
                        "a delivery is settled or given back that is not out"
                    );
                }
            }
            Effect::PauseLane(lane) => {
                let number = self.names.lanes.iter().position(|other| *other == lane);
                self.out.retain(|_, other| Some(*other) != number);
                assert!(self.paused.insert(lane), "paused twice");
            }
            Effect::ResumeLane(lane) => assert!(self.paused.remove(&lane), "resumed though not paused"),
            Effect::Begin(jobs) => self.begins(jobs),
            Effect::Claim(asked) => assert!(self.claiming.replace(asked).is_none(), "two claims"),
            Effect::TakeOver(_) => assert!(!std::mem::replace(&mut self.taking_over, true), "two take-overs"),
            Effect::Run { run, jobs, .. } => {
                assert!(
                    jobs.iter().all(|job| self.begun.get(job) == Some(&false)),
                    "it runs though not begun"
                );
                self.runs.push((run, jobs));
                assert!(self.runs.len() <= LIMITS.workers, "more runs than workers");
            }
            Effect::Finish { job, turn } | Effect::Refuse { job, turn, .. } | Effect::Defer { job, turn, .. } => {
                if turn > 0 {
                    let ending = self
                        .begun
                        .get_mut(&(job, turn))
                        .expect("it ends though it was not begun");
                    assert!(!std::mem::replace(ending, true), "it ends twice");
                }
                self.recording.push((job, turn));
            }
            Effect::Probe { probe, token, key } => {
                assert!(
                    self.mood != Mood::Requests || self.forced,
                    "requests' failures lead to a probe"
                );
                assert!(
                    !self.dispatcher.takes_no_probes(&token),
                    "a token is tried that refused the PIN"
                );
                let same = |(_, other, with): &(u64, TokenId, ProbeKey)| (other, with) == (&token, &key);
                assert!(!self.probes.iter().any(same), "two probes with one key");
                self.probes.push((probe, token, key));
            }
            Effect::AskPermit => {
                assert!(
                    self.mood != Mood::Requests,
                    "requests' failures make a signer stand down"
                );
                assert!(!std::mem::replace(&mut self.asked_permit, true), "asked twice");
            }
            Effect::Alert(alert) => self.alerted(&alert),
            Effect::Drained => {
                assert!(
                    self.begun.is_empty() && self.beginning.is_none(),
                    "drained with jobs in flight"
                );
                self.drained = true;
            }
            Effect::Stop(fault) => panic!("{fault}"),
            Effect::ReturnPermit | Effect::Note { .. } => {}
        }
    }

    fn alerted(&mut self, alert: &Alert) {
        assert!(
            self.mood != Mood::Requests || self.forced,
            "requests' failures moved something: {alert}"
        );
        match alert {
            Alert::TokenOut(token, pin) => {
                assert_eq!(self.mood, Mood::Everything, "issuers' failures took a token out");
                let failed = self.failed.get(token).copied().unwrap_or(0);
                assert!(*pin || failed >= 2, "out after {failed} failed canaries");
            }
            Alert::BackedOff | Alert::BackOffEnded => {
                assert_eq!(
                    self.mood,
                    Mood::Everything,
                    "issuers' failures made the signer back off"
                );
            }
            _ => {}
        }
    }

    fn begins(&mut self, jobs: Vec<Serial>) {
        let standing: BTreeMap<_, _> = self
            .dispatcher
            .breakers()
            .map(|(id, standing)| (id.clone(), standing))
            .collect();
        let mut half_open = BTreeSet::new();
        for job in &jobs {
            let lane = &self.names.lanes[self.lane_of[job]];
            let token = self.dispatcher.token_of(&lane.issuer).unwrap();
            assert!(
                !self.dispatcher.tokens_out().any(|out| out == token),
                "begun on a token that is out"
            );
            if self.dispatcher.is_enabled(&lane.issuer) {
                match standing.get(&lane.issuer) {
                    None | Some(Standing::Closed) => {}
                    Some(Standing::HalfOpen) => assert!(half_open.insert(&lane.issuer), "two jobs are one probe"),
                    Some(Standing::Open) => panic!("begun though its breaker is open"),
                }
            }
        }
        assert!(!self.dispatcher.status().stands_down, "it begins jobs and stands down");
        assert!(self.beginning.replace(jobs).is_none(), "two begins at a time");
    }

    /// What holds at every moment.
    fn check(&self) {
        let status = self.dispatcher.status();
        assert!(status.in_flight <= LIMITS.in_flight + 1, "too many slots: {status:?}");
        assert!(status.waiting <= LIMITS.waiting, "too much waits: {status:?}");
        let tests = self
            .probes
            .iter()
            .filter(|(_, _, key)| *key == ProbeKey::Canary)
            .count();
        assert!(
            self.probes.len() <= LIMITS.probes + 2 && tests <= 2,
            "too many probes: {:?}",
            self.probes
        );
        let backs_off = self.dispatcher.tokens_out().count() == 2;
        assert_eq!(
            status.backs_off, backs_off,
            "it backs off exactly when every token is out"
        );
        for (id, standing) in self.dispatcher.breakers() {
            let number = self.names.lanes.iter().position(|lane| lane.issuer == *id).unwrap();
            assert!(
                self.forced || self.has_failed.contains(&number),
                "{id} is {standing}, and never failed: somebody else's failure moved it"
            );
        }
    }

    /// What becomes of a key operation, and how long it takes.
    fn outcome(&mut self, lane: usize, is_probe: bool) -> (Result<(), Failure>, Duration) {
        let fast = Duration::from_millis(2);
        let draw = self.draw(16);
        let request = match draw {
            0 => Some(Failure::TooLate),
            1 => Some(Failure::Store),
            2 if !is_probe => Some(Failure::Request(Refused {
                id: "policy_violation",
                detail: String::new(),
            })),
            3 => Some(Failure::Panicked(String::new())),
            4 => Some(Failure::IssuerDisabled),
            5 => Some(Failure::Behind),
            _ => None,
        };
        if let Some(failure) = request {
            return (Err(failure), fast);
        }
        if self.mood == Mood::Requests || draw < 9 {
            return (Ok(()), fast);
        }
        self.has_failed.insert(lane);
        let failure = match draw {
            9 => return (Ok(()), Duration::from_secs(2)),
            10 => KeysFailure::KeyNotFound,
            11 => KeysFailure::Device,
            12 => KeysFailure::Hang,
            13 => return (Err(Failure::SignatureWrong), fast),
            14 if self.mood == Mood::Everything && self.draw(4) == 0 => KeysFailure::PinRefused,
            _ => KeysFailure::OperationFailed,
        };
        (Err(Failure::Keys(failure)), fast)
    }

    fn step(&mut self) {
        match self.draw(20) {
            0..=3 => self.deliver(),
            4..=5 => self.answer_begin(),
            6..=9 => self.answer_run(),
            10..=11 => self.answer_recording(),
            12..=13 => self.answer_probe(),
            14 => self.answer_questions(),
            15 => self.disturb(),
            _ => {
                self.now = self.now + Duration::from_millis(self.entropy.draw() % 400);
                self.tell(Event::Tick);
            }
        }
    }

    fn deliver(&mut self) {
        let number = self.index(3);
        let lane = self.names.lanes[number].clone();
        if self.paused.contains(&lane) {
            return;
        }
        let count = 1 + self.draw(4);
        let jobs = (0..count).map(|_| self.job(number)).collect();
        self.tag += 1;
        self.out.insert(self.tag, number);
        let tag = self.tag;
        self.tell(Event::Delivered { tag, lane, jobs });
    }

    fn answer_begin(&mut self) {
        let Some(jobs) = self.beginning.take() else { return };
        if self.draw(12) == 0 {
            self.tell(Event::BeginFailed(jobs));
            self.tell(Event::Freed(Hindrance::Store));
            return;
        }
        let (mut begun, mut not) = (Vec::new(), Vec::new());
        for job in jobs {
            match self.draw(10) {
                0 => not.push((job, NotBegun::NotWanted)),
                1 => not.push((job, NotBegun::IssuerDisabled)),
                _ => begun.push(self.begin(job, 1)),
            }
        }
        self.tell(Event::Begun { begun, not });
    }

    fn begin(&mut self, job: Serial, turn: u32) -> Begun {
        self.begun.insert((job, turn), false);
        Begun {
            job,
            lane: self.names.lanes[self.lane_of[&job]].clone(),
            account: self.names.account.clone(),
            turn,
        }
    }

    /// One job of a run comes to its end, or the run does.
    fn answer_run(&mut self) {
        if self.runs.is_empty() {
            return;
        }
        let number = self.index(self.runs.len());
        let Some((job, turn)) = self.runs[number].1.pop() else {
            let (run, _) = self.runs.swap_remove(number);
            return self.tell(Event::RunEnded(run));
        };
        let (result, took) = self.outcome(self.lane_of[&job], false);
        self.tell(Event::Ran {
            job,
            turn,
            result,
            took,
        });
    }

    fn answer_recording(&mut self) {
        if self.recording.is_empty() {
            return;
        }
        let number = self.index(self.recording.len());
        let (job, turn) = self.recording.swap_remove(number);
        let how = if turn > 0 && self.draw(12) == 0 {
            Recorded::IssuerOff
        } else {
            Recorded::Done
        };
        match how {
            Recorded::Done => drop(self.begun.remove(&(job, turn))),
            _ => drop(self.begun.insert((job, turn), false)),
        }
        self.tell(Event::Recorded { job, turn, how });
    }

    fn answer_probe(&mut self) {
        if self.probes.is_empty() {
            return;
        }
        let number = self.index(self.probes.len());
        let (probe, token, key) = self.probes.swap_remove(number);
        let (result, took) = match &key {
            ProbeKey::Canary if self.mood != Mood::Everything => (Ok(()), Duration::from_millis(2)),
            ProbeKey::Canary => {
                let failure = [KeysFailure::Device, KeysFailure::KeyNotFound][self.index(2)];
                let works = self.draw(2) == 0;
                (
                    if works { Ok(()) } else { Err(Failure::Keys(failure)) },
                    Duration::from_millis(2),
                )
            }
            ProbeKey::Issuer(id) => {
                let lane = self.names.lanes.iter().position(|lane| lane.issuer == *id).unwrap();
                self.outcome(lane, true)
            }
        };
        let failed = self.failed.entry(token).or_default();
        match &result {
            // An issuer's key that works is no canary, unless the token is tested with it: then the test ends.
            Ok(()) if key == ProbeKey::Canary => *failed = 0,
            Err(Failure::Keys(_) | Failure::SignatureWrong) => *failed += 1,
            Ok(()) | Err(_) => {}
        }
        self.tell(Event::Probed { probe, result, took });
    }

    fn answer_questions(&mut self) {
        if let Some(asked) = self.claiming.take() {
            let lane = asked[0].lane.clone();
            let number = self.names.lanes.iter().position(|other| *other == lane).unwrap();
            let hint = self.job(number);
            self.tell(Event::Claimable {
                asked,
                jobs: vec![(lane, hint)],
            });
        } else if self.taking_over {
            self.taking_over = false;
            let lane = self.index(3);
            let job = self.job(lane).job;
            let taken = (self.draw(2) == 0).then(|| self.begin(job, 2));
            self.tell(Event::TakenOver(taken));
        } else if self.asked_permit {
            self.asked_permit = false;
            let granted = self.draw(2) == 0;
            self.tell(if granted {
                Event::PermitGranted
            } else {
                Event::PermitRefused
            });
        }
    }

    fn disturb(&mut self) {
        match self.draw(8) {
            0 => self.serve(),
            1 => {
                self.out.clear();
                self.paused.clear();
                self.tell(Event::InboxOpened);
            }
            2 => self.tell(Event::Hindered(Hindrance::Clock)),
            3 => self.tell(Event::Freed(Hindrance::Clock)),
            4 if self.draw(4) == 0 => {
                self.forced = true;
                let issuer = self.names.lanes[self.index(3)].issuer.clone();
                let force = [Force::Open, Force::Closed, Force::ObserveOnly][self.index(3)];
                self.tell(Event::Forced(vec![(issuer, force)]));
            }
            5 => self.tell(Event::Forced(Vec::new())),
            6 => self.tell(Event::TokenUnlocked("one".parse().unwrap())),
            7 => self.now = self.now - Duration::from_hours(1),
            _ => {}
        }
    }

    /// Everything is answered, and nothing new comes: every job ends, every slot and every worker is given back.
    fn settle(&mut self) {
        self.tell(Event::Freed(Hindrance::Clock));
        self.tell(Event::Drain);
        while !self.runs.is_empty() || !self.recording.is_empty() || self.beginning.is_some() || self.taking_over {
            self.claiming = None;
            self.answer_begin();
            self.answer_run();
            self.answer_recording();
            self.answer_questions();
        }
        assert!(self.drained, "not drained: {:?}", self.dispatcher.status());
        assert!(self.begun.is_empty(), "begun and never ended: {:?}", self.begun);
        assert!(self.dispatcher.flights.is_clean(), "slots leak");
    }
}

/// A quarter of a million sequences; four of these tests make a million.
fn sequences(part: u64) {
    const SEQUENCES: u64 = 250_000;
    let names = Names {
        lanes: ["a.interactive", "b.bulk", "c.renewal"]
            .map(|lane| lane.parse().unwrap())
            .into(),
        account: "x".parse().unwrap(),
    };
    let (mut shut, mut out) = (0, 0);
    for seed in part * SEQUENCES..(part + 1) * SEQUENCES {
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(&names, seed);
            for _ in 0..4 + world.draw(14) {
                world.step();
            }
            let shuts = world.dispatcher.status().shut > 0;
            let is_out = world.dispatcher.tokens_out().next().is_some();
            world.settle();
            (shuts, is_out)
        }));
        let Ok((shuts, is_out)) = lived else {
            panic!("that was in the world of seed {seed}")
        };
        shut += u64::from(shuts);
        out += u64::from(is_out);
    }
    assert!(
        shut > SEQUENCES / 100 && out > SEQUENCES / 1000,
        "the sequences are too tame"
    );
}

#[test]
fn no_sequence_of_events_breaks_what_must_always_be_true_1() {
    sequences(0);
}

#[test]
fn no_sequence_of_events_breaks_what_must_always_be_true_2() {
    sequences(1);
}

#[test]
fn no_sequence_of_events_breaks_what_must_always_be_true_3() {
    sequences(2);
}

#[test]
fn no_sequence_of_events_breaks_what_must_always_be_true_4() {
    sequences(3);
}
