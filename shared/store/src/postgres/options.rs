//! How a store on PostgreSQL is opened.

use std::{fmt, fs, path::PathBuf, time::Duration};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::StoreError;

/// How a ledger on PostgreSQL is opened. [`Options::new`] has the defaults; the user needs to own the database's schema.
#[derive(Clone)]
pub struct Options {
    /// Name or address of the server, or the directory of its UNIX socket (then it begins with `/`).
    pub host: String,
    /// Its port. Default 5432.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database. Nothing else may be in its schema `public`.
    pub database: String,
    /// A file whose first line is the password; `None` where the server asks for none (peer, certificate).
    pub password_file: Option<PathBuf>,
    /// TLS. Without it everything travels in clear text: only for loopback and UNIX sockets.
    pub tls: Option<Tls>,
    /// A commit of one kind (accept, begin, finish) begins at least this long after the one before it began. Default 1 ms; at most
    /// 100 ms.
    pub commit_gap: Duration,
    /// Rows that one commit takes, more or less. Default 256.
    pub batch_rows: usize,
    /// Connections that write, each with one commit under way. Default 4; at most 64.
    pub writers: usize,
    /// Connections that read. Default 4; at most 64.
    pub readers: usize,
    /// Calls of each kind that may wait for a commit where somebody waits for them. Default 4,096.
    pub interactive_calls: usize,
    /// Other calls that may wait. Default 1,024.
    pub bulk_calls: usize,
    /// How long a call waits for a place or a free connection. Default 2 s.
    pub patience: Duration,
    /// How long the server may take for one statement; it gives up by itself then. A quarter of it is the longest wait for a lock,
    /// half of it the longest pause inside a transaction. Default 2 s; 100 ms to 10 s.
    pub statement_limit: Duration,
    /// In tests: a time to take instead of the server's.
    #[cfg(test)]
    pub(crate) clock: Option<std::sync::Arc<dyn domain::time::Clock>>,
}

/// TLS to the server, whose certificate must be good for its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates (PEM) of the authorities that may vouch for the server.
    pub ca_file: PathBuf,
    /// The client's own certificate chain and private key (PEM), where the server asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            user,
            database,
            password_file,
            tls,
            ..
        } = self;
        f.debug_struct("Options")
            .field("server", &format_args!("{user}@{host}:{port}/{database}"))
            .field("password_file", password_file)
            .field("tls", tls)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, for a role and a database of a server.
    pub fn new(host: impl Into<String>, user: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            user: user.into(),
            database: database.into(),
            password_file: None,
            tls: None,
            commit_gap: Duration::from_millis(1),
            batch_rows: 256,
            writers: 4,
            readers: 4,
            interactive_calls: 4_096,
            bulk_calls: 1_024,
            patience: Duration::from_secs(2),
            statement_limit: Duration::from_secs(2),
            #[cfg(test)]
            clock: None,
        }
    }

    /// Refuses what is out of range: [`StoreError::Rejected`], naming the option.
    pub fn check(&self) -> Result<(), StoreError> {
        let range = |option: &str, within: bool, bounds: &str| {
            if within {
                Ok(())
            } else {
                Err(StoreError::Rejected(format!("store option {option}: is {bounds}")))
            }
        };
        let seconds = Duration::from_secs;
        range("host", !self.host.is_empty(), "a name, an address or a directory")?;
        range(
            "commit_gap",
            self.commit_gap <= Duration::from_millis(100),
            "at most 100 ms",
        )?;
        range("batch_rows", (1..=1_000).contains(&self.batch_rows), "1 to 1,000")?;
        range("writers", (1..=64).contains(&self.writers), "1 to 64")?;
        range("readers", (1..=64).contains(&self.readers), "1 to 64")?;
        range("interactive_calls", self.interactive_calls > 0, "at least 1")?;
        range("bulk_calls", self.bulk_calls > 0, "at least 1")?;
        let limits = Duration::from_millis(100)..=seconds(10);
        range(
            "statement_limit",
            limits.contains(&self.statement_limit),
            "100 ms to 10 s",
        )
    }

    /// What `sqlx` needs. Reads the password file.
    pub(super) fn connect(&self) -> Result<PgConnectOptions, StoreError> {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .application_name("bulkhead")
            .statement_cache_capacity(256)
            .disable_statement_logging()
            .ssl_mode(PgSslMode::Disable);
        if self.host.starts_with('/') {
            options = options.socket(&self.host);
        }
        if let Some(file) = &self.password_file {
            let text = fs::read_to_string(file).map_err(|error| {
                StoreError::Rejected(format!("store option password_file: {}: {error}", file.display()))
            })?;
            options = options.password(text.lines().next().unwrap_or_default());
        }
        if let Some(tls) = &self.tls {
            options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(&tls.ca_file);
            if let Some((certificate, key)) = &tls.client {
                options = options.ssl_client_cert(certificate).ssl_client_key(key);
            }
        }
        Ok(options)
    }
}
