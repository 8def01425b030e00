//! The same certificate for another key.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::{ca::ClientKey, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_says_the_same_for_another_key_until_the_same_end() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let old = acme.issue("www.example.com").await;
    world.sign(old).await;
    world.advance(Duration::from_secs(3)).await;
    let key = ClientKey::p256();
    let body = json!({"public_key": key.csr(), "signature": {"hash_algorithm": null}});
    let rekeyed = acme.post(&format!("/certificates/{old}/rekey"), &body).await;
    let new = rekeyed.serial();
    assert_ne!(new, old);
    assert_eq!(
        acme.post(&format!("/certificates/{old}/rekey/"), &body).await.serial(),
        new,
        "asked twice"
    );
    world.sign(new).await;
    let der = |serial| {
        let acme = acme.clone();
        async move {
            let document = acme.show(serial).await.json();
            pki::pem::decode("CERTIFICATE", document["certificate"].as_str().unwrap()).unwrap()
        }
    };
    let (old_der, new_der) = (der(old).await, der(new).await);
    let (before, after) = (
        pki::certificate::read(&old_der).unwrap(),
        pki::certificate::read(&new_der).unwrap(),
    );
    assert_eq!((after.subject, after.not_after), (before.subject, before.not_after));
    assert!(after.not_before > before.not_before);
    assert_eq!(after.public_key, key.spki());
    assert_eq!(
        acme.get("/quotas/issuance").await.json(),
        json!({"value": 998}),
        "a rekey counts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_can_be_waited_for() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let old = acme.issue("www.example.com").await;
    world.sign(old).await;
    world.run_signer().await;
    let body = json!({"public_key": ClientKey::p256().csr()}).to_string();
    let path = format!("/certificates/{old}/rekey");
    let rekeyed = acme.json(Method::POST, &path, &[("prefer", "wait=6")], &body).await;
    assert_eq!(rekeyed.header("preference-applied"), Some("wait=6"));
    assert_eq!(rekeyed.json(), acme.show(rekeyed.serial()).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rekeyed_says_why() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let body = json!({"public_key": ClientKey::p256().csr()});
    let serial = acme.issue("www.example.com").await;
    let path = format!("/certificates/{serial}/rekey");
    acme.post(&path, &body).await.problem(409, "pending");
    world.sign(serial).await;
    other.post(&path, &body).await.problem(404, "not_found");
    acme.post("/certificates/01000000000000000000000000000000/rekey", &body)
        .await
        .problem(404, "not_found");
    acme.post("/certificates/01:00/rekey", &body)
        .await
        .problem(422, "invalid_request");
    for (body, id, field) in [
        (json!({}), "invalid_request", "public_key"),
        (
            json!({"public_key": "x", "subject_dn": {"country": "DE"}}),
            "invalid_request",
            "subject_dn",
        ),
        (
            json!({"public_key": ClientKey::p256().public_pem()}),
            "bad_csr",
            "public_key",
        ),
        (
            json!({"public_key": ClientKey::rsa().csr()}),
            "key_type_mismatch",
            "public_key",
        ),
        (
            json!({"public_key": ClientKey::p256().csr(), "signature": {"algorithm": "RSA"}}),
            "policy_violation",
            "signature.algorithm",
        ),
    ] {
        let said = acme.post(&path, &body).await.problem(422, id);
        assert!(said.starts_with(field), "{said}");
    }
    world
        .change_profile("tls", |profile| {
            profile.policy.san.dns_names.list = vec!["example.org".into()];
        })
        .await;
    let said = acme.post(&path, &body).await.problem(422, "policy_violation");
    assert!(
        said.starts_with("san.dns_names"),
        "the profile now in force decides: {said}"
    );
    assert_eq!(acme.delete(&format!("/certificates/{serial}")).await.status, 204);
    acme.post(&path, &body).await.problem(409, "already_revoked");

    let refused = acme.issue("www.example.org").await;
    world.refuse(refused, "policy_violation", "no").await;
    acme.post(&format!("/certificates/{refused}/rekey"), &body)
        .await
        .problem(422, "policy_violation");
}
