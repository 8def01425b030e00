//! The operators' commands: each asks the running installation and prints what it answers.

mod account;
mod breaker;
mod cert;
mod config;
mod files;
mod issuer;
pub mod node;
mod profile;
mod render;
mod session;
mod token;

use runtime::config::NodeRole;
use wire::{admin::JobQuery, client::AdminClient};

use crate::{
    cli::{Command, Common, JobCommand, LaneCommand, OperatorCommand},
    failure::{Failure, Outcome},
    progress::during,
};
use session::Session;

/// Does what was typed.
pub async fn run(common: &Common, command: Command) -> Outcome {
    match command {
        Command::Up(up) => crate::up::run(common.output, up).await,
        Command::Frontend(serve) => crate::process::run(common.output, serve, NodeRole::Frontend, false).await,
        Command::Signer(serve) => crate::process::run(common.output, serve, NodeRole::Signer, false).await,
        Command::Control(control) => {
            crate::process::run(common.output, control.serve, NodeRole::Control, control.demo).await
        }
        Command::Config(command) => config::run(common.output, command),
        Command::Cert(command) => cert::run(common, command).await,
        Command::Issuer(command) => issuer::run(common, command).await,
        Command::Profile(command) => profile::run(common, command).await,
        Command::Account(command) => account::run(common, command).await,
        Command::Job(command) => job(common, command).await,
        Command::Lane(LaneCommand::List) => {
            let lanes = Session::open(common)?.ask(AdminClient::lanes).await?;
            common.output.print(&lanes, || render::lanes(&lanes))
        }
        Command::Breaker(command) => breaker::run(common, command).await,
        Command::Fleet => {
            let fleet = Session::open(common)?.ask(AdminClient::fleet).await?;
            common.output.print(&fleet, || render::fleet(&fleet))
        }
        Command::Operator(OperatorCommand::List) => {
            let operators = Session::open(common)?.ask(AdminClient::operators).await?;
            common.output.print(&operators, || render::operators(&operators))
        }
        Command::Node(command) => node::run(common, command).await,
        Command::Token(command) => token::run(common.output, command),
        Command::TokenWorker(_) => keys::pkcs11::worker::run().map_err(Failure::failed),
    }
}

async fn job(common: &Common, command: JobCommand) -> Outcome {
    let session = Session::open(common)?;
    match command {
        JobCommand::List(list) => {
            let query = JobQuery {
                state: list.state,
                issuer: list.issuer,
                account: list.account,
                before: list.before,
                limit: Some(list.limit),
            };
            let jobs = during("reading jobs", session.ask(|api| api.jobs(&query))).await?;
            common.output.print(&jobs, || render::jobs(&jobs))
        }
        JobCommand::Show { serial } => {
            let job = session.ask(|api| api.job(serial)).await?;
            common.output.print(&job, || render::job(&job))
        }
    }
}
