//! One connection: TCP, TLS, greeting, login, each within the time given.
//!
//! The client library's own recovery is not used. What it recovers, the rebuilding in [`super::link`] and [`super::attendant`] has to
//! recover anyway (closed channels, cancelled consumers, lost queues), and two of them would race; what it gets stuck in (an exhausted
//! back-off that nobody is told of, consumers that pend for ever) cannot happen to a connection that is simply thrown away.
//!
//! A connection is thrown away by shutting down its socket: everything that the library holds for it, its thread included, ends then,
//! however deaf the other side is.

use std::{net::Shutdown, os::fd::AsFd, sync::Arc, time::Duration};

use amq_protocol::{
    frame::{AMQPFrame, parse_frame},
    protocol::{AMQPClass, connection::AMQPMethod},
};
use async_rs::{TokioRuntime, traits::Reactor};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind,
    auth::AuthProvider,
    tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig},
    types::AMQPValue,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::timeout;

use super::options::{FileError, Login, Options, Tls, read, read_secret, split_address};
use crate::BrokerError;

/// What a client says first: AMQP 0-9-1.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Longest greeting that is read, in bytes.
const GREETING: usize = 16 * 1024;

type Stream = AsyncTcpStream<<TokioRuntime as Reactor>::TcpStream>;

/// A connection that works, as far as anybody knows.
#[derive(Debug)]
pub(super) struct Live {
    connection: Connection,
    socket: std::net::TcpStream,
    /// What the broker says it is.
    pub version: Version,
    /// Which node it is.
    pub address: String,
    /// Tells connections of one link apart.
    pub number: u64,
}

/// RabbitMQ's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(String);

impl Version {
    /// The first number; 0 when there is none.
    pub fn major(&self) -> u32 {
        let major = self.0.split('.').next().unwrap_or_default();
        major.parse().unwrap_or(0)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error(
        "{address}: no greeting within {limit:?}: the broker is stopped, or out of file descriptors (before RabbitMQ 4 every lane with a \
         queue of its own takes 3; raise its limit of open files)"
    )]
    NoGreeting { address: String, limit: Duration },
    #[error("{address}: what answers there is not RabbitMQ")]
    NotRabbitMq { address: String },
    #[error("{address}: not connected within {limit:?}")]
    TimedOut { address: String, limit: Duration },
    #[error("{address}: {source}")]
    Refused { address: String, source: lapin::Error },
}

/// Opens a connection that the broker knows by `name`.
pub(super) async fn open(options: &Options, address: &str, name: &str, number: u64) -> Result<Live, ConnectError> {
    let limit = options.connect_timeout;
    let target = Arc::new(Target::new(options, address)?);
    let version = target.version(limit).await?;
    let uri = target.uri(options)?;
    // The library dials on a thread of its own and keeps what it gets; the socket comes back beside it.
    let dialled: Arc<std::sync::Mutex<Option<std::net::TcpStream>>> = Arc::default();
    let (there, here) = (target.clone(), dialled.clone());
    let dial = async move |_: AMQPUri, _| {
        let dialled = timeout(limit, there.dial()).await;
        let (stream, socket) = dialled.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        *super::lock(&here) = Some(socket);
        Ok(stream)
    };
    let mut properties = ConnectionProperties::default().with_connection_name(name.into());
    if options.login == Login::External {
        properties = properties.with_auth_provider(External);
    }
    let connecting = Connection::connector(uri, TokioRuntime::tokio_current(), dial, properties);
    let connected = timeout(limit, connecting).await;
    let socket = super::lock(&dialled).take();
    match (connected, socket) {
        (Ok(Ok(connection)), Some(socket)) => Ok(Live {
            connection,
            socket,
            version,
            address: address.to_owned(),
            number,
        }),
        (failed, socket) => {
            if let Some(socket) = socket {
                // Whatever the library still waits for on it ends now.
                let _ = socket.shutdown(Shutdown::Both);
            }
            let address = address.to_owned();
            Err(match failed {
                Ok(Err(source)) => ConnectError::Refused { address, source },
                _ => ConnectError::TimedOut { address, limit },
            })
        }
    }
}

impl Live {
    /// Whether it still works, as far as the library knows.
    pub fn connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker reads nothing from it: a memory or disk alarm.
    pub fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Throws it away. Everything that waits for it fails.
    pub fn sever(&self) {
        // An error says that the socket is closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Opens a channel.
    pub async fn channel(&self, limit: Duration) -> Result<Channel, BrokerError> {
        let opening = self.connection.create_channel();
        self.within(limit, Silence::OfConnection, "open a channel", opening)
            .await
    }

    /// What a question on this connection brings.
    pub async fn within<T>(
        &self,
        limit: Duration,
        silence: Silence,
        what: &str,
        question: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match timeout(limit, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(BrokerError::Unavailable(format!("{what}: {error}"))),
            Err(_) if self.blocked() => Err(BrokerError::Unavailable(super::BLOCKED.into())),
            Err(_) => {
                if silence == Silence::OfConnection {
                    self.sever();
                }
                Err(BrokerError::Unavailable(format!("{what}: no answer within {limit:?}")))
            }
        }
    }
}

/// What it means that a question is not answered in time, on a connection that is not blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// The connection is dead, and is thrown away.
    OfConnection,
    /// One queue has no leader just now, or is broken. The others are none the worse for it; a dead connection shows by its heartbeat.
    OfQueue,
}

impl Drop for Live {
    /// The library says goodbye by itself; a broker that does not answer that is left after a while.
    fn drop(&mut self) {
        if let (Ok(runtime), Ok(socket)) = (tokio::runtime::Handle::try_current(), self.socket.try_clone()) {
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let _ = socket.shutdown(Shutdown::Both);
            });
        }
    }
}

/// SASL EXTERNAL: the certificate says who we are.
struct External;

impl AuthProvider for External {}

/// Where to, and how.
struct Target {
    address: String,
    host: String,
    port: u16,
    tls: Option<RustlsConnector>,
}

impl Target {
    fn new(options: &Options, address: &str) -> Result<Self, ConnectError> {
        let (host, port) = split_address(address).unwrap_or((address, 5672));
        Ok(Self {
            address: address.to_owned(),
            host: host.to_owned(),
            port,
            tls: options.tls.as_ref().map(connector).transpose()?,
        })
    }

    fn uri(&self, options: &Options) -> Result<AMQPUri, ConnectError> {
        let userinfo = match &options.login {
            Login::Password { user, file } => {
                let text = read_secret(file)?;
                let text = String::from_utf8(text).map_err(|_| FileError::new(file, "the password is not UTF-8"))?;
                AMQPUserInfo {
                    username: user.clone(),
                    password: text.trim_end_matches(['\r', '\n']).to_owned(),
                }
            }
            Login::External => AMQPUserInfo {
                username: String::new(),
                password: String::new(),
            },
        };
        Ok(AMQPUri {
            scheme: if self.tls.is_some() {
                AMQPScheme::AMQPS
            } else {
                AMQPScheme::AMQP
            },
            authority: AMQPAuthority {
                userinfo,
                host: self.host.clone(),
                port: self.port,
            },
            vhost: options.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(u16::try_from(options.heartbeat.as_secs()).unwrap_or(u16::MAX)),
                ..AMQPQueryString::default()
            },
        })
    }

    async fn dial(&self) -> std::io::Result<(Stream, std::net::TcpStream)> {
        let runtime = TokioRuntime::tokio_current();
        let mut failed = std::io::Error::other("the name has no address");
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            match Stream::connect(&runtime, address).await {
                Ok(stream) => {
                    let AsyncTcpStream::Plain(plain) = &stream else {
                        continue;
                    };
                    let socket = plain.get_ref().as_fd().try_clone_to_owned()?.into();
                    let stream = match &self.tls {
                        Some(connector) => stream.into_rustls(connector, &self.host).await?,
                        None => stream,
                    };
                    return Ok((stream, socket));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Asks the broker for its version: the client library keeps what the greeting says to itself, and which arguments a queue may have
    /// depends on it. This is also where a broker that accepts connections and says nothing is found out.
    async fn version(&self, limit: Duration) -> Result<Version, ConnectError> {
        let address = || self.address.clone();
        let unreachable = |source| ConnectError::Unreachable {
            address: address(),
            source,
        };
        let dialled = timeout(limit, self.dial()).await;
        let dialled = dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let (mut stream, _) = dialled.map_err(unreachable)?;
        let mut greeting = Vec::new();
        let exchange = async {
            stream.write_all(PROTOCOL_HEADER).await?;
            stream.flush().await?;
            let mut buffer = [0; 1024];
            loop {
                let count = stream.read(&mut buffer).await?;
                greeting.extend_from_slice(&buffer[..count]);
                if let Some(version) = version_of(&greeting) {
                    return Ok(Some(version));
                }
                if count == 0 || greeting.len() > GREETING {
                    return Ok(None);
                }
            }
        };
        match timeout(limit, exchange).await {
            Ok(Ok(Some(version))) => Ok(version),
            Ok(Ok(None)) => Err(ConnectError::NotRabbitMq { address: address() }),
            Ok(Err(source)) => Err(unreachable(source)),
            Err(_) => Err(ConnectError::NoGreeting {
                address: address(),
                limit,
            }),
        }
    }
}

/// The version in a greeting, once it is complete.
fn version_of(greeting: &[u8]) -> Option<Version> {
    let (_, frame) = parse_frame(greeting).ok()?;
    let AMQPFrame::Method(_, AMQPClass::Connection(AMQPMethod::Start(start))) = frame else {
        return None;
    };
    let text = match start.server_properties.inner().get("version")? {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        _ => return None,
    };
    Some(Version(text))
}

/// TLS that trusts the given authorities and nobody else.
fn connector(tls: &Tls) -> Result<RustlsConnector, ConnectError> {
    let mut config = RustlsConnectorConfig::default();
    config.add_parsable_certificates(certificates(&tls.ca_file)?);
    let connector = match &tls.identity {
        None => config.connector_with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = read_secret(key)?;
            let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| FileError::new(key, error))?;
            config.connector_with_single_cert(chain, secret)
        }
    };
    connector.map_err(|error| FileError::new(&tls.ca_file, error).into())
}

fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| FileError::new(file, error))?;
    if read.is_empty() {
        return Err(FileError::new(file, "no certificate in it: use PEM"));
    }
    Ok(read)
}

/// Whether the broker says that what was asked for contradicts what is there, which asking again does not change.
pub(super) fn is_contradiction(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 406)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_a_version_counts() {
        for (text, major) in [("3.10.8", 3), ("4.0.0-rc.1", 4), ("12", 12), ("unknown", 0), ("", 0)] {
            assert_eq!(Version(text.into()).major(), major, "{text}");
        }
    }

    #[test]
    fn a_greeting_is_read_only_when_it_is_complete() {
        let mut properties = lapin::types::FieldTable::default();
        properties.insert("version".into(), AMQPValue::LongString("3.10.8".into()));
        let start = amq_protocol::protocol::connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        };
        let frame = AMQPFrame::Method(0, AMQPClass::Connection(AMQPMethod::Start(start)));
        let mut greeting = Vec::new();
        let written = amq_protocol::frame::gen_frame(&frame)(Vec::new().into()).unwrap();
        greeting.extend(written.write);
        assert_eq!(version_of(&greeting), Some(Version("3.10.8".into())));
        assert_eq!(version_of(&greeting[..greeting.len() - 1]), None);
        assert_eq!(version_of(b"HTTP/1.1 400 Bad Request\r\n\r\n"), None);
    }
}
