//! The habits of clients that exist, each played from its first call to its last.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use crate::{
    ca::ClientKey,
    client::{plain, request, send},
    world::{CERTIFICATE, SECRET, World, api_key},
};

/// Writes nulls and empty arrays for everything it has no value for, and slashes after its paths; reads `Links` unchecked.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_that_serialises_nulls_and_ends_paths_with_slashes() {
    let world = World::new().await;
    world.run_signer().await;
    let body = json!({"api_key": api_key("acme"), "api_secret": SECRET}).to_string();
    let login = request(Method::POST, "/login/")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", body.len())
        .header("x-ssl-client-serial", "7B0000000A")
        .body(Body::from(body));
    assert_eq!(send(&world.router, Some(CERTIFICATE), login).await.status, 200);
    let client = world.client("acme").await;
    let policy = client
        .send(
            request(Method::GET, "/validationpolicy/").header("content-type", "application/json"),
            "",
        )
        .await;
    assert_eq!(policy.json()["san"]["dns_names"]["static"], false);

    let key = ClientKey::p256();
    let request_body = json!({
        "validity": {"not_before": 0, "not_after": 0},
        "subject_dn": {
            "country": null, "state": null, "locality": null, "street_address": null, "common_name": "www.example.com",
            "organization": null, "organizational_unit": [], "email": null, "extra_attributes": []
        },
        "san": {"dns_names": ["www.example.com"], "emails": [], "ip_addresses": null, "uris": [], "other_names": null},
        "extended_key_usages": [],
        "subject_da": null,
        "qualified_statements": {"semantics": {"identifier": null, "name_authorities": []}, "etsi_qc_pds": {}},
        "ms_extension_template": {},
        "custom_extensions": null,
        "signature": {"algorithm": null, "hash_algorithm": null},
        "public_key": key.csr(),
        "public_key_signature": null
    });
    let serial = client.post("/certificates/", &request_body).await.serial();
    let shown = shown(&client, &format!("/certificates/{serial}")).await;
    assert_eq!(shown["status"], "ISSUED");
    let statistics = client.get("/stats/issued?page=1&per_page=50").await;
    assert!(!statistics.header("links").unwrap().contains("next"));
    let listed = statistics.json()[0]["serial_number"].as_str().unwrap().to_owned();
    assert_eq!(client.get(&format!("/certificates/{listed}")).await.status, 200);
    assert_eq!(client.delete(&format!("/certificates/{listed}")).await.status, 204);
}

/// Polls until the certificate is there, as every client does.
async fn shown(client: &crate::client::Client, path: &str) -> Value {
    for _ in 0..200 {
        let answered = client.get(path).await;
        if answered.status == 200 {
            return answered.json();
        }
        assert_eq!(answered.status, 202, "{answered:?}");
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("never issued");
}

/// Sends whatever failed five times without a pause, with empty objects for what it does not need, a `not_before` half a minute ago,
/// and revokes with lower-case digits.
#[tokio::test(flavor = "multi_thread")]
async fn the_vault_plugin_that_repeats_every_error() {
    let world = World::new().await;
    world.run_signer().await;
    let client = world.client("acme").await;
    let now = domain::time::Clock::now(&*world.host).as_secs();
    let key = ClientKey::p256();
    let mut body = plain("www.example.com", &key);
    body["validity"] = json!({"not_before": now - 30, "not_after": now - 30 + 86_400});
    body["key_usages"] = json!({});
    body["signature"] = json!({"hash_algorithm": "SHA-256"});
    body["san"] = json!({});
    body["subject_dn"] = json!({});
    for _ in 0..5 {
        let said = client
            .post("/certificates", &body)
            .await
            .problem(422, "policy_violation");
        assert_eq!(said, "subject_dn.common_name: is required");
    }
    assert_eq!(
        client.get("/quotas/issuance").await.json(),
        json!({"value": 1000}),
        "errors cost nothing"
    );
    body["subject_dn"] = json!({"common_name": "www.example.com"});
    body["key_usages"] = json!({"digital_signature": true});
    let serial = client.post("/certificates", &body).await.serial();
    let document = shown(&client, &format!("/certificates/{serial}")).await;
    let der = pki::pem::decode("CERTIFICATE", document["certificate"].as_str().unwrap()).unwrap();
    let facts = pki::certificate::read(&der).unwrap();
    assert_eq!((facts.not_before, facts.not_after), (now - 30, now - 30 + 86_400));
    let lower = format!("/certificates/{}", serial.to_string().to_lowercase());
    let statuses = [
        client.delete(&lower).await.status,
        client.delete(&lower).await.status,
        client.delete(&lower).await.status,
    ];
    assert_eq!(statuses, [204, 409, 409]);
    let separated = "01:02:03";
    let said = client
        .delete(&format!("/certificates/{separated}"))
        .await
        .problem(422, "invalid_request");
    assert!(said.contains("invalid serial number length"));
}

/// Prints serials as numbers, so the leading zero is gone; needs `Total-Count`, and a PEM block with nothing after it; omits times.
#[tokio::test(flavor = "multi_thread")]
async fn the_go_client_that_drops_the_leading_zero() {
    let world = World::new().await;
    world.run_signer().await;
    let client = world.client("acme").await;
    let serial = client.issue("www.example.com").await.to_string();
    let number = serial.trim_start_matches('0').to_owned();
    assert_eq!(number.len(), 31);
    let document = shown(&client, &format!("/certificates/{number}")).await;
    let pem = document["certificate"].as_str().unwrap();
    assert_eq!(pem.matches("-----BEGIN").count(), 1);
    assert!(pem.ends_with("-----END CERTIFICATE-----\n"));
    let statistics = client.get("/stats/issued?page=1&per_page=100&from=1&to=2").await;
    assert_eq!(statistics.header("total-count"), Some("0"));
    let revoke = json!({"revocation_reason": "unspecified"});
    assert_eq!(
        client.patch(&format!("/certificates/{number}"), &revoke).await.status,
        204
    );
    let shown = client.get(&format!("/certificates/{number}")).await.json();
    assert_eq!(shown["status"], "REVOKED");
}

/// Sends a content type with everything, bodies or not, and follows `Location` by putting the host before it.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_client_that_types_every_request() {
    let world = World::new().await;
    world.run_signer().await;
    let client = world.client("acme").await;
    let typed = |method, path: &str| request(method, path).header("content-type", "application/json; charset=UTF-8");
    assert_eq!(client.send(typed(Method::GET, "/trustchain"), "").await.status, 200);
    let body = plain("www.example.com", &ClientKey::p256()).to_string();
    let post = typed(Method::POST, "/certificates").header("content-length", body.len());
    let accepted = client.send(post, body).await;
    let location = accepted.header("location").unwrap();
    assert!(
        location.starts_with("/v2/certificates/") && !location.contains('?'),
        "{location}"
    );
    let document = shown(&client, location.strip_prefix("/v2").unwrap()).await;
    assert_eq!(document["status"], "ISSUED");
    let delete = typed(Method::DELETE, location.strip_prefix("/v2").unwrap()).header("content-length", 0);
    assert_eq!(client.send(delete, "").await.status, 204);
}
