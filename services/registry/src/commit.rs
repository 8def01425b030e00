//! How the registry changes: a plan made on the state at the head, signed, chained, audited and appended; made again if somebody
//! else was faster.

use std::sync::Arc;

use domain::registry::{Change, Revision, Snapshot};
use store::{Appended, IssuerRow, StoreError};
use wire::{
    admin::Changed,
    trust::{ChainHead, Directory, verify_revision},
};

use crate::{Registry, RegistryError};

/// How many times a plan is made again when other control nodes were faster.
const ATTEMPTS: u32 = 16;
/// Revisions read from the store in one go.
const PAGE: u32 = 500;

/// Who changes something, what they call it, and why: the line in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who: `operator:alice`, `control:control-1`.
    pub by: String,
    /// What: `issuer.disable`.
    pub action: &'static str,
    /// To what: an issuer, an account, a profile ...
    pub target: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// What came of a plan.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The revision in which it is in force.
    pub revision: u64,
    /// The state of that revision.
    pub snapshot: Arc<Snapshot>,
    /// Whether anything had to change.
    pub changed: bool,
}

impl Committed {
    /// As the operator reads it.
    pub(crate) fn into_document(self, warnings: Vec<String>) -> Changed {
        Changed {
            revision: self.revision,
            changed: self.changed,
            dry_run: false,
            warnings,
        }
    }
}

/// The end of the chain as this process has verified it.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) head: ChainHead,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) directory: Directory,
}

impl Chain {
    pub(crate) fn empty(root: &[u8]) -> Result<Self, RegistryError> {
        Ok(Self {
            head: ChainHead::START,
            snapshot: Arc::new(Snapshot::default()),
            directory: Directory::empty(root).map_err(|error| RegistryError::Trust(error.to_string()))?,
        })
    }

    fn step(&mut self, revision: &Revision) -> Result<(), RegistryError> {
        let trust = |error: &dyn std::fmt::Display| RegistryError::Trust(error.to_string());
        let changes = verify_revision(revision, &self.head, &self.directory).map_err(|e| trust(&e))?;
        let snapshot = self.snapshot.next(&changes).map_err(|e| trust(&e))?;
        self.directory = self.directory.next(&snapshot);
        self.snapshot = Arc::new(snapshot);
        self.head = ChainHead::of(revision);
        Ok(())
    }
}

impl Registry {
    /// The state at the head of the chain, read from the store and verified now.
    pub async fn current(&self) -> Result<Arc<Snapshot>, RegistryError> {
        let mut chain = self.chain.lock().await;
        self.catch_up(&mut chain).await?;
        Ok(chain.snapshot.clone())
    }

    /// Makes a change: `plan` says what has to change in the state it is given, nothing if that is so already. It is called again with
    /// a newer state when another control node was faster, and must therefore have no other effect.
    ///
    /// The audit log names the revision by its hash before it is appended: no revision is ever without its line, and a line whose
    /// revision does not exist tells of an attempt.
    pub async fn commit<P>(&self, order: &Order, mut plan: P) -> Result<Committed, RegistryError>
    where
        P: FnMut(&Snapshot) -> Result<Vec<Change>, RegistryError> + Send,
    {
        let mut chain = self.chain.lock().await;
        for _ in 0..ATTEMPTS {
            self.catch_up(&mut chain).await?;
            let changes = plan(&chain.snapshot)?;
            if changes.is_empty() {
                return Ok(Committed {
                    revision: chain.head.number,
                    snapshot: chain.snapshot.clone(),
                    changed: false,
                });
            }
            let next = chain.snapshot.next(&changes)?;
            let revision = wire::trust::revision(&chain.head, &changes, &self.node_key, self.clock.now());
            if revision.body.len() > wire::trust::MAX_REVISION {
                return Err(RegistryError::Invalid(format!(
                    "the change is larger than {} bytes; make it in several steps",
                    wire::trust::MAX_REVISION
                )));
            }
            let outcome = format!("revision {} {:?}", revision.number, revision.hash);
            self.audit.record(order, &outcome, changes.len()).await?;
            match self.store.append_revision(&revision, &rows(&next, &changes)).await {
                Ok(Appended::Done) => {}
                Ok(Appended::Conflict(_)) => continue,
                Err(StoreError::OutcomeUnknown(detail)) => {
                    self.catch_up(&mut chain).await?;
                    if chain.head.hash != revision.hash {
                        return Err(StoreError::OutcomeUnknown(detail).into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if chain.head.hash != revision.hash {
                chain.step(&revision)?;
            }
            self.news.notify_one();
            return Ok(Committed {
                revision: revision.number,
                snapshot: chain.snapshot.clone(),
                changed: true,
            });
        }
        Err(RegistryError::Contended(ATTEMPTS))
    }

    async fn catch_up(&self, chain: &mut Chain) -> Result<(), RegistryError> {
        loop {
            let revisions = self.store.revisions(chain.head.number, PAGE).await?;
            for revision in &revisions {
                chain.step(revision)?;
            }
            if revisions.len() < PAGE as usize {
                return Ok(());
            }
        }
    }
}

/// The rows of the issuers that these changes touch, as they are after all of them.
fn rows(next: &Snapshot, changes: &[Change]) -> Vec<IssuerRow> {
    let mut touched: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::PutIssuer { issuer } => next.issuers.get(&issuer.id),
            _ => None,
        })
        .map(|issuer| IssuerRow {
            id: issuer.id.clone(),
            state: issuer.state,
            usage: issuer.usage,
            not_after: issuer.not_after,
        })
        .collect();
    touched.dedup_by(|a, b| a.id == b.id);
    touched
}
