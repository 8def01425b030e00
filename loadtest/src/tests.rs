//! The loops against a small certificate service that speaks the same contract over mutual TLS, and misbehaves when told to.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use domain::key::KeyType;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    bare::Authority,
    client::Session,
    cpu::Watched,
    drive::{self, Pace, Plan},
    round_trips, subject,
};

/// How the service behaves.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Well,
    /// Takes so long for each answer.
    Slow(Duration),
    /// Refuses every fourth request, and of the others accepts every fifth without ever answering with its certificate.
    Unreliable,
    /// Answers every request with a certificate for the first one's key.
    ConfusesKeys,
    /// Gives the same serial to all.
    RepeatsSerials,
}

struct Service {
    authority: Authority,
    behaviour: Behaviour,
    requests: AtomicUsize,
    first: OnceLock<String>,
}

impl Service {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        let authorized = request
            .headers()
            .get("authorization")
            .is_some_and(|token| token == "Bearer secret");
        let waits = request.headers().get("prefer").is_some_and(|prefer| prefer == "wait=7");
        let body = request.into_body().collect().await?.to_bytes();
        let json =
            |status: StatusCode, body: Value| Response::builder().status(status).body(Full::from(body.to_string()));
        match path.as_str() {
            "/v2/login" => {
                let login: Value = serde_json::from_slice(&body)?;
                assert_eq!(login, json!({ "api_key": "key", "api_secret": "shh" }));
                Ok(json(StatusCode::OK, json!({ "access_token": "secret" }))?)
            }
            "/v2/validationpolicy" => {
                assert!(authorized);
                let key = json!({ "key_type": "ECDSA", "allowed_lengths": [256], "key_format": "PKCS10" });
                Ok(json(StatusCode::OK, json!({ "public_key": key }))?)
            }
            "/v2/certificates" => {
                assert!(authorized && waits);
                if let Behaviour::Slow(delay) = self.behaviour {
                    tokio::time::sleep(delay).await;
                }
                self.issue(&serde_json::from_slice(&body)?)
            }
            other => panic!("nobody should ask for {other}"),
        }
    }

    fn issue(&self, request: &Value) -> anyhow::Result<Response<Full<Bytes>>> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let unreliable = self.behaviour == Behaviour::Unreliable;
        if unreliable && number.is_multiple_of(4) {
            let problem = json!({ "description": "no", "id": "policy_violation" });
            let response = Response::builder().status(StatusCode::UNPROCESSABLE_ENTITY);
            return Ok(response.body(Full::from(problem.to_string()))?);
        }
        let serial = if self.behaviour == Behaviour::RepeatsSerials {
            0
        } else {
            number
        };
        let response = Response::builder()
            .status(StatusCode::CREATED)
            .header("location", format!("/v2/certificates/01{serial:030X}"));
        if unreliable && number.is_multiple_of(5) {
            return Ok(response.body(Full::default())?);
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (pem, name) = (
            text(&request["public_key"]),
            text(&request["subject_dn"]["common_name"]),
        );
        let pem = if self.behaviour == Behaviour::ConfusesKeys {
            self.first.get_or_init(|| pem)
        } else {
            &pem
        };
        let certificate = pki::pem::encode("CERTIFICATE", &self.authority.issue(pem, &name, number)?);
        let body = json!({ "certificate": certificate, "status": "ISSUED", "updated_at": 0 });
        Ok(response
            .header("preference-applied", "wait")
            .body(Full::from(body.to_string()))?)
    }
}

/// A service on a thread of its own, for as long as the test runs, and the context file that leads to it.
struct Running {
    dir: tempfile::TempDir,
}

impl Running {
    fn start(behaviour: Behaviour) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_params = {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
        };
        let ca = CertifiedIssuer::self_signed(ca_params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |usage: ExtendedKeyUsagePurpose| {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (server, server_key) = leaf(ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = leaf(ExtendedKeyUsagePurpose::ClientAuth);
        let write = |name: &str, text: String| -> PathBuf {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };

        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .unwrap();
        let key = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], key.into())
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let account = |name: &str, api: &str| json!({ "name": name, "api": api, "api_key": "key", "api_secret": "shh", "issuer": "demo", "profile": "demo" });
        let context = json!({
            "url": format!("https://{}/v2", listener.local_addr().unwrap()),
            "tls_ca_file": write("ca.pem", ca.pem()),
            "client_cert_file": write("client.pem", client.pem()),
            "client_key_file": write("client.key", client_key.serialize_pem()),
            "operators": [],
            "accounts": [account("signing", "dss"), account("first", "hvca"), account("second", "hvca")],
        });
        write("context.json", context.to_string());
        let service = Arc::new(Service {
            authority: Authority::new(KeyType::P256).unwrap(),
            behaviour,
            requests: AtomicUsize::new(0),
            first: OnceLock::new(),
        });
        std::thread::spawn(move || serve(listener, &TlsAcceptor::from(Arc::new(tls)), &service));
        Self { dir }
    }

    fn session(&self) -> Session {
        Session::open(&self.dir.path().join("context.json"), &[], None, 1, 7).unwrap()
    }
}

fn serve(listener: std::net::TcpListener, tls: &TlsAcceptor, service: &Arc<Service>) {
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, service) = (tls.clone(), service.clone());
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                let answer = service_fn(move |request| service.clone().answer(request));
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
            });
        }
    });
}

fn load(session: &Session, count: usize, connections: usize, pace: Pace) -> anyhow::Result<drive::Outcome> {
    let made = subject::requests(session.key_type, count, 2, &|| ())?;
    let bodies: Arc<[Bytes]> = made.iter().map(|csr| session.body(csr)).collect();
    let plan = Plan {
        bodies: bodies.clone(),
        range: 0..count,
        connections,
        pace,
    };
    let own = Watched(vec![("this".to_owned(), std::process::id())]);
    let outcome = session.block_on(drive::run(session, plan, &own, &ProgressBar::hidden()))?;
    session.verify(&outcome.samples, &bodies)?;
    Ok(outcome)
}

#[test]
fn a_closed_loop_makes_every_request_once_and_counts_certificates() {
    let running = Running::start(Behaviour::Well);
    let session = running.session();
    assert_eq!((session.account.as_str(), session.key_type), ("first", KeyType::P256));
    let outcome = load(&session, 60, 4, Pace::Closed).unwrap();
    assert_eq!(
        (outcome.issued, outcome.latency.len(), outcome.errors.len()),
        (60, 60, 0)
    );
    assert!(outcome.samples.len() == 1 && outcome.server_cpu.len() == 1);
}

#[test]
fn what_brings_no_certificate_is_counted_by_its_reason() {
    let running = Running::start(Behaviour::Unreliable);
    let outcome = load(&running.session(), 40, 3, Pace::Closed).unwrap();
    assert_eq!(outcome.errors["policy_violation"], 10);
    assert_eq!(outcome.errors["(accepted, not issued in time)"], 6);
    assert_eq!(outcome.issued, 24);
}

#[test]
fn an_open_loop_counts_from_when_a_request_was_due() {
    let running = Running::start(Behaviour::Slow(Duration::from_millis(20)));
    // One connection answers 50 a second at most; at 200 a second the thirtieth is some 450 ms late.
    let outcome = load(&running.session(), 30, 1, Pace::Open { per_second: 200.0 }).unwrap();
    assert_eq!(outcome.issued, 30);
    assert!(outcome.latency.max() > 300_000, "{} us", outcome.latency.max());
    // With connections enough nobody waits for another.
    let outcome = load(&running.session(), 30, 30, Pace::Open { per_second: 200.0 }).unwrap();
    assert!(outcome.latency.value_at_quantile(0.5) < 200_000);
    assert!(
        outcome.elapsed > Duration::from_millis(145),
        "the rate was not kept: {:?}",
        outcome.elapsed
    );
}

#[test]
fn wrong_keys_and_repeated_serials_are_found() {
    let confused = Running::start(Behaviour::ConfusesKeys);
    // The sample is the first request, which is not always the first to arrive: two loops make sure.
    let session = confused.session();
    let errors: Vec<_> = (0..2)
        .filter_map(|_| load(&session, 3, 1, Pace::Closed).err())
        .collect();
    assert!(
        errors.iter().any(|error| error.to_string().contains("another key")),
        "{errors:?}"
    );

    let repeating = Running::start(Behaviour::RepeatsSerials);
    let error = load(&repeating.session(), 3, 1, Pace::Closed).err().unwrap();
    assert!(error.to_string().contains("given to two requests"), "{error}");
}

#[test]
fn an_unknown_account_is_answered_with_the_known_ones() {
    let running = Running::start(Behaviour::Well);
    let context = running.dir.path().join("context.json");
    let error = Session::open(&context, &[], Some("nobody"), 1, 7).err().unwrap();
    assert!(error.to_string().contains("signing, first, second"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_round_trips_go_through_a_broker_and_leave_no_queue_behind() {
    let node = engines::rabbitmq::RabbitMq::start().await.unwrap();
    let uri = format!("amqp://guest:guest@{}/%2f", node.address());
    let broker = Watched(vec![("rabbitmq".to_owned(), node.id().unwrap())]);
    let row = round_trips::measure(&uri, &broker, 4, Duration::from_millis(500)).await;
    let row = row.unwrap();
    // Each of the four has come back at least once, and the broker has worked for it.
    assert!(row.round_trips >= 4 && row.broker_cpu_us > 0.0, "{row:?}");
    assert_eq!(node.list("list_queues", &["name"]).await.unwrap(), [""; 0]);
    let none = round_trips::measure(&uri, &broker, 0, Duration::from_millis(1)).await;
    assert!(none.err().unwrap().to_string().contains("at least one"));
}
