//! `bulkhead config`, `job`, `lane` and `operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use domain::{
    id::{AccountId, IssuerId, Serial},
    job::State,
};
use runtime::config::NodeRole;

/// `bulkhead config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a configuration file and say what is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a configuration to begin with: every setting, its default and what it does; or what one process must be told
    Sample {
        /// For which process: all, frontend, signer or control
        #[arg(long, value_enum, default_value_t, value_name = "ROLE", hide_possible_values = true)]
        role: SampleRole,
    },
}

/// For which process a configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SampleRole {
    /// Everything in one process
    #[default]
    All,
    /// A front end
    Frontend,
    /// A signer
    Signer,
    /// Control
    Control,
}

impl From<SampleRole> for NodeRole {
    fn from(role: SampleRole) -> Self {
        match role {
            SampleRole::All => Self::All,
            SampleRole::Frontend => Self::Frontend,
            SampleRole::Signer => Self::Signer,
            SampleRole::Control => Self::Control,
        }
    }
}

/// `bulkhead job`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs, newest first
    List(JobList),
    /// Show one job: its times, its state, its outcome and what happened to it
    Show {
        /// Serial number of the job's certificate, in hexadecimal
        serial: Serial,
    },
}

/// `bulkhead job list`.
#[derive(Debug, Args)]
pub struct JobList {
    /// Only jobs in this state: queued, signing, parked, issued, refused, expired or discarded
    #[arg(long, value_name = "STATE")]
    pub state: Option<State>,
    /// Only jobs of this issuer
    #[arg(long, value_name = "ISSUER")]
    pub issuer: Option<IssuerId>,
    /// Only jobs of this account
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<AccountId>,
    /// Only jobs older than this one: give the last serial of the page before
    #[arg(long, value_name = "SERIAL")]
    pub before: Option<Serial>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `bulkhead lane`.
#[derive(Debug, Subcommand)]
pub enum LaneCommand {
    /// List lanes with their depth and the age of their oldest job
    List,
}

/// `bulkhead operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// List operators and their roles
    List,
}
