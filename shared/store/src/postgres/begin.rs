//! Beginning, taking over, putting back. Each condition of the law stands in the statement; why it found nothing is asked afterwards.

use std::{collections::HashMap, time::Duration};

use domain::{
    id::{Incarnation, Serial},
    job::{STRIKES, State},
    lane::Lane,
    time::Timestamp,
};
use sqlx::postgres::PgRow;

use super::{
    column::{digest, get, lane, parsed, purpose, serial, serials, small, text, time},
    core::{Batch, Core, commit},
    event,
    fault::Fault,
    law::{OWNER_LOST, PAUSED, USAGE_ON, locked},
    link::Lent,
    partition::{Day, Days},
};
use crate::{Begin, Begun, Deferral, NotBegun, RequestRow, StoreError, TakenOver};

/// Everything that a signer needs of jobs whose open rows are in `begun`. Whoever joins a job extends its `sign_by` in the same commit as
/// the statement about it: a row that was waited for shows the one before this statement's snapshot shows the other, so either tells that
/// there is something to read.
const BEGUN: &str = "begun.job, begun.issuer, begun.class, begun.account, begun.purpose, begun.turn, begun.strikes::bigint, \
    begun.sign_by, begun.now, request.issuer AS request_issuer, request.class AS request_class, \
    request.account AS request_account, request.profile, request.profile_version, request.purpose AS request_purpose, \
    request.sign_by AS request_sign_by, request.not_before, request.not_after, request.intent, intent.statement, intent.proof, \
    intent.tbs, begun.sign_by <> request.sign_by OR EXISTS (SELECT FROM joined WHERE joined.job = begun.job) AS is_joined \
    FROM begun LEFT JOIN request{day} AS request ON request.job = begun.job \
    LEFT JOIN intent{day} AS intent ON intent.job = begun.job";

/// Jobs of one day to begin, for one owner.
struct Beginning<'c> {
    core: &'c Core,
    owner: &'c Incarnation,
}

impl Batch for Beginning<'_> {
    type Row = Serial;
    type Answer = Result<Begin, Fault>;

    fn job(row: &Serial) -> Serial {
        *row
    }

    async fn run(&self, lent: &mut Lent, jobs: &[Serial], skip: bool) -> Result<Vec<Self::Answer>, Fault> {
        let Some(day) = jobs.first().map(|job| Day::of(job.time())) else {
            return Ok(Vec::new());
        };
        let mut sorted = jobs.to_vec();
        sorted.sort_unstable();
        // Without the law in sight of the planner (see `locked`), which looks jobs up by name and in the order of their names.
        let law = format!(
            "coalesce(open.state = 'queued' AND open.sign_by > (SELECT now FROM me), FALSE) AND {USAGE_ON} AND NOT {PAUSED}"
        );
        let set = "state = 'signing', owner = $3, turn = turn + 1, begun_at = (SELECT now FROM me)";
        let columns =
            "job, issuer, class, account, purpose, turn::bigint, strikes, sign_by, (SELECT now FROM me) AS now";
        let begun = if skip {
            let locked = locked(&law, true);
            format!(
                "wanted AS MATERIALIZED (SELECT open.job FROM unnest($2::bytea[]) AS asked (job) CROSS JOIN {locked}), \
                 begun AS (UPDATE open SET {set} WHERE job = ANY(ARRAY(SELECT job FROM wanted)) RETURNING {columns})"
            )
        } else {
            format!("begun AS (UPDATE open SET {set} WHERE job = ANY($2::bytea[]) AND {law} RETURNING {columns})")
        };
        let sql = format!(
            "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now), \
             gate AS (DELETE FROM registry_gate WHERE FALSE), {begun}, \
             counts AS (INSERT INTO lane_tally AS tally (issuer, class, writer, queued, signing) \
                 SELECT issuer, class, $4, -count(*), count(*) FROM begun GROUP BY issuer, class ORDER BY issuer, class \
                 ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued, \
                     signing = tally.signing + excluded.signing) \
             SELECT {BEGUN}"
        );
        let query = self.core.days.over(day, &sql);
        let query = query
            .bind(self.core.given_now())
            .bind(serials(&sorted))
            .bind(self.owner.to_string())
            .bind(lent.writer());
        let rows = match lent.rows(query).await {
            Err(missing @ Fault::Missing(_)) => {
                self.core.days.forget(day);
                return Err(Fault::Again(format!("{missing:?}")));
            }
            rows => rows?,
        };
        let mut begun = HashMap::new();
        for row in rows {
            let job = serial(&row, "job")?;
            begun.insert(job, self.core.begun(lent, &row).await);
        }
        let others: Vec<Serial> = jobs.iter().copied().filter(|job| !begun.contains_key(job)).collect();
        let (reasons, mine) = self.core.why_not_begun(lent, &others, self.owner).await?;
        begun.extend(self.core.bodies(lent, &mine, self.owner).await?);
        let answer = |job: &Serial| match begun.remove(job) {
            Some(begun) => begun.map(|begun| Begin::Begun(Box::new(begun))),
            None => match reasons.get(job).copied().unwrap_or(NotBegun::Elsewhere) {
                NotBegun::Damaged => Err(Fault::damaged(format!(
                    "job {job}: nobody knows the issuer of its open row"
                ))),
                why => Ok(Begin::Not(*job, why)),
            },
        };
        Ok(jobs.iter().map(answer).collect())
    }

    fn failed(&self, _: &Serial, error: StoreError) -> Self::Answer {
        Err(match error {
            error @ (StoreError::Damaged(_) | StoreError::Rejected(_)) => Fault::Row(error),
            StoreError::OutcomeUnknown(text) => Fault::Lost(text),
            error @ StoreError::Unavailable(_) => Fault::Store(error),
        })
    }
}

impl Core {
    /// Begins jobs for owners, each answered by itself. One that cannot be read is set aside, and the others go on.
    pub(super) async fn begin(
        &self,
        lent: &mut Lent,
        rows: &[(Incarnation, Serial)],
    ) -> Vec<Result<Begin, StoreError>> {
        let mut groups: Vec<(&Incarnation, Vec<usize>)> = Vec::new();
        for (place, (owner, _)) in rows.iter().enumerate() {
            match groups.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, places)) => places.push(place),
                None => groups.push((owner, vec![place])),
            }
        }
        let mut answers: Vec<Option<Result<Begin, StoreError>>> = rows.iter().map(|_| None).collect();
        for (owner, places) in groups {
            let jobs: Vec<Serial> = places.iter().map(|&place| rows[place].1).collect();
            for some in Days::split(&jobs).into_values() {
                let of_day: Vec<Serial> = some.iter().map(|&number| jobs[number]).collect();
                let batch = Beginning { core: self, owner };
                let begun = commit(&batch, lent, &of_day).await;
                for (number, answer) in some.into_iter().zip(begun) {
                    let answer = match answer {
                        Err(Fault::Row(StoreError::Damaged(why) | StoreError::Rejected(why))) => {
                            let aside = self.set_aside(lent, &jobs[number], &why).await;
                            aside.map(|()| Begin::Not(jobs[number], NotBegun::Damaged))
                        }
                        answer => answer,
                    };
                    answers[places[number]] = Some(answer.map_err(Fault::into_commit_error));
                }
            }
        }
        let missing = || Err(StoreError::Damaged("a job was left unanswered".into()));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }

    /// A begun job, with the statements of those who joined.
    async fn begun(&self, lent: &mut Lent, row: &PgRow) -> Result<Begun, Fault> {
        let mut begun = read_begun(row)?;
        if get(row, "is_joined")? {
            let joined = sqlx::query("SELECT statement, proof FROM joined WHERE job = $1 ORDER BY joiner");
            let rows = lent.rows(joined.bind(begun.job.as_bytes().to_vec())).await?;
            let read = |row: &PgRow| Ok::<_, Fault>((get(row, "statement")?, get(row, "proof")?));
            begun.joined = rows.iter().map(read).collect::<Result<_, _>>()?;
        }
        Ok(begun)
    }

    /// Why these jobs were not begun; and which of them are this owner's already: the answer to their begin was lost.
    async fn why_not_begun(
        &self,
        lent: &mut Lent,
        jobs: &[Serial],
        owner: &Incarnation,
    ) -> Result<(HashMap<Serial, NotBegun>, Vec<Serial>), Fault> {
        let (mut reasons, mut mine) = (HashMap::new(), Vec::new());
        if jobs.is_empty() {
            return Ok((reasons, mine));
        }
        let open = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT job, state, coalesce(owner = $3, FALSE) AS mine, sign_by > coalesce($1, ledger_now()) AS in_time, {PAUSED} AS paused, {USAGE_ON} AS usage_on, \
                 (SELECT issuer.state = 'destroyed' FROM issuer WHERE issuer.id = open.issuer) AS destroyed \
             FROM open WHERE job = ANY($2)"
        )));
        let open = open.bind(self.given_now()).bind(serials(jobs)).bind(owner.to_string());
        for row in lent.rows(open).await? {
            let job = serial(&row, "job")?;
            let destroyed: Option<bool> = get(&row, "destroyed")?;
            let why = match parsed(&row, "state")? {
                State::Signing => {
                    if get(&row, "mine")? {
                        mine.push(job);
                    }
                    NotBegun::Elsewhere
                }
                State::Parked => NotBegun::Parked,
                _ if !get::<bool>(&row, "in_time")? => NotBegun::Late,
                _ if get(&row, "paused")? => NotBegun::Paused,
                _ if destroyed == Some(true) => NotBegun::IssuerDestroyed,
                // Nothing is accepted for an issuer that has no row, and no issuer's row is ever deleted.
                _ if destroyed.is_none() => NotBegun::Damaged,
                _ if !get::<bool>(&row, "usage_on")? => NotBegun::IssuerDisabled,
                _ => NotBegun::Elsewhere,
            };
            reasons.insert(job, why);
        }
        let rest: Vec<Serial> = jobs.iter().copied().filter(|job| !reasons.contains_key(job)).collect();
        for ended in self.ended(lent, &rest).await? {
            reasons.insert(ended.job, NotBegun::Ended(ended.outcome.state()));
        }
        for job in rest {
            reasons.entry(job).or_insert(NotBegun::Unknown);
        }
        Ok((reasons, mine))
    }

    /// Parks an open job whose rows cannot be read, and says so.
    pub(super) async fn set_aside(&self, lent: &mut Lent, job: &Serial, why: &str) -> Result<(), Fault> {
        let aside = sqlx::query(
            "WITH wanted AS MATERIALIZED (SELECT * FROM open WHERE job = $1 AND state <> 'parked' FOR UPDATE), \
             moved AS (UPDATE open SET state = 'parked', owner = NULL, begun_at = NULL \
                 WHERE job = ANY(ARRAY(SELECT job FROM wanted))) \
             INSERT INTO lane_tally AS tally (issuer, class, writer, queued, signing, parked) \
             SELECT issuer, class, $2, -(state = 'queued')::int, -(state = 'signing')::int, 1 FROM wanted \
             ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued, \
                 signing = tally.signing + excluded.signing, parked = tally.parked + excluded.parked",
        );
        lent.rows(aside.bind(job.as_bytes().to_vec()).bind(lent.writer()))
            .await?;
        let event = event::Event::new(*job, "damaged", why, "store");
        self.note(lent, &[event]).await
    }

    /// Takes over what others have lost.
    pub(super) async fn take_over(
        &self,
        lent: &mut Lent,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, Fault> {
        let (issuers, classes) = super::accept::lane_names(lanes.iter());
        let lost = sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now), \
             gate AS (DELETE FROM registry_gate WHERE FALSE), \
             wanted AS MATERIALIZED (\
                 SELECT open.*, me.now, open.strikes >= $8 AS is_poison FROM me \
                 CROSS JOIN unnest($2::text[], $3::text[]) AS asked (issuer, class) CROSS JOIN LATERAL (\
                     SELECT * FROM open WHERE open.issuer = asked.issuer AND open.class = asked.class AND open.state = 'signing' \
                     AND (open.begun_at <= me.now - $5 OR {OWNER_LOST}) \
                     AND (open.strikes >= $8 OR (open.sign_by > me.now AND {USAGE_ON})) \
                     ORDER BY open.begun_at LIMIT $4 FOR UPDATE SKIP LOCKED) AS open LIMIT $4), \
             taken AS (UPDATE open SET owner = $6, turn = turn + 1, strikes = strikes + 1, begun_at = (SELECT now FROM me) \
                 WHERE job = ANY(ARRAY(SELECT job FROM wanted WHERE NOT is_poison))), \
             parked AS (UPDATE open SET state = 'parked', owner = NULL, begun_at = NULL \
                 WHERE job = ANY(ARRAY(SELECT job FROM wanted WHERE is_poison))), \
             counts AS (INSERT INTO lane_tally AS tally (issuer, class, writer, signing, parked) \
                 SELECT issuer, class, $7, -count(*), count(*) FROM wanted WHERE is_poison GROUP BY issuer, class \
                 ON CONFLICT (issuer, class, writer) DO UPDATE SET signing = tally.signing + excluded.signing, \
                     parked = tally.parked + excluded.parked) \
             SELECT job, issuer, class, is_poison, turn::bigint, strikes::bigint FROM wanted"
        )));
        let lost = lost
            .bind(self.given_now())
            .bind(issuers)
            .bind(classes)
            .bind(i64::from(limit))
            .bind(i64::try_from(operation_limit.as_millis() * 3).unwrap_or(i64::MAX))
            .bind(owner.to_string())
            .bind(lent.writer())
            .bind(i32::from(STRIKES));
        let mut taken = TakenOver::default();
        let mut events = Vec::new();
        let mut jobs = Vec::new();
        for row in lent.rows(lost).await? {
            let job = serial(&row, "job")?;
            let (turn, strikes): (i64, i64) = (get(&row, "turn")?, get(&row, "strikes")?);
            let by = owner.node.as_str();
            if get(&row, "is_poison")? {
                taken.poisoned.push((job, lane(&row)?));
                events.push(event::Event::new(
                    job,
                    "poisoned",
                    &format!("lost its owner {strikes} times while it ran alone"),
                    by,
                ));
            } else {
                let detail = format!("turn {}, strike {}", turn + 1, strikes + 1);
                events.push(event::Event::new(job, "taken_over", &detail, by));
                jobs.push(job);
            }
        }
        self.note(lent, &events).await?;
        for (job, begun) in self.bodies(lent, &jobs, owner).await? {
            match begun {
                Ok(begun) => taken.begun.push(begun),
                Err(Fault::Row(StoreError::Damaged(why) | StoreError::Rejected(why))) => {
                    self.set_aside(lent, &job, &why).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(taken)
    }

    /// Jobs that are this owner's, with everything that is recorded of them.
    async fn bodies(
        &self,
        lent: &mut Lent,
        jobs: &[Serial],
        owner: &Incarnation,
    ) -> Result<Vec<(Serial, Result<Begun, Fault>)>, Fault> {
        let mut found = Vec::new();
        for (day, places) in Days::split(jobs) {
            let some: Vec<Serial> = places.into_iter().map(|place| jobs[place]).collect();
            let sql = format!(
                "WITH begun AS MATERIALIZED (SELECT open.*, coalesce($1::bigint, ledger_now()) AS now FROM open \
                 WHERE job = ANY($2) AND state = 'signing' AND owner = $3) SELECT {BEGUN} ORDER BY begun.job"
            )
            .replace("begun.turn,", "begun.turn::bigint,");
            let query = self.days.over(day, &sql);
            let query = query
                .bind(self.given_now())
                .bind(serials(&some))
                .bind(owner.to_string());
            for row in lent.rows(query).await? {
                let job = serial(&row, "job")?;
                let begun = self.begun(lent, &row).await;
                found.push((job, begun));
            }
        }
        Ok(found)
    }

    /// Puts back what this owner had begun.
    pub(super) async fn defer(
        &self,
        lent: &mut Lent,
        owner: &Incarnation,
        deferrals: &[Deferral],
    ) -> Result<(), Fault> {
        let mut sorted: Vec<&Deferral> = deferrals.iter().collect();
        sorted.sort_by_key(|deferral| (deferral.job, deferral.turn));
        // The same one twice would be counted twice.
        sorted.dedup_by_key(|deferral| (deferral.job, deferral.turn));
        let locked = locked(
            "open.state = 'signing' AND open.turn = asked.turn AND open.owner = $3",
            false,
        );
        let put_back = sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH wanted AS MATERIALIZED (\
                 SELECT open.* FROM unnest($1::bytea[], $2::bigint[]) AS asked (job, turn) CROSS JOIN {locked}), \
             moved AS (UPDATE open SET state = 'queued', owner = NULL, begun_at = NULL \
                 WHERE job = ANY(ARRAY(SELECT job FROM wanted))), \
             counts AS (INSERT INTO lane_tally AS tally (issuer, class, writer, queued, signing) \
                 SELECT issuer, class, $4, count(*), -count(*) FROM wanted GROUP BY issuer, class ORDER BY issuer, class \
                 ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued, \
                     signing = tally.signing + excluded.signing) \
             SELECT job FROM wanted"
        )));
        let put_back = put_back
            .bind(serials(sorted.iter().map(|deferral| &deferral.job)))
            .bind(
                sorted
                    .iter()
                    .map(|deferral| i64::from(deferral.turn))
                    .collect::<Vec<_>>(),
            )
            .bind(owner.to_string())
            .bind(lent.writer());
        let mut events = Vec::new();
        for row in lent.rows(put_back).await? {
            let job = serial(&row, "job")?;
            let reason = sorted.iter().find(|deferral| deferral.job == job);
            let reason = reason.map_or("", |deferral| deferral.reason.as_str());
            events.push(event::Event::new(job, "deferred", &text(reason), owner.node.as_str()));
        }
        self.note(lent, &events).await
    }
}

fn read_begun(row: &PgRow) -> Result<Begun, Fault> {
    let sign_by = time(row, "sign_by")?;
    let now: Timestamp = time(row, "now")?;
    Ok(Begun {
        job: serial(row, "job")?,
        lane: lane(row)?,
        account: parsed(row, "account")?,
        purpose: purpose(row, "purpose")?,
        request: RequestRow {
            lane: Lane {
                issuer: parsed(row, "request_issuer")?,
                class: parsed(row, "request_class")?,
            },
            account: parsed(row, "request_account")?,
            profile: parsed(row, "profile")?,
            profile_version: small(row, "profile_version")?,
            purpose: purpose(row, "request_purpose")?,
            sign_by: time(row, "request_sign_by")?,
            not_before: get(row, "not_before")?,
            not_after: get(row, "not_after")?,
        },
        turn: small(row, "turn")?,
        strikes: small(row, "strikes")?,
        sign_by,
        remaining: sign_by.since(now),
        statement: get(row, "statement")?,
        proof: get(row, "proof")?,
        joined: Vec::new(),
        tbs: get(row, "tbs")?,
        intent: digest(row, "intent")?,
    })
}
