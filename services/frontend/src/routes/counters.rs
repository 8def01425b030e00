//! `GET /v2/counters/certificates/{issued,revoked}` and `GET /v2/quotas/issuance`.

use axum::{Json, extract::State};
use store::Counter;
use wire::hvca::Value;

use crate::{App, authenticate::Caller, error::ApiError};

/// How many certificates the account was ever issued.
#[utoipa::path(
    get,
    operation_id = "countIssued",
    path = "/counters/certificates/issued",
    tag = "account",
    responses(
        (status = 200, description = "How many", body = Value),
    ),
    security(("token" = [])),
)]
pub async fn issued(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    counter(&app, &caller, Counter::Issued).await
}

/// How many of the account's certificates were ever revoked.
#[utoipa::path(
    get,
    operation_id = "countRevoked",
    path = "/counters/certificates/revoked",
    tag = "account",
    responses(
        (status = 200, description = "How many", body = Value),
    ),
    security(("token" = [])),
)]
pub async fn revoked(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    counter(&app, &caller, Counter::Revoked).await
}

async fn counter(app: &App, caller: &Caller, counter: Counter) -> Result<Json<Value>, ApiError> {
    let value = app.ask(app.store.counter(caller.account(), counter)).await?;
    Ok(Json(Value { value }))
}

/// How many more certificates the account may have; open requests count as used.
#[utoipa::path(
    get,
    operation_id = "showIssuanceQuota",
    path = "/quotas/issuance",
    tag = "account",
    responses(
        (status = 200, description = "How many are left", body = Value),
    ),
    security(("token" = [])),
)]
pub async fn quota(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let left = app
        .store
        .quota_left(caller.account(), caller.terms.account.issuance_quota);
    let value = app.ask(left).await?;
    Ok(Json(Value { value }))
}
