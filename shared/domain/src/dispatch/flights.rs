//! Jobs that are under way: being begun, begun, run, recorded; the slots that they hold, and the issuers whose they are.
//!
//! An issuer may hold as many slots, and as many workers, as it leaves free: one that hangs gets half of them, and there is always one for
//! an issuer that has none, until every slot is in use.

use std::collections::{BTreeMap, HashMap};

use super::gate::Gate;
use crate::{
    fair::{FairQueue, Limits, Slot},
    id::{AccountId, IssuerId, Serial},
    lane::Lane,
    time::Timestamp,
};

/// Units of cost in one run. A run occupies its worker from beginning to end, and reads cancellations once.
const RUN_COST: u32 = 8;

#[derive(Debug)]
pub(super) struct Flights {
    limit: usize,
    workers: usize,
    jobs: BTreeMap<(Serial, u32), Flight>,
    issuers: HashMap<IssuerId, Issuer>,
    ready: FairQueue<Run>,
    runs: HashMap<u64, IssuerId>,
    last_run: u64,
}

#[derive(Debug)]
struct Flight {
    lane: Lane,
    /// Whether it was taken over from an owner that is lost.
    taken_over: bool,
}

/// What is known of an issuer while there is anything to know.
#[derive(Debug, Default)]
struct Issuer {
    in_flight: usize,
    running: usize,
    gate: Gate,
}

/// Jobs of one lane that are checked and signed one after the other on one worker.
#[derive(Debug)]
pub(super) struct Run {
    pub lane: Lane,
    pub jobs: Vec<(Serial, u32)>,
}

impl Flights {
    pub fn new(limit: usize, workers: usize) -> Self {
        // Never more runs than jobs in flight: a quarter of the room is never exceeded, so nothing is ever turned away.
        let room = limit * 4;
        Self {
            limit,
            workers,
            jobs: BTreeMap::new(),
            issuers: HashMap::new(),
            ready: FairQueue::new(Limits {
                total: room,
                per_lane: room,
            }),
            runs: HashMap::new(),
            last_run: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Slots that are free. Take-overs of jobs that hang here may go over the limit by one.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.jobs.len())
    }

    /// Whether a job is under way here, in whatever turn.
    pub fn has(&self, job: Serial) -> bool {
        self.jobs.range((job, 0)..=(job, u32::MAX)).next().is_some()
    }

    /// The lane of a job that is under way in this turn.
    pub fn lane(&self, job: Serial, turn: u32) -> Option<&Lane> {
        self.jobs.get(&(job, turn)).map(|flight| &flight.lane)
    }

    /// Whether another job of the issuer may be begun now.
    pub fn admits(&self, issuer: &IssuerId, now: Timestamp) -> bool {
        let free = self.free();
        match self.issuers.get(issuer) {
            None => free > 0,
            Some(known) => known.in_flight < free && known.gate.admits(known.in_flight, now),
        }
    }

    /// Whether jobs of the issuer should be left to other signers for now.
    pub fn turns_away(&self, issuer: &IssuerId, now: Timestamp) -> bool {
        self.issuers.get(issuer).is_some_and(|known| known.gate.turns_away(now))
    }

    /// Whether a job of the issuer may be begun now, for all that its gate says.
    pub fn gate_admits(&self, issuer: &IssuerId, now: Timestamp) -> bool {
        self.issuers
            .get(issuer)
            .is_none_or(|known| known.gate.admits(known.in_flight, now))
    }

    /// A key operation of the issuer came to its end.
    pub fn tried(&mut self, issuer: &IssuerId, succeeded: bool, now: Timestamp) {
        if succeeded {
            if let Some(known) = self.issuers.get_mut(issuer) {
                known.gate.succeeded();
            }
        } else {
            self.issuers.entry(issuer.clone()).or_default().gate.failed(now);
        }
    }

    /// A job takes a slot. Turn 0: it is being begun.
    pub fn start(&mut self, job: Serial, turn: u32, lane: &Lane, taken_over: bool) {
        let lane = lane.clone();
        let issuer = lane.issuer.clone();
        if self.jobs.insert((job, turn), Flight { lane, taken_over }).is_none() {
            self.issuers.entry(issuer).or_default().in_flight += 1;
        }
    }

    /// A job gives its slot back. `None` if it had none; otherwise its lane and whether it had been taken over.
    pub fn end(&mut self, job: Serial, turn: u32) -> Option<(Lane, bool)> {
        let flight = self.jobs.remove(&(job, turn))?;
        if let Some(known) = self.issuers.get_mut(&flight.lane.issuer) {
            known.in_flight -= 1;
        }
        self.forget(&flight.lane.issuer);
        Some((flight.lane, flight.taken_over))
    }

    /// Begun jobs of one lane wait for workers, in runs.
    pub fn make_ready(&mut self, lane: &Lane, account: &AccountId, jobs: &[(Serial, u32)], cost: u32) {
        let slot = Slot {
            class: lane.class,
            issuer: lane.issuer.clone(),
            account: account.clone(),
        };
        let per_run = usize::try_from((RUN_COST / cost).max(1)).unwrap_or(1);
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
    pub fn next_run(&mut self) -> Option<(u64, Run)> {
        if self.runs.len() >= self.workers {
            return None;
        }
        let (slot, run) = self.ready.pop()?;
        self.issuers.entry(slot.issuer.clone()).or_default().running += 1;
        self.last_run += 1;
        self.runs.insert(self.last_run, slot.issuer);
        self.share_workers();
        Some((self.last_run, run))
    }

    /// A worker is free again.
    pub fn run_ended(&mut self, run: u64) {
        let Some(issuer) = self.runs.remove(&run) else { return };
        if let Some(known) = self.issuers.get_mut(&issuer) {
            known.running -= 1;
        }
        self.ready.release(&issuer);
        self.forget(&issuer);
        self.share_workers();
    }

    fn share_workers(&mut self) {
        let free = self.workers - self.runs.len();
        for (issuer, known) in &self.issuers {
            if known.running > 0 && known.running >= free {
                self.ready.hold(issuer);
            } else {
                self.ready.release(issuer);
            }
        }
    }

    /// Takes back every run that waits for a worker.
    pub fn drain_ready(&mut self) -> Vec<(Serial, u32)> {
        self.ready.drain().into_iter().flat_map(|(_, run)| run.jobs).collect()
    }

    fn forget(&mut self, issuer: &IssuerId) {
        let idle = |known: &Issuer| known.in_flight == 0 && known.running == 0 && known.gate.is_open();
        if self.issuers.get(issuer).is_some_and(idle) {
            self.issuers.remove(issuer);
        }
    }

    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.jobs.is_empty()
            && self.ready.is_empty()
            && self.runs.is_empty()
            && self
                .issuers
                .values()
                .all(|known| known.in_flight == 0 && known.running == 0 && !known.gate.is_open())
    }
}
