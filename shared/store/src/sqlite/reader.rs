//! Threads that read, each on a read-only connection: the writer never waits for them, nor they for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::queue::Queue;
use crate::StoreError;

/// Something to read: a closure that answers its own caller.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A reader.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) queue: Arc<Queue<Read>>,
    /// How long one read may take before it is broken off.
    pub(super) limit: Duration,
    /// Whether this thread leaves long reads to the others, so that a short one always finds a thread.
    pub(super) only_interactive: bool,
}

impl Reader {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self) {
        let start = Instant::now();
        let elapsed = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        let deadline = Arc::new(AtomicU64::new(u64::MAX));
        let until = Arc::clone(&deadline);
        let watched = self
            .connection
            .progress_handler(10_000, Some(move || elapsed() > until.load(Ordering::Relaxed)));
        if let Err(error) = watched {
            tracing::error!(%error, "reads cannot be limited in time");
        }
        while let Some(read) = self.queue.take_one(self.only_interactive) {
            deadline.store(elapsed().saturating_add(limit), Ordering::Relaxed);
            if catch_unwind(AssertUnwindSafe(|| read(&self.connection))).is_err() {
                tracing::error!("a read panicked");
            }
        }
    }
}

/// The error of a caller whose answer never came.
pub(super) fn lost() -> StoreError {
    StoreError::Unavailable("the read was given up".into())
}
