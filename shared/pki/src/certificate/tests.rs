//! Cases of `prepare`: order, criticality, encodings by type, and what is refused.

use base64::{Engine, engine::general_purpose::STANDARD};
use der::Decode;
use domain::{
    policy::ValueType,
    request::{AlternativeNames, CustomExtension, MsExtensionTemplate, QualifiedStatements, SubjectDa, TypedValue},
};
use x509_cert::TbsCertificate;

use super::*;
use crate::testing::{Authority, Hierarchy, content, serial, text};

fn typed(value_type: ValueType, value: impl Into<String>) -> impl Fn(&str) -> TypedValue {
    let value = value.into();
    move |oid| TypedValue {
        oid: oid.into(),
        value_type,
        value: value.clone(),
    }
}

fn error_of(change: impl FnOnce(&mut Content)) -> PrepareError {
    let mut content = content();
    change(&mut content);
    prepare(&content, &Hierarchy::new().issuer(), serial()).unwrap_err()
}

/// The value of an extension of the certificate that says this.
fn extension_of(oid: &str, change: impl FnOnce(&mut Content)) -> (bool, Vec<u8>) {
    let mut content = content();
    change(&mut content);
    let (_, certificate) = Hierarchy::new().issue(&content);
    let facts = read(&certificate).unwrap();
    let extension = facts
        .extensions
        .iter()
        .find(|extension| extension.oid() == oid)
        .expect("it is there");
    (extension.critical, extension.value.to_vec())
}

#[test]
fn repeated_attributes_stay_in_order() {
    let units = ["zeta", "alpha", "alpha", "mid"];
    let mut content = content();
    content.subject = units.map(|unit| text("2.5.4.11", unit)).to_vec();
    content.subject.push(text("2.5.4.3", "a.example"));
    let (tbs, _) = Hierarchy::new().issue(&content);
    let decoded = TbsCertificate::from_der(&tbs).unwrap();
    let found: Vec<_> = decoded
        .subject()
        .iter()
        .map(|attribute| String::from_utf8(attribute.value.value().to_vec()).unwrap())
        .collect();
    assert_eq!(found, ["zeta", "alpha", "alpha", "mid", "a.example"]);
}

#[test]
fn alternative_names_are_critical_when_there_is_no_subject() {
    let (critical, _) = extension_of("2.5.29.17", |content| content.subject.clear());
    assert!(critical);
    let (critical, _) = extension_of("2.5.29.17", |_| {});
    assert!(!critical);
}

#[test]
fn custom_extensions_are_encoded_by_their_type() {
    for (value_type, value, der) in [
        (ValueType::Utf8string, "ä", &b"\x0c\x02\xc3\xa4"[..]),
        (ValueType::Ia5string, "a", b"\x16\x01a"),
        (ValueType::Printablestring, "a", b"\x13\x01a"),
        (ValueType::Integer, "-129", b"\x02\x02\xff\x7f"),
        (ValueType::Der, "MAMCAQU=", b"\x30\x03\x02\x01\x05"),
        (ValueType::Nil, "NIL", b"\x05\x00"),
    ] {
        for critical in [false, true] {
            let value = typed(value_type, value)("2.999.3");
            let custom = CustomExtension { critical, value };
            let found = extension_of("2.999.3", |content| content.custom_extensions = vec![custom]);
            assert_eq!(found, (critical, der.to_vec()), "{value_type:?}");
        }
    }
}

#[test]
fn a_microsoft_template_is_identifier_and_versions() {
    let template = MsExtensionTemplate {
        id: Some("1.3.6.1.4.1.311.21.8.1".into()),
        major_version: Some(100),
        minor_version: Some(3),
    };
    let found = extension_of("1.3.6.1.4.1.311.21.7", |content| {
        content.ms_extension_template = Some((true, template.clone()));
    });
    assert_eq!(
        found,
        (
            true,
            b"\x30\x12\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x15\x08\x01\x02\x01\x64\x02\x01\x03".to_vec()
        )
    );
    for (template, field) in [
        (
            MsExtensionTemplate {
                id: None,
                ..template.clone()
            },
            "ms_extension_template.id",
        ),
        (
            MsExtensionTemplate {
                id: Some("x".into()),
                ..template.clone()
            },
            "ms_extension_template.id",
        ),
        (
            MsExtensionTemplate {
                major_version: None,
                ..template.clone()
            },
            "ms_extension_template.major_version",
        ),
        (
            MsExtensionTemplate {
                major_version: Some(-1),
                ..template.clone()
            },
            "ms_extension_template.major_version",
        ),
        (
            MsExtensionTemplate {
                minor_version: Some(1 << 32),
                ..template
            },
            "ms_extension_template.minor_version",
        ),
    ] {
        assert_eq!(
            error_of(|content| content.ms_extension_template = Some((false, template))).field,
            field
        );
    }
}

#[test]
fn persons_and_qualified_statements_have_their_extensions_and_are_not_critical() {
    let person = SubjectDa {
        gender: Some("M".into()),
        ..SubjectDa::default()
    };
    let found = extension_of("2.5.29.9", |content| content.subject_da = Some(person));
    assert_eq!(
        found,
        (
            false,
            b"\x30\x11\x30\x0f\x06\x08\x2b\x06\x01\x05\x05\x07\x09\x03\x31\x03\x13\x01M".to_vec()
        )
    );
    let qualified = QualifiedStatements {
        etsi_qc_compliance: Some(true),
        ..QualifiedStatements::default()
    };
    let found = extension_of("1.3.6.1.5.5.7.1.3", |content| {
        content.qualified_statements = Some(qualified);
    });
    assert_eq!(
        found,
        (false, b"\x30\x0a\x30\x08\x06\x06\x04\x00\x8e\x46\x01\x01".to_vec())
    );
    let (_, certificate) = Hierarchy::new().issue(&Content {
        subject_da: Some(SubjectDa::default()),
        qualified_statements: Some(QualifiedStatements::default()),
        ..content()
    });
    let facts = read(&certificate).unwrap();
    assert!(
        !facts
            .extensions
            .iter()
            .any(|one| ["2.5.29.9", "1.3.6.1.5.5.7.1.3"].contains(&one.oid().as_str()))
    );
}

#[test]
fn what_cannot_be_encoded_is_refused_naming_the_field() {
    use ValueType as T;
    let subject = |oid: &str, value_type: T, value: &str| {
        let attribute = typed(value_type, value)(oid);
        error_of(|content| content.subject = vec![attribute])
    };
    assert_eq!(
        subject("2.5.4.3", T::Utf8string, "").to_string(),
        "subject_dn.common_name: is empty; leave it out instead"
    );
    assert_eq!(subject("2.5.4.6", T::Printablestring, "D€").field, "subject_dn.country");
    assert_eq!(
        subject("2.5.4.11", T::Utf8string, "a\0b").field,
        "subject_dn.organizational_unit"
    );
    assert_eq!(
        subject("1.2.840.113549.1.9.1", T::Ia5string, "ä@a.example").field,
        "subject_dn.email"
    );
    assert_eq!(subject("9.9", T::Utf8string, "a").field, "subject_dn.extra_attributes");
    assert_eq!(
        subject("2.999", T::Der, &STANDARD.encode(b"\x30\x80\0\0")).field,
        "subject_dn.extra_attributes"
    );

    assert_eq!(
        error_of(|content| content.san.dns_names = vec!["ä.example".into()]).field,
        "san.dns_names"
    );
    assert_eq!(
        error_of(|content| content.san.dns_names = vec![String::new()]).field,
        "san.dns_names"
    );
    assert_eq!(
        error_of(|content| content.san.emails = vec!["ä@a.example".into()]).field,
        "san.emails"
    );
    assert_eq!(
        error_of(|content| content.san.uris = vec!["http://\0".into()]).field,
        "san.uris"
    );
    assert_eq!(
        error_of(|content| content.san.other_names = vec![typed(T::Integer, "x")("2.999")]).field,
        "san.other_names"
    );
    assert_eq!(
        error_of(|content| content.extended_key_usage = vec!["serverAuth".into()]).field,
        "extended_key_usages"
    );
    assert_eq!(
        error_of(|content| content.certificate_policies = vec!["1".into()]).field,
        "certificate_policies"
    );
    assert_eq!(
        error_of(|content| content.public_key = b"no key".to_vec().into()).field,
        "public_key"
    );
    assert_eq!(error_of(|content| content.not_before = -1).field, "validity.not_before");
    assert_eq!(
        error_of(|content| content.not_after = i64::MAX).field,
        "validity.not_after"
    );
    assert_eq!(
        error_of(|content| content.not_after = content.not_before - 1).field,
        "validity.not_after"
    );
}

#[test]
fn a_custom_extension_cannot_stand_for_one_with_a_field_of_its_own_or_come_twice() {
    let custom = |oid: &str| CustomExtension {
        critical: false,
        value: typed(ValueType::Nil, "NIL")(oid),
    };
    for oid in [
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.15",
        "2.5.29.37",
        "2.5.29.30",
        "1.3.6.1.5.5.7.48.1.5",
    ] {
        let error = error_of(|content| content.custom_extensions = vec![custom(oid)]);
        assert_eq!((error.field, error.detail.contains(oid)), ("custom_extensions", true));
    }
    let error = error_of(|content| content.custom_extensions = vec![custom("2.999.1"), custom("2.999.1")]);
    assert_eq!(error.detail, "extension 2.999.1 is there twice");
}

#[test]
fn an_issuer_that_cannot_be_referred_to_is_to_blame_itself() {
    let good = Hierarchy::new().issuer();
    for issuer in [
        Issuer {
            subject_key_id: vec![].into(),
            ..good.clone()
        },
        Issuer {
            subject: b"no name".to_vec().into(),
            ..good.clone()
        },
        Issuer {
            public_url: "http://ä.example".into(),
            ..good
        },
    ] {
        assert_eq!(prepare(&content(), &issuer, serial()).unwrap_err().field, "");
    }
}

/// Front ends and signers of different versions compare these bytes: a change here makes open jobs unsignable.
#[test]
fn the_encoding_does_not_change() {
    let spki = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &[9; 32]].concat();
    let issuer = Issuer {
        subject: Authority::new("Issuer").subject.into(),
        subject_key_id: vec![5; 20].into(),
        ..Hierarchy::new().issuer()
    };
    let content = Content {
        subject: vec![
            typed(ValueType::Printablestring, "DE")("2.5.4.6"),
            text("2.5.4.11", "one"),
            text("2.5.4.11", "two"),
        ],
        san: AlternativeNames {
            emails: vec!["a@a.example".into()],
            ip_addresses: vec!["::1".parse().unwrap()],
            uris: vec!["urn:a:b".into()],
            other_names: vec![typed(ValueType::Integer, "300")("2.999")],
            ..content().san
        },
        subject_da: Some(SubjectDa {
            date_of_birth: Some("2000-02-29".into()),
            ..SubjectDa::default()
        }),
        qualified_statements: Some(QualifiedStatements {
            etsi_qc_retention_period: Some(10),
            ..QualifiedStatements::default()
        }),
        custom_extensions: vec![CustomExtension {
            critical: true,
            value: typed(ValueType::Nil, "NIL")("2.999.1"),
        }],
        public_key: spki.into(),
        not_after: 2_600_000_000,
        ..content()
    };
    let tbs = prepare(&content, &issuer, serial()).unwrap();
    let pinned = "06b238dcd282e38646e27365e57c046f1f516cf207b8651d72855a573d433443";
    assert_eq!(format!("{:?}", crate::sha256(&tbs)), pinned, "{tbs:02x?}");
}
