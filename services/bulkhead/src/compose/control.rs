//! What control has beside a ledger: the installation root, the access CA, the registry. Each step is safe to repeat, so that a start
//! that was killed half-way is simply started again.

use std::{sync::Arc, time::Duration};

use domain::{
    id::OperatorId,
    issuer::{Node, Role},
    registry::Snapshot,
    time::{Clock, Timestamp},
};
use keys::Keys;
use registry::{Enrolment, Parts, Registry, RegistryError};
use runtime::{
    access_ca::{AccessCa, Issued},
    config::Accounts,
    data_dir::DataDir,
};
use wire::{
    signed::NodeKey,
    trust::{RootKey, endorse},
};

use super::{Context, renewal};
use crate::failure::{Failure, Outcome};

/// Client certificate of the demo accounts.
const CLIENT: &str = "demo";
/// Operators of a new installation.
const OPERATORS: [&str; 2] = ["alice", "bob"];
/// How far an enrolment reaches back, for clocks that are slow.
const SKEW: Duration = Duration::from_mins(5);

/// What a control process has, and a process that is everything.
#[derive(Debug)]
pub struct Control {
    pub registry: Arc<Registry>,
    pub access: Access,
    pub(super) limits: Accounts,
    pub(super) nodes: Nodes,
}

/// The nodes of this process, control's among them, and the root that endorses them.
#[derive(Debug)]
pub(super) struct Nodes {
    root: Arc<RootKey>,
    nodes: Vec<(Arc<NodeKey>, Role)>,
}

/// Who this process is towards clients and operators.
#[derive(Debug)]
pub struct Access {
    pub ca: Arc<AccessCa>,
    pub server: Issued,
    pub client: Issued,
    /// Operators whose certificates are here.
    pub operators: Vec<(OperatorId, Issued)>,
}

/// What control is made of.
#[derive(Debug)]
pub struct Founding {
    /// The installation root.
    pub root: RootKey,
    /// The nodes of this process; control's is the first.
    pub nodes: Vec<(Arc<NodeKey>, Role)>,
    /// Tokens of this process.
    pub keys: Vec<Arc<dyn Keys>>,
    /// Base of the URLs in certificates of new issuers.
    pub public_url: String,
    /// By which names and addresses this process is called.
    pub names: Vec<String>,
    /// Whether this process is the whole installation: it has nobody to enrol, and makes operators' certificates anew that are missing.
    pub sole: bool,
}

impl Control {
    /// Opens what is in the directory and makes what is not, enrols this process's nodes, and makes the operators of a new installation.
    pub async fn open(context: &Context, data: &DataDir, founding: Founding) -> Outcome<Self> {
        let Founding {
            root,
            nodes,
            keys,
            public_url,
            names,
            sole,
        } = founding;
        let now = context.process.clock.now();
        let ca = AccessCa::open_or_create(&data.file("access"), now).map_err(Failure::failed)?;
        let (ca, root) = (Arc::new(ca), Arc::new(root));
        let enrolment = Enrolment {
            root: root.clone(),
            ca: ca.clone(),
            life: context.process.config.registry.enrolment,
        };
        let registry = Arc::new(Registry::new(Parts {
            store: context.store.clone(),
            node_key: nodes[0].0.clone(),
            keys,
            clock: context.process.clock.clone(),
            public_url,
            archive: data.file("history"),
            follower: context.follower.clone(),
            // Whoever is everything has nobody to enrol.
            enrolment: (!sole).then_some(enrolment),
        }));
        let nodes = Nodes { root, nodes };
        nodes.enrol(context, &registry).await.map_err(Failure::failed)?;
        // Before the certificates are used: whoever was known by the old one must be known by the new one.
        renewal::renew_access(&ca, &registry, now).await?;
        let snapshot = context.follower.applied().load().snapshot.clone();
        let makes_operators = sole || snapshot.operators.is_empty();
        let access = Access::provide(ca, &names, makes_operators, now)?;
        let operators: Vec<_> = access
            .operators
            .iter()
            .map(|(id, issued)| (id.clone(), issued.fingerprint))
            .collect();
        registry.enrol(&[], &operators).await.map_err(Failure::failed)?;
        Ok(Self {
            registry,
            access,
            limits: context.process.config.accounts.clone(),
            nodes,
        })
    }
}

impl Access {
    fn provide(ca: Arc<AccessCa>, names: &[String], makes_operators: bool, now: Timestamp) -> Outcome<Self> {
        let operators = OPERATORS
            .iter()
            .filter(|name| makes_operators || ca.has_operator(name))
            .map(|name| {
                let issued = ca.operator(name, now).map_err(Failure::failed)?;
                Ok((name.parse().expect("operators' names are names"), issued))
            });
        Ok(Self {
            operators: operators.collect::<Outcome<_>>()?,
            server: ca.server(names, now).map_err(Failure::failed)?,
            client: ca.client(CLIENT, now).map_err(Failure::failed)?,
            ca,
        })
    }
}

impl Nodes {
    /// Enrols them, or enrols again those whose enrolment ends soon.
    pub(super) async fn enrol(&self, context: &Context, registry: &Registry) -> Result<(), RegistryError> {
        let now = context.process.clock.now();
        let snapshot = context.follower.applied().load().snapshot.clone();
        let life = context.process.config.registry.enrolment;
        registry.enrol(&self.due(&snapshot, life, now), &[]).await.map(drop)
    }

    /// The nodes as they must be enrolled: as they are, unless their enrolment is missing or ends soon.
    fn due(&self, snapshot: &Snapshot, life: Duration, now: Timestamp) -> Vec<Node> {
        self.nodes
            .iter()
            .map(|(key, role)| match snapshot.nodes.get(key.node()) {
                Some(node) if node.revoked || node.not_after > now + life / 3 => (**node).clone(),
                known => {
                    // What was said under the old enrolment stays believable under the new one.
                    let not_before = known.map_or(now - SKEW, |node| node.not_before);
                    endorse(
                        &self.root,
                        key.node().clone(),
                        *role,
                        key.public_key(),
                        not_before,
                        now + life,
                    )
                }
            })
            .collect()
    }
}
