//! Who may do what over HTTP, and how refusals look.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use domain::{
    bytes::Digest,
    issuer::{Operator, OperatorRole},
    registry::Change,
};
use http_body_util::BodyExt;
use runtime::tls::PeerCertificate;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Bench;
use crate::{Registry, api::router};

const LIMIT: usize = 4096;

/// A registry with a viewer, an operator and a security officer, known by certificates 20, 21 and 1.
async fn registry(bench: &Bench) -> Arc<Registry> {
    let registry = bench.with_demo().await;
    let operators = [("vera", OperatorRole::Viewer, 20), ("otto", OperatorRole::Operator, 21)];
    let changes: Vec<_> = operators
        .map(|(name, role, certificate)| Change::PutOperator {
            operator: Operator {
                id: name.parse().unwrap(),
                role,
                client_certificates: vec![Digest([certificate; 32])],
            },
        })
        .to_vec();
    registry
        .commit(
            &registry.own_order("test", "operators", "test"),
            |_| Ok(changes.clone()),
        )
        .await
        .unwrap();
    Arc::new(registry)
}

async fn call(
    registry: &Arc<Registry>,
    certificate: Option<u8>,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.to_owned()))
        .unwrap();
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(PeerCertificate {
            fingerprint: Digest([certificate; 32]),
            der: Vec::new().into(),
        });
    }
    let response = router(registry.clone(), LIMIT).oneshot(request).await.unwrap();
    let status = response.status();
    if !status.is_success() {
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json",
            "{status}"
        );
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn roles_decide_who_looks_revokes_and_changes() {
    let bench = Bench::new();
    let registry = registry(&bench).await;
    let disable = json!({"reason": "drill"}).to_string();
    let revoke = json!({"reason": "superseded"}).to_string();
    let serial = "0132A72343D4D8847647B29F61A0E373";
    for (certificate, looks, revokes, disables) in [
        (None, 403, 403, 403),
        (Some(99), 403, 403, 403),
        (Some(20), 200, 403, 403),
        (Some(21), 200, 404, 403),
        (Some(1), 200, 404, 200),
    ] {
        let (looked, _) = call(&registry, certificate, "GET", "/v1/issuers", "").await;
        let path = format!("/v1/certificates/{serial}/revoke");
        let (revoked, _) = call(&registry, certificate, "POST", &path, &revoke).await;
        let (disabled, _) = call(
            &registry,
            certificate,
            "POST",
            "/v1/issuers/demo-p256/disable",
            &disable,
        )
        .await;
        let all = [looked.as_u16(), revoked.as_u16(), disabled.as_u16()];
        assert_eq!(all, [looks, revokes, disables], "{certificate:?}");
    }
}

#[tokio::test]
async fn refusals_are_problems_that_name_what_is_wrong() {
    let bench = Bench::new();
    let registry = registry(&bench).await;
    let large = format!("{{\"reason\":\"{}\"}}", "x".repeat(LIMIT));
    for (method, path, body, status, id, said) in [
        ("GET", "/v1/issuers/nobody", "", 404, "not_found", "issuer nobody"),
        (
            "GET",
            "/v1/issuers/No%20Name",
            "",
            422,
            "invalid_request",
            "not a valid issuer",
        ),
        ("GET", "/v1/jobs/zz", "", 422, "invalid_request", "hexadecimal"),
        ("GET", "/v1/jobs?limit=0", "", 422, "invalid_request", "limit"),
        ("GET", "/v1/jobs?colour=red", "", 422, "invalid_request", "colour"),
        ("DELETE", "/v1/issuers", "", 405, "method_not_allowed", "method"),
        ("GET", "/v1/nothing", "", 404, "not_found", "this path"),
        (
            "POST",
            "/v1/issuers/demo-p256/disable",
            "{}",
            422,
            "invalid_request",
            "reason",
        ),
        (
            "POST",
            "/v1/issuers/demo-p256/disable",
            "{",
            422,
            "invalid_request",
            "body",
        ),
        (
            "POST",
            "/v1/issuers/demo-p256/disable",
            "{\"reason\":\" \"}",
            422,
            "reason_required",
            "audit log",
        ),
        (
            "POST",
            "/v1/issuers/demo-p256/disable",
            &large,
            413,
            "too_large",
            "larger",
        ),
    ] {
        let (answered, problem) = call(&registry, Some(1), method, path, body).await;
        assert_eq!(
            (answered.as_u16(), problem["id"].as_str()),
            (status, Some(id)),
            "{method} {path}: {problem}"
        );
        assert!(problem["description"].as_str().unwrap().contains(said), "{problem}");
    }
}

#[tokio::test]
async fn nothing_that_is_shown_holds_a_secret() {
    let bench = Bench::new();
    let registry = registry(&bench).await;
    let digest = registry
        .current()
        .await
        .unwrap()
        .accounts
        .values()
        .next()
        .unwrap()
        .api_secret;
    for path in [
        "/v1/accounts",
        "/v1/issuers",
        "/v1/operators",
        "/v1/nodes",
        "/v1/lanes",
        "/v1/fleet",
        "/v1/breakers",
        "/v1/profiles",
    ] {
        let (status, document) = call(&registry, Some(20), "GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let text = document.to_string();
        assert!(
            !text.contains("api_secret") && !text.contains(&format!("{digest:?}")),
            "{path}: {text}"
        );
    }
}
