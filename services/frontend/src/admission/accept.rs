//! Accepts prepared jobs in batches: one signature for a batch, one call of the store, an answer for each job.

use std::{
    collections::HashMap,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{job::State, lane::Lane, pace::rest, time::Clock};
use runtime::follow::Follower;
use store::{AcceptError, Accepted, How, NewJob, Store, StoreError};
use wire::{
    attest::{MAX_BATCH, attest},
    signed::NodeKey,
};

use super::{
    Admitted,
    prepare::Prepared,
    publish::{Hint, Publisher},
    refusal::Refusal,
    slot,
    stage::Stage,
};
use crate::{issuers::Issuers, metrics::Metrics, readiness::Troubles, waiting::Waiters};

/// How long the store may take for a batch.
const STORE: Duration = Duration::from_secs(5);

/// How many serials a job may find taken before it is given up. Each has 80 random bits: a second one means that something is broken.
const ATTEMPTS: u8 = 3;

/// Accepts jobs.
#[derive(Debug)]
pub struct Acceptor {
    /// Where they go.
    pub store: Arc<dyn Store>,
    /// Who vouches for them.
    pub node_key: Arc<NodeKey>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// Who tells signers.
    pub publisher: Arc<Publisher>,
    /// Who waits.
    pub waiters: Arc<Waiters>,
    /// Hears of the registry's head.
    pub follower: Arc<Follower>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What each issuer demands.
    pub issuers: Arc<Issuers>,
    /// What the store said against lanes.
    pub troubles: Arc<Troubles>,
    /// How many jobs a batch may have.
    pub batch: usize,
}

impl Acceptor {
    /// Takes batches from the stage until it is closed and empty, and returns when all are answered. One batch is with the store at a
    /// time: an idle front end delays nothing, and what comes while a batch is being committed, and while the stage rests after it, makes
    /// the next one, which costs its signatures and its call once, however large it is.
    pub async fn run(self: Arc<Self>, prepared: Arc<Stage<Prepared>>) {
        let most = self.batch.min(MAX_BATCH);
        while let Some(batch) = prepared.take(most).await {
            let begun = Instant::now();
            let (acceptor, stage) = (self.clone(), prepared.clone());
            let accepting = tokio::spawn(async move { acceptor.accept(batch, &stage).await });
            if accepting.await.is_err() {
                tracing::error!("a batch panicked: its clients hear that it was dropped");
            }
            let rest = rest(begun.elapsed());
            if !rest.is_zero() && prepared.waiting() < most {
                tokio::time::sleep(rest).await;
            }
        }
    }

    async fn accept(&self, batch: Vec<Prepared>, prepared: &Stage<Prepared>) {
        let (late, mut batch): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .filter(|prepared| !prepared.reply.is_abandoned())
            .partition(|prepared| prepared.reply.is_late());
        for late in late {
            late.reply.send(Err(Refusal::Late));
        }
        if batch.is_empty() {
            return;
        }
        self.metrics.batch.observe(size(batch.len()));
        let intents: Vec<_> = batch.iter().map(Prepared::awaited_intent).collect();
        let stages: Vec<_> = batch
            .iter()
            .map(|prepared| runtime::stage!(parent: &prepared.span, "accept"))
            .collect();
        let answers = self.ask(self.attested(&mut batch)).await;
        drop(stages);
        let mut new: HashMap<Lane, Vec<Hint>> = HashMap::new();
        let mut replies = Vec::with_capacity(batch.len());
        for ((mut job, intent), answer) in batch.into_iter().zip(intents).zip(answers) {
            match answer {
                Ok(accepted) => {
                    self.follower.hear_of(accepted.head);
                    if accepted.how == How::New && accepted.state == State::Queued {
                        let hint = Hint {
                            job: accepted.job,
                            span: job.span.clone(),
                        };
                        new.entry(job.job.lane.clone()).or_default().push(hint);
                    }
                    // The wait begins before signers are told, so that no answer comes too early for it.
                    let admitted = Admitted {
                        job: accepted.job,
                        wait: job.seat.take().map(|seat| self.waiters.wait(accepted.job, seat)),
                        intent: intent.filter(|_| accepted.how == How::New),
                    };
                    replies.push((job.reply, Ok(admitted)));
                }
                Err(AcceptError::SerialTaken) if job.attempts < ATTEMPTS => {
                    match job.renumber(&self.issuers, self.clock.now()) {
                        Ok(()) => {
                            if let Err(refused) = prepared.push(&slot(&job.terms), job) {
                                replies.push((refused.item.reply, Err(Refusal::Full(refused.full))));
                            }
                        }
                        Err(refusal) => replies.push((job.reply, Err(refusal))),
                    }
                }
                Err(error) => {
                    if matches!(
                        error,
                        AcceptError::LaneFull | AcceptError::LaneDraining | AcceptError::IssuerUnknown
                    ) {
                        self.troubles.refused(&job.job.lane, error.to_string());
                    }
                    replies.push((job.reply, Err(Refusal::NotAccepted(job.terms.issuer.id.clone(), error))));
                }
            }
        }
        for (lane, jobs) in new {
            self.publisher.publish(lane, jobs);
        }
        for (reply, answer) in replies {
            reply.send(answer);
        }
    }

    /// The jobs with their proofs: the statements of a batch are signed as one. The bytes move along; a job that needs another serial
    /// gets new ones.
    fn attested(&self, batch: &mut [Prepared]) -> Vec<NewJob> {
        let statements: Vec<&[u8]> = batch.iter().map(|prepared| &*prepared.job.statement).collect();
        let proofs = attest(&self.node_key, &statements);
        batch
            .iter_mut()
            .zip(proofs)
            .map(|(prepared, proof)| NewJob {
                statement: take(&mut prepared.job.statement),
                tbs: take(&mut prepared.job.tbs),
                proof: serde_json::to_vec(&proof).expect("a proof has text keys only, so it always serialises"),
                ..prepared.job.clone()
            })
            .collect()
    }

    async fn ask(&self, jobs: Vec<NewJob>) -> Vec<Result<Accepted, AcceptError>> {
        let count = jobs.len();
        let answers = tokio::time::timeout(STORE, self.store.accept(jobs)).await;
        // Answers that do not come are answers that are not known.
        let silent =
            std::iter::repeat_with(|| Err(StoreError::OutcomeUnknown(format!("no answer within {STORE:?}")).into()));
        answers
            .unwrap_or_default()
            .into_iter()
            .chain(silent)
            .take(count)
            .collect()
    }
}

fn size(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
