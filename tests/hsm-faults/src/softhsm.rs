//! A SoftHSM of a test's own: tokens in a directory, and what operators do to them with other tools.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The user PIN of every token.
pub const PIN: &str = "271828";
/// The `CKA_ID` of the canary key.
const CANARY_ID: &str = "Bulkhead canary";
const CONFIGURATION: &str = "SOFTHSM2_CONF";

/// A directory of SoftHSM tokens, their configuration and their PIN file. It is removed with this.
#[derive(Debug)]
pub struct SoftHsm {
    directory: tempfile::TempDir,
}

impl SoftHsm {
    /// A directory with one token for each label.
    pub fn new(labels: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let hsm = Self { directory };
        fs::create_dir(hsm.tokens()).expect("a directory can be made");
        let (name, configuration) = hsm.environment();
        fs::write(
            configuration,
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                hsm.tokens().display()
            ),
        )
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        hsm.write_pin(PIN);
        for label in labels {
            hsm.initialise(label);
        }
        hsm
    }

    /// Makes a token: its directory.
    pub fn initialise(&self, label: &str) -> PathBuf {
        let before = self.made();
        self.run(
            Command::new("softhsm2-util")
                .args(["--init-token", "--free", "--label", label])
                .args(["--so-pin", "31415926", "--pin", PIN]),
        );
        let made = self.made().into_iter().find(|path| !before.contains(path));
        made.expect("a token that is made has a directory")
    }

    fn made(&self) -> Vec<PathBuf> {
        let tokens = fs::read_dir(self.tokens()).expect("the tokens' directory can be read");
        tokens.flatten().map(|token| token.path()).collect()
    }

    /// SoftHSM's library, where Debian puts it.
    pub fn module() -> PathBuf {
        let path = Path::new(crate::BEHIND);
        assert!(path.exists(), "softhsm2 is not installed: run tests/run");
        path.to_owned()
    }

    /// What must be in the environment of a process that uses these tokens.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        (CONFIGURATION, self.path("softhsm2.conf"))
    }

    /// A file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the tokens are, a directory each.
    pub fn tokens(&self) -> PathBuf {
        self.path("tokens")
    }

    /// The file with the PIN of every token.
    pub fn pin_file(&self) -> PathBuf {
        self.path("pin")
    }

    /// Writes a PIN into the PIN file.
    pub fn write_pin(&self, pin: &str) {
        let file = self.pin_file();
        fs::write(&file, format!("{pin}\n")).expect("the PIN file can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    }

    /// What an operator does to a token with OpenSC's tool, which knows nothing of the program: what it prints.
    pub fn pkcs11_tool(&self, label: &str, arguments: &[&str]) -> String {
        self.run(
            Command::new("pkcs11-tool")
                .arg("--module")
                .arg(Self::module())
                .args(["--token-label", label, "--login", "--pin", PIN])
                .args(arguments),
        )
    }

    /// Deletes a token's canary key, both halves.
    pub fn delete_canary(&self, label: &str) {
        let id = CANARY_ID.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        for half in ["privkey", "pubkey"] {
            self.pkcs11_tool(label, &["--delete-object", "--type", half, "--id", &id]);
        }
    }

    fn run(&self, command: &mut Command) -> String {
        let (name, value) = self.environment();
        let done = command.env(name, value).output();
        let done = done.unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/run"));
        assert!(
            done.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}
