//! Tells signers of new jobs, after the commit and beside the answer. A hint: whatever happens to it, the jobs are in the ledger.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker::Broker;
use domain::{id::Serial, lane::Lane, time::Clock};
use runtime::trace;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::Span;
use wire::{envelope::Envelope, signed::NodeKey};

use crate::metrics::Metrics;

/// How many lanes are remembered before idle ones are forgotten.
const LANES: usize = 4096;

/// A job that signers are told of.
#[derive(Debug, Clone)]
pub struct Hint {
    /// Which.
    pub job: Serial,
    /// The stage of its trace that led here.
    pub span: Span,
}

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
    /// Publishes new jobs of one lane, as many to an envelope as its class takes. Returns at once; envelopes past the number that may be
    /// out take turns with those before them, until the time limit.
    pub fn publish(self: &Arc<Self>, lane: Lane, jobs: Vec<Hint>) {
        let publisher = self.clone();
        self.tasks.spawn(async move {
            let room = publisher.room(&lane);
            let deadline = Instant::now() + publisher.timeout;
            for jobs in jobs.chunks(lane.class.envelope_jobs()) {
                let Ok(Ok(permit)) = timeout_at(deadline, room.clone().acquire_owned()).await else {
                    publisher.metrics.not_published("unconfirmed");
                    continue;
                };
                let (sender, lane, jobs) = (publisher.clone(), lane.clone(), jobs.to_vec());
                publisher.tasks.spawn(async move {
                    sender.send(&lane, &jobs).await;
                    drop(permit);
                });
            }
        });
    }

    async fn send(&self, lane: &Lane, jobs: &[Hint]) {
        let count = jobs.len();
        let stages: Vec<Span> = jobs
            .iter()
            .map(|hint| runtime::stage!(parent: &hint.span, "publish", job = %hint.job))
            .collect();
        let contexts: Vec<_> = stages.iter().map(trace::traceparent).collect();
        let contexts = trace::join(&contexts);
        let serials = jobs.iter().map(|hint| hint.job).collect();
        let envelope = Envelope::new(lane.clone(), serials, self.clock.now()).to_bytes(&self.node_key);
        match tokio::time::timeout(
            self.timeout,
            self.broker.publish(lane, envelope, count, contexts.as_deref()),
        )
        .await
        {
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use broker::{Answers, BrokerError, Inbox};
    use bytes::Bytes;
    use domain::{id::Incarnation, lane::Carrier, time::Timestamp};
    use runtime::clock::SystemClock;

    use super::*;

    /// A broker that never confirms.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Vec<(Lane, usize)>>);

    #[async_trait]
    impl Broker for Silent {
        fn carrier(&self, _: &Lane) -> Carrier {
            Carrier::Own
        }
        async fn publish(&self, lane: &Lane, _: Bytes, jobs: usize, _: Option<&str>) -> Result<(), BrokerError> {
            self.0.lock().unwrap().push((lane.clone(), jobs));
            std::future::pending().await
        }
        async fn serve(&self, _: &Incarnation, _: &[Lane], _: usize) -> Result<Box<dyn Inbox>, BrokerError> {
            Err(BrokerError::Unavailable("silent".into()))
        }
        async fn answers(&self, _: &Incarnation, _: usize) -> Result<Box<dyn Answers>, BrokerError> {
            Err(BrokerError::Unavailable("silent".into()))
        }
        async fn answer(&self, _: &Incarnation, _: Bytes, _: Option<&str>) -> Result<(), BrokerError> {
            Ok(())
        }
        async fn quarantine(&self, _: &Lane, _: Bytes, _: &str) -> Result<(), BrokerError> {
            Ok(())
        }
        async fn quarantined(&self) -> Result<usize, BrokerError> {
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_is_given_up_lane_by_lane_and_nobody_waits_for_it() {
        let broker = Arc::new(Silent::default());
        let shared = runtime::telemetry::Metrics::new();
        let publisher = Arc::new(Publisher {
            broker: broker.clone(),
            node_key: Arc::new(NodeKey::generate("frontend-1".parse().unwrap())),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new(&shared)),
            unconfirmed: 2,
            timeout: Duration::from_secs(1),
            tasks: TaskTracker::new(),
            lanes: Mutex::default(),
        });
        let hint = |n| Hint {
            job: Serial::new(Timestamp::default(), [n; 10]),
            span: Span::none(),
        };
        let jobs: Vec<Hint> = (0..10).map(hint).collect();
        let lane = |name: &str| name.parse::<Lane>().unwrap();
        publisher.publish(lane("a.interactive"), jobs.clone());
        publisher.publish(lane("b.bulk"), jobs);
        publisher.tasks.close();
        publisher.tasks.wait().await;
        let mut published = broker.0.lock().unwrap().clone();
        published.sort();
        let expected = [("a.interactive", 4), ("a.interactive", 4), ("b.bulk", 10)];
        assert_eq!(published, expected.map(|(name, jobs)| (lane(name), jobs)));
        let metrics = shared.encode();
        assert!(
            metrics.contains(r#"envelopes_not_published_total{reason="unconfirmed"} 1"#),
            "{metrics}"
        );
        assert!(
            metrics.contains(r#"envelopes_not_published_total{reason="timeout"} 3"#),
            "{metrics}"
        );
    }
}
