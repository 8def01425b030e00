//! The grown-up deployment: real processes over a private PostgreSQL and a private RabbitMQ, set up by the commands that operators use.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use engines::{
    Postgres,
    chaos_proxy::ChaosProxy,
    rabbitmq::{RabbitMq, Setup},
};
use serde_json::Value;

use crate::{Client, Deployment, terminate};

/// How long a process may take to become ready, or to stop.
const PATIENCE: Duration = Duration::from_mins(2);
/// The database of the installation.
const DATABASE: &str = "installation";

/// One control process, and as many front ends and signers as were asked for. Dropping it kills all of them.
#[derive(Debug)]
pub struct Grown {
    /// The ledger's server.
    pub postgres: Postgres,
    /// The broker.
    pub rabbitmq: RabbitMq,
    /// The links of each front end and signer, where the deployment was made with links of their own.
    pub links: BTreeMap<String, Links>,
    place: tempfile::TempDir,
    running: BTreeMap<String, Child>,
    /// What is in the environment of each process besides the usual.
    environment: BTreeMap<String, Vec<(String, PathBuf)>>,
    /// Whether all went as it should: then nobody wants to read logs.
    is_well: bool,
}

/// What stands between a process and the engines.
#[derive(Debug)]
pub struct Links {
    /// Towards PostgreSQL.
    pub store: ChaosProxy,
    /// Towards RabbitMQ.
    pub broker: ChaosProxy,
}

impl Grown {
    /// The ledger, as its server knows it.
    pub const DATABASE: &str = DATABASE;

    /// Engines are started and every process is configured; none runs yet.
    pub async fn new(frontends: usize, signers: usize) -> Result<Self> {
        Self::make(frontends, signers, false, Setup::default()).await
    }

    /// The same, with a broker that is set up like this.
    pub async fn with_broker(frontends: usize, signers: usize, broker: Setup) -> Result<Self> {
        Self::make(frontends, signers, false, broker).await
    }

    async fn make(frontends: usize, signers: usize, linked: bool, broker: Setup) -> Result<Self> {
        let postgres = Postgres::start()?;
        postgres.create_database(DATABASE)?;
        let rabbitmq = RabbitMq::start_with(broker).await?;
        let place = tempfile::tempdir()?;
        let mut grown = Self {
            postgres,
            rabbitmq,
            links: BTreeMap::new(),
            place,
            running: BTreeMap::new(),
            environment: BTreeMap::new(),
            is_well: false,
        };
        let password = grown.path("amqp-password");
        fs::write(&password, "guest")?;
        fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        grown.configure("control-1", "control")?;
        for (role, count) in [("frontend", frontends), ("signer", signers)] {
            for number in 1..=count {
                let node = format!("{role}-{number}");
                if linked {
                    let links = Links {
                        store: ChaosProxy::start(([127, 0, 0, 1], grown.postgres.port()).into()).await?,
                        broker: ChaosProxy::start(grown.rabbitmq.address()).await?,
                    };
                    grown.links.insert(node.clone(), links);
                }
                grown.configure(&node, role)?;
            }
        }
        Ok(grown)
    }

    /// The same, set up: control has made the installation with the demo hierarchy, every other process is enrolled, and all of them run.
    pub async fn started(frontends: usize, signers: usize) -> Result<Self> {
        Self::new(frontends, signers).await?.set_up()
    }

    /// The same, and a link of its own from every front end and signer to each engine, which can be cut and delayed.
    pub async fn linked(frontends: usize, signers: usize) -> Result<Self> {
        Self::make(frontends, signers, true, Setup::default()).await?.set_up()
    }

    /// Adds lines to the configuration of a process, at its end: it reads them when it starts.
    pub fn append(&self, node: &str, lines: &str) -> Result<()> {
        let mut file = fs::File::options()
            .append(true)
            .open(self.path(&format!("{node}.toml")))?;
        Ok(writeln!(file, "{lines}")?)
    }

    /// Puts something else into the configuration of a process, which has it once.
    pub fn replace(&self, node: &str, what: &str, by: &str) -> Result<()> {
        let file = self.path(&format!("{node}.toml"));
        let text = fs::read_to_string(&file)?;
        ensure!(text.matches(what).count() == 1, "{node} does not have `{what}` once");
        Ok(fs::write(&file, text.replace(what, by))?)
    }

    /// Puts something into the environment of a process, from its next start on.
    pub fn set_environment(&mut self, node: &str, (name, value): (&str, PathBuf)) {
        let environment = self.environment.entry(node.to_owned()).or_default();
        environment.push((name.to_owned(), value));
    }

    /// Has control make the installation with the demo hierarchy, enrols every other process and starts all of them.
    pub fn set_up(self) -> Result<Self> {
        let mut grown = self;
        grown.start("control-1")?;
        grown.wait("control-1")?;
        for node in grown.nodes()? {
            grown.enrol(&node)?;
            grown.start(&node)?;
        }
        for node in grown.nodes()? {
            grown.wait(&node)?;
        }
        Ok(grown)
    }

    /// The front ends and signers that are configured, front ends first.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.place.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(node) = name.strip_suffix(".toml").filter(|node| *node != "control-1") {
                names.push(node.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes the configuration of a process: what an operator would write, with free ports.
    fn configure(&self, node: &str, role: &str) -> Result<()> {
        let (data, keys) = (self.path(node), self.path("keys"));
        let urls = if role == "control" {
            String::new()
        } else {
            // The port that control took at its first start is kept by it; until then there is nobody to enrol.
            "control_urls = [\"https://127.0.0.1:CONTROL\"]".into()
        };
        let token = if role == "frontend" {
            String::new()
        } else {
            format!(
                "[[token]]\nname = \"soft\"\nkind = \"soft\"\ndirectory = \"{0}/soft\"\npassphrase_file = \"{0}/passphrase\"\n",
                keys.display()
            )
        };
        let (store, broker) = match self.links.get(node) {
            Some(links) => (links.store.address().port(), links.broker.address()),
            None => (self.postgres.port(), self.rabbitmq.address()),
        };
        let text = format!(
            "[node]\nrole = \"{role}\"\nid = \"{node}\"\n{urls}\n\
             [place]\ndata_dir = \"{data}\"\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
             [store]\nengine = \"postgres\"\n[store.postgres]\nport = {store}\ndatabase = \"{DATABASE}\"\npassword_file = \"{password}\"\n\
             [broker]\nengine = \"amqp\"\n[broker.amqp]\naddresses = [\"{broker}\"]\nuser = \"guest\"\npassword_file = \"{amqp_password}\"\n{token}",
            data = data.display(),
            password = self.postgres.password_file().display(),
            amqp_password = self.path("amqp-password").display(),
        );
        fs::create_dir_all(&keys)?;
        fs::write(self.path(&format!("{node}.toml")), text)?;
        Ok(())
    }

    /// Invites and enrols a node, with the two commands that operators type.
    pub fn enrol(&self, node: &str) -> Result<()> {
        let (role, _) = node.split_once('-').context("a node is called ROLE-NUMBER")?;
        let config = self.path(&format!("{node}.toml"));
        let admin = self.control()?["admin_url"]
            .as_str()
            .context("no admin_url")?
            .to_owned();
        let text = fs::read_to_string(&config)?.replace("https://127.0.0.1:CONTROL", &admin);
        fs::write(&config, text)?;
        let code = self.bulkhead(&["node", "invite", "--role", role, "--id", node, "--reason", "test"])?;
        let file = self.path(&format!("{node}.code"));
        fs::write(&file, code)?;
        let (config, file) = (config.display().to_string(), file.display().to_string());
        self.bulkhead(&["node", "enrol", "--config", &config, "--code-file", &file])?;
        Ok(())
    }

    /// Starts a process and does not wait for it.
    pub fn start(&mut self, node: &str) -> Result<()> {
        ensure!(!self.running.contains_key(node), "{node} runs already");
        let (role, _) = node.split_once('-').context("a node is called ROLE-NUMBER")?;
        let ready = self.path(&format!("{node}.ready"));
        let _ = fs::remove_file(&ready);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{node}.log")))?;
        let mut command = Command::new(Deployment::program()?);
        command
            .arg(role)
            .arg("--config")
            .arg(self.path(&format!("{node}.toml")))
            .arg("--ready-file")
            .arg(&ready)
            .envs(self.environment.get(node).cloned().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if role == "control" {
            command.arg("--demo");
        }
        self.running.insert(node.to_owned(), command.spawn()?);
        Ok(())
    }

    /// Waits until a process says that it is ready.
    pub fn wait(&mut self, node: &str) -> Result<()> {
        let ready = self.path(&format!("{node}.ready"));
        let begun = Instant::now();
        while !ready.exists() {
            let child = self
                .running
                .get_mut(node)
                .with_context(|| format!("{node} was not started"))?;
            if let Some(status) = child.try_wait()? {
                self.running.remove(node);
                bail!("{node} ended with {status}:\n{}", self.log(node));
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{node} is not ready after {PATIENCE:?}:\n{}",
                self.log(node)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGTERM, and demands exit code 0 in time.
    pub fn stop(&mut self, node: &str) -> Result<()> {
        let mut child = self
            .running
            .remove(node)
            .with_context(|| format!("{node} does not run"))?;
        terminate(&child)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(
                    status.success(),
                    "SIGTERM ended {node} with {status}:\n{}",
                    self.log(node)
                );
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                bail!("{node} still runs {PATIENCE:?} after SIGTERM:\n{}", self.log(node));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops everything, control last: the end of a scenario. Without it the end of each log is printed.
    pub fn stop_all(&mut self) -> Result<()> {
        let names: Vec<_> = self.running.keys().rev().cloned().collect();
        for node in names.iter().filter(|node| *node != "control-1") {
            self.stop(node)?;
        }
        if self.running.contains_key("control-1") {
            self.stop("control-1")?;
        }
        self.is_well = true;
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self, node: &str) -> Result<()> {
        let mut child = self
            .running
            .remove(node)
            .with_context(|| format!("{node} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Process id of a node, for SIGSTOP and the like.
    pub fn id(&self, node: &str) -> Option<u32> {
        self.running.get(node).map(Child::id)
    }

    /// What a process has written to its standard error.
    pub fn log(&self, node: &str) -> String {
        fs::read_to_string(self.path(&format!("{node}.log"))).unwrap_or_default()
    }

    /// The ready-file of a process that is ready. Control's is the context file of operators and clients.
    pub fn ready(&self, node: &str) -> Result<Value> {
        let file = self.path(&format!("{node}.ready"));
        let text = fs::read(&file).with_context(|| format!("{node} is not ready"))?;
        serde_json::from_slice(&text).context("the ready-file is not complete JSON")
    }

    fn control(&self) -> Result<Value> {
        let file = self.context();
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The operators' context file.
    pub fn context(&self) -> PathBuf {
        self.path("control-1").join("context.json")
    }

    /// The value of a series of a process that counts in whole numbers; 0 if there is none.
    pub async fn metric(&self, node: &str, series: &str) -> Result<u64> {
        let text = self.observe(node, "metrics").await?.text().await?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(series));
        line.and_then(|line| line.rsplit(' ').next())
            .map_or(Ok(0), |value| Ok(value.strip_suffix(".0").unwrap_or(value).parse()?))
    }

    /// What `/readyz` of a process says: the status and the body.
    pub async fn readyz(&self, node: &str) -> Result<(u16, Value)> {
        let response = self.observe(node, "readyz").await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?)?))
    }

    async fn observe(&self, node: &str, path: &str) -> Result<reqwest::Response> {
        // The second time, it is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ports: Value = serde_json::from_slice(&fs::read(self.path(node).join("ports.json"))?)?;
        let url = format!("http://127.0.0.1:{}/{path}", ports["metrics"]);
        Ok(reqwest::Client::builder().no_proxy().build()?.get(url).send().await?)
    }

    /// A client of one front end, with the credentials of the demo account at `position`.
    pub fn client(&self, frontend: &str, position: usize) -> Result<Client> {
        let mut context = self.control()?;
        context["url"] = self.ready(frontend)?["url"].clone();
        Client::new(&context, position)
    }

    /// Runs a command that must succeed; what it prints.
    pub fn bulkhead(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(Deployment::program()?)
            .args(arguments)
            .env("BULKHEAD_CONTEXT", self.context())
            .stdin(Stdio::null())
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "bulkhead {}: {}: {error}",
            arguments.join(" "),
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same; it prints JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.bulkhead(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("bulkhead {}: not JSON", arguments.join(" ")))
    }

    /// Where everything of this deployment is.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.is_well {
            for entry in fs::read_dir(self.place.path()).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if let Some(node) = name.strip_suffix(".log") {
                    let log = self.log(node);
                    let tail: Vec<&str> = log.lines().rev().take(30).collect();
                    eprintln!("the end of the log of {node}:");
                    tail.iter().rev().for_each(|line| eprintln!("  {line}"));
                }
            }
        }
    }
}
