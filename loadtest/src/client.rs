//! A client of the certificate API that costs little: one HTTP/1.1 connection per worker, kept alive, over mutual TLS.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Deref,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use domain::{
    issuer::Api,
    key::KeyType,
    policy::{KeyFormat, PublicKeyPolicy},
};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use runtime::context_file::{AccountEntry, ContextFile};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::subject::Csr;

/// Tokens live a little over ten minutes.
const LOGIN_EVERY: Duration = Duration::from_mins(8);
/// How long an answer may take beyond the time that the server was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A login as one account, and the runtime on which requests are made.
pub struct Session {
    runtime: Runtime,
    access: Access,
}

impl Deref for Session {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

/// A login as one account at each front end.
pub struct Access {
    /// The account.
    pub account: String,
    /// Its issuer.
    pub issuer: String,
    /// The type of key that its policy wants; the first, if it allows several.
    pub key_type: KeyType,
    format: KeyFormat,
    endpoints: Vec<Arc<Endpoint>>,
}

/// Where requests go, and as whom.
pub struct Endpoint {
    url: Uri,
    address: SocketAddr,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    authority: HeaderValue,
    certificates: Uri,
    prefer: HeaderValue,
    time_limit: Duration,
    token: RwLock<HeaderValue>,
}

/// What came of a request for a certificate.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Whether the certificate is in the body.
    pub ready: bool,
    /// Serial, if there is a `Location`.
    pub serial: Option<String>,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// Why the certificate is not in it: the problem's id, or what else there is to say.
    pub fn reason(&self) -> String {
        #[derive(Deserialize)]
        struct Problem {
            id: Option<String>,
        }
        if self.status == StatusCode::CREATED {
            return "(accepted, not issued in time)".to_owned();
        }
        let problem = serde_json::from_slice::<Problem>(&self.body).ok();
        let id = problem.and_then(|problem| problem.id);
        id.unwrap_or_else(|| format!("(HTTP {})", self.status.as_u16()))
    }
}

impl Session {
    /// Reads the context file, logs in, and reads the policy. Where the file names no front end, or there are several, `urls` are theirs.
    pub fn open(context: &Path, urls: &[String], account: Option<&str>, threads: usize, wait: u32) -> Result<Self> {
        let context = ContextFile::load(context)?;
        let account = choose(&context.accounts, account)?;
        let urls = match urls {
            [] => vec![context.url.clone().context("the context file has no `url`")?],
            urls => urls.to_vec(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?;
        let access = runtime.block_on(Access::open(&context, &urls, &account, wait))?;
        Ok(Self { runtime, access })
    }

    /// Runs to the end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

impl Access {
    /// Logs in at each of these front ends, stays logged in, and reads the policy.
    pub async fn open(context: &ContextFile, urls: &[String], account: &AccountEntry, wait: u32) -> Result<Self> {
        let endpoints = urls.iter().map(|url| Ok(Arc::new(Endpoint::new(context, url, wait)?)));
        let endpoints: Vec<_> = endpoints.collect::<Result<_>>()?;
        let mut policy = None;
        for endpoint in &endpoints {
            let mut connection = Connection::open(endpoint.clone()).await?;
            connection.log_in(account).await.context("login")?;
            policy = Some(connection.policy().await.context("validation policy")?);
            tokio::spawn(stay_logged_in(endpoint.clone(), account.clone()));
        }
        let (key_type, format) = policy.context("there is no front end")?;
        Ok(Self {
            account: account.name.clone(),
            issuer: account.issuer.clone(),
            key_type,
            format,
            endpoints,
        })
    }

    /// Where the connection of this number makes its requests: they are spread over the front ends.
    pub fn endpoint(&self, number: usize) -> Arc<Endpoint> {
        self.endpoints[number % self.endpoints.len()].clone()
    }

    /// The first front end's port.
    pub fn port(&self) -> u16 {
        self.endpoints[0].address.port()
    }

    /// The JSON of a request for a certificate, from now on and for as long as the policy allows.
    pub fn body(&self, csr: &Csr) -> Bytes {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let public_key = match self.format {
            KeyFormat::Pkcs10 => csr.pem.clone(),
            KeyFormat::Pkcs8 => pki::pem::encode("PUBLIC KEY", &csr.spki),
        };
        let json = serde_json::json!({
            "validity": { "not_before": now.as_secs(), "not_after": 0 },
            "subject_dn": { "common_name": csr.name },
            "san": { "dns_names": [csr.name, format!("www.{}", csr.name)] },
            "public_key": public_key,
        });
        json.to_string().into()
    }

    /// Checks that these answers hold certificates for the keys that were requested.
    pub fn verify(&self, samples: &[(usize, Bytes)], bodies: &[Bytes]) -> Result<()> {
        #[derive(Deserialize)]
        struct Issued {
            certificate: String,
        }
        #[derive(Deserialize)]
        struct Requested {
            public_key: String,
        }
        for (number, answer) in samples {
            let issued: Issued = serde_json::from_slice(answer).context("an answer without a certificate")?;
            let certificate = pki::pem::decode("CERTIFICATE", &issued.certificate)?;
            let facts = pki::certificate::read(&certificate)?;
            let requested: Requested = serde_json::from_slice(&bodies[*number])?;
            let requested = pki::csr::read(&requested.public_key, self.format)?;
            ensure!(
                facts.public_key == requested.spki,
                "request {number} brought a certificate for another key"
            );
        }
        Ok(())
    }
}

fn choose(accounts: &[AccountEntry], name: Option<&str>) -> Result<AccountEntry> {
    let mut certificates = accounts.iter().filter(|account| account.api == Api::Hvca);
    let found = match name {
        Some(name) => certificates.find(|account| account.name == name),
        None => certificates.next(),
    };
    found.cloned().with_context(|| {
        let names: Vec<_> = accounts.iter().map(|account| account.name.as_str()).collect();
        format!("no such account for certificates; there are: {}", names.join(", "))
    })
}

async fn stay_logged_in(endpoint: Arc<Endpoint>, account: AccountEntry) {
    loop {
        tokio::time::sleep(LOGIN_EVERY).await;
        let renewed = async { Connection::open(endpoint.clone()).await?.log_in(&account).await };
        if let Err(error) = renewed.await {
            eprintln!("cannot log in again: {error:#}");
        }
    }
}

impl Endpoint {
    fn new(context: &ContextFile, url: &str, wait: u32) -> Result<Self> {
        let url: Uri = url
            .trim_end_matches('/')
            .parse()
            .with_context(|| format!("{url} is no URL"))?;
        let host = url.host().with_context(|| format!("{url} has no host"))?;
        let port = url.port_u16().unwrap_or(443);
        let address = std::net::ToSocketAddrs::to_socket_addrs(&(host.trim_matches(['[', ']']), port))
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        ensure!(
            address.ip().is_loopback(),
            "{address} is not on this machine: load goes to the loopback interface only"
        );
        let server_name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        Ok(Self {
            address,
            server_name,
            tls: TlsConnector::from(Arc::new(tls(context)?)),
            authority: HeaderValue::from_str(url.authority().context("`url` has no authority")?.as_str())?,
            certificates: format!("{}/certificates", url.path()).parse()?,
            prefer: HeaderValue::from_str(&format!("wait={wait}"))?,
            time_limit: Duration::from_secs(wait.into()) + PATIENCE,
            token: RwLock::new(HeaderValue::from_static("")),
            url,
        })
    }
}

fn tls(context: &ContextFile) -> Result<ClientConfig> {
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| anyhow!("{}: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in read(&context.tls_ca_file)? {
        roots.add(certificate)?;
    }
    let key = PrivateKeyDer::from_pem_file(&context.client_key_file)
        .map_err(|error| anyhow!("{}: {error}", context.client_key_file.display()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(&context.client_cert_file)?, key)?;
    Ok(config)
}

/// One connection, one request at a time.
pub struct Connection {
    endpoint: Arc<Endpoint>,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects, with both certificates.
    pub async fn open(endpoint: Arc<Endpoint>) -> Result<Self> {
        let connect = async {
            let stream = TcpStream::connect(endpoint.address).await.context("connect")?;
            stream.set_nodelay(true)?;
            let stream = endpoint
                .tls
                .connect(endpoint.server_name.clone(), stream)
                .await
                .context("TLS handshake")?;
            http1::handshake(TokioIo::new(stream)).await.context("HTTP handshake")
        };
        let (sender, connection) = timeout(PATIENCE, connect)
            .await
            .with_context(|| format!("{} does not answer", endpoint.address))??;
        tokio::spawn(async move {
            // Whoever waits for an answer on it is told.
            let _ = connection.await;
        });
        Ok(Self { endpoint, sender })
    }

    /// Where it leads.
    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    fn request(&self, method: Method, uri: Uri) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, self.endpoint.authority.clone())
    }

    fn token(&self) -> HeaderValue {
        self.endpoint
            .token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn log_in(&mut self, account: &AccountEntry) -> Result<()> {
        let uri = format!("{}/login", self.endpoint.url.path()).parse()?;
        let body = serde_json::json!({ "api_key": account.api_key, "api_secret": account.api_secret });
        let request = self
            .request(Method::POST, uri)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        let answer: HashMap<String, String> = serde_json::from_slice(&self.expect_ok(request).await?)?;
        let token = answer.get("access_token").context("no access_token in the answer")?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        *self.endpoint.token.write().unwrap_or_else(PoisonError::into_inner) = bearer;
        Ok(())
    }

    async fn policy(&mut self) -> Result<(KeyType, KeyFormat)> {
        #[derive(Deserialize)]
        struct Policy {
            public_key: PublicKeyPolicy,
        }
        let uri = format!("{}/validationpolicy", self.endpoint.url.path()).parse()?;
        let request = self
            .request(Method::GET, uri)
            .header(AUTHORIZATION, self.token())
            .body(Full::default())?;
        let policy: Policy = serde_json::from_slice(&self.expect_ok(request).await?)?;
        let key_type = policy.public_key.pins().into_iter().next();
        let key_type = key_type.context("the policy allows no type of key that can be made here")?;
        Ok((key_type, policy.public_key.key_format))
    }

    async fn expect_ok(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let exchange = async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if status != StatusCode::OK {
                bail!("{status}: {}", String::from_utf8_lossy(&body));
            }
            Ok(body)
        };
        timeout(PATIENCE, exchange).await.context("no answer in time")?
    }

    /// Requests a certificate and waits for it as long as the server was asked to.
    pub async fn issue(&mut self, body: Bytes) -> Result<Answer> {
        let request = self
            .request(Method::POST, self.endpoint.certificates.clone())
            .header(AUTHORIZATION, self.token())
            .header(CONTENT_TYPE, "application/json;charset=utf-8")
            .header("prefer", self.endpoint.prefer.clone())
            .body(Full::new(body))?;
        let limit = self.endpoint.time_limit;
        let exchange = async {
            let response = self.send(request).await?;
            let status = response.status();
            let ready = status == StatusCode::CREATED && response.headers().contains_key("preference-applied");
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let serial = location
                .and_then(|location| location.rsplit('/').next())
                .map(str::to_owned);
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Answer {
                status,
                ready,
                serial,
                body,
            })
        };
        timeout(limit, exchange).await.context("no answer in time")?
    }
}
