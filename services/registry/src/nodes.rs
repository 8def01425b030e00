//! Nodes of other machines: inviting them, enrolling them, and doing what they ask.

use std::{sync::Arc, time::Duration};

use domain::{
    id::NodeId,
    issuer::{Invitation, Node, Role},
    registry::{Change, Snapshot},
    time::Timestamp,
};
use runtime::access_ca::{AccessCa, AccessCaError, names_and_due};
use wire::{
    enrol::{Code, Enrol, Enrolled, Invite, Invited, NodeAnswer, NodeRequest, VERSION, open_request},
    trust::{RootKey, endorse},
};

use crate::{Order, Registry, RegistryError};

/// How long a code may be good for.
const CODE_LIFE: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;
/// Invitations that are open at a time.
const MOST_INVITATIONS: usize = 1_000;
/// Names that a node may have.
const MOST_NAMES: usize = 100;
/// How far an enrolment reaches back, for clocks that are slow.
const SKEW: Duration = Duration::from_mins(5);

/// With what control enrols others. A process that is everything has nobody to enrol.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The installation root.
    pub root: Arc<RootKey>,
    /// The access CA.
    pub ca: Arc<AccessCa>,
    /// How long an enrolment lasts.
    pub life: Duration,
}

impl Registry {
    fn enrolment(&self) -> Result<&Enrolment, RegistryError> {
        self.enrolment.as_ref().ok_or_else(|| {
            RegistryError::State(
                "this installation is one process and has nobody to enrol; see `bulkhead config sample --role control`"
                    .into(),
            )
        })
    }

    /// Invites a node. The code is in the answer and nowhere else; an earlier one for the same node is void.
    pub async fn invite_node(&self, by: &str, invite: Invite) -> Result<Invited, RegistryError> {
        let ca = &self.enrolment()?.ca;
        let Invite {
            node,
            role,
            names,
            seconds,
            reason,
        } = invite;
        if role == Role::Control {
            return Err(RegistryError::Invalid(
                "role: a control process enrols itself, with a copy of the first one's identity/root.pem and access/ca*.pem".into(),
            ));
        }
        if names.len() > MOST_NAMES || (role == Role::Signer && !names.is_empty()) {
            return Err(RegistryError::Invalid(format!(
                "names: a front end may have {MOST_NAMES}, and a signer, to which nobody connects, none"
            )));
        }
        for name in &names {
            AccessCa::check_name(name).map_err(|error| certifying(&error))?;
        }
        if !CODE_LIFE.contains(&seconds) {
            return Err(RegistryError::Invalid(format!(
                "seconds: write {} to {}",
                CODE_LIFE.start(),
                CODE_LIFE.end()
            )));
        }
        let code = Code::generate(ca.fingerprint().map_err(|error| certifying(&error))?);
        let now = self.clock.now();
        let invitation = Invitation {
            node: node.clone(),
            role,
            names,
            code: code.secret.digest(),
            not_after: now + Duration::from_secs(seconds),
        };
        let order = Order {
            by: by.into(),
            kind: "node_invited",
            subject: format!("node:{node}"),
            reason,
        };
        self.commit(&order, |snapshot: &Snapshot| {
            let known = snapshot.nodes.get(&node);
            if known.is_some_and(|known| known.revoked || known.role != role) {
                return Err(RegistryError::State(format!(
                    "node {node} is revoked or has another role; choose another name"
                )));
            }
            let open = snapshot.invitations.values();
            let (over, open): (Vec<_>, Vec<_>) = open.partition(|open| open.not_after < now);
            if open.len() >= MOST_INVITATIONS {
                return Err(RegistryError::State(format!(
                    "{MOST_INVITATIONS} invitations are open; wait until some have run out"
                )));
            }
            let over = over.into_iter().map(|over| Change::RemoveInvitation {
                node: over.node.clone(),
            });
            let mut changes: Vec<_> = over.collect();
            changes.push(Change::PutInvitation {
                invitation: invitation.clone(),
            });
            Ok(changes)
        })
        .await?;
        Ok(Invited {
            code: code.text().to_string(),
            not_after: invitation.not_after,
            node,
            role,
        })
    }

    /// Enrols a node that shows the code of an open invitation. The code is used up by the same revision that enrols the node.
    pub async fn enrol_node(&self, request: Enrol) -> Result<Enrolled, RegistryError> {
        let Enrolment { root, ca, life } = self.enrolment()?;
        if request.version != VERSION {
            return Err(RegistryError::Invalid(format!(
                "version: this side knows {VERSION}; update the older program"
            )));
        }
        if !request.is_proven() {
            return Err(RegistryError::Forbidden(
                "the request is not signed by the key that it names".into(),
            ));
        }
        let now = self.clock.now();
        let invitation = invitation(&*self.current().await?, &request, now)?;
        // First of all: what cannot be certified must not use up the code.
        let serves = (request.role == Role::Frontend).then_some(&*invitation.names);
        let certificate = ca
            .node(&request.node, serves, &request.csr, now)
            .map_err(|error| certifying(&error))?;
        let order = Order {
            by: format!("node:{}", request.node),
            kind: "node_enrolled",
            subject: format!("node:{}", request.node),
            reason: "invitation".into(),
        };
        let committed = self
            .commit(&order, |snapshot: &Snapshot| {
                self::invitation(snapshot, &request, now)?;
                let known = snapshot.nodes.get(&request.node);
                if known.is_some_and(|known| known.revoked || known.public_key != request.public_key) {
                    return Err(RegistryError::State(format!(
                        "node {} was enrolled with another key, by which what it said is still verified; choose another name",
                        request.node
                    )));
                }
                let not_before = known.map_or(now - SKEW, |known| known.not_before);
                let node = endorse(
                    root,
                    request.node.clone(),
                    request.role,
                    request.public_key.to_vec(),
                    not_before,
                    now + *life,
                );
                let used = Change::RemoveInvitation {
                    node: request.node.clone(),
                };
                Ok(vec![used, Change::PutNode { node }])
            })
            .await?;
        Ok(Enrolled {
            node: (*committed.snapshot.nodes[&request.node]).clone(),
            root: root.public_key().into(),
            certificate,
            access_ca: ca.certificate_pem().map_err(|error| certifying(&error))?,
        })
    }

    /// Does what an enrolled node asks. `connection` is the access certificate of its connection, DER.
    pub async fn node_request(&self, sealed: &[u8], connection: &[u8]) -> Result<NodeAnswer, RegistryError> {
        self.current().await?;
        let applied = self.follower.applied().load_full();
        let now = self.clock.now();
        let (node, request) = open_request(&applied.directory, now, sealed)
            .map_err(|error| RegistryError::Forbidden(error.to_string()))?;
        let role = applied.snapshot.nodes.get(&node).map(|node| node.role);
        if !role.is_some_and(|role| request.may_be_asked_by(role)) {
            return Err(RegistryError::Forbidden(format!("node {node} may not ask this")));
        }
        match request {
            NodeRequest::PublishTokenKey { key } if key.node != node => Err(RegistryError::Forbidden(format!(
                "node {node} has no keys of {}",
                key.node
            ))),
            NodeRequest::PublishTokenKey { key } => self.publish_token_key(key).await.map(|()| NodeAnswer::Done),
            NodeRequest::BlockKey { spki } => {
                let reason = format!("reported compromised to {node}");
                self.block_key(spki, &reason).await.map(|()| NodeAnswer::Done)
            }
            NodeRequest::Renew { csr } => {
                self.renew_node(&node, role == Some(Role::Frontend), &csr, connection)
                    .await
            }
        }
    }

    async fn renew_node(
        &self,
        node: &NodeId,
        serves: bool,
        csr: &str,
        connection: &[u8],
    ) -> Result<NodeAnswer, RegistryError> {
        let Enrolment { root, ca, life } = self.enrolment()?;
        let now = self.clock.now();
        // It keeps the names it has, and nobody gets any that he did not have.
        let names = names_and_due(connection, now).map_err(RegistryError::Invalid)?.0;
        let certificate = ca
            .node(node, serves.then_some(&*names), csr, now)
            .map_err(|error| certifying(&error))?;
        let order = self.own_order("node_renewed", &format!("node:{node}"), "renewal");
        self.commit(&order, |snapshot: &Snapshot| {
            let known = snapshot.nodes.get(node).filter(|known| !known.revoked);
            let known =
                known.ok_or_else(|| RegistryError::Forbidden(format!("node {node} is not enrolled any more")))?;
            Ok(if known.not_after > now + *life / 3 {
                Vec::new()
            } else {
                vec![Change::PutNode {
                    node: endorsed_again(root, known, now + *life),
                }]
            })
        })
        .await?;
        Ok(NodeAnswer::Renewed { certificate })
    }
}

/// What was said under the old enrolment stays believable under the new one.
fn endorsed_again(root: &RootKey, known: &Node, not_after: Timestamp) -> Node {
    endorse(
        root,
        known.id.clone(),
        known.role,
        known.public_key.to_vec(),
        known.not_before,
        not_after,
    )
}

/// The open invitation whose code the request shows.
fn invitation(snapshot: &Snapshot, request: &Enrol, now: Timestamp) -> Result<Arc<Invitation>, RegistryError> {
    let ask = "ask an operator for another (`bulkhead node invite`)";
    let open = snapshot.invitations.get(&request.node);
    let open = open
        .filter(|open| open.code == request.secret.digest())
        .ok_or_else(|| {
            RegistryError::Forbidden(format!(
                "the code is none that is open for node {}: it is another's, was used or replaced; {ask}",
                request.node
            ))
        })?;
    if now > open.not_after {
        return Err(RegistryError::Forbidden(format!("the code has run out; {ask}")));
    }
    if open.role != request.role {
        return Err(RegistryError::Forbidden(format!(
            "the code is for a node of another role; correct node.role, or {ask}"
        )));
    }
    Ok(open.clone())
}

fn certifying(error: &AccessCaError) -> RegistryError {
    match error {
        AccessCaError::Name { .. } | AccessCaError::Make { .. } => RegistryError::Invalid(error.to_string()),
        AccessCaError::File(_) => RegistryError::Internal(error.to_string()),
    }
}
