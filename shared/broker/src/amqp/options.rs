//! What the adapter is told: where the broker is, who we are there, and the limits.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

/// How to reach a RabbitMQ broker and what to ask of it.
///
/// Secrets are files: they are read at each connection, so a renewed certificate or a changed password needs no restart, and nothing
/// here has a secret to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Nodes of the broker, each `host:port`; one that cannot be reached is followed by the next. Default `localhost:5672`.
    pub addresses: Vec<String>,
    /// Virtual host. Default `/`.
    pub vhost: String,
    /// Who we are. Default user `guest`, whose password is in the file `broker-password`.
    pub login: Login,
    /// TLS towards the broker; `None` (the default) sends everything in the clear, which only loopback deserves.
    pub tls: Option<Tls>,
    /// How names of queues and exchanges begin, for several installations on one virtual host. Default `bulkhead`.
    pub prefix: String,
    /// Heartbeat, in whole seconds. A broker that is silent for twice as long is given up and connected to anew. Default 5s.
    pub heartbeat: Duration,
    /// How long a connection may take in all, and afterwards any question about queues and consumers on it. Default 5s.
    pub connect_timeout: Duration,
    /// How long a publication, an answer or an acknowledgement may take before its caller is told that the broker is unavailable.
    /// Default 1s.
    pub call_timeout: Duration,
    /// Longest pause between attempts to connect; they begin at 100 ms and double. Default 5s.
    pub reconnect_max: Duration,
    /// A channel on which a publication is not confirmed for this long, although the broker does not say that it reads nothing, is opened
    /// anew. Default 10s.
    pub stuck_after: Duration,
    /// Envelopes that wait in one lane's queue; past it the broker refuses. Changing it needs the queues to be deleted first, since a
    /// queue keeps what it was declared with. Default 2000.
    pub lane_envelopes: u32,
    /// Bodies kept in quarantine; the newest stay. Default 10000.
    pub quarantine_bodies: u32,
    /// Envelopes that one inbox may have been sent and not settled, all lanes together; lanes share it evenly, and each has at least
    /// one. Default 4096.
    pub prefetch_envelopes: usize,
    /// How often an inbox looks whether lanes of which nothing comes are really consumed. Default 30s.
    pub look_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addresses: vec!["localhost:5672".into()],
            vhost: "/".into(),
            login: Login::Password {
                user: "guest".into(),
                file: "broker-password".into(),
            },
            tls: None,
            prefix: "bulkhead".into(),
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(5),
            stuck_after: Duration::from_secs(10),
            lane_envelopes: 2000,
            quarantine_bodies: 10_000,
            prefetch_envelopes: 4096,
            look_every: Duration::from_secs(30),
        }
    }
}

/// Who we are to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a file that holds nothing but its password, readable by its owner alone.
    Password {
        /// The user.
        user: String,
        /// Where its password is.
        file: PathBuf,
    },
    /// SASL EXTERNAL: the broker takes the user from the client certificate ([`Tls::identity`]).
    External,
}

/// TLS towards the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that the broker's certificate may come from. No others are trusted.
    pub ca_file: PathBuf,
    /// PEM files of our certificate chain and of its private key (PKCS#8, PKCS#1 or SEC1; readable by its owner alone).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    /// There is nothing to connect to.
    #[error("addresses: name at least one node of the broker as HOST:PORT")]
    NoAddress,
    /// An address is none.
    #[error("addresses: {0:?} is not HOST:PORT")]
    Address(String),
    /// SASL EXTERNAL takes the user from a certificate, and there is none.
    #[error("login external needs tls with a client certificate and its key")]
    ExternalWithoutIdentity,
    /// The prefix makes names that the broker refuses.
    #[error("prefix {0:?}: use 1 to 63 characters of a-z, 0-9, '-', '_' and '.', not beginning with amq.")]
    Prefix(String),
    /// A limit or a time is zero or too great.
    #[error("{0} is out of its range: {1}")]
    Range(&'static str, &'static str),
}

impl Options {
    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<(), InvalidOptions> {
        if self.addresses.is_empty() {
            return Err(InvalidOptions::NoAddress);
        }
        for address in &self.addresses {
            split_address(address).ok_or_else(|| InvalidOptions::Address(address.clone()))?;
        }
        let has_identity = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        if self.login == Login::External && !has_identity {
            return Err(InvalidOptions::ExternalWithoutIdentity);
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=63).contains(&self.prefix.len())
            || !self.prefix.bytes().all(allowed)
            || self.prefix.starts_with("amq.")
        {
            return Err(InvalidOptions::Prefix(self.prefix.clone()));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("call_timeout", self.call_timeout),
            ("reconnect_max", self.reconnect_max),
            ("stuck_after", self.stuck_after),
            ("look_every", self.look_every),
        ];
        if let Some((name, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(InvalidOptions::Range(name, "it must be more than nothing"));
        }
        if !(1..=600).contains(&self.heartbeat.as_secs()) {
            return Err(InvalidOptions::Range("heartbeat", "use 1s to 600s"));
        }
        if self.stuck_after < self.call_timeout {
            return Err(InvalidOptions::Range("stuck_after", "it is less than call_timeout"));
        }
        let counts = [
            ("lane_envelopes", u64::from(self.lane_envelopes)),
            ("quarantine_bodies", u64::from(self.quarantine_bodies)),
            ("prefetch_envelopes", self.prefetch_envelopes as u64),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(InvalidOptions::Range(name, "it must be at least 1"));
        }
        Ok(())
    }
}

/// Host and port of an address that [`Options::check`] has passed.
pub(super) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub(super) struct FileError {
    file: PathBuf,
    reason: String,
}

impl FileError {
    pub fn new(file: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Reads a file.
pub(super) fn read(file: &std::path::Path) -> Result<Vec<u8>, FileError> {
    fs::read(file).map_err(|error: io::Error| FileError::new(file, error))
}

/// Reads a file that nobody else may read.
pub(super) fn read_secret(file: &std::path::Path) -> Result<Vec<u8>, FileError> {
    let mode = fs::metadata(file)
        .map_err(|error| FileError::new(file, error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(FileError::new(file, "others may read this secret: chmod 600"));
    }
    read(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused_by_the_name_of_their_field() {
        let options = Options::default();
        assert_eq!(options.check(), Ok(()));
        let refused = |change: fn(&mut Options)| {
            let mut options = options.clone();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        assert!(refused(|o| o.addresses.clear()).contains("addresses"));
        assert!(refused(|o| o.addresses.push("host".into())).contains("\"host\""));
        assert!(refused(|o| o.login = Login::External).contains("external"));
        assert!(refused(|o| o.prefix = "amq.x".into()).contains("prefix"));
        assert!(refused(|o| o.prefix = "a b".into()).contains("prefix"));
        assert!(refused(|o| o.heartbeat = Duration::from_millis(10)).contains("heartbeat"));
        assert!(refused(|o| o.call_timeout = Duration::ZERO).contains("call_timeout"));
        assert!(refused(|o| o.stuck_after = Duration::from_millis(1)).contains("stuck_after"));
        assert!(refused(|o| o.lane_envelopes = 0).contains("lane_envelopes"));
    }

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(split_address("broker.example:5671"), Some(("broker.example", 5671)));
        assert_eq!(split_address("[::1]:5672"), Some(("::1", 5672)));
        assert_eq!(split_address(":5672"), None);
        assert_eq!(split_address("host:port"), None);
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let file = std::env::temp_dir().join(format!("bulkhead-secret-{}", std::process::id()));
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read_secret(&file).unwrap_err().to_string();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let read = read_secret(&file);
        fs::remove_file(&file).unwrap();
        assert!(
            refused.contains("chmod 600") && !refused.contains("secret\n"),
            "{refused}"
        );
        assert_eq!(read.unwrap(), b"secret");
    }
}
