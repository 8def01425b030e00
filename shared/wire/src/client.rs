//! Typed clients of the REST APIs, over HTTPS with a client certificate. The program's own commands use them.

use std::{sync::OnceLock, time::Duration};

use domain::{id::Serial, job::RevocationReason};
use reqwest::{Certificate, Identity, Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    hvca::{AccessToken, CertificateDocument, Login, Revoke, Secret, Value},
    problem::Problem,
};

/// The greatest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;

/// How long a call may take beyond what it was asked to wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be made: certificate, key or URL cannot be read.
    #[error("client set-up: {0}")]
    SetUp(String),
    /// The server cannot be reached, or the connection broke.
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        detail: String,
    },
    /// The server says no.
    #[error("{problem}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        problem: Box<Problem>,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The server answers something that the contract does not know.
    #[error("unexpected answer from {url}: {detail}")]
    Unexpected {
        /// Where.
        url: String,
        /// What.
        detail: String,
    },
}

/// What a client needs to speak to a server: all of it PEM.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// The authority that issued the server's certificate. No other is trusted.
    pub server_authority: &'a [u8],
    /// The client's certificate.
    pub certificate: &'a [u8],
    /// Its private key.
    pub private_key: &'a [u8],
}

/// One server and how to reach it.
#[derive(Debug, Clone)]
struct Channel {
    http: reqwest::Client,
    base: String,
}

/// rustls is built without a default provider on purpose; there is one, and it is this.
fn provider() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // Somebody else of this process may have installed the same one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

impl Channel {
    fn new(base: &str, credentials: &Credentials<'_>) -> Result<Self, ClientError> {
        provider();
        let set_up = |what: &str, e: reqwest::Error| ClientError::SetUp(format!("{what}: {e}"));
        let authority = Certificate::from_pem(credentials.server_authority).map_err(|e| set_up("authority", e))?;
        let identity = [credentials.certificate, b"\n", credentials.private_key].concat();
        let identity = Identity::from_pem(&identity).map_err(|e| set_up("client certificate and key", e))?;
        let http = reqwest::Client::builder()
            .tls_certs_only([authority])
            .identity(identity)
            .https_only(true)
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| set_up("TLS", e))?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    fn call(&self, method: Method, path: &str, patience: Duration) -> (String, RequestBuilder) {
        let url = format!("{}{path}", self.base);
        let call = self.http.request(method, &url).timeout(patience);
        (url, call)
    }
}

/// An answer with its body.
struct Answer {
    url: String,
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| self.unexpected(e.to_string()))
    }

    fn unexpected(&self, detail: impl Into<String>) -> ClientError {
        ClientError::Unexpected {
            url: self.url.clone(),
            detail: detail.into(),
        }
    }
}

/// Why a request failed, with its causes: reqwest keeps the telling ones inside.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Sends a call and reads the whole answer; whatever is not a success is an error.
async fn send(url: String, call: RequestBuilder) -> Result<Answer, ClientError> {
    let unreachable = |e: &reqwest::Error| ClientError::Unreachable {
        url: url.clone(),
        detail: causes(e),
    };
    let mut response: Response = call.send().await.map_err(|e| unreachable(&e))?;
    let status = response.status();
    let text = |name: header::HeaderName| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let location = text(header::LOCATION);
    let retry_after = text(header::RETRY_AFTER)
        .and_then(|v| v.parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| unreachable(&e))? {
        if body.len() + part.len() > MAX_ANSWER {
            let detail = format!("an answer of over {MAX_ANSWER} bytes");
            return Err(ClientError::Unexpected { url, detail });
        }
        body.extend_from_slice(&part);
    }
    if status.is_success() {
        return Ok(Answer {
            url,
            status,
            location,
            body,
        });
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(ClientError::Refused {
            status: status.as_u16(),
            problem: Box::new(problem),
            retry_after,
        }),
        Err(_) => Err(ClientError::Unexpected {
            url,
            detail: format!("status {status} without a problem document"),
        }),
    }
}

/// What came of a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Its serial.
    pub serial: Serial,
    /// The certificate, if it was ready within the wait.
    pub certificate: Option<CertificateDocument>,
}

/// A client of the HVCA API with one account's credentials. Logs in by itself, and once more when its token has run out.
#[derive(Debug)]
pub struct HvcaClient {
    channel: Channel,
    login: Login,
    token: Option<Secret>,
}

impl HvcaClient {
    /// A client. `base` ends in `/v2`.
    pub fn new(base: &str, credentials: &Credentials<'_>, login: Login) -> Result<Self, ClientError> {
        let channel = Channel::new(base, credentials)?;
        Ok(Self {
            channel,
            login,
            token: None,
        })
    }

    /// Logs in.
    pub async fn login(&mut self) -> Result<(), ClientError> {
        let (url, call) = self.channel.call(Method::POST, "/login", PATIENCE);
        let answer = send(url, call.json(&self.login)).await?;
        self.token = Some(answer.json::<AccessToken>()?.access_token);
        Ok(())
    }

    /// Calls with a token. A 401 means that the token has run out: one new login, one more try.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        patience: Duration,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, ClientError> {
        let fresh = self.token.is_none();
        if fresh {
            self.login().await?;
        }
        let answer = self.once(method.clone(), path, patience, &build).await;
        match answer {
            Err(ClientError::Refused { status: 401, .. }) if !fresh => {
                self.login().await?;
                self.once(method, path, patience, &build).await
            }
            answer => answer,
        }
    }

    async fn once(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, ClientError> {
        let (url, call) = self.channel.call(method, path, patience);
        let call = match &self.token {
            Some(token) => call.bearer_auth(token.expose()),
            None => call,
        };
        send(url, build(call)).await
    }

    /// Asks for a certificate with a request document (HVCA `POST /certificates`), and waits for it up to `wait`.
    pub async fn issue(
        &mut self,
        request: &serde_json::Value,
        wait: Duration,
        idempotency_key: Option<&str>,
    ) -> Result<Requested, ClientError> {
        let build = |call: RequestBuilder| {
            let mut call = call.json(request);
            if !wait.is_zero() {
                call = call.header("Prefer", format!("wait={}", wait.as_secs().max(1)));
            }
            match idempotency_key {
                Some(key) => call.header("Idempotency-Key", key),
                None => call,
            }
        };
        let answer = self.call(Method::POST, "/certificates", PATIENCE + wait, build).await?;
        let serial = answer
            .location
            .as_deref()
            .and_then(|location| location.rsplit('/').next());
        let serial = serial
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| answer.unexpected("no serial in Location"))?;
        let certificate = if answer.body.is_empty() {
            None
        } else {
            Some(answer.json()?)
        };
        Ok(Requested { serial, certificate })
    }

    /// Reads a certificate; `None` while it is being made.
    pub async fn certificate(&mut self, serial: Serial) -> Result<Option<CertificateDocument>, ClientError> {
        let answer = self
            .call(Method::GET, &format!("/certificates/{serial}"), PATIENCE, |call| call)
            .await?;
        if answer.status == StatusCode::ACCEPTED {
            return Ok(None);
        }
        answer.json().map(Some)
    }

    /// Revokes a certificate.
    pub async fn revoke(&mut self, serial: Serial, reason: RevocationReason) -> Result<(), ClientError> {
        let body = Revoke {
            revocation_reason: reason,
            revocation_time: None,
            key_compromise_attestation: None,
        };
        let path = format!("/certificates/{serial}");
        self.call(Method::PATCH, &path, PATIENCE, |call| call.json(&body))
            .await
            .map(|_| ())
    }

    /// The chain, issuing CA first, PEM.
    pub async fn trust_chain(&mut self) -> Result<Vec<String>, ClientError> {
        self.read("/trustchain").await
    }

    /// The validation policy.
    pub async fn validation_policy(&mut self) -> Result<serde_json::Value, ClientError> {
        self.read("/validationpolicy").await
    }

    /// How many more certificates the account may have issued.
    pub async fn quota(&mut self) -> Result<u64, ClientError> {
        self.read::<Value>("/quotas/issuance").await.map(|value| value.value)
    }

    /// Reads any document of the API by its path below the base.
    pub async fn read<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, PATIENCE, |call| call).await?.json()
    }
}

/// A client of the operators' API ([`crate::admin`]), which knows its caller by the client certificate.
#[derive(Debug)]
pub struct AdminClient(Channel);

impl AdminClient {
    /// A client. `base` is the ready-file's `admin_url`.
    pub fn new(base: &str, credentials: &Credentials<'_>) -> Result<Self, ClientError> {
        Channel::new(base, credentials).map(Self)
    }

    /// Reads a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (url, call) = self.0.call(Method::GET, path, PATIENCE);
        send(url, call).await?.json()
    }

    /// Reads a document with a query.
    pub async fn query<Q: Serialize, T: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<T, ClientError> {
        let (url, call) = self.0.call(Method::GET, path, PATIENCE);
        send(url, call.query(query)).await?.json()
    }

    /// Asks for a change.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        let (url, call) = self.0.call(Method::POST, path, PATIENCE);
        send(url, call.json(body)).await?.json()
    }
}
