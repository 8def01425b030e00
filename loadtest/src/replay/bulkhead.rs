//! Bulkhead as a replay drives it: real processes, issuers on tokens, clients over HTTPS, and an operator.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use domain::job::State;
use hsm_faults::{Faults, SoftHsm};
use wire::{client::AdminClient, operate::MarkDestroyed};

use super::{
    Engine, Glance,
    asking::{Asker, Requested, Seen},
    hardware::TOKENS,
    installation::{Installation, SIGNERS},
    registry::{self, Ask},
};
use crate::client::{Access, Connection, Endpoint};

/// Who is there: issuers, the first of which stay healthy, and accounts, the first of which are those of their waiting clients.
pub struct Layout {
    /// Names, and each one's token.
    pub issuers: Vec<(String, &'static str)>,
    pub healthy: usize,
    pub asks: Vec<Ask>,
    /// Whether tokens are used through the module that fails on demand.
    pub fail_on_demand: bool,
}

/// A client over HTTPS.
pub struct Http {
    endpoint: Arc<Endpoint>,
    connection: Option<Connection>,
}

impl Http {
    pub const fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            connection: None,
        }
    }

    /// Connects beforehand.
    pub async fn connected(endpoint: Arc<Endpoint>) -> Result<Self> {
        let connection = Some(Connection::open(endpoint.clone()).await?);
        Ok(Self { endpoint, connection })
    }
}

impl Asker for Http {
    async fn ask(&mut self, request: &Requested) -> Seen {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Connection::open(self.endpoint.clone()).await {
                Ok(connection) => connection,
                Err(error) => return Seen::Nothing(format!("({})", error.root_cause())),
            },
        };
        match connection.issue(request.body.clone()).await {
            Ok(answer) => {
                self.connection = Some(connection);
                let reason = answer.reason();
                match answer.serial {
                    Some(serial) if answer.ready => Seen::Issued {
                        serial,
                        body: answer.body,
                    },
                    Some(serial) => Seen::Accepted(serial),
                    None => Seen::Nothing(reason),
                }
            }
            Err(error) => Seen::Nothing(format!("({})", error.root_cause())),
        }
    }
}

/// The installation.
pub struct Bulkhead {
    /// Its tokens.
    pub hsm: SoftHsm,
    /// What makes each signer's tokens fail, if they do so on demand.
    pub faults: Vec<Faults>,
    /// Its processes.
    pub installation: Installation,
    admin: AdminClient,
    healthy: usize,
    accounts: Vec<Access>,
}

impl Bulkhead {
    /// Starts everything.
    pub async fn start(engine: Engine, layout: Layout) -> Result<Self> {
        let hsm = SoftHsm::new(&TOKENS);
        let mut faults = Vec::new();
        if layout.fail_on_demand {
            // One for each signer, and one for control where that is a process of its own.
            for number in 0..=SIGNERS {
                let directory = hsm.path(&format!("faults-{number}"));
                fs::create_dir(&directory)?;
                faults.push(Faults::new(&directory));
            }
        }
        let installation = Installation::start(engine, &hsm, &TOKENS, &faults).await?;
        let context = installation.context()?;
        let admin = registry::operator(&context)?;
        let entries = registry::make(&admin, &context, &layout.issuers, &layout.asks).await?;
        let urls = installation.urls()?;
        let mut accounts = Vec::new();
        for (entry, ask) in entries.iter().zip(&layout.asks) {
            accounts.push(patiently(|| Access::open(&context, &urls, entry, ask.wait)).await?);
        }
        Ok(Self {
            hsm,
            faults,
            installation,
            admin,
            healthy: layout.healthy,
            accounts,
        })
    }

    /// Where those who wait for healthy issuers ask, one after the other.
    pub fn interactive(&self, number: usize) -> Arc<Endpoint> {
        self.account(number % self.healthy, number / self.healthy)
    }

    /// Where the clients of an account ask, spread over the front ends.
    pub fn account(&self, account: usize, number: usize) -> Arc<Endpoint> {
        self.accounts[account].endpoint(number)
    }

    /// What requests look like.
    pub fn access(&self) -> &Access {
        &self.accounts[0]
    }

    /// The registry is told that an issuer's key is gone for ever.
    pub async fn end_issuer(&self, issuer: &str, reason: &str) -> Result<()> {
        let request = MarkDestroyed {
            dry_run: false,
            expect_count: None,
            reason: reason.into(),
        };
        let marked = self.admin.mark_issuer_destroyed(&issuer.parse()?, &request).await;
        marked
            .with_context(|| format!("marking {issuer} as destroyed"))
            .map(drop)
    }

    /// How it is now: open jobs, and signers that begin none.
    pub async fn glance(&self) -> Result<Glance> {
        let lanes = self.admin.lanes().await?;
        Ok(Glance {
            depth: lanes.iter().map(|lane| lane.queued + lane.signing).sum(),
            backing_off: self.installation.backing_off().await?,
        })
    }

    /// What became of a job; `None` of one that the ledger does not know.
    pub async fn state(&self, serial: &str) -> Result<Option<State>> {
        match self.admin.job(serial.parse()?).await {
            Ok(detail) => Ok(Some(detail.job.state)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("job {serial}")),
        }
    }

    /// Stops everything. The tokens stay.
    pub fn stop(self) -> Result<SoftHsm> {
        tokio::task::block_in_place(|| self.installation.stop())?;
        Ok(self.hsm)
    }
}

/// Tries until it works: front ends hear of a new account a moment later than the operator who made it.
async fn patiently<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt().await {
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(100)).await,
            done => return done,
        }
    }
}
