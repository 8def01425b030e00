//! Stopping: a soft token on which everybody finishes, a hard one when the time for that is over, and why it began.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a process stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it: a signal, an operator, the end of a command.
    Asked(String),
    /// A part failed without which the process is of no use.
    Failed {
        /// Which part.
        part: String,
        /// What happened.
        error: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(by) => write!(f, "asked by {by}"),
            Self::Failed { part, error } => write!(f, "{part} failed: {error}"),
        }
    }
}

/// How a process has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Why.
    pub cause: Cause,
    /// Whether every task ended by itself in time.
    pub drained: bool,
}

impl Stopped {
    /// Whether the process did as it was asked and may exit with 0.
    pub fn is_clean(&self) -> bool {
        self.drained && matches!(self.cause, Cause::Asked(_))
    }
}

/// The handle that all parts of a process share.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
    cause: Mutex<Option<Cause>>,
}

impl Shutdown {
    /// A process that gives its tasks `grace` to finish.
    pub fn new(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace,
            cause: Mutex::new(None),
        }))
    }

    /// Cancelled when no new work may be begun.
    pub fn soft(&self) -> &CancellationToken {
        &self.0.soft
    }

    /// Cancelled when what is not finished must be dropped.
    pub fn hard(&self) -> &CancellationToken {
        &self.0.hard
    }

    /// Whether stopping has begun.
    pub fn has_begun(&self) -> bool {
        self.0.soft.is_cancelled()
    }

    /// Begins to stop. The first cause counts.
    pub fn begin(&self, cause: Cause) {
        let mut first = self.0.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            match &cause {
                Cause::Asked(_) => tracing::info!(%cause, "stopping"),
                Cause::Failed { .. } => tracing::error!(%cause, "stopping"),
            }
            *first = Some(cause);
        }
        drop(first);
        self.0.soft.cancel();
    }

    /// Runs a task that stopping waits for. It must end soon after [`Self::soft`] is cancelled.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let hard = self.0.hard.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = hard.cancelled() => {}
            }
        });
    }

    /// Runs a part without which the process is of no use: when it fails, panics, or ends before it was asked to, everything stops.
    pub fn spawn_part<E>(&self, part: impl Into<String>, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: fmt::Display + Send + 'static,
    {
        let (part, shutdown, hard) = (part.into(), self.clone(), self.0.hard.clone());
        let task = tokio::spawn(task);
        self.0.tasks.spawn(async move {
            let abort = task.abort_handle();
            let ended = tokio::select! {
                ended = task => ended,
                () = hard.cancelled() => return abort.abort(),
            };
            let error = match ended {
                Ok(Ok(())) if shutdown.has_begun() => return,
                Ok(Ok(())) => "it ended unasked".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => panic.to_string(),
            };
            shutdown.begin(Cause::Failed { part, error });
        });
    }

    /// Listens for SIGINT and SIGTERM: the first begins to stop, a second ends the grace.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if shutdown.has_begun() {
                    tracing::warn!(signal = name, "second signal: what is not finished is dropped");
                    shutdown.0.hard.cancel();
                } else {
                    shutdown.begin(Cause::Asked(name.into()));
                }
            }
        });
        Ok(())
    }

    /// Waits until stopping has begun and everything has ended, at most the grace; then cancels what is left.
    pub async fn wait(&self) -> Stopped {
        self.0.soft.cancelled().await;
        self.0.tasks.close();
        let drained = tokio::select! {
            () = self.0.tasks.wait() => true,
            () = tokio::time::sleep(self.0.grace) => false,
            () = self.0.hard.cancelled() => false,
        };
        self.0.hard.cancel();
        let cause = self.0.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cause = cause.unwrap_or_else(|| Cause::Asked("its token".into()));
        if !drained {
            tracing::warn!("not everything ended in time");
        }
        Stopped { cause, drained }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Cause {
        Cause::Asked("a test".into())
    }

    #[tokio::test]
    async fn everything_that_ends_in_time_is_waited_for() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let soft = shutdown.soft().clone();
        shutdown.spawn(async move { soft.cancelled().await });
        let soft = shutdown.soft().clone();
        shutdown.spawn_part("part", async move {
            soft.cancelled().await;
            Ok::<(), String>(())
        });
        shutdown.begin(asked());
        let stopped = shutdown.wait().await;
        assert!(stopped.is_clean(), "{stopped:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_dropped_after_the_grace() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        shutdown.spawn(std::future::pending());
        shutdown.spawn_part("part", std::future::pending::<Result<(), String>>());
        shutdown.begin(asked());
        let stopped = shutdown.wait().await;
        assert_eq!(
            stopped,
            Stopped {
                cause: asked(),
                drained: false
            }
        );
        assert!(shutdown.hard().is_cancelled());
    }

    #[tokio::test]
    async fn a_part_that_fails_ends_or_panics_stops_the_process_and_is_named() {
        type Part = fn() -> Result<(), String>;
        let parts: [(Part, &str); 3] = [
            (|| Err("no disk".into()), "no disk"),
            (|| Ok(()), "unasked"),
            (|| panic!("boom"), "panic"),
        ];
        for (part, said) in parts {
            let shutdown = Shutdown::new(Duration::from_secs(10));
            shutdown.spawn_part("ledger", async move { part() });
            let stopped = shutdown.wait().await;
            assert!(!stopped.is_clean());
            let text = stopped.cause.to_string();
            assert!(text.starts_with("ledger failed: ") && text.contains(said), "{text}");
            shutdown.begin(asked());
            assert_eq!(shutdown.wait().await.cause, stopped.cause, "the first cause counts");
        }
    }
}
