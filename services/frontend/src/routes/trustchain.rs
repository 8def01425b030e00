//! `GET /v2/trustchain`.

use axum::Json;
use wire::problem::Problem;

use crate::{authenticate::Caller, error::ApiError};

/// The chain of the account's issuer, as PEM: the issuing certificate first, the root last.
#[utoipa::path(
    get,
    path = "/trustchain",
    tag = "issuer",
    responses(
        (status = 200, description = "PEM certificates, issuing CA first, root last", body = Vec<String>),
        (status = 401, description = "`invalid_token`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn trustchain(caller: Caller) -> Result<Json<Vec<String>>, ApiError> {
    let issuer = caller.terms()?.issuer;
    let chain = issuer.chain.iter().map(|der| pki::pem::encode("CERTIFICATE", der));
    Ok(Json(chain.collect()))
}
