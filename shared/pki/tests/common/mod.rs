//! Issuers, and certificates of many kinds, for tests that issue through the real path.

pub mod kinds;

use std::sync::Arc;

use domain::{
    admission::admit,
    bytes::{Blob, Digest},
    id::Serial,
    issuer::{Account, Api, Issuer, Profile, Usage},
    key::KeyType,
    registry::Terms,
    request::{Content, Request},
    time::Timestamp,
};
pub use kinds::KINDS;
use pki::issuer::{Registration, import};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, RsaKeySize, SigningKey,
};

/// 2027-01-15T08:00:00Z: when everything here is asked for.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A key of the type.
pub fn key(key_type: KeyType) -> KeyPair {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    match key_type {
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
        KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    }
    .unwrap()
}

/// The DER SubjectPublicKeyInfo of a key.
pub fn public_key(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

/// An issuer with its private key.
pub struct Authority {
    pub issuer: Issuer,
    pub key: KeyPair,
}

impl Authority {
    /// An issuer under a P-256 root of its own, with URLs as a public one would have them.
    pub fn new(name: &str, key_type: KeyType) -> Self {
        let root_key = key(KeyType::P256);
        let root = rcgen::CertifiedIssuer::self_signed(ca(&format!("{name} root"), 1), root_key).unwrap();
        let own = key(key_type);
        let certificate = ca(name, 0).signed_by(&own, &root).unwrap();
        let registration = Registration {
            id: name.parse().unwrap(),
            public_url: "http://pki.example-ca.com".into(),
            crl_shards: 16,
            bindings: vec![],
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
        };
        let chain = [certificate.der(), root.der()].map(|der| Blob(der.to_vec()));
        let issuer = import(registration, chain.to_vec(), vec![]).unwrap();
        Self { issuer, key: own }
    }

    /// Signs with the issuer's algorithm.
    pub fn sign(&self, tbs: &[u8]) -> Vec<u8> {
        self.key.sign(tbs).unwrap()
    }

    /// What a request becomes under a profile.
    pub fn admit(&self, profile: &Profile, request: &Request, key_type: KeyType, key: &[u8]) -> Content {
        let terms = Terms {
            account: Arc::new(account(&self.issuer, profile)),
            issuer: Arc::new(self.issuer.clone()),
            profile: Arc::new(profile.clone()),
        };
        admit(request, key, key_type, &terms, NOW).unwrap_or_else(|violations| panic!("{}: {violations:?}", profile.id))
    }
}

fn ca(name: &str, path_length: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let country = rcgen::string::PrintableString::try_from("DE").unwrap();
    params
        .distinguished_name
        .push(DnType::CountryName, DnValue::PrintableString(country));
    params.distinguished_name.push(DnType::OrganizationName, "Example CA");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    // certificatePolicies: anyPolicy.
    let any_policy = vec![0x30, 0x08, 0x30, 0x06, 0x06, 0x04, 0x55, 0x1d, 0x20, 0x00];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 32], any_policy)];
    params
}

fn account(issuer: &Issuer, profile: &Profile) -> Account {
    Account {
        id: "test".parse().unwrap(),
        api: Api::Hvca,
        api_key: String::new(),
        api_secret: Digest([0; 32]),
        client_certificates: vec![],
        issuer: issuer.id.clone(),
        profile: profile.id.clone(),
        issuance_quota: 1,
        requests_per_second: 1,
        jobs_in_flight: 1,
        tokens_not_before: Timestamp::default(),
        enabled: true,
    }
}

/// The serial of the certificate with this number.
pub fn serial(number: usize) -> Serial {
    let mut entropy = [0x5a; 10];
    entropy[2..].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Serial::new(NOW, entropy)
}
