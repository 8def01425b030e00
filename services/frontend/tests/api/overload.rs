//! What is refused because it could not be answered in time, and what never is.

use std::time::{Duration, Instant};

use domain::job::State;
use http::Method;
use serde_json::Value;
use store::{JobFilter, Store};
use tokio::task::JoinSet;

use crate::{
    ca::ClientKey,
    client::{Answered, Client, plain},
    faulty::Fault,
    world::World,
};

fn request(name: &str) -> Value {
    plain(name, &ClientKey::p256())
}

async fn wait(client: &Client, body: &Value, prefer: &str) -> Answered {
    let headers = [("prefer", prefer)];
    client
        .json(Method::POST, "/certificates", &headers, &body.to_string())
        .await
}

/// Requests that nobody waits for: `count` of them, all accepted.
async fn queue(client: &Client, kind: &str, count: usize) {
    let mut asking = JoinSet::new();
    for n in 0..count {
        let (client, body) = (client.clone(), request(&format!("{kind}-{n}.example.com")));
        asking.spawn(async move { client.post("/certificates", &body).await.serial() });
    }
    assert_eq!(asking.join_all().await.len(), count);
}

async fn queued(world: &World) -> usize {
    let filter = JobFilter {
        state: Some(State::Queued),
        limit: 1000,
        ..JobFilter::default()
    };
    world.store.jobs(&filter).await.unwrap().len()
}

fn retry_after(answered: &Answered) -> u64 {
    answered.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_broken_issuer_is_told_at_once_and_nobody_else_notices() {
    let world = World::new().await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    world.run_signer_of(&["beta"]).await;
    let again = request("again.example.com");
    let first = acme.post("/certificates", &again).await.serial();
    queue(&acme, "before", 7).await;
    world.announce(&["alpha"], 0).await;

    for n in 0..20 {
        let started = Instant::now();
        let refused = wait(&acme, &request(&format!("w-{n}.example.com")), "wait=6").await;
        let said = refused.problem(503, "issuer_unavailable");
        assert!(said.contains("alpha"), "{said}");
        assert!((2..=90).contains(&retry_after(&refused)), "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "it has waited all the same");
    }
    // Not even a repeat of what is queued: its certificate cannot be there in time either.
    wait(&acme, &again, "wait=6").await.problem(503, "issuer_unavailable");
    assert_eq!(queued(&world).await, 8, "nothing that was refused was queued");
    assert_eq!(
        world.metric(r#"bulkhead_frontend_refused_total{reason="estimate_unavailable"}"#),
        21
    );
    // Who does not wait is never refused by an estimate; another issuer's clients notice nothing.
    queue(&acme, "beside", 20).await;
    let body = plain("www.example.com", &ClientKey::rsa());
    let issued = wait(&rsa, &body, "wait=6").await;
    assert_eq!(issued.header("preference-applied"), Some("wait=6"), "{issued:?}");

    // The breaker closes: the first request is admitted, and the repeat joins what was there all the time.
    world.run_signer_of(&["alpha"]).await;
    world.announce(&[], 0).await;
    let issued = wait(&acme, &request("after.example.com"), "wait=6").await;
    assert_eq!(issued.header("preference-applied"), Some("wait=6"), "{issued:?}");
    assert_eq!(acme.show(first).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_than_eight_jobs_are_no_reason_and_of_a_hundred_refusals_one_is_a_probe() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    queue(&acme, "few", 7).await;
    world.announce(&["alpha"], 0).await;
    let body = request("seventh.example.com");
    let serial = wait(&acme, &body, "wait=1").await.serial();
    assert_eq!(acme.show(serial).await.status, 202);
    // From here on there are eight. One in a hundred is let through, and joins.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut statuses = Vec::new();
    for _ in 0..250 {
        statuses.push(wait(&acme, &body, "wait=1").await);
    }
    let let_through: Vec<_> = statuses.iter().filter(|answered| answered.status == 201).collect();
    assert_eq!(let_through.len(), 2, "{statuses:?}");
    assert_eq!(world.metric("bulkhead_frontend_probes_total"), 2);
    assert!(
        let_through.iter().all(|answered| answered.serial() == serial),
        "a repeat joins"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_too_slow_for_its_queue_refuses_whoever_waits_and_says_when_to_come_back() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    queue(&acme, "slow", 200).await;
    world.announce(&[], 5).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let refused = wait(&acme, &request("late.example.com"), "wait=6").await;
    refused.problem(503, "overloaded");
    assert!(
        (10..=25).contains(&retry_after(&refused)),
        "200 jobs at 10 a second: {refused:?}"
    );
    queue(&acme, "beside", 5).await;
    // Figures of a signer that has fallen silent say nothing.
    world.advance(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let accepted = wait(&acme, &request("silent.example.com"), "wait=1").await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_no_reason_for_an_estimate() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    queue(&acme, "before", 10).await;
    world.announce(&["alpha"], 0).await;
    wait(&acme, &request("a.example.com"), "wait=1")
        .await
        .problem(503, "issuer_unavailable");
    world.store.set(Some(Fault::Unavailable));
    for _ in 0..36 {
        // Time goes on for this host as well, and not in one step.
        world.host.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wait(&acme, &request("b.example.com"), "wait=1")
        .await
        .problem(503, "store_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_limits_how_long_a_client_may_wait() {
    let world = World::new().await;
    world
        .change_profile("tls", |profile| profile.answer_within = Duration::from_secs(1))
        .await;
    let acme = world.client("acme").await;
    let started = Instant::now();
    let accepted = wait(&acme, &request("www.example.com"), "wait=3600").await;
    assert_eq!(accepted.status, 201);
    let waited = started.elapsed();
    assert!((1000..5000).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(acme.show(accepted.serial()).await.status, 202, "the job goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_accepted_while_its_client_waits_is_not_begun() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world.store.set(Some(Fault::Slow(Duration::from_millis(1800))));
    let first = {
        let acme = acme.clone();
        tokio::spawn(async move { acme.issue("first.example.com").await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = wait(&acme, &request("late.example.com"), "wait=1").await;
    late.problem(503, "overloaded");
    first.await.unwrap();
    assert_eq!(queued(&world).await, 1);
    assert_eq!(world.metric(r#"bulkhead_frontend_refused_total{reason="late"}"#), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_pushes_against_its_share_is_slowed_down_and_its_neighbour_is_not() {
    let world = World::with(|config| config.lanes.interactive = 20).await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    queue(&acme, "share", 10).await;
    let mut ids = Vec::new();
    for n in 0..150 {
        let answered = acme
            .post("/certificates", &request(&format!("more-{n}.example.com")))
            .await;
        assert_eq!(answered.status, 429, "{answered:?}");
        ids.push(answered.json()["id"].as_str().unwrap().to_owned());
    }
    assert!(ids[..16].iter().all(|id| id == "too_many_in_flight"), "{ids:?}");
    let throttled = ids.iter().filter(|id| *id == "rate_limited").count();
    assert!(
        (40..140).contains(&throttled),
        "{throttled} of 150 were not even looked at"
    );
    assert_eq!(
        world.metric(r#"bulkhead_frontend_refused_total{reason="throttled"}"#),
        throttled as u64
    );
    queue(&other, "neighbour", 10).await;
    other
        .post("/certificates", &request("full.example.com"))
        .await
        .problem(429, "too_many_in_flight");
}
