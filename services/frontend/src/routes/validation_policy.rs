//! `GET /v2/validationpolicy`.

use axum::Json;
use wire::hvca::PolicyDocument;

use crate::authenticate::Caller;

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
pub async fn validation_policy(caller: Caller) -> Json<PolicyDocument> {
    let mut policy = caller.terms.profile.policy.clone();
    policy.validity.issuer_expiry = caller.terms.issuer.not_after;
    Json(PolicyDocument(policy))
}
