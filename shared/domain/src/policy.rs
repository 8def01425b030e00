//! The validation policy of a profile, in the shape in which clients read it (HVCA `GET /validationpolicy`).
//!
//! One type serves as wire document and as the rules themselves, so that what clients are told is what is checked.

use std::{collections::BTreeMap, sync::OnceLock};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::key::KeyType;

/// A regular expression, or a literal where the field is static. Compiled once, at its first use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

/// How many bytes a compiled pattern may take: a policy is an operator's, but its cost is everybody's.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

impl Pattern {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `value` matches. A pattern that does not compile matches nothing.
    pub fn matches(&self, value: &str) -> bool {
        self.compiled().is_some_and(|regex| regex.is_match(value))
    }

    /// Whether the text is a regular expression within the size limit.
    pub fn is_valid(&self) -> bool {
        self.compiled().is_some()
    }

    fn compiled(&self) -> Option<&Regex> {
        let anchored = || {
            RegexBuilder::new(&format!(r"\A(?:{})\z", self.text))
                .size_limit(PATTERN_SIZE_LIMIT)
                .build()
                .ok()
        };
        self.compiled.get_or_init(anchored).as_ref()
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }
}
impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Pattern {}

/// Whether a field may, must or must not be in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Presence {
    /// May be left out.
    Optional,
    /// Must be there.
    Required,
    /// Must not be there.
    #[default]
    Forbidden,
    /// Comes from the policy; a request must not give it.
    Static,
}

/// One text. `format` is an anchored regular expression, or the value itself when static.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StringPolicy {
    /// Presence.
    pub presence: Presence,
    /// Regular expression, or literal when static.
    #[serde(default)]
    pub format: Pattern,
}

/// One whole number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegerPolicy {
    /// Presence.
    pub presence: Presence,
    /// Least value.
    #[serde(default)]
    pub min: i64,
    /// Greatest value; the value itself when static (then equal to `min`).
    #[serde(default)]
    pub max: i64,
}

/// A list of texts. When `static`, `list` holds the values; otherwise patterns, of which each value must match one
/// (suffixes for DNS names and mails, anchored regular expressions elsewhere).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPolicy {
    /// Whether the values come from the policy.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Values or patterns.
    #[serde(default)]
    pub list: Vec<Pattern>,
    /// Least number of values in a request.
    pub mincount: u32,
    /// Greatest number of values in a request; 0 forbids the field.
    pub maxcount: u32,
}

/// How a text in a request becomes a DER value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ValueType {
    /// IA5String.
    Ia5string,
    /// PrintableString.
    Printablestring,
    /// UTF8String.
    Utf8string,
    /// INTEGER, written in decimal.
    Integer,
    /// Any DER, written in base64.
    Der,
    /// NULL: a request gives the text `NIL`.
    Nil,
}

/// Values of one object identifier: extra attributes, other names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeAndValuePolicy {
    /// Whether the value comes from the policy.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Encoding.
    pub value_type: ValueType,
    /// Regular expression, or literal when static.
    #[serde(default)]
    pub value_format: Pattern,
    /// Least number of values.
    pub mincount: u32,
    /// Greatest number of values.
    pub maxcount: u32,
}

/// A bit that a request may set, or that the policy fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flag {
    /// The request says.
    #[serde(rename = "OPTIONAL")]
    Optional,
    /// Always set.
    #[serde(rename = "STATIC_TRUE")]
    StaticTrue,
    /// Never set.
    #[serde(rename = "STATIC_FALSE")]
    StaticFalse,
}

/// Times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidityPolicy {
    /// Shortest validity in seconds.
    pub secondsmin: i64,
    /// Longest validity in seconds; both ends of the validity period count (RFC 5280, 4.1.2.5).
    pub secondsmax: i64,
    /// How many seconds `not_before` may lie before the time of acceptance.
    pub not_before_negative_skew: i64,
    /// How many seconds `not_before` may lie after the time of acceptance.
    pub not_before_positive_skew: i64,
    /// The issuer's own notAfter, UNIX seconds. Written when the policy is served.
    pub issuer_expiry: i64,
}

/// The subject's name: a policy for each attribute that HVCA names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct SubjectDnPolicy {
    pub common_name: StringPolicy,
    pub given_name: StringPolicy,
    pub surname: StringPolicy,
    pub pseudonym: StringPolicy,
    pub organization: StringPolicy,
    pub organizational_unit: ListPolicy,
    pub organization_identifier: StringPolicy,
    pub country: StringPolicy,
    pub state: StringPolicy,
    pub locality: StringPolicy,
    pub street_address: StringPolicy,
    pub postal_code: StringPolicy,
    pub email: StringPolicy,
    pub serial_number: StringPolicy,
    pub business_category: StringPolicy,
    pub jurisdiction_of_incorporation_locality_name: StringPolicy,
    pub jurisdiction_of_incorporation_state_or_province_name: StringPolicy,
    pub jurisdiction_of_incorporation_country_name: StringPolicy,
    /// By object identifier.
    pub extra_attributes: BTreeMap<String, TypeAndValuePolicy>,
}

/// Alternative names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SanPolicy {
    /// Whether the extension is critical (it always is when the subject is empty).
    pub critical: bool,
    /// Suffixes, matched on label boundaries; `*` alone allows any name.
    pub dns_names: ListPolicy,
    /// Whole domains of mail addresses; `*` alone allows any.
    pub emails: ListPolicy,
    /// Anchored regular expressions.
    pub ip_addresses: ListPolicy,
    /// Anchored regular expressions.
    pub uris: ListPolicy,
    /// By object identifier.
    pub other_names: BTreeMap<String, TypeAndValuePolicy>,
}

/// Key usage bits (RFC 5280, 4.2.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct KeyUsagesPolicy {
    pub digital_signature: Flag,
    pub content_commitment: Flag,
    pub key_encipherment: Flag,
    pub data_encipherment: Flag,
    pub key_agreement: Flag,
    pub key_certificate_sign: Flag,
    pub crl_sign: Flag,
    pub encipher_only: Flag,
    pub decipher_only: Flag,
}

/// Extended key usages: object identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendedKeyUsagesPolicy {
    /// Anchored regular expressions, or the object identifiers when static.
    pub ekus: ListPolicy,
    /// Whether the extension is critical.
    pub critical: bool,
}

/// Subject directory attributes (RFC 3739, 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct SubjectDaPolicy {
    pub gender: StringPolicy,
    pub date_of_birth: Presence,
    pub place_of_birth: StringPolicy,
    pub country_of_citizenship: ListPolicy,
    pub country_of_residence: ListPolicy,
    pub extra_attributes: BTreeMap<String, TypeAndValuePolicy>,
}

/// Semantics of names in qualified certificates (RFC 3739, 3.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct SemanticsPolicy {
    pub identifier: StringPolicy,
    pub name_authorities: ListPolicy,
}

/// Locations of disclosure statements, by language.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct QcPdsPolicy {
    pub presence: Presence,
    pub policies: BTreeMap<String, String>,
}

/// Qualified certificate statements (RFC 3739; ETSI EN 319 412-5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct QualifiedStatementsPolicy {
    #[serde(default)]
    pub semantics: SemanticsPolicy,
    pub etsi_qc_compliance: Flag,
    pub etsi_qc_sscd_compliance: Flag,
    #[serde(default)]
    pub etsi_qc_type: StringPolicy,
    #[serde(default)]
    pub etsi_qc_retention_period: IntegerPolicy,
    #[serde(default)]
    pub etsi_qc_pds: QcPdsPolicy,
}

/// Microsoft's certificate template extension (1.3.6.1.4.1.311.21.7).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct MsExtensionTemplatePolicy {
    pub critical: bool,
    pub template_id: StringPolicy,
    pub major_version: IntegerPolicy,
    pub minor_version: IntegerPolicy,
}

/// An extension that the profile knows by its object identifier alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomExtensionPolicy {
    /// Presence.
    pub presence: Presence,
    /// Whether the extension is critical.
    pub critical: bool,
    /// Encoding of its value.
    pub value_type: ValueType,
    /// Regular expression, or literal when static.
    #[serde(default)]
    pub value_format: Pattern,
}

/// A choice out of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChoicePolicy {
    /// Presence.
    pub presence: Presence,
    /// What may be chosen.
    pub list: Vec<String>,
}

/// How the certificate is signed. The issuer's key decides; a request may only ask for what happens anyway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignaturePolicy {
    /// `RSA`, `ECDSA`.
    pub algorithm: ChoicePolicy,
    /// `SHA-256`, `SHA-384`, `SHA-512`.
    pub hash_algorithm: ChoicePolicy,
}

/// How the public key arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyFormat {
    /// PEM SubjectPublicKeyInfo (HVCA's name for it).
    #[serde(rename = "PKCS8")]
    Pkcs8,
    /// PEM PKCS#10 certificate signing request.
    #[serde(rename = "PKCS10")]
    Pkcs10,
}

/// The algorithm of a public key, as HVCA names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// RSA.
    #[serde(rename = "RSA")]
    Rsa,
    /// ECDSA.
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// Ed25519 (beyond the contract).
    #[serde(rename = "Ed25519")]
    Ed25519,
}

/// The pinned public key: algorithm and sizes. Nothing defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKeyPolicy {
    /// Algorithm.
    pub key_type: KeyAlgorithm,
    /// Bits of the modulus or of the curve's field.
    pub allowed_lengths: Vec<u32>,
    /// How the key arrives.
    pub key_format: KeyFormat,
}

impl PublicKeyPolicy {
    /// Whether a key of this type may be certified.
    pub fn allows(&self, key: KeyType) -> bool {
        let algorithm = match key {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => KeyAlgorithm::Rsa,
            KeyType::P256 | KeyType::P384 | KeyType::P521 => KeyAlgorithm::Ecdsa,
            KeyType::Ed25519 => KeyAlgorithm::Ed25519,
        };
        algorithm == self.key_type && self.allowed_lengths.contains(&key.bits())
    }

    /// The key types that are allowed.
    pub fn pins(&self) -> Vec<KeyType> {
        KeyType::ALL.into_iter().filter(|&key| self.allows(key)).collect()
    }
}

/// The whole policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Policy {
    pub validity: ValidityPolicy,
    #[serde(default)]
    pub subject_dn: SubjectDnPolicy,
    #[serde(default)]
    pub san: SanPolicy,
    pub key_usages: KeyUsagesPolicy,
    #[serde(default)]
    pub extended_key_usages: ExtendedKeyUsagesPolicy,
    #[serde(default)]
    pub subject_da: SubjectDaPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualified_statements: Option<QualifiedStatementsPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_extension_template: Option<MsExtensionTemplatePolicy>,
    #[serde(default)]
    pub custom_extensions: BTreeMap<String, CustomExtensionPolicy>,
    #[serde(default)]
    pub signature: SignaturePolicy,
    pub public_key: PublicKeyPolicy,
    #[serde(default)]
    pub public_key_signature: Presence,
}
