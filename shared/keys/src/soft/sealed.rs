//! What a key store's files say, and how private keys are encrypted in them: AES-256-GCM (NIST SP 800-38D) under a key derived from a
//! passphrase by Argon2id (RFC 9106), once when the store is opened.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use domain::{bytes::Blob, key::KeyType};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The only version of the store header and of key files so far.
pub(super) const VERSION: u32 = 1;

/// What the check value of a store header is bound to.
const CHECK: &str = "bulkhead key store 1";

/// How expensive it is to derive the store's key: RFC 9106, section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// 64 MiB and three passes: the memory-constrained choice of RFC 9106, section 4, in one lane.
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 1,
        }
    }
}

impl Cost {
    /// Whether a header may ask for it: a forged one shall not exhaust the machine.
    fn is_bearable(self) -> bool {
        self.memory_kib <= 1024 * 1024 && self.passes <= 64 && self.lanes <= 16
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Derivation {
    #[serde(rename = "argon2id")]
    Argon2id,
}

/// `store.json`: how the key of the store is derived, and a value by which a wrong passphrase is told from a damaged file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub version: u32,
    derivation: Derivation,
    cost: Cost,
    salt: Blob,
    check: Sealed,
}

/// `NAME.key`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    pub version: u32,
    pub name: String,
    pub key_type: KeyType,
    /// DER `SubjectPublicKeyInfo`.
    pub public_key: Blob,
    /// PKCS#8, encrypted; bound to everything above.
    pub private_key: Sealed,
}

/// Something encrypted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    nonce: Blob,
    /// With its tag at the end.
    ciphertext: Blob,
}

/// Why a store's key cannot be derived.
#[derive(Debug, thiserror::Error)]
pub(super) enum VaultError {
    /// The check value does not open.
    #[error("the passphrase does not open this key store")]
    WrongPassphrase,
    /// The header asks for the impossible, or for too much.
    #[error("the derivation parameters are out of range: {0}")]
    Parameters(String),
    /// The provider failed.
    #[error("the cryptographic provider failed")]
    Provider,
}

/// The store's key, ready for use. Never printed.
pub(super) struct Vault(RandomizedNonceKey);

impl Vault {
    /// A new store's header and key.
    pub fn create(passphrase: &[u8], cost: Cost) -> Result<(Header, Self), VaultError> {
        let mut salt = vec![0; 16];
        rand::fill(&mut salt).map_err(|_| VaultError::Provider)?;
        let vault = Self::derive(passphrase, &salt, cost)?;
        let check = vault.seal(CHECK.as_bytes(), b"").ok_or(VaultError::Provider)?;
        let header = Header {
            version: VERSION,
            derivation: Derivation::Argon2id,
            cost,
            salt: Blob(salt),
            check,
        };
        Ok((header, vault))
    }

    /// The key of a store that exists.
    pub fn open(header: &Header, passphrase: &[u8]) -> Result<Self, VaultError> {
        let vault = Self::derive(passphrase, &header.salt, header.cost)?;
        vault
            .open_sealed(CHECK.as_bytes(), &header.check)
            .ok_or(VaultError::WrongPassphrase)?;
        Ok(vault)
    }

    fn derive(passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<Self, VaultError> {
        if !cost.is_bearable() {
            return Err(VaultError::Parameters(
                "more than 1 GiB, 64 passes or 16 lanes".to_owned(),
            ));
        }
        let parameters = |error: argon2::Error| VaultError::Parameters(error.to_string());
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(parameters)?;
        let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, salt, key.as_mut_slice(), memory.as_mut_slice())
            .map_err(parameters)?;
        RandomizedNonceKey::new(&AES_256_GCM, key.as_slice())
            .map(Self)
            .map_err(|_| VaultError::Provider)
    }

    /// Encrypts; what is `bound` must be given again to decrypt. `None` if the provider fails.
    pub fn seal(&self, bound: &[u8], plaintext: &[u8]) -> Option<Sealed> {
        // Encrypted in place, then the tag added: no copy of the plaintext stays behind.
        let mut ciphertext = plaintext.to_vec();
        let (nonce, tag) = self
            .0
            .seal_in_place_separate_tag(Aad::from(bound), &mut ciphertext)
            .ok()?;
        ciphertext.extend_from_slice(tag.as_ref());
        Some(Sealed {
            nonce: Blob(nonce.as_ref().to_vec()),
            ciphertext: Blob(ciphertext),
        })
    }

    /// Decrypts; `None` if anything was altered, or belongs to another store.
    pub fn open_sealed(&self, bound: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).ok()?;
        let mut buffer = Zeroizing::new(sealed.ciphertext.0.clone());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(bound), buffer.as_mut_slice())
            .ok()?
            .len();
        buffer.truncate(length);
        Some(buffer)
    }
}

/// What the private half of a key is bound to.
pub(super) fn binding(name: &str, key_type: KeyType, public_key: &[u8]) -> Vec<u8> {
    let mut bound = format!("bulkhead soft key 1\n{name}\n{key_type}\n").into_bytes();
    bound.extend_from_slice(public_key);
    bound
}
