//! What control does without being asked by an operator: enrol, publish token keys, block keys, follow renewed certificates.

use domain::{
    bytes::Digest,
    id::{NodeId, OperatorId},
    issuer::{Node, Operator, OperatorRole, TokenKey},
    registry::{Change, Snapshot},
};

use crate::{Order, Registry, RegistryError};

/// Token keys that one node has at a time: the one it signs with, and the one before.
const TOKEN_KEYS: usize = 2;

impl Registry {
    /// Makes sure that these nodes are enrolled as they stand and that these operators are known by these certificates: the first
    /// revision of an installation, nothing on every other start.
    ///
    /// The first revision enrols the control node that signs it, which must be among `nodes`. A new operator is a security officer.
    pub async fn enrol(&self, nodes: &[Node], operators: &[(OperatorId, Digest)]) -> Result<u64, RegistryError> {
        let order = self.own_order("nodes_enrolled", "installation", "start of the program");
        let committed = self
            .commit(&order, |snapshot: &Snapshot| {
                let nodes = nodes.iter().filter(|node| differs(snapshot, node)).cloned();
                let nodes = nodes.map(|node| Change::PutNode { node });
                let operators = operators
                    .iter()
                    .filter_map(|(id, certificate)| known_by(snapshot, id, *certificate));
                let operators = operators.map(|operator| Change::PutOperator { operator });
                Ok(nodes.chain(operators).collect())
            })
            .await?;
        Ok(committed.revision)
    }

    /// The enrolment of a node, if there is one.
    pub async fn node(&self, id: &NodeId) -> Result<Option<Node>, RegistryError> {
        Ok(self.current().await?.nodes.get(id).map(|node| (**node).clone()))
    }

    /// Takes in the public half of a key with which a front end signs bearer tokens, and forgets those of the same node that have run
    /// out or are older than the one before.
    pub async fn publish_token_key(&self, key: TokenKey) -> Result<(), RegistryError> {
        let order = self.own_order("token_key_published", &format!("node:{}", key.node), "rotation");
        let now = self.clock.now();
        self.commit(&order, |snapshot: &Snapshot| {
            if snapshot.token_keys.get(&key.id).is_some_and(|known| **known == key) {
                return Ok(Vec::new());
            }
            let mut others: Vec<_> = snapshot
                .token_keys
                .values()
                .filter(|other| other.node == key.node && other.id != key.id)
                .collect();
            others.sort_by_key(|other| std::cmp::Reverse(other.not_after));
            let stays =
                |(place, other): &(usize, &std::sync::Arc<TokenKey>)| *place < TOKEN_KEYS - 1 && other.not_after > now;
            let gone = others.iter().copied().enumerate().filter(|other| !stays(other));
            let mut changes: Vec<_> = gone
                .map(|(_, other)| Change::RemoveTokenKey { id: other.id.clone() })
                .collect();
            changes.push(Change::PutTokenKey { key: key.clone() });
            Ok(changes)
        })
        .await
        .map(drop)
    }

    /// Blocks a public key (SHA-256 of its SPKI) for ever.
    pub async fn block_key(&self, spki: Digest, reason: &str) -> Result<(), RegistryError> {
        let order = self.own_order("key_blocked", &format!("spki:{spki:?}"), reason);
        self.commit(&order, |snapshot: &Snapshot| {
            let blocked = snapshot.blocked_keys.contains(&spki);
            Ok(if blocked {
                Vec::new()
            } else {
                vec![Change::BlockKey { spki }]
            })
        })
        .await
        .map(drop)
    }

    /// Lets every account and operator that was known by one client certificate be known by the one that renewed it.
    pub async fn renew_certificate(&self, before: Digest, now: Digest) -> Result<(), RegistryError> {
        let order = self.own_order(
            "client_certificate_renewed",
            &format!("certificate:{before:?}"),
            "renewal",
        );
        let renew = |certificates: &[Digest]| -> Option<Vec<Digest>> {
            certificates.contains(&before).then(|| {
                let mut renewed: Vec<_> = certificates.iter().copied().filter(|known| *known != before).collect();
                renewed.push(now);
                renewed
            })
        };
        self.commit(&order, |snapshot: &Snapshot| {
            let accounts = snapshot.accounts.values().filter_map(|account| {
                let mut next = (**account).clone();
                next.client_certificates = renew(&account.client_certificates)?;
                Some(Change::PutAccount {
                    account: Box::new(next),
                })
            });
            let operators = snapshot.operators.values().filter_map(|operator| {
                let mut next = (**operator).clone();
                next.client_certificates = renew(&operator.client_certificates)?;
                Some(Change::PutOperator { operator: next })
            });
            Ok(accounts.chain(operators).collect())
        })
        .await
        .map(drop)
    }

    pub(crate) fn own_order(&self, kind: &'static str, subject: &str, reason: &str) -> Order {
        Order {
            by: format!("node:{}", self.node_key.node()),
            kind,
            subject: subject.into(),
            reason: reason.into(),
        }
    }
}

/// A revoked node stays revoked, whatever its process would like.
fn differs(snapshot: &Snapshot, node: &Node) -> bool {
    snapshot
        .nodes
        .get(&node.id)
        .is_none_or(|known| **known != *node && !known.revoked)
}

/// The operator as it must be registered; nothing if it is.
fn known_by(snapshot: &Snapshot, id: &OperatorId, certificate: Digest) -> Option<Operator> {
    let known = snapshot.operators.get(id);
    if known.is_some_and(|known| known.client_certificates.contains(&certificate)) {
        return None;
    }
    Some(Operator {
        id: id.clone(),
        role: known.map_or(OperatorRole::SecurityOfficer, |known| known.role),
        client_certificates: vec![certificate],
    })
}
