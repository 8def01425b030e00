//! What is done to a grown-up deployment, for real, and what its clients notice: nothing lost, nothing twice.

mod broker;
mod forged;
mod intruder;
mod points;
mod processes;
mod store;

use std::time::{Duration, Instant};

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
    accepted: u64,
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
            accepted: 0,
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
        let certificates = tally
            .verify(&self.at[0], PATIENCE)
            .await
            .with_context(|| fault.to_owned())?;
        let gaps = during.map(|(from, to)| tally.gaps(from, to));
        self.report.row(fault, tally, certificates, gaps);
        self.accepted += u64::try_from(certificates)?;
        Ok(())
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
        let issued = self.issued(0).await?;
        ensure!(
            issued == self.accepted,
            "{issued} certificates were issued for {} jobs",
            self.accepted
        );
        self.grown.stop_all()
    }
}

/// Waits until the load has run for this long.
async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
