//! The certificate API, as an account calls it.

use std::time::Duration;

use domain::{id::Serial, job::RevocationReason, policy::Policy};
use reqwest::{Method, RequestBuilder, StatusCode};
use tokio::sync::Mutex;

use super::{Answer, Caller, ClientError, TlsFiles};
use crate::{
    hvca::{
        AccessToken, CertificateDocument, CertificateRequest, Login, Rekey, Revoke, Secret, StatisticsEntry, Value,
    },
    problem::ProblemId,
};

/// How often a certificate that is being made is asked for.
const POLL: Duration = Duration::from_millis(250);

/// What a request asks for besides the certificate.
#[derive(Debug, Clone, Copy, Default)]
pub struct IssueOptions<'a> {
    /// How long to wait for the certificate (`Prefer: wait`), in whole seconds.
    pub wait: Option<Duration>,
    /// The request's own name, so that it is never made twice.
    pub idempotency_key: Option<&'a str>,
}

/// A request that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The serial of the certificate that is or will be.
    pub serial: Serial,
    /// The certificate, if it was waited for and ready in time.
    pub certificate: Option<CertificateDocument>,
}

/// A client of the certificate API. It logs in when it must: at first, and once more when its token has run out.
#[derive(Debug)]
pub struct HvcaClient {
    caller: Caller,
    login: Login,
    token: Mutex<Option<Secret>>,
}

impl HvcaClient {
    /// A client for the API at `base`, which ends in `/v2`.
    pub fn new(base: &str, files: &TlsFiles<'_>, login: Login) -> Result<Self, ClientError> {
        Ok(Self {
            caller: Caller::new(base, files)?,
            login,
            token: Mutex::new(None),
        })
    }

    /// Logs in anew. The token is kept, and shown to who needs it elsewhere.
    pub async fn log_in(&self) -> Result<Secret, ClientError> {
        let mut token = self.token.lock().await;
        self.log_in_to(&mut token).await
    }

    async fn log_in_to(&self, token: &mut Option<Secret>) -> Result<Secret, ClientError> {
        let request = self.caller.request_with(Method::POST, "/login", &self.login);
        let AccessToken { access_token } = self.caller.read(request).await?;
        *token = Some(access_token.clone());
        Ok(access_token)
    }

    /// The token in use; another one than `refused` if that is given. Whoever comes while another logs in takes that one's token.
    async fn token(&self, refused: Option<&Secret>) -> Result<Secret, ClientError> {
        let mut token = self.token.lock().await;
        match &*token {
            Some(token) if Some(token) != refused => Ok(token.clone()),
            _ => self.log_in_to(&mut token).await,
        }
    }

    async fn call(&self, request: impl Fn() -> RequestBuilder) -> Result<Answer, ClientError> {
        let token = self.token(None).await?;
        match self.caller.send(request().bearer_auth(token.expose())).await {
            Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED.as_u16()) => {
                let token = self.token(Some(&token)).await?;
                self.caller.send(request().bearer_auth(token.expose())).await
            }
            answer => answer,
        }
    }

    async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(|| self.caller.request(Method::GET, path)).await
    }

    /// Asks for a certificate.
    pub async fn issue(
        &self,
        request: &CertificateRequest,
        options: IssueOptions<'_>,
    ) -> Result<Submitted, ClientError> {
        let answer = self
            .call(|| {
                Self::with_options(
                    self.caller.request_with(Method::POST, "/certificates", request),
                    options,
                )
            })
            .await?;
        Self::submitted(&answer)
    }

    /// Asks for a certificate for which there is time, and waits for it with the request if the server thinks that worthwhile: where it
    /// refuses to have anybody wait, the certificate is asked for all the same, to be fetched when it is there.
    pub async fn issue_in_time(&self, request: &CertificateRequest, wait: Duration) -> Result<Submitted, ClientError> {
        let options = IssueOptions {
            wait: Some(wait),
            ..IssueOptions::default()
        };
        match self.issue(request, options).await {
            Err(error) if matches!(error.id(), Some(ProblemId::Overloaded | ProblemId::IssuerUnavailable)) => {
                self.issue(request, IssueOptions::default()).await
            }
            answer => answer,
        }
    }

    /// Asks for the same certificate for another key.
    pub async fn rekey(
        &self,
        serial: Serial,
        rekey: &Rekey,
        options: IssueOptions<'_>,
    ) -> Result<Submitted, ClientError> {
        let path = format!("/certificates/{serial}/rekey");
        let answer = self
            .call(|| Self::with_options(self.caller.request_with(Method::POST, &path, rekey), options))
            .await?;
        Self::submitted(&answer)
    }

    fn with_options(mut request: RequestBuilder, options: IssueOptions<'_>) -> RequestBuilder {
        if let Some(wait) = options.wait {
            request = request
                .header("Prefer", format!("wait={}", wait.as_secs()))
                .timeout(super::TIMEOUT + wait);
        }
        if let Some(key) = options.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        request
    }

    fn submitted(answer: &Answer) -> Result<Submitted, ClientError> {
        let location = answer
            .header("location")
            .and_then(|location| location.rsplit('/').next());
        let serial = location.and_then(|serial| serial.parse().ok());
        let serial = serial.ok_or_else(|| answer.unexpected("it does not say where the certificate will be"))?;
        let ready = answer.header("preference-applied").is_some() && !answer.body.is_empty();
        let certificate = if ready { Some(answer.json()?) } else { None };
        Ok(Submitted { serial, certificate })
    }

    /// A certificate; `None` while it is being made.
    pub async fn certificate(&self, serial: Serial) -> Result<Option<CertificateDocument>, ClientError> {
        let answer = self.get(&format!("/certificates/{serial}")).await?;
        if answer.status() == StatusCode::ACCEPTED {
            Ok(None)
        } else {
            answer.json().map(Some)
        }
    }

    /// A certificate as soon as it is made; `None` if it takes longer than `limit`.
    pub async fn certificate_within(
        &self,
        serial: Serial,
        limit: Duration,
    ) -> Result<Option<CertificateDocument>, ClientError> {
        let polling = async {
            loop {
                if let Some(certificate) = self.certificate(serial).await? {
                    return Ok(certificate);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(limit, polling).await.ok().transpose()
    }

    /// Revokes a certificate.
    pub async fn revoke(&self, serial: Serial, revoke: &Revoke) -> Result<(), ClientError> {
        let path = format!("/certificates/{serial}");
        self.call(|| self.caller.request_with(Method::PATCH, &path, revoke))
            .await
            .map(drop)
    }

    /// Revokes a certificate now, for this reason.
    pub async fn revoke_now(&self, serial: Serial, reason: RevocationReason) -> Result<(), ClientError> {
        let revoke = Revoke {
            revocation_reason: reason,
            revocation_time: None,
            key_compromise_attestation: None,
        };
        self.revoke(serial, &revoke).await
    }

    /// What may be asked for.
    pub async fn policy(&self) -> Result<Policy, ClientError> {
        self.get("/validationpolicy").await?.json()
    }

    /// The issuer's chain, PEM: its own certificate first, the root last.
    pub async fn trust_chain(&self) -> Result<Vec<String>, ClientError> {
        self.get("/trustchain").await?.json()
    }

    /// A counter: `certificates/issued` or `certificates/revoked`.
    pub async fn counter(&self, name: &str) -> Result<u64, ClientError> {
        let Value { value } = self.get(&format!("/counters/{name}")).await?.json()?;
        Ok(value)
    }

    /// How many more certificates the account may have issued.
    pub async fn quota(&self) -> Result<u64, ClientError> {
        let Value { value } = self.get("/quotas/issuance").await?.json()?;
        Ok(value)
    }

    /// One page of a statistics window, and how many entries there are in all. `name` is `issued`, `revoked` or `expiring`.
    pub async fn statistics(
        &self,
        name: &str,
        query: &[(&str, i64)],
    ) -> Result<(Vec<StatisticsEntry>, u64), ClientError> {
        let path = format!("/stats/{name}");
        let answer = self
            .call(|| self.caller.request(Method::GET, &path).query(query))
            .await?;
        let total = answer.header("total-count").and_then(|total| total.parse().ok());
        let total = total.ok_or_else(|| answer.unexpected("it has no Total-Count"))?;
        Ok((answer.json()?, total))
    }
}
