//! Failures in the fields of a certificate, its key, its usages and what is around it.

use domain::{
    issuer::Purpose,
    policy::{Flag, KeyAlgorithm},
};

use super::{Case, draft::*, writer::*};

pub(super) const CASES: &[Case] = &[
    // The encoding.
    ("strict-der", "trailing byte", |b| {
        b.tbs = Some([b.leaf.tbs(), vec![0]].concat())
    }),
    ("strict-der", "empty", |b| b.tbs = Some(vec![])),
    ("strict-der", "serial with a leading zero", |b| b.serial.insert(0, 0)),
    ("strict-der", "empty serial", |b| b.serial.clear()),
    ("strict-der", "BOOLEAN 01", |b| {
        b.extension(KEY_USAGE).critical = &[0x01]
    }),
    ("strict-der", "FALSE written out", |b| {
        b.extension(SUBJECT_KEY_ID).critical = &[0x00]
    }),
    ("strict-der", "version 1 written out", |b| {
        b.version = tlv(0xa0, &[&int(&[0])])
    }),
    ("strict-der", "cA FALSE written out", |b| {
        b.extension(BASIC_CONSTRAINTS).value = seq(&[&[1, 1, 0]])
    }),
    ("strict-der", "SET OF out of order", |b| {
        let attributes = [(COMMON_NAME, "b"), (COMMON_NAME, "a")].map(|(kind, text)| seq(&[&oid(kind), &utf8(text)]));
        b.subject = vec![set(&[&attributes[0], &attributes[1]])];
    }),
    ("strict-der", "PrintableString with an asterisk", |b| {
        b.subject[1] = rdn(COMMON_NAME, &printable("*.example.com"))
    }),
    ("strict-der", "no UTF-8", |b| {
        b.subject[1] = rdn(COMMON_NAME, &tlv(0x0c, &[&[0xff]]))
    }),
    ("strict-der", "key usage with zeros at its end", |b| {
        b.usage(&[0x00, 0x80])
    }),
    ("strict-der", "time without seconds", |b| {
        b.times[0] = utc("2601010000Z")
    }),
    ("strict-der", "time with an offset", |b| {
        b.times[0] = utc("260101000000+0000")
    }),
    ("strict-der", "time with a fraction", |b| {
        b.times[0] = generalized("20260101000000.1Z")
    }),
    ("strict-der", "extension with trailing bytes", |b| {
        b.extension(CUSTOM).value.push(0)
    }),
    ("strict-der", "extension that is not DER", |b| {
        b.extension(CUSTOM).value = b"text".to_vec()
    }),
    ("strict-der", "name that is not ASCII", |b| {
        b.san(&[dns("b\u{fc}cher.example")])
    }),
    ("strict-der", "length not minimal", |b| {
        let tbs = b.leaf.tbs();
        b.tbs = Some([&[0x30, 0x83, 0x00], &tbs[2..]].concat());
    }),
    ("structure", "no SEQUENCE", |b| b.tbs = Some(vec![0x30, 0x00])),
    ("structure", "no validity", |b| {
        b.times = [vec![], vec![]].map(|_: Vec<u8>| vec![0x05, 0x00])
    }),
    ("structure", "version that is no number", |b| {
        b.version = tlv(0xa0, &[&[0x05, 0x00]])
    }),
    ("structure", "no extensions", |b| b.extensions.clear()),
    ("structure", "empty relative name", |b| b.subject[0] = set(&[])),
    ("structure", "alternative name of an unknown kind", |b| {
        b.san(&[dns("www.example.com"), tlv(0x89, &[&[1]])])
    }),
    ("structure", "alternative names that are no list", |b| {
        b.extension(ALTERNATIVE_NAMES).value = vec![0x05, 0x00]
    }),
    ("structure", "otherName without value", |b| {
        b.san(&[dns("www.example.com"), tlv(0xa0, &[&oid("1.2.3")])])
    }),
    ("structure", "key usage that is no BIT STRING", |b| {
        b.extension(KEY_USAGE).value = int(&[1])
    }),
    ("structure", "key usage with a tenth bit", |b| {
        b.usage(&[0x06, 0x80, 0x40])
    }),
    ("structure", "purpose that is no OBJECT IDENTIFIER", |b| {
        b.extension(EXTENDED_KEY_USAGE).value = seq(&[&int(&[1])])
    }),
    ("structure", "negative path length", |b| {
        b.extension(BASIC_CONSTRAINTS).value = seq(&[&[1, 1, 0xff], &int(&[0xff])])
    }),
    // Version to validity.
    ("version-3", "version 2", |b| b.version = tlv(0xa0, &[&int(&[1])])),
    ("version-3", "version 1 with extensions", |b| b.version.clear()),
    ("version-3", "version 4", |b| b.version = tlv(0xa0, &[&int(&[3])])),
    ("serial-range", "zero", |b| b.serial = vec![0]),
    ("serial-range", "negative", |b| b.serial = vec![0x81; 16]),
    ("serial-range", "21 bytes", |b| b.serial = vec![0x01; 21]),
    ("serial-range", "2^159", |b| {
        b.serial = [vec![0, 0x80], vec![0; 19]].concat()
    }),
    ("serial-form", "small", |b| b.serial = vec![7]),
    ("serial-form", "20 bytes", |b| b.serial = vec![0x7f; 20]),
    ("signature-algorithm", "RSA for an EC issuer", |b| {
        b.algorithm = RSA_SHA256.to_vec()
    }),
    ("signature-algorithm", "ECDSA with NULL", |b| {
        b.algorithm = seq(&[&oid("1.2.840.10045.4.3.2"), &[0x05, 0x00]])
    }),
    ("signature-algorithm", "RSA without NULL", |b| {
        b.issuer.signature_algorithm = domain::key::SignatureAlgorithm::RsaSha256;
        b.algorithm = seq(&[&oid("1.2.840.113549.1.1.11")]);
    }),
    ("issuer-name", "another string type", |b| {
        let name = [
            rdn(COUNTRY, &printable("DE")),
            rdn(ORGANIZATION, &utf8("Bench")),
            rdn(COMMON_NAME, &printable("Issuer")),
        ];
        b.leaf.issuer = list(&name);
    }),
    ("unique-identifiers", "subjectUniqueID", |b| {
        b.unique = tlv(0x82, &[&[0x00, 0x01]])
    }),
    ("validity-order", "turned round", |b| b.leaf.times.reverse()),
    ("validity-time-form", "GeneralizedTime before 2050", |b| {
        b.times[1] = generalized("20260331235959Z")
    }),
    ("validity-length", "91 days", |b| b.not_after("260402000000Z")),
    ("validity-length", "90 days and a second", |b| {
        b.not_after("260401000000Z")
    }),
    ("validity-length", "less than an hour", |b| b.not_after("260101005958Z")),
    ("validity-within-chain", "beyond", |b| {
        b.issuer.not_after = 1_774_999_998
    }),
    ("authority-key-identifier", "missing", |b| b.remove(AUTHORITY_KEY_ID)),
    ("authority-key-identifier", "another key", |b| {
        b.extension(AUTHORITY_KEY_ID).value = seq(&[&tlv(0x80, &[&[1; 20]])])
    }),
    ("authority-key-identifier", "with name and serial", |b| {
        let key = tlv(0x80, &[&[0xa1; 20]]);
        let name = tlv(0xa1, &[&tlv(0xa4, &[&list(&[rdn(COMMON_NAME, &utf8("a"))])])]);
        b.extension(AUTHORITY_KEY_ID).value = seq(&[&key, &name, &tlv(0x82, &[&[1]])]);
    }),
    ("subject-key-identifier", "another key's", |b| {
        b.extension(SUBJECT_KEY_ID).value = octets(&[1; 20])
    }),
    ("subject-key-identifier", "empty", |b| {
        b.extension(SUBJECT_KEY_ID).value = octets(&[])
    }),
    // Key.
    ("key-algorithm", "RSA without NULL", |b| {
        let key = seq(&[&int(&[&[0], &[0xc5; 256][..]].concat()), &int(&[1, 0, 1])]);
        b.public_key = seq(&[&seq(&[&oid("1.2.840.113549.1.1.1")]), &bits(&key)]);
    }),
    ("key-algorithm", "secp256k1", |b| {
        b.public_key = ec_key("1.3.132.0.10", &hex(P256_POINT))
    }),
    ("key-algorithm", "explicit curve", |b| {
        b.public_key = seq(&[&seq(&[&oid("1.2.840.10045.2.1"), &seq(&[&int(&[1])])]), &bits(&[4])])
    }),
    ("key-algorithm", "Ed25519 with NULL", |b| {
        b.public_key = seq(&[&seq(&[&oid("1.3.101.112"), &[0x05, 0x00]]), &bits(&[1; 32])])
    }),
    ("key-bits", "an unused bit", |b| {
        let (mut point, even) = (hex(P256_POINT), 0xf4);
        *point.last_mut().unwrap() = even;
        b.take_key(KeyAlgorithm::Ed25519, 255, vec![]);
        b.public_key = seq(&[&seq(&[&oid("1.3.101.112")]), &tlv(0x03, &[&[1], &point[..31], &[even]])]);
    }),
    ("key-rsa-modulus", "2047 bits", |b| {
        b.become_rsa();
        b.public_key = rsa_of(&[&[0x7f], &[0xc5; 255][..]].concat(), &[1, 0, 1]);
    }),
    ("key-rsa-modulus", "even", |b| {
        b.become_rsa();
        b.public_key = rsa_of(&[&[0], &[0xc4; 256][..]].concat(), &[1, 0, 1]);
    }),
    ("key-rsa-modulus", "negative", |b| {
        b.become_rsa();
        b.public_key = rsa_of(&[0xc5; 256], &[1, 0, 1]);
    }),
    ("key-rsa-factors", "251 and others", |b| {
        b.become_rsa();
        b.public_key = rsa_of(&[&[0], &[0xc5; 256][..]].concat(), &[1, 0, 1]);
    }),
    ("key-rsa-factors", "751", |b| {
        b.become_rsa();
        b.public_key = rsa_of(&multiple(751), &[1, 0, 1]);
    }),
    ("key-rsa-exponent", "3", |b| {
        b.become_rsa();
        b.public_key = rsa(256, &[3]);
    }),
    ("key-rsa-exponent", "65535", |b| {
        b.become_rsa();
        b.public_key = rsa(256, &[0, 0xff, 0xff]);
    }),
    ("key-rsa-exponent", "even", |b| {
        b.become_rsa();
        b.public_key = rsa(256, &[1, 0, 2]);
    }),
    ("key-rsa-exponent", "negative", |b| {
        b.become_rsa();
        b.public_key = rsa(256, &[0x80, 0, 0, 1]);
    }),
    ("key-ec-uncompressed", "compressed", |b| {
        b.public_key = ec_key("1.2.840.10045.3.1.7", &[&[3], &hex(P256_POINT)[1..33]].concat())
    }),
    ("key-ec-uncompressed", "hybrid", |b| {
        b.public_key = ec_key("1.2.840.10045.3.1.7", &[&[7], &hex(P256_POINT)[1..]].concat())
    }),
    ("key-ec-uncompressed", "infinity", |b| {
        b.public_key = ec_key("1.2.840.10045.3.1.7", &[0])
    }),
    ("key-ec-on-curve", "beside it", |b| {
        let mut point = hex(P256_POINT);
        point[64] ^= 1;
        b.public_key = ec_key("1.2.840.10045.3.1.7", &point);
    }),
    ("key-ec-on-curve", "coordinates beyond the field", |b| {
        b.public_key = ec_key("1.2.840.10045.3.1.7", &[&[4], &[0xff; 64][..]].concat())
    }),
    ("key-ed25519-length", "31 bytes", |b| {
        b.take_key(KeyAlgorithm::Ed25519, 255, ed25519(&[1; 31]))
    }),
    ("key-pinned", "another size", |b| {
        b.profile.policy.public_key.allowed_lengths = vec![384]
    }),
    ("key-pinned", "another algorithm", |b| {
        b.profile.policy.public_key.key_type = KeyAlgorithm::Rsa
    }),
    // Usages.
    ("key-usage-empty", "no bits", |b| b.usage(&[0])),
    ("key-usage-for-key", "keyEncipherment with EC", |b| {
        b.usage(&[0x05, 0xa0])
    }),
    ("key-usage-for-key", "dataEncipherment with EC", |b| {
        b.usage(&[0x04, 0x90])
    }),
    ("key-usage-for-key", "keyAgreement with RSA", |b| {
        b.become_rsa();
        b.usage(&[0x03, 0x88]);
    }),
    ("key-usage-for-key", "keyAgreement with Ed25519", |b| {
        b.take_key(KeyAlgorithm::Ed25519, 255, ed25519(&[1; 32]));
        b.usage(&[0x03, 0x88]);
    }),
    ("key-usage-for-purpose", "server with contentCommitment only", |b| {
        b.usage(&[0x06, 0x40])
    }),
    ("key-usage-for-purpose", "client with keyEncipherment only", |b| {
        b.become_rsa();
        b.purposes(&[CLIENT_AUTH]);
        b.usage(&[0x05, 0x20]);
    }),
    ("key-usage-own", "a bit too few", |b| {
        b.profile.policy.key_usages.content_commitment = Flag::StaticTrue
    }),
    ("key-usage-own", "a bit too many", |b| {
        b.profile.policy.key_usages.digital_signature = Flag::StaticFalse
    }),
    ("key-usage-own", "none at all", |b| {
        b.profile.policy.key_usages.digital_signature = Flag::StaticTrue;
        b.remove(KEY_USAGE);
    }),
    ("purpose-own", "one more", |b| {
        b.profile.policy.extended_key_usages.ekus.list.clear()
    }),
    ("purpose-own", "none at all", |b| b.remove(EXTENDED_KEY_USAGE)),
    ("key-usage-agreement", "encipherOnly alone", |b| b.usage(&[0x00, 0x81])),
    ("key-usage-agreement", "both", |b| b.usage(&[0x07, 0x89, 0x80])),
    ("leaf-key-usage", "keyCertSign", |b| b.usage(&[0x02, 0x84])),
    ("leaf-key-usage", "cRLSign", |b| b.usage(&[0x01, 0x82])),
    ("leaf-basic-constraints", "CA:TRUE", |b| {
        b.extension(BASIC_CONSTRAINTS).value = seq(&[&[1, 1, 0xff]])
    }),
    ("leaf-basic-constraints", "path length", |b| {
        b.extension(BASIC_CONSTRAINTS).value = seq(&[&int(&[0])])
    }),
    ("any-purpose", "beside another", |b| {
        b.purposes(&[SERVER_AUTH, "2.5.29.37.0"])
    }),
    ("purpose-repeated", "twice", |b| b.purposes(&[SERVER_AUTH, SERVER_AUTH])),
    ("ocsp-signing-alone", "beside another", |b| {
        b.become_ocsp_signer();
        b.purposes(&[OCSP_SIGNING, CLIENT_AUTH]);
    }),
    ("ocsp-signing-profile", "in an end entity's profile", |b| {
        b.purposes(&[OCSP_SIGNING])
    }),
    ("ocsp-signing-profile", "missing in its own", |b| {
        b.become_ocsp_signer();
        b.purposes(&[CLIENT_AUTH]);
    }),
    ("ocsp-no-check", "missing", |b| {
        b.become_ocsp_signer();
        b.remove(NO_CHECK);
    }),
    ("ocsp-no-check", "in an end entity's certificate", |b| {
        b.add(NO_CHECK, false, vec![0x05, 0x00])
    }),
    ("ocsp-no-check", "not NULL", |b| {
        b.become_ocsp_signer();
        b.extension(NO_CHECK).value = int(&[0]);
    }),
    ("time-stamping-alone", "beside another", |b| {
        b.become_tsa();
        b.purposes(&[TIME_STAMPING, CLIENT_AUTH]);
    }),
    ("time-stamping-critical", "not critical", |b| {
        b.become_tsa();
        b.extension(EXTENDED_KEY_USAGE).critical = &[];
    }),
    ("time-stamping-profile", "in an end entity's profile", |b| {
        b.become_tsa();
        b.profile.purpose = Purpose::EndEntity;
    }),
    ("time-stamping-profile", "missing in its own", |b| {
        b.become_tsa();
        b.purposes(&[CLIENT_AUTH]);
        b.extension(EXTENDED_KEY_USAGE).critical = &[];
    }),
    // Around it.
    ("outer-signature-algorithm", "another hash", |b| {
        b.outer = Some(seq(&[&oid("1.2.840.10045.4.3.3")]))
    }),
    ("signature-bits", "no pair of numbers", |b| {
        b.signature = bits(&seq(&[&int(&[1])]))
    }),
    ("signature-bits", "unused bits", |b| {
        b.signature = tlv(0x03, &[&[1], &seq(&[&int(&[1]), &int(&[2])])])
    }),
    ("signature-bits", "negative number", |b| {
        b.signature = bits(&seq(&[&int(&[0x80]), &int(&[2])]))
    }),
];

/// An odd number of 2048 bits that this prime divides, and no smaller one: 2^2047 and what is missing to such a multiple.
fn multiple(prime: u32) -> Vec<u8> {
    let mut number = vec![0; 257];
    number[1] = 0x80;
    let remainder = |number: &[u8], prime: u32| {
        number
            .iter()
            .fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime)
    };
    let mut low: u32 = 1;
    loop {
        number[253..].copy_from_slice(&low.to_be_bytes());
        if remainder(&number, prime) == 0 && (2..prime).all(|smaller| remainder(&number, smaller) != 0) {
            return number;
        }
        low += 2;
    }
}
