//! Bulkhead's processes, on either engine, with tokens of SoftHSM.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use engines::postgres::PASSWORD;
use hsm_faults::{Faults, SoftHsm};
use runtime::context_file::ContextFile;
use tests::{Deployment, Grown};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Engine, hardware};

/// Processes where there are many.
const FRONTENDS: usize = 2;
pub const SIGNERS: usize = 3;
/// The database's user of the front ends.
const READER: &str = "frontend";

/// The processes.
pub enum Installation {
    /// Everything in one.
    One(Deployment),
    /// Many, over PostgreSQL and RabbitMQ.
    Many(Box<Grown>),
}

impl Installation {
    /// Starts them with these tokens. Where there are `faults`, each signer has its own, and its tokens are used through the module that
    /// fails on demand.
    pub async fn start(engine: Engine, hsm: &SoftHsm, labels: &[&str], faults: &[Faults]) -> Result<Self> {
        let module = if faults.is_empty() {
            SoftHsm::module()
        } else {
            Faults::module()
        };
        let tokens = hardware::configuration(hsm, &module, labels);
        match engine {
            Engine::Embedded => Self::one(hsm, &tokens, faults.first()),
            Engine::Rabbitmq => Self::many(hsm, &tokens, faults).await,
        }
    }

    fn one(hsm: &SoftHsm, tokens: &str, faults: Option<&Faults>) -> Result<Self> {
        let config = hsm.path("bulkhead.toml");
        fs::write(&config, tokens)?;
        let config = config.to_str().context("a path that is no text")?.to_owned();
        let mut deployment = Deployment::new(&["--config", &config])?.with_environment(hsm.environment());
        if let Some(faults) = faults {
            deployment = deployment.with_environment(faults.environment());
        }
        tokio::task::block_in_place(|| deployment.start())?;
        Ok(Self::One(deployment))
    }

    async fn many(hsm: &SoftHsm, tokens: &str, faults: &[Faults]) -> Result<Self> {
        let mut grown = Grown::new(FRONTENDS, SIGNERS).await?;
        // Members of the owner may do what it may, as far as no policy of a table says otherwise.
        let user = format!(
            "CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'; GRANT {} TO {READER}",
            engines::postgres::USER
        );
        grown.postgres.psql(Grown::DATABASE, &user)?;
        let nodes = grown.nodes()?;
        let (frontends, signers): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.starts_with("frontend"));
        for node in frontends {
            let database = format!("database = \"{}\"\n", Grown::DATABASE);
            grown.replace(node, &database, &format!("{database}user = \"{READER}\"\n"))?;
        }
        for (position, node) in signers.into_iter().chain([&"control-1".to_owned()]).enumerate() {
            grown.append(node, tokens)?;
            grown.set_environment(node, hsm.environment());
            if let Some(faults) = faults.get(position) {
                grown.set_environment(node, faults.environment());
            }
        }
        let grown = tokio::task::block_in_place(|| grown.set_up())?;
        Ok(Self::Many(Box::new(grown)))
    }

    /// The operators' context file.
    pub fn context(&self) -> Result<ContextFile> {
        let path: PathBuf = match self {
            Self::One(deployment) => deployment.data().join("context.json"),
            Self::Many(grown) => grown.context(),
        };
        Ok(ContextFile::load(&path)?)
    }

    /// The front ends.
    pub fn urls(&self) -> Result<Vec<String>> {
        self.each("frontend", "url")
    }

    /// Something of the ready-file of each process of a role.
    fn each(&self, role: &str, key: &str) -> Result<Vec<String>> {
        let ready = match self {
            Self::One(deployment) => vec![deployment.ready().clone()],
            Self::Many(grown) => {
                let nodes = grown.nodes()?.into_iter().filter(|node| node.starts_with(role));
                nodes.map(|node| grown.ready(&node)).collect::<Result<_>>()?
            }
        };
        ready
            .iter()
            .map(|ready| {
                let found = ready[key].as_str().map(str::to_owned);
                found.with_context(|| format!("the ready-file has no {key}"))
            })
            .collect()
    }

    /// How many signers begin no jobs.
    pub async fn backing_off(&self) -> Result<u64> {
        let mut count = 0;
        for url in self.each("signer", "metrics_url")? {
            count += u64::from(gauge(&url, "bulkhead_signer_beginning").await? == 0.0);
        }
        Ok(count)
    }

    /// Whether front ends can be cut off from the registry.
    pub const fn can_be_deaf(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    /// From now on the front ends hear nothing of the registry: what is appended to its chain is not there for them. In one process
    /// nothing can be between its parts.
    pub fn cut_news(&self) -> Result<()> {
        let Self::Many(grown) = self else { return Ok(()) };
        let head = grown
            .postgres
            .psql(Grown::DATABASE, "SELECT max(number) FROM revision")?;
        let cut = format!(
            "BEGIN; CREATE POLICY deaf ON revision USING (current_user <> '{READER}' OR number <= {head}) WITH CHECK (true); \
             ALTER TABLE revision ENABLE ROW LEVEL SECURITY; ALTER TABLE revision FORCE ROW LEVEL SECURITY; COMMIT"
        );
        grown.postgres.psql(Grown::DATABASE, &cut).map(drop)
    }

    /// They hear of it again. It is an error if they have heard of it before.
    pub async fn mend_news(&self) -> Result<()> {
        let Self::Many(grown) = self else { return Ok(()) };
        let psql = |statements: &str| tokio::task::block_in_place(|| grown.postgres.psql(Grown::DATABASE, statements));
        let head: f64 = psql("SELECT max(number) FROM revision")?.parse()?;
        for url in self.each("frontend", "metrics_url")? {
            let applied = gauge(&url, "bulkhead_registry_revision").await?;
            ensure!(
                applied < head,
                "{url}: the front end has heard of revision {head}, from which it was cut off"
            );
        }
        psql(
            "BEGIN; ALTER TABLE revision NO FORCE ROW LEVEL SECURITY; ALTER TABLE revision DISABLE ROW LEVEL SECURITY; \
             DROP POLICY deaf ON revision; COMMIT",
        )
        .map(drop)
    }

    /// What each process has said.
    pub fn logs(&self) -> Result<Vec<(String, String)>> {
        Ok(match self {
            Self::One(deployment) => vec![("bulkhead".to_owned(), deployment.log())],
            Self::Many(grown) => {
                let nodes = grown.nodes()?.into_iter().chain(["control-1".to_owned()]);
                nodes.map(|node| (node.clone(), grown.log(&node))).collect()
            }
        })
    }

    /// Keeps what each process has said, for whoever wants to know why.
    pub fn keep_logs(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        for (node, log) in self.logs()? {
            fs::write(directory.join(format!("{node}.log")), log)?;
        }
        Ok(())
    }

    /// Stops everything.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::One(mut deployment) => deployment.stop(),
            Self::Many(mut grown) => grown.stop_all(),
        }
    }
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
