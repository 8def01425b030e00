//! The lanes and who serves them, without tasks or waiting: every function does its work and returns. One mutex holds all of it, never
//! across an await.
//!
//! An envelope is in one place at a time: ready in its lane, waiting at one desk, or out of one desk. Settling ends it; everything else
//! moves it. Its sequence number is its place in the lane for ever, so what comes back stands where it stood.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use domain::lane::{Carrier, Lane};
use tokio::sync::Notify;

use super::Limits;
use crate::{BrokerError, Delivery, Incoming};

/// One inbox, for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DeskId(u64);

/// All lanes, all desks.
#[derive(Debug)]
pub(super) struct Lanes {
    limits: Limits,
    queues: HashMap<Lane, Queue>,
    /// Who serves a lane whose carrier is the ledger; no entry when nobody does.
    listeners: HashMap<Lane, Vec<DeskId>>,
    desks: HashMap<DeskId, Desk>,
    next_desk: u64,
    next_sequence: u64,
    rejected: u64,
}

/// A lane of its own.
#[derive(Debug, Default)]
struct Queue {
    ready: BTreeMap<u64, Held>,
    /// Ready, waiting and out.
    envelopes: usize,
    bytes: usize,
    /// Who serves it; the next in turn first.
    servers: VecDeque<DeskId>,
}

#[derive(Debug)]
struct Held {
    body: Bytes,
    trace: Option<Arc<str>>,
    jobs: usize,
    redelivered: bool,
}

/// A signer's inbox, seen from here.
#[derive(Debug)]
struct Desk {
    prefetch: usize,
    news: Arc<Notify>,
    served: HashMap<Lane, Served>,
    /// Lanes that have something for this desk, each once, in turn.
    turns: VecDeque<Lane>,
    tags: HashMap<u64, (Lane, u64)>,
    next_tag: u64,
}

/// What one desk has of one lane.
#[derive(Debug, Default)]
struct Served {
    paused: bool,
    /// By sequence number.
    waiting: BTreeMap<u64, Held>,
    /// By sequence number, with the tag.
    out: BTreeMap<u64, (u64, Held)>,
    /// Jobs waiting and out.
    jobs: usize,
    wake_up: bool,
    /// Whether the lane is among the desk's turns.
    announced: bool,
}

impl Desk {
    fn has_room(&self, lane: &Lane, jobs: usize) -> bool {
        self.served
            .get(lane)
            .is_some_and(|served| !served.paused && (served.jobs == 0 || served.jobs + jobs <= self.prefetch))
    }

    fn announce(&mut self, lane: &Lane) {
        let Some(served) = self.served.get_mut(lane) else {
            return;
        };
        if !std::mem::replace(&mut served.announced, true) {
            self.turns.push_back(lane.clone());
        }
        self.news.notify_one();
    }

    fn take(&mut self) -> Option<Incoming> {
        let lane = self.turns.pop_front()?;
        let served = self.served.get_mut(&lane)?;
        served.announced = false;
        if std::mem::take(&mut served.wake_up) {
            return Some(Incoming::WakeUp(lane));
        }
        let (sequence, held) = served.waiting.pop_first()?;
        if !served.waiting.is_empty() {
            served.announced = true;
            self.turns.push_back(lane.clone());
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.tags.insert(tag, (lane.clone(), sequence));
        let delivery = Delivery {
            lane,
            tag,
            body: held.body.clone(),
            redelivered: held.redelivered,
            trace: held.trace.clone(),
        };
        served.out.insert(sequence, (tag, held));
        Some(Incoming::Delivery(delivery))
    }

    /// Ends the delivery that `tag` names.
    fn close(&mut self, tag: u64) -> Option<(Lane, u64, Held)> {
        let (lane, sequence) = self.tags.remove(&tag)?;
        let served = self.served.get_mut(&lane)?;
        let (_, held) = served.out.remove(&sequence)?;
        served.jobs -= held.jobs;
        Some((lane, sequence, held))
    }

    /// Ends everything that this desk has of a lane.
    fn close_lane(&mut self, lane: &Lane) -> BTreeMap<u64, Held> {
        let Some(served) = self.served.get_mut(lane) else {
            return BTreeMap::new();
        };
        if std::mem::take(&mut served.announced) {
            self.turns.retain(|other| other != lane);
        }
        served.jobs = 0;
        let mut returned = std::mem::take(&mut served.waiting);
        for (sequence, (tag, mut held)) in std::mem::take(&mut served.out) {
            self.tags.remove(&tag);
            held.redelivered = true;
            returned.insert(sequence, held);
        }
        returned
    }
}

impl Lanes {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: HashMap::new(),
            listeners: HashMap::new(),
            desks: HashMap::new(),
            next_desk: 0,
            next_sequence: 0,
            rejected: 0,
        }
    }

    /// How many envelopes were turned away because their lane was full.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    pub fn carrier(&mut self, lane: &Lane) -> Carrier {
        if self.queues.contains_key(lane) {
            Carrier::Own
        } else if self.queues.len() < self.limits.own_lanes {
            self.queues.insert(lane.clone(), Queue::default());
            Carrier::Own
        } else {
            Carrier::Ledger
        }
    }

    pub fn publish(&mut self, lane: &Lane, body: Bytes, jobs: usize, trace: Option<&str>) -> Result<(), BrokerError> {
        self.carrier(lane);
        let Some(queue) = self.queues.get_mut(lane) else {
            return self.wake_up(lane);
        };
        if queue.envelopes >= self.limits.lane_envelopes || queue.bytes + body.len() > self.limits.lane_bytes {
            self.rejected += 1;
            return Err(BrokerError::Full(lane.clone()));
        }
        queue.envelopes += 1;
        queue.bytes += body.len();
        let held = Held {
            body,
            trace: trace.map(Arc::from),
            jobs: jobs.max(1),
            redelivered: false,
        };
        queue.ready.insert(self.next_sequence, held);
        self.next_sequence += 1;
        self.deliver(lane);
        Ok(())
    }

    fn wake_up(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        let listeners = self
            .listeners
            .get(lane)
            .ok_or_else(|| BrokerError::Unserved(lane.clone()))?;
        for id in listeners {
            let Some(desk) = self.desks.get_mut(id) else { continue };
            let Some(served) = desk.served.get_mut(lane) else {
                continue;
            };
            served.wake_up = true;
            if !served.paused {
                desk.announce(lane);
            }
        }
        Ok(())
    }

    /// Moves what is ready to desks that have room, in turn.
    fn deliver(&mut self, lane: &Lane) {
        let Some(queue) = self.queues.get_mut(lane) else { return };
        while let Some(first) = queue.ready.first_entry() {
            let jobs = first.get().jobs;
            let has_room = |id: &DeskId| self.desks.get(id).is_some_and(|desk| desk.has_room(lane, jobs));
            let Some(turn) = queue.servers.iter().position(has_room) else {
                return;
            };
            let Some(id) = queue.servers.remove(turn) else { return };
            queue.servers.push_back(id);
            let Some(desk) = self.desks.get_mut(&id) else { return };
            let Some(served) = desk.served.get_mut(lane) else {
                return;
            };
            let (sequence, held) = first.remove_entry();
            served.waiting.insert(sequence, held);
            served.jobs += jobs;
            desk.announce(lane);
        }
    }

    pub fn open(&mut self, lanes: &[Lane], prefetch: usize) -> (DeskId, Arc<Notify>) {
        let id = DeskId(self.next_desk);
        self.next_desk += 1;
        let news = Arc::new(Notify::new());
        let desk = Desk {
            prefetch,
            news: news.clone(),
            served: HashMap::new(),
            turns: VecDeque::new(),
            tags: HashMap::new(),
            next_tag: 1,
        };
        self.desks.insert(id, desk);
        self.add(id, lanes);
        (id, news)
    }

    pub fn add(&mut self, id: DeskId, lanes: &[Lane]) {
        for lane in lanes {
            let carrier = self.carrier(lane);
            let Some(desk) = self.desks.get_mut(&id) else { return };
            if desk.served.contains_key(lane) {
                continue;
            }
            desk.served.insert(lane.clone(), Served::default());
            match carrier {
                Carrier::Own => {
                    if let Some(queue) = self.queues.get_mut(lane) {
                        queue.servers.push_front(id);
                    }
                    self.deliver(lane);
                }
                Carrier::Ledger => self.listeners.entry(lane.clone()).or_default().push(id),
            }
        }
    }

    pub fn take(&mut self, id: DeskId) -> Option<Incoming> {
        self.desks.get_mut(&id)?.take()
    }

    pub fn settle(&mut self, id: DeskId, tags: &[u64]) {
        for (lane, _, held) in self.close(id, tags) {
            if let Some(queue) = self.queues.get_mut(&lane) {
                queue.envelopes -= 1;
                queue.bytes -= held.body.len();
            }
            self.deliver(&lane);
        }
    }

    pub fn give_back(&mut self, id: DeskId, tags: &[u64]) {
        let closed = self.close(id, tags);
        let lanes: Vec<_> = closed.iter().map(|(lane, ..)| lane.clone()).collect();
        for (lane, sequence, mut held) in closed {
            held.redelivered = true;
            self.make_ready(&lane, [(sequence, held)]);
        }
        for lane in lanes {
            self.deliver(&lane);
        }
    }

    fn close(&mut self, id: DeskId, tags: &[u64]) -> Vec<(Lane, u64, Held)> {
        let Some(desk) = self.desks.get_mut(&id) else {
            return Vec::new();
        };
        tags.iter().filter_map(|&tag| desk.close(tag)).collect()
    }

    fn make_ready(&mut self, lane: &Lane, envelopes: impl IntoIterator<Item = (u64, Held)>) {
        if let Some(queue) = self.queues.get_mut(lane) {
            queue.ready.extend(envelopes);
        }
    }

    pub fn pause(&mut self, id: DeskId, lane: &Lane) {
        let Some(desk) = self.desks.get_mut(&id) else { return };
        if let Some(served) = desk.served.get_mut(lane) {
            served.paused = true;
        }
        let returned = desk.close_lane(lane);
        self.make_ready(lane, returned);
        self.deliver(lane);
    }

    pub fn resume(&mut self, id: DeskId, lane: &Lane) {
        let Some(desk) = self.desks.get_mut(&id) else { return };
        let Some(served) = desk.served.get_mut(lane) else {
            return;
        };
        if std::mem::replace(&mut served.paused, false) && served.wake_up {
            desk.announce(lane);
        }
        self.deliver(lane);
    }

    pub fn leave(&mut self, id: DeskId) {
        let Some(mut desk) = self.desks.remove(&id) else { return };
        let lanes: Vec<_> = desk.served.keys().cloned().collect();
        for lane in lanes {
            if let Some(queue) = self.queues.get_mut(&lane) {
                queue.servers.retain(|other| *other != id);
                queue.ready.extend(desk.close_lane(&lane));
                self.deliver(&lane);
            } else if let Some(listeners) = self.listeners.get_mut(&lane) {
                listeners.retain(|other| *other != id);
                if listeners.is_empty() {
                    self.listeners.remove(&lane);
                }
            }
        }
    }
}
