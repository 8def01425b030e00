//! What is around a to-be-signed certificate: the outer algorithm and the signature (RFC 5280, 4.1.1).

use super::{
    Check, Fault, Finding, Rule, Verdict, ensure,
    parser::{Element, Malformed, Reader, check, tag},
    primitive::bit_string,
    tbs::{Unreadable, within},
};

pub(super) const RULES: &[Rule] = &[
    rule("outer-signature-algorithm", "RFC 5280 4.1.1.2", outer_algorithm),
    rule("signature-bits", "RFC 5280 4.1.1.3; RFC 5758 3.2", signature_bits),
];

const fn rule(id: &'static str, citation: &'static str, check: fn(&Envelope<'_>) -> Verdict) -> Rule {
    let check = Check::Envelope(check);
    Rule {
        id,
        citation,
        field: "",
        check,
    }
}

/// A Certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    /// The TBSCertificate.
    pub tbs: &'a [u8],
    /// The outer AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    /// Unused bits and bytes of the signature.
    pub signature: (u8, &'a [u8]),
}

impl<'a> Envelope<'a> {
    pub(super) fn read(der: &'a [u8]) -> Result<Self, Unreadable> {
        Self::parts(der).map_err(within("the certificate", ""))
    }

    fn parts(der: &'a [u8]) -> Result<Self, Malformed> {
        check(der)?;
        let mut reader = Reader::sequence_in(der, "Certificate")?;
        let tbs = reader.expect(tag::SEQUENCE, "tbsCertificate")?.whole;
        let algorithm = reader.expect(tag::SEQUENCE, "signatureAlgorithm")?.whole;
        let signature = bit_string(reader.expect(tag::BIT_STRING, "signatureValue")?.content)?;
        reader.end()?;
        Ok(Self {
            tbs,
            algorithm,
            signature,
        })
    }

    /// The inner AlgorithmIdentifier: the first SEQUENCE of the to-be-signed part. Empty if there is none.
    pub(super) fn inner_algorithm(&self) -> &'a [u8] {
        let inner = Reader::sequence_in(self.tbs, "TBSCertificate").and_then(|mut reader| {
            reader.optional(tag::context_constructed(0))?;
            reader.expect(tag::INTEGER, "serialNumber")?;
            Ok(reader.expect(tag::SEQUENCE, "signature")?.whole)
        });
        inner.unwrap_or_default()
    }
}

/// The findings about a Certificate, with those that `lint_tbs` has about the to-be-signed part.
pub(super) fn lint(der: &[u8], lint_tbs: impl FnOnce(&[u8]) -> Vec<Finding>) -> Vec<Finding> {
    let envelope = match Envelope::read(der) {
        Ok(envelope) => envelope,
        Err(unreadable) => return vec![Rule::unreadable(unreadable)],
    };
    let mut findings = lint_tbs(envelope.tbs);
    for rule in RULES {
        if let Check::Envelope(check) = rule.check
            && let Err(fault) = check(&envelope)
        {
            findings.push(rule.finding(fault));
        }
    }
    findings
}

pub(super) fn outer_algorithm(envelope: &Envelope<'_>) -> Verdict {
    ensure(envelope.algorithm == envelope.inner_algorithm(), || {
        "the outer signature algorithm is not byte for byte the inner one".into()
    })
}

/// Whole bytes; an ECDSA signature is a SEQUENCE of two positive INTEGERs.
fn signature_bits(envelope: &Envelope<'_>) -> Verdict {
    let (unused, bytes) = envelope.signature;
    let ecdsa: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let is_ecdsa = envelope.algorithm.get(4..).is_some_and(|oid| oid.starts_with(ecdsa));
    let sound = !is_ecdsa || is_pair(bytes).unwrap_or(false);
    if unused == 0 && !bytes.is_empty() && sound {
        Ok(())
    } else {
        let field = None;
        let detail = "the signature is not made of whole bytes in the form of its algorithm".into();
        Err(Fault { field, detail })
    }
}

fn is_pair(der: &[u8]) -> Result<bool, Malformed> {
    check(der)?;
    let numbers = Reader::sequence_in(der, "Ecdsa-Sig-Value")?.each(Ok)?;
    let positive =
        |number: &Element<'_>| number.tag == tag::INTEGER && number.content != [0] && number.content[0] < 0x80;
    Ok(numbers.len() == 2 && numbers.iter().all(positive))
}
