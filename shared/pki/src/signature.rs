//! Signatures of issuers and of requests: their algorithm identifiers (RFC 4055, 5758, 8410) and their verification.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use domain::key::{KeyType, SignatureAlgorithm};

use crate::{
    asn1::{Element, dotted, name_of, tag},
    key::{KeyError, inspect},
};

/// Every algorithm with its whole DER `AlgorithmIdentifier`.
const IDENTIFIERS: [(SignatureAlgorithm, &[u8]); 7] = [
    (
        SignatureAlgorithm::RsaSha256,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
    ),
    (
        SignatureAlgorithm::RsaSha384,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00",
    ),
    (
        SignatureAlgorithm::RsaSha512,
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00",
    ),
    (
        SignatureAlgorithm::EcdsaSha256,
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
    ),
    (
        SignatureAlgorithm::EcdsaSha384,
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
    ),
    (
        SignatureAlgorithm::EcdsaSha512,
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
    ),
    (SignatureAlgorithm::Ed25519, b"\x30\x05\x06\x03\x2b\x65\x70"),
];

/// The DER `AlgorithmIdentifier` of an algorithm: RSA with NULL parameters, ECDSA and Ed25519 with none.
pub fn algorithm_identifier(algorithm: SignatureAlgorithm) -> &'static [u8] {
    let entry = IDENTIFIERS.iter().find(|(known, _)| *known == algorithm);
    entry.expect("the table has every algorithm").1
}

/// A signature algorithm that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAlgorithm {
    /// Not an `AlgorithmIdentifier`, or one with parameters that do not belong there.
    #[error("the signature algorithm identifier is malformed: {0}")]
    Malformed(&'static str),
    /// Known or not, it is none of ours.
    #[error(
        "signatures with {0} are not accepted; sign with RSA (PKCS#1 v1.5) or ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519"
    )]
    NotAccepted(String),
}

/// Reads a DER `AlgorithmIdentifier`. RSA may come without parameters, as RFC 4055, section 5, demands of readers.
pub fn read_algorithm(identifier: &[u8]) -> Result<SignatureAlgorithm, UnknownAlgorithm> {
    if let Some((algorithm, _)) = IDENTIFIERS.iter().find(|(_, known)| *known == identifier) {
        return Ok(*algorithm);
    }
    let malformed = UnknownAlgorithm::Malformed;
    let sequence = Element::only(identifier).map_err(malformed)?;
    let mut fields = sequence.inside();
    if sequence.tag != tag::SEQUENCE {
        return Err(malformed("it is not a sequence"));
    }
    let oid = fields
        .expect(tag::OBJECT_IDENTIFIER, "it has no object identifier")
        .map_err(malformed)?;
    let algorithm = IDENTIFIERS.iter().find(|(_, known)| known[2..].starts_with(oid.raw));
    match algorithm {
        None => Err(UnknownAlgorithm::NotAccepted(common_name(oid.value))),
        Some((SignatureAlgorithm::RsaSha256 | SignatureAlgorithm::RsaSha384 | SignatureAlgorithm::RsaSha512, _))
            if !fields.is_at_end() =>
        {
            Err(malformed("an RSA signature has NULL parameters and no others"))
        }
        Some((
            rsa @ (SignatureAlgorithm::RsaSha256 | SignatureAlgorithm::RsaSha384 | SignatureAlgorithm::RsaSha512),
            _,
        )) => Ok(*rsa),
        Some(_) => Err(malformed("an ECDSA or Ed25519 signature has no parameters")),
    }
}

fn common_name(oid: &[u8]) -> String {
    let name = match dotted(oid).as_str() {
        "1.2.840.113549.1.1.2" => "MD2 and RSA",
        "1.2.840.113549.1.1.4" => "MD5 and RSA",
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "SHA-1 and RSA",
        "1.2.840.113549.1.1.14" => "SHA-224 and RSA",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.10045.4.1" => "SHA-1 and ECDSA",
        "1.2.840.10045.4.3.1" => "SHA-224 and ECDSA",
        "1.2.840.10040.4.3" => "SHA-1 and DSA",
        "2.16.840.1.101.3.4.3.2" => "SHA-256 and DSA",
        "1.3.101.113" => "Ed448",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        _ => return name_of(oid),
    };
    name.to_owned()
}

/// Why a signature is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The key cannot be used at all.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Key and algorithm do not belong together.
    #[error("a key of type {key_type} does not make signatures with {algorithm:?}")]
    Mismatch {
        /// Type of the key.
        key_type: KeyType,
        /// Algorithm named.
        algorithm: SignatureAlgorithm,
    },
    /// It was made with another key, or over other bytes.
    #[error("the signature does not verify")]
    Wrong,
}

/// A public key and an algorithm, parsed once and used often.
#[derive(Debug)]
pub struct Verifier {
    key: ParsedPublicKey,
}

impl Verifier {
    /// For a DER `SubjectPublicKeyInfo` of an accepted type. ECDSA takes each curve with SHA-256, SHA-384 and SHA-512.
    pub fn new(spki: &[u8], algorithm: SignatureAlgorithm) -> Result<Self, BadSignature> {
        Self::for_inspected(spki, inspect(spki)?, algorithm)
    }

    /// For a key that [`inspect`] has already judged.
    pub(crate) fn for_inspected(
        spki: &[u8],
        key_type: KeyType,
        algorithm: SignatureAlgorithm,
    ) -> Result<Self, BadSignature> {
        let parameters = verification(key_type, algorithm).ok_or(BadSignature::Mismatch { key_type, algorithm })?;
        let key = ParsedPublicKey::new(parameters, spki).map_err(|_| BadSignature::Wrong)?;
        Ok(Self { key })
    }

    /// Checks one signature: PKCS#1 v1.5, DER `ECDSA-Sig-Value`, or 64 octets of Ed25519.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.key.verify_sig(message, signature).map_err(|_| BadSignature::Wrong)
    }
}

/// Checks one signature by the key in a DER `SubjectPublicKeyInfo`.
pub fn verify(
    spki: &[u8],
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    Verifier::new(spki, algorithm)?.verify(message, signature)
}

/// The parameters for a key and an algorithm, if they belong together.
pub(crate) fn verification(
    key_type: KeyType,
    algorithm: SignatureAlgorithm,
) -> Option<&'static dyn VerificationAlgorithm> {
    use SignatureAlgorithm as A;
    Some(match (key_type, algorithm) {
        (KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096, A::RsaSha256) => &RSA_PKCS1_2048_8192_SHA256,
        (KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096, A::RsaSha384) => &RSA_PKCS1_2048_8192_SHA384,
        (KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096, A::RsaSha512) => &RSA_PKCS1_2048_8192_SHA512,
        (KeyType::P256, A::EcdsaSha256) => &ECDSA_P256_SHA256_ASN1,
        (KeyType::P256, A::EcdsaSha384) => &ECDSA_P256_SHA384_ASN1,
        (KeyType::P256, A::EcdsaSha512) => &ECDSA_P256_SHA512_ASN1,
        (KeyType::P384, A::EcdsaSha256) => &ECDSA_P384_SHA256_ASN1,
        (KeyType::P384, A::EcdsaSha384) => &ECDSA_P384_SHA384_ASN1,
        (KeyType::P384, A::EcdsaSha512) => &ECDSA_P384_SHA512_ASN1,
        (KeyType::P521, A::EcdsaSha256) => &ECDSA_P521_SHA256_ASN1,
        (KeyType::P521, A::EcdsaSha384) => &ECDSA_P521_SHA384_ASN1,
        (KeyType::P521, A::EcdsaSha512) => &ECDSA_P521_SHA512_ASN1,
        (KeyType::Ed25519, A::Ed25519) => &ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        digest::{SHA384, digest},
        encoding::AsDer,
        signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };

    use super::*;

    #[test]
    fn every_algorithm_is_read_back_from_its_identifier() {
        for (algorithm, identifier) in IDENTIFIERS {
            assert_eq!(algorithm_identifier(algorithm), identifier);
            assert_eq!(read_algorithm(identifier), Ok(algorithm));
        }
    }

    #[test]
    fn rsa_may_come_without_parameters_and_nothing_else_with_some() {
        let without = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
        assert_eq!(read_algorithm(without), Ok(SignatureAlgorithm::RsaSha256));
        for identifier in [
            &b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x04\x00"[..],
            b"\x30\x0c\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x05\x00",
            b"\x30\x07\x06\x03\x2b\x65\x70\x05\x00",
            b"\x31\x05\x06\x03\x2b\x65\x70",
            b"\x30\x02\x05\x00",
            b"\x30\x00",
            b"",
        ] {
            assert!(
                matches!(read_algorithm(identifier), Err(UnknownAlgorithm::Malformed(_))),
                "{identifier:02x?}"
            );
        }
    }

    #[test]
    fn an_object_identifier_that_only_begins_like_a_known_one_is_not_it() {
        let longer = b"\x30\x06\x06\x04\x2b\x65\x70\x01";
        assert_eq!(
            read_algorithm(longer),
            Err(UnknownAlgorithm::NotAccepted("1.3.101.112.1".into()))
        );
        let shorter = b"\x30\x04\x06\x02\x2b\x65";
        assert_eq!(
            read_algorithm(shorter),
            Err(UnknownAlgorithm::NotAccepted("id-edwards-curve-algs".into()))
        );
    }

    #[test]
    fn a_signature_verifies_under_its_key_and_message_alone() {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let stranger = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let spki = |key: &EcdsaKeyPair| key.public_key().as_der().unwrap().as_ref().to_vec();
        let signature = key.sign_digest(&digest(&SHA384, b"message")).unwrap();
        let algorithm = SignatureAlgorithm::EcdsaSha384;
        assert_eq!(verify(&spki(&key), algorithm, b"message", signature.as_ref()), Ok(()));
        assert_eq!(
            verify(&spki(&key), algorithm, b"massage", signature.as_ref()),
            Err(BadSignature::Wrong)
        );
        assert_eq!(
            verify(&spki(&stranger), algorithm, b"message", signature.as_ref()),
            Err(BadSignature::Wrong)
        );
        let other_hash = SignatureAlgorithm::EcdsaSha256;
        assert_eq!(
            verify(&spki(&key), other_hash, b"message", signature.as_ref()),
            Err(BadSignature::Wrong)
        );
        let (key_type, algorithm) = (KeyType::P384, SignatureAlgorithm::Ed25519);
        let mismatch = BadSignature::Mismatch { key_type, algorithm };
        assert_eq!(
            verify(&spki(&key), algorithm, b"message", signature.as_ref()),
            Err(mismatch)
        );
        assert!(matches!(verify(b"", algorithm, b"", b""), Err(BadSignature::Key(_))));
    }

    #[test]
    fn a_verifier_is_used_by_many_threads() {
        fn is_shared<T: Send + Sync>(_: &T) {}
        let key = Ed25519KeyPair::generate().unwrap();
        let verifier = Verifier::new(key.public_key().as_der().unwrap().as_ref(), SignatureAlgorithm::Ed25519).unwrap();
        is_shared(&verifier);
        assert_eq!(verifier.verify(b"message", key.sign(b"message").as_ref()), Ok(()));
    }
}
