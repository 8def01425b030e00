//! What a client asks for ([`Request`], still as it came) and what a certificate will say ([`Content`], settled at admission).

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{bytes::Blob, policy::ValueType};

/// An object identifier in dotted decimal.
pub type Oid = String;

/// A request for a certificate, after JSON: HVCA `POST /certificates`, with null and empty already taken for absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Request {
    pub validity: RequestedValidity,
    pub subject_dn: RequestedSubject,
    pub san: RequestedSan,
    /// By HVCA's name: `digital_signature`, `key_encipherment` ...
    pub key_usages: BTreeMap<String, bool>,
    pub extended_key_usages: Vec<Oid>,
    pub subject_da: Option<SubjectDa>,
    pub qualified_statements: Option<QualifiedStatements>,
    pub ms_extension_template: Option<MsExtensionTemplate>,
    pub custom_extensions: BTreeMap<Oid, String>,
    pub signature: RequestedSignature,
    /// PEM, as the client sent it.
    pub public_key: String,
    /// base64, as the client sent it.
    pub public_key_signature: Option<String>,
}

/// Wanted times, UNIX seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestedValidity {
    /// From when. `None` or 0: from acceptance.
    pub not_before: Option<i64>,
    /// Until when. `None` or 0: the policy's maximum.
    pub not_after: Option<i64>,
}

/// Wanted name: single attributes by HVCA's name (`common_name`, `country` ...), and the repeatable ones in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestedSubject {
    /// Attributes that occur once.
    pub single: BTreeMap<String, String>,
    /// OU, in order.
    pub organizational_unit: Vec<String>,
    /// Others, in order.
    pub extra_attributes: Vec<TypeAndValue>,
}

/// An object identifier and a text; the policy knows how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeAndValue {
    /// Object identifier.
    #[serde(rename = "type")]
    pub oid: Oid,
    /// Text.
    pub value: String,
}

/// Wanted alternative names, as texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct RequestedSan {
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub ip_addresses: Vec<String>,
    pub uris: Vec<String>,
    pub other_names: Vec<TypeAndValue>,
}

/// Wanted signature.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct RequestedSignature {
    pub algorithm: Option<String>,
    pub hash_algorithm: Option<String>,
}

/// Subject directory attributes (RFC 3739, 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct SubjectDa {
    pub gender: Option<String>,
    /// `YYYY-MM-DD`; encoded as noon GMT.
    pub date_of_birth: Option<String>,
    pub place_of_birth: Option<String>,
    pub country_of_citizenship: Vec<String>,
    pub country_of_residence: Vec<String>,
    pub extra_attributes: Vec<TypeAndValue>,
}

/// Qualified certificate statements (RFC 3739, 3.2.6; ETSI EN 319 412-5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct QualifiedStatements {
    pub semantics: Option<Semantics>,
    pub etsi_qc_compliance: Option<bool>,
    pub etsi_qc_sscd_compliance: Option<bool>,
    pub etsi_qc_type: Option<Oid>,
    pub etsi_qc_retention_period: Option<i64>,
    pub etsi_qc_pds: BTreeMap<String, String>,
}

/// Semantics of names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Semantics {
    pub identifier: Option<Oid>,
    pub name_authorities: Vec<String>,
}

/// Microsoft's certificate template.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct MsExtensionTemplate {
    pub id: Option<Oid>,
    pub major_version: Option<i64>,
    pub minor_version: Option<i64>,
}

/// A value and how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypedValue {
    /// Object identifier of the attribute, other name or extension.
    pub oid: Oid,
    /// Encoding.
    pub value_type: ValueType,
    /// Text; decimal for integers, base64 for DER, ignored for NIL.
    pub value: String,
}

/// A key usage bit (RFC 5280, 4.2.1.3). The order is the order of the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are RFC 5280's own")]
pub enum KeyUsage {
    DigitalSignature,
    ContentCommitment,
    KeyEncipherment,
    DataEncipherment,
    KeyAgreement,
    KeyCertificateSign,
    CrlSign,
    EncipherOnly,
    DecipherOnly,
}

/// Alternative names as they will be encoded, in this order: DNS, mail, IP, URI, other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct AlternativeNames {
    pub critical: bool,
    /// A-labels, lower case.
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub uris: Vec<String>,
    pub other_names: Vec<TypedValue>,
}

impl AlternativeNames {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.dns_names.len() + self.emails.len() + self.ip_addresses.len() + self.uris.len() + self.other_names.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An extension with a value of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomExtension {
    /// Whether it is critical.
    pub critical: bool,
    /// Identifier, encoding, value.
    pub value: TypedValue,
}

/// What a certificate will say, besides what comes from its issuer and its serial: everything settled, nothing left to default.
///
/// Front end and signer make the same to-be-signed bytes from it, so its order is the order of encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Relative distinguished names, one attribute each, in order.
    pub subject: Vec<TypedValue>,
    /// Alternative names.
    pub san: AlternativeNames,
    /// Key usage bits, ascending, without repeats. Always encoded as a critical extension when there are any.
    pub key_usage: Vec<KeyUsage>,
    /// Extended key usages, in order.
    pub extended_key_usage: Vec<Oid>,
    /// Whether the extended key usage is critical.
    pub extended_key_usage_critical: bool,
    /// Certificate policies (RFC 5280, 4.2.1.4), in order.
    pub certificate_policies: Vec<Oid>,
    /// id-pkix-ocsp-nocheck (RFC 6960, 4.2.2.2.1).
    pub ocsp_no_check: bool,
    /// Subject directory attributes; their extra attributes are in `subject_da_extra`, with encodings.
    pub subject_da: Option<SubjectDa>,
    /// Extra subject directory attributes.
    pub subject_da_extra: Vec<TypedValue>,
    /// Qualified certificate statements.
    pub qualified_statements: Option<QualifiedStatements>,
    /// Microsoft's certificate template and whether it is critical.
    pub ms_extension_template: Option<(bool, MsExtensionTemplate)>,
    /// Other extensions, ascending by object identifier text.
    pub custom_extensions: Vec<CustomExtension>,
    /// DER SubjectPublicKeyInfo, exactly as it was requested.
    pub public_key: Blob,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds, inclusive.
    pub not_after: i64,
}
