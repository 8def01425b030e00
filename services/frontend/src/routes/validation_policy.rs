//! `GET /v2/validationpolicy`.

use axum::Json;
use wire::hvca::PolicyDocument;

use crate::{authenticate::Caller, error::ApiError};

/// The whole policy of the account's profile, as it is applied.
#[utoipa::path(
    get,
    operation_id = "showValidationPolicy",
    path = "/validationpolicy",
    tag = "issuer",
    responses(
        (status = 200, description = "The policy", body = PolicyDocument),
    ),
    security(("token" = [])),
)]
pub async fn validation_policy(caller: Caller) -> Result<Json<PolicyDocument>, ApiError> {
    let terms = caller.terms()?;
    let mut policy = terms.profile.policy.clone();
    policy.validity.issuer_expiry = terms.issuer.not_after;
    Ok(Json(PolicyDocument(policy)))
}
