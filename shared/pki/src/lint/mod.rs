//! The lint: what every certificate must satisfy, judged on its DER before anything is signed.
//!
//! The parser is the lint's own and shares no code with the encoder. A rule is one function with an id, a citation and the field of a
//! request that it blames; [`rules`] lists them all. `README.md` of this crate tells how to add one.

mod chain;
mod constraints;
mod envelope;
mod extension;
mod identity;
mod key;
mod names;
mod oid;
mod parser;
mod pointers;
mod primitive;
mod statements;
mod subject;
mod tbs;
mod usage;

#[cfg(test)]
mod tests;

use domain::{
    id::Serial,
    issuer::{Issuer, Profile},
};

pub use chain::lint_ca_chain;
use tbs::{Tbs, Unreadable};

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Id of the rule, kebab-case.
    pub rule: &'static str,
    /// Where the rule comes from: `RFC 5280 4.1.2.2`, `BR 7.1.2.7`.
    pub citation: &'static str,
    /// Path of the HVCA field to blame, such as `san.dns_names`; empty when no request can cause it.
    pub field: &'static str,
    /// What was found.
    pub detail: String,
}

/// A rule, for lists of them.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Id, kebab-case, never used for anything else.
    pub id: &'static str,
    /// Where the rule comes from.
    pub citation: &'static str,
    /// Path of the HVCA field to blame; a finding may name a nearer one.
    pub field: &'static str,
    check: Check,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// Found by the parser, before any rule runs.
    Reading,
    /// A certificate to be issued.
    Leaf(fn(&Leaf<'_>) -> Verdict),
    /// What is around a to-be-signed certificate.
    Envelope(fn(&envelope::Envelope<'_>) -> Verdict),
    /// A CA certificate of an issuer's chain.
    Authority(fn(&chain::Link<'_>) -> Verdict),
}

/// A violation; `field` overrides the rule's own.
#[derive(Debug)]
struct Fault {
    field: Option<&'static str>,
    detail: String,
}

type Verdict = Result<(), Fault>;

fn ensure(good: bool, detail: impl FnOnce() -> String) -> Verdict {
    if good {
        Ok(())
    } else {
        Err(Fault {
            field: None,
            detail: detail(),
        })
    }
}

impl Fault {
    /// Blames `field` instead of the rule's own.
    fn blaming(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }
}

impl Rule {
    const fn leaf(
        id: &'static str,
        citation: &'static str,
        field: &'static str,
        check: fn(&Leaf<'_>) -> Verdict,
    ) -> Self {
        let check = Check::Leaf(check);
        Self {
            id,
            citation,
            field,
            check,
        }
    }

    fn finding(&self, fault: Fault) -> Finding {
        Finding {
            rule: self.id,
            citation: self.citation,
            field: fault.field.unwrap_or(self.field),
            detail: fault.detail,
        }
    }

    fn unreadable(unreadable: Unreadable) -> Finding {
        let rule = if unreadable.reason.is_shape() {
            &READING[1]
        } else {
            &READING[0]
        };
        rule.finding(Fault {
            field: Some(unreadable.field),
            detail: unreadable.to_string(),
        })
    }
}

const READING: &[Rule] = &[
    Rule {
        id: "strict-der",
        citation: "RFC 5280 4.1; X.690 8, 10, 11",
        field: "",
        check: Check::Reading,
    },
    Rule {
        id: "structure",
        citation: "RFC 5280 4.1, 4.2",
        field: "",
        check: Check::Reading,
    },
];

const LEAF: &[&[Rule]] = &[
    identity::RULES,
    key::RULES,
    subject::RULES,
    names::RULES,
    usage::RULES,
    pointers::RULES,
    statements::RULES,
    constraints::RULES,
];

/// Every rule.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let others = [READING, envelope::RULES, chain::RULES];
    LEAF.iter().copied().chain(others).flatten()
}

/// A certificate under judgement, and what it must agree with.
#[derive(Debug)]
struct Leaf<'a> {
    tbs: Tbs<'a>,
    /// The serial, if it has the form that this installation gives out.
    serial: Option<Serial>,
    context: &'a LintContext,
    profile: &'a Profile,
}

/// An issuer, with what its chain demands worked out: made once for each revision of the issuer, used for every certificate.
#[derive(Debug, Clone)]
pub struct LintContext {
    issuer: Issuer,
    demands: constraints::Demands,
}

impl LintContext {
    /// Reads the default chain of `issuer`. A chain that cannot be read makes every certificate fail (`chain-readable`).
    pub fn new(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.clone(),
            demands: constraints::Demands::of(issuer),
        }
    }

    /// What is wrong with a DER TBSCertificate that is to be issued under `profile`, at most one finding for each rule. Bytes that
    /// are not a certificate at all give one finding.
    pub fn lint_tbs(&self, tbs: &[u8], profile: &Profile) -> Vec<Finding> {
        let tbs = match Tbs::read(tbs) {
            Ok(tbs) => tbs,
            Err(unreadable) => return vec![Rule::unreadable(unreadable)],
        };
        let serial = Serial::from_bytes(tbs.serial);
        let context = self;
        let leaf = Leaf {
            tbs,
            serial,
            context,
            profile,
        };
        let mut findings = Vec::new();
        for rule in LEAF.iter().copied().flatten() {
            if let Check::Leaf(check) = rule.check
                && let Err(fault) = check(&leaf)
            {
                findings.push(rule.finding(fault));
            }
        }
        findings
    }

    /// What is wrong with a DER Certificate: what [`LintContext::lint_tbs`] finds, and what is around the to-be-signed part.
    pub fn lint_certificate(&self, der: &[u8], profile: &Profile) -> Vec<Finding> {
        envelope::lint(der, |tbs| self.lint_tbs(tbs, profile))
    }
}

/// [`LintContext::lint_tbs`] with a context made for this one call.
pub fn lint_tbs(tbs: &[u8], issuer: &Issuer, profile: &Profile) -> Vec<Finding> {
    LintContext::new(issuer).lint_tbs(tbs, profile)
}

/// [`LintContext::lint_certificate`] with a context made for this one call.
pub fn lint_certificate(der: &[u8], issuer: &Issuer, profile: &Profile) -> Vec<Finding> {
    LintContext::new(issuer).lint_certificate(der, profile)
}
