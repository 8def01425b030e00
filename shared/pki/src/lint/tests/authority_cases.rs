//! Chains that make no issuer.

use domain::key::{KeyType, SignatureAlgorithm};

use super::{Case, bench::Bench, draft::*, writer::*};

macro_rules! chain {
    ($alter:expr) => {
        |b| {
            let alter: fn(&mut Bench) = $alter;
            b.of_chain = true;
            alter(b);
        }
    };
}

pub(super) const CASES: &[Case] = &[
    ("strict-der", "in a chain", chain!(|b| b.chain[1].serial.insert(0, 0))),
    (
        "structure",
        "in a chain",
        chain!(|b| b.after = |issuer| issuer.chain[0] = vec![0x30, 0x00].into()),
    ),
    ("ca-chain", "empty", chain!(|b| b.chain.clear())),
    (
        "ca-chain",
        "the root twice",
        chain!(|b| {
            let root = b.chain[1].clone();
            b.chain.push(root);
        }),
    ),
    ("ca-version-3", "version 1", chain!(|b| b.chain[1].version.clear())),
    (
        "ca-outer-signature-algorithm",
        "another",
        chain!(|b| b.chain[0].outer = Some(RSA_SHA256.to_vec())),
    ),
    (
        "ca-subject",
        "not the issuer's",
        chain!(|b| b.issuer.subject = list(&[rdn(COMMON_NAME, &utf8("a"))]).into()),
    ),
    (
        "ca-key",
        "not the issuer's",
        chain!(|b| b.issuer.public_key = rsa(256, &[1, 0, 1]).into()),
    ),
    (
        "ca-key",
        "another type",
        chain!(|b| {
            b.issuer.key_type = KeyType::P384;
            b.issuer.signature_algorithm = SignatureAlgorithm::EcdsaSha384;
        }),
    ),
    (
        "ca-true",
        "CA:FALSE",
        chain!(|b| b.chain[0].extension(BASIC_CONSTRAINTS).value = seq(&[])),
    ),
    ("ca-true", "nothing", chain!(|b| b.chain[1].remove(BASIC_CONSTRAINTS))),
    (
        "ca-critical",
        "basicConstraints",
        chain!(|b| b.chain[0].extension(BASIC_CONSTRAINTS).critical = &[]),
    ),
    (
        "ca-key-cert-sign",
        "cRLSign only",
        chain!(|b| b.chain[1].extension(KEY_USAGE).value = tlv(0x03, &[&[0x01, 0x02]])),
    ),
    (
        "ca-crl-sign",
        "keyCertSign only",
        chain!(|b| b.chain[0].extension(KEY_USAGE).value = tlv(0x03, &[&[0x02, 0x04]])),
    ),
    (
        "ca-path-length",
        "0 above a CA",
        chain!(|b| {
            b.chain[1].extension(BASIC_CONSTRAINTS).value = seq(&[&[1, 1, 0xff], &int(&[0])]);
        }),
    ),
    (
        "ca-validity",
        "turned round",
        chain!(|b| {
            b.chain[1].times.reverse();
            b.issuer.not_after = 1_577_836_800;
        }),
    ),
    (
        "ca-not-after",
        "the root ends before",
        chain!(|b| b.chain[1].times[1] = utc("380101000000Z")),
    ),
    (
        "ca-issuer",
        "another name",
        chain!(|b| b.chain[0].issuer = list(&[rdn(COMMON_NAME, &utf8("Root"))])),
    ),
    (
        "ca-issuer",
        "no root",
        chain!(|b| {
            b.chain.pop();
            let own = b.chain[0].extension(SUBJECT_KEY_ID).value[2..].to_vec();
            b.chain[0].extension(AUTHORITY_KEY_ID).value = seq(&[&tlv(0x80, &[&own])]);
        }),
    ),
    (
        "ca-subject-key-identifier",
        "empty",
        chain!(|b| {
            b.chain[1].remove(AUTHORITY_KEY_ID);
            b.chain[1].extension(SUBJECT_KEY_ID).value = octets(&[]);
            b.chain[0].extension(AUTHORITY_KEY_ID).value = seq(&[&tlv(0x80, &[&[]])]);
        }),
    ),
    (
        "ca-subject-key-identifier",
        "not the issuer's",
        chain!(|b| b.issuer.subject_key_id = vec![1; 20].into()),
    ),
    (
        "ca-authority-key-identifier",
        "another key",
        chain!(|b| b.chain[0].extension(AUTHORITY_KEY_ID).value = seq(&[&tlv(0x80, &[&[1; 20]])])),
    ),
    (
        "ca-authority-key-identifier",
        "missing",
        chain!(|b| b.chain[0].remove(AUTHORITY_KEY_ID)),
    ),
    (
        "ca-name-constraints",
        "empty",
        chain!(|b| b.chain[0].add(NAME_CONSTRAINTS, true, seq(&[]))),
    ),
    (
        "ca-name-constraints",
        "subtree with a minimum",
        chain!(|b| {
            let tree = seq(&[&dns("example.com"), &tlv(0x80, &[&[1]])]);
            b.chain[0].add(NAME_CONSTRAINTS, true, seq(&[&tlv(0xa0, &[&tree])]));
        }),
    ),
    (
        "ca-extension-repeated",
        "twice",
        chain!(|b| {
            let again = b.chain[1].extensions[0].clone();
            b.chain[1].extensions.push(again);
        }),
    ),
    (
        "ca-purpose",
        "OCSPSigning",
        chain!(|b| b.chain[0].add(EXTENDED_KEY_USAGE, false, seq(&[&oid(OCSP_SIGNING)]))),
    ),
];

#[test]
fn other_chains_are_judged_as_well() {
    let bench = Bench::tls();
    let mut issuer = bench.issuer();
    issuer.other_chains = vec![issuer.chain.clone()];
    assert_eq!(super::lint_ca_chain(&issuer), []);
    issuer.other_chains = vec![vec![issuer.chain[1].clone()]];
    let rules: Vec<_> = super::lint_ca_chain(&issuer)
        .into_iter()
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(rules, ["ca-subject", "ca-subject-key-identifier"]);
}
