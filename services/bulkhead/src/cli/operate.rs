//! `bulkhead config`, `job`, `lane`, `breaker` and `operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use domain::{
    breaker::Force,
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

/// `bulkhead breaker`.
#[derive(Debug, Subcommand)]
pub enum BreakerCommand {
    /// List issuers whose breakers are forced, or not closed in some signer
    List,
    /// Overrule the breakers of an issuer, in every signer, until told otherwise
    ///
    /// Signers follow within a second or so. `open`: its jobs wait, and nothing is tried. `closed`: every job is tried, whatever happens.
    /// `observe`: the same, and the log says when a breaker would have opened. `auto`: breakers do as they see fit again.
    Force(BreakerForce),
}

/// `bulkhead breaker force`.
#[derive(Debug, Args)]
pub struct BreakerForce {
    /// Whose
    pub issuer: IssuerId,
    /// What they do: open, closed, observe or auto
    #[arg(value_enum, value_name = "ORDER", hide_possible_values = true)]
    pub order: BreakerOrder,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// What breakers are ordered to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BreakerOrder {
    /// Nothing passes.
    Open,
    /// Everything passes.
    Closed,
    /// Everything passes, and it is said when it would not have.
    Observe,
    /// As they see fit.
    Auto,
}

impl From<BreakerOrder> for Option<Force> {
    fn from(order: BreakerOrder) -> Self {
        match order {
            BreakerOrder::Open => Some(Force::Open),
            BreakerOrder::Closed => Some(Force::Closed),
            BreakerOrder::Observe => Some(Force::ObserveOnly),
            BreakerOrder::Auto => None,
        }
    }
}

/// `bulkhead operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// List operators and their roles
    List,
}
