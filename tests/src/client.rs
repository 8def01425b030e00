//! A REST client of the scenarios' own: it shares nothing with the program but the contract.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

/// A key and what is asked for it.
#[derive(Debug)]
pub struct Key {
    pair: KeyPair,
}

impl Key {
    /// A fresh P-256 key.
    pub fn p256() -> Result<Self> {
        Ok(Self {
            pair: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        })
    }

    /// A fresh RSA key of 2048 bits, which takes its time.
    pub fn rsa2048() -> Result<Self> {
        Ok(Self {
            pair: KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?,
        })
    }

    /// DER SubjectPublicKeyInfo.
    pub fn public_key(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.pair.subject_public_key_info()
    }

    /// A PKCS#10 request in PEM, signed now.
    pub fn request(&self, name: &str) -> Result<String> {
        let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        Ok(parameters.serialize_request(&self.pair)?.pem()?)
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
    /// JSON body, or null.
    pub body: Value,
}

impl Answer {
    /// The serial that `Location` ends with.
    pub fn serial(&self) -> Result<&str> {
        let location = self
            .location
            .as_deref()
            .with_context(|| format!("no Location in {self:?}"))?;
        location.rsplit('/').next().context("an empty Location")
    }
}

/// An API client with one account's credentials.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    api_key: String,
    api_secret: String,
    token: Option<String>,
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("the ready-file has no text {key}"))
}

impl Client {
    /// A client for the account at `position` of a ready-file.
    pub fn new(ready: &Value, position: usize) -> Result<Self> {
        // The second time, it is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut identity = fs::read(text(ready, "client_cert_file")?)?;
        identity.extend(fs::read(text(ready, "client_key_file")?)?);
        let authority = reqwest::Certificate::from_pem(&fs::read(text(ready, "tls_ca_file")?)?)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([authority])
            .identity(reqwest::Identity::from_pem(&identity)?)
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()?;
        let account = &ready["accounts"][position];
        Ok(Self {
            http,
            base: text(ready, "url")?.to_owned(),
            api_key: text(account, "api_key")?.to_owned(),
            api_secret: text(account, "api_secret")?.to_owned(),
            token: None,
        })
    }

    /// The same client certificate and the same connections, for another account, which has not logged in.
    #[must_use]
    pub fn of_account(&self, api_key: &str, api_secret: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            api_secret: api_secret.to_owned(),
            token: None,
            ..self.clone()
        }
    }

    /// Logs in and keeps the token.
    pub async fn login(&mut self) -> Result<()> {
        let body = json!({"api_key": self.api_key, "api_secret": self.api_secret});
        let answer = self
            .send(self.http.post(format!("{}/login", self.base)).json(&body))
            .await?;
        ensure!(answer.status == 200, "login: {answer:?}");
        self.token = Some(text(&answer.body, "access_token")?.to_owned());
        Ok(())
    }

    /// The bearer token of the last login.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Asks for a certificate. `headers` are added to the request.
    pub async fn post(&self, request: &str, name: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let body = json!({
            "validity": {"not_before": 0, "not_after": 0},
            "subject_dn": {"common_name": name},
            "san": {"dns_names": [name]},
            "public_key": request,
        });
        let mut call = self
            .authorised(self.http.post(format!("{}/certificates", self.base)))
            .json(&body);
        for (header, value) in headers {
            call = call.header(*header, *value);
        }
        self.send(call).await
    }

    /// Reads a path below the base.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.authorised(self.http.get(format!("{}{path}", self.base))))
            .await
    }

    /// Reads a certificate until it is there: DER.
    pub async fn certificate(&self, serial: &str, patience: Duration) -> Result<Vec<u8>> {
        let begun = std::time::Instant::now();
        loop {
            let answer = self.get(&format!("/certificates/{serial}")).await?;
            match answer.status {
                200 => return Ok(pki::pem::decode("CERTIFICATE", text(&answer.body, "certificate")?)?),
                // Not there yet, or the ledger was too busy to say: come back.
                202 | 503 if begun.elapsed() < patience => tokio::time::sleep(Duration::from_millis(100)).await,
                _ => bail!("GET {serial}: {answer:?}"),
            }
        }
    }

    fn authorised(&self, call: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        }
    }

    async fn send(&self, call: reqwest::RequestBuilder) -> Result<Answer> {
        let response = call.send().await?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (location, retry_after) = (
            header("location"),
            header("retry-after").and_then(|text| text.parse().ok()),
        );
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).context("a body that is not JSON")?
        };
        Ok(Answer {
            status,
            location,
            retry_after,
            body,
        })
    }
}
