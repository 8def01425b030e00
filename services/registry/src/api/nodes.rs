//! What nodes ask of control, and what strangers ask who want to become nodes. Bounded apart from the operators' orders, so that no
//! stranger takes an operator's place.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::post,
};
use runtime::tls::PeerCertificate;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};
use wire::enrol::{Enrol, Enrolled, NodeAnswer};

use super::{Shared, body::Body, panicked};
use crate::{Registry, RegistryError, error::Answer};

const BODY_LIMIT: usize = 64 * 1024;
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
const REQUESTS: usize = 32;

pub(super) fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v1/enrolments", post(enrol))
        .route("/v1/node-requests", post(request))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            REQUEST_LIMIT,
        ))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
        .with_state(registry)
}

async fn enrol(State(registry): Shared, Body(request): Body<Enrol>) -> Answer<Enrolled> {
    Ok(Json(registry.enrol_node(request).await?))
}

async fn request(
    State(registry): Shared,
    connection: Option<Extension<PeerCertificate>>,
    sealed: Bytes,
) -> Answer<NodeAnswer> {
    let Some(Extension(connection)) = connection else {
        return Err(RegistryError::Forbidden(
            "the connection shows no certificate; enrol with `bulkhead node enrol`".into(),
        ));
    };
    Ok(Json(registry.node_request(&sealed, &connection.der).await?))
}
