//! Hints that wait, and the deliveries that brought them: a delivery is settled when none of its jobs waits any more.

use foldhash::{HashMap, HashMapExt as _, HashSet};

use super::event::Hint;
use crate::{
    fair::{FairQueue, Limits, Slot},
    id::{IssuerId, Serial},
    lane::{Class, Lane},
};

#[derive(Debug)]
pub(super) struct Intake {
    waiting: FairQueue<Serial>,
    total: usize,
    per_lane: usize,
    jobs: HashMap<Serial, Hinted>,
    deliveries: HashMap<u64, Delivery>,
    /// The deliveries of each lane that has any.
    of_lanes: HashMap<Lane, HashSet<u64>>,
}

/// A job that waits or is being begun.
#[derive(Debug)]
struct Hinted {
    slot: Slot,
    cost: u32,
    /// Whether it waits; otherwise it is being begun.
    waits: bool,
    /// Deliveries that brought it. Those that are given back are forgotten here only when the job is.
    tags: Vec<u64>,
}

#[derive(Debug)]
struct Delivery {
    lane: Lane,
    /// Jobs of it that wait or are being begun.
    open: usize,
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Its jobs wait, or are begun already: nothing to do now.
    Held,
    /// Every job of it is under way here already.
    Settled,
    /// There was no room for at least one of its jobs.
    Full,
}

impl Intake {
    pub fn new(total: usize, per_lane: usize) -> Self {
        assert!(
            total >= per_lane * 4 && per_lane >= 4,
            "a lane may hold a quarter of what waits, at most"
        );
        Self {
            waiting: FairQueue::new(Limits { total, per_lane }),
            total,
            per_lane,
            jobs: HashMap::new(),
            deliveries: HashMap::new(),
            of_lanes: HashMap::new(),
        }
    }

    /// Takes a delivery of jobs, of which `under_way` says whether they were begun here.
    pub fn deliver(
        &mut self,
        tag: u64,
        lane: &Lane,
        hints: Vec<Hint>,
        cost: u32,
        under_way: impl Fn(Serial) -> bool,
    ) -> Taken {
        let (mut open, mut full) = (0, false);
        for hint in hints {
            let job = hint.job;
            if under_way(job) && !self.jobs.contains_key(&job) {
                continue;
            }
            if !self.jobs.contains_key(&job) && !self.hint(lane, hint, cost) {
                full = true;
                continue;
            }
            let hinted = self.jobs.get_mut(&job).expect("it was there or has just been taken");
            if !hinted.tags.contains(&tag) {
                hinted.tags.push(tag);
                open += 1;
            }
        }
        if full {
            return Taken::Full;
        }
        if open == 0 {
            return Taken::Settled;
        }
        self.of_lanes.entry(lane.clone()).or_default().insert(tag);
        let lane = lane.clone();
        self.deliveries.insert(tag, Delivery { lane, open });
        Taken::Held
    }

    /// Takes a hint. Whether it is new and there was room for it.
    pub fn hint(&mut self, lane: &Lane, hint: Hint, cost: u32) -> bool {
        if self.jobs.contains_key(&hint.job) {
            return false;
        }
        let slot = Slot {
            class: lane.class,
            issuer: lane.issuer.clone(),
            account: hint.account,
        };
        let taken = self.waiting.push(&slot, cost, hint.job).is_ok();
        if taken {
            let hinted = Hinted {
                slot,
                cost,
                waits: true,
                tags: Vec::new(),
            };
            self.jobs.insert(hint.job, hinted);
        }
        taken
    }

    /// The next job to begin, of a lane that `admits` says yes to; a lane that it says no to is passed over until it is released.
    pub fn next(&mut self, admits: impl FnMut(&IssuerId, Class) -> bool) -> Option<(Lane, Serial)> {
        let (slot, job) = self.waiting.pop_where(admits)?;
        if let Some(hinted) = self.jobs.get_mut(&job) {
            hinted.waits = false;
        }
        Some((slot.lane(), job))
    }

    /// The job is begun, or known not to be wanted: the deliveries that are settled by that.
    pub fn resolve(&mut self, job: Serial, settled: &mut Vec<u64>) {
        let Some(hinted) = self.jobs.remove(&job) else { return };
        if hinted.waits {
            self.waiting.remove(&hinted.slot, |waiting| *waiting == job);
        }
        for tag in hinted.tags {
            if let Some(delivery) = self.deliveries.get_mut(&tag) {
                delivery.open -= 1;
                if delivery.open == 0 {
                    self.forget_delivery(tag);
                    settled.push(tag);
                }
            }
        }
    }

    /// Whether it was there.
    fn forget_delivery(&mut self, tag: u64) -> bool {
        let Some(delivery) = self.deliveries.remove(&tag) else {
            return false;
        };
        if let Some(tags) = self.of_lanes.get_mut(&delivery.lane) {
            tags.remove(&tag);
            if tags.is_empty() {
                self.of_lanes.remove(&delivery.lane);
            }
        }
        true
    }

    /// The job could not be begun for now: it waits again. Without room it is forgotten, as if it had not come.
    pub fn put_back(&mut self, job: Serial, given_back: &mut Vec<u64>) {
        let Some(hinted) = self.jobs.get_mut(&job) else { return };
        hinted.waits = true;
        if self.waiting.push(&hinted.slot, hinted.cost, job).is_err() {
            let tags = self.jobs.remove(&job).map(|hinted| hinted.tags).unwrap_or_default();
            given_back.extend(tags.into_iter().filter(|tag| self.forget_delivery(*tag)));
        }
    }

    /// The broker has taken back what it delivered of a lane: these. Its jobs go on waiting as mere hints.
    pub fn void_lane(&mut self, lane: &Lane) -> Vec<u64> {
        let mut tags: Vec<u64> = self.of_lanes.remove(lane).into_iter().flatten().collect();
        tags.sort_unstable();
        for tag in &tags {
            self.deliveries.remove(tag);
        }
        tags
    }

    /// The broker has taken back everything.
    pub fn void(&mut self) {
        self.deliveries.clear();
        self.of_lanes.clear();
        for hinted in self.jobs.values_mut() {
            hinted.tags.clear();
        }
    }

    /// Forgets what waits of a lane, and names the deliveries of the lane: they are to be given back.
    pub fn drop_lane(&mut self, lane: &Lane) -> Vec<u64> {
        for (_, job) in self.waiting.remove_lane(lane) {
            self.jobs.remove(&job);
        }
        self.void_lane(lane)
    }

    /// Forgets everything that waits.
    pub fn drop_waiting(&mut self) {
        for (_, job) in self.waiting.drain() {
            self.jobs.remove(&job);
        }
    }

    /// Asks again about the issuer's lanes that were not admitted.
    pub fn release(&mut self, issuer: &IssuerId) {
        self.waiting.release(issuer);
    }

    /// Jobs of a lane that wait.
    pub fn lane_len(&self, lane: &Lane) -> usize {
        self.waiting.lane_len(lane)
    }

    /// Whether a lane that had no room has plenty again.
    pub fn has_plenty(&self, lane: &Lane) -> bool {
        self.lane_len(lane) <= self.per_lane / 4 && self.waiting.len() <= self.total / 4 * 3
    }

    /// How many more jobs of a lane may wait.
    pub fn room(&self, lane: &Lane) -> usize {
        self.per_lane - self.lane_len(lane)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(test)]
    pub fn beginning(&self) -> impl Iterator<Item = Serial> {
        self.jobs
            .iter()
            .filter(|(_, hinted)| !hinted.waits)
            .map(|(job, _)| *job)
    }

    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.jobs.is_empty() && self.deliveries.is_empty() && self.of_lanes.is_empty() && self.waiting.is_empty()
    }
}
