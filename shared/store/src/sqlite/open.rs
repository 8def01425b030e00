//! Open jobs: the row, and what follows when a job leaves the table.

use domain::{
    bytes::Digest,
    id::{AccountId, IssuerId, Serial},
    job::State,
    lane::{Class, Lane},
    time::Timestamp,
};
use rusqlite::Row;

use super::{
    column::Column,
    counts::{Repeat, Sign, Total},
    fault::Fault,
    ledger::Ledger,
};
use crate::{Ended, Outcome, rules::Waiters};

/// Selects the open row of job `?1`, with its request, where the law (a condition over `open`) allows it. With more columns after those
/// of [`OpenRow`], and more tables to take them from.
///
/// Only the writer changes `open`, inside one transaction: a row that was selected so is then changed by its name alone.
macro_rules! open_row {
    ($law:expr) => {
        $crate::sqlite::open::open_row!("", "", $law)
    };
    ($columns:expr, $tables:expr, $law:expr) => {
        concat!(
            "SELECT open.job, open.issuer, open.class, open.account, open.state, open.turn, open.strikes, open.sign_by, ",
            "open.waiters, open.repeat, open.join_within, open.unique_key, request.not_before, request.not_after, ",
            "EXISTS (SELECT 1 FROM revocation WHERE revocation.job = open.job)",
            $columns,
            " FROM open LEFT JOIN request ON request.job = open.job ",
            $tables,
            "WHERE open.job = ?1 AND ",
            $law
        )
    };
}
pub(super) use open_row;

/// A row of `open` and what belongs to it in `request` and `revocation`.
#[derive(Debug)]
pub(super) struct OpenRow {
    pub(super) job: Serial,
    pub(super) lane: Lane,
    pub(super) account: AccountId,
    pub(super) state: State,
    pub(super) turn: u32,
    pub(super) strikes: u8,
    pub(super) sign_by: Timestamp,
    pub(super) waiters: Waiters,
    pub(super) repeat: Digest,
    /// Milliseconds.
    pub(super) join_within: i64,
    pub(super) unique_key: Option<Digest>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// Somebody has cancelled it.
    pub(super) cancelled: bool,
}

impl OpenRow {
    /// How many columns it takes.
    pub(super) const COLUMNS: usize = 15;

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get::<_, Column<Serial>>(0)?.0,
            lane: read_lane(row, 1)?,
            account: row.get::<_, Column<AccountId>>(3)?.0,
            state: row.get::<_, Column<State>>(4)?.0,
            turn: row.get(5)?,
            strikes: row.get(6)?,
            sign_by: row.get::<_, Column<Timestamp>>(7)?.0,
            waiters: row.get::<_, Column<Waiters>>(8)?.0,
            repeat: row.get::<_, Column<Digest>>(9)?.0,
            join_within: row.get(10)?,
            unique_key: row.get::<_, Option<Column<Digest>>>(11)?.map(|key| key.0),
            not_before: row.get(12)?,
            not_after: row.get(13)?,
            cancelled: row.get(14)?,
        })
    }
}

/// A lane in two columns.
pub(super) fn read_lane(row: &Row<'_>, first: usize) -> rusqlite::Result<Lane> {
    Ok(Lane {
        issuer: row.get::<_, Column<IssuerId>>(first)?.0,
        class: row.get::<_, Column<Class>>(first + 1)?.0,
    })
}

/// Whether the issuer's usage bit for the job's purpose is on, in a statement over `open`.
macro_rules! usage_on {
    () => {
        "EXISTS (SELECT 1 FROM issuer WHERE issuer.id = open.issuer AND issuer.state <> 'destroyed' \
         AND CASE open.purpose WHEN 'ocsp-signer' THEN issuer.ocsp ELSE issuer.issue END)"
    };
}
pub(super) use usage_on;

/// Whether the lane is paused, in a statement over `open`.
macro_rules! paused {
    () => {
        "EXISTS (SELECT 1 FROM lane WHERE lane.issuer = open.issuer AND lane.class = open.class AND lane.paused)"
    };
}
pub(super) use paused;

/// Whether the owner's lease is over at `?now`, in a statement over `open`. An owner without a lease has lost it.
macro_rules! owner_lost {
    ($now:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM lease WHERE lease.incarnation = open.owner AND lease.lease_until > ",
            $now,
            ")"
        )
    };
}
pub(super) use owner_lost;

impl Ledger<'_> {
    /// Ends a job that the law allowed to end: enters how, and everything that follows from it: the account's counts and quota, the
    /// key that is free again, the repeat that is forgotten, the revocation of what may have been signed.
    pub(super) fn end(&mut self, open: OpenRow, outcome: Outcome, node: Option<&str>) -> Result<Ended, Fault> {
        self.execute("DELETE FROM open WHERE job = ?1", [Column(&open.job)])?;
        self.write_result(&open, &outcome, node)?;
        let repeat = Repeat::new(&open.account, &open.repeat);
        self.counts
            .closed(&open.lane, &open.account, open.state, repeat, open.job);
        if matches!(outcome, Outcome::Issued { .. }) {
            self.counts.total(&open.account, Total::Issued, Sign::Plus);
            if open.join_within > 0 {
                self.execute(
                    "INSERT INTO repeat (account, repeat, job, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (account, repeat) \
                     DO UPDATE SET job = excluded.job, until = excluded.until",
                    (
                        Column(&open.account),
                        Column(&open.repeat),
                        Column(&open.job),
                        self.now.as_millis().saturating_add(open.join_within),
                    ),
                )?;
            }
        } else {
            self.counts.total(&open.account, Total::Used, Sign::Minus);
            if let Some(key) = &open.unique_key {
                self.execute(
                    "DELETE FROM key_use WHERE public_key = ?1 AND job = ?2",
                    (Column(key), Column(&open.job)),
                )?;
            }
            if open.turn > 0 {
                self.execute(
                    "INSERT INTO revocation (job, account, reason, decided_at, revocation_date, decided_by, issued) \
                     VALUES (?1, ?2, 'unspecified', ?3, ?4, 'store', 0) ON CONFLICT (job) DO NOTHING",
                    (
                        Column(&open.job),
                        Column(&open.account),
                        Column(self.now),
                        self.now.as_secs(),
                    ),
                )?;
            }
        }
        Ok(Ended {
            job: open.job,
            outcome,
            waiters: open.waiters.0,
        })
    }

    fn write_result(&self, open: &OpenRow, outcome: &Outcome, node: Option<&str>) -> Result<(), Fault> {
        let (signature, problem, detail) = match outcome {
            Outcome::Issued { signature, .. } => (Some(signature), None, None),
            Outcome::Refused { id, detail, .. } => (None, Some(id), Some(detail)),
            Outcome::Expired { .. } => (None, None, None),
            Outcome::Discarded { reason, .. } => (None, None, Some(reason)),
        };
        self.execute(
            "INSERT INTO result (job, state, at, turn, strikes, account, not_before, not_after, signature, node, \
             problem, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            rusqlite::params![
                Column(&open.job),
                Column(&outcome.state()),
                Column(self.now),
                open.turn,
                open.strikes,
                Column(&open.account),
                open.not_before,
                open.not_after,
                signature,
                node,
                problem,
                detail
            ],
        )?;
        Ok(())
    }

    /// How a job ended, if it has. Nobody waits any more.
    pub(super) fn ended(&self, job: &Serial) -> Result<Option<Ended>, Fault> {
        super::read::ended(self.connection, job)
    }
}
