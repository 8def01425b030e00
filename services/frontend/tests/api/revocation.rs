//! Revocation by PATCH and DELETE.

use domain::job::State;
use serde_json::json;
use store::{JobFilter, Store as _};

use crate::{ca::ClientKey, client::plain, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_revoke_and_a_revoked_certificate_stays_readable() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for by_patch in [true, false] {
        let serial = acme.issue("www.example.com").await;
        world.sign(serial).await;
        let path = format!("/certificates/{serial}");
        let issued = acme.show(serial).await.json();
        let revoke = || async {
            if by_patch {
                acme.patch(&path, &json!({"revocation_reason": "superseded"})).await
            } else {
                // Clients revoke with lower-case digits.
                acme.delete(&path.to_lowercase()).await
            }
        };
        let revoked = revoke().await;
        assert_eq!((revoked.status, revoked.body.len()), (204, 0));
        let shown = acme.show(serial).await.json();
        assert_eq!(shown["status"], "REVOKED");
        assert_eq!(shown["certificate"], issued["certificate"]);
        assert!(shown["updated_at"].as_i64() >= issued["updated_at"].as_i64());
        revoke().await.problem(409, "already_revoked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_of_the_contract_is_taken_and_no_other() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for reason in [
        "unspecified",
        "affiliationChanged",
        "keyCompromise",
        "superseded",
        "cessationOfOperation",
        "privilegeWithdrawn",
    ] {
        let serial = acme.issue("www.example.com").await;
        world.sign(serial).await;
        let body = json!({"revocation_reason": reason, "revocation_time": 0});
        let revoked = acme.patch(&format!("/certificates/{serial}"), &body).await;
        assert_eq!(revoked.status, 204, "{reason}");
    }
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    for (body, said) in [
        (json!({"revocation_reason": "certificateHold"}), "revocation_reason"),
        (json!({"revocation_reason": "removeFromCRL"}), "revocation_reason"),
        (json!({}), "revocation_reason"),
        (json!({"revocation_reason": null}), "revocation_reason"),
        (json!({"revocation_reason": "superseded", "when": 1}), "when"),
    ] {
        let answered = acme.patch(&format!("/certificates/{serial}"), &body).await;
        assert!(answered.problem(422, "invalid_request").starts_with(said), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_can_be_raised_to_a_compromise_once() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    let path = format!("/certificates/{serial}");
    assert_eq!(acme.delete(&path).await.status, 204);
    let raised = json!({"revocation_reason": "keyCompromise"});
    assert_eq!(acme.patch(&path, &raised).await.status, 204);
    acme.patch(&path, &raised).await.problem(409, "already_revoked");
    acme.delete(&path).await.problem(409, "already_revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_compromise_may_lie_in_the_past_and_nothing_in_the_future() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    let now = domain::time::Clock::now(&*world.host).as_secs();
    let mut body = plain("www.example.com", &key);
    body["validity"]["not_before"] = json!(now - 1800);
    let serial = acme.post("/certificates", &body).await.serial();
    world.sign(serial).await;
    let path = format!("/certificates/{serial}");
    let at = |reason: &str, time: i64| json!({"revocation_reason": reason, "revocation_time": time});
    acme.patch(&path, &at("superseded", now + 600))
        .await
        .problem(422, "invalid_revocation");
    acme.patch(&path, &at("keyCompromise", now + 600))
        .await
        .problem(422, "invalid_revocation");
    acme.patch(&path, &at("superseded", now - 600))
        .await
        .problem(422, "invalid_revocation");
    acme.patch(&path, &at("keyCompromise", now - 86_400))
        .await
        .problem(422, "invalid_revocation");
    assert_eq!(acme.show(serial).await.json()["status"], "ISSUED");
    assert_eq!(acme.patch(&path, &at("keyCompromise", now - 600)).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_issued_yet_is_pending() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let serial = acme.issue("www.example.com").await;
    let path = format!("/certificates/{serial}");
    acme.delete(&path).await.problem(409, "pending");
    acme.patch(&path, &json!({"revocation_reason": "keyCompromise"}))
        .await
        .problem(409, "pending");
    world.sign(serial).await;
    assert_eq!(acme.delete(&path).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_compromise_cancels_what_is_pending_and_blocks_the_key() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    let serial = acme
        .post("/certificates", &plain("www.example.com", &key))
        .await
        .serial();
    let path = format!("/certificates/{serial}");
    let by = |attestation: String, reason: &str| json!({"revocation_reason": reason, "key_compromise_attestation": attestation});
    for (attestation, reason) in [
        (ClientKey::p256().csr(), "keyCompromise"),
        (key.public_pem(), "keyCompromise"),
        ("nonsense".into(), "keyCompromise"),
        (key.csr(), "superseded"),
    ] {
        let said = acme
            .patch(&path, &by(attestation, reason))
            .await
            .problem(422, "invalid_revocation");
        assert!(said.starts_with("key_compromise_attestation: "), "{said}");
    }
    assert_eq!(acme.patch(&path, &by(key.csr(), "keyCompromise")).await.status, 204);
    world
        .until(|world| !world.follower.applied().load().snapshot.blocked_keys.is_empty())
        .await;
    let again = acme.post("/certificates", &plain("mail.example.com", &key)).await;
    again.problem(422, "blocked_key");
    let cancelled = world.store.cancelled(&[serial]).await.unwrap();
    assert_eq!(cancelled, [serial]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_key_is_blocked_on_the_word_of_somebody_who_never_held_it() {
    let world = World::new().await;
    let (bare, acme) = (world.client("bare").await, world.client("acme").await);
    let victim = ClientKey::p256();
    let mut body = plain("www.example.com", &victim);
    body["public_key"] = json!(victim.public_pem());
    let serial = bare.post("/certificates", &body).await.serial();
    world.sign(serial).await;
    let path = format!("/certificates/{serial}");
    assert_eq!(
        bare.patch(&path, &json!({"revocation_reason": "keyCompromise"}))
            .await
            .status,
        204
    );
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(world.follower.applied().load().snapshot.blocked_keys.is_empty());
    assert_eq!(
        acme.post("/certificates", &plain("www.example.com", &victim))
            .await
            .status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_revokes_what_is_not_theirs_or_not_there() {
    let world = World::new().await;
    let (acme, other) = (world.client("acme").await, world.client("other").await);
    let serial = acme.issue("www.example.com").await;
    world.sign(serial).await;
    let unknown = "01000000000000000000000000000000";
    let compromise = json!({"revocation_reason": "keyCompromise"});
    for path in [
        format!("/certificates/{serial}"),
        format!("/certificates/{unknown}"),
        "/certificates/7".into(),
    ] {
        other.delete(&path).await.problem(404, "not_found");
        other.patch(&path, &compromise).await.problem(404, "not_found");
    }
    acme.delete("/certificates/01:02").await.problem(422, "invalid_request");
    assert_eq!(acme.show(serial).await.json()["status"], "ISSUED");

    let refused = acme.issue("mail.example.com").await;
    world.refuse(refused, "policy_violation", "too late").await;
    acme.delete(&format!("/certificates/{refused}"))
        .await
        .problem(422, "invalid_revocation");
    let filter = JobFilter {
        state: Some(State::Refused),
        limit: 10,
        ..JobFilter::default()
    };
    assert!(!world.store.jobs(&filter).await.unwrap()[0].revoked);
}
