//! The extensions of a certificate (RFC 5280, 4.2), in a fixed order.
//!
//! A leaf says that it is no CA: `basicConstraints` is always there, critical, and empty, as DER leaves out the default FALSE
//! (BR 7.1.2.7.8 allows it). A certificate with `id-pkix-ocsp-nocheck` has no `authorityInfoAccess` and no
//! `cRLDistributionPoints`: nobody shall check it (RFC 6960, 4.2.2.2.1; BR 7.1.2.8.3).

use std::net::IpAddr;

use domain::{
    id::Serial,
    issuer::Issuer,
    request::{AlternativeNames, Content, KeyUsage, MsExtensionTemplate},
};

use super::{PrepareError, directory, subject_key_id, value};
use crate::asn1::{element, tag};

const AUTHORITY_KEY_IDENTIFIER: &str = "2.5.29.35";
const SUBJECT_KEY_IDENTIFIER: &str = "2.5.29.14";
const KEY_USAGE: &str = "2.5.29.15";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
const CERTIFICATE_POLICIES: &str = "2.5.29.32";
const AUTHORITY_INFORMATION_ACCESS: &str = "1.3.6.1.5.5.7.1.1";
const CRL_DISTRIBUTION_POINTS: &str = "2.5.29.31";
const OCSP_NO_CHECK: &str = "1.3.6.1.5.5.7.48.1.5";
const SUBJECT_DIRECTORY_ATTRIBUTES: &str = "2.5.29.9";
const QC_STATEMENTS: &str = "1.3.6.1.5.5.7.1.3";
const MS_CERTIFICATE_TEMPLATE: &str = "1.3.6.1.4.1.311.21.7";

/// What has a field of its own, or is settled by the kind of certificate: never a custom extension.
const NOT_CUSTOM: [&str; 18] = [
    AUTHORITY_KEY_IDENTIFIER,
    SUBJECT_KEY_IDENTIFIER,
    KEY_USAGE,
    BASIC_CONSTRAINTS,
    EXTENDED_KEY_USAGE,
    SUBJECT_ALTERNATIVE_NAME,
    CERTIFICATE_POLICIES,
    AUTHORITY_INFORMATION_ACCESS,
    CRL_DISTRIBUTION_POINTS,
    OCSP_NO_CHECK,
    SUBJECT_DIRECTORY_ATTRIBUTES,
    QC_STATEMENTS,
    MS_CERTIFICATE_TEMPLATE,
    // nameConstraints, policyMappings, policyConstraints, inhibitAnyPolicy, freshestCRL
    "2.5.29.30",
    "2.5.29.33",
    "2.5.29.36",
    "2.5.29.54",
    "2.5.29.46",
];

/// `Extensions`, collected in order; each object identifier at most once.
struct Extensions {
    encoded: Vec<u8>,
    seen: Vec<Vec<u8>>,
}

impl Extensions {
    fn add(&mut self, field: &'static str, oid: &str, critical: bool, body: &[u8]) -> Result<(), PrepareError> {
        let identifier = value::object_identifier(field, oid)?;
        if self.seen.contains(&identifier) {
            return Err(PrepareError::new(field, format!("extension {oid} is there twice")));
        }
        let critical: &[u8] = if critical { b"\x01\x01\xff" } else { b"" };
        let body = element(tag::OCTET_STRING, &[body]);
        self.encoded
            .extend(element(tag::SEQUENCE, &[&identifier, critical, &body]));
        self.seen.push(identifier);
        Ok(())
    }
}

/// The DER `Extensions`.
pub(super) fn encode(content: &Content, issuer: &Issuer, serial: Serial) -> Result<Vec<u8>, PrepareError> {
    let mut all = Extensions {
        encoded: Vec::with_capacity(512),
        seen: Vec::with_capacity(12),
    };
    if issuer.subject_key_id.is_empty() {
        return Err(PrepareError::new(
            "",
            format!("issuer {} has no subject key identifier", issuer.id),
        ));
    }
    let key_id = element(tag::implicit(0), &[&issuer.subject_key_id]);
    all.add("", AUTHORITY_KEY_IDENTIFIER, false, &element(tag::SEQUENCE, &[&key_id]))?;
    let key_id =
        subject_key_id(&content.public_key).map_err(|error| PrepareError::new("public_key", error.to_string()))?;
    all.add(
        "",
        SUBJECT_KEY_IDENTIFIER,
        false,
        &element(tag::OCTET_STRING, &[&key_id]),
    )?;
    if !content.key_usage.is_empty() {
        all.add("key_usages", KEY_USAGE, true, &key_usage(&content.key_usage))?;
    }
    all.add("", BASIC_CONSTRAINTS, true, &element(tag::SEQUENCE, &[]))?;
    if !content.extended_key_usage.is_empty() {
        let field = "extended_key_usages";
        let usages = identifiers(field, &content.extended_key_usage)?;
        all.add(
            field,
            EXTENDED_KEY_USAGE,
            content.extended_key_usage_critical,
            &element(tag::SEQUENCE, &[&usages]),
        )?;
    }
    if !content.san.is_empty() {
        let critical = content.san.critical || content.subject.is_empty();
        all.add(
            "san",
            SUBJECT_ALTERNATIVE_NAME,
            critical,
            &alternative_names(&content.san)?,
        )?;
    } else if content.subject.is_empty() {
        return Err(PrepareError::new(
            "subject_dn",
            "is empty, and there are no alternative names either; give one of both",
        ));
    }
    if !content.certificate_policies.is_empty() {
        let mut policies = Vec::new();
        for policy in &content.certificate_policies {
            policies.extend(element(
                tag::SEQUENCE,
                &[&value::object_identifier("certificate_policies", policy)?],
            ));
        }
        all.add(
            "certificate_policies",
            CERTIFICATE_POLICIES,
            false,
            &element(tag::SEQUENCE, &[&policies]),
        )?;
    }
    if content.ocsp_no_check {
        all.add("", OCSP_NO_CHECK, false, &element(tag::NULL, &[]))?;
    } else {
        all.add("", AUTHORITY_INFORMATION_ACCESS, false, &information_access(issuer)?)?;
        all.add(
            "",
            CRL_DISTRIBUTION_POINTS,
            false,
            &distribution_points(&issuer.crl_url(serial))?,
        )?;
    }
    if let Some(attributes) = directory::attributes(content.subject_da.as_ref(), &content.subject_da_extra)? {
        all.add("subject_da", SUBJECT_DIRECTORY_ATTRIBUTES, false, &attributes)?;
    }
    if let Some(statements) = content
        .qualified_statements
        .as_ref()
        .map(directory::statements)
        .transpose()?
        .flatten()
    {
        all.add("qualified_statements", QC_STATEMENTS, false, &statements)?;
    }
    if let Some((critical, template)) = &content.ms_extension_template {
        all.add(
            "ms_extension_template",
            MS_CERTIFICATE_TEMPLATE,
            *critical,
            &ms_template(template)?,
        )?;
    }
    for custom in &content.custom_extensions {
        let (field, oid) = ("custom_extensions", custom.value.oid.as_str());
        if NOT_CUSTOM.contains(&oid) {
            return Err(PrepareError::new(
                field,
                format!("extension {oid} cannot be a custom one; use its own field"),
            ));
        }
        all.add(field, oid, custom.critical, &value::typed(field, &custom.value)?)?;
    }
    Ok(element(tag::SEQUENCE, &[&all.encoded]))
}

/// A named bit list: as few octets as hold the last bit that is set (X.690, 11.2.2).
fn key_usage(usages: &[KeyUsage]) -> Vec<u8> {
    let mut bits = [0_u8; 2];
    for usage in usages {
        let at = *usage as usize;
        bits[at / 8] |= 0x80 >> (at % 8);
    }
    let used = if bits[1] == 0 { 1 } else { 2 };
    let unused = bits[used - 1].trailing_zeros().to_le_bytes()[0];
    element(tag::BIT_STRING, &[&[unused], &bits[..used]])
}

/// Object identifiers one after the other.
pub(super) fn identifiers(field: &'static str, oids: &[String]) -> Result<Vec<u8>, PrepareError> {
    let mut encoded = Vec::new();
    for oid in oids {
        encoded.extend(value::object_identifier(field, oid)?);
    }
    Ok(encoded)
}

/// `GeneralNames` (RFC 5280, 4.2.1.6).
fn alternative_names(names: &AlternativeNames) -> Result<Vec<u8>, PrepareError> {
    let mut all = Vec::new();
    for name in &names.dns_names {
        all.extend(value::ia5("san.dns_names", DNS_NAME, name)?);
    }
    for mail in &names.emails {
        all.extend(value::ia5("san.emails", RFC822_NAME, mail)?);
    }
    for address in &names.ip_addresses {
        all.extend(match address {
            IpAddr::V4(address) => element(IP_ADDRESS, &[&address.octets()]),
            IpAddr::V6(address) => element(IP_ADDRESS, &[&address.octets()]),
        });
    }
    for uri in &names.uris {
        all.extend(value::ia5("san.uris", URI, uri)?);
    }
    for other in &names.other_names {
        let field = "san.other_names";
        let oid = value::object_identifier(field, &other.oid)?;
        let value = element(tag::explicit(0), &[&value::typed(field, other)?]);
        all.extend(element(tag::explicit(0), &[&oid, &value]));
    }
    Ok(element(tag::SEQUENCE, &[&all]))
}

/// Tags of `GeneralName`.
pub(super) const RFC822_NAME: u8 = tag::implicit(1);
/// dNSName.
pub(super) const DNS_NAME: u8 = tag::implicit(2);
/// uniformResourceIdentifier.
pub(super) const URI: u8 = tag::implicit(6);
/// iPAddress.
const IP_ADDRESS: u8 = tag::implicit(7);

/// `AuthorityInfoAccessSyntax` (RFC 5280, 4.2.2.1): OCSP, then caIssuers.
fn information_access(issuer: &Issuer) -> Result<Vec<u8>, PrepareError> {
    const OCSP: &str = "1.3.6.1.5.5.7.48.1";
    const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";
    let mut all = Vec::new();
    for (method, url) in [(OCSP, issuer.ocsp_url()), (CA_ISSUERS, issuer.ca_issuers_url())] {
        let method = value::object_identifier("", method)?;
        all.extend(element(tag::SEQUENCE, &[&method, &value::ia5("", URI, &url)?]));
    }
    Ok(element(tag::SEQUENCE, &[&all]))
}

/// `CRLDistributionPoints` (RFC 5280, 4.2.1.13) with one full name.
fn distribution_points(url: &str) -> Result<Vec<u8>, PrepareError> {
    let full_name = element(tag::explicit(0), &[&value::ia5("", URI, url)?]);
    let point = element(tag::explicit(0), &[&full_name]);
    Ok(element(tag::SEQUENCE, &[&element(tag::SEQUENCE, &[&point])]))
}

/// Microsoft's `CertificateTemplateOID`: identifier, major version, minor version.
fn ms_template(template: &MsExtensionTemplate) -> Result<Vec<u8>, PrepareError> {
    let id = template
        .id
        .as_deref()
        .ok_or_else(|| PrepareError::new("ms_extension_template.id", "is required"))?;
    let mut all = value::object_identifier("ms_extension_template.id", id)?;
    if template.major_version.is_none() && template.minor_version.is_some() {
        return Err(PrepareError::new(
            "ms_extension_template.major_version",
            "is required when minor_version is given",
        ));
    }
    for (field, version) in [
        ("ms_extension_template.major_version", template.major_version),
        ("ms_extension_template.minor_version", template.minor_version),
    ] {
        if let Some(version) = version {
            let version = u32::try_from(version)
                .map_err(|_| PrepareError::new(field, "is not a whole number from 0 to 4294967295"))?;
            all.extend(value::whole_number(version.into()));
        }
    }
    Ok(element(tag::SEQUENCE, &[&all]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_usage_bits_are_a_minimal_bit_string() {
        use KeyUsage as U;
        for (usages, der) in [
            (vec![U::DigitalSignature], &b"\x03\x02\x07\x80"[..]),
            (vec![U::DigitalSignature, U::KeyEncipherment], b"\x03\x02\x05\xa0"),
            (vec![U::KeyCertificateSign, U::CrlSign], b"\x03\x02\x01\x06"),
            (vec![U::EncipherOnly], b"\x03\x02\x00\x01"),
            (vec![U::KeyAgreement, U::DecipherOnly], b"\x03\x03\x07\x08\x80"),
        ] {
            assert_eq!(key_usage(&usages), der, "{usages:?}");
        }
    }
}
