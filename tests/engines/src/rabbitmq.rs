//! Private RabbitMQ nodes: a temporary directory, free ports of loopback and an epmd of their own, nothing shared with a broker of the
//! machine and nothing left behind. Alone, or three in a cluster.
//!
//! Debian's wrappers insist on root or on the user `rabbitmq`; the scripts behind them do not. As root, the server still runs as that
//! user.

mod process;

use std::{net::SocketAddr, path::PathBuf, process::Child, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};

use self::process::{Home, Signal};

/// How long a node may take to start on a busy machine.
const START: Duration = Duration::from_mins(2);
/// How many lines of its log a node leaves to a test that failed.
const LAST_WORDS: usize = 80;
/// How long `rabbitmqctl` may take.
const CONTROL: Duration = Duration::from_mins(1);

/// How a node is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// A second listener, with TLS, and SASL EXTERNAL beside PLAIN: who shows a certificate is the user named by its common name.
    pub tls: Option<TlsFiles>,
    /// Lines of `rabbitmq.conf` beyond the usual.
    pub lines: Vec<String>,
    /// Limit of open descriptors (`RLIMIT_NOFILE`); the caller's own unless given.
    pub descriptors: Option<u64>,
}

/// PEM files of a TLS listener. They are copied.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Whose client certificates are accepted.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A node. Dropping it kills it.
#[derive(Debug)]
pub struct RabbitMq {
    home: Arc<Home>,
    name: String,
    directory: PathBuf,
    amqp: u16,
    amqps: u16,
    distribution: u16,
    setup: Setup,
    server: Option<Child>,
}

impl RabbitMq {
    /// Starts a node and waits until it takes connections.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Setup::default()).await
    }

    /// Starts a node that is set up like this.
    pub async fn start_with(setup: Setup) -> anyhow::Result<Self> {
        let mut node = Self::prepare(Arc::new(Home::new()?), setup)?;
        node.boot().await?;
        Ok(node)
    }

    fn prepare(home: Arc<Home>, setup: Setup) -> anyhow::Result<Self> {
        let [amqp, amqps, distribution] = [process::free_port()?, process::free_port()?, process::free_port()?];
        let directory = home.directory(&amqp.to_string())?;
        let mut lines = vec![
            format!("listeners.tcp.1 = 127.0.0.1:{amqp}"),
            "loopback_users = none".to_owned(),
            "log.console = true".to_owned(),
            "log.console.level = warning".to_owned(),
            "log.file = false".to_owned(),
        ];
        let mut plugins = "[].";
        if let Some(tls) = &setup.tls {
            plugins = "[rabbitmq_auth_mechanism_ssl].";
            lines.push(format!("listeners.ssl.1 = 127.0.0.1:{amqps}"));
            for (option, file) in [
                ("cacertfile", &tls.ca),
                ("certfile", &tls.certificate),
                ("keyfile", &tls.key),
            ] {
                let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
                let copy = directory.join(option);
                home.write(&copy, &text)?;
                lines.push(format!("ssl_options.{option} = {}", copy.display()));
            }
            lines.extend(
                [
                    "ssl_options.verify = verify_peer",
                    "ssl_options.fail_if_no_peer_cert = true",
                    "auth_mechanisms.1 = EXTERNAL",
                    "auth_mechanisms.2 = PLAIN",
                    "ssl_cert_login_from = common_name",
                ]
                .map(str::to_owned),
            );
        }
        lines.extend(setup.lines.iter().cloned());
        home.write(&directory.join("rabbitmq.conf"), (lines.join("\n") + "\n").as_bytes())?;
        home.write(&directory.join("plugins"), plugins.as_bytes())?;
        Ok(Self {
            name: format!("bulkhead-{amqp}@localhost"),
            home,
            directory,
            amqp,
            amqps,
            distribution,
            setup,
            server: None,
        })
    }

    /// Where AMQP is spoken. User and password are `guest`.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.amqp).into()
    }

    /// Where AMQP over TLS is spoken, if the node is set up for it. Its name is `localhost`.
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.amqps).into()
    }

    /// The node's Erlang name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the server, which must not be running, and waits until it takes connections.
    pub async fn boot(&mut self) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "{} runs already", self.name);
        let log = self.directory.join("output");
        let mut command = self.home.command("rabbitmq-server", self.setup.descriptors);
        self.environment(&mut command);
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let mut server = command.spawn().context("start rabbitmq-server: is it installed?")?;
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if tokio::net::TcpStream::connect(self.address()).await.is_ok() {
                break;
            }
            let ended = server.try_wait()?;
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                process::end(&mut server);
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{} did not start ({ended:?}):\n{text}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.server = Some(server);
        // The listener opens a moment before the node is wholly up.
        self.control(&["await_startup"]).await?;
        Ok(())
    }

    /// Process id of the server, or of what started it, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Kills it (SIGKILL), as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            process::end(&mut server);
        }
    }

    /// Stops it in good order (SIGTERM).
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::Terminate)?;
        let mut server = self.server.take().context("it does not run")?;
        let deadline = tokio::time::Instant::now() + START;
        while server.try_wait()?.is_none() {
            if tokio::time::Instant::now() > deadline {
                process::end(&mut server);
                bail!("{} did not stop in {START:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Stops it, as it is, and everything it says (SIGSTOP).
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::Stop)
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::Continue)
    }

    /// Forgets everything: queues, exchanges, users, membership of a cluster. Connections are closed.
    pub async fn reset(&self) -> anyhow::Result<()> {
        for step in ["stop_app", "reset", "start_app"] {
            self.control(&[step]).await?;
        }
        Ok(())
    }

    /// Raises or lowers the memory alarm: while it is raised, connections that publish are not read.
    pub async fn memory_alarm(&self, raised: bool) -> anyhow::Result<()> {
        let watermark = if raised { "0" } else { "0.6" };
        self.control(&["set_vm_memory_high_watermark", watermark]).await?;
        Ok(())
    }

    /// Closes every connection, as an operator would.
    pub async fn close_connections(&self) -> anyhow::Result<()> {
        self.control(&["close_all_connections", "closed by the operator"])
            .await?;
        Ok(())
    }

    /// Deletes a queue with all that is in it.
    pub async fn delete_queue(&self, queue: &str) -> anyhow::Result<()> {
        self.control(&["delete_queue", queue]).await?;
        Ok(())
    }

    /// Removes from a queue what waits in it.
    pub async fn purge_queue(&self, queue: &str) -> anyhow::Result<()> {
        self.control(&["purge_queue", queue]).await?;
        Ok(())
    }

    /// Adds a user without a password who may do everything: for SASL EXTERNAL.
    pub async fn add_user(&self, user: &str) -> anyhow::Result<()> {
        self.control(&["add_user", user, "unused"]).await?;
        self.control(&["clear_password", user]).await?;
        self.control(&["set_permissions", user, ".*", ".*", ".*"]).await?;
        Ok(())
    }

    /// Lines of `rabbitmqctl list_ITEMS COLUMNS`, columns separated by tabs.
    pub async fn list(&self, items: &str, columns: &[&str]) -> anyhow::Result<Vec<String>> {
        let text = self
            .control(&[&["-q", "--no-table-headers", items], columns].concat())
            .await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Runs `rabbitmqctl` on this node, and returns what it says.
    pub async fn control(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.home.command("rabbitmqctl", None);
        self.environment(&mut command);
        command.arg("-n").arg(&self.name).args(arguments);
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(CONTROL, output)
            .await
            .with_context(|| format!("rabbitmqctl {arguments:?} took longer than {CONTROL:?}"))?
            .context("run rabbitmqctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "rabbitmqctl {arguments:?}: {text}{complaint}");
        Ok(text)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        process::signal(self.server.as_ref().context("it does not run")?, signal)
    }

    fn environment(&self, command: &mut std::process::Command) {
        let file = |name: &str| self.directory.join(name);
        command
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_PID_FILE", file("pid"));
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(self.directory.join("output")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            eprintln!("the last words of {}:\n{}", self.name, last.join("\n"));
        }
        self.kill();
    }
}

/// Nodes in one cluster.
#[derive(Debug)]
pub struct Cluster {
    /// They.
    pub nodes: Vec<RabbitMq>,
}

impl Cluster {
    /// Starts three nodes and joins them.
    pub async fn start() -> anyhow::Result<Self> {
        let home = Arc::new(Home::new()?);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let mut node = RabbitMq::prepare(home.clone(), Setup::default())?;
            node.boot().await?;
            if let Some(first) = nodes.first().map(RabbitMq::name) {
                node.control(&["stop_app"]).await?;
                node.control(&["join_cluster", first]).await?;
                node.control(&["start_app"]).await?;
            }
            nodes.push(node);
        }
        Ok(Self { nodes })
    }

    /// Kills the node that leads a quorum queue, and says which it was.
    pub async fn kill_leader(&mut self, queue: &str) -> anyhow::Result<usize> {
        let asked = self.nodes.first().context("no nodes")?;
        let lines = asked.list("list_queues", &["name", "leader"]).await?;
        let leader = lines
            .iter()
            .find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t'))
            .with_context(|| format!("no queue {queue} among {lines:?}"))?;
        let index = self.nodes.iter().position(|node| node.name == leader);
        let index = index.with_context(|| format!("no node {leader}"))?;
        self.nodes[index].kill();
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes whose environment says that they belong to a node.
    fn processes(node: &str) -> usize {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let belongs = |entry: &std::fs::DirEntry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.windows(node.len()).any(|window| window == node.as_bytes())
        };
        entries.filter(belongs).count()
    }

    #[tokio::test]
    async fn a_node_is_killed_frozen_reset_and_leaves_nothing_behind() {
        let mut node = RabbitMq::start().await.unwrap();
        let name = node.name().to_owned();
        assert!(processes(&name) > 0);
        node.control(&["add_vhost", "kept"]).await.unwrap();
        node.kill();
        assert!(tokio::net::TcpStream::connect(node.address()).await.is_err());
        node.boot().await.unwrap();
        let vhosts = node.list("list_vhosts", &["name"]).await.unwrap();
        assert!(vhosts.contains(&"kept".to_owned()), "{vhosts:?}");

        node.freeze().unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(3), node.control(&["status"])).await;
        assert!(asked.is_err(), "a frozen node answers nobody");
        node.thaw().unwrap();
        node.control(&["status"]).await.unwrap();

        node.reset().await.unwrap();
        assert_eq!(node.list("list_vhosts", &["name"]).await.unwrap(), ["/"]);
        let directory = node.directory.clone();
        node.stop().await.unwrap();
        drop(node);
        assert!(!directory.exists());
        // Helpers of Erlang's end when they notice that it has.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while processes(&name) > 0 {
            assert!(std::time::Instant::now() < deadline, "something of {name} still runs");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
