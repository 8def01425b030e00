//! `GET /v2/trustchain`.

use axum::Json;

use crate::authenticate::Caller;

/// The chain of the account's issuer, as PEM: the issuing certificate first, the root last.
#[utoipa::path(
    get,
    operation_id = "showTrustChain",
    path = "/trustchain",
    tag = "issuer",
    responses(
        (status = 200, description = "PEM certificates, issuing CA first, root last", body = Vec<String>),
    ),
    security(("token" = [])),
)]
pub async fn trustchain(caller: Caller) -> Json<Vec<String>> {
    let chain = caller
        .terms
        .issuer
        .chain
        .iter()
        .map(|der| pki::pem::encode("CERTIFICATE", der));
    Json(chain.collect())
}
