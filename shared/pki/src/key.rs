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
