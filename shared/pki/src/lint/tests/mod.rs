//! Every rule has a certificate that breaks it and nothing else.

#![expect(clippy::semicolon_if_nothing_returned, reason = "what a case does is one expression")]

mod authority_cases;
mod bench;
mod constraint_cases;
mod draft;
mod extension_cases;
mod leaf_cases;
mod name_cases;
mod writer;

use std::collections::BTreeSet;

use super::{LintContext, lint_ca_chain, rules};
use bench::Bench;

/// What is done to a good certificate.
type Alter = fn(&mut Bench);

/// A rule, what is done to a good certificate so that it breaks the rule, and a name for that.
type Case = (&'static str, &'static str, Alter);

fn all() -> impl Iterator<Item = &'static Case> {
    let leaf = leaf_cases::CASES
        .iter()
        .chain(extension_cases::CASES)
        .chain(name_cases::CASES)
        .chain(constraint_cases::CASES);
    leaf.chain(authority_cases::CASES)
}

#[test]
fn each_crafted_failure_breaks_its_rule_and_no_other() {
    let mut wrong = Vec::new();
    for (rule, what, alter) in all() {
        let mut bench = Bench::tls();
        alter(&mut bench);
        let findings = bench.findings();
        if !matches!(findings.as_slice(), [only] if only.rule == *rule) {
            wrong.push(format!("{rule} ({what}): {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_crafted_failure() {
    let tried: BTreeSet<_> = all().map(|(rule, ..)| *rule).collect();
    let missing: Vec<_> = rules().map(|rule| rule.id).filter(|id| !tried.contains(id)).collect();
    assert!(missing.is_empty(), "rules without a crafted failure: {missing:?}");
}

#[test]
fn every_rule_has_an_id_of_its_own_and_a_citation() {
    let mut seen = BTreeSet::new();
    for rule in rules() {
        assert!(seen.insert(rule.id), "{} is there twice", rule.id);
        assert!(
            rule.id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{}",
            rule.id
        );
        assert!(!rule.citation.is_empty(), "{}", rule.id);
    }
}

#[test]
fn good_certificates_of_every_kind_have_no_findings() {
    for (kind, bench) in Bench::good() {
        assert_eq!(bench.findings(), [], "{kind}");
    }
}

#[test]
fn findings_blame_the_field_that_caused_them() {
    let blamed = |alter: fn(&mut Bench)| {
        let mut bench = Bench::tls();
        alter(&mut bench);
        bench.findings().first().map(|finding| finding.field)
    };
    assert_eq!(blamed(|b| b.san(&[writer::dns("a..example")])), Some("san.dns_names"));
    assert_eq!(
        blamed(|b| b
            .subject
            .insert(1, writer::rdn("2.5.4.10", &writer::utf8(&"x".repeat(65))))),
        Some("subject_dn.organization")
    );
    assert_eq!(blamed(|b| b.not_after("290101000000Z")), Some("validity.not_after"));
    assert_eq!(blamed(|b| b.usage(&[0x01, 0x06])), Some("key_usages"));
}

#[test]
fn no_altered_byte_makes_the_lint_panic_and_hardly_one_goes_unnoticed_in_the_structure() {
    let bench = Bench::tls();
    let context = LintContext::new(&bench.issuer());
    let good = bench.certificate();
    for at in 0..good.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, good[at] ^ 0x01, good[at] ^ 0x20] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = context.lint_certificate(&bytes, &bench.profile);
            let _ = context.lint_tbs(&bytes, &bench.profile);
        }
    }
    for length in 0..good.len() {
        let findings = context.lint_certificate(&good[..length], &bench.profile);
        assert_eq!(
            findings.first().map(|finding| finding.rule),
            Some("strict-der"),
            "cut to {length}"
        );
    }
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn mutated_certificates_never_make_the_lint_panic(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8)
        ) {
            let bench = Bench::tls();
            let mut bytes = bench.certificate();
            for (at, value, how) in edits {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = value,
                    1 => bytes.insert(at, value),
                    _ => { bytes.remove(at); }
                }
            }
            let mut issuer = bench.issuer();
            let _ = LintContext::new(&issuer).lint_certificate(&bytes, &bench.profile);
            issuer.chain[0] = bytes.clone().into();
            let _ = lint_ca_chain(&issuer);
            let _ = LintContext::new(&issuer);
        }

        #[test]
        fn random_bytes_never_make_the_lint_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bench = Bench::tls();
            let context = LintContext::new(&bench.issuer());
            prop_assert!(!context.lint_tbs(&bytes, &bench.profile).is_empty());
            prop_assert!(!context.lint_certificate(&bytes, &bench.profile).is_empty());
        }

        #[test]
        fn random_extension_bodies_never_make_the_lint_panic(at in 0usize..8, body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bench = Bench::tls();
            let at = at % bench.extensions.len();
            bench.extensions[at].value = body;
            let _ = bench.findings();
        }
    }
}
