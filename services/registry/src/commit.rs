//! How the registry changes: a plan made on the state at the head, signed, chained, audited and appended; made again if somebody
//! else was faster.

use std::sync::Arc;

use domain::registry::{Change, Revision, Snapshot};
use store::{Appended, IssuerRow, StoreError};
use wire::{
    admin::Changed,
    trust::{MAX_REVISION, verify_revision},
};

use crate::{Registry, RegistryError};

/// How many times a plan is made again when other control nodes were faster.
const ATTEMPTS: u32 = 16;

/// Who changes something, what they call it, and why: the line in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who: `operator:alice`, `node:control-1`.
    pub by: String,
    /// What: `issuer_disabled`.
    pub kind: &'static str,
    /// To what: `issuer:demo-p256`.
    pub subject: String,
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

impl Registry {
    /// The state at the head of the chain, read from the store and verified now.
    pub async fn current(&self) -> Result<Arc<Snapshot>, RegistryError> {
        self.follower.catch_up().await?;
        Ok(self.follower.applied().load().snapshot.clone())
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
        let _one_at_a_time = self.turn.lock().await;
        for _ in 0..ATTEMPTS {
            self.follower.catch_up().await?;
            let applied = self.follower.applied().load_full();
            let changes = plan(&applied.snapshot)?;
            if changes.is_empty() {
                return Ok(Committed {
                    revision: applied.revision(),
                    snapshot: applied.snapshot.clone(),
                    changed: false,
                });
            }
            let next = applied.snapshot.next(&changes)?;
            let revision = wire::trust::revision(&applied.head, &changes, &self.node_key, self.clock.now());
            if revision.body.len() > MAX_REVISION {
                return Err(RegistryError::Invalid(format!(
                    "the change is larger than {MAX_REVISION} bytes; make it in several steps"
                )));
            }
            // What nobody would believe must never get into the chain: it would stop everybody who follows it.
            verify_revision(&revision, &applied.head, &applied.directory)
                .map_err(|error| RegistryError::Trust(error.to_string()))?;
            let detail = format!("revision {} {:?}", revision.number, revision.hash);
            self.audit.record(order, &detail, changes.len()).await?;
            match self.append(&revision, &rows(&next, &changes)).await? {
                Appended::Done => {}
                Appended::Conflict(_) => continue,
            }
            self.follower.catch_up().await?;
            return Ok(Committed {
                revision: revision.number,
                snapshot: Arc::new(next),
                changed: true,
            });
        }
        Err(RegistryError::Contended(ATTEMPTS))
    }

    /// Appends; when it is not known how that went, looks.
    async fn append(&self, revision: &Revision, rows: &[IssuerRow]) -> Result<Appended, RegistryError> {
        match self.store.append_revision(revision, rows).await {
            Err(StoreError::OutcomeUnknown(_)) => {}
            known => return Ok(known?),
        }
        let found = self.store.revisions(revision.number - 1, 1).await?;
        match found.first() {
            Some(found) if found.hash == revision.hash => Ok(Appended::Done),
            Some(_) => Ok(Appended::Conflict(revision.number)),
            None => Ok(self.store.append_revision(revision, rows).await?),
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
