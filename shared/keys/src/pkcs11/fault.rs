//! What a token's errors mean: every return value of PKCS#11 (OASIS PKCS #11 2.40, section 5.1), here and nowhere else.

use std::fmt;

use cryptoki::error::{Error, RvError};
use domain::failure::KeysFailure;
use serde::{Deserialize, Serialize};

/// A failed call, classified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// What follows from it.
    pub failure: KeysFailure,
    /// For people; no secrets.
    pub detail: String,
    /// This process and this library will not do any better: only a new process may.
    pub spent: bool,
}

impl Fault {
    /// A failure after which the process is as good as before.
    pub fn new(failure: KeysFailure, detail: impl fmt::Display) -> Self {
        Self {
            failure,
            detail: detail.to_string(),
            spent: false,
        }
    }
    /// A failure that ends the usefulness of the process.
    pub fn spent(failure: KeysFailure, detail: impl fmt::Display) -> Self {
        Self {
            spent: true,
            ..Self::new(failure, detail)
        }
    }
}

/// What an error says, before anything was tried against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The handle or the login is no longer good, which a logout elsewhere causes as well as a destroyed key: log in, find the key again.
    Stale,
    /// The session is no longer good: open another.
    Session,
    /// The token or what lies before it.
    Token,
    /// It may be this key or the token; the canary key tells them apart.
    Unclear,
    /// What was asked for cannot be done with this key, or on this token.
    Unfit,
    /// This operation was declined.
    Declined,
    /// The PIN.
    Pin,
    /// The library is not usable in this process any more.
    Library,
}

impl Meaning {
    /// What the error says.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Pkcs11(value, _) => Self::of_value(*value),
            Error::NotSupported | Error::NullFunctionPointer => Self::Unfit,
            Error::LibraryLoading(_) | Error::MissingSymbol(_) => Self::Library,
            Error::TryFromInt(_)
            | Error::TryFromSlice(_)
            | Error::ParseInt(_)
            | Error::Utf8(_)
            | Error::NulError(_)
            | Error::InvalidValue => Self::Unclear,
            Error::PinNotSet => Self::Pin,
        }
    }

    const fn of_value(value: RvError) -> Self {
        match value {
            RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::KeyChanged
            | RvError::KeyNeeded
            | RvError::WrappingKeyHandleInvalid
            | RvError::UnwrappingKeyHandleInvalid
            | RvError::UserNotLoggedIn => Self::Stale,

            RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::SessionParallelNotSupported
            | RvError::BufferTooSmall => Self::Session,

            RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::SessionCount
            | RvError::HostMemory
            | RvError::FipsSelfTestFailed
            | RvError::RandomNoRng
            | RvError::UserAnotherAlreadyLoggedIn
            | RvError::UserTooManyTypes
            | RvError::UserTypeInvalid
            | RvError::SessionReadWriteSoExists
            | RvError::NewPinMode
            | RvError::NextOtp => Self::Token,

            RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::FunctionNotParallel
            | RvError::NoEvent
            | RvError::SessionExists
            | RvError::UserAlreadyLoggedIn
            | RvError::ExceededMaxIterations
            | RvError::VendorDefined(_)
            | RvError::UnknownErrorCode(_) => Self::Unclear,

            RvError::AttributeReadOnly
            | RvError::AttributeSensitive
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::ActionProhibited
            | RvError::FunctionNotSupported
            | RvError::CurveNotSupported
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::KeyNotNeeded
            | RvError::KeyIndigestible
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyNotWrappable
            | RvError::KeyUnextractable
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::SessionReadOnly
            | RvError::SessionReadOnlyExists
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::TokenWriteProtected
            | RvError::UnwrappingKeySizeRange
            | RvError::UnwrappingKeyTypeInconsistent
            | RvError::WrappedKeyInvalid
            | RvError::WrappedKeyLenRange
            | RvError::WrappingKeySizeRange
            | RvError::WrappingKeyTypeInconsistent
            | RvError::RandomSeedNotSupported
            | RvError::DomainParamsInvalid
            | RvError::PublicKeyInvalid => Self::Unfit,

            RvError::Cancel
            | RvError::FunctionCanceled
            | RvError::FunctionRejected
            | RvError::ArgumentsBad
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::SignatureInvalid
            | RvError::SignatureLenRange
            | RvError::SavedStateInvalid
            | RvError::InformationSensitive
            | RvError::StateUnsaveable => Self::Declined,

            RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::PinTooWeak
            | RvError::UserPinNotInitialized => Self::Pin,

            RvError::CryptokiNotInitialized
            | RvError::CryptokiAlreadyInitialized
            | RvError::NeedToCreateThreads
            | RvError::CantLock
            | RvError::MutexBad
            | RvError::MutexNotLocked
            | RvError::LibraryLoadFailed => Self::Library,
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn errors_of_tokens_mean_what_they_are_known_to_mean() {
        for (value, meaning) in [
            (RvError::ObjectHandleInvalid, Meaning::Stale),
            (RvError::KeyHandleInvalid, Meaning::Stale),
            (RvError::UserNotLoggedIn, Meaning::Stale),
            (RvError::SessionHandleInvalid, Meaning::Session),
            (RvError::SessionClosed, Meaning::Session),
            (RvError::OperationActive, Meaning::Session),
            (RvError::DeviceError, Meaning::Token),
            (RvError::DeviceRemoved, Meaning::Token),
            (RvError::TokenNotPresent, Meaning::Token),
            (RvError::GeneralError, Meaning::Unclear),
            (RvError::FunctionFailed, Meaning::Unclear),
            (RvError::VendorDefined(0x8000_0001), Meaning::Unclear),
            (RvError::MechanismInvalid, Meaning::Unfit),
            (RvError::KeyFunctionNotPermitted, Meaning::Unfit),
            (RvError::DataLenRange, Meaning::Declined),
            (RvError::PinIncorrect, Meaning::Pin),
            (RvError::PinLocked, Meaning::Pin),
            (RvError::PinExpired, Meaning::Pin),
            (RvError::CryptokiNotInitialized, Meaning::Library),
        ] {
            let error = Error::Pkcs11(value, Function::Sign);
            assert_eq!(Meaning::of(&error), meaning, "{value:?}");
        }
    }
}
