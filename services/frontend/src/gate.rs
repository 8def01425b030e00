//! What every request passes before and after its route: a span and a count, the drain, a bound on how long it takes, and a problem body on everything that is not a success, whoever made it.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{ALLOW, CONNECTION, CONTENT_TYPE},
};
use tracing::Instrument;
use wire::problem::{MEDIA_TYPE, ProblemId};

use crate::{
    App,
    error::{ApiError, Failed},
};

/// Names a request towards its client, for questions about it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The trace that the client's own span is of (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The way of every request.
pub async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let id = format!("{:016x}", u64::from_be_bytes(runtime::clock::entropy()));
    let span = tracing::info_span!("request", id, %method, route, account = tracing::field::Empty);
    if let Some(parent) = request
        .headers()
        .get(TRACEPARENT)
        .and_then(|parent| parent.to_str().ok())
    {
        runtime::trace::continues(&span, parent);
    }

    let mut response = problem_for_all(answer(&app, request, next).instrument(span.clone()).await);
    app.metrics.request(route, &method, response.status());
    let _entered = span.enter();
    let problem = response.extensions().get::<Failed>().map(Failed::as_str);
    tracing::debug!(
        status = response.status().as_u16(),
        problem,
        took_us = started.elapsed().as_micros(),
        "answered"
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(app: &App, request: Request, next: Next) -> Response {
    if app.draining.is_cancelled() {
        let error = ApiError::new(ProblemId::ShuttingDown, "this server is stopping; connect again");
        let mut response = error.into_response();
        if request.version() <= http::Version::HTTP_11 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let limit = app.config.frontend.request_timeout + app.config.frontend.wait_limit;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(ProblemId::Overloaded, "the request took too long; come back").into_response(),
    }
}

/// What the framework refuses by itself (no such path, no such method) gets a body as everything else.
fn problem_for_all(response: Response) -> Response {
    let is_problem = |response: &Response| {
        let media_type = response.headers().get(CONTENT_TYPE);
        media_type.is_some_and(|media_type| media_type == MEDIA_TYPE)
    };
    if response.status().is_success() || is_problem(&response) {
        return response;
    }
    let mut replaced = ApiError::of_status(response.status()).into_response();
    if let Some(allow) = response.headers().get(ALLOW) {
        replaced.headers_mut().insert(ALLOW, allow.clone());
    }
    replaced
}

/// A defect that was met in a route: logged here, and 500 for this client alone.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a route panicked");
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_route_is_its_clients_alone_and_tells_nothing() {
        async fn panics() -> &'static str {
            panic!("secret")
        }
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/works", get(|| async { "fine" }))
            .layer(CatchPanicLayer::custom(panicked));
        let call = |path| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        let response = call("/panics").await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        assert_eq!(call("/works").await.unwrap().status(), 200);
    }
}
