//! `GET /v2/validationpolicy`.

use axum::Json;
use wire::{hvca::PolicyDocument, problem::Problem};

use crate::{authenticate::Caller, error::ApiError};

/// The whole policy of the account's profile, as it is applied.
#[utoipa::path(
    get,
    path = "/validationpolicy",
    tag = "issuer",
    responses(
        (status = 200, description = "The policy", body = PolicyDocument),
        (status = 401, description = "`invalid_token`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn validation_policy(caller: Caller) -> Result<Json<PolicyDocument>, ApiError> {
    let terms = caller.terms()?;
    let mut policy = terms.profile.policy.clone();
    policy.validity.issuer_expiry = terms.issuer.not_after;
    Ok(Json(PolicyDocument(policy)))
}
