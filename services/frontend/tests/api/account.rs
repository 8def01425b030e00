//! What an account may know of its issuer and of itself.

use std::time::Duration;

use domain::{id::Serial, time::Clock as _};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_chain_is_an_array_from_the_issuer_to_the_root() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let chain = acme.get("/trustchain").await.json();
    let chain: Vec<Vec<u8>> = chain
        .as_array()
        .unwrap()
        .iter()
        .map(|pem| pki::pem::decode("CERTIFICATE", pem.as_str().unwrap()).unwrap())
        .collect();
    let issuer = &world.authorities[0].issuer;
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[0], *issuer.chain[0]);
    let root = pki::certificate::read(&chain[1]).unwrap();
    assert_eq!(root.subject, root.issuer, "the root is last");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_whole_and_ends_with_its_issuer() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let policy = acme.get("/validationpolicy").await.json();
    for path in [
        "/validity/secondsmin",
        "/validity/secondsmax",
        "/validity/not_before_negative_skew",
        "/validity/not_before_positive_skew",
        "/validity/issuer_expiry",
        "/subject_dn/common_name/presence",
        "/subject_dn/country/presence",
        "/subject_dn/email/presence",
        "/subject_dn/locality/presence",
        "/subject_dn/organization/presence",
        "/subject_dn/state/presence",
        "/subject_dn/serial_number/presence",
        "/subject_dn/organizational_unit/static",
        "/san/dns_names/static",
        "/san/ip_addresses/static",
        "/san/emails/static",
        "/san/uris/static",
        "/key_usages/digital_signature",
        "/extended_key_usages/ekus/static",
        "/signature/algorithm/presence",
        "/signature/hash_algorithm/presence",
        "/signature/hash_algorithm/list",
        "/public_key/key_type",
        "/public_key/allowed_lengths",
        "/public_key/key_format",
        "/public_key_signature",
    ] {
        assert!(
            policy.pointer(path).is_some_and(|value| !value.is_null()),
            "{path} in {policy}"
        );
    }
    assert_eq!(
        policy["validity"]["issuer_expiry"],
        world.authorities[0].issuer.not_after
    );
    assert_eq!(
        policy["public_key"],
        json!({"key_type": "ECDSA", "allowed_lengths": [256], "key_format": "PKCS10"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_quotas_count_what_was_issued_and_what_is_under_way() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let value = |answered: crate::client::Answered| answered.json()["value"].as_u64().unwrap();
    let serials = [
        acme.issue("a.example.com").await,
        acme.issue("b.example.com").await,
        acme.issue("c.example.com").await,
    ];
    world.sign(serials[0]).await;
    world.sign(serials[1]).await;
    assert_eq!(acme.delete(&format!("/certificates/{}", serials[1])).await.status, 204);
    assert_eq!(value(acme.get("/counters/certificates/issued").await), 2);
    assert_eq!(value(acme.get("/counters/certificates/revoked/").await), 1);
    assert_eq!(
        value(acme.get("/quotas/issuance").await),
        997,
        "what is under way is reserved"
    );
    world.refuse(serials[2], "policy_violation", "no").await;
    assert_eq!(
        value(acme.get("/quotas/issuance").await),
        998,
        "what came to nothing is given back"
    );
    assert_eq!(value(other.get("/counters/certificates/issued").await), 0);
}

fn serials(page: &Value) -> Vec<Serial> {
    let entries = page.as_array().unwrap().iter();
    entries
        .map(|entry| entry["serial_number"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_in_pages_with_their_count_and_their_links() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let mut issued = Vec::new();
    for n in 0..5 {
        let serial = acme.issue(&format!("www-{n}.example.com")).await;
        world.sign(serial).await;
        issued.push(serial);
    }
    issued.sort();
    let all = acme.get("/stats/issued").await;
    assert_eq!(
        (all.status, all.header("total-count"), all.header("links")),
        (200, Some("5"), Some(""))
    );
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(serials(&all.json()), issued);
    let entry = &all.json()[0];
    let shown = entry["serial_number"].as_str().unwrap();
    assert!(shown.len() == 32 && shown == shown.to_uppercase());
    assert!(entry["not_before"].as_i64() < entry["not_after"].as_i64());

    let mut pages = Vec::new();
    for page in 1..=3 {
        let answered = acme.get(&format!("/stats/issued?page={page}&per_page=2")).await;
        assert_eq!(answered.header("total-count"), Some("5"));
        assert_eq!(answered.header("links").unwrap().contains("next"), page < 3);
        pages.extend(serials(&answered.json()));
    }
    assert_eq!(pages, issued);
    let beyond = acme.get("/stats/issued?page=9&per_page=2").await;
    assert_eq!(
        (beyond.status, beyond.json(), beyond.header("total-count")),
        (200, json!([]), Some("5"))
    );
    let others = other.get("/stats/issued").await;
    assert_eq!((others.json(), others.header("total-count")), (json!([]), Some("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_statistic_goes_by_its_own_time() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    assert_eq!(acme.delete(&format!("/certificates/{serial}")).await.status, 204);
    let now = world.host.now().as_secs();
    assert_eq!(serials(&acme.get("/stats/revoked").await.json()), [serial]);
    assert_eq!(acme.get("/stats/expiring").await.json(), json!([]));
    let (from, to) = (now + 89 * 86_400, now + 91 * 86_400);
    assert_eq!(
        serials(&acme.get(&format!("/stats/expiring?from={from}&to={to}")).await.json()),
        [serial]
    );
    world.advance(Duration::from_secs(601)).await;
    let acme = world.client("acme").await;
    assert_eq!(
        acme.get("/stats/issued").await.json(),
        json!([]),
        "the default is the last ten minutes"
    );
    let since = acme.get(&format!("/stats/issued?from={}", now - 5)).await;
    assert_eq!(serials(&since.json()), [serial]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_cannot_be_is_422() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for query in [
        "from=2&to=1",
        "from=0&to=2592001",
        "from=x",
        "page=0",
        "per_page=0",
        "per_page=1001",
    ] {
        for statistic in ["issued", "revoked", "expiring"] {
            let answered = acme.get(&format!("/stats/{statistic}?{query}")).await;
            answered.problem(422, "invalid_request");
        }
    }
}
