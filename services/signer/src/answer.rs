//! Answers to front ends that wait: one message for each of them, about all jobs of theirs that ended together. An answer is a hint; who
//! does not get it reads the ledger.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker::Broker;
use domain::id::Incarnation;
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

/// Answers until nobody can send ended jobs any more.
pub async fn run(broker: Arc<dyn Broker>, key: Arc<NodeKey>, metrics: Metrics, mut ended: mpsc::Receiver<Ended>) {
    let mut sending = JoinSet::new();
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, TOGETHER).await > 0 {
        for (to, answers) in by_waiter(batch.drain(..)) {
            for answers in answers.chunks(MAX_ANSWERS) {
                let sealed = Answers::new(to.clone(), answers.to_vec()).to_bytes(&key);
                while sending.len() >= UNDER_WAY {
                    sending.join_next().await;
                }
                let (broker, to, dropped) = (broker.clone(), to.clone(), metrics.answers_dropped.clone());
                sending.spawn(async move {
                    let sent = timeout(ANSWER_TIMEOUT, broker.answer(&to, sealed, None)).await;
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

fn by_waiter(ended: impl Iterator<Item = Ended>) -> BTreeMap<Incarnation, Vec<Answer>> {
    let mut answers: BTreeMap<Incarnation, Vec<Answer>> = BTreeMap::new();
    for Ended { job, outcome, waiters } in ended {
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
            answers.entry(waiter).or_default().push(Answer { job, outcome });
        }
    }
    answers
}
