//! How waits end: signers' answers as they come in, and the ledger, read every 250 ms for all who wait at once.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use broker::Broker;
use domain::{id::Incarnation, time::Clock};
use runtime::{follow::Applied, trace};
use store::Store;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use wire::answer::{Answer, AnswerOutcome, Answers};

use crate::{
    metrics::Metrics,
    waiting::{Arrival, Waiters},
};

/// How long to wait before an inbox is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens for answers.
#[derive(Debug)]
pub struct Listener {
    /// Who waits.
    pub waiters: Arc<Waiters>,
    /// Where answers come from.
    pub broker: Arc<dyn Broker>,
    /// Where the truth is.
    pub store: Arc<dyn Store>,
    /// Who may answer.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// Who is answered.
    pub incarnation: Incarnation,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How many answers may wait to be read; what is over is found in the ledger.
    pub inbox: usize,
}

impl Listener {
    /// Takes in answers, for ever. An inbox that the broker closes is opened again.
    pub async fn listen(self: Arc<Self>) {
        loop {
            match self.broker.answers(&self.incarnation, self.inbox).await {
                Ok(mut inbox) => {
                    while let Some(answer) = inbox.next().await {
                        self.hear(&answer.body, answer.trace.as_deref());
                    }
                }
                Err(error) => tracing::debug!(%error, "no inbox for answers; the ledger is read instead"),
            }
            sleep(AGAIN).await;
        }
    }

    fn hear(&self, sealed: &[u8], contexts: Option<&str>) {
        match Answers::open(sealed, &self.applied.load().directory, self.clock.now()) {
            Ok((_, answers)) if answers.to == self.incarnation => {
                for (Answer { job, outcome }, context) in answers.answers.into_iter().zip(trace::split(contexts)) {
                    let stage = context.map(|context| {
                        let stage = runtime::stage!(parent: None, "answered", %job);
                        trace::continues(&stage, context);
                        stage.entered()
                    });
                    let arrival = match outcome {
                        AnswerOutcome::Issued { signature, at } => Arrival::Issued { signature, at },
                        AnswerOutcome::Refused { .. } | AnswerOutcome::Expired | AnswerOutcome::Discarded { .. } => {
                            Arrival::Ended
                        }
                    };
                    self.waiters.arrived(job, &arrival);
                    drop(stage);
                }
            }
            Ok((node, answers)) => tracing::debug!(%node, to = %answers.to, "an answer for an earlier run"),
            Err(error) => {
                self.metrics.answers_refused.inc();
                tracing::warn!(%error, "an answer is not believed");
            }
        }
    }

    /// Reads the ledger for all who wait, in one query each time, for ever.
    pub async fn poll(self: Arc<Self>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let jobs = self.waiters.jobs();
            self.metrics.waiting.set(i64::try_from(jobs.len()).unwrap_or(i64::MAX));
            if jobs.is_empty() {
                continue;
            }
            match timeout(every * 20, self.store.ended(&jobs)).await {
                Ok(Ok(ended)) => ended
                    .iter()
                    .for_each(|ended| self.waiters.arrived(ended.job, &Arrival::Ended)),
                Ok(Err(error)) => tracing::debug!(%error, "the ledger was not read for those who wait"),
                Err(_) => tracing::debug!("the ledger did not answer in time for those who wait"),
            }
        }
    }
}
