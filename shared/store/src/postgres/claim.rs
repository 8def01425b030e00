//! Looking for jobs that may be begun, account by account, and for how long lanes have waited.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use domain::{
    id::{AccountId, Serial},
    lane::Lane,
};

use super::{
    accept::lane_names,
    column::{count, get, lane, parsed, serial},
    core::Core,
    fault::Fault,
    law::{PAUSED, USAGE_ON},
    link::Lent,
};
use crate::{
    Claim, Claimable, LaneStatus, LaneSwitches,
    rules::{CLAIM, in_turn},
};

/// For each claim its accounts in turn, each one step in the index behind the one before (`account > ...`), round the end of the names
/// and up to the one that was served last; then of each account its oldest jobs, however deep the lane is. Serials are in the order of
/// acceptance but for the skew of front ends' clocks, so that looking at the first ones finds what has waited: twice what each account
/// would give if all gave the same, so that accounts with few jobs leave room.
pub(super) const CLAIMABLE: &str = "
WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now),
walks AS MATERIALIZED (
    SELECT asked.number, asked.issuer, asked.class, asked.accepted_before, asked.most, walk.account, walk.place
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) WITH ORDINALITY
        AS asked (issuer, class, accepted_before, most, last, number)
    CROSS JOIN LATERAL (
        WITH RECURSIVE walk (account, is_round, place) AS (
            SELECT asked.last COLLATE \"C\", asked.last = '', 0::bigint
            UNION ALL
            SELECT coalesce(next.account, first.account), walk.is_round OR next.account IS NULL, walk.place + 1
            FROM walk
            LEFT JOIN LATERAL (SELECT open.account FROM open WHERE open.issuer = asked.issuer AND open.class = asked.class
                AND open.state = 'queued' AND open.account > walk.account ORDER BY open.account LIMIT 1) AS next ON TRUE
            LEFT JOIN LATERAL (SELECT open.account FROM open WHERE next.account IS NULL AND NOT walk.is_round
                AND open.issuer = asked.issuer AND open.class = asked.class AND open.state = 'queued'
                ORDER BY open.account LIMIT 1) AS first ON TRUE
            WHERE walk.place < asked.most AND coalesce(next.account, first.account) IS NOT NULL
                AND NOT (asked.last <> '' AND (walk.is_round OR next.account IS NULL)
                    AND coalesce(next.account, first.account) > asked.last))
        SELECT walk.account, walk.place FROM walk WHERE walk.place > 0) AS walk),
counted AS MATERIALIZED (SELECT walks.*, count(*) OVER (PARTITION BY number) AS accounts FROM walks)
SELECT counted.number, counted.place, counted.account, found.job
FROM me CROSS JOIN counted LEFT JOIN LATERAL (
    SELECT first.job FROM (
        SELECT open.job, open.issuer, open.class, open.purpose, open.accepted_at, open.sign_by FROM open
        WHERE open.issuer = counted.issuer AND open.class = counted.class AND open.state = 'queued'
            AND open.account = counted.account
        ORDER BY open.job LIMIT 2 * ((counted.most + counted.accounts - 1) / counted.accounts)) AS first
    WHERE first.accepted_at < counted.accepted_before AND first.sign_by > me.now AND {usage_on} AND NOT {paused}) AS found ON TRUE
ORDER BY counted.number, counted.place, found.job";

/// What a claim found: accounts in turn, each with its oldest jobs.
type Found = Vec<(AccountId, Vec<Serial>)>;

pub(super) fn claimable_sql() -> String {
    let over = |law: &str| law.replace("open.", "first.");
    CLAIMABLE
        .replace("{usage_on}", &over(USAGE_ON))
        .replace("{paused}", &over(PAUSED))
}

impl Core {
    /// Jobs of the lanes that may be begun: of each account in turn its oldest.
    pub(super) async fn claimable(&self, lent: &mut Lent, claims: &[Claim]) -> Result<Vec<Claimable>, Fault> {
        let claims: Vec<&Claim> = claims.iter().filter(|claim| claim.limit > 0).collect();
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let limits: Vec<usize> = claims
            .iter()
            .map(|claim| usize::try_from(claim.limit).unwrap_or(usize::MAX).min(CLAIM))
            .collect();
        let (issuers, classes) = lane_names(claims.iter().map(|claim| &claim.lane));
        let last = claims.iter().map(|claim| self.turns.last(&claim.lane));
        let most: Vec<i64> = limits
            .iter()
            .map(|&limit| i64::try_from(limit).unwrap_or(i64::MAX))
            .collect();
        let query = sqlx::query(sqlx::AssertSqlSafe(claimable_sql()))
            .bind(self.given_now())
            .bind(issuers)
            .bind(classes)
            .bind(
                claims
                    .iter()
                    .map(|claim| claim.accepted_before.as_millis())
                    .collect::<Vec<_>>(),
            )
            .bind(most)
            .bind(
                last.map(|last| last.map_or(String::new(), |last| last.as_str().to_owned()))
                    .collect::<Vec<_>>(),
            );
        let mut found: HashMap<usize, Found> = HashMap::new();
        for row in lent.rows(query).await? {
            let claim = usize::try_from(get::<i64>(&row, "number")? - 1).unwrap_or(usize::MAX);
            let account: AccountId = match parsed(&row, "account") {
                Ok(account) => account,
                Err(fault) => {
                    tracing::error!(?fault, "open jobs are not claimed");
                    continue;
                }
            };
            let accounts = found.entry(claim).or_default();
            if accounts.last().is_none_or(|(other, _)| *other != account) {
                accounts.push((account, Vec::new()));
            }
            if let (Some(_), Some((_, jobs))) = (get::<Option<&[u8]>>(&row, "job")?, accounts.last_mut()) {
                jobs.push(serial(&row, "job")?);
            }
        }
        let mut claimable = Vec::new();
        for (number, claim) in claims.iter().enumerate() {
            let accounts = found.remove(&number).unwrap_or_default();
            if let Some((last, _)) = accounts.last().filter(|_| accounts.len() > 1) {
                self.turns.set(&claim.lane, last.clone());
            }
            claimable.extend(in_turn(&claim.lane, accounts, limits[number]));
        }
        Ok(claimable)
    }

    /// Jobs of each lane that wait or are worked on.
    pub(super) async fn depths(&self, lent: &mut Lent) -> Result<Vec<(Lane, u64)>, Fault> {
        let depths = sqlx::query(
            "SELECT issuer, class, sum(queued + signing)::bigint AS ahead FROM lane_tally GROUP BY issuer, class \
             HAVING sum(queued + signing) > 0",
        );
        let rows = lent.rows(depths).await?;
        rows.iter().map(|row| Ok((lane(row)?, count(row, "ahead")?))).collect()
    }

    /// Every lane that has a switch set or an open job.
    pub(super) async fn lanes(&self, lent: &mut Lent) -> Result<Vec<LaneStatus>, Fault> {
        let mut lanes: BTreeMap<Lane, LaneStatus> = BTreeMap::new();
        let depths = sqlx::query(
            "SELECT issuer, class, sum(queued)::bigint AS queued, sum(signing)::bigint AS signing, sum(parked)::bigint AS parked, \
                 FALSE AS paused, FALSE AS draining, FALSE AS diverted FROM lane_tally GROUP BY issuer, class \
             UNION ALL SELECT issuer, class, 0, 0, 0, paused, draining, diverted FROM lane WHERE paused OR draining OR diverted",
        );
        for row in lent.rows(depths).await? {
            let name = lane(&row)?;
            let status = lanes.entry(name.clone()).or_insert(LaneStatus {
                lane: name,
                switches: LaneSwitches::default(),
                queued: 0,
                signing: 0,
                parked: 0,
                oldest: None,
            });
            status.queued += count(&row, "queued")?;
            status.signing += count(&row, "signing")?;
            status.parked += count(&row, "parked")?;
            status.switches.paused |= get::<bool>(&row, "paused")?;
            status.switches.draining |= get::<bool>(&row, "draining")?;
            status.switches.diverted |= get::<bool>(&row, "diverted")?;
        }
        lanes
            .retain(|_, lane| lane.queued + lane.signing + lane.parked > 0 || lane.switches != LaneSwitches::default());
        // From account to account of all lanes, one step in the index each.
        let oldest = sqlx::query(
            "WITH RECURSIVE walk (issuer, class, account, accepted_at) AS (\
                 (SELECT issuer, class, account, accepted_at FROM open WHERE state = 'queued' \
                     ORDER BY issuer, class, account, job LIMIT 1) \
                 UNION ALL SELECT next.* FROM walk CROSS JOIN LATERAL (SELECT issuer, class, account, accepted_at FROM open \
                     WHERE state = 'queued' AND (issuer, class, account) > (walk.issuer, walk.class, walk.account) \
                     ORDER BY issuer, class, account, job LIMIT 1) AS next) \
             SELECT issuer, class, coalesce($1, ledger_now()) - min(accepted_at) AS waited FROM walk GROUP BY issuer, class",
        );
        for row in lent.rows(oldest.bind(self.given_now())).await? {
            if let Some(status) = lane(&row).ok().and_then(|lane| lanes.get_mut(&lane)) {
                status.oldest = Some(Duration::from_millis(count(&row, "waited")?));
            }
        }
        Ok(lanes.into_values().collect())
    }
}
