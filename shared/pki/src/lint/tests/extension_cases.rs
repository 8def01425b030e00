//! Failures in the extensions, but those that hold names or usages.

use super::{Case, draft::*, writer::*};

pub(super) const CASES: &[Case] = &[
    ("extension-repeated", "unknown one", |b| {
        b.add(CUSTOM, true, vec![0x05, 0x00])
    }),
    ("extension-repeated", "known one", |b| {
        let again = b.extension(POLICIES).clone();
        b.extensions.push(again);
    }),
    ("extension-critical", "key usage not", |b| {
        b.extension(KEY_USAGE).critical = &[]
    }),
    ("extension-critical", "purposes", |b| {
        b.extension(EXTENDED_KEY_USAGE).critical = &[0xff]
    }),
    ("extension-critical", "key identifier", |b| {
        b.extension(AUTHORITY_KEY_ID).critical = &[0xff]
    }),
    ("extension-critical", "access", |b| {
        b.extension(ACCESS).critical = &[0xff]
    }),
    ("extension-critical", "custom one other than the profile says", |b| {
        b.extension(CUSTOM).critical = &[]
    }),
    ("extension-expected", "not in the profile", |b| {
        b.add("1.3.6.1.4.1.99999.2", false, vec![0x05, 0x00])
    }),
    ("extension-expected", "statements", |b| {
        b.profile.policy.qualified_statements = None;
        b.add(STATEMENTS, false, seq(&[&seq(&[&oid("0.4.0.1862.1.1")])]));
    }),
    ("extension-expected", "directory attributes", |b| {
        b.profile.policy.subject_da.gender = domain::policy::StringPolicy::default();
        b.add(
            DIRECTORY_ATTRIBUTES,
            false,
            seq(&[&directory_attribute(3, &printable("F"))]),
        );
    }),
    ("extension-expected", "freshestCRL", |b| {
        let points = b.extension(CRL_POINTS).value.clone();
        b.add("2.5.29.46", false, points);
    }),
    ("extension-of-ca", "nameConstraints", |b| {
        b.add(
            NAME_CONSTRAINTS,
            true,
            seq(&[&tlv(0xa0, &[&seq(&[&dns("example.com")])])]),
        );
    }),
    ("extension-of-ca", "policyConstraints", |b| {
        b.add("2.5.29.36", true, seq(&[&tlv(0x80, &[&[0]])]))
    }),
    ("empty-sequence", "purposes", |b| b.purposes(&[])),
    ("empty-sequence", "policies", |b| b.policies(&[])),
    ("empty-sequence", "distribution point", |b| {
        b.extension(CRL_POINTS).value = seq(&[])
    }),
    ("access-http", "https", |b| b.ocsp_at(&uri("https://pki.example/ocsp"))),
    ("access-http", "no host", |b| b.ocsp_at(&uri("http:///ocsp"))),
    ("access-http", "no URI", |b| b.ocsp_at(&dns("pki.example"))),
    ("access-own", "another host", |b| {
        b.ocsp_at(&uri("http://pki.example.org/ocsp"))
    }),
    ("access-own", "unknown method", |b| {
        let more = access(3, &uri("http://pki.example/ts"));
        let access = b.leaf.extension(ACCESS).value[2..].to_vec();
        b.extension(ACCESS).value = seq(&[&access, &more]);
    }),
    ("access-own", "twice", |b| {
        let access = b.leaf.extension(ACCESS).value[2..].to_vec();
        b.extension(ACCESS).value = seq(&[&access, &access]);
    }),
    ("crl-point-form", "two names", |b| {
        let url = uri("http://pki.example/crl/bench/1.crl");
        let right = b.leaf.extension(CRL_POINTS).value.clone();
        let names = [right[right.len() - 36..].to_vec(), url].concat();
        b.extension(CRL_POINTS).value = crl_points(&names[..36].repeat(2));
    }),
    ("crl-point-form", "reasons", |b| {
        let right = b.leaf.extension(CRL_POINTS).value.clone();
        b.extension(CRL_POINTS).value = seq(&[&seq(&[&right[4..], &tlv(0x81, &[&[0x07, 0x80]])])]);
    }),
    ("crl-point-http", "ldap", |b| {
        b.extension(CRL_POINTS).value = crl_points(&uri("ldap://pki.example/cn=crl"))
    }),
    ("crl-point-shard", "another shard", |b| {
        b.extension(CRL_POINTS).value = crl_points(&uri("http://pki.example/crl/bench/4.crl"))
    }),
    ("revocation-information", "no CRL", |b| b.remove(CRL_POINTS)),
    ("revocation-information", "no access", |b| b.remove(ACCESS)),
    ("revocation-information", "no OCSP", |b| {
        let issuers = uri(&b.issuer.ca_issuers_url());
        b.extension(ACCESS).value = seq(&[&access(2, &issuers)]);
    }),
    ("revocation-information", "of an OCSP signer", |b| {
        let crl = b.extension(CRL_POINTS).clone();
        b.become_ocsp_signer();
        b.extensions.push(crl);
    }),
    ("policy-own", "another", |b| {
        b.extension(POLICIES).value = seq(&[&seq(&[&oid("2.23.140.1.2.2")])])
    }),
    ("policy-own", "one more", |b| {
        b.extension(POLICIES).value = seq(&[&seq(&[&oid("2.23.140.1.2.1")]), &seq(&[&oid("1.2.3")])])
    }),
    ("policy-own", "none", |b| b.remove(POLICIES)),
    ("policy-repeated", "twice", |b| b.policies(&["1.2.3", "1.2.3"])),
    ("policy-any", "anyPolicy", |b| b.policies(&["2.5.29.32.0"])),
    ("policy-qualifier", "CPS that is no URL", |b| {
        b.qualify("1.3.6.1.5.5.7.2.1", &ia5("cps"))
    }),
    ("policy-qualifier", "unknown", |b| {
        b.qualify("1.3.6.1.5.5.7.2.9", &ia5("http://pki.example"))
    }),
    ("policy-qualifier", "long notice", |b| {
        b.qualify("1.3.6.1.5.5.7.2.2", &seq(&[&utf8(&"x".repeat(201))]))
    }),
    ("policy-qualifier", "notice in VisibleString", |b| {
        b.qualify("1.3.6.1.5.5.7.2.2", &seq(&[&tlv(0x1a, &[b"x"])]))
    }),
    // Statements.
    ("subject-directory-attributes", "midnight", |b| {
        b.add(
            DIRECTORY_ATTRIBUTES,
            false,
            seq(&[&directory_attribute(1, &generalized("19710314000000Z"))]),
        );
    }),
    ("subject-directory-attributes", "gender X", |b| {
        b.add(
            DIRECTORY_ATTRIBUTES,
            false,
            seq(&[&directory_attribute(3, &printable("X"))]),
        )
    }),
    ("subject-directory-attributes", "country in lower case", |b| {
        b.add(
            DIRECTORY_ATTRIBUTES,
            false,
            seq(&[&directory_attribute(4, &printable("de"))]),
        );
    }),
    ("subject-directory-attributes", "repeated", |b| {
        let gender = directory_attribute(3, &printable("F"));
        b.add(DIRECTORY_ATTRIBUTES, false, seq(&[&gender, &gender]));
    }),
    ("qualified-statements", "negative retention", |b| {
        b.add(
            STATEMENTS,
            false,
            seq(&[&seq(&[&oid("0.4.0.1862.1.3"), &int(&[0xff])])]),
        );
    }),
    ("qualified-statements", "disclosure by http", |b| {
        let pds = seq(&[&seq(&[&ia5("http://pki.example/pds"), &printable("en")])]);
        b.add(STATEMENTS, false, seq(&[&seq(&[&oid("0.4.0.1862.1.5"), &pds])]));
    }),
    ("qualified-statements", "repeated", |b| {
        let compliance = seq(&[&oid("0.4.0.1862.1.1")]);
        b.add(STATEMENTS, false, seq(&[&compliance, &compliance]));
    }),
    ("ms-template", "negative version", |b| {
        b.add(TEMPLATE, false, seq(&[&oid("1.2.3"), &int(&[0xff])]))
    }),
    ("ms-template", "no identifier", |b| {
        b.add(TEMPLATE, false, seq(&[&int(&[1])]))
    }),
];
