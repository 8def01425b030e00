//! Public keys: what a `SubjectPublicKeyInfo` may be (RFC 3279, 5480, 8410), read strictly.

use domain::key::KeyType;

use crate::asn1::{Element, Fault, dotted, name_of, tag};

pub use crate::weakness::{Weakness, weakness};

/// The key types that are accepted, for messages.
const ACCEPTED: &str = "use RSA with 2048, 3072 or 4096 bits, ECDSA on P-256, P-384 or P-521 (named curve), or Ed25519";

/// `rsaEncryption`, 1.2.840.113549.1.1.1.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `id-ecPublicKey`, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `id-Ed25519`, 1.3.101.112.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// `secp256r1`, 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `secp384r1`, 1.3.132.0.34.
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// `secp521r1`, 1.3.132.0.35.
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// Why a public key is not accepted: what was found, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the structure at all.
    #[error("the public key is not a DER SubjectPublicKeyInfo: {0}")]
    Malformed(&'static str),
    /// Another algorithm.
    #[error("{0} keys are not accepted; {ACCEPTED}")]
    Algorithm(String),
    /// The right algorithm, with parameters it must not have or without those it must have.
    #[error("the algorithm identifier of the {algorithm} key has {found} parameters; it must have {wanted}")]
    Parameters {
        /// Algorithm of the key.
        algorithm: &'static str,
        /// What was found.
        found: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// Modulus of another size.
    #[error("RSA keys of {0} bits are not accepted; {ACCEPTED}")]
    ModulusBits(usize),
    /// Modulus that is no product of two odd primes.
    #[error("the RSA modulus is even, so it is not the product of two large primes; make a new key")]
    EvenModulus,
    /// Exponent that is even, too small or too large.
    #[error("the RSA public exponent {0} is not accepted; use an odd number from 65537 to 4294967295, best 65537")]
    Exponent(String),
    /// Another curve.
    #[error("keys on the curve {0} are not accepted; {ACCEPTED}")]
    Curve(String),
    /// Curve given by its coefficients.
    #[error("the elliptic curve is given by explicit parameters, which are not accepted; {ACCEPTED}")]
    ExplicitCurve,
    /// Compressed or hybrid form.
    #[error("the elliptic curve point is in {0} form, which is not accepted; encode it uncompressed (first octet 04)")]
    PointForm(&'static str),
    /// Point of the wrong length, not on the curve, or at infinity.
    #[error("the elliptic curve point is not a point of {0}; make a new key")]
    Point(KeyType),
    /// Ed25519 key of the wrong length.
    #[error("the Ed25519 key has {0} octets; it must have 32 (RFC 8410, section 4)")]
    Ed25519Length(usize),
}

impl From<Fault> for KeyError {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault)
    }
}

/// A public key taken apart. Numbers are big-endian without leading zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Material<'a> {
    Rsa { modulus: &'a [u8] },
    Ec,
    Ed25519 { point: &'a [u8] },
}

/// Judges a DER `SubjectPublicKeyInfo` by its exact encoding: RSA with NULL parameters, a modulus of exactly 2048, 3072 or 4096 bits
/// and an odd exponent from 65537; ECDSA on a named curve with an uncompressed point that is on it; Ed25519 without parameters.
pub fn inspect(spki: &[u8]) -> Result<KeyType, KeyError> {
    parse(spki).map(|(key_type, _)| key_type)
}

pub(crate) fn parse(spki: &[u8]) -> Result<(KeyType, Material<'_>), KeyError> {
    let whole = Element::only(spki)?;
    if whole.tag != tag::SEQUENCE {
        return Err(KeyError::Malformed("it is not a sequence"));
    }
    let mut fields = whole.inside();
    let algorithm = fields.expect(tag::SEQUENCE, "it does not begin with an algorithm identifier")?;
    let key = fields.expect(tag::BIT_STRING, "it has no bit string with the key")?;
    fields.end("there is something after the key")?;
    let key = key.bit_string()?;

    let mut fields = algorithm.inside();
    let oid = fields.expect(
        tag::OBJECT_IDENTIFIER,
        "the algorithm identifier has no object identifier",
    )?;
    let parameters = if fields.is_at_end() { None } else { Some(fields.any()?) };
    fields.end("the algorithm identifier has a third part")?;

    match oid.value {
        RSA_ENCRYPTION => rsa(parameters, key),
        EC_PUBLIC_KEY => ec(parameters, key),
        ED25519 => ed25519(parameters, key),
        other => Err(KeyError::Algorithm(common_name(other))),
    }
}

fn rsa<'a>(parameters: Option<Element<'_>>, key: &'a [u8]) -> Result<(KeyType, Material<'a>), KeyError> {
    let found = match parameters {
        Some(Element { raw: [0x05, 0x00], .. }) => None,
        None => Some("no"),
        Some(_) => Some("other"),
    };
    if let Some(found) = found {
        let (algorithm, wanted) = ("RSA", "NULL parameters (RFC 3279, section 2.3.1)");
        return Err(KeyError::Parameters {
            algorithm,
            found,
            wanted,
        });
    }
    let key = Element::only(key)?;
    if key.tag != tag::SEQUENCE {
        return Err(KeyError::Malformed("the RSA key is not a sequence"));
    }
    let mut numbers = key.inside();
    let modulus = natural(numbers.expect(tag::INTEGER, "the RSA key has no modulus")?)?;
    let exponent = natural(numbers.expect(tag::INTEGER, "the RSA key has no exponent")?)?;
    numbers.end("the RSA key has a third number")?;

    let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let key_type = match bits {
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        _ => return Err(KeyError::ModulusBits(bits)),
    };
    if modulus.last().is_some_and(|last| last & 1 == 0) {
        return Err(KeyError::EvenModulus);
    }
    check_exponent(exponent)?;
    Ok((key_type, Material::Rsa { modulus }))
}

/// The upper limit is that of the verifier, and keeps verification cheap; BR 6.1.6 asks for at least 65537.
fn check_exponent(exponent: &[u8]) -> Result<(), KeyError> {
    if exponent.len() > 8 {
        return Err(KeyError::Exponent(format!("of {} octets", exponent.len())));
    }
    let value = exponent
        .iter()
        .fold(0_u64, |value, octet| (value << 8) | u64::from(*octet));
    if value & 1 == 1 && (65_537..=0xffff_ffff).contains(&value) {
        Ok(())
    } else {
        Err(KeyError::Exponent(value.to_string()))
    }
}

/// The magnitude of a positive DER INTEGER, without its sign octet; empty for zero.
fn natural(integer: Element<'_>) -> Result<&[u8], Fault> {
    match integer.value {
        [] => Err("an integer has no octets"),
        [0] => Ok(&[]),
        [0, second, ..] if second & 0x80 == 0 => Err("an integer has a needless leading zero"),
        [0, magnitude @ ..] => Ok(magnitude),
        [first, ..] if first & 0x80 != 0 => Err("an integer is negative"),
        magnitude => Ok(magnitude),
    }
}

fn ec<'a>(parameters: Option<Element<'_>>, point: &'a [u8]) -> Result<(KeyType, Material<'a>), KeyError> {
    let curve = parameters.ok_or(KeyError::Parameters {
        algorithm: "ECDSA",
        found: "no",
        wanted: "the object identifier of a named curve (RFC 5480, section 2.1.1)",
    })?;
    let key_type = match (curve.tag, curve.value) {
        (tag::OBJECT_IDENTIFIER, P256) => KeyType::P256,
        (tag::OBJECT_IDENTIFIER, P384) => KeyType::P384,
        (tag::OBJECT_IDENTIFIER, P521) => KeyType::P521,
        (tag::OBJECT_IDENTIFIER, other) => return Err(KeyError::Curve(common_name(other))),
        (tag::SEQUENCE, _) => return Err(KeyError::ExplicitCurve),
        _ => {
            return Err(KeyError::Parameters {
                algorithm: "ECDSA",
                found: "other",
                wanted: "the object identifier of a named curve (RFC 5480, section 2.1.1)",
            });
        }
    };
    match point.first() {
        Some(2 | 3) => return Err(KeyError::PointForm("compressed")),
        Some(6 | 7) => return Err(KeyError::PointForm("hybrid")),
        _ => {}
    }
    let coordinate = usize::try_from(key_type.bits().div_ceil(8)).expect("a few octets");
    let uncompressed = point.first() == Some(&4) && point.len() == 1 + 2 * coordinate;
    let verification = crate::signature::verification(key_type, key_type.signature_algorithm()).expect("it fits");
    if !uncompressed || aws_lc_rs::signature::ParsedPublicKey::new(verification, point).is_err() {
        return Err(KeyError::Point(key_type));
    }
    Ok((key_type, Material::Ec))
}

fn ed25519<'a>(parameters: Option<Element<'_>>, point: &'a [u8]) -> Result<(KeyType, Material<'a>), KeyError> {
    if parameters.is_some() {
        let (algorithm, wanted) = ("Ed25519", "none (RFC 8410, section 3)");
        return Err(KeyError::Parameters {
            algorithm,
            found: "some",
            wanted,
        });
    }
    if point.len() != 32 {
        return Err(KeyError::Ed25519Length(point.len()));
    }
    Ok((KeyType::Ed25519, Material::Ed25519 { point }))
}

/// What people call an algorithm or a curve that is not accepted; its numbers if nothing is known.
pub(crate) fn common_name(oid: &[u8]) -> String {
    let numbers = dotted(oid);
    let name = match numbers.as_str() {
        "1.2.840.113549.1.1.7" => "RSA-OAEP",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.10040.4.1" => "DSA",
        "1.3.132.0.10" => "secp256k1",
        "1.3.132.0.33" => "P-224",
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        "1.3.101.110" => "X25519",
        "1.3.101.111" => "X448",
        "1.3.101.113" => "Ed448",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        _ => return name_of(oid),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::AsDer,
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
            EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        },
    };
    use proptest::prelude::*;

    use super::*;
    use crate::asn1::element;

    const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const EC_OID: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        element(tag::SEQUENCE, parts)
    }
    fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
        sequence(&[algorithm, &element(tag::BIT_STRING, &[&[0], key])])
    }
    fn rsa_with(algorithm: &[u8], modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let numbers = sequence(&[&element(tag::INTEGER, &[modulus]), &element(tag::INTEGER, &[exponent])]);
        spki(algorithm, &numbers)
    }
    fn rsa(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        if bits.is_multiple_of(8) {
            modulus.insert(0, 0);
        }
        rsa_with(RSA_ALGORITHM, &modulus, &[1, 0, 1])
    }
    fn ec(curve: &[u8], point: &[u8]) -> Vec<u8> {
        spki(&sequence(&[EC_OID, curve]), point)
    }
    fn p256() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
    }

    #[test]
    fn keys_of_every_accepted_type_are_told_apart() {
        for (bits, key_type) in [
            (2048, KeyType::Rsa2048),
            (3072, KeyType::Rsa3072),
            (4096, KeyType::Rsa4096),
        ] {
            assert_eq!(inspect(&rsa(bits)), Ok(key_type));
        }
        for (algorithm, key_type) in [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, KeyType::P256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, KeyType::P384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, KeyType::P521),
        ] {
            let key = EcdsaKeyPair::generate(algorithm).unwrap();
            assert_eq!(inspect(key.public_key().as_der().unwrap().as_ref()), Ok(key_type));
        }
        let key = Ed25519KeyPair::generate().unwrap();
        assert_eq!(
            inspect(key.public_key().as_der().unwrap().as_ref()),
            Ok(KeyType::Ed25519)
        );
    }

    #[test]
    fn rsa_keys_of_other_sizes_are_refused_naming_the_size() {
        for bits in [512, 1024, 1536, 2047, 2049, 2056, 3071, 4095, 4097, 8192] {
            let error = inspect(&rsa(bits)).unwrap_err();
            assert_eq!(error, KeyError::ModulusBits(bits));
            let text = error.to_string();
            assert!(
                text.contains(&format!("RSA keys of {bits} bits")) && text.contains("2048, 3072 or 4096"),
                "{text}"
            );
        }
    }

    #[test]
    fn rsa_numbers_must_be_positive_minimal_and_odd() {
        let modulus = [&[0][..], &[0xff; 256]].concat();
        let with = |modulus: &[u8]| inspect(&rsa_with(RSA_ALGORITHM, modulus, &[1, 0, 1])).unwrap_err();
        assert_eq!(with(&modulus[1..]), KeyError::Malformed("an integer is negative"));
        assert_eq!(
            with(&[&[0][..], &modulus].concat()),
            KeyError::Malformed("an integer has a needless leading zero")
        );
        assert_eq!(with(&[]), KeyError::Malformed("an integer has no octets"));
        assert_eq!(with(&[0]), KeyError::ModulusBits(0));
        assert_eq!(with(&[&modulus[..256], &[0xfe]].concat()), KeyError::EvenModulus);
        for (exponent, found) in [
            (&[3][..], "3"),
            (&[1, 0, 0], "65536"),
            (&[1, 0, 2], "65538"),
            (&[0], "0"),
            (&[1, 0, 0, 0, 1], "4294967297"),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 1], "of 9 octets"),
        ] {
            let error = inspect(&rsa_with(RSA_ALGORITHM, &modulus, exponent)).unwrap_err();
            assert_eq!(error, KeyError::Exponent(found.into()));
        }
        assert_eq!(
            inspect(&rsa_with(RSA_ALGORITHM, &modulus, &[1, 0, 1])),
            Ok(KeyType::Rsa2048)
        );
        assert_eq!(
            inspect(&rsa_with(RSA_ALGORITHM, &modulus, &[0, 0xff, 0xff, 0xff, 0xff])),
            Ok(KeyType::Rsa2048)
        );
    }

    #[test]
    fn algorithm_parameters_must_be_what_the_standard_says() {
        let found = |spki: &[u8]| match inspect(spki).unwrap_err() {
            KeyError::Parameters { algorithm, found, .. } => (algorithm, found),
            other => panic!("{other}"),
        };
        let without_null = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
        let with_octets = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x04\x00";
        let modulus = [&[0][..], &[0xff; 256]].concat();
        assert_eq!(found(&rsa_with(without_null, &modulus, &[1, 0, 1])), ("RSA", "no"));
        assert_eq!(found(&rsa_with(with_octets, &modulus, &[1, 0, 1])), ("RSA", "other"));
        assert_eq!(found(&ec(b"", &[4; 65])), ("ECDSA", "no"));
        assert_eq!(found(&ec(b"\x05\x00", &[4; 65])), ("ECDSA", "other"));
        assert_eq!(
            found(&spki(b"\x30\x07\x06\x03\x2b\x65\x70\x05\x00", &[7; 32])),
            ("Ed25519", "some")
        );
        assert_eq!(
            inspect(&spki(b"\x30\x05\x06\x03\x2b\x65\x70", &[7; 31])),
            Err(KeyError::Ed25519Length(31))
        );
    }

    #[test]
    fn curves_and_algorithms_that_are_not_accepted_are_named() {
        for (curve, name) in [
            (&b"\x06\x05\x2b\x81\x04\x00\x0a"[..], "secp256k1"),
            (b"\x06\x05\x2b\x81\x04\x00\x21", "P-224"),
            (b"\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x07", "brainpoolP256r1"),
            (b"\x06\x02\x88\x37", "2.999"),
        ] {
            assert_eq!(inspect(&ec(curve, &[4; 65])), Err(KeyError::Curve(name.into())));
        }
        assert_eq!(
            inspect(&ec(b"\x30\x03\x02\x01\x01", &[4; 65])),
            Err(KeyError::ExplicitCurve)
        );
        for (oid, name) in [
            (&b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"[..], "RSA-PSS"),
            (b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
            (b"\x06\x03\x2b\x65\x71", "Ed448"),
            (b"\x06\x03\x2b\x65\x6e", "X25519"),
            (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x11", "ML-DSA-44"),
            (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12", "ML-DSA-65"),
            (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x13", "ML-DSA-87"),
        ] {
            let error = inspect(&spki(&sequence(&[oid]), &[0; 32])).unwrap_err();
            assert_eq!(error, KeyError::Algorithm(name.into()));
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{name} keys are not accepted; use RSA with 2048")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_point_must_be_uncompressed_and_on_the_curve() {
        let curve = element(tag::OBJECT_IDENTIFIER, &[P256]);
        let point = p256().public_key().as_ref().to_vec();
        assert_eq!(inspect(&ec(&curve, &point)), Ok(KeyType::P256));
        let mut other = point.clone();
        other[64] ^= 1;
        let with_first = |first: u8| [&[first][..], &point[1..]].concat();
        for (point, error) in [
            (other, KeyError::Point(KeyType::P256)),
            (vec![0], KeyError::Point(KeyType::P256)),
            (vec![], KeyError::Point(KeyType::P256)),
            (point[..64].to_vec(), KeyError::Point(KeyType::P256)),
            ([&point[..], &[0]].concat(), KeyError::Point(KeyType::P256)),
            ([&[4][..], &[0; 64]].concat(), KeyError::Point(KeyType::P256)),
            (with_first(2)[..33].to_vec(), KeyError::PointForm("compressed")),
            (with_first(3)[..33].to_vec(), KeyError::PointForm("compressed")),
            (with_first(6), KeyError::PointForm("hybrid")),
            (with_first(7), KeyError::PointForm("hybrid")),
        ] {
            assert_eq!(inspect(&ec(&curve, &point)), Err(error), "{point:02x?}");
        }
        let p384 = element(tag::OBJECT_IDENTIFIER, &[P384]);
        assert_eq!(inspect(&ec(&p384, &point)), Err(KeyError::Point(KeyType::P384)));
    }

    #[test]
    fn the_structure_must_be_exact() {
        let good = rsa(2048);
        let algorithm = RSA_ALGORITHM;
        let key = &element(tag::BIT_STRING, &[&[0], b"\x30\x00"]);
        for (spki, fault) in [
            ([&good[..], &[0]].concat(), "there are bytes after its end"),
            (element(tag::SET, &[algorithm, key]), "it is not a sequence"),
            (
                sequence(&[algorithm, key, b"\x05\x00"]),
                "there is something after the key",
            ),
            (sequence(&[algorithm]), "it has no bit string with the key"),
            (sequence(&[key]), "it does not begin with an algorithm identifier"),
            (
                sequence(&[algorithm, b"\x03\x02\x04\x10"]),
                "a bit string is not made of whole octets",
            ),
            (spki(algorithm, b"\x30\x00"), "the RSA key has no modulus"),
            (spki(algorithm, b"\x31\x00"), "the RSA key is not a sequence"),
        ] {
            assert_eq!(inspect(&spki), Err(KeyError::Malformed(fault)));
        }
    }

    proptest! {
        #[test]
        fn a_key_with_any_octet_changed_does_not_make_the_reader_panic(at: prop::sample::Index, change in 1_u8..) {
            let mut key = p256().public_key().as_der().unwrap().as_ref().to_vec();
            let at = at.index(key.len());
            key[at] ^= change;
            prop_assert!(inspect(&key).is_err());
            let mut key = rsa(2048);
            let at = at.min(key.len() - 1);
            key[at] ^= change;
            let _ = inspect(&key);
        }
    }
}
