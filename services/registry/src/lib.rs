//! The registry of issuers, profiles, accounts, operators and nodes: control's part that changes it, and the operators' API.
//!
//! [`Registry`] makes every change as a signed revision that follows the last one, with its line in the audit log; [`serve`] is its HTTP
//! face. Front ends and signers never ask this crate for anything: they follow the revisions in the store.

mod accounts;
mod api;
mod audit;
mod breakers;
mod commit;
pub mod demo;
mod describe;
mod error;
mod fleet;
mod issuers;
mod jobs;
mod nodes;
mod past;
mod profiles;
mod setup;
mod subject;
#[cfg(test)]
mod tests;
mod token;
mod token_key;

pub use accounts::Credential;
pub use api::{Context, serve};
pub use commit::{Committed, Order};
pub use error::RegistryError;
pub use nodes::Enrolment;

use std::{path::PathBuf, sync::Arc};

use domain::{registry::Change, registry::Snapshot, time::Clock};
use keys::Keys;
use runtime::follow::Follower;
use store::Store;
use tokio::sync::Mutex;
use wire::{admin::Changed, signed::NodeKey};

use audit::AuditLog;

/// What a registry is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where revisions, audit and ledger are.
    pub store: Arc<dyn Store>,
    /// This control node's key.
    pub node_key: Arc<NodeKey>,
    /// Tokens of this process, for making keys and for proving that they sign.
    pub keys: Vec<Arc<dyn Keys>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Base of the URLs in certificates of new issuers.
    pub public_url: String,
    /// Directory for what imported issuers did before.
    pub archive: PathBuf,
    /// Follows the revisions; every change is in force for it when the call that made it returns.
    pub follower: Arc<Follower>,
    /// With what it enrols nodes of other machines; `None` where there are none.
    pub enrolment: Option<Enrolment>,
}

/// The registry, as control holds it.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    node_key: Arc<NodeKey>,
    keys: Vec<Arc<dyn Keys>>,
    clock: Arc<dyn Clock>,
    public_url: String,
    archive: PathBuf,
    follower: Arc<Follower>,
    enrolment: Option<Enrolment>,
    /// One change of this process at a time.
    turn: Mutex<()>,
    audit: AuditLog,
}

impl Registry {
    /// A registry on its parts. Reads nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            turn: Mutex::default(),
            audit: AuditLog::new(parts.store.clone(), parts.node_key.clone(), parts.clock.clone()),
            store: parts.store,
            node_key: parts.node_key,
            keys: parts.keys,
            clock: parts.clock,
            public_url: parts.public_url,
            archive: parts.archive,
            follower: parts.follower,
            enrolment: parts.enrolment,
        }
    }

    /// Makes a plan on the state at the head and changes nothing.
    async fn dry_run<P>(&self, mut plan: P, warnings: Vec<String>) -> Result<Changed, RegistryError>
    where
        P: FnMut(&Snapshot) -> Result<Vec<Change>, RegistryError> + Send,
    {
        let snapshot = self.current().await?;
        let changes = plan(&snapshot)?;
        snapshot.next(&changes)?;
        Ok(Changed {
            revision: snapshot.revision,
            changed: !changes.is_empty(),
            dry_run: true,
            warnings,
        })
    }
}
