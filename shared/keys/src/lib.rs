//! Where private keys live. [`Keys`] is one token: a software key store ([`soft`]) or a PKCS#11 token
//! ([`pkcs11`]), behind the same contract suite ([`suite`]).
//!
//! Calls block: they run on the signer's bounded pool, never on an async worker.

mod files;
mod pair;
pub mod pkcs11;
pub mod soft;
pub mod suite;

use domain::{
    failure::KeysFailure,
    id::TokenId,
    key::{KeyType, SignatureAlgorithm},
};
use serde::{Deserialize, Serialize};

/// Name of a key on its token: a soft key's name, or what a `CKA_ID` says: as text where it is plain (`issuing-1`), otherwise `0x` and its
/// bytes in hexadecimal.
pub type KeyName = String;

/// A key that is on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name there.
    pub name: KeyName,
    /// Its type.
    pub key_type: KeyType,
    /// DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
}

/// What went wrong on a token: the failure that decides what follows, and words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token {token}: {detail}")]
pub struct KeysError {
    /// Which token.
    pub token: TokenId,
    /// Classified here, once, where it was met.
    pub failure: KeysFailure,
    /// For people; no secrets.
    pub detail: String,
}

/// One token.
pub trait Keys: Send + Sync + std::fmt::Debug {
    /// Its name.
    fn token(&self) -> &TokenId;

    /// Whether keys here are fit for a real CA. Soft keys are not, and `issuer list` says so.
    fn fit_for_real_ca(&self) -> bool;

    /// Every key on the token.
    fn list(&self) -> Result<Vec<KeyInfo>, KeysError>;

    /// One key; `None` when it is not there.
    fn find(&self, name: &str) -> Result<Option<KeyInfo>, KeysError>;

    /// Makes a key that never leaves the token. Fails if the name is taken.
    fn generate(&self, name: &str, key_type: KeyType) -> Result<KeyInfo, KeysError>;

    /// Takes in a key that was made elsewhere: unencrypted PKCS#8 in DER. Fails if the name is taken, and on every token that
    /// holds only keys of its own making.
    fn import(&self, name: &str, pkcs8_der: &[u8]) -> Result<KeyInfo, KeysError> {
        let _ = pkcs8_der;
        Err(KeysError {
            token: self.token().clone(),
            failure: KeysFailure::KeyUnfit,
            detail: format!("takes in no key that was made elsewhere ({name}): make one with `issuer keygen`"),
        })
    }

    /// Signs a message (not a digest). ECDSA signatures come in DER (RFC 3279, 2.2.3), RSA as PKCS#1 v1.5.
    fn sign(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeysError>;

    /// Tests the token itself: signs a message that nobody can take for anything else, with a key that no issuer has, and verifies it.
    /// [`KeysFailure::KeyNotFound`] says that the canary key is gone, and nothing about the token.
    fn canary(&self) -> Result<(), KeysError>;

    /// Whether a refused login is on record, after which nobody logs in before an operator says so. Asks nothing of the token.
    fn refuses_login(&self) -> bool {
        false
    }

    /// Destroys a key. It cannot be undone.
    fn destroy(&self, name: &str) -> Result<(), KeysError>;
}

/// What a canary key signs: text that can never be parsed as a certificate, a CRL or an OCSP response, and never twice the same.
pub fn canary_message(of: impl std::fmt::Display, nonce: [u8; 16]) -> String {
    format!(
        "bulkhead canary: this is no certificate, no CRL and no OCSP response: {of} {:032x}",
        u128::from_be_bytes(nonce)
    )
}
