//! A store that fails when it is told to, in front of a real one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    audit::AuditLink,
    breaker::Force,
    id::{AccountId, Incarnation, IssuerId, NodeId, Serial},
    lane::Lane,
    registry::Revision,
    stand_down::Permit,
    time::Timestamp,
};
use store::{
    AcceptError, Accepted, Announced, Announcement, Appended, Begin, Claim, Claimable, Counter, Deferral, Ended,
    Finish, Finished, Head, Heartbeat, IssuerRow, Job, JobEvent, JobFilter, JobSummary, LaneStatus, LaneSwitches,
    NewJob, Outcome, Refusal, Revocation, Revoked, StatisticsPage, StatisticsQuery, Store, StoreError, TakenOver,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be reached.
    Unavailable,
    /// Jobs are accepted, and the answer is lost.
    AnswerLost,
    /// Accepting takes this long.
    Slow(Duration),
    /// The first serials are said to be taken.
    SerialsTaken(u32),
    /// A bit of every stored signature is another one.
    Altered,
    /// Every job's bytes are those of this one.
    Swapped(Serial),
    /// The store's clock goes this much before the host's.
    Ahead(Duration),
}

/// The store.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    fault: Mutex<Option<Fault>>,
}

impl Faulty {
    /// A store without a fault yet.
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fault: Mutex::default(),
        })
    }

    /// From now on this goes wrong.
    pub fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }

    fn reachable(&self) -> Result<&dyn Store, StoreError> {
        match self.fault() {
            Some(Fault::Unavailable) => Err(StoreError::Unavailable("a test says so".into())),
            _ => Ok(&*self.inner),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn accept(&self, jobs: Vec<NewJob>) -> Vec<Result<Accepted, AcceptError>> {
        match self.fault() {
            Some(Fault::Unavailable) => {
                let down = || StoreError::Unavailable("a test says so".into());
                jobs.iter().map(|_| Err(down().into())).collect()
            }
            Some(Fault::AnswerLost) => {
                let count = jobs.len();
                self.inner.accept(jobs).await;
                let lost = || StoreError::OutcomeUnknown("a test says so".into());
                (0..count).map(|_| Err(lost().into())).collect()
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.inner.accept(jobs).await
            }
            Some(Fault::SerialsTaken(left)) if left > 0 => {
                self.set(Some(Fault::SerialsTaken(left - 1)));
                jobs.iter().map(|_| Err(AcceptError::SerialTaken)).collect()
            }
            _ => self.inner.accept(jobs).await,
        }
    }
    async fn job(&self, job: Serial) -> Result<Option<Job>, StoreError> {
        let mut found = self.reachable()?.job(job).await?;
        if let (Some(found), Some(fault)) = (&mut found, self.fault()) {
            match fault {
                Fault::Altered => {
                    if let Some(Outcome::Issued { signature, .. }) = &mut found.outcome {
                        let last = signature.len() - 1;
                        signature[last] ^= 1;
                    }
                }
                Fault::Swapped(other) => {
                    let other = self.inner.job(other).await?.expect("the test knows the job");
                    (found.tbs, found.outcome) = (other.tbs, other.outcome);
                }
                _ => {}
            }
        }
        Ok(found)
    }
    async fn ended(&self, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        self.reachable()?.ended(jobs).await
    }
    async fn withdraw(&self, frontend: &Incarnation, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        self.reachable()?.withdraw(frontend, jobs).await
    }
    async fn depths(&self) -> Result<Vec<(Lane, u64)>, StoreError> {
        self.reachable()?.depths().await
    }
    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.reachable()?.revoke(revocation).await
    }
    async fn heartbeat(&self, announcement: &Announcement, lease: Duration) -> Result<Heartbeat, StoreError> {
        let mut heartbeat = self.reachable()?.heartbeat(announcement, lease).await?;
        if let Some(Fault::Ahead(by)) = self.fault() {
            heartbeat.now = heartbeat.now + by;
        }
        Ok(heartbeat)
    }
    async fn goodbye(&self, incarnation: &Incarnation) -> Result<(), StoreError> {
        self.reachable()?.goodbye(incarnation).await
    }
    async fn claimable(&self, claims: &[Claim]) -> Result<Vec<Claimable>, StoreError> {
        self.reachable()?.claimable(claims).await
    }
    async fn begin(&self, owner: &Incarnation, jobs: &[Serial]) -> Result<Vec<Begin>, StoreError> {
        self.reachable()?.begin(owner, jobs).await
    }
    async fn take_over(
        &self,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, StoreError> {
        self.reachable()?.take_over(owner, lanes, operation_limit, limit).await
    }
    async fn defer(&self, owner: &Incarnation, deferrals: Vec<Deferral>) -> Result<(), StoreError> {
        self.reachable()?.defer(owner, deferrals).await
    }
    async fn cancelled(&self, jobs: &[Serial]) -> Result<Vec<Serial>, StoreError> {
        self.reachable()?.cancelled(jobs).await
    }
    async fn finish(&self, owner: &Incarnation, finishes: Vec<Finish>) -> Vec<Result<Finished, StoreError>> {
        self.inner.finish(owner, finishes).await
    }
    async fn refuse(&self, owner: &Incarnation, refusals: Vec<Refusal>) -> Vec<Result<Option<Ended>, StoreError>> {
        self.inner.refuse(owner, refusals).await
    }
    async fn sweep(&self, limit: u32) -> Result<Vec<Ended>, StoreError> {
        self.reachable()?.sweep(limit).await
    }
    async fn note(&self, events: Vec<JobEvent>) -> Result<(), StoreError> {
        self.reachable()?.note(events).await
    }
    async fn counter(&self, account: &AccountId, counter: Counter) -> Result<u64, StoreError> {
        self.reachable()?.counter(account, counter).await
    }
    async fn quota_left(&self, account: &AccountId, quota: u64) -> Result<u64, StoreError> {
        self.reachable()?.quota_left(account, quota).await
    }
    async fn statistics(&self, query: &StatisticsQuery) -> Result<StatisticsPage, StoreError> {
        self.reachable()?.statistics(query).await
    }
    async fn append_revision(&self, revision: &Revision, issuers: &[IssuerRow]) -> Result<Appended, StoreError> {
        self.inner.append_revision(revision, issuers).await
    }
    async fn revisions(&self, after: u64, limit: u32) -> Result<Vec<Revision>, StoreError> {
        self.reachable()?.revisions(after, limit).await
    }
    async fn head(&self) -> Result<Head, StoreError> {
        self.reachable()?.head().await
    }
    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, StoreError> {
        self.inner.jobs(filter).await
    }
    async fn events(&self, job: Serial) -> Result<Vec<JobEvent>, StoreError> {
        self.inner.events(job).await
    }
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        self.inner.lanes().await
    }
    async fn stand_down(&self, signer: &Incarnation, percent: u8) -> Result<Permit, StoreError> {
        self.inner.stand_down(signer, percent).await
    }
    async fn stand_up(&self, signer: &Incarnation) -> Result<(), StoreError> {
        self.inner.stand_up(signer).await
    }
    async fn force_breaker(&self, issuer: &IssuerId, force: Option<Force>) -> Result<(), StoreError> {
        self.inner.force_breaker(issuer, force).await
    }
    async fn forced_breakers(&self) -> Result<Vec<(IssuerId, Force)>, StoreError> {
        self.reachable()?.forced_breakers().await
    }
    async fn switch_lane(&self, lane: &Lane, switches: LaneSwitches) -> Result<(), StoreError> {
        self.inner.switch_lane(lane, switches).await
    }
    async fn incarnations(&self) -> Result<Vec<Announced>, StoreError> {
        self.reachable()?.incarnations().await
    }
    async fn append_audit(&self, link: &AuditLink) -> Result<Appended, StoreError> {
        self.inner.append_audit(link).await
    }
    async fn audit(&self, writer: Option<&NodeId>, after: u64, limit: u32) -> Result<Vec<AuditLink>, StoreError> {
        self.inner.audit(writer, after, limit).await
    }
    async fn audit_heads(&self) -> Result<Vec<AuditLink>, StoreError> {
        self.inner.audit_heads().await
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}
