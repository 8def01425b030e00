//! The whole front end behind its listener, used by the typed client.

use std::{sync::Arc, time::Duration};

use frontend::serve;
use runtime::{
    access_ca::{AccessCa, Issued},
    shutdown::Cause,
    tls::{ServerTls, TlsFiles},
};
use tokio::net::TcpListener;
use wire::{
    client::{self, ClientError, HvcaClient, IssueOptions},
    hvca::{CertificateRequest, CertificateStatus, Login, Secret},
    problem::ProblemId,
};

use crate::{
    ca::ClientKey,
    client::plain,
    world::{SECRET, World, api_key},
};

fn client(base: &str, ca: &AccessCa, certificate: &Issued) -> HvcaClient {
    let files = client::TlsFiles {
        ca: &ca.ca_file(),
        certificate: &certificate.certificate_file,
        key: &certificate.key_file,
    };
    let login = Login {
        api_key: api_key("acme"),
        api_secret: Secret::new(SECRET),
    };
    HvcaClient::new(base, &files, login).unwrap()
}

fn wanted(name: &str) -> CertificateRequest {
    CertificateRequest::from_json(plain(name, &ClientKey::p256()).to_string().as_bytes()).unwrap()
}

const WAIT: IssueOptions<'_> = IssueOptions {
    wait: Some(Duration::from_secs(10)),
    idempotency_key: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_client_gets_its_certificate_and_a_stranger_gets_nothing() {
    let (world, context) = World::prepare(|_| {}).await;
    let now = domain::time::Clock::now(&runtime::clock::SystemClock);
    let ca = AccessCa::open_or_create(&world.directory.path().join("access"), now).unwrap();
    let server = ca.server(&[], now).unwrap();
    let (acme, mallory) = (ca.client("acme", now).unwrap(), ca.client("mallory", now).unwrap());
    let files = TlsFiles {
        certificate: server.certificate_file,
        key: server.key_file,
        client_ca: ca.ca_file(),
    };
    let tls = Arc::new(ServerTls::new(files, &world.metrics).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}/v2", listener.local_addr().unwrap());
    let served = tokio::spawn(serve(context, listener, tls));
    world.ready().await;
    world.run_signer().await;
    world
        .change_account("acme", |account| account.client_certificates = vec![acme.fingerprint])
        .await;

    let good = client(&base, &ca, &acme);
    let issued = good.issue(&wanted("www.example.com"), WAIT).await.unwrap();
    let certificate = issued.certificate.expect("it was waited for");
    assert_eq!(certificate.status, CertificateStatus::Issued);
    assert_eq!(good.trust_chain().await.unwrap().len(), 2);

    let stranger = client(&base, &ca, &mallory)
        .issue(&wanted("www.example.com"), WAIT)
        .await
        .unwrap_err();
    let ClientError::Problem { status, problem, .. } = stranger else {
        panic!("{stranger:?}");
    };
    assert_eq!((status, problem.id), (401, Some(ProblemId::InvalidCredentials)));

    // Some clients send their bodies only when they are told to go on.
    let body = serde_json::json!({"api_key": api_key("acme"), "api_secret": SECRET}).to_string();
    let login = tokio::process::Command::new("curl")
        .args(["-sS", "-v", "--http1.1", "--max-time", "10"])
        .args(["-H", "Content-Type: application/json", "-H", "Expect: 100-continue"])
        .args(["-d", &body, "--cacert"])
        .arg(ca.ca_file())
        .arg("--cert")
        .arg(&acme.certificate_file)
        .arg("--key")
        .arg(&acme.key_file)
        .arg(format!("{base}/login"))
        .output()
        .await
        .unwrap();
    let (answer, talk) = (
        String::from_utf8_lossy(&login.stdout),
        String::from_utf8_lossy(&login.stderr),
    );
    assert!(
        talk.contains("100 Continue") && answer.contains("access_token"),
        "{talk}"
    );

    world.shutdown.begin(Cause::Asked("a test".into()));
    let stopped = tokio::time::timeout(Duration::from_secs(5), served).await.unwrap();
    assert!(stopped.unwrap().is_ok());
    assert!(good.trust_chain().await.is_err(), "nobody listens any more");
}
