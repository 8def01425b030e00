//! HTTPS listeners with client certificates, and the plain one for metrics.
//!
//! Each connection is a task of its own, handshake included, so that a slow or silent client holds up nobody. Over the limit of
//! connections nothing is accepted: clients wait in the system's backlog.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{Router, body::Body, extract::ConnectInfo};
use domain::bytes::Digest;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::{
    config,
    files::{FileError, read, read_private},
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// The client certificate of a connection, verified under the access CA. An extension of every request on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate: what accounts and operators are known by.
    pub fingerprint: Digest,
    /// The certificate.
    pub der: Arc<[u8]>,
}

/// What a listener allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, and how long a connection may be idle before it.
    pub header_read_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl From<&config::Tls> for Limits {
    fn from(tls: &config::Tls) -> Self {
        Self {
            connections: tls.connections,
            handshake_timeout: tls.handshake_timeout,
            header_read_timeout: tls.header_read_timeout,
            streams: tls.streams,
        }
    }
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate, key and CA do not go together.
    #[error("{certificate}: {detail}", certificate = certificate.display())]
    Unusable {
        /// The server's certificate.
        certificate: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// Where a server's certificate, its key and the CA of its clients are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, and intermediates if there are any.
    pub certificate: PathBuf,
    /// PEM: its key, mode 0600.
    pub key: PathBuf,
    /// PEM: the CAs that vouch for clients.
    pub client_ca: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handshake {
    outcome: &'static str,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// Those with a certificate of the access CA.
    Known,
    /// Strangers as well: their requests carry no [`PeerCertificate`], and the server shows its CA so that they can recognise it.
    Anybody,
}

/// TLS of a server: versions 1.2 and 1.3, client certificates required. Reloaded without dropping a connection.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    clients: Clients,
    config: ArcSwap<ServerConfig>,
    handshakes: Family<Handshake, Counter>,
    connections: Gauge,
}

impl ServerTls {
    /// Reads the files.
    pub fn new(files: TlsFiles, metrics: &Metrics) -> Result<Self, TlsError> {
        Self::for_clients(files, Clients::Known, metrics)
    }

    /// The same for a listener at which strangers enrol: who shows a certificate must show a good one, and who shows none is let in
    /// without. Whatever is behind it must look at [`PeerCertificate`].
    pub fn open_to_strangers(files: TlsFiles, metrics: &Metrics) -> Result<Self, TlsError> {
        Self::for_clients(files, Clients::Anybody, metrics)
    }

    fn for_clients(files: TlsFiles, clients: Clients, metrics: &Metrics) -> Result<Self, TlsError> {
        Ok(Self {
            config: ArcSwap::from(server_config(&files, clients)?),
            clients,
            files,
            handshakes: metrics.register("tls_handshakes", "TLS handshakes, by outcome", Family::default()),
            connections: metrics.register("tls_connections", "TLS connections open", Gauge::default()),
        })
    }

    /// Reads the files again. New connections use what they hold now; on an error, what they held before.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(server_config(&self.files, self.clients)?);
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&Handshake { outcome }).inc();
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(FileError::damaged(path, "it holds no certificate").into()),
        Err(error) => Err(FileError::damaged(path, error.to_string()).into()),
    }
}

fn server_config(files: &TlsFiles, clients: Clients) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |detail: String| TlsError::Unusable {
        certificate: files.certificate.clone(),
        detail,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots
            .add(certificate)
            .map_err(|e| TlsError::File(FileError::damaged(&files.client_ca, e.to_string())))?;
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut chain = certificates(&files.certificate)?;
    let verifier = match clients {
        Clients::Known => verifier,
        Clients::Anybody => {
            chain.extend(certificates(&files.client_ca)?);
            verifier.allow_unauthenticated()
        }
    };
    let verifier = verifier.build().map_err(|e| unusable(e.to_string()))?;
    let key = read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| FileError::damaged(&files.key, e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| unusable(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves a router over TLS until shutdown begins, then lets connections finish what they are at. Requests carry [`PeerCertificate`]
/// and [`ConnectInfo`].
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    router: Router,
    limits: Limits,
    shutdown: Shutdown,
) -> io::Result<()> {
    let limits = Arc::new(limits);
    accept_loop(listener, &limits.clone(), &shutdown.clone(), move |stream, address| {
        let (tls, router, limits, shutdown) = (tls.clone(), router.clone(), limits.clone(), shutdown.clone());
        async move {
            let acceptor = TlsAcceptor::from(tls.config.load_full());
            let stream = match timeout(limits.handshake_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tls.count("refused");
                    return tracing::debug!(%address, %error, "TLS handshake refused");
                }
                Err(_) => {
                    tls.count("timed_out");
                    return tracing::debug!(%address, "TLS handshake took too long");
                }
            };
            let session = stream.get_ref().1;
            let certificate = session.peer_certificates().and_then(<[_]>::first);
            if certificate.is_none() && tls.clients == Clients::Known {
                return tls.count("refused");
            }
            let certificate = certificate.map(|certificate| PeerCertificate {
                fingerprint: fingerprint(certificate),
                der: certificate.as_ref().into(),
            });
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            tls.count("accepted");
            tls.connections.inc();
            connection(
                stream,
                Peer { address, certificate },
                is_http2,
                router,
                &limits,
                &shutdown,
            )
            .await;
            tls.connections.dec();
        }
    })
    .await
}

/// Serves a router over plain HTTP/1.1: for metrics and health, inside.
pub async fn serve_plain(listener: TcpListener, router: Router, limits: Limits, shutdown: Shutdown) -> io::Result<()> {
    let limits = Arc::new(limits);
    accept_loop(listener, &limits.clone(), &shutdown.clone(), move |stream, address| {
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        async move {
            connection(
                stream,
                Peer {
                    address,
                    certificate: None,
                },
                false,
                router,
                &limits,
                &shutdown,
            )
            .await;
        }
    })
    .await
}

fn fingerprint(der: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    Digest(bytes)
}

/// Accepts connections, each handled in a task of its own, until shutdown begins.
async fn accept_loop<F, H>(listener: TcpListener, limits: &Limits, shutdown: &Shutdown, handle: F) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> H,
    H: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            () = shutdown.soft().cancelled() => return Ok(()),
            accepted = async {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                listener.accept().await.map(|connection| (permit, connection))
            } => accepted,
        };
        match accepted {
            Ok((permit, (stream, address))) => {
                // Without it small answers wait for acknowledgements; where it cannot be set, they do.
                let _ = stream.set_nodelay(true);
                let task = handle(stream, address);
                shutdown.spawn(async move {
                    task.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Errors of `accept` that concern a client that is gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    certificate: Option<PeerCertificate>,
}

async fn connection<S>(stream: S, peer: Peer, is_http2: bool, router: Router, limits: &Limits, shutdown: &Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.address));
        if let Some(certificate) = &peer.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(limits.header_read_timeout)
        .keep_alive_timeout(limits.header_read_timeout);
    let builder = if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.soft().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
