//! Requests that must not become jobs, and what their clients are told.

use std::time::Duration;

use domain::{
    issuer::IssuerState,
    policy::{Presence, StringPolicy},
};
use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{LaneSwitches, Store as _};

use crate::{
    ca::ClientKey,
    client::{Client, plain},
    world::World,
};

/// Nothing waits, nothing is counted.
async fn nothing_happened(world: &World, client: &Client) {
    assert_eq!(world.store.lanes().await.unwrap(), []);
    assert_eq!(client.get("/quotas/issuance").await.json(), json!({"value": 1000}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_request_is_400() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    for body in ["", "{", "null", "[]", "7", "public_key", "{\"public_key\":\"x\"}}"] {
        let answered = acme.json(Method::POST, "/certificates", &[], body).await;
        answered.problem(400, "invalid_request");
    }
    nothing_happened(&world, &acme).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_wrong_is_named() {
    let world = World::new().await;
    let acme = world.client("acme").await;
    let good = plain("www.example.com", &ClientKey::p256());
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        body
    };
    let and = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, id, said) in [
        (
            with("/subject_dn", json!({})),
            "policy_violation",
            "subject_dn.common_name: is required",
        ),
        (
            with("/subject_dn/common_name", json!(7)),
            "invalid_request",
            "subject_dn.common_name: must be a string",
        ),
        (
            with(
                "/subject_dn",
                json!({"common_name": "www.example.com", "country": "DE"}),
            ),
            "policy_violation",
            "subject_dn.country: is forbidden",
        ),
        (
            with(
                "/subject_dn",
                json!({"common_name": "www.example.com", "shoe_size": "43"}),
            ),
            "policy_violation",
            "subject_dn.shoe_size: ",
        ),
        (
            with("/san/dns_names", json!(["*.*.example.com"])),
            "lint_failed",
            "san.dns_names",
        ),
        (
            with("/san/dns_names", json!(["exa mple.com"])),
            "lint_failed",
            "san.dns_names",
        ),
        (
            with("/san", json!({"ip_addresses": ["127.0.0.1"]})),
            "policy_violation",
            "san.ip_addresses: is forbidden",
        ),
        (
            with("/validity/not_before", json!(4_000_000_000_i64)),
            "policy_violation",
            "validity.not_before: is too far ahead",
        ),
        (
            with("/validity/not_after", json!(7)),
            "policy_violation",
            "validity.not_after: ",
        ),
        (
            with("/validity/not_after", json!("soon")),
            "invalid_request",
            "validity.not_after: ",
        ),
        (
            and("signature", json!({"hash_algorithm": "SHA-512"})),
            "policy_violation",
            "signature.hash_algorithm: ",
        ),
        (
            and("signature", json!({"algorithm": "RSA"})),
            "policy_violation",
            "signature.algorithm: ",
        ),
        (
            and("extended_key_usages", json!(["1.3.6.1.5.5.7.3.2"])),
            "policy_violation",
            "extended_key_usages: is static",
        ),
        (
            and("key_usages", json!({"key_certificate_sign": true})),
            "policy_violation",
            "key_usages.key_certificate_sign: is static",
        ),
        (
            and("custom_extensions", json!({"1.2.3": "x"})),
            "policy_violation",
            "custom_extensions.1.2.3: ",
        ),
        (
            and("qualified_statements", json!({"etsi_qc_compliance": true})),
            "policy_violation",
            "qualified_statements",
        ),
        (
            and("public_key_signature", json!("AAAA")),
            "policy_violation",
            "public_key_signature: ",
        ),
        (
            and("testing", json!(123)),
            "invalid_request",
            "testing: is not a known field",
        ),
        (
            with("/public_key", Value::Null),
            "invalid_request",
            "public_key: is required",
        ),
        (
            with("/public_key", json!(["x"])),
            "invalid_request",
            "public_key: must be a string",
        ),
    ] {
        let problem = acme.post("/certificates", &body).await;
        let description = problem.problem(422, id);
        assert!(description.starts_with(said), "{description:?} for {body}");
    }
    nothing_happened(&world, &acme).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_violation_is_in_errors_and_a_static_field_must_not_be_sent() {
    let world = World::new().await;
    world
        .change_profile("tls", |profile| {
            profile.policy.subject_dn.country = StringPolicy {
                presence: Presence::Static,
                format: "GB".into(),
            };
        })
        .await;
    let acme = world.client("acme").await;
    let mut body = plain("www.example.com", &ClientKey::p256());
    body["subject_dn"] = json!({"country": "GB", "state": "Kent"});
    let problem = acme.post("/certificates", &body).await;
    assert!(problem.problem(422, "policy_violation").starts_with("subject_dn."));
    let errors = problem.json()["errors"].clone();
    assert_eq!(errors["subject_dn.country"], "is static");
    assert_eq!(errors["subject_dn.state"], "is forbidden");
    assert_eq!(errors["subject_dn.common_name"], "is required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_refused_naming_both() {
    let world = World::new().await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    for (client, key, asked, pinned) in [
        (&acme, ClientKey::rsa(), "RSA-2048", "P-256"),
        (&acme, ClientKey::p384(), "P-384", "P-256"),
        (&rsa, ClientKey::p256(), "P-256", "RSA-2048"),
    ] {
        let said = client
            .post("/certificates", &plain("www.example.com", &key))
            .await
            .problem(422, "key_type_mismatch");
        assert!(
            said.starts_with("public_key: ") && said.contains(asked) && said.contains(pinned),
            "{said}"
        );
    }
    nothing_happened(&world, &acme).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_that_proves_nothing_is_refused() {
    let world = World::new().await;
    let (acme, bare) = (world.client("acme").await, world.client("bare").await);
    let key = ClientKey::p256();
    let good = key.csr();
    let der = pki::pem::decode("CERTIFICATE REQUEST", &good).unwrap();
    let mut altered = der.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut lengthened = der.clone();
    lengthened.push(0);
    for csr in [
        pki::pem::encode("CERTIFICATE REQUEST", &altered),
        pki::pem::encode("CERTIFICATE REQUEST", &lengthened),
        pki::pem::encode("CERTIFICATE REQUEST", &der[..der.len() / 2]),
        key.public_pem(),
        format!("{good}{good}"),
        good.replace("-----\nM", "-----\n!"),
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n".into(),
        "hello".into(),
    ] {
        let mut body = plain("www.example.com", &key);
        body["public_key"] = json!(csr);
        let said = acme.post("/certificates", &body).await.problem(422, "bad_csr");
        assert!(said.starts_with("public_key: "), "{said}");
    }
    // Without the final newline it is as good.
    let mut body = plain("www.example.com", &key);
    body["public_key"] = json!(good.trim_end());
    assert_eq!(acme.post("/certificates", &body).await.status, 201);

    body["public_key"] = json!(key.public_pem());
    for (signature, status) in [
        (ClientKey::p256().possession(), 422),
        ("!!".into(), 422),
        (key.possession(), 201),
    ] {
        body["public_key_signature"] = json!(signature);
        let answered = bare.post("/certificates", &body).await;
        assert_eq!(answered.status, status, "{answered:?}");
        if status == 422 {
            assert!(answered.problem(422, "bad_csr").starts_with("public_key_signature: "));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_and_foreign_keys_are_told_apart() {
    let world = World::new().await;
    let rsa = world.client("rsa").await;
    let mut profile = plain("www.example.com", &ClientKey::rsa());
    world
        .change_profile("tls-rsa", |profile| {
            profile.policy.public_key.key_format = domain::policy::KeyFormat::Pkcs8;
        })
        .await;
    // RSA keys whose modulus is any 2048-bit number: one even, one with an exponent of 3; and one of 1024 bits.
    let spki = |bytes: usize, last: u8, exponent: &[u8]| {
        let mut modulus = vec![0xc5; bytes];
        modulus[bytes - 1] = last;
        rsa_spki(&modulus, exponent)
    };
    for (der, id) in [
        (spki(256, 0xc4, &[1, 0, 1]), "weak_key"),
        (spki(256, 0xc5, &[3]), "weak_key"),
        (spki(128, 0xc5, &[1, 0, 1]), "key_type_mismatch"),
    ] {
        profile["public_key"] = json!(pki::pem::encode("PUBLIC KEY", &der));
        let said = rsa.post("/certificates", &profile).await.problem(422, id);
        assert!(said.starts_with("public_key: "), "{said}");
    }
}

/// DER of an RSA `SubjectPublicKeyInfo` (RFC 8017, A.1.1).
fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        let mut der = vec![tag];
        match length {
            0..=127 => der.push(u8::try_from(length).unwrap()),
            128..=255 => der.extend([0x81, u8::try_from(length).unwrap()]),
            _ => der.extend([&[0x82][..], &length.to_be_bytes()].concat()),
        }
        der.extend_from_slice(content);
        der
    }
    let integer = |number: &[u8]| {
        let sign: &[u8] = if number[0] > 127 { &[0] } else { &[] };
        element(2, &[sign, number].concat())
    };
    let key = element(0x30, &[integer(modulus), integer(exponent)].concat());
    let rsa_encryption = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let bits = element(3, &[&[0][..], &key].concat());
    element(0x30, &[&rsa_encryption[..], &bits].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_issuer_is_refused_before_the_queue() {
    let world = World::new().await;
    let (acme, rsa) = (world.client("acme").await, world.client("rsa").await);
    let body = plain("www.example.com", &ClientKey::p256());
    world.change_issuer("alpha", |issuer| issuer.usage.issue = false).await;
    let said = acme.post("/certificates", &body).await.problem(422, "issuer_disabled");
    assert!(said.contains("alpha"), "{said}");
    nothing_happened(&world, &acme).await;
    assert_eq!(
        rsa.post("/certificates", &plain("www.example.com", &ClientKey::rsa()))
            .await
            .status,
        201
    );

    world.change_issuer("alpha", |issuer| issuer.usage.issue = true).await;
    assert_eq!(acme.post("/certificates", &body).await.status, 201);
    world
        .change_issuer("alpha", |issuer| issuer.state = IssuerState::Destroyed)
        .await;
    acme.post("/certificates", &plain("a.example.com", &ClientKey::p256()))
        .await
        .problem(422, "issuer_destroyed");
    world
        .change_issuer("beta", |issuer| issuer.not_after = 1_000_000_000)
        .await;
    let expired = rsa
        .post("/certificates", &plain("a.example.com", &ClientKey::rsa()))
        .await;
    expired.problem(422, "issuer_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_lanes_accounts_and_quotas_say_which_they_are() {
    let world = World::with(|config| config.lanes.interactive = 6).await;
    let acme = world.client("acme").await;
    let other = world.client("other").await;
    for n in 0..3 {
        acme.issue(&format!("www-{n}.example.com")).await;
    }
    let next = plain("www-3.example.com", &ClientKey::p256());
    acme.post("/certificates", &next)
        .await
        .problem(429, "too_many_in_flight");
    for n in 0..3 {
        other.issue(&format!("www-{n}.example.com")).await;
    }
    let bare = world.client("bare").await;
    let mut body = plain("www.example.com", &ClientKey::p256());
    body["public_key"] = json!(ClientKey::p256().public_pem());
    bare.post("/certificates", &body).await.problem(503, "overloaded");

    let rsa = world.client("rsa").await;
    world.change_account("rsa", |account| account.jobs_in_flight = 1).await;
    let serial = rsa
        .post("/certificates", &plain("www.example.com", &ClientKey::rsa()))
        .await
        .serial();
    let next = plain("next.example.com", &ClientKey::rsa());
    rsa.post("/certificates", &next)
        .await
        .problem(429, "too_many_in_flight");
    world.sign(serial).await;
    world.change_account("rsa", |account| account.issuance_quota = 1).await;
    rsa.post("/certificates", &next).await.problem(402, "quota_exceeded");
    assert_eq!(rsa.get("/quotas/issuance").await.json(), json!({"value": 0}));

    world
        .change_account("rsa", |account| {
            (account.issuance_quota, account.jobs_in_flight) = (9, 9);
        })
        .await;
    let lane = "beta.interactive".parse().unwrap();
    let draining = LaneSwitches {
        draining: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&lane, draining).await.unwrap();
    rsa.post("/certificates", &next).await.problem(503, "lane_draining");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let lanes = world.health.readiness().lanes;
    let told = lanes
        .iter()
        .find(|told| told.lane.as_deref() == Some("beta.interactive"))
        .unwrap();
    assert!(!told.ready && told.reason.contains("draining"), "{told:?}");
    assert!(world.health.readiness().ready, "one lane's trouble is nobody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_have_one_certificate_has_one() {
    let world = World::new().await;
    world.change_profile("tls", |profile| profile.unique_key = true).await;
    let acme = world.client("acme").await;
    let key = ClientKey::p256();
    assert_eq!(
        acme.post("/certificates", &plain("a.example.com", &key)).await.status,
        201
    );
    acme.post("/certificates", &plain("b.example.com", &key))
        .await
        .problem(422, "key_reused");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_or_answer_in_another_way(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 20),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 20),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::with(|config| config.frontend.failures_per_second = 100_000).await;
            let acme = world.client("acme").await;
            let good = plain("www.example.com", &ClientKey::p256()).to_string().into_bytes();
            let damaged = cuts.iter().map(|(at, byte)| {
                let mut body = good.clone();
                let at = at.index(body.len());
                body[at] = *byte;
                body
            });
            for body in noise.iter().cloned().chain(damaged) {
                for (method, path) in [
                    (Method::POST, "/certificates"),
                    (Method::POST, "/login"),
                    (Method::PATCH, "/certificates/01000000000000000000000000000000"),
                    (Method::POST, "/certificates/01000000000000000000000000000000/rekey"),
                ] {
                    let request = crate::client::request(method.clone(), path)
                        .header("content-type", "application/json")
                        .header("content-length", body.len());
                    let answered = acme.send(request, body.clone()).await;
                    let status = answered.status;
                    assert!(status == 201 || (400..500).contains(&status), "{status} {path} {answered:?}");
                    if status != 201 {
                        assert_eq!(answered.header("content-type"), Some("application/problem+json"));
                        assert!(answered.json()["description"].is_string());
                        assert!(status != 401 || path == "/login", "{path}");
                    }
                }
            }
        });
    }
}
