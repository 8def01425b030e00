//! The CA certificates of an issuer's chains, judged when an issuer is imported (RFC 5280, 4.2.1.9 and 6.1; BR 7.1.2.10).

use domain::{issuer::Issuer, request::KeyUsage};

use super::{
    Check, Finding, Rule, Verdict, constraints::NameConstraints, ensure, envelope, envelope::Envelope,
    extension::ExtensionKind, oid, tbs::Tbs, usage::bit,
};

pub(super) const RULES: &[Rule] = &[
    rule("ca-version-3", "RFC 5280 4.1.2.1", version),
    rule("ca-outer-signature-algorithm", "RFC 5280 4.1.1.2", outer_algorithm),
    rule("ca-subject", "RFC 5280 4.1.2.6", subject),
    rule("ca-key", "RFC 5280 6.1.4", key),
    rule("ca-true", "RFC 5280 4.2.1.9", ca_true),
    rule("ca-critical", "RFC 5280 4.2.1.3, 4.2.1.9, 4.2.1.10", critical),
    rule("ca-key-cert-sign", "RFC 5280 4.2.1.3, 6.1.4", key_cert_sign),
    rule("ca-crl-sign", "RFC 5280 4.2.1.3", crl_sign),
    rule("ca-path-length", "RFC 5280 4.2.1.9, 6.1.4", path_length),
    rule("ca-validity", "RFC 5280 4.1.2.5", validity),
    rule("ca-not-after", "RFC 5280 6.1.3", not_after),
    rule("ca-issuer", "RFC 5280 4.1.2.4, 6.1.3", issuer),
    rule("ca-subject-key-identifier", "RFC 5280 4.2.1.2", subject_key_identifier),
    rule(
        "ca-authority-key-identifier",
        "RFC 5280 4.2.1.1",
        authority_key_identifier,
    ),
    rule("ca-name-constraints", "RFC 5280 4.2.1.10", name_constraints),
    rule("ca-extension-repeated", "RFC 5280 4.2", extension_repeated),
    rule("ca-purpose", "BR 7.1.2.10.6", purpose),
    Rule {
        id: "ca-chain",
        citation: "RFC 5280 6.1",
        field: "",
        check: Check::Reading,
    },
];

const fn rule(id: &'static str, citation: &'static str, check: fn(&Link<'_>) -> Verdict) -> Rule {
    let check = Check::Authority(check);
    Rule {
        id,
        citation,
        field: "",
        check,
    }
}

/// A certificate of a chain, and where it stands.
#[derive(Debug)]
pub(super) struct Link<'a> {
    /// Position, 0 for the issuer's own.
    at: usize,
    chain: &'a [(Envelope<'a>, Tbs<'a>)],
    issuer: &'a Issuer,
    /// Whether it is the issuer's default chain.
    default: bool,
}

impl<'a> Link<'a> {
    fn tbs(&self) -> &'a Tbs<'a> {
        &self.chain[self.at].1
    }

    /// The certificate of whoever signed this one: the next, and for the last itself.
    fn parent(&self) -> &'a Tbs<'a> {
        &self.chain[(self.at + 1).min(self.chain.len() - 1)].1
    }
}

/// What is wrong with the chains of an issuer, the default one and the others: each certificate by itself, the links between them,
/// and that the issuer's own says what [`Issuer`] says. Signatures are not verified here.
///
/// The detail of each finding begins with the place of the certificate: `chain 0, certificate 1`, the default chain being 0.
pub fn lint_ca_chain(issuer: &Issuer) -> Vec<Finding> {
    let mut findings = Vec::new();
    let others = issuer.other_chains.iter().map(Vec::as_slice);
    for (number, chain) in std::iter::once(issuer.chain.as_slice()).chain(others).enumerate() {
        let mut found = Vec::new();
        if chain.is_empty() || chain.len() > 10 {
            let detail = format!("a chain has 1 to 10 certificates, not {}", chain.len());
            found.push((0, Rule::chain(detail)));
        }
        if (1..chain.len()).any(|at| chain[..at].contains(&chain[at])) {
            found.push((0, Rule::chain("a certificate is there twice".into())));
        }
        let mut read = Vec::new();
        for (at, certificate) in chain.iter().enumerate() {
            match Envelope::read(certificate).and_then(|envelope| Ok((envelope, Tbs::read(envelope.tbs)?))) {
                Ok(parts) => read.push(parts),
                Err(unreadable) => found.push((at, Rule::unreadable(unreadable))),
            }
        }
        if read.len() == chain.len() {
            for at in 0..read.len() {
                let chain = &read;
                let default = number == 0;
                judge(
                    &Link {
                        at,
                        chain,
                        issuer,
                        default,
                    },
                    &mut found,
                );
            }
        }
        findings.extend(found.into_iter().map(|(at, finding)| {
            let detail = format!("chain {number}, certificate {at}: {}", finding.detail);
            Finding { detail, ..finding }
        }));
    }
    findings
}

impl Rule {
    fn chain(detail: String) -> Finding {
        let rule = &RULES[RULES.len() - 1];
        rule.finding(super::Fault { field: None, detail })
    }
}

fn judge(link: &Link<'_>, found: &mut Vec<(usize, Finding)>) {
    for rule in RULES {
        if let Check::Authority(check) = rule.check
            && let Err(fault) = check(link)
        {
            found.push((link.at, rule.finding(fault)));
        }
    }
}

fn version(link: &Link<'_>) -> Verdict {
    ensure(link.tbs().version == [2], || "it is not of version 3".into())
}

fn outer_algorithm(link: &Link<'_>) -> Verdict {
    envelope::outer_algorithm(&link.chain[link.at].0)
}

/// Not empty, and for the first byte for byte the issuer's name.
fn subject(link: &Link<'_>) -> Verdict {
    ensure(!link.tbs().subject.is_empty(), || "its subject is empty".into())?;
    ensure(link.at > 0 || link.tbs().subject.whole == &*link.issuer.subject, || {
        "its subject is not byte for byte the issuer's".into()
    })
}

/// The first has the issuer's key, of the issuer's type, which makes the issuer's kind of signature.
fn key(link: &Link<'_>) -> Verdict {
    let (key, issuer) = (&link.tbs().public_key, link.issuer);
    ensure(link.at > 0 || key.whole == &*issuer.public_key, || {
        "its key is not the issuer's".into()
    })?;
    ensure(link.at > 0 || key.key_type() == Some(issuer.key_type), || {
        format!("its key is not a well-formed {} key", issuer.key_type)
    })?;
    ensure(issuer.signature_algorithm.fits(issuer.key_type), || {
        format!(
            "a {} key makes no {:?} signatures",
            issuer.key_type, issuer.signature_algorithm
        )
    })
}

fn ca_true(link: &Link<'_>) -> Verdict {
    let constraints = link.tbs().extensions.basic_constraints;
    ensure(constraints.is_some_and(|constraints| constraints.ca), || {
        "basicConstraints does not say CA:TRUE".into()
    })
}

/// basicConstraints, keyUsage and nameConstraints are critical. A root is trusted as it is.
fn critical(link: &Link<'_>) -> Verdict {
    if link.at + 1 == link.chain.len() {
        return Ok(());
    }
    for kind in [
        ExtensionKind::BasicConstraints,
        ExtensionKind::KeyUsage,
        ExtensionKind::NameConstraints,
    ] {
        let critical = link
            .tbs()
            .extensions
            .find(kind)
            .is_none_or(|extension| extension.critical);
        ensure(critical, || format!("{} is not critical", kind.named().0))?;
    }
    Ok(())
}

fn key_cert_sign(link: &Link<'_>) -> Verdict {
    let usage = link.tbs().extensions.key_usage.unwrap_or_default();
    ensure(usage & bit(KeyUsage::KeyCertificateSign) != 0, || {
        "keyUsage does not say keyCertSign".into()
    })
}

/// For an issuer that signs revocation lists.
fn crl_sign(link: &Link<'_>) -> Verdict {
    let usage = link.tbs().extensions.key_usage.unwrap_or_default();
    let needed = link.at == 0 && link.issuer.usage.crl;
    ensure(!needed || usage & bit(KeyUsage::CrlSign) != 0, || {
        "keyUsage does not say cRLSign".into()
    })
}

/// How many CA certificates stand below it, self-issued ones not counted.
fn path_length(link: &Link<'_>) -> Verdict {
    let below = link.chain[..link.at]
        .iter()
        .filter(|(_, tbs)| tbs.issuer != tbs.subject.whole)
        .count();
    let limit = link
        .tbs()
        .extensions
        .basic_constraints
        .and_then(|constraints| constraints.path_length);
    ensure(limit.is_none_or(|limit| below <= usize::from(limit)), || {
        format!(
            "its path length is {}, below it are {below} CA certificates",
            limit.unwrap_or_default()
        )
    })
}

fn validity(link: &Link<'_>) -> Verdict {
    let tbs = link.tbs();
    ensure(tbs.not_before.secs <= tbs.not_after.secs, || {
        "its notBefore is after its notAfter".into()
    })
}

/// The issuer's notAfter is the earliest of the default chain.
fn not_after(link: &Link<'_>) -> Verdict {
    let earliest = link.chain.iter().map(|(_, tbs)| tbs.not_after.secs).min();
    ensure(
        !link.default || link.at > 0 || earliest == Some(link.issuer.not_after),
        || {
            format!(
                "the issuer's notAfter {} is not the earliest of the chain",
                link.issuer.not_after
            )
        },
    )
}

/// Byte for byte the subject of the next; the last is its own issuer.
fn issuer(link: &Link<'_>) -> Verdict {
    ensure(link.tbs().issuer == link.parent().subject.whole, || {
        "its issuer is not byte for byte the subject of the next (or of a root: its own)".into()
    })
}

fn subject_key_identifier(link: &Link<'_>) -> Verdict {
    let identifier = link.tbs().extensions.subject_key_identifier;
    ensure(identifier.is_some_and(|identifier| !identifier.is_empty()), || {
        "it has no subjectKeyIdentifier".into()
    })?;
    ensure(link.at > 0 || identifier == Some(&*link.issuer.subject_key_id), || {
        "its subjectKeyIdentifier is not the issuer's".into()
    })
}

/// The subjectKeyIdentifier of the next; a root may leave it out.
fn authority_key_identifier(link: &Link<'_>) -> Verdict {
    let identifier = link
        .tbs()
        .extensions
        .authority_key_identifier
        .and_then(|identifier| identifier.key);
    let root = link.at + 1 == link.chain.len();
    let good = match identifier {
        None => root,
        Some(identifier) => link.parent().extensions.subject_key_identifier == Some(identifier),
    };
    ensure(good, || {
        "its authorityKeyIdentifier is not the subjectKeyIdentifier of the next".into()
    })
}

fn name_constraints(link: &Link<'_>) -> Verdict {
    match NameConstraints::of(&link.tbs().extensions) {
        Ok(_) => Ok(()),
        Err(reason) => ensure(false, || format!("nameConstraints: {reason}")),
    }
}

fn extension_repeated(link: &Link<'_>) -> Verdict {
    let all = &link.tbs().extensions.all;
    let repeated = all
        .iter()
        .enumerate()
        .any(|(at, extension)| all[..at].iter().any(|other| other.oid == extension.oid));
    ensure(!repeated, || "an extension is there twice".into())
}

/// A CA certificate with OCSPSigning could answer for the CA above it.
fn purpose(link: &Link<'_>) -> Verdict {
    let extensions = &link.tbs().extensions;
    ensure(!extensions.has_purpose(oid::OCSP_SIGNING), || {
        "extKeyUsage says OCSPSigning".into()
    })
}
