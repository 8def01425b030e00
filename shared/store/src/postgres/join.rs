//! Joining: a request that looks like an earlier one is answered with that one's job, where that still stands. One transaction each.

use domain::{id::Serial, job::State, lane::Lane, time::Timestamp};
use sqlx::postgres::PgRow;

use super::{
    accept::refusal,
    column::{digest, get, parsed, purpose_text, serial, time},
    core::{Core, one},
    fault::Fault,
    link::{Lent, Transaction},
    partition::Day,
};
use crate::{
    AcceptError, Accepted, How, Idempotency, NewJob,
    rules::{JOINERS, SIGN_AFTER_NOT_BEFORE, Waiters},
};

/// What came of a look at what is there already.
pub(super) enum Joined {
    /// The request's answer.
    Answer(Result<Accepted, AcceptError>),
    /// Nothing answers it (any more), and what seemed to is out of the way.
    Nothing,
}

/// An open job, locked.
struct Open {
    job: Serial,
    state: State,
    cancelled: bool,
    sign_by: Timestamp,
    not_before: i64,
    waiters: Waiters,
    /// Whether its request is the same as that of the job that was asked for.
    same: bool,
}

impl Core {
    /// Looks for the job that answers a request: that of its idempotency key, or the same request, or the very same job.
    pub(super) async fn join(&self, lent: &mut Lent, job: &NewJob) -> Result<Joined, Fault> {
        let mut transaction = lent.begin().await?;
        match self.look(&mut transaction, job).await {
            Ok(joined) => {
                transaction.commit().await?;
                Ok(joined)
            }
            Err(fault) => {
                transaction.roll_back().await?;
                Err(fault)
            }
        }
    }

    async fn look(&self, transaction: &mut Transaction<'_>, job: &NewJob) -> Result<Joined, Fault> {
        let facts = self.standing(transaction, job).await?;
        let (now, head) = (time(&facts, "now")?, super::column::count(&facts, "head")?);
        let answer = |job, how, state| Ok(Joined::Answer(Ok(Accepted { job, how, state, head })));
        if let Some(idempotency) = &job.idempotency {
            match self.remembered(transaction, job, idempotency, now).await? {
                Remembered::Nothing => {}
                Remembered::Conflict => return Ok(Joined::Answer(Err(AcceptError::IdempotencyConflict))),
                Remembered::Job(earlier, state) => return answer(earlier, How::Repeated, state),
            }
        }
        if let Some(refused) = refusal(get(&facts, "code")?) {
            return Ok(Joined::Answer(Err(refused)));
        }
        if let Some((earlier, state)) = self.same(transaction, job, now).await? {
            remember(transaction, job, &earlier, now).await?;
            return answer(earlier, How::Joined, state);
        }
        match self.accepted_before(transaction, job).await? {
            None => Ok(Joined::Nothing),
            Some(Some(state)) => answer(job.job, How::Repeated, state),
            Some(None) => Ok(Joined::Answer(Err(AcceptError::SerialTaken))),
        }
    }

    /// The time, the head, and whether the issuer issues for this purpose now.
    async fn standing(&self, transaction: &mut Transaction<'_>, job: &NewJob) -> Result<PgRow, Fault> {
        let facts = sqlx::query(
            "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now), \
             gate AS (DELETE FROM registry_gate WHERE FALSE) \
             SELECT me.now, coalesce((SELECT max(number) FROM revision), 0) AS head, \
                 CASE WHEN issuer.id IS NULL THEN 1 WHEN issuer.state = 'destroyed' THEN 2 \
                     WHEN issuer.not_after < me.now / 1000 THEN 3 \
                     WHEN CASE $3 WHEN 'ocsp-signer' THEN issuer.ocsp ELSE issuer.issue END THEN 0 ELSE 4 END AS code \
             FROM me LEFT JOIN issuer ON issuer.id = $2",
        );
        let facts = facts
            .bind(self.given_now())
            .bind(job.lane.issuer.as_str().to_owned())
            .bind(purpose_text(job.purpose));
        one(transaction.rows(facts).await?)
    }

    /// What an idempotency key stands for. One that stands for nothing any more is forgotten.
    async fn remembered(
        &self,
        transaction: &mut Transaction<'_>,
        job: &NewJob,
        idempotency: &Idempotency,
        now: Timestamp,
    ) -> Result<Remembered, Fault> {
        let key = idempotency.key.0.to_vec();
        let found = sqlx::query("SELECT request, job, until FROM idempotency WHERE key = $1");
        let rows = transaction.rows(found.bind(key.clone())).await?;
        let Some(row) = rows.first() else {
            return Ok(Remembered::Nothing);
        };
        let earlier = serial(row, "job")?;
        if time(row, "until")? > now {
            if digest(row, "request")? != idempotency.request {
                return Ok(Remembered::Conflict);
            }
            if let Some(state) = self.answer_with(transaction, &earlier, job).await? {
                return Ok(Remembered::Job(earlier, state));
            }
        }
        let forget = sqlx::query("DELETE FROM idempotency WHERE key = $1 AND job = $2");
        transaction
            .rows(forget.bind(key).bind(earlier.as_bytes().to_vec()))
            .await?;
        Ok(Remembered::Nothing)
    }

    /// The job of the same account and lane that answers the same request, if there is one; joined where it is open.
    async fn same(
        &self,
        transaction: &mut Transaction<'_>,
        job: &NewJob,
        now: Timestamp,
    ) -> Result<Option<(Serial, State)>, Fault> {
        let Lane { issuer, class } = &job.lane;
        let named = |sql| {
            sqlx::query(sql)
                .bind(job.repeat.0.to_vec())
                .bind(job.account.as_str().to_owned())
                .bind(issuer.as_str().to_owned())
                .bind(class.as_str())
        };
        let open = named("SELECT job FROM open WHERE repeat = $1 AND account = $2 AND issuer = $3 AND class = $4");
        if let Some(row) = transaction.rows(open).await?.first() {
            let earlier = serial(row, "job")?;
            let state = self.answer_with(transaction, &earlier, job).await?;
            return Ok(state.map(|state| (earlier, state)));
        }
        if job.join_within.is_zero() {
            return Ok(None);
        }
        let issued =
            named("SELECT job, until FROM repeat WHERE repeat = $1 AND account = $2 AND issuer = $3 AND class = $4");
        let rows = transaction.rows(issued).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let earlier = serial(row, "job")?;
        if time(row, "until")? > now
            && let Some(state) = self.answer_with(transaction, &earlier, job).await?
        {
            return Ok(Some((earlier, state)));
        }
        let forget =
            named("DELETE FROM repeat WHERE repeat = $1 AND account = $2 AND issuer = $3 AND class = $4 AND job = $5");
        transaction.rows(forget.bind(earlier.as_bytes().to_vec())).await?;
        Ok(None)
    }

    /// How a job stands that may be answered with: open and not cancelled, and then the request joins it; or issued and not revoked.
    async fn answer_with(
        &self,
        transaction: &mut Transaction<'_>,
        earlier: &Serial,
        job: &NewJob,
    ) -> Result<Option<State>, Fault> {
        if let Some(open) = lock(transaction, earlier, job).await? {
            if open.cancelled {
                return Ok(None);
            }
            let state = open.state;
            add(transaction, open, job).await?;
            return Ok(Some(state));
        }
        let day = Day::of(earlier.time());
        let issued = self.days.over(
            day,
            "SELECT state FROM result{day} AS result WHERE job = $1 AND NOT EXISTS (SELECT FROM revocation WHERE revocation.job = $1)",
        );
        let rows = transaction.rows(issued.bind(earlier.as_bytes().to_vec())).await?;
        let state: Option<State> = rows.first().map(|row| parsed(row, "state")).transpose()?;
        Ok(state.filter(|state| *state == State::Issued))
    }

    /// Whether the serial is taken, and by this very job: a front end asks again after an outcome that it never learnt.
    async fn accepted_before(
        &self,
        transaction: &mut Transaction<'_>,
        job: &NewJob,
    ) -> Result<Option<Option<State>>, Fault> {
        let day = Day::of(job.job.time());
        let taken = self.days.over(
            day,
            "SELECT account = $2 AND intent = $3 AS same FROM request{day} AS request WHERE job = $1",
        );
        let taken = taken
            .bind(job.job.as_bytes().to_vec())
            .bind(job.account.as_str().to_owned())
            .bind(job.intent.0.to_vec());
        let rows = transaction.rows(taken).await?;
        match rows.first() {
            None => Ok(None),
            Some(row) if get(row, "same")? => self.answer_with(transaction, &job.job, job).await.map(Some),
            Some(_) => Ok(Some(None)),
        }
    }
}

/// What an idempotency key stands for.
enum Remembered {
    /// Nothing, or a job that is not answered with any more.
    Nothing,
    /// Another request.
    Conflict,
    /// This job, in this state.
    Job(Serial, State),
}

/// Locks an open job, so that nobody ends it meanwhile.
async fn lock(transaction: &mut Transaction<'_>, earlier: &Serial, job: &NewJob) -> Result<Option<Open>, Fault> {
    let open = sqlx::query(
        "SELECT state, cancelled, sign_by, not_before, waiters, \
             coalesce(repeat = $2 AND account = $3 AND issuer = $4 AND class = $5, FALSE) AS same \
         FROM open WHERE job = $1 FOR UPDATE",
    );
    let open = open
        .bind(earlier.as_bytes().to_vec())
        .bind(job.repeat.0.to_vec())
        .bind(job.account.as_str().to_owned())
        .bind(job.lane.issuer.as_str().to_owned())
        .bind(job.lane.class.as_str());
    let rows = transaction.rows(open).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Open {
        job: *earlier,
        state: parsed(row, "state")?,
        cancelled: get(row, "cancelled")?,
        sign_by: time(row, "sign_by")?,
        not_before: get(row, "not_before")?,
        waiters: parsed(row, "waiters")?,
        same: get(row, "same")?,
    }))
}

/// Adds a request to an open job: its front end to the waiters, and, if it is the same request, its statement to the first and its
/// `sign_by` where that is later.
async fn add(transaction: &mut Transaction<'_>, mut open: Open, job: &NewJob) -> Result<(), Fault> {
    let latest = Timestamp::from_secs(open.not_before) + SIGN_AFTER_NOT_BEFORE;
    let mut changed = open.waiters.add(job.waiter.as_ref());
    if open.same && job.job != open.job {
        keep_statement(transaction, &open.job, job).await?;
        if job.sign_by > open.sign_by && job.sign_by <= latest {
            open.sign_by = job.sign_by;
            changed = true;
        }
    }
    if changed {
        let joined = sqlx::query("UPDATE open SET waiters = $2, sign_by = $3 WHERE job = $1");
        let joined = joined
            .bind(open.job.as_bytes().to_vec())
            .bind(open.waiters.to_string())
            .bind(open.sign_by.as_millis());
        transaction.rows(joined).await?;
    }
    Ok(())
}

async fn keep_statement(transaction: &mut Transaction<'_>, earlier: &Serial, job: &NewJob) -> Result<(), Fault> {
    let kept = sqlx::query(
        "INSERT INTO joined (job, joiner, sign_by, statement, proof) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (job, joiner) DO NOTHING",
    );
    let kept = kept
        .bind(earlier.as_bytes().to_vec())
        .bind(job.job.as_bytes().to_vec())
        .bind(job.sign_by.as_millis())
        .bind(job.statement.clone())
        .bind(job.proof.clone());
    transaction.rows(kept).await?;
    let bounded = sqlx::query(
        "DELETE FROM joined WHERE job = $1 AND joiner = ANY(ARRAY(\
         SELECT joiner FROM joined WHERE job = $1 ORDER BY sign_by DESC, joiner DESC OFFSET $2))",
    );
    let bounded = bounded.bind(earlier.as_bytes().to_vec()).bind(i64::from(JOINERS));
    transaction.rows(bounded).await.map(drop)
}

/// Remembers which job answers the request's idempotency key.
async fn remember(
    transaction: &mut Transaction<'_>,
    job: &NewJob,
    answer: &Serial,
    now: Timestamp,
) -> Result<(), Fault> {
    if let Some(idempotency) = &job.idempotency {
        let keep = sqlx::query(
            "INSERT INTO idempotency (key, request, job, until) VALUES ($1, $2, $3, $4) ON CONFLICT (key) \
             DO UPDATE SET request = excluded.request, job = excluded.job, until = excluded.until",
        );
        let keep = keep
            .bind(idempotency.key.0.to_vec())
            .bind(idempotency.request.0.to_vec())
            .bind(answer.as_bytes().to_vec())
            .bind((now + idempotency.keep).as_millis());
        transaction.rows(keep).await?;
    }
    Ok(())
}
