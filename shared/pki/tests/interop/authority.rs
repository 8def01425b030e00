//! A root and an issuer below it, made by OpenSSL, with the issuer's private key in the test's hands.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use domain::{
    issuer::{Binding, Issuer, Usage},
    key::KeyType,
    request::Content,
};
use pki::{
    certificate::{check_sealed, prepare, seal},
    issuer::{Registration, import_pem},
    pem,
};

use crate::tools::Workshop;

const CONFIGURATION: &str = "
[req]
prompt = no
string_mask = utf8only
utf8 = yes
distinguished_name = subject
[subject]
0.DC = com
1.DC = example
2.DC = test
O = Prüfstelle
0.OU = one
1.OU = two
CN = CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// An issuer whose certificate OpenSSL made; files `root.pem`, `ca.pem` and `chain.pem` lie in the workshop.
pub struct Authority {
    pub workshop: Workshop,
    pub issuer: Issuer,
    key: PrivateKey,
}

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    fn from_pkcs8(key_type: KeyType, der: &[u8]) -> Self {
        let ecdsa = |algorithm| Self::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, der).unwrap());
        match key_type {
            KeyType::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::P521 => ecdsa(&ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyType::Ed25519 => Self::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap()),
            _ => Self::Rsa(rsa::KeyPair::from_pkcs8(der).unwrap()),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

fn generation(key_type: KeyType) -> String {
    match key_type {
        KeyType::P256 | KeyType::P384 | KeyType::P521 => format!("-algorithm EC -pkeyopt ec_paramgen_curve:{key_type}"),
        KeyType::Ed25519 => "-algorithm ED25519".to_owned(),
        rsa => format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{}", rsa.bits()),
    }
}

impl Authority {
    pub fn new(key_type: KeyType) -> Self {
        let workshop = Workshop::new();
        workshop.write("ca.cnf", CONFIGURATION);
        workshop.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out root.key");
        workshop.run("openssl req -x509 -new -config ca.cnf -extensions ca -key root.key -sha256 -days 3650 -subj /CN=Root -out root.pem");
        workshop.run(&format!("openssl genpkey {} -out ca.key", generation(key_type)));
        workshop.run("openssl req -new -config ca.cnf -key ca.key -out ca.csr");
        workshop.run("openssl x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -sha384 -days 3000 -extfile ca.cnf -extensions ca -out ca.pem");
        workshop.write("chain.pem", workshop.read("ca.pem") + &workshop.read("root.pem"));
        let registration = Registration {
            id: "interop".parse().unwrap(),
            public_url: "http://pki.test.example".into(),
            crl_shards: 128,
            bindings: vec![Binding {
                token: "soft".parse().unwrap(),
                key: "interop".into(),
            }],
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
        };
        let issuer = import_pem(registration, &workshop.read("chain.pem")).unwrap();
        assert_eq!(issuer.key_type, key_type);
        workshop.run("openssl pkcs8 -topk8 -nocrypt -in ca.key -outform DER -out ca.p8");
        let key = PrivateKey::from_pkcs8(key_type, &std::fs::read(workshop.path("ca.p8")).unwrap());
        Self { workshop, issuer, key }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }

    /// Makes the certificate and leaves it as `leaf.pem`.
    pub fn issue(&self, content: &Content, serial: domain::id::Serial) -> Vec<u8> {
        let tbs = prepare(content, &self.issuer, serial).unwrap();
        let certificate = seal(&tbs, self.issuer.signature_algorithm, &self.sign(&tbs));
        check_sealed(&certificate, &tbs, content, &self.issuer).unwrap();
        self.workshop
            .write("leaf.pem", pem::encode("CERTIFICATE", &certificate));
        certificate
    }
}
