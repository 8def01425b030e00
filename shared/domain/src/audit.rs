//! The audit log: what happened, who did it, why, and to how many.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::{Blob, Digest},
    id::NodeId,
    time::Timestamp,
};

/// Something that is to be remembered: an operator's action, a key, certificate or revocation event, access, a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// A word: `issuer_disabled`, `account_added`, `ledger_altered` ...
    pub kind: String,
    /// Who: `operator:NAME`, `account:NAME`, `node:NAME`.
    pub by: String,
    /// What it was done to: `issuer:NAME`, `job:SERIAL` ...
    pub subject: String,
    /// What the operator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// To how many.
    pub count: u64,
    /// For people. No secrets, no subjects, no names from certificates; but a certificate that was signed by a fault of the program is
    /// kept here whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One link of a writer's chain: the events of one flush. Hash and signature are made and verified by `wire::audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditLink {
    /// Whose chain.
    pub writer: NodeId,
    /// From 1, without gaps.
    pub sequence: u64,
    /// When the writer made it.
    pub at: Timestamp,
    /// Hash of the writer's link before; zeros before the first.
    pub previous: Digest,
    /// The events as JSON, one element each: the very bytes that were hashed.
    pub events: Vec<Blob>,
    /// SHA-256 over writer, sequence, time, the hash before and the Merkle root of the events.
    pub hash: Digest,
    /// The writer's Ed25519 signature over `hash` with a context.
    pub signature: Blob,
}
