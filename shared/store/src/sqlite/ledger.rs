//! One write transaction, as the operations see it.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
};

use domain::{
    id::{IssuerId, Serial},
    job::State,
    lane::Lane,
    time::Timestamp,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use super::{column::Column, counts::Counts, fault::Fault, sql};
use crate::{
    IssuerRow, LaneSwitches, StoreError,
    rules::{EVENTS_PER_JOB, cut},
};

/// A savepoint around a call, and one around each of its rows: to set, to come back to, to give up.
const SAVEPOINT: [[&str; 3]; 2] = [
    ["SAVEPOINT call", "ROLLBACK TO call", "RELEASE call"],
    ["SAVEPOINT row", "ROLLBACK TO row", "RELEASE row"],
];

/// A write transaction: the connection, the time of the commit, the counts.
///
/// The first time a batch is run its rows share the transaction; when one of them fails, the batch is rolled back and run again with
/// each row in a savepoint of its own, so that the bad row stands alone.
pub(super) struct Ledger<'c> {
    /// The write connection, inside a transaction.
    pub(super) connection: &'c Connection,
    /// Depths, shares, quotas.
    pub(super) counts: &'c mut Counts,
    /// The store's time for everything in this commit.
    pub(super) now: Timestamp,
    next_id: &'c mut i64,
    careful: bool,
    depth: usize,
    spoiled: bool,
    broken: Option<StoreError>,
    head: Option<u64>,
    issuers: HashMap<IssuerId, Option<IssuerRow>>,
    switches: HashMap<Lane, LaneSwitches>,
    /// Statements of this transaction by where their text lies: found once a commit, not once a row.
    statements: RefCell<HashMap<(usize, usize), CachedStatement<'c>>>,
}

impl<'c> Ledger<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        counts: &'c mut Counts,
        next_id: &'c mut i64,
        now: Timestamp,
        careful: bool,
    ) -> Self {
        Self {
            connection,
            counts,
            now,
            next_id,
            careful,
            depth: 0,
            spoiled: false,
            broken: None,
            head: None,
            issuers: HashMap::new(),
            switches: HashMap::new(),
            statements: RefCell::default(),
        }
    }

    /// Runs the work of one row: done whole or not at all.
    pub(super) fn row<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.spoiled {
            return Err(StoreError::Unavailable("the batch is being split".into()));
        }
        self.savepoint(work).map_err(|fault| match fault {
            Fault::Row(error) => {
                self.spoiled = !self.careful;
                error
            }
            Fault::Store(error) => {
                self.broken = Some(error.clone());
                error
            }
        })
    }

    fn savepoint<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if !self.careful {
            return work(self);
        }
        let depth = self.depth;
        let [open, roll_back, release] = SAVEPOINT[depth.min(1)];
        let mark = self.counts.mark();
        self.execute(open, [])?;
        self.depth = depth + 1;
        let done = work(self);
        self.depth = depth;
        if let Err(Fault::Row(_)) = &done {
            if self.connection.is_autocommit() {
                let gone = "the transaction was rolled back".into();
                return Err(Fault::Store(StoreError::Unavailable(gone)));
            }
            self.counts.undo(mark);
            self.forget();
            self.execute(roll_back, [])?;
        }
        if !matches!(done, Err(Fault::Store(_))) {
            self.execute(release, [])?;
        }
        done
    }

    /// Whether a row failed that must be told apart from the others.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Calls for the careful run: something failed outside a row.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Why the transaction cannot go on, if so.
    pub(super) fn broken(&self) -> Option<&StoreError> {
        self.broken.as_ref()
    }

    /// Changes rows. How many.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize, Fault> {
        self.run(sql, |statement| statement.execute(params))
    }

    /// The first row, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Fault> {
        self.run(sql, |statement| statement.query_row(params, read).optional())
    }

    /// Every row.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Fault> {
        self.run(sql, |statement| statement.query_map(params, read)?.collect())
    }

    fn run<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut CachedStatement<'c>) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        let mut statements = self.statements.borrow_mut();
        let statement = match statements.entry((sql.as_ptr().addr(), sql.len())) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(sql::prepare(self.connection, sql)?),
        };
        Ok(run(statement)?)
    }

    /// The next id for wide rows. Ids of rolled back rows are not used again.
    pub(super) fn next_id(&mut self) -> i64 {
        *self.next_id += 1;
        *self.next_id
    }

    /// Number of the registry's last revision.
    pub(super) fn head(&mut self) -> Result<u64, Fault> {
        if self.head.is_none() {
            self.head = Some(super::registry::head(self.connection)?);
        }
        Ok(self.head.unwrap_or(0))
    }

    /// An issuer's row.
    pub(super) fn issuer(&mut self, id: &IssuerId) -> Result<Option<&IssuerRow>, Fault> {
        if !self.issuers.contains_key(id) {
            let row = super::registry::issuer(self.connection, id)?;
            self.issuers.insert(id.clone(), row);
        }
        Ok(self.issuers.get(id).and_then(Option::as_ref))
    }

    /// A lane's switches.
    pub(super) fn switches(&mut self, lane: &Lane) -> Result<LaneSwitches, Fault> {
        if let Some(switches) = self.switches.get(lane) {
            return Ok(*switches);
        }
        let switches = super::registry::switches(self.connection, lane)?;
        self.switches.insert(lane.clone(), switches);
        Ok(switches)
    }

    /// Forgets what was read of the registry in this transaction: it was changed, or rolled back.
    pub(super) fn forget(&mut self) {
        self.head = None;
        self.issuers.clear();
        self.switches.clear();
    }

    /// Notes what happened to a job.
    pub(super) fn note(&self, job: &Serial, kind: &str, detail: &str, said_by: &str) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO job_event (job, kind, detail, said_by, at) SELECT ?1, ?2, ?3, ?4, ?5 \
             WHERE (SELECT count(*) FROM job_event WHERE job = ?1) < ?6",
            (
                Column(job),
                kind,
                cut(detail),
                said_by,
                Column(self.now),
                EVENTS_PER_JOB,
            ),
        )?;
        Ok(())
    }

    /// How a job stands that may be answered with: open and not cancelled, or issued and not revoked.
    pub(super) fn answerable(&self, job: &Serial) -> Result<Option<State>, Fault> {
        self.one(
            "SELECT state FROM (SELECT state FROM open WHERE job = ?1 \
             UNION ALL SELECT state FROM result WHERE job = ?1 AND state = 'issued') \
             WHERE NOT EXISTS (SELECT 1 FROM revocation WHERE job = ?1)",
            [Column(job)],
            |row| Ok(row.get::<_, Column<State>>(0)?.0),
        )
    }
}
