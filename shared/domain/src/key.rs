//! Key types and signature algorithms, named as people name them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A public key's algorithm and size. A profile pins it and nothing defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyType {
    /// RSA, modulus of 2048 bits.
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA, modulus of 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA, modulus of 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
    /// ECDSA on P-256 (prime256v1, secp256r1).
    #[serde(rename = "P-256")]
    P256,
    /// ECDSA on P-384 (secp384r1).
    #[serde(rename = "P-384")]
    P384,
    /// ECDSA on P-521 (secp521r1).
    #[serde(rename = "P-521")]
    P521,
    /// Ed25519 (RFC 8410).
    #[serde(rename = "Ed25519")]
    Ed25519,
}

impl KeyType {
    /// Every key type.
    pub const ALL: [Self; 7] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Ed25519,
    ];

    /// The type as text: `RSA-2048`, `P-256`, `Ed25519`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Whether this is an RSA key.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    /// Bits, as HVCA's `allowed_lengths` counts them: the modulus, or the field of the curve.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
            Self::Ed25519 => 255,
        }
    }

    /// The algorithm with which an issuer of this key type signs: RSA with SHA-256 (PKCS#1 v1.5), and each curve with its own hash.
    pub const fn signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => SignatureAlgorithm::RsaSha256,
            Self::P256 => SignatureAlgorithm::EcdsaSha256,
            Self::P384 => SignatureAlgorithm::EcdsaSha384,
            Self::P521 => SignatureAlgorithm::EcdsaSha512,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not one of the key types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key type: use one of RSA-2048, RSA-3072, RSA-4096, P-256, P-384, P-521, Ed25519")]
pub struct UnknownKeyType(String);

impl FromStr for KeyType {
    type Err = UnknownKeyType;
    fn from_str(text: &str) -> Result<Self, UnknownKeyType> {
        Self::ALL
            .into_iter()
            .find(|key_type| key_type.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownKeyType(text.into()))
    }
}

/// A signature algorithm that an issuer may use (RFC 4055 PKCS#1 v1.5, RFC 5758, RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SignatureAlgorithm {
    /// sha256WithRSAEncryption
    #[serde(rename = "RSA-SHA256")]
    RsaSha256,
    /// sha384WithRSAEncryption
    #[serde(rename = "RSA-SHA384")]
    RsaSha384,
    /// sha512WithRSAEncryption
    #[serde(rename = "RSA-SHA512")]
    RsaSha512,
    /// ecdsa-with-SHA256
    #[serde(rename = "ECDSA-SHA256")]
    EcdsaSha256,
    /// ecdsa-with-SHA384
    #[serde(rename = "ECDSA-SHA384")]
    EcdsaSha384,
    /// ecdsa-with-SHA512
    #[serde(rename = "ECDSA-SHA512")]
    EcdsaSha512,
    /// id-Ed25519
    #[serde(rename = "Ed25519")]
    Ed25519,
}

impl SignatureAlgorithm {
    /// Whether a key of this type can make such a signature (and, for ECDSA, whether the hash is the curve's own).
    pub const fn fits(self, key: KeyType) -> bool {
        match self {
            Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512 => key.is_rsa(),
            Self::EcdsaSha256 => matches!(key, KeyType::P256),
            Self::EcdsaSha384 => matches!(key, KeyType::P384),
            Self::EcdsaSha512 => matches!(key, KeyType::P521),
            Self::Ed25519 => matches!(key, KeyType::Ed25519),
        }
    }
}
