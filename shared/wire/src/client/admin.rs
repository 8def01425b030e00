//! The operators' API, as an operator's command calls it.

use domain::{
    id::{IssuerId, ProfileId, Serial},
    issuer::Profile,
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{Caller, ClientError, TlsFiles};
use crate::admin::{
    AccountDocument, AddAccount, Because, CertificateDocument, Changed, Csr, GenerateKey, IssuerDocument, JobDetail,
    JobDocument, JobQuery, KeyReport, LaneDocument, MakeCsr, NewAccount, NodeDocument, OperatorDocument, PutProfile,
    RegisterIssuer, Revocation, Revoke,
};
use crate::enrol::{Invite, Invited};
use crate::operate::{
    BindIssuer, FleetDocument, ForceBreaker, ForcedBreaker, IssuerBreakers, MarkDestroyed, MarkedDestroyed,
};

/// A client of the operators' API. Its certificate says who the operator is.
#[derive(Debug, Clone)]
pub struct AdminClient {
    caller: Caller,
}

impl AdminClient {
    /// A client for the API at `base`.
    pub fn new(base: &str, files: &TlsFiles<'_>) -> Result<Self, ClientError> {
        Ok(Self {
            caller: Caller::new(base, files)?,
        })
    }

    /// Reads any document of the API.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.caller.read(self.caller.request(Method::GET, path)).await
    }

    /// Posts any document of the API.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.caller
            .read(self.caller.request_with(Method::POST, path, body))
            .await
    }

    /// Invites a node.
    pub async fn invite_node(&self, invite: &Invite) -> Result<Invited, ClientError> {
        self.post("/v1/nodes/invitations", invite).await
    }

    /// Every issuer.
    pub async fn issuers(&self) -> Result<Vec<IssuerDocument>, ClientError> {
        self.get("/v1/issuers").await
    }

    /// One issuer.
    pub async fn issuer(&self, id: &IssuerId) -> Result<IssuerDocument, ClientError> {
        self.get(&format!("/v1/issuers/{id}")).await
    }

    /// Registers an issuer.
    pub async fn register_issuer(&self, request: &RegisterIssuer) -> Result<Changed, ClientError> {
        self.post("/v1/issuers", request).await
    }

    /// Takes issuance away from an issuer.
    pub async fn disable_issuer(&self, id: &IssuerId, because: &Because) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/issuers/{id}/disable"), because).await
    }

    /// Gives it back.
    pub async fn enable_issuer(&self, id: &IssuerId, because: &Because) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/issuers/{id}/enable"), because).await
    }

    /// Binds an issuer to another token that holds its key.
    pub async fn bind_issuer(&self, id: &IssuerId, request: &BindIssuer) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/issuers/{id}/bind"), request).await
    }

    /// Marks an issuer as destroyed, or says what that would touch.
    pub async fn mark_issuer_destroyed(
        &self,
        id: &IssuerId,
        request: &MarkDestroyed,
    ) -> Result<MarkedDestroyed, ClientError> {
        self.post(&format!("/v1/issuers/{id}/mark-destroyed"), request).await
    }

    /// Makes a key on a token.
    pub async fn generate_key(&self, request: &GenerateKey) -> Result<KeyReport, ClientError> {
        self.post("/v1/keys", request).await
    }

    /// Makes a certificate signing request with a key on a token.
    pub async fn make_csr(&self, request: &MakeCsr) -> Result<Csr, ClientError> {
        self.post("/v1/keys/csr", request).await
    }

    /// Every profile.
    pub async fn profiles(&self) -> Result<Vec<Profile>, ClientError> {
        self.get("/v1/profiles").await
    }

    /// One profile.
    pub async fn profile(&self, id: &ProfileId) -> Result<Profile, ClientError> {
        self.get(&format!("/v1/profiles/{id}")).await
    }

    /// Puts a profile in: new, or the next version of one.
    pub async fn put_profile(&self, request: &PutProfile) -> Result<Changed, ClientError> {
        self.post("/v1/profiles", request).await
    }

    /// Every account.
    pub async fn accounts(&self) -> Result<Vec<AccountDocument>, ClientError> {
        self.get("/v1/accounts").await
    }

    /// Makes an account.
    pub async fn add_account(&self, request: &AddAccount) -> Result<NewAccount, ClientError> {
        self.post("/v1/accounts", request).await
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobDocument>, ClientError> {
        self.caller
            .read(self.caller.request(Method::GET, "/v1/jobs").query(query))
            .await
    }

    /// One job and what happened to it.
    pub async fn job(&self, serial: Serial) -> Result<JobDetail, ClientError> {
        self.get(&format!("/v1/jobs/{serial}")).await
    }

    /// Every lane that has a switch set or an open job.
    pub async fn lanes(&self) -> Result<Vec<LaneDocument>, ClientError> {
        self.get("/v1/lanes").await
    }

    /// One certificate, of whatever account.
    pub async fn certificate(&self, serial: Serial) -> Result<CertificateDocument, ClientError> {
        self.get(&format!("/v1/certificates/{serial}")).await
    }

    /// Revokes a certificate, of whatever account.
    pub async fn revoke(&self, serial: Serial, request: &Revoke) -> Result<Revocation, ClientError> {
        self.post(&format!("/v1/certificates/{serial}/revoke"), request).await
    }

    /// Every process that has announced itself lately.
    pub async fn fleet(&self) -> Result<Vec<FleetDocument>, ClientError> {
        self.get("/v1/fleet").await
    }

    /// Issuers whose breakers are forced, or not closed somewhere.
    pub async fn breakers(&self) -> Result<Vec<IssuerBreakers>, ClientError> {
        self.get("/v1/breakers").await
    }

    /// Orders an issuer's breakers.
    pub async fn force_breaker(&self, issuer: &IssuerId, request: &ForceBreaker) -> Result<ForcedBreaker, ClientError> {
        self.post(&format!("/v1/breakers/{issuer}/force"), request).await
    }

    /// Every operator.
    pub async fn operators(&self) -> Result<Vec<OperatorDocument>, ClientError> {
        self.get("/v1/operators").await
    }

    /// Every node.
    pub async fn nodes(&self) -> Result<Vec<NodeDocument>, ClientError> {
        self.get("/v1/nodes").await
    }
}
