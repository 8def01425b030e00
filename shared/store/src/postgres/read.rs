//! Looking: one job, many ended jobs, lists, counters, statistics. Nothing here writes.

use domain::{
    id::{AccountId, Serial},
    job::State,
};
use sqlx::postgres::PgRow;

use super::{
    column::{big, count, get, lane, parsed, parsed_if, serial, small, time},
    core::{Core, one},
    fault::Fault,
    link::Lent,
};
use crate::{
    Counter, Ended, Job, JobFilter, JobSummary, Outcome, Statistics, StatisticsEntry, StatisticsPage, StatisticsQuery,
    rules::LIST,
};

/// An outcome in the columns `ended`, `at`, `signature`, `problem` and `detail`; `None` where there is none.
fn outcome(row: &PgRow) -> Result<Option<Outcome>, Fault> {
    let Some(state) = parsed_if::<State>(row, "ended")? else {
        return Ok(None);
    };
    let at = time(row, "at")?;
    Ok(Some(match state {
        State::Issued => Outcome::Issued {
            signature: get(row, "signature")?,
            at,
        },
        State::Refused => Outcome::Refused {
            id: get(row, "problem")?,
            detail: get(row, "detail")?,
            at,
        },
        State::Discarded => Outcome::Discarded {
            reason: get(row, "detail")?,
            at,
        },
        State::Queued | State::Signing | State::Parked | State::Expired => Outcome::Expired { at },
    }))
}

/// The certificates of each statistics window. `$2` and `$3` are the first and the last second, `$1` the account.
const fn window(statistics: Statistics) -> &'static str {
    match statistics {
        Statistics::Issued => {
            "FROM result WHERE account = $1 AND state = 'issued' AND at >= ($2 - 1) * 1000 AND at < ($3 + 2) * 1000 \
             AND (at / 1000 BETWEEN $2 AND $3 OR (not_before BETWEEN $2 AND $3 AND abs(not_before - at / 1000) <= 1))"
        }
        Statistics::Expiring => "FROM result WHERE account = $1 AND state = 'issued' AND not_after BETWEEN $2 AND $3",
        Statistics::Revoked => "FROM revocation WHERE account = $1 AND issued AND revocation_date BETWEEN $2 AND $3",
    }
}

impl Core {
    /// How jobs ended, those that have. Nobody waits any more.
    pub(super) async fn ended(&self, lent: &mut Lent, jobs: &[Serial]) -> Result<Vec<Ended>, Fault> {
        let sql =
            "SELECT job, state AS ended, at, signature, problem, detail FROM result{day} AS result WHERE job = ANY($1)";
        let rows = self.of_days(lent, jobs, sql).await?;
        let read = |row: &PgRow| {
            let job = serial(row, "job")?;
            let outcome = outcome(row)?.ok_or_else(|| Fault::damaged(format!("job {job}: no outcome")))?;
            Ok(Ended {
                job,
                outcome,
                waiters: Vec::new(),
            })
        };
        rows.iter().map(read).collect()
    }

    /// A job with everything that is recorded of it.
    pub(super) async fn job(&self, lent: &mut Lent, serial: Serial) -> Result<Option<Job>, Fault> {
        let sql = "SELECT request.issuer, request.class, request.account, request.profile, request.profile_version, \
             request.accepted_at, coalesce(open.sign_by, request.sign_by) AS sign_by, request.not_before, request.not_after, \
             open.state, coalesce(open.turn, result.turn)::bigint AS turn, \
             coalesce(open.strikes, result.strikes)::bigint AS strikes, open.owner, intent.statement, intent.tbs, \
             result.state AS ended, result.at, result.signature, result.problem, result.detail \
             FROM request{day} AS request LEFT JOIN open ON open.job = request.job \
             LEFT JOIN result{day} AS result ON result.job = request.job \
             LEFT JOIN intent{day} AS intent ON intent.job = request.job WHERE request.job = ANY($1)";
        let rows = self.of_days(lent, &[serial], sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let outcome = outcome(row)?;
        let state = parsed_if::<State>(row, "state")?.or(outcome.as_ref().map(Outcome::state));
        let Some(state) = state else {
            return Err(Fault::damaged(format!("job {serial}: neither open nor ended")));
        };
        let job = Job {
            job: serial,
            lane: lane(row)?,
            account: parsed(row, "account")?,
            profile: parsed(row, "profile")?,
            profile_version: small(row, "profile_version")?,
            accepted_at: time(row, "accepted_at")?,
            sign_by: time(row, "sign_by")?,
            not_before: get(row, "not_before")?,
            not_after: get(row, "not_after")?,
            state,
            turn: small(row, "turn")?,
            strikes: small(row, "strikes")?,
            owner: parsed_if(row, "owner")?,
            statement: get(row, "statement")?,
            tbs: get(row, "tbs")?,
            outcome,
            revocation: self.revocation(lent, &serial).await?,
            successor: None,
        };
        Ok(Some(job))
    }

    /// What is counted of an account for ever.
    pub(super) async fn counter(&self, lent: &mut Lent, account: &AccountId, counter: Counter) -> Result<u64, Fault> {
        let sql = match counter {
            Counter::Issued => "SELECT coalesce(sum(issued), 0)::bigint AS total FROM account_tally WHERE account = $1",
            Counter::Revoked => {
                "SELECT coalesce(sum(revoked), 0)::bigint AS total FROM account_tally WHERE account = $1"
            }
        };
        let rows = lent.rows(sqlx::query(sql).bind(account.as_str().to_owned())).await?;
        count(&one(rows)?, "total")
    }

    /// What an account has used of its quota. What writers have leased and not used is not used.
    pub(super) async fn used(&self, lent: &mut Lent, account: &AccountId) -> Result<u64, Fault> {
        let sql = "SELECT coalesce(sum(used), 0)::bigint AS total FROM account_tally WHERE account = $1";
        let rows = lent.rows(sqlx::query(sql).bind(account.as_str().to_owned())).await?;
        count(&one(rows)?, "total")
    }

    /// One page of a statistics window.
    pub(super) async fn statistics(&self, lent: &mut Lent, query: &StatisticsQuery) -> Result<StatisticsPage, Fault> {
        let window = window(query.statistics);
        // Far beyond any time there is, and far from the edges of the numbers.
        let bound = |secs: i64| secs.clamp(-1 << 40, 1 << 40);
        let named = |sql: String| {
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(query.account.as_str().to_owned())
                .bind(bound(query.from))
                .bind(bound(query.to))
        };
        let total = one(lent.rows(named(format!("SELECT count(*) AS total {window}"))).await?)?;
        let offset = u64::from(query.page.saturating_sub(1)) * u64::from(query.per_page);
        let page = named(format!("SELECT job {window} ORDER BY job LIMIT $4 OFFSET $5"))
            .bind(i64::from(query.per_page))
            .bind(big(offset));
        let jobs: Result<Vec<Serial>, Fault> = lent.rows(page).await?.iter().map(|row| serial(row, "job")).collect();
        let sql = "SELECT job, not_before, not_after FROM request{day} AS request WHERE job = ANY($1) ORDER BY job";
        let rows = self.of_days(lent, &jobs?, sql).await?;
        let entry = |row: &PgRow| {
            Ok(StatisticsEntry {
                job: serial(row, "job")?,
                not_before: get(row, "not_before")?,
                not_after: get(row, "not_after")?,
            })
        };
        Ok(StatisticsPage {
            entries: rows.iter().map(entry).collect::<Result<_, Fault>>()?,
            total: count(&total, "total")?,
        })
    }

    /// Jobs, newest first. Rows that cannot be read are reported and left out.
    pub(super) async fn jobs(&self, lent: &mut Lent, filter: &JobFilter) -> Result<Vec<JobSummary>, Fault> {
        let first = match filter.state {
            // Of open jobs the rows are chosen before anything is joined to them.
            Some(state) if state.is_open() => {
                "(SELECT open.* FROM open WHERE open.job < $1 AND ($2::text IS NULL OR open.issuer = $2) \
                     AND ($3::text IS NULL OR open.account = $3) AND coalesce(open.state, '') = $4 \
                     ORDER BY open.job DESC LIMIT $5) AS open JOIN request ON request.job = open.job"
            }
            _ => "request LEFT JOIN open ON open.job = request.job",
        };
        let sql = format!(
            "SELECT request.job, request.issuer, request.class, request.account, request.profile, \
                 coalesce(open.state, result.state) AS state, request.accepted_at, \
                 coalesce(open.sign_by, request.sign_by) AS sign_by, \
                 EXISTS (SELECT FROM revocation WHERE revocation.job = request.job) AS revoked \
             FROM {first} LEFT JOIN result ON result.job = request.job \
             WHERE request.job < $1 AND ($2::text IS NULL OR request.issuer = $2) \
                 AND ($3::text IS NULL OR request.account = $3) \
                 AND ($4::text IS NULL OR coalesce(open.state, result.state) = $4) ORDER BY request.job DESC LIMIT $5"
        );
        // No serial is above these bytes.
        let before = filter
            .before
            .map_or(vec![0xff; 16], |serial| serial.as_bytes().to_vec());
        let query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(before)
            .bind(filter.issuer.as_ref().map(|issuer| issuer.as_str().to_owned()))
            .bind(filter.account.as_ref().map(|account| account.as_str().to_owned()))
            .bind(filter.state.map(State::as_str))
            .bind(i64::from(filter.limit.min(LIST)));
        let mut found = Vec::new();
        for row in lent.rows(query).await? {
            match summary(&row) {
                Ok(job) => found.push(job),
                Err(fault) => tracing::error!(?fault, "a stored row is left out"),
            }
        }
        Ok(found)
    }
}

fn summary(row: &PgRow) -> Result<JobSummary, Fault> {
    Ok(JobSummary {
        job: serial(row, "job")?,
        lane: lane(row)?,
        account: parsed(row, "account")?,
        profile: parsed(row, "profile")?,
        state: parsed(row, "state")?,
        accepted_at: time(row, "accepted_at")?,
        sign_by: time(row, "sign_by")?,
        revoked: get(row, "revoked")?,
    })
}
