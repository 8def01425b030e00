//! A token of soft keys that fails as it is told.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Condvar, Mutex},
};

use domain::{failure::KeysFailure, id::TokenId, key::SignatureAlgorithm};
use keys::{
    KeyInfo, Keys, KeysError,
    soft::{Cost, SoftKeys, ensure_passphrase_file},
};

/// What a key does when it shall sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Fails.
    Fails(KeysFailure),
    /// Is not there at all.
    Gone,
    /// Gives that many signatures over something else.
    Wrong(u32),
    /// Panics over messages that contain this.
    PanicsOver(Vec<u8>),
    /// Waits until the fault is taken away.
    Waits,
}

/// Soft keys with faults.
#[derive(Debug)]
pub struct FaultyToken {
    soft: SoftKeys,
    faults: Mutex<HashMap<String, Fault>>,
    changed: Condvar,
    waiting: Mutex<u32>,
    signatures: Mutex<HashMap<String, u32>>,
}

impl FaultyToken {
    pub fn new(dir: &Path) -> Self {
        let token: TokenId = "soft".parse().unwrap();
        let passphrase = dir.join("passphrase");
        ensure_passphrase_file(&passphrase, &token).unwrap();
        let cost = Cost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        Self {
            soft: SoftKeys::open_or_create_at(&dir.join("keys"), &passphrase, token, cost).unwrap(),
            faults: Mutex::default(),
            changed: Condvar::new(),
            waiting: Mutex::default(),
            signatures: Mutex::default(),
        }
    }

    pub fn break_key(&self, name: &str, fault: Fault) {
        self.faults.lock().unwrap().insert(name.to_owned(), fault);
    }

    pub fn mend(&self, name: &str) {
        self.faults.lock().unwrap().remove(name);
        self.changed.notify_all();
    }

    /// How many signatures this key was asked for.
    pub fn asked(&self, name: &str) -> u32 {
        self.signatures.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// How many threads wait in a key now.
    pub fn waiting(&self) -> u32 {
        *self.waiting.lock().unwrap()
    }

    fn error(&self, failure: KeysFailure) -> KeysError {
        let (token, detail) = (self.soft.token().clone(), "as told".to_owned());
        KeysError { token, failure, detail }
    }
}

impl Keys for FaultyToken {
    fn token(&self) -> &TokenId {
        self.soft.token()
    }

    fn fit_for_real_ca(&self) -> bool {
        false
    }

    fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        self.soft.list()
    }

    fn find(&self, name: &str) -> Result<Option<KeyInfo>, KeysError> {
        if self.faults.lock().unwrap().get(name) == Some(&Fault::Gone) {
            return Ok(None);
        }
        self.soft.find(name)
    }

    fn generate(&self, name: &str, key_type: domain::key::KeyType) -> Result<KeyInfo, KeysError> {
        self.soft.generate(name, key_type)
    }

    fn import(&self, name: &str, pkcs8_der: &[u8]) -> Result<KeyInfo, KeysError> {
        self.soft.import(name, pkcs8_der)
    }

    fn sign(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        *self.signatures.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        let mut faults = self.faults.lock().unwrap();
        match faults.get_mut(name) {
            None | Some(Fault::Wrong(0)) => {}
            Some(Fault::Fails(failure)) => return Err(self.error(*failure)),
            Some(Fault::Gone) => return Err(self.error(KeysFailure::KeyNotFound)),
            Some(Fault::Wrong(left)) => {
                *left -= 1;
                return self.soft.sign(name, algorithm, b"something else");
            }
            Some(Fault::PanicsOver(part)) => {
                let part = part.clone();
                drop(faults);
                assert!(
                    !message.windows(part.len()).any(|window| window == part),
                    "told to panic"
                );
                return self.soft.sign(name, algorithm, message);
            }
            Some(Fault::Waits) => {
                *self.waiting.lock().unwrap() += 1;
                while faults.get(name) == Some(&Fault::Waits) {
                    faults = self.changed.wait(faults).unwrap();
                }
                *self.waiting.lock().unwrap() -= 1;
            }
        }
        drop(faults);
        self.soft.sign(name, algorithm, message)
    }

    fn canary(&self) -> Result<(), KeysError> {
        self.soft.canary()
    }

    fn destroy(&self, name: &str) -> Result<(), KeysError> {
        self.soft.destroy(name)
    }
}
