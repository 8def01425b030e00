//! `POST /v2/certificates/{serial}/rekey`: what an issued certificate says, for another key, until the same end.

use axum::{
    extract::{Path, State},
    response::Response,
};
use domain::{
    request::{Content, Request},
    statement::Statement,
};
use http::HeaderMap;
use store::{Job, Outcome};
use wire::{
    hvca::{CertificateDocument, Rekey},
    problem::{Problem, ProblemId},
};

use super::{
    issue::deliver,
    show::{certificate, find, serial},
};
use crate::{
    App,
    admission::Wanted,
    authenticate::Caller,
    body::Json,
    error::{self, ApiError},
};

/// Requests the same certificate for another key.
#[utoipa::path(
    post,
    operation_id = "rekeyCertificate",
    path = "/certificates/{serial}/rekey",
    tag = "certificates",
    params(
        ("serial" = String, Path, description = "Serial number of the certificate whose content is wanted"),
        ("Idempotency-Key" = Option<String>, Header, description = "As for a new certificate"),
        ("Prefer" = Option<String>, Header, description = "As for a new certificate"),
    ),
    request_body = Rekey,
    responses(
        (status = 201, description = "Accepted, as for a new certificate. It ends when the old one does",
            headers(("Location" = String, description = "Where the new certificate is, or will be: `/v2/certificates/{SERIAL}`")),
            body = CertificateDocument),
        (status = 404, description = "No certificate of this account has the serial", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_revoked`, or `pending`: not issued yet", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "As for a new certificate, or no certificate came of the old serial", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "As for a new certificate", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "As for a new certificate", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn rekey(
    State(app): State<App>,
    caller: Caller,
    Path(text): Path<String>,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let of = serial(&text)?;
    let sent = Rekey::from_json(&body)?;
    let old = find(&app, caller.account(), of).await?;
    let content = Box::new(content(&app, &old).await?);
    let request = Box::new(Request {
        public_key: sent.public_key,
        public_key_signature: sent.public_key_signature,
        signature: sent.signature,
        ..Request::default()
    });
    deliver(&app, caller, &headers, Wanted::Rekey { of, content, request }).await
}

/// What the old certificate says: what the ledger says it says, if that is what its issuer signed.
async fn content(app: &App, old: &Job) -> Result<Content, ApiError> {
    let Some(outcome) = &old.outcome else {
        return Err(ApiError::new(ProblemId::Pending, "the certificate is not issued yet"));
    };
    if let Some(error) = error::ended(outcome, old.successor) {
        return Err(error);
    }
    if old.revocation.is_some() {
        return Err(ApiError::new(
            ProblemId::AlreadyRevoked,
            "a revoked certificate is not rekeyed; request a new one",
        ));
    }
    debug_assert!(matches!(outcome, Outcome::Issued { .. }));
    certificate(app, old, outcome).await?;
    let applied = app.applied.load();
    let issuer = applied.snapshot.issuers.get(&old.lane.issuer);
    let statement: Option<Statement> = serde_json::from_slice(&old.statement).ok();
    match (issuer, statement) {
        // The signature covers the to-be-signed bytes, and only this content makes them.
        (Some(issuer), Some(statement))
            if pki::certificate::prepare(&statement.content, issuer, old.job).is_ok_and(|tbs| tbs == old.tbs) =>
        {
            Ok(statement.content)
        }
        _ => Err(ApiError::unprocessable(
            "this certificate cannot be rekeyed, because its issuer's own data has changed since; request a new one",
        )),
    }
}
