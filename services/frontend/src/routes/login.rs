//! `POST /v2/login`.

use axum::{
    Json as JsonBody,
    extract::{FromRequest, Request, State},
    response::IntoResponse,
};
use domain::issuer::Api;
use http::header::CACHE_CONTROL;
use subtle::ConstantTimeEq;
use wire::{
    hvca::{AccessToken, Login},
    problem::{Problem, ProblemId},
};

use crate::{App, authenticate::ClientCertificate, body::Json, error::ApiError};

/// Exchanges the account's credentials for a bearer token, bound to the client certificate. Earlier tokens stay good.
#[utoipa::path(
    post,
    operation_id = "login",
    path = "/login",
    tag = "account",
    request_body = Login,
    responses(
        (status = 200, description = "A token, unlike any other", body = AccessToken),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_credentials`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`account_disabled`", body = Problem, content_type = "application/problem+json"),
        (status = 411, description = "No `Content-Length`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not `application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A member is missing or not a string", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`not_ready`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn login(
    State(app): State<App>,
    ClientCertificate(certificate): ClientCertificate,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    // A login has no account yet among which places could be divided: logins have some of their own.
    let too_many = |_| ApiError::new(ProblemId::Overloaded, "too many logins at a time; come back");
    let _permit = app.logins.try_acquire().map_err(too_many)?;
    let Json(body) = Json::from_request(request, &app).await?;
    let login = Login::from_json(&body)?;
    let applied = app.applied.load_full();
    let snapshot = &applied.snapshot;
    let account = snapshot
        .api_keys
        .get(&login.api_key)
        .and_then(|id| snapshot.accounts.get(id));
    let secret = pki::sha256(login.api_secret.expose().as_bytes());
    // An unknown key costs the same comparison as a known one.
    let expected = account.map_or([0; 32], |account| account.api_secret.0);
    let same = bool::from(secret.0.ct_eq(&expected));
    let account = account
        .filter(|account| same && account.api == Api::Hvca && account.client_certificates.contains(&certificate));
    let Some(account) = account else {
        let description = "API key and secret do not match, or this is not the account's client certificate";
        return Err(app.unauthorized(certificate, ProblemId::InvalidCredentials, description));
    };
    app.let_in(account)?;
    let access_token = app.tokens.mint(&account.id, &certificate).ok_or_else(|| {
        ApiError::new(
            ProblemId::NotReady,
            "this server has no key to sign tokens with yet; come back",
        )
    })?;
    Ok(([(CACHE_CONTROL, "no-store")], JsonBody(AccessToken { access_token })))
}
