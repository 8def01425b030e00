//! The front end: the certificate API (HVCA), from an HTTP request to a committed job, and from an issued job to its certificate.

pub mod admission;
mod answers;
mod authenticate;
mod body;
mod certificate;
mod error;
mod gate;
mod issuers;
mod limiter;
mod metrics;
mod preference;
mod presence;
mod readiness;
mod room;
pub mod routes;
mod tokens;
mod waiting;

pub use tokens::{BlockKey, NotPublished, PublishTokenKey};

use std::{
    future::Future,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::Router;
use broker::Broker;
use domain::{
    bytes::Digest,
    id::Incarnation,
    time::{Clock, Timestamp},
};
use runtime::{
    clock::StoreClock,
    config::Config,
    follow::{Applied, Follower},
    health::Health,
    shutdown::Shutdown,
    tls::{self, ServerTls},
};
use store::{Store, StoreError};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, normalize_path::NormalizePathLayer};
use wire::signed::NodeKey;

use crate::{
    admission::{Admission, accept::Acceptor, prepare::Preparer, publish::Publisher},
    answers::Listener,
    certificate::Certificates,
    error::ApiError,
    issuers::Issuers,
    limiter::Limiter,
    metrics::Metrics,
    presence::Presence,
    readiness::{Readiness, Troubles},
    room::Room,
    tokens::Tokens,
    waiting::Waiters,
};

/// How long a call of the store may take.
const STORE: Duration = Duration::from_secs(5);

/// How much of the grace is kept for sending the last answers once waits are given up.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// One login at a time for so many requests.
const LOGINS: usize = 8;

/// How often, and how long apart, the registry is asked to block a key.
const BLOCK_ATTEMPTS: u32 = 10;
const BLOCK_AGAIN: Duration = Duration::from_secs(3);

/// Everything that a front end needs of the process around it.
#[derive(Debug, Clone)]
pub struct Context {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Transport to signers.
    pub broker: Arc<dyn Broker>,
    /// Follows the registry.
    pub follower: Arc<Follower>,
    /// What this front end speaks with.
    pub node_key: Arc<NodeKey>,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Store time. Heartbeats teach it.
    pub clock: Arc<StoreClock>,
    /// Where the public halves of keys that sign tokens go.
    pub token_keys: Arc<dyn PublishTokenKey>,
    /// Where compromised keys are reported.
    pub blocked_keys: Arc<dyn BlockKey>,
    /// The series of the process.
    pub metrics: runtime::telemetry::Metrics,
    /// The conditions of the process.
    pub health: Health,
    /// How the process stops.
    pub shutdown: Shutdown,
}

/// What routes work with.
#[derive(Debug)]
pub struct Frontend {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    applied: Arc<ArcSwap<Applied>>,
    clock: Arc<StoreClock>,
    incarnation: Incarnation,
    admission: Arc<Admission>,
    tokens: Arc<Tokens>,
    limiter: Limiter,
    certificates: Certificates,
    blocked_keys: Arc<dyn BlockKey>,
    follower: Arc<Follower>,
    presence: Arc<Presence>,
    troubles: Arc<Troubles>,
    metrics: Arc<Metrics>,
    /// Requests of accounts that are worked on; those that only wait are not among them.
    work: Room,
    /// Logins that are worked on.
    logins: Semaphore,
    /// No new request is taken.
    draining: CancellationToken,
    /// Waits are given up.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// The state of every route.
pub type App = Arc<Frontend>;

impl Frontend {
    /// Store time.
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads from the store, for a bounded time.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, ApiError> {
        let answer = timeout(STORE, call).await;
        let late = || Err(StoreError::Unavailable(format!("no answer within {STORE:?}")));
        Ok(answer.unwrap_or_else(|_| late())?)
    }

    /// Writes to the store, for a bounded time: what did not answer may have been done.
    async fn tell<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, ApiError> {
        let answer = timeout(STORE, call).await;
        let late = || Err(StoreError::OutcomeUnknown(format!("no answer within {STORE:?}")));
        Ok(answer.unwrap_or_else(|_| late())?)
    }

    /// Reports a compromised key to the registry, beside the answer.
    fn block_key(&self, public_key: Digest) {
        if self.applied.load().snapshot.blocked_keys.contains(&public_key) {
            return;
        }
        let blocked_keys = self.blocked_keys.clone();
        self.tasks.spawn(async move {
            for _ in 0..BLOCK_ATTEMPTS {
                match blocked_keys.block_key(public_key).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(?public_key, %error, "a compromised key is not blocked yet"),
                }
                sleep(BLOCK_AGAIN).await;
            }
            tracing::error!(?public_key, "a compromised key could not be blocked: block it by hand");
        });
    }
}

/// A front end that runs, without its listener.
#[derive(Debug)]
pub struct Running {
    app: App,
    admission: admission::Running,
    background: Vec<AbortHandle>,
    publishing: TaskTracker,
    presence: tokio::task::JoinHandle<()>,
    leave: CancellationToken,
}

/// A front end that could not start, or whose listener failed.
#[derive(Debug, thiserror::Error)]
#[error("front end: {0}")]
pub struct ServeError(#[from] std::io::Error);

/// Runs a front end behind its listener until shutdown begins and every request has been answered.
pub async fn serve(context: Context, listener: TcpListener, tls: Arc<ServerTls>) -> Result<(), ServeError> {
    let (shutdown, limits) = (context.shutdown.clone(), tls::Limits::from(&context.config.tls));
    let running = start(context)?;
    let served = tls::serve(listener, tls, running.router(), limits, shutdown).await;
    running.stop().await;
    Ok(served?)
}

/// Starts everything behind the listener.
pub fn start(context: Context) -> Result<Running, ServeError> {
    let Context {
        config,
        store,
        broker,
        follower,
        node_key,
        incarnation,
        clock,
        token_keys,
        blocked_keys,
        metrics,
        health,
        shutdown,
    } = context;
    let settings = &config.frontend;
    let metrics = Arc::new(Metrics::new(&metrics));
    let waiters = Waiters::new(settings.waiting);
    let applied = follower.applied();
    let troubles = Arc::new(Troubles::default());
    let issuers = Arc::new(Issuers::default());
    let publishing = TaskTracker::new();
    let publisher = Arc::new(Publisher {
        broker: broker.clone(),
        node_key: node_key.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        unconfirmed: config.broker.lane_unconfirmed,
        timeout: config.broker.publish_timeout,
        tasks: publishing.clone(),
        lanes: Mutex::default(),
    });
    let acceptor = Arc::new(Acceptor {
        store: store.clone(),
        node_key: node_key.clone(),
        clock: clock.clone(),
        publisher,
        waiters: waiters.clone(),
        follower: follower.clone(),
        metrics: metrics.clone(),
        issuers: issuers.clone(),
        troubles: troubles.clone(),
        batch: settings.accept_batch,
    });
    let preparer = Arc::new(Preparer {
        applied: applied.clone(),
        clock: clock.clone(),
        incarnation: incarnation.clone(),
        lanes: config.lanes.clone(),
        keep_idempotency: settings.idempotency_keep,
        issuers: issuers.clone(),
    });
    let (admission, admission_running) = Admission::start(settings, &preparer, &acceptor, clock.clone())?;
    let tokens = Arc::new(Tokens::new(
        node_key.clone(),
        config.tokens.clone(),
        settings.token_cache,
        applied.clone(),
        clock.clone(),
    ));
    let presence = Arc::new(Presence {
        store: store.clone(),
        incarnation: incarnation.clone(),
        clock: clock.clone(),
        follower: follower.clone(),
        waiters: waiters.clone(),
        reachable: AtomicBool::new(false),
    });
    let listener = Arc::new(Listener {
        waiters: waiters.clone(),
        broker,
        store: store.clone(),
        applied: applied.clone(),
        clock: clock.clone(),
        incarnation: incarnation.clone(),
        metrics: metrics.clone(),
        inbox: config.broker.answers,
    });
    let poll = settings.wait_poll;
    let app = Arc::new(Frontend {
        store,
        applied,
        clock,
        incarnation,
        admission,
        tokens: tokens.clone(),
        limiter: Limiter::new(settings.failures_per_second),
        certificates: Certificates::new(issuers),
        blocked_keys,
        follower,
        presence: presence.clone(),
        troubles,
        metrics,
        work: Room::new(settings.requests),
        logins: Semaphore::new(settings.requests.div_ceil(LOGINS)),
        draining: shutdown.soft().clone(),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
        config,
    });
    let leave = CancellationToken::new();
    let presence = tokio::spawn(presence.run(leave.clone()));
    let background = [
        tokio::spawn(listener.clone().listen()),
        tokio::spawn(listener.poll(poll)),
        tokio::spawn(tokens.rotate(token_keys)),
        tokio::spawn(app.admission.clone().watch(app.store.clone())),
        tokio::spawn(Readiness::new(&health).run(app.clone())),
        tokio::spawn(give_up_waits(app.clone(), shutdown)),
    ];
    Ok(Running {
        app,
        admission: admission_running,
        background: background.iter().map(tokio::task::JoinHandle::abort_handle).collect(),
        publishing,
        presence,
        leave,
    })
}

/// Once stopping has begun, waits go on until little of the grace is left; what is not there by then, clients fetch.
async fn give_up_waits(app: App, shutdown: Shutdown) {
    shutdown.soft().cancelled().await;
    sleep(app.config.shutdown.grace.saturating_sub(LAST_ANSWERS)).await;
    app.stopping.cancel();
}

impl Running {
    /// The API, to be served over TLS with the client's certificate in each request's extensions.
    pub fn router(&self) -> Router {
        let app = self.app.clone();
        let routes = routes::router()
            .layer(CatchPanicLayer::custom(gate::panicked))
            .layer(axum::middleware::from_fn_with_state(app.clone(), gate::gate))
            .with_state(app);
        // A slash at the end is nothing: a redirect would lose the bodies of POSTs.
        let service = ServiceBuilder::new()
            .layer(NormalizePathLayer::trim_trailing_slash())
            .service(routes);
        Router::new().fallback_service(service)
    }

    /// Ends everything: called when no request is left. Accepted jobs are told to signers first.
    pub async fn stop(self) {
        self.app.stopping.cancel();
        self.admission.close().await;
        for task in [&self.publishing, &self.app.tasks] {
            task.close();
        }
        self.publishing.wait().await;
        for task in &self.background {
            task.abort();
        }
        self.leave.cancel();
        // It says goodbye within the time of its lease.
        let _ = self.presence.await;
    }
}
