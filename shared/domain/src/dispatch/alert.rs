//! What operators are told about issuers' breakers, tokens and this signer as a whole.

use std::fmt;

use crate::{
    breaker::Cause,
    id::{IssuerId, TokenId},
};

/// Something about more than one job that operators want to know at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Alert {
    /// An issuer's breaker has opened.
    BreakerOpened(IssuerId, Cause),
    /// It has closed.
    BreakerClosed(IssuerId),
    /// It would have opened, and is observed only.
    BreakerWouldOpen(IssuerId, Cause),
    /// A token has failed its tests, or (`true`) refused the PIN: it takes no jobs.
    TokenOut(TokenId, bool),
    /// It works again.
    TokenBack(TokenId),
    /// A token's canary key fails while issuers' keys on it work: it is to be made anew.
    CanaryKeyFails(TokenId),
    /// Every token of this signer is out.
    BackedOff,
    /// At least one is back.
    BackOffEnded,
    /// This signer is slow or flickers, and has a permit to stand down.
    StoodDown,
    /// It has none, since others are needed more: it goes on with one job a token.
    StandDownRefused,
    /// It is well again.
    StandDownEnded,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BreakerOpened(issuer, cause) => write!(f, "the breaker of {issuer} is open: {}", describe(*cause)),
            Self::BreakerClosed(issuer) => write!(f, "the breaker of {issuer} is closed"),
            Self::BreakerWouldOpen(issuer, cause) => {
                write!(
                    f,
                    "the breaker of {issuer} would open, and is observed only: {}",
                    describe(*cause)
                )
            }
            Self::TokenOut(token, false) => write!(f, "token {token} is out: no canary signature succeeds on it"),
            Self::TokenOut(token, true) => {
                write!(
                    f,
                    "token {token} is out: it refused the PIN; it is not tried again before an operator says so"
                )
            }
            Self::TokenBack(token) => write!(f, "token {token} works again"),
            Self::CanaryKeyFails(token) => {
                write!(
                    f,
                    "the canary key of token {token} fails while issuers' keys on it work: make it anew"
                )
            }
            Self::BackedOff => f.write_str("every token of this signer is out: it backs off"),
            Self::BackOffEnded => f.write_str("a token of this signer is back: it takes jobs again"),
            Self::StoodDown => f.write_str("this signer is slow or flickers: it stands down"),
            Self::StandDownRefused => {
                f.write_str("this signer is slow or flickers and may not stand down: it goes on with one job a token")
            }
            Self::StandDownEnded => f.write_str("this signer is well again"),
        }
    }
}

const fn describe(cause: Cause) -> &'static str {
    match cause {
        Cause::Consecutive => "its key failed several times in a row",
        Cause::Rate => "its key fails too often",
        Cause::Slow => "its key is too slow",
        Cause::Gone => "its key is gone",
        Cause::Probe => "its key still fails",
        Cause::Forced => "an operator ordered it",
    }
}
