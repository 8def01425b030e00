//! The running installation, as a command speaks to it: the context file, the operator who acts, and what their refusals mean here.

use std::path::PathBuf;

use domain::{id::AccountId, issuer::Api};
use runtime::context_file::{AccountEntry, ContextFile};
use wire::{
    client::{AdminClient, ClientError, HvcaClient, TlsFiles},
    hvca::{Login, Secret},
    problem::ProblemId,
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
        // An environment variable that is set to nothing says nothing.
        let given = common.context.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = ContextFile::locate(given);
        match ContextFile::load(&path) {
            Ok(context) => Ok(Self { path, context }),
            Err(error) => Err(Failure::failed(error)),
        }
    }

    /// A client of the certificate API for the named account, or for the first one.
    pub(super) fn account(&self, name: Option<&AccountId>) -> Outcome<HvcaClient> {
        let entry = self.entry(name)?;
        let url = self.context.url.as_deref().ok_or_else(|| self.not_served("url"))?;
        let files = TlsFiles {
            ca: &self.context.tls_ca_file,
            certificate: &self.context.client_cert_file,
            key: &self.context.client_key_file,
        };
        let login = Login {
            api_key: entry.api_key.clone(),
            api_secret: Secret::new(entry.api_secret.clone()),
        };
        HvcaClient::new(url, &files, login).map_err(failure)
    }

    fn entry(&self, name: Option<&AccountId>) -> Outcome<&AccountEntry> {
        let mut accounts = self.context.accounts.iter().filter(|account| account.api == Api::Hvca);
        let found = match name {
            None => accounts.next(),
            Some(name) => accounts.find(|account| account.name == name.as_str()),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = self
                .context
                .accounts
                .iter()
                .map(|account| account.name.as_str())
                .collect();
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
        Failure::failed(format_args!(
            "{} has no {key}: the installation does not serve it",
            self.path.display()
        ))
    }
}

/// The operators' API.
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
            let names: Vec<_> = context
                .operators
                .iter()
                .map(|operator| operator.name.as_str())
                .collect();
            Failure::usage(format_args!(
                "--as: {} has these operators: {}",
                place.path.display(),
                names.join(", ")
            ))
        })?;
        let url = context
            .admin_url
            .as_deref()
            .ok_or_else(|| place.not_served("admin_url"))?;
        let files = TlsFiles {
            ca: &context.tls_ca_file,
            certificate: &operator.cert_file,
            key: &operator.key_file,
        };
        AdminClient::new(url, &files).map(Self).map_err(failure)
    }

    /// Does a call of the API.
    pub(super) async fn ask<'a, T, C>(&'a self, call: impl FnOnce(&'a AdminClient) -> C) -> Outcome<T>
    where
        C: Future<Output = Result<T, ClientError>> + 'a,
    {
        call(&self.0).await.map_err(failure)
    }
}

/// What a client's error means for the command: a server that says no has refused, one that cannot has failed.
pub(super) fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Problem {
            status,
            problem,
            retry_after,
        } => {
            let mut what = problem.to_string();
            // The description names the first field; the others follow.
            for (field, detail) in &problem.errors {
                if !problem.description.starts_with(&format!("{field}: {detail}")) {
                    what = format!("{what}\n  {field}: {detail}");
                }
            }
            let failure = if status >= 500 {
                Failure::failed(what)
            } else {
                Failure::refused(what)
            };
            match retry_after {
                Some(after) => failure.next(format!("try again in {} s", after.as_secs())),
                None => match problem.id {
                    Some(id) => match next_step(id) {
                        Some(next) => failure.next(next),
                        None => failure,
                    },
                    None => failure,
                },
            }
        }
        ClientError::Unreachable { .. } => {
            Failure::failed(error).next("is `bulkhead up` running, and is the context file its newest one?")
        }
        ClientError::Setup(_) | ClientError::Unexpected { .. } => Failure::failed(error),
    }
}

/// What to do about a problem, where its description does not say so already.
fn next_step(id: ProblemId) -> Option<&'static str> {
    match id {
        ProblemId::PolicyViolation | ProblemId::LintFailed => {
            Some("change the request; `bulkhead profile show PROFILE --output json` tells what is allowed")
        }
        ProblemId::KeyTypeMismatch | ProblemId::WeakKey | ProblemId::BlockedKey | ProblemId::KeyReused => {
            Some("make another key, of the type that the profile pins (`bulkhead profile list`)")
        }
        ProblemId::IssuerDisabled | ProblemId::IssuerDestroyed | ProblemId::IssuerExpired => {
            Some("`bulkhead issuer list` shows which issuers issue; use an account of another one")
        }
        ProblemId::IssuerUnavailable | ProblemId::LaneDraining | ProblemId::Overloaded => {
            Some("`bulkhead lane list` shows what waits")
        }
        ProblemId::InvalidCredentials | ProblemId::AccountDisabled => {
            Some("`bulkhead account list` shows the accounts; the context file may be an older one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use wire::problem::Problem;

    use super::*;

    fn refused(status: u16, problem: Problem) -> String {
        failure(ClientError::Problem {
            status,
            problem,
            retry_after: None,
        })
        .to_string()
    }

    #[test]
    fn a_refusal_names_every_field_and_the_next_step() {
        let fields = [
            ("san.dns_names", "is required"),
            ("subject_dn.common_name", "is required"),
        ];
        let fields = fields.map(|(field, detail)| (field.to_owned(), detail.to_owned()));
        let text = refused(422, Problem::of_fields(ProblemId::PolicyViolation, fields));
        assert_eq!(
            text,
            "error: san.dns_names: is required (policy_violation)\n  subject_dn.common_name: is required\
             \n  next: change the request; `bulkhead profile show PROFILE --output json` tells what is allowed"
        );
    }

    #[test]
    fn a_refusal_of_the_server_and_a_failure_of_it_end_differently() {
        use std::process::ExitCode;
        let code = |status| {
            let problem = Problem::new(ProblemId::Internal, "x");
            format!(
                "{:?}",
                failure(ClientError::Problem {
                    status,
                    problem,
                    retry_after: None
                })
                .code()
            )
        };
        assert_eq!(code(403), format!("{:?}", ExitCode::from(4)));
        assert_eq!(code(503), format!("{:?}", ExitCode::from(1)));
    }
}
