//! Accepting. What is new goes through one statement, one commit a batch; what looks like a repeat is looked at one by one (`join`).

use std::collections::HashMap;

use domain::{
    id::AccountId,
    job::{Position, State},
    lane::Lane,
};
use sqlx::postgres::PgRow;

use super::{
    column::{big, get, purpose_text},
    core::Core,
    fault::Fault,
    join::Joined,
    link::Lent,
    quota,
};
use crate::{AcceptError, Accepted, How, NewJob, StoreError};

/// How often one job goes round: into the way of another, looked at, and offered again.
const ROUNDS: u32 = 8;
/// How often a batch is tried again where only a lock was in the way.
const ATTEMPTS: u32 = 6;

/// The statement: `judged` decides about each row by what the transaction sees, `opened` makes the open rows, and what follows is made
/// for those that were opened. A row whose request, key or serial came in between from elsewhere is not opened, or fails the batch.
///
/// Codes: 0 to be opened; 1 to 4 how the issuer stands; 5 to 10 no room or no right; 16 to 18 no room beside the rows before it in this
/// batch; 100 perhaps a repeat.
const ACCEPT: &str = "
WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now),
gate AS (DELETE FROM registry_gate WHERE FALSE),
lanes AS MATERIALIZED (
    SELECT array_agg(coalesce(tally.depth, 0) ORDER BY number) AS depth,
        array_agg(CASE WHEN issuer.id IS NULL THEN 1 WHEN issuer.state = 'destroyed' THEN 2
            WHEN issuer.not_after < me.now / 1000 THEN 3 WHEN issuer.issue THEN 0 ELSE 4 END ORDER BY number) AS issue,
        array_agg(CASE WHEN issuer.id IS NULL THEN 1 WHEN issuer.state = 'destroyed' THEN 2
            WHEN issuer.not_after < me.now / 1000 THEN 3 WHEN issuer.ocsp THEN 0 ELSE 4 END ORDER BY number) AS ocsp,
        array_agg(coalesce(lane.draining, FALSE) ORDER BY number) AS draining,
        array_agg(coalesce(lane.diverted, FALSE) ORDER BY number) AS diverted
    FROM me CROSS JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS named (issuer, class, number)
    LEFT JOIN issuer ON issuer.id = named.issuer
    LEFT JOIN lane ON lane.issuer = named.issuer AND lane.class = named.class
    LEFT JOIN LATERAL (SELECT sum(queued + signing + parked)::bigint AS depth FROM lane_tally
        WHERE lane_tally.issuer = named.issuer AND lane_tally.class = named.class) AS tally ON TRUE),
shares AS MATERIALIZED (
    SELECT array_agg(coalesce(tally.share, 0) ORDER BY number) AS share,
        array_agg(coalesce(tally.in_flight, 0) ORDER BY number) AS in_flight,
        array_agg(coalesce(tally.reserved, 0) ORDER BY number) AS reserved
    FROM unnest($4::text[], $5::text[], $6::text[]) WITH ORDINALITY AS named (account, issuer, class, number)
    LEFT JOIN LATERAL (
        SELECT sum(used - issued)::bigint AS in_flight,
            (sum(used - issued) FILTER (WHERE own.issuer = named.issuer AND own.class = named.class))::bigint AS share,
            (sum(reserved) FILTER (WHERE own.issuer = named.issuer AND own.class = named.class AND writer = $7))::bigint
                AS reserved
        FROM account_tally AS own WHERE own.account = named.account) AS tally ON TRUE),
judged AS MATERIALIZED (
    SELECT asked.*, me.now, lanes.diverted[lane_number] AS diverted,
        CASE {known_key}
            WHEN purpose <> 'ocsp-signer' AND lanes.issue[lane_number] <> 0 THEN lanes.issue[lane_number]
            WHEN purpose = 'ocsp-signer' AND lanes.ocsp[lane_number] <> 0 THEN lanes.ocsp[lane_number]
            WHEN EXISTS (SELECT FROM open WHERE open.repeat = asked.repeat AND open.account = asked.account
                AND open.issuer = asked.issuer AND open.class = asked.class) THEN 100
            {known_repeat}
            WHEN lanes.draining[lane_number] THEN 5
            WHEN shares.share[share_number] >= lane_share THEN 7
            WHEN lanes.depth[lane_number] >= lane_depth THEN 6
            WHEN shares.in_flight[share_number] >= jobs_in_flight THEN 8
            WHEN lanes.depth[lane_number] + lane_before >= lane_depth THEN 16
            WHEN shares.share[share_number] + share_before >= lane_share THEN 17
            WHEN shares.in_flight[share_number] + account_before >= jobs_in_flight THEN 18
            WHEN shares.reserved[share_number] <= share_before THEN 9
            {used_key}
            ELSE 0 END AS code
    FROM me CROSS JOIN lanes CROSS JOIN shares CROSS JOIN unnest($8::bytea[], $9::int[], $10::int[], $11::bigint[],
        $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[], $18::text[], $19::text[],
        $20::text[], $21::bigint[], $22::text[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bytea[], $27::bytea[],
        $28::bytea[], $29::bigint[], $30::bytea[], $31::bytea[], $32::bigint[], $33::text[]) WITH ORDINALITY
        AS asked (job, lane_number, share_number, lane_before, share_before, account_before, lane_depth, lane_share,
        jobs_in_flight, issuer, class, account, profile, profile_version, purpose, sign_by, not_before, not_after, intent,
        unique_key, repeat, join_within, key, key_request, key_keep, waiters, number)),
opened AS (
    INSERT INTO open (job, issuer, class, account, purpose, state, accepted_at, sign_by, not_before, not_after, join_within,
        waiters, intent, repeat, unique_key)
    SELECT job, issuer, class, account, purpose, CASE WHEN diverted THEN 'parked' ELSE 'queued' END, now, sign_by, not_before,
        not_after, join_within, waiters, intent, repeat, unique_key
    FROM judged WHERE code = 0 ORDER BY repeat ON CONFLICT DO NOTHING RETURNING job),
fresh AS MATERIALIZED (SELECT * FROM judged WHERE code = 0 AND (job IN (SELECT job FROM opened)) IS TRUE),
requests AS (
    INSERT INTO request (job, issuer, class, account, profile, profile_version, purpose, accepted_at, sign_by, not_before,
        not_after, intent)
    SELECT job, issuer, class, account, profile, profile_version, purpose, now, sign_by, not_before, not_after, intent
    FROM fresh),
intents AS (
    INSERT INTO intent (job, statement, proof, tbs)
    SELECT job, statement, proof, tbs FROM unnest($8::bytea[], $34::bytea[], $35::bytea[], $36::bytea[])
        AS asked (job, statement, proof, tbs) WHERE (job IN (SELECT job FROM opened)) IS TRUE),
{keys}
{uses}
lane_counts AS (
    INSERT INTO lane_tally AS tally (issuer, class, writer, queued, parked)
    SELECT issuer, class, $7, count(*) FILTER (WHERE NOT diverted), count(*) FILTER (WHERE diverted)
    FROM fresh GROUP BY issuer, class ORDER BY issuer, class
    ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued,
        parked = tally.parked + excluded.parked),
account_counts AS (
    INSERT INTO account_tally AS tally (account, issuer, class, writer, used)
    SELECT account, issuer, class, $7, count(*) FROM fresh GROUP BY account, issuer, class ORDER BY account, issuer, class
    ON CONFLICT (account, issuer, class, writer) DO UPDATE SET used = tally.used + excluded.used,
        reserved = tally.reserved - excluded.used)
SELECT code, diverted, code = 0 AND (job IN (SELECT job FROM opened)) IS TRUE AS opened,
    coalesce((SELECT max(revision.number) FROM revision), 0) AS head
FROM judged ORDER BY judged.number";

/// Parts of the statement that only some batches need: each costs, used or not.
fn accept_statement(jobs: &[&NewJob]) -> String {
    let mut sql = ACCEPT.to_owned();
    let mut part = |name: &str, needed: bool, part: &str| {
        sql = sql.replace(name, if needed { part } else { "" });
    };
    let keyed = jobs.iter().any(|job| job.idempotency.is_some());
    part(
        "{known_key}",
        keyed,
        "WHEN key IS NOT NULL AND EXISTS (SELECT FROM idempotency WHERE idempotency.key = asked.key) THEN 100",
    );
    part(
        "{keys}",
        keyed,
        "keys AS (INSERT INTO idempotency (key, request, job, until)
            SELECT key, key_request, job, now + key_keep FROM fresh WHERE key IS NOT NULL ORDER BY key),",
    );
    part(
        "{known_repeat}",
        jobs.iter().any(|job| !job.join_within.is_zero()),
        "WHEN join_within > 0 AND EXISTS (SELECT FROM repeat WHERE repeat.repeat = asked.repeat
            AND repeat.account = asked.account AND repeat.issuer = asked.issuer AND repeat.class = asked.class) THEN 100",
    );
    let unique = jobs.iter().any(|job| job.unique_key);
    part(
        "{used_key}",
        unique,
        "WHEN unique_key IS NOT NULL AND EXISTS (SELECT FROM key_use WHERE key_use.public_key = asked.unique_key) THEN 10",
    );
    part(
        "{uses}",
        unique,
        "uses AS (INSERT INTO key_use (public_key, job)
            SELECT unique_key, job FROM fresh WHERE unique_key IS NOT NULL ORDER BY unique_key),",
    );
    sql
}

/// What came of a job in the statement.
enum Verdict {
    Done(Result<Accepted, AcceptError>),
    /// The writer has not leased enough of the account's quota.
    Unleased,
    /// No room beside the rows before it in the batch, of which some may not have been opened.
    Crowded,
    /// Something like it is there.
    Known,
}

impl Core {
    /// Accepts jobs, each by itself: in one commit where all are new.
    pub(super) async fn accept(&self, lent: &mut Lent, jobs: &[NewJob]) -> Vec<Result<Accepted, AcceptError>> {
        let mut round = Round {
            answers: jobs.iter().map(|_| None).collect(),
            rounds: vec![0; jobs.len()],
            pieces: vec![(0..jobs.len()).collect()],
        };
        while let Some(piece) = round.pieces.pop() {
            if let Err(fault) = self.accept_piece(lent, jobs, &piece, &mut round).await {
                round.fail(&piece, &fault);
                if fault.is_lost() {
                    let rest: Vec<usize> = round.pieces.drain(..).flatten().collect();
                    let error = "the connection was lost before this row".to_owned();
                    round.fail(&rest, &Fault::Store(StoreError::Unavailable(error)));
                }
            }
        }
        let missing = || Err(StoreError::Damaged("a statement left a row unanswered".into()).into());
        round
            .answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }

    /// Offers the jobs of a piece, answers those that are settled, and leaves others as further pieces.
    async fn accept_piece(
        &self,
        lent: &mut Lent,
        jobs: &[NewJob],
        piece: &[usize],
        round: &mut Round,
    ) -> Result<(), Fault> {
        let offered: Vec<&NewJob> = piece.iter().map(|&place| &jobs[place]).collect();
        let verdicts = match self.offer_patiently(lent, &offered).await {
            Ok(verdicts) => verdicts,
            Err(Fault::Row(_) | Fault::Taken(_)) if piece.len() > 1 => {
                let (first, second) = piece.split_at(piece.len() / 2);
                round.pieces.extend([second.to_vec(), first.to_vec()]);
                return Ok(());
            }
            Err(Fault::Taken(_)) => vec![Verdict::Known],
            Err(fault) => return Err(fault),
        };
        let (mut unleased, mut again, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (&place, verdict) in piece.iter().zip(verdicts) {
            match verdict {
                Verdict::Done(answer) => round.answers[place] = Some(answer),
                Verdict::Unleased => unleased.push(place),
                Verdict::Crowded => again.push(place),
                Verdict::Known => known.push(place),
            }
        }
        for place in self.lease(lent, jobs, unleased).await? {
            match place {
                Ok(leased) => again.push(leased),
                Err(refused) => round.answers[refused] = Some(Err(AcceptError::QuotaExceeded)),
            }
        }
        let mut clear = Vec::new();
        for place in known {
            match self.join(lent, &jobs[place]).await {
                Ok(Joined::Answer(answer)) => round.answers[place] = Some(answer),
                Ok(Joined::Nothing) => clear.push(place),
                Err(fault) if fault.is_passing() => clear.push(place),
                Err(fault) if fault.is_lost() => return Err(fault),
                Err(fault) => round.fail(&[place], &fault),
            }
        }
        // Each of these alone: what was in its way may be in the same batch.
        let mut pieces: Vec<Vec<usize>> = clear.into_iter().map(|place| vec![place]).collect();
        again.sort_unstable();
        pieces.push(again);
        for piece in pieces {
            let (mut on, mut over) = (Vec::new(), Vec::new());
            for place in piece {
                round.rounds[place] += 1;
                if round.rounds[place] < ROUNDS {
                    on.push(place);
                } else {
                    over.push(place);
                }
            }
            round.fail(&over, &Fault::Again("others are in the way of this request".into()));
            if !on.is_empty() {
                round.pieces.push(on);
            }
        }
        Ok(())
    }

    async fn offer_patiently(&self, lent: &mut Lent, jobs: &[&NewJob]) -> Result<Vec<Verdict>, Fault> {
        for number in 1..ATTEMPTS {
            match self.offer(lent, jobs).await {
                Err(fault) if fault.is_passing() => {
                    tokio::time::sleep(std::time::Duration::from_millis(2) * number * number).await;
                }
                done => return done,
            }
        }
        self.offer(lent, jobs).await
    }

    async fn offer(&self, lent: &mut Lent, jobs: &[&NewJob]) -> Result<Vec<Verdict>, Fault> {
        let names = Names::of(jobs);
        let column = |read: fn(&NewJob) -> i64| jobs.iter().map(|job| read(job)).collect::<Vec<i64>>();
        let texts = |read: fn(&NewJob) -> &str| jobs.iter().map(|job| read(job).to_owned()).collect::<Vec<String>>();
        let bytes = |read: fn(&NewJob) -> &[u8]| jobs.iter().map(|job| read(job).to_vec()).collect::<Vec<Vec<u8>>>();
        let maybe = |read: fn(&NewJob) -> Option<&[u8]>| {
            jobs.iter()
                .map(|job| read(job).map(<[u8]>::to_vec))
                .collect::<Vec<Option<Vec<u8>>>>()
        };
        let (issuers, classes) = lane_names(names.lanes.iter().copied());
        let (share_issuers, share_classes) = lane_names(names.shares.iter().map(|share| share.1));
        let accounts: Vec<String> = names.shares.iter().map(|share| share.0.as_str().to_owned()).collect();
        let query = sqlx::query(sqlx::AssertSqlSafe(accept_statement(jobs)))
            .bind(self.given_now())
            .bind(issuers)
            .bind(classes)
            .bind(accounts)
            .bind(share_issuers)
            .bind(share_classes)
            .bind(lent.writer())
            .bind(bytes(|job| job.job.as_bytes()))
            .bind(names.lane_numbers)
            .bind(names.share_numbers)
            .bind(names.lane_before)
            .bind(names.share_before)
            .bind(names.account_before)
            .bind(column(|job| big(job.limits.lane_depth)))
            .bind(column(|job| big(job.limits.lane_share)))
            .bind(column(|job| big(job.limits.jobs_in_flight)))
            .bind(texts(|job| job.lane.issuer.as_str()))
            .bind(texts(|job| job.lane.class.as_str()))
            .bind(texts(|job| job.account.as_str()))
            .bind(texts(|job| job.profile.as_str()))
            .bind(column(|job| i64::from(job.profile_version)))
            .bind(texts(|job| purpose_text(job.purpose)))
            .bind(column(|job| job.sign_by.as_millis()))
            .bind(column(|job| job.not_before))
            .bind(column(|job| job.not_after))
            .bind(bytes(|job| &job.intent.0))
            .bind(maybe(|job| job.unique_key.then_some(&job.public_key.0[..])))
            .bind(bytes(|job| &job.repeat.0))
            .bind(column(|job| {
                i64::try_from(job.join_within.as_millis()).unwrap_or(i64::MAX)
            }))
            .bind(maybe(|job| {
                job.idempotency.as_ref().map(|idempotency| &idempotency.key.0[..])
            }))
            .bind(maybe(|job| {
                job.idempotency.as_ref().map(|idempotency| &idempotency.request.0[..])
            }))
            .bind(column(|job| {
                let keep = job.idempotency.map_or(0, |idempotency| idempotency.keep.as_millis());
                i64::try_from(keep).unwrap_or(i64::MAX / 2)
            }))
            .bind(
                jobs.iter()
                    .map(|job| job.waiter.as_ref().map_or(String::new(), ToString::to_string))
                    .collect::<Vec<_>>(),
            )
            .bind(bytes(|job| &job.statement))
            .bind(bytes(|job| &job.proof))
            .bind(bytes(|job| &job.tbs));
        let rows = lent.rows(query).await?;
        rows.iter().zip(jobs).map(|(row, job)| verdict(row, job)).collect()
    }

    /// Leases quota for the jobs that lack it: those that may go on, and those whose account has no more.
    async fn lease(
        &self,
        lent: &mut Lent,
        jobs: &[NewJob],
        places: Vec<usize>,
    ) -> Result<Vec<Result<usize, usize>>, Fault> {
        let mut shares: HashMap<(&AccountId, &Lane), Vec<usize>> = HashMap::new();
        for place in places {
            let job = &jobs[place];
            shares.entry((&job.account, &job.lane)).or_default().push(place);
        }
        let mut leased = Vec::new();
        for ((account, lane), places) in shares {
            let quota = places
                .iter()
                .map(|&place| big(jobs[place].limits.quota))
                .max()
                .unwrap_or(0);
            let granted = quota::lease(lent, account, lane, places.len(), quota).await?;
            leased.extend(places.into_iter().enumerate().map(
                |(number, place)| {
                    if number < granted { Ok(place) } else { Err(place) }
                },
            ));
        }
        Ok(leased)
    }
}

/// Where a batch of jobs stands.
struct Round {
    answers: Vec<Option<Result<Accepted, AcceptError>>>,
    rounds: Vec<u32>,
    pieces: Vec<Vec<usize>>,
}

impl Round {
    fn fail(&mut self, places: &[usize], fault: &Fault) {
        for &place in places {
            if self.answers[place].is_none() {
                self.answers[place] = Some(Err(fault.clone().into_commit_error().into()));
            }
        }
    }
}

/// The lanes of a batch and its accounts in them, and how many rows of the same stand before each row.
#[derive(Default)]
struct Names<'j> {
    lanes: Vec<&'j Lane>,
    shares: Vec<(&'j AccountId, &'j Lane)>,
    lane_numbers: Vec<i32>,
    share_numbers: Vec<i32>,
    lane_before: Vec<i64>,
    share_before: Vec<i64>,
    account_before: Vec<i64>,
}

impl<'j> Names<'j> {
    fn of(jobs: &[&'j NewJob]) -> Self {
        let mut names = Self::default();
        let mut lanes: HashMap<&Lane, (i32, i64)> = HashMap::new();
        let mut shares: HashMap<(&AccountId, &Lane), (i32, i64)> = HashMap::new();
        let mut accounts: HashMap<&AccountId, i64> = HashMap::new();
        for job in jobs {
            let lane = lanes.entry(&job.lane).or_insert_with(|| {
                names.lanes.push(&job.lane);
                (i32::try_from(names.lanes.len()).unwrap_or(i32::MAX), 0)
            });
            names.lane_numbers.push(lane.0);
            names.lane_before.push(lane.1);
            lane.1 += 1;
            let share = shares.entry((&job.account, &job.lane)).or_insert_with(|| {
                names.shares.push((&job.account, &job.lane));
                (i32::try_from(names.shares.len()).unwrap_or(i32::MAX), 0)
            });
            names.share_numbers.push(share.0);
            names.share_before.push(share.1);
            share.1 += 1;
            let account = accounts.entry(&job.account).or_default();
            names.account_before.push(*account);
            *account += 1;
        }
        names
    }
}

/// Lanes as two columns.
pub(super) fn lane_names<'l>(lanes: impl Iterator<Item = &'l Lane>) -> (Vec<String>, Vec<String>) {
    lanes
        .map(|lane| (lane.issuer.as_str().to_owned(), lane.class.as_str().to_owned()))
        .unzip()
}

fn verdict(row: &PgRow, job: &NewJob) -> Result<Verdict, Fault> {
    if get(row, "opened")? {
        let state: State = Position::accepted(get(row, "diverted")?).state;
        let head = super::column::count(row, "head")?;
        return Ok(Verdict::Done(Ok(Accepted {
            job: job.job,
            how: How::New,
            state,
            head,
        })));
    }
    Ok(match get::<i32>(row, "code")? {
        9 => Verdict::Unleased,
        16..=18 => Verdict::Crowded,
        code => refusal(code).map_or(Verdict::Known, |refusal| Verdict::Done(Err(refusal))),
    })
}

/// What a code says, where it refuses.
pub(super) const fn refusal(code: i32) -> Option<AcceptError> {
    Some(match code {
        1 => AcceptError::IssuerUnknown,
        2 => AcceptError::IssuerDestroyed,
        3 => AcceptError::IssuerExpired,
        4 => AcceptError::IssuerDisabled,
        5 => AcceptError::LaneDraining,
        6 => AcceptError::LaneFull,
        7 => AcceptError::LaneShareFull,
        8 => AcceptError::TooManyInFlight,
        10 => AcceptError::KeyReused,
        _ => return None,
    })
}
