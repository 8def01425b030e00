//! Crafted requests: what is malformed is refused, what is merely unusual is accepted and ignored.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use domain::policy::ValueType;
use proptest::prelude::*;

use super::*;
use crate::{pem::encode, signature::algorithm_identifier};

const CHALLENGE_PASSWORD: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07";
const UNSTRUCTURED_NAME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02";
const EXTENSION_REQUEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const ENROLMENT_NAME_VALUE_PAIR: &[u8] = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x0d\x02\x01";
const SUBJECT_ALTERNATIVE_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(tag::SEQUENCE, parts)
}
fn set(parts: &[&[u8]]) -> Vec<u8> {
    element(tag::SET, parts)
}
fn rdn(oid: &[u8], string: u8, text: &[u8]) -> Vec<u8> {
    set(&[&sequence(&[oid, &element(string, &[text])])])
}
fn attribute(oid: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[oid, &set(&[value])])
}
fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[oid, &element(tag::OCTET_STRING, &[value])])
}
fn request_for(extensions: &[&[u8]]) -> Vec<u8> {
    attribute(EXTENSION_REQUEST, &sequence(extensions))
}
fn alternative_names(names: &[&[u8]]) -> Vec<u8> {
    extension(SUBJECT_ALTERNATIVE_NAME, &sequence(names))
}

/// A request in parts, signed by a P-256 key of its own.
struct Draft {
    key: EcdsaKeyPair,
    version: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Draft {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self {
            version: element(tag::INTEGER, &[&[0]]),
            subject: sequence(&[&rdn(b"\x06\x03\x55\x04\x03", tag::UTF8_STRING, b"a.example")]),
            spki: key.public_key().as_der().unwrap().as_ref().to_vec(),
            attributes: element(tag::explicit(0), &[]),
            algorithm: algorithm_identifier(SignatureAlgorithm::EcdsaSha256).to_vec(),
            key,
        }
    }
    fn with_subject(subject: &[&[u8]]) -> Self {
        let subject = sequence(subject);
        Self { subject, ..Self::new() }
    }
    fn with_attributes(attributes: &[&[u8]]) -> Self {
        let attributes = element(tag::explicit(0), attributes);
        Self {
            attributes,
            ..Self::new()
        }
    }
    fn der(&self) -> Vec<u8> {
        let information = sequence(&[&self.version, &self.subject, &self.spki, &self.attributes]);
        let signature = self.key.sign_digest(&digest(&SHA256, &information)).unwrap();
        sequence(&[
            &information,
            &self.algorithm,
            &element(tag::BIT_STRING, &[&[0], signature.as_ref()]),
        ])
    }
    fn read(&self) -> Result<RequestedKey, CsrError> {
        read_pem(&self.der())
    }
    fn is_accepted(&self) {
        let expected = RequestedKey {
            spki: self.spki.clone(),
            key_type: KeyType::P256,
        };
        assert_eq!(self.read(), Ok(expected));
    }
    fn is_malformed(&self, fault: &'static str) {
        assert_eq!(self.read(), Err(CsrError::Malformed(fault)));
    }
}

fn read_pem(der: &[u8]) -> Result<RequestedKey, CsrError> {
    read(&encode("CERTIFICATE REQUEST", der), KeyFormat::Pkcs10)
}

#[test]
fn a_plain_request_gives_its_key_byte_for_byte() {
    Draft::new().is_accepted();
}

#[test]
fn both_labels_are_taken_and_no_other() {
    let der = Draft::new().der();
    assert!(read(&encode("NEW CERTIFICATE REQUEST", &der), KeyFormat::Pkcs10).is_ok());
    assert!(matches!(
        read(&encode("CERTIFICATE", &der), KeyFormat::Pkcs10),
        Err(CsrError::Pem(_))
    ));
    assert!(matches!(
        read(&encode("CERTIFICATE REQUEST", &der), KeyFormat::Pkcs8),
        Err(CsrError::Pem(_))
    ));
    let twice = encode("CERTIFICATE REQUEST", &der).repeat(2);
    assert_eq!(
        read(&twice, KeyFormat::Pkcs10),
        Err(CsrError::Pem(PemError::MoreThanOne))
    );
}

#[test]
fn a_bare_public_key_is_taken_where_the_policy_says_so() {
    let draft = Draft::new();
    let expected = RequestedKey {
        spki: draft.spki.clone(),
        key_type: KeyType::P256,
    };
    assert_eq!(read(&encode("PUBLIC KEY", &draft.spki), KeyFormat::Pkcs8), Ok(expected));
    let longer = [draft.spki, vec![0]].concat();
    let error = read(&encode("PUBLIC KEY", &longer), KeyFormat::Pkcs8).unwrap_err();
    assert_eq!(
        error,
        CsrError::Key(KeyError::Malformed("there are bytes after its end"))
    );
}

#[test]
fn bytes_after_the_request_are_refused() {
    let der = [Draft::new().der(), vec![5, 0]].concat();
    assert_eq!(
        read_pem(&der),
        Err(CsrError::Malformed("there are bytes after its end"))
    );
}

#[test]
fn a_request_with_an_indefinite_length_is_refused() {
    let der = Draft::new().der();
    let inner = Element::only(&der).unwrap().value;
    let ber = [b"\x30\x80", inner, b"\0\0"].concat();
    assert_eq!(
        read_pem(&ber),
        Err(CsrError::Malformed(
            "it has an indefinite length, which is BER and not DER"
        ))
    );
}

#[test]
fn another_version_is_refused() {
    let version = element(tag::INTEGER, &[&[1]]);
    Draft {
        version,
        ..Draft::new()
    }
    .is_malformed("its version is not v1 (0)");
}

#[test]
fn missing_attributes_are_refused_and_empty_ones_are_not() {
    let attributes = Vec::new();
    Draft {
        attributes,
        ..Draft::new()
    }
    .is_malformed("it has no attributes, not even an empty set of them");
}

#[test]
fn an_empty_relative_name_is_refused() {
    Draft::with_subject(&[&set(&[])]).is_malformed("a relative name of its subject is empty");
}

#[test]
fn an_attribute_of_the_subject_must_be_type_and_value() {
    let common_name = b"\x06\x03\x55\x04\x03";
    Draft::with_subject(&[&set(&[&sequence(&[common_name])])]).is_malformed("an attribute of its subject has no value");
    let three = sequence(&[common_name, b"\x0c\x01a", b"\x0c\x01b"]);
    Draft::with_subject(&[&set(&[&three])]).is_malformed("an attribute of its subject has a third part");
    Draft::with_subject(&[&sequence(&[])]).is_malformed("a relative name of its subject is no set");
    Draft::with_subject(&[&rdn(common_name, tag::UTF8_STRING, b"\xff")]).is_malformed("a UTF8String is not UTF-8");
}

#[test]
fn two_extension_requests_are_refused() {
    let one = request_for(&[&alternative_names(&[b"\x82\x09a.example"])]);
    let other = request_for(&[&alternative_names(&[b"\x82\x09b.example"])]);
    Draft::with_attributes(&[&one, &other]).is_malformed("it has two extensionRequest attributes");
    let extensions = sequence(&[&alternative_names(&[b"\x82\x09a.example"])]);
    let two_values = sequence(&[EXTENSION_REQUEST, &set(&[&extensions, &extensions])]);
    Draft::with_attributes(&[&two_values]).is_malformed("its extensionRequest has two values");
}

#[test]
fn an_extension_that_is_requested_twice_is_refused() {
    let one = alternative_names(&[b"\x82\x09a.example"]);
    let other = alternative_names(&[b"\x82\x09b.example"]);
    Draft::with_attributes(&[&request_for(&[&one, &other])]).is_malformed("an extension is requested twice");
}

#[test]
fn malformed_extensions_are_refused() {
    let oid = SUBJECT_ALTERNATIVE_NAME;
    let value: &[u8] = b"\x04\x0d\x30\x0b\x82\x09a.example";
    for (extension, fault) in [
        (sequence(&[oid]), "a requested extension has no value"),
        (sequence(&[value]), "a requested extension has no object identifier"),
        (
            sequence(&[oid, value, b"\x05\x00"]),
            "a requested extension has a fourth part",
        ),
        (
            sequence(&[oid, b"\x01\x01\x00", value]),
            "a requested extension says critical FALSE, which DER leaves out",
        ),
        (
            extension(oid, b"\x30\x80"),
            "it has an indefinite length, which is BER and not DER",
        ),
    ] {
        Draft::with_attributes(&[&request_for(&[&extension])]).is_malformed(fault);
    }
    Draft::with_attributes(&[&request_for(&[])]).is_malformed("its extensionRequest is empty");
    Draft::with_attributes(&[&attribute(EXTENSION_REQUEST, b"\x05\x00")])
        .is_malformed("its extensionRequest is no sequence of extensions");
}

#[test]
fn malformed_alternative_names_are_refused() {
    for (names, fault) in [
        (&[][..], "its list of alternative names is empty"),
        (
            &[&b"\x82\x0aa.\0example"[..]],
            "an alternative name has a NUL character",
        ),
        (
            &[&b"\x82\x09a.example"[..], b"\x81\x04a\0@b"],
            "an alternative name has a NUL character",
        ),
        (&[&b"\x86\x02h\0"[..]], "an alternative name has a NUL character"),
        (&[&b"\x82\x00"[..]], "an alternative name is empty"),
        (&[&b"\x82\x02\xc3\xa9"[..]], "an alternative name is not ASCII"),
        (
            &[&b"\x87\x05\x01\x02\x03\x04\x05"[..]],
            "an IP address has neither 4 nor 16 octets",
        ),
        (&[&b"\xa0\x02\x05\x00"[..]], "an other name has no type"),
        (
            &[&b"\xa4\x04\x30\x02\x31\x00"[..]],
            "a relative name of its subject is empty",
        ),
        (&[&b"\x9e\x01a"[..]], "an alternative name is of no known kind"),
    ] {
        Draft::with_attributes(&[&request_for(&[&alternative_names(names)])]).is_malformed(fault);
    }
}

#[test]
fn malformed_attributes_are_refused() {
    for (attribute, fault) in [
        (set(&[]), "an attribute is no sequence"),
        (sequence(&[]), "an attribute has no type"),
        (sequence(&[CHALLENGE_PASSWORD]), "an attribute has no set of values"),
        (sequence(&[CHALLENGE_PASSWORD, &set(&[])]), "an attribute has no value"),
        (
            sequence(&[CHALLENGE_PASSWORD, &set(&[b"\x0c\x01a"]), b"\x05\x00"]),
            "an attribute has a third part",
        ),
    ] {
        Draft::with_attributes(&[&attribute]).is_malformed(fault);
    }
}

#[test]
fn something_after_the_attributes_is_refused() {
    let attributes = b"\xa0\x00\x05\x00".to_vec();
    Draft {
        attributes,
        ..Draft::new()
    }
    .is_malformed("there is something after its attributes");
}

#[test]
fn unusual_extensions_are_accepted_and_ignored() {
    let extensions: [&[u8]; 8] = [
        &extension(b"\x06\x03\x55\x1d\x0e", b"\x04\x04\x01\x02\x03\x04"),
        &extension(b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x18", b"\x30\x03\x02\x01\x05"),
        &extension(
            b"\x06\x09\x2b\x06\x01\x04\x01\x82\x37\x15\x07",
            b"\x30\x04\x06\x02\x88\x37",
        ),
        &extension(b"\x06\x09\x2b\x06\x01\x04\x01\x82\x37\x14\x02", b"\x1e\x04\0W\0S"),
        &extension(b"\x06\x03\x55\x1d\x25", b"\x30\x04\x06\x02\x88\x37"),
        &sequence(&[b"\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff"]),
        &sequence(&[b"\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x01\x06"]),
        &extension(b"\x06\x02\x88\x37", b"not DER at all"),
    ];
    Draft::with_attributes(&[&request_for(&extensions)]).is_accepted();
}

#[test]
fn unusual_alternative_names_are_accepted_and_ignored() {
    let names: [&[u8]; 8] = [
        b"\x82\x0b*.a.example",
        b"\x88\x02\x88\x37",
        b"\x87\x04\x7f\0\0\x01",
        b"\xa0\x0b\x06\x02\x88\x37\xa0\x05\x0c\x03upn",
        b"\xa4\x02\x30\x00",
        b"\x86\x08urn:a:b:",
        b"\x82\x05a b_c",
        b"\xa5\x05\xa1\x03\x0c\x01a",
    ];
    Draft::with_attributes(&[&request_for(&[&alternative_names(&names)])]).is_accepted();
}

#[test]
fn unusual_attributes_are_accepted_and_ignored() {
    let pair = attribute(ENROLMENT_NAME_VALUE_PAIR, b"\x30\x08\x1e\x02\0a\x1e\x02\0b");
    Draft::with_attributes(&[
        &attribute(CHALLENGE_PASSWORD, b"\x0c\x06secret"),
        &attribute(UNSTRUCTURED_NAME, b"\x16\x01a"),
        &attribute(UNSTRUCTURED_NAME, b"\x16\x01b"),
        &pair,
        &pair,
    ])
    .is_accepted();
}

#[test]
fn unusual_subjects_are_accepted_and_ignored() {
    let common_name: &[u8] = b"\x06\x03\x55\x04\x03";
    let part = |oid: &[u8], text: &[u8]| sequence(&[oid, &element(tag::UTF8_STRING, &[text])]);
    Draft::with_subject(&[]).is_accepted();
    Draft::with_subject(&[&set(&[&part(common_name, b"a"), &part(b"\x06\x03\x55\x04\x0b", b"b")])]).is_accepted();
    Draft::with_subject(&[
        &rdn(common_name, tag::UTF8_STRING, "Grüße 例え Ω".as_bytes()),
        &rdn(common_name, tag::BMP_STRING, b"\x01\x41"),
        &rdn(common_name, 0x14, b"\xe9t\xe9"),
        &rdn(common_name, tag::PRINTABLE_STRING, b"*.a_b.example"),
        &rdn(common_name, tag::UNIVERSAL_STRING, b"\0\0\0a"),
        &rdn(common_name, tag::UTF8_STRING, b""),
    ])
    .is_accepted();
}

#[test]
fn a_request_altered_after_signing_is_refused() {
    let stranger = Draft::new().spki;
    let draft = Draft::new();
    let honest = draft.der();
    let at = honest
        .windows(draft.spki.len())
        .position(|window| window == draft.spki)
        .unwrap();
    let mut stolen = honest.clone();
    stolen[at..at + stranger.len()].copy_from_slice(&stranger);
    assert_eq!(read_pem(&stolen), Err(CsrError::Signature));
    let mut renamed = honest;
    let at = renamed.windows(9).position(|window| window == b"a.example").unwrap();
    renamed[at] = b'b';
    assert_eq!(read_pem(&renamed), Err(CsrError::Signature));
}

#[test]
fn a_signature_algorithm_that_is_not_accepted_is_named() {
    for (oid, name) in [
        (&b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"[..], "SHA-1 and RSA"),
        (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", "MD5 and RSA"),
        (b"\x2a\x86\x48\xce\x3d\x04\x01", "SHA-1 and ECDSA"),
        (b"\x2a\x86\x48\xce\x3d\x04\x03\x01", "SHA-224 and ECDSA"),
        (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSA-PSS"),
        (b"\x60\x86\x48\x01\x65\x03\x04\x03\x12", "ML-DSA-65"),
        (b"\x88\x37", "2.999"),
    ] {
        let algorithm = sequence(&[&element(tag::OBJECT_IDENTIFIER, &[oid])]);
        let error = Draft {
            algorithm,
            ..Draft::new()
        }
        .read()
        .unwrap_err();
        assert_eq!(error, CsrError::Algorithm(UnknownAlgorithm::NotAccepted(name.into())));
        assert!(
            error
                .to_string()
                .contains(&format!("signatures with {name} are not accepted")),
            "{error}"
        );
    }
}

#[test]
fn a_signature_algorithm_of_another_kind_of_key_is_refused_naming_both() {
    for algorithm in [SignatureAlgorithm::RsaSha256, SignatureAlgorithm::Ed25519] {
        let draft = Draft {
            algorithm: algorithm_identifier(algorithm).to_vec(),
            ..Draft::new()
        };
        let key_type = KeyType::P256;
        assert_eq!(draft.read(), Err(CsrError::AlgorithmMismatch { key_type, algorithm }));
    }
}

#[test]
fn ecdsa_with_parameters_is_malformed() {
    let algorithm = sequence(&[b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x05\x00"]);
    let error = Draft {
        algorithm,
        ..Draft::new()
    }
    .read()
    .unwrap_err();
    assert!(
        matches!(error, CsrError::Algorithm(UnknownAlgorithm::Malformed(_))),
        "{error}"
    );
}

#[test]
fn the_key_is_judged_before_the_signature() {
    let curve = |oid: &[u8], point: &[u8]| {
        let oid = element(tag::OBJECT_IDENTIFIER, &[oid]);
        let algorithm = sequence(&[b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", &oid]);
        sequence(&[&algorithm, &element(tag::BIT_STRING, &[&[0], point])])
    };
    let secp256k1 = curve(b"\x2b\x81\x04\x00\x0a", &[4; 65]);
    let p384_without_a_point = curve(b"\x2b\x81\x04\x00\x22", &[4; 97]);
    for (spki, found) in [
        (secp256k1, KeyError::Curve("secp256k1".into())),
        (p384_without_a_point, KeyError::Point(KeyType::P384)),
    ] {
        assert_eq!(Draft { spki, ..Draft::new() }.read(), Err(CsrError::Key(found)));
    }
}

#[test]
fn a_weak_key_is_refused_though_its_signature_would_do() {
    // Of a key of small order the signature with R the neutral element and S zero verifies over anything.
    let point = [&[1_u8][..], &[0; 31]].concat();
    let spki = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &point].concat();
    let algorithm = algorithm_identifier(SignatureAlgorithm::Ed25519).to_vec();
    let draft = Draft {
        spki: spki.clone(),
        algorithm: algorithm.clone(),
        ..Draft::new()
    };
    let information = sequence(&[&draft.version, &draft.subject, &draft.spki, &draft.attributes]);
    let signature = [&[0][..], &point, &[0; 32]].concat();
    let der = sequence(&[&information, &algorithm, &element(tag::BIT_STRING, &[&signature])]);
    assert_eq!(read_pem(&der), Err(CsrError::Weak(Weakness::SmallOrder)));
    assert_eq!(
        read(&encode("PUBLIC KEY", &spki), KeyFormat::Pkcs8),
        Err(CsrError::Weak(Weakness::SmallOrder))
    );
}

#[test]
fn possession_is_proven_by_a_signature_over_the_key() {
    let draft = Draft::new();
    let sign = |message: &[u8]| STANDARD.encode(draft.key.sign_digest(&digest(&SHA256, message)).unwrap());
    let proof = sign(&draft.spki);
    assert_eq!(verify_possession(&draft.spki, KeyType::P256, &proof), Ok(()));
    assert_eq!(
        verify_possession(&draft.spki, KeyType::P256, &format!("{proof}\n")),
        Ok(())
    );
    assert_eq!(
        verify_possession(&draft.spki, KeyType::P256, &sign(b"other")),
        Err(CsrError::Possession)
    );
    assert_eq!(
        verify_possession(&Draft::new().spki, KeyType::P256, &proof),
        Err(CsrError::Possession)
    );
    for text in ["%%%", &"A".repeat(MAX_POSSESSION + 4)] {
        let error = verify_possession(&draft.spki, KeyType::P256, text).unwrap_err();
        assert_eq!(
            (error.field(), &error),
            ("public_key_signature", &CsrError::PossessionEncoding)
        );
    }
}

#[test]
fn a_request_of_our_own_is_read_by_ourselves() {
    let key = Ed25519KeyPair::generate().unwrap();
    let spki = key.public_key().as_der().unwrap().as_ref().to_vec();
    let value = |oid: &str, value: &str| TypedValue {
        oid: oid.into(),
        value_type: ValueType::Utf8string,
        value: value.into(),
    };
    let subject = [
        value("2.5.4.10", "Órg"),
        value("2.5.4.11", "one"),
        value("2.5.4.11", "two"),
    ];
    let tbs = to_be_signed(&subject, &spki).unwrap();
    let der = seal(&tbs, SignatureAlgorithm::Ed25519, key.sign(&tbs).as_ref());
    assert_eq!(
        read_pem(&der),
        Ok(RequestedKey {
            spki: spki.clone(),
            key_type: KeyType::Ed25519
        })
    );
    assert_eq!(
        to_be_signed(&[value("2.5.4.10", "")], &spki).unwrap_err().field,
        "subject_dn.organization"
    );
    assert_eq!(to_be_signed(&subject, b"").unwrap_err().field, "public_key");
}

fn valid_request() -> Vec<u8> {
    Draft::with_attributes(&[
        &attribute(CHALLENGE_PASSWORD, b"\x0c\x06secret"),
        &request_for(&[&alternative_names(&[b"\x82\x09a.example", b"\x87\x04\x7f\0\0\x01"])]),
    ])
    .der()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 1..400), text in ".{0,200}") {
        prop_assert!(read_pem(&bytes).is_err());
        prop_assert!(read(&encode("PUBLIC KEY", &bytes), KeyFormat::Pkcs8).is_err());
        prop_assert!(read(&text, KeyFormat::Pkcs10).is_err());
        let _ = weakness(&bytes);
        let _ = verify_possession(&bytes, KeyType::P256, &text);
    }

    #[test]
    fn a_request_with_any_octet_changed_is_refused_without_a_panic(at: prop::sample::Index, change in 1_u8..) {
        let mut der = valid_request();
        let at = at.index(der.len());
        der[at] ^= change;
        prop_assert!(read_pem(&der).is_err(), "octet {at} of {der:02x?}");
    }

    #[test]
    fn a_request_cut_or_stuffed_is_refused_without_a_panic(at: prop::sample::Index, stuffing in proptest::collection::vec(any::<u8>(), 0..20)) {
        let der = valid_request();
        let at = at.index(der.len());
        prop_assert!(read_pem(&der[..at]).is_err());
        let stuffed = [&der[..at], &stuffing, &der[at..]].concat();
        prop_assert!(stuffing.is_empty() || read_pem(&stuffed).is_err());
    }
}
