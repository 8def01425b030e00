//! `bulkhead node`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use domain::{id::NodeId, issuer::Role};

/// `bulkhead node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List enrolled nodes, and what they say of themselves
    List,
    /// Invite a node: prints a code with which it may enrol once
    ///
    /// Hand the code over as you would a password. It also says which authority vouches for control, so that the node's first connection
    /// cannot be anybody else's.
    Invite(NodeInvite),
    /// Enrol this machine as the node of a configuration
    ///
    /// Makes the node's key, which never leaves this machine, and asks control for its enrolment, its certificate, and the public key of
    /// the installation root, which is the only one that the process believes from then on.
    Enrol(NodeEnrol),
}

/// `bulkhead node invite`.
#[derive(Debug, Args)]
pub struct NodeInvite {
    /// What it will be: frontend or signer
    #[arg(long, value_enum, value_name = "ROLE", hide_possible_values = true)]
    pub role: InvitedRole,
    /// Its name, unlike any other's
    #[arg(long, value_name = "NODE")]
    pub id: NodeId,
    /// Names and addresses by which clients will call it, separated by commas (front ends)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub names: Vec<String>,
    /// How long the code is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub valid: Duration,
    /// Why; it goes into the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// What is enrolled by an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InvitedRole {
    /// A front end
    Frontend,
    /// A signer
    Signer,
}

impl From<InvitedRole> for Role {
    fn from(role: InvitedRole) -> Self {
        match role {
            InvitedRole::Frontend => Self::Frontend,
            InvitedRole::Signer => Self::Signer,
        }
    }
}

/// `bulkhead node enrol`.
#[derive(Debug, Args)]
pub struct NodeEnrol {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// File with the code; `-` or none: standard input
    #[arg(long, value_name = "FILE")]
    pub code_file: Option<PathBuf>,
}
