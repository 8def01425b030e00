//! Admission, from the outside.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    bytes::Digest,
    issuer::{Account, Api, IssuerState, Usage},
    policy::{KeyAlgorithm, ListPolicy, TypeAndValuePolicy, ValueType},
    request::{RequestedSubject, TypeAndValue},
    template,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn terms() -> Terms {
    let issuer = Issuer {
        id: "test".parse().unwrap(),
        subject: Blob::default(),
        public_key: Blob::default(),
        key_type: KeyType::P256,
        signature_algorithm: KeyType::P256.signature_algorithm(),
        subject_key_id: Blob::default(),
        chain: Vec::new(),
        other_chains: Vec::new(),
        not_after: NOW.as_secs() + 400 * 86_400,
        state: IssuerState::Enabled,
        usage: Usage {
            issue: true,
            crl: true,
            ocsp: true,
        },
        reason: None,
        crl_shards: 8,
        public_url: "http://pki.example".into(),
        bindings: Vec::new(),
    };
    let account = Account {
        id: "acme".parse().unwrap(),
        api: Api::Hvca,
        api_key: "0".repeat(16),
        api_secret: Digest([0; 32]),
        client_certificates: Vec::new(),
        issuer: issuer.id.clone(),
        profile: "tls".parse().unwrap(),
        issuance_quota: 1,
        requests_per_second: 1,
        jobs_in_flight: 1,
        tokens_not_before: Timestamp::default(),
        enabled: true,
    };
    let profile = template::tls_server(
        "tls".parse().unwrap(),
        KeyAlgorithm::Ecdsa,
        vec![256],
        "ECDSA",
        "SHA-256",
    );
    Terms {
        account: Arc::new(account),
        issuer: Arc::new(issuer),
        profile: Arc::new(profile),
    }
}

fn with(change: impl FnOnce(&mut Profile)) -> Terms {
    let mut terms = terms();
    change(Arc::make_mut(&mut terms.profile));
    assert_eq!(check_profile(&terms.profile), Ok(()));
    terms
}

fn request() -> Request {
    let mut request = Request::default();
    request
        .subject_dn
        .single
        .insert("common_name".into(), "www.example.com".into());
    request.san.dns_names = vec!["WWW.example.com".into(), "example.com".into()];
    request
}

fn try_with(terms: &Terms, change: impl FnOnce(&mut Request)) -> Result<Content, Vec<String>> {
    let mut request = request();
    change(&mut request);
    admit(&request, b"spki", KeyType::P256, terms, NOW)
        .map_err(|violations| violations.iter().map(ToString::to_string).collect())
}

fn refusal(terms: &Terms, change: impl FnOnce(&mut Request)) -> String {
    try_with(terms, change).expect_err("must be refused").join("; ")
}

#[test]
fn a_plain_request_is_settled() {
    let content = try_with(&terms(), |_| {}).unwrap();
    assert_eq!(content.san.dns_names, ["www.example.com", "example.com"]);
    assert_eq!(
        (content.not_before, content.not_after),
        (NOW.as_secs(), NOW.as_secs() + 90 * 86_400 - 1)
    );
    assert!(!content.san.critical);
    assert_eq!(
        check(&content, KeyType::P256, &terms().profile, &terms().issuer),
        Ok(())
    );
}

#[test]
fn a_missing_common_name_is_named_as_clients_expect() {
    assert_eq!(
        refusal(&terms(), |r| r.subject_dn.single.clear()),
        "subject_dn.common_name: is required"
    );
}

#[test]
fn a_static_field_is_filled_in_and_must_not_be_sent() {
    let terms = with(|p| {
        p.policy.subject_dn.country = StringPolicy {
            presence: Presence::Static,
            format: "DE".into(),
        };
    });
    let content = try_with(&terms, |_| {}).unwrap();
    assert_eq!(content.subject[0].value, "DE");
    let sent = |r: &mut Request| {
        r.subject_dn.single.insert("country".into(), "DE".into());
    };
    assert_eq!(refusal(&terms, sent), "subject_dn.country: is static");
    assert_eq!(refusal(&self::terms(), sent), "subject_dn.country: is forbidden");
}

#[test]
fn a_key_of_another_type_is_refused_naming_both() {
    let violations = admit(&request(), b"spki", KeyType::Rsa2048, &terms(), NOW).unwrap_err();
    assert_eq!(violations[0].kind, ViolationKind::KeyType);
    assert_eq!(
        violations[0].to_string(),
        "public_key: is RSA-2048, and profile tls takes P-256"
    );
}

#[test]
fn units_and_domain_components_keep_their_order_and_their_repeats() {
    let terms = with(|p| {
        p.policy.subject_dn.organizational_unit = ListPolicy {
            is_static: false,
            list: vec![".*".into()],
            mincount: 0,
            maxcount: 3,
        };
        p.policy.subject_dn.extra_attributes.insert(
            "0.9.2342.19200300.100.1.25".into(),
            TypeAndValuePolicy {
                is_static: false,
                value_type: ValueType::Ia5string,
                value_format: "[a-z]+".into(),
                mincount: 0,
                maxcount: 4,
            },
        );
    });
    let component = |value: &str| TypeAndValue {
        oid: "0.9.2342.19200300.100.1.25".into(),
        value: value.to_owned(),
    };
    let content = try_with(&terms, |r| {
        r.subject_dn = RequestedSubject {
            organizational_unit: vec!["two".into(), "one".into(), "two".into()],
            extra_attributes: vec![component("com"), component("example")],
            ..std::mem::take(&mut r.subject_dn)
        };
    })
    .unwrap();
    let values: Vec<&str> = content.subject.iter().map(|value| value.value.as_str()).collect();
    assert_eq!(values, ["com", "example", "two", "one", "two", "www.example.com"]);
}

#[test]
fn times_are_clamped_shortened_or_refused() {
    let validity = |not_before: i64, not_after: i64| {
        try_with(&terms(), |r| {
            r.validity.not_before = Some(NOW.as_secs() + not_before);
            r.validity.not_after = Some(NOW.as_secs() + not_after);
        })
        .map(|content| (content.not_before - NOW.as_secs(), content.not_after - NOW.as_secs()))
    };
    let max = 90 * 86_400;
    assert_eq!(validity(-30, 86_400), Ok((-30, 86_400)));
    assert_eq!(
        validity(-7200, 86_400),
        Ok((-3600, 86_400)),
        "too early is raised to the skew"
    );
    assert_eq!(validity(0, max), Ok((0, max - 1)), "the second too many is dropped");
    assert!(validity(0, max + 1).unwrap_err()[0].starts_with("validity.not_after: gives"));
    assert!(validity(3601, 86_400).unwrap_err()[0].starts_with("validity.not_before: is too far ahead"));
    assert!(validity(0, 10).unwrap_err()[0].starts_with("validity.not_after: gives 11 seconds"));
    assert!(!validity(0, -5).unwrap_err().is_empty());
    assert!(!validity(i64::MIN / 2, i64::MAX / 2).unwrap_err().is_empty());
}

#[test]
fn the_chain_ends_first_and_the_profile_says_what_follows() {
    let mut clipped = terms();
    Arc::make_mut(&mut clipped.issuer).not_after = NOW.as_secs() + 10 * 86_400;
    assert_eq!(
        try_with(&clipped, |_| {}).unwrap().not_after,
        NOW.as_secs() + 10 * 86_400
    );
    Arc::make_mut(&mut clipped.profile).beyond_issuer = BeyondIssuer::Refuse;
    assert!(refusal(&clipped, |_| {}).starts_with("validity.not_after: is after the issuer's own end"));
}

#[test]
fn nobody_wants_a_certificate_for_longer_than_two_days_after_its_not_before() {
    let terms = terms();
    let early = try_with(&terms, |r| r.validity.not_before = Some(NOW.as_secs() - 3600)).unwrap();
    assert_eq!(sign_by(NOW, &terms.profile, &early), NOW + Duration::from_hours(40));
    let slow = with(|p| p.sign_within = Duration::from_hours(48));
    assert_eq!(sign_by(NOW, &slow.profile, &early), NOW + Duration::from_hours(47));
}

#[test]
fn a_rekey_says_the_same_for_another_key_until_the_same_end() {
    let terms = terms();
    let old = try_with(&terms, |_| {}).unwrap();
    let later = NOW + Duration::from_hours(24);
    let empty = Request::default();
    let new = rekey(old.clone(), &empty, b"other key", KeyType::P256, &terms, later).unwrap();
    assert_eq!(new.not_before, later.as_secs());
    assert_eq!(*new.public_key, *b"other key");
    let same = Content {
        public_key: old.public_key.clone(),
        not_before: old.not_before,
        ..new
    };
    assert_eq!(same, old);

    let wrong = rekey(old.clone(), &empty, b"other key", KeyType::P384, &terms, later).unwrap_err();
    assert_eq!(wrong[0].kind, ViolationKind::KeyType);
    let over = NOW + Duration::from_hours(24 * 366);
    let past = rekey(old, &empty, b"other key", KeyType::P256, &terms, over).unwrap_err();
    assert!(
        past[0].to_string().starts_with("validity.not_after: is past"),
        "{past:?}"
    );
}

#[test]
fn wildcards_need_their_own_permission() {
    let wild = |r: &mut Request| r.san.dns_names.push("*.example.com".into());
    assert!(try_with(&terms(), wild).is_ok());
    assert!(refusal(&with(|p| p.wildcards = false), wild).contains("is a wildcard"));
}

#[test]
fn a_common_name_that_is_a_dns_name_is_among_the_alternative_names() {
    let content = try_with(&terms(), |r| r.san.dns_names.clear()).unwrap();
    assert_eq!(content.san.dns_names, ["www.example.com"]);
}

#[test]
fn a_common_name_in_capitals_is_written_as_its_alternative_name() {
    let named = |r: &mut Request| {
        r.subject_dn
            .single
            .insert("common_name".into(), "WWW.Example.COM".into());
    };
    let content = try_with(&terms(), named).unwrap();
    assert_eq!(content.subject[0].value, "www.example.com");
    assert_eq!(content.san.dns_names, ["www.example.com", "example.com"]);
}

#[test]
fn unknown_fields_of_maps_are_named() {
    let named = |r: &mut Request| {
        r.subject_dn.single.insert("shoe_size".into(), "42".into());
        r.key_usages.insert("sign_everything".into(), true);
        r.custom_extensions.insert("1.2.3".into(), "x".into());
    };
    let text = refusal(&terms(), named);
    for field in [
        "subject_dn.shoe_size",
        "key_usages.sign_everything",
        "custom_extensions.1.2.3",
    ] {
        assert!(text.contains(field), "{field} in {text}");
    }
}

#[test]
fn what_a_policy_can_never_allow_is_found_when_it_is_registered() {
    let mut profile = terms().profile.as_ref().clone();
    profile.policy.subject_dn.common_name.format = "(".into();
    profile.policy.public_key.allowed_lengths = vec![255];
    let fields: Vec<String> = check_profile(&profile)
        .unwrap_err()
        .into_iter()
        .map(|v| v.field)
        .collect();
    assert!(fields.contains(&"subject_dn.common_name".to_owned()));
    assert!(fields.contains(&"public_key.allowed_lengths".to_owned()));
}

proptest! {
    /// Whatever is admitted passes the check that the signer repeats, and nothing panics.
    #[test]
    fn what_is_admitted_passes_the_signers_check(
        name in "\\PC{0,80}",
        names in proptest::collection::vec("[a-zA-Z0-9.*-]{0,30}", 0..6),
        not_before in proptest::option::of(any::<i64>()),
        not_after in proptest::option::of(any::<i64>()),
        usage: bool,
    ) {
        let terms = terms();
        let mut request = request();
        request.subject_dn.single.insert("common_name".into(), name);
        request.san.dns_names = names;
        request.validity.not_before = not_before;
        request.validity.not_after = not_after;
        request.key_usages.insert("digital_signature".into(), usage);
        if let Ok(content) = admit(&request, b"spki", KeyType::P256, &terms, NOW) {
            prop_assert_eq!(check(&content, KeyType::P256, &terms.profile, &terms.issuer), Ok(()));
            prop_assert!(content.not_after > content.not_before);
            prop_assert!(usage);
        }
    }
}
