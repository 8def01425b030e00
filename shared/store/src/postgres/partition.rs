//! Partitions by day. A job's serial says in which day it was accepted, so that its rows are found in one table by name; where a
//! day has no partition its rows are in the default one, and are found through the parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use domain::{id::Serial, time::Timestamp};
use sqlx::{AssertSqlSafe, Row};

use super::{
    fault::Fault,
    link::{Lent, Query},
};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;
/// Partitions are made so many days ahead.
const AHEAD: i64 = 3;
/// How long it is left alone where a partition could not be made: its table was locked, or its rows stand in the default one.
const AGAIN: Duration = Duration::from_secs(30);
/// The tables that are partitioned. The last one is made last: where it is, the others are.
const TABLES: [&str; 4] = ["request", "intent", "result", "job_event"];
/// The advisory lock under which partitions are made.
const LOCK: i64 = 0x6275_6c6b_7061_7274;

/// A day since the UNIX epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(i64);

impl Day {
    pub(super) fn of(time: Timestamp) -> Self {
        Self(time.as_millis().div_euclid(DAY))
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The least bytes of a serial of this day.
    fn bound(self) -> String {
        let first = Serial::new(Timestamp::from_millis(self.0 * DAY), [0; 10]);
        first.to_string().chars().take(12).collect()
    }
}

/// The days that have partitions.
#[derive(Debug, Default)]
pub(super) struct Days {
    known: RwLock<BTreeSet<Day>>,
    /// When it was tried last to make what is missing.
    tried: Mutex<Option<Instant>>,
}

impl Days {
    /// Reads which there are.
    pub(super) async fn load(&self, lent: &mut Lent) -> Result<(), Fault> {
        let names = sqlx::query(
            "SELECT child.relname::text FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid \
             WHERE inhparent = 'job_event'::regclass",
        );
        let rows = lent.rows(names).await?;
        let mut days = BTreeSet::new();
        for row in rows {
            let name: &str = row.try_get(0)?;
            let day = name.strip_prefix("job_event_d").and_then(|day| day.parse().ok());
            days.extend(day.map(Day));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = days;
        Ok(())
    }

    /// Whether it is time to make partitions: one that will soon be needed is missing, and it was not tried a moment ago.
    pub(super) fn are_due(&self, now: Timestamp) -> bool {
        let tried = *self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        Self::soon(now).any(|day| !self.has(day)) && tried.is_none_or(|tried| tried.elapsed() >= AGAIN)
    }

    fn soon(now: Timestamp) -> impl Iterator<Item = Day> {
        let today = Day::of(now).0;
        // Serials know no days before 2020: those have no bounds.
        (today - 1..=today + AHEAD)
            .map(Day)
            .filter(|day| day.bound() < day.next().bound())
    }

    fn has(&self, day: Day) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&day)
    }

    /// Makes the partitions that will soon be needed. Others may do so at the same time, and may write to the tables meanwhile.
    pub(super) async fn make(&self, lent: &mut Lent, now: Timestamp) -> Result<(), Fault> {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.load(lent).await?;
        for day in Self::soon(now).filter(|day| !self.has(*day)).collect::<Vec<_>>() {
            match make(lent, day).await {
                Ok(()) => {}
                // Rows of this day stand in the default partition already: they stay there and are found there.
                Err(fault @ Fault::Row(_)) => tracing::warn!(?day, ?fault, "a day has no partition"),
                Err(fault) => return Err(fault),
            }
        }
        self.load(lent).await?;
        if Self::soon(now).all(|day| self.has(day)) {
            *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    /// What follows a table's name for a day: the partition's, or nothing where only the parent knows.
    fn suffix(&self, day: Day) -> String {
        if self.has(day) {
            format!("_d{}", day.0)
        } else {
            String::new()
        }
    }

    /// A statement over the tables of a day: `{day}` in it follows their names.
    pub(super) fn over(&self, day: Day, sql: &str) -> Query {
        sqlx::query(AssertSqlSafe(sql.replace("{day}", &self.suffix(day))))
    }

    /// Jobs by day, each with its place in the list.
    pub(super) fn split<'s>(jobs: impl IntoIterator<Item = &'s Serial>) -> BTreeMap<Day, Vec<usize>> {
        let mut days: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
        for (place, job) in jobs.into_iter().enumerate() {
            days.entry(Day::of(job.time())).or_default().push(place);
        }
        days
    }

    /// A partition that was there is not: it was detached.
    pub(super) fn forget(&self, day: Day) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
    }
}

/// Makes a day's partitions beside the tables and attaches them, which stops nobody from reading or writing.
async fn make(lent: &mut Lent, day: Day) -> Result<(), Fault> {
    let mut transaction = lent.begin().await?;
    let made = async {
        transaction
            .rows(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK))
            .await?;
        let (from, to, Day(number)) = (day.bound(), day.next().bound(), day);
        for table in TABLES {
            let name = format!("{table}_d{number}");
            let found = transaction
                .rows(sqlx::query("SELECT to_regclass($1) IS NULL").bind(name.clone()))
                .await?;
            if !found.first().map_or(Ok(true), |row| row.try_get::<bool, _>(0))? {
                continue;
            }
            let settings = "autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_freeze_min_age = 0";
            let wide = if table == "intent" {
                ", toast_tuple_target = 8160"
            } else {
                ""
            };
            for statement in [
                format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH ({settings}{wide})"),
                format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('\\x{from}') TO ('\\x{to}')"),
            ] {
                transaction.rows(sqlx::query(AssertSqlSafe(statement))).await?;
            }
        }
        Ok(())
    };
    match made.await {
        Ok(()) => transaction.commit().await,
        Err(fault) => {
            transaction.roll_back().await?;
            Err(fault)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_with_its_first_serial_and_ends_before_the_next_days() {
        let noon = Timestamp::from_secs(1_800_000_000);
        let day = Day::of(noon);
        let text = Serial::new(noon, [0xff; 10]).to_string();
        assert!(day.bound() <= text && text < day.next().bound());
        assert_eq!(day.bound().len(), 12);
    }
}
