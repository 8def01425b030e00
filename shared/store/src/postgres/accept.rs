//! Accepting. What is new goes through one statement, one commit a batch; what looks like a repeat is looked at one by one (`join`).

use std::{collections::HashMap, time::Duration};

use domain::{
    id::{AccountId, Incarnation, ProfileId},
    issuer::Purpose,
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
    partition::{Day, Days},
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
/// What many rows have in common is said once: `$2`, `$3` are lanes, `$4` to `$6` accounts in lanes, `$8` to `$17` kinds of rows. A row
/// is its number, and what is its own is read by that number: from arrays, and, where all are of one length, from bytes in a row
/// (`$19` to `$21`), since taking such a list apart costs more than everything that is done with it.
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
    SELECT number, kind, lanes.diverted[$8[kind]] AS diverted,
        CASE {known_key}
            WHEN $12[kind] <> 'ocsp-signer' AND lanes.issue[$8[kind]] <> 0 THEN lanes.issue[$8[kind]]
            WHEN $12[kind] = 'ocsp-signer' AND lanes.ocsp[$8[kind]] <> 0 THEN lanes.ocsp[$8[kind]]
            {known_repeat}
            WHEN lanes.draining[$8[kind]] THEN 5
            WHEN shares.share[$9[kind]] >= $16[kind] THEN 7
            WHEN lanes.depth[$8[kind]] >= $15[kind] THEN 6
            WHEN shares.in_flight[$9[kind]] >= $17[kind] THEN 8
            WHEN lanes.depth[$8[kind]] + $22[number] >= $15[kind] THEN 16
            WHEN shares.share[$9[kind]] + $23[number] >= $16[kind] THEN 17
            WHEN shares.in_flight[$9[kind]] + $24[number] >= $17[kind] THEN 18
            WHEN shares.reserved[$9[kind]] <= $23[number] THEN 9
            {used_key}
            ELSE 0 END AS code
    FROM lanes CROSS JOIN shares CROSS JOIN unnest($18::int[]) WITH ORDINALITY AS asked (kind, place)
    CROSS JOIN LATERAL (SELECT place::int AS number) AS numbered),
opened AS (
    INSERT INTO open (job, issuer, class, account, purpose, state, accepted_at, sign_by, not_before, not_after, join_within,
        waiters, intent, repeat, unique_key)
    SELECT {job}, $2[$8[kind]], $3[$8[kind]], $4[$9[kind]], $12[kind], CASE WHEN diverted THEN 'parked' ELSE 'queued' END,
        me.now, $25[number], $26[number], $27[number], $13[kind], $14[kind], {intent}, {repeat}, $28[number]
    FROM me CROSS JOIN judged WHERE code = 0 ORDER BY number ON CONFLICT DO NOTHING RETURNING job),
fresh AS MATERIALIZED (SELECT number, kind, diverted FROM judged WHERE code = 0 AND ({job} IN (SELECT job FROM opened)) IS TRUE),
requests AS (
    INSERT INTO request{day} (job, issuer, class, account, profile, profile_version, purpose, accepted_at, sign_by, not_before,
        not_after, intent)
    SELECT {job}, $2[$8[kind]], $3[$8[kind]], $4[$9[kind]], $10[kind], $11[kind], $12[kind], me.now, $25[number], $26[number],
        $27[number], {intent}
    FROM me CROSS JOIN fresh),
intents AS (
    INSERT INTO intent{day} (job, statement, proof, tbs) SELECT {job}, $32[number], $33[number], $34[number] FROM fresh),
{keys}
{uses}
lane_counts AS (
    INSERT INTO lane_tally AS tally (issuer, class, writer, queued, parked)
    SELECT $2[lane], $3[lane], $7, count(*) FILTER (WHERE NOT diverted), count(*) FILTER (WHERE diverted)
    FROM (SELECT $8[kind] AS lane, diverted FROM fresh) AS named GROUP BY lane ORDER BY lane
    ON CONFLICT (issuer, class, writer) DO UPDATE SET queued = tally.queued + excluded.queued,
        parked = tally.parked + excluded.parked),
account_counts AS (
    INSERT INTO account_tally AS tally (account, issuer, class, writer, used)
    SELECT $4[share], $5[share], $6[share], $7, count(*)
    FROM (SELECT $9[kind] AS share FROM fresh) AS named GROUP BY share ORDER BY share
    ON CONFLICT (account, issuer, class, writer) DO UPDATE SET used = tally.used + excluded.used,
        reserved = tally.reserved - excluded.used)
SELECT number, CASE WHEN code BETWEEN 5 AND 18 AND EXISTS (SELECT FROM open WHERE open.repeat = {repeat}
        AND open.account = $4[$9[kind]] AND open.issuer = $2[$8[kind]] AND open.class = $3[$8[kind]]) THEN 100
        ELSE code END AS code,
    diverted, code = 0 AND ({job} IN (SELECT job FROM opened)) IS TRUE AS opened,
    coalesce((SELECT max(revision.number) FROM revision), 0) AS head
FROM judged";

/// Fields of one length, of the row `number`.
const FIELDS: [(&str, &str); 3] = [
    ("{job}", "substr($19, 16 * number - 15, 16)"),
    ("{intent}", "substr($20, 32 * number - 31, 32)"),
    ("{repeat}", "substr($21, 32 * number - 31, 32)"),
];

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
        "WHEN $29[number] IS NOT NULL AND EXISTS (SELECT FROM idempotency WHERE idempotency.key = $29[number]) THEN 100",
    );
    part(
        "{keys}",
        keyed,
        "keys AS (INSERT INTO idempotency (key, request, job, until)
            SELECT $29[number], $30[number], {job}, me.now + $31[number] FROM me CROSS JOIN fresh
            WHERE $29[number] IS NOT NULL ORDER BY $29[number]),",
    );
    part(
        "{known_repeat}",
        jobs.iter().any(|job| !job.join_within.is_zero()),
        "WHEN $13[kind] > 0 AND EXISTS (SELECT FROM repeat WHERE repeat.repeat = {repeat}
            AND repeat.account = $4[$9[kind]] AND repeat.issuer = $2[$8[kind]] AND repeat.class = $3[$8[kind]]) THEN 100",
    );
    let unique = jobs.iter().any(|job| job.unique_key);
    part(
        "{used_key}",
        unique,
        "WHEN $28[number] IS NOT NULL AND EXISTS (SELECT FROM key_use WHERE key_use.public_key = $28[number]) THEN 10",
    );
    part(
        "{uses}",
        unique,
        "uses AS (INSERT INTO key_use (public_key, job)
            SELECT $28[number], {job} FROM fresh WHERE $28[number] IS NOT NULL ORDER BY $28[number]),",
    );
    for (name, field) in FIELDS {
        part(name, true, field);
    }
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
            pieces: Days::split(jobs.iter().map(|job| &job.job)).into_values().collect(),
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
                    tokio::time::sleep(Duration::from_millis(2) * number * number).await;
                }
                done => return done,
            }
        }
        self.offer(lent, jobs).await
    }

    async fn offer(&self, lent: &mut Lent, jobs: &[&NewJob]) -> Result<Vec<Verdict>, Fault> {
        let Some(day) = jobs.first().map(|job| Day::of(job.job.time())) else {
            return Ok(Vec::new());
        };
        let names = Names::of(jobs);
        let rows = &names.order;
        let kinds = |read: fn(&Kind<'_>) -> i64| names.kinds.iter().map(read).collect::<Vec<i64>>();
        let kind_texts = |read: fn(&Kind<'_>) -> String| names.kinds.iter().map(read).collect::<Vec<String>>();
        let column = |read: fn(&NewJob) -> i64| rows.iter().map(|&row| read(jobs[row])).collect::<Vec<i64>>();
        let packed = |read: fn(&NewJob) -> &[u8]| {
            let bytes: Vec<&[u8]> = rows.iter().map(|&row| read(jobs[row])).collect();
            bytes.concat()
        };
        let bytes = |read: fn(&NewJob) -> &[u8]| {
            let bytes = rows.iter().map(|&row| read(jobs[row]).to_vec());
            bytes.collect::<Vec<Vec<u8>>>()
        };
        let maybe = |read: fn(&NewJob) -> Option<&[u8]>| {
            let bytes = rows.iter().map(|&row| read(jobs[row]).map(<[u8]>::to_vec));
            bytes.collect::<Vec<Option<Vec<u8>>>>()
        };
        let (issuers, classes) = lane_names(names.lanes.iter().copied());
        let (share_issuers, share_classes) = lane_names(names.shares.iter().map(|share| share.1));
        let accounts: Vec<String> = names.shares.iter().map(|share| share.0.as_str().to_owned()).collect();
        let query = self.days.over(day, &accept_statement(jobs));
        let query = query
            .bind(self.given_now())
            .bind(issuers)
            .bind(classes)
            .bind(accounts)
            .bind(share_issuers)
            .bind(share_classes)
            .bind(lent.writer())
            .bind(names.kinds.iter().map(|kind| kind.lane).collect::<Vec<i32>>())
            .bind(names.kinds.iter().map(|kind| kind.share).collect::<Vec<i32>>())
            .bind(kind_texts(|kind| kind.profile.as_str().to_owned()))
            .bind(kinds(|kind| i64::from(kind.profile_version)))
            .bind(kind_texts(|kind| purpose_text(kind.purpose).to_owned()))
            .bind(kinds(|kind| {
                i64::try_from(kind.join_within.as_millis()).unwrap_or(i64::MAX)
            }))
            .bind(kind_texts(|kind| {
                kind.waiter.map_or(String::new(), ToString::to_string)
            }))
            .bind(kinds(|kind| big(kind.lane_depth)))
            .bind(kinds(|kind| big(kind.lane_share)))
            .bind(kinds(|kind| big(kind.jobs_in_flight)))
            .bind(names.numbers(|row| row.kind))
            .bind(packed(|job| job.job.as_bytes()))
            .bind(packed(|job| &job.intent.0))
            .bind(packed(|job| &job.repeat.0))
            .bind(names.numbers(|row| row.lane_before))
            .bind(names.numbers(|row| row.share_before))
            .bind(names.numbers(|row| row.account_before))
            .bind(column(|job| job.sign_by.as_millis()))
            .bind(column(|job| job.not_before))
            .bind(column(|job| job.not_after))
            .bind(maybe(|job| job.unique_key.then_some(&job.public_key.0[..])))
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
            .bind(bytes(|job| &job.statement))
            .bind(bytes(|job| &job.proof))
            .bind(bytes(|job| &job.tbs));
        let answers = match lent.rows(query).await {
            Err(missing @ Fault::Missing(_)) => {
                self.days.forget(day);
                return Err(Fault::Again(format!("{missing:?}")));
            }
            answers => answers?,
        };
        let mut verdicts: Vec<Option<Verdict>> = jobs.iter().map(|_| None).collect();
        for answer in answers {
            let number = usize::try_from(get::<i32>(&answer, "number")? - 1).ok();
            if let Some(&row) = number.and_then(|number| rows.get(number)) {
                verdicts[row] = Some(verdict(&answer, jobs[row])?);
            }
        }
        let missing = || Fault::damaged("a statement left a row unanswered");
        verdicts
            .into_iter()
            .map(|verdict| verdict.ok_or_else(missing))
            .collect()
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

/// A batch as the statement takes it: its lanes, its accounts in them, the kinds of its rows, and in which order the rows go.
#[derive(Default)]
struct Names<'j> {
    lanes: Vec<&'j Lane>,
    shares: Vec<(&'j AccountId, &'j Lane)>,
    kinds: Vec<Kind<'j>>,
    rows: Vec<Row>,
    /// Rows wait for one another where others ask for the same at the same time: everybody takes them in the order of what they ask for.
    order: Vec<usize>,
}

/// What rows have in common.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Kind<'j> {
    /// The number of its lane, from 1, and of its account in it.
    lane: i32,
    share: i32,
    profile: &'j ProfileId,
    profile_version: u32,
    purpose: Purpose,
    join_within: Duration,
    waiter: Option<&'j Incarnation>,
    lane_depth: u64,
    lane_share: u64,
    jobs_in_flight: u64,
}

/// A row's kind, from 1, and how many rows of the same lane, of the same account in it, and of the same account came before it.
struct Row {
    kind: i32,
    lane_before: i32,
    share_before: i32,
    account_before: i32,
}

impl<'j> Names<'j> {
    fn of(jobs: &[&'j NewJob]) -> Self {
        let mut names = Self {
            lanes: jobs.iter().map(|job| &job.lane).collect(),
            shares: jobs.iter().map(|job| (&job.account, &job.lane)).collect(),
            ..Self::default()
        };
        names.lanes.sort_unstable_by_key(|lane| lane_name(lane));
        names.lanes.dedup();
        names
            .shares
            .sort_unstable_by_key(|(account, lane)| (account.as_str(), lane_name(lane)));
        names.shares.dedup();
        let number = |place: usize| i32::try_from(place + 1).unwrap_or(i32::MAX);
        let lanes: HashMap<&Lane, i32> = names
            .lanes
            .iter()
            .zip(1..)
            .map(|(lane, number)| (*lane, number))
            .collect();
        let shares: HashMap<(&AccountId, &Lane), i32> = names
            .shares
            .iter()
            .zip(1..)
            .map(|(share, number)| (*share, number))
            .collect();
        let mut kinds: HashMap<Kind<'j>, i32> = HashMap::new();
        let mut before: HashMap<(Option<&AccountId>, Option<&Lane>), i32> = HashMap::new();
        let mut before = |account, lane| {
            let count = before.entry((account, lane)).or_default();
            *count += 1;
            *count - 1
        };
        for job in jobs {
            let kind = Kind {
                lane: lanes.get(&job.lane).copied().unwrap_or_default(),
                share: shares.get(&(&job.account, &job.lane)).copied().unwrap_or_default(),
                profile: &job.profile,
                profile_version: job.profile_version,
                purpose: job.purpose,
                join_within: job.join_within,
                waiter: job.waiter.as_ref(),
                lane_depth: job.limits.lane_depth,
                lane_share: job.limits.lane_share,
                jobs_in_flight: job.limits.jobs_in_flight,
            };
            let kind = *kinds.entry(kind).or_insert_with(|| {
                names.kinds.push(kind);
                number(names.kinds.len() - 1)
            });
            names.rows.push(Row {
                kind,
                lane_before: before(None, Some(&job.lane)),
                share_before: before(Some(&job.account), Some(&job.lane)),
                account_before: before(Some(&job.account), None),
            });
        }
        names.order = (0..jobs.len()).collect();
        names.order.sort_by_key(|&row| jobs[row].repeat.0);
        names
    }

    fn numbers(&self, read: fn(&Row) -> i32) -> Vec<i32> {
        self.order.iter().map(|&row| read(&self.rows[row])).collect()
    }
}

/// A lane's name, in the order in which the server has names.
fn lane_name(lane: &Lane) -> (&str, &str) {
    (lane.issuer.as_str(), lane.class.as_str())
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
