//! The signer: takes jobs whose keys it holds, checks everything, signs, verifies, records.
//!
//! [`serve`] runs until the process stops. What it needs is in [`Context`]; nothing here opens a store, a broker or a token.

mod answer;
mod aside;
mod check;
mod heartbeat;
mod issue;
mod keyring;
mod metrics;
mod news;
mod orders;
mod pool;
mod record;
mod report;
mod sign;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use broker::Broker;
use domain::{
    dispatch::{Dispatcher, Limits},
    id::Incarnation,
    reconcile,
};
use keys::Keys;
use runtime::{
    clock::{StoreClock, entropy},
    config,
    follow::Applied,
    health::Health,
    shutdown::Shutdown,
    telemetry,
};
use store::Store;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{JoinError, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use wire::{attest::Verifier, signed::NodeKey};

use self::{
    heartbeat::{Heart, Said},
    issue::Issue,
    keyring::Keyring,
    metrics::Metrics,
    pool::Pool,
    record::Recorder,
    report::Reporter,
    sweep::Sweeper,
    tally::Tally,
    watch::Watch,
    worker::{State, Worker},
};

/// Jobs in flight for each thread that signs: enough that neither threads nor commits wait for one another.
const IN_FLIGHT_PER_THREAD: usize = 64;
/// Hints that wait in this signer, in all lanes.
const WAITING: usize = 100_000;
/// Lanes in one question to the ledger, and jobs of each.
const CLAIM_LANES: usize = 128;
const CLAIM_JOBS: u32 = 128;
/// How often a lane is asked about, and lost owners are looked for.
const CLAIM_PERIOD: Duration = Duration::from_millis(250);
const TAKE_OVER_PERIOD: Duration = Duration::from_millis(500);
/// Ended jobs that wait to be answered, and reports to be written down.
const ANSWERS: usize = 16_384;
const REPORTS: usize = 4096;
/// How long the last reports may take.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that a signer needs.
#[derive(Debug)]
pub struct Context {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Transport.
    pub broker: Arc<dyn Broker>,
    /// Tokens.
    pub keys: Vec<Arc<dyn Keys>>,
    /// The registry as this process applies it.
    pub applied: Arc<ArcSwap<Applied>>,
    /// With what this node speaks.
    pub node_key: Arc<NodeKey>,
    /// Which run of which node this is.
    pub incarnation: Incarnation,
    /// Store time; this signer's heartbeats teach it.
    pub clock: Arc<StoreClock>,
    /// Configuration.
    pub config: config::Signer,
    /// Measurements of the process.
    pub metrics: telemetry::Metrics,
    /// Conditions of the process.
    pub health: Health,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// Why a signer ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// No threads.
    #[error("the signing threads could not be started")]
    Threads(#[source] std::io::Error),
    /// A fault of the program: nothing more is signed.
    #[error("signing has stopped: {0}")]
    Fault(String),
    /// A part of the signer panicked.
    #[error("a part of the signer panicked")]
    Panicked(#[from] JoinError),
}

/// Serves until the process stops, then finishes what is in flight, gives back the rest, and says goodbye.
pub async fn serve(context: Context) -> Result<(), SignerError> {
    let threads = match context.config.threads {
        0 => default_threads(),
        threads => threads,
    };
    let in_flight = threads * IN_FLIGHT_PER_THREAD;
    let Context {
        store,
        broker,
        keys,
        applied,
        node_key,
        incarnation,
        clock,
        config,
        metrics,
        health,
        shutdown,
    } = context;
    let metrics = Metrics::new(&metrics);
    let keyring: Arc<ArcSwap<Keyring>> = Arc::default();
    let announced = Arc::new(AtomicU64::new(0));
    let signed = Arc::new(Tally::default());
    let said: Arc<ArcSwap<Said>> = Arc::default();
    let (news, inlet) = mpsc::channel(in_flight * 4 + 64);
    let (endings, to_record) = mpsc::channel(in_flight * 2 + 64);
    let (answers, to_answer) = mpsc::channel(ANSWERS);
    let (reports, to_report) = mpsc::channel(REPORTS);
    let (aside, to_set_aside) = mpsc::channel(aside::WAITING);
    // The parts that go on after the worker has drained, and those that must end before it says goodbye.
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();

    let heart = Heart {
        store: store.clone(),
        incarnation: incarnation.clone(),
        clock: clock.clone(),
        applied: applied.clone(),
        keyring: keyring.clone(),
        in_flight: announced.clone(),
        signed: signed.clone(),
        said: said.clone(),
        config: config.clone(),
        news: news.clone(),
        condition: health.part("signer"),
    };
    let mut parts = JoinSet::new();
    let drained = stop.clone();
    parts.spawn(heart.run(stop.clone()));
    let watch = Watch {
        tokens: keys,
        applied: applied.clone(),
        said: said.clone(),
        keyring: keyring.clone(),
        news: news.clone(),
    };
    parts.spawn(watch.run(stop.clone()));
    parts.spawn(orders::run(store.clone(), news.clone(), stop.clone()));
    let sweeper = Sweeper {
        store: store.clone(),
        owner: incarnation.clone(),
        clock: clock.clone(),
        applied: applied.clone(),
        config: config.clone(),
        answers: answers.clone(),
        metrics: metrics.clone(),
    };
    parts.spawn(sweeper.run(stop.clone()));
    let recorder = Recorder {
        store: store.clone(),
        owner: incarnation.clone(),
        batch: config.finish_batch,
        news: news.clone(),
        answers,
        metrics: metrics.clone(),
    };
    parts.spawn(async move {
        // It ends when the worker's senders are gone and everything that was under way is recorded: then the others may end.
        recorder.run(to_record).await;
        stop.cancel();
    });
    parts.spawn(answer::run(
        broker.clone(),
        node_key.clone(),
        metrics.clone(),
        to_answer,
    ));
    parts.spawn(aside::run(
        broker.clone(),
        to_set_aside,
        news.clone(),
        metrics.clone(),
        drained.clone(),
    ));
    let reporter = Reporter {
        store: store.clone(),
        key: node_key,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let reporter = tokio::spawn(reporter.run(to_report));

    let issue = Issue {
        store: store.clone(),
        applied: applied.clone(),
        keyring: keyring.clone(),
        verifier: Verifier::new(),
        clock: clock.clone(),
        handle: Handle::current(),
        news: news.clone(),
        reports: reports.clone(),
        metrics: metrics.clone(),
    };
    let worker = Worker {
        dispatcher: Dispatcher::new(limits(&config, threads, in_flight), u64::from_be_bytes(entropy())),
        store: store.clone(),
        broker,
        incarnation: incarnation.clone(),
        applied,
        keyring,
        clock,
        issue: Arc::new(issue),
        pool: Pool::new(threads).map_err(SignerError::Threads)?,
        inlet,
        news,
        endings,
        reports,
        aside,
        config,
        in_flight: announced,
        signed,
        said,
        metrics,
        health,
        shutdown,
        state: State::default(),
    };
    let worked = while_nothing_panics(tokio::spawn(worker.run()), &mut parts).await?;
    while let Some(ended) = parts.join_next().await {
        ended?;
    }
    // A thread that hangs may still hold a sender of reports.
    if let Ok(reported) = tokio::time::timeout(REPORTS_TIMEOUT, reporter).await {
        reported?;
    }
    if let Err(error) = store.goodbye(&incarnation).await {
        tracing::warn!(%error, "the lease was not ended; it runs out by itself");
    }
    worked.map_err(SignerError::Fault)
}

/// What the worker comes to. If one of its parts panics before that, it stops as well: a signer without its lease, its sweep or its
/// recorder would look alive and do harm.
async fn while_nothing_panics<T>(mut worker: JoinHandle<T>, parts: &mut JoinSet<()>) -> Result<T, JoinError> {
    loop {
        let ended = tokio::select! {
            worked = &mut worker => return worked,
            Some(ended) = parts.join_next() => ended,
        };
        if let Err(panic) = ended {
            worker.abort();
            return Err(panic);
        }
    }
}

fn limits(config: &config::Signer, threads: usize, in_flight: usize) -> Limits {
    let per_lane = (config.prefetch * 2 + CLAIM_JOBS as usize).min(WAITING / 4);
    Limits {
        waiting: WAITING,
        waiting_per_lane: per_lane * 2,
        in_flight,
        begin: config.begin_batch.min(in_flight),
        workers: threads,
        probes: threads.div_ceil(4),
        claims: reconcile::Limits {
            period: CLAIM_PERIOD,
            lanes: CLAIM_LANES,
            jobs: CLAIM_JOBS,
        },
        breaker: config.breaker.settings(),
        force: config.breaker.force(),
        take_over_period: TAKE_OVER_PERIOD,
    }
}

/// Eight threads for each core, since one issuer gets half of them, or a quarter where there are several tokens, and each run waits for the
/// ledger once; and at least sixteen.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| (cores.get() * 8).max(16))
}
