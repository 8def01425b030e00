//! From a configuration to running parts: the same code for the process that is everything and for those that are one part.
//!
//! [`Context`] is what every process has; [`Control`] what control has beside it; [`parts`] starts a part on them.

mod context_file;
mod control;
mod engines;
mod handles;
mod host;
mod parts;
mod renewal;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use runtime::{
    clock::{StoreClock, SystemClock},
    config::Config,
    data_dir::DataDir,
    follow::Follower,
    health::Health,
    shutdown::{Shutdown, Stopped},
    telemetry::Metrics,
};
use store::Store;

use crate::failure::{Failure, Outcome};

pub use context_file::Urls;
pub use control::{Control, Founding};
pub use engines::{Missing, open_broker, open_store, open_token, own_token, refused_file};
pub use handles::{Local, Remote};
pub use host::Host;
pub use parts::{Plain, enrolment_tls, frontend, operators, plain, server_tls, signer};
pub use renewal::PERIOD as RENEWAL_PERIOD;

/// What a process has before it has a ledger.
#[derive(Debug, Clone)]
pub struct Process {
    pub config: Arc<Config>,
    pub clock: Arc<StoreClock>,
    pub metrics: Metrics,
    pub health: Health,
    pub shutdown: Shutdown,
}

impl Process {
    /// A process that has started nothing yet.
    pub fn new(config: Config, shutdown: &Shutdown) -> Self {
        let clock = Arc::new(StoreClock::new(Arc::new(SystemClock)));
        Self {
            config: Arc::new(config),
            metrics: Metrics::new(),
            health: Health::new(clock.clone(), shutdown.clone()),
            clock,
            shutdown: shutdown.clone(),
        }
    }
}

/// What every part is given.
#[derive(Debug, Clone)]
pub struct Context {
    pub process: Process,
    pub store: Arc<dyn Store>,
    pub follower: Arc<Follower>,
}

impl Context {
    /// On a store that is open. The registry has not been read yet.
    pub fn new(process: &Process, data: &DataDir, store: Arc<dyn Store>, root_public: &[u8]) -> Outcome<Self> {
        let follower = Follower::new(
            store.clone(),
            root_public,
            process.clock.clone(),
            &process.config.registry,
            &process.metrics,
        )
        .map_err(Failure::failed)?
        .remembering(data.file("registry-head.json"))
        .map_err(Failure::failed)?;
        Ok(Self {
            process: process.clone(),
            store,
            follower: Arc::new(follower),
        })
    }

    /// Follows the registry from now on.
    pub fn follow(&self) {
        let (follower, stop) = (self.follower.clone(), self.process.shutdown.soft().clone());
        self.process.shutdown.spawn(async move { follower.run(stop).await });
    }
}

/// What a command that serves ends with.
pub fn finish(stopped: &Stopped) -> Outcome {
    if stopped.is_clean() {
        return Ok(());
    }
    let undone = if stopped.drained {
        ""
    } else {
        "; what was in flight goes on at the next start"
    };
    Err(Failure::failed(format_args!("stopped: {}{undone}", stopped.cause)))
}

/// An absolute path, for files that others are told of.
pub fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::failed)
}
