//! The listener as OpenSSL and curl meet it.

use std::{path::PathBuf, process::Stdio};

use axum::{Extension, routing::get};
use domain::time::{Clock, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::Instant,
};

use super::*;
use crate::{
    access_ca::{AccessCa, Issued},
    clock::SystemClock,
    shutdown::Cause,
};

struct Scene {
    dir: tempfile::TempDir,
    ca: AccessCa,
    client: Issued,
    tls: Arc<ServerTls>,
    address: SocketAddr,
    shutdown: Shutdown,
    metrics: Metrics,
}

fn now() -> Timestamp {
    SystemClock.now()
}

async fn hello(peer: Extension<PeerCertificate>) -> String {
    format!("hello {:?}\n", peer.fingerprint)
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(1)).await;
    "done\n"
}

fn limits() -> Limits {
    Limits {
        handshake_timeout: Duration::from_millis(1500),
        ..Limits::from(&config::Tls::default())
    }
}

impl Scene {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(&dir.path().join("access"), now()).unwrap();
        let server = ca.server(&[], now()).unwrap();
        let client = ca.client("demo", now()).unwrap();
        let metrics = Metrics::new();
        let files = TlsFiles {
            certificate: server.certificate_file,
            key: server.key_file,
            client_ca: ca.ca_file(),
        };
        let tls = Arc::new(ServerTls::new(files, &metrics).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let router = Router::new().route("/hello", get(hello)).route("/slow", get(slow));
        shutdown.spawn_part(
            "listener",
            serve(listener, tls.clone(), router, limits, shutdown.clone()),
        );
        Self {
            dir,
            ca,
            client,
            tls,
            address,
            shutdown,
            metrics,
        }
    }

    fn curl(&self, client: Option<&Issued>, path: &str, options: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "--cacert"])
            .arg(self.ca.ca_file())
            .args(options);
        if let Some(client) = client {
            curl.arg("--cert")
                .arg(&client.certificate_file)
                .arg("--key")
                .arg(&client.key_file);
        }
        curl.arg(format!("https://{}{path}", self.address)).kill_on_drop(true);
        curl
    }

    async fn get(&self, client: Option<&Issued>, path: &str, options: &[&str]) -> (bool, String) {
        let output = self.curl(client, path, options).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test]
async fn a_known_client_is_served_over_both_versions_and_both_http() {
    let scene = Scene::start(limits()).await;
    let expected = format!("hello {:?}\n", scene.client.fingerprint);
    for options in [
        &["--tlsv1.2", "--tls-max", "1.2"][..],
        &["--tlsv1.3"],
        &["--http1.1"],
        &["--http2"],
    ] {
        assert_eq!(
            scene.get(Some(&scene.client), "/hello", options).await,
            (true, expected.clone()),
            "{options:?}"
        );
    }
    for curve in ["P-256", "P-384", "X25519"] {
        let (ok, said) = scene.get(Some(&scene.client), "/hello", &["--curves", curve]).await;
        assert!(ok, "{curve}: {said}");
    }
    let metrics = scene.metrics.encode();
    assert!(
        metrics.contains(r#"bulkhead_tls_handshakes_total{outcome="accepted"} 7"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn no_certificate_and_a_foreign_one_are_refused_in_the_handshake() {
    let scene = Scene::start(limits()).await;
    let foreign = AccessCa::open_or_create(&scene.dir.path().join("foreign"), now()).unwrap();
    let stranger = foreign.client("demo", now()).unwrap();
    let expired = scene
        .ca
        .client("old", now() - Duration::from_hours(3 * 365 * 24))
        .unwrap();
    let server = scene.ca.server(&[], now()).unwrap();
    for client in [None, Some(&stranger), Some(&expired), Some(&server)] {
        for version in [&["--tls-max", "1.2"], &["--tlsv1.3", "--http1.1"]] {
            let (ok, said) = scene.get(client, "/hello", version).await;
            assert!(!ok, "{client:?} {version:?}: {said}");
        }
    }
    let s_client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-brief", "-connect"])
        .arg(scene.address.to_string())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(
        !s_client.status.success(),
        "{}",
        String::from_utf8_lossy(&s_client.stderr)
    );
    let metrics = scene.metrics.encode();
    assert!(
        metrics.contains(r#"outcome="refused"} 9"#) && !metrics.contains("accepted"),
        "{metrics}"
    );
}

#[tokio::test]
async fn silent_clients_hold_up_nobody_and_are_cut_off() {
    let scene = Scene::start(limits()).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(scene.address).await.unwrap());
    }
    let begun = Instant::now();
    assert!(scene.get(Some(&scene.client), "/hello", &[]).await.0);
    assert!(
        begun.elapsed() < Duration::from_millis(1400),
        "a handshake waited for another: {:?}",
        begun.elapsed()
    );
    for mut stream in silent {
        let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "a silent client is still connected");
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_one_ends() {
    let scene = Scene::start(Limits {
        connections: 2,
        ..limits()
    })
    .await;
    let held = [
        TcpStream::connect(scene.address).await.unwrap(),
        TcpStream::connect(scene.address).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let mut waiting = scene
        .curl(Some(&scene.client), "/hello", &[])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(
        timeout(Duration::from_millis(500), waiting.wait()).await.is_err(),
        "the limit was exceeded"
    );
    drop(held);
    assert!(waiting.wait().await.unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_a_new_connection_refused_when_stopping() {
    let scene = Scene::start(limits()).await;
    let slow = scene
        .curl(Some(&scene.client), "/slow", &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.shutdown.begin(Cause::Asked("a test".into()));
    let stopped = scene.shutdown.wait().await;
    assert!(stopped.is_clean(), "{stopped:?}");
    let output = slow.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"done\n");
    assert!(TcpStream::connect(scene.address).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let scene = Scene::start(limits()).await;
    let shown = async |scene: &Scene| {
        let output = Command::new("openssl")
            .args(["s_client", "-showcerts", "-connect"])
            .arg(scene.address.to_string())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, after) = text.split_once("-----BEGIN").unwrap();
        after.split_once("-----END").unwrap().0.to_owned()
    };
    let before = shown(&scene).await;
    assert_eq!(shown(&scene).await, before);
    scene.ca.server(&["elsewhere.example".into()], now()).unwrap();
    scene.tls.reload().unwrap();
    assert_ne!(shown(&scene).await, before);
    let certificate: PathBuf = scene.tls.files.certificate.clone();
    std::fs::write(&certificate, "nonsense").unwrap();
    assert!(scene.tls.reload().is_err());
    assert!(
        scene.get(Some(&scene.client), "/hello", &[]).await.0,
        "a bad reload breaks what worked"
    );
}

#[tokio::test]
async fn plain_http_is_served_inside_and_a_slow_head_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let limits = Limits {
        header_read_timeout: Duration::from_millis(500),
        ..limits()
    };
    let router = Router::new().route("/metrics", get(async || "m 1\n"));
    shutdown.spawn_part("metrics", serve_plain(listener, router, limits, shutdown.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("m 1\n"),
        "{answer}"
    );
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHo").await.unwrap();
    let cut = timeout(Duration::from_secs(5), slow.read_to_end(&mut Vec::new())).await;
    assert!(cut.is_ok(), "a slow head is waited for");
}
