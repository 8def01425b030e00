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
    client::{AdminClient, ClientError, Credentials, HvcaClient},
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
        let login = Login {
            api_key: "k".into(),
            api_secret: Secret::new(secret),
        };
        self.with_credentials(&self.ca, |credentials| {
            HvcaClient::new(&format!("{}/v2/", self.base), credentials, login).unwrap()
        })
    }

    fn admin(&self, ca: &AccessCa) -> AdminClient {
        self.with_credentials(ca, |credentials| AdminClient::new(&self.base, credentials).unwrap())
    }

    fn with_credentials<T>(&self, ca: &AccessCa, make: impl FnOnce(&Credentials<'_>) -> T) -> T {
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        make(&Credentials {
            server_authority: &read(&ca.ca_file()),
            certificate: &read(&self.client.certificate_file),
            private_key: &read(&self.client.key_file),
        })
    }
}

fn serial() -> Serial {
    SERIAL.parse().unwrap()
}

fn empty() -> serde_json::Value {
    serde_json::to_value(CertificateRequest::default()).unwrap()
}

fn refused(error: ClientError) -> (u16, Option<ProblemId>, String, Option<Duration>) {
    match error {
        ClientError::Refused {
            status,
            problem,
            retry_after,
        } => (status, problem.id, problem.to_string(), retry_after),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_waited_for_fetched_and_revoked() {
    let scene = Scene::start().await;
    let mut client = scene.hvca("s");
    let requested = client.issue(&empty(), Duration::ZERO, None).await.unwrap();
    assert_eq!((requested.serial, requested.certificate), (serial(), None));
    let requested = client
        .issue(&empty(), Duration::from_secs(5), Some("mine"))
        .await
        .unwrap();
    assert_eq!(requested.certificate.unwrap().certificate, "PEM");
    assert_eq!(client.certificate(serial()).await.unwrap(), None);
    assert_eq!(client.certificate(serial()).await.unwrap().unwrap().updated_at, 1);
    client.revoke(serial(), RevocationReason::Superseded).await.unwrap();
    let expected = format!("{:?}", scene.client.fingerprint);
    assert_eq!(
        client.trust_chain().await.unwrap(),
        [expected],
        "the client certificate was not shown"
    );
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed_once_and_a_refused_new_one_never() {
    let scene = Scene::start().await;
    let mut client = scene.hvca("s");
    let logins = || scene.server.logins.load(Ordering::SeqCst);
    client.issue(&empty(), Duration::ZERO, None).await.unwrap();
    assert_eq!(logins(), 1);
    scene.server.valid_from.store(1, Ordering::SeqCst);
    client.issue(&empty(), Duration::ZERO, None).await.unwrap();
    client.issue(&empty(), Duration::ZERO, None).await.unwrap();
    assert_eq!(logins(), 2);
    scene.server.valid_from.store(usize::MAX, Ordering::SeqCst);
    let error = client.issue(&empty(), Duration::ZERO, None).await.unwrap_err();
    assert_eq!(refused(error).1, Some(ProblemId::InvalidToken));
    assert_eq!(logins(), 3, "a refused new token is renewed again and again");
    let error = scene.hvca("wrong").login().await.unwrap_err();
    assert_eq!(refused(error).1, Some(ProblemId::InvalidCredentials));
}

#[tokio::test]
async fn what_is_wrong_is_told_as_the_server_says_it() {
    let scene = Scene::start().await;
    let mut client = scene.hvca("s");
    let request = serde_json::json!({"subject_dn": {"common_name": "x"}});
    let said = refused(client.issue(&request, Duration::ZERO, None).await.unwrap_err());
    let text = "subject_dn.common_name: is static (policy_violation)".to_owned();
    assert_eq!(
        said,
        (
            422,
            Some(ProblemId::PolicyViolation),
            text,
            Some(Duration::from_secs(7))
        )
    );
    let unknown = client
        .certificate("1000000000000000000000000000001".parse().unwrap())
        .await;
    assert_eq!(refused(unknown.unwrap_err()).1, Some(ProblemId::NotFound));
    let no_problem = client
        .read::<serde_json::Value>("/counters/certificates/issued")
        .await
        .unwrap_err();
    for error in [no_problem, client.quota().await.unwrap_err()] {
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_operator_asks_and_is_answered() {
    let scene = Scene::start().await;
    let client = scene.admin(&scene.ca);
    assert_eq!(
        client.get::<Vec<wire::admin::LaneDocument>>("/v1/lanes").await.unwrap(),
        []
    );
    let query = wire::admin::JobQuery {
        limit: Some(3),
        ..Default::default()
    };
    let error = client
        .query::<_, serde_json::Value>("/v1/jobs", &query)
        .await
        .unwrap_err();
    assert_eq!(
        refused(error),
        (
            403,
            Some(ProblemId::Forbidden),
            "limit=3 (forbidden)".into(),
            Some(Duration::from_secs(7))
        )
    );
}

#[tokio::test]
async fn a_server_that_is_gone_or_of_another_ca_is_unreachable_and_bad_files_are_refused() {
    let scene = Scene::start().await;
    let elsewhere = Scene::start().await;
    let error = scene
        .admin(&elsewhere.ca)
        .get::<serde_json::Value>("/v1/lanes")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { detail, .. } if detail.contains("certificate")),
        "{error}"
    );
    scene.shutdown.begin(Cause::Asked("a test".into()));
    scene.shutdown.wait().await;
    let error = scene
        .admin(&scene.ca)
        .get::<serde_json::Value>("/v1/lanes")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { url, .. } if url.starts_with(&scene.base)),
        "{error}"
    );
    let empty = Credentials {
        server_authority: b"",
        certificate: b"",
        private_key: b"",
    };
    assert!(matches!(
        AdminClient::new(&scene.base, &empty),
        Err(ClientError::SetUp(_))
    ));
}
