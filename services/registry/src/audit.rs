//! This control node's chain of the audit log.

use std::sync::Arc;

use domain::time::Clock;
use store::{Appended, Store};
use tokio::sync::Mutex;
use wire::{
    audit::{AuditEvent, AuditHead, link},
    signed::NodeKey,
};

use crate::{Order, RegistryError};

/// How many times a link is made again when the chain turned out to be longer than was known.
const ATTEMPTS: u32 = 4;

/// Appends to the chain of one node. One process writes it at a time.
#[derive(Debug)]
pub(crate) struct AuditLog {
    store: Arc<dyn Store>,
    key: Arc<NodeKey>,
    clock: Arc<dyn Clock>,
    /// The end of the chain, once it was read.
    head: Mutex<Option<AuditHead>>,
}

impl AuditLog {
    pub(crate) fn new(store: Arc<dyn Store>, key: Arc<NodeKey>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            key,
            clock,
            head: Mutex::new(None),
        }
    }

    /// Records what somebody orders, and what comes of it. It is in the store when this returns.
    pub(crate) async fn record(&self, order: &Order, outcome: &str, count: usize) -> Result<(), RegistryError> {
        let mut known = self.head.lock().await;
        for _ in 0..ATTEMPTS {
            let head = match *known {
                Some(head) => head,
                None => self.read_head().await?,
            };
            let now = self.clock.now();
            let event = AuditEvent {
                at: now,
                by: order.by.clone(),
                action: order.action.into(),
                target: order.target.clone(),
                reason: order.reason.clone(),
                outcome: outcome.into(),
                count: count as u64,
            };
            let link = link(&head, &[event], &self.key, now);
            let next = link.head();
            let row = store::AuditLink {
                writer: link.writer.to_string(),
                sequence: link.sequence,
                at: link.at,
                previous: link.previous,
                events: link.events,
                hash: link.hash,
                signature: link.signature.0,
            };
            // Until the store says otherwise it is not known where the chain ends.
            *known = None;
            if self.store.append_audit(&row).await? == Appended::Done {
                *known = Some(next);
                return Ok(());
            }
        }
        Err(RegistryError::Contended(ATTEMPTS))
    }

    async fn read_head(&self) -> Result<AuditHead, RegistryError> {
        let heads = self.store.audit_heads().await?;
        let own = heads.into_iter().find(|head| head.writer == self.key.node().as_str());
        Ok(own.map_or(AuditHead::START, |head| AuditHead {
            sequence: head.sequence,
            hash: head.hash,
            at: head.at,
        }))
    }
}
