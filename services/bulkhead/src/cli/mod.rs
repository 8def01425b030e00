//! The command tree: what can be typed, and the words that `--help` says about it.

mod account;
mod cert;
mod issuer;
mod node;
mod operate;
mod serve;
mod token;
mod up;

pub use account::{AccountAdd, AccountCommand, ProfileCommand, ProfileSample};
pub use cert::{CertCommand, CertIssue, CertRevoke};
pub use issuer::{
    IssuerActivate, IssuerBind, IssuerCommand, IssuerCsr, IssuerImport, IssuerKeygen, IssuerMarkDestroyed,
    IssuerSwitch, Legacy, Placement,
};
pub use node::{NodeCommand, NodeEnrol, NodeInvite};
pub use operate::{BreakerCommand, ConfigCommand, JobCommand, LaneCommand, OperatorCommand};
pub use serve::{Serve, ServeControl};
pub use token::{TokenCommand, TokenRetry, TokenWorker};
pub use up::Up;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::id::OperatorId;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the program, the network or the service
  2  usage: an argument or the configuration is wrong
  3  partly done
  4  refused: by policy, by state or for lack of a role";

/// Certificate issuance that one bad issuer cannot stop.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// How to print the result: `table` for people, `json` for programs
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    pub output: Output,
    /// The context file that `bulkhead up` writes [default: ./bulkhead-data/context.json]
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_CONTEXT",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Everywhere"
    )]
    pub context: Option<PathBuf>,
    /// The operator who acts [default: the context file's first]
    #[arg(long = "as", global = true, value_name = "NAME", help_heading = "Everywhere")]
    pub operator: Option<OperatorId>,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: one JSON document
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything in one process
    ///
    /// The first start makes an installation of its own in DIR: keys, a ledger, and a demo hierarchy that nobody must trust. Later
    /// starts go on where the last one stopped. Each start issues one certificate through the whole path before it says that it is
    /// ready. Ctrl-C or SIGTERM finishes what was begun and ends with 0; a second one ends at once.
    Up(Up),
    /// Start a front end: one of many that take requests
    ///
    /// It shares ledger and broker with the other processes of its installation, and must have been enrolled (`bulkhead node enrol`).
    /// What is not there yet is waited for. Ctrl-C or SIGTERM answers who waits and ends with 0; a second one ends at once.
    Frontend(Serve),
    /// Start a signer: one of many that sign with the keys on their tokens
    ///
    /// It shares ledger and broker with the other processes of its installation, and must have been enrolled (`bulkhead node enrol`).
    /// What is not there yet is waited for. Ctrl-C or SIGTERM finishes what was begun and ends with 0; a second one ends at once.
    Signer(Serve),
    /// Start control: registry, operators' API, enrolment of the other processes
    ///
    /// The first start makes the installation: migrations, the installation root, the access CA, operators and their context file. A
    /// second control process needs copies of identity/root.pem, access/ca.pem and access/ca-key.pem of the first one's data directory.
    Control(ServeControl),
    /// Check a configuration file, or print one with every default
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Issue, show and revoke certificates
    #[command(subcommand, arg_required_else_help = true)]
    Cert(CertCommand),
    /// Issuers: what signs
    #[command(subcommand, arg_required_else_help = true)]
    Issuer(IssuerCommand),
    /// Profiles: what may be issued
    #[command(subcommand, arg_required_else_help = true)]
    Profile(ProfileCommand),
    /// Accounts: who may ask
    #[command(subcommand, arg_required_else_help = true)]
    Account(AccountCommand),
    /// Jobs: what was asked for, and what came of it
    #[command(subcommand, arg_required_else_help = true)]
    Job(JobCommand),
    /// Lanes: the open jobs of one issuer and class
    #[command(subcommand, arg_required_else_help = true)]
    Lane(LaneCommand),
    /// Breakers: what keeps an issuer's failures its own
    #[command(subcommand, arg_required_else_help = true)]
    Breaker(BreakerCommand),
    /// Show every process: what it applies, what it does, and what is wrong with it
    Fleet,
    /// Operators: who may act
    #[command(subcommand, arg_required_else_help = true)]
    Operator(OperatorCommand),
    /// Nodes: processes with a key of their own, and how they become so
    #[command(subcommand, arg_required_else_help = true)]
    Node(NodeCommand),
    /// Tokens: where keys are
    #[command(subcommand, arg_required_else_help = true)]
    Token(TokenCommand),
    /// Serve one token for the process that starts this
    #[command(hide = true)]
    TokenWorker(TokenWorker),
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use clap::CommandFactory;

    use super::*;

    /// Every help text of the tree, one after the other.
    fn help(command: &mut clap::Command, path: &str, into: &mut String) {
        let name = format!("{path} {}", command.get_name());
        let text = command.clone().bin_name(name.trim()).render_long_help().to_string();
        let text: String = text.lines().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{}", line.trim_end());
            all
        });
        let _ = writeln!(into, "##### {}\n{text}", name.trim());
        for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
            help(below, name.trim(), into);
        }
    }

    #[test]
    fn every_help_text_is_as_it_was_last_looked_at() {
        let mut all = String::new();
        let mut command = Cli::command().term_width(100);
        command.build();
        help(&mut command, "", &mut all);
        insta::assert_snapshot!("help", all);
    }

    #[test]
    fn the_command_tree_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
