//! A quarantine that does not answer is nobody's wait, and nothing is lost from it.

use std::sync::Arc;

use async_trait::async_trait;
use broker::{Answers, Broker, BrokerError, Inbox, embedded::Embedded};
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Carrier, Lane},
};
use runtime::config;
use tokio::sync::Semaphore;

use super::bench::{Bench, lane};

/// More than may wait to be set aside, and more than a lane delivers at a time.
const NOISE: usize = 100;

/// A broker whose quarantine takes nothing until it is told to.
#[derive(Debug)]
struct Stuck {
    broker: Embedded,
    takes: Arc<Semaphore>,
}

#[async_trait]
impl Broker for Stuck {
    fn carrier(&self, lane: &Lane) -> Carrier {
        self.broker.carrier(lane)
    }

    async fn publish(&self, lane: &Lane, envelope: Bytes, jobs: usize, trace: Option<&str>) -> Result<(), BrokerError> {
        self.broker.publish(lane, envelope, jobs, trace).await
    }

    async fn serve(
        &self,
        signer: &Incarnation,
        lanes: &[Lane],
        prefetch: usize,
    ) -> Result<Box<dyn Inbox>, BrokerError> {
        self.broker.serve(signer, lanes, prefetch).await
    }

    async fn answers(&self, frontend: &Incarnation, limit: usize) -> Result<Box<dyn Answers>, BrokerError> {
        self.broker.answers(frontend, limit).await
    }

    async fn answer(&self, frontend: &Incarnation, answer: Bytes, trace: Option<&str>) -> Result<(), BrokerError> {
        self.broker.answer(frontend, answer, trace).await
    }

    async fn quarantine(&self, lane: &Lane, body: Bytes, reason: &str) -> Result<(), BrokerError> {
        let _taken = self.takes.acquire().await;
        self.broker.quarantine(lane, body, reason).await
    }

    async fn quarantined(&self) -> Result<usize, BrokerError> {
        self.broker.quarantined().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_that_does_not_answer_holds_up_no_lane_and_what_was_put_off_comes_again() {
    let bench = Bench::new().await;
    let takes = Arc::new(Semaphore::new(0));
    let broker = Stuck {
        broker: bench.broker.clone(),
        takes: takes.clone(),
    };
    let signer = bench.start_on(&config::Signer::default(), Arc::new(broker));
    let before = bench.submit("b", 1).await;
    bench.issued("b", &before).await;
    for _ in 0..NOISE {
        let noise = Bytes::from_static(b"noise");
        bench.broker.publish(&lane("a"), noise, 1, None).await.unwrap();
    }
    // Were the loop to wait for each of them, these would be there in minutes.
    for name in ["b", "a", "b"] {
        let jobs = bench.submit(name, 20).await;
        bench.issued(name, &jobs).await;
    }
    takes.add_permits(1);
    bench
        .until("all is set aside", async || {
            signer.metric("bulkhead_signer_quarantined_total") == NOISE as u64
        })
        .await;
    signer.stop().await.unwrap();
}
