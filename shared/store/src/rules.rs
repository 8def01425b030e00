//! Rules and bounds that every adapter keeps.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::{
    id::{AccountId, Incarnation, Serial},
    issuer::Role,
    job::RevocationReason,
    lane::Lane,
    stand_down::Holder,
    time::Timestamp,
};

use crate::{Announcement, Claimable, Revocation, Revoked, StoreError};

/// A call carries at most this many rows; whoever has more calls again.
pub(crate) const ROWS: usize = 1_000;
/// A read of many jobs asks for at most this many.
pub(crate) const READS: usize = 10_000;
/// A list of jobs or events is never longer.
pub(crate) const LIST: u32 = 1_000;
/// Statements of joiners that are kept for one job: those with the latest `sign_by`.
pub(crate) const JOINERS: u32 = 8;
/// A signature is never made later than this after notBefore (CA/Browser Forum BR 7.1.2.7).
pub(crate) const SIGN_AFTER_NOT_BEFORE: Duration = Duration::from_hours(48);
/// What happens to a job is noted this many times.
pub(crate) const EVENTS_PER_JOB: u32 = 1_000;
/// Longer details of events are cut here, in characters.
const DETAIL: usize = 2_000;
/// A revocation date this close to the store's time, in seconds, is now: a client's "now" is a moment old when it arrives.
const DATE_TOLERANCE: i64 = 2;
/// Announcements are shown for a minute, in milliseconds, after their lease has ended.
pub(crate) const LEASE_SHOWN: i64 = 60_000;
/// Leases that ended this long ago, in milliseconds, are forgotten.
pub(crate) const LEASE_KEPT: i64 = 10 * 60 * 1000;
/// Jobs that one claim brings at most.
pub(crate) const CLAIM: usize = 256;
/// Lanes of which it is remembered whose turn comes next. Beyond them all is forgotten and begins anew.
const LANES: usize = 16_384;

/// Refuses a call with too many rows.
pub(crate) fn within(what: &str, rows: usize, most: usize) -> Result<(), StoreError> {
    if rows > most {
        let text = format!("{what}: {rows} rows in one call, at most {most}; call more than once");
        return Err(StoreError::Rejected(text));
    }
    Ok(())
}

/// An event's detail, cut where it is too long.
pub(crate) fn cut(detail: &str) -> &str {
    let end = detail.char_indices().nth(DETAIL).map_or(detail.len(), |(end, _)| end);
    &detail[..end]
}

/// The revocation date that counts, UNIX seconds, or why the given one does not.
pub(crate) fn revocation_date(revocation: &Revocation, not_before: i64, now: Timestamp) -> Result<i64, Revoked> {
    let now = now.as_secs();
    let Some(date) = revocation.revocation_date else {
        return Ok(now);
    };
    if date > now + DATE_TOLERANCE {
        return Err(Revoked::InTheFuture);
    }
    let compromised = revocation.reason == RevocationReason::KeyCompromise;
    if date < not_before || (date < now - DATE_TOLERANCE && !compromised) {
        return Err(Revoked::TooEarly);
    }
    Ok(date.min(now))
}

/// A lease's row as one that may stand down or is needed; `None` if it is no signer's, or cannot be read and so counts for nothing.
pub(crate) fn holder(announcement: &str, stands_down: bool) -> Option<Holder> {
    let said: Announcement = serde_json::from_str(announcement)
        .inspect_err(|error| tracing::error!(%error, "an announcement counts for nothing"))
        .ok()?;
    (said.role == Role::Signer).then_some(Holder {
        signer: said.incarnation,
        issuers: said.issuers,
        stands_down,
    })
}

/// The front ends that wait for a job, as one text: names separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Waiters(pub(crate) Vec<Incarnation>);

impl Waiters {
    /// Front ends that one job remembers. Beyond them a front end learns the end of the job by reading the ledger.
    const MOST: usize = 32;

    /// Adds a front end, if one waits. Whether there is a change.
    pub(crate) fn add(&mut self, waiter: Option<&Incarnation>) -> bool {
        let new = waiter.filter(|waiter| self.0.len() < Self::MOST && !self.0.contains(waiter));
        self.0.extend(new.cloned());
        new.is_some()
    }
}

impl fmt::Display for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, waiter) in self.0.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{waiter}")?;
        }
        Ok(())
    }
}

impl FromStr for Waiters {
    type Err = <Incarnation as FromStr>::Err;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let texts = text.split_ascii_whitespace();
        texts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Whose turn comes next in each lane, so that one account's backlog does not hide another's job.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Lane, AccountId>>);

impl Turns {
    /// Who was served last.
    pub(crate) fn last(&self, lane: &Lane) -> Option<AccountId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(lane).cloned()
    }

    /// Remembers who was served last.
    pub(crate) fn set(&self, lane: &Lane, last: AccountId) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= LANES {
            turns.clear();
        }
        turns.insert(lane.clone(), last);
    }
}

/// How many jobs of each of so many accounts are looked at for one claim: twice what each would give if all gave the same, so that
/// accounts with few jobs leave room.
pub(crate) const fn jobs_each(limit: usize, accounts: usize) -> usize {
    2 * limit.div_ceil(if accounts == 0 { 1 } else { accounts })
}

/// Of each account in turn its oldest job, until there are `limit`.
pub(crate) fn in_turn(lane: &Lane, accounts: Vec<(AccountId, Vec<Serial>)>, limit: usize) -> Vec<Claimable> {
    let mut queues: Vec<_> = accounts
        .into_iter()
        .map(|(account, jobs)| (account, jobs.into_iter()))
        .collect();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for (account, jobs) in &mut queues {
            if found.len() < limit
                && let Some(job) = jobs.next()
            {
                found.push(Claimable {
                    job,
                    lane: lane.clone(),
                    account: account.clone(),
                });
            }
        }
        if found.len() == before {
            return found;
        }
    }
}
