//! Passwords, certificates, and what is said when they are wrong.

use std::{path::PathBuf, process::Command, time::Duration};

use broker::{
    Broker, BrokerError, Incoming,
    amqp::{Amqp, Login, Options, Tls},
};
use engines::rabbitmq::{RabbitMq, Setup, TlsFiles};

use crate::bench::{JOBS, Secrets, body, connect, incarnation, lane, options, own, until};

/// An authority with a certificate for `localhost` and one for the client `signer-1`, made by OpenSSL.
fn certificates(secrets: &Secrets) -> impl Fn(&str) -> PathBuf {
    let directory = secrets.write("marker", "").parent().unwrap().to_owned();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for authority in ["ca", "stranger"] {
        openssl(&format!(
            "req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 2 -subj /CN={authority}"
        ));
    }
    for (name, subject, usage) in [
        ("server", "localhost", "serverAuth"),
        ("client", "signer-1", "clientAuth"),
    ] {
        openssl(&format!(
            "req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"
        ));
        secrets.write(
            &format!("{name}.ext"),
            &format!("subjectAltName=DNS:{subject}\nextendedKeyUsage={usage}\n"),
        );
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
    }
    move |name| directory.join(name)
}

/// What is said of a broker that cannot be connected to.
async fn complaint(options: Options) -> String {
    let amqp = Amqp::connect(options, own([])).unwrap();
    let mut complaint = String::new();
    until("there is a complaint", async || {
        if let Err(BrokerError::Unavailable(reason)) = amqp.ready() {
            complaint = reason;
        }
        !complaint.is_empty() && complaint != "not connected yet"
    })
    .await;
    let debug = format!("{amqp:?}");
    assert!(!debug.contains("guessed"), "a password is shown");
    complaint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_a_login_and_everything_else_is_refused_by_name() {
    let secrets = Secrets::new();
    let file = certificates(&secrets);
    let tls = TlsFiles {
        ca: file("ca.pem"),
        certificate: file("server.pem"),
        key: file("server.key"),
    };
    let node = RabbitMq::start_with(Setup {
        tls: Some(tls),
        ..Setup::default()
    });
    let node = node.await.unwrap();
    node.add_user("signer-1").await.unwrap();
    let external = Options {
        addresses: vec![format!("localhost:{}", node.tls_address().port())],
        login: Login::External,
        tls: Some(Tls {
            ca_file: file("ca.pem"),
            identity: Some((file("client.pem"), file("client.key"))),
        }),
        ..options(&secrets, [node.address()])
    };
    let lane = lane("a");
    let amqp = connect(external.clone(), own([lane.clone()])).await;
    let mut inbox = amqp
        .serve(&incarnation("signer"), std::slice::from_ref(&lane), JOBS)
        .await
        .unwrap();
    amqp.publish(&lane, body(1), JOBS, None).await.unwrap();
    let received = tokio::time::timeout(Duration::from_secs(30), inbox.next())
        .await
        .unwrap();
    assert!(matches!(received, Some(Incoming::Delivery(delivery)) if delivery.body == body(1)));
    // A connection of somebody who only looked whether the port is open may linger for a moment, without a user.
    until("the two links are the only connections, and encrypted", async || {
        let users = node.list("list_connections", &["user", "ssl"]).await.unwrap();
        users == ["signer-1\ttrue", "signer-1\ttrue"]
    })
    .await;

    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = external.clone();
        change(&mut options);
        complaint(options)
    };
    let stranger = with(&|o| o.tls.as_mut().unwrap().ca_file = file("stranger.pem")).await;
    let nobody = with(&|o| o.tls.as_mut().unwrap().identity = Some((file("client.pem"), file("absent.key")))).await;
    let unencrypted = with(&|o| o.addresses = vec![format!("localhost:{}", node.address().port())]).await;
    let wrong = complaint(Options {
        login: Login::Password {
            user: "guest".into(),
            file: secrets.write("wrong", "guessed"),
        },
        ..options(&secrets, [node.address()])
    });
    let wrong = wrong.await;
    println!("| what is wrong | what is said |\n| --- | --- |");
    for (what, said) in [
        ("unknown authority", &stranger),
        ("no key", &nobody),
        ("TLS to a plain port", &unencrypted),
        ("password", &wrong),
    ] {
        println!("| {what} | {said} |");
    }
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    assert!(nobody.contains("absent.key"), "{nobody}");
    assert!(
        wrong.contains("ACCESS_REFUSED") && !wrong.contains("guessed"),
        "{wrong}"
    );
}
