//! Typed clients of our own APIs, over mutual TLS: [`HvcaClient`] for certificates, [`AdminClient`] for operators, [`NodeClient`] for
//! nodes, and [`enrol`] for those that are to become nodes.

mod admin;
mod hvca;
mod node;

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::de::DeserializeOwned;

pub use admin::AdminClient;
pub use hvca::{HvcaClient, IssueOptions, Submitted};
pub use node::{NodeClient, enrol};

use crate::problem::Problem;

/// How long a request may take, besides a wait that it asks for.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The greatest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be set up.
    #[error("{0}")]
    Setup(String),
    /// No answer: whether the request arrived is not known.
    #[error("no answer from {url}: {detail}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The server says what is wrong.
    #[error("{problem}")]
    Problem {
        /// HTTP status.
        status: u16,
        /// What is wrong.
        problem: Problem,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The answer is not what was agreed.
    #[error("unexpected answer {status} from {url}: {detail}")]
    Unexpected {
        /// HTTP status.
        status: u16,
        /// Where.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// The HTTP status, if there was an answer.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Problem { status, .. } | Self::Unexpected { status, .. } => Some(*status),
            Self::Setup(_) | Self::Unreachable { .. } => None,
        }
    }

    /// The problem's id, if the server gave one.
    pub const fn id(&self) -> Option<crate::problem::ProblemId> {
        match self {
            Self::Problem { problem, .. } => problem.id,
            _ => None,
        }
    }
}

/// What mutual TLS needs: the CA of the server, and the client's own certificate and key, all PEM files.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The CA that vouches for the server. No other is trusted.
    pub ca: &'a Path,
    /// The client's certificate.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
}

impl TlsFiles<'_> {
    fn config(&self) -> Result<ClientConfig, ClientError> {
        let wrong =
            |path: &Path, detail: &dyn fmt::Display| ClientError::Setup(format!("{}: {detail}", path.display()));
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ClientError> {
            let text = fs::read(path).map_err(|e| wrong(path, &e))?;
            CertificateDer::pem_slice_iter(&text)
                .collect::<Result<_, _>>()
                .map_err(|e| wrong(path, &e))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(self.ca)? {
            roots.add(certificate).map_err(|e| wrong(self.ca, &e))?;
        }
        if roots.is_empty() {
            return Err(wrong(self.ca, &"holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(self.key).map_err(|e| wrong(self.key, &e))?;
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| ClientError::Setup(e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(self.certificate)?, key)
            .map_err(|e| wrong(self.certificate, &e))
    }
}

/// One server, as both clients call it.
#[derive(Debug, Clone)]
struct Caller {
    http: reqwest::Client,
    base: String,
}

impl Caller {
    fn new(base: &str, files: &TlsFiles<'_>) -> Result<Self, ClientError> {
        Self::over(base, files.config()?)
    }

    fn over(base: &str, config: ClientConfig) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|e| ClientError::Setup(chain(&e)))?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    fn request_with<B: serde::Serialize + ?Sized>(&self, method: Method, path: &str, body: &B) -> RequestBuilder {
        self.request(method, path).json(body)
    }

    /// Sends a request; anything but success is an error.
    async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let unreachable = |e: reqwest::Error| ClientError::Unreachable {
            url: self.base.clone(),
            detail: chain(&e),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(ClientError::Unexpected {
                    status: response.status().as_u16(),
                    url: response.url().to_string(),
                    detail: format!("it is larger than {MAX_ANSWER} bytes"),
                });
            }
            body.extend_from_slice(&piece);
        }
        let answer = Answer { response, body };
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(answer.into_error())
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.send(request).await?.json()
    }
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    response: Response,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> StatusCode {
        self.response.status()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    fn unexpected(&self, detail: impl Into<String>) -> ClientError {
        ClientError::Unexpected {
            status: self.status().as_u16(),
            url: self.response.url().to_string(),
            detail: detail.into(),
        }
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| self.unexpected(e.to_string()))
    }

    fn into_error(self) -> ClientError {
        let retry_after = self
            .header(RETRY_AFTER.as_str())
            .and_then(|seconds| seconds.parse().ok());
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) if problem.id.is_some() || !problem.description.is_empty() => ClientError::Problem {
                status: self.status().as_u16(),
                problem,
                retry_after: retry_after.map(Duration::from_secs),
            },
            _ => self.unexpected("it does not say what is wrong"),
        }
    }
}

/// An error with its causes, without the URL (which is said elsewhere).
fn chain(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut causes = Vec::new();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes.dedup();
    if error.is_timeout() {
        causes.insert(0, "it took too long".into());
    }
    if causes.is_empty() {
        error.to_string()
    } else {
        causes.join(": ")
    }
}
