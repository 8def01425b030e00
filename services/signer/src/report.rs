//! Writes down what operators must be able to read later: beside the job, in this node's chain of the audit log, in the log, in the
//! metrics.

use std::{sync::Arc, time::Duration};

use domain::{
    audit::{AuditEvent, AuditLink},
    time::{Clock, Timestamp},
};
use store::{Appended, JobEvent, Store, StoreError};
use tokio::{sync::mpsc, time::timeout};
use wire::{audit::link, signed::NodeKey};

use crate::{metrics::Metrics, news::Report};

/// Reports that are written together.
const TOGETHER: usize = 64;
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How often a report is tried before the log must do.
const ATTEMPTS: u32 = 10;

/// Where reports go.
enum Place {
    Jobs(Vec<JobEvent>),
    Audit(Vec<AuditEvent>),
}

/// Writes reports down.
#[derive(Debug)]
pub struct Reporter {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Who reports.
    pub key: Arc<NodeKey>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// Measurements.
    pub metrics: Metrics,
}

impl Reporter {
    /// Writes until nobody can send reports any more.
    pub async fn run(self, mut reports: mpsc::Receiver<Report>) {
        let mut batch = Vec::new();
        while reports.recv_many(&mut batch, TOGETHER).await > 0 {
            for report in &batch {
                let Report {
                    job,
                    lane,
                    kind,
                    detail,
                    ..
                } = report;
                self.metrics.reported(kind);
                tracing::error!(%job, %lane, kind, detail, "job {job}: {kind}: {detail}");
            }
            let events: Vec<JobEvent> = batch.iter().map(|report| self.beside_the_job(report)).collect();
            self.insist(&Place::Jobs(events)).await;
            let events: Vec<AuditEvent> = batch.drain(..).map(|report| self.in_the_chain(report)).collect();
            self.insist(&Place::Audit(events)).await;
        }
    }

    fn beside_the_job(&self, report: &Report) -> JobEvent {
        JobEvent {
            job: report.job,
            kind: report.kind.to_owned(),
            detail: report.detail.clone(),
            by: self.key.node().to_string(),
            at: Timestamp::default(),
        }
    }

    fn in_the_chain(&self, report: Report) -> AuditEvent {
        let mut detail = report.detail;
        if let Some(certificate) = &report.evidence {
            let certificate = pki::pem::encode("CERTIFICATE", certificate);
            detail = format!("{detail}; it is kept here and was shown to nobody:\n{certificate}");
        }
        AuditEvent {
            at: self.clock.now(),
            kind: format!("job_{}", report.kind),
            by: format!("node:{}", self.key.node()),
            subject: format!("job:{}", report.job),
            reason: None,
            count: 1,
            detail,
        }
    }

    /// Adds a link to this node's chain. Others may write it too: whoever is late takes the new end and tries again.
    async fn append(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        let heads = self.store.audit_heads().await?;
        let last: Option<AuditLink> = heads.into_iter().find(|head| head.writer == *self.key.node());
        let link = link(&self.key, last.as_ref(), events, self.clock.now());
        match self.store.append_audit(&link).await? {
            Appended::Done => Ok(()),
            Appended::Conflict(head) => Err(StoreError::Unavailable(format!("the chain has grown to {head}"))),
        }
    }

    async fn write(&self, place: &Place) -> Result<(), StoreError> {
        match place {
            Place::Jobs(events) => self.store.note(events.clone()).await,
            Place::Audit(events) => self.append(events).await,
        }
    }

    async fn insist(&self, place: &Place) {
        for attempt in 1..=ATTEMPTS {
            match timeout(STORE_TIMEOUT, self.write(place)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::warn!(%error, attempt, "reports are not written down yet: {error}"),
                Err(_) => tracing::warn!(attempt, "reports are not written down yet: no answer in time"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
