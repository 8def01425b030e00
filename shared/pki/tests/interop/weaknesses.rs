//! Weak RSA keys, judged by ourselves and by badkeys.

use pki::{
    key::{Weakness, weakness},
    pem,
};

use crate::tools::Workshop;

/// Moduli with random factors, with the fingerprint of ROCA, and with primes at distances around what Fermat's method finds.
const JUDGED_KEYS: &str = r#"
import random
import gmpy2
from badkeys.rsakeys.fermat import fermat
from badkeys.rsakeys.roca import roca
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

draw = random.Random(2017)

def prime(bits):
    return int(gmpy2.next_prime(draw.getrandbits(bits) | (3 << (bits - 2))))

def strong(bits):
    return prime(bits // 2) * prime(bits // 2)

def close(bits):
    p = prime(bits // 2)
    return p * int(gmpy2.next_prime(p + draw.getrandbits(bits // 4 + draw.randrange(-40, 40))))

def infineon(bits):
    primorial = int(gmpy2.primorial(353 if bits < 1984 else 701))
    power = pow(65537, draw.getrandbits(40), primorial)
    factor = draw.randrange((1 << (bits - 1)) // primorial + 1, (1 << bits) // primorial) & ~1
    return factor * primorial + power

for kind in [strong, close, infineon] * 20:
    bits = draw.choice([2048, 3072])
    n = kind(bits)
    if n.bit_length() != bits:
        continue
    verdict = "roca" if roca(n) else "close" if fermat(n) else "none"
    key = RSAPublicNumbers(65537, n).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    print(verdict, key.decode(), sep="\n", end="\x1e")
"#;

#[test]
fn badkeys_finds_the_same_keys_weak() {
    let output = Workshop::new().python(JUDGED_KEYS);
    let mut counts = [0; 3];
    for record in output.split_terminator('\u{1e}') {
        let (verdict, key) = record.split_once('\n').expect("a verdict and a key");
        let spki = pem::decode("PUBLIC KEY", key).unwrap();
        let (at, expected) = match verdict {
            "roca" => (0, Some(Weakness::Roca)),
            "close" => (1, Some(Weakness::CloseFactors)),
            "none" => (2, None),
            other => panic!("{other}"),
        };
        assert_eq!(weakness(&spki), expected, "{key}");
        counts[at] += 1;
    }
    assert!(
        counts.iter().all(|count| *count > 5),
        "keys of every kind were judged: {counts:?}"
    );
}
