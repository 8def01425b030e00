//! Requests for certificates as clients send them (PKCS#10, RFC 2986; `SubjectPublicKeyInfo`, RFC 5280, 4.1.2.7), and the requests
//! that this CA makes for its own keys.
//!
//! Of a client's request only the key and the proof of its possession count. Subject and extensions are never used, but a request in
//! which they are malformed is refused as a whole: who sends one is not to be trusted with the rest.

mod content;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    key::{KeyType, SignatureAlgorithm},
    policy::KeyFormat,
    request::TypedValue,
};

use crate::{
    asn1::{Element, Fault, check, element, tag},
    certificate::{PrepareError, name},
    key::{KeyError, Weakness, inspect, weakness},
    pem::{PemError, decode, decode_labelled},
    signature::{BadSignature, UnknownAlgorithm, Verifier, read_algorithm},
};

/// A key that somebody wants certified, of an accepted type and not known to be weak. From a CSR: with possession proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedKey {
    /// DER `SubjectPublicKeyInfo`, byte for byte as it was sent.
    pub spki: Vec<u8>,
    /// Its type.
    pub key_type: KeyType,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not one PEM block of the right kind.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Not a PKCS#10 request in DER.
    #[error("the certificate signing request is malformed: {0}; make a new one")]
    Malformed(&'static str),
    /// The key is not of an accepted type, or wrongly encoded.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key gives its private half away.
    #[error(transparent)]
    Weak(#[from] Weakness),
    /// The request is signed in a way that is not accepted.
    #[error("the certificate signing request: {0}")]
    Algorithm(#[from] UnknownAlgorithm),
    /// The request names an algorithm that its key cannot use.
    #[error(
        "the certificate signing request has a key of type {key_type}, which does not make signatures with {algorithm:?}"
    )]
    AlgorithmMismatch {
        /// Type of the key.
        key_type: KeyType,
        /// Algorithm named.
        algorithm: SignatureAlgorithm,
    },
    /// The request is not signed by the key in it, or was altered.
    #[error(
        "the signature of the certificate signing request does not verify under the key in it; sign it with the matching private key"
    )]
    Signature,
    /// `public_key_signature` is not base64.
    #[error("it is not base64 of at most {MAX_POSSESSION} characters")]
    PossessionEncoding,
    /// `public_key_signature` is not by this key over this key.
    #[error(
        "it does not verify; sign the DER SubjectPublicKeyInfo with the matching private key: SHA-256 with RSA PKCS#1 v1.5, SHA-256 with ECDSA in DER, or Ed25519"
    )]
    Possession,
}

/// The longest `public_key_signature` that is looked at, in characters.
const MAX_POSSESSION: usize = 2048;

impl CsrError {
    /// HVCA's path of the field that is to blame.
    pub fn field(&self) -> &'static str {
        match self {
            Self::PossessionEncoding | Self::Possession => "public_key_signature",
            _ => "public_key",
        }
    }
}

impl From<Fault> for CsrError {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault)
    }
}

/// Reads HVCA's `public_key`: for [`KeyFormat::Pkcs8`] a PEM `PUBLIC KEY`, for [`KeyFormat::Pkcs10`] a PEM `CERTIFICATE REQUEST` (or
/// `NEW CERTIFICATE REQUEST`, as some tools label it) whose signature is verified.
///
/// The key is judged first, so that a request with an unacceptable key is refused for its key and not for a signature that nobody can
/// check.
pub fn read(public_key: &str, format: KeyFormat) -> Result<RequestedKey, CsrError> {
    match format {
        KeyFormat::Pkcs8 => accept_key(&decode("PUBLIC KEY", public_key)?),
        KeyFormat::Pkcs10 => read_der(&decode_labelled(
            &["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"],
            public_key,
        )?),
    }
}

fn accept_key(spki: &[u8]) -> Result<RequestedKey, CsrError> {
    let key_type = inspect(spki)?;
    match weakness(spki) {
        Some(weakness) => Err(weakness.into()),
        None => Ok(RequestedKey {
            spki: spki.to_vec(),
            key_type,
        }),
    }
}

/// Reads a DER `CertificationRequest`.
fn read_der(der: &[u8]) -> Result<RequestedKey, CsrError> {
    check(der)?;
    let whole = Element::only(der)?;
    if whole.tag != tag::SEQUENCE {
        return Err(CsrError::Malformed("it is not a sequence"));
    }
    let mut fields = whole.inside();
    let information = fields.expect(tag::SEQUENCE, "it has no CertificationRequestInfo")?;
    let algorithm = fields.expect(tag::SEQUENCE, "it has no signature algorithm")?.raw;
    let signature = fields.expect(tag::BIT_STRING, "it has no signature")?.bit_string()?;
    fields.end("there is something after its signature")?;

    let mut fields = information.inside();
    if fields.expect(tag::INTEGER, "it has no version")?.value != [0] {
        return Err(CsrError::Malformed("its version is not v1 (0)"));
    }
    let subject = fields.expect(tag::SEQUENCE, "it has no subject")?;
    let spki = fields.expect(tag::SEQUENCE, "it has no public key")?.raw;
    let attributes = fields.expect(tag::explicit(0), "it has no attributes, not even an empty set of them")?;
    fields.end("there is something after its attributes")?;

    let requested = accept_key(spki)?;
    content::check_subject(subject)?;
    content::check_attributes(attributes)?;
    let algorithm = read_algorithm(algorithm)?;
    Verifier::for_inspected(spki, requested.key_type, algorithm)
        .and_then(|verifier| verifier.verify(information.raw, signature))
        .map_err(|error| match error {
            BadSignature::Mismatch { key_type, algorithm } => CsrError::AlgorithmMismatch { key_type, algorithm },
            _ => CsrError::Signature,
        })?;
    Ok(requested)
}

/// Checks HVCA's `public_key_signature`: base64 of a signature over the DER `SubjectPublicKeyInfo`, with SHA-256 by RSA PKCS#1 v1.5 or
/// ECDSA (whatever the curve), or by Ed25519.
pub fn verify_possession(spki: &[u8], key_type: KeyType, signature_base64: &str) -> Result<(), CsrError> {
    if signature_base64.len() > MAX_POSSESSION {
        return Err(CsrError::PossessionEncoding);
    }
    let mut base64 = signature_base64.to_owned();
    base64.retain(|c| !c.is_ascii_whitespace());
    let signature = STANDARD.decode(base64).map_err(|_| CsrError::PossessionEncoding)?;
    let algorithm = match key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => SignatureAlgorithm::RsaSha256,
        KeyType::P256 | KeyType::P384 | KeyType::P521 => SignatureAlgorithm::EcdsaSha256,
        KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
    };
    Verifier::new(spki, algorithm)
        .and_then(|verifier| verifier.verify(spki, &signature))
        .map_err(|_| CsrError::Possession)
}

/// The DER `CertificationRequestInfo` that a key of ours is to sign: version 1, this subject, this key, no attributes.
pub fn to_be_signed(subject: &[TypedValue], spki: &[u8]) -> Result<Vec<u8>, PrepareError> {
    inspect(spki).map_err(|error| PrepareError {
        field: "public_key",
        detail: error.to_string(),
    })?;
    let version = element(tag::INTEGER, &[&[0]]);
    let attributes = element(tag::explicit(0), &[]);
    Ok(element(
        tag::SEQUENCE,
        &[&version, &name::encode(subject)?, spki, &attributes],
    ))
}

/// Puts a signature to what [`to_be_signed`] gave: the DER `CertificationRequest`.
pub fn seal(tbs: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    // A request is signed in the same form as a certificate (RFC 2986, 4.2; RFC 5280, 4.1).
    crate::certificate::seal(tbs, algorithm, signature)
}

#[cfg(test)]
mod tests;
