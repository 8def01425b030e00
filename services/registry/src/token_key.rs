//! A key on a token, as the encoder of certificates and requests wants to see it.

use std::sync::Mutex;

use domain::key::KeyType;
use keys::{KeyInfo, Keys, KeysError};
use rcgen::{PublicKeyData, SigningKey};

/// A key that stays where it is and signs there. Signing blocks.
pub struct TokenKey<'a> {
    keys: &'a dyn Keys,
    info: &'a KeyInfo,
    public_key: rcgen::SubjectPublicKeyInfo,
    algorithm: &'static rcgen::SignatureAlgorithm,
    /// What the token said when it failed: the encoder's own error has no place for it.
    failure: Mutex<Option<KeysError>>,
}

impl<'a> TokenKey<'a> {
    /// The key `info` on `keys`. Fails if its public key is not one that the encoder can write.
    pub fn new(keys: &'a dyn Keys, info: &'a KeyInfo) -> Result<Self, rcgen::Error> {
        Ok(Self {
            keys,
            info,
            public_key: rcgen::SubjectPublicKeyInfo::from_der(&info.public_key)?,
            algorithm: match info.key_type {
                KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
                KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
                KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
                KeyType::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
                KeyType::Ed25519 => &rcgen::PKCS_ED25519,
            },
            failure: Mutex::new(None),
        })
    }

    /// The token's own words, if it was the token that failed.
    pub fn failure(&self) -> Option<KeysError> {
        self.failure.lock().ok().and_then(|mut failure| failure.take())
    }
}

impl PublicKeyData for TokenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public_key.der_bytes()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for TokenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let algorithm = self.info.key_type.signature_algorithm();
        self.keys.sign(&self.info.name, algorithm, message).map_err(|error| {
            if let Ok(mut failure) = self.failure.lock() {
                *failure = Some(error);
            }
            rcgen::Error::RemoteKeyError
        })
    }
}
