//! A token of a test's own, and what the tests do with it.

use std::{fs, path::PathBuf, time::Duration};

use domain::{failure::KeysFailure, key::SignatureAlgorithm};
use hsm_faults::SoftHsm;
use keys::{
    Keys, KeysError,
    pkcs11::{Options, Pkcs11Token, Program},
};

/// The label of the token.
const LABEL: &str = "issuing";

/// A SoftHSM with one token.
pub struct Hsm(SoftHsm);

impl Hsm {
    pub fn new() -> Self {
        Self(SoftHsm::new(&[LABEL]))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
    pub fn tokens(&self) -> PathBuf {
        self.0.tokens()
    }
    pub fn refused_file(&self) -> PathBuf {
        self.0.path("issuing.pin-refused")
    }
    pub fn write_pin(&self, pin: &str) {
        self.0.write_pin(pin);
    }
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        self.0.pkcs11_tool(LABEL, arguments)
    }

    pub fn options(&self) -> Options {
        Options {
            module: SoftHsm::module(),
            label: Some(LABEL.into()),
            serial: None,
            pin_file: self.0.pin_file(),
            refused_file: self.refused_file(),
            sessions: 4,
            operation_limit: Duration::from_secs(20),
            slow_limit: Duration::from_mins(1),
        }
    }

    /// The worker, with this token's configuration.
    pub fn program(&self) -> Program {
        let (name, value) = self.0.environment();
        Program {
            path: "/usr/bin/env".into(),
            arguments: vec![
                format!("{name}={}", value.display()).into(),
                env!("CARGO_BIN_EXE_token-worker").into(),
            ],
        }
    }

    pub fn open(&self) -> Pkcs11Token {
        self.open_with(self.options())
    }
    pub fn open_with(&self, options: Options) -> Pkcs11Token {
        Pkcs11Token::new("hsm".parse().unwrap(), options, self.program())
    }
}

pub fn sign(token: &dyn Keys, name: &str) -> Result<Vec<u8>, KeysError> {
    token.sign(name, SignatureAlgorithm::EcdsaSha256, b"message")
}

/// What a call that must fail failed with.
pub fn failure<T: std::fmt::Debug>(result: Result<T, KeysError>) -> KeysFailure {
    result.expect_err("this should have failed").failure
}

/// Processes that this process has started.
pub fn children() -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let listed = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        children.extend(listed.split_whitespace().map(|id| id.parse::<u32>().unwrap()));
    }
    children.sort_unstable();
    children
}

/// Kills a process that this process has started.
pub fn kill(process: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
