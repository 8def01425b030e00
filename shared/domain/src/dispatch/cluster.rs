//! A model of everything around dispatchers, in virtual time: a ledger that keeps the law of a job, a broker, keys, and what befalls them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use super::{
    tests::{LIMITS, serving},
    *,
};
use crate::{
    failure::{Failure, KeysFailure, Refused},
    id::Serial,
    job::{Position, State, Step},
    lane::Carrier,
    reconcile::Claim,
};

pub(super) const START: i64 = 1_800_000_000_000;
const OPERATION_LIMIT: u64 = 1_000;
const LEASE: u64 = 2_000;

/// What a job does to whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    Bad,
    Panics,
    Kills,
}

/// What an issuer's key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Works,
    Fails,
    Slow,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: Lane,
    pub(super) position: Position,
    pub(super) nature: Nature,
    accepted_at: Timestamp,
    owner: usize,
    begun_at: Timestamp,
    pub(super) issued: u32,
}

#[derive(Debug)]
struct Signer {
    dispatcher: Dispatcher,
    /// Deliveries that are out and not settled.
    out: BTreeMap<u64, (Lane, Vec<Serial>)>,
    paused: BTreeSet<Lane>,
    runs: BTreeSet<u64>,
    died_at: Option<Timestamp>,
    drained: bool,
}

#[derive(Debug)]
pub(super) enum Happening {
    Tell(usize, Event),
    Perform(usize, Effect),
    Deliver,
    Tick(usize),
    Arrive(usize),
    Chaos(Chaos),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Chaos {
    Kill(usize),
    Break(usize, u8),
    Disable(usize, bool),
    LoseQueues,
    StoreDown(u64),
}

pub(super) struct World {
    pub(super) now: Timestamp,
    random: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    happenings: HashMap<u64, Happening>,
    sequence: u64,
    pub(super) jobs: BTreeMap<Serial, Job>,
    signers: Vec<Signer>,
    pub(super) keys: Vec<Key>,
    enabled: Vec<bool>,
    queues: BTreeMap<Lane, VecDeque<Vec<Serial>>>,
    store_down_until: Timestamp,
    tags: u64,
}

fn issuer_name(number: usize) -> String {
    format!("issuer-{number}")
}

pub(super) fn lane(number: usize) -> Lane {
    format!("{}.interactive", issuer_name(number)).parse().unwrap()
}

fn number(lane: &Lane) -> usize {
    lane.issuer.as_str().rsplit('-').next().unwrap().parse().unwrap()
}

pub(super) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl World {
    pub(super) fn new(seed: u64, signers: usize, issuers: usize) -> Self {
        let mut world = Self {
            now: Timestamp::from_millis(START),
            random: seed | 1,
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            sequence: 0,
            jobs: BTreeMap::new(),
            signers: Vec::new(),
            keys: vec![Key::Works; issuers],
            enabled: vec![true; issuers],
            queues: BTreeMap::new(),
            store_down_until: Timestamp::default(),
            tags: 0,
        };
        for _ in 0..signers {
            world.start_signer();
        }
        world.later(1, Happening::Deliver);
        world
    }

    fn start_signer(&mut self) {
        let signer = self.signers.len();
        self.signers.push(Signer {
            dispatcher: Dispatcher::new(LIMITS, signer as u64),
            out: BTreeMap::new(),
            paused: BTreeSet::new(),
            runs: BTreeSet::new(),
            died_at: None,
            drained: false,
        });
        let served = |issuer: usize| {
            let carrier = if issuer == 0 { Carrier::Ledger } else { Carrier::Own };
            (lane(issuer), serving(carrier, 4, "hsm"))
        };
        let lanes = (0..self.keys.len()).map(served).collect();
        self.later(0, Happening::Tell(signer, Event::Served(lanes)));
        self.later(0, Happening::Tell(signer, Event::Freed(Hindrance::Lease)));
        self.later(1, Happening::Tick(signer));
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub(super) fn later(&mut self, after: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + millis(after), self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    fn arrive(&mut self, issuer: usize) {
        let nature = match self.draw(100) {
            0..4 => Nature::Bad,
            4..6 => Nature::Panics,
            6 => Nature::Kills,
            _ => Nature::Good,
        };
        self.accept(issuer, nature);
    }

    pub(super) fn accept(&mut self, issuer: usize, nature: Nature) {
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&self.sequence.to_be_bytes());
        entropy[8] = u8::try_from(issuer).unwrap();
        entropy[9] = u8::try_from(self.jobs.len() % 251).unwrap();
        let serial = Serial::new(self.now, entropy);
        let job = Job {
            lane: lane(issuer),
            position: Position::accepted(false),
            nature,
            accepted_at: self.now,
            owner: usize::MAX,
            begun_at: self.now,
            issued: 0,
        };
        self.jobs.insert(serial, job);
        if self.draw(10) > 0 {
            self.queues.entry(lane(issuer)).or_default().push_back(vec![serial]);
        }
    }

    /// Lets time pass until `until`.
    pub(super) fn run(&mut self, until: Timestamp) {
        while let Some(Reverse((at, sequence))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            let happening = self.happenings.remove(&sequence).unwrap();
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(signer, event) => self.tell(signer, event),
            Happening::Perform(signer, effect) => self.perform(signer, effect),
            Happening::Deliver => {
                self.deliver();
                self.later(2, Happening::Deliver);
            }
            Happening::Tick(signer) if self.signers[signer].died_at.is_none() => {
                if self.now >= self.store_down_until {
                    self.tell(signer, Event::Freed(Hindrance::Store));
                }
                self.tell(signer, Event::Tick);
                self.later(20, Happening::Tick(signer));
            }
            Happening::Tick(_) => {}
            Happening::Arrive(issuer) => self.arrive(issuer),
            Happening::Chaos(chaos) => self.chaos(chaos),
        }
    }

    fn chaos(&mut self, chaos: Chaos) {
        match chaos {
            Chaos::Kill(signer) => self.kill(signer % self.signers.len()),
            Chaos::Break(issuer, how) => {
                let issuer = issuer % self.keys.len();
                self.keys[issuer] = [Key::Works, Key::Fails, Key::Slow][usize::from(how) % 3];
            }
            Chaos::Disable(issuer, enabled) => {
                let issuer = issuer % self.keys.len();
                self.enabled[issuer] = enabled;
            }
            Chaos::LoseQueues => self.queues.clear(),
            Chaos::StoreDown(time) => self.store_down_until = self.now + millis(time % 3000),
        }
    }

    fn kill(&mut self, signer: usize) {
        if self.signers[signer].died_at.is_none() {
            self.signers[signer].died_at = Some(self.now);
            let out = std::mem::take(&mut self.signers[signer].out);
            for (lane, jobs) in out.into_values() {
                self.queues.entry(lane).or_default().push_front(jobs);
            }
            self.start_signer();
        }
    }

    fn deliver(&mut self) {
        let lanes: Vec<Lane> = self.queues.keys().cloned().collect();
        let alive: Vec<usize> = (0..self.signers.len())
            .filter(|signer| self.signers[*signer].died_at.is_none() && !self.signers[*signer].drained)
            .collect();
        for lane in lanes {
            for _ in 0..if alive.is_empty() { 0 } else { 8 } {
                let signer = alive[usize::try_from(self.draw(alive.len() as u64)).unwrap()];
                let state = &self.signers[signer];
                let prefetched = state.out.values().filter(|(other, _)| *other == lane).count();
                if state.paused.contains(&lane) || prefetched >= 16 {
                    continue;
                }
                let Some(jobs) = self.queues.get_mut(&lane).and_then(VecDeque::pop_front) else {
                    break;
                };
                self.tags += 1;
                let tag = self.tags;
                let hints = jobs.iter().map(|job| Hint {
                    job: *job,
                    account: "x".parse().unwrap(),
                });
                let event = Event::Delivered {
                    tag,
                    lane: lane.clone(),
                    jobs: hints.collect(),
                };
                self.signers[signer].out.insert(tag, (lane.clone(), jobs));
                self.tell(signer, event);
            }
        }
    }

    fn tell(&mut self, signer: usize, event: Event) {
        if self.signers[signer].died_at.is_some() {
            return;
        }
        if let Event::RunEnded(run) = event {
            self.signers[signer].runs.remove(&run);
        }
        let mut effects = Vec::new();
        self.signers[signer].dispatcher.handle(event, self.now, &mut effects);
        self.check(signer);
        for effect in effects {
            match effect {
                Effect::Settle(tags) => {
                    for tag in tags {
                        let settled = self.signers[signer].out.remove(&tag);
                        assert!(settled.is_some(), "settled what is not out");
                    }
                }
                Effect::GiveBack(tags) => {
                    for tag in tags {
                        let (lane, jobs) = self.signers[signer]
                            .out
                            .remove(&tag)
                            .expect("gave back what is not out");
                        self.queues.entry(lane).or_default().push_front(jobs);
                    }
                }
                Effect::PauseLane(lane) => {
                    assert!(self.signers[signer].paused.insert(lane.clone()), "paused twice");
                    let (out, rest) = std::mem::take(&mut self.signers[signer].out)
                        .into_iter()
                        .partition(|(_, (other, _))| *other == lane);
                    self.signers[signer].out = rest;
                    for (_, jobs) in BTreeMap::into_values(out) {
                        self.queues.entry(lane.clone()).or_default().push_front(jobs);
                    }
                }
                Effect::ResumeLane(lane) => {
                    assert!(self.signers[signer].paused.remove(&lane), "resumed what was not paused");
                }
                Effect::Run { run, lane, jobs } => self.start_run(signer, run, &lane, &jobs),
                Effect::Probe { probe, key, .. } => self.probe(signer, probe, &key),
                Effect::AskPermit | Effect::ReturnPermit => panic!("the token is well"),
                Effect::Drained => self.signers[signer].drained = true,
                Effect::Stop(fault) => panic!("{fault}"),
                Effect::Note { .. } | Effect::Alert(_) => {}
                Effect::Begin(_)
                | Effect::Claim(_)
                | Effect::TakeOver(_)
                | Effect::Finish { .. }
                | Effect::Refuse { .. }
                | Effect::Defer { .. } => {
                    let after = 1 + self.draw(4);
                    self.later(after, Happening::Perform(signer, effect));
                }
            }
        }
    }

    /// What holds for every signer at every moment.
    fn check(&self, signer: usize) {
        let Signer { dispatcher, runs, .. } = &self.signers[signer];
        let status = dispatcher.status();
        assert!(status.in_flight <= LIMITS.in_flight + 1, "too many slots: {status:?}");
        assert!(runs.len() <= LIMITS.workers, "too many runs");
    }

    fn start_run(&mut self, signer: usize, run: u64, lane: &Lane, jobs: &[(Serial, u32)]) {
        assert!(self.signers[signer].runs.insert(run), "a run twice");
        let mut after = 0;
        for (job, turn) in jobs {
            let (job, turn) = (*job, *turn);
            let key = self.keys[number(lane)];
            after += match key {
                Key::Slow => 400,
                Key::Works | Key::Fails => 3,
            };
            let result = match (self.jobs[&job].nature, key) {
                (Nature::Good, Key::Fails) => Err(Failure::Keys(KeysFailure::OperationFailed)),
                (Nature::Good, Key::Slow | Key::Works) => Ok(()),
                (Nature::Bad, _) => Err(Failure::Request(Refused {
                    id: "policy_violation",
                    detail: String::new(),
                })),
                (Nature::Panics, _) => Err(Failure::Panicked(String::new())),
                (Nature::Kills, _) => {
                    self.later(after, Happening::Chaos(Chaos::Kill(signer)));
                    return;
                }
            };
            let took = millis(if key == Key::Slow { 400 } else { 3 });
            let event = Event::Ran {
                job,
                turn,
                result,
                took,
            };
            self.later(after, Happening::Tell(signer, event));
        }
        self.later(after + 1, Happening::Tell(signer, Event::RunEnded(run)));
    }

    fn probe(&mut self, signer: usize, probe: u64, key: &ProbeKey) {
        let key = match key {
            ProbeKey::Canary => Key::Works,
            ProbeKey::Issuer(issuer) => {
                let lane = Lane {
                    issuer: issuer.clone(),
                    class: crate::lane::Class::Interactive,
                };
                self.keys[number(&lane)]
            }
        };
        let (after, result) = match key {
            Key::Works => (3, Ok(())),
            Key::Fails => (3, Err(Failure::Keys(KeysFailure::OperationFailed))),
            Key::Slow => (400, Ok(())),
        };
        let took = millis(after);
        self.later(after, Happening::Tell(signer, Event::Probed { probe, result, took }));
    }

    fn usage_on(&self, lane: &Lane) -> bool {
        self.enabled[number(lane)]
    }

    fn step(&mut self, job: Serial, step: Step) -> bool {
        let job = self.jobs.get_mut(&job).unwrap();
        let Some(next) = job.position.after(step) else {
            return false;
        };
        if next.state == State::Issued {
            job.issued += 1;
        }
        job.position = next;
        true
    }

    fn perform(&mut self, signer: usize, effect: Effect) {
        if self.signers[signer].died_at.is_some() {
            return;
        }
        let down = self.now < self.store_down_until;
        match effect {
            Effect::Begin(jobs) => {
                // A store that fails may have done it all the same.
                if down && self.draw(2) == 0 {
                    self.tell(signer, Event::BeginFailed(jobs));
                    return;
                }
                let event = self.begin(signer, &jobs);
                let event = if down { Event::BeginFailed(jobs) } else { event };
                self.tell(signer, event);
            }
            Effect::Claim(_) if down => self.tell(signer, Event::ClaimFailed),
            Effect::Claim(asked) => {
                let jobs = self.claimable(&asked);
                self.tell(signer, Event::Claimable { asked, jobs });
            }
            Effect::TakeOver(_) if down => self.tell(signer, Event::TakeOverFailed),
            Effect::TakeOver(lanes) => {
                let taken = self.take_over(signer, &lanes);
                self.tell(signer, Event::TakenOver(taken));
            }
            // The recorder tries until the store is back.
            Effect::Finish { .. } | Effect::Refuse { .. } | Effect::Defer { .. } if down => {
                self.later(100, Happening::Perform(signer, effect));
            }
            Effect::Finish { job, turn } => {
                let usage_on = self.usage_on(&self.jobs[&job].lane);
                let finish = |usage_on| Step::Finish {
                    intent_matches: true,
                    usage_on,
                };
                let off = !usage_on && self.jobs[&job].position.after(finish(true)).is_some();
                self.step(job, finish(usage_on));
                let how = if off { Recorded::IssuerOff } else { Recorded::Done };
                self.tell(signer, Event::Recorded { job, turn, how });
            }
            Effect::Refuse { job, turn, .. } => {
                let mine = (turn > 0).then_some(turn);
                self.step(job, Step::Refuse { turn: mine });
                let how = Recorded::Done;
                self.tell(signer, Event::Recorded { job, turn, how });
            }
            Effect::Defer { job, turn, .. } => {
                self.step(job, Step::Defer { turn });
                let how = Recorded::Done;
                self.tell(signer, Event::Recorded { job, turn, how });
            }
            other => panic!("not for the store: {other:?}"),
        }
    }

    fn give(&mut self, signer: usize, job: Serial) -> Begun {
        let now = self.now;
        let row = self.jobs.get_mut(&job).unwrap();
        (row.owner, row.begun_at) = (signer, now);
        self.body(job)
    }

    fn body(&self, job: Serial) -> Begun {
        let row = &self.jobs[&job];
        Begun {
            job,
            lane: row.lane.clone(),
            account: "x".parse().unwrap(),
            turn: row.position.turn,
        }
    }

    fn begin(&mut self, signer: usize, jobs: &[Serial]) -> Event {
        let (mut begun, mut not) = (Vec::new(), Vec::new());
        for job in jobs.iter().copied() {
            let usage_on = self.usage_on(&self.jobs[&job].lane);
            let step = Step::Begin {
                usage_on,
                paused: false,
                in_time: true,
            };
            let row = &self.jobs[&job];
            if row.position.state == State::Signing && row.owner == signer {
                // The answer was lost, and the signer asks again.
                begun.push(self.body(job));
            } else if self.step(job, step) {
                begun.push(self.give(signer, job));
            } else if self.jobs[&job].position.state == State::Queued {
                not.push((job, NotBegun::IssuerDisabled));
            } else {
                not.push((job, NotBegun::NotWanted));
            }
        }
        Event::Begun { begun, not }
    }

    fn claimable(&self, asked: &[Claim]) -> Vec<(Lane, Hint)> {
        let of = |claim: &Claim| {
            let (lane, before) = (claim.lane.clone(), claim.accepted_before);
            let jobs = self.jobs.iter().filter(move |(_, job)| {
                job.lane == lane && job.position.state == State::Queued && job.accepted_at < before
            });
            let lane = claim.lane.clone();
            let hint = move |(job, _): (&Serial, &Job)| {
                let account = "x".parse().unwrap();
                (lane.clone(), Hint { job: *job, account })
            };
            jobs.take(claim.limit as usize).map(hint).collect::<Vec<_>>()
        };
        asked.iter().flat_map(of).collect()
    }

    fn take_over(&mut self, signer: usize, lanes: &[Lane]) -> Option<Begun> {
        let lost = self.jobs.iter().find(|(_, job)| {
            let lease_over = self
                .signers
                .get(job.owner)
                .and_then(|owner| owner.died_at)
                .is_some_and(|at| at + millis(LEASE) <= self.now);
            let too_long = job.begun_at + millis(3 * OPERATION_LIMIT) <= self.now;
            job.position.state == State::Signing && lanes.contains(&job.lane) && (lease_over || too_long)
        });
        let job = *lost?.0;
        let usage_on = self.usage_on(&self.jobs[&job].lane);
        let step = Step::TakeOver {
            owner_lost: true,
            usage_on,
            in_time: true,
        };
        let taken = self.step(job, step) && self.jobs[&job].position.state == State::Signing;
        taken.then(|| self.give(signer, job))
    }

    fn open(&self) -> usize {
        let open = |job: &&Job| matches!(job.position.state, State::Queued | State::Signing);
        self.jobs.values().filter(open).count()
    }

    pub(super) fn issued_by(&self, issuer: usize) -> usize {
        let of = |job: &&Job| job.lane == lane(issuer) && job.issued > 0;
        self.jobs.values().filter(of).count()
    }

    /// Ends all chaos and waits until every job has ended, then drains every signer.
    pub(super) fn settle(&mut self) {
        self.keys.fill(Key::Works);
        self.enabled.fill(true);
        self.store_down_until = self.now;
        for _ in 0..600 {
            if self.open() == 0 {
                break;
            }
            self.run(self.now + millis(500));
        }
        assert_eq!(self.open(), 0, "jobs are lost");
        for signer in 0..self.signers.len() {
            self.later(0, Happening::Tell(signer, Event::Drain));
        }
        self.run(self.now + millis(5000));
        for signer in self.signers.iter().filter(|signer| signer.died_at.is_none()) {
            assert!(signer.drained, "not drained: {:?}", signer.dispatcher.status());
            assert!(signer.dispatcher.flights.is_clean(), "slots leak");
            assert!(signer.dispatcher.intake.is_clean(), "hints leak");
            assert!(signer.out.is_empty(), "deliveries leak");
        }
    }
}
