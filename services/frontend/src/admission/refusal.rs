//! Everything that keeps a request from becoming a job. How each of them reads over HTTP is decided in `error.rs` alone.

use std::sync::Arc;

use domain::{
    admission::Violation,
    fair::Full,
    id::IssuerId,
    issuer::{Profile, Standing},
};
use pki::{certificate::PrepareError, csr::CsrError, lint::Finding};
use store::AcceptError;

/// Why a request has not become a job. Nothing was written for it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The issuer does not issue for this purpose now.
    #[error("issuer {0} is {1:?}")]
    Issuer(IssuerId, Standing),
    /// Too much waits already.
    #[error(transparent)]
    Full(Full),
    /// The CSR or the public key is not one that can be certified, or the client does not hold the key. With the profile, which says
    /// what could be.
    #[error("{field}: {error}", field = .0.field(), error = .0)]
    Key(CsrError, Arc<Profile>),
    /// The key is on the list of those that must not be certified.
    #[error("public_key: this key is known to be compromised; make another one")]
    Blocked,
    /// The policy does not allow it.
    #[error("{}", join(.0))]
    Policy(Vec<Violation>),
    /// It cannot be encoded.
    #[error(transparent)]
    Encoding(PrepareError),
    /// The certificate would break a rule.
    #[error("{}", .0.iter().map(|finding| finding.detail.as_str()).collect::<Vec<_>>().join("; "))]
    Lint(Vec<Finding>),
    /// The store said no, or could not be asked.
    #[error("issuer {0}: {1}")]
    NotAccepted(IssuerId, #[source] AcceptError),
    /// A defect of ours, met while this request was prepared.
    #[error("the request could not be prepared")]
    Panicked,
    /// The front end stopped before it came to this request.
    #[error("the front end is stopping")]
    Dropped,
}

fn join(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
