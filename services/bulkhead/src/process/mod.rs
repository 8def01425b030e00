//! `bulkhead frontend`, `signer` and `control`: one part of an installation of many processes, from the lock on its directory to the last
//! answer. Each starts in any order, says on `/readyz` what it waits for, and goes on by itself once that is there.

mod control;
pub mod node;
mod renewal;
#[cfg(test)]
mod tests;

use std::{io, path::Path, time::Duration};

use domain::id::NodeId;
use runtime::{
    config::{Config, NodeRole},
    data_dir::DataDir,
    ports::Ports,
    shutdown::Shutdown,
    telemetry,
};
use serde::Serialize;
use tracing::{info, warn};

use crate::{
    cli::{Output, Serve},
    compose::{Plain, Process, finish, plain},
    failure::{Failure, Outcome},
};

/// How often something that is not there yet is looked for.
const RETRY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// What is said, and written to the ready-file, when a process is ready.
#[derive(Debug, Serialize)]
struct Ready {
    role: &'static str,
    node: NodeId,
    /// Where it serves, if it does.
    url: Option<String>,
    metrics_url: String,
}

/// Serves until somebody asks it to stop. `demo` makes the demo hierarchy where control is.
pub async fn run(output: Output, serve: Serve, role: NodeRole, demo: bool) -> Outcome {
    let config = configure(&serve.config, role)?;
    let exporter = telemetry::init(&config.telemetry, config.node.id().as_ref()).map_err(Failure::usage)?;
    if let Some(file) = &serve.ready_file {
        remove(file)?;
    }
    let data = DataDir::open(&config.place.data_dir).map_err(Failure::failed)?;
    let shutdown = Shutdown::new(config.shutdown.grace);
    shutdown.listen_for_signals().map_err(Failure::failed)?;
    let process = Process::new(config, &shutdown);
    tokio::select! {
        started = start(output, &serve, &process, &data, demo) => started?,
        // A signal during the start ends it: nothing that it does is left half-done.
        () = shutdown.soft().cancelled() => {}
    }
    shutdown.soft().cancelled().await;
    if let Some(file) = &serve.ready_file {
        remove(file)?;
    }
    let stopped = shutdown.wait().await;
    telemetry::flush(exporter).await;
    finish(&stopped)
}

/// The configuration of a process of this role.
pub fn configure(file: &Path, role: NodeRole) -> Outcome<Config> {
    let config = Config::load(file).map_err(Failure::usage)?;
    if config.node.role == role {
        return Ok(config);
    }
    let (is, wanted) = (config.node.role.as_str(), role.as_str());
    let command = if role == NodeRole::All { "up" } else { wanted };
    Err(Failure::usage(format_args!(
        "{}: node.role: is \"{is}\", and this is `bulkhead {command}`; write \"{wanted}\", or start what the file is for",
        file.display()
    )))
}

async fn start(output: Output, serve: &Serve, process: &Process, data: &DataDir, demo: bool) -> Outcome {
    let mut ports = Ports::open(data.path()).map_err(Failure::failed)?;
    let place = &process.config.place;
    let metrics = ports.bind("metrics", place.metrics_listen).map_err(Failure::failed)?;
    let metrics_url = crate::compose::Host::of(&[], place.metrics_listen.ip()).url("http", &metrics)?;
    // From the first moment on it can be asked what it waits for.
    plain(process, metrics, Plain::Telemetry)?;
    let ready = match process.config.node.role {
        NodeRole::Control => return control::start(output, serve, process, data, ports, metrics_url, demo).await,
        NodeRole::All | NodeRole::Frontend | NodeRole::Signer => node::start(process, data, ports, metrics_url).await?,
    };
    until_ready(process).await;
    output.print(&ready, || format!("bulkhead {} {} is ready\n", ready.role, ready.node))?;
    match &serve.ready_file {
        None => Ok(()),
        Some(file) => {
            let text = serde_json::to_vec_pretty(&ready).map_err(Failure::failed)?;
            runtime::files::write_private(file, &text).map_err(Failure::failed)
        }
    }
}

/// Waits until every part says that it is ready.
async fn until_ready(process: &Process) {
    while !process.health.readiness().ready {
        tokio::time::sleep(POLL).await;
    }
}

/// Tries until it succeeds, says so once, and tells on `/readyz` meanwhile what it waits for.
async fn wait<T, F>(process: &Process, part: &'static str, attempt: impl Fn() -> F) -> T
where
    F: Future<Output = Outcome<T>>,
{
    let condition = process.health.part(part);
    let mut said = false;
    loop {
        match attempt().await {
            Ok(there) => {
                if said {
                    info!(part, "is there now");
                }
                return there;
            }
            Err(failure) => {
                condition.not_ready(format!("waiting: {}", failure.what()));
                if !std::mem::replace(&mut said, true) {
                    warn!(part, reason = failure.what(), "not there yet; waiting for it");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whoever waits for the ready-file must not find the last start's.
fn remove(file: &Path) -> Outcome {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::usage(format_args!(
            "--ready-file {}: cannot be removed: {error}",
            file.display()
        ))),
        _ => Ok(()),
    }
}
