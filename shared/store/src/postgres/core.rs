//! What every operation has at hand: connections, days, the clock; and how a batch is committed, retried and split.

use std::{collections::HashSet, future::Future, ops::Range, sync::Arc, time::Duration};

use domain::{id::Serial, time::Timestamp};
use sqlx::postgres::PgRow;

use super::{
    column::{serials, time},
    fault::Fault,
    link::{Lent, Links},
    partition::Days,
};
use crate::{StoreError, rules::Turns};

/// How often the same is tried where a deadlock or a lock was in the way, with a longer pause each time.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// What every operation has at hand.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) writes: Arc<Links>,
    pub(super) reads: Arc<Links>,
    pub(super) days: Days,
    pub(super) turns: Turns,
    /// In tests: a time to take instead of the server's.
    #[cfg(test)]
    pub(super) clock: Option<Arc<dyn domain::time::Clock>>,
}

impl Core {
    /// The time that statements take instead of the server's: `None` but in tests.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests it is asked")]
    pub(super) const fn given_now(&self) -> Option<i64> {
        None
    }
    #[cfg(test)]
    pub(super) fn given_now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().as_millis())
    }

    /// The store's time.
    pub(super) async fn now(&self, lent: &mut Lent) -> Result<Timestamp, Fault> {
        let now = sqlx::query("SELECT coalesce($1, ledger_now()) AS now").bind(self.given_now());
        time(&one(lent.rows(now).await?)?, "now")
    }

    /// Reads rows of jobs from the tables of their days: a statement over `{day}` whose `$1` is the jobs. One statement a day.
    pub(super) async fn of_days(&self, lent: &mut Lent, jobs: &[Serial], sql: &str) -> Result<Vec<PgRow>, Fault> {
        let mut rows = Vec::new();
        for (day, places) in Days::split(jobs) {
            let some = serials(places.iter().map(|&place| &jobs[place]));
            let found = match lent.rows(self.days.over(day, sql).bind(some.clone())).await {
                Err(Fault::Missing(_)) => {
                    self.days.forget(day);
                    lent.rows(self.days.over(day, sql).bind(some)).await?
                }
                found => found?,
            };
            rows.extend(found);
        }
        Ok(rows)
    }
}

/// The only row.
pub(super) fn one(rows: Vec<PgRow>) -> Result<PgRow, Fault> {
    rows.into_iter()
        .next()
        .ok_or_else(|| Fault::Row(StoreError::Rejected("a statement returned nothing".into())))
}

/// One statement for a batch of rows.
pub(super) trait Batch: Sync {
    /// A row of it.
    type Row: Sync;
    /// What comes of a row.
    type Answer: Send;

    /// The job that a row is about.
    fn job(row: &Self::Row) -> Serial;

    /// Runs it: one commit. `skip`: rows that another transaction has locked are passed over instead of waited for.
    fn run(
        &self,
        lent: &mut Lent,
        rows: &[Self::Row],
        skip: bool,
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Fault>> + Send;

    /// The answer for a row that failed, alone or with all.
    fn failed(&self, row: &Self::Row, error: StoreError) -> Self::Answer;
}

/// Commits a batch: what is in the way only for a moment is tried again, and where a row is refused the batch is split until that row
/// stands alone.
pub(super) async fn commit<B: Batch>(batch: &B, lent: &mut Lent, rows: &[B::Row]) -> Vec<B::Answer> {
    // An idle sweep asks for nothing, and locks nothing.
    if rows.is_empty() {
        return Vec::new();
    }
    let mut answers: Vec<Option<B::Answer>> = rows.iter().map(|_| None).collect();
    let mut pieces = apart::<B>(rows);
    let mut lost = None;
    while let Some(piece) = pieces.pop() {
        if let Some(error) = &lost {
            fail(batch, rows, &mut answers, piece, error);
            continue;
        }
        match attempt(batch, lent, &rows[piece.clone()]).await {
            Ok(some) => {
                for (place, answer) in piece.zip(some) {
                    answers[place] = Some(answer);
                }
            }
            Err(Fault::Row(_) | Fault::Taken(_)) if piece.len() > 1 => pieces.extend(halves(&piece)),
            Err(fault) => {
                if fault.is_lost() {
                    lost = Some(StoreError::Unavailable(
                        "the connection was lost before this row".into(),
                    ));
                }
                fail(batch, rows, &mut answers, piece, &fault.into_commit_error());
            }
        }
    }
    let missing = || StoreError::Damaged("a statement left a row unanswered".into());
    answers
        .into_iter()
        .zip(rows)
        .map(|(answer, row)| answer.unwrap_or_else(|| batch.failed(row, missing())))
        .collect()
}

/// The pieces of a batch in which no job stands twice, the last one first: a statement sees each row as it was before all of it, and would
/// end (and count) such a job twice. A signer that has taken over its own job from itself may well send its end twice.
fn apart<B: Batch>(rows: &[B::Row]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut seen, mut start) = (HashSet::new(), 0);
    for (place, row) in rows.iter().enumerate() {
        if !seen.insert(B::job(row)) {
            pieces.push(start..place);
            start = place;
            seen.clear();
            seen.insert(B::job(row));
        }
    }
    pieces.push(start..rows.len());
    pieces.reverse();
    pieces
}

fn fail<B: Batch>(
    batch: &B,
    rows: &[B::Row],
    answers: &mut [Option<B::Answer>],
    piece: Range<usize>,
    error: &StoreError,
) {
    for place in piece {
        answers[place] = Some(batch.failed(&rows[place], error.clone()));
    }
}

/// The later half first, so that the earlier one is taken next.
fn halves(piece: &Range<usize>) -> [Range<usize>; 2] {
    let middle = piece.start + piece.len() / 2;
    [middle..piece.end, piece.start..middle]
}

async fn attempt<B: Batch>(batch: &B, lent: &mut Lent, rows: &[B::Row]) -> Result<Vec<B::Answer>, Fault> {
    let mut skip = false;
    for number in 1..ATTEMPTS {
        match batch.run(lent, rows, skip).await {
            Err(fault) if fault.is_passing() => {
                tracing::debug!(?fault, "a batch is tried again");
                skip |= matches!(fault, Fault::Locked(_));
                tokio::time::sleep(PAUSE * number * number).await;
            }
            done => return done,
        }
    }
    batch.run(lent, rows, skip).await
}
