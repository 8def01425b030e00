//! `PATCH` and `DELETE /v2/certificates/{serial}`: both revoke.

use axum::extract::{Path, State};
use domain::{
    id::Serial,
    issuer::Profile,
    job::RevocationReason,
    policy::{KeyFormat, Presence},
    statement::Statement,
};
use http::StatusCode;
use store::{Job, Revocation};
use wire::{
    hvca::Revoke,
    problem::{Problem, ProblemId},
};

use super::show::{find, serial};
use crate::{
    App,
    authenticate::Caller,
    body::Json,
    error::{self, ApiError},
};

/// Revokes a certificate.
#[utoipa::path(
    patch,
    operation_id = "revokeCertificate",
    path = "/certificates/{serial}",
    tag = "certificates",
    params(("serial" = String, Path, description = "Serial number: hexadecimal digits, any case, leading zeros or none")),
    request_body = Revoke,
    responses(
        (status = 204, description = "Revoked, or the reason is now keyCompromise, or the request is cancelled because its key is proven to be compromised"),
        (status = 404, description = "No certificate of this account has the serial", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_revoked`, or `pending`: not issued yet", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_revocation`: a time in the future, or in the past without keyCompromise, or an attestation that proves nothing", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(text): Path<String>,
    Json(body): Json,
) -> Result<StatusCode, ApiError> {
    let job = serial(&text)?;
    let revoke = Revoke::from_json(&body)?;
    revoke_one(&app, &caller, job, &revoke).await
}

/// Revokes a certificate for no stated reason.
#[utoipa::path(
    delete,
    operation_id = "deleteCertificate",
    path = "/certificates/{serial}",
    tag = "certificates",
    params(("serial" = String, Path, description = "Serial number: hexadecimal digits, any case, leading zeros or none")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "No certificate of this account has the serial", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_revoked`, or `pending`: not issued yet", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn delete(State(app): State<App>, caller: Caller, Path(text): Path<String>) -> Result<StatusCode, ApiError> {
    let job = serial(&text)?;
    let revoke = Revoke {
        revocation_reason: RevocationReason::Unspecified,
        revocation_time: None,
        key_compromise_attestation: None,
    };
    revoke_one(&app, &caller, job, &revoke).await
}

async fn revoke_one(app: &App, caller: &Caller, job: Serial, revoke: &Revoke) -> Result<StatusCode, ApiError> {
    let compromised = revoke.revocation_reason == RevocationReason::KeyCompromise;
    // Only a compromise needs to know the certificate's key.
    let statement = if compromised || revoke.key_compromise_attestation.is_some() {
        statement(&find(app, caller.account(), job).await?)
    } else {
        None
    };
    let proven = match &revoke.key_compromise_attestation {
        Some(attestation) => {
            let statement = statement.as_ref().ok_or_else(ApiError::internal)?;
            prove(attestation, compromised, &statement.content.public_key)?;
            true
        }
        None => false,
    };
    let revocation = Revocation {
        job,
        account: Some(caller.account().clone()),
        reason: revoke.revocation_reason,
        revocation_date: revoke.revocation_time,
        cancel_pending: proven,
        by: format!("account:{}", caller.account()),
    };
    let outcome = app.tell(app.store.revoke(revocation)).await?;
    error::revoked(outcome)?;
    if let Some(statement) = statement {
        let profile = caller.applied.snapshot.profiles.get(&statement.profile);
        if proven || profile.is_some_and(|profile| proves_possession(profile)) {
            app.block_key(pki::sha256(&statement.content.public_key));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

fn statement(job: &Job) -> Option<Statement> {
    serde_json::from_slice(&job.statement)
        .inspect_err(|error| tracing::error!(job = %job.job, %error, "the ledger's statement cannot be read"))
        .ok()
}

/// A certificate signing request by the certificate's own key proves that whoever sends it can use the key.
fn prove(attestation: &str, compromised: bool, public_key: &[u8]) -> Result<(), ApiError> {
    let wrong =
        |problem: String| ApiError::of_field(ProblemId::InvalidRevocation, "key_compromise_attestation", &problem);
    if !compromised {
        return Err(wrong("goes with the reason keyCompromise alone".into()));
    }
    match pki::csr::read(attestation, KeyFormat::Pkcs10) {
        Ok(key) if key.spki == public_key => Ok(()),
        Ok(_) => Err(wrong("is signed by another key than the certificate's".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Whether who got a certificate under this profile had to hold its key. Otherwise anybody could have another's key blocked.
fn proves_possession(profile: &Profile) -> bool {
    let policy = &profile.policy;
    policy.public_key.key_format == KeyFormat::Pkcs10 || policy.public_key_signature == Presence::Required
}
