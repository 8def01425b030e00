//! The operations, one to a file, and the OpenAPI document that is made of them.

pub mod certificates;
pub mod counters;
pub mod login;
pub mod statistics;
pub mod trustchain;
pub mod validation_policy;

use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Ref, Response, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::problem::{MEDIA_TYPE, ProblemId};

use crate::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bulkhead certificate API",
        description = "Certificates by request. Every connection shows a client certificate; every operation but login needs a bearer token that is bound to it.",
        license(name = "Apache-2.0")
    ),
    modifiers(&Documented)
)]
struct Document;

/// Adds what annotations cannot say: how to authenticate, and what each problem id means.
struct Documented;

impl Modify for Documented {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", bearer);
        let ids: Vec<String> = ProblemId::ALL
            .iter()
            .map(|id| format!("- `{id}`: {}", id.doc()))
            .collect();
        let description = document.info.description.get_or_insert_default();
        description.push_str("\n\nProblem bodies may have one of these ids:\n\n");
        description.push_str(&ids.join("\n"));
    }
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi()).nest(
        "/v2",
        OpenApiRouter::new()
            .routes(routes!(login::login))
            .routes(routes!(certificates::issue::issue))
            .routes(routes!(
                certificates::show::show,
                certificates::revoke::patch,
                certificates::revoke::delete
            ))
            .routes(routes!(certificates::rekey::rekey))
            .routes(routes!(trustchain::trustchain))
            .routes(routes!(validation_policy::validation_policy))
            .routes(routes!(counters::issued))
            .routes(routes!(counters::revoked))
            .routes(routes!(counters::quota))
            .routes(routes!(statistics::issued))
            .routes(routes!(statistics::revoked))
            .routes(routes!(statistics::expiring)),
    )
}

/// What every operation with a token may answer besides its own.
const ALWAYS: [(&str, &str); 4] = [
    ("401", "`invalid_token`"),
    ("403", "`account_disabled`"),
    ("429", "`rate_limited`"),
    ("503", "`overloaded`, `store_unavailable`, `shutting_down`, `not_ready`"),
];

/// The OpenAPI document as JSON.
///
/// # Panics
/// Never: the document has text keys only.
pub fn openapi() -> String {
    let (_, mut document) = routes().split_for_parts();
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete] {
            if let Some(operation) = operation.as_mut().filter(|operation| operation.security.is_some()) {
                for (status, description) in ALWAYS {
                    let responses = &mut operation.responses.responses;
                    responses
                        .entry(status.into())
                        .or_insert_with(|| problem(description).into());
                }
            }
        }
    }
    document
        .to_pretty_json()
        .expect("the document has text keys only, so it always serialises")
}

fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new()
        .description(description)
        .content(MEDIA_TYPE, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

/// Every route. The OpenAPI document itself needs no token.
pub fn router() -> Router<App> {
    let (router, _) = routes().split_for_parts();
    let document = openapi();
    router.route(
        "/v2/openapi.json",
        get(async move || ([(CONTENT_TYPE, "application/json")], document.clone())),
    )
}
