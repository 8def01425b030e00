//! Incidents, replayed for real: against Bulkhead, and against the way it used to be done.

mod asking;
mod atlas;
mod bulkhead;
mod course;
mod hardware;
mod installation;
mod isolation;
mod judge;
mod plot;
mod poison;
mod reference;
mod registry;
mod report;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;

pub use self::{
    atlas::run,
    isolation::{Options as IsolationOptions, run as isolate},
};
use crate::{
    packages::{self, Missing, Package},
    progress,
};

/// Issuers, and those of them whose keys survive.
pub const ISSUERS: usize = 9;
pub const HEALTHY: usize = 3;
/// How long those who wait for their certificate are kept waiting at most, in seconds.
pub const INTERACTIVE_WAIT: u32 = 6;
/// How long an OCSP signer waits for its certificate before it asks again, in seconds.
pub const RENEWAL_WAIT: u32 = 2;

/// Which incident.
#[derive(Debug, Subcommand)]
pub enum Incident {
    /// Six issuers' keys are destroyed, nobody tells the front ends, and OCSP signers ask for certificates under all nine
    Atlas(Options),
}

/// How it is replayed.
#[derive(Debug, Args)]
pub struct Options {
    /// What Bulkhead runs on.
    #[arg(long, value_enum)]
    pub engine: Engine,
    /// Where the report goes: report.json, report.md, report.svg
    #[arg(long, value_name = "DIR")]
    pub report: PathBuf,
    /// A quarter of the requests
    #[arg(long)]
    pub quick: bool,
    /// Healthy requests before and during, instead; everything is as short as it can be
    #[arg(long, hide = true)]
    pub requests: Option<usize>,
}

/// What Bulkhead runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// One process, SQLite, lanes in memory
    Embedded,
    /// Two front ends and three signers, PostgreSQL and RabbitMQ
    Rabbitmq,
}

/// A bar for the next thing to be done; who has no terminal is told at least that it begins.
fn phase(what: &'static str, count: usize) -> ProgressBar {
    let bar = progress(what, count);
    say(&bar, what);
    bar
}

/// What is done now.
fn say(bar: &ProgressBar, what: &'static str) {
    if bar.is_hidden() {
        eprintln!("{what}");
    } else {
        bar.set_message(what);
    }
}

impl Engine {
    /// Whether everything is installed that it takes.
    fn check_packages(self) -> Result<(), Missing> {
        packages::check(match self {
            Self::Embedded => &[Package::SoftHsm],
            Self::Rabbitmq => &[Package::SoftHsm, Package::RabbitMq, Package::Postgres],
        })
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Embedded => "one process (SQLite, lanes in memory)",
            Self::Rabbitmq => "many processes (PostgreSQL, RabbitMQ)",
        }
    }
}

/// How a system is at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    pub depth: u64,
    pub backing_off: u64,
}
