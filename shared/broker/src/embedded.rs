//! The embedded adapter: lanes in memory, for front ends and signers of one process.
//!
//! It holds sealed envelopes, which carry serials and nothing else; what is lost with the process, signers claim from the ledger.

mod lanes;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Carrier, Lane},
};
use tokio::sync::Notify;

use self::lanes::{DeskId, Lanes};
use crate::{Answers, Broker, BrokerError, Inbox, Incoming, SealedAnswer, bounded_trace};

/// How much the broker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lanes with a queue of their own; of the others only wake-ups travel.
    pub own_lanes: usize,
    /// Envelopes in one lane's queue, those that are out included.
    pub lane_envelopes: usize,
    /// Bytes in one lane's queue.
    pub lane_bytes: usize,
    /// Bodies kept in quarantine; the newest stay.
    pub quarantine_bodies: usize,
    /// Bytes kept in quarantine.
    pub quarantine_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            own_lanes: 200,
            lane_envelopes: 2_000,
            lane_bytes: 4 * 1024 * 1024,
            quarantine_bodies: 1_000,
            quarantine_bytes: 4 * 1024 * 1024,
        }
    }
}

/// What was turned away since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Envelopes, because their lane was full.
    pub envelopes_rejected: u64,
    /// Answers, because the front end's inbox was full.
    pub answers_dropped: u64,
    /// Bodies set aside.
    pub quarantined: u64,
}

/// A body that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it came from.
    pub lane: Lane,
    /// As it came.
    pub body: Bytes,
    /// Why.
    pub reason: String,
}

/// The embedded broker. Clones share everything.
#[derive(Debug, Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    lanes: Mutex<Lanes>,
    desks: Mutex<AnswerDesks>,
    quarantine: Mutex<Quarantine>,
}

#[derive(Debug, Default)]
struct AnswerDesks {
    by_frontend: HashMap<Incarnation, AnswerDesk>,
    next_id: u64,
    dropped: u64,
}

#[derive(Debug)]
struct AnswerDesk {
    id: u64,
    limit: usize,
    waiting: VecDeque<SealedAnswer>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Quarantine {
    kept: VecDeque<Quarantined>,
    bytes: usize,
    count: u64,
}

/// Nothing that runs under these locks panics half-way; a poisoned one holds a whole state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// An empty broker.
    pub fn new(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                lanes: Mutex::new(Lanes::new(limits)),
                desks: Mutex::default(),
                quarantine: Mutex::default(),
            }),
        }
    }

    /// What was turned away since the start.
    pub fn counters(&self) -> Counters {
        Counters {
            envelopes_rejected: lock(&self.shared.lanes).rejected(),
            answers_dropped: lock(&self.shared.desks).dropped,
            quarantined: lock(&self.shared.quarantine).count,
        }
    }

    /// The newest bodies in quarantine, oldest first.
    pub fn in_quarantine(&self) -> Vec<Quarantined> {
        lock(&self.shared.quarantine).kept.iter().cloned().collect()
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

#[async_trait]
impl Broker for Embedded {
    fn carrier(&self, lane: &Lane) -> Carrier {
        lock(&self.shared.lanes).carrier(lane)
    }

    async fn publish(&self, lane: &Lane, envelope: Bytes, jobs: usize, trace: Option<&str>) -> Result<(), BrokerError> {
        lock(&self.shared.lanes).publish(lane, envelope, jobs, bounded_trace(trace))
    }

    async fn serve(&self, _: &Incarnation, lanes: &[Lane], prefetch: usize) -> Result<Box<dyn Inbox>, BrokerError> {
        let (desk, news) = lock(&self.shared.lanes).open(lanes, prefetch);
        Ok(Box::new(EmbeddedInbox {
            shared: self.shared.clone(),
            desk,
            news,
        }))
    }

    async fn answers(&self, frontend: &Incarnation, limit: usize) -> Result<Box<dyn Answers>, BrokerError> {
        let news = Arc::new(Notify::new());
        let mut desks = lock(&self.shared.desks);
        let id = desks.next_id;
        desks.next_id += 1;
        let desk = AnswerDesk {
            id,
            limit,
            waiting: VecDeque::new(),
            news: news.clone(),
        };
        if let Some(before) = desks.by_frontend.insert(frontend.clone(), desk) {
            before.news.notify_one();
        }
        Ok(Box::new(EmbeddedAnswers {
            shared: self.shared.clone(),
            frontend: frontend.clone(),
            id,
            news,
        }))
    }

    async fn answer(&self, frontend: &Incarnation, answer: Bytes, trace: Option<&str>) -> Result<(), BrokerError> {
        let mut desks = lock(&self.shared.desks);
        let Some(desk) = desks.by_frontend.get_mut(frontend) else {
            return Err(BrokerError::Unanswerable(frontend.clone()));
        };
        if desk.waiting.len() < desk.limit {
            desk.waiting.push_back(SealedAnswer {
                body: answer,
                trace: bounded_trace(trace).map(Arc::from),
            });
            desk.news.notify_one();
        } else {
            desks.dropped += 1;
        }
        Ok(())
    }

    async fn quarantine(&self, lane: &Lane, body: Bytes, reason: &str) -> Result<(), BrokerError> {
        let Limits {
            quarantine_bodies,
            quarantine_bytes,
            ..
        } = self.shared.limits;
        let mut quarantine = lock(&self.shared.quarantine);
        quarantine.count += 1;
        quarantine.bytes += body.len();
        quarantine.kept.push_back(Quarantined {
            lane: lane.clone(),
            body,
            reason: reason.to_owned(),
        });
        while quarantine.kept.len() > quarantine_bodies || quarantine.bytes > quarantine_bytes {
            let Some(oldest) = quarantine.kept.pop_front() else {
                break;
            };
            quarantine.bytes -= oldest.body.len();
        }
        Ok(())
    }

    async fn quarantined(&self) -> Result<usize, BrokerError> {
        Ok(usize::try_from(lock(&self.shared.quarantine).count).unwrap_or(usize::MAX))
    }
}

#[derive(Debug)]
struct EmbeddedInbox {
    shared: Arc<Shared>,
    desk: DeskId,
    news: Arc<Notify>,
}

impl EmbeddedInbox {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        lock(&self.shared.lanes)
    }
}

#[async_trait]
impl Inbox for EmbeddedInbox {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            let taken = self.lanes().take(self.desk);
            if taken.is_some() {
                return taken;
            }
            // What is announced between the look and the wait leaves a permit, and the wait ends at once.
            self.news.notified().await;
        }
    }

    async fn add(&mut self, lanes: &[Lane]) -> Result<(), BrokerError> {
        self.lanes().add(self.desk, lanes);
        Ok(())
    }

    async fn settle(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        self.lanes().settle(self.desk, tags);
        Ok(())
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        self.lanes().give_back(self.desk, tags);
        Ok(())
    }

    async fn pause(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        self.lanes().pause(self.desk, lane);
        Ok(())
    }

    async fn resume(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        self.lanes().resume(self.desk, lane);
        Ok(())
    }
}

impl Drop for EmbeddedInbox {
    fn drop(&mut self) {
        self.lanes().leave(self.desk);
    }
}

#[derive(Debug)]
struct EmbeddedAnswers {
    shared: Arc<Shared>,
    frontend: Incarnation,
    id: u64,
    news: Arc<Notify>,
}

#[async_trait]
impl Answers for EmbeddedAnswers {
    async fn next(&mut self) -> Option<SealedAnswer> {
        loop {
            {
                let mut desks = lock(&self.shared.desks);
                // Another inbox of the same name has taken this one's place.
                let desk = desks
                    .by_frontend
                    .get_mut(&self.frontend)
                    .filter(|desk| desk.id == self.id)?;
                if let Some(answer) = desk.waiting.pop_front() {
                    return Some(answer);
                }
            }
            self.news.notified().await;
        }
    }
}

impl Drop for EmbeddedAnswers {
    fn drop(&mut self) {
        let mut desks = lock(&self.shared.desks);
        if desks
            .by_frontend
            .get(&self.frontend)
            .is_some_and(|desk| desk.id == self.id)
        {
            desks.by_frontend.remove(&self.frontend);
        }
    }
}

#[cfg(test)]
mod tests;
