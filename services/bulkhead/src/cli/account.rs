//! `bulkhead account` and `bulkhead profile`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::{
    id::{AccountId, IssuerId, ProfileId},
    key::KeyType,
};

/// `bulkhead account`.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account; its secret is shown once
    ///
    /// An account issues under one issuer and one profile. Its clients show a client certificate and log in with key and secret.
    Add(AccountAdd),
    /// List accounts
    List,
}

/// `bulkhead account add`.
#[derive(Debug, Args)]
pub struct AccountAdd {
    /// Its name
    pub account: AccountId,
    /// The issuer it issues under
    #[arg(long, value_name = "ISSUER")]
    pub issuer: IssuerId,
    /// The profile it issues under
    #[arg(long, value_name = "PROFILE")]
    pub profile: ProfileId,
    /// PEM file with a client certificate of its clients; repeat it for more [default: the context file's]
    #[arg(long, value_name = "FILE")]
    pub client_cert: Vec<PathBuf>,
    /// Certificates that it may have issued in all
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub quota: u64,
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_second: u32,
    /// Jobs that it may have open at a time
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs_in_flight: u32,
    /// Enter its credentials into the context file, so that `bulkhead cert issue --account NAME` finds them
    #[arg(long)]
    pub save: bool,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `bulkhead profile`.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List profiles
    List,
    /// Show one profile (with `--output json`: as a file that `profile put` takes)
    Show {
        /// Which
        profile: ProfileId,
    },
    /// Put in a new profile, or the next version of one
    Put {
        /// TOML or JSON
        file: PathBuf,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
        /// For the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Print a profile for TLS servers, to begin with
    Sample(ProfileSample),
}

/// `bulkhead profile sample`.
#[derive(Debug, Args)]
pub struct ProfileSample {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "tls-server")]
    pub id: ProfileId,
    /// The key type that it pins
    #[arg(long, value_name = "TYPE", default_value = "P-256")]
    pub key_type: KeyType,
}
