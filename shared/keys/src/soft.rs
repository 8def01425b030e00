//! Soft keys: a directory of key files, each encrypted under a passphrase. For demonstration, tests and small private hierarchies; a
//! real CA keeps its keys in hardware.
//!
//! ```text
//! DIR/            0700
//!   store.json    0600  how the store's key is derived from the passphrase
//!   NAME.key      0600  one key: type and public half in the clear, private half encrypted
//! ```
//!
//! The files are the truth: what is cached is used only while the file it came from is there, unchanged. A key whose file is removed
//! or damaged fails from the next signature on, without a restart, and alone: other keys of the store go on.

mod sealed;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    rand,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use domain::{
    bytes::Blob,
    failure::KeysFailure,
    id::TokenId,
    key::{KeyType, SignatureAlgorithm},
};
use zeroize::Zeroizing;

use self::sealed::{Header, KeyFile, VERSION, Vault, binding};
use crate::{
    KeyInfo, Keys, KeysError,
    files::{self, FileError, Stamp},
    pair::Pair,
};

pub use self::sealed::Cost;

const HEADER: &str = "store.json";
const SUFFIX: &str = ".key";
/// No file of a key store is larger: an RSA-4096 key takes 5 kB.
const FILE_LIMIT: u64 = 64 * 1024;
const PASSPHRASE_LIMIT: u64 = 4096;

/// A software key store.
pub struct SoftKeys {
    token: TokenId,
    dir: PathBuf,
    vault: Vault,
    loaded: RwLock<HashMap<String, Arc<Loaded>>>,
}

struct Loaded {
    stamp: Stamp,
    info: KeyInfo,
    pair: Pair,
}

/// A failure before it is known whose token it is.
#[derive(Debug)]
struct Fault {
    failure: KeysFailure,
    detail: String,
}

impl Fault {
    fn new(failure: KeysFailure, detail: impl fmt::Display) -> Self {
        Self {
            failure,
            detail: detail.to_string(),
        }
    }
    fn store(detail: impl fmt::Display) -> Self {
        Self::new(KeysFailure::StoreUnreadable, detail)
    }
    /// One key's own file is at fault; its neighbours are not.
    fn key(detail: impl fmt::Display) -> Self {
        Self::new(KeysFailure::OperationFailed, detail)
    }
    fn of(self, token: &TokenId) -> KeysError {
        KeysError {
            token: token.clone(),
            failure: self.failure,
            detail: self.detail,
        }
    }
}

/// Makes a passphrase file, mode 0600, with 256 random bits, unless there is one.
pub fn ensure_passphrase_file(path: &Path, token: &TokenId) -> Result<(), KeysError> {
    let mut random = Zeroizing::new([0; 32]);
    rand::fill(random.as_mut_slice()).map_err(|_| Fault::store("no randomness").of(token))?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in random.iter() {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text.push('\n');
    match files::write_new(path, text.as_bytes()) {
        Ok(()) | Err(FileError::Exists(_)) => Ok(()),
        Err(error) => Err(Fault::store(error).of(token)),
    }
}

impl SoftKeys {
    /// Opens the key store in `dir`, or makes one, with the passphrase in `passphrase_file` (line ends at its end do not count).
    ///
    /// Takes some 200 ms: the passphrase is stretched here, and only here. Fails with [`KeysFailure::StoreUnreadable`] when directory,
    /// header or passphrase file are missing, damaged or open to others than their owner, and when the passphrase is wrong.
    pub fn open_or_create(dir: &Path, passphrase_file: &Path, token: TokenId) -> Result<Self, KeysError> {
        Self::open_or_create_at(dir, passphrase_file, token, Cost::default())
    }

    /// The same; a store that is made now costs `cost` to open. One that exists says itself what it costs.
    pub fn open_or_create_at(
        dir: &Path,
        passphrase_file: &Path,
        token: TokenId,
        cost: Cost,
    ) -> Result<Self, KeysError> {
        match open_vault(dir, passphrase_file, cost) {
            Ok(vault) => Ok(Self {
                token,
                dir: dir.to_owned(),
                vault,
                loaded: RwLock::default(),
            }),
            Err(fault) => Err(fault.of(&token)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SUFFIX}"))
    }

    /// The key as its file has it now; `None` when there is no such file.
    fn current(&self, name: &str) -> Result<Option<Arc<Loaded>>, Fault> {
        if !is_key_name(name) {
            return Ok(None);
        }
        let path = self.path(name);
        let stamp = match files::stamp(&path) {
            Ok(stamp) => stamp,
            Err(FileError::Missing(_)) => {
                self.forget(name);
                return self.still_there().map(|()| None);
            }
            Err(error) => return Err(Fault::store(error)),
        };
        let cached = self
            .loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        if let Some(loaded) = cached.filter(|loaded| loaded.stamp == stamp) {
            return Ok(Some(loaded));
        }
        self.forget(name);
        let Some(loaded) = self.load(name, &path)? else {
            return self.still_there().map(|()| None);
        };
        let loaded = Arc::new(loaded);
        self.loaded
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), loaded.clone());
        Ok(Some(loaded))
    }

    fn load(&self, name: &str, path: &Path) -> Result<Option<Loaded>, Fault> {
        let (content, stamp) = match files::read_private(path, FILE_LIMIT) {
            Ok(read) => read,
            Err(FileError::Missing(_)) => return Ok(None),
            Err(error) => return Err(Fault::key(error)),
        };
        let damaged = |why: &dyn fmt::Display| {
            Fault::key(format_args!(
                "key file {} {why}: restore it from a backup",
                path.display()
            ))
        };
        let file: KeyFile =
            serde_json::from_slice(&content).map_err(|error| damaged(&format_args!("cannot be parsed ({error})")))?;
        if file.version != VERSION {
            return Err(damaged(&format_args!("has version {}, not {VERSION}", file.version)));
        }
        if file.name != name {
            return Err(damaged(&format_args!("holds the key {:?}", file.name)));
        }
        let private_key = self
            .vault
            .open_sealed(&binding(name, file.key_type, &file.public_key), &file.private_key)
            .ok_or_else(|| damaged(&"was altered, or belongs to another key store"))?;
        let pair = Pair::from_pkcs8(&private_key).ok_or_else(|| damaged(&"holds no usable key"))?;
        let public_key = pair.public_key().map_err(|_| damaged(&"holds no usable key"))?;
        if pair.key_type() != file.key_type || public_key != file.public_key.0 {
            return Err(damaged(&"holds another key than it says"));
        }
        let info = KeyInfo {
            name: name.to_owned(),
            key_type: file.key_type,
            public_key,
        };
        Ok(Some(Loaded { stamp, info, pair }))
    }

    fn forget(&self, name: &str) {
        // Nearly always there is nothing to forget; then no writer stops the readers.
        let known = self
            .loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(name);
        if known {
            self.loaded.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }

    /// Tells a key that is gone from a store that is gone.
    fn still_there(&self) -> Result<(), Fault> {
        files::stamp(&self.dir.join(HEADER)).map(|_| ()).map_err(Fault::store)
    }

    fn keep(&self, name: &str, pair: &Pair) -> Result<KeyInfo, Fault> {
        if !is_key_name(name) {
            return Err(Fault::new(
                KeysFailure::KeyUnfit,
                format_args!(
                    "{name:?} cannot name a key: use 1 to 63 characters of a-z, 0-9, '-', '_' and '.', beginning with a letter or a digit"
                ),
            ));
        }
        let unusable = |_| Fault::key(format_args!("key {name} cannot be encoded"));
        let key_type = pair.key_type();
        let public_key = pair.public_key().map_err(unusable)?;
        let private_key = self
            .vault
            .seal(
                &binding(name, key_type, &public_key),
                &pair.to_pkcs8().map_err(unusable)?,
            )
            .ok_or_else(|| Fault::key(format_args!("key {name} cannot be encrypted")))?;
        let file = KeyFile {
            version: VERSION,
            name: name.to_owned(),
            key_type,
            public_key: Blob(public_key.clone()),
            private_key,
        };
        match files::write_new(&self.path(name), &to_json(&file)?) {
            Ok(()) => Ok(KeyInfo {
                name: name.to_owned(),
                key_type,
                public_key,
            }),
            Err(FileError::Exists(path)) => Err(Fault::new(
                KeysFailure::KeyExists,
                format_args!("key {name} exists already ({})", path.display()),
            )),
            Err(error) => Err(Fault::store(error)),
        }
    }

    fn list_all(&self) -> Result<Vec<KeyInfo>, Fault> {
        let unreadable = |error| Fault::store(format_args!("cannot list {}: {error}", self.dir.display()));
        self.still_there()?;
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(unreadable)? {
            let file_name = entry.map_err(unreadable)?.file_name();
            let Some(name) = file_name.to_str().and_then(|file_name| file_name.strip_suffix(SUFFIX)) else {
                continue;
            };
            match self.current(name) {
                Ok(found) => keys.extend(found.map(|loaded| loaded.info.clone())),
                // One damaged file shall not take the other issuers' keys along; whoever asks for this key is told.
                Err(fault) if fault.failure == KeysFailure::OperationFailed => {
                    tracing::warn!(token = %self.token, key = name, problem = fault.detail, "a key file was left out");
                }
                Err(fault) => return Err(fault),
            }
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }

    fn sign_with(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let loaded = self.current(name)?.ok_or_else(|| self.not_found(name))?;
        if !algorithm.fits(loaded.info.key_type) {
            return Err(Fault::new(
                KeysFailure::KeyUnfit,
                format_args!(
                    "key {name} of type {} cannot sign with {algorithm:?}",
                    loaded.info.key_type
                ),
            ));
        }
        loaded
            .pair
            .sign(algorithm, message)
            .map_err(|_| Fault::key(format_args!("signing with key {name} failed")))
    }

    fn erase(&self, name: &str) -> Result<(), Fault> {
        if !is_key_name(name) {
            return Err(self.not_found(name));
        }
        let erased = files::erase(&self.path(name));
        self.forget(name);
        erased.map_err(|error| match error {
            FileError::Missing(_) => self.not_found(name),
            error => Fault::store(error),
        })
    }

    fn not_found(&self, name: &str) -> Fault {
        Fault::new(
            KeysFailure::KeyNotFound,
            format_args!("no key {name:?} in {}", self.dir.display()),
        )
    }
}

impl fmt::Debug for SoftKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftKeys")
            .field("token", &self.token)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Keys for SoftKeys {
    fn token(&self) -> &TokenId {
        &self.token
    }

    fn fit_for_real_ca(&self) -> bool {
        false
    }

    fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        self.list_all().map_err(|fault| fault.of(&self.token))
    }

    fn find(&self, name: &str) -> Result<Option<KeyInfo>, KeysError> {
        self.current(name)
            .map(|found| found.map(|loaded| loaded.info.clone()))
            .map_err(|fault| fault.of(&self.token))
    }

    fn generate(&self, name: &str, key_type: KeyType) -> Result<KeyInfo, KeysError> {
        Pair::generate(key_type)
            .map_err(|_| Fault::key(format_args!("generating key {name} of type {key_type} failed")))
            .and_then(|pair| self.keep(name, &pair))
            .map_err(|fault| fault.of(&self.token))
    }

    fn import(&self, name: &str, pkcs8_der: &[u8]) -> Result<KeyInfo, KeysError> {
        Pair::from_pkcs8(pkcs8_der)
            .ok_or_else(|| {
                Fault::new(
                    KeysFailure::KeyUnfit,
                    format_args!(
                        "key {name}: not an unencrypted PKCS#8 private key of RSA (2048, 3072, 4096 bits), P-256, P-384, P-521 or Ed25519"
                    ),
                )
            })
            .and_then(|pair| self.keep(name, &pair))
            .map_err(|fault| fault.of(&self.token))
    }

    fn sign(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        self.sign_with(name, algorithm, message)
            .map_err(|fault| fault.of(&self.token))
    }

    /// Soft keys have no hardware: what can be sick is the directory and this machine's arithmetic.
    fn canary(&self) -> Result<(), KeysError> {
        let failed = || Fault::store("a canary signature failed").of(&self.token);
        self.still_there().map_err(|fault| fault.of(&self.token))?;
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| failed())?;
        let message = crate::canary_message(&self.token, nonce);
        let pair = Pair::generate(KeyType::P256).map_err(|_| failed())?;
        let public_key = pair.public_key().map_err(|_| failed())?;
        let signature = pair
            .sign(SignatureAlgorithm::EcdsaSha256, message.as_bytes())
            .map_err(|_| failed())?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| failed())
    }

    fn destroy(&self, name: &str) -> Result<(), KeysError> {
        self.erase(name).map_err(|fault| fault.of(&self.token))
    }
}

/// Names are file names as well: nothing that a path could be made of.
fn is_key_name(name: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(ordinary)
        && name
            .bytes()
            .all(|byte| ordinary(byte) || matches!(byte, b'-' | b'_' | b'.'))
}

fn to_json(document: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    let mut json = serde_json::to_vec_pretty(document).map_err(Fault::store)?;
    json.push(b'\n');
    Ok(json)
}

fn open_vault(dir: &Path, passphrase_file: &Path, cost: Cost) -> Result<Vault, Fault> {
    let (passphrase, _) = files::read_private(passphrase_file, PASSPHRASE_LIMIT)
        .map_err(|error| Fault::store(format_args!("passphrase file: {error}")))?;
    let passphrase = passphrase.trim_ascii_end();
    if passphrase.is_empty() {
        return Err(Fault::store(format_args!(
            "passphrase file {} is empty: write a passphrase into it",
            passphrase_file.display()
        )));
    }
    files::ensure_private_dir(dir).map_err(Fault::store)?;
    let path = dir.join(HEADER);
    let content = match files::read_private(&path, FILE_LIMIT) {
        Ok((content, _)) => content,
        Err(FileError::Missing(_)) => {
            let (header, vault) = Vault::create(passphrase, cost)
                .map_err(|error| Fault::store(format_args!("key store {}: {error}", dir.display())))?;
            match files::write_new(&path, &to_json(&header)?) {
                Ok(()) => return Ok(vault),
                // Another process was faster: its store is the store.
                Err(FileError::Exists(_)) => files::read_private(&path, FILE_LIMIT).map_err(Fault::store)?.0,
                Err(error) => return Err(Fault::store(error)),
            }
        }
        Err(error) => return Err(Fault::store(error)),
    };
    let damaged = |why: &dyn fmt::Display| Fault::store(format_args!("{} {why}", path.display()));
    let header: Header = serde_json::from_slice(&content)
        .map_err(|error| damaged(&format_args!("cannot be parsed ({error}): restore it from a backup")))?;
    if header.version != VERSION {
        return Err(damaged(&format_args!("has version {}, not {VERSION}", header.version)));
    }
    Vault::open(&header, passphrase).map_err(|error| {
        damaged(&format_args!(
            "cannot be opened with {}: {error}",
            passphrase_file.display()
        ))
    })
}

#[cfg(test)]
mod tests;
