//! Answers to front ends that wait: one message for each of them, about all jobs of theirs that ended together. An answer is a hint; who
//! does not get it reads the ledger.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker::Broker;
use domain::id::Incarnation;
use runtime::trace;
use store::{Ended, Outcome};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use wire::{
    answer::{Answer, AnswerOutcome, Answers, MAX_ANSWERS},
    signed::NodeKey,
};

use crate::metrics::Metrics;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Answers on their way at a time.
const UNDER_WAY: usize = 64;
/// Ended jobs that are looked at together.
const TOGETHER: usize = 256;

/// The end of a job that somebody waits for.
#[derive(Debug)]
pub struct Finale {
    /// How it ended, and who waits.
    pub ended: Ended,
    /// Its trace context, if it is traced.
    pub trace: Option<String>,
}

/// Answers until nobody can send ended jobs any more.
pub async fn run(broker: Arc<dyn Broker>, key: Arc<NodeKey>, metrics: Metrics, mut ended: mpsc::Receiver<Finale>) {
    let mut sending = JoinSet::new();
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, TOGETHER).await > 0 {
        for (to, answers) in by_waiter(batch.drain(..)) {
            for answers in answers.chunks(MAX_ANSWERS) {
                let (answers, contexts): (Vec<_>, Vec<_>) = answers.iter().cloned().unzip();
                let contexts = trace::join(&contexts);
                let sealed = Answers::new(to.clone(), answers).to_bytes(&key);
                while sending.len() >= UNDER_WAY {
                    sending.join_next().await;
                }
                let (broker, to, dropped) = (broker.clone(), to.clone(), metrics.answers_dropped.clone());
                sending.spawn(async move {
                    let sent = timeout(ANSWER_TIMEOUT, broker.answer(&to, sealed, contexts.as_deref())).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        dropped.inc();
                        tracing::debug!(frontend = %to, "not answered; it reads the ledger");
                    }
                });
            }
        }
        while sending.try_join_next().is_some() {}
    }
    sending.join_all().await;
}

type Traced = (Answer, Option<String>);

fn by_waiter(ended: impl Iterator<Item = Finale>) -> BTreeMap<Incarnation, Vec<Traced>> {
    let mut answers: BTreeMap<Incarnation, Vec<Traced>> = BTreeMap::new();
    for Finale { ended, trace } in ended {
        let Ended { job, outcome, waiters } = ended;
        let outcome = match outcome {
            Outcome::Issued { signature, at } => AnswerOutcome::Issued {
                signature: signature.into(),
                at,
            },
            Outcome::Refused { id, detail, .. } => AnswerOutcome::Refused { id, detail },
            Outcome::Expired { .. } => AnswerOutcome::Expired,
            Outcome::Discarded { reason, .. } => AnswerOutcome::Discarded { reason },
        };
        for waiter in waiters {
            let outcome = outcome.clone();
            answers
                .entry(waiter)
                .or_default()
                .push((Answer { job, outcome }, trace.clone()));
        }
    }
    answers
}
