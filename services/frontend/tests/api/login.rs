//! Logins and tokens: who gets in, and what everybody else is told.

use std::{collections::HashSet, time::Duration};

use axum::body::Body;
use domain::bytes::Digest;
use http::Method;
use serde_json::json;

use crate::{
    client::{request, send},
    world::{CERTIFICATE, OTHER_CERTIFICATE, SECRET, World, api_key},
};

fn credentials(account: &str, secret: &str) -> String {
    json!({"api_key": api_key(account), "api_secret": secret}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_login_gives_another_token_and_kills_none() {
    let world = World::new().await;
    let mut tokens = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = world.client("acme").await;
        assert!(tokens.insert(client.token.clone()), "a token came twice");
        clients.push(client);
    }
    for client in clients {
        assert_eq!(client.get("/trustchain").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_a_login_carries_is_ignored() {
    let world = World::new().await;
    let body = credentials("acme", SECRET);
    for (path, headers) in [
        ("/login", &[("authorization", "Bearer ")][..]),
        ("/login", &[("authorization", "Bearer expired.and.foreign")]),
        ("/login/", &[("x-ssl-client-serial", "0123")]),
        ("/login", &[("content-type", "application/json; charset=UTF-8")]),
        ("/login", &[("content-type", "Application/JSON")]),
    ] {
        let mut request = request(Method::POST, path).header("content-length", body.len());
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = send(&world.router, Some(CERTIFICATE), request.body(Body::from(body.clone()))).await;
        assert_eq!(answered.status, 200, "{path} {headers:?}: {answered:?}");
        assert_eq!(answered.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_are_401_whatever_is_bad_about_them() {
    let world = World::with(|config| config.frontend.failures_per_second = 1000).await;
    for (certificate, body) in [
        (CERTIFICATE, credentials("acme", &SECRET.replace('0', "1"))),
        (CERTIFICATE, credentials("acme", "")),
        (
            CERTIFICATE,
            credentials("acme", "not hexadecimal at all, and longer than forty characters"),
        ),
        (CERTIFICATE, credentials("nobody", SECRET)),
        (CERTIFICATE, json!({"api_key": "", "api_secret": ""}).to_string()),
        (OTHER_CERTIFICATE, credentials("acme", SECRET)),
        (Digest([9; 32]), credentials("acme", SECRET)),
        (CERTIFICATE, credentials("dss", SECRET)),
    ] {
        let answered = world.post_login(certificate, &body).await;
        answered.problem(401, "invalid_credentials");
        assert_eq!(answered.header("www-authenticate"), Some("Bearer"));
        let text = String::from_utf8_lossy(&answered.body).into_owned();
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_be_read_says_what_is_wrong() {
    let world = World::new().await;
    for body in ["", "{", "api_key=k", "[]", "null", "\u{feff}{}"] {
        world
            .post_login(CERTIFICATE, body)
            .await
            .problem(400, "invalid_request");
    }
    for (body, field) in [
        (json!({"api_key": "k"}), "api_secret"),
        (json!({"api_secret": "s"}), "api_key"),
        (json!({"api_key": 1, "api_secret": "s"}), "api_key"),
        (json!({"api_key": "k", "api_secret": null}), "api_secret"),
        (json!({"api_key": "k", "api_secret": ["s"]}), "api_secret"),
    ] {
        let said = world
            .post_login(CERTIFICATE, &body.to_string())
            .await
            .problem(422, "invalid_request");
        assert!(said.starts_with(field), "{said}");
    }
    let body = credentials("acme", SECRET);
    let typed = |media_type| {
        let request = request(Method::POST, "/login").header("content-type", media_type);
        request
            .header("content-length", body.len())
            .body(Body::from(body.clone()))
    };
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let answered = send(&world.router, Some(CERTIFICATE), typed(media_type)).await;
        answered.problem(415, "unsupported_media_type");
    }
    let no_type = request(Method::POST, "/login")
        .header("content-length", body.len())
        .body(Body::from(body.clone()));
    send(&world.router, Some(CERTIFICATE), no_type)
        .await
        .problem(415, "unsupported_media_type");
    let no_length = request(Method::POST, "/login")
        .header("content-type", "application/json")
        .body(Body::empty());
    send(&world.router, Some(CERTIFICATE), no_length)
        .await
        .problem(411, "length_required");
    let no_certificate = typed("application/json");
    send(&world.router, None, no_certificate)
        .await
        .problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_403_and_never_401() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world.change_account("acme", |account| account.enabled = false).await;
    world
        .post_login(CERTIFICATE, &credentials("acme", SECRET))
        .await
        .problem(403, "account_disabled");
    acme.get("/trustchain").await.problem(403, "account_disabled");
    world.change_account("acme", |account| account.enabled = true).await;
    assert_eq!(acme.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_ours_is_401() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let jwe = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AxY8DCtDaGlsbGljb3RoZQ.KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ";
    let altered = format!("{}x", acme.token);
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer x",
        &format!("Bearer {jwe}"),
        &format!("Bearer {altered}"),
    ] {
        let request = request(Method::GET, "/trustchain")
            .header("authorization", value)
            .body(Body::empty());
        let answered = send(&world.router, Some(CERTIFICATE), request).await;
        answered.problem(401, "invalid_token");
        assert!(answered.header("www-authenticate").unwrap().starts_with("Bearer"));
    }
    let bare = request(Method::GET, "/trustchain").body(Body::empty());
    send(&world.router, Some(CERTIFICATE), bare)
        .await
        .problem(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bound_to_its_client_certificate() {
    let world = World::new().await;
    let mut stolen = world.client("acme").await;
    stolen.certificate = OTHER_CERTIFICATE;
    stolen.get("/trustchain").await.problem(401, "invalid_token");

    let acme = world.client("acme").await;
    world
        .change_account("acme", |account| account.client_certificates = vec![OTHER_CERTIFICATE])
        .await;
    acme.get("/trustchain").await.problem(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_ten_minutes_and_not_a_quarter_of_an_hour() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world.advance(Duration::from_mins(11)).await;
    assert_eq!(acme.get("/trustchain").await.status, 200);
    world.advance(Duration::from_mins(4)).await;
    acme.get("/trustchain").await.problem(401, "invalid_token");
    assert_eq!(world.client("acme").await.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_cuts_the_tokens_of_a_stolen_credential() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    assert_eq!(
        acme.get("/trustchain").await.status,
        200,
        "the token is remembered as verified"
    );
    world.advance(Duration::from_secs(2)).await;
    let now = world.follower.applied().load().head.at + Duration::from_secs(3);
    world
        .change_account("acme", |account| account.tokens_not_before = now)
        .await;
    acme.get("/trustchain").await.problem(401, "invalid_token");
    assert_eq!(other.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_token_key_ends_its_tokens_and_another_key_takes_its_place() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    assert_eq!(acme.get("/trustchain").await.status, 200);
    let key = world
        .follower
        .applied()
        .load()
        .snapshot
        .token_keys
        .keys()
        .next()
        .unwrap()
        .clone();
    world
        .change(&[domain::registry::Change::RemoveTokenKey { id: key }])
        .await;
    acme.get("/trustchain").await.problem(401, "invalid_token");
    world
        .until(|world| !world.follower.applied().load().snapshot.token_keys.is_empty())
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.client("acme").await.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_that_signs_tokens_is_replaced_daily_and_two_are_live() {
    let world = World::new().await;
    let before = world.client("acme").await;
    world.advance(Duration::from_hours(24) - Duration::from_mins(5)).await;
    let evening = world.client("acme").await;
    world.advance(Duration::from_secs(400)).await;
    world
        .until(|world| world.follower.applied().load().snapshot.token_keys.len() == 2)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let morning = world.client("acme").await;
    assert_eq!(evening.get("/trustchain").await.status, 200, "signed with the old key");
    assert_eq!(morning.get("/trustchain").await.status, 200, "signed with the new one");
    before.get("/trustchain").await.problem(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_spins_on_401_is_slowed_down() {
    let world = World::with(|config| config.frontend.failures_per_second = 5).await;
    let mut spinner = world.client("acme").await;
    spinner.token = "foreign".into();
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(spinner.get("/trustchain").await.status);
    }
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    spinner.get("/trustchain").await.problem(429, "rate_limited");
    let honest = world.client("acme").await;
    assert_eq!(
        honest.get("/trustchain").await.status,
        200,
        "a good token over the same certificate is let in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_over_its_rate_is_429_and_the_others_are_not() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    world
        .change_account("acme", |account| account.requests_per_second = 3)
        .await;
    let mut limited = 0;
    for _ in 0..20 {
        let answered = acme.get("/trustchain").await;
        if answered.status == 429 {
            answered.problem(429, "rate_limited");
            assert_eq!(answered.header("retry-after"), Some("1"));
            limited += 1;
        }
    }
    assert!(limited >= 10, "{limited} of 20");
    assert_eq!(other.get("/trustchain").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_off_judges_no_token() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    world
        .store
        .set(Some(crate::faulty::Fault::Ahead(Duration::from_mins(1))));
    tokio::time::sleep(Duration::from_millis(800)).await;
    acme.get("/trustchain").await.problem(503, "not_ready");
    world
        .post_login(CERTIFICATE, &credentials("acme", SECRET))
        .await
        .problem(503, "not_ready");
    world.store.set(None);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(acme.get("/trustchain").await.status, 200);
}
