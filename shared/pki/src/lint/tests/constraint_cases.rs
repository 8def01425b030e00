//! Certificates that their issuer's chain forbids.

use super::{Alter, Case, bench::Bench, draft::*, writer::*};

pub(super) const CASES: &[Case] = &[
    ("chain-readable", "a certificate that is none", |b| {
        b.after = |issuer| issuer.chain[1] = vec![0x30, 0x00].into()
    }),
    ("chain-readable", "subtree with a maximum", |b| {
        let tree = seq(&[&dns("example.com"), &tlv(0x81, &[&[5]])]);
        b.chain[0].add(NAME_CONSTRAINTS, true, seq(&[&tlv(0xa0, &[&tree])]));
    }),
    ("chain-readable", "mask with a hole", |b| {
        b.constrain(&[ip(&[10, 0, 0, 0, 255, 0, 255, 0])], &[])
    }),
    ("constraint-dns", "outside", |b| b.constrain(&[dns("example.org")], &[])),
    ("constraint-dns", "no boundary of labels", |b| {
        b.only_san(&[dns("badexample.com")]);
        b.constrain(&[dns("example.com")], &[]);
    }),
    ("constraint-dns", "excluded", |b| {
        b.constrain(&[dns("example.com")], &[dns("www.example.com")])
    }),
    (
        "constraint-dns",
        "a wildcard that could stand for what is excluded",
        |b| {
            b.only_san(&[dns("*.example.com")]);
            b.constrain(&[], &[dns("secret.example.com")]);
        },
    ),
    ("constraint-dns", "a wildcard wider than what is permitted", |b| {
        b.only_san(&[dns("*.example.com")]);
        b.constrain(&[dns("www.example.com")], &[]);
    }),
    ("constraint-dns", "everything excluded", |b| {
        b.constrain(&[], &[dns("")])
    }),
    ("constraint-dns", "only what is below", |b| {
        b.only_san(&[dns("example.com")]);
        b.constrain(&[dns(".example.com")], &[]);
    }),
    ("constraint-dns", "two certificates that permit different names", |b| {
        b.constrain(&[dns("example.com")], &[]);
        b.chain[0].add(
            NAME_CONSTRAINTS,
            true,
            seq(&[&tlv(0xa0, &[&seq(&[&dns("example.org")])])]),
        );
    }),
    ("constraint-dns", "common name without a DNS name", |b| {
        b.purposes(&[CLIENT_AUTH]);
        b.san(&[mail("jo@example.com")]);
        b.constrain(&[dns("example.org")], &[]);
    }),
    ("constraint-mail", "another host", |b| {
        b.only_san(&[mail("jo@www.example.com")]);
        b.constrain(&[mail("example.com")], &[]);
    }),
    ("constraint-mail", "another mailbox", |b| {
        b.only_san(&[mail("jo@example.com")]);
        b.constrain(&[mail("Jo@example.com")], &[]);
    }),
    (
        "constraint-mail",
        "the domain itself where only hosts below are permitted",
        |b| {
            b.only_san(&[mail("jo@example.com")]);
            b.constrain(&[mail(".example.com")], &[]);
        },
    ),
    ("constraint-mail", "in the subject", |b| {
        b.subject.insert(1, rdn(EMAIL, &ia5("jo@example.com")));
        b.constrain(&[], &[mail("example.com")]);
    }),
    ("constraint-ip", "outside", |b| {
        b.only_san(&[ip(&[10, 1, 2, 3])]);
        b.constrain(&[ip(&[10, 0, 0, 0, 255, 255, 0, 0])], &[]);
    }),
    ("constraint-ip", "IPv6 where only IPv4 is permitted", |b| {
        b.only_san(&[ip(&[1; 16])]);
        b.constrain(&[ip(&[0; 8])], &[]);
    }),
    ("constraint-ip", "excluded", |b| {
        b.constrain(&[], &[ip(&[192, 0, 2, 0, 255, 255, 255, 0])])
    }),
    ("constraint-uri", "another host", |b| {
        b.only_san(&[uri("https://www.example.com/a")]);
        b.constrain(&[uri("example.com")], &[]);
    }),
    ("constraint-uri", "no host", |b| {
        b.only_san(&[uri("urn:isbn:0451450523")]);
        b.constrain(&[uri(".example.com")], &[]);
    }),
    ("constraint-uri", "address as host", |b| {
        b.only_san(&[uri("https://192.0.2.1/")]);
        b.constrain(&[], &[uri("example.com")]);
    }),
    ("constraint-directory", "another country", |b| {
        b.constrain(&[directory(&[rdn(COUNTRY, &printable("FR"))])], &[])
    }),
    ("constraint-directory", "excluded in another case and type", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("Bench  of\u{a0}Test")));
        b.constrain(
            &[],
            &[directory(&[
                rdn(COUNTRY, &printable("DE")),
                rdn(ORGANIZATION, &printable("bench of test")),
            ])],
        );
    }),
    ("constraint-other", "a kind that nobody judges", |b| {
        let other = tlv(0xa0, &[&oid("1.3.6.1.4.1.311.20.2.3"), &tlv(0xa0, &[&utf8("jo")])]);
        b.san(&[dns("www.example.com"), other.clone()]);
        b.constrain(&[], &[other]);
    }),
    ("constraint-purpose", "another purpose", |b| {
        b.chain[1].add(EXTENDED_KEY_USAGE, false, seq(&[&oid(CLIENT_AUTH)]))
    }),
    ("constraint-purpose", "no purpose at all", |b| {
        b.remove(EXTENDED_KEY_USAGE);
        b.profile.policy.extended_key_usages.ekus.is_static = false;
        b.chain[0].add(EXTENDED_KEY_USAGE, false, seq(&[&oid(SERVER_AUTH)]));
    }),
];

fn directory(name: &[Vec<u8>]) -> Vec<u8> {
    tlv(0xa4, &[&list(name)])
}

#[test]
fn what_the_chain_permits_has_no_findings() {
    let cases: &[(&str, Alter)] = &[
        ("names below", |b| {
            b.constrain(
                &[dns("example.com"), ip(&[192, 0, 2, 0, 255, 255, 255, 0])],
                &[dns("example.org")],
            )
        }),
        ("a dot in front", |b| b.constrain(&[dns(".EXAMPLE.com")], &[])),
        ("a wildcard beside what is excluded two levels below", |b| {
            b.only_san(&[dns("*.example.com")]);
            b.constrain(&[], &[dns("a.b.example.com")]);
        }),
        ("other kinds", |b| {
            b.constrain(&[mail("example.org"), uri("example.org")], &[])
        }),
        ("the host of a mailbox", |b| {
            b.only_san(&[mail("jo@Example.com")]);
            b.constrain(&[mail("example.com")], &[mail("jane@example.com")]);
        }),
        ("hosts below", |b| {
            b.only_san(&[mail("jo@www.example.com"), uri("https://jo@www.example.com:1/")]);
            b.constrain(&[mail(".example.com"), uri(".example.com")], &[]);
        }),
        ("a directory", |b| {
            b.constrain(
                &[directory(&[rdn(COUNTRY, &utf8("de"))])],
                &[directory(&[rdn(COUNTRY, &printable("FR"))])],
            )
        }),
        ("purposes", |b| {
            b.chain[0].add(EXTENDED_KEY_USAGE, false, seq(&[&oid(CLIENT_AUTH), &oid(SERVER_AUTH)]))
        }),
        ("any purpose", |b| {
            b.chain[0].add(EXTENDED_KEY_USAGE, false, seq(&[&oid("2.5.29.37.0")]))
        }),
        ("an OCSP signer under a CA for servers", |b| {
            b.become_ocsp_signer();
            b.chain[0].add(EXTENDED_KEY_USAGE, false, seq(&[&oid(SERVER_AUTH)]));
        }),
    ];
    for (what, alter) in cases {
        let mut bench = Bench::tls();
        alter(&mut bench);
        assert_eq!(bench.findings(), [], "{what}");
    }
}
