//! Starts the real program for the scenarios, and speaks to it as its users do: over HTTPS with a client certificate, and by its
//! commands.

mod authority;
mod client;
mod grown;
pub mod load;
pub mod waiting;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use authority::Root;
pub use client::{Answer, Client, Key};
pub use grown::{Grown, Links};

/// How long the program may take to become ready, or to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// One installation of `bulkhead up` in a directory of its own. Dropping it kills the program.
#[derive(Debug)]
pub struct Deployment {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    child: Option<Child>,
    ready: Value,
}

impl Deployment {
    /// An installation that has not been started. `arguments` go to `bulkhead up` beside directory, ready-file and free ports.
    pub fn new(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Ok(Self {
            directory: tempfile::tempdir()?,
            arguments,
            environment: Vec::new(),
            child: None,
            ready: Value::Null,
        })
    }

    /// The same, with this in the program's environment.
    #[must_use]
    pub fn with_environment(mut self, (name, value): (&str, PathBuf)) -> Self {
        self.environment.push((name.to_owned(), value));
        self
    }

    /// The same, started.
    pub fn started(arguments: &[&str]) -> Result<Self> {
        let mut deployment = Self::new(arguments)?;
        deployment.start()?;
        Ok(deployment)
    }

    /// The program that the tests run: built beside them by `cargo build -p bulkhead`.
    pub fn program() -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        // Beside another program of the workspace, or one above the tests.
        let places = own.ancestors().skip(1).take(2);
        let program = places.map(|place| place.join("bulkhead")).find(|path| path.is_file());
        program.with_context(|| {
            format!(
                "no `bulkhead` beside {}: run `cargo build -p bulkhead` first",
                own.display()
            )
        })
    }

    /// Where the installation keeps everything.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What the program has written to its standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts the program and waits until it says that it is ready.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "already running");
        let ready = self.directory.path().join("ready.json");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))?;
        let child = Command::new(Self::program()?)
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let child = self.child.insert(child);
        let begun = Instant::now();
        while !ready.exists() {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("the program ended with {status}:\n{}", self.log());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "not ready after {PATIENCE:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ready = serde_json::from_slice(&fs::read(&ready)?).context("the ready-file is not complete JSON")?;
        Ok(())
    }

    /// The ready-file.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Process id.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and demands exit code 0 in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        terminate(&child)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(
                    status.success(),
                    "SIGTERM ended the program with {status}:\n{}",
                    self.log()
                );
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                bail!("still running {PATIENCE:?} after SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs an operator's or a client's command.
    pub fn bulkhead(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(Self::program()?)
            .args(arguments)
            .env("BULKHEAD_CONTEXT", self.data().join("context.json"))
            .stdin(Stdio::null())
            .output()?)
    }

    /// Runs a command that must succeed and print JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.bulkhead(&[arguments, &["--output", "json"]].concat())?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "bulkhead {}: {}: {error}",
            arguments.join(" "),
            output.status
        );
        serde_json::from_slice(&output.stdout).with_context(|| format!("bulkhead {}: not JSON", arguments.join(" ")))
    }

    /// A client with the credentials of the account at `position` in the ready-file.
    pub fn client(&self, position: usize) -> Result<Client> {
        Client::new(&self.ready, position)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the end of the program's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn terminate(child: &Child) -> Result<()> {
    signal(child.id(), "TERM")
}

/// Sends a signal to a process, by its name: `STOP`, `CONT`.
pub fn signal(id: u32, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(id.to_string())
        .status()?;
    ensure!(status.success(), "kill -{name} {id}: {status}");
    Ok(())
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
}
