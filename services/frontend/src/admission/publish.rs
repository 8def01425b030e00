//! Tells signers of new jobs, after the commit and beside the answer. A hint: whatever happens to it, the jobs are in the ledger.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker::Broker;
use domain::{id::Serial, lane::Lane, time::Clock};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wire::{envelope::Envelope, signed::NodeKey};

use crate::metrics::Metrics;

/// How many lanes are remembered before idle ones are forgotten.
const LANES: usize = 4096;

/// Publishes envelopes, a bounded number of each lane at a time.
#[derive(Debug)]
pub struct Publisher {
    /// Where they go.
    pub broker: Arc<dyn Broker>,
    /// Who says it.
    pub node_key: Arc<NodeKey>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How many envelopes of one lane may be out and unconfirmed.
    pub unconfirmed: usize,
    /// How long one may take.
    pub timeout: Duration,
    /// Publishing that goes on.
    pub tasks: TaskTracker,
    /// What each lane may still send.
    pub lanes: Mutex<HashMap<Lane, Arc<Semaphore>>>,
}

impl Publisher {
    /// Publishes new jobs of one lane, as many to an envelope as its class takes. Returns at once.
    pub fn publish(self: &Arc<Self>, lane: &Lane, jobs: &[Serial]) {
        let room = self.room(lane);
        for jobs in jobs.chunks(lane.class.envelope_jobs()) {
            let Ok(permit) = room.clone().try_acquire_owned() else {
                self.metrics.not_published("unconfirmed");
                continue;
            };
            let (publisher, lane, jobs) = (self.clone(), lane.clone(), jobs.to_vec());
            self.tasks.spawn(async move {
                publisher.send(&lane, jobs).await;
                drop(permit);
            });
        }
    }

    async fn send(&self, lane: &Lane, jobs: Vec<Serial>) {
        let count = jobs.len();
        let envelope = Envelope::new(lane.clone(), jobs, self.clock.now()).to_bytes(&self.node_key);
        match tokio::time::timeout(self.timeout, self.broker.publish(lane, envelope, count)).await {
            Ok(Ok(())) => {
                self.metrics.published.inc();
            }
            Ok(Err(error)) => {
                tracing::debug!(%lane, %error, "envelope not published; signers will claim its jobs from the ledger");
                self.metrics.not_published("refused");
            }
            Err(_) => {
                tracing::debug!(%lane, "envelope not confirmed in time; signers will claim its jobs from the ledger");
                self.metrics.not_published("timeout");
            }
        }
    }

    fn room(&self, lane: &Lane) -> Arc<Semaphore> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= LANES && !lanes.contains_key(lane) {
            lanes.retain(|_, room| room.available_permits() < self.unconfirmed);
        }
        lanes
            .entry(lane.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.unconfirmed)))
            .clone()
    }
}
