//! Certificates of ours before judges that are not ours.

use std::time::{Duration, SystemTime};

use domain::{
    id::Serial,
    key::KeyType,
    policy::{KeyFormat, ValueType},
    request::{
        AlternativeNames, Content, CustomExtension, KeyUsage, MsExtensionTemplate, QualifiedStatements, Semantics,
        SubjectDa, TypedValue,
    },
    time::Timestamp,
};
use pki::{certificate::read, csr, pem};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage as WebpkiUsage, anchor_from_trusted_cert};

use crate::{authority::Authority, tools::Workshop};

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed()
}

fn serial() -> Serial {
    Serial::new(Timestamp::from_secs(now()), [0xab; 10])
}

fn typed(oid: &str, value_type: ValueType, value: &str) -> TypedValue {
    TypedValue {
        oid: oid.into(),
        value_type,
        value: value.into(),
    }
}

fn text(oid: &str, value: &str) -> TypedValue {
    typed(oid, ValueType::Utf8string, value)
}

fn leaf_key() -> Vec<u8> {
    let workshop = Workshop::new();
    workshop.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    csr::read(&workshop.run("openssl pkey -in key.pem -pubout"), KeyFormat::Pkcs8)
        .unwrap()
        .spki
}

fn server() -> Content {
    Content {
        subject: vec![text("2.5.4.3", "a.example")],
        san: AlternativeNames {
            dns_names: vec!["a.example".into(), "*.b.example".into()],
            ip_addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            ..AlternativeNames::default()
        },
        key_usage: vec![KeyUsage::DigitalSignature],
        extended_key_usage: vec!["1.3.6.1.5.5.7.3.1".into()],
        extended_key_usage_critical: false,
        certificate_policies: vec!["2.23.140.1.2.1".into()],
        ocsp_no_check: false,
        subject_da: None,
        subject_da_extra: vec![],
        qualified_statements: None,
        ms_extension_template: None,
        custom_extensions: vec![],
        public_key: leaf_key().into(),
        not_before: now() - 60,
        not_after: now() + 90 * 86_400 - 61,
    }
}

fn check_with_openssl(authority: &Authority, purpose: &str) {
    let checked = authority.workshop.run(&format!(
        "openssl verify -x509_strict -check_ss_sig -purpose {purpose} -CAfile root.pem -untrusted ca.pem leaf.pem"
    ));
    assert_eq!(checked.trim(), "leaf.pem: OK");
}

fn check_with_gnutls(authority: &Authority) {
    let workshop = &authority.workshop;
    workshop.write("whole.pem", workshop.read("leaf.pem") + &workshop.read("chain.pem"));
    let checked = workshop.run("certtool --verify --load-ca-certificate root.pem --infile whole.pem");
    assert!(checked.contains("Chain verification output: Verified."), "{checked}");
}

fn check_with_webpki(authority: &Authority, certificate: &[u8], names: &[&str]) {
    let chain: Vec<CertificateDer<'_>> = authority
        .issuer
        .chain
        .iter()
        .map(|der| CertificateDer::from(&der[..]))
        .collect();
    let root = anchor_from_trusted_cert(&chain[1]).unwrap();
    let leaf = CertificateDer::from(certificate);
    let leaf = EndEntityCert::try_from(&leaf).unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now().cast_unsigned()));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    leaf.verify_for_usage(
        algorithms,
        &[root],
        &chain[..1],
        time,
        WebpkiUsage::server_auth(),
        None,
        None,
    )
    .unwrap();
    for name in names {
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from(*name).unwrap())
            .unwrap();
    }
}

#[test]
fn server_certificates_of_every_kind_of_issuer_are_accepted() {
    for key_type in [
        KeyType::Rsa2048,
        KeyType::Rsa3072,
        KeyType::P256,
        KeyType::P384,
        KeyType::P521,
        KeyType::Ed25519,
    ] {
        let authority = Authority::new(key_type);
        let certificate = authority.issue(&server(), serial());
        check_with_openssl(&authority, "sslserver");
        check_with_gnutls(&authority);
        check_with_webpki(
            &authority,
            &certificate,
            &["a.example", "x.b.example", "127.0.0.1", "::1"],
        );
        let subject = authority
            .workshop
            .run("openssl x509 -in leaf.pem -noout -issuer -nameopt RFC2253,-esc_msb,utf8");
        assert_eq!(
            subject.trim(),
            "issuer=CN=CA,OU=two,OU=one,O=Prüfstelle,DC=test,DC=example,DC=com"
        );
    }
}

#[test]
fn keys_of_every_type_are_certified_byte_for_byte() {
    let authority = Authority::new(KeyType::P256);
    for options in [
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:4096",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
        "-algorithm ED25519",
    ] {
        authority
            .workshop
            .run(&format!("openssl genpkey {options} -out leaf.key"));
        // The default hash for a P-384 request is SHA-256: its key must not be taken for one on P-256.
        let request = authority
            .workshop
            .run("openssl req -new -key leaf.key -subj /CN=ignored");
        let requested = csr::read(&request, KeyFormat::Pkcs10).unwrap();
        authority.issue(
            &Content {
                public_key: requested.spki.into(),
                ..server()
            },
            serial(),
        );
        check_with_openssl(&authority, "sslserver");
        let certified = authority.workshop.run("openssl x509 -in leaf.pem -noout -pubkey");
        assert_eq!(certified, authority.workshop.run("openssl pkey -in leaf.key -pubout"));
    }
}

#[test]
fn a_certificate_without_subject_and_one_beyond_2049_are_accepted() {
    let authority = Authority::new(KeyType::P256);
    let certificate = authority.issue(
        &Content {
            subject: vec![],
            ..server()
        },
        serial(),
    );
    check_with_openssl(&authority, "sslserver");
    check_with_gnutls(&authority);
    check_with_webpki(&authority, &certificate, &["a.example"]);
    authority.issue(
        &Content {
            not_after: 2_600_000_000,
            ..server()
        },
        serial(),
    );
    check_with_openssl(&authority, "sslserver");
    let dates = authority
        .workshop
        .run("openssl x509 -in leaf.pem -noout -enddate -dateopt iso_8601");
    assert_eq!(dates.trim(), "notAfter=2052-05-22 14:13:20Z");
}

#[test]
fn service_certificates_pass_for_their_purpose() {
    let authority = Authority::new(KeyType::P384);
    let no_names = AlternativeNames::default();
    let ocsp = Content {
        extended_key_usage: vec!["1.3.6.1.5.5.7.3.9".into()],
        san: no_names.clone(),
        certificate_policies: vec![],
        ocsp_no_check: true,
        ..server()
    };
    authority.issue(&ocsp, serial());
    check_with_openssl(&authority, "ocsphelper");
    let tsa = Content {
        extended_key_usage: vec!["1.3.6.1.5.5.7.3.8".into()],
        extended_key_usage_critical: true,
        san: no_names,
        ..server()
    };
    authority.issue(&tsa, serial());
    check_with_openssl(&authority, "timestampsign");
}

/// Everything that content can say, at once.
fn everything() -> Content {
    Content {
        subject: vec![
            typed("2.5.4.6", ValueType::Printablestring, "DE"),
            text("2.5.4.97", "VATDE-123456789"),
            text("2.5.4.11", "zweite"),
            text("2.5.4.11", "erste"),
            typed("0.9.2342.19200300.100.1.25", ValueType::Ia5string, "com"),
            typed("0.9.2342.19200300.100.1.25", ValueType::Ia5string, "example"),
            typed("2.5.4.5", ValueType::Printablestring, "0815"),
            text("2.5.4.3", "Grüße 部門"),
        ],
        san: AlternativeNames {
            critical: false,
            dns_names: vec!["a.example".into()],
            emails: vec!["a@a.example".into()],
            ip_addresses: vec!["2001:db8::1".parse().unwrap()],
            uris: vec!["https://a.example/x".into()],
            other_names: vec![text("1.3.6.1.4.1.311.20.2.3", "ä@a.example")],
        },
        key_usage: vec![
            KeyUsage::DigitalSignature,
            KeyUsage::ContentCommitment,
            KeyUsage::KeyAgreement,
            KeyUsage::DecipherOnly,
        ],
        extended_key_usage: vec!["1.3.6.1.5.5.7.3.2".into(), "1.3.6.1.5.5.7.3.4".into(), "2.999.7".into()],
        subject_da: Some(SubjectDa {
            gender: Some("F".into()),
            date_of_birth: Some("1980-12-31".into()),
            place_of_birth: Some("Köln".into()),
            country_of_citizenship: vec!["DE".into(), "FR".into()],
            country_of_residence: vec!["DE".into()],
            extra_attributes: vec![],
        }),
        subject_da_extra: vec![text("2.999.8", "extra")],
        qualified_statements: Some(QualifiedStatements {
            semantics: Some(Semantics {
                identifier: Some("0.4.0.194121.1.1".into()),
                name_authorities: vec!["ra@a.example".into()],
            }),
            etsi_qc_compliance: Some(true),
            etsi_qc_sscd_compliance: Some(true),
            etsi_qc_type: Some("0.4.0.1862.1.6.1".into()),
            etsi_qc_retention_period: Some(15),
            etsi_qc_pds: [("en".to_owned(), "https://a.example/pds".to_owned())].into(),
        }),
        ms_extension_template: Some((
            false,
            MsExtensionTemplate {
                id: Some("1.3.6.1.4.1.311.21.8.1.2".into()),
                major_version: Some(100),
                minor_version: Some(2),
            },
        )),
        custom_extensions: vec![
            CustomExtension {
                critical: false,
                value: typed("2.999.1", ValueType::Nil, "NIL"),
            },
            CustomExtension {
                critical: false,
                value: text("2.999.2", "value"),
            },
        ],
        ..server()
    }
}

#[test]
fn a_certificate_that_says_everything_is_accepted() {
    let authority = Authority::new(KeyType::P256);
    let certificate = authority.issue(&everything(), serial());
    check_with_openssl(&authority, "sslclient");
    check_with_gnutls(&authority);
    assert_eq!(read(&certificate).unwrap().serial, serial().as_bytes());
    let shown = authority
        .workshop
        .run("openssl x509 -in leaf.pem -noout -text -nameopt RFC2253,-esc_msb,utf8");
    for line in [
        "Subject: CN=Grüße 部門,serialNumber=0815,DC=example,DC=com,OU=erste,OU=zweite,organizationIdentifier=VATDE-123456789,C=DE",
        "DNS:a.example, email:a@a.example, IP Address:2001:DB8:0:0:0:0:0:1, URI:https://a.example/x, othername: UPN::ä@a.example",
        "Digital Signature, Non Repudiation, Key Agreement, Decipher Only",
        "TLS Web Client Authentication, E-mail Protection, 2.999.7",
        "OCSP - URI:http://pki.test.example/ocsp",
        "CA Issuers - URI:http://pki.test.example/ca/interop.cer",
        "URI:http://pki.test.example/crl/interop/43.crl",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

const PYTHON_JUDGE: &str = r#"
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
leaf = x509.load_pem_x509_certificate(open("leaf.pem", "rb").read())
issuer = x509.load_pem_x509_certificate(open("ca.pem", "rb").read())
leaf.verify_directly_issued_by(issuer)
assert leaf.version == x509.Version.v3
print([(a.oid.dotted_string, a._type.name, a.value) for rdn in leaf.subject.rdns for a in rdn])
names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
print(names.get_values_for_type(x509.DNSName), names.get_values_for_type(x509.RFC822Name), names.get_values_for_type(x509.UniformResourceIdentifier))
print([e.oid.dotted_string + ("!" if e.critical else "") for e in leaf.extensions])
template = leaf.extensions.get_extension_for_class(x509.MSCertificateTemplate).value
print(template.template_id.dotted_string, template.major_version, template.minor_version)
print(leaf.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value.key_identifier
      == issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest)
"#;

#[test]
fn python_reads_what_was_asked_for() {
    let authority = Authority::new(KeyType::P256);
    authority.issue(&everything(), serial());
    let expected = "\
[('2.5.4.6', 'PrintableString', 'DE'), ('2.5.4.97', 'UTF8String', 'VATDE-123456789'), ('2.5.4.11', 'UTF8String', 'zweite'), \
('2.5.4.11', 'UTF8String', 'erste'), ('0.9.2342.19200300.100.1.25', 'IA5String', 'com'), \
('0.9.2342.19200300.100.1.25', 'IA5String', 'example'), ('2.5.4.5', 'PrintableString', '0815'), ('2.5.4.3', 'UTF8String', 'Grüße 部門')]
['a.example'] ['a@a.example'] ['https://a.example/x']
['2.5.29.35', '2.5.29.14', '2.5.29.15!', '2.5.29.19!', '2.5.29.37', '2.5.29.17', '2.5.29.32', '1.3.6.1.5.5.7.1.1', '2.5.29.31', \
'2.5.29.9', '1.3.6.1.5.5.7.1.3', '1.3.6.1.4.1.311.21.7', '2.999.1', '2.999.2']
1.3.6.1.4.1.311.21.8.1.2 100 2
True
";
    assert_eq!(authority.workshop.python(PYTHON_JUDGE), expected);
}

#[test]
fn requests_of_our_own_are_verified_by_openssl_and_gnutls() {
    for key_type in [KeyType::Rsa2048, KeyType::P384, KeyType::Ed25519] {
        let authority = Authority::new(key_type);
        let subject = [
            text("2.5.4.10", "Prüfstelle"),
            text("2.5.4.11", "one"),
            text("2.5.4.11", "two"),
            text("2.5.4.3", "CA 2"),
        ];
        let tbs = csr::to_be_signed(&subject, &authority.issuer.public_key).unwrap();
        let request = csr::seal(&tbs, authority.issuer.signature_algorithm, &authority.sign(&tbs));
        authority
            .workshop
            .write("own.csr", pem::encode("CERTIFICATE REQUEST", &request));
        let shown = authority
            .workshop
            .run("openssl req -in own.csr -verify -noout -subject -nameopt RFC2253,-esc_msb,utf8");
        assert_eq!(shown.trim(), "subject=CN=CA 2,OU=two,OU=one,O=Prüfstelle");
        let shown = authority.workshop.run("certtool --crq-info --infile own.csr");
        assert!(shown.contains("Self signature: verified"), "{shown}");
    }
}
