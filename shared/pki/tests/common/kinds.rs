//! Kinds of certificates: profiles, and requests that they let pass.

use std::collections::BTreeMap;

use domain::{
    issuer::{Profile, Purpose},
    key::KeyType,
    policy::{
        CustomExtensionPolicy, Flag, IntegerPolicy, KeyAlgorithm, ListPolicy, MsExtensionTemplatePolicy, Presence,
        QcPdsPolicy, QualifiedStatementsPolicy, SemanticsPolicy, StringPolicy, SubjectDaPolicy, SubjectDnPolicy,
        TypeAndValuePolicy, ValueType,
    },
    request::{
        MsExtensionTemplate, QualifiedStatements, Request, RequestedSan, RequestedSubject, SubjectDa, TypeAndValue,
    },
    template::tls_server,
};

/// A kind of certificate: its profile for a key type, and the requests for it.
pub struct Kind {
    pub name: &'static str,
    /// Types of the keys that are certified.
    pub keys: &'static [KeyType],
    /// Types of the issuers' keys.
    pub issuers: &'static [KeyType],
    shape: fn(&mut Profile),
    request: fn(usize) -> Request,
}

impl Kind {
    /// The profile for a key of the type.
    pub fn profile(&self, key_type: KeyType) -> Profile {
        let algorithm = match key_type {
            KeyType::Ed25519 => KeyAlgorithm::Ed25519,
            key if key.is_rsa() => KeyAlgorithm::Rsa,
            _ => KeyAlgorithm::Ecdsa,
        };
        let mut profile = tls_server(
            self.name.parse().unwrap(),
            algorithm,
            vec![key_type.bits()],
            "ECDSA",
            "SHA-256",
        );
        (self.shape)(&mut profile);
        profile
    }

    /// The request with this number.
    pub fn request(&self, number: usize) -> Request {
        (self.request)(number)
    }
}

const TLS_KEYS: &[KeyType] = &[
    KeyType::P256,
    KeyType::Rsa2048,
    KeyType::P384,
    KeyType::Rsa3072,
    KeyType::P521,
    KeyType::Rsa4096,
];
const TLS_ISSUERS: &[KeyType] = &[KeyType::P256, KeyType::Rsa2048, KeyType::P384, KeyType::P521];

/// Every kind.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "tls-dv",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: |_| {},
        request: tls_dv,
    },
    Kind {
        name: "tls-ov",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: shape_ov,
        request: tls_ov,
    },
    Kind {
        name: "tls-iv",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: shape_iv,
        request: tls_iv,
    },
    Kind {
        name: "tls-bare",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: shape_bare,
        request: tls_bare,
    },
    Kind {
        name: "client",
        keys: &KeyType::ALL,
        issuers: &KeyType::ALL,
        shape: shape_client,
        request: client,
    },
    Kind {
        name: "mail",
        keys: &KeyType::ALL,
        issuers: &KeyType::ALL,
        shape: shape_mail,
        request: mail,
    },
    Kind {
        name: "qualified",
        keys: &KeyType::ALL,
        issuers: &KeyType::ALL,
        shape: shape_qualified,
        request: qualified,
    },
    Kind {
        name: "ocsp-signer",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: shape_ocsp_signer,
        request: service,
    },
    Kind {
        name: "tsa",
        keys: TLS_KEYS,
        issuers: TLS_ISSUERS,
        shape: shape_tsa,
        request: service,
    },
];

fn optional() -> StringPolicy {
    StringPolicy {
        presence: Presence::Optional,
        format: ".+".into(),
    }
}

fn some(list: &str, maxcount: u32) -> ListPolicy {
    ListPolicy {
        is_static: false,
        list: vec![list.into()],
        mincount: 0,
        maxcount,
    }
}

fn always(list: &[&str]) -> ListPolicy {
    let list: Vec<_> = list.iter().map(|value| (*value).into()).collect();
    let count = u32::try_from(list.len()).unwrap();
    ListPolicy {
        is_static: true,
        list,
        mincount: count,
        maxcount: count,
    }
}

fn typed(value_type: ValueType) -> TypeAndValuePolicy {
    TypeAndValuePolicy {
        is_static: false,
        value_type,
        value_format: ".*".into(),
        mincount: 0,
        maxcount: 9,
    }
}

fn every_attribute() -> SubjectDnPolicy {
    SubjectDnPolicy {
        common_name: optional(),
        given_name: optional(),
        surname: optional(),
        pseudonym: optional(),
        organization: optional(),
        organizational_unit: some(".+", 9),
        organization_identifier: optional(),
        country: optional(),
        state: optional(),
        locality: optional(),
        street_address: optional(),
        postal_code: optional(),
        email: optional(),
        serial_number: optional(),
        business_category: optional(),
        jurisdiction_of_incorporation_locality_name: optional(),
        jurisdiction_of_incorporation_state_or_province_name: optional(),
        jurisdiction_of_incorporation_country_name: optional(),
        extra_attributes: BTreeMap::from([
            (DOMAIN_COMPONENT.into(), typed(ValueType::Ia5string)),
            (TITLE.into(), typed(ValueType::Utf8string)),
            (USER_ID.into(), typed(ValueType::Printablestring)),
        ]),
    }
}

const DOMAIN_COMPONENT: &str = "0.9.2342.19200300.100.1.25";
const USER_ID: &str = "0.9.2342.19200300.100.1.1";
const TITLE: &str = "2.5.4.12";
const PRINCIPAL_NAME: &str = "1.3.6.1.4.1.311.20.2.3";

fn subject(single: &[(&str, &str)]) -> RequestedSubject {
    RequestedSubject {
        single: single
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        ..RequestedSubject::default()
    }
}

fn of(oid: &str, value: &str) -> TypeAndValue {
    TypeAndValue {
        oid: oid.into(),
        value: value.into(),
    }
}

/// Names of a server: plain, wildcard, internationalised, and now and then as many as there may be.
fn server_names(number: usize) -> Vec<String> {
    let many = [0, 1, 2, 5, 97][number % 5];
    let mut names = vec![format!("www{number}.example.com")];
    if number.is_multiple_of(3) {
        names.push(format!("*.n{number}.example.net"));
    }
    if number.is_multiple_of(4) {
        names.push("xn--bcher-kva.example.com".into());
        names.push("www.xn--fsqu00a.xn--0zwm56d.example.org".into());
    }
    names.extend((0..many).map(|at| format!("host-{at}.n{number}.example.org")));
    names.truncate(99);
    names
}

fn tls_dv(number: usize) -> Request {
    let names = server_names(number);
    Request {
        subject_dn: subject(&[("common_name", &names[0])]),
        san: RequestedSan {
            dns_names: names,
            ..RequestedSan::default()
        },
        ..Request::default()
    }
}

fn shape_ov(profile: &mut Profile) {
    profile.policy.subject_dn = every_attribute();
    profile.policy.san.ip_addresses = some(".+", 9);
    profile.certificate_policies = vec!["2.23.140.1.2.2".into()];
}

fn tls_ov(number: usize) -> Request {
    let names = server_names(number);
    let locality = ["M\u{fc}nchen", "Bonn", "\u{141}\u{f3}d\u{17a}"][number % 3];
    let mut single = vec![
        ("country", "DE"),
        ("locality", locality),
        ("organization", "Beispiel GmbH & Co. KG"),
        ("common_name", names[0].as_str()),
    ];
    if number.is_multiple_of(2) {
        single.extend([
            ("state", "Bayern"),
            ("postal_code", "80331"),
            ("street_address", "Marienplatz 1"),
        ]);
    }
    Request {
        subject_dn: subject(&single),
        san: RequestedSan {
            ip_addresses: vec![
                format!("8.8.{}.{}", number % 200, number % 7),
                "2a00:1450:4001::1".into(),
            ],
            dns_names: names,
            ..RequestedSan::default()
        },
        ..Request::default()
    }
}

fn shape_iv(profile: &mut Profile) {
    shape_ov(profile);
    profile.certificate_policies = vec!["2.23.140.1.2.3".into()];
}

fn tls_iv(number: usize) -> Request {
    let names = server_names(number);
    Request {
        subject_dn: subject(&[
            ("country", "FR"),
            ("state", "\u{ce}le-de-France"),
            ("locality", "Paris"),
            ("surname", "M\u{fc}ller"),
            ("given_name", "Zo\u{eb}"),
            ("common_name", &names[0]),
        ]),
        san: RequestedSan {
            dns_names: names,
            ..RequestedSan::default()
        },
        ..Request::default()
    }
}

fn shape_bare(profile: &mut Profile) {
    profile.policy.subject_dn = SubjectDnPolicy::default();
}

fn tls_bare(number: usize) -> Request {
    Request {
        san: RequestedSan {
            dns_names: server_names(number),
            ..RequestedSan::default()
        },
        ..Request::default()
    }
}

/// No server: any attribute, any kind of name.
fn shape_person(profile: &mut Profile, purposes: &[&str]) {
    profile.policy.subject_dn = every_attribute();
    profile.policy.extended_key_usages.ekus = always(purposes);
    profile.policy.san.dns_names = some("*", 9);
    profile.policy.san.emails = some("*", 9);
    profile.policy.san.uris = some(".+", 9);
    profile.policy.san.ip_addresses = some(".+", 9);
    profile.policy.san.other_names = BTreeMap::from([(PRINCIPAL_NAME.into(), typed(ValueType::Utf8string))]);
    profile.policy.validity.secondsmax = 3 * 365 * 86_400;
    profile.certificate_policies = vec!["1.3.6.1.4.1.4146.1.40".into()];
}

fn shape_client(profile: &mut Profile) {
    shape_person(profile, &["1.3.6.1.5.5.7.3.2"]);
}

fn client(number: usize) -> Request {
    let mut subject_dn = subject(&[
        ("country", "JP"),
        ("organization", "\u{4f8b}\u{682a}\u{5f0f}\u{4f1a}\u{793e}"),
        ("serial_number", &format!("{number:08}")),
        ("common_name", &format!("Device {number}")),
    ]);
    subject_dn.organizational_unit = vec!["Two".into(), "One".into()];
    subject_dn.extra_attributes = vec![
        of(DOMAIN_COMPONENT, "com"),
        of(DOMAIN_COMPONENT, "example"),
        of(USER_ID, &format!("u{number}")),
    ];
    Request {
        subject_dn,
        san: RequestedSan {
            dns_names: vec![format!("device-{number}.example.com")],
            uris: vec![
                format!("urn:uuid:00000000-0000-4000-8000-{number:012}"),
                "https://example.com/a%20b?c=d#e".into(),
            ],
            other_names: vec![of(PRINCIPAL_NAME, "jo@example.com")],
            ..RequestedSan::default()
        },
        ..Request::default()
    }
}

fn shape_mail(profile: &mut Profile) {
    shape_person(profile, &["1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.2"]);
    profile.policy.key_usages.content_commitment = Flag::Optional;
}

fn mail(number: usize) -> Request {
    let address = format!("jo.{number}+x@example.com");
    let mut subject_dn = subject(&[
        ("country", "DE"),
        ("surname", "Doe"),
        ("given_name", "Jo"),
        ("pseudonym", "jojo"),
        ("email", &address),
        ("common_name", "Jo Doe"),
    ]);
    subject_dn.extra_attributes = vec![of(TITLE, "Dr.")];
    Request {
        subject_dn,
        san: RequestedSan {
            emails: vec![address, "jo@xn--bcher-kva.example.com".into()],
            ..RequestedSan::default()
        },
        key_usages: BTreeMap::from([("content_commitment".into(), number.is_multiple_of(2))]),
        ..Request::default()
    }
}

/// Qualified statements, subject directory attributes, a template and custom extensions.
fn shape_qualified(profile: &mut Profile) {
    shape_person(profile, &["1.3.6.1.5.5.7.3.2"]);
    let text = |presence, format: &str| StringPolicy {
        presence,
        format: format.into(),
    };
    let number = |max| IntegerPolicy {
        presence: Presence::Optional,
        min: 0,
        max,
    };
    profile.policy.subject_da = SubjectDaPolicy {
        gender: optional(),
        date_of_birth: Presence::Optional,
        place_of_birth: optional(),
        country_of_citizenship: some("[A-Z]{2}", 9),
        country_of_residence: some("[A-Z]{2}", 9),
        extra_attributes: BTreeMap::new(),
    };
    profile.policy.qualified_statements = Some(QualifiedStatementsPolicy {
        semantics: SemanticsPolicy::default(),
        etsi_qc_compliance: Flag::StaticTrue,
        etsi_qc_sscd_compliance: Flag::Optional,
        etsi_qc_type: text(Presence::Static, "0.4.0.1862.1.6.1"),
        etsi_qc_retention_period: number(30),
        etsi_qc_pds: QcPdsPolicy {
            presence: Presence::Static,
            policies: BTreeMap::from([("en".into(), "https://pki.example-ca.com/pds.pdf".into())]),
        },
    });
    profile.policy.ms_extension_template = Some(MsExtensionTemplatePolicy {
        critical: false,
        template_id: optional(),
        major_version: number(1000),
        minor_version: number(1000),
    });
    let custom = |value_type| CustomExtensionPolicy {
        presence: Presence::Optional,
        critical: false,
        value_type,
        value_format: ".*".into(),
    };
    profile.policy.custom_extensions = BTreeMap::from([
        ("1.3.6.1.4.1.4146.99.1".into(), custom(ValueType::Utf8string)),
        ("1.3.6.1.4.1.4146.99.2".into(), custom(ValueType::Integer)),
        ("1.3.6.1.4.1.4146.99.3".into(), custom(ValueType::Nil)),
    ]);
}

fn qualified(number: usize) -> Request {
    Request {
        subject_dn: subject(&[
            ("country", "ES"),
            ("surname", "Garc\u{ed}a"),
            ("given_name", "Jos\u{e9}"),
            ("serial_number", "PNOES-00000000T"),
            ("common_name", "Jos\u{e9} Garc\u{ed}a"),
        ]),
        subject_da: Some(SubjectDa {
            gender: Some("M".into()),
            date_of_birth: Some("1971-03-14".into()),
            place_of_birth: Some("M\u{e1}laga".into()),
            country_of_citizenship: vec!["ES".into(), "PT".into()],
            country_of_residence: vec!["ES".into()],
            extra_attributes: vec![],
        }),
        qualified_statements: Some(QualifiedStatements {
            etsi_qc_sscd_compliance: Some(number.is_multiple_of(2)),
            etsi_qc_retention_period: Some(10),
            ..QualifiedStatements::default()
        }),
        ms_extension_template: Some(MsExtensionTemplate {
            id: Some("1.3.6.1.4.1.311.21.8.1.2.3".into()),
            major_version: Some(100),
            minor_version: Some(0),
        }),
        custom_extensions: BTreeMap::from([
            ("1.3.6.1.4.1.4146.99.1".into(), "text \u{fc}".into()),
            ("1.3.6.1.4.1.4146.99.2".into(), "-129".into()),
            ("1.3.6.1.4.1.4146.99.3".into(), "NIL".into()),
        ]),
        ..Request::default()
    }
}

fn shape_service(profile: &mut Profile, purpose: Purpose, eku: &str) {
    profile.purpose = purpose;
    profile.policy.subject_dn = every_attribute();
    profile.policy.extended_key_usages.ekus = always(&[eku]);
    profile.policy.san.dns_names = ListPolicy::default();
    profile.policy.key_usages.key_encipherment = Flag::StaticFalse;
    profile.certificate_policies.clear();
}

fn shape_ocsp_signer(profile: &mut Profile) {
    shape_service(profile, Purpose::OcspSigner, "1.3.6.1.5.5.7.3.9");
}

fn shape_tsa(profile: &mut Profile) {
    shape_service(profile, Purpose::Tsa, "1.3.6.1.5.5.7.3.8");
    profile.policy.extended_key_usages.critical = true;
}

fn service(number: usize) -> Request {
    Request {
        subject_dn: subject(&[
            ("country", "DE"),
            ("organization", "Example CA"),
            ("common_name", &format!("Service {number}")),
        ]),
        ..Request::default()
    }
}
