//! Authorities and clients' keys.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RsaKeyPair},
};
use domain::issuer::{Binding, Issuer, Usage};
use pki::issuer::{Registration, import_pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};

/// An issuing authority under a root of its own, and its key.
pub struct Authority {
    pub issuer: Issuer,
    key: KeyPair,
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

impl Authority {
    /// A new one, whose certificates end in 2040.
    pub fn new(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate_for(algorithm).unwrap());
        let mut root = parameters(&format!("{name} root"));
        root.not_after = rcgen::date_time_ymd(2041, 1, 1);
        root.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let mut own = parameters(name);
        own.not_after = rcgen::date_time_ymd(2040, 1, 1);
        own.not_before = rcgen::date_time_ymd(2020, 1, 1);
        own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root_certificate = root.self_signed(&root_key).unwrap();
        let root = rcgen::Issuer::new(root, &root_key);
        let certificate = own.signed_by(&key, &root).unwrap();
        let registration = Registration {
            id: name.parse().unwrap(),
            public_url: "http://pki.example".into(),
            crl_shards: 4,
            bindings: vec![Binding {
                token: "soft".parse().unwrap(),
                key: name.into(),
            }],
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
        };
        let chain = format!("{}{}", certificate.pem(), root_certificate.pem());
        Self {
            issuer: import_pem(registration, &chain).unwrap(),
            key,
        }
    }

    /// Signs as this authority's signer would.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let pkcs8 = self.key.serialize_der();
        if self.issuer.key_type.is_rsa() {
            let key = RsaKeyPair::from_pkcs8(&pkcs8).unwrap();
            let mut signature = vec![0; key.public_modulus_len()];
            let padding: &dyn aws_lc_rs::signature::RsaEncoding = &aws_lc_rs::signature::RSA_PKCS1_SHA256;
            key.sign(padding, &random, message, &mut signature).unwrap();
            signature
        } else {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).unwrap();
            key.sign(&random, message).unwrap().as_ref().to_vec()
        }
    }
}

/// A client's key.
pub struct ClientKey(KeyPair);

impl ClientKey {
    /// On P-256.
    pub fn p256() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    /// On P-384.
    pub fn p384() -> Self {
        Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap())
    }

    /// RSA with 2048 bits.
    pub fn rsa() -> Self {
        Self(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap())
    }

    /// A request by this key, freshly signed.
    pub fn csr(&self) -> String {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "ignored.example");
        parameters.serialize_request(&self.0).unwrap().pem().unwrap()
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        pki::pem::decode("PUBLIC KEY", &self.0.public_key_pem()).unwrap()
    }

    /// PEM `SubjectPublicKeyInfo`.
    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    /// base64 of a signature by this P-256 key over its own SPKI.
    pub fn possession(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.0.serialize_der()).unwrap();
        STANDARD.encode(key.sign(&SystemRandom::new(), &self.spki()).unwrap())
    }
}
