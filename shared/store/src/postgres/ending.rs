//! Whatever ends a job: signatures, refusals, the sweep, the front end whose wait is over. One statement for all of them: which jobs
//! the law lets end is its first part, and everything that follows from an end is the rest.

use std::collections::HashMap;

use domain::{
    id::{Incarnation, Serial},
    job::State,
};

use super::{
    column::{digest, get, parsed, serial, serials, text, time},
    core::{Batch, Core, commit},
    fault::Fault,
    law::{OWNER_LOST, USAGE_ON, locked},
    link::Lent,
    partition::Day,
};
use crate::{
    Ended, Finish, Finished, Outcome, Refusal, StoreError,
    rules::{LEASE_KEPT, Waiters},
};

/// Ends the jobs of `$4` that `law` lets end. `$1` is the time, `$2` the writer, `$3` how they end, `$5` to `$8` signatures, nodes,
/// problems and details, `$9` and `$10` what the law compares: a digest and a number for each; `$11` an incarnation.
fn ending(law: &str, outcome: State, skip: bool) -> String {
    let locked = locked(law, skip);
    // Each part of a statement costs, used or not.
    let rest = if outcome == State::Issued {
        "cancelled AS (UPDATE revocation SET issued = TRUE \
             WHERE job = ANY(ARRAY(SELECT job FROM wanted WHERE wanted.cancelled))), \
         repeats AS (INSERT INTO repeat (repeat, account, issuer, class, job, until) \
             SELECT repeat, account, issuer, class, job, now + join_within FROM wanted \
             WHERE join_within > 0 AND repeat IS NOT NULL ORDER BY repeat, account, issuer, class \
             ON CONFLICT (repeat, account, issuer, class) DO UPDATE SET job = excluded.job, until = excluded.until), "
    } else {
        "doubts AS (INSERT INTO revocation (job, account, reason, decided_at, revocation_date, decided_by, issued) \
             SELECT job, account, 'unspecified', now, now / 1000, 'store', FALSE FROM wanted \
             WHERE turn > 0 ORDER BY job ON CONFLICT (job) DO NOTHING), \
         free AS (DELETE FROM key_use WHERE public_key = ANY(ARRAY(SELECT unique_key FROM wanted \
                 WHERE unique_key IS NOT NULL)) AND (job IN (SELECT job FROM wanted)) IS TRUE), "
    };
    format!(
        "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now), \
         gate AS (DELETE FROM registry_gate WHERE FALSE), \
         wanted AS MATERIALIZED (\
             SELECT open.*, me.now, $3::text AS outcome, asked.signature, asked.node, asked.problem, asked.detail \
             FROM me CROSS JOIN unnest($4::bytea[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::bigint[]) \
                 AS asked (job, signature, node, problem, detail, digest, number) CROSS JOIN {locked} \
             WHERE $11::text IS NULL OR TRUE), \
         gone AS (DELETE FROM open WHERE job = ANY(ARRAY(SELECT job FROM wanted))), \
         results AS (INSERT INTO result (job, state, at, turn, strikes, account, not_before, not_after, signature, node, problem, \
                 detail) \
             SELECT job, outcome, now, turn, strikes, account, not_before, not_after, signature, node, problem, detail FROM wanted \
             ON CONFLICT (job) DO NOTHING), \
         forgotten AS (DELETE FROM joined WHERE job = ANY(ARRAY(SELECT job FROM wanted))), \
         {rest} \
         lane_counts AS (INSERT INTO lane_tally AS tally (issuer, class, writer, queued, signing, parked) \
             SELECT issuer, class, $2, -count(*) FILTER (WHERE state = 'queued'), -count(*) FILTER (WHERE state = 'signing'), \
                 -count(*) FILTER (WHERE state = 'parked') FROM wanted GROUP BY issuer, class ORDER BY issuer, class \
             ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued, \
                 signing = tally.signing + excluded.signing, parked = tally.parked + excluded.parked), \
         account_counts AS (INSERT INTO account_tally AS tally (account, issuer, class, writer, issued, revoked, used) \
             SELECT account, issuer, class, $2, count(*) FILTER (WHERE outcome = 'issued'), \
                 count(*) FILTER (WHERE outcome = 'issued' AND cancelled), -count(*) FILTER (WHERE outcome <> 'issued') \
             FROM wanted GROUP BY account, issuer, class ORDER BY account, issuer, class \
             ON CONFLICT (account, issuer, class, writer) DO UPDATE SET issued = tally.issued + excluded.issued, \
                 revoked = tally.revoked + excluded.revoked, used = tally.used + excluded.used) \
         SELECT job, now, waiters, cancelled FROM wanted"
    )
}

/// A job to end.
struct End<'r> {
    job: Serial,
    signature: Option<&'r [u8]>,
    node: Option<&'r str>,
    problem: Option<String>,
    detail: Option<String>,
    digest: Option<&'r [u8]>,
    number: Option<i64>,
}

impl End<'_> {
    fn of(job: Serial) -> Self {
        Self {
            job,
            signature: None,
            node: None,
            problem: None,
            detail: None,
            digest: None,
            number: None,
        }
    }
}

/// A job that was ended just now.
struct Gone {
    at: domain::time::Timestamp,
    waiters: Vec<Incarnation>,
    cancelled: bool,
}

impl Core {
    /// Ends what the law lets end.
    async fn end(
        &self,
        lent: &mut Lent,
        law: &str,
        outcome: State,
        mut ends: Vec<End<'_>>,
        owner: Option<&Incarnation>,
        skip: bool,
    ) -> Result<HashMap<Serial, Gone>, Fault> {
        // Rows are locked in the order of their names, here as everywhere.
        ends.sort_by_key(|end| end.job);
        let query = sqlx::query(sqlx::AssertSqlSafe(ending(law, outcome, skip)))
            .bind(self.given_now())
            .bind(lent.writer())
            .bind(outcome.as_str())
            .bind(serials(ends.iter().map(|end| &end.job)))
            .bind(
                ends.iter()
                    .map(|end| end.signature.map(<[u8]>::to_vec))
                    .collect::<Vec<_>>(),
            )
            .bind(ends.iter().map(|end| end.node.map(str::to_owned)).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| end.problem.clone()).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| end.detail.clone()).collect::<Vec<_>>())
            .bind(
                ends.iter()
                    .map(|end| end.digest.map(<[u8]>::to_vec))
                    .collect::<Vec<_>>(),
            )
            .bind(ends.iter().map(|end| end.number).collect::<Vec<_>>())
            .bind(owner.map(ToString::to_string));
        let mut gone = HashMap::new();
        for row in lent.rows(query).await? {
            // A list of waiters that cannot be read is no reason to keep the end of the job from its caller.
            let waiters = parsed::<Waiters>(&row, "waiters").unwrap_or_default();
            let ended = Gone {
                at: time(&row, "now")?,
                waiters: waiters.0,
                cancelled: get(&row, "cancelled")?,
            };
            gone.insert(serial(&row, "job")?, ended);
        }
        // A cancellation that was committed while its job was waited for is in the row and not yet in what the statement saw.
        let cancelled: Vec<&Serial> = gone
            .iter()
            .filter(|(_, gone)| gone.cancelled)
            .map(|(job, _)| job)
            .collect();
        if outcome == State::Issued && !cancelled.is_empty() {
            let issued = sqlx::query("UPDATE revocation SET issued = TRUE WHERE job = ANY($1) AND NOT issued");
            lent.rows(issued.bind(serials(cancelled))).await?;
        }
        Ok(gone)
    }

    /// Records signatures, each by itself.
    pub(super) async fn finish(&self, lent: &mut Lent, finishes: &[Finish]) -> Vec<Result<Finished, StoreError>> {
        commit(&Finishing(self), lent, finishes).await
    }

    async fn why_not_finished(&self, lent: &mut Lent, finish: &Finish) -> Result<Finished, Fault> {
        let day = Day::of(finish.job.time());
        let job = finish.job.as_bytes().to_vec();
        let recorded = self
            .days
            .over(day, "SELECT intent FROM request{day} AS request WHERE job = $1")
            .bind(job.clone());
        match lent.rows(recorded).await?.first() {
            None => return Ok(Finished::Lost(None)),
            Some(row) if digest(row, "intent")? != finish.intent => return Ok(Finished::IntentMismatch),
            Some(_) => {}
        }
        let open = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT state, turn, intent = $2 AS same, {USAGE_ON} AS usage_on FROM open WHERE job = $1"
        )));
        let open = open.bind(job.clone()).bind(finish.intent.0.to_vec());
        if let Some(row) = lent.rows(open).await?.first() {
            return Ok(match (parsed(row, "state")?, get::<i32>(row, "turn")?) {
                (State::Parked, _) => Finished::Lost(Some(State::Parked)),
                (state, 0) => Finished::Lost(Some(state)),
                _ if !get::<bool>(row, "same")? => Finished::IntentMismatch,
                _ if get::<bool>(row, "usage_on")? => {
                    return Err(Fault::Locked(format!("job {} is being changed by another", finish.job)));
                }
                _ => Finished::IssuerOff,
            });
        }
        let Some(ended) = self.ended(lent, &[finish.job]).await?.pop() else {
            return Err(Fault::damaged(format!("job {}: neither open nor ended", finish.job)));
        };
        if !matches!(ended.outcome, Outcome::Issued { .. }) {
            return Ok(Finished::Lost(Some(ended.outcome.state())));
        }
        let revoked = sqlx::query("SELECT FROM revocation WHERE job = $1").bind(job);
        Ok(Finished::Issued {
            revoked: !lent.rows(revoked).await?.is_empty(),
            ended,
            first: false,
        })
    }

    /// Refuses jobs, each by itself.
    pub(super) async fn refuse(
        &self,
        lent: &mut Lent,
        owner: &Incarnation,
        refusals: &[Refusal],
    ) -> Vec<Result<Option<Ended>, StoreError>> {
        commit(&Refusing { core: self, owner }, lent, refusals).await
    }

    /// Ends what nobody wants any more, at most `limit`, and forgets what has run out.
    pub(super) async fn sweep(&self, lent: &mut Lent, limit: u32) -> Result<Vec<Ended>, StoreError> {
        let late = sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now) \
             SELECT job FROM me CROSS JOIN LATERAL (SELECT job FROM open WHERE open.sign_by <= me.now \
             AND (open.state <> 'signing' OR {OWNER_LOST}) ORDER BY open.sign_by LIMIT $2) AS open"
        )));
        let late = late.bind(self.given_now()).bind(i64::from(limit));
        let rows = lent.rows(late).await.map_err(Fault::into_error)?;
        let jobs: Result<Vec<Serial>, Fault> = rows.iter().map(|row| serial(row, "job")).collect();
        let mut ended = Vec::new();
        let law = format!("open.sign_by <= me.now AND (open.state <> 'signing' OR {OWNER_LOST})");
        let expiring = Expiring {
            core: self,
            law: &law,
            frontend: None,
            impatient: true,
        };
        let jobs = jobs.map_err(Fault::into_error)?;
        for (job, answer) in jobs.iter().zip(commit(&expiring, lent, &jobs).await) {
            match answer {
                Ok(expired) => ended.extend(expired),
                Err(StoreError::Damaged(why) | StoreError::Rejected(why)) => {
                    self.give_up(lent, job, &why).await.map_err(Fault::into_commit_error)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.prune(lent, limit).await.map_err(Fault::into_commit_error)?;
        let now = self.now(lent).await.map_err(Fault::into_error)?;
        if self.days.are_due(now)
            && let Err(fault) = self.days.make(lent, now).await
        {
            // Until there is one, the default partition takes a day's rows.
            tracing::warn!(?fault, "the next days' partitions could not be made; it is tried again");
        }
        Ok(ended)
    }

    /// Sets a late job aside that cannot be ended as what it is, and sweeps it no more.
    async fn give_up(&self, lent: &mut Lent, job: &Serial, why: &str) -> Result<(), Fault> {
        self.set_aside(lent, job, why).await?;
        let never = sqlx::query("UPDATE open SET sign_by = $2 WHERE job = $1");
        lent.rows(never.bind(job.as_bytes().to_vec()).bind(i64::MAX))
            .await
            .map(drop)
    }

    async fn prune(&self, lent: &mut Lent, limit: u32) -> Result<(), Fault> {
        for sql in [
            "DELETE FROM repeat WHERE (repeat, account, issuer, class) IN (SELECT repeat, account, issuer, class FROM repeat \
             WHERE until <= coalesce($1, ledger_now()) ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)",
            "DELETE FROM idempotency WHERE key = ANY(ARRAY(SELECT key FROM idempotency \
             WHERE until <= coalesce($1, ledger_now()) ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED))",
        ] {
            let old = sqlx::query(sql).bind(self.given_now()).bind(i64::from(limit));
            lent.rows(old).await?;
        }
        let leases = sqlx::query(
            "DELETE FROM lease WHERE incarnation = ANY(ARRAY(SELECT incarnation FROM lease \
             WHERE lease_until <= coalesce($1, ledger_now()) - $2 FOR UPDATE SKIP LOCKED))",
        );
        lent.rows(leases.bind(self.given_now()).bind(LEASE_KEPT))
            .await
            .map(drop)
    }

    /// Ends late jobs that nobody but this front end waits for.
    pub(super) async fn withdraw(
        &self,
        lent: &mut Lent,
        frontend: &Incarnation,
        jobs: &[Serial],
    ) -> Result<Vec<Ended>, StoreError> {
        let withdrawing = Expiring {
            core: self,
            law: "open.sign_by <= me.now AND open.state <> 'signing' AND open.waiters = $11",
            frontend: Some(frontend),
            impatient: false,
        };
        let mut ended = Vec::new();
        for answer in commit(&withdrawing, lent, jobs).await {
            ended.extend(answer?);
        }
        Ok(ended)
    }
}

struct Finishing<'c>(&'c Core);

impl Batch for Finishing<'_> {
    type Row = Finish;
    type Answer = Result<Finished, StoreError>;

    fn job(row: &Finish) -> Serial {
        row.job
    }

    async fn run(&self, lent: &mut Lent, rows: &[Finish], skip: bool) -> Result<Vec<Self::Answer>, Fault> {
        let law = format!(
            "open.state IN ('signing', 'queued') AND open.turn > 0 AND open.intent = asked.digest AND {USAGE_ON}"
        );
        let ends = rows.iter().map(|finish| End {
            signature: Some(&finish.signature),
            node: Some(finish.node.as_str()),
            digest: Some(&finish.intent.0),
            ..End::of(finish.job)
        });
        let mut gone = self
            .0
            .end(lent, &law, State::Issued, ends.collect(), None, skip)
            .await?;
        let mut answers = Vec::new();
        for finish in rows {
            answers.push(match gone.remove(&finish.job) {
                Some(gone) => Ok(Finished::Issued {
                    ended: Ended {
                        job: finish.job,
                        outcome: Outcome::Issued {
                            signature: finish.signature.clone(),
                            at: gone.at,
                        },
                        waiters: gone.waiters,
                    },
                    first: true,
                    revoked: gone.cancelled,
                }),
                None => match self.0.why_not_finished(lent, finish).await {
                    // Others of this batch are done; this one alone is to be tried again.
                    Err(fault) => Err(fault.into_error()),
                    Ok(finished) => Ok(finished),
                },
            });
        }
        Ok(answers)
    }

    fn failed(&self, _: &Finish, error: StoreError) -> Self::Answer {
        Err(error)
    }
}

struct Refusing<'c> {
    core: &'c Core,
    owner: &'c Incarnation,
}

impl Batch for Refusing<'_> {
    type Row = Refusal;
    type Answer = Result<Option<Ended>, StoreError>;

    fn job(row: &Refusal) -> Serial {
        row.job
    }

    async fn run(&self, lent: &mut Lent, rows: &[Refusal], skip: bool) -> Result<Vec<Self::Answer>, Fault> {
        let law = "(open.state = 'queued' \
                   OR (open.state = 'signing' AND open.turn = asked.number AND open.owner = $11))";
        let ends = rows.iter().map(|refusal| End {
            node: Some(self.owner.node.as_str()),
            problem: Some(text(&refusal.id)),
            detail: Some(text(&refusal.detail)),
            number: refusal.turn.map(i64::from),
            ..End::of(refusal.job)
        });
        let core = self.core;
        let mut gone = core
            .end(lent, law, State::Refused, ends.collect(), Some(self.owner), skip)
            .await?;
        let rest: Vec<Serial> = rows.iter().map(|refusal| refusal.job).collect();
        let rest: Vec<Serial> = rest.into_iter().filter(|job| !gone.contains_key(job)).collect();
        let mut before: HashMap<Serial, Ended> = HashMap::new();
        for ended in core.ended(lent, &rest).await? {
            before.insert(ended.job, ended);
        }
        let answer = |refusal: &Refusal| {
            let refused = gone.remove(&refusal.job).map(|gone| Ended {
                job: refusal.job,
                outcome: Outcome::Refused {
                    id: text(&refusal.id),
                    detail: text(&refusal.detail),
                    at: gone.at,
                },
                waiters: gone.waiters,
            });
            Ok(refused.or_else(|| before.get(&refusal.job).cloned()))
        };
        Ok(rows.iter().map(answer).collect())
    }

    fn failed(&self, _: &Refusal, error: StoreError) -> Self::Answer {
        Err(error)
    }
}

/// Jobs that end because their time is over.
struct Expiring<'c> {
    core: &'c Core,
    law: &'c str,
    frontend: Option<&'c Incarnation>,
    /// Whether rows that others have locked are left for the next time.
    impatient: bool,
}

impl Batch for Expiring<'_> {
    type Row = Serial;
    type Answer = Result<Option<Ended>, StoreError>;

    fn job(row: &Serial) -> Serial {
        *row
    }

    async fn run(&self, lent: &mut Lent, rows: &[Serial], skip: bool) -> Result<Vec<Self::Answer>, Fault> {
        let ends = rows.iter().map(|job| End::of(*job)).collect();
        let skip = skip || self.impatient;
        let mut gone = self
            .core
            .end(lent, self.law, State::Expired, ends, self.frontend, skip)
            .await?;
        let answer = |job: &Serial| {
            Ok(gone.remove(job).map(|gone| Ended {
                job: *job,
                outcome: Outcome::Expired { at: gone.at },
                waiters: gone.waiters,
            }))
        };
        Ok(rows.iter().map(answer).collect())
    }

    fn failed(&self, _: &Serial, error: StoreError) -> Self::Answer {
        Err(error)
    }
}
