//! The running installation, as a command speaks to it: the context file, the operator who acts, and what their refusals mean here.

use std::path::{Path, PathBuf};

use domain::{
    id::{AccountId, IssuerId, ProfileId, Serial},
    issuer::{Api, Profile},
};
use runtime::context_file::{AccountEntry, ContextFile};
use serde::{Serialize, de::DeserializeOwned};
use wire::{
    admin::{
        AccountDocument, AddAccount, Because, CertificateDocument, Changed, Csr, GenerateKey, IssuerDocument,
        JobDetail, JobDocument, JobQuery, KeyReport, LaneDocument, MakeCsr, NewAccount, NodeDocument,
        OperatorDocument, PutProfile, RegisterIssuer, Revocation, Revoke,
    },
    client::{AdminClient, ClientError, Credentials, HvcaClient},
    hvca::{Login, Secret},
};

use crate::{
    cli::Common,
    failure::{Failure, Outcome},
};

/// The context file, and where it is.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) context: ContextFile,
}

impl Place {
    pub(super) fn find(common: &Common) -> Outcome<Self> {
        let path = ContextFile::locate(common.context.as_deref());
        match ContextFile::load(&path) {
            Ok(context) => Ok(Self { path, context }),
            Err(error) => Err(Failure::failed(error)),
        }
    }

    /// A client of the certificate API for the named account, or for the first one.
    pub(super) fn account(&self, name: Option<&AccountId>) -> Outcome<HvcaClient> {
        let entry = self.entry(name)?;
        let url = self.context.url.as_deref().ok_or_else(|| self.not_served("url"))?;
        let files = Files::read(&self.context.tls_ca_file, &self.context.client_cert_file, &self.context.client_key_file)?;
        let login = Login {
            api_key: entry.api_key.clone(),
            api_secret: Secret::new(entry.api_secret.clone()),
        };
        HvcaClient::new(url, &files.credentials(), login).map_err(failure)
    }

    fn entry(&self, name: Option<&AccountId>) -> Outcome<&AccountEntry> {
        let mut accounts = self.context.accounts.iter().filter(|account| account.api == Api::Hvca);
        let found = match name {
            None => accounts.next(),
            Some(name) => accounts.find(|account| account.name == name.as_str()),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = self.context.accounts.iter().map(|account| account.name.as_str()).collect();
            let wanted = name.map_or_else(|| "one".to_owned(), ToString::to_string);
            Failure::usage(format_args!(
                "{} has no credentials of account {wanted}; it has: {}",
                self.path.display(),
                names.join(", ")
            ))
            .next("`bulkhead account add NAME --save` enters them when the account is made")
        })
    }

    fn not_served(&self, key: &str) -> Failure {
        Failure::failed(format_args!("{} has no {key}: the installation does not serve it", self.path.display()))
    }
}

/// PEM files of a client.
struct Files {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(authority: &Path, certificate: &Path, key: &Path) -> Outcome<Self> {
        Ok(Self {
            authority: super::files::read(authority)?,
            certificate: super::files::read(certificate)?,
            key: super::files::read(key)?,
        })
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            server_authority: &self.authority,
            certificate: &self.certificate,
            private_key: &self.key,
        }
    }
}

/// The operators' API. Its calls are the lines of the table in `wire::admin`.
pub(super) struct Session(AdminClient);

impl Session {
    /// The API, as the operator of `--as` or the context file's first.
    pub(super) fn open(common: &Common) -> Outcome<Self> {
        Self::at(&Place::find(common)?, common)
    }

    pub(super) fn at(place: &Place, common: &Common) -> Outcome<Self> {
        let context = &place.context;
        let operator = match &common.operator {
            None => context.operators.first(),
            Some(name) => context.operators.iter().find(|operator| operator.name == name.as_str()),
        };
        let operator = operator.ok_or_else(|| {
            let names: Vec<_> = context.operators.iter().map(|operator| operator.name.as_str()).collect();
            Failure::usage(format_args!("--as: {} has these operators: {}", place.path.display(), names.join(", ")))
        })?;
        let url = context.admin_url.as_deref().ok_or_else(|| place.not_served("admin_url"))?;
        let files = Files::read(&context.tls_ca_file, &operator.cert_file, &operator.key_file)?;
        AdminClient::new(url, &files.credentials()).map(Self).map_err(failure)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        self.0.get(path).await.map_err(failure)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Outcome<T> {
        self.0.post(path, body).await.map_err(failure)
    }

    pub(super) async fn issuers(&self) -> Outcome<Vec<IssuerDocument>> {
        self.get("/v1/issuers").await
    }

    pub(super) async fn issuer(&self, id: &IssuerId) -> Outcome<IssuerDocument> {
        self.get(&format!("/v1/issuers/{id}")).await
    }

    pub(super) async fn register_issuer(&self, request: &RegisterIssuer) -> Outcome<Changed> {
        self.post("/v1/issuers", request).await
    }

    pub(super) async fn disable_issuer(&self, id: &IssuerId, because: &Because) -> Outcome<Changed> {
        self.post(&format!("/v1/issuers/{id}/disable"), because).await
    }

    pub(super) async fn enable_issuer(&self, id: &IssuerId, because: &Because) -> Outcome<Changed> {
        self.post(&format!("/v1/issuers/{id}/enable"), because).await
    }

    pub(super) async fn generate_key(&self, request: &GenerateKey) -> Outcome<KeyReport> {
        self.post("/v1/keys", request).await
    }

    pub(super) async fn make_csr(&self, request: &MakeCsr) -> Outcome<Csr> {
        self.post("/v1/keys/csr", request).await
    }

    pub(super) async fn profiles(&self) -> Outcome<Vec<Profile>> {
        self.get("/v1/profiles").await
    }

    pub(super) async fn profile(&self, id: &ProfileId) -> Outcome<Profile> {
        self.get(&format!("/v1/profiles/{id}")).await
    }

    pub(super) async fn put_profile(&self, request: &PutProfile) -> Outcome<Changed> {
        self.post("/v1/profiles", request).await
    }

    pub(super) async fn accounts(&self) -> Outcome<Vec<AccountDocument>> {
        self.get("/v1/accounts").await
    }

    pub(super) async fn add_account(&self, request: &AddAccount) -> Outcome<NewAccount> {
        self.post("/v1/accounts", request).await
    }

    pub(super) async fn jobs(&self, query: JobQuery) -> Outcome<Vec<JobDocument>> {
        self.0.query("/v1/jobs", &query).await.map_err(failure)
    }

    pub(super) async fn job(&self, serial: Serial) -> Outcome<JobDetail> {
        self.get(&format!("/v1/jobs/{serial}")).await
    }

    pub(super) async fn lanes(&self) -> Outcome<Vec<LaneDocument>> {
        self.get("/v1/lanes").await
    }

    pub(super) async fn certificate(&self, serial: Serial) -> Outcome<CertificateDocument> {
        self.get(&format!("/v1/certificates/{serial}")).await
    }

    pub(super) async fn revoke(&self, serial: Serial, request: &Revoke) -> Outcome<Revocation> {
        self.post(&format!("/v1/certificates/{serial}/revoke"), request).await
    }

    pub(super) async fn operators(&self) -> Outcome<Vec<OperatorDocument>> {
        self.get("/v1/operators").await
    }

    pub(super) async fn nodes(&self) -> Outcome<Vec<NodeDocument>> {
        self.get("/v1/nodes").await
    }
}

/// What a client's error means for the command: a server that says no has refused, one that cannot has failed.
pub(super) fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused {
            status,
            problem,
            retry_after,
        } => {
            let mut what = problem.to_string();
            // The description names the first field; the others follow.
            for (field, detail) in &problem.errors {
                if !problem.description.starts_with(&format!("{field}: {detail}")) {
                    what.push_str(&format!("\n  {field}: {detail}"));
                }
            }
            let failure = if status >= 500 { Failure::failed(what) } else { Failure::refused(what) };
            match retry_after {
                Some(after) => failure.next(format!("try again in {} s", after.as_secs())),
                None => match problem.id {
                    Some(id) if status < 500 => failure.next(next_step(id.doc())),
                    _ => failure,
                },
            }
        }
        ClientError::Unreachable { .. } => {
            Failure::failed(error).next("is `bulkhead up` running, and is the context file its newest one?")
        }
        ClientError::SetUp(_) | ClientError::Unexpected { .. } => Failure::failed(error),
    }
}

/// Of a problem's text, the sentence that says what to do: the last one.
fn next_step(doc: &str) -> String {
    let sentence = doc.trim_end_matches('.').rsplit_once(". ").map_or(doc, |(_, last)| last);
    let mut characters = sentence.trim_end_matches('.').chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use wire::problem::{Problem, ProblemId};

    use super::*;

    fn refused(status: u16, problem: Problem) -> String {
        let problem = Box::new(problem);
        failure(ClientError::Refused { status, problem, retry_after: None }).to_string()
    }

    #[test]
    fn a_refusal_names_every_field_and_the_next_step() {
        let fields = [("san.dns_names", "is required"), ("subject_dn.common_name", "is required")];
        let fields = fields.map(|(field, detail)| (field.to_owned(), detail.to_owned()));
        let text = refused(422, Problem::of_fields(ProblemId::PolicyViolation, fields));
        assert_eq!(
            text,
            "error: san.dns_names: is required (policy_violation)\n  subject_dn.common_name: is required\
             \n  next: `errors` names the fields; read the validation policy"
        );
    }

    #[test]
    fn a_refusal_of_the_server_and_a_failure_of_it_end_differently() {
        use std::process::ExitCode;
        let code = |status| {
            let problem = Box::new(Problem::new(ProblemId::Internal, "x"));
            format!("{:?}", failure(ClientError::Refused { status, problem, retry_after: None }).code())
        };
        assert_eq!(code(403), format!("{:?}", ExitCode::from(4)));
        assert_eq!(code(503), format!("{:?}", ExitCode::from(1)));
    }
}
