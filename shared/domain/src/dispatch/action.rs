//! What follows from a failure. The one place that decides it.

use crate::{
    breaker::Outcome,
    failure::{Failure, KeysFailure, Refused},
};

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
    },
    /// It is refused, so that nobody else meets it, and the signer stops.
    Stop {
        /// For the client.
        refused: Refused,
        /// For the operators.
        fault: String,
    },
}

/// What a failure of a key operation, or of something else, says about issuer and token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Nothing.
    Nothing,
    /// It is the issuer's, and the token is not in doubt.
    Issuer,
    /// It is the issuer's with this outcome; whether others share it, only a test of the token can say.
    IssuerAndDoubt(Outcome),
    /// It is the issuer's if the token stands a test, and the token's otherwise.
    IssuerOrToken,
    /// The token refuses the PIN.
    PinRefused,
}

/// What a failure says. The one place that decides it; requests, hosts and answers say nothing about any key.
pub(super) const fn evidence(failure: &Failure) -> Evidence {
    match failure {
        Failure::Request(_)
        | Failure::TooLate
        | Failure::Cancelled
        | Failure::IssuerDisabled
        | Failure::IssuerDestroyed
        | Failure::Altered(_)
        | Failure::Panicked(_)
        | Failure::Program(_)
        | Failure::Store
        | Failure::Clock
        | Failure::Behind => Evidence::Nothing,
        Failure::SignatureWrong => Evidence::IssuerOrToken,
        Failure::Keys(failure) => match failure {
            KeysFailure::KeyNotFound => Evidence::IssuerAndDoubt(Outcome::Gone),
            KeysFailure::Slow => Evidence::IssuerAndDoubt(Outcome::Failed),
            KeysFailure::KeyExists | KeysFailure::KeyUnfit | KeysFailure::OperationFailed => Evidence::Issuer,
            KeysFailure::Device | KeysFailure::Hang | KeysFailure::StoreUnreadable => Evidence::IssuerOrToken,
            KeysFailure::PinRefused => Evidence::PinRefused,
        },
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
    let defer = |reason: &str| {
        let reason = reason.to_owned();
        Action::Defer { reason }
    };
    let internal = |notice, detail| Action::Refuse(internal_error(), Some((notice, detail)));
    match failure {
        Failure::Request(refused) => Action::Refuse(refused, None),
        Failure::Cancelled => refuse("refused", "the certificate was revoked before it was issued"),
        Failure::IssuerDisabled => refuse("issuer_disabled", "the issuer is disabled"),
        Failure::IssuerDestroyed => refuse("issuer_destroyed", "the issuer's key was destroyed"),
        Failure::Altered(detail) => internal(Notice::Altered, detail),
        Failure::Panicked(detail) => internal(Notice::Panicked, detail),
        Failure::TooLate => defer("too late: the sweep ends it"),
        Failure::Behind => defer("this signer applies an older revision than the ledger's"),
        Failure::Store => defer("the store did not answer"),
        Failure::Clock => defer("this host's clock is off"),
        Failure::SignatureWrong => defer("the signature does not verify"),
        Failure::Keys(failure) => match failure {
            KeysFailure::KeyNotFound => defer("the key is not on its token"),
            KeysFailure::KeyExists => defer("a key of that name exists"),
            KeysFailure::KeyUnfit => defer("the key cannot make this signature"),
            KeysFailure::OperationFailed => defer("the key's operation failed"),
            KeysFailure::Slow => defer("the key's operation took longer than its limit"),
            KeysFailure::Device => defer("the token failed"),
            KeysFailure::Hang => defer("the token hangs"),
            KeysFailure::PinRefused => defer("the token refused the PIN"),
            KeysFailure::StoreUnreadable => defer("the key store cannot be read"),
        },
        Failure::Program(fault) => {
            let refused = internal_error();
            Action::Stop { refused, fault }
        }
    }
}
