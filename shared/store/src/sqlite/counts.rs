//! How deep lanes are and what accounts hold: kept in the writer's memory, so that no acceptance counts rows.
//!
//! Every change is journalled until its transaction is settled, so that a rollback takes back exactly what it rolled back. At start
//! all of it is counted from the tables.

use std::collections::HashMap;

use domain::{
    id::{AccountId, IssuerId},
    job::State,
    lane::{Class, Lane},
};
use rusqlite::Connection;

use super::{
    column::Column,
    fault::Fault,
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
    journal: Vec<Change>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct LaneCount {
    depth: Depth,
    accounts: HashMap<AccountId, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Open(Lane, AccountId, State, Sign),
    Moved(Lane, State, State),
    Total(AccountId, Total, Sign),
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
        let groups = "SELECT issuer, class, account, state, count(*) FROM open GROUP BY issuer, class, state, account";
        let mut statement = connection.prepare(groups)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let read = || -> rusqlite::Result<(Lane, AccountId, State, u64)> {
                let lane = Lane {
                    issuer: row.get::<_, Column<IssuerId>>(0)?.0,
                    class: row.get::<_, Column<Class>>(1)?.0,
                };
                let account = row.get::<_, Column<AccountId>>(2)?.0;
                Ok((
                    lane,
                    account,
                    row.get::<_, Column<State>>(3)?.0,
                    row.get::<_, Column<u64>>(4)?.0,
                ))
            };
            match read() {
                Ok((lane, account, state, number)) => {
                    let lane = counts.lanes.entry(lane).or_default();
                    *lane.depth.of(state) += number;
                    *lane.accounts.entry(account.clone()).or_default() += number;
                    *counts.in_flight.entry(account).or_default() += number;
                }
                Err(error) => {
                    tracing::error!(%error, "open jobs with an unreadable lane, account or state are not counted");
                }
            }
        }
        let used = all(connection, "SELECT account, used FROM account_total", [], |row| {
            Ok((row.get::<_, Column<AccountId>>(0)?.0, row.get::<_, Column<u64>>(1)?.0))
        })?;
        counts.used = used.into_iter().collect();
        Ok(counts)
    }

    /// A job was accepted.
    pub(super) fn opened(&mut self, lane: &Lane, account: &AccountId, state: State) {
        self.record(Change::Open(lane.clone(), account.clone(), state, Sign::Plus));
        self.total(account, Total::Used, Sign::Plus);
    }

    /// A job ended. What it used of its account's quota is another matter: [`Counts::total`].
    pub(super) fn closed(&mut self, lane: &Lane, account: &AccountId, state: State) {
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
        let mut counts = Counts::default();
        counts.opened(&lane, &account, State::Queued);
        counts.settle();
        let before = (counts.lanes(), counts.in_flight(&account), counts.used(&account));

        let mark = counts.mark();
        counts.moved(&lane, State::Queued, State::Signing);
        counts.closed(&lane, &account, State::Signing);
        counts.total(&account, Total::Used, Sign::Minus);
        counts.opened(&"two.bulk".parse().unwrap(), &account, State::Parked);
        counts.undo(mark);
        assert_eq!(
            (counts.lanes(), counts.in_flight(&account), counts.used(&account)),
            before
        );
    }
}
