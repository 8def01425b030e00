//! The one thread that writes: group commit with a gap.
//!
//! A commit starts at once when the last one began at least a gap ago; otherwise it waits for the rest of the gap and takes along what
//! came meanwhile. A commit of several rows says that more are coming than commits: the gap after it is wider. Callers hear after the
//! commit. A batch in which a row fails is rolled back and run again with each row in a savepoint of its own, so that only the bad row's
//! caller hears of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use domain::time::Clock;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    counts::Counts,
    fault::{Fault, failed_commit},
    ledger::Ledger,
    queue::Queue,
};
use crate::StoreError;

/// A commit of so many rows doubles the gap after it, and twice as many make it the widest.
const BUSY: usize = 2;
/// The widest gap, in gaps.
const WIDEST: u32 = 3;

/// Something to write.
pub(super) trait Work: Send {
    /// Runs it in a transaction. May be called again after a rollback, and then starts afresh.
    fn run(&mut self, ledger: &mut Ledger<'_>);
    /// What was said of the run before is void: it failed by itself, outside a row.
    fn fail(&mut self, error: StoreError);
    /// Tells the caller, after the commit or its failure.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
}

/// Work that is a closure, with the way back to its caller.
pub(super) struct Call<T, F> {
    work: F,
    outcome: Result<T, StoreError>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Call<T, F> {
    pub(super) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let outcome = Err(StoreError::Unavailable("not run".into()));
        (Self { work, outcome, reply }, answer)
    }
}

impl<T, F> Work for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, ledger: &mut Ledger<'_>) {
        self.outcome = (self.work)(ledger);
    }
    fn fail(&mut self, error: StoreError) {
        self.outcome = Err(error);
    }
    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // Nobody may wait any more; then nobody is told.
        let _ = self.reply.send(committed.and(self.outcome));
    }
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// The writer.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Arc<Queue<Box<dyn Work>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counts: Counts,
    pub(super) next_id: i64,
    pub(super) gap: Duration,
    pub(super) batch_rows: usize,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut last: Option<(Instant, Duration)> = None;
        while self.queue.wait() {
            if let Some(rest) = last.and_then(|(began, gap)| gap.checked_sub(began.elapsed())) {
                thread::sleep(rest);
            }
            let began = Instant::now();
            let (mut batch, rows) = self.queue.take(self.batch_rows);
            batch.retain(|work| work.is_wanted());
            last = Some((began, self.gap * gaps(rows)));
            if !batch.is_empty() {
                let committed = self.commit(&mut batch);
                for work in batch {
                    work.answer(committed.clone());
                }
            }
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
        match self.attempt(batch, false)? {
            Attempt::Committed => Ok(()),
            Attempt::Spoiled => match self.attempt(batch, true)? {
                Attempt::Committed => Ok(()),
                Attempt::Spoiled => Err(StoreError::Rejected("the batch could not be split".into())),
            },
        }
    }

    fn attempt(&mut self, batch: &mut [Box<dyn Work>], careful: bool) -> Result<Attempt, StoreError> {
        let attempt = self.transact(batch, careful);
        match &attempt {
            Ok(Attempt::Committed) => self.counts.settle(),
            Ok(Attempt::Spoiled) | Err(_) => self.roll_back(),
        }
        attempt
    }

    fn transact(&mut self, batch: &mut [Box<dyn Work>], careful: bool) -> Result<Attempt, StoreError> {
        execute(&self.connection, "BEGIN IMMEDIATE")?;
        let now = self.clock.now();
        let mut ledger = Ledger::new(&self.connection, &mut self.counts, &mut self.next_id, now, careful);
        for work in batch {
            run(work.as_mut(), &mut ledger, careful);
            if let Some(error) = ledger.broken() {
                return Err(error.clone());
            }
            if ledger.is_spoiled() {
                return Ok(Attempt::Spoiled);
            }
        }
        drop(ledger);
        self.counts.write_totals(&self.connection).map_err(Fault::into_error)?;
        let commit = self
            .connection
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]));
        commit.map_err(|error| failed_commit(&error))?;
        Ok(Attempt::Committed)
    }

    fn roll_back(&mut self) {
        self.counts.undo(0);
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            tracing::error!(%error, "a transaction cannot be rolled back");
        }
    }
}

/// How many gaps follow a commit of so many rows.
fn gaps(rows: usize) -> u32 {
    u32::try_from(1 + rows / BUSY).map_or(WIDEST, |gaps| gaps.min(WIDEST))
}

enum Attempt {
    Committed,
    Spoiled,
}

/// Runs one piece of work. If it panics, it fails and the others go on: alone, when the batch is run carefully.
fn run(work: &mut dyn Work, ledger: &mut Ledger<'_>, careful: bool) {
    if !careful {
        if catch_unwind(AssertUnwindSafe(|| work.run(ledger))).is_err() {
            ledger.spoil();
        }
        return;
    }
    let alone = ledger.row(|ledger| {
        catch_unwind(AssertUnwindSafe(|| work.run(ledger)))
            .map_err(|_| Fault::Row(StoreError::Rejected("the store's own code panicked on it".into())))
    });
    if let Err(error) = alone {
        work.fail(error);
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    super::sql::execute(connection, sql, []).map_err(Fault::into_error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn one_row_leaves_the_gap_as_it_is_and_many_widen_it_up_to_a_limit() {
        assert_eq!([0, 1, 2, 3, 4, usize::MAX].map(gaps), [1, 1, 2, 2, 3, 3]);
    }
}
