//! Whatever sound content is encoded: the lint has nothing to say about it, and notices when it belongs to somebody else.

#[expect(dead_code, reason = "the tests use a part of it")]
mod common;

use std::sync::LazyLock;

use common::{Authority, KINDS, key, kinds::Kind, public_key, serial};
use domain::{
    issuer::Profile,
    key::KeyType,
    policy::ValueType,
    request::{AlternativeNames, Content, TypedValue},
};
use pki::{
    certificate::prepare,
    lint::{LintContext, lint_ca_chain},
};
use proptest::prelude::*;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("test", KeyType::P256));
static OTHER: LazyLock<Authority> = LazyLock::new(|| Authority::new("other", KeyType::P256));
static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| public_key(&key(KeyType::P256)));

/// A client's profile, which lets nearly anything pass.
fn profile() -> Profile {
    let mut profile = client().profile(KeyType::P256);
    profile.policy.validity.secondsmin = 1;
    profile.policy.validity.secondsmax = i64::MAX;
    profile.wildcards = true;
    profile
}

fn client() -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == "client").unwrap()
}

/// A text of up to so many characters, without control characters and without white space around it.
fn text(limit: usize) -> impl Strategy<Value = String> {
    let pattern = format!(
        "[\\p{{L}}\\p{{N}}\\p{{P}}\\p{{S}}]([ \\p{{L}}\\p{{N}}\\p{{P}}\\p{{S}}]{{0,{}}}[\\p{{L}}\\p{{N}}])?",
        limit - 2
    );
    proptest::string::string_regex(&pattern)
        .unwrap()
        .prop_filter("only a placeholder", |text| {
            !text.chars().all(|c| matches!(c, '.' | '-'))
        })
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_filter("reserved", |label| label.get(2..4) != Some("--"))
}

fn domain_name() -> impl Strategy<Value = String> {
    (proptest::collection::vec(label(), 1..4), "[a-z]{2,10}")
        .prop_map(|(labels, top)| format!("{}.{top}", labels.join(".")))
}

fn attribute(oid: &str, value_type: ValueType, value: String) -> TypedValue {
    TypedValue {
        oid: oid.into(),
        value_type,
        value,
    }
}

/// Names in the order of admission, each there or not.
fn subject() -> impl Strategy<Value = Vec<TypedValue>> {
    let utf8 = |oid: &'static str, limit| {
        proptest::option::of(text(limit).prop_map(move |value| attribute(oid, ValueType::Utf8string, value)))
    };
    let country =
        proptest::option::of("[A-Z]{2}".prop_map(|value| attribute("2.5.4.6", ValueType::Printablestring, value)));
    let components = proptest::collection::vec(label(), 0..3);
    let units = proptest::collection::hash_set(text(64), 0..4);
    let front = (
        components,
        country,
        utf8("2.5.4.8", 128),
        utf8("2.5.4.7", 128),
        utf8("2.5.4.17", 40),
        utf8("2.5.4.9", 128),
    );
    let middle = (
        utf8("2.5.4.10", 64),
        utf8("2.5.4.97", 128),
        utf8("2.5.4.4", 64),
        utf8("2.5.4.42", 64),
        units,
    );
    (front, middle, utf8("2.5.4.12", 64), utf8("2.5.4.3", 64)).prop_map(|(front, middle, title, common_name)| {
        let (components, country, state, locality, postal_code, street) = front;
        let (organization, identifier, surname, given_name, units) = middle;
        let component = |value| attribute("0.9.2342.19200300.100.1.25", ValueType::Ia5string, value);
        let unit = |value| attribute("2.5.4.11", ValueType::Utf8string, value);
        let mut subject: Vec<_> = components.into_iter().map(component).collect();
        subject.extend(
            [
                country,
                state,
                locality,
                postal_code,
                street,
                organization,
                identifier,
                surname,
                given_name,
            ]
            .into_iter()
            .flatten(),
        );
        subject.extend(units.into_iter().map(unit));
        subject.extend([title, common_name].into_iter().flatten());
        subject
    })
}

fn names() -> impl Strategy<Value = AlternativeNames> {
    let mail = ("[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z0-9]{1,9})?", domain_name())
        .prop_map(|(local, host)| format!("{local}@{host}"));
    let uri = (
        "(https|ldap|spiffe)",
        domain_name(),
        "(/[a-zA-Z0-9._~-]{0,20}){0,3}(\\?[a-z=&]{0,9})?",
    )
        .prop_map(|(scheme, host, path)| format!("{scheme}://{host}{path}"));
    let dns =
        (any::<bool>(), domain_name()).prop_map(|(wildcard, name)| if wildcard { format!("*.{name}") } else { name });
    (
        proptest::collection::hash_set(dns, 1..8),
        proptest::collection::hash_set(mail, 0..4),
        proptest::collection::hash_set(any::<std::net::IpAddr>(), 0..4),
        proptest::collection::hash_set(uri, 0..4),
        proptest::collection::vec(text(30), 0..2),
    )
        .prop_map(|(dns, mails, addresses, uris, others)| AlternativeNames {
            critical: false,
            dns_names: dns.into_iter().collect(),
            emails: mails.into_iter().collect(),
            ip_addresses: addresses.into_iter().collect(),
            uris: uris.into_iter().collect(),
            other_names: others
                .into_iter()
                .map(|value| attribute("1.3.6.1.4.1.311.20.2.3", ValueType::Utf8string, value))
                .collect(),
        })
}

fn content() -> impl Strategy<Value = Content> {
    let until = AUTHORITY.issuer.not_after;
    (subject(), names(), 0..until, 0..until).prop_map(|(subject, mut san, a, b)| {
        san.critical = subject.is_empty();
        let template = AUTHORITY.admit(
            &client().profile(KeyType::P256),
            &client().request(0),
            KeyType::P256,
            &KEY,
        );
        Content {
            subject,
            san,
            not_before: a.min(b),
            not_after: a.max(b),
            ..template
        }
    })
}

proptest! {
    #[test]
    fn the_encoding_of_sound_content_has_no_findings(content in content(), number: usize) {
        let tbs = prepare(&content, &AUTHORITY.issuer, serial(number)).unwrap();
        prop_assert_eq!(LintContext::new(&AUTHORITY.issuer).lint_tbs(&tbs, &profile()), []);
    }

    #[test]
    fn the_encoding_for_one_issuer_is_never_good_for_another(content in content()) {
        let tbs = prepare(&content, &AUTHORITY.issuer, serial(1)).unwrap();
        let findings = LintContext::new(&OTHER.issuer).lint_tbs(&tbs, &profile());
        let found: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        for rule in ["issuer-name", "authority-key-identifier", "access-own", "crl-point-shard"] {
            prop_assert!(found.contains(&rule), "{}: {:?}", rule, found);
        }
    }

    #[test]
    fn an_altered_byte_is_noticed_or_leaves_a_certificate_that_can_be_read(content in content(), at: prop::sample::Index, value: u8) {
        let mut tbs = prepare(&content, &AUTHORITY.issuer, serial(1)).unwrap();
        let at = at.index(tbs.len());
        tbs[at] = value;
        let findings = LintContext::new(&AUTHORITY.issuer).lint_tbs(&tbs, &profile());
        let sealed = pki::certificate::seal(&tbs, AUTHORITY.issuer.signature_algorithm, &AUTHORITY.sign(&tbs));
        prop_assert!(!findings.is_empty() || pki::certificate::read(&sealed).is_ok());
    }
}

#[test]
fn the_chains_of_sound_issuers_have_no_findings() {
    for key_type in KeyType::ALL {
        assert_eq!(
            lint_ca_chain(&Authority::new("test", key_type).issuer),
            [],
            "{key_type}"
        );
    }
}
