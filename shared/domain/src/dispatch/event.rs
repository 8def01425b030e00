//! What a signer's dispatcher is told, and what it asks for.

use std::time::Duration;

use super::alert::Alert;
use crate::{
    breaker::{self, Force},
    failure::Failure,
    id::{AccountId, IssuerId, Serial, TokenId},
    key::KeyType,
    lane::{Carrier, Lane},
    reconcile::Claim,
};

/// What bounds a dispatcher. All of them at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Hints that may wait here, in all lanes.
    pub waiting: usize,
    /// Hints that may wait here of one lane.
    pub waiting_per_lane: usize,
    /// Jobs that are being begun, are begun, run or are being recorded.
    pub in_flight: usize,
    /// Jobs in one `begin`.
    pub begin: usize,
    /// Runs at a time: threads that sign.
    pub workers: usize,
    /// Canary signatures with issuers' keys at a time, to find out whether they work again.
    pub probes: usize,
    /// Claims.
    pub claims: crate::reconcile::Limits,
    /// When breakers open, and for how long.
    pub breaker: breaker::Settings,
    /// What all breakers are ordered to do of which nobody has ordered anything else.
    pub force: Option<Force>,
    /// How often lost owners are looked for.
    pub take_over_period: Duration,
}

/// Units of cost of one certificate with an issuer's key of this type: CPU time, in the time that a P-256 key takes.
pub const fn cost(issuer_key: KeyType) -> u32 {
    match issuer_key {
        KeyType::P256 | KeyType::Ed25519 => 1,
        KeyType::P384 | KeyType::P521 | KeyType::Rsa2048 => 4,
        KeyType::Rsa3072 => 10,
        KeyType::Rsa4096 => 20,
    }
}

/// How it is found out whether the key of an issuer whose breaker is open works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeBy {
    /// By a canary signature with it.
    OwnKey,
    /// By its oldest job: the key may sign nothing else.
    OldestJob,
}

/// A lane that this signer serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// How its jobs travel.
    pub carrier: Carrier,
    /// [`cost`] of one job.
    pub cost: u32,
    /// Where its issuer's key is.
    pub token: TokenId,
    /// Whether its issuer is enabled. What is not is answered, and its breaker is nobody's business.
    pub enabled: bool,
    /// How its issuer is probed.
    pub probe_by: ProbeBy,
}

/// With which key a canary signature is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProbeKey {
    /// The token's canary key.
    Canary,
    /// An issuer's own.
    Issuer(IssuerId),
}

/// A job that may be begun, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Which.
    pub job: Serial,
    /// Whose: accounts of a lane are served in turn.
    pub account: AccountId,
}

/// A job that the ledger has given to this signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Which.
    pub job: Serial,
    /// Issuer and class.
    pub lane: Lane,
    /// Whose.
    pub account: AccountId,
    /// The turn that this is.
    pub turn: u32,
}

/// Why a job was not begun. None of them is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotBegun {
    /// It has ended, is elsewhere, is set aside, is paused, is late or is unknown: nothing to do here.
    NotWanted,
    /// Its issuer is disabled.
    IssuerDisabled,
    /// Its issuer is destroyed.
    IssuerDestroyed,
}

/// What came of recording the end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// It is in the ledger, or somebody else's is.
    Done,
    /// Refused by the ledger: the issuer's usage bit is off.
    IssuerOff,
    /// Refused by the ledger: the recorded intent is another.
    IntentMismatch,
}

/// What keeps the whole signer from beginning jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hindrance {
    /// The store cannot be reached.
    Store,
    /// This host's clock is off.
    Clock,
    /// There is no lease, not yet or not any more: others may take over what is begun here.
    Lease,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These lanes are served from now on, and no others: the snapshot or the keys have changed.
    Served(Vec<(Lane, Serving)>),
    /// A new inbox is open; the tags of the one before mean nothing any more, and no lane of it is paused.
    InboxOpened,
    /// An envelope came, verified and parsed.
    Delivered {
        /// Its name towards the broker.
        tag: u64,
        /// Its lane.
        lane: Lane,
        /// Its jobs.
        jobs: Vec<Hint>,
    },
    /// There is something in the ledger for this lane.
    WokenUp(Lane),
    /// The ledger's answer to [`Effect::Claim`].
    Claimable {
        /// What was asked.
        asked: Vec<Claim>,
        /// What was found.
        jobs: Vec<(Lane, Hint)>,
    },
    /// [`Effect::Claim`] failed.
    ClaimFailed,
    /// The ledger's answer to [`Effect::Begin`].
    Begun {
        /// Jobs that are now this signer's.
        begun: Vec<Begun>,
        /// Jobs that are not.
        not: Vec<(Serial, NotBegun)>,
    },
    /// [`Effect::Begin`] failed for these.
    BeginFailed(Vec<Serial>),
    /// The ledger's answer to [`Effect::TakeOver`]: at most one job.
    TakenOver(Option<Begun>),
    /// [`Effect::TakeOver`] failed.
    TakeOverFailed,
    /// A job of a run has come to its end: signed, or not.
    Ran {
        /// Which.
        job: Serial,
        /// In which turn.
        turn: u32,
        /// What came of it.
        result: Result<(), Failure>,
        /// How long the key operation took; nothing if it did not come to it.
        took: Duration,
    },
    /// A worker is free again. Every job of its run has come to its end.
    RunEnded(u64),
    /// The end of a job was recorded.
    Recorded {
        /// Which.
        job: Serial,
        /// In which turn; 0 for one that was never begun here.
        turn: u32,
        /// What the ledger said.
        how: Recorded,
    },
    /// A canary signature was made and verifies, or not: the answer to [`Effect::Probe`], exactly one for each.
    Probed {
        /// Which.
        probe: u64,
        /// What came of it.
        result: Result<(), Failure>,
        /// How long it took.
        took: Duration,
    },
    /// These breakers are forced by operators, and no others.
    Forced(Vec<(IssuerId, Force)>),
    /// An operator says that a token's PIN may be tried again.
    TokenUnlocked(TokenId),
    /// The store's answer to [`Effect::AskPermit`]: this signer may stand down.
    PermitGranted,
    /// It may not, or the store did not answer.
    PermitRefused,
    /// Time has passed.
    Tick,
    /// Something keeps the signer from beginning jobs.
    Hindered(Hindrance),
    /// It does so no longer.
    Freed(Hindrance),
    /// Finish what is in flight, take nothing new.
    Drain,
}

/// Something to do. To be performed in order; none of them waits for another's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Towards the broker: all jobs of these are begun, or known not to be wanted.
    Settle(Vec<u64>),
    /// Towards the broker: these go back.
    GiveBack(Vec<u64>),
    /// Towards the broker: deliver nothing of this lane; what is out of it goes back.
    PauseLane(Lane),
    /// Towards the broker: deliver it again.
    ResumeLane(Lane),
    /// Begin these. Answered by [`Event::Begun`] or [`Event::BeginFailed`], each job once.
    Begin(Vec<Serial>),
    /// Ask the ledger. Answered by [`Event::Claimable`] or [`Event::ClaimFailed`].
    Claim(Vec<Claim>),
    /// Take over one job of these lanes from an owner that is lost. Answered by [`Event::TakenOver`] or [`Event::TakeOverFailed`].
    TakeOver(Vec<Lane>),
    /// Check and sign these on one worker, in order. Answered by one [`Event::Ran`] each, then [`Event::RunEnded`].
    Run {
        /// Names the run.
        run: u64,
        /// Lane of all of them.
        lane: Lane,
        /// Jobs and turns.
        jobs: Vec<(Serial, u32)>,
    },
    /// Make a canary signature and verify it. Answered by [`Event::Probed`].
    Probe {
        /// Names the probe.
        probe: u64,
        /// On which token.
        token: TokenId,
        /// With which key on it.
        key: ProbeKey,
    },
    /// Ask the store for a permit to stand down, or whether the one that it gave still holds. Answered by [`Event::PermitGranted`] or
    /// [`Event::PermitRefused`]; there is one question at a time.
    AskPermit,
    /// Give it back.
    ReturnPermit,
    /// Record the signature of a job that ran. Answered by [`Event::Recorded`], as are the next two.
    Finish {
        /// Which.
        job: Serial,
        /// In which turn.
        turn: u32,
    },
    /// Record a refusal.
    Refuse {
        /// Which.
        job: Serial,
        /// In which turn; 0 for one that was never begun here.
        turn: u32,
        /// A problem id.
        id: &'static str,
        /// For the client.
        detail: String,
    },
    /// Put a job back.
    Defer {
        /// Which.
        job: Serial,
        /// In which turn.
        turn: u32,
        /// Why, for people.
        reason: String,
    },
    /// Tell operators about a job.
    Note {
        /// Which.
        job: Serial,
        /// Its lane.
        lane: Lane,
        /// What happened.
        kind: super::Notice,
        /// For people.
        detail: String,
    },
    /// Tell operators about more than one job.
    Alert(Alert),
    /// Nothing is in flight any more; the process may end.
    Drained,
    /// A fault of the program: sign nothing more, page the operators, end.
    Stop(String),
}
