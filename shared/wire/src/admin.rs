//! The operators' API: its paths and its JSON documents. Served by control over mutual TLS; operators are known by the fingerprints of
//! their client certificates. Errors are problem documents ([`crate::problem`]).
//!
//! | method and path | request | answer | role |
//! | --- | --- | --- | --- |
//! | `GET /v1/issuers` | | array of [`IssuerDocument`] | viewer |
//! | `GET /v1/issuers/{id}` | | [`IssuerDocument`] | viewer |
//! | `POST /v1/issuers` | [`RegisterIssuer`] | [`Changed`] | security officer |
//! | `POST /v1/issuers/{id}/disable`, `/enable` | [`Because`] | [`Changed`] | security officer |
//! | `POST /v1/issuers/{id}/bind` | [`BindIssuer`](crate::operate::BindIssuer) | [`Changed`] | security officer |
//! | `POST /v1/issuers/{id}/mark-destroyed` | [`MarkDestroyed`](crate::operate::MarkDestroyed) | [`MarkedDestroyed`](crate::operate::MarkedDestroyed) | security officer |
//! | `POST /v1/keys` | [`GenerateKey`] | [`KeyReport`] | security officer |
//! | `POST /v1/keys/csr` | [`MakeCsr`] | [`Csr`] | security officer |
//! | `GET /v1/profiles`, `GET /v1/profiles/{id}` | | (array of) `domain::issuer::Profile` | viewer |
//! | `POST /v1/profiles` | [`PutProfile`] | [`Changed`] | security officer |
//! | `GET /v1/accounts` | | array of [`AccountDocument`] | viewer |
//! | `POST /v1/accounts` | [`AddAccount`] | [`NewAccount`] | security officer |
//! | `GET /v1/jobs` | query [`JobQuery`] | array of [`JobDocument`] | viewer |
//! | `GET /v1/jobs/{serial}` | | [`JobDetail`] | viewer |
//! | `GET /v1/lanes` | | array of [`LaneDocument`] | viewer |
//! | `GET /v1/certificates/{serial}` | | [`CertificateDocument`] | viewer |
//! | `POST /v1/certificates/{serial}/revoke` | [`Revoke`] | [`Revocation`] | operator |
//! | `GET /v1/breakers` | | array of [`IssuerBreakers`](crate::operate::IssuerBreakers) | viewer |
//! | `POST /v1/breakers/{issuer}/force` | [`ForceBreaker`](crate::operate::ForceBreaker) | [`ForcedBreaker`](crate::operate::ForcedBreaker) | operator |
//! | `GET /v1/fleet` | | array of [`FleetDocument`](crate::operate::FleetDocument) | viewer |
//! | `GET /v1/operators`, `GET /v1/nodes` | | array of [`OperatorDocument`], [`NodeDocument`] | viewer |

use std::fmt;

use domain::{
    bytes::Blob,
    id::{AccountId, IssuerId, NodeId, OperatorId, ProfileId, Serial, TokenId},
    issuer::{Api, Binding, OperatorRole, Profile, Role, Usage},
    job::{RevocationReason, State},
    key::{KeyType, SignatureAlgorithm},
    lane::{Class, Lane},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The registry's revision in which it is in force; in a dry run, the one it was tried on.
    pub revision: u64,
    /// Whether anything had to change (in a dry run: would have).
    pub changed: bool,
    /// Whether this was a dry run.
    #[serde(default)]
    pub dry_run: bool,
    /// What the operator should know: bits that stay off, validities that will be clipped.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The reason of a change that needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// For the audit log.
    pub reason: String,
}

/// An issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerDocument {
    /// Name.
    pub id: IssuerId,
    /// `enabled`, `disabled`, `destroyed` or `expired`.
    pub state: String,
    /// What was said when the state last changed.
    #[serde(default)]
    pub reason: Option<String>,
    /// Usage bits.
    pub usage: Usage,
    /// Subject as text, most significant attribute first.
    pub subject: String,
    /// Type of its key.
    pub key_type: KeyType,
    /// What it signs with.
    pub signature_algorithm: SignatureAlgorithm,
    /// Hexadecimal.
    pub subject_key_id: String,
    /// Earliest notAfter of its chain, UNIX seconds.
    pub not_after: i64,
    /// Where its key lives.
    pub bindings: Vec<Binding>,
    /// Whether every binding is on a token that is fit for a real CA.
    pub fit_for_real_ca: bool,
    /// Number of CRL shards.
    pub crl_shards: u16,
    /// Base of the URLs in its certificates.
    pub public_url: String,
    /// Accounts that issue under it.
    pub accounts: Vec<AccountId>,
    /// PEM: its own certificate first, the root last.
    pub chain: Vec<String>,
}

/// What is known of an issuer's past.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Past {
    /// Nothing: the bits `crl` and `ocsp` stay off.
    #[default]
    Unknown,
    /// It has never issued anything.
    None,
    /// Everything it has issued, DER, and its last CRL, DER.
    Known {
        /// Certificates; empty when it has issued none but has a CRL.
        certificates: Vec<Blob>,
        /// Without it the bit `crl` stays off.
        #[serde(default)]
        last_crl: Option<Blob>,
    },
}

/// A private key on its way into a token. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub Blob);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// An issuer to register: `issuer import` and `issuer activate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterIssuer {
    /// Name.
    pub id: IssuerId,
    /// PEM: its own certificate first, the root last.
    pub chain: String,
    /// The token that holds its key, or will.
    pub token: TokenId,
    /// The key's name there.
    pub key: String,
    /// PKCS#8 DER, to be taken into the token first.
    #[serde(default)]
    pub private_key: Option<PrivateKey>,
    /// Its past.
    #[serde(default)]
    pub past: Past,
    /// Base of the URLs in its certificates; the installation's if absent.
    #[serde(default)]
    pub public_url: Option<String>,
    /// Number of CRL shards, fixed for life.
    pub crl_shards: u16,
    /// A profile to put in with it.
    #[serde(default)]
    pub profile: Option<Box<Profile>>,
    /// Check everything and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// For the audit log.
    pub reason: String,
}

/// A key to make on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateKey {
    /// The token.
    pub token: TokenId,
    /// The key's name there.
    pub key: String,
    /// Its type.
    pub key_type: KeyType,
    /// For the audit log.
    pub reason: String,
}

/// How a key was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyReport {
    /// The token.
    pub token: TokenId,
    /// The key's name there.
    pub key: String,
    /// Its type.
    pub key_type: KeyType,
    /// PEM `SubjectPublicKeyInfo`.
    pub public_key: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal.
    pub public_key_sha256: String,
    /// Whether the token is fit for a real CA.
    pub fit_for_real_ca: bool,
    /// Who had it made.
    pub made_by: String,
    /// When.
    pub made_at: Timestamp,
    /// Why.
    pub reason: String,
}

/// A certificate signing request to make with a key on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeCsr {
    /// The token.
    pub token: TokenId,
    /// The key's name there.
    pub key: String,
    /// `C=DE,O=Example,CN=Example Issuing CA 1`, most significant attribute first.
    pub subject: String,
}

/// A certificate signing request (RFC 2986).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Csr {
    /// PEM.
    pub csr: String,
}

/// A profile to put in: new, or the next version of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutProfile {
    /// The profile. Its `version` is the one in force that it was made from, or the one it becomes.
    pub profile: Box<Profile>,
    /// Check everything and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// For the audit log.
    pub reason: String,
}

/// An account, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountDocument {
    /// Name.
    pub id: AccountId,
    /// Contract.
    pub api: Api,
    /// Public half of its credential.
    pub api_key: String,
    /// Issuer.
    pub issuer: IssuerId,
    /// Profile.
    pub profile: ProfileId,
    /// SHA-256 fingerprints of its client certificates, hexadecimal.
    pub client_certificates: Vec<String>,
    /// Certificates that it may have issued in all.
    pub issuance_quota: u64,
    /// Requests a second.
    pub requests_per_second: u32,
    /// Jobs that it may have open at a time.
    pub jobs_in_flight: u32,
    /// Whether it may log in.
    pub enabled: bool,
}

/// An account to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAccount {
    /// Name.
    pub id: AccountId,
    /// Issuer.
    pub issuer: IssuerId,
    /// Profile.
    pub profile: ProfileId,
    /// Client certificates, PEM.
    pub client_certificates: Vec<String>,
    /// Certificates that it may have issued in all.
    pub issuance_quota: u64,
    /// Requests a second.
    pub requests_per_second: u32,
    /// Jobs that it may have open at a time.
    pub jobs_in_flight: u32,
    /// For the audit log.
    pub reason: String,
}

/// A new account and its secret, which is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The account.
    pub account: AccountDocument,
    /// Secret half of its credential.
    pub api_secret: String,
    /// The revision in which it is in force.
    pub revision: u64,
}

impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccount")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Only in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only of this issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerId>,
    /// Only of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Only serials below this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Serial>,
    /// At most this many; 50 if absent, 1,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobDocument {
    /// Its serial.
    pub job: Serial,
    /// Issuer.
    pub issuer: IssuerId,
    /// Class.
    pub class: Class,
    /// Account.
    pub account: AccountId,
    /// Profile.
    pub profile: ProfileId,
    /// State.
    pub state: State,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Until when anybody wants it.
    pub sign_by: Timestamp,
    /// Whether its certificate is revoked.
    pub revoked: bool,
}

/// A job with what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobDetail {
    /// As in a list.
    pub job: JobDocument,
    /// Version of the profile that admitted it.
    pub profile_version: u32,
    /// How many times it was begun.
    pub turn: u32,
    /// How many times its owner was lost.
    pub strikes: u8,
    /// Who works on it.
    #[serde(default)]
    pub owner: Option<String>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Problem id of a refusal.
    #[serde(default)]
    pub refusal: Option<String>,
    /// What a refusal or a discard says.
    #[serde(default)]
    pub detail: Option<String>,
    /// The job that a resubmission made of it.
    #[serde(default)]
    pub successor: Option<Serial>,
    /// What happened, oldest first.
    pub events: Vec<JobEventDocument>,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEventDocument {
    /// When.
    pub at: Timestamp,
    /// A word.
    pub kind: String,
    /// For people.
    pub detail: String,
    /// Who says so.
    pub by: String,
}

/// A lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneDocument {
    /// Issuer and class.
    pub lane: Lane,
    /// Jobs are accepted and none is begun.
    pub paused: bool,
    /// None is accepted and those that are there are begun.
    pub draining: bool,
    /// Jobs are accepted as parked.
    pub diverted: bool,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that are worked on.
    pub signing: u64,
    /// Jobs that are set aside.
    pub parked: u64,
    /// How long the oldest queued job has waited, in seconds.
    pub oldest_seconds: Option<u64>,
}

/// A certificate as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateDocument {
    /// Serial.
    pub serial: Serial,
    /// Issuer.
    pub issuer: IssuerId,
    /// Account.
    pub account: AccountId,
    /// Profile.
    pub profile: ProfileId,
    /// Subject as text, most significant attribute first.
    pub subject: String,
    /// Alternative names.
    pub names: Vec<String>,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds.
    pub not_after: i64,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// Its revocation, if there is one.
    #[serde(default)]
    pub revocation: Option<RevocationDocument>,
    /// PEM.
    pub certificate: String,
}

/// A revocation as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationDocument {
    /// Why.
    pub reason: RevocationReason,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// revocationDate, UNIX seconds.
    pub revocation_date: i64,
}

/// A certificate to revoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Why.
    pub reason: RevocationReason,
    /// revocationDate, UNIX seconds; now if absent, in the past only with keyCompromise.
    #[serde(default)]
    pub revocation_date: Option<i64>,
}

/// What a revocation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Which certificate.
    pub serial: Serial,
    /// `revoked`; `raised` to keyCompromise; `cancelled` when there was no certificate yet.
    pub outcome: String,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorDocument {
    /// Name.
    pub id: OperatorId,
    /// Role.
    pub role: OperatorRole,
    /// SHA-256 fingerprints of client certificates, hexadecimal.
    pub client_certificates: Vec<String>,
}

/// A node, and what its process last said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDocument {
    /// Name.
    pub id: NodeId,
    /// Role.
    pub role: Role,
    /// Until when it is enrolled.
    pub not_after: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether a process of that name holds a lease now.
    pub alive: bool,
    /// Program version, if one has announced itself lately.
    #[serde(default)]
    pub version: Option<String>,
    /// Registry revision that it applies.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Jobs in flight.
    #[serde(default)]
    pub in_flight: Option<u64>,
}
