//! TLS to the server: only a server whose certificate is good for its host is spoken to, and a client can be asked for its own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{Options, Postgres, Server};
use crate::{Store, StoreError, postgres::Tls};

/// An authority and the files that it made.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of this test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate and its key, PEM.
    fn certify(&self, common_name: &str, host: Option<&str>) -> (String, String) {
        let hosts: Vec<String> = host.map(str::to_owned).into_iter().collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server that speaks TLS alone, to clients that have a certificate and the password.
fn server(authority: &Authority, host: &str) -> Server {
    let mut server = Server::start();
    let postgres = &mut server.0;
    postgres.stop().unwrap();
    let (certificate, key) = authority.certify("server", Some(host));
    let access = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
    for (setting, name, content) in [
        ("ssl_cert_file", "server.crt", certificate.as_str()),
        ("ssl_key_file", "server.key", key.as_str()),
        ("ssl_ca_file", "ca.crt", authority.certificate.as_str()),
        ("hba_file", "access.conf", access),
    ] {
        let path = postgres.write_file(name, content).unwrap();
        postgres.set(setting, path.to_str().unwrap());
    }
    postgres.set("ssl", "on");
    postgres.launch().unwrap();
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_spoken_to_over_tls_and_is_who_it_should_be() {
    let authority = Authority::new();
    let server = server(&authority, "127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = authority.certify("front end", None);
    let good = Tls {
        ca_file: file("ca.crt", &authority.certificate),
        client: Some((file("client.crt", &certificate), file("client.key", &key))),
    };
    let with = |tls: Option<Tls>| Options {
        tls,
        ..server.options()
    };
    let store = Postgres::open(with(Some(good.clone()))).await.unwrap();
    assert_eq!(store.head().await.unwrap().revision, 0);
    let (in_tls, all) = (
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND client_addr IS NOT NULL",
        "SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL",
    );
    let count = async |sql: &'static str| {
        let mut lent = store.core.reads.lend().await.unwrap();
        let rows = lent.rows(sqlx::query(sql)).await.unwrap();
        sqlx::Row::get::<i64, _>(&rows[0], 0)
    };
    assert!(count(in_tls).await > 0);
    assert_eq!(count(in_tls).await, count(all).await);

    let stranger = Authority::new();
    let wrong = [
        ("without TLS", None),
        (
            "without a certificate of its own",
            Some(Tls {
                client: None,
                ..good.clone()
            }),
        ),
        (
            "of another authority",
            Some(Tls {
                ca_file: file("stranger.crt", &stranger.certificate),
                ..good.clone()
            }),
        ),
    ];
    for (what, tls) in wrong {
        let error = Postgres::open(with(tls)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_host_is_not_good_enough() {
    let authority = Authority::new();
    let server = server(&authority, "127.0.0.2");
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &authority.certificate).unwrap();
    let options = Options {
        tls: Some(Tls {
            ca_file: ca.path().into(),
            client: None,
        }),
        ..server.options()
    };
    let error = Postgres::open(options).await.unwrap_err();
    assert!(error.to_string().contains("not valid for"), "{error}");
}
