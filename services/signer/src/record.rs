//! Writes the ends of jobs into the ledger: whatever has come together while the last commit ran goes into the next one, so that a batch
//! never waits for its slowest job. What the ledger does not take is tried again: a signature that was made is not thrown away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    dispatch::{Hindrance, Recorded},
    id::{Incarnation, IssuerId, Serial},
    pace::rest,
};
use runtime::trace;
use store::{Deferral, Ended, Finish, Finished, JobEvent, Outcome, Refusal, Store, StoreError};
use tokio::{sync::mpsc, time::timeout};
use tracing::Span;

use crate::{answer::Finale, metrics::Metrics, news::News};

/// How long one commit may take before it is tried again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The end of a job, to be recorded.
#[derive(Debug, Clone)]
pub enum Ending {
    /// It is signed, by this issuer, in this stage of its trace.
    Finish(IssuerId, Finish, Span),
    /// It is refused.
    Refuse(Refusal),
    /// It is put back.
    Defer(Deferral),
}

impl Ending {
    fn job(&self) -> (Serial, u32) {
        match self {
            Self::Finish(_, finish, _) => (finish.job, finish.turn),
            Self::Refuse(refusal) => (refusal.job, refusal.turn.unwrap_or(0)),
            Self::Defer(deferral) => (deferral.job, deferral.turn),
        }
    }
}

/// What came of one ending.
enum Settled {
    /// It is in the ledger, or will never be.
    Told(Recorded),
    /// To be tried again.
    Again,
}

/// Writes endings down.
#[derive(Debug)]
pub struct Recorder {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Who records.
    pub owner: Incarnation,
    /// Endings in one round.
    pub batch: usize,
    /// Where the worker hears of it.
    pub news: mpsc::Sender<News>,
    /// Where waiting front ends are answered.
    pub answers: mpsc::Sender<Finale>,
    /// Measurements.
    pub metrics: Metrics,
}

impl Recorder {
    /// Records until nobody can send endings any more.
    pub async fn run(self, mut endings: mpsc::Receiver<Ending>) {
        let mut batch: Vec<Ending> = Vec::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let room = self.batch.saturating_sub(batch.len());
            if batch.is_empty() {
                if endings.recv_many(&mut batch, self.batch).await == 0 {
                    return;
                }
            } else {
                // Some are to be tried again: others that have come meanwhile go with them.
                while batch.len() < self.batch + room
                    && let Ok(ending) = endings.try_recv()
                {
                    batch.push(ending);
                }
            }
            let begun = Instant::now();
            batch = self.record(batch).await;
            if batch.is_empty() {
                pause = FIRST_PAUSE;
                let rest = rest(begun.elapsed());
                if !rest.is_zero() && endings.len() < self.batch {
                    tokio::time::sleep(rest).await;
                }
            } else {
                self.tell(News::Hindered(Hindrance::Store)).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Records a batch; hands back what must be tried again.
    async fn record(&self, batch: Vec<Ending>) -> Vec<Ending> {
        let (mut finishes, mut refusals, mut deferrals) = (Vec::new(), Vec::new(), Vec::new());
        for ending in &batch {
            match ending {
                Ending::Finish(_, finish, _) => finishes.push(finish.clone()),
                Ending::Refuse(refusal) => refusals.push(refusal.clone()),
                Ending::Defer(deferral) => deferrals.push(deferral.clone()),
            }
        }
        let (finished, refused, deferred) =
            tokio::join!(self.finish(finishes), self.refuse(refusals), self.defer(deferrals));
        let (mut finished, mut refused) = (finished.into_iter(), refused.into_iter());
        let (mut told, mut again, mut finales) = (Vec::new(), Vec::new(), Vec::new());
        for ending in batch {
            let settled = match &ending {
                Ending::Finish(issuer, finish, span) => {
                    let finished = finished.next();
                    self.finished(issuer, finish, span, finished, &mut finales).await
                }
                Ending::Refuse(refusal) => self.refused(refusal, refused.next(), &mut finales),
                Ending::Defer(deferral) => self.deferred(deferral, &deferred),
            };
            match settled {
                Settled::Told(how) => {
                    let (job, turn) = ending.job();
                    told.push((job, turn, how));
                }
                Settled::Again => again.push(ending),
            }
        }
        self.answer(finales);
        self.tell(News::Recorded(told)).await;
        again
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Vec<Result<Finished, StoreError>> {
        if finishes.is_empty() {
            return Vec::new();
        }
        let count = finishes.len();
        self.metrics.finish_jobs.observe(precise(count));
        let finished = timeout(COMMIT_TIMEOUT, self.store.finish(&self.owner, finishes)).await;
        finished.unwrap_or_else(|_| vec![Err(late()); count])
    }

    async fn refuse(&self, refusals: Vec<Refusal>) -> Vec<Result<Option<Ended>, StoreError>> {
        if refusals.is_empty() {
            return Vec::new();
        }
        let count = refusals.len();
        let refused = timeout(COMMIT_TIMEOUT, self.store.refuse(&self.owner, refusals)).await;
        refused.unwrap_or_else(|_| vec![Err(late()); count])
    }

    async fn defer(&self, deferrals: Vec<Deferral>) -> Result<(), StoreError> {
        if deferrals.is_empty() {
            return Ok(());
        }
        let deferred = timeout(COMMIT_TIMEOUT, self.store.defer(&self.owner, deferrals)).await;
        deferred.unwrap_or_else(|_| Err(late()))
    }

    async fn finished(
        &self,
        issuer: &IssuerId,
        finish: &Finish,
        span: &Span,
        finished: Option<Result<Finished, StoreError>>,
        finales: &mut Vec<Finale>,
    ) -> Settled {
        let recorded = match settle("finish", finish.job, finished) {
            Ok(recorded) => recorded,
            Err(settled) => return settled,
        };
        match recorded {
            Finished::Issued { ended, first, revoked } => {
                if first {
                    self.metrics.issued(issuer);
                    tracing::debug!(job = %finish.job, revoked, "certificate {} issued", finish.job);
                } else {
                    self.resigned(finish).await;
                }
                // An answer vouches for a certificate that its reader does not verify again: it is of what was signed and verified here.
                // The rest, another's signature or a certificate that is revoked already, is left to those who read the ledger.
                if first && !revoked && is_of(&ended, finish) {
                    finale(ended, Some(span), finales);
                }
                Settled::Told(Recorded::Done)
            }
            Finished::IssuerOff => Settled::Told(Recorded::IssuerOff),
            Finished::IntentMismatch => Settled::Told(Recorded::IntentMismatch),
            Finished::Lost(state) => {
                tracing::warn!(job = %finish.job, ?state, "job {} ended otherwise: its signature is dropped", finish.job);
                self.resigned(finish).await;
                Settled::Told(Recorded::Done)
            }
        }
    }

    /// A signature was made that nobody will see. It is over the one intent, and yet it is written down.
    async fn resigned(&self, finish: &Finish) {
        self.metrics.resigned.inc();
        let event = JobEvent {
            job: finish.job,
            kind: "resigned".to_owned(),
            detail: format!("turn {}: another signature over the intent was dropped", finish.turn),
            by: self.owner.node.to_string(),
            at: domain::time::Timestamp::default(),
        };
        if let Err(error) = self.store.note(vec![event]).await {
            tracing::warn!(job = %finish.job, %error, "a second signature is not written down");
        }
    }

    fn refused(
        &self,
        refusal: &Refusal,
        refused: Option<Result<Option<Ended>, StoreError>>,
        finales: &mut Vec<Finale>,
    ) -> Settled {
        match settle("refuse", refusal.job, refused) {
            Ok(ended) => {
                self.metrics.refused(&refusal.id);
                tracing::info!(job = %refusal.job, id = refusal.id, detail = refusal.detail, "job {} refused", refusal.job);
                if let Some(ended) = ended {
                    finale(ended, None, finales);
                }
                Settled::Told(Recorded::Done)
            }
            Err(settled) => settled,
        }
    }

    fn deferred(&self, deferral: &Deferral, deferred: &Result<(), StoreError>) -> Settled {
        match settle("defer", deferral.job, Some(deferred.clone())) {
            Ok(()) => {
                self.metrics.deferred.inc();
                tracing::info!(job = %deferral.job, reason = deferral.reason, "job {} put back", deferral.job);
                Settled::Told(Recorded::Done)
            }
            Err(settled) => settled,
        }
    }

    /// Has those told who wait for these jobs: all at once, so that they go into one message.
    fn answer(&self, finales: Vec<Finale>) {
        for finale in finales {
            if self.answers.try_send(finale).is_err() {
                self.metrics.answers_dropped.inc();
            }
        }
    }

    async fn tell(&self, news: News) {
        if self.news.send(news).await.is_err() {
            tracing::debug!("the signer has ended before its recorder");
        }
    }
}

/// The end of a job, if somebody waits for it.
fn finale(ended: Ended, span: Option<&Span>, finales: &mut Vec<Finale>) {
    if !ended.waiters.is_empty() {
        let trace = span.and_then(trace::traceparent);
        finales.push(Finale { ended, trace });
    }
}

/// Whether the outcome is this very signature.
fn is_of(ended: &Ended, finish: &Finish) -> bool {
    matches!(&ended.outcome, Outcome::Issued { signature, .. } if *signature == finish.signature)
}

/// What the store said of one row: an answer, or what follows from having none.
fn settle<T>(what: &str, job: Serial, answer: Option<Result<T, StoreError>>) -> Result<T, Settled> {
    match answer {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error @ (StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)))) => {
            tracing::warn!(%job, %error, "failed to {what} job {job}: trying again");
            Err(Settled::Again)
        }
        // It stays begun, is taken over when its time is up, and parked when that has been in vain three times.
        Some(Err(error @ (StoreError::Rejected(_) | StoreError::Damaged(_)))) => {
            tracing::error!(%job, %error, "failed to {what} job {job}");
            Err(Settled::Told(Recorded::Done))
        }
        None => {
            tracing::error!(%job, "failed to {what} job {job}: the store gave no answer for it");
            Err(Settled::Again)
        }
    }
}

fn late() -> StoreError {
    StoreError::OutcomeUnknown(format!("no answer within {COMMIT_TIMEOUT:?}"))
}

/// A small count as a number for histograms.
pub fn precise(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
