//! The way of a request from its parsed form to a committed job: queued fairly, verified once, prepared, linted, accepted in batches.

pub mod accept;
pub mod forecast;
pub mod prepare;
pub mod publish;
pub mod refusal;
pub mod stage;
pub mod throttles;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use domain::{
    bytes::Digest,
    estimate::Decision,
    fair::{Limits, Slot},
    id::Serial,
    issuer::{Issuer, Standing},
    registry::Terms,
    request::{Content, Request},
    time::Clock,
};
use runtime::config::Frontend;
use store::Store;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::Span;

use self::{
    accept::Acceptor,
    forecast::Forecast,
    prepare::{Prepared, Preparer},
    refusal::Refusal,
    stage::Stage,
    throttles::Throttles,
};
use crate::{
    metrics::Metrics,
    waiting::{Seat, Wait, Waiters},
};

/// What a client wants.
#[derive(Debug)]
pub enum Wanted {
    /// A certificate that says this.
    Certificate(Box<Request>),
    /// A certificate that says what another one says, for another key.
    Rekey {
        /// The other one.
        of: Serial,
        /// What it says.
        content: Box<Content>,
        /// The new key, and how it shall be signed; the rest is empty.
        request: Box<Request>,
    },
}

/// A parsed request on its way.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub wanted: Wanted,
    /// What it is judged by.
    pub terms: Terms,
    /// SHA-256 of account and idempotency key, if the client sent one.
    pub idempotency: Option<Digest>,
    /// Where the client sits, if it waits.
    pub seat: Option<Seat>,
    /// Where the answer goes.
    pub reply: Reply,
    /// The stage of the request's trace that this is.
    pub span: Span,
}

/// Where an answer goes, and until when somebody wants it.
#[derive(Debug)]
pub struct Reply {
    sender: oneshot::Sender<Result<Admitted, Refusal>>,
    /// Until when the client waits, if it waits for the certificate.
    answer_by: Option<Instant>,
}

impl Reply {
    /// Answers. A client that has gone needs none.
    pub fn send(self, answer: Result<Admitted, Refusal>) {
        let _ = self.sender.send(answer);
    }

    /// Whether nobody wants the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether its time is over: what is not accepted by then is not begun.
    pub fn is_late(&self) -> bool {
        self.answer_by.is_some_and(|until| until <= Instant::now())
    }
}

/// A request that has become a job.
#[derive(Debug)]
pub struct Admitted {
    /// The job: a new one, or the one that was there.
    pub job: Serial,
    /// The wait for it, where the client waits and had a seat.
    pub wait: Option<Wait>,
    /// What was accepted for a new job that is waited for; `None` for one that was there, which may have ended before the wait began.
    pub intent: Option<Intent>,
}

/// What is to be signed, and by whom.
#[derive(Debug)]
pub struct Intent {
    /// The to-be-signed bytes.
    pub tbs: Vec<u8>,
    /// The issuer.
    pub issuer: Arc<Issuer>,
}

/// The front door: two fair stages, workers that verify, and a loop that accepts.
#[derive(Debug)]
pub struct Admission {
    orders: Arc<Stage<Order>>,
    prepared: Arc<Stage<Prepared>>,
    clock: Arc<dyn Clock>,
    forecast: Forecast,
    throttles: Throttles,
    waiters: Arc<Waiters>,
    metrics: Arc<Metrics>,
}

/// What runs behind the front door.
#[derive(Debug)]
pub struct Running {
    workers: Vec<JoinHandle<()>>,
    accepting: tokio::task::JoinHandle<()>,
    orders: Arc<Stage<Order>>,
    prepared: Arc<Stage<Prepared>>,
}

impl Admission {
    /// Opens the front door: starts the threads that verify and prepare, and the loop that accepts.
    pub fn start(
        settings: &Frontend,
        preparer: &Arc<Preparer>,
        acceptor: &Arc<Acceptor>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<(Arc<Self>, Running)> {
        let limits = |per_lane| Limits {
            total: settings.requests,
            per_lane,
        };
        let orders = Arc::new(Stage::new(limits(settings.verify_queue_per_issuer)));
        let prepared = Arc::new(Stage::new(limits(settings.accept_queue_per_issuer)));
        let workers = match settings.admission_threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let runtime = tokio::runtime::Handle::current();
        let workers = (0..workers)
            .map(|n| {
                let (orders, prepared, preparer) = (orders.clone(), prepared.clone(), preparer.clone());
                let runtime = runtime.clone();
                thread::Builder::new().name(format!("admission-{n}")).spawn(move || {
                    while let Some(batch) = runtime.block_on(orders.take(1)) {
                        for order in batch {
                            preparer.pass_on(order, &prepared);
                        }
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        let accepting = tokio::spawn(acceptor.clone().run(prepared.clone()));
        let running = Running {
            workers,
            accepting,
            orders: orders.clone(),
            prepared: prepared.clone(),
        };
        let admission = Self {
            orders,
            prepared,
            clock,
            forecast: Forecast::default(),
            throttles: Throttles::default(),
            waiters: acceptor.waiters.clone(),
            metrics: acceptor.metrics.clone(),
        };
        Ok((Arc::new(admission), running))
    }

    /// Brings a request to its job, or says why not. What cannot be issued now is refused before it is queued; and so is what cannot be
    /// answered in time, if its client waits, `wait` from now.
    pub async fn admit(
        &self,
        wanted: Wanted,
        terms: Terms,
        idempotency: Option<Digest>,
        wait: Option<Duration>,
    ) -> Result<Admitted, Refusal> {
        let standing = terms.issuer.standing(terms.profile.purpose, self.clock.now());
        if standing != Standing::Good {
            return Err(Refusal::Issuer(terms.issuer.id.clone(), standing));
        }
        let passed = self.throttles.pass(&terms.account.id, wait.is_some());
        let passed = passed.map_err(Refusal::Throttled)?;
        let admitted = self.pass(wanted, terms, idempotency, wait).await;
        if admitted.as_ref().is_err_and(Refusal::is_overload) {
            passed.refused();
        }
        admitted
    }

    async fn pass(
        &self,
        wanted: Wanted,
        terms: Terms,
        idempotency: Option<Digest>,
        wait: Option<Duration>,
    ) -> Result<Admitted, Refusal> {
        let answer_by = wait.map(|wait| Instant::now() + wait);
        let slot = slot(&terms);
        let lane = slot.lane();
        if let Some(wait) = wait {
            match self.forecast.decide(&lane, wait) {
                Decision::Admit => {}
                Decision::Probe => _ = self.metrics.probes.inc(),
                Decision::Refuse(refusal) => return Err(Refusal::NotInTime(lane.issuer, refusal)),
            }
        }
        self.prepared.room(&slot).map_err(Refusal::Full)?;
        self.forecast.arrived(&lane);
        let seat = answer_by.and_then(|_| self.waiters.seat(&slot));
        let (sender, receiver) = oneshot::channel();
        let order = Order {
            wanted,
            terms,
            idempotency,
            seat,
            reply: Reply { sender, answer_by },
            span: runtime::stage!("admit"),
        };
        self.orders
            .push(&slot, order)
            .map_err(|refused| Refusal::Full(refused.full))?;
        receiver.await.unwrap_or(Err(Refusal::Dropped))
    }

    /// Looks at the lanes in the ledger and at the signers, for ever. While the ledger does not answer, nobody is refused for its figures.
    pub async fn watch(self: Arc<Self>, store: Arc<dyn Store>) {
        let mut ticks = interval(forecast::EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let here = self.depths();
            if let Err(error) = self.forecast.look(&*store, &here, self.clock.now()).await {
                tracing::debug!(%error, "lanes were not looked at");
            }
        }
    }

    /// How many requests wait, by issuer and class, in both stages together.
    pub fn depths(&self) -> Vec<(domain::lane::Lane, usize)> {
        let mut depths = self.orders.depths();
        for (lane, depth) in self.prepared.depths() {
            match depths.iter_mut().find(|(other, _)| *other == lane) {
                Some((_, sum)) => *sum += depth,
                None => depths.push((lane, depth)),
            }
        }
        depths
    }
}

impl Running {
    /// Closes the front door: takes nothing more, finishes what is inside, and returns when that is done.
    pub async fn close(self) {
        self.orders.close();
        let workers = tokio::task::spawn_blocking(move || {
            for worker in self.workers {
                // A worker catches the panics of its work; one that died all the same has left nothing behind.
                let _ = worker.join();
            }
        });
        let _ = workers.await;
        self.prepared.close();
        let _ = self.accepting.await;
    }
}

/// Where work under these terms queues.
pub(crate) fn slot(terms: &Terms) -> Slot {
    Slot {
        class: terms.profile.class,
        issuer: terms.issuer.id.clone(),
        account: terms.account.id.clone(),
    }
}
