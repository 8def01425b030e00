//! The ledger and the registry's shelf: the one truth about what was asked for and what came of it.
//!
//! [`Store`] is the seam. Every adapter passes the same contract suite (`suite`) against the real engine; above the trait nothing
//! knows which one it is. Times are the store's own; each call is one commit (or part of a group commit), never half of one.

mod error;
mod ledger;
mod operate;
pub mod postgres;
mod rules;
pub mod sqlite;
#[cfg(test)]
mod suite;

pub use error::StoreError;
pub use ledger::*;
pub use operate::*;

use std::time::Duration;

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

/// The store. See the module for its rules, and `domain::job` for the law that its conditions enforce.
///
/// In every batch call the answers stand in the order of the questions, one each. A bad row fails alone: a failed batch is split until
/// it stands by itself. A call that writes carries at most 1,000 rows and one that reads names at most 10,000 jobs or lanes; more is
/// [`StoreError::Rejected`] whole. [`StoreError::OutcomeUnknown`] means that the commit may have happened: ask again before deciding.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    // Front ends.

    /// Accepts jobs: request, intent and open row in one commit; or joins the job that is already there.
    async fn accept(&self, jobs: Vec<NewJob>) -> Vec<Result<Accepted, AcceptError>>;

    /// What became of these jobs, for those that have ended. One query, however many.
    async fn ended(&self, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError>;

    /// A job with everything that is recorded of it.
    async fn job(&self, job: Serial) -> Result<Option<Job>, StoreError>;

    /// Ends jobs as expired for a front end whose wait is over, where it is the only waiter and `sign_by` is past.
    async fn withdraw(&self, frontend: &Incarnation, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError>;

    /// Every lane that has jobs which wait or are worked on, and how many: what a new job has before it. Cheap, whatever waits.
    async fn depths(&self) -> Result<Vec<(Lane, u64)>, StoreError>;

    /// Records a revocation, or says why not.
    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError>;

    // Signers.

    /// Renews the lease of an incarnation and stores its announcement. A lease ends `lease` after the store's now.
    async fn heartbeat(&self, announcement: &Announcement, lease: Duration) -> Result<Heartbeat, StoreError>;

    /// Ends an incarnation's lease at once: a drained process says goodbye.
    async fn goodbye(&self, incarnation: &Incarnation) -> Result<(), StoreError>;

    /// Gives a signer a permit to stand down, or says whether the one that it has still holds: at most `percent` of the live holders of
    /// each issuer that it serves stand down at a time, and never the last one. Live is whose lease lasts; what it holds is what it last
    /// announced. Counted and written in one transaction, one signer after the other. The permit ends with the lease. A refusal takes the
    /// permit away.
    async fn stand_down(&self, signer: &Incarnation, percent: u8) -> Result<Permit, StoreError>;

    /// Gives the permit back.
    async fn stand_up(&self, signer: &Incarnation) -> Result<(), StoreError>;

    /// Jobs that may be begun and that no delivery seems to bring, of each account in turn its oldest. Reads only; `begin` decides.
    /// Nothing of a paused lane, of an issuer whose usage bit is off, or past `sign_by`.
    async fn claimable(&self, claims: &[Claim]) -> Result<Vec<Claimable>, StoreError>;

    /// Begins jobs, across lanes: the claim. Succeeds for one signer each. Who asks again for what it has begun, because the answer was
    /// lost, gets the same answer: the turn stays.
    async fn begin(&self, owner: &Incarnation, jobs: &[Serial]) -> Result<Vec<Begin>, StoreError>;

    /// Takes over at most `limit` jobs of these lanes whose owner's lease is over, or that were begun longer ago than three times
    /// `operation_limit`. A job that has three strikes is parked as poison instead and named in the answer.
    async fn take_over(
        &self,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, StoreError>;

    /// Puts jobs back that this owner had begun. Where the turn is not its own, nothing happens.
    async fn defer(&self, owner: &Incarnation, deferrals: Vec<Deferral>) -> Result<(), StoreError>;

    /// Of these jobs, those whose issuance somebody has cancelled (a recorded revocation). Read last before a signature.
    async fn cancelled(&self, jobs: &[Serial]) -> Result<Vec<Serial>, StoreError>;

    /// Records signatures. The first one over the recorded intent wins, whoever made it.
    async fn finish(&self, owner: &Incarnation, finishes: Vec<Finish>) -> Vec<Result<Finished, StoreError>>;

    /// Refuses jobs: in this owner's turn, or before anyone began them. Already ended: answers how.
    async fn refuse(&self, owner: &Incarnation, refusals: Vec<Refusal>) -> Vec<Result<Option<Ended>, StoreError>>;

    /// Ends at most `limit` open jobs whose `sign_by` is past and that no living owner works on, and forgets repeats that have run
    /// out.
    async fn sweep(&self, limit: u32) -> Result<Vec<Ended>, StoreError>;

    /// Records what happened to jobs (deferred, altered, taken over ...), for people.
    async fn note(&self, events: Vec<JobEvent>) -> Result<(), StoreError>;

    // Accounts.

    /// How many certificates of the account were issued, or revoked, ever.
    async fn counter(&self, account: &AccountId, counter: Counter) -> Result<u64, StoreError>;

    /// How many more the account may have issued, of `quota` in all: what is reserved by open jobs counts as used.
    async fn quota_left(&self, account: &AccountId, quota: u64) -> Result<u64, StoreError>;

    /// One page of a statistics window.
    async fn statistics(&self, query: &StatisticsQuery) -> Result<StatisticsPage, StoreError>;

    // The registry.

    /// Appends a revision and the projection of its issuers in one commit. Refused unless its number follows the head.
    async fn append_revision(&self, revision: &Revision, issuers: &[IssuerRow]) -> Result<Appended, StoreError>;

    /// Revisions after `after`, in order, at most `limit`.
    async fn revisions(&self, after: u64, limit: u32) -> Result<Vec<Revision>, StoreError>;

    /// The number of the last revision and the store's time.
    async fn head(&self) -> Result<Head, StoreError>;

    // Operators.

    /// Jobs, newest first, below `filter.before`, at most `filter.limit`.
    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, StoreError>;

    /// What happened to a job, oldest first, at most 1,000.
    async fn events(&self, job: Serial) -> Result<Vec<JobEvent>, StoreError>;

    /// Every lane that has a switch set or an open job, with its depth.
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError>;

    /// Sets a lane's switches.
    async fn switch_lane(&self, lane: &Lane, switches: LaneSwitches) -> Result<(), StoreError>;

    /// Orders the breakers of an issuer, in every signer, until told otherwise; `None`: they do as they see fit.
    async fn force_breaker(&self, issuer: &IssuerId, force: Option<Force>) -> Result<(), StoreError>;

    /// Every order to breakers that is in force, by issuer.
    async fn forced_breakers(&self) -> Result<Vec<(IssuerId, Force)>, StoreError>;

    /// Every incarnation whose lease has not ended longer than a minute ago.
    async fn incarnations(&self) -> Result<Vec<Announced>, StoreError>;

    /// Appends a link to a writer's audit chain. Refused unless its sequence follows the writer's last.
    async fn append_audit(&self, link: &AuditLink) -> Result<Appended, StoreError>;

    /// Links of a writer's chain after sequence number `after`, in order, at most `limit`. When `writer` is `None`, of every writer,
    /// by time, those later than `after` milliseconds since the UNIX epoch.
    async fn audit(&self, writer: Option<&NodeId>, after: u64, limit: u32) -> Result<Vec<AuditLink>, StoreError>;

    /// The last link of each writer's chain.
    async fn audit_heads(&self) -> Result<Vec<AuditLink>, StoreError>;

    /// The store's time.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
