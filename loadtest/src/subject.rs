//! Whose certificates are requested: as many distinct keys as needed, each with a PKCS#10 request that it signed.
//!
//! An RSA key takes a tenth of a second to make. So RSA keys here are pairs out of a small pool of primes, of which every pair gives
//! another modulus: worthless as keys, since they share primes, and to the machinery like any other.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaPublicKeyComponents,
    },
};
use domain::{key::KeyType, policy::ValueType, request::TypedValue};
use num_bigint::BigUint;

/// One request.
pub struct Csr {
    /// A DNS name of its own.
    pub name: String,
    /// PEM `CERTIFICATE REQUEST`.
    pub pem: String,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
}

/// A key pair that signs: requests here, certificates in the bare loop.
pub enum Signer {
    Ecdsa(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// A new key.
    pub fn generate(key_type: KeyType) -> Result<Self> {
        if let Some(curve) = curve(key_type) {
            return Ok(Self::Ecdsa(EcdsaKeyPair::generate(curve)?));
        }
        match rsa_size(key_type) {
            Some(size) => Ok(Self::Rsa(rsa::KeyPair::generate(size)?)),
            None => Ok(Self::Ed25519(Ed25519KeyPair::generate()?)),
        }
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Result<Vec<u8>> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Ecdsa(pair) => pair.public_key().as_der()?,
            Self::Rsa(pair) => pair.public_key().as_der()?,
            Self::Ed25519(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }

    /// Signs with the algorithm that belongs to the key's type.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                signature
            }
            Self::Ed25519(pair) => pair.try_sign(message)?.as_ref().to_vec(),
        })
    }
}

fn curve(key_type: KeyType) -> Option<&'static EcdsaSigningAlgorithm> {
    match key_type {
        KeyType::P256 => Some(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyType::P384 => Some(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyType::P521 => Some(&ECDSA_P521_SHA512_ASN1_SIGNING),
        _ => None,
    }
}

fn rsa_size(key_type: KeyType) -> Option<KeySize> {
    match key_type {
        KeyType::Rsa2048 => Some(KeySize::Rsa2048),
        KeyType::Rsa3072 => Some(KeySize::Rsa3072),
        KeyType::Rsa4096 => Some(KeySize::Rsa4096),
        _ => None,
    }
}

/// `count` requests for distinct keys of one type, made by `threads` threads; `made` is called after each.
pub fn requests(key_type: KeyType, count: usize, threads: usize, made: &(dyn Fn() + Sync)) -> Result<Vec<Csr>> {
    let primes = match rsa_size(key_type) {
        Some(_) => primes(key_type, count, threads)?,
        None => Vec::new(),
    };
    let pairs = pairs(primes.len());
    in_parallel(count, threads, &|number| {
        let signer = match pairs.get(number) {
            Some(&(p, q)) => Signer::Rsa(from_primes(&primes[p], &primes[q])?),
            None => Signer::generate(key_type)?,
        };
        let csr = request(number, key_type, &signer);
        made();
        csr
    })
}

fn request(number: usize, key_type: KeyType, signer: &Signer) -> Result<Csr> {
    let name = format!("load-{number:07}.example.com");
    let subject = [TypedValue {
        oid: "2.5.4.3".into(),
        value_type: ValueType::Utf8string,
        value: name.clone(),
    }];
    let spki = signer.spki()?;
    let information = pki::csr::to_be_signed(&subject, &spki)?;
    let der = pki::csr::seal(
        &information,
        key_type.signature_algorithm(),
        &signer.sign(&information)?,
    );
    Ok(Csr {
        name,
        pem: pki::pem::encode("CERTIFICATE REQUEST", &der),
        spki,
    })
}

/// Makes `count` things by number, in order.
fn in_parallel<T: Send>(count: usize, threads: usize, make: &(dyn Fn(usize) -> Result<T> + Sync)) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(made);
            }
            made.push((number, make(number)?));
        }
    };
    let mut all = Vec::with_capacity(count);
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(())
    })?;
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

/// Enough primes for `count` distinct pairs.
fn primes(key_type: KeyType, count: usize, threads: usize) -> Result<Vec<BigUint>> {
    let mut enough = 2;
    while enough * (enough - 1) / 2 < count {
        enough += 2;
    }
    let size = rsa_size(key_type).context("not an RSA type")?;
    let keys = in_parallel(enough / 2, threads, &|_| {
        let pair = rsa::KeyPair::generate(size)?;
        let pkcs8 = AsDer::<Pkcs8V1Der>::as_der(&pair)?;
        two_primes(pkcs8.as_ref())
    })?;
    Ok(keys.into_iter().flatten().collect())
}

/// Every pair of `count` things.
fn pairs(count: usize) -> Vec<(usize, usize)> {
    (0..count)
        .flat_map(|first| (0..first).map(move |second| (first, second)))
        .collect()
}

/// The primes in a PKCS#8 RSA key: RFC 5958, 2 around RFC 8017, A.1.2.
fn two_primes(pkcs8: &[u8]) -> Result<[BigUint; 2]> {
    let (_, mut key) = element(pkcs8)?;
    for _ in 0..2 {
        key = skip(key)?;
    }
    let (_, octets) = element(key)?;
    let (_, mut fields) = element(octets)?;
    // version, modulus, two exponents
    for _ in 0..4 {
        fields = skip(fields)?;
    }
    let (_, p) = element(fields)?;
    let (_, q) = element(skip(fields)?)?;
    Ok([BigUint::from_bytes_be(p), BigUint::from_bytes_be(q)])
}

fn skip(der: &[u8]) -> Result<&[u8]> {
    let (length, _) = element(der)?;
    Ok(&der[length..])
}

/// The length of the first DER element, and its value.
fn element(der: &[u8]) -> Result<(usize, &[u8])> {
    let (header, length) = match *der {
        [_, length, ..] if length < 0x80 => (2, usize::from(length)),
        [_, 0x81, length, ..] => (3, usize::from(length)),
        [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => bail!("not an RSA key in DER"),
    };
    let value = der
        .get(header..header + length)
        .context("an RSA key that is cut short")?;
    Ok((header + length, value))
}

/// The RSA key of two primes, with the exponent 65537.
fn from_primes(p: &BigUint, q: &BigUint) -> Result<rsa::KeyPair> {
    let (p, q) = if p > q { (p, q) } else { (q, p) };
    let one = BigUint::from(1_u8);
    let e = BigUint::from(65_537_u32);
    let (p_1, q_1) = (p - &one, q - &one);
    let d = e
        .modinv(&(&p_1 * &q_1))
        .context("the exponent does not fit the primes")?;
    let inverse = q.modinv(p).context("the primes are equal")?;
    let bytes = |number: &BigUint| number.to_bytes_be();
    let components = rsa::KeyPairComponents {
        public_key: RsaPublicKeyComponents {
            n: bytes(&(p * q)),
            e: bytes(&e),
        },
        d: bytes(&d),
        p: bytes(p),
        q: bytes(q),
        dP: bytes(&(&d % &p_1)),
        dQ: bytes(&(&d % &q_1)),
        qInv: bytes(&inverse),
    };
    rsa::KeyPair::from_components(&components).map_err(|error| anyhow!("an RSA key was rejected: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::policy::KeyFormat;

    use super::*;

    #[test]
    fn every_request_is_acceptable_and_has_a_key_of_its_own() {
        for (key_type, count) in [(KeyType::P256, 40), (KeyType::Rsa2048, 12), (KeyType::Ed25519, 5)] {
            let counted = AtomicUsize::new(0);
            let made = requests(key_type, count, 2, &|| {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert_eq!((made.len(), counted.into_inner()), (count, count));
            for csr in &made {
                let read = pki::csr::read(&csr.pem, KeyFormat::Pkcs10).unwrap();
                assert_eq!((read.key_type, &read.spki), (key_type, &csr.spki));
            }
            let keys: HashSet<_> = made.iter().map(|csr| &csr.spki).collect();
            let names: HashSet<_> = made.iter().map(|csr| &csr.name).collect();
            assert_eq!((keys.len(), names.len()), (count, count));
        }
    }
}
