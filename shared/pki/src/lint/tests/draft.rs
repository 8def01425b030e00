//! Certificates made of parts, right or wrong.

use aws_lc_rs::digest::{SHA256, digest};
use domain::key::KeyType;

use super::{
    super::{key::PublicKey, parser::Element},
    writer::{bits, int, list, octets, oid, printable, rdn, seq, tlv, utc, utf8},
};

/// An extension, part by part.
#[derive(Clone)]
pub(super) struct Extension {
    pub oid: &'static str,
    /// Contents of the BOOLEAN, or nothing.
    pub critical: &'static [u8],
    /// For a subjectKeyIdentifier, nothing stands for the one that the key has.
    pub value: Vec<u8>,
}

/// A certificate, part by part. What the fields hold is whole elements, but for the serial number.
#[derive(Clone)]
pub(super) struct Draft {
    pub version: Vec<u8>,
    pub serial: Vec<u8>,
    pub algorithm: Vec<u8>,
    pub issuer: Vec<u8>,
    pub times: [Vec<u8>; 2],
    pub subject: Vec<Vec<u8>>,
    pub public_key: Vec<u8>,
    pub unique: Vec<u8>,
    pub extensions: Vec<Extension>,
    /// The outer algorithm, if it differs.
    pub outer: Option<Vec<u8>>,
    /// The BIT STRING with the signature.
    pub signature: Vec<u8>,
}

pub(super) const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(super) const RSA_SHA256: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00,
];

impl Draft {
    pub(super) fn tbs(&self) -> Vec<u8> {
        let extensions: Vec<Vec<u8>> = self
            .extensions
            .iter()
            .map(|extension| {
                let critical = if extension.critical.is_empty() {
                    vec![]
                } else {
                    tlv(0x01, &[extension.critical])
                };
                let value = match extension.value.as_slice() {
                    [] if extension.oid == SUBJECT_KEY_ID => &key_identifier(&self.public_key),
                    value => value,
                };
                seq(&[&oid(extension.oid), &critical, &octets(value)])
            })
            .collect();
        seq(&[
            &self.version,
            &int(&self.serial),
            &self.algorithm,
            &self.issuer,
            &list(&self.times),
            &list(&self.subject),
            &self.public_key,
            &self.unique,
            &tlv(0xa3, &[&list(&extensions)]),
        ])
    }

    pub(super) fn certificate(&self) -> Vec<u8> {
        self.seal(&self.tbs())
    }

    pub(super) fn seal(&self, tbs: &[u8]) -> Vec<u8> {
        seq(&[tbs, self.outer.as_ref().unwrap_or(&self.algorithm), &self.signature])
    }

    pub(super) fn extension(&mut self, oid: &str) -> &mut Extension {
        self.extensions
            .iter_mut()
            .find(|extension| extension.oid == oid)
            .expect("the extension is in the draft")
    }

    pub(super) fn remove(&mut self, oid: &str) {
        self.extensions.retain(|extension| extension.oid != oid);
    }

    pub(super) fn add(&mut self, oid: &'static str, critical: bool, value: Vec<u8>) {
        let critical: &[u8] = if critical { &[0xff] } else { &[] };
        self.extensions.push(Extension { oid, critical, value });
    }

    /// A CA certificate: subject, issuer, key identifiers, path length.
    pub(super) fn authority(
        subject: &str,
        issuer: &str,
        key: &[u8],
        [own, parent]: [&[u8]; 2],
        path_length: u8,
    ) -> Self {
        let mut draft = Self {
            version: tlv(0xa0, &[&int(&[2])]),
            serial: vec![0x11, 0x22],
            algorithm: ECDSA_SHA256.to_vec(),
            issuer: list(&authority_name(issuer)),
            times: [utc("200101000000Z"), utc("391231235959Z")],
            subject: authority_name(subject),
            public_key: key.to_vec(),
            unique: vec![],
            extensions: vec![],
            outer: None,
            signature: bits(&seq(&[&int(&[1]), &int(&[2])])),
        };
        draft.add(
            BASIC_CONSTRAINTS,
            true,
            seq(&[&tlv(0x01, &[&[0xff]]), &int(&[path_length])]),
        );
        draft.add(KEY_USAGE, true, tlv(0x03, &[&[0x01, 0x06]]));
        draft.add(SUBJECT_KEY_ID, false, octets(own));
        draft.add(AUTHORITY_KEY_ID, false, seq(&[&tlv(0x80, &[parent])]));
        draft
    }
}

fn authority_name(name: &str) -> Vec<Vec<u8>> {
    vec![
        rdn(COUNTRY, &printable("DE")),
        rdn(ORGANIZATION, &utf8("Bench")),
        rdn(COMMON_NAME, &utf8(name)),
    ]
}

pub(super) const COMMON_NAME: &str = "2.5.4.3";
pub(super) const COUNTRY: &str = "2.5.4.6";
pub(super) const ORGANIZATION: &str = "2.5.4.10";
pub(super) const UNIT: &str = "2.5.4.11";
pub(super) const EMAIL: &str = "1.2.840.113549.1.9.1";
pub(super) const TITLE: &str = "2.5.4.12";
pub(super) const EXTRA: &str = "1.3.6.1.4.1.99999.7";
pub(super) const OTHER_EXTRA: &str = "1.3.6.1.4.1.99999.8";
pub(super) const DOMAIN_COMPONENT: &str = "0.9.2342.19200300.100.1.25";
pub(super) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
pub(super) const SUBJECT_KEY_ID: &str = "2.5.29.14";
pub(super) const KEY_USAGE: &str = "2.5.29.15";
pub(super) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(super) const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
pub(super) const ALTERNATIVE_NAMES: &str = "2.5.29.17";
pub(super) const NAME_CONSTRAINTS: &str = "2.5.29.30";
pub(super) const POLICIES: &str = "2.5.29.32";
pub(super) const ACCESS: &str = "1.3.6.1.5.5.7.1.1";
pub(super) const CRL_POINTS: &str = "2.5.29.31";
pub(super) const NO_CHECK: &str = "1.3.6.1.5.5.7.48.1.5";
pub(super) const DIRECTORY_ATTRIBUTES: &str = "2.5.29.9";
pub(super) const STATEMENTS: &str = "1.3.6.1.5.5.7.1.3";
pub(super) const TEMPLATE: &str = "1.3.6.1.4.1.311.21.7";
pub(super) const CUSTOM: &str = "1.3.6.1.4.1.99999.1";
pub(super) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
pub(super) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
pub(super) const EMAIL_PROTECTION: &str = "1.3.6.1.5.5.7.3.4";
pub(super) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
pub(super) const OCSP_SIGNING: &str = "1.3.6.1.5.5.7.3.9";

pub(super) const ISSUER_KEY_ID: &[u8] = &[0xa1; 20];
pub(super) const ROOT_KEY_ID: &[u8] = &[0xb2; 20];

/// The generator of P-256 (SEC 2, 2.4.2), which is a point like any other.
pub(super) const P256_POINT: &str = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
    4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn ec_key(curve: &str, point: &[u8]) -> Vec<u8> {
    seq(&[&seq(&[&oid("1.2.840.10045.2.1"), &oid(curve)]), &bits(point)])
}

pub(super) fn p256() -> Vec<u8> {
    ec_key("1.2.840.10045.3.1.7", &hex(P256_POINT))
}

/// An RSA key of so many bytes. Nobody knows the factors of its modulus, but that none is small.
pub(super) fn rsa(bytes: usize, exponent: &[u8]) -> Vec<u8> {
    let mut modulus: Vec<u8> = (1..=251).cycle().map(|at: u8| at | 1).take(bytes + 1).collect();
    modulus[..2].copy_from_slice(&[0, 0xc5]);
    let remainder = |modulus: &[u8], prime: u32| {
        modulus
            .iter()
            .fold(0, |value, byte| (value << 8 | u32::from(*byte)) % prime)
    };
    while (3..752).any(|number| remainder(&modulus, number) == 0) {
        let last = modulus.len() - 2;
        modulus[last] += 1;
    }
    rsa_of(&modulus, exponent)
}

/// The subjectKeyIdentifier for a public key by RFC 7093, method 1.
fn key_identifier(public_key: &[u8]) -> Vec<u8> {
    let key = Element::only(public_key).and_then(PublicKey::read).unwrap();
    octets(&digest(&SHA256, key.bits).as_ref()[..20])
}

pub(super) fn rsa_of(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = seq(&[&int(modulus), &int(exponent)]);
    seq(&[&seq(&[&oid("1.2.840.113549.1.1.1"), &[0x05, 0x00]]), &bits(&key)])
}

pub(super) fn ed25519(key: &[u8]) -> Vec<u8> {
    seq(&[&seq(&[&oid("1.3.101.112")]), &bits(key)])
}

/// AccessDescription with method `1.3.6.1.5.5.7.48.METHOD`.
pub(super) fn access(method: u8, location: &[u8]) -> Vec<u8> {
    seq(&[&oid(&format!("1.3.6.1.5.5.7.48.{method}")), location])
}

/// CRLDistributionPoints with one point and the names in its fullName.
pub(super) fn crl_points(names: &[u8]) -> Vec<u8> {
    seq(&[&seq(&[&tlv(0xa0, &[&tlv(0xa0, &[names])])])])
}

pub(super) fn directory_attribute(number: u8, values: &[u8]) -> Vec<u8> {
    seq(&[&oid(&format!("1.3.6.1.5.5.7.9.{number}")), &tlv(0x31, &[values])])
}

/// A public key on a curve, made just now.
pub(super) fn generated(curve: KeyType) -> Vec<u8> {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let (algorithm, oid) = match curve {
        KeyType::P384 => (&ECDSA_P384_SHA384_ASN1_SIGNING, "1.3.132.0.34"),
        _ => (&ECDSA_P521_SHA512_ASN1_SIGNING, "1.3.132.0.35"),
    };
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    ec_key(oid, pair.public_key().as_ref())
}
