//! What is prepared, read by a decoder that is not ours (`x509-cert`), says what the content says.

use std::net::IpAddr;

use der::{Decode, Encode, Tag, Tagged, asn1::ObjectIdentifier};
use domain::{
    policy::ValueType,
    request::{AlternativeNames, CustomExtension, KeyUsage, TypedValue},
};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use x509_cert::{
    TbsCertificate,
    ext::pkix::{
        self, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, CertificatePolicies, CrlDistributionPoints,
        ExtendedKeyUsage, SubjectAltName, SubjectKeyIdentifier,
        name::{DistributionPointName, GeneralName},
    },
};

use super::*;
use crate::testing::{Hierarchy, content, serial};

const KEY_USAGES: [KeyUsage; 9] = [
    KeyUsage::DigitalSignature,
    KeyUsage::ContentCommitment,
    KeyUsage::KeyEncipherment,
    KeyUsage::DataEncipherment,
    KeyUsage::KeyAgreement,
    KeyUsage::KeyCertificateSign,
    KeyUsage::CrlSign,
    KeyUsage::EncipherOnly,
    KeyUsage::DecipherOnly,
];

fn any_text() -> impl Strategy<Value = TypedValue> {
    let oids = prop_oneof![
        Just("2.5.4.3"),
        Just("2.5.4.11"),
        Just("2.5.4.10"),
        Just("0.9.2342.19200300.100.1.25"),
        Just("1.2.840.113549.1.9.1"),
        Just("1.3.6.1.4.1.311.60.2.1.3"),
    ];
    let value = prop_oneof![
        "[^\\x00]{1,30}".prop_map(|text| (ValueType::Utf8string, text)),
        "[A-Za-z0-9 '()+,./:=?-]{1,30}".prop_map(|text| (ValueType::Printablestring, text)),
        "[\\x01-\\x7f]{1,30}".prop_map(|text| (ValueType::Ia5string, text)),
    ];
    (oids, value).prop_map(|(oid, (value_type, value))| TypedValue {
        oid: oid.into(),
        value_type,
        value,
    })
}

fn any_names() -> impl Strategy<Value = AlternativeNames> {
    let other = any_text().prop_map(|name| TypedValue {
        oid: "1.3.6.1.4.1.311.20.2.3".into(),
        ..name
    });
    (
        any::<bool>(),
        vec("[a-z0-9-]{1,20}\\.example", 0..5),
        vec("[a-z]{1,9}@[a-z]{1,9}\\.example", 0..3),
        vec(any::<IpAddr>(), 0..3),
        vec("https://[a-z]{1,9}\\.example/[!-~]{0,20}", 0..3),
        vec(other, 0..2),
    )
        .prop_map(
            |(critical, dns_names, emails, ip_addresses, uris, other_names)| AlternativeNames {
                critical,
                dns_names,
                emails,
                ip_addresses,
                uris,
                other_names,
            },
        )
}

prop_compose! {
    fn any_content()(
        subject in vec(any_text(), 0..8),
        san in any_names(),
        key_usage in subsequence(KEY_USAGES.to_vec(), 0..=9),
        extended_key_usage in subsequence(vec!["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.10.3.12"], 0..=3),
        extended_key_usage_critical: bool,
        certificate_policies in subsequence(vec!["2.23.140.1.2.1", "1.3.6.1.4.1.4146.1.20"], 0..=2),
        ocsp_no_check: bool,
        custom in option::of((any::<bool>(), any_text())),
        not_before in 0_i64..250_000_000_000,
        duration in 0_i64..3_000_000_000,
    ) -> Content {
        Content {
            subject,
            san,
            key_usage,
            extended_key_usage: extended_key_usage.into_iter().map(str::to_owned).collect(),
            extended_key_usage_critical,
            certificate_policies: certificate_policies.into_iter().map(str::to_owned).collect(),
            ocsp_no_check,
            custom_extensions: custom.into_iter().map(|(critical, value)| CustomExtension {
                critical,
                value: TypedValue { oid: "1.3.6.1.4.1.4146.9.9".into(), ..value },
            }).collect(),
            not_before,
            not_after: not_before + duration,
            ..content()
        }
    }
}

fn tag_of(value_type: ValueType) -> Tag {
    match value_type {
        ValueType::Ia5string => Tag::Ia5String,
        ValueType::Printablestring => Tag::PrintableString,
        ValueType::Utf8string => Tag::Utf8String,
        other => panic!("{other:?} is no text"),
    }
}

fn oids(identifiers: &[ObjectIdentifier]) -> Vec<String> {
    identifiers.iter().map(ToString::to_string).collect()
}

fn check_names(names: &[GeneralName], wanted: &AlternativeNames) {
    assert_eq!(names.len(), wanted.len());
    let found = |pick: fn(&GeneralName) -> Option<String>| names.iter().filter_map(pick).collect::<Vec<_>>();
    assert_eq!(
        wanted.dns_names,
        found(|name| if let GeneralName::DnsName(name) = name {
            Some(name.to_string())
        } else {
            None
        })
    );
    assert_eq!(
        wanted.emails,
        found(|name| if let GeneralName::Rfc822Name(name) = name {
            Some(name.to_string())
        } else {
            None
        })
    );
    let uris = found(|name| {
        if let GeneralName::UniformResourceIdentifier(name) = name {
            Some(name.to_string())
        } else {
            None
        }
    });
    assert_eq!(wanted.uris, uris);
    let addresses = names.iter().filter_map(|name| match name {
        GeneralName::IpAddress(octets) => Some(match *octets.as_bytes() {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            ref octets => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        }),
        _ => None,
    });
    assert_eq!(wanted.ip_addresses, addresses.collect::<Vec<_>>());
    let others = names.iter().filter_map(|name| {
        if let GeneralName::OtherName(other) = name {
            Some(other)
        } else {
            None
        }
    });
    for (other, wanted) in others.zip(&wanted.other_names) {
        assert_eq!(other.type_id.to_string(), wanted.oid);
        assert_eq!(
            (other.value.tag(), other.value.value()),
            (tag_of(wanted.value_type), wanted.value.as_bytes())
        );
    }
}

/// Everything that a decoded certificate says, compared with what was asked for.
fn check_decoded(decoded: &TbsCertificate, content: &Content, issuer: &Issuer) {
    let extension = |oid: &str| {
        let all = decoded.extensions().unwrap().iter();
        all.filter(|extension| extension.extn_id.to_string() == oid)
            .map(|extension| extension.critical)
            .next()
    };
    assert_eq!(decoded.serial_number().as_bytes(), serial().as_bytes());
    assert_eq!(decoded.issuer().to_der().unwrap(), *issuer.subject);
    assert_eq!(decoded.subject_public_key_info().to_der().unwrap(), *content.public_key);
    assert_eq!(
        decoded.validity().not_before.to_unix_duration().as_secs().cast_signed(),
        content.not_before
    );
    assert_eq!(
        decoded.validity().not_after.to_unix_duration().as_secs().cast_signed(),
        content.not_after
    );

    let names: Vec<_> = decoded.subject().iter_rdn().collect();
    assert_eq!(names.len(), content.subject.len());
    for (name, wanted) in names.iter().zip(&content.subject) {
        let attribute = name.iter().next().unwrap();
        assert_eq!(
            (name.iter().count(), attribute.oid.to_string()),
            (1, wanted.oid.clone())
        );
        assert_eq!(
            (attribute.value.tag(), attribute.value.value()),
            (tag_of(wanted.value_type), wanted.value.as_bytes())
        );
    }

    let (critical, key_id) = decoded.get_extension::<AuthorityKeyIdentifier>().unwrap().unwrap();
    assert_eq!(
        (critical, key_id.key_identifier.unwrap().as_bytes()),
        (false, &*issuer.subject_key_id)
    );
    assert!(key_id.authority_cert_issuer.is_none() && key_id.authority_cert_serial_number.is_none());
    let (critical, key_id) = decoded.get_extension::<SubjectKeyIdentifier>().unwrap().unwrap();
    assert_eq!(
        (critical, key_id.0.as_bytes()),
        (false, &subject_key_id(&content.public_key).unwrap()[..])
    );
    let (critical, constraints) = decoded.get_extension::<pkix::BasicConstraints>().unwrap().unwrap();
    assert_eq!(
        (critical, constraints.ca, constraints.path_len_constraint),
        (true, false, None)
    );

    match decoded.get_extension::<pkix::KeyUsage>().unwrap() {
        Some((critical, usage)) => {
            let bits = content
                .key_usage
                .iter()
                .fold(0, |bits, usage| bits | (1 << (*usage as u16)));
            assert_eq!((critical, usage.0.bits()), (true, bits));
        }
        None => assert!(content.key_usage.is_empty()),
    }
    match decoded.get_extension::<ExtendedKeyUsage>().unwrap() {
        Some((critical, usages)) => {
            assert_eq!(
                (critical, oids(&usages.0)),
                (content.extended_key_usage_critical, content.extended_key_usage.clone())
            );
        }
        None => assert!(content.extended_key_usage.is_empty()),
    }
    match decoded.get_extension::<SubjectAltName>().unwrap() {
        Some((critical, names)) => {
            assert_eq!(critical, content.san.critical || content.subject.is_empty());
            check_names(&names.0, &content.san);
        }
        None => assert!(content.san.is_empty()),
    }
    let policies = decoded.get_extension::<CertificatePolicies>().unwrap();
    let policies = policies.map_or(vec![], |(_, policies)| {
        policies
            .0
            .iter()
            .map(|policy| policy.policy_identifier.to_string())
            .collect()
    });
    assert_eq!(policies, content.certificate_policies);

    assert_eq!(
        extension("1.3.6.1.5.5.7.48.1.5"),
        content.ocsp_no_check.then_some(false)
    );
    let uri = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => uri.to_string(),
        other => panic!("{other:?} is no URI"),
    };
    let access = decoded.get_extension::<AuthorityInfoAccessSyntax>().unwrap();
    let points = decoded.get_extension::<CrlDistributionPoints>().unwrap();
    if content.ocsp_no_check {
        assert!(access.is_none() && points.is_none());
    } else {
        let access: Vec<_> = access
            .unwrap()
            .1
            .0
            .iter()
            .map(|one| (one.access_method.to_string(), uri(&one.access_location)))
            .collect();
        let wanted = [
            ("1.3.6.1.5.5.7.48.1".to_owned(), issuer.ocsp_url()),
            ("1.3.6.1.5.5.7.48.2".to_owned(), issuer.ca_issuers_url()),
        ];
        assert_eq!(access, wanted);
        let points = points.unwrap().1.0;
        let Some(DistributionPointName::FullName(names)) = &points[0].distribution_point else {
            panic!("{points:?}")
        };
        assert_eq!(
            (points.len(), names.len(), uri(&names[0])),
            (1, 1, issuer.crl_url(serial()))
        );
    }
    for custom in &content.custom_extensions {
        assert_eq!(extension(&custom.value.oid), Some(custom.critical));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn another_decoder_reads_what_was_asked_for(content in any_content()) {
        let hierarchy = Hierarchy::new();
        let issuer = hierarchy.issuer();
        let prepared = prepare(&content, &issuer, serial());
        if content.subject.is_empty() && content.san.is_empty() {
            prop_assert_eq!(prepared.unwrap_err().field, "subject_dn");
            return Ok(());
        }
        let tbs = prepared.unwrap();
        prop_assert_eq!(&prepare(&content, &issuer, serial()).unwrap(), &tbs, "the same arguments give the same bytes");
        let decoded = TbsCertificate::from_der(&tbs).unwrap();
        prop_assert_eq!(decoded.to_der().unwrap(), tbs, "another encoder gives the same bytes");
        check_decoded(&decoded, &content, &issuer);
    }

    #[test]
    fn our_own_reader_agrees(content in any_content()) {
        prop_assume!(!(content.subject.is_empty() && content.san.is_empty()));
        let hierarchy = Hierarchy::new();
        let (tbs, certificate) = hierarchy.issue(&content);
        let facts = read(&certificate).unwrap();
        prop_assert_eq!((facts.tbs, facts.version), (&tbs[..], 3));
        prop_assert_eq!(facts.serial.to_vec(), serial().as_bytes().to_vec());
        prop_assert_eq!((facts.issuer, facts.public_key), (&*hierarchy.ca.subject, &*content.public_key));
        prop_assert_eq!((facts.not_before, facts.not_after), (content.not_before, content.not_after));
        let key_ids = (hierarchy.ca.key_id(), subject_key_id(&content.public_key).unwrap());
        prop_assert_eq!(facts.authority_key_id, Some(&key_ids.0[..]));
        prop_assert_eq!(facts.subject_key_id, Some(&key_ids.1[..]));
        prop_assert_eq!(facts.basic_constraints, Some(BasicConstraints { ca: false, path_length: None }));
        prop_assert!(!facts.is_ca());
        let usage = (!content.key_usage.is_empty()).then_some(content.key_usage);
        prop_assert_eq!(facts.key_usage, usage);
    }

    #[test]
    fn the_reader_never_panics(bytes in vec(any::<u8>(), 0..300), at: prop::sample::Index, change in 1_u8..) {
        let _ = read(&bytes);
        let (_, mut certificate) = Hierarchy::new().issue(&content());
        let at = at.index(certificate.len());
        certificate[at] ^= change;
        let _ = read(&certificate);
        let _ = read(&certificate[..at]);
    }
}
