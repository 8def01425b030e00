//! What clients see while something around the front end is broken, and that nothing comes of it later that should not.

use std::time::Duration;

use http::Method;
use serde_json::json;
use store::Store as _;

use crate::{ca::ClientKey, client::plain, faulty::Fault, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_everything_that_needs_it_is_503() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    world.store.set(Some(Fault::Unavailable));
    let body = plain("mail.example.com", &ClientKey::p256());
    acme.post("/certificates", &body)
        .await
        .problem(503, "store_unavailable");
    acme.show(serial).await.problem(503, "store_unavailable");
    acme.delete(&format!("/certificates/{serial}"))
        .await
        .problem(503, "store_unavailable");
    for path in ["/counters/certificates/issued", "/quotas/issuance", "/stats/issued"] {
        acme.get(path).await.problem(503, "store_unavailable");
    }
    assert_eq!(acme.get("/trustchain").await.status, 200, "this needs no store");
    let told = |world: &World, ready| {
        let parts = world.health.readiness().parts;
        parts
            .iter()
            .any(|told| told.part == "frontend store" && told.ready == ready)
    };
    world.until(|world| told(world, false)).await;
    world.store.set(None);
    world.until(|world| told(world, true)).await;
    assert_eq!(world.store.lanes().await.unwrap(), [], "nothing was accepted meanwhile");
    assert_eq!(acme.post("/certificates", &body).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_503_and_a_repeat_finds_the_job() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    world.store.set(Some(Fault::AnswerLost));
    let lost = acme.post("/certificates", &plain("www.example.com", &key)).await;
    lost.problem(503, "outcome_unknown");
    world.store.set(None);
    let serial = acme
        .post("/certificates", &plain("www.example.com", &key))
        .await
        .serial();
    assert_eq!(
        acme.get("/quotas/issuance").await.json(),
        json!({"value": 999}),
        "it is one job"
    );
    world.sign(serial).await;
    assert_eq!(acme.show(serial).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_altered_in_the_ledger_is_never_served() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let (serial, other) = (
        acme.issue("www.example.com").await,
        acme.issue("mail.example.com").await,
    );
    world.sign(serial).await;
    world.sign(other).await;
    let good = acme.show(serial).await.json();
    for fault in [Fault::Altered, Fault::Swapped(other)] {
        world.store.set(Some(fault));
        for _ in 0..3 {
            let answered = acme.show(serial).await;
            answered.problem(500, "internal");
            assert!(!String::from_utf8_lossy(&answered.body).contains("BEGIN"));
        }
        let rekey = json!({"public_key": ClientKey::p256().csr()});
        acme.post(&format!("/certificates/{serial}/rekey"), &rekey)
            .await
            .problem(500, "internal");
    }
    world.store.set(None);
    let events = world.store.events(serial).await.unwrap();
    let altered: Vec<_> = events.iter().filter(|event| event.kind == "altered").collect();
    assert_eq!(altered.len(), 1, "one event however often it is asked for: {events:?}");
    assert_eq!(acme.show(serial).await.json(), good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_issuer_is_told_to_come_back_and_the_other_is_served() {
    let world = World::with(|config| {
        config.frontend.verify_queue_per_issuer = 8;
        config.frontend.accept_queue_per_issuer = 8;
        config.frontend.accept_batch = 1;
    })
    .await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    world.store.set(Some(Fault::Slow(Duration::from_millis(100))));
    let floods: Vec<_> = (0..60)
        .map(|n| {
            let (acme, body) = (acme.clone(), plain(&format!("www-{n}.example.com"), &ClientKey::p256()));
            tokio::spawn(async move { acme.post("/certificates", &body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = std::time::Instant::now();
    let served = rsa
        .post("/certificates", &plain("www.example.com", &ClientKey::rsa()))
        .await;
    assert_eq!(served.status, 201);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let mut overloaded = 0;
    for flood in floods {
        let answered = flood.await.unwrap();
        if answered.status != 201 {
            // One account's: it hears of its own share first, and then that it asks too often.
            assert_eq!(answered.status, 429, "{answered:?}");
            overloaded += 1;
        }
    }
    assert!((20..60).contains(&overloaded), "{overloaded} of 60");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_accounts_flood_leaves_room_for_another_account_of_the_issuer() {
    let world = World::with(|config| {
        config.frontend.verify_queue_per_issuer = 8;
        config.frontend.accept_queue_per_issuer = 8;
        config.frontend.accept_batch = 1;
    })
    .await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    world.store.set(Some(Fault::Slow(Duration::from_millis(100))));
    let floods: Vec<_> = (0..60)
        .map(|n| {
            let (acme, body) = (acme.clone(), plain(&format!("www-{n}.example.com"), &ClientKey::p256()));
            tokio::spawn(async move { acme.post("/certificates", &body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        other
            .post("/certificates", &plain("www.example.com", &ClientKey::p256()))
            .await
            .status,
        201
    );
    for flood in floods {
        assert!(matches!(flood.await.unwrap().status, 201 | 429 | 503));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_wait_behind() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let body = plain("www.example.com", &ClientKey::p256()).to_string();
    let waiting = {
        let acme = acme.clone();
        tokio::spawn(async move {
            acme.json(Method::POST, "/certificates", &[("prefer", "wait=30")], &body)
                .await
        })
    };
    world
        .until(|world| world.metrics.encode().contains("frontend_waiting 1"))
        .await;
    waiting.abort();
    world
        .until(|world| world.metrics.encode().contains("frontend_waiting 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_front_end_ends_its_waits_and_turns_new_requests_away() {
    let world = World::with(|config| config.shutdown.grace = Duration::from_millis(2500)).await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    let wait = |name: &str| {
        let (acme, body) = (acme.clone(), plain(name, &ClientKey::p256()).to_string());
        tokio::spawn(async move {
            acme.json(Method::POST, "/certificates", &[("prefer", "wait=30")], &body)
                .await
        })
    };
    let (answered, given_up) = (wait("a.example.com"), wait("b.example.com"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let filter = store::JobFilter {
        limit: 10,
        ..store::JobFilter::default()
    };
    let jobs = world.store.jobs(&filter).await.unwrap();
    assert_eq!(jobs.len(), 3);
    world.shutdown.begin(runtime::shutdown::Cause::Asked("a test".into()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let turned_away = acme.show(serial).await;
    turned_away.problem(503, "shutting_down");
    assert_eq!(turned_away.header("connection"), Some("close"));
    for job in jobs.iter().filter(|job| job.job != serial).take(1) {
        world.sign(job.job).await;
    }
    let (answered, given_up) = (answered.await.unwrap(), given_up.await.unwrap());
    let applied = [&answered, &given_up].map(|response| response.header("preference-applied").is_some());
    assert_eq!((answered.status, given_up.status), (201, 201));
    assert!(
        applied[0] != applied[1],
        "one has its certificate, the other its location alone: {applied:?}"
    );
    tokio::time::timeout(Duration::from_secs(5), world.stop())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_that_is_behind_hears_of_it_from_the_store() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    acme.issue("www.example.com").await;
    let before = world.follower.applied().load().revision();
    world.change_behind_its_back().await;
    let known = |world: &World| {
        world
            .metrics
            .encode()
            .contains(&format!("registry_revision_known {}", before + 1))
    };
    assert!(!known(&world));
    acme.issue("mail.example.com").await;
    world.until(known).await;
    assert!(world.follower.behind().is_some());
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(
        world.health.readiness().ready,
        "the last front end is never taken out: {:?}",
        world.health.readiness()
    );
    assert!(world.metrics.encode().contains("frontend_behind 1"));
}
