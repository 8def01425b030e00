//! This control node's chain of the audit log.

use std::sync::Arc;

use domain::{
    audit::{AuditEvent, AuditLink},
    time::Clock,
};
use store::{Appended, Store};
use tokio::sync::Mutex;
use wire::{audit::link, signed::NodeKey};

use crate::{Order, RegistryError};

/// How many times a link is made again when the chain turned out to be longer than was known.
const ATTEMPTS: u32 = 4;

/// Appends to the chain of one node. One process writes it at a time.
#[derive(Debug)]
pub(crate) struct AuditLog {
    store: Arc<dyn Store>,
    key: Arc<NodeKey>,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

/// What is known of the end of the chain.
#[derive(Debug)]
enum Last {
    Unknown,
    Known(Option<Box<AuditLink>>),
}

impl AuditLog {
    pub(crate) fn new(store: Arc<dyn Store>, key: Arc<NodeKey>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            key,
            clock,
            last: Mutex::new(Last::Unknown),
        }
    }

    /// Records what somebody orders, and what comes of it. It is in the store when this returns.
    pub(crate) async fn record(&self, order: &Order, detail: &str, count: usize) -> Result<(), RegistryError> {
        let mut last = self.last.lock().await;
        for _ in 0..ATTEMPTS {
            // Until the store has said how it went, it is not known where the chain ends.
            let before = match std::mem::replace(&mut *last, Last::Unknown) {
                Last::Known(before) => before,
                Last::Unknown => self.read_last().await?,
            };
            let now = self.clock.now();
            let event = AuditEvent {
                at: now,
                kind: order.kind.into(),
                by: order.by.clone(),
                subject: order.subject.clone(),
                reason: Some(order.reason.clone()),
                count: count as u64,
                detail: detail.into(),
            };
            let link = link(&self.key, before.as_deref(), &[event], now);
            if self.store.append_audit(&link).await? == Appended::Done {
                *last = Last::Known(Some(Box::new(link)));
                return Ok(());
            }
        }
        Err(RegistryError::Contended(ATTEMPTS))
    }

    async fn read_last(&self) -> Result<Option<Box<AuditLink>>, RegistryError> {
        let heads = self.store.audit_heads().await?;
        Ok(heads
            .into_iter()
            .find(|head| head.writer == *self.key.node())
            .map(Box::new))
    }
}
