//! Looking: one job, many ended jobs, lists, counters, statistics. Nothing here writes.

use domain::{
    id::{AccountId, Incarnation, Serial},
    job::{RevocationReason, State},
    time::Timestamp,
};
use rusqlite::{Connection, Row};

use super::{
    column::Column,
    fault::Fault,
    open::read_lane,
    sql::{all, one, readable},
};
use crate::{
    Counter, Ended, Job, JobEvent, JobFilter, JobSummary, Outcome, RevocationRecord, Statistics, StatisticsEntry,
    StatisticsPage, StatisticsQuery, rules::LIST,
};

/// How a job ended, if it has.
pub(super) fn ended(connection: &Connection, job: &Serial) -> Result<Option<Ended>, Fault> {
    let outcome = one(
        connection,
        "SELECT state, at, signature, problem, detail FROM result WHERE job = ?1",
        [Column(job)],
        |row| read_outcome(row, 0),
    )?;
    Ok(outcome.flatten().map(|outcome| Ended {
        job: *job,
        outcome,
        waiters: Vec::new(),
    }))
}

/// An outcome in five columns; `None` where there is none (an outer join).
fn read_outcome(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Outcome>> {
    let Some(Column(state)) = row.get::<_, Option<Column<State>>>(first)? else {
        return Ok(None);
    };
    let at = row.get::<_, Column<Timestamp>>(first + 1)?.0;
    Ok(Some(match state {
        State::Issued => Outcome::Issued {
            signature: row.get(first + 2)?,
            at,
        },
        State::Refused => Outcome::Refused {
            id: row.get(first + 3)?,
            detail: row.get(first + 4)?,
            at,
        },
        State::Discarded => Outcome::Discarded {
            reason: row.get(first + 4)?,
            at,
        },
        State::Queued | State::Signing | State::Parked | State::Expired => Outcome::Expired { at },
    }))
}

/// A job with everything that is recorded of it.
pub(super) fn job(connection: &Connection, serial: &Serial) -> Result<Option<Job>, Fault> {
    let found = one(
        connection,
        "SELECT request.issuer, request.class, request.account, request.profile, request.profile_version, \
         request.accepted_at, coalesce(open.sign_by, request.sign_by), request.not_before, request.not_after, \
         open.state, coalesce(open.turn, result.turn), coalesce(open.strikes, result.strikes), open.owner, statement.statement, intent.tbs, \
         result.state, result.at, result.signature, result.problem, result.detail \
         FROM request LEFT JOIN open ON open.job = request.job LEFT JOIN result ON result.job = request.job \
         LEFT JOIN statement ON statement.id = request.id LEFT JOIN intent ON intent.id = request.id \
         WHERE request.job = ?1",
        [Column(serial)],
        |row| {
            let outcome = read_outcome(row, 15)?;
            let open = row.get::<_, Option<Column<State>>>(9)?.map(|state| state.0);
            let Some(state) = open.or(outcome.as_ref().map(Outcome::state)) else {
                return Ok(None);
            };
            Ok(Some(Job {
                job: *serial,
                lane: read_lane(row, 0)?,
                account: row.get::<_, Column<_>>(2)?.0,
                profile: row.get::<_, Column<_>>(3)?.0,
                profile_version: row.get(4)?,
                accepted_at: row.get::<_, Column<_>>(5)?.0,
                sign_by: row.get::<_, Column<_>>(6)?.0,
                not_before: row.get(7)?,
                not_after: row.get(8)?,
                state,
                turn: row.get(10)?,
                strikes: row.get(11)?,
                owner: row.get::<_, Option<Column<Incarnation>>>(12)?.map(|owner| owner.0),
                statement: row.get(13)?,
                tbs: row.get(14)?,
                outcome,
                revocation: None,
                successor: None,
            }))
        },
    )?;
    let mut job = match found {
        None => return Ok(None),
        Some(None) => return Err(Fault::damaged(format!("job {serial}: neither open nor ended"))),
        Some(Some(job)) => job,
    };
    job.revocation = revocation(connection, serial)?;
    Ok(Some(job))
}

/// A job's revocation.
pub(super) fn revocation(connection: &Connection, job: &Serial) -> Result<Option<RevocationRecord>, Fault> {
    one(
        connection,
        "SELECT reason, decided_at, revocation_date, published_at FROM revocation WHERE job = ?1",
        [Column(job)],
        |row| {
            Ok(RevocationRecord {
                reason: row.get::<_, Column<RevocationReason>>(0)?.0,
                decided_at: row.get::<_, Column<_>>(1)?.0,
                revocation_date: row.get(2)?,
                published_at: row.get::<_, Option<Column<_>>>(3)?.map(|at| at.0),
            })
        },
    )
}

/// Of these jobs, those that somebody has revoked or cancelled.
pub(super) fn cancelled(connection: &Connection, jobs: &[Serial]) -> Result<Vec<Serial>, Fault> {
    let mut cancelled = Vec::new();
    for job in jobs {
        let sql = "SELECT 1 FROM revocation WHERE job = ?1";
        if one(connection, sql, [Column(job)], |_| Ok(()))?.is_some() {
            cancelled.push(*job);
        }
    }
    Ok(cancelled)
}

/// What is counted of an account for ever.
pub(super) fn counter(connection: &Connection, account: &AccountId, counter: Counter) -> Result<u64, Fault> {
    let sql = match counter {
        Counter::Issued => "SELECT issued FROM account_total WHERE account = ?1",
        Counter::Revoked => "SELECT revoked FROM account_total WHERE account = ?1",
    };
    total(connection, sql, account)
}

/// What an account has used of its quota.
pub(super) fn used(connection: &Connection, account: &AccountId) -> Result<u64, Fault> {
    total(connection, "SELECT used FROM account_total WHERE account = ?1", account)
}

fn total(connection: &Connection, sql: &str, account: &AccountId) -> Result<u64, Fault> {
    let total = one(connection, sql, [Column(account)], |row| {
        Ok(row.get::<_, Column<u64>>(0)?.0)
    })?;
    Ok(total.unwrap_or(0))
}

/// The certificates of each statistics window. `?2` and `?3` are the first and the last second, `?1` the account.
macro_rules! window {
    (issued) => {
        "FROM result WHERE account = ?1 AND state = 'issued' AND at >= (?2 - 1) * 1000 AND at < (?3 + 2) * 1000 \
         AND (at / 1000 BETWEEN ?2 AND ?3 OR (not_before BETWEEN ?2 AND ?3 AND abs(not_before - at / 1000) <= 1)) "
    };
    (expiring) => {
        "FROM result WHERE account = ?1 AND state = 'issued' AND not_after BETWEEN ?2 AND ?3 "
    };
    (revoked) => {
        "FROM revocation WHERE account = ?1 AND issued = 1 AND revocation_date BETWEEN ?2 AND ?3 "
    };
}

macro_rules! page {
    ($window:ident) => {
        concat!(
            "SELECT page.job, request.not_before, request.not_after FROM (SELECT job ",
            window!($window),
            "ORDER BY job LIMIT ?4 OFFSET ?5) AS page JOIN request ON request.job = page.job ORDER BY page.job"
        )
    };
}

/// One page of a statistics window.
pub(super) fn statistics(connection: &Connection, query: &StatisticsQuery) -> Result<StatisticsPage, Fault> {
    let (count, page) = match query.statistics {
        Statistics::Issued => (concat!("SELECT count(*) ", window!(issued)), page!(issued)),
        Statistics::Expiring => (concat!("SELECT count(*) ", window!(expiring)), page!(expiring)),
        Statistics::Revoked => (concat!("SELECT count(*) ", window!(revoked)), page!(revoked)),
    };
    // Far beyond any time there is, and far from the edges of the numbers.
    let bound = |secs: i64| secs.clamp(-1 << 40, 1 << 40);
    let (from, to) = (bound(query.from), bound(query.to));
    let total = one(connection, count, (Column(&query.account), from, to), |row| {
        Ok(row.get::<_, Column<u64>>(0)?.0)
    })?;
    let offset = u64::from(query.page.saturating_sub(1)) * u64::from(query.per_page);
    let entries = all(
        connection,
        page,
        (Column(&query.account), from, to, query.per_page, Column(offset)),
        |row| {
            Ok(StatisticsEntry {
                job: row.get::<_, Column<_>>(0)?.0,
                not_before: row.get(1)?,
                not_after: row.get(2)?,
            })
        },
    )?;
    Ok(StatisticsPage {
        entries,
        total: total.unwrap_or(0),
    })
}

/// Jobs with their outer rows: of `$first` (`request` or `open`) by serial, backwards.
macro_rules! summaries {
    ($first:literal, $joins:literal) => {
        concat!(
            "SELECT request.job, request.issuer, request.class, request.account, request.profile, ",
            "coalesce(open.state, result.state), request.accepted_at, coalesce(open.sign_by, request.sign_by), ",
            "EXISTS (SELECT 1 FROM revocation WHERE revocation.job = request.job) FROM ",
            $first,
            $joins,
            " LEFT JOIN result ON result.job = request.job WHERE ",
            $first,
            ".job < ?1 AND (?2 IS NULL OR request.issuer = ?2) AND (?3 IS NULL OR request.account = ?3) ",
            "AND (?4 IS NULL OR coalesce(open.state, result.state) = ?4) ORDER BY ",
            $first,
            ".job DESC LIMIT ?5"
        )
    };
}

/// Jobs, newest first.
pub(super) fn jobs(connection: &Connection, filter: &JobFilter) -> Result<Vec<JobSummary>, Fault> {
    let sql = match filter.state {
        Some(state) if state.is_open() => summaries!("open", " CROSS JOIN request ON request.job = open.job"),
        _ => summaries!("request", " LEFT JOIN open ON open.job = request.job"),
    };
    // No serial is above this blob.
    let before = filter
        .before
        .map_or(vec![0xff; 16], |serial| serial.as_bytes().to_vec());
    readable(
        connection,
        sql,
        rusqlite::params![
            before,
            filter.issuer.as_ref().map(Column),
            filter.account.as_ref().map(Column),
            filter.state.as_ref().map(Column),
            filter.limit.min(LIST)
        ],
        |row| {
            Ok(JobSummary {
                job: row.get::<_, Column<_>>(0)?.0,
                lane: read_lane(row, 1)?,
                account: row.get::<_, Column<_>>(3)?.0,
                profile: row.get::<_, Column<_>>(4)?.0,
                state: row.get::<_, Column<_>>(5)?.0,
                accepted_at: row.get::<_, Column<_>>(6)?.0,
                sign_by: row.get::<_, Column<_>>(7)?.0,
                revoked: row.get(8)?,
            })
        },
    )
}

/// What happened to a job, oldest first.
pub(super) fn events(connection: &Connection, job: &Serial) -> Result<Vec<JobEvent>, Fault> {
    all(
        connection,
        "SELECT kind, detail, said_by, at FROM job_event WHERE job = ?1 ORDER BY id LIMIT ?2",
        (Column(job), LIST),
        |row| {
            Ok(JobEvent {
                job: *job,
                kind: row.get(0)?,
                detail: row.get(1)?,
                by: row.get(2)?,
                at: row.get::<_, Column<_>>(3)?.0,
            })
        },
    )
}
