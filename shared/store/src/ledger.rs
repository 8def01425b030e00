//! What goes into the ledger and what comes out of it on the way of a request.

use std::time::Duration;

use domain::{
    bytes::Digest,
    id::{AccountId, Incarnation, NodeId, ProfileId, Serial},
    issuer::Purpose,
    job::{RevocationReason, State},
    lane::Lane,
    time::Timestamp,
};

use crate::StoreError;

/// A job to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name and the certificate's serial. The very same job may be offered again after an outcome that was never learnt.
    pub job: Serial,
    /// Issuer and class.
    pub lane: Lane,
    /// Who asks.
    pub account: AccountId,
    /// Under which profile.
    pub profile: ProfileId,
    /// Version of the profile.
    pub profile_version: u32,
    /// Decides which usage bit of the issuer must be on.
    pub purpose: Purpose,
    /// Until when anybody wants it.
    pub sign_by: Timestamp,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds.
    pub not_after: i64,
    /// The statement, the very bytes that the proof covers.
    pub statement: Vec<u8>,
    /// JSON of `domain::statement::Proof`.
    pub proof: Vec<u8>,
    /// The to-be-signed bytes.
    pub tbs: Vec<u8>,
    /// SHA-256 of the to-be-signed bytes.
    pub intent: Digest,
    /// SHA-256 of the public key (SPKI).
    pub public_key: Digest,
    /// Whether the key may have only one certificate: among the open jobs and issued certificates of this installation that say the
    /// same of theirs.
    pub unique_key: bool,
    /// What makes the request the same as another of this account. An open job with the same value is joined.
    pub repeat: Digest,
    /// How long after issuance the same request, saying the same, still joins. Zero: only while in flight.
    pub join_within: Duration,
    /// The client's idempotency key, if it sent one.
    pub idempotency: Option<Idempotency>,
    /// Who waits for it, if somebody does.
    pub waiter: Option<Incarnation>,
    /// What bounds it.
    pub limits: Limits,
}

/// An idempotency key as it is kept for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of account and key.
    pub key: Digest,
    /// SHA-256 of the request, to tell a repeat from a different request under the same key.
    pub request: Digest,
    /// How long it is remembered.
    pub keep: Duration,
}

/// What bounds an account and a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Certificates that the account may have in all.
    pub quota: u64,
    /// Jobs that the account may have open.
    pub jobs_in_flight: u64,
    /// Open jobs that the lane may hold.
    pub lane_depth: u64,
    /// Open jobs of the lane that may be of one account.
    pub lane_share: u64,
}

/// What came of an acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The job that answers the request: the new one, or the one that it joined.
    pub job: Serial,
    /// How.
    pub how: How,
    /// Its state now.
    pub state: State,
    /// Number of the registry's last revision, so that a front end learns that it is behind.
    pub head: u64,
}

/// How a request was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// A new job.
    New,
    /// The same request was in flight (or done within the profile's time).
    Joined,
    /// The same idempotency key had the same request.
    Repeated,
}

/// Why a job was not accepted. Nothing was written for it, no quota was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant means")]
pub enum AcceptError {
    #[error("the issuer's row is missing")]
    IssuerUnknown,
    #[error("the issuer is disabled for this purpose")]
    IssuerDisabled,
    #[error("the issuer's key was destroyed")]
    IssuerDestroyed,
    #[error("the issuer's certificate has expired")]
    IssuerExpired,
    #[error("the lane is draining")]
    LaneDraining,
    #[error("the lane is full")]
    LaneFull,
    #[error("the account holds its whole share of the lane")]
    LaneShareFull,
    #[error("the account has too many jobs in flight")]
    TooManyInFlight,
    #[error("the account's issuance quota is used up")]
    QuotaExceeded,
    #[error("the idempotency key was used for a different request")]
    IdempotencyConflict,
    #[error("the public key already has a certificate")]
    KeyReused,
    #[error("the serial is taken; draw new entropy and ask again")]
    SerialTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What may be known of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub job: Serial,
    /// How.
    pub outcome: Outcome,
    /// Front ends that were waiting when it ended (empty on later reads).
    pub waiters: Vec<Incarnation>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With this signature over its intent.
    Issued {
        /// As it goes into the certificate's BIT STRING.
        signature: Vec<u8>,
        /// When.
        at: Timestamp,
    },
    /// With a refusal.
    Refused {
        /// A problem id such as `issuer_disabled`.
        id: String,
        /// For the client.
        detail: String,
        /// When.
        at: Timestamp,
    },
    /// Unsigned, `sign_by` having passed.
    Expired {
        /// When.
        at: Timestamp,
    },
    /// By an operator.
    Discarded {
        /// What the operator said.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

impl Outcome {
    /// The state that goes with it.
    pub const fn state(&self) -> State {
        match self {
            Self::Issued { .. } => State::Issued,
            Self::Refused { .. } => State::Refused,
            Self::Expired { .. } => State::Expired,
            Self::Discarded { .. } => State::Discarded,
        }
    }
}

/// A job with everything that is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub job: Serial,
    /// Issuer and class.
    pub lane: Lane,
    /// Who asked.
    pub account: AccountId,
    /// Under which profile.
    pub profile: ProfileId,
    /// Version of the profile.
    pub profile_version: u32,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Until when anybody wants it.
    pub sign_by: Timestamp,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds.
    pub not_after: i64,
    /// State.
    pub state: State,
    /// How many times it was begun.
    pub turn: u32,
    /// How many times it was taken over from an owner that was lost.
    pub strikes: u8,
    /// Who works on it.
    pub owner: Option<Incarnation>,
    /// The statement's bytes.
    pub statement: Vec<u8>,
    /// The to-be-signed bytes.
    pub tbs: Vec<u8>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Its revocation, if there is one.
    pub revocation: Option<RevocationRecord>,
    /// The job that a resubmission made of it.
    pub successor: Option<Serial>,
}

/// A revocation as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationRecord {
    /// Why.
    pub reason: RevocationReason,
    /// When it was decided, by the store's clock.
    pub decided_at: Timestamp,
    /// revocationDate, UNIX seconds.
    pub revocation_date: i64,
    /// When a CRL or OCSP answer first said so.
    pub published_at: Option<Timestamp>,
}

/// A revocation to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which certificate.
    pub job: Serial,
    /// Whose it must be; `None` when an operator revokes.
    pub account: Option<AccountId>,
    /// Why.
    pub reason: RevocationReason,
    /// revocationDate, UNIX seconds; `None`: now. Judged by the store: the future is refused, the past allowed only with
    /// `keyCompromise` and not before notBefore.
    pub revocation_date: Option<i64>,
    /// Whether a job that is not yet issued is cancelled (operators, proven key compromise) instead of refused.
    pub cancel_pending: bool,
    /// Who decided, for the record: `account:NAME`, `operator:NAME`.
    pub by: String,
}

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// Recorded now.
    Done,
    /// Recorded before; the reason is now keyCompromise.
    Raised,
    /// Recorded before, for this reason.
    Already(RevocationReason),
    /// Not issued yet; it will be revoked by the commit that issues it, or is never signed.
    Cancelled,
    /// Not issued yet.
    Pending,
    /// There is no such certificate, or it is another account's.
    Unknown,
    /// It ended without a certificate.
    NeverIssued(State),
    /// The date is in the future.
    InTheFuture,
    /// The date is in the past, which only keyCompromise allows, or before notBefore.
    TooEarly,
}

/// What a signer asks the ledger for in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which lane.
    pub lane: Lane,
    /// Only jobs accepted before this.
    pub accepted_before: Timestamp,
    /// At most this many.
    pub limit: u32,
}

/// A job that may be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimable {
    /// Which.
    pub job: Serial,
    /// Issuer and class.
    pub lane: Lane,
    /// Whose: lanes serve accounts in turn.
    pub account: AccountId,
}

/// What came of a `begin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// The job is this owner's.
    Begun(Box<Begun>),
    /// It is not.
    Not(Serial, NotBegun),
}

/// Why a job was not begun. None of them is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotBegun {
    /// There is no such job.
    Unknown,
    /// Another signer works on it.
    Elsewhere,
    /// It has ended.
    Ended(State),
    /// It is set aside.
    Parked,
    /// Its lane is paused.
    Paused,
    /// `sign_by` is past: the sweep ends it.
    Late,
    /// The issuer's usage bit is off (disabled).
    IssuerDisabled,
    /// The issuer is destroyed.
    IssuerDestroyed,
    /// Its rows cannot be read as what they were written: it is parked, and an event says why.
    Damaged,
}

/// A begun job, as it stands in the ledger: to be verified before it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Which.
    pub job: Serial,
    /// Issuer and class, as the open row says.
    pub lane: Lane,
    /// Account, as the open row says.
    pub account: AccountId,
    /// Purpose, as the open row says: it decided which usage bit let the job be begun.
    pub purpose: Purpose,
    /// What the request row says.
    pub request: RequestRow,
    /// The turn that this begin is.
    pub turn: u32,
    /// How many times it was taken over, this time included.
    pub strikes: u8,
    /// `sign_by`, as the open row says.
    pub sign_by: Timestamp,
    /// How long until then, by the store's clock.
    pub remaining: Duration,
    /// The statement's bytes.
    pub statement: Vec<u8>,
    /// JSON of the proof.
    pub proof: Vec<u8>,
    /// Statements and proofs of those who joined.
    pub joined: Vec<(Vec<u8>, Vec<u8>)>,
    /// The to-be-signed bytes.
    pub tbs: Vec<u8>,
    /// SHA-256 of them, as recorded.
    pub intent: Digest,
}

/// The facts of a request, as they stand in the ledger beside the statement that a front end signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// Issuer and class.
    pub lane: Lane,
    /// Who asked.
    pub account: AccountId,
    /// Under which profile.
    pub profile: ProfileId,
    /// Version of the profile.
    pub profile_version: u32,
    /// Purpose.
    pub purpose: Purpose,
    /// Until when anybody wanted it at acceptance.
    pub sign_by: Timestamp,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds.
    pub not_after: i64,
}

/// What came of a take-over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenOver {
    /// Jobs that are now this owner's; each is run alone.
    pub begun: Vec<Begun>,
    /// Jobs that were parked as poison, with their lanes.
    pub poisoned: Vec<(Serial, Lane)>,
}

/// A job to put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// Which.
    pub job: Serial,
    /// The turn in which this owner began it.
    pub turn: u32,
    /// Why, for people.
    pub reason: String,
}

/// A signature to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Which.
    pub job: Serial,
    /// SHA-256 of the bytes that were signed.
    pub intent: Digest,
    /// As it goes into the certificate's BIT STRING.
    pub signature: Vec<u8>,
    /// Who made it.
    pub node: NodeId,
    /// Whether this job's turn had signed before (a take-over), for `resigned_total`.
    pub turn: u32,
}

/// What came of a `finish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// The job is issued, now or before. `ended` has the signature that counts, which may be another's.
    Issued {
        /// The outcome that everybody sees.
        ended: Ended,
        /// Whether this call's signature is the one.
        first: bool,
        /// Whether the commit recorded a revocation with it (somebody had cancelled).
        revoked: bool,
    },
    /// The issuer's usage bit is off: no certificate.
    IssuerOff,
    /// The recorded intent is another, or the issuer's row disagrees.
    IntentMismatch,
    /// The job ended otherwise, or is parked: this signature is never seen.
    Lost(Option<State>),
}

/// A refusal to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub job: Serial,
    /// The turn in which this owner began it; `None` for a job that nobody has begun.
    pub turn: Option<u32>,
    /// A problem id.
    pub id: String,
    /// For the client.
    pub detail: String,
}
