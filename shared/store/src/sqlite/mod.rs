//! The adapter for `SQLite`: one file, one thread that writes, a few that read.
//!
//! [`Sqlite::open`] takes a directory for itself. Everything that is written passes through one queue to one thread
//! (`writer`), which commits in groups; reads have threads and connections of their own (`reader`). What each call does in its
//! transaction stands in `accept`, `signing`, `ending` and `registry`; what it reads in `read` and `claim`. Depths, shares and quotas
//! are counted in memory (`counts`), as only this process writes.

mod accept;
mod adapter;
mod breaker;
mod claim;
mod column;
mod counts;
mod ending;
mod fault;
mod ledger;
mod open;
mod queue;
mod read;
mod reader;
mod registry;
mod schema;
mod signing;
mod sql;
mod stand_down;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use domain::time::Clock;
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::{
    counts::Counts,
    fault::Fault,
    ledger::Ledger,
    queue::{Queue, Urgency},
    reader::{Read, Reader},
    schema::Files,
    writer::{Call, Work, Writer},
};
use crate::{StoreError, rules::Turns};

pub use self::schema::OpenError;

/// How a ledger is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's time.
    pub clock: Arc<dyn Clock>,
    /// A commit begins at least this long after the one before it began. Default 0.3 ms; at most 100 ms.
    pub commit_gap: Duration,
    /// Rows that one commit takes, more or less. Default 256.
    pub batch_rows: usize,
    /// Calls that may wait for the writer where somebody waits for them. Default 4,096.
    pub interactive_calls: usize,
    /// Other calls that may wait for the writer. Default 1,024.
    pub bulk_calls: usize,
    /// Reads that may wait, short and long each. Default 4,096.
    pub reads: usize,
    /// How long a call waits for a place in a queue. Default 2 s.
    pub patience: Duration,
    /// How long one read may take. Default 10 s.
    pub read_limit: Duration,
    /// Threads that read, 2 to 64; one of them is kept for short reads. Default 3.
    pub readers: usize,
    /// Pages of write-ahead log after which a commit copies them to the database, 1,000 to 4,000. More makes slow commits slower,
    /// fewer makes all of them dearer. Default 2,000.
    pub checkpoint_pages: u32,
}

impl Options {
    /// The defaults.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            commit_gap: Duration::from_micros(300),
            batch_rows: 256,
            interactive_calls: 4_096,
            bulk_calls: 1_024,
            reads: 4_096,
            patience: Duration::from_secs(2),
            read_limit: Duration::from_secs(10),
            readers: 3,
            checkpoint_pages: 2_000,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let refuse = |option, problem: &str| {
            Err(OpenError::Option {
                option,
                problem: problem.into(),
            })
        };
        if self.commit_gap > Duration::from_millis(100) {
            return refuse("commit_gap", "is at most 100 ms");
        }
        if self.batch_rows == 0 {
            return refuse("batch_rows", "is at least 1");
        }
        if self.interactive_calls == 0 || self.bulk_calls == 0 || self.reads == 0 {
            return refuse("interactive_calls, bulk_calls, reads", "are at least 1");
        }
        if !(2..=64).contains(&self.readers) {
            return refuse("readers", "is 2 to 64");
        }
        if !(1_000..=4_000).contains(&self.checkpoint_pages) {
            return refuse("checkpoint_pages", "is 1,000 to 4,000");
        }
        Ok(())
    }
}

/// A ledger in a directory of its own. Dropping it finishes what is queued and gives the directory free.
pub struct Sqlite {
    clock: Arc<dyn Clock>,
    writes: Arc<Queue<Box<dyn Work>>>,
    reads: Arc<Queue<Read>>,
    turns: Arc<Turns>,
    /// The writer, and the readers behind it.
    threads: Vec<JoinHandle<()>>,
    _files: Files,
}

impl Sqlite {
    /// Opens the ledger in `directory`, making both if need be, and takes it for this process alone. Blocks while it migrates and
    /// counts open jobs: a second or so for a million.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.as_ref();
        options.check()?;
        let files = Files::lock(directory)?;
        let connection = files.writer(options.checkpoint_pages)?;
        let readers = (0..options.readers)
            .map(|_| files.reader())
            .collect::<Result<Vec<_>, _>>()?;
        let database = |fault: Fault| OpenError::Database {
            path: directory.into(),
            problem: fault.into_error().to_string(),
        };
        let counts = Counts::load(&connection).map_err(database)?;
        let next_id = sql::one(&connection, "SELECT coalesce(max(id), 0) FROM statement", [], |row| {
            row.get(0)
        });
        let writer = Writer {
            connection,
            queue: Arc::new(Queue::new(
                options.interactive_calls,
                options.bulk_calls,
                options.patience,
            )),
            clock: Arc::clone(&options.clock),
            counts,
            next_id: next_id.map_err(database)?.unwrap_or(0),
            gap: options.commit_gap,
            batch_rows: options.batch_rows,
        };
        let mut store = Self {
            clock: options.clock,
            writes: Arc::clone(&writer.queue),
            reads: Arc::new(Queue::new(options.reads, options.reads, options.patience)),
            turns: Arc::default(),
            threads: Vec::new(),
            _files: files,
        };
        let spawned = store.spawn("ledger-writer", move || writer.run());
        spawned
            .and_then(|()| {
                readers.into_iter().enumerate().try_for_each(|(number, connection)| {
                    let reader = Reader {
                        connection,
                        queue: Arc::clone(&store.reads),
                        limit: options.read_limit,
                        only_interactive: number == 0,
                    };
                    store.spawn("ledger-reader", move || reader.run())
                })
            })
            .map_err(|source| OpenError::Files {
                path: directory.into(),
                source,
            })?;
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Has the writer do something in the next commit and waits for it. `work` may be run more than once.
    async fn write<T, F>(&self, urgency: Urgency, rows: usize, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (call, answer) = Call::new(work);
        self.writes.push(urgency, rows, Box::new(call)).await?;
        let lost = |_| StoreError::OutcomeUnknown("the writer is gone".into());
        answer.await.map_err(lost)?
    }

    /// Has the writer do something of one row.
    async fn write_row<T, F>(&self, urgency: Urgency, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Ledger<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.write(urgency, 1, move |ledger| ledger.row(&mut work)).await
    }

    /// Reads one consistent state.
    async fn read<T, F>(&self, urgency: Urgency, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read = move |connection: &Connection| {
            if !reply.is_closed() {
                // Nobody may wait any more; then nobody is told.
                let _ = reply.send(snapshot(connection, read).map_err(Fault::into_error));
            }
        };
        self.reads.push(urgency, 1, Box::new(read)).await?;
        answer.await.map_err(|_| reader::lost())?
    }
}

/// Runs a read inside a transaction, so that all of it sees the same state.
fn snapshot<T>(connection: &Connection, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    let transaction = connection.unchecked_transaction()?;
    let found = read(&transaction);
    transaction.finish()?;
    found
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // The writer's connection is closed last, so that it empties the write-ahead log.
        self.reads.close();
        while let Some(thread) = self.threads.pop() {
            if self.threads.is_empty() {
                self.writes.close();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the ledger panicked");
            }
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").finish_non_exhaustive()
    }
}
