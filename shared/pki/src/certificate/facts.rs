//! Reading a certificate: the facts that registration and checking need, as slices of its own bytes.

use std::fmt;

use der::{
    Decode,
    asn1::{GeneralizedTime, UtcTime},
};
use domain::request::KeyUsage;

use crate::asn1::{Element, Fault, Reader, check, dotted, tag};

/// Why bytes are not a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a DER certificate: {0}")]
pub struct ReadError(&'static str);

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

/// basicConstraints (RFC 5280, 4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether this is a CA.
    pub ca: bool,
    /// How many CA certificates may follow below; `None` is any number.
    pub path_length: Option<u32>,
}

/// One extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Contents of the object identifier.
    oid: &'a [u8],
    /// Whether it is critical.
    pub critical: bool,
    /// DER of the value, without the octet string around it.
    pub value: &'a [u8],
}

impl Extension<'_> {
    /// The object identifier in dotted decimal.
    pub fn oid(&self) -> String {
        dotted(self.oid)
    }
}

impl fmt::Debug for Extension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.critical { ", critical" } else { "" };
        write!(f, "{}{mark}, {} octets", self.oid(), self.value.len())
    }
}

/// What a certificate says. Names and keys are whole DER elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// DER `TBSCertificate`.
    pub tbs: &'a [u8],
    /// Outer DER `AlgorithmIdentifier`; equal to the inner one.
    pub signature_algorithm: &'a [u8],
    /// The signature's octets.
    pub signature: &'a [u8],
    /// 1, 2 or 3.
    pub version: u8,
    /// Contents of the INTEGER, most significant octet first.
    pub serial: &'a [u8],
    /// DER `Name`.
    pub issuer: &'a [u8],
    /// UNIX seconds, inclusive.
    pub not_before: i64,
    /// UNIX seconds, inclusive.
    pub not_after: i64,
    /// DER `Name`.
    pub subject: &'a [u8],
    /// DER `SubjectPublicKeyInfo`.
    pub public_key: &'a [u8],
    /// subjectKeyIdentifier.
    pub subject_key_id: Option<&'a [u8]>,
    /// keyIdentifier of authorityKeyIdentifier.
    pub authority_key_id: Option<&'a [u8]>,
    /// basicConstraints.
    pub basic_constraints: Option<BasicConstraints>,
    /// keyUsage, ascending.
    pub key_usage: Option<Vec<KeyUsage>>,
    /// Every extension, in order.
    pub extensions: Vec<Extension<'a>>,
}

impl Facts<'_> {
    /// Whether basicConstraints says CA.
    pub fn is_ca(&self) -> bool {
        self.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Whether the key may be used so: keyUsage has the bit, or there is no keyUsage at all (RFC 5280, 6.1.4 n).
    pub fn may(&self, usage: KeyUsage) -> bool {
        self.key_usage.as_ref().is_none_or(|usages| usages.contains(&usage))
    }
}

/// Reads a DER certificate strictly: nothing after it, DER all through, inner and outer signature algorithm equal, no extension twice.
pub fn read(der: &[u8]) -> Result<Facts<'_>, ReadError> {
    check(der)?;
    let (tbs, signature_algorithm, signature) = parts(der)?;
    let mut fields = tbs.inside();
    let version = match fields.optional(tag::explicit(0))?.map(|version| version.value) {
        None => 1,
        Some([tag::INTEGER, 1, 1]) => 2,
        Some([tag::INTEGER, 1, 2]) => 3,
        Some(_) => return Err(ReadError("its version is none of v1, v2 and v3")),
    };
    let serial = fields.expect(tag::INTEGER, "it has no serial number")?.value;
    if fields.expect(tag::SEQUENCE, "it has no signature algorithm")?.raw != signature_algorithm {
        return Err(ReadError("the signature algorithm inside is not the one outside"));
    }
    let issuer = fields.expect(tag::SEQUENCE, "it has no issuer")?.raw;
    let mut validity = fields.expect(tag::SEQUENCE, "it has no validity")?.inside();
    let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
    validity.end("its validity has a third time")?;
    let subject = fields.expect(tag::SEQUENCE, "it has no subject")?.raw;
    let public_key = fields.expect(tag::SEQUENCE, "it has no public key")?.raw;
    fields.optional(tag::implicit(1))?;
    fields.optional(tag::implicit(2))?;
    let extensions = match fields.optional(tag::explicit(3))? {
        Some(wrapped) => read_extensions(wrapped)?,
        None => Vec::new(),
    };
    fields.end("there is something after its extensions")?;
    let mut facts = Facts {
        tbs: tbs.raw,
        signature_algorithm,
        signature,
        version,
        serial,
        issuer,
        not_before,
        not_after,
        subject,
        public_key,
        subject_key_id: None,
        authority_key_id: None,
        basic_constraints: None,
        key_usage: None,
        extensions,
    };
    for at in 0..facts.extensions.len() {
        let Extension { oid, value, .. } = facts.extensions[at];
        match oid {
            [0x55, 0x1d, 0x0e] => facts.subject_key_id = Some(subject_key_identifier(value)?),
            [0x55, 0x1d, 0x23] => facts.authority_key_id = authority_key_identifier(value)?,
            [0x55, 0x1d, 0x13] => facts.basic_constraints = Some(basic_constraints(value)?),
            [0x55, 0x1d, 0x0f] => facts.key_usage = Some(key_usage(value)?),
            _ => {}
        }
    }
    Ok(facts)
}

/// `TBSCertificate`, `AlgorithmIdentifier` and signature of a certificate (and likewise of a CRL), without looking into them.
pub(super) fn parts(der: &[u8]) -> Result<(Element<'_>, &[u8], &[u8]), Fault> {
    let whole = Element::only(der)?;
    if whole.tag != tag::SEQUENCE {
        return Err("it is not a sequence");
    }
    let mut fields = whole.inside();
    let tbs = fields.expect(tag::SEQUENCE, "it has no to-be-signed part")?;
    let algorithm = fields.expect(tag::SEQUENCE, "it has no signature algorithm")?.raw;
    let signature = fields.expect(tag::BIT_STRING, "it has no signature")?.bit_string()?;
    fields.end("there is something after its signature")?;
    Ok((tbs, algorithm, signature))
}

fn time(validity: &mut Reader<'_>) -> Result<i64, Fault> {
    let wrong = "a time is not as RFC 5280, section 4.1.2.5, wants it";
    let element = validity.any()?;
    let since_1970 = match element.tag {
        tag::UTC_TIME => UtcTime::from_der(element.raw).map(|time| time.to_unix_duration()),
        _ => GeneralizedTime::from_der(element.raw).map(|time| time.to_unix_duration()),
    };
    i64::try_from(since_1970.map_err(|_| wrong)?.as_secs()).map_err(|_| wrong)
}

fn read_extensions(wrapped: Element<'_>) -> Result<Vec<Extension<'_>>, Fault> {
    let list = Element::only(wrapped.value)?;
    let mut list = if list.tag == tag::SEQUENCE {
        list.inside()
    } else {
        return Err("its extensions are no sequence");
    };
    let mut found: Vec<Extension<'_>> = Vec::new();
    while !list.is_at_end() {
        let extension = read_extension(&mut list)?;
        if found.iter().any(|other| other.oid == extension.oid) {
            return Err("an extension is there twice");
        }
        found.push(extension);
    }
    Ok(found)
}

/// One `Extension` (RFC 5280, 4.1): identifier, `critical` if TRUE, octet string.
fn read_extension<'a>(list: &mut Reader<'a>) -> Result<Extension<'a>, Fault> {
    let mut fields = list.expect(tag::SEQUENCE, "an extension is no sequence")?.inside();
    let oid = fields
        .expect(tag::OBJECT_IDENTIFIER, "an extension has no object identifier")?
        .value;
    let critical = match fields.optional(tag::BOOLEAN)?.map(|critical| critical.value) {
        None => false,
        Some([0xff]) => true,
        Some(_) => return Err("an extension says critical FALSE, which DER leaves out"),
    };
    let value = fields.expect(tag::OCTET_STRING, "an extension has no value")?.value;
    fields.end("an extension has a fourth part")?;
    Ok(Extension { oid, critical, value })
}

fn subject_key_identifier(value: &[u8]) -> Result<&[u8], Fault> {
    let element = Element::only(value)?;
    if element.tag == tag::OCTET_STRING && !element.value.is_empty() {
        Ok(element.value)
    } else {
        Err("its subject key identifier is not an octet string, or empty")
    }
}

fn authority_key_identifier(value: &[u8]) -> Result<Option<&[u8]>, Fault> {
    check(value)?;
    let sequence = Element::only(value)?;
    if sequence.tag != tag::SEQUENCE {
        return Err("its authority key identifier is no sequence");
    }
    Ok(sequence.inside().optional(tag::implicit(0))?.map(|key_id| key_id.value))
}

fn basic_constraints(value: &[u8]) -> Result<BasicConstraints, Fault> {
    const WRONG: Fault = "its basic constraints are malformed";
    check(value)?;
    let sequence = Element::only(value)?;
    let mut fields = sequence.inside();
    if sequence.tag != tag::SEQUENCE {
        return Err(WRONG);
    }
    let ca = match fields.optional(tag::BOOLEAN)?.map(|ca| ca.value) {
        None => false,
        Some([0xff]) => true,
        Some(_) => return Err("its basic constraints say cA FALSE, which DER leaves out"),
    };
    let path_length = match fields.optional(tag::INTEGER)?.map(|length| length.value) {
        None => None,
        Some([first, ..]) if first & 0x80 != 0 => return Err(WRONG),
        Some(octets) if octets.len() <= 4 => {
            Some(octets.iter().fold(0, |length, octet| (length << 8) | u32::from(*octet)))
        }
        Some(_) => return Err(WRONG),
    };
    fields.end(WRONG)?;
    Ok(BasicConstraints { ca, path_length })
}

fn key_usage(value: &[u8]) -> Result<Vec<KeyUsage>, Fault> {
    const ALL: [KeyUsage; 9] = [
        KeyUsage::DigitalSignature,
        KeyUsage::ContentCommitment,
        KeyUsage::KeyEncipherment,
        KeyUsage::DataEncipherment,
        KeyUsage::KeyAgreement,
        KeyUsage::KeyCertificateSign,
        KeyUsage::CrlSign,
        KeyUsage::EncipherOnly,
        KeyUsage::DecipherOnly,
    ];
    check(value)?;
    match value {
        [tag::BIT_STRING, _, _, bits @ ..] => {
            let is_set = |at: usize| bits.get(at / 8).is_some_and(|octet| octet & (0x80 >> (at % 8)) != 0);
            Ok(ALL
                .into_iter()
                .enumerate()
                .filter(|(at, _)| is_set(*at))
                .map(|(_, usage)| usage)
                .collect())
        }
        _ => Err("its key usage is no bit string"),
    }
}

/// subjectKeyIdentifier of a key: the leftmost 160 bits of SHA-256 over the key's bit string (RFC 7093, section 2, method 1).
pub fn subject_key_id(spki: &[u8]) -> Result<[u8; 20], ReadError> {
    let mut fields = Element::only(spki)?.inside();
    fields.any()?;
    let key = fields
        .expect(tag::BIT_STRING, "the public key has no bit string")?
        .bit_string()?;
    let digest = crate::sha256(key).0;
    Ok(std::array::from_fn(|at| digest[at]))
}
