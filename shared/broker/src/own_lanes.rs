//! Which lanes have queues of their own, shared between an adapter and whoever settles it.

use std::{collections::BTreeSet, sync::Arc};

use domain::lane::{Carrier, Lane};
use tokio::sync::watch;

/// The lanes with queues of their own (`domain::lane::own_lanes`). Clones share everything; it starts empty.
#[derive(Debug, Clone, Default)]
pub struct OwnLanes(Arc<watch::Sender<BTreeSet<Lane>>>);

impl OwnLanes {
    /// Settles it anew. Inboxes that are open follow.
    pub fn settle(&self, lanes: BTreeSet<Lane>) {
        self.0.send_if_modified(|before| {
            let changed = *before != lanes;
            *before = lanes;
            changed
        });
    }

    /// How a lane's jobs travel now.
    pub fn carrier(&self, lane: &Lane) -> Carrier {
        if self.0.borrow().contains(lane) {
            Carrier::Own
        } else {
            Carrier::Ledger
        }
    }

    /// Tells of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeSet<Lane>> {
        self.0.subscribe()
    }
}
