//! SQLite's errors, classified where they are met: a row's own fault, or the whole transaction's.

use rusqlite::{ErrorCode, ffi};

use crate::StoreError;

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// This row cannot be written or read; the transaction goes on without it.
    Row(StoreError),
    /// The transaction cannot go on: disk, memory, lock.
    Store(StoreError),
}

impl Fault {
    /// What is stored cannot be what was written.
    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::Row(StoreError::Damaged(why.into()))
    }

    /// The error for the caller.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Row(error) | Self::Store(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error;
        let text = error.to_string();
        let Error::SqliteFailure(failure, _) = &error else {
            return match error {
                Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::Utf8Error(..) => Self::damaged(text),
                _ => Self::Row(StoreError::Rejected(text)),
            };
        };
        match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::damaged(text),
            ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch | ErrorCode::ApiMisuse => {
                Self::Row(StoreError::Rejected(text))
            }
            _ => Self::Store(StoreError::Unavailable(text)),
        }
    }
}

/// What a failed COMMIT means. Where the log could not be written, nothing was committed. Where it was written and could not be
/// flushed, a crash may yet bring it back.
pub(super) fn failed_commit(error: &rusqlite::Error) -> StoreError {
    let text = format!("commit failed: {error}");
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return StoreError::OutcomeUnknown(text);
    };
    match failure.code {
        ErrorCode::DiskFull | ErrorCode::ConstraintViolation | ErrorCode::DatabaseBusy | ErrorCode::OutOfMemory => {
            StoreError::Unavailable(text)
        }
        ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_WRITE => StoreError::Unavailable(text),
        _ => StoreError::OutcomeUnknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_flush_that_failed_may_have_happened_and_a_write_that_failed_has_not() {
        let unknown = failed_commit(&failure(ffi::SQLITE_IOERR_FSYNC));
        assert!(matches!(unknown, StoreError::OutcomeUnknown(_)), "{unknown:?}");
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
            let rolled_back = failed_commit(&failure(code));
            assert!(matches!(rolled_back, StoreError::Unavailable(_)), "{rolled_back:?}");
        }
    }

    #[test]
    fn a_constraint_is_the_rows_fault_and_a_full_disk_is_not() {
        assert!(matches!(
            Fault::from(failure(ffi::SQLITE_CONSTRAINT_CHECK)),
            Fault::Row(StoreError::Rejected(_))
        ));
        assert!(matches!(
            Fault::from(failure(ffi::SQLITE_CORRUPT)),
            Fault::Row(StoreError::Damaged(_))
        ));
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_BUSY,
        ] {
            assert!(matches!(
                Fault::from(failure(code)),
                Fault::Store(StoreError::Unavailable(_))
            ));
        }
    }
}
