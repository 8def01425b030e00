//! The contract, call by call: which queue, and which piece of work.

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

use super::{
    Sqlite,
    accept::none_accepted,
    breaker, claim,
    queue::Urgency::{Bulk, Interactive},
    read, registry,
};
use crate::{
    AcceptError, Accepted, Announced, Announcement, Appended, AuditLink, Begin, Claim, Claimable, Counter, Deferral,
    Ended, Finish, Finished, Head, Heartbeat, IssuerRow, Job, JobEvent, JobFilter, JobSummary, LaneStatus,
    LaneSwitches, NewJob, Refusal, Revocation, Revoked, StatisticsPage, StatisticsQuery, Store, StoreError, TakenOver,
    rules::{READS, ROWS, within},
};

#[async_trait]
impl Store for Sqlite {
    async fn accept(&self, jobs: Vec<NewJob>) -> Vec<Result<Accepted, AcceptError>> {
        let rows = jobs.len();
        if let Err(error) = within("accept", rows, ROWS) {
            return none_accepted(rows, &error);
        }
        let interactive = jobs.iter().any(|job| job.lane.class == Class::Interactive);
        let urgency = if interactive { Interactive } else { Bulk };
        let accepted = self.write(urgency, rows, move |ledger| Ok(ledger.accept(&jobs))).await;
        accepted.unwrap_or_else(|error| none_accepted(rows, &error))
    }

    async fn ended(&self, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        within("ended", jobs.len(), READS)?;
        let jobs = jobs.to_vec();
        self.read(Interactive, move |connection| {
            let ended = jobs.iter().map(|job| read::ended(connection, job));
            ended.filter_map(Result::transpose).collect()
        })
        .await
    }

    async fn job(&self, job: Serial) -> Result<Option<Job>, StoreError> {
        self.read(Interactive, move |connection| read::job(connection, &job))
            .await
    }

    async fn withdraw(&self, frontend: &Incarnation, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        within("withdraw", jobs.len(), ROWS)?;
        let (frontend, jobs) = (frontend.clone(), jobs.to_vec());
        let withdraw = move |ledger: &mut super::Ledger<'_>| ledger.withdraw(&frontend, &jobs);
        self.write(Interactive, 1, withdraw).await
    }

    async fn depths(&self) -> Result<Vec<(Lane, u64)>, StoreError> {
        let depths = self.write_row(Interactive, |ledger| Ok(ledger.counts.lanes())).await?;
        let ahead = depths
            .into_iter()
            .map(|(lane, depth)| (lane, depth.queued + depth.signing));
        Ok(ahead.filter(|(_, ahead)| *ahead > 0).collect())
    }

    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.write_row(Interactive, move |ledger| ledger.revoke(&revocation))
            .await
    }

    async fn heartbeat(&self, announcement: &Announcement, lease: Duration) -> Result<Heartbeat, StoreError> {
        let incarnation = announcement.incarnation.clone();
        let text = serde_json::to_string(announcement).map_err(|error| StoreError::Rejected(error.to_string()))?;
        let heartbeat = move |ledger: &mut super::Ledger<'_>| {
            let until = ledger.now + lease;
            ledger.heartbeat(&incarnation, &text, until)
        };
        self.write_row(Interactive, heartbeat).await
    }

    async fn goodbye(&self, incarnation: &Incarnation) -> Result<(), StoreError> {
        let incarnation = incarnation.clone();
        self.write_row(Interactive, move |ledger| ledger.goodbye(&incarnation))
            .await
    }

    async fn stand_down(&self, signer: &Incarnation, percent: u8) -> Result<Permit, StoreError> {
        let signer = signer.clone();
        self.write_row(Interactive, move |ledger| ledger.stand_down(&signer, percent))
            .await
    }

    async fn stand_up(&self, signer: &Incarnation) -> Result<(), StoreError> {
        let signer = signer.clone();
        self.write_row(Interactive, move |ledger| ledger.stand_up(&signer))
            .await
    }

    async fn claimable(&self, claims: &[Claim]) -> Result<Vec<Claimable>, StoreError> {
        within("claimable", claims.len(), READS)?;
        let (claims, now, turns) = (claims.to_vec(), self.clock.now(), self.turns.clone());
        self.read(Interactive, move |connection| {
            claim::claimable(connection, &turns, &claims, now)
        })
        .await
    }

    async fn begin(&self, owner: &Incarnation, jobs: &[Serial]) -> Result<Vec<Begin>, StoreError> {
        within("begin", jobs.len(), ROWS)?;
        let (owner, jobs) = (owner.clone(), jobs.to_vec());
        let begin = move |ledger: &mut super::Ledger<'_>| ledger.begin(&owner, &jobs);
        self.write(Interactive, 1, begin).await
    }

    async fn take_over(
        &self,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, StoreError> {
        within("take_over", lanes.len(), READS)?;
        within("take_over", usize::try_from(limit).unwrap_or(usize::MAX), ROWS)?;
        let (owner, lanes) = (owner.clone(), lanes.to_vec());
        let take_over = move |ledger: &mut super::Ledger<'_>| ledger.take_over(&owner, &lanes, operation_limit, limit);
        self.write(Bulk, 1, take_over).await
    }

    async fn defer(&self, owner: &Incarnation, deferrals: Vec<Deferral>) -> Result<(), StoreError> {
        within("defer", deferrals.len(), ROWS)?;
        let owner = owner.clone();
        let rows = deferrals.len();
        let defer = move |ledger: &mut super::Ledger<'_>| ledger.defer(&owner, &deferrals);
        self.write(Interactive, rows, defer).await
    }

    async fn cancelled(&self, jobs: &[Serial]) -> Result<Vec<Serial>, StoreError> {
        within("cancelled", jobs.len(), READS)?;
        let jobs = jobs.to_vec();
        self.read(Interactive, move |connection| read::cancelled(connection, &jobs))
            .await
    }

    async fn finish(&self, _: &Incarnation, finishes: Vec<Finish>) -> Vec<Result<Finished, StoreError>> {
        let rows = finishes.len();
        let none = |error: StoreError| (0..rows).map(|_| Err(error.clone())).collect();
        if let Err(error) = within("finish", rows, ROWS) {
            return none(error);
        }
        let finish = move |ledger: &mut super::Ledger<'_>| Ok(ledger.finish(&finishes));
        self.write(Interactive, rows, finish).await.unwrap_or_else(none)
    }

    async fn refuse(&self, owner: &Incarnation, refusals: Vec<Refusal>) -> Vec<Result<Option<Ended>, StoreError>> {
        let rows = refusals.len();
        let none = |error: StoreError| (0..rows).map(|_| Err(error.clone())).collect();
        if let Err(error) = within("refuse", rows, ROWS) {
            return none(error);
        }
        let owner = owner.clone();
        let refuse = move |ledger: &mut super::Ledger<'_>| Ok(ledger.refuse(&owner, &refusals));
        self.write(Interactive, rows, refuse).await.unwrap_or_else(none)
    }

    async fn sweep(&self, limit: u32) -> Result<Vec<Ended>, StoreError> {
        within("sweep", usize::try_from(limit).unwrap_or(usize::MAX), ROWS)?;
        self.write(Bulk, 1, move |ledger| ledger.sweep(limit)).await
    }

    async fn note(&self, events: Vec<JobEvent>) -> Result<(), StoreError> {
        within("note", events.len(), ROWS)?;
        let rows = events.len();
        self.write(Bulk, rows, move |ledger| ledger.notes(&events)).await
    }

    async fn counter(&self, account: &AccountId, counter: Counter) -> Result<u64, StoreError> {
        let account = account.clone();
        self.read(Interactive, move |connection| {
            read::counter(connection, &account, counter)
        })
        .await
    }

    async fn quota_left(&self, account: &AccountId, quota: u64) -> Result<u64, StoreError> {
        let account = account.clone();
        let used = self
            .read(Interactive, move |connection| read::used(connection, &account))
            .await?;
        Ok(quota.saturating_sub(used))
    }

    async fn statistics(&self, query: &StatisticsQuery) -> Result<StatisticsPage, StoreError> {
        let query = query.clone();
        self.read(Bulk, move |connection| read::statistics(connection, &query))
            .await
    }

    async fn append_revision(&self, revision: &Revision, issuers: &[IssuerRow]) -> Result<Appended, StoreError> {
        let (revision, issuers) = (revision.clone(), issuers.to_vec());
        self.write_row(Interactive, move |ledger| ledger.append_revision(&revision, &issuers))
            .await
    }

    async fn revisions(&self, after: u64, limit: u32) -> Result<Vec<Revision>, StoreError> {
        self.read(Interactive, move |connection| {
            registry::revisions(connection, after, limit)
        })
        .await
    }

    async fn head(&self) -> Result<Head, StoreError> {
        let revision = self.read(Interactive, registry::head).await?;
        Ok(Head {
            revision,
            now: self.clock.now(),
        })
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, StoreError> {
        let filter = filter.clone();
        self.read(Bulk, move |connection| read::jobs(connection, &filter)).await
    }

    async fn events(&self, job: Serial) -> Result<Vec<JobEvent>, StoreError> {
        self.read(Interactive, move |connection| read::events(connection, &job))
            .await
    }

    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        let depths = self.write_row(Interactive, |ledger| Ok(ledger.counts.lanes())).await?;
        let now = self.clock.now();
        self.read(Bulk, move |connection| claim::lanes(connection, depths.clone(), now))
            .await
    }

    async fn switch_lane(&self, lane: &Lane, switches: LaneSwitches) -> Result<(), StoreError> {
        let lane = lane.clone();
        self.write_row(Interactive, move |ledger| ledger.switch_lane(&lane, switches))
            .await
    }

    async fn force_breaker(&self, issuer: &IssuerId, force: Option<Force>) -> Result<(), StoreError> {
        let issuer = issuer.clone();
        self.write_row(Interactive, move |ledger| ledger.force_breaker(&issuer, force))
            .await
    }

    async fn forced_breakers(&self) -> Result<Vec<(IssuerId, Force)>, StoreError> {
        self.read(Interactive, breaker::forced_breakers).await
    }

    async fn incarnations(&self) -> Result<Vec<Announced>, StoreError> {
        let now = self.clock.now();
        self.read(Interactive, move |connection| registry::incarnations(connection, now))
            .await
    }

    async fn append_audit(&self, link: &AuditLink) -> Result<Appended, StoreError> {
        let link = link.clone();
        self.write_row(Bulk, move |ledger| ledger.append_audit(&link)).await
    }

    async fn audit(&self, writer: Option<&NodeId>, after: u64, limit: u32) -> Result<Vec<AuditLink>, StoreError> {
        let writer = writer.cloned();
        self.read(Bulk, move |connection| {
            registry::audit(connection, writer.as_ref(), after, limit)
        })
        .await
    }

    async fn audit_heads(&self) -> Result<Vec<AuditLink>, StoreError> {
        self.read(Bulk, registry::audit_heads).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
