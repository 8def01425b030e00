//! Authorities for the tests of this crate, with every part of their certificates within reach.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use domain::{
    bytes::Blob,
    id::Serial,
    issuer::{Binding, Issuer, Usage},
    key::SignatureAlgorithm,
    policy::ValueType,
    request::{AlternativeNames, Content, KeyUsage, TypedValue},
    time::Timestamp,
};

use crate::{
    asn1::{element, tag},
    certificate::{name, prepare, seal, subject_key_id},
    issuer::{Registration, import},
    signature::algorithm_identifier,
};

pub(crate) const BASIC_CONSTRAINTS: &[u8] = b"\x06\x03\x55\x1d\x13";
pub(crate) const KEY_USAGE: &[u8] = b"\x06\x03\x55\x1d\x0f";
pub(crate) const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x0e";
pub(crate) const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x23";

/// An extension as it stands in a certificate; `oid` is a whole element.
pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { b"\x01\x01\xff" } else { b"" };
    element(tag::SEQUENCE, &[oid, critical, &element(tag::OCTET_STRING, &[value])])
}

pub(crate) fn text(oid: &str, value: &str) -> TypedValue {
    TypedValue {
        oid: oid.into(),
        value_type: ValueType::Utf8string,
        value: value.into(),
    }
}

/// A P-256 key with a name.
pub(crate) struct Authority {
    pub(crate) key: EcdsaKeyPair,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
}

impl Authority {
    /// `DC=example, DC=<name>, CN=<name>`: a repeated attribute in every name.
    pub(crate) fn new(common_name: &str) -> Self {
        const DOMAIN_COMPONENT: &str = "0.9.2342.19200300.100.1.25";
        let component = |value: &str| TypedValue {
            value_type: ValueType::Ia5string,
            ..text(DOMAIN_COMPONENT, value)
        };
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let name = [component("example"), component("test"), text("2.5.4.3", common_name)];
        Self {
            subject: name::encode(&name).unwrap(),
            spki: key.public_key().as_der().unwrap().as_ref().to_vec(),
            key,
        }
    }

    pub(crate) fn key_id(&self) -> [u8; 20] {
        subject_key_id(&self.spki).unwrap()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key
            .sign_digest(&digest(&SHA256, message))
            .unwrap()
            .as_ref()
            .to_vec()
    }

    /// Signs a draft as it is.
    pub(crate) fn certify(&self, draft: &Draft) -> Blob {
        let tbs = draft.tbs(&self.subject);
        seal(&tbs, SignatureAlgorithm::EcdsaSha256, &self.sign(&tbs)).into()
    }
}

/// A CA certificate in parts.
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) not_after: &'static [u8],
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Draft {
    /// For `subject`, under `issuer`: a CA that may sign certificates and CRLs.
    pub(crate) fn new(subject: &Authority, issuer: &Authority) -> Self {
        let key_id = element(tag::implicit(0), &[&issuer.key_id()]);
        Self {
            version: b"\xa0\x03\x02\x01\x02".to_vec(),
            algorithm: algorithm_identifier(SignatureAlgorithm::EcdsaSha256).to_vec(),
            subject: subject.subject.clone(),
            spki: subject.spki.clone(),
            not_after: b"\x18\x0f20550101000000Z",
            extensions: vec![
                extension(BASIC_CONSTRAINTS, true, b"\x30\x03\x01\x01\xff"),
                extension(KEY_USAGE, true, b"\x03\x02\x01\x06"),
                extension(
                    SUBJECT_KEY_IDENTIFIER,
                    false,
                    &element(tag::OCTET_STRING, &[&subject.key_id()]),
                ),
                extension(AUTHORITY_KEY_IDENTIFIER, false, &element(tag::SEQUENCE, &[&key_id])),
            ],
        }
    }

    /// The same without one extension.
    pub(crate) fn without(mut self, oid: &[u8]) -> Self {
        self.extensions.retain(|extension| !extension[2..].starts_with(oid));
        self
    }

    /// The same with an extension put in the place of its namesake.
    pub(crate) fn with(self, oid: &[u8], critical: bool, value: &[u8]) -> Self {
        let mut draft = self.without(oid);
        draft.extensions.push(extension(oid, critical, value));
        draft
    }

    fn tbs(&self, issuer: &[u8]) -> Vec<u8> {
        let validity = element(tag::SEQUENCE, &[b"\x17\x0d200101000000Z", self.not_after]);
        let mut extensions = element(
            tag::explicit(3),
            &[&element(tag::SEQUENCE, &[&self.extensions.concat()])],
        );
        if self.extensions.is_empty() {
            extensions.clear();
        }
        element(
            tag::SEQUENCE,
            &[
                &self.version,
                b"\x02\x01\x01",
                &self.algorithm,
                issuer,
                &validity,
                &self.subject,
                &self.spki,
                &extensions,
            ],
        )
    }
}

/// An issuer below a root.
pub(crate) struct Hierarchy {
    pub(crate) root: Authority,
    pub(crate) ca: Authority,
    pub(crate) root_certificate: Blob,
    pub(crate) ca_certificate: Blob,
}

impl Hierarchy {
    pub(crate) fn new() -> Self {
        let (root, ca) = (Authority::new("Root"), Authority::new("Issuer"));
        Self {
            root_certificate: root.certify(&Draft::new(&root, &root)),
            ca_certificate: root.certify(&Draft::new(&ca, &root)),
            root,
            ca,
        }
    }

    pub(crate) fn chain(&self) -> Vec<Blob> {
        vec![self.ca_certificate.clone(), self.root_certificate.clone()]
    }

    pub(crate) fn issuer(&self) -> Issuer {
        import(registration(), self.chain(), Vec::new()).unwrap()
    }

    /// The intent for this content and the certificate made of it.
    pub(crate) fn issue(&self, content: &Content) -> (Vec<u8>, Vec<u8>) {
        let tbs = prepare(content, &self.issuer(), serial()).unwrap();
        let certificate = seal(&tbs, SignatureAlgorithm::EcdsaSha256, &self.ca.sign(&tbs));
        (tbs, certificate)
    }
}

pub(crate) fn registration() -> Registration {
    Registration {
        id: "test".parse().unwrap(),
        public_url: "http://pki.test.example".into(),
        crl_shards: 16,
        bindings: vec![Binding {
            token: "soft".parse().unwrap(),
            key: "test".into(),
        }],
        usage: Usage {
            issue: true,
            crl: true,
            ocsp: true,
        },
    }
}

pub(crate) fn serial() -> Serial {
    Serial::new(Timestamp::from_secs(1_800_000_000), [7; 10])
}

/// A TLS server certificate for a new key.
pub(crate) fn content() -> Content {
    Content {
        subject: vec![text("2.5.4.3", "a.example")],
        san: AlternativeNames {
            dns_names: vec!["a.example".into()],
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
        public_key: Authority::new("key").spki.into(),
        not_before: 1_800_000_000,
        not_after: 1_807_775_999,
    }
}
