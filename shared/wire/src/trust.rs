//! Who may say what: the installation root endorses nodes, the registry's snapshot names them, and control nodes sign the chain of
//! revisions from which the snapshot is folded.

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use domain::{
    bytes::{Blob, Digest},
    id::NodeId,
    issuer::{Node, Role},
    registry::{Change, Revision, Snapshot},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::signed::{Context, NodeKey, UnusableKey, sha256, write_json};

/// The greatest body of a revision, in bytes.
pub const MAX_REVISION: usize = 4 << 20;

/// Who speaks in an endorsement. No node can have this name.
const ROOT: &str = "ROOT";

/// The Ed25519 key of the installation root. It endorses nodes and does nothing else.
pub struct RootKey(Ed25519KeyPair);

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

impl RootKey {
    /// A new root.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    pub fn generate() -> Self {
        Self(Ed25519KeyPair::generate().expect("the operating system gives randomness"))
    }

    /// The root from PKCS#8 (RFC 5958).
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, UnusableKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map(Self)
            .map_err(|e| UnusableKey(e.to_string()))
    }

    /// The root as PKCS#8.
    ///
    /// # Panics
    /// Never: a key that exists can be encoded.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(
            self.0
                .to_pkcs8()
                .expect("a key that exists can be encoded")
                .as_ref()
                .to_vec(),
        )
    }

    /// The public half, 32 bytes: what every process is configured with.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
}

/// What the root signs about a node.
#[derive(Serialize)]
struct Endorsement<'a> {
    node: &'a NodeId,
    role: Role,
    public_key: &'a Blob,
    not_before: Timestamp,
    not_after: Timestamp,
}

fn endorsement_bytes(node: &Node) -> Vec<u8> {
    let Node {
        id,
        role,
        public_key,
        not_before,
        not_after,
        endorsement: _,
        revoked: _,
    } = node;
    let statement = Endorsement {
        node: id,
        role: *role,
        public_key,
        not_before: *not_before,
        not_after: *not_after,
    };
    Context::Endorsement.signed_bytes(ROOT, &write_json(&statement))
}

/// Enrols a node: the root's statement that this key may speak in this role during this time.
pub fn endorse(
    root: &RootKey,
    id: NodeId,
    role: Role,
    public_key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Node {
    let mut node = Node {
        id,
        role,
        public_key: public_key.into(),
        not_before,
        not_after,
        endorsement: Blob::default(),
        revoked: false,
    };
    node.endorsement = root.0.sign(&endorsement_bytes(&node)).as_ref().to_vec().into();
    node
}

/// Why a speaker is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody of that name is enrolled, or the root's signature over its enrolment does not hold.
    #[error("node {0} is not enrolled under the installation root")]
    Unknown(NodeId),
    /// Taken out by an operator.
    #[error("node {0} is revoked")]
    Revoked(NodeId),
    /// Outside the time of its enrolment.
    #[error("node {node} was not enrolled at {at:?}; its enrolment must be renewed")]
    Expired {
        /// Who.
        node: NodeId,
        /// When it would have spoken.
        at: Timestamp,
    },
    /// It may not say such a thing.
    #[error("node {node} is a {role:?}, which may not sign a {context:?}")]
    Role {
        /// Who.
        node: NodeId,
        /// What it is.
        role: Role,
        /// What it said.
        context: Context,
    },
    /// The signature does not hold over these bytes.
    #[error("the signature of node {0} does not hold")]
    Signature(NodeId),
}

/// The installation root's public key is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the installation root's public key is not 32 bytes of Ed25519")]
pub struct RootUnusable;

struct Enrolled {
    node: Arc<Node>,
    key: ParsedPublicKey,
}

/// The nodes of a snapshot whose endorsement holds, with their keys parsed. Immutable; [`Directory::next`] makes the one for the next
/// snapshot and verifies only what is new.
#[derive(Clone)]
pub struct Directory {
    root: ParsedPublicKey,
    nodes: HashMap<NodeId, Arc<Enrolled>>,
    refused: Vec<NodeId>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.nodes.keys()).finish()
    }
}

impl Directory {
    /// The directory of a snapshot.
    pub fn new(root_public: &[u8], snapshot: &Snapshot) -> Result<Self, RootUnusable> {
        Ok(Self::empty(root_public)?.next(snapshot))
    }

    /// A directory that knows the root and nobody else.
    pub fn empty(root_public: &[u8]) -> Result<Self, RootUnusable> {
        let root = ed25519(root_public).ok_or(RootUnusable)?;
        Ok(Self {
            root,
            nodes: HashMap::new(),
            refused: Vec::new(),
        })
    }

    /// The directory of another snapshot: enrolments that are here already are not verified again.
    #[must_use]
    pub fn next(&self, snapshot: &Snapshot) -> Self {
        self.with(snapshot.nodes.values())
    }

    fn with<'a>(&self, nodes: impl Iterator<Item = &'a Arc<Node>>) -> Self {
        let mut next = Self {
            root: self.root.clone(),
            nodes: HashMap::new(),
            refused: Vec::new(),
        };
        for node in nodes {
            let known = self.nodes.get(&node.id).filter(|known| *known.node == **node);
            match known.cloned().or_else(|| self.enrol(node).map(Arc::new)) {
                Some(enrolled) => drop(next.nodes.insert(node.id.clone(), enrolled)),
                None => next.refused.push(node.id.clone()),
            }
        }
        next
    }

    fn enrol(&self, node: &Arc<Node>) -> Option<Enrolled> {
        self.root.verify_sig(&endorsement_bytes(node), &node.endorsement).ok()?;
        Some(Enrolled {
            node: node.clone(),
            key: ed25519(&node.public_key)?,
        })
    }

    /// Whether a node of that name is enrolled, revoked or not.
    fn knows(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    /// Nodes of the snapshot that the root did not endorse as they stand: somebody altered them.
    pub fn refused(&self) -> &[NodeId] {
        &self.refused
    }

    /// A node that may say such things at that time.
    fn speaker(&self, context: Context, node: &NodeId, at: Timestamp) -> Result<&Enrolled, Distrust> {
        let enrolled = self.nodes.get(node).ok_or_else(|| Distrust::Unknown(node.clone()))?;
        let Node {
            role,
            not_before,
            not_after,
            revoked,
            ..
        } = &*enrolled.node;
        if *revoked {
            return Err(Distrust::Revoked(node.clone()));
        }
        if at < *not_before || at > *not_after {
            return Err(Distrust::Expired { node: node.clone(), at });
        }
        if !context.may_be_said_by(*role) {
            return Err(Distrust::Role {
                node: node.clone(),
                role: *role,
                context,
            });
        }
        Ok(enrolled)
    }

    /// The public key of a node that may say such things at that time.
    pub(crate) fn public_key(&self, context: Context, node: &NodeId, at: Timestamp) -> Result<&[u8], Distrust> {
        self.speaker(context, node, at)
            .map(|enrolled| &*enrolled.node.public_key)
    }

    /// Verifies that `node` signed `message` in this context, and may do so at `at`.
    pub fn verify(
        &self,
        context: Context,
        node: &NodeId,
        at: Timestamp,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Distrust> {
        self.speaker(context, node, at)?
            .key
            .verify_sig(&context.signed_bytes(node.as_str(), message), signature)
            .map_err(|_| Distrust::Signature(node.clone()))
    }
}

pub(crate) fn ed25519(public_key: &[u8]) -> Option<ParsedPublicKey> {
    if public_key.len() == 32 {
        ParsedPublicKey::new(&ED25519, public_key).ok()
    } else {
        None
    }
}

/// The end of the chain of revisions: what the next one must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Number of the last revision; 0 before the first.
    pub number: u64,
    /// Its hash; zeros before the first.
    pub hash: Digest,
    /// Its time. Times never run backwards along the chain.
    pub at: Timestamp,
}

impl ChainHead {
    /// Before the first revision.
    pub const START: Self = Self {
        number: 0,
        hash: Digest([0; 32]),
        at: Timestamp::from_millis(0),
    };

    /// After this revision.
    pub fn of(revision: &Revision) -> Self {
        Self {
            number: revision.number,
            hash: revision.hash,
            at: revision.at,
        }
    }
}

fn revision_hash(revision: &Revision) -> Digest {
    let Revision {
        number,
        previous,
        body,
        hash: _,
        node,
        signature: _,
        at,
    } = revision;
    let name = node.as_str().as_bytes();
    sha256(&[
        &number.to_be_bytes(),
        &previous.0,
        &at.as_millis().to_be_bytes(),
        &(name.len() as u64).to_be_bytes(),
        name,
        body,
    ])
}

/// Writes and signs the revision that follows `head`. Its time is `at`, or that of the revision before if that is later.
pub fn revision(head: &ChainHead, changes: &[Change], key: &NodeKey, at: Timestamp) -> Revision {
    let mut revision = Revision {
        number: head.number + 1,
        previous: head.hash,
        body: write_json(&changes).into(),
        hash: Digest([0; 32]),
        node: key.node().clone(),
        signature: Blob::default(),
        at: at.max(head.at),
    };
    revision.hash = revision_hash(&revision);
    revision.signature = key.sign(Context::Revision, &revision.hash.0).into();
    revision
}

/// Why a revision is not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// Its number does not follow.
    #[error("revision {found} does not follow revision {head}")]
    Gap {
        /// The end of the chain so far.
        head: u64,
        /// What came.
        found: u64,
    },
    /// It follows another chain.
    #[error("revision {0} does not continue this chain: the hash of the revision before is another")]
    Fork(u64),
    /// Its time lies before that of the revision before.
    #[error("revision {0} is older than the one before it")]
    Backwards(u64),
    /// Its body is over [`MAX_REVISION`].
    #[error("revision {0} is larger than {MAX_REVISION} bytes")]
    TooLarge(u64),
    /// Some of it is not what was hashed.
    #[error("revision {0} was altered: its hash does not fit")]
    Altered(u64),
    /// Its signer is not believed.
    #[error("revision {number}: {reason}")]
    Distrusted {
        /// Which.
        number: u64,
        /// Why.
        reason: Distrust,
    },
    /// It holds a change that this program does not know. Signed all the same: the program is too old.
    #[error(
        "revision {number} cannot be read, so this program is older than the registry and must be updated: {detail}"
    )]
    Unreadable {
        /// Which.
        number: u64,
        /// What is wrong.
        detail: String,
    },
}

/// Verifies that a revision continues the chain and that a control node signed it, then reads its changes.
///
/// The directory is that of the state before. A control node that nobody knows yet enrols itself by the first revision that it signs,
/// the very first one above all: that one is judged by the endorsement within it, which the installation root has signed.
pub fn verify_revision(
    revision: &Revision,
    head: &ChainHead,
    directory: &Directory,
) -> Result<Vec<Change>, RevisionError> {
    let number = revision.number;
    if number != head.number + 1 {
        return Err(RevisionError::Gap {
            head: head.number,
            found: number,
        });
    }
    if revision.previous != head.hash {
        return Err(RevisionError::Fork(number));
    }
    if revision.at < head.at {
        return Err(RevisionError::Backwards(number));
    }
    if revision.body.len() > MAX_REVISION {
        return Err(RevisionError::TooLarge(number));
    }
    if revision.hash != revision_hash(revision) {
        return Err(RevisionError::Altered(number));
    }
    let read = || -> Result<Vec<Change>, RevisionError> {
        serde_json::from_slice(&revision.body).map_err(|e| RevisionError::Unreadable {
            number,
            detail: e.to_string(),
        })
    };
    let verify = |directory: &Directory| {
        directory
            .verify(
                Context::Revision,
                &revision.node,
                revision.at,
                &revision.hash.0,
                &revision.signature,
            )
            .map_err(|reason| RevisionError::Distrusted { number, reason })
    };
    if directory.knows(&revision.node) {
        verify(directory)?;
        return read();
    }
    let changes = read()?;
    let own = changes.iter().filter_map(|change| match change {
        Change::PutNode { node } if node.id == revision.node => Some(Arc::new(node.clone())),
        _ => None,
    });
    let own: Vec<_> = own.collect();
    verify(&directory.with(own.iter()))?;
    Ok(changes)
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
