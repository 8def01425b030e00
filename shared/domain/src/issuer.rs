//! Issuers, profiles, accounts, and the other things that the registry knows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    bytes::{Blob, Digest},
    id::{AccountId, IssuerId, NodeId, OperatorId, ProfileId, Serial, TokenId},
    key::{KeyType, SignatureAlgorithm},
    lane::Class,
    policy::Policy,
    time::Timestamp,
};

/// What an issuer's key may be used for. `disabled` clears `issue` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Certificates for subscribers.
    pub issue: bool,
    /// Certificate revocation lists.
    pub crl: bool,
    /// OCSP, and certificates for OCSP signers.
    pub ocsp: bool,
}

/// Where an issuer is in its life. `expired` is computed, see [`Issuer::standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerState {
    /// Key and certificate are there.
    Enabled,
    /// An operator has taken issuance away.
    Disabled,
    /// The key is gone. Terminal.
    Destroyed,
}

/// Whether an issuer issues for a purpose now, and if not, why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It does.
    Good,
    /// Its usage bit for the purpose is off.
    Disabled,
    /// Its key is gone.
    Destroyed,
    /// A certificate of its chain has run out.
    Expired,
}

/// Where a key of the issuer lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The token.
    pub token: TokenId,
    /// CKA_ID in hexadecimal, or the name of a soft key.
    pub key: String,
}

/// A subject name and a key: what signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Name.
    pub id: IssuerId,
    /// DER Name: the subject of the CA certificate, byte for byte.
    pub subject: Blob,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Blob,
    /// Type of the key.
    pub key_type: KeyType,
    /// What it signs with.
    pub signature_algorithm: SignatureAlgorithm,
    /// subjectKeyIdentifier of the CA certificate; authorityKeyIdentifier of what it issues.
    pub subject_key_id: Blob,
    /// DER certificates of the default chain: its own first, the root last.
    pub chain: Vec<Blob>,
    /// Other chains for the same name and key.
    #[serde(default)]
    pub other_chains: Vec<Vec<Blob>>,
    /// Earliest notAfter of the chain, UNIX seconds.
    pub not_after: i64,
    /// State.
    pub state: IssuerState,
    /// Usage bits.
    pub usage: Usage,
    /// What the operator said when the state last changed.
    #[serde(default)]
    pub reason: Option<String>,
    /// Number of CRL shards; fixed for life.
    pub crl_shards: u16,
    /// Base of the URLs in its certificates, `http://`, without a slash at the end.
    pub public_url: String,
    /// Where its key lives; empty for an issuer that is offline.
    pub bindings: Vec<Binding>,
}

impl Issuer {
    /// Whether the issuer issues for `purpose` at `now`.
    pub fn standing(&self, purpose: Purpose, now: Timestamp) -> Standing {
        if self.state == IssuerState::Destroyed {
            Standing::Destroyed
        } else if now.as_secs() > self.not_after {
            Standing::Expired
        } else if self.usage_for(purpose) {
            Standing::Good
        } else {
            Standing::Disabled
        }
    }

    /// The usage bit that a purpose needs.
    pub fn usage_for(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::EndEntity | Purpose::Tsa => self.usage.issue,
            Purpose::OcspSigner => self.usage.ocsp,
        }
    }

    /// The CRL shard of a serial: its two low bytes modulo the number of shards.
    pub fn crl_shard(&self, serial: Serial) -> u16 {
        let bytes = serial.as_bytes();
        u16::from_be_bytes([bytes[14], bytes[15]]) % self.crl_shards.max(1)
    }

    /// cRLDistributionPoints of a certificate with this serial.
    pub fn crl_url(&self, serial: Serial) -> String {
        format!("{}/crl/{}/{}.crl", self.public_url, self.id, self.crl_shard(serial))
    }

    /// caIssuers in authorityInfoAccess: the issuing certificate in DER.
    pub fn ca_issuers_url(&self) -> String {
        format!("{}/ca/{}.cer", self.public_url, self.id)
    }

    /// OCSP in authorityInfoAccess.
    pub fn ocsp_url(&self) -> String {
        format!("{}/ocsp", self.public_url)
    }
}

/// What a profile's certificates are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Subscribers.
    EndEntity,
    /// OCSP responders (RFC 6960, 4.2.2.2).
    OcspSigner,
    /// Time-stamping authorities (RFC 3161, 2.3).
    Tsa,
}

/// What becomes of a requested notAfter beyond the chain's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeyondIssuer {
    /// It is shortened.
    #[default]
    Clip,
    /// The request is refused.
    Refuse,
}

/// The default of [`Profile::answer_within`].
const fn answer_within() -> Duration {
    Duration::from_secs(6)
}

/// What may be issued, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name.
    pub id: ProfileId,
    /// Grows by one with every change.
    pub version: u32,
    /// Purpose.
    pub purpose: Purpose,
    /// Class of its jobs.
    pub class: Class,
    /// How long after acceptance anybody wants the certificate. At most 48 h.
    #[serde(with = "humantime_serde")]
    pub sign_within: Duration,
    /// How long a client may wait for its certificate with the request. Default 6 s.
    #[serde(default = "answer_within", with = "humantime_serde")]
    pub answer_within: Duration,
    /// Subject, alternative names, usages, validity, pinned key.
    pub policy: Policy,
    /// Certificate policies to state.
    #[serde(default)]
    pub certificate_policies: Vec<String>,
    /// What becomes of a notAfter beyond the chain's.
    #[serde(default)]
    pub beyond_issuer: BeyondIssuer,
    /// Whether wildcard DNS names are allowed.
    #[serde(default)]
    pub wildcards: bool,
    /// Whether a key may be certified only once.
    #[serde(default)]
    pub unique_key: bool,
    /// How long after issuance a repeated request still gets the same certificate. Zero: only while in flight.
    #[serde(default, with = "humantime_serde")]
    pub join_within: Duration,
}

/// Which REST contract an account speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// Certificates.
    Hvca,
    /// Signing identities.
    Dss,
}

/// An API client and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Name.
    pub id: AccountId,
    /// Contract.
    pub api: Api,
    /// Public half of its credential.
    pub api_key: String,
    /// SHA-256 of the secret half (random, 160 bits, hence no password hash).
    pub api_secret: Digest,
    /// SHA-256 fingerprints of its client certificates.
    pub client_certificates: Vec<Digest>,
    /// The issuer it issues under.
    pub issuer: IssuerId,
    /// The profile it issues under.
    pub profile: ProfileId,
    /// Certificates it may have issued in all.
    pub issuance_quota: u64,
    /// Requests a second.
    pub requests_per_second: u32,
    /// Jobs it may have open at a time.
    pub jobs_in_flight: u32,
    /// Tokens issued before this are void.
    #[serde(default)]
    pub tokens_not_before: Timestamp,
    /// Whether it may log in.
    pub enabled: bool,
}

/// What a node may say (RFC-less, ours: `pki-rules`, trust between the parts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts requests.
    Frontend,
    /// Signs.
    Signer,
    /// Changes the registry, gives orders.
    Control,
}

/// A process that may speak, and the statement by which it was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name.
    pub id: NodeId,
    /// What it may say.
    pub role: Role,
    /// Ed25519 public key, 32 bytes.
    pub public_key: Blob,
    /// Since when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// The installation root's Ed25519 signature over the statement (`wire::trust`).
    pub endorsement: Blob,
    /// Set when the node was revoked.
    #[serde(default)]
    pub revoked: bool,
}

/// An invitation to enrol one node. Whoever shows its code before it runs out may, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The name that the node will have.
    pub node: NodeId,
    /// What it may say then.
    pub role: Role,
    /// Names and addresses by which clients will call it.
    pub names: Vec<String>,
    /// SHA-256 of the code (`wire::enrol`): the code itself is told once and kept nowhere.
    pub code: Digest,
    /// Until when.
    pub not_after: Timestamp,
}

/// The public half of a key with which one front end signs bearer tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// `kid`.
    pub id: String,
    /// Whose it is.
    pub node: NodeId,
    /// Ed25519 public key, 32 bytes.
    pub public_key: Blob,
    /// Until when tokens signed with it may be valid.
    pub not_after: Timestamp,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    /// Looks.
    Viewer,
    /// Works on queues.
    Operator,
    /// Everything.
    SecurityOfficer,
}

/// A person at a terminal, known by a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Name.
    pub id: OperatorId,
    /// Role.
    pub role: OperatorRole,
    /// SHA-256 fingerprints of client certificates.
    pub client_certificates: Vec<Digest>,
}
