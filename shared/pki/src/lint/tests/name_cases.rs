//! Failures in the subject and in the alternative names.

use super::{Case, draft::*, writer::*};

pub(super) const CASES: &[Case] = &[
    ("subject-single-valued", "two attributes", |b| {
        let (one, two) = (seq(&[&oid(UNIT), &utf8("a")]), seq(&[&oid(UNIT), &utf8("b")]));
        b.subject.insert(1, set(&[&one, &two]));
    }),
    ("subject-attribute-expected", "not in the profile", |b| {
        b.subject.insert(1, rdn("1.3.6.1.4.1.99999.9", &utf8("a")))
    }),
    ("subject-order", "common name before country", |b| b.subject.reverse()),
    ("subject-order", "extra attributes interleaved", |b| {
        let extra = |kind, number| rdn(kind, &int(&[number]));
        let (one, two) = (EXTRA, OTHER_EXTRA);
        b.subject.splice(1..1, [extra(one, 1), extra(two, 2), extra(one, 3)]);
    }),
    ("subject-order", "domain component last", |b| {
        b.subject.push(rdn(DOMAIN_COMPONENT, &ia5("com")))
    }),
    ("subject-repeated", "country twice", |b| {
        b.subject.insert(0, rdn(COUNTRY, &printable("FR")))
    }),
    ("subject-repeated", "the same unit twice", |b| {
        let unit = rdn(UNIT, &utf8("a"));
        b.subject.splice(1..1, [unit.clone(), unit]);
    }),
    ("subject-string-type", "TeletexString", |b| {
        b.subject.insert(1, rdn(UNIT, &tlv(0x14, &[b"a"])))
    }),
    ("subject-string-type", "BMPString", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &tlv(0x1e, &[b"\0a"])))
    }),
    ("subject-string-type", "BMPString in an unknown attribute", |b| {
        b.subject.insert(1, rdn(EXTRA, &tlv(0x1e, &[b"\0a"])))
    }),
    ("subject-string-type", "country in UTF8String", |b| {
        b.subject[0] = rdn(COUNTRY, &utf8("DE"))
    }),
    ("subject-string-type", "domain component in UTF8String", |b| {
        b.subject.insert(0, rdn(DOMAIN_COMPONENT, &utf8("com")))
    }),
    ("subject-string-type", "mail in UTF8String", |b| {
        b.subject.insert(1, rdn(EMAIL, &utf8("jo@example.com")))
    }),
    ("subject-upper-bound", "organization of 65 characters", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8(&"\u{fc}".repeat(65))))
    }),
    ("subject-upper-bound", "common name of 65 characters", |b| {
        let name = format!("{}.{}", "a".repeat(60), "test");
        b.subject[1] = rdn(COMMON_NAME, &utf8(&name));
        b.san(&[dns(&name)]);
    }),
    ("subject-blank", "empty", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("")))
    }),
    ("subject-blank", "a hyphen", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("-")))
    }),
    ("subject-blank", "white space in front", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8(" Bench")))
    }),
    ("subject-blank", "no-break space at the end", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("Bench\u{a0}")))
    }),
    ("subject-control-character", "NUL", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("Be\0nch")))
    }),
    ("subject-control-character", "line feed", |b| {
        b.subject.insert(1, rdn(ORGANIZATION, &utf8("Be\nnch")))
    }),
    ("subject-country", "lower case", |b| {
        b.subject[0] = rdn(COUNTRY, &printable("de"))
    }),
    ("subject-country", "three letters", |b| {
        b.subject[0] = rdn(COUNTRY, &printable("DEU"))
    }),
    ("subject-country", "jurisdiction", |b| {
        b.subject.insert(1, rdn("1.3.6.1.4.1.311.60.2.1.3", &printable("D1")))
    }),
    ("subject-domain-component", "two labels", |b| {
        b.subject.insert(0, rdn(DOMAIN_COMPONENT, &ia5("example.com")))
    }),
    ("subject-email", "no domain", |b| {
        b.subject.insert(1, rdn(EMAIL, &ia5("jo")))
    }),
    ("subject-or-alternative-name", "neither", |b| {
        b.purposes(&[CLIENT_AUTH]);
        b.subject.clear();
        b.remove(ALTERNATIVE_NAMES);
    }),
    ("san-missing", "server without", |b| b.remove(ALTERNATIVE_NAMES)),
    ("san-critical", "critical beside a subject", |b| {
        b.extension(ALTERNATIVE_NAMES).critical = &[0xff]
    }),
    ("san-critical", "not critical without a subject", |b| b.subject.clear()),
    ("san-critical", "not critical where the profile says so", |b| {
        b.profile.policy.san.critical = true
    }),
    ("san-kind", "directoryName", |b| {
        b.san(&[
            dns("www.example.com"),
            tlv(0xa4, &[&list(&[rdn(COMMON_NAME, &utf8("a"))])]),
        ])
    }),
    ("san-kind", "registeredID", |b| {
        b.san(&[dns("www.example.com"), tlv(0x88, &[&[0x2a]])])
    }),
    ("san-repeated", "in another case", |b| {
        b.san(&[dns("www.example.com"), dns("a.example"), dns("WWW.example.com")])
    }),
    ("san-repeated", "address", |b| {
        b.only_san(&[ip(&[192, 0, 2, 1]), ip(&[192, 0, 2, 1])])
    }),
    ("san-repeated", "mailbox", |b| {
        b.only_san(&[mail("jo@example.com"), mail("jo@EXAMPLE.com")])
    }),
    ("dns-syntax", "underscore", |b| b.only_san(&[dns("a_b.example.com")])),
    ("dns-syntax", "NUL", |b| b.only_san(&[dns("www.example.com\0.example")])),
    ("dns-syntax", "space", |b| b.only_san(&[dns("www example.com")])),
    ("dns-syntax", "hyphen first", |b| b.only_san(&[dns("-a.example.com")])),
    ("dns-syntax", "hyphen last", |b| b.only_san(&[dns("a-.example.com")])),
    ("dns-syntax", "empty label", |b| b.only_san(&[dns("a..example.com")])),
    ("dns-syntax", "dot first", |b| b.only_san(&[dns(".example.com")])),
    ("dns-syntax", "empty", |b| b.only_san(&[dns("")])),
    ("dns-syntax", "IPv6 address", |b| b.only_san(&[dns("2001:db8::1")])),
    ("dns-syntax", "port", |b| b.only_san(&[dns("example.com:443")])),
    ("dns-length", "label of 64", |b| {
        b.only_san(&[dns(&format!("{}.example", "a".repeat(64)))])
    }),
    ("dns-length", "name of 255", |b| {
        b.only_san(&[dns(&format!("{}example.com", format!("{}.", "a".repeat(60)).repeat(4)))])
    }),
    ("dns-trailing-dot", "one", |b| b.only_san(&[dns("www.example.com.")])),
    ("dns-ip-address", "four numbers", |b| b.only_san(&[dns("192.0.2.1")])),
    ("dns-ip-address", "one number", |b| b.only_san(&[dns("3221225985")])),
    ("dns-ip-address", "hexadecimal end", |b| {
        b.only_san(&[dns("192.0.2.0x1")])
    }),
    ("dns-wildcard-place", "not left-most", |b| {
        b.only_san(&[dns("www.*.example.com")])
    }),
    ("dns-wildcard-place", "part of a label", |b| {
        b.only_san(&[dns("w*.example.com")])
    }),
    ("dns-wildcard-place", "twice", |b| b.only_san(&[dns("*.*.example.com")])),
    ("dns-wildcard-place", "alone", |b| b.only_san(&[dns("*")])),
    ("dns-wildcard-permission", "not in the profile", |b| {
        b.profile.wildcards = false
    }),
    ("dns-idna", "another prefix", |b| b.only_san(&[dns("ab--cd.example")])),
    ("dns-idna", "no Punycode", |b| {
        b.only_san(&[dns("xn--99999999.example")])
    }),
    ("dns-idna", "not normalised", |b| {
        b.only_san(&[dns("xn--u-ccb.example")])
    }),
    ("dns-idna", "right to left beside a digit first", |b| {
        b.only_san(&[dns("1a.xn--4gbrim.example")])
    }),
    ("mail-syntax", "no at sign", |b| b.only_san(&[mail("example.com")])),
    ("mail-syntax", "display name", |b| {
        b.only_san(&[mail("Jo <jo@example.com>")])
    }),
    ("mail-syntax", "two dots", |b| b.only_san(&[mail("jo..x@example.com")])),
    ("mail-syntax", "address literal", |b| {
        b.only_san(&[mail("jo@[192.0.2.1]")])
    }),
    ("mail-syntax", "wildcard domain", |b| {
        b.only_san(&[mail("jo@*.example.com")])
    }),
    ("ip-length", "5 bytes", |b| b.only_san(&[ip(&[1, 2, 3, 4, 5])])),
    ("ip-length", "address and mask", |b| {
        b.only_san(&[ip(&[1, 2, 3, 4, 255, 255, 255, 255])])
    }),
    ("uri-absolute", "relative", |b| b.only_san(&[uri("/path")])),
    ("uri-absolute", "scheme alone", |b| b.only_san(&[uri("http:")])),
    ("uri-absolute", "no host", |b| b.only_san(&[uri("https:///path")])),
    ("uri-absolute", "host with a space", |b| {
        b.only_san(&[uri("https://exa mple.com")])
    }),
    ("uri-absolute", "half a percent code", |b| {
        b.only_san(&[uri("https://example.com/%a")])
    }),
    ("common-name-in-san", "another name", |b| b.san(&[dns("example.com")])),
    ("common-name-in-san", "in another case", |b| {
        b.san(&[dns("WWW.example.com")])
    }),
    ("common-name-in-san", "an address in another form", |b| {
        b.subject[1] = rdn(COMMON_NAME, &utf8("2001:db8:0::1"));
        b.san(&[ip(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]);
    }),
    ("mail-in-san", "another mailbox", |b| {
        b.become_mail();
        b.san(&[mail("joe@example.com")]);
    }),
    ("mail-in-san", "no alternative names", |b| {
        b.become_mail();
        b.remove(ALTERNATIVE_NAMES);
    }),
];
