//! How deep lanes are, what accounts hold, and which open job answers a repeated request: kept in the writer's memory, so that no
//! acceptance counts rows or looks into an index of random keys. Some fifty bytes an open job.
//!
//! Every change is journalled until its transaction is settled, so that a rollback takes back exactly what it rolled back. At start
//! all of it is counted from the tables.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use domain::{
    bytes::Digest,
    id::{AccountId, Serial},
    job::State,
    lane::Lane,
};
use rusqlite::Connection;

use super::{
    column::Column,
    fault::Fault,
    open::read_lane,
    sql::{all, execute},
};

/// Open jobs by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Depth {
    pub(super) queued: u64,
    pub(super) signing: u64,
    pub(super) parked: u64,
}

impl Depth {
    /// Open jobs.
    pub(super) const fn total(self) -> u64 {
        self.queued + self.signing + self.parked
    }

    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Signing => &mut self.signing,
            State::Parked => &mut self.parked,
            _ => &mut self.queued,
        }
    }
}

/// What an account's row in `account_total` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// Certificates issued.
    Issued,
    /// Certificates revoked.
    Revoked,
    /// Certificates and open jobs, against its quota.
    Used,
}

/// The counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    lanes: HashMap<Lane, LaneCount>,
    in_flight: HashMap<AccountId, u64>,
    used: HashMap<AccountId, u64>,
    repeats: HashMap<Repeat, Serial>,
    journal: Vec<Change>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct LaneCount {
    depth: Depth,
    accounts: HashMap<AccountId, u64>,
}

/// A part of what makes requests the same: enough to find the row that knows all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Repeat(u64);

impl Repeat {
    pub(super) fn new(account: &AccountId, repeat: &Digest) -> Self {
        let mut hasher = DefaultHasher::new();
        (account, repeat).hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Open(Lane, AccountId, State, Sign),
    Moved(Lane, State, State),
    Total(AccountId, Total, Sign),
    /// The job before, and the job after.
    Repeat(Repeat, Option<Serial>, Option<Serial>),
}

/// One more or one fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    const fn inverse(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }

    fn apply(self, count: &mut u64) {
        *count = match self {
            Self::Plus => *count + 1,
            Self::Minus => count.saturating_sub(1),
        };
    }
}

impl Counts {
    /// Counts what the tables hold. Rows that cannot be read are not counted.
    pub(super) fn load(connection: &Connection) -> Result<Self, Fault> {
        let mut counts = Self::default();
        let open = "SELECT issuer, class, account, state, repeat, job FROM open ORDER BY job";
        let mut statement = connection.prepare(open)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read = || -> rusqlite::Result<(Lane, AccountId, State, Digest, Serial)> {
                Ok((
                    read_lane(row, 0)?,
                    row.get::<_, Column<AccountId>>(2)?.0,
                    row.get::<_, Column<State>>(3)?.0,
                    row.get::<_, Column<Digest>>(4)?.0,
                    row.get::<_, Column<Serial>>(5)?.0,
                ))
            };
            match read() {
                Ok((lane, account, state, repeat, job)) => {
                    counts.repeats.insert(Repeat::new(&account, &repeat), job);
                    counts.apply(&Change::Open(lane, account, state, Sign::Plus));
                }
                Err(error) => tracing::error!(%error, "an open job that cannot be read is not counted"),
            }
        }
        let used = all(connection, "SELECT account, used FROM account_total", [], |row| {
            Ok((row.get::<_, Column<AccountId>>(0)?.0, row.get::<_, Column<u64>>(1)?.0))
        })?;
        counts.used = used.into_iter().collect();
        Ok(counts)
    }

    /// A job was accepted.
    pub(super) fn opened(&mut self, lane: &Lane, account: &AccountId, state: State, repeat: Repeat, job: Serial) {
        let before = self.repeats.get(&repeat).copied();
        self.record(Change::Repeat(repeat, before, Some(job)));
        self.record(Change::Open(lane.clone(), account.clone(), state, Sign::Plus));
        self.total(account, Total::Used, Sign::Plus);
    }

    /// A job ended. What it used of its account's quota is another matter: [`Counts::total`].
    pub(super) fn closed(&mut self, lane: &Lane, account: &AccountId, state: State, repeat: Repeat, job: Serial) {
        if self.repeat(repeat) == Some(job) {
            self.record(Change::Repeat(repeat, Some(job), None));
        }
        self.record(Change::Open(lane.clone(), account.clone(), state, Sign::Minus));
    }

    /// An open job is in another state.
    pub(super) fn moved(&mut self, lane: &Lane, from: State, to: State) {
        self.record(Change::Moved(lane.clone(), from, to));
    }

    /// An account's total changes by one.
    pub(super) fn total(&mut self, account: &AccountId, total: Total, sign: Sign) {
        self.record(Change::Total(account.clone(), total, sign));
    }

    /// The depth of a lane.
    pub(super) fn depth(&self, lane: &Lane) -> Depth {
        self.lanes.get(lane).map(|lane| lane.depth).unwrap_or_default()
    }

    /// Open jobs of an account in a lane.
    pub(super) fn share(&self, lane: &Lane, account: &AccountId) -> u64 {
        let lane = self.lanes.get(lane);
        lane.and_then(|lane| lane.accounts.get(account).copied()).unwrap_or(0)
    }

    /// Open jobs of an account.
    pub(super) fn in_flight(&self, account: &AccountId) -> u64 {
        self.in_flight.get(account).copied().unwrap_or(0)
    }

    /// What an account has used of its quota.
    pub(super) fn used(&self, account: &AccountId) -> u64 {
        self.used.get(account).copied().unwrap_or(0)
    }

    /// The last open job of a request, perhaps.
    pub(super) fn repeat(&self, repeat: Repeat) -> Option<Serial> {
        self.repeats.get(&repeat).copied()
    }

    /// Every lane that has an open job.
    pub(super) fn lanes(&self) -> Vec<(Lane, Depth)> {
        self.lanes
            .iter()
            .map(|(name, lane)| (name.clone(), lane.depth))
            .collect()
    }

    /// A point to come back to.
    pub(super) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Takes back everything since `mark`.
    pub(super) fn undo(&mut self, mark: usize) {
        while self.journal.len() > mark
            && let Some(change) = self.journal.pop()
        {
            let inverse = match change {
                Change::Open(lane, account, state, sign) => Change::Open(lane, account, state, sign.inverse()),
                Change::Moved(lane, from, to) => Change::Moved(lane, to, from),
                Change::Total(account, total, sign) => Change::Total(account, total, sign.inverse()),
                Change::Repeat(repeat, before, after) => Change::Repeat(repeat, after, before),
            };
            self.apply(&inverse);
        }
    }

    /// Writes what has changed of accounts' totals since the transaction began: one row an account, however many jobs.
    pub(super) fn write_totals(&self, connection: &Connection) -> Result<(), Fault> {
        let mut totals: HashMap<&AccountId, [i64; 3]> = HashMap::new();
        for change in &self.journal {
            if let Change::Total(account, total, sign) = change {
                let column = match total {
                    Total::Issued => 0,
                    Total::Revoked => 1,
                    Total::Used => 2,
                };
                totals.entry(account).or_default()[column] += if *sign == Sign::Plus { 1 } else { -1 };
            }
        }
        for (account, [issued, revoked, used]) in totals {
            if (issued, revoked, used) != (0, 0, 0) {
                let add = "INSERT INTO account_total (account, issued, revoked, used) VALUES (?1, ?2, ?3, ?4) \
                           ON CONFLICT (account) DO UPDATE SET issued = issued + excluded.issued, \
                           revoked = revoked + excluded.revoked, used = used + excluded.used";
                execute(connection, add, (Column(account), issued, revoked, used))?;
            }
        }
        Ok(())
    }

    /// The transaction is committed: nothing of it will be taken back.
    pub(super) fn settle(&mut self) {
        self.journal.clear();
    }

    fn record(&mut self, change: Change) {
        self.apply(&change);
        self.journal.push(change);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Open(name, account, state, sign) => {
                let lane = self.lanes.entry(name.clone()).or_default();
                sign.apply(lane.depth.of(*state));
                adjust(&mut lane.accounts, account, *sign);
                if lane.depth.total() == 0 {
                    self.lanes.remove(name);
                }
                adjust(&mut self.in_flight, account, *sign);
            }
            Change::Moved(lane, from, to) => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    Sign::Minus.apply(lane.depth.of(*from));
                    Sign::Plus.apply(lane.depth.of(*to));
                }
            }
            Change::Total(account, Total::Used, sign) => adjust(&mut self.used, account, *sign),
            Change::Total(..) => {}
            Change::Repeat(repeat, _, Some(job)) => {
                self.repeats.insert(*repeat, *job);
            }
            Change::Repeat(repeat, _, None) => {
                self.repeats.remove(repeat);
            }
        }
    }
}

/// Changes a count by one and forgets it at zero.
fn adjust(counts: &mut HashMap<AccountId, u64>, account: &AccountId, sign: Sign) {
    let count = counts.entry(account.clone()).or_default();
    sign.apply(count);
    if *count == 0 {
        counts.remove(account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let lane: Lane = "one.bulk".parse().unwrap();
        let account: AccountId = "alice".parse().unwrap();
        let repeat = Repeat::new(&account, &Digest([1; 32]));
        let jobs =
            [1, 2].map(|number| Serial::new(domain::time::Timestamp::from_secs(1_800_000_000 + number), [0; 10]));
        let mut counts = Counts::default();
        counts.opened(&lane, &account, State::Queued, repeat, jobs[0]);
        counts.settle();
        let look = |counts: &Counts| {
            let held = (
                counts.in_flight(&account),
                counts.share(&lane, &account),
                counts.used(&account),
            );
            (counts.lanes(), held, counts.repeat(repeat))
        };
        let before = look(&counts);

        let mark = counts.mark();
        counts.moved(&lane, State::Queued, State::Signing);
        counts.opened(&"two.bulk".parse().unwrap(), &account, State::Parked, repeat, jobs[1]);
        assert_eq!(counts.repeat(repeat), Some(jobs[1]));
        counts.closed(&lane, &account, State::Signing, repeat, jobs[0]);
        assert_eq!(
            counts.repeat(repeat),
            Some(jobs[1]),
            "another job's repeat is not forgotten"
        );
        counts.total(&account, Total::Used, Sign::Minus);
        assert_ne!(look(&counts), before);
        counts.undo(mark);
        assert_eq!(look(&counts), before);
    }
}
