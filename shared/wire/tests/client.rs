//! The clients against a listener as services run it, with answers as they give them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use domain::{id::Serial, job::RevocationReason, time::Clock};
use runtime::{
    access_ca::{AccessCa, Issued},
    clock::SystemClock,
    config,
    shutdown::{Cause, Shutdown},
    telemetry::Metrics,
    tls::{self, Limits, PeerCertificate, ServerTls},
};
use tokio::net::TcpListener;
use wire::{
    client::{AdminClient, ClientError, HvcaClient, IssueOptions, TlsFiles},
    hvca::{CertificateRequest, Login, Secret},
    problem::{Problem, ProblemId},
};

const SERIAL: &str = "01000000000000000000000000000ABC";

/// A server that takes every token once it has been given, until it forgets them all.
#[derive(Debug, Default)]
struct Server {
    logins: AtomicUsize,
    valid_from: AtomicUsize,
    asked: AtomicUsize,
}

type Shared = State<Arc<Server>>;

fn problem(status: StatusCode, id: ProblemId, description: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, wire::problem::MEDIA_TYPE),
        (header::RETRY_AFTER, "7"),
    ];
    (status, headers, Json(Problem::new(id, description))).into_response()
}

impl Server {
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let number = token
            .strip_prefix("Bearer token-")
            .and_then(|number| number.parse::<usize>().ok());
        match number {
            Some(number) if number >= self.valid_from.load(Ordering::SeqCst) => None,
            _ => Some(problem(
                StatusCode::UNAUTHORIZED,
                ProblemId::InvalidToken,
                "token expired",
            )),
        }
    }
}

async fn log_in(State(server): Shared, body: Json<serde_json::Value>) -> Response {
    if body["api_secret"] != "s" {
        return problem(StatusCode::UNAUTHORIZED, ProblemId::InvalidCredentials, "no");
    }
    let number = server.logins.fetch_add(1, Ordering::SeqCst);
    // Long enough for others to come by meanwhile.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Json(serde_json::json!({"access_token": format!("token-{number}")})).into_response()
}

async fn issue(State(server): Shared, headers: HeaderMap, body: Json<serde_json::Value>) -> Response {
    if let Some(refused) = server.refusal(&headers) {
        return refused;
    }
    if body["subject_dn"].is_object() {
        return problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            ProblemId::PolicyViolation,
            "subject_dn.common_name: is static",
        );
    }
    let location = [(header::LOCATION, format!("/v2/certificates/{SERIAL}"))];
    if headers.get("Prefer").is_some_and(|value| value == "wait=60") {
        let said = "issuer demo cannot sign now";
        return problem(StatusCode::SERVICE_UNAVAILABLE, ProblemId::IssuerUnavailable, said);
    }
    if headers.get("Prefer").is_some_and(|value| value == "wait=5") {
        let applied = [("Preference-Applied", "wait=5")];
        return (StatusCode::CREATED, location, applied, Json(certificate_document())).into_response();
    }
    (StatusCode::CREATED, location).into_response()
}

fn certificate_document() -> serde_json::Value {
    serde_json::json!({"certificate": "PEM", "status": "ISSUED", "updated_at": 1})
}

async fn certificate(State(server): Shared, headers: HeaderMap, Path(serial): Path<String>) -> Response {
    if let Some(refused) = server.refusal(&headers) {
        return refused;
    }
    match server.asked.fetch_add(1, Ordering::SeqCst) {
        _ if serial != SERIAL => problem(StatusCode::NOT_FOUND, ProblemId::NotFound, "no such certificate"),
        0 => (StatusCode::ACCEPTED, Json(wire::hvca::InProgress::default())).into_response(),
        _ => Json(certificate_document()).into_response(),
    }
}

async fn who(peer: axum::Extension<PeerCertificate>) -> Json<Vec<String>> {
    Json(vec![format!("{:?}", peer.fingerprint)])
}

struct Scene {
    server: Arc<Server>,
    ca: AccessCa,
    client: Issued,
    base: String,
    shutdown: Shutdown,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let ca = AccessCa::open_or_create(dir.path(), now).unwrap();
        let (certificate_, client) = (ca.server(&[], now).unwrap(), ca.client("demo", now).unwrap());
        let files = tls::TlsFiles {
            certificate: certificate_.certificate_file,
            key: certificate_.key_file,
            client_ca: ca.ca_file(),
        };
        let tls = Arc::new(ServerTls::new(files, &Metrics::new()).unwrap());
        let server = Arc::new(Server::default());
        let router = Router::new()
            .route("/v2/login", post(log_in))
            .route("/v2/certificates", post(issue))
            .route(
                "/v2/certificates/{serial}",
                get(certificate).patch(async || StatusCode::NO_CONTENT),
            )
            .route("/v2/trustchain", get(who))
            .route("/v2/quotas/issuance", get(async || "[]"))
            .route(
                "/v2/counters/certificates/issued",
                get(async || (StatusCode::BAD_GATEWAY, "<html>")),
            )
            .route(
                "/v1/lanes",
                get(async |query: axum::extract::RawQuery| query.0.unwrap_or_else(|| "[]".into())),
            )
            .route(
                "/v1/jobs",
                get(async |query: axum::extract::RawQuery| {
                    problem(
                        StatusCode::FORBIDDEN,
                        ProblemId::Forbidden,
                        &query.0.unwrap_or_default(),
                    )
                }),
            )
            .with_state(server.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let limits = Limits::from(&config::Tls::default());
        shutdown.spawn_part("listener", tls::serve(listener, tls, router, limits, shutdown.clone()));
        Self {
            server,
            ca,
            client,
            base,
            shutdown,
            _dir: dir,
        }
    }

    fn hvca(&self, secret: &str) -> HvcaClient {
        let ca = self.ca.ca_file();
        let login = Login {
            api_key: "k".into(),
            api_secret: Secret::new(secret),
        };
        HvcaClient::new(&format!("{}/v2/", self.base), &self.files(&ca), login).unwrap()
    }

    fn files<'a>(&'a self, ca: &'a std::path::Path) -> TlsFiles<'a> {
        TlsFiles {
            ca,
            certificate: &self.client.certificate_file,
            key: &self.client.key_file,
        }
    }
}

fn serial() -> Serial {
    SERIAL.parse().unwrap()
}

#[tokio::test]
async fn a_certificate_is_asked_for_waited_for_fetched_and_revoked() {
    let scene = Scene::start().await;
    let client = scene.hvca("s");
    let request = CertificateRequest::default();
    let submitted = client.issue(&request, IssueOptions::default()).await.unwrap();
    assert_eq!((submitted.serial, submitted.certificate), (serial(), None));
    let waiting = IssueOptions {
        wait: Some(Duration::from_secs(5)),
        idempotency_key: Some("mine"),
    };
    let submitted = client.issue(&request, waiting).await.unwrap();
    assert_eq!(submitted.certificate.unwrap().certificate, "PEM");
    let refused = IssueOptions {
        wait: Some(Duration::from_mins(1)),
        ..IssueOptions::default()
    };
    let refused = client.issue(&request, refused).await.unwrap_err();
    assert_eq!(refused.id(), Some(ProblemId::IssuerUnavailable));
    let submitted = client.issue_in_time(&request, Duration::from_mins(1)).await.unwrap();
    assert_eq!((submitted.serial, submitted.certificate), (serial(), None));
    let submitted = client.issue_in_time(&request, Duration::from_secs(5)).await.unwrap();
    assert!(submitted.certificate.is_some());
    assert_eq!(client.certificate(serial()).await.unwrap(), None);
    let fetched = client
        .certificate_within(serial(), Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(fetched.unwrap().updated_at, 1);
    client.revoke_now(serial(), RevocationReason::Superseded).await.unwrap();
    let expected = format!("{:?}", scene.client.fingerprint);
    assert_eq!(
        client.trust_chain().await.unwrap(),
        [expected],
        "the client certificate was shown"
    );
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed_once_however_many_need_it() {
    let scene = Scene::start().await;
    let client = Arc::new(scene.hvca("s"));
    let ask = async |client: &HvcaClient| {
        client
            .issue(&CertificateRequest::default(), IssueOptions::default())
            .await
    };
    ask(&client).await.unwrap();
    assert_eq!(scene.server.logins.load(Ordering::SeqCst), 1);
    scene.server.valid_from.store(1, Ordering::SeqCst);
    let all: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client
                    .issue(&CertificateRequest::default(), IssueOptions::default())
                    .await
            })
        })
        .collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(
        scene.server.logins.load(Ordering::SeqCst),
        2,
        "each renewed the token for itself"
    );
    scene.server.valid_from.store(usize::MAX, Ordering::SeqCst);
    let error = ask(&client).await.unwrap_err();
    assert_eq!((error.status(), error.id()), (Some(401), Some(ProblemId::InvalidToken)));
    assert_eq!(
        scene.server.logins.load(Ordering::SeqCst),
        3,
        "a refused new token is not renewed again and again"
    );
    let error = scene.hvca("wrong").log_in().await.unwrap_err();
    assert_eq!(error.id(), Some(ProblemId::InvalidCredentials));
}

#[tokio::test]
async fn what_is_wrong_is_told_as_the_server_says_it() {
    let scene = Scene::start().await;
    let client = scene.hvca("s");
    let mut request = CertificateRequest::default();
    request.0.subject_dn.single.insert("common_name".into(), "x".into());
    match client.issue(&request, IssueOptions::default()).await.unwrap_err() {
        ClientError::Problem {
            status: 422,
            problem,
            retry_after,
        } => {
            assert_eq!(
                problem.to_string(),
                "subject_dn.common_name: is static (policy_violation)"
            );
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        other => panic!("{other}"),
    }
    let unknown = client
        .certificate("1000000000000000000000000000001".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(unknown.id(), Some(ProblemId::NotFound));
    for error in [
        client.counter("certificates/issued").await.unwrap_err(),
        client.quota().await.unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_operator_asks_and_is_answered() {
    let scene = Scene::start().await;
    let ca = scene.ca.ca_file();
    let client = AdminClient::new(&scene.base, &scene.files(&ca)).unwrap();
    assert_eq!(client.lanes().await.unwrap(), []);
    let query = wire::admin::JobQuery {
        limit: Some(3),
        ..Default::default()
    };
    let error = client.jobs(&query).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.id()),
        ("limit=3 (forbidden)", Some(ProblemId::Forbidden))
    );
}

#[tokio::test]
async fn a_server_that_is_gone_or_of_another_ca_is_unreachable_and_bad_files_are_named() {
    let scene = Scene::start().await;
    let elsewhere = Scene::start().await;
    let foreign = elsewhere.ca.ca_file();
    let client = AdminClient::new(&scene.base, &scene.files(&foreign)).unwrap();
    let error = client.lanes().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { detail, .. } if detail.contains("certificate")),
        "{error}"
    );
    let ca = scene.ca.ca_file();
    scene.shutdown.begin(Cause::Asked("a test".into()));
    scene.shutdown.wait().await;
    let client = AdminClient::new(&scene.base, &scene.files(&ca)).unwrap();
    let error = client.lanes().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { url, .. } if *url == scene.base),
        "{error}"
    );
    let missing = std::path::Path::new("/nonexistent/ca.pem");
    let error = AdminClient::new(&scene.base, &scene.files(missing)).unwrap_err();
    assert!(
        matches!(&error, ClientError::Setup(text) if text.contains("/nonexistent/ca.pem")),
        "{error}"
    );
}
