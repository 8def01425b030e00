//! A key pair in memory, of any type that an issuer may have. aws-lc-rs holds the private half and erases it when dropped.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    },
};
use domain::key::{KeyType, SignatureAlgorithm};
use zeroize::Zeroizing;

/// A key pair.
pub(crate) enum Pair {
    Rsa(KeyType, rsa::KeyPair),
    Ecdsa(KeyType, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The curves, with the hash that belongs to each (SHA-256, SHA-384, SHA-512).
const CURVES: [(KeyType, &EcdsaSigningAlgorithm); 3] = [
    (KeyType::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
    (KeyType::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
    (KeyType::P521, &ECDSA_P521_SHA512_ASN1_SIGNING),
];

impl Pair {
    /// A new key pair. RSA keys have the exponent 65537.
    pub fn generate(key_type: KeyType) -> Result<Self, Unspecified> {
        let rsa = |size| rsa::KeyPair::generate(size).map(|pair| Self::Rsa(key_type, pair));
        let ecdsa = |algorithm| EcdsaKeyPair::generate(algorithm).map(|pair| Self::Ecdsa(key_type, pair));
        match key_type {
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
            KeyType::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::P521 => ecdsa(&ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyType::Ed25519 => Ed25519KeyPair::generate().map(Self::Ed25519),
        }
    }

    /// Reads an unencrypted PKCS#8 key (RFC 5958) of one of our types; `None` if it is anything else.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        if let Ok(pair) = rsa::KeyPair::from_pkcs8(der) {
            return Some(Self::Rsa(rsa_type(pair.public_key())?, pair));
        }
        for (key_type, algorithm) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der) {
                return Some(Self::Ecdsa(key_type, pair));
            }
        }
        Ed25519KeyPair::from_pkcs8(der).ok().map(Self::Ed25519)
    }

    /// The key pair as PKCS#8, version 1.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let der = match self {
            Self::Rsa(_, pair) => AsDer::<Pkcs8V1Der>::as_der(pair)?.as_ref().to_vec(),
            Self::Ecdsa(_, pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Self::Ed25519(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(der))
    }

    /// Its type.
    pub const fn key_type(&self) -> KeyType {
        match self {
            Self::Rsa(key_type, _) | Self::Ecdsa(key_type, _) => *key_type,
            Self::Ed25519(_) => KeyType::Ed25519,
        }
    }

    /// DER `SubjectPublicKeyInfo`: rsaEncryption with NULL (RFC 3279, 2.3.1), named curve with an uncompressed point (RFC 5480, 2), or
    /// RFC 8410, 4.
    pub fn public_key(&self) -> Result<Vec<u8>, Unspecified> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rsa(_, pair) => pair.public_key().as_der()?,
            Self::Ecdsa(_, pair) => pair.public_key().as_der()?,
            Self::Ed25519(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }

    /// Signs a message. The caller has checked that the algorithm fits the key.
    pub fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::Rsa(_, pair) => {
                let padding = match algorithm {
                    SignatureAlgorithm::RsaSha256 => &RSA_PKCS1_SHA256,
                    SignatureAlgorithm::RsaSha384 => &RSA_PKCS1_SHA384,
                    SignatureAlgorithm::RsaSha512 => &RSA_PKCS1_SHA512,
                    _ => return Err(Unspecified),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            Self::Ecdsa(_, pair) => Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
        }
    }
}

/// The type of an RSA key with a modulus of exactly 2048, 3072 or 4096 bits and an odd exponent of at least 65537.
fn rsa_type(key: &rsa::PublicKey) -> Option<KeyType> {
    let modulus = key.modulus().big_endian_without_leading_zero();
    let exponent = key.exponent().big_endian_without_leading_zero();
    if modulus.first()? & 0x80 == 0 || exponent.last()? & 1 == 0 || !(3..=8).contains(&exponent.len()) {
        return None;
    }
    match modulus.len() {
        256 => Some(KeyType::Rsa2048),
        384 => Some(KeyType::Rsa3072),
        512 => Some(KeyType::Rsa4096),
        _ => None,
    }
}
