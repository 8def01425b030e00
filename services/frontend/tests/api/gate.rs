//! What every request meets, whatever its route.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Request};
use serde_json::Value;

use crate::{
    ca::ClientKey,
    client::{plain, request, send},
    faulty::Fault,
    world::{CERTIFICATE, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_a_problem_as_well() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for path in [
        "/nothing",
        "/certificates/1/2/3",
        "/claims/domains",
        "",
        "/trustchain/x",
    ] {
        acme.get(path).await.problem(404, "not_found");
    }
    for path in ["/", "/v1/login", "/v2x"] {
        let elsewhere = Request::builder().uri(path).body(Body::empty());
        send(&world.router, Some(CERTIFICATE), elsewhere)
            .await
            .problem(404, "not_found");
    }
    for (method, path, allow) in [
        (Method::GET, "/login", "POST"),
        (Method::PUT, "/certificates", "POST"),
        (Method::POST, "/trustchain", "GET,HEAD"),
        (
            Method::DELETE,
            "/certificates/01000000000000000000000000000000/rekey",
            "POST",
        ),
        (
            Method::POST,
            "/certificates/01000000000000000000000000000000",
            "GET,HEAD,PATCH,DELETE",
        ),
    ] {
        let answered = acme.send(request(method.clone(), path), Body::empty()).await;
        answered.problem(405, "method_not_allowed");
        let allowed: std::collections::BTreeSet<&str> = answered.header("allow").unwrap().split(',').collect();
        assert_eq!(allowed, allow.split(',').collect(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_however_it_comes() {
    let world = World::with(|config| config.frontend.max_body_bytes = 10_000).await;
    let acme = world.client("acme").await;
    let mut body = plain("www.example.com", &ClientKey::p256());
    body["san"]["dns_names"] = (0..1000).map(|n| format!("www-{n}.example.com")).collect();
    acme.post("/certificates", &body).await.problem(413, "too_large");
    let chunked = [("transfer-encoding", "chunked")];
    let body = body.to_string();
    acme.json(Method::POST, "/certificates", &chunked, &body)
        .await
        .problem(413, "too_large");
    let small = plain("www.example.com", &ClientKey::p256()).to_string();
    assert_eq!(
        acme.json(Method::POST, "/certificates", &chunked, &small).await.status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn media_types_and_lengths_are_the_same_for_every_body() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let body = plain("www.example.com", &ClientKey::p256()).to_string();
    for (method, path) in [
        (Method::POST, "/certificates"),
        (Method::PATCH, "/certificates/01000000000000000000000000000000"),
        (Method::POST, "/certificates/01000000000000000000000000000000/rekey"),
    ] {
        let typed = |media_type| {
            let request = request(method.clone(), path).header("content-length", body.len());
            acme.send(request.header("content-type", media_type), body.clone())
        };
        typed("text/json").await.problem(415, "unsupported_media_type");
        for media_type in [
            "application/json",
            "application/json;charset=utf-8",
            "APPLICATION/JSON ; x=y",
        ] {
            assert_ne!(typed(media_type).await.status, 415, "{media_type}");
        }
        let bare = request(method.clone(), path).header("content-type", "application/json");
        acme.send(bare, Body::empty()).await.problem(411, "length_required");
    }
    let http2 = request(Method::POST, "/certificates")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/json");
    assert_eq!(acme.send(http2, body).await.status, 201, "HTTP/2 needs no length");
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_at_the_end_are_served_without_a_redirect() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for path in [
        "/trustchain/",
        "/validationpolicy/",
        "/validationpolicy//",
        "/counters/certificates/issued/",
        "/stats/issued/?page=1",
    ] {
        assert_eq!(acme.get(path).await.status, 200, "{path}");
    }
    let posted = acme
        .post("/certificates/", &plain("www.example.com", &ClientKey::p256()))
        .await;
    assert_eq!(posted.status, 201);
    assert!(!posted.header("location").unwrap().ends_with('/'));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_a_time_are_bounded_and_divided() {
    let world = World::with(|config| config.frontend.requests = 8).await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    world.store.set(Some(Fault::Slow(Duration::from_millis(800))));
    let accept = |name: &str| {
        let (acme, body) = (acme.clone(), plain(name, &ClientKey::p256()));
        tokio::spawn(async move { acme.post("/certificates", &body).await })
    };
    let accepting = [accept("a.example.com"), accept("b.example.com")];
    tokio::time::sleep(Duration::from_millis(300)).await;
    acme.get("/trustchain").await.problem(429, "too_many_in_flight");
    assert_eq!(
        rsa.get("/trustchain").await.status,
        200,
        "another issuer's account has its own"
    );
    for accepting in accepting {
        assert_eq!(accepting.await.unwrap().status, 201);
    }
    assert_eq!(acme.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_a_dead_issuer_keep_nobody_from_waiting_for_another() {
    let world = World::with(|config| {
        config.frontend.requests = 16;
        config.frontend.waiting = 16;
    })
    .await;
    world.run_signer_of(&["beta"]).await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    let mut waiting = Vec::new();
    for n in 0..40 {
        let (acme, body) = (
            acme.clone(),
            plain(&format!("www-{n}.example.com"), &ClientKey::p256()).to_string(),
        );
        waiting.push(tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                let answer = acme.json(Method::POST, "/certificates", &[("prefer", "wait=5")], &body);
                let answer = answer.await;
                // On a slow machine too many may be accepted at the same time. That passes at once: long before anybody's wait is over.
                if !matches!(answer.status, 429 | 503) || begun.elapsed() > Duration::from_secs(2) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let body = plain("www.example.com", &ClientKey::rsa()).to_string();
    let issued = rsa
        .json(Method::POST, "/certificates", &[("prefer", "wait=6")], &body)
        .await;
    assert_eq!(issued.header("preference-applied"), Some("wait=6"));
    assert!(
        waiting.iter().any(|waiting| !waiting.is_finished()),
        "it was served when the others had given up"
    );
    for waiting in waiting {
        let accepted = waiting.await.unwrap();
        assert_eq!((accepted.status, accepted.header("preference-applied")), (201, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_declared_route_and_named_for_questions() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let (one, two) = (acme.get("/trustchain").await, acme.get("/trustchain").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    let serial = acme.issue("www.example.com").await;
    acme.show(serial).await;
    acme.get("/certificates/1").await;
    acme.get("/anything/at/all").await;
    let metrics = world.metrics.encode();
    for line in [
        r#"bulkhead_frontend_requests_total{route="/v2/trustchain",method="GET",status="2xx"} 2"#,
        r#"bulkhead_frontend_requests_total{route="/v2/certificates/{serial}",method="GET",status="2xx"} 1"#,
        r#"bulkhead_frontend_requests_total{route="/v2/certificates/{serial}",method="GET",status="4xx"} 1"#,
        r#"bulkhead_frontend_requests_total{route="unknown",method="GET",status="4xx"} 1"#,
        r#"bulkhead_frontend_accept_seconds_count{class="interactive",outcome="accepted"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains(&serial.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_is_ready_once_store_registry_clock_and_token_key_are() {
    let world = World::new().await;
    world.until(|world| world.health.readiness().ready).await;
    let readiness = world.health.readiness();
    let parts: Vec<_> = readiness.parts.iter().map(|told| told.part).collect();
    assert_eq!(
        parts,
        [
            "frontend clock",
            "frontend registry",
            "frontend store",
            "frontend tokens"
        ]
    );
    let lanes: Vec<_> = readiness
        .lanes
        .iter()
        .map(|told| (told.lane.as_deref().unwrap(), told.ready))
        .collect();
    assert_eq!(lanes, [("alpha.interactive", true), ("beta.interactive", true)]);
    world.change_issuer("beta", |issuer| issuer.usage.issue = false).await;
    let told = |world: &World| {
        let lanes = world.health.readiness().lanes;
        lanes
            .iter()
            .any(|told| !told.ready && told.reason == "the issuer is disabled")
    };
    world.until(told).await;
    assert!(world.health.readiness().ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself_to_anybody_who_may_connect() {
    let world = World::new().await;
    let served = request(Method::GET, "/openapi.json").body(Body::empty());
    let served = send(&world.router, Some(CERTIFICATE), served).await;
    assert_eq!(
        (served.status, served.header("content-type")),
        (200, Some("application/json"))
    );
    let document: Value = served.json();
    let operations = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values());
    let ids: Vec<_> = operations
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), different.len(), "{ids:?}");
    for id in wire::problem::ProblemId::ALL {
        assert!(
            document["info"]["description"]
                .as_str()
                .unwrap()
                .contains(&format!("- `{id}`: ")),
            "{id}"
        );
    }
    insta::assert_json_snapshot!("openapi", document);
}
