//! The public key (RFC 5280, 4.1.2.7; RFC 3279, 2.3.1; RFC 5480, 2; RFC 8410, 3 and 4).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ParsedPublicKey};
use domain::key::KeyType;

use super::{
    Leaf, Rule, Verdict, ensure,
    parser::{Element, Malformed, Reader, check, tag},
    primitive::bit_string,
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf(
        "key-algorithm",
        "RFC 3279 2.3.1; RFC 5480 2.1.1; RFC 8410 3; BR 7.1.3.1",
        "public_key",
        algorithm,
    ),
    Rule::leaf("key-bits", "RFC 5280 4.1", "public_key", whole_bytes),
    Rule::leaf("key-rsa-modulus", "RFC 8017 3.1; BR 6.1.5", "public_key", rsa_modulus),
    Rule::leaf("key-rsa-factors", "BR 6.1.6", "public_key", rsa_factors),
    Rule::leaf("key-rsa-exponent", "RFC 8017 3.1; BR 6.1.6", "public_key", rsa_exponent),
    Rule::leaf(
        "key-ec-uncompressed",
        "RFC 5480 2.2; SEC 1 2.3.3",
        "public_key",
        ec_uncompressed,
    ),
    Rule::leaf("key-ec-on-curve", "SEC 1 3.2.2; BR 6.1.6", "public_key", ec_on_curve),
    Rule::leaf("key-ed25519-length", "RFC 8410 4", "public_key", ed25519_length),
    Rule::leaf("key-pinned", "profile public_key", "public_key", pinned),
];

/// A SubjectPublicKeyInfo.
#[derive(Debug)]
pub(super) struct PublicKey<'a> {
    pub whole: &'a [u8],
    /// The AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    /// Unused bits at the end of the BIT STRING.
    pub unused: u8,
    /// The bytes of the BIT STRING.
    pub bits: &'a [u8],
    pub material: Material<'a>,
}

/// What the BIT STRING of a public key holds.
#[derive(Debug)]
pub(super) enum Material<'a> {
    /// Contents of the two INTEGERs.
    Rsa { modulus: &'a [u8], exponent: &'a [u8] },
    /// An ECPoint on a curve.
    Point { curve: KeyType, point: &'a [u8] },
    /// An Ed25519 public key.
    Ed25519(&'a [u8]),
    /// A key of an algorithm that is not issued for.
    Other,
}

const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
const P521: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23,
];
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

impl<'a> PublicKey<'a> {
    pub(super) fn read(element: Element<'a>) -> Result<Self, Malformed> {
        let mut reader = element.inner();
        let algorithm = reader.expect(tag::SEQUENCE, "algorithm")?.whole;
        let bits = reader.expect(tag::BIT_STRING, "subjectPublicKey")?;
        reader.end()?;
        let (unused, bytes) = bit_string(bits.content)?;
        let point = |curve| Material::Point { curve, point: bytes };
        let material = match algorithm {
            RSA => {
                check(bytes)?;
                let mut numbers = Reader::sequence_in(bytes, "RSAPublicKey")?;
                let modulus = numbers.expect(tag::INTEGER, "modulus")?.content;
                let exponent = numbers.expect(tag::INTEGER, "publicExponent")?.content;
                numbers.end()?;
                Material::Rsa { modulus, exponent }
            }
            P256 => point(KeyType::P256),
            P384 => point(KeyType::P384),
            P521 => point(KeyType::P521),
            ED25519 => Material::Ed25519(bytes),
            _ => Material::Other,
        };
        let whole = element.whole;
        Ok(Self {
            whole,
            algorithm,
            unused,
            bits: bytes,
            material,
        })
    }

    /// The type of the key, if it is one that is issued for.
    pub(super) fn key_type(&self) -> Option<KeyType> {
        match self.material {
            Material::Rsa { modulus, .. } => rsa_type(modulus),
            Material::Point { curve, .. } => Some(curve),
            Material::Ed25519(_) => Some(KeyType::Ed25519),
            Material::Other => None,
        }
    }
}

/// The type of an RSA key with exactly the bits of one of the sizes.
fn rsa_type(modulus: &[u8]) -> Option<KeyType> {
    let [0, top, rest @ ..] = modulus else { return None };
    match (top & 0x80, rest.len()) {
        (0x80, 255) => Some(KeyType::Rsa2048),
        (0x80, 383) => Some(KeyType::Rsa3072),
        (0x80, 511) => Some(KeyType::Rsa4096),
        _ => None,
    }
}

/// RSA with parameters NULL, one of the three named curves, or Ed25519 without parameters: each exactly as its RFC writes it.
fn algorithm(leaf: &Leaf<'_>) -> Verdict {
    let key = &leaf.tbs.public_key;
    ensure(!matches!(key.material, Material::Other), || {
        format!(
            "the algorithm of the public key is not exactly RSA, P-256, P-384, P-521 or Ed25519: {:02x?}",
            key.algorithm
        )
    })
}

fn whole_bytes(leaf: &Leaf<'_>) -> Verdict {
    let unused = leaf.tbs.public_key.unused;
    ensure(unused == 0, || format!("the public key has {unused} unused bits"))
}

fn rsa_modulus(leaf: &Leaf<'_>) -> Verdict {
    let Material::Rsa { modulus, .. } = leaf.tbs.public_key.material else {
        return Ok(());
    };
    let odd = modulus.last().is_some_and(|last| last & 1 == 1);
    ensure(odd && rsa_type(modulus).is_some(), || {
        "the modulus is not an odd number of exactly 2048, 3072 or 4096 bits".into()
    })
}

/// Products of the odd primes below 752, as many in each as fit: one division by a product does for all its primes.
const PRODUCTS: [u64; 19] = products();

const fn products() -> [u64; 19] {
    let mut products = [1_u64; 19];
    let mut at = 0;
    let mut number: u64 = 3;
    while number < 752 {
        let mut divisor = 3;
        while divisor * divisor <= number && !number.is_multiple_of(divisor) {
            divisor += 2;
        }
        if divisor * divisor > number {
            if products[at].checked_mul(number).is_none() {
                at += 1;
            }
            products[at] *= number;
        }
        number += 2;
    }
    products
}

/// Whether the number has an odd prime factor below 752.
pub(super) fn has_small_factor(modulus: &[u8]) -> bool {
    let limbs = modulus.rchunks(8).rev();
    PRODUCTS.iter().any(|&product| {
        let remainder = limbs.clone().fold(0, |remainder, limb| {
            let limb = limb.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let value = u128::from(remainder) << 64 | u128::from(limb);
            u64::try_from(value % u128::from(product)).unwrap_or_default()
        });
        common_factor(product, remainder)
    })
}

/// Whether two numbers have a factor in common; everything has one with 0.
const fn common_factor(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a != 1
}

fn rsa_factors(leaf: &Leaf<'_>) -> Verdict {
    let Material::Rsa { modulus, .. } = leaf.tbs.public_key.material else {
        return Ok(());
    };
    ensure(rsa_modulus(leaf).is_err() || !has_small_factor(modulus), || {
        "the modulus has a prime factor below 752".into()
    })
}

/// Odd, and within 2^16 + 1 and 2^256 - 1.
fn rsa_exponent(leaf: &Leaf<'_>) -> Verdict {
    let Material::Rsa { exponent, .. } = leaf.tbs.public_key.material else {
        return Ok(());
    };
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let digits = exponent.strip_prefix(&[0]).unwrap_or(exponent);
    let positive = exponent.first().is_some_and(|first| *first < 0x80);
    let least: &[u8] = &[1, 0, 1];
    let large = digits.len() > 3 || digits.len() == 3 && digits >= least;
    ensure(odd && positive && large && digits.len() <= 32, || {
        "the exponent is not an odd number within 2^16 + 1 and 2^256 - 1".into()
    })
}

/// The form that begins with 04 and holds both coordinates in full.
fn is_uncompressed(curve: KeyType, point: &[u8]) -> bool {
    let coordinate = (curve.bits() as usize).div_ceil(8);
    point.first() == Some(&4) && point.len() == 1 + 2 * coordinate
}

fn ec_uncompressed(leaf: &Leaf<'_>) -> Verdict {
    let Material::Point { curve, point } = leaf.tbs.public_key.material else {
        return Ok(());
    };
    ensure(is_uncompressed(curve, point), || {
        format!("the point is not in the uncompressed form of {curve}")
    })
}

fn ec_on_curve(leaf: &Leaf<'_>) -> Verdict {
    let Material::Point { curve, point } = leaf.tbs.public_key.material else {
        return Ok(());
    };
    let parsed = match curve {
        KeyType::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point),
        KeyType::P521 => ParsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, point),
        _ => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point),
    };
    ensure(parsed.is_ok() || !is_uncompressed(curve, point), || {
        format!("the point is not on {curve}")
    })
}

fn ed25519_length(leaf: &Leaf<'_>) -> Verdict {
    let Material::Ed25519(key) = leaf.tbs.public_key.material else {
        return Ok(());
    };
    ensure(key.len() == 32, || {
        format!("an Ed25519 key has 32 bytes, not {}", key.len())
    })
}

fn pinned(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy.public_key;
    match leaf.tbs.public_key.key_type() {
        Some(key) => ensure(policy.allows(key), || {
            let pins: Vec<_> = policy.pins().iter().map(|pin| pin.as_str()).collect();
            format!("the key is {key}, the profile pins {}", pins.join(" or "))
        }),
        // The other rules say what is wrong with a key that has no type.
        None => Ok(()),
    }
}
