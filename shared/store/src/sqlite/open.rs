//! Open jobs: the row, and what follows when a job leaves the table.

use domain::{
    bytes::Digest,
    id::{AccountId, Incarnation, IssuerId, Serial},
    job::State,
    lane::{Class, Lane},
    time::Timestamp,
};
use rusqlite::Row;

use super::{
    column::{Column, Waiters},
    counts::{Sign, Total},
    fault::Fault,
    ledger::Ledger,
};
use crate::{Ended, Outcome};

/// The columns of [`OpenRow`], in its order.
macro_rules! open_columns {
    () => {
        "job, issuer, class, account, state, turn, strikes, sign_by, waiters, repeat, unique_key"
    };
}
pub(super) use open_columns;

/// A row of `open`.
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
    pub(super) unique_key: Option<Digest>,
}

impl OpenRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get::<_, Column<Serial>>(0)?.0,
            lane: read_lane(row, 1)?,
            account: row.get::<_, Column<AccountId>>(3)?.0,
            state: row.get::<_, Column<State>>(4)?.0,
            turn: row.get(5)?,
            strikes: row.get(6)?,
            sign_by: row.get::<_, Column<Timestamp>>(7)?.0,
            waiters: row.get(8)?,
            repeat: row.get::<_, Column<Digest>>(9)?.0,
            unique_key: row.get::<_, Option<Column<Digest>>>(10)?.map(|key| key.0),
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
    /// Enters how a job ended whose row was just deleted from `open`, and everything that follows from it: the account's counts and
    /// quota, the key that is free again, the repeat that is forgotten, the revocation of what may have been signed.
    pub(super) fn end(&mut self, open: OpenRow, outcome: Outcome, node: Option<&str>) -> Result<Ended, Fault> {
        self.write_result(&open, &outcome, node)?;
        self.counts.closed(&open.lane, &open.account, open.state);
        if matches!(outcome, Outcome::Issued { .. }) {
            self.counts.total(&open.account, Total::Issued, Sign::Plus);
            let forgotten = self.execute(
                "DELETE FROM repeat WHERE account = ?1 AND repeat = ?2 AND job = ?3 AND join_within = 0",
                (Column(&open.account), Column(&open.repeat), Column(&open.job)),
            )?;
            if forgotten == 0 {
                self.execute(
                    "UPDATE repeat SET until = ?4 + join_within WHERE account = ?1 AND repeat = ?2 AND job = ?3",
                    (
                        Column(&open.account),
                        Column(&open.repeat),
                        Column(&open.job),
                        Column(self.now),
                    ),
                )?;
            }
        } else {
            self.counts.total(&open.account, Total::Used, Sign::Minus);
            self.execute(
                "DELETE FROM repeat WHERE account = ?1 AND repeat = ?2 AND job = ?3",
                (Column(&open.account), Column(&open.repeat), Column(&open.job)),
            )?;
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
        let written = self.execute(
            "INSERT INTO result (job, state, at, turn, strikes, account, not_before, not_after, signature, node, \
             problem, detail) SELECT job, ?2, ?3, ?4, ?5, ?6, not_before, not_after, ?7, ?8, ?9, ?10 \
             FROM request WHERE job = ?1",
            rusqlite::params![
                Column(&open.job),
                Column(&outcome.state()),
                Column(self.now),
                open.turn,
                open.strikes,
                Column(&open.account),
                signature,
                node,
                problem,
                detail
            ],
        )?;
        if written == 0 {
            return Err(Fault::damaged(format!("job {}: its request row is missing", open.job)));
        }
        Ok(())
    }

    /// How a job ended, if it has. Nobody waits any more.
    pub(super) fn ended(&self, job: &Serial) -> Result<Option<Ended>, Fault> {
        super::read::ended(self.connection, job)
    }
}

/// Adds a waiter to an open row's list.
pub(super) fn add_waiter(waiters: &mut Waiters, waiter: Option<&Incarnation>) -> bool {
    waiter.is_some_and(|waiter| waiters.add(waiter))
}
