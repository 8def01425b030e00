//! Bodies as the clients of this API send them.

use domain::request::{QualifiedStatements, RequestedSan, RequestedValidity, TypeAndValue};
use proptest::prelude::*;

use super::*;

fn read(body: &str) -> Request {
    CertificateRequest::from_json(body.as_bytes())
        .unwrap_or_else(|e| panic!("{e}: {body}"))
        .0
}

fn error_of(body: &str) -> String {
    CertificateRequest::from_json(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_whole_request_is_read_field_by_field() {
    let request = read(
        r#"{
            "validity": {"not_before": 1700000000, "not_after": 1700086400},
            "subject_dn": {
                "common_name": "www.example.com", "country": "GB", "state": "London",
                "organizational_unit": ["Operations", "Research"],
                "jurisdiction_of_incorporation_country_name": "GB",
                "extra_attributes": [{"type": "2.5.4.4", "value": "Surname"}]
            },
            "san": {
                "dns_names": ["a.example.com", "b.example.com"], "emails": ["admin@example.com"],
                "ip_addresses": ["198.41.214.154"], "uris": ["http://www.example.com/uri"],
                "other_names": [{"type": "1.3.6.1.4.1.311.20.2.3", "value": "upn@example.com"}]
            },
            "key_usages": {"digital_signature": true, "crl_sign": false},
            "extended_key_usages": ["1.3.6.1.5.5.7.3.1"],
            "subject_da": {"gender": "m", "date_of_birth": "1979-01-31", "country_of_residence": ["GB"]},
            "qualified_statements": {
                "semantics": {"identifier": "0.4.0.194121.1.1", "name_authorities": ["dns:x"]},
                "etsi_qc_compliance": true, "etsi_qc_type": "0.4.0.1862.1.6.1", "etsi_qc_retention_period": 5,
                "etsi_qc_pds": {"EN": "https://example.com/en"}
            },
            "ms_extension_template": {"id": "1.2.3.4", "major_version": 3, "minor_version": 7},
            "custom_extensions": {"2.5.29.99": "NIL"},
            "signature": {"algorithm": "RSA", "hash_algorithm": "SHA-256"},
            "public_key": "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n",
            "public_key_signature": "AA=="
        }"#,
    );
    assert_eq!(
        request.validity,
        RequestedValidity {
            not_before: Some(1_700_000_000),
            not_after: Some(1_700_086_400)
        }
    );
    assert_eq!(request.subject_dn.single["common_name"], "www.example.com");
    assert_eq!(request.subject_dn.single.len(), 4);
    assert_eq!(request.subject_dn.organizational_unit, ["Operations", "Research"]);
    let extra = TypeAndValue {
        oid: "2.5.4.4".into(),
        value: "Surname".into(),
    };
    assert_eq!(request.subject_dn.extra_attributes, [extra]);
    assert_eq!(
        request.san.dns_names.len() + request.san.emails.len() + request.san.uris.len(),
        4
    );
    assert_eq!(request.san.other_names[0].value, "upn@example.com");
    assert!(request.key_usages["digital_signature"]);
    assert_eq!(request.subject_da.unwrap().country_of_residence, ["GB"]);
    let qualified = request.qualified_statements.unwrap();
    assert_eq!(qualified.etsi_qc_pds["EN"], "https://example.com/en");
    assert_eq!(
        qualified,
        QualifiedStatements {
            etsi_qc_sscd_compliance: None,
            ..qualified.clone()
        }
    );
    assert_eq!(request.ms_extension_template.unwrap().minor_version, Some(7));
    assert_eq!(request.custom_extensions["2.5.29.99"], "NIL");
    assert_eq!(request.signature.hash_algorithm.as_deref(), Some("SHA-256"));
    assert_eq!(request.public_key_signature.as_deref(), Some("AA=="));
}

/// The least request: what all the dressed-up ones below must be equal to.
fn least() -> Request {
    Request {
        validity: RequestedValidity {
            not_before: Some(1_700_000_000),
            not_after: None,
        },
        public_key: "PEM".into(),
        ..Request::default()
    }
}

#[test]
fn a_client_that_writes_null_for_what_it_has_not_asks_for_nothing_more() {
    let body = r#"{
        "validity": {"not_before": 1700000000, "not_after": null},
        "subject_dn": {"common_name": null, "country": null, "state": null, "locality": null, "organization": null,
            "organizational_unit": [], "email": null, "serial_number": null, "extra_attributes": null},
        "san": {"dns_names": [], "emails": null, "ip_addresses": [], "uris": null, "other_names": null},
        "key_usages": null, "extended_key_usages": [],
        "signature": {"hash_algorithm": null, "algorithm": null},
        "qualified_statements": null, "ms_extension_template": null, "custom_extensions": null, "subject_da": {"gender": null},
        "public_key": "PEM", "public_key_signature": null
    }"#;
    assert_eq!(read(body), least());
}

#[test]
fn a_client_that_writes_empty_objects_asks_for_nothing_more() {
    let body = r#"{
        "validity": {"not_before": 1700000000}, "subject_dn": {}, "san": {}, "signature": {}, "key_usages": {},
        "extended_key_usages": [], "subject_da": {}, "qualified_statements": {"semantics": {}, "etsi_qc_pds": {}},
        "ms_extension_template": {}, "custom_extensions": {}, "public_key": "PEM"
    }"#;
    assert_eq!(read(body), least());
}

#[test]
fn a_not_after_of_0_stays_a_0_for_admission_to_read() {
    let request = read(r#"{"validity":{"not_before":1700000000,"not_after":0},"public_key":"PEM"}"#);
    assert_eq!(request.validity.not_after, Some(0));
}

#[test]
fn a_field_that_nobody_knows_is_refused_by_name() {
    assert_eq!(
        error_of(r#"{"testing":123,"public_key":"PEM"}"#),
        "testing: is not a known field"
    );
    assert_eq!(
        error_of(r#"{"san":{"dns":["x"]},"public_key":"PEM"}"#),
        "san.dns: is not a known field"
    );
    assert_eq!(
        error_of(r#"{"qualified_statements":{"semantics":{"x":1}},"public_key":"PEM"}"#),
        "qualified_statements.semantics.x: is not a known field"
    );
    assert_eq!(
        read(r#"{"testing":null,"validity":{"not_before":1700000000},"public_key":"PEM"}"#),
        least()
    );
}

#[test]
fn a_subject_attribute_that_nobody_knows_is_left_to_admission_to_name() {
    let request = read(r#"{"subject_dn":{"organization_unit":"x"},"public_key":"PEM"}"#);
    assert_eq!(request.subject_dn.single["organization_unit"], "x");
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_its_path() {
    for (body, field) in [
        (
            r#"{"validity":{"not_before":"now"},"public_key":"PEM"}"#,
            "validity.not_before",
        ),
        (
            r#"{"validity":{"not_before":1.5},"public_key":"PEM"}"#,
            "validity.not_before",
        ),
        (r#"{"validity":7,"public_key":"PEM"}"#, "validity"),
        (r#"{"subject_dn":"CN=x","public_key":"PEM"}"#, "subject_dn"),
        (
            r#"{"subject_dn":{"common_name":["x"]},"public_key":"PEM"}"#,
            "subject_dn.common_name",
        ),
        (
            r#"{"subject_dn":{"organizational_unit":"x"},"public_key":"PEM"}"#,
            "subject_dn.organizational_unit",
        ),
        (
            r#"{"subject_dn":{"extra_attributes":[{"type":"1.2"}]},"public_key":"PEM"}"#,
            "subject_dn.extra_attributes[0].value",
        ),
        (
            r#"{"san":{"dns_names":["a",7]},"public_key":"PEM"}"#,
            "san.dns_names[1]",
        ),
        (
            r#"{"key_usages":{"crl_sign":"yes"},"public_key":"PEM"}"#,
            "key_usages.crl_sign",
        ),
        (
            r#"{"custom_extensions":{"1.2":5},"public_key":"PEM"}"#,
            "custom_extensions.1.2",
        ),
        (r#"{"public_key":5}"#, "public_key"),
        (r#"{"validity":{"not_before":1}}"#, "public_key"),
        (r#"{"public_key":null}"#, "public_key"),
    ] {
        let error = error_of(body);
        assert!(error.starts_with(&format!("{field}: ")), "{body}: {error}");
    }
}

#[test]
fn what_a_client_of_ours_writes_is_read_back() {
    let mut request = least();
    assert_eq!(
        serde_json::to_string(&CertificateRequest(request.clone())).unwrap(),
        r#"{"public_key":"PEM","validity":{"not_before":1700000000}}"#
    );
    request.subject_dn.single.insert("common_name".into(), "x".into());
    request.subject_dn.organizational_unit = vec!["a".into(), "a".into()];
    request.san = RequestedSan {
        dns_names: vec!["x".into()],
        ..RequestedSan::default()
    };
    request.key_usages.insert("crl_sign".into(), false);
    let body = serde_json::to_vec(&CertificateRequest(request.clone())).unwrap();
    assert_eq!(CertificateRequest::from_json(&body).unwrap().0, request);
}

#[test]
fn the_schemas_are_schemas_and_name_every_field() {
    let RefOr::T(Schema::Object(schema)) = CertificateRequest::schema() else {
        panic!("an object schema")
    };
    let fields = serde_json::to_value(Request::default()).unwrap();
    for field in fields.as_object().unwrap().keys() {
        assert!(schema.properties.contains_key(field), "{field}");
    }
    assert_eq!(schema.properties.len(), fields.as_object().unwrap().len());
    let RefOr::T(Schema::Object(schema)) = PolicyDocument::schema() else {
        panic!("an object schema")
    };
    assert!(schema.properties.contains_key("public_key_signature"));
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z_]{0,8}", Just("common_name".to_owned()), ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_stands_in_a_field_it_is_read_or_refused_by_a_name(which: prop::sample::Index, value in json()) {
        let mut fields = serde_json::to_value(least()).unwrap();
        let names: Vec<String> = fields.as_object().unwrap().keys().cloned().collect();
        fields["subject_dn"].as_object_mut().unwrap().remove("single");
        let name = &names[which.index(names.len())];
        fields[name] = value;
        match CertificateRequest::from_json(&serde_json::to_vec(&fields).unwrap()) {
            Ok(read) => {
                let again = CertificateRequest::from_json(&serde_json::to_vec(&read).unwrap());
                prop_assert_eq!(again, Ok(read), "what is written is not what was read");
            }
            Err(BadDocument::Field { field, problem }) => {
                prop_assert!(field.starts_with(name.as_str()), "{}: {}", field, problem);
                prop_assert!(!problem.is_empty());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn no_body_makes_the_readers_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = CertificateRequest::from_json(&body);
        let _ = crate::hvca::Login::from_json(&body);
        let _ = crate::hvca::Revoke::from_json(&body);
        let _ = crate::hvca::Rekey::from_json(&body);
    }
}
