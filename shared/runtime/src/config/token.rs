//! The section that says where keys are: tokens.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use domain::id::TokenId;
use serde::{Deserialize, Serialize};

use super::check::{Refusal, given, refuse};

/// The token that a process for everything makes for itself.
pub const OWN_TOKEN: &str = "soft";

/// A token that this process uses: `[[token]]`, once for each. `kind` says which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Token {
    /// Encrypted files. Not for a real CA.
    Soft(SoftToken),
    /// A hardware security module, or whatever has its interface.
    Pkcs11(Pkcs11Token),
}

/// A token of `kind = "soft"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftToken {
    /// Its name, as issuers' bindings have it.
    pub name: TokenId,
    /// Directory of its key files.
    pub directory: PathBuf,
    /// File that holds the passphrase, mode 0600; made by control if it is not there.
    pub passphrase_file: PathBuf,
}

/// A token of `kind = "pkcs11"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Token {
    /// Its name, as issuers' bindings have it.
    pub name: TokenId,
    /// The vendor's library. It is loaded by a child process for this token alone.
    pub module: PathBuf,
    /// The label that the token was given.
    pub label: Option<String>,
    /// The token's serial number, where the label is not enough to tell it from others.
    pub serial: Option<String>,
    /// File that holds the user PIN, mode 0600.
    pub pin_file: PathBuf,
    /// Sessions: how many operations the token does at a time, 1 to 256. Fewer than the signer has threads, and one issuer whose calls hang
    /// keeps the token's other issuers waiting. Default 16.
    #[serde(default = "sessions")]
    pub sessions: u16,
    /// How long one operation may take before the child process is killed, 2s to 1m. Default 3s.
    #[serde(default = "operation_limit", with = "humantime_serde")]
    pub operation_limit: Duration,
    /// The same for opening the token and making a key, 2s to 10m. Default 1m.
    #[serde(default = "slow_limit", with = "humantime_serde")]
    pub slow_limit: Duration,
}

const fn sessions() -> u16 {
    16
}
const fn operation_limit() -> Duration {
    Duration::from_secs(3)
}
const fn slow_limit() -> Duration {
    Duration::from_mins(1)
}

/// A child process is replaced at most once a second: whoever waits for that must not fail meanwhile.
const SHORTEST: Duration = Duration::from_secs(2);

impl Token {
    /// Its name, as issuers' bindings have it.
    pub fn name(&self) -> &TokenId {
        match self {
            Self::Soft(token) => &token.name,
            Self::Pkcs11(token) => &token.name,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let name = self.name();
        match self {
            Self::Soft(token) => {
                if !given(&token.directory) || !given(&token.passphrase_file) {
                    return refuse(
                        "token.directory",
                        format!("token {name} needs both a directory and a passphrase_file; write them"),
                    );
                }
            }
            Self::Pkcs11(token) => {
                for (key, path) in [("token.module", &token.module), ("token.pin_file", &token.pin_file)] {
                    if !given(path) {
                        return refuse(
                            key,
                            format!("token {name} needs both a module and a pin_file; write them"),
                        );
                    }
                }
                if token.label.is_none() && token.serial.is_none() {
                    return refuse(
                        "token.label",
                        format!("a module may have several tokens; write the label or the serial of token {name}"),
                    );
                }
                if !(1..=256).contains(&token.sessions) {
                    return refuse("token.sessions", format!("token {name}: write 1 to 256"));
                }
                for (key, limit, longest) in [
                    ("token.operation_limit", token.operation_limit, Duration::from_mins(1)),
                    ("token.slow_limit", token.slow_limit, Duration::from_mins(10)),
                ] {
                    if !(SHORTEST..=longest).contains(&limit) {
                        return refuse(key, format!("token {name}: write 2s to {}s", longest.as_secs()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether these can be the tokens of one process.
pub(super) fn check(tokens: &[Token]) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    for token in tokens {
        if !names.insert(token.name()) {
            return refuse(
                "token.name",
                format!("{} is there twice; give each token a name of its own", token.name()),
            );
        }
        token.check()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PKCS11: &str = "name = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"m\"\nlabel = \"issuing\"\npin_file = \"p\"\n";

    fn token(text: &str) -> Result<Token, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_token_of_hardware_is_whole_or_refused() {
        let Token::Pkcs11(whole) = token(PKCS11).unwrap() else {
            panic!("another kind")
        };
        assert_eq!((whole.sessions, whole.operation_limit), (16, Duration::from_secs(3)));
        Token::Pkcs11(whole).check().unwrap();
        for (line, replacement, key) in [
            ("module = \"m\"", "module = \"\"", "token.module"),
            ("pin_file = \"p\"", "pin_file = \"\"", "token.pin_file"),
            ("label = \"issuing\"", "", "token.label"),
            ("label", "sessions = 0\nlabel", "token.sessions"),
            ("label", "operation_limit = \"1s\"\nlabel", "token.operation_limit"),
            ("label", "slow_limit = \"1h\"\nlabel", "token.slow_limit"),
        ] {
            let token = token(&PKCS11.replace(line, replacement)).unwrap();
            assert_eq!(token.check().unwrap_err().0, key);
        }
        for unknown in ["passphrase_file = \"p\"", "pin = \"1234\""] {
            assert!(token(&format!("{PKCS11}{unknown}")).is_err(), "{unknown}");
        }
        assert!(token(&PKCS11.replace("pkcs11", "hsm")).is_err());
    }
}
