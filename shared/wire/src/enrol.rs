//! Enrolment of nodes, and what an enrolled node asks of control.
//!
//! An operator invites a node and hands over a [`Code`]: it says which access CA vouches for control, so that the first connection is
//! authenticated, and proves who was invited. Everything after that is a [`NodeRequest`], signed by the node's own key.

use std::{fmt, str::FromStr};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use domain::{
    bytes::{Blob, Digest},
    id::NodeId,
    issuer::{Node, Role, TokenKey},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    signed::{Context, DocumentError, NodeKey, open, read_versioned, seal, sha256, write_json},
    trust::{Directory, ed25519},
};

/// The only version of these documents so far.
pub const VERSION: u16 = 1;

/// How far the time of a node's request may lie from control's, in seconds.
pub const REQUEST_WINDOW: u64 = 120;

/// How a code begins, so that people recognise it.
const PREFIX: &str = "bulkhead-node-";
const SECRET: usize = 20;

/// The secret half of a code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Blob);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        sha256(&[b"bulkhead invitation v1\0", &self.0])
    }
}

/// A one-time code: 160 random bits and the SHA-256 fingerprint of the access CA's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// What proves who was invited.
    pub secret: Secret,
    /// The CA that vouches for control.
    pub access_ca: Digest,
}

/// The text is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an enrolment code; give the whole text that `bulkhead node invite` printed")]
pub struct NotACode;

impl Code {
    /// A new code.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    pub fn generate(access_ca: Digest) -> Self {
        let mut secret = vec![0; SECRET];
        SystemRandom::new()
            .fill(&mut secret)
            .expect("the operating system gives randomness");
        Self {
            secret: Secret(secret.into()),
            access_ca,
        }
    }

    /// As it is handed over.
    pub fn text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([&*self.secret.0, &self.access_ca.0].concat());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes)))
    }
}

impl FromStr for Code {
    type Err = NotACode;
    fn from_str(text: &str) -> Result<Self, NotACode> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(NotACode)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACode)?);
        let (secret, access_ca) = bytes.split_at_checked(SECRET).ok_or(NotACode)?;
        Ok(Self {
            secret: Secret(secret.to_vec().into()),
            access_ca: Digest(access_ca.try_into().map_err(|_| NotACode)?),
        })
    }
}

/// Whom an operator invites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The node's name.
    pub node: NodeId,
    /// What it will be.
    pub role: Role,
    /// Names and addresses by which clients will call it.
    pub names: Vec<String>,
    /// How long the code is good for, in seconds.
    pub seconds: u64,
    /// Why.
    pub reason: String,
}

/// An invitation, with its code: told once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invited {
    /// The node's name.
    pub node: NodeId,
    /// What it will be.
    pub role: Role,
    /// The code.
    pub code: String,
    /// Until when it is good.
    pub not_after: Timestamp,
}

impl fmt::Debug for Invited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invited({})", self.node)
    }
}

/// What a node that was invited asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// [`VERSION`].
    pub version: u16,
    /// Its name.
    pub node: NodeId,
    /// What it wants to be.
    pub role: Role,
    /// The secret of its code.
    pub secret: Secret,
    /// Its Ed25519 public key, 32 bytes.
    pub public_key: Blob,
    /// PKCS#10 in PEM, for its access certificate. Only the key in it counts.
    pub csr: String,
    /// The node key's signature over all of this with an empty proof: whoever asks has the key.
    pub proof: Blob,
}

impl Enrol {
    /// Asks with a code for the node of this key.
    pub fn new(key: &NodeKey, role: Role, secret: Secret, csr: String) -> Self {
        let mut enrol = Self {
            version: VERSION,
            node: key.node().clone(),
            role,
            secret,
            public_key: key.public_key().into(),
            csr,
            proof: Blob::default(),
        };
        enrol.proof = key.sign(Context::Request, &enrol.proven()).into();
        enrol
    }

    fn proven(&self) -> Vec<u8> {
        write_json(&Self {
            proof: Blob::default(),
            ..self.clone()
        })
    }

    /// Whether it was written by who has the key.
    pub fn is_proven(&self) -> bool {
        let message = Context::Request.signed_bytes(self.node.as_str(), &self.proven());
        ed25519(&self.public_key).is_some_and(|key| key.verify_sig(&message, &self.proof).is_ok())
    }
}

/// What a node that is enrolled keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// The root's statement about it, as it stands in the registry.
    pub node: Node,
    /// The installation root's public key, 32 bytes.
    pub root: Blob,
    /// Its access certificate, PEM.
    pub certificate: String,
    /// The certificate of the access CA, PEM.
    pub access_ca: String,
}

/// What an enrolled node asks of control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeRequest {
    /// Enter the public half of a key that signs bearer tokens.
    PublishTokenKey {
        /// The key.
        key: TokenKey,
    },
    /// Block a public key that was reported compromised.
    BlockKey {
        /// SHA-256 of its SPKI.
        spki: Digest,
    },
    /// Enrol this node for longer, and certify another key for its connections.
    Renew {
        /// PKCS#10 in PEM. Only the key in it counts.
        csr: String,
    },
}

impl NodeRequest {
    /// Whether a node of this role may ask it.
    pub const fn may_be_asked_by(&self, role: Role) -> bool {
        match self {
            Self::PublishTokenKey { .. } | Self::BlockKey { .. } => matches!(role, Role::Frontend),
            Self::Renew { .. } => matches!(role, Role::Frontend | Role::Signer),
        }
    }
}

/// What control answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeAnswer {
    /// It is in the registry.
    Done,
    /// The node is enrolled for longer.
    Renewed {
        /// The new access certificate, PEM.
        certificate: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u16,
    at: Timestamp,
    body: NodeRequest,
}

/// Signs a request.
pub fn seal_request(key: &NodeKey, at: Timestamp, request: NodeRequest) -> Bytes {
    let document = Document {
        version: VERSION,
        at,
        body: request,
    };
    seal(Context::Request, key, &write_json(&document))
}

/// Why a request of a node is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It cannot be read or is not believed.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It was written at another time: repeated, or a clock is off.
    #[error("the request of node {node} is {seconds} s from this side's time; set its clock")]
    OutOfTime {
        /// Whose.
        node: NodeId,
        /// How far, in seconds.
        seconds: u64,
    },
}

/// Verifies and reads a request: who asks, and what. Whether its role may ask that is another question.
pub fn open_request(
    directory: &Directory,
    now: Timestamp,
    sealed: &[u8],
) -> Result<(NodeId, NodeRequest), RequestError> {
    let opened = open(Context::Request, directory, now, sealed).map_err(DocumentError::Open)?;
    let document: Document = read_versioned("request of a node", VERSION, &opened.body)?;
    let seconds = now.as_secs().abs_diff(document.at.as_secs());
    if seconds > REQUEST_WINDOW {
        let node = opened.node;
        return Err(RequestError::OutOfTime { node, seconds });
    }
    Ok((opened.node, document.body))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trust::fixtures::{Fleet, NOW};

    fn block() -> NodeRequest {
        NodeRequest::BlockKey { spki: Digest([7; 32]) }
    }

    #[test]
    fn a_code_is_read_back_whole_and_its_secret_is_never_shown() {
        let code = Code::generate(Digest([5; 32]));
        let text = code.text();
        assert_eq!(text.parse::<Code>().unwrap(), code);
        assert_eq!(format!("{}\n", *text).parse::<Code>().unwrap(), code);
        assert_ne!(Code::generate(code.access_ca).secret.digest(), code.secret.digest());
        assert!(!format!("{code:?}").contains(&URL_SAFE_NO_PAD.encode(&*code.secret.0)));
        for wrong in [
            "",
            "bulkhead-node-",
            &text[1..],
            &text[..text.len() - 2],
            &format!("{}AA", *text),
        ] {
            assert_eq!(wrong.parse::<Code>(), Err(NotACode), "{wrong}");
        }
    }

    #[test]
    fn whoever_enrols_has_the_key_and_said_all_of_it() {
        let key = NodeKey::generate("fe-1".parse().unwrap());
        let code = Code::generate(Digest([5; 32]));
        let enrol = Enrol::new(&key, Role::Frontend, code.secret, "csr".into());
        assert!(enrol.is_proven());
        let other = NodeKey::generate("fe-1".parse().unwrap());
        for altered in [
            Enrol {
                node: "fe-2".parse().unwrap(),
                ..enrol.clone()
            },
            Enrol {
                role: Role::Control,
                ..enrol.clone()
            },
            Enrol {
                csr: "another".into(),
                ..enrol.clone()
            },
            Enrol {
                public_key: other.public_key().into(),
                ..enrol.clone()
            },
            Enrol {
                secret: Code::generate(Digest([5; 32])).secret,
                ..enrol.clone()
            },
            Enrol {
                proof: Blob::default(),
                ..enrol.clone()
            },
        ] {
            assert!(!altered.is_proven(), "{altered:?}");
        }
    }

    #[test]
    fn a_request_is_believed_from_its_node_in_its_time() {
        let fleet = Fleet::new();
        let sealed = seal_request(&fleet.frontend, NOW, block());
        let (node, request) = open_request(&fleet.directory, NOW + Duration::from_secs(1), &sealed).unwrap();
        assert_eq!((&node, request), (fleet.frontend.node(), block()));
        let late = NOW + Duration::from_secs(REQUEST_WINDOW + 1);
        assert!(matches!(
            open_request(&fleet.directory, late, &sealed),
            Err(RequestError::OutOfTime { .. })
        ));
        let stranger = NodeKey::generate("frontend-1".parse().unwrap());
        assert!(open_request(&fleet.directory, NOW, &seal_request(&stranger, NOW, block())).is_err());
        let newer = seal(Context::Request, &fleet.frontend, br#"{"version":2}"#);
        assert!(matches!(
            open_request(&fleet.directory, NOW, &newer),
            Err(RequestError::Document(DocumentError::UnknownVersion { .. }))
        ));
    }

    #[test]
    fn only_front_ends_enter_keys_and_control_renews_itself() {
        let renew = NodeRequest::Renew { csr: String::new() };
        for (role, blocks, renews) in [
            (Role::Frontend, true, true),
            (Role::Signer, false, true),
            (Role::Control, false, false),
        ] {
            assert_eq!(
                (block().may_be_asked_by(role), renew.may_be_asked_by(role)),
                (blocks, renews)
            );
        }
    }
}
