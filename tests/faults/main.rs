//! What is done to a grown-up deployment, for real, and what its clients notice: nothing lost, nothing twice.

mod broker;
mod forged;
mod intruder;
mod points;
mod processes;
mod store;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    Client, Grown,
    load::{Load, Report, Tally},
};

/// How long any job may take after its fault is over.
const PATIENCE: Duration = Duration::from_mins(1);
/// Clients that ask meanwhile.
const CLIENTS: usize = 6;

/// A deployment, its clients, and what became of it so far.
struct Bench {
    grown: Grown,
    at: Vec<Client>,
    report: Report,
    /// Serials of the accepted jobs.
    accepted: BTreeSet<String>,
}

impl Bench {
    async fn start(grown: Grown) -> Result<Self> {
        let frontends: Vec<String> = grown
            .nodes()?
            .into_iter()
            .filter(|node| node.starts_with("frontend"))
            .collect();
        let mut at = Vec::new();
        for frontend in frontends {
            let mut client = grown.client(&frontend, 0)?;
            client.login().await?;
            at.push(client);
        }
        Ok(Self {
            grown,
            at,
            report: Report::default(),
            accepted: BTreeSet::new(),
        })
    }

    fn load(&self, fault: &str) -> Load {
        let name: String = fault
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        Load::start(&self.at, CLIENTS, name[..20].trim_matches('-'))
    }

    /// Every accepted job has its certificate; one line of the table.
    async fn conclude(&mut self, fault: &str, tally: &Tally, during: Option<(Instant, Instant)>) -> Result<()> {
        let certificates = tally.verify(&self.at[0], PATIENCE).await;
        let certificates = certificates.with_context(|| fault.to_owned()).inspect_err(say)?;
        let gaps = during.map(|(from, to)| tally.gaps(from, to));
        self.report.row(fault, tally, certificates, gaps);
        self.accepted.extend(tally.accepted.keys().cloned());
        Ok(())
    }

    /// How many jobs were accepted so far.
    fn jobs(&self) -> u64 {
        self.accepted.len() as u64
    }

    /// How many certificates the account has, as one of the front ends says.
    async fn issued(&self, at: usize) -> Result<u64> {
        let answer = self.at[at].get("/counters/certificates/issued").await?;
        answer.body["value"]
            .as_u64()
            .with_context(|| format!("no counter: {answer:?}"))
    }

    /// Stops both signers (SIGSTOP), or lets them go on: what is accepted meanwhile waits.
    fn hold_signers(&self, hold: bool) -> Result<()> {
        let signal = if hold { "STOP" } else { "CONT" };
        for signer in ["signer-1", "signer-2"] {
            let id = self
                .grown
                .id(signer)
                .with_context(|| format!("{signer} does not run"))?;
            tests::signal(id, signal)?;
        }
        Ok(())
    }

    /// Nothing was issued that nobody asked for. Prints the table and stops everything.
    async fn end(mut self) -> Result<()> {
        self.report.print();
        self.compare().await.inspect_err(say)?;
        self.grown.stop_all().inspect_err(say)
    }

    /// What is issued is what was accepted: by the counter, and by the ledger itself.
    async fn compare(&self) -> Result<()> {
        let counted = self.issued(0).await?;
        let listed = "SELECT upper(encode(job, 'hex')) FROM result WHERE state = 'issued' AND account = 'demo-p256'";
        let listed = self.grown.postgres.psql(Grown::DATABASE, listed)?;
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        let unknown: Vec<&String> = listed.difference(&self.accepted).collect();
        let jobs = self.jobs();
        ensure!(
            unknown.is_empty() && listed.len() as u64 == jobs && counted == jobs,
            "{counted} certificates were counted and {} recorded for {jobs} jobs; nobody was told of {unknown:?}",
            listed.len(),
        );
        Ok(())
    }
}

/// What went wrong, before the logs of all processes follow.
fn say(error: &anyhow::Error) {
    eprintln!("{error:#}");
}

/// Waits until the load has run for this long.
async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
