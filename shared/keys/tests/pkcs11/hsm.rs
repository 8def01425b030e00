//! A SoftHSM of a test's own, and what operators do to it with other tools.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use domain::{failure::KeysFailure, key::SignatureAlgorithm};
use keys::{
    Keys, KeysError,
    pkcs11::{Options, Pkcs11Token, Program},
};

/// The label of the token.
pub const LABEL: &str = "issuing";
pub const PIN: &str = "271828";

/// A directory with one SoftHSM token. It is removed with this.
pub struct Hsm {
    directory: tempfile::TempDir,
}

impl Hsm {
    /// Makes a token.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hsm = Self { directory };
        fs::create_dir(hsm.tokens()).unwrap();
        fs::write(
            hsm.configuration(),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                hsm.tokens().display()
            ),
        )
        .unwrap();
        hsm.write_pin(PIN);
        hsm.run(
            Command::new("softhsm2-util")
                .args(["--init-token", "--free", "--label", LABEL])
                .args(["--so-pin", "31415926", "--pin", PIN]),
        );
        hsm
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    pub fn tokens(&self) -> PathBuf {
        self.path("tokens")
    }
    pub fn configuration(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }
    pub fn refused_file(&self) -> PathBuf {
        self.path("issuing.pin-refused")
    }
    pub fn write_pin(&self, pin: &str) {
        let file = self.path("pin");
        fs::write(&file, format!("{pin}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn options(&self) -> Options {
        Options {
            module: module(),
            label: Some(LABEL.into()),
            serial: None,
            pin_file: self.path("pin"),
            refused_file: self.refused_file(),
            sessions: 4,
            operation_limit: Duration::from_secs(20),
            slow_limit: Duration::from_mins(1),
        }
    }

    /// The worker, with this token's configuration.
    pub fn program(&self) -> Program {
        Program {
            path: "/usr/bin/env".into(),
            arguments: vec![
                format!("SOFTHSM2_CONF={}", self.configuration().display()).into(),
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

    /// What an operator does with OpenSC's tool, which knows nothing of this program.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        self.run(
            Command::new("pkcs11-tool")
                .arg("--module")
                .arg(module())
                .args(["--token-label", LABEL, "--login", "--pin", PIN])
                .args(arguments),
        )
    }

    fn run(&self, command: &mut Command) -> String {
        let done = command.env("SOFTHSM2_CONF", self.configuration()).output().unwrap();
        assert!(
            done.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
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

/// SoftHSM's library, where Debian puts it.
pub fn module() -> PathBuf {
    let path = Path::new("/usr/lib/softhsm/libsofthsm2.so");
    assert!(path.exists(), "softhsm2 is not installed: run tests/run");
    path.to_owned()
}
