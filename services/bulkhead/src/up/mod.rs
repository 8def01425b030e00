//! `bulkhead up`: everything in one process, from the lock on its directory to the last answer.

mod addresses;
mod announce;
mod curl;
mod installation;
mod self_check;

use std::{io, path::Path};

use runtime::{config::Config, context_file::ContextFile, data_dir::DataDir, shutdown::Shutdown, telemetry};

use crate::{
    cli::{Output, Up},
    compose::{Process, absolute, finish},
    failure::{Failure, Outcome},
};
use addresses::Addresses;
use announce::Ready;
use curl::CurlFiles;
use installation::Installation;

/// Starts everything, says when it is ready, and waits until somebody asks it to stop.
pub async fn run(output: Output, up: Up) -> Outcome {
    let (config, addresses) = addresses::configure(&up)?;
    let exporter = telemetry::init(&config.telemetry, config.node.id().as_ref()).map_err(Failure::usage)?;
    if let Some(file) = &up.ready_file {
        remove(file)?;
    }
    let data = DataDir::open(&config.place.data_dir).map_err(Failure::failed)?;
    let shutdown = Shutdown::new(config.shutdown.grace);
    shutdown.listen_for_signals().map_err(Failure::failed)?;
    tokio::select! {
        started = start(output, &up, config, addresses, &data, &shutdown) => started?,
        // A signal during the start ends it: nothing that it does is left half-done.
        () = shutdown.soft().cancelled() => {}
    }
    shutdown.soft().cancelled().await;
    if let Some(file) = &up.ready_file {
        remove(file)?;
    }
    let stopped = shutdown.wait().await;
    telemetry::flush(exporter).await;
    finish(&stopped)
}

async fn start(
    output: Output,
    up: &Up,
    config: Config,
    addresses: Addresses,
    data: &DataDir,
    shutdown: &Shutdown,
) -> Outcome {
    let bound = addresses.bind(data.path(), &config)?;
    let installation = Installation::open(&Process::new(config, shutdown), data, &bound).await?;
    let (control, path) = (&installation.control, data.file("context.json"));
    let context = control
        .context_file(bound.urls()?, &path, Some(installation.token()))
        .await?;
    // The secrets of a new installation are in here and nowhere else: a start that is killed from now on finds them again.
    context.write(&path).map_err(Failure::failed)?;
    installation.start(bound)?;
    let checked = self_check::run(&installation, &context).await;
    let commands = commands(&installation, data, &context).await?;
    let ready = Ready {
        data: absolute(data.path())?,
        context: absolute(&path)?,
        url: context.url.clone().unwrap_or_default(),
        admin_url: context.admin_url.clone().unwrap_or_default(),
        metrics_url: context.metrics_url.clone().unwrap_or_default(),
        revision: installation.context.follower.applied().load().revision(),
        self_check: checked,
        commands,
    };
    output.print(&ready, || ready.text())?;
    match &up.ready_file {
        Some(file) => context.write(file).map_err(Failure::failed),
        None => Ok(()),
    }
}

/// What to type to get a certificate with curl and OpenSSL; nothing if no account's credential is known.
async fn commands(installation: &Installation, data: &DataDir, context: &ContextFile) -> Outcome<String> {
    let (Some(account), Some(url)) = (context.accounts.first(), &context.url) else {
        return Ok(String::new());
    };
    let directory = data.directory("curl").map_err(Failure::failed)?;
    let files = CurlFiles::write(&directory, context, account)?;
    let snapshot = installation.control.registry.current().await.map_err(Failure::failed)?;
    Ok(files.script(url, account, &snapshot))
}

/// Whoever waits for the ready file must not find the last start's.
fn remove(file: &Path) -> Outcome {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::usage(format_args!(
            "--ready-file {}: cannot be removed: {error}",
            file.display()
        ))),
        _ => Ok(()),
    }
}
