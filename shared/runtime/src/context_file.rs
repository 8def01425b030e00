//! The file that tells operators' commands and clients where everything is: written when the process is ready.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use domain::issuer::{Api, OperatorRole};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read, write_private};

/// The environment variable that names the file.
pub const CONTEXT_VARIABLE: &str = "BULKHEAD_CONTEXT";

/// Where everything is. What is not served is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContextFile {
    /// Base of the certificate API, ends in `/v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Base of the signing API, ends in `/v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dss_url: Option<String>,
    /// Base of the operators' API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_url: Option<String>,
    /// The operators' web page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_url: Option<String>,
    /// OCSP responder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_url: Option<String>,
    /// Prometheus metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_url: Option<String>,
    /// PEM of the CA that vouches for the servers.
    pub tls_ca_file: PathBuf,
    /// PEM of the accounts' client certificate.
    pub client_cert_file: PathBuf,
    /// PEM of its key.
    pub client_key_file: PathBuf,
    /// Operators.
    #[serde(default)]
    pub operators: Vec<OperatorEntry>,
    /// Accounts.
    #[serde(default)]
    pub accounts: Vec<AccountEntry>,
}

/// An operator and where its certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorEntry {
    /// Name, for `--as`.
    pub name: String,
    /// Role.
    pub role: OperatorRole,
    /// PEM certificate.
    pub cert_file: PathBuf,
    /// PEM key.
    pub key_file: PathBuf,
}

/// An account and its credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// Name.
    pub name: String,
    /// Which contract it speaks.
    pub api: Api,
    /// Public half of its credential.
    pub api_key: String,
    /// Secret half.
    pub api_secret: String,
    /// Its issuer.
    pub issuer: String,
    /// Its profile.
    pub profile: String,
}

impl fmt::Debug for AccountEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountEntry({})", self.name)
    }
}

/// No context file.
#[derive(Debug, thiserror::Error)]
#[error("{error}; start `bulkhead up` first, or name its context file with --context FILE or {CONTEXT_VARIABLE}")]
pub struct NoContext {
    #[source]
    error: FileError,
}

impl ContextFile {
    /// Writes the file, complete, by rename, mode 0600: it holds secrets.
    ///
    /// # Panics
    /// If a path in it is not UTF-8.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let mut text = serde_json::to_vec_pretty(self).expect("paths are UTF-8");
        text.push(b'\n');
        write_private(path, &text)
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, NoContext> {
        let text = read(path).map_err(|error| NoContext { error })?;
        serde_json::from_slice(&text).map_err(|e| NoContext {
            error: FileError::damaged(path, e.to_string()),
        })
    }

    /// Where the file is: as given, or as the environment says, or in the default data directory.
    pub fn locate(given: Option<&Path>) -> PathBuf {
        given
            .map(Path::to_owned)
            .or_else(|| {
                env::var_os(CONTEXT_VARIABLE)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
            })
            .unwrap_or_else(|| "bulkhead-data/context.json".into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn context() -> ContextFile {
        ContextFile {
            url: Some("https://127.0.0.1:8443/v2".into()),
            tls_ca_file: "/d/ca.pem".into(),
            operators: vec![OperatorEntry {
                name: "alice".into(),
                role: OperatorRole::SecurityOfficer,
                cert_file: "/d/a.pem".into(),
                key_file: "/d/a-key.pem".into(),
            }],
            accounts: vec![AccountEntry {
                name: "demo-p256".into(),
                api: Api::Hvca,
                api_key: "k".into(),
                api_secret: "hunter2".into(),
                issuer: "demo-p256".into(),
                profile: "demo-p256".into(),
            }],
            ..ContextFile::default()
        }
    }

    #[test]
    fn the_file_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context.json");
        context().write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ContextFile::load(&path).unwrap(), context());
        assert!(!format!("{:?}", context()).contains("hunter2"));
    }

    #[test]
    fn its_keys_are_those_that_are_promised() {
        let json = serde_json::to_value(context()).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "accounts",
                "client_cert_file",
                "client_key_file",
                "operators",
                "tls_ca_file",
                "url"
            ]
        );
        assert_eq!(json["operators"][0]["role"], "security-officer");
        assert_eq!(json["accounts"][0]["api"], "hvca");
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let error = ContextFile::load(Path::new("/nonexistent/context.json"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("bulkhead up") && error.contains("--context"), "{error}");
        assert_eq!(ContextFile::locate(Some(Path::new("x"))), Path::new("x"));
    }
}
