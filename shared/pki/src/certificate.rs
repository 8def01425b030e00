//! Certificates: the to-be-signed bytes from settled content, the sealed certificate, and what can be read out of one.
//!
//! `prepare` is the whole encoding: the same arguments give the same bytes, in every process. Nothing in between holds a name or an
//! extension in another form than its bytes, so nothing can be lost or put in another order.

mod directory;
mod extension;
mod facts;
pub(crate) mod name;
mod sealed;
mod value;

use domain::{id::Serial, issuer::Issuer, key::SignatureAlgorithm, request::Content};

use crate::{
    asn1::{Element, element, tag},
    key::inspect,
    signature::algorithm_identifier,
};

pub use facts::{BasicConstraints, Extension, Facts, ReadError, read, subject_key_id};
pub use sealed::{ChainVerifier, SealedWrong, check_sealed};

/// Why content cannot be encoded. `field` is HVCA's path, such as `san.dns_names`; empty if the issuer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}{}{detail}", if field.is_empty() { "" } else { ": " })]
pub struct PrepareError {
    /// HVCA's path of the field.
    pub field: &'static str,
    /// What is wrong, and what to do.
    pub detail: String,
}

impl PrepareError {
    fn new(field: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { field, detail }
    }
}

/// Encodes the DER `TBSCertificate` (RFC 5280, 4.1) that says `content`, issued by `issuer` under `serial`.
///
/// Version 3; the issuer's name as it stands in its CA certificate, byte for byte; the requested `SubjectPublicKeyInfo`, byte for byte;
/// `UTCTime` up to 2049 and `GeneralizedTime` from 2050.
pub fn prepare(content: &Content, issuer: &Issuer, serial: Serial) -> Result<Vec<u8>, PrepareError> {
    const VERSION_3: &[u8] = b"\xa0\x03\x02\x01\x02";
    let issuer_name = Element::only(&issuer.subject);
    if issuer_name.is_err() || issuer_name.is_ok_and(|name| name.tag != tag::SEQUENCE) {
        return Err(PrepareError::new(
            "",
            format!("issuer {} has no DER name; register it again", issuer.id),
        ));
    }
    inspect(&content.public_key).map_err(|error| PrepareError::new("public_key", error.to_string()))?;
    Ok(element(
        tag::SEQUENCE,
        &[
            VERSION_3,
            &element(tag::INTEGER, &[serial.as_bytes()]),
            algorithm_identifier(issuer.signature_algorithm),
            &issuer.subject,
            &value::validity(content.not_before, content.not_after)?,
            &name::encode(&content.subject)?,
            &content.public_key,
            &element(tag::explicit(3), &[&extension::encode(content, issuer, serial)?]),
        ],
    ))
}

/// Puts a signature to to-be-signed bytes: the DER `Certificate` (and likewise `CertificateList`) of exactly these bytes.
pub fn seal(tbs: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    let signature = element(tag::BIT_STRING, &[&[0], signature]);
    element(tag::SEQUENCE, &[tbs, algorithm_identifier(algorithm), &signature])
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
