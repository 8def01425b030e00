//! Messages signed by a node: what is signed, how it is packed, and how it is opened again.
//!
//! A sealed message is, in bytes: `BH`, the version of this packing, the length of the node's name, the name, 64 bytes of Ed25519
//! signature, the body. The signature covers a context string, the node's name and the body as it travels, so a message of one kind
//! never passes for another kind, and nothing of the body is parsed before it is verified.

use aws_lc_rs::{
    digest, hkdf,
    signature::{Ed25519KeyPair, KeyPair},
};
use bytes::Bytes;
use domain::{bytes::Digest, id::NodeId, issuer::Role, time::Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::trust::{Directory, Distrust};

/// The only version of the packing so far.
pub const VERSION: u8 = 1;

/// The greatest sealed message that is looked at, in bytes.
pub const MAX_SEALED: usize = 1 << 20;

const MAGIC: &[u8; 2] = b"BH";
const SIGNATURE: usize = 64;

/// SHA-256.
pub(crate) fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest(bytes)
}

/// What a signature is about. Each has a string of its own in the signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    /// A batch of statements about accepted jobs ([`crate::attest`]).
    Statement,
    /// Jobs for signers ([`crate::envelope`]).
    Envelope,
    /// Answers for a front end ([`crate::answer`]).
    Answer,
    /// A revision of the registry ([`crate::trust`]).
    Revision,
    /// The enrolment of a node, by the installation root alone ([`crate::trust`]).
    Endorsement,
    /// A link of an audit chain.
    Audit,
    /// What a process tells about itself: role, version, revision applied, keys held.
    Announcement,
    /// What control orders the others to do.
    Order,
    /// What a node asks of control ([`crate::enrol`]).
    Request,
}

impl Context {
    /// Every context.
    pub const ALL: [Self; 9] = [
        Self::Statement,
        Self::Envelope,
        Self::Answer,
        Self::Revision,
        Self::Endorsement,
        Self::Audit,
        Self::Announcement,
        Self::Order,
        Self::Request,
    ];

    /// The string that goes into the signed bytes.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Statement => "bulkhead statement v1",
            Self::Envelope => "bulkhead envelope v1",
            Self::Answer => "bulkhead answer v1",
            Self::Revision => "bulkhead revision v1",
            Self::Endorsement => "bulkhead endorsement v1",
            Self::Audit => "bulkhead audit v1",
            Self::Announcement => "bulkhead announcement v1",
            Self::Order => "bulkhead order v1",
            Self::Request => "bulkhead request v1",
        }
    }

    /// Whether a node of this role may say such a thing. Endorsements come from the installation root, never from a node.
    pub const fn may_be_said_by(self, role: Role) -> bool {
        match self {
            Self::Statement | Self::Envelope => matches!(role, Role::Frontend),
            Self::Answer => matches!(role, Role::Signer),
            Self::Revision | Self::Order => matches!(role, Role::Control),
            Self::Audit | Self::Announcement | Self::Request => true,
            Self::Endorsement => false,
        }
    }

    /// The bytes that a signature covers: label, NUL, speaker, NUL, message. Neither label nor name contains a NUL.
    pub(crate) fn signed_bytes(self, speaker: &str, message: &[u8]) -> Vec<u8> {
        let label = self.label().as_bytes();
        let mut bytes = Vec::with_capacity(label.len() + speaker.len() + message.len() + 2);
        bytes.extend_from_slice(label);
        bytes.push(0);
        bytes.extend_from_slice(speaker.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(message);
        bytes
    }
}

/// A private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Ed25519 private key in PKCS#8: {0}")]
pub struct UnusableKey(pub(crate) String);

/// The Ed25519 key of a node: what a process speaks with.
pub struct NodeKey {
    node: NodeId,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({})", self.node)
    }
}

impl NodeKey {
    /// A new key for `node`.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    pub fn generate(node: NodeId) -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system gives randomness");
        Self { node, pair }
    }

    /// The key of `node` from PKCS#8 (RFC 5958, with or without the public key).
    pub fn from_pkcs8(node: NodeId, pkcs8: &[u8]) -> Result<Self, UnusableKey> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|e| UnusableKey(e.to_string()))?;
        Ok(Self { node, pair })
    }

    /// The key as PKCS#8.
    ///
    /// # Panics
    /// Never: a key that exists can be encoded.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = self.pair.to_pkcs8().expect("a key that exists can be encoded");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// Another key that follows from this one, for a purpose and a number (HKDF, RFC 5869): nobody else can make it, and from it nobody
    /// comes back to this one.
    pub(crate) fn derived(&self, purpose: &str, number: &[u8]) -> Ed25519KeyPair {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose.as_bytes()).extract(&self.to_pkcs8());
        let mut derived = Zeroizing::new([0; 32]);
        prk.expand(&[number], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *derived))
            .expect("32 bytes are one block of SHA-256");
        Ed25519KeyPair::from_seed_unchecked(&*derived).expect("every 32 bytes are a seed")
    }

    /// Whose key this is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The public half, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// Signs a message in a context. 64 bytes.
    pub fn sign(&self, context: Context, message: &[u8]) -> Vec<u8> {
        let bytes = context.signed_bytes(self.node.as_str(), message);
        self.pair.sign(&bytes).as_ref().to_vec()
    }
}

/// Packs and signs a message.
///
/// # Panics
/// Never: a node's name has at most 63 characters.
pub fn seal(context: Context, key: &NodeKey, body: &[u8]) -> Bytes {
    let node = key.node.as_str().as_bytes();
    let mut sealed = Vec::with_capacity(MAGIC.len() + 2 + node.len() + SIGNATURE + body.len());
    sealed.extend_from_slice(MAGIC);
    sealed.push(VERSION);
    sealed.push(u8::try_from(node.len()).expect("a node's name has at most 63 characters"));
    sealed.extend_from_slice(node);
    sealed.extend_from_slice(&key.sign(context, body));
    sealed.extend_from_slice(body);
    sealed.into()
}

/// A message whose signature holds and whose speaker may say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who says it.
    pub node: NodeId,
    /// What it says, not yet parsed.
    pub body: Bytes,
}

/// Why a sealed message is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Over [`MAX_SEALED`].
    #[error("message of {0} bytes is over the limit of {MAX_SEALED}")]
    TooLarge(usize),
    /// Not a sealed message at all.
    #[error("not a sealed message: {0}")]
    NotSealed(&'static str),
    /// Packed by a newer or foreign program.
    #[error("sealed with packing version {0}, which this program does not know; it knows {VERSION}")]
    UnknownPacking(u8),
    /// The speaker is not believed.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

/// Opens a sealed message: size, packing, speaker, role and signature are checked, in this order; the body is not looked at.
///
/// `at` is when the speaker must have been valid: now, for a message that has just arrived.
pub fn open(context: Context, directory: &Directory, at: Timestamp, sealed: &[u8]) -> Result<Opened, OpenError> {
    if sealed.len() > MAX_SEALED {
        return Err(OpenError::TooLarge(sealed.len()));
    }
    let rest = sealed
        .strip_prefix(MAGIC)
        .ok_or(OpenError::NotSealed("it does not begin with BH"))?;
    let (&version, rest) = rest
        .split_first()
        .ok_or(OpenError::NotSealed("it ends after two bytes"))?;
    if version != VERSION {
        return Err(OpenError::UnknownPacking(version));
    }
    let (&length, rest) = rest
        .split_first()
        .ok_or(OpenError::NotSealed("it ends after three bytes"))?;
    let (node, rest) = rest
        .split_at_checked(usize::from(length))
        .ok_or(OpenError::NotSealed("it ends within the node's name"))?;
    let (signature, body) = rest
        .split_at_checked(SIGNATURE)
        .ok_or(OpenError::NotSealed("it ends within the signature"))?;
    let node: NodeId = std::str::from_utf8(node)
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or(OpenError::NotSealed("the node's name is not a name"))?;
    directory.verify(context, &node, at, body, signature)?;
    Ok(Opened {
        node,
        body: Bytes::copy_from_slice(body),
    })
}

/// Why a message that was opened cannot be used. Set aside and reported, never retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Written by a newer or foreign program.
    #[error("{kind} of version {version}, which this program does not know; it knows {known}")]
    UnknownVersion {
        /// What it claims to be.
        kind: &'static str,
        /// Its version.
        version: u64,
        /// The version that is known.
        known: u16,
    },
    /// Not the JSON that its version promises.
    #[error("malformed {kind}: {detail}")]
    Malformed {
        /// What it claims to be.
        kind: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// Reads a JSON document that carries its `version`: the version first, everything else only when that is known.
pub(crate) fn read_versioned<T: DeserializeOwned>(
    kind: &'static str,
    known: u16,
    body: &[u8],
) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let malformed = |e: serde_json::Error| DocumentError::Malformed {
        kind,
        detail: e.to_string(),
    };
    let Versioned { version } = serde_json::from_slice(body).map_err(malformed)?;
    if version != u64::from(known) {
        return Err(DocumentError::UnknownVersion { kind, version, known });
    }
    serde_json::from_slice(body).map_err(malformed)
}

/// Writes a document of ours as JSON.
pub(crate) fn write_json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents of ours have text keys only, so they always serialise")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::{Fleet, NOW};

    #[test]
    fn what_was_sealed_is_opened_by_whoever_knows_the_node() {
        let fleet = Fleet::new();
        let sealed = seal(Context::Envelope, &fleet.frontend, b"body");
        let opened = open(Context::Envelope, &fleet.directory, NOW, &sealed).unwrap();
        assert_eq!(opened.node, *fleet.frontend.node());
        assert_eq!(&opened.body[..], b"body");
    }

    #[test]
    fn a_message_of_one_kind_never_passes_for_another_kind() {
        let fleet = Fleet::new();
        for said in Context::ALL {
            let sealed = seal(said, &fleet.frontend, b"body");
            for heard in Context::ALL {
                let opened = open(heard, &fleet.directory, NOW, &sealed);
                assert_eq!(
                    opened.is_ok(),
                    said == heard && heard.may_be_said_by(Role::Frontend),
                    "{said:?} as {heard:?}"
                );
            }
        }
    }

    #[test]
    fn a_node_of_the_wrong_role_is_refused() {
        let fleet = Fleet::new();
        let sealed = seal(Context::Envelope, &fleet.signer, b"body");
        assert!(matches!(
            open(Context::Envelope, &fleet.directory, NOW, &sealed),
            Err(OpenError::Distrusted(Distrust::Role { .. }))
        ));
    }

    #[test]
    fn another_packing_is_an_error_of_its_own() {
        let fleet = Fleet::new();
        let mut sealed = seal(Context::Envelope, &fleet.frontend, b"body").to_vec();
        sealed[2] = 2;
        assert_eq!(
            open(Context::Envelope, &fleet.directory, NOW, &sealed),
            Err(OpenError::UnknownPacking(2))
        );
    }

    #[test]
    fn a_message_over_the_limit_is_not_looked_at() {
        let fleet = Fleet::new();
        let sealed = vec![b'B'; MAX_SEALED + 1];
        assert_eq!(
            open(Context::Envelope, &fleet.directory, NOW, &sealed),
            Err(OpenError::TooLarge(MAX_SEALED + 1))
        );
    }

    #[test]
    fn a_key_is_read_back_from_pkcs8_and_never_shown() {
        let key = NodeKey::generate("n1".parse().unwrap());
        let again = NodeKey::from_pkcs8("n1".parse().unwrap(), &key.to_pkcs8()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert_eq!(format!("{key:?}"), "NodeKey(n1)");
        assert!(NodeKey::from_pkcs8("n1".parse().unwrap(), b"nonsense").is_err());
    }

    proptest! {
        #[test]
        fn any_altered_byte_closes_the_message(body in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, flip in 1..=255_u8) {
            let fleet = Fleet::shared();
            let mut sealed = seal(Context::Answer, &fleet.signer, &body).to_vec();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(open(Context::Answer, &fleet.directory, NOW, &sealed).is_err());
        }

        #[test]
        fn a_message_cut_short_or_lengthened_stays_closed(body in proptest::collection::vec(any::<u8>(), 1..100), cut: prop::sample::Index) {
            let fleet = Fleet::shared();
            let sealed = seal(Context::Answer, &fleet.signer, &body);
            prop_assert!(open(Context::Answer, &fleet.directory, NOW, &sealed[..cut.index(sealed.len())]).is_err());
            let longer = [&sealed[..], b"x"].concat();
            prop_assert!(open(Context::Answer, &fleet.directory, NOW, &longer).is_err());
        }

        #[test]
        fn noise_opens_nothing(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(Context::Answer, &Fleet::shared().directory, NOW, &noise).is_err());
        }
    }
}
