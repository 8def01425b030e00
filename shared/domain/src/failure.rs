//! Failures: classified where they are known, once. The scope decides what may follow (`dispatch`), and nothing else does.

use serde::{Deserialize, Serialize};

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This request's: refused or expired, once; nothing counts.
    Request,
    /// This issuer's: its breaker, in this signer.
    Issuer,
    /// This token's: canary, then out.
    Token,
    /// This host's: intake pauses, or back-off when every token is out.
    Host,
    /// Ours: stop and page.
    Program,
}

/// What went wrong with a key operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeysFailure {
    /// The key is not on the token, after re-login and re-find.
    KeyNotFound,
    /// A key of that name exists.
    KeyExists,
    /// The key cannot do what was asked (type, mechanism, attribute).
    KeyUnfit,
    /// This key's operation failed while nothing says that the token is at fault.
    OperationFailed,
    /// The operation took longer than its limit.
    Slow,
    /// Device error, token gone, session lost for good, worker process died.
    Device,
    /// The operation hangs and was given up.
    Hang,
    /// The PIN is wrong, locked or expired: no login again until an operator says so.
    PinRefused,
    /// The key store cannot be opened or read (files, permissions, passphrase).
    StoreUnreadable,
}

impl KeysFailure {
    /// Whose failure it is.
    pub const fn scope(self) -> Scope {
        match self {
            Self::KeyNotFound | Self::KeyExists | Self::KeyUnfit | Self::OperationFailed | Self::Slow => Scope::Issuer,
            Self::Device | Self::Hang | Self::PinRefused | Self::StoreUnreadable => Scope::Token,
        }
    }
}

/// Everything that can keep a begun job from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Policy, lint, profile changed, blocked key: the request is refused with this problem id.
    Request(Refused),
    /// `sign_by` is past.
    TooLate,
    /// Somebody cancelled it.
    Cancelled,
    /// The issuer is disabled: an answer, not a failure.
    IssuerDisabled,
    /// The issuer is destroyed: an answer, not a failure.
    IssuerDestroyed,
    /// What the ledger says is not what a front end signed.
    Altered(String),
    /// The program panicked over this job alone.
    Panicked(String),
    /// A key operation.
    Keys(KeysFailure),
    /// The signature does not verify.
    SignatureWrong,
    /// A valid signature over bytes other than the intent, or another impossibility.
    Program(String),
    /// The store is unreachable.
    Store,
    /// This host's clock is off by more than two seconds.
    Clock,
    /// This signer applies an older revision of the registry than the ledger, and must not judge by it.
    Behind,
}

/// A refusal as the client will read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A problem id such as `policy_violation`.
    pub id: &'static str,
    /// For the client.
    pub detail: String,
}

impl Failure {
    /// Whose failure it is; `None` for what is an answer and counts for nothing.
    pub const fn scope(&self) -> Option<Scope> {
        match self {
            Self::IssuerDisabled | Self::IssuerDestroyed => None,
            Self::Request(_) | Self::TooLate | Self::Cancelled | Self::Altered(_) | Self::Panicked(_) => {
                Some(Scope::Request)
            }
            Self::Keys(failure) => Some(failure.scope()),
            Self::SignatureWrong => Some(Scope::Issuer),
            Self::Program(_) => Some(Scope::Program),
            Self::Store | Self::Clock | Self::Behind => Some(Scope::Host),
        }
    }
}
