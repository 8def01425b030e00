//! `loadtest`: what a certificate costs, on this machine, with and without Bulkhead around it.

mod bare;
mod client;
mod cpu;
mod drive;
mod grown;
mod packages;
mod replay;
mod report;
mod round_trips;
mod subject;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode, sync::Arc, thread::available_parallelism, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::key::KeyType;
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    client::Session,
    cpu::Watched,
    drive::{Outcome, Pace, Plan},
    grown::Deployed,
    report::{BareRow, Comparison, Report, RunRow},
};

/// The server's, so that the bare loop is measured by the same measure.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures issuance: the bare cryptography, a running Bulkhead, and one beside the other.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// The bare loop: verify the request, encode, sign, verify the signature, seal; no HTTP, no ledger.
    Bare {
        #[command(flatten)]
        bare: BareOptions,
        /// Type of the issuer's key and of the requested keys. May be given several times.
        #[arg(long = "key-type", default_values_t = [KeyType::P256, KeyType::Rsa2048])]
        key_types: Vec<KeyType>,
    },
    /// Loads a running Bulkhead, in a closed loop and at fixed rates.
    Run {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        load: Load,
    },
    /// The bare loop, then the closed loop against a running Bulkhead, and the ratio.
    Compare {
        #[command(flatten)]
        bare: BareOptions,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        load: Load,
    },
    /// Starts the grown-up deployment on this machine (RabbitMQ, PostgreSQL, control, front ends, signers), loads it in a closed loop and
    /// at fixed rates, and makes raw round trips through the same broker beside it.
    Grown {
        #[command(flatten)]
        deployed: Deployed,
        #[command(flatten)]
        load: Load,
    },
    /// Replays an incident against Bulkhead, which it starts and stops itself, and against issuance as it was done before. Exit code 1
    /// says that a mark was missed, 2 that a Debian package is missing.
    Replay {
        #[command(subcommand)]
        incident: replay::Incident,
    },
    /// One disease after the other (a slow issuer, a hanging call, a flapping key, a flood, poison, a sick signer, sick tokens): what the
    /// clients of healthy issuers notice. Exit codes as of `replay`.
    Isolation {
        #[command(flatten)]
        options: replay::IsolationOptions,
    },
    /// Issues this many certificates, so that the ledger grows.
    Fill {
        /// How many.
        count: usize,
        #[command(flatten)]
        target: Target,
        /// Connections, each with one request at a time.
        #[arg(long, default_value_t = 128)]
        connections: usize,
    },
}

#[derive(Args)]
struct BareOptions {
    /// Threads of the bare loop; the number of processors unless given.
    #[arg(long)]
    bare_threads: Option<usize>,
    /// How long the bare loop runs.
    #[arg(long, default_value_t = 5)]
    bare_seconds: u64,
}

#[derive(Args)]
struct Target {
    /// The file in which a running Bulkhead says how it is reached: its ready-file, or `context.json` in its data directory.
    #[arg(long, env = "BULKHEAD_CONTEXT", default_value = "bulkhead-data/context.json")]
    context: PathBuf,
    /// The account that requests; the first one for certificates unless given.
    #[arg(long)]
    account: Option<String>,
    /// Process of the server, for its CPU time; found by its port unless given.
    #[arg(long)]
    pid: Option<u32>,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Args)]
struct Load {
    /// Requests of each loop, each with a key of its own.
    #[arg(long, default_value_t = 20_000)]
    count: usize,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// How long the server may keep a request waiting for its certificate, in seconds.
    #[arg(long, default_value_t = 10)]
    wait: u32,
    /// Requests beforehand that do not count.
    #[arg(long, default_value_t = 1_000)]
    warm_up: usize,
    /// Also an open loop of this many requests a second, whatever the answers take. May be given several times.
    #[arg(long = "rate")]
    rates: Vec<f64>,
    /// Leaves the closed loop out.
    #[arg(long, requires = "rates")]
    open_only: bool,
    /// Draws the latencies into this SVG file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            if error.is::<packages::Missing>() {
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<ExitCode> {
    let mut report = Report::default();
    match cli.command {
        Command::Bare { bare, key_types } => {
            for key_type in key_types {
                report.bare.push(run_bare(&bare, key_type)?);
            }
        }
        Command::Run { target, load } => {
            let session = target.open(load.connections, load.wait)?;
            run_loops(&session, &target.server(&session), &load, &mut report)?;
        }
        Command::Compare { bare, target, load } => {
            ensure!(
                !load.open_only,
                "the comparison is with the closed loop: leave --open-only out"
            );
            let session = target.open(load.connections, load.wait)?;
            let bare = run_bare(&bare, session.key_type)?;
            run_loops(&session, &target.server(&session), &load, &mut report)?;
            report.comparison = report.runs.first().map(|run| Comparison::of(&bare, run));
            report.bare.push(bare);
        }
        Command::Replay {
            incident: replay::Incident::Atlas(options),
        } => return Ok(ExitCode::from(u8::from(!replay::run(&options)?))),
        Command::Isolation { options } => return Ok(ExitCode::from(u8::from(!replay::isolate(&options)?))),
        Command::Grown { deployed, load } => grown::run(&deployed, &load, &mut report)?,
        Command::Fill {
            count,
            target,
            connections,
        } => {
            let session = target.open(connections, 10)?;
            fill(&session, &target.server(&session), count, connections, &mut report)?;
        }
    }
    match cli.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    // Partly done: some requests brought no certificate.
    Ok(ExitCode::from(if report.errors() > 0 { 3 } else { 0 }))
}

impl Target {
    fn open(&self, connections: usize, wait: u32) -> Result<Session> {
        ensure!(
            connections > 0 && self.threads > 0,
            "at least one connection and one thread are needed"
        );
        Session::open(&self.context, &[], self.account.as_deref(), self.threads, wait)
    }

    fn server(&self, session: &Session) -> Watched {
        let found = self.pid.or_else(|| cpu::listener(session.port()));
        if found.is_none() {
            eprintln!(
                "no process listens on port {} here: give --pid for the server's CPU time",
                session.port()
            );
        }
        Watched(found.map(|pid| ("server".to_owned(), pid)).into_iter().collect())
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn progress(what: &'static str, count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count as u64).with_style(style).with_message(what)
}

/// Requests for distinct keys, made on all processors.
fn requests(key_type: KeyType, count: usize) -> Result<Vec<subject::Csr>> {
    let bar = progress("preparing requests", count);
    let made = subject::requests(key_type, count, processors(), &|| bar.inc(1));
    bar.finish_and_clear();
    made
}

fn run_bare(options: &BareOptions, key_type: KeyType) -> Result<BareRow> {
    let threads = options.bare_threads.unwrap_or_else(processors).max(1);
    let requests = requests(key_type, if key_type.is_rsa() { 2_000 } else { 10_000 })?;
    bare::run(
        key_type,
        &requests,
        threads,
        Duration::from_secs(options.bare_seconds.max(1)),
    )
}

fn run_loops(session: &Session, server: &Watched, load: &Load, report: &mut Report) -> Result<()> {
    ensure!(load.count > 0, "--count must be at least 1");
    for rate in &load.rates {
        ensure!(rate.is_finite() && *rate > 0.0, "--rate must be more than 0");
    }
    let bodies: Arc<[Bytes]> = requests(session.key_type, load.count + load.warm_up)?
        .iter()
        .map(|csr| session.body(csr))
        .collect();
    let plan = |range: std::ops::Range<usize>, pace| Plan {
        bodies: bodies.clone(),
        range,
        connections: load.connections,
        pace,
    };
    if load.warm_up > 0 {
        let warmed = session.block_on(drive::run(
            session,
            plan(0..load.warm_up, Pace::Closed),
            server,
            &ProgressBar::hidden(),
        ))?;
        if warmed.issued == 0 {
            bail!(
                "no certificate came of the first {} requests: {:?}",
                load.warm_up,
                warmed.errors
            );
        }
    }
    let measured = load.warm_up..load.warm_up + load.count;
    let closed = (!load.open_only).then_some(Pace::Closed);
    let mut curves = Vec::new();
    for pace in closed
        .into_iter()
        .chain(load.rates.iter().map(|&rate| Pace::Open { per_second: rate }))
    {
        let bar = progress("requesting", load.count);
        let outcome = session.block_on(drive::run(session, plan(measured.clone(), pace), server, &bar))?;
        bar.finish_and_clear();
        session.verify(&outcome.samples, &bodies)?;
        let row = RunRow::of(session, load.connections, pace, &outcome);
        curves.push((row.pace.clone(), outcome.latency));
        report.runs.push(row);
    }
    if let Some(path) = &load.plot {
        let title = format!("{}, {} connections", session.account, load.connections);
        std::fs::write(path, report::plot(&title, &curves))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// How many distinct keys a fill uses, again and again: a key whose certificate is issued may be certified anew.
const FILL_KEYS: usize = 10_000;

fn fill(session: &Session, server: &Watched, count: usize, connections: usize, report: &mut Report) -> Result<()> {
    let made = requests(session.key_type, FILL_KEYS.min(count.max(1)))?;
    let bar = progress("issuing", count);
    let mut total: Option<Outcome> = None;
    let mut left = count;
    while left > 0 {
        let round = left.min(made.len());
        // Made anew in each round: notBefore moves on.
        let plan = Plan {
            bodies: made[..round].iter().map(|csr| session.body(csr)).collect(),
            range: 0..round,
            connections,
            pace: Pace::Closed,
        };
        let outcome = session.block_on(drive::run(session, plan, server, &bar))?;
        ensure!(
            outcome.issued > 0,
            "no certificate came of {round} requests: {:?}",
            outcome.errors
        );
        left -= outcome.issued.min(left);
        match &mut total {
            Some(total) => total.add(outcome)?,
            none => *none = Some(outcome),
        }
    }
    bar.finish_and_clear();
    report
        .runs
        .extend(total.map(|outcome| RunRow::of(session, connections, Pace::Closed, &outcome)));
    Ok(())
}
