//! The first revision of an installation, and what every start makes sure of.

use domain::{
    id::NodeId,
    issuer::{Node, Operator},
    registry::{Change, Snapshot},
};

use crate::{Order, Registry, RegistryError};

impl Registry {
    /// Makes sure that these nodes and operators are registered as they stand: the first revision of a new installation, the
    /// renewal of an enrolment or of an operator's certificate later, nothing on every other start.
    ///
    /// The first revision enrols the control node that signs it; it must be among `nodes`.
    pub async fn enrol(&self, nodes: &[Node], operators: &[Operator]) -> Result<u64, RegistryError> {
        let order = Order {
            by: format!("node:{}", self.node_key.node()),
            kind: "nodes_enrolled",
            subject: "installation".into(),
            reason: "start of the program".into(),
        };
        let committed = self
            .commit(&order, |snapshot: &Snapshot| {
                let nodes = nodes.iter().filter(|node| differs(snapshot, node)).cloned();
                let operators = operators
                    .iter()
                    .filter(|operator| {
                        snapshot
                            .operators
                            .get(&operator.id)
                            .is_none_or(|known| **known != **operator)
                    })
                    .cloned();
                let nodes = nodes.map(|node| Change::PutNode { node });
                Ok(nodes
                    .chain(operators.map(|operator| Change::PutOperator { operator }))
                    .collect())
            })
            .await?;
        Ok(committed.revision)
    }

    /// The enrolment of a node, if there is one.
    pub async fn node(&self, id: &NodeId) -> Result<Option<Node>, RegistryError> {
        Ok(self.current().await?.nodes.get(id).map(|node| (**node).clone()))
    }
}

/// A revoked node stays revoked, whatever its process would like.
fn differs(snapshot: &Snapshot, node: &Node) -> bool {
    snapshot
        .nodes
        .get(&node.id)
        .is_none_or(|known| **known != *node && !known.revoked)
}
