//! PostgreSQL's errors, classified where they are met: what is wrong with a row, what is over in a moment, what is unknown.

use sqlx::error::DatabaseError;

use crate::StoreError;

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something in the rows is refused, or what is stored cannot be read. Nothing was changed.
    Row(StoreError),
    /// A unique constraint is in the way: its name. Nothing was changed.
    Taken(String),
    /// A deadlock or a serialisation failure. Nothing was changed; the same again may do.
    Again(String),
    /// A row's lock was not to be had in time. Nothing was changed.
    Locked(String),
    /// A table is not there: a partition that was detached. Nothing was changed.
    Missing(String),
    /// The server refuses for a reason of its own: full, shutting down, too slow. Nothing was changed.
    Store(StoreError),
    /// The connection is lost. What was under way may have been done.
    Lost(String),
}

impl Fault {
    /// What is stored cannot be what was written.
    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::Row(StoreError::Damaged(why.into()))
    }

    /// The error for a caller that only read, or whose transaction was not committed.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Row(error) | Self::Store(error) => error,
            Self::Taken(constraint) => StoreError::Rejected(format!("{constraint} says that it is there already")),
            Self::Again(text) | Self::Locked(text) | Self::Missing(text) | Self::Lost(text) => {
                StoreError::Unavailable(text)
            }
        }
    }

    /// The error for a caller whose commit was under way.
    pub(super) fn into_commit_error(self) -> StoreError {
        match self {
            Self::Lost(text) => StoreError::OutcomeUnknown(text),
            other => other.into_error(),
        }
    }

    /// Whether the connection is of no use any more.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Whether the same statement may do better at once.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Again(_) | Self::Locked(_))
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        let text = error.to_string();
        match error {
            Error::Database(error) => database(error.as_ref()),
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed | Error::BeginFailed => {
                Self::Lost(text)
            }
            Error::ColumnDecode { .. } | Error::Decode(_) | Error::RowNotFound => Self::damaged(text),
            Error::PoolTimedOut | Error::PoolClosed => Self::Store(StoreError::Unavailable(text)),
            _ => Self::Row(StoreError::Rejected(text)),
        }
    }
}

/// By SQLSTATE (PostgreSQL, appendix A).
fn database(error: &dyn DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    let text = format!("{} ({code})", error.message());
    match code.as_ref() {
        "23505" => Fault::Taken(error.constraint().unwrap_or("a unique constraint").to_owned()),
        "40001" | "40P01" => Fault::Again(text),
        "55P03" => Fault::Locked(text),
        "42P01" => Fault::Missing(text),
        "XX001" | "XX002" => Fault::damaged(text),
        // The server ends the session: shut down, crashed elsewhere, starting, or the session was idle inside a transaction.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => Fault::Lost(text),
        _ => match code.get(..2) {
            Some("08") => Fault::Lost(text),
            // A writer's lease may be taken back between its look and its use: the same again leases anew.
            Some("23") if error.constraint() == Some("account_tally_reserved") => Fault::Again(text),
            Some("21" | "22" | "23") => Fault::Row(StoreError::Rejected(text)),
            _ => Fault::Store(StoreError::Unavailable(text)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_connection_leaves_the_outcome_open() {
        let lost = Fault::from(sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
        assert!(lost.is_lost(), "{lost:?}");
        assert!(matches!(lost.clone().into_error(), StoreError::Unavailable(_)));
        assert!(matches!(lost.into_commit_error(), StoreError::OutcomeUnknown(_)));
        let locked = Fault::Locked("no lock".into());
        assert!(locked.is_passing());
        assert!(matches!(locked.into_commit_error(), StoreError::Unavailable(_)));
    }

    #[test]
    fn what_cannot_be_read_is_damaged() {
        let fault = Fault::from(sqlx::Error::Decode("not a serial of ours".into()));
        assert!(matches!(fault, Fault::Row(StoreError::Damaged(_))), "{fault:?}");
    }
}
