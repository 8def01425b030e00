//! Writes down what operators must be able to read later: beside the job, in the log, in the metrics.

use std::{sync::Arc, time::Duration};

use domain::{id::NodeId, time::Timestamp};
use store::{JobEvent, Store};
use tokio::{sync::mpsc, time::timeout};

use crate::{metrics::Metrics, news::Report};

/// Reports that are written together.
const TOGETHER: usize = 64;
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How often a report is tried before the log must do.
const ATTEMPTS: u32 = 10;

/// Writes reports down until nobody can send them any more.
pub async fn run(store: Arc<dyn Store>, node: NodeId, metrics: Metrics, mut reports: mpsc::Receiver<Report>) {
    let mut batch = Vec::new();
    while reports.recv_many(&mut batch, TOGETHER).await > 0 {
        let events: Vec<JobEvent> = batch.drain(..).map(|report| event(report, &node, &metrics)).collect();
        for attempt in 1..=ATTEMPTS {
            match timeout(STORE_TIMEOUT, store.note(events.clone())).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!(%error, attempt, "reports are not written down yet"),
                Err(_) => tracing::warn!(attempt, "reports are not written down yet: no answer in time"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn event(report: Report, node: &NodeId, metrics: &Metrics) -> JobEvent {
    let Report {
        job,
        lane,
        kind,
        detail,
    } = report;
    metrics.reported(kind);
    tracing::error!(%job, %lane, kind, detail, "job {job}: {kind}: {detail}");
    JobEvent {
        job,
        kind: kind.to_owned(),
        detail,
        by: node.to_string(),
        at: Timestamp::default(),
    }
}
