//! Keys that are well-formed and yet give their private half away.

use num_bigint::BigUint;

use crate::key::{KeyError, Material, parse};

/// Rounds of Fermat's factorisation that are tried: primes of 1024 bits are found out when they differ in no more than their
/// lower 516 bits or so.
const FERMAT_ROUNDS: u32 = 100;

/// What makes a key worthless though its encoding is in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// The exponent is even, too small or too large.
    #[error("the RSA public exponent is weak: {0}")]
    Exponent(KeyError),
    /// The modulus has the fingerprint of an Infineon library whose keys can be factored (CVE-2017-15361).
    #[error(
        "the RSA key is of the kind that can be factored by ROCA (CVE-2017-15361); make a new key on other hardware"
    )]
    Roca,
    /// The two primes are so close together that Fermat's method finds them (CVE-2022-26320).
    #[error(
        "the two primes of the RSA key are too close together, so anybody can factor it; make a new key with another program"
    )]
    CloseFactors,
    /// An Ed25519 key of small order, under which signatures can be made without a private key.
    #[error("the Ed25519 key is a point of small order, for which anybody can make signatures; make a new key")]
    SmallOrder,
}

/// Looks for weaknesses of a key: exponent, ROCA, close primes, small order. `None` also for keys that
/// [`inspect`](crate::key::inspect) refuses, apart from their exponent.
pub fn weakness(spki: &[u8]) -> Option<Weakness> {
    match parse(spki) {
        Ok((_, Material::Rsa { modulus })) if has_roca_fingerprint(modulus) => Some(Weakness::Roca),
        Ok((_, Material::Rsa { modulus })) if has_close_factors(modulus) => Some(Weakness::CloseFactors),
        Ok((_, Material::Ed25519 { point })) if has_small_order(point) => Some(Weakness::SmallOrder),
        Err(error @ KeyError::Exponent(_)) => Some(Weakness::Exponent(error)),
        _ => None,
    }
}

/// The first primes that divide the number by which such keys are made, so that the modulus is a power of 65537 modulo each of them.
/// 2 is left out, and so are those of which every residue is such a power.
const ROCA_PRIMES: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// For each of [`ROCA_PRIMES`] the powers of 65537, as bits.
const ROCA_POWERS: [[u64; 3]; 17] = {
    let mut powers = [[0; 3]; 17];
    let mut at = 0;
    while at < powers.len() {
        let mut power = 1;
        while powers[at][power as usize / 64] & (1 << (power % 64)) == 0 {
            powers[at][power as usize / 64] |= 1 << (power % 64);
            power = power * 65_537 % ROCA_PRIMES[at];
        }
        at += 1;
    }
    powers
};

/// Nemec, Sys, Svenda, Klinec, Matyas: The Return of Coppersmith's Attack (2017), section 2. One modulus in 150 million has the
/// fingerprint by chance.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    ROCA_PRIMES.iter().zip(ROCA_POWERS).all(|(&prime, powers)| {
        let residue = remainder(modulus, prime);
        powers[residue as usize / 64] & (1 << (residue % 64)) != 0
    })
}

fn remainder(number: &[u8], divisor: u32) -> u32 {
    let rest = number.rchunks(4).rev().fold(0_u64, |rest, chunk| {
        let digit = chunk
            .iter()
            .fold(0_u64, |digit, octet| (digit << 8) | u64::from(*octet));
        ((rest << 32) | digit) % u64::from(divisor)
    });
    u32::try_from(rest).expect("it is less than the divisor")
}

/// Fermat: n = a² - b² for the first a from the root of n upwards for which a² - n is a square.
fn has_close_factors(modulus: &[u8]) -> bool {
    let n = BigUint::from_bytes_be(modulus);
    let mut a = n.sqrt();
    if &a * &a < n {
        a += 1_u32;
    }
    let mut difference = &a * &a - &n;
    let mut step: BigUint = (a << 1) + 1_u32;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&difference) {
            return true;
        }
        difference += &step;
        step += 2_u32;
    }
    false
}

/// Squares have few residues, so that hardly ever a root must be taken.
fn is_square(number: &BigUint) -> bool {
    const MODULUS: u64 = 3 * 3 * 5 * 7 * 11 * 13 * 17;
    let low = number.iter_u64_digits().next().unwrap_or(0);
    if !is_residue(low, 64) {
        return false;
    }
    let rest = (number % MODULUS).iter_u64_digits().next().unwrap_or(0);
    if ![9, 5, 7, 11, 13, 17]
        .into_iter()
        .all(|modulus| is_residue(rest, modulus))
    {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

fn is_residue(number: u64, modulus: u64) -> bool {
    let rest = number % modulus;
    (0..=modulus / 2).any(|root| root * root % modulus == rest)
}

/// The encodings of y of all points whose order divides 8, sign aside: 0, 1, -1 and two more, with those that are not reduced modulo
/// 2^255 - 19.
const SMALL_ORDER: [[u8; 32]; 7] = [
    near_top(0x00, 0x00, 0x00),
    near_top(0x01, 0x00, 0x00),
    near_top(0xec, 0xff, 0x7f),
    near_top(0xed, 0xff, 0x7f),
    near_top(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

const fn near_top(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut octets = [middle; 32];
    octets[0] = first;
    octets[31] = last;
    octets
}

fn has_small_order(point: &[u8]) -> bool {
    SMALL_ORDER
        .iter()
        .any(|small| point[..31] == small[..31] && point[31] & 0x7f == small[31])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `SubjectPublicKeyInfo` of an RSA key with this modulus.
    fn rsa(modulus: &BigUint, exponent: &[u8]) -> Vec<u8> {
        use crate::asn1::{element, tag};
        let number = |magnitude: &[u8]| {
            let sign: &[u8] = if magnitude[0] & 0x80 == 0 { b"" } else { b"\0" };
            element(tag::INTEGER, &[sign, magnitude])
        };
        let key = element(tag::SEQUENCE, &[&number(&modulus.to_bytes_be()), &number(exponent)]);
        let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
        element(tag::SEQUENCE, &[algorithm, &element(tag::BIT_STRING, &[&[0], &key])])
    }

    /// The number that ROCA keys of 2048 bits are made with: the product of the first 126 primes.
    fn primorial() -> BigUint {
        let primes = (2_u32..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
        primes.take(126).map(BigUint::from).product()
    }

    #[test]
    fn the_primes_of_the_fingerprint_are_those_that_tell_keys_apart() {
        let primes = (3_u32..168).filter(|n| (2..*n).all(|d| n % d != 0));
        let telling = primes.filter(|prime| {
            let mut power = 65_537 % prime;
            let mut order = 1;
            while power != 1 {
                power = power * 65_537 % prime;
                order += 1;
            }
            order < prime - 1
        });
        assert_eq!(telling.collect::<Vec<_>>(), ROCA_PRIMES.to_vec());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_key_made_the_roca_way_is_found(power in 1_u32..1_000_000, factor in proptest::collection::vec(any::<u8>(), 126)) {
            let primorial = primorial();
            let residue = BigUint::from(65_537_u32).modpow(&power.into(), &primorial);
            let room = (BigUint::from(1_u32) << 2048) / &primorial;
            let factor: BigUint = &room - (BigUint::from_bytes_be(&factor) % (&room >> 1)) - 1_u32;
            let modulus: BigUint = &primorial * factor + residue;
            prop_assert_eq!(modulus.bits(), 2048);
            prop_assert_eq!(weakness(&rsa(&modulus, &[1, 0, 1])), Some(Weakness::Roca));
        }

        #[test]
        fn factors_that_are_close_are_found_and_others_are_not(seed in proptest::collection::vec(any::<u8>(), 128), gap in proptest::collection::vec(any::<u8>(), 60)) {
            let ones = (BigUint::from(3_u32) << 1022) + 1_u32;
            let p = BigUint::from_bytes_be(&seed) | &ones;
            let near: BigUint = &p + (BigUint::from_bytes_be(&gap) << 1);
            prop_assume!(near.bits() == 1024);
            prop_assert_eq!(weakness(&rsa(&(&p * near), &[1, 0, 1])), Some(Weakness::CloseFactors));
            let far: BigUint = (&p ^ (BigUint::from_bytes_be(&gap) << 520)) | &ones;
            prop_assume!(p != far);
            prop_assert_eq!(weakness(&rsa(&(&p * far), &[1, 0, 1])), None);
        }

        #[test]
        fn remainders_are_right(number: u128, divisor in 1_u32..) {
            prop_assert_eq!(u128::from(remainder(&number.to_be_bytes(), divisor)), number % u128::from(divisor));
        }
    }

    #[test]
    fn a_square_as_modulus_is_found() {
        let root = (BigUint::from(1_u32) << 1024) - 1_u32;
        assert_eq!(
            weakness(&rsa(&(&root * &root), &[1, 0, 1])),
            Some(Weakness::CloseFactors)
        );
    }

    #[test]
    fn exponents_that_are_small_or_even_are_weak() {
        let modulus = (BigUint::from(1_u32) << 2048) - 1_u32;
        for exponent in [&[1][..], &[3], &[17], &[1, 0, 0], &[1, 0, 2]] {
            assert!(
                matches!(weakness(&rsa(&modulus, exponent)), Some(Weakness::Exponent(_))),
                "{exponent:?}"
            );
        }
    }

    #[test]
    fn ed25519_points_of_small_order_are_weak_and_the_base_point_is_not() {
        let spki = |point: &[u8; 32]| [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], point].concat();
        for mut point in SMALL_ORDER {
            assert_eq!(weakness(&spki(&point)), Some(Weakness::SmallOrder));
            point[31] |= 0x80;
            assert_eq!(weakness(&spki(&point)), Some(Weakness::SmallOrder));
        }
        assert_eq!(weakness(&spki(&near_top(0x58, 0x66, 0x66))), None);
    }
}
