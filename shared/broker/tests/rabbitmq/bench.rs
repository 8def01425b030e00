//! A node, the adapter in front of it, and what the tests have in common.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use broker::{
    Broker, BrokerError, OwnLanes,
    amqp::{Amqp, Login, Options},
};
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Class, Lane},
};
use tempfile::TempDir;

/// Long enough for anything that must come, on a busy machine.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Jobs of a full envelope.
pub const JOBS: usize = Class::Bulk.envelope_jobs();

pub fn lane(issuer: &str) -> Lane {
    Lane {
        issuer: issuer.parse().unwrap(),
        class: Class::Bulk,
    }
}

pub fn incarnation(node: &str) -> Incarnation {
    Incarnation {
        node: node.parse().unwrap(),
        run: 1,
    }
}

pub fn body(number: usize) -> Bytes {
    Bytes::from(format!("{number} {}", "x".repeat(250)))
}

pub fn number(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

pub fn own(lanes: impl IntoIterator<Item = Lane>) -> OwnLanes {
    let own = OwnLanes::default();
    own.settle(lanes.into_iter().collect::<BTreeSet<_>>());
    own
}

/// Files of secrets.
pub struct Secrets {
    directory: TempDir,
}

impl Secrets {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }
}

/// Options for a node's `guest`, with times short enough for tests.
pub fn options(secrets: &Secrets, addresses: impl IntoIterator<Item = std::net::SocketAddr>) -> Options {
    Options {
        addresses: addresses.into_iter().map(|address| address.to_string()).collect(),
        login: Login::Password {
            user: "guest".into(),
            file: secrets.write("password", "guest\n"),
        },
        heartbeat: Duration::from_secs(2),
        look_every: Duration::from_secs(1),
        ..Options::default()
    }
}

/// What the adapter says is part of a failed test's output.
pub fn logged() {
    let filter = tracing_subscriber::EnvFilter::new("broker=debug,lapin=error");
    // Several tests of one process share the first one's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}

pub async fn connect(options: Options, own: OwnLanes) -> Arc<Amqp> {
    logged();
    let amqp = Arc::new(Amqp::connect(options, own).unwrap());
    ready(&amqp).await;
    amqp
}

pub async fn ready(amqp: &Amqp) {
    until("the broker is reached", async || amqp.ready().is_ok()).await;
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes, and again while the broker is unavailable, or refuses because a queue is not ready: a caller that insists.
pub async fn insist(broker: &dyn Broker, lane: &Lane, number: usize) {
    until("a publication is confirmed", async || {
        match broker.publish(lane, body(number), JOBS, None).await {
            Ok(()) => true,
            Err(BrokerError::Unavailable(_) | BrokerError::Full(_)) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

/// Threads of the client library in this process: one for each connection that it has not let go.
pub fn connections() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("lapin-io")))
        .count()
}
