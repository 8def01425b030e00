//! Jobs that are under way: being begun, begun, run, recorded; the slots that they hold, and the workers that they keep busy.
//!
//! An issuer may hold as many slots, and as many workers, as it leaves free: one that hangs gets half of them, and there is always one for
//! an issuer that has none, until every slot is in use. Where several tokens are served, the same holds for each token, and an issuer may
//! hold as many as it leaves free of its token's share: one that hangs gets a quarter, and leaves its neighbours on the token the other.
//! What is refused a place stands in a line, and is asked again when places are given back: a few at a time, so that it costs the same
//! however many stand there.

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashMapExt as _, HashSet};

use super::issuers::{Issuer, Issuers};
use crate::{
    breaker::Permit,
    fair::{FairQueue, Limits, Slot},
    id::{AccountId, IssuerId, Serial},
    lane::{Class, Lane},
};

/// Units of cost in one run. A run occupies its worker from beginning to end, and reads cancellations once.
const RUN_COST: u32 = 8;

/// How many of a line are asked again when a place is given back, and how many when time has passed.
const ASKED_AGAIN: usize = 2;
const ASKED_AGAIN_LATER: usize = 64;

#[derive(Debug)]
pub(super) struct Flights {
    limit: usize,
    workers: usize,
    jobs: BTreeMap<(Serial, u32), Flight>,
    ready: FairQueue<Run>,
    runs: HashMap<u64, (IssuerId, usize)>,
    last_run: u64,
    tokens: Vec<Load>,
    /// Tokens that issuers are served on.
    shared_by: usize,
    /// Whether each token gets one job at a time.
    one_each: bool,
    /// Issuers that are to be asked again whether they want a slot.
    released: Vec<IssuerId>,
}

#[derive(Debug)]
struct Flight {
    lane: Lane,
    token: usize,
    permit: Option<Permit>,
}

/// What a token carries, and who waits for it.
#[derive(Debug, Default)]
struct Load {
    in_flight: usize,
    running: usize,
    slots: Line,
    workers: Line,
}

/// Issuers that were refused a place, each once, the longest ago first.
#[derive(Debug, Default)]
struct Line {
    order: VecDeque<IssuerId>,
    inside: HashSet<IssuerId>,
}

impl Line {
    fn join(&mut self, issuer: &IssuerId) {
        if !self.inside.contains(issuer) {
            self.inside.insert(issuer.clone());
            self.order.push_back(issuer.clone());
        }
    }

    fn next(&mut self) -> Option<IssuerId> {
        let issuer = self.order.pop_front()?;
        self.inside.remove(&issuer);
        Some(issuer)
    }
}

/// Jobs of one lane that are checked and signed one after the other on one worker.
#[derive(Debug)]
pub(super) struct Run {
    pub lane: Lane,
    pub jobs: Vec<(Serial, u32)>,
}

/// A job that is under way no more.
#[derive(Debug)]
pub(super) struct Ended {
    pub lane: Lane,
    /// What its issuer's breaker has allowed and has not heard of.
    pub permit: Option<Permit>,
}

/// How many more places a token may take that holds so many, of so many free ones: each makes one more that it holds and one less free.
fn left_of_share(free: usize, held: usize) -> usize {
    free.saturating_sub(held).div_ceil(2)
}

impl Flights {
    pub fn new(limit: usize, workers: usize) -> Self {
        // Never more runs than jobs in flight: a quarter of the room is never exceeded, so nothing is ever turned away.
        let room = limit * 4;
        Self {
            limit,
            workers,
            jobs: BTreeMap::new(),
            ready: FairQueue::new(Limits {
                total: room,
                per_lane: room,
            }),
            runs: HashMap::new(),
            last_run: 0,
            tokens: Vec::new(),
            shared_by: 1,
            one_each: false,
            released: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Slots that are free. Take-overs of jobs that hang here may go over the limit by one.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.jobs.len())
    }

    /// Tells how many tokens there are, and on how many of them issuers are served.
    pub fn set_tokens(&mut self, known: usize, served: usize) {
        self.tokens.resize_with(known.max(self.tokens.len()), Load::default);
        self.shared_by = served;
    }

    /// Gives each token one job at a time, or as many as there is room for. Whether that is new.
    pub fn set_one_each(&mut self, one_each: bool) -> bool {
        std::mem::replace(&mut self.one_each, one_each) != one_each
    }

    /// Whether a job is under way here, in whatever turn.
    pub fn has(&self, job: Serial) -> bool {
        self.jobs.range((job, 0)..=(job, u32::MAX)).next().is_some()
    }

    /// The lane and the token of a job that is under way in this turn.
    pub fn find(&self, job: Serial, turn: u32) -> Option<(&Lane, usize)> {
        self.jobs.get(&(job, turn)).map(|flight| (&flight.lane, flight.token))
    }

    /// Whether there is a slot for another job of the issuer. If not, it stands in line.
    pub fn has_slot(&mut self, id: &IssuerId, issuer: &Issuer) -> bool {
        let free = self.free();
        let token = self.tokens.get_mut(issuer.token);
        let bound = match &token {
            Some(token) if self.one_each => usize::from(token.in_flight == 0).min(free),
            Some(token) if self.shared_by > 1 => left_of_share(free, token.in_flight),
            _ => free,
        };
        let has_slot = issuer.in_flight < bound;
        if !has_slot && let Some(token) = token {
            token.slots.join(id);
        }
        has_slot
    }

    /// A job takes a slot. Turn 0: it is being begun.
    pub fn start(&mut self, issuers: &mut Issuers, (job, turn): (Serial, u32), lane: &Lane, permit: Option<Permit>) {
        let issuer = issuers.know(&lane.issuer);
        let flight = Flight {
            lane: lane.clone(),
            token: issuer.token,
            permit,
        };
        if self.jobs.insert((job, turn), flight).is_none() {
            issuer.in_flight += 1;
            if let Some(token) = self.tokens.get_mut(issuer.token) {
                token.in_flight += 1;
            }
        }
    }

    /// A job that was being begun is begun now, and keeps its slot. If it had none, it takes one.
    pub fn begun(&mut self, issuers: &mut Issuers, job: Serial, turn: u32, lane: &Lane) {
        match self.jobs.remove(&(job, 0)) {
            Some(flight) => drop(self.jobs.insert((job, turn), flight)),
            None => self.start(issuers, (job, turn), lane, None),
        }
    }

    /// What the issuer's breaker has allowed for this job: it is about to hear of it.
    pub fn take_permit(&mut self, job: Serial, turn: u32) -> Option<Permit> {
        self.jobs.get_mut(&(job, turn))?.permit.take()
    }

    /// A job gives its slot back. `None` if it had none.
    pub fn end(&mut self, issuers: &mut Issuers, job: Serial, turn: u32) -> Option<Ended> {
        let flight = self.jobs.remove(&(job, turn))?;
        let issuer = &flight.lane.issuer;
        if let Some(known) = issuers.get_mut(issuer) {
            known.in_flight -= 1;
            if std::mem::take(&mut known.refused) {
                self.released.push(issuer.clone());
            }
            if !known.served {
                issuers.forget_if_idle(issuer);
            }
        }
        if let Some(token) = self.tokens.get_mut(flight.token) {
            token.in_flight -= 1;
            self.released.extend((0..ASKED_AGAIN).map_while(|_| token.slots.next()));
        }
        let Flight { lane, permit, .. } = flight;
        Some(Ended { lane, permit })
    }

    /// Issuers that are to be asked again whether they want a slot.
    pub fn released(&mut self) -> impl Iterator<Item = IssuerId> {
        self.released.drain(..)
    }

    /// Time has passed: whoever stands in line is asked again, a few at a time.
    pub fn ask_again(&mut self) {
        for token in &mut self.tokens {
            self.released
                .extend((0..ASKED_AGAIN_LATER).map_while(|_| token.slots.next()));
            for issuer in (0..ASKED_AGAIN_LATER).map_while(|_| token.workers.next()) {
                self.ready.release(&issuer);
            }
        }
    }

    /// Begun jobs of one lane wait for workers, in runs.
    pub fn make_ready(&mut self, lane: &Lane, account: &AccountId, jobs: &[(Serial, u32)], cost: u32) {
        let slot = Slot {
            class: lane.class,
            issuer: lane.issuer.clone(),
            account: account.clone(),
        };
        let per_run = usize::try_from((RUN_COST / cost.max(1)).max(1)).unwrap_or(1);
        for jobs in jobs.chunks(per_run) {
            let run = Run {
                lane: lane.clone(),
                jobs: jobs.to_vec(),
            };
            let cost = cost.saturating_mul(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
            self.ready
                .push(&slot, cost, run)
                .expect("its room is four times what can be in flight");
        }
    }

    /// The next run and its number, if a worker is free for it.
    pub fn next_run(&mut self, issuers: &mut Issuers) -> Option<(u64, Run)> {
        let free = self.workers.saturating_sub(self.runs.len());
        if free == 0 || self.ready.is_empty() {
            return None;
        }
        let (tokens, shared) = (&mut self.tokens, self.shared_by > 1);
        let (slot, run) = self.ready.pop_where(|id, _| {
            let Some(issuer) = issuers.get(id) else { return true };
            let Some(token) = tokens.get_mut(issuer.token) else {
                return true;
            };
            let bound = if shared {
                left_of_share(free, token.running)
            } else {
                free
            };
            let admitted = issuer.running < bound;
            if !admitted {
                token.workers.join(id);
            }
            admitted
        })?;
        let issuer = issuers.know(&slot.issuer);
        issuer.running += 1;
        let token = issuer.token;
        if let Some(load) = self.tokens.get_mut(token) {
            load.running += 1;
        }
        self.last_run += 1;
        self.runs.insert(self.last_run, (slot.issuer, token));
        Some((self.last_run, run))
    }

    /// A worker is free again.
    pub fn run_ended(&mut self, issuers: &mut Issuers, run: u64) {
        let Some((issuer, token)) = self.runs.remove(&run) else {
            return;
        };
        if let Some(known) = issuers.get_mut(&issuer) {
            known.running -= 1;
            if !known.served {
                issuers.forget_if_idle(&issuer);
            }
        }
        self.ready.release(&issuer);
        if let Some(load) = self.tokens.get_mut(token) {
            load.running -= 1;
        }
        // A worker is everybody's: the lines of other tokens move on as well, one after the other.
        let count = self.tokens.len().max(1);
        let other = usize::try_from(run).unwrap_or_default() % count;
        for number in [token, other] {
            let Some(load) = self.tokens.get_mut(number) else {
                continue;
            };
            for issuer in (0..ASKED_AGAIN).map_while(|_| load.workers.next()) {
                self.ready.release(&issuer);
            }
        }
    }

    /// Takes back every run that waits for a worker.
    pub fn drain_ready(&mut self) -> Vec<(Serial, u32)> {
        self.ready.drain().into_iter().flat_map(|(_, run)| run.jobs).collect()
    }

    /// Takes back the runs of one issuer that wait for a worker.
    pub fn drain_ready_of(&mut self, issuer: &IssuerId) -> Vec<(Serial, u32)> {
        if self.ready.is_empty() {
            return Vec::new();
        }
        let lanes = Class::ALL.map(|class| Lane {
            issuer: issuer.clone(),
            class,
        });
        let runs = lanes
            .iter()
            .flat_map(|lane| self.ready.remove_lane(lane))
            .collect::<Vec<_>>();
        runs.into_iter().flat_map(|(_, run)| run.jobs).collect()
    }

    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        let unused = |load: &Load| load.in_flight == 0 && load.running == 0;
        self.jobs.is_empty() && self.ready.is_empty() && self.runs.is_empty() && self.tokens.iter().all(unused)
    }
}
