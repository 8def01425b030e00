//! Bulkhead as the replay drives it: real processes, nine issuers on tokens, an account for those who wait and one for OCSP signers of each.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use domain::{
    issuer::{Api, Profile},
    job::State,
    key::KeyType,
    lane::Class,
};
use hsm_faults::SoftHsm;
use runtime::context_file::{AccountEntry, ContextFile};
use tests::{Deployment, Root};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wire::{
    admin::{AddAccount, Because, GenerateKey, LaneDocument, MakeCsr, Past, PutProfile, RegisterIssuer},
    client::{AdminClient, TlsFiles},
};

use super::{
    Glance, HEALTHY, ISSUERS, RENEWAL_WAIT,
    asking::{Asker, Requested, Seen},
    hardware::{self, TOKENS},
};
use crate::client::{Access, Connection, Endpoint};

/// How an issuer is ended in the registry.
const WORD_OF_THE_END: &str = "disable";
/// How long those who wait for their certificate are kept waiting at most, in seconds.
pub const INTERACTIVE_WAIT: u32 = 6;
const REASON: &str = "replay";

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
    deployment: Deployment,
    admin: AdminClient,
    /// By issuer: an account for those who wait, healthy issuers only.
    interactive: Vec<Access>,
    /// By issuer: an account for OCSP signers.
    renewal: Vec<Access>,
}

/// The name of an issuer, and of its key.
pub fn issuer(number: usize) -> String {
    if number < HEALTHY {
        format!("healthy-{}", number + 1)
    } else {
        format!("retired-{}", number + 1 - HEALTHY)
    }
}

impl Bulkhead {
    /// Starts everything in one process.
    pub async fn embedded() -> Result<Self> {
        let hsm = SoftHsm::new(&TOKENS);
        let config = hsm.path("bulkhead.toml");
        fs::write(&config, hardware::configuration(&hsm, &SoftHsm::module(), &TOKENS))?;
        let config = config.to_str().context("a path that is no text")?.to_owned();
        let mut deployment = Deployment::new(&["--config", &config])?.with_environment(hsm.environment());
        let deployment = tokio::task::spawn_blocking(move || deployment.start().map(|()| deployment)).await??;
        let context = ContextFile::load(&deployment.data().join("context.json"))?;
        let admin = operator(&context)?;
        let urls = vec![context.url.clone().context("the context file has no `url`")?];
        let accounts = make_issuers(&admin, &context).await?;
        let (mut interactive, mut renewal) = (Vec::new(), Vec::new());
        for (account, wait) in &accounts {
            let access = Access::open(&context, &urls, account, *wait).await?;
            if *wait == INTERACTIVE_WAIT {
                interactive.push(access);
            } else {
                renewal.push(access);
            }
        }
        Ok(Self {
            hsm,
            deployment,
            admin,
            interactive,
            renewal,
        })
    }

    /// Where those who wait ask, one after the other.
    pub fn interactive(&self, number: usize) -> Arc<Endpoint> {
        self.interactive[number % HEALTHY].endpoint(number / HEALTHY)
    }

    /// Where an OCSP signer of this issuer asks.
    pub fn renewal(&self, issuer: usize, number: usize) -> Arc<Endpoint> {
        self.renewal[issuer].endpoint(number)
    }

    /// What requests look like.
    pub fn access(&self) -> &Access {
        &self.interactive[0]
    }

    /// The registry is told that the issuers whose keys are gone are gone.
    pub async fn tell_registry(&self) -> Result<()> {
        for number in HEALTHY..ISSUERS {
            let id = issuer(number).parse()?;
            let because = Because {
                reason: "its key was destroyed in a ceremony".into(),
            };
            let told = self.admin.disable_issuer(&id, &because).await;
            told.with_context(|| format!("{WORD_OF_THE_END} {id}"))?;
        }
        Ok(())
    }

    /// How it is now: open jobs, and signers that begin none.
    pub async fn glance(&self) -> Result<Glance> {
        let lanes: Vec<LaneDocument> = self.admin.lanes().await?;
        let depth = lanes.iter().map(|lane| lane.queued + lane.signing).sum();
        let url = self.deployment.ready()["metrics_url"]
            .as_str()
            .context("no metrics_url")?;
        let beginning = gauge(url, "bulkhead_signer_beginning").await?;
        Ok(Glance {
            depth,
            backing_off: u64::from(beginning == 0.0),
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

    /// What the program said, for whoever wants to know why.
    pub fn log(&self) -> String {
        self.deployment.log()
    }

    /// Stops everything. The tokens stay.
    pub async fn stop(self) -> Result<SoftHsm> {
        let mut deployment = self.deployment;
        tokio::task::spawn_blocking(move || deployment.stop()).await??;
        Ok(self.hsm)
    }
}

/// The first operator's way to the installation.
fn operator(context: &ContextFile) -> Result<AdminClient> {
    let operator = context
        .operators
        .first()
        .context("the context file names no operator")?;
    let files = TlsFiles {
        ca: &context.tls_ca_file,
        certificate: &operator.cert_file,
        key: &operator.key_file,
    };
    let url = context
        .admin_url
        .as_deref()
        .context("the context file has no `admin_url`")?;
    Ok(AdminClient::new(url, &files)?)
}

/// Makes the nine issuers, their keys on the tokens, and their accounts, each with how long its clients wait. Limits are the shipped ones.
async fn make_issuers(admin: &AdminClient, context: &ContextFile) -> Result<Vec<(AccountEntry, u32)>> {
    let root = Root::new("Root of the replay")?;
    let demo: Profile = admin.profile(&"demo-p256".parse()?).await?;
    let certificate = fs::read_to_string(&context.client_cert_file)?;
    for (id, class) in [
        ("replay-interactive", Class::Interactive),
        ("replay-renewal", Class::Renewal),
    ] {
        let profile = Profile {
            id: id.parse()?,
            version: 1,
            class,
            ..demo.clone()
        };
        let put = PutProfile {
            profile: Box::new(profile),
            dry_run: false,
            reason: REASON.into(),
        };
        admin.put_profile(&put).await?;
    }
    let mut accounts = Vec::new();
    for number in 0..ISSUERS {
        let (name, token) = (issuer(number), TOKENS[number % TOKENS.len()].parse()?);
        make_issuer(admin, &root, &name, token).await?;
        let mut add = vec![("replay-renewal", RENEWAL_WAIT)];
        if number < HEALTHY {
            add.push(("replay-interactive", INTERACTIVE_WAIT));
        }
        for (profile, wait) in add {
            let request = AddAccount {
                id: format!("{name}-{profile}").parse()?,
                issuer: name.parse()?,
                profile: profile.parse()?,
                client_certificates: vec![certificate.clone()],
                issuance_quota: 10_000_000,
                requests_per_second: 2_000,
                jobs_in_flight: 1_000_000,
                reason: REASON.into(),
            };
            let made = admin.add_account(&request).await?;
            let entry = AccountEntry {
                name: made.account.id.to_string(),
                api: Api::Hvca,
                api_key: made.account.api_key,
                api_secret: made.api_secret,
                issuer: name.clone(),
                profile: profile.to_owned(),
            };
            accounts.push((entry, wait));
        }
    }
    Ok(accounts)
}

async fn make_issuer(admin: &AdminClient, root: &Root, name: &str, token: domain::id::TokenId) -> Result<()> {
    let generate = GenerateKey {
        token: token.clone(),
        key: name.to_owned(),
        key_type: KeyType::P256,
        reason: REASON.into(),
    };
    let report = admin.generate_key(&generate).await?;
    ensure!(report.fit_for_real_ca, "{name}'s key is not on hardware");
    let request = MakeCsr {
        token: token.clone(),
        key: name.to_owned(),
        subject: format!("O=Replay,CN={name}"),
    };
    let request = admin.make_csr(&request).await?;
    let register = RegisterIssuer {
        id: name.parse()?,
        chain: root.chain(&request.csr)?,
        token,
        key: name.to_owned(),
        private_key: None,
        past: Past::None,
        public_url: None,
        crl_shards: 16,
        profile: None,
        dry_run: false,
        reason: REASON.into(),
    };
    admin.register_issuer(&register).await?;
    Ok(())
}

/// The value of a series of a process without labels.
async fn gauge(url: &str, series: &str) -> Result<f64> {
    let rest = url
        .strip_prefix("http://")
        .context("metrics are not served over http")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    let fetch = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    let text = tokio::time::timeout(Duration::from_secs(2), fetch).await??;
    let line = text.lines().find(|line| line.split(' ').next() == Some(series));
    let value = line.and_then(|line| line.rsplit(' ').next());
    Ok(value.with_context(|| format!("no series {series}"))?.parse()?)
}
