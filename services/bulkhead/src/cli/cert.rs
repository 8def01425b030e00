//! `bulkhead cert`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use domain::{
    id::{AccountId, Serial},
    job::RevocationReason,
    key::KeyType,
};

/// `bulkhead cert`.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Ask for a certificate and wait for it
    ///
    /// Goes the way of every client: logs in to the REST API with the account's credentials from the context file.
    Issue(CertIssue),
    /// Show a certificate
    Show {
        /// Its serial number, in hexadecimal
        serial: Serial,
        /// Write the certificate to FILE as well, as PEM
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a certificate. It cannot be undone
    Revoke(CertRevoke),
}

/// `bulkhead cert issue`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("key").required(true).args(["csr", "new_key"]))]
#[command(after_help = "Examples:
  bulkhead cert issue --new-key P-256 --key-out key.pem --cn www.example.com --out cert.pem
  bulkhead cert issue --account demo-rsa2048 --csr request.pem --cn www.example.com")]
pub struct CertIssue {
    /// The account that asks [default: the context file's first]
    #[arg(long, value_name = "NAME")]
    pub account: Option<AccountId>,
    /// A PKCS#10 request in PEM. Only its key and its signature count, never its subject
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Make a key of this type: RSA-2048, RSA-3072, RSA-4096, P-256, P-384, P-521 or Ed25519
    #[arg(long, value_name = "TYPE", requires = "key_out")]
    pub new_key: Option<KeyType>,
    /// Where the new key goes (PKCS#8 PEM, mode 0600). An existing file is never overwritten
    #[arg(long, value_name = "FILE", requires = "new_key")]
    pub key_out: Option<PathBuf>,
    /// Common name [default: the first DNS name]
    #[arg(long, value_name = "NAME", required_unless_present = "dns")]
    pub cn: Option<String>,
    /// A DNS name; repeat it for more [default: the common name]
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// Days of validity [default: as long as the profile allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: Option<u32>,
    /// How long to wait for it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// Where the certificate goes (PEM) [default: printed]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the certificates above it go (PEM, issuing CA first, root last)
    #[arg(long, value_name = "FILE")]
    pub chain_out: Option<PathBuf>,
}

/// `bulkhead cert revoke`.
#[derive(Debug, Args)]
pub struct CertRevoke {
    /// Its serial number, in hexadecimal
    pub serial: Serial,
    /// Why: unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn
    #[arg(long, value_name = "REASON")]
    pub reason: RevocationReason,
    /// When the key was compromised (RFC 3339, such as 2026-01-31T12:00:00Z); only with keyCompromise [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<i64>,
}

fn parse_time(text: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|e| e.to_string())?;
    let since_epoch = time
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| "lies before 1970".to_owned())?;
    i64::try_from(since_epoch.as_secs()).map_err(|_| "lies too far ahead".to_owned())
}
