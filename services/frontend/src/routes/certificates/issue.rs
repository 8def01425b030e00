//! `POST /v2/certificates`, and the way every new certificate takes from there.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use domain::id::AccountId;
use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use pki::certificate::seal;
use tokio::time::Instant;
use wire::{
    hvca::{CertificateDocument, CertificateRequest, CertificateStatus},
    problem::{Problem, ProblemId},
};

use super::show::{View, document, find, view};
use crate::{
    App,
    admission::{Admitted, Intent, Wanted},
    authenticate::Caller,
    body::Json,
    error::{ApiError, PREFERENCE_APPLIED},
    preference,
    waiting::{Arrival, Wait},
};

/// Requests a certificate.
#[utoipa::path(
    post,
    operation_id = "requestCertificate",
    path = "/certificates",
    tag = "certificates",
    request_body = CertificateRequest,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters, remembered for 24 h: the same key gives the same job"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`: answer with the certificate if it is ready by then, and refuse at once if it cannot be"),
    ),
    responses(
        (status = 201, description = "Accepted. With `Prefer: wait`, and if the certificate is ready: `Preference-Applied` and the certificate",
            headers(("Location" = String, description = "Where the certificate is, or will be: `/v2/certificates/{SERIAL}`"),
                    ("Preference-Applied" = String, description = "`wait=SECONDS`, if the certificate is in the body")),
            body = CertificateDocument),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 402, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json"),
        (status = 411, description = "No `Content-Length`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is over the limit", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not `application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`policy_violation`, `key_type_mismatch`, `bad_csr`, `weak_key`, `blocked_key`, `key_reused`, `lint_failed`, `issuer_disabled`, `issuer_destroyed`, `issuer_expired`, `idempotency_conflict`, or a malformed field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited` or `too_many_in_flight`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`overloaded`, `lane_draining`, `issuer_unavailable`, `store_unavailable`, `outcome_unknown`, `shutting_down`, `not_ready`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn issue(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let CertificateRequest(request) = CertificateRequest::from_json(&body)?;
    deliver(&app, caller, &headers, Wanted::Certificate(Box::new(request))).await
}

/// Brings what is wanted to its job, waits if the client prefers that, and answers.
pub async fn deliver(app: &App, caller: Caller, headers: &HeaderMap, wanted: Wanted) -> Result<Response, ApiError> {
    let Caller { terms, place, .. } = caller;
    let account = terms.account.id.clone();
    let idempotency = preference::idempotency(headers, &account)?;
    let longest = app.config.frontend.wait_limit.min(terms.profile.answer_within);
    let wait = preference::wait(headers).map(|wait| wait.min(longest));
    let class = terms.profile.class;
    let started = Instant::now();
    let admitting = app.admission.admit(wanted, terms, idempotency, wait);
    let admitted = match tokio::time::timeout(app.config.frontend.request_timeout, admitting).await {
        Ok(admitted) => admitted.map_err(|refusal| app.turn_away(refusal)),
        Err(_) => Err(ApiError::new(
            ProblemId::Overloaded,
            "the request waited too long to be looked at; come back",
        )),
    };
    let outcome = admitted
        .as_ref()
        .map_or_else(|error| error.id().as_str(), |_| "accepted");
    app.metrics.accepted(class, outcome, started.elapsed());
    let Admitted {
        job,
        wait: waiting,
        intent,
    } = admitted?;
    // Who only waits is in nobody's way.
    drop(place);

    let mut response = StatusCode::CREATED.into_response();
    if let (Some(waiting), Some(wait)) = (waiting, wait)
        && let Some(document) = arrival(app, &account, waiting, started + wait, intent).await
    {
        response = (StatusCode::CREATED, axum::Json(document)).into_response();
        if let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
    }
    if let Ok(location) = HeaderValue::from_str(&format!("/v2/certificates/{job}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The certificate, if there is one by `deadline`. Without one the client has its `Location`, and GET tells the rest.
async fn arrival(
    app: &App,
    account: &AccountId,
    mut waiting: Wait,
    deadline: Instant,
    intent: Option<Intent>,
) -> Option<CertificateDocument> {
    let job = waiting.job();
    if intent.is_none()
        && let Ok(View::Certificate(document)) = view(app, &find(app, account, job).await.ok()?).await
    {
        return Some(document);
    }
    let arrival = tokio::select! {
        arrival = waiting.until(deadline) => arrival,
        () = app.stopping.cancelled() => None,
    };
    drop(waiting);
    // A signer verified its signature before it put its name to the answer, and the bytes are those that were accepted here.
    if let (Some(Arrival::Issued { signature, at }), Some(Intent { tbs, issuer })) = (&arrival, &intent) {
        let certificate = seal(tbs, issuer.signature_algorithm, signature);
        return Some(document(&certificate, CertificateStatus::Issued, *at));
    }
    let found = find(app, account, job).await.ok()?;
    match view(app, &found).await {
        Ok(View::Certificate(document)) => Some(document),
        Ok(View::InProgress) => {
            if arrival.is_none() && found.sign_by <= app.now() {
                // Nobody else waits for what cannot be signed in time any more: the ledger need not wait for the sweep.
                let _ = app.tell(app.store.withdraw(&app.incarnation, &[job])).await;
            }
            None
        }
        Err(_) => None,
    }
}
