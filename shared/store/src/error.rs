//! What can go wrong with a store itself (never what is wrong with a job).

/// A store's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not take the call: closed, busy, full disk, gone. Nothing was changed.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The call was sent and its answer was lost: it may have been done. Look before doing it again.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The store refuses this one row, whatever it is retried with.
    #[error("row refused by the store: {0}")]
    Rejected(String),
    /// What is stored cannot be what was written: altered or damaged.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}
