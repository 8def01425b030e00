//! The contract, call by call: what is batched, what is written alone, what is read.

use std::time::Duration;

use async_trait::async_trait;
use domain::{
    breaker::Force,
    id::{AccountId, Incarnation, IssuerId, NodeId, Serial},
    lane::{Class, Lane},
    registry::Revision,
    stand_down::Permit,
    time::Timestamp,
};

use super::{Postgres, event::Event, fault::Fault};
use crate::{
    AcceptError, Accepted, Announced, Announcement, Appended, AuditLink, Begin, Claim, Claimable, Counter, Deferral,
    Ended, Finish, Finished, Head, Heartbeat, IssuerRow, Job, JobEvent, JobFilter, JobSummary, LaneStatus,
    LaneSwitches, NewJob, Refusal, Revocation, Revoked, StatisticsPage, StatisticsQuery, Store, StoreError, TakenOver,
    rules::{READS, ROWS, within},
};

/// Writes with a connection of its own; an answer that is lost leaves the outcome unknown.
macro_rules! write {
    ($store:ident, $call:ident($($argument:expr),*)) => {{
        let mut lent = $store.core.writes.lend().await?;
        $store.core.$call(&mut lent, $($argument),*).await.map_err(Fault::into_commit_error)
    }};
}

/// Reads with a connection of its own.
macro_rules! read {
    ($store:ident, $call:ident($($argument:expr),*)) => {{
        let mut lent = $store.core.reads.lend().await?;
        $store.core.$call(&mut lent, $($argument),*).await.map_err(Fault::into_error)
    }};
}

fn limit_within(what: &str, limit: u32) -> Result<(), StoreError> {
    within(what, usize::try_from(limit).unwrap_or(usize::MAX), ROWS)
}

#[async_trait]
impl Store for Postgres {
    async fn accept(&self, jobs: Vec<NewJob>) -> Vec<Result<Accepted, AcceptError>> {
        let rows = jobs.len();
        let none = |error: StoreError| (0..rows).map(|_| Err(AcceptError::Store(error.clone()))).collect();
        if let Err(error) = within("accept", rows, ROWS) {
            return none(error);
        }
        let urgent = jobs.iter().any(|job| job.lane.class == Class::Interactive);
        self.accepts.call(urgent, jobs).await.unwrap_or_else(none)
    }

    async fn ended(&self, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        within("ended", jobs.len(), READS)?;
        read!(self, ended(jobs))
    }

    async fn job(&self, job: Serial) -> Result<Option<Job>, StoreError> {
        read!(self, job(job))
    }

    async fn withdraw(&self, frontend: &Incarnation, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        within("withdraw", jobs.len(), ROWS)?;
        let mut lent = self.core.writes.lend().await?;
        self.core.withdraw(&mut lent, frontend, jobs).await
    }

    async fn depths(&self) -> Result<Vec<(Lane, u64)>, StoreError> {
        read!(self, depths())
    }

    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        write!(self, revoke(&revocation))
    }

    async fn heartbeat(&self, announcement: &Announcement, lease: Duration) -> Result<Heartbeat, StoreError> {
        let text = serde_json::to_string(announcement).map_err(|error| StoreError::Rejected(error.to_string()))?;
        write!(self, heartbeat(announcement, text, lease))
    }

    async fn goodbye(&self, incarnation: &Incarnation) -> Result<(), StoreError> {
        write!(self, goodbye(incarnation))
    }

    async fn stand_down(&self, signer: &Incarnation, percent: u8) -> Result<Permit, StoreError> {
        write!(self, stand_down(signer, percent))
    }

    async fn stand_up(&self, signer: &Incarnation) -> Result<(), StoreError> {
        write!(self, stand_up(signer))
    }

    async fn claimable(&self, claims: &[Claim]) -> Result<Vec<Claimable>, StoreError> {
        within("claimable", claims.len(), READS)?;
        read!(self, claimable(claims))
    }

    async fn begin(&self, owner: &Incarnation, jobs: &[Serial]) -> Result<Vec<Begin>, StoreError> {
        within("begin", jobs.len(), ROWS)?;
        let rows = jobs.iter().map(|job| (owner.clone(), *job)).collect();
        self.begins.call(true, rows).await?.into_iter().collect()
    }

    async fn take_over(
        &self,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, StoreError> {
        within("take_over", lanes.len(), READS)?;
        limit_within("take_over", limit)?;
        write!(self, take_over(owner, lanes, operation_limit, limit))
    }

    async fn defer(&self, owner: &Incarnation, deferrals: Vec<Deferral>) -> Result<(), StoreError> {
        within("defer", deferrals.len(), ROWS)?;
        write!(self, defer(owner, &deferrals))
    }

    async fn cancelled(&self, jobs: &[Serial]) -> Result<Vec<Serial>, StoreError> {
        within("cancelled", jobs.len(), READS)?;
        let looked = self.looks.call(true, jobs.to_vec()).await?;
        let looked: Vec<bool> = looked.into_iter().collect::<Result<_, _>>()?;
        let cancelled = jobs.iter().zip(looked).filter(|(_, cancelled)| *cancelled);
        Ok(cancelled.map(|(job, _)| *job).collect())
    }

    async fn finish(&self, _: &Incarnation, finishes: Vec<Finish>) -> Vec<Result<Finished, StoreError>> {
        let rows = finishes.len();
        let none = |error: StoreError| (0..rows).map(|_| Err(error.clone())).collect();
        if let Err(error) = within("finish", rows, ROWS) {
            return none(error);
        }
        self.finishes.call(true, finishes).await.unwrap_or_else(none)
    }

    async fn refuse(&self, owner: &Incarnation, refusals: Vec<Refusal>) -> Vec<Result<Option<Ended>, StoreError>> {
        let rows = refusals.len();
        let none = |error: StoreError| (0..rows).map(|_| Err(error.clone())).collect();
        if let Err(error) = within("refuse", rows, ROWS) {
            return none(error);
        }
        match self.core.writes.lend().await {
            Ok(mut lent) => self.core.refuse(&mut lent, owner, &refusals).await,
            Err(error) => none(error),
        }
    }

    async fn sweep(&self, limit: u32) -> Result<Vec<Ended>, StoreError> {
        limit_within("sweep", limit)?;
        let mut lent = self.core.writes.lend().await?;
        self.core.sweep(&mut lent, limit).await
    }

    async fn note(&self, events: Vec<JobEvent>) -> Result<(), StoreError> {
        within("note", events.len(), ROWS)?;
        let events: Vec<Event> = events.iter().map(Event::from).collect();
        write!(self, note(&events))
    }

    async fn counter(&self, account: &AccountId, counter: Counter) -> Result<u64, StoreError> {
        read!(self, counter(account, counter))
    }

    async fn quota_left(&self, account: &AccountId, quota: u64) -> Result<u64, StoreError> {
        let used = read!(self, used(account))?;
        Ok(quota.saturating_sub(used))
    }

    async fn statistics(&self, query: &StatisticsQuery) -> Result<StatisticsPage, StoreError> {
        read!(self, statistics(query))
    }

    async fn append_revision(&self, revision: &Revision, issuers: &[IssuerRow]) -> Result<Appended, StoreError> {
        write!(self, append_revision(revision, issuers))
    }

    async fn revisions(&self, after: u64, limit: u32) -> Result<Vec<Revision>, StoreError> {
        read!(self, revisions(after, limit))
    }

    async fn head(&self) -> Result<Head, StoreError> {
        read!(self, head())
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, StoreError> {
        read!(self, jobs(filter))
    }

    async fn events(&self, job: Serial) -> Result<Vec<JobEvent>, StoreError> {
        read!(self, events(job))
    }

    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        read!(self, lanes())
    }

    async fn switch_lane(&self, lane: &Lane, switches: LaneSwitches) -> Result<(), StoreError> {
        write!(self, switch_lane(lane, switches))
    }

    async fn force_breaker(&self, issuer: &IssuerId, force: Option<Force>) -> Result<(), StoreError> {
        write!(self, force_breaker(issuer, force))
    }

    async fn forced_breakers(&self) -> Result<Vec<(IssuerId, Force)>, StoreError> {
        read!(self, forced_breakers())
    }

    async fn incarnations(&self) -> Result<Vec<Announced>, StoreError> {
        read!(self, incarnations())
    }

    async fn append_audit(&self, link: &AuditLink) -> Result<Appended, StoreError> {
        write!(self, append_audit(link))
    }

    async fn audit(&self, writer: Option<&NodeId>, after: u64, limit: u32) -> Result<Vec<AuditLink>, StoreError> {
        read!(self, audit(writer, after, limit))
    }

    async fn audit_heads(&self) -> Result<Vec<AuditLink>, StoreError> {
        read!(self, audit_heads())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        read!(self, now())
    }
}
