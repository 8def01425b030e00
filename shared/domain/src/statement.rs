//! What a front end vouches for when it accepts a job. It signs the JSON bytes (`wire::attest`); they are stored once, beside the
//! intent, and every signature by an issuer begins with verifying them.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Digest,
    id::{AccountId, IssuerId, NodeId, ProfileId, Serial},
    issuer::Purpose,
    lane::{Class, Lane},
    request::Content,
    time::Timestamp,
};

/// The only version so far. Other versions are set aside and reported.
pub const STATEMENT_VERSION: u16 = 1;

/// One job, as its front end accepted it.
///
/// A repeated request that joins the job leaves its own statement beside the first: equal `account` and `repeat`, another `job` (never
/// used) and perhaps a later `sign_by`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_VERSION`].
    pub version: u16,
    /// Serial and name of the job.
    pub job: Serial,
    /// Who asked.
    pub account: AccountId,
    /// Who shall sign.
    pub issuer: IssuerId,
    /// Under which profile.
    pub profile: ProfileId,
    /// The version of the profile that admitted it.
    pub profile_version: u32,
    /// Class at acceptance.
    pub class: Class,
    /// Purpose at acceptance.
    pub purpose: Purpose,
    /// When, by the front end's idea of store time.
    pub accepted_at: Timestamp,
    /// Until when anybody wants it.
    pub sign_by: Timestamp,
    /// What makes a request the same as another (`repeat`).
    pub repeat: Digest,
    /// What the certificate shall say.
    pub content: Content,
    /// SHA-256 of the to-be-signed bytes.
    pub intent: Digest,
}

impl Statement {
    /// The lane of the job.
    pub fn lane(&self) -> Lane {
        Lane {
            issuer: self.issuer.clone(),
            class: self.class,
        }
    }
}

/// Where a statement stands in a batch that was signed as one: an audit path in the sense of RFC 9162, section 2.1.3, and the
/// signature over the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Who signed.
    pub node: NodeId,
    /// Number of statements in the batch.
    pub size: u32,
    /// Position of this one, from 0.
    pub index: u32,
    /// Sibling hashes, from the leaf up.
    pub path: Vec<Digest>,
    /// Ed25519 signature over context, size and root.
    pub signature: crate::bytes::Blob,
}
