//! A small fleet for tests: a root and one node of each role.

use std::sync::{Arc, OnceLock};

use domain::{issuer::Role, registry::Snapshot, time::Timestamp};

use super::{Directory, RootKey, endorse};
use crate::signed::NodeKey;

/// When the tests take place.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Until when the fleet is enrolled.
pub const LATER: Timestamp = Timestamp::from_secs(1_900_000_000);

pub struct Fleet {
    pub root: RootKey,
    pub frontend: NodeKey,
    pub signer: NodeKey,
    pub control: NodeKey,
    pub snapshot: Snapshot,
    pub directory: Directory,
}

impl Fleet {
    pub fn new() -> Self {
        let root = RootKey::generate();
        let [frontend, signer, control] =
            ["frontend-1", "signer-1", "control-1"].map(|name| NodeKey::generate(name.parse().unwrap()));
        let mut snapshot = Snapshot::default();
        for (key, role) in [
            (&frontend, Role::Frontend),
            (&signer, Role::Signer),
            (&control, Role::Control),
        ] {
            let node = endorse(&root, key.node().clone(), role, key.public_key(), NOW, LATER);
            snapshot.nodes.insert(node.id.clone(), Arc::new(node));
        }
        let directory = Directory::new(&root.public_key(), &snapshot).unwrap();
        Self {
            root,
            frontend,
            signer,
            control,
            snapshot,
            directory,
        }
    }

    /// One fleet for all cases of a property.
    pub fn shared() -> &'static Self {
        static FLEET: OnceLock<Fleet> = OnceLock::new();
        FLEET.get_or_init(Self::new)
    }

    /// The directory after a change to one node of the snapshot.
    pub fn with_node(&self, name: &str, change: impl FnOnce(&mut domain::issuer::Node)) -> Directory {
        let mut snapshot = self.snapshot.clone();
        change(Arc::make_mut(snapshot.nodes.get_mut(&name.parse().unwrap()).unwrap()));
        self.directory.next(&snapshot)
    }
}
