//! Documents of the operators' API about what runs and what is ordered of it. Paths and roles stand in [`crate::admin`].

use domain::{
    breaker::Force,
    id::{AccountId, IssuerId, NodeId, TokenId},
    issuer::Role,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::admin::LaneDocument;

/// An issuer whose key is gone for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkDestroyed {
    /// Show what would be touched and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Change nothing unless this many jobs wait or are worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_count: Option<u64>,
    /// For the audit log.
    pub reason: String,
}

/// What marking an issuer as destroyed touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkedDestroyed {
    /// The registry's revision in which it is in force; in a dry run, the one it was tried on.
    pub revision: u64,
    /// Whether anything had to change (in a dry run: would have).
    pub changed: bool,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Accounts that can issue nothing any more.
    pub accounts: Vec<AccountId>,
    /// Lanes with open jobs, as they were before: what waits or is worked on is refused, what is parked stays parked.
    pub lanes: Vec<LaneDocument>,
    /// Jobs that wait or are worked on, in all of them.
    pub jobs: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Another token that holds an issuer's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindIssuer {
    /// The token.
    pub token: TokenId,
    /// The key's name there.
    pub key: String,
    /// Check everything and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// For the audit log.
    pub reason: String,
}

/// A process, as it last announced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetDocument {
    /// Which node.
    pub node: NodeId,
    /// Which run of it: `node#run`.
    pub incarnation: String,
    /// What it does.
    pub role: Role,
    /// Whether its lease lasts.
    pub alive: bool,
    /// Program version.
    pub version: String,
    /// Registry revision that it applies.
    pub revision: u64,
    /// How many revisions it is behind.
    pub behind: u64,
    /// Issuers whose keys it holds, on tokens that are not out.
    pub keys: u64,
    /// Jobs in flight; of a front end, those that are waited for.
    pub in_flight: u64,
    /// Breakers that are not closed.
    pub breakers: Vec<BreakerDocument>,
    /// Tokens that are out.
    pub tokens_out: Vec<TokenId>,
    /// Whether every token is out, so that it backs off.
    pub backs_off: bool,
    /// Whether it is slow or flickers and stands down.
    pub stands_down: bool,
    /// When this run began.
    pub since: Option<Timestamp>,
    /// When it last said all this.
    pub seen: Timestamp,
    /// How far its host's clock is ahead of the store's, in milliseconds, as far as it knows.
    pub clock_offset_ms: Option<i64>,
}

/// A breaker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerDocument {
    /// Whose.
    pub issuer: IssuerId,
    /// `open` or `half-open`.
    pub standing: String,
}

/// An order to the breakers of an issuer, in every signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceBreaker {
    /// What they are to do; absent: as they see fit.
    #[serde(default)]
    pub force: Option<Force>,
    /// For the audit log.
    pub reason: String,
}

/// What an order came to. Signers follow it within a second or so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForcedBreaker {
    /// Whose breakers.
    pub issuer: IssuerId,
    /// What is in force now; absent: as they see fit.
    pub force: Option<Force>,
    /// Whether anything had to change.
    pub changed: bool,
}

/// The breakers of an issuer about which there is something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerBreakers {
    /// Whose.
    pub issuer: IssuerId,
    /// What operators have ordered; absent: nothing.
    pub force: Option<Force>,
    /// Signers in which its breaker is not closed.
    pub signers: Vec<SignerBreaker>,
}

/// A breaker in one signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerBreaker {
    /// Which signer.
    pub node: NodeId,
    /// `open` or `half-open`.
    pub standing: String,
}
