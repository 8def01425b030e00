//! From a request to a certificate.

use std::time::{Duration, Instant};

use http::Method;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use store::Store as _;

use crate::{ca::ClientKey, client::plain, faulty::Fault, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_job_and_the_job_a_certificate() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    let accepted = acme.post("/certificates", &plain("www.example.com", &key)).await;
    assert!(accepted.body.is_empty());
    let serial = accepted.serial();
    let location = accepted.header("location").unwrap();
    assert_eq!(location, format!("/v2/certificates/{serial}"));
    assert!(
        location[17..].len() == 32 && location[17..].starts_with("01"),
        "{location}"
    );

    let pending = acme.show(serial).await;
    let in_progress = json!({"description": "Operation in progress"});
    assert_eq!((pending.status, pending.json()), (202, in_progress));
    world.sign(serial).await;
    let shown = acme.show(serial).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.header("content-type"), Some("application/json"));
    let document = shown.json();
    assert_eq!(document["status"], "ISSUED");
    assert!(document["updated_at"].as_i64().unwrap() > 1_700_000_000);
    let pem = document["certificate"].as_str().unwrap();
    assert!(
        pem.lines().all(|line| line.len() <= 64) && pem.ends_with("-----END CERTIFICATE-----\n"),
        "{pem}"
    );
    let der = pki::pem::decode("CERTIFICATE", pem).unwrap();
    let facts = pki::certificate::read(&der).unwrap();
    assert_eq!(
        (facts.serial, facts.public_key),
        (&serial.as_bytes()[..], &key.spki()[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_issued_stands_before_another_judge() {
    let world = World::new().await;
    for (account, key) in [("acme", ClientKey::p256()), ("rsa", ClientKey::rsa())] {
        let client = world.client(account).await;
        let serial = client
            .post("/certificates", &plain("www.example.com", &key))
            .await
            .serial();
        world.sign(serial).await;
        let pem = client.show(serial).await.json()["certificate"]
            .as_str()
            .unwrap()
            .to_owned();
        let leaf = pki::pem::decode("CERTIFICATE", &pem).unwrap();
        let chain = client.get("/trustchain").await.json();
        let chain: Vec<Vec<u8>> = chain
            .as_array()
            .unwrap()
            .iter()
            .map(|pem| pki::pem::decode("CERTIFICATE", pem.as_str().unwrap()).unwrap())
            .collect();
        let [leaf, issuing, root] = [leaf, chain[0].clone(), chain[1].clone()].map(CertificateDer::from);
        let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
        let end_entity = webpki::EndEntityCert::try_from(&leaf).unwrap();
        let now = u64::try_from(domain::time::Clock::now(&*world.host).as_secs()).unwrap() + 60;
        end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[anchor],
                &[issuing],
                rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now)),
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .unwrap();
        end_entity
            .verify_is_valid_for_subject_name(&"www.example.com".try_into().unwrap())
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_answered_as_soon_as_its_certificate_is_there() {
    let world = World::new().await;
    world.run_signer().await;
    let acme = world.client("acme").await;
    for prefer in ["wait=6", "respond-async, wait=10", "wait=\"3600\""] {
        let body = plain("www.example.com", &ClientKey::p256()).to_string();
        let started = Instant::now();
        let issued = acme
            .json(Method::POST, "/certificates", &[("prefer", prefer)], &body)
            .await;
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(issued.header("preference-applied"), Some("wait=6"));
        assert_eq!(issued.header("content-type"), Some("application/json"));
        let shown = acme.show(issued.serial()).await;
        assert_eq!(issued.json(), shown.json());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_without_a_certificate_still_gives_the_location() {
    let world = World::with(|config| config.frontend.wait_limit = Duration::from_millis(400)).await;
    let acme = world.client("acme").await;
    let started = Instant::now();
    let body = plain("www.example.com", &ClientKey::p256()).to_string();
    let accepted = acme
        .json(Method::POST, "/certificates", &[("prefer", "wait=3600")], &body)
        .await;
    assert!(
        (400..3000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(accepted.header("preference-applied"), None);
    assert!(accepted.body.is_empty());
    world.sign(accepted.serial()).await;
    assert_eq!(acme.show(accepted.serial()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_ends_a_wait_that_no_answer_comes_for() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let (elsewhere, foreign) = (acme.clone(), world.store.clone());
    let body = plain("www.example.com", &ClientKey::p256()).to_string();
    let waiting = tokio::spawn(async move {
        elsewhere
            .json(Method::POST, "/certificates", &[("prefer", "wait=10")], &body)
            .await
    });
    let filter = store::JobFilter {
        limit: 1,
        ..store::JobFilter::default()
    };
    let mut jobs = Vec::new();
    while jobs.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        jobs = foreign.jobs(&filter).await.unwrap();
    }
    world.sign_silently(jobs[0].job).await;
    let issued = waiting.await.unwrap();
    assert_eq!(issued.header("preference-applied"), Some("wait=6"));
    assert_eq!(issued.json(), acme.show(issued.serial()).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signers_answer_is_enough_whatever_the_ledger_says_meanwhile() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world.store.set(Some(Fault::Altered));
    let waiting = {
        let (acme, body) = (acme.clone(), plain("www.example.com", &ClientKey::p256()).to_string());
        tokio::spawn(async move {
            acme.json(Method::POST, "/certificates", &[("prefer", "wait=10")], &body)
                .await
        })
    };
    let queued = store::JobFilter {
        state: Some(domain::job::State::Queued),
        limit: 1,
        ..store::JobFilter::default()
    };
    let mut jobs = Vec::new();
    while jobs.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        jobs = world.store.jobs(&queued).await.unwrap();
    }
    world.sign(jobs[0].job).await;
    let issued = waiting.await.unwrap();
    world.store.set(None);
    assert_eq!(issued.header("preference-applied"), Some("wait=6"));
    assert_eq!(issued.json(), acme.show(issued.serial()).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_no_signer_gave_ends_no_wait() {
    use broker::Broker as _;
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    let answer = wire::answer::Answer {
        job: serial,
        outcome: wire::answer::AnswerOutcome::Expired,
    };
    let answers = wire::answer::Answers::new(world.frontend.clone(), vec![answer]);
    let stranger = wire::signed::NodeKey::generate("signer-1".parse().unwrap());
    world
        .broker
        .answer(&world.frontend, answers.to_bytes(&stranger), None)
        .await
        .unwrap();
    world
        .broker
        .answer(&world.frontend, vec![0; 100].into(), None)
        .await
        .unwrap();
    world
        .until(|world| world.metrics.encode().contains("frontend_answers_refused_total 2"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_is_a_number_in_any_dress_and_anothers_is_as_unknown_as_none() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    let text = serial.to_string();
    let document = acme.show(serial).await.json();
    for path in [
        text.to_lowercase(),
        text[1..].to_owned(),
        format!("0000{text}"),
        format!("{text}/"),
    ] {
        let shown = acme.get(&format!("/certificates/{path}")).await;
        assert_eq!((shown.status, shown.json()), (200, document.clone()), "{path}");
    }
    let separated: Vec<&str> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap())
        .collect();
    for path in [
        separated.join(":"),
        separated.join("-"),
        format!("0x{text}"),
        "x".into(),
        "1".repeat(100),
    ] {
        let said = acme
            .get(&format!("/certificates/{path}"))
            .await
            .problem(422, "invalid_request");
        assert!(said.starts_with("invalid serial number length"), "{said}");
    }
    let foreign = other.show(serial).await;
    foreign.problem(404, "not_found");
    for path in [
        "01000000000000000000000000000000",
        "0",
        "7F000000000000000000000000000000",
        &"F".repeat(40),
    ] {
        let unknown = acme.get(&format!("/certificates/{path}")).await;
        assert_eq!((unknown.status, &unknown.body), (404, &foreign.body), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_nothing_is_422_and_says_why() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    world
        .refuse(serial, "weak_key", "public_key: it is weak after all")
        .await;
    assert_eq!(
        acme.show(serial).await.problem(422, "weak_key"),
        "public_key: it is weak after all"
    );
    let serial = acme.issue("www.example.com").await;
    world.refuse(serial, "invalid_token", "nonsense").await;
    acme.show(serial).await.problem(422, "refused");

    world
        .change_profile("tls", |profile| profile.sign_within = Duration::from_mins(1))
        .await;
    let serial = acme.issue("www.example.com").await;
    world.advance(Duration::from_secs(61)).await;
    assert_eq!(world.store.sweep(10).await.unwrap().len(), 1);
    acme.show(serial).await.problem(422, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_client_to_give_up_ends_a_job_that_nobody_can_want_any_more() {
    let world = World::with(|config| config.frontend.wait_limit = Duration::from_secs(2)).await;
    world
        .change_profile("tls", |profile| profile.sign_within = Duration::from_secs(1))
        .await;
    let acme = world.client("acme").await;
    let waiting = {
        let (acme, body) = (acme.clone(), plain("www.example.com", &ClientKey::p256()).to_string());
        tokio::spawn(async move {
            acme.json(Method::POST, "/certificates", &[("prefer", "wait=2")], &body)
                .await
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.advance(Duration::from_millis(1500)).await;
    let accepted = waiting.await.unwrap();
    acme.show(accepted.serial()).await.problem(422, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_twice_is_asking_once() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let key = ClientKey::p256();
    let first = acme
        .post("/certificates", &plain("www.example.com", &key))
        .await
        .serial();
    // Another signature in the CSR, another not_before: the same request.
    let mut again = plain("www.example.com", &key);
    again["validity"] = json!({"not_before": domain::time::Clock::now(&*world.host).as_secs() - 30});
    assert_eq!(acme.post("/certificates", &again).await.serial(), first);
    assert_eq!(acme.get("/quotas/issuance").await.json(), json!({"value": 999}));
    assert_ne!(
        acme.post("/certificates", &plain("mail.example.com", &key))
            .await
            .serial(),
        first
    );
    assert_ne!(
        other
            .post("/certificates", &plain("www.example.com", &key))
            .await
            .serial(),
        first
    );
    world.sign(first).await;
    assert_ne!(
        acme.post("/certificates", &again).await.serial(),
        first,
        "only what is in flight is joined"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_joins_waits_for_the_same_certificate() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    let serial = acme
        .post("/certificates", &plain("www.example.com", &key))
        .await
        .serial();
    let waiting = {
        let (acme, body) = (acme.clone(), plain("www.example.com", &key).to_string());
        tokio::spawn(async move {
            acme.json(Method::POST, "/certificates", &[("prefer", "wait=10")], &body)
                .await
        })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.sign(serial).await;
    let joined = waiting.await.unwrap();
    assert_eq!(joined.serial(), serial);
    assert_eq!(joined.json()["status"], "ISSUED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_wins_for_a_day_and_is_its_accounts_own() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let key = ClientKey::p256();
    let body = plain("www.example.com", &key).to_string();
    let keyed = [("idempotency-key", "order-7")];
    let first = acme.json(Method::POST, "/certificates", &keyed, &body).await.serial();
    world.sign(first).await;
    let repeated = acme
        .json(
            Method::POST,
            "/certificates",
            &keyed,
            &plain("www.example.com", &key).to_string(),
        )
        .await;
    assert_eq!(repeated.serial(), first, "it finds what is already issued");
    let waiting = [("idempotency-key", "order-7"), ("prefer", "wait=5")];
    let waited = acme.json(Method::POST, "/certificates", &waiting, &body).await;
    assert_eq!(waited.json(), acme.show(first).await.json());
    let different = plain("mail.example.com", &key).to_string();
    let conflict = acme.json(Method::POST, "/certificates", &keyed, &different).await;
    conflict.problem(422, "idempotency_conflict");
    assert_ne!(
        other.json(Method::POST, "/certificates", &keyed, &body).await.serial(),
        first
    );
    for bad in ["", "with space", &"x".repeat(256)] {
        let answered = acme
            .json(Method::POST, "/certificates", &[("idempotency-key", bad)], &body)
            .await;
        assert!(answered.problem(422, "invalid_request").starts_with("Idempotency-Key"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_is_taken_costs_another_one_and_no_answer() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world.store.set(Some(Fault::SerialsTaken(2)));
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    assert_eq!(acme.show(serial).await.status, 200);
    world.store.set(Some(Fault::SerialsTaken(100)));
    let given_up = acme
        .post("/certificates", &plain("www.example.com", &ClientKey::p256()))
        .await;
    given_up.problem(500, "internal");
}
