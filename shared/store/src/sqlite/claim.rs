//! Looking for jobs that may be begun, account by account, and for how long lanes have waited.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    id::{AccountId, Serial},
    lane::Lane,
    time::Timestamp,
};
use rusqlite::Connection;

use super::{
    column::Column,
    counts::Depth,
    fault::Fault,
    open::{paused, usage_on},
    sql::{one, readable},
};
use crate::{
    Claim, Claimable, LaneStatus, LaneSwitches,
    rules::{CLAIM, Turns, in_turn, jobs_each},
};

/// Jobs of the lanes that may be begun: of each account in turn its oldest.
pub(super) fn claimable(
    connection: &Connection,
    turns: &Turns,
    claims: &[Claim],
    now: Timestamp,
) -> Result<Vec<Claimable>, Fault> {
    let mut found = Vec::new();
    for claim in claims {
        if claim.limit > 0 {
            found.extend(of_lane(connection, turns, claim, now)?);
        }
    }
    Ok(found)
}

fn of_lane(connection: &Connection, turns: &Turns, claim: &Claim, now: Timestamp) -> Result<Vec<Claimable>, Fault> {
    let limit = usize::try_from(claim.limit).unwrap_or(usize::MAX).min(CLAIM);
    let accounts = accounts_in_turn(connection, &claim.lane, turns.last(&claim.lane).as_ref(), limit)?;
    if let Some(last) = accounts.last().filter(|_| accounts.len() > 1) {
        turns.set(&claim.lane, last.clone());
    }
    let each = jobs_each(limit, accounts.len());
    let mut queues = Vec::new();
    for account in accounts {
        let jobs = oldest(connection, claim, &account, each, now)?;
        queues.push((account, jobs));
    }
    Ok(in_turn(&claim.lane, queues, limit))
}

/// Accounts with queued jobs in a lane, beginning behind `last`, at most `limit`.
fn accounts_in_turn(
    connection: &Connection,
    lane: &Lane,
    last: Option<&AccountId>,
    limit: usize,
) -> Result<Vec<AccountId>, Fault> {
    let mut accounts: Vec<AccountId> = Vec::new();
    let mut behind = last
        .as_ref()
        .map_or(String::new(), |account| account.as_str().to_owned());
    let mut wrapped = last.is_none();
    while accounts.len() < limit {
        match next_account(connection, lane, &behind)? {
            Some(account) if !accounts.contains(&account) => {
                account.as_str().clone_into(&mut behind);
                accounts.push(account);
            }
            None if !wrapped => {
                wrapped = true;
                behind.clear();
            }
            _ => break,
        }
    }
    Ok(accounts)
}

/// The first account behind `behind` that has queued jobs in a lane: one step in the index. Names that cannot be are passed over.
fn next_account(connection: &Connection, lane: &Lane, behind: &str) -> Result<Option<AccountId>, Fault> {
    let mut behind = behind.to_owned();
    loop {
        let next: Option<String> = one(
            connection,
            "SELECT account FROM open WHERE issuer = ?1 AND class = ?2 AND state = 'queued' AND account > ?3 \
             ORDER BY account LIMIT 1",
            (Column(&lane.issuer), Column(&lane.class), &behind),
            |row| row.get(0),
        )?;
        let Some(name) = next else { return Ok(None) };
        match name.parse() {
            Ok(account) => return Ok(Some(account)),
            Err(error) => tracing::error!(%lane, %error, "open jobs are not claimed"),
        }
        behind = name;
    }
}

/// An account's oldest queued jobs in a lane. Serials are in the order of acceptance but for the skew of front ends' clocks, so that
/// looking at the first ones finds what has waited, and never walks along a backlog.
fn oldest(
    connection: &Connection,
    claim: &Claim,
    account: &AccountId,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Serial>, Fault> {
    let rows = readable(
        connection,
        concat!(
            "SELECT job, accepted_at < ?4 AND sign_by > ?5 AND ",
            usage_on!(),
            " AND NOT ",
            paused!(),
            " FROM open WHERE issuer = ?1 AND class = ?2 AND state = 'queued' AND account = ?3 ORDER BY job LIMIT ?6"
        ),
        (
            Column(&claim.lane.issuer),
            Column(&claim.lane.class),
            Column(account),
            Column(claim.accepted_before),
            Column(now),
            i64::try_from(limit).unwrap_or(i64::MAX),
        ),
        |row| Ok((row.get::<_, Column<Serial>>(0)?.0, row.get::<_, bool>(1)?)),
    )?;
    Ok(rows.into_iter().filter_map(|(job, may)| may.then_some(job)).collect())
}

/// How long the oldest queued job of a lane has waited.
fn oldest_wait(connection: &Connection, lane: &Lane, now: Timestamp) -> Result<Option<Duration>, Fault> {
    let mut behind = String::new();
    let mut oldest: Option<Timestamp> = None;
    while let Some(account) = next_account(connection, lane, &behind)? {
        let first = one(
            connection,
            "SELECT accepted_at FROM open WHERE issuer = ?1 AND class = ?2 AND state = 'queued' AND account = ?3 \
             ORDER BY job LIMIT 1",
            (Column(&lane.issuer), Column(&lane.class), Column(&account)),
            |row| Ok(row.get::<_, Column<Timestamp>>(0)?.0),
        )?;
        oldest = oldest.into_iter().chain(first).min();
        account.as_str().clone_into(&mut behind);
    }
    Ok(oldest.map(|accepted_at| now.since(accepted_at)))
}

/// Every lane that has a switch set or an open job.
pub(super) fn lanes(
    connection: &Connection,
    depths: Vec<(Lane, Depth)>,
    now: Timestamp,
) -> Result<Vec<LaneStatus>, Fault> {
    let mut lanes: BTreeMap<Lane, (LaneSwitches, Depth)> = BTreeMap::new();
    for (lane, switches) in super::registry::switched(connection)? {
        lanes.entry(lane).or_default().0 = switches;
    }
    for (lane, depth) in depths {
        lanes.entry(lane).or_default().1 = depth;
    }
    let status = |(lane, (switches, depth)): (Lane, (LaneSwitches, Depth))| {
        let oldest = oldest_wait(connection, &lane, now)?;
        Ok(LaneStatus {
            lane,
            switches,
            queued: depth.queued,
            signing: depth.signing,
            parked: depth.parked,
            oldest,
        })
    };
    lanes.into_iter().map(status).collect()
}
