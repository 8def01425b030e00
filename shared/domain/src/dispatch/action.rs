//! What follows from a failure. The one place that decides it.

use crate::failure::{Failure, KeysFailure, Refused};

/// What operators are told about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The ledger does not say what a front end signed.
    Altered,
    /// The program panicked over it.
    Panicked,
    /// It was taken over from an owner that is lost.
    TakenOver,
}

/// What becomes of a job that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// It is refused, once; nothing else moves.
    Refuse(Refused, Option<(Notice, String)>),
    /// It goes back to its lane, unharmed.
    Defer {
        /// For people.
        reason: String,
        /// Whether its issuer's gate hears of it.
        counts: bool,
    },
    /// It is refused, so that nobody else meets it, and the signer stops.
    Stop {
        /// For the client.
        refused: Refused,
        /// For the operators.
        fault: String,
    },
}

impl Action {
    /// Whether its issuer's gate hears of it.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Defer { counts: true, .. })
    }
}

fn internal_error() -> Refused {
    Refused {
        id: "internal",
        detail: "the request could not be processed; ask the operator, or send a new one".to_owned(),
    }
}

/// The action for a failure. A failure of the request never counts against its issuer, or two crafted requests would shut it for all.
pub(super) fn action(failure: Failure) -> Action {
    let refuse = |id, detail: &str| {
        let detail = detail.to_owned();
        Action::Refuse(Refused { id, detail }, None)
    };
    let defer = |reason: &str, counts| {
        let reason = reason.to_owned();
        Action::Defer { reason, counts }
    };
    let internal = |notice, detail| Action::Refuse(internal_error(), Some((notice, detail)));
    match failure {
        Failure::Request(refused) => Action::Refuse(refused, None),
        Failure::Cancelled => refuse("refused", "the certificate was revoked before it was issued"),
        Failure::IssuerDisabled => refuse("issuer_disabled", "the issuer is disabled"),
        Failure::IssuerDestroyed => refuse("issuer_destroyed", "the issuer's key was destroyed"),
        Failure::Altered(detail) => internal(Notice::Altered, detail),
        Failure::Panicked(detail) => internal(Notice::Panicked, detail),
        Failure::TooLate => defer("too late: the sweep ends it", false),
        Failure::Behind => defer("this signer applies an older revision than the ledger's", false),
        Failure::Store => defer("the store did not answer", false),
        Failure::Clock => defer("this host's clock is off", false),
        Failure::SignatureWrong => defer("the signature does not verify", true),
        // Breakers, canaries and tokens that are taken out find their place here: until then whatever a key or its token does counts
        // against the issuer whose job met it, in this signer alone.
        Failure::Keys(failure) => match failure {
            KeysFailure::KeyNotFound => defer("the key is not on its token", true),
            KeysFailure::KeyExists => defer("a key of that name exists", true),
            KeysFailure::KeyUnfit => defer("the key cannot make this signature", true),
            KeysFailure::OperationFailed => defer("the key's operation failed", true),
            KeysFailure::Slow => defer("the key's operation took longer than its limit", true),
            KeysFailure::Device => defer("the token failed", true),
            KeysFailure::Hang => defer("the token hangs", true),
            KeysFailure::PinRefused => defer("the token refused the PIN", true),
            KeysFailure::StoreUnreadable => defer("the key store cannot be read", true),
        },
        Failure::Program(fault) => {
            let refused = internal_error();
            Action::Stop { refused, fault }
        }
    }
}
