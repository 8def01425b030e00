//! Who acts: the operator whose client certificate came with the connection.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use domain::{id::OperatorId, issuer::OperatorRole};
use runtime::tls::PeerCertificate;

use crate::{Registry, RegistryError};

/// An operator, known by a fingerprint in the registry; never by anything that stands in the certificate.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    id: OperatorId,
    role: OperatorRole,
}

impl Actor {
    /// As the audit log calls the operator.
    pub(super) fn by(&self) -> String {
        format!("operator:{}", self.id)
    }

    /// Refuses a lower role.
    pub(super) fn must_be(&self, role: OperatorRole) -> Result<(), RegistryError> {
        if self.role >= role {
            return Ok(());
        }
        let word = |role| match role {
            OperatorRole::Viewer => "viewer",
            OperatorRole::Operator => "operator",
            OperatorRole::SecurityOfficer => "security officer",
        };
        Err(RegistryError::Forbidden(format!(
            "{} is a {}; this takes a {} (choose another operator with --as)",
            self.id,
            word(self.role),
            word(role)
        )))
    }
}

impl FromRequestParts<Arc<Registry>> for Actor {
    type Rejection = RegistryError;

    async fn from_request_parts(parts: &mut Parts, registry: &Arc<Registry>) -> Result<Self, RegistryError> {
        let stranger = || {
            RegistryError::Forbidden(
                "the client certificate is not an operator's; use one that the context file names under `operators`"
                    .into(),
            )
        };
        let certificate = parts.extensions.get::<PeerCertificate>().ok_or_else(stranger)?;
        let fingerprint = certificate.fingerprint;
        let snapshot = registry.current().await?;
        let mut operators = snapshot.operators.values();
        let found = operators.find(|operator| operator.client_certificates.contains(&fingerprint));
        found
            .map(|operator| Self {
                id: operator.id.clone(),
                role: operator.role,
            })
            .ok_or_else(stranger)
    }
}
