//! The sections that say which process this is and on what it runs: node, store, broker.

use std::{path::PathBuf, time::Duration};

use domain::{id::NodeId, issuer::Role};
use serde::{Deserialize, Serialize};

/// Which part of an installation a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// All of it: `bulkhead up`.
    #[default]
    All,
    /// `bulkhead frontend`.
    Frontend,
    /// `bulkhead signer`.
    Signer,
    /// `bulkhead control`.
    Control,
}

impl NodeRole {
    /// As it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Frontend => "frontend",
            Self::Signer => "signer",
            Self::Control => "control",
        }
    }

    /// What such a process is enrolled as; `None` for one that is everything.
    pub const fn enrolled_as(self) -> Option<Role> {
        match self {
            Self::All => None,
            Self::Frontend => Some(Role::Frontend),
            Self::Signer => Some(Role::Signer),
            Self::Control => Some(Role::Control),
        }
    }
}

/// Which process this is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Which part of an installation it is. Default `all`: everything in one process, `bulkhead up`.
    pub role: NodeRole,
    /// Its name in the installation, unlike any other's. Default empty: `bulkhead up` names its parts itself.
    pub id: String,
    /// Where control is, `https://host:port`, for enrolment and renewal; several are tried in turn. Default none.
    pub control_urls: Vec<String>,
}

impl Node {
    /// The name, if it is one.
    pub fn id(&self) -> Option<NodeId> {
        self.id.parse().ok()
    }
}

/// What the ledger is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreEngine {
    /// Files of this process alone.
    #[default]
    Sqlite,
    /// A server for any number of processes.
    Postgres,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `sqlite` or `postgres`. Default `sqlite`.
    pub engine: StoreEngine,
    /// Directory of the ledger, for it alone (`sqlite`). Empty: `ledger` in the data directory. Default empty.
    pub path: PathBuf,
    /// Least time from the beginning of one commit to that of the next: longer makes larger groups (`sqlite`). Default 300us.
    #[serde(with = "humantime_serde")]
    pub commit_gap: Duration,
    /// Rows in one commit at most. Default 512.
    pub commit_rows: usize,
    /// Calls waiting for the writer; over it calls fail at once. Default 8192.
    pub queue: usize,
    /// Connections that read (`sqlite`). Default 2.
    pub readers: usize,
    /// Pages of write-ahead log before a checkpoint, 1000 to 4000 (`sqlite`). Default 2000.
    pub wal_autocheckpoint: u32,
    /// The server, where `engine` is `postgres`.
    pub postgres: Postgres,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: StoreEngine::Sqlite,
            path: PathBuf::new(),
            commit_gap: Duration::from_micros(300),
            commit_rows: 512,
            queue: 8192,
            readers: 2,
            wal_autocheckpoint: 2000,
            postgres: Postgres::default(),
        }
    }
}

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Host name or address, or the directory of a UNIX socket. Default `127.0.0.1`.
    pub host: String,
    /// Port. Default 5432.
    pub port: u16,
    /// Database. Default `bulkhead`.
    pub database: String,
    /// User. Default `bulkhead`.
    pub user: String,
    /// File that holds the user's password, mode 0600. Empty: none is sent. Default empty.
    pub password_file: PathBuf,
    /// PEM of the CA that vouches for the server. Empty: the connection is not encrypted. Default empty.
    pub ca_file: PathBuf,
    /// PEM of this client's certificate; needs `ca_file` and `key_file`. Default empty.
    pub certificate_file: PathBuf,
    /// PEM of its key, mode 0600. Default empty.
    pub key_file: PathBuf,
    /// Connections that write, each with one commit under way, 1 to 64. Default 4.
    pub writers: usize,
    /// Connections that read, 1 to 64. Default 4.
    pub readers: usize,
    /// How long a call waits for a connection or for the connection itself. Default 2s.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// How long the server may take for one statement, 100ms to 10s. Default 2s.
    #[serde(with = "humantime_serde")]
    pub statement_limit: Duration,
    /// Least time from the beginning of one commit to that of the next of its kind, at most 100ms. Default 1ms.
    #[serde(with = "humantime_serde")]
    pub commit_gap: Duration,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 5432,
            database: "bulkhead".into(),
            user: "bulkhead".into(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            writers: 4,
            readers: 4,
            patience: Duration::from_secs(2),
            statement_limit: Duration::from_secs(2),
            commit_gap: Duration::from_millis(1),
        }
    }
}

/// What carries envelopes and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerEngine {
    /// Memory of this process.
    #[default]
    Embedded,
    /// An AMQP 0-9-1 server with quorum queues: RabbitMQ.
    Amqp,
}

/// Transport between front ends and signers. A full queue loses nothing: signers claim from the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// `embedded` or `amqp`. Default `embedded`.
    pub engine: BrokerEngine,
    /// Envelopes that wait in one lane's queue. Default 2000.
    pub lane_envelopes: usize,
    /// How long a publication may take. Default 1s.
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
    /// Unconfirmed publications of one lane at a time. Default 16.
    pub lane_unconfirmed: usize,
    /// Answers that wait for one front end. Default 4096.
    pub answers: usize,
    /// The server, where `engine` is `amqp`.
    pub amqp: Amqp,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            engine: BrokerEngine::Embedded,
            lane_envelopes: 2000,
            publish_timeout: Duration::from_secs(1),
            lane_unconfirmed: 16,
            answers: 4096,
            amqp: Amqp::default(),
        }
    }
}

/// An AMQP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    /// Nodes of the broker, each `host:port`; one that cannot be reached is followed by the next. Default `127.0.0.1:5672`.
    pub addresses: Vec<String>,
    /// Virtual host. Default `/`.
    pub virtual_host: String,
    /// User; not needed with a client certificate. Default `bulkhead`.
    pub user: String,
    /// File that holds the user's password, mode 0600. Default empty.
    pub password_file: PathBuf,
    /// PEM of the CA that vouches for the server. Empty: the connection is not encrypted. Default empty.
    pub ca_file: PathBuf,
    /// PEM of this client's certificate: SASL EXTERNAL instead of a password; needs `ca_file` and `key_file`. Default empty.
    pub certificate_file: PathBuf,
    /// PEM of its key, mode 0600. Default empty.
    pub key_file: PathBuf,
    /// Lanes with a queue of their own, interactive ones first; all others travel as wake-ups. A quorum queue costs memory, descriptors and
    /// elections. The same in all processes. Default 200.
    pub own_lanes: usize,
    /// Envelopes that a signer may have been sent and not settled, all lanes together. Default 4096.
    pub prefetch_envelopes: usize,
    /// How long connecting may take. Default 5s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// A broker that is silent for twice as long is given up and connected to anew; whole seconds. Default 5s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            addresses: vec!["127.0.0.1:5672".into()],
            virtual_host: "/".into(),
            user: "bulkhead".into(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            own_lanes: 200,
            prefetch_envelopes: 4096,
            connect_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
        }
    }
}
