//! `GET /v2/certificates/{serial}`, and the same document for whoever waited.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use domain::{
    id::{AccountId, InvalidSerial, Serial},
    time::Timestamp,
};
use http::{StatusCode, header::RETRY_AFTER};
use store::{Job, JobEvent, Outcome};
use wire::{
    hvca::{CertificateDocument, CertificateStatus, InProgress},
    problem::Problem,
};

use crate::{
    App,
    authenticate::Caller,
    error::{self, ApiError},
};

/// What a client may know of a job.
#[derive(Debug)]
pub enum View {
    /// It goes on.
    InProgress,
    /// There is a certificate.
    Certificate(CertificateDocument),
}

/// Reads the serial in a path: any case, leading zeros or none.
pub fn serial(text: &str) -> Result<Serial, ApiError> {
    text.parse().map_err(|error| match error {
        InvalidSerial::NotHexadecimal => ApiError::unprocessable(error.to_string()),
        InvalidSerial::NotOurs => ApiError::no_certificate(),
    })
}

/// The account's own job of this serial. Another account's is as unknown as none.
pub async fn find(app: &App, account: &AccountId, serial: Serial) -> Result<Job, ApiError> {
    let job = app.ask(app.store.job(serial)).await?;
    job.filter(|job| job.account == *account)
        .ok_or_else(ApiError::no_certificate)
}

/// What the job's owner may know of it. A certificate is verified before it is shown; one that does not verify is reported and not
/// shown.
pub async fn view(app: &App, job: &Job) -> Result<View, ApiError> {
    let Some(outcome) = &job.outcome else {
        return Ok(View::InProgress);
    };
    if let Some(error) = error::ended(outcome, job.successor) {
        return Err(error);
    }
    let Outcome::Issued { at, .. } = outcome else {
        return Ok(View::InProgress);
    };
    let certificate = certificate(app, job, outcome).await?;
    let (status, updated_at) = match &job.revocation {
        Some(revocation) => (CertificateStatus::Revoked, revocation.decided_at),
        None => (CertificateStatus::Issued, *at),
    };
    Ok(View::Certificate(document(&certificate, status, updated_at)))
}

/// The document of a certificate in DER.
pub fn document(certificate: &[u8], status: CertificateStatus, updated_at: Timestamp) -> CertificateDocument {
    CertificateDocument {
        certificate: pki::pem::encode("CERTIFICATE", certificate),
        status,
        updated_at: updated_at.as_secs(),
    }
}

/// DER of an issued job's certificate, verified.
pub async fn certificate(app: &App, job: &Job, outcome: &Outcome) -> Result<Vec<u8>, ApiError> {
    let Outcome::Issued { signature, .. } = outcome else {
        return Err(ApiError::no_certificate());
    };
    let assembled = match app.applied.load().snapshot.issuers.get(&job.lane.issuer) {
        Some(issuer) => app.certificates.assemble(job.job, &job.tbs, signature, issuer),
        None => Err(crate::certificate::Altered::Issuer(job.lane.issuer.clone())),
    };
    match assembled {
        Ok(certificate) => Ok(certificate),
        Err(altered) => {
            report(app, job.job, &altered.to_string()).await;
            Err(ApiError::internal())
        }
    }
}

async fn report(app: &App, job: Serial, detail: &str) {
    if !app.certificates.is_news(job) {
        return;
    }
    app.metrics.altered.inc();
    tracing::error!(%job, detail, "the ledger does not hold what was issued; the certificate is not served");
    let event = JobEvent {
        job,
        kind: "altered".into(),
        detail: detail.into(),
        by: app.incarnation.to_string(),
        at: app.now(),
    };
    if app.tell(app.store.note(vec![event])).await.is_err() {
        tracing::error!(%job, "the event could not be recorded");
    }
}

/// The certificate of a serial.
#[utoipa::path(
    get,
    operation_id = "showCertificate",
    path = "/certificates/{serial}",
    tag = "certificates",
    params(("serial" = String, Path, description = "Serial number: hexadecimal digits, any case, leading zeros or none")),
    responses(
        (status = 200, description = "The certificate, issued or revoked", body = CertificateDocument),
        (status = 202, description = "The certificate is being made", body = InProgress),
        (status = 404, description = "No certificate of this account has the serial", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a serial, or no certificate came of it: `refused`, `expired`, `discarded`, `superseded`, or the refusal's own id", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn show(State(app): State<App>, caller: Caller, Path(text): Path<String>) -> Result<Response, ApiError> {
    let job = find(&app, caller.account(), serial(&text)?).await?;
    Ok(match view(&app, &job).await? {
        View::InProgress => {
            let headers = [(RETRY_AFTER, "1")];
            (StatusCode::ACCEPTED, headers, axum::Json(InProgress::default())).into_response()
        }
        View::Certificate(document) => axum::Json(document).into_response(),
    })
}
