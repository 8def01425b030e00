//! Everything that keeps a request from becoming a job. How each of them reads over HTTP is decided in `error.rs` alone.

use std::{sync::Arc, time::Duration};

use domain::{
    admission::Violation,
    estimate::{self, Why},
    fair::Full,
    id::IssuerId,
    issuer::{Profile, Standing},
};
use pki::{certificate::PrepareError, csr::CsrError, lint::Finding};
use store::AcceptError;

/// Why a request has not become a job. Nothing was written for it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The issuer does not issue for this purpose now.
    #[error("issuer {0} is {1:?}")]
    Issuer(IssuerId, Standing),
    /// Too much waits already.
    #[error(transparent)]
    Full(Full),
    /// It cannot be answered while its client waits.
    #[error("issuer {0}: no answer in time ({why:?})", why = .1.why)]
    NotInTime(IssuerId, estimate::Refusal),
    /// Its client has waited in vain before anything was accepted.
    #[error("nobody waits for the answer any more")]
    Late,
    /// So much of the account's was refused that this is not looked at. It may ask again after this long.
    #[error("too much of this account's was refused lately")]
    Throttled(Duration),
    /// The CSR or the public key is not one that can be certified, or the client does not hold the key. With the profile, which says
    /// what could be.
    #[error("{field}: {error}", field = .0.field(), error = .0)]
    Key(CsrError, Arc<Profile>),
    /// The key is on the list of those that must not be certified.
    #[error("public_key: this key is known to be compromised; make another one")]
    Blocked,
    /// The policy does not allow it.
    #[error("{}", join(.0))]
    Policy(Vec<Violation>),
    /// It cannot be encoded.
    #[error(transparent)]
    Encoding(PrepareError),
    /// The certificate would break a rule.
    #[error("{}", .0.iter().map(|finding| finding.detail.as_str()).collect::<Vec<_>>().join("; "))]
    Lint(Vec<Finding>),
    /// The store said no, or could not be asked.
    #[error("issuer {0}: {1}")]
    NotAccepted(IssuerId, #[source] AcceptError),
    /// A defect of ours, met while this request was prepared.
    #[error("the request could not be prepared")]
    Panicked,
    /// The front end stopped before it came to this request.
    #[error("the front end is stopping")]
    Dropped,
}

impl Refusal {
    /// In one word, for metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Issuer(..) => "issuer_state",
            Self::Full(Full::Queue) => "queue_full",
            Self::Full(Full::Lane) => "queue_of_lane_full",
            Self::Full(Full::Account) => "queue_share_of_account",
            Self::NotInTime(_, refusal) => match refusal.why {
                Why::Overloaded => "estimate_overloaded",
                Why::Unavailable => "estimate_unavailable",
            },
            Self::Late => "late",
            Self::Throttled(_) => "throttled",
            Self::Key(..) | Self::Blocked => "key",
            Self::Policy(_) | Self::Encoding(_) => "policy",
            Self::Lint(_) => "lint",
            Self::NotAccepted(_, error) => match error {
                AcceptError::IssuerUnknown
                | AcceptError::IssuerDisabled
                | AcceptError::IssuerDestroyed
                | AcceptError::IssuerExpired => "issuer_state",
                AcceptError::LaneDraining => "lane_draining",
                AcceptError::LaneFull => "lane_full",
                AcceptError::LaneShareFull => "lane_share_of_account",
                AcceptError::TooManyInFlight => "too_many_in_flight",
                AcceptError::QuotaExceeded => "quota",
                AcceptError::IdempotencyConflict => "idempotency_conflict",
                AcceptError::KeyReused => "key",
                AcceptError::SerialTaken => "serial_taken",
                AcceptError::Store(_) => "store",
            },
            Self::Panicked => "panicked",
            Self::Dropped => "stopping",
        }
    }

    /// Whether it says that too much waits already: what an account is throttled for.
    pub const fn is_overload(&self) -> bool {
        match self {
            Self::Full(_) | Self::Late => true,
            Self::NotInTime(_, refusal) => matches!(refusal.why, Why::Overloaded),
            Self::NotAccepted(_, error) => matches!(
                error,
                AcceptError::LaneFull | AcceptError::LaneShareFull | AcceptError::TooManyInFlight
            ),
            Self::Issuer(..)
            | Self::Throttled(_)
            | Self::Key(..)
            | Self::Blocked
            | Self::Policy(_)
            | Self::Encoding(_)
            | Self::Lint(_)
            | Self::Panicked
            | Self::Dropped => false,
        }
    }
}

fn join(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
