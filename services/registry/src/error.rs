//! What can be wrong with an operator's order, and, in the only place where that is decided, which HTTP status says so.

use domain::registry::ChangeRefused;
use keys::KeysError;
use store::StoreError;

/// Why an order was not carried out. Nothing was changed, unless the text says that the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// What the order names is not there.
    #[error("{0} is not registered; `{1}` lists what is")]
    Unknown(String, &'static str),
    /// What the order would make is there already.
    #[error("{0} exists already; choose another name")]
    Exists(String),
    /// A field of the order is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The state does not allow it.
    #[error("{0}")]
    State(String),
    /// The change does not fit the registry.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The operator's role is too low.
    #[error("{0}")]
    Forbidden(String),
    /// Other control nodes were faster every time.
    #[error("others changed the registry {0} times meanwhile; try again")]
    Contended(u32),
    /// The chain of revisions cannot be believed.
    #[error("the registry's chain does not verify: {0}")]
    Trust(String),
    /// A token.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something of ours broke.
    #[error("internal error: {0}")]
    Internal(String),
}
