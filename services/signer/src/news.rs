//! What the parts of the signer tell its worker, and what is written down for operators.

use std::time::Duration;

use domain::{
    breaker::Force,
    bytes::Blob,
    dispatch::{Hindrance, Recorded},
    failure::Failure,
    id::{IssuerId, Serial, TokenId},
    lane::Lane,
    reconcile,
};
use store::{Begin, Claimable, StoreError, TakenOver};

use crate::sign::Signed;

/// Something that happened.
#[derive(Debug)]
pub enum News {
    /// The ledger's answer to a begin of these jobs.
    Begun(Vec<Serial>, Result<Vec<Begin>, StoreError>),
    /// The ledger's answer to claims.
    Claimable(Vec<reconcile::Claim>, Result<Vec<Claimable>, StoreError>),
    /// The ledger's answer to a take-over.
    TakenOver(Result<TakenOver, StoreError>),
    /// A job of a run has come to its end.
    Ran {
        /// Which run.
        run: u64,
        /// Which job.
        job: Serial,
        /// In which turn.
        turn: u32,
        /// What came of it.
        result: Result<Signed, Failure>,
    },
    /// A thread is free again.
    RunEnded(u64),
    /// The ends of jobs, each in its turn, are in the ledger: what it said.
    Recorded(Vec<(Serial, u32, Recorded)>),
    /// A canary signature was made, or was not.
    Probed {
        /// Which.
        probe: u64,
        /// What came of it.
        result: Result<(), Failure>,
        /// How long it took.
        took: Duration,
    },
    /// What operators order breakers to do, all of it.
    Forced(Vec<(IssuerId, Force)>),
    /// Nothing on record speaks against logging in to a token that is out.
    MayLogIn(TokenId),
    /// This signer may stand down.
    PermitGranted,
    /// It may not.
    PermitRefused,
    /// Something keeps this signer from beginning jobs.
    Hindered(Hindrance),
    /// It does so no longer.
    Freed(Hindrance),
    /// The keys were looked at: there may be other lanes to serve.
    Keys,
    /// A message was set aside, as far as that was possible.
    SetAside {
        /// The number of the inbox that brought it.
        inbox: u64,
        /// Its delivery tag there.
        tag: u64,
    },
}

/// Something that operators must be able to read later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// About which job.
    pub job: Serial,
    /// Its lane.
    pub lane: Lane,
    /// A word: `altered`, `panicked`, `lint_disagreement` ...
    pub kind: &'static str,
    /// For people.
    pub detail: String,
    /// A certificate that must be kept and that nobody may see, DER. It goes into the audit log alone, since it says names.
    pub evidence: Option<Blob>,
}
