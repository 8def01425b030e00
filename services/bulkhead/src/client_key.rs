//! Keys that this program makes for a client, and what a request says of them.

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    key::KeyType,
    policy::{KeyFormat, Policy, Presence},
    request::{Request, RequestedSan, RequestedSubject, RequestedValidity},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, RsaKeySize, SigningKey};

/// Makes a key.
pub fn generate(key_type: KeyType) -> Result<KeyPair, rcgen::Error> {
    match key_type {
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    }
}

/// A public key as a request carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// PEM, in the form that the policy wants.
    pub pem: String,
    /// base64 of a signature over the `SubjectPublicKeyInfo`, if the policy requires one.
    pub signature: Option<String>,
}

/// The public half of a key of ours, as this policy wants it.
pub fn public_key(pair: &KeyPair, policy: &Policy) -> Result<PublicKey, rcgen::Error> {
    let spki = pair.subject_public_key_info();
    let pem = match policy.public_key.key_format {
        KeyFormat::Pkcs8 => pki::pem::encode("PUBLIC KEY", &spki),
        KeyFormat::Pkcs10 => {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            pki::pem::encode("CERTIFICATE REQUEST", params.serialize_request(pair)?.der())
        }
    };
    let required = policy.public_key_signature == Presence::Required;
    let signature = required.then(|| pair.sign(&spki)).transpose()?;
    Ok(PublicKey {
        pem,
        signature: signature.map(|signature| STANDARD.encode(signature)),
    })
}

/// A request for a TLS server's certificate.
pub fn server_request(
    common_name: Option<String>,
    dns_names: Vec<String>,
    validity: RequestedValidity,
    key: PublicKey,
) -> Request {
    Request {
        validity,
        subject_dn: RequestedSubject {
            single: common_name
                .into_iter()
                .map(|name| ("common_name".to_owned(), name))
                .collect(),
            ..RequestedSubject::default()
        },
        san: RequestedSan {
            dns_names,
            ..RequestedSan::default()
        },
        public_key: key.pem,
        public_key_signature: key.signature,
        ..Request::default()
    }
}
