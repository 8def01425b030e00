//! Version, serial number, signature algorithm, issuer and validity (RFC 5280, 4.1.2.1 to 4.1.2.5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use domain::key::SignatureAlgorithm;

use super::{Leaf, Rule, Verdict, ensure};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf("version-3", "RFC 5280 4.1.2.1", "", version),
    Rule::leaf("serial-range", "RFC 5280 4.1.2.2", "", serial_range),
    Rule::leaf("serial-form", "BR 7.1.2.7", "", serial_form),
    Rule::leaf(
        "signature-algorithm",
        "RFC 5280 4.1.2.3; RFC 4055 5; RFC 5758 3.2; RFC 8410 3; BR 7.1.3.2",
        "signature",
        signature,
    ),
    Rule::leaf("issuer-name", "RFC 5280 4.1.2.4; BR 7.1.4.1", "", issuer_name),
    Rule::leaf("unique-identifiers", "RFC 5280 4.1.2.8", "", unique_identifiers),
    Rule::leaf("validity-order", "RFC 5280 4.1.2.5", "validity", validity_order),
    Rule::leaf("validity-time-form", "RFC 5280 4.1.2.5", "validity", validity_time_form),
    Rule::leaf(
        "validity-length",
        "RFC 5280 4.1.2.5; BR 6.3.2",
        "validity.not_after",
        validity_length,
    ),
    Rule::leaf(
        "validity-within-chain",
        "RFC 5280 6.1.3",
        "validity.not_after",
        validity_within_chain,
    ),
    Rule::leaf(
        "authority-key-identifier",
        "RFC 5280 4.2.1.1; BR 7.1.2.11.1",
        "",
        authority_key_identifier,
    ),
    Rule::leaf(
        "subject-key-identifier",
        "RFC 5280 4.2.1.2; RFC 7093 2",
        "",
        subject_key_identifier,
    ),
];

fn version(leaf: &Leaf<'_>) -> Verdict {
    ensure(leaf.tbs.version == [2], || {
        format!("the version field is {:02x?}, not 2", leaf.tbs.version)
    })
}

/// Positive, and at most 20 octets in DER, that is below 2^159.
fn serial_range(leaf: &Leaf<'_>) -> Verdict {
    let serial = leaf.tbs.serial;
    let positive = serial.first().is_some_and(|first| *first < 0x80) && serial != [0];
    ensure(positive && serial.len() <= 20, || {
        "the serial number is not within 1 and 2^159 - 1".into()
    })
}

/// The form of this installation's serials, which holds 80 random bits.
fn serial_form(leaf: &Leaf<'_>) -> Verdict {
    ensure(leaf.serial.is_some() || serial_range(leaf).is_err(), || {
        "the serial number is not 16 bytes that begin with 01".into()
    })
}

/// The AlgorithmIdentifier of a signature, in DER, with exact parameters: NULL for RSA, absent for the others.
pub(super) const fn algorithm_identifier(algorithm: SignatureAlgorithm) -> &'static [u8] {
    macro_rules! rsa {
        ($last:literal) => {
            &[
                0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, $last, 0x05, 0x00,
            ]
        };
    }
    macro_rules! ecdsa {
        ($last:literal) => {
            &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, $last,
            ]
        };
    }
    match algorithm {
        SignatureAlgorithm::RsaSha256 => rsa!(0x0b),
        SignatureAlgorithm::RsaSha384 => rsa!(0x0c),
        SignatureAlgorithm::RsaSha512 => rsa!(0x0d),
        SignatureAlgorithm::EcdsaSha256 => ecdsa!(0x02),
        SignatureAlgorithm::EcdsaSha384 => ecdsa!(0x03),
        SignatureAlgorithm::EcdsaSha512 => ecdsa!(0x04),
        SignatureAlgorithm::Ed25519 => &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70],
    }
}

fn signature(leaf: &Leaf<'_>) -> Verdict {
    let algorithm = leaf.context.issuer.signature_algorithm;
    ensure(leaf.tbs.signature == algorithm_identifier(algorithm), || {
        format!(
            "the signature algorithm is not exactly the issuer's, {algorithm:?}: {:02x?}",
            leaf.tbs.signature
        )
    })
}

fn issuer_name(leaf: &Leaf<'_>) -> Verdict {
    ensure(leaf.tbs.issuer == &*leaf.context.issuer.subject, || {
        "the issuer is not byte for byte the subject of the CA certificate".into()
    })
}

fn unique_identifiers(leaf: &Leaf<'_>) -> Verdict {
    ensure(!leaf.tbs.unique_identifiers, || "there is a unique identifier".into())
}

fn validity_order(leaf: &Leaf<'_>) -> Verdict {
    let (from, until) = (leaf.tbs.not_before.secs, leaf.tbs.not_after.secs);
    ensure(from <= until, || format!("notBefore {from} is after notAfter {until}"))
}

/// 2050-01-01T00:00:00Z: from here on a time is a GeneralizedTime.
const YEAR_2050: i64 = 2_524_608_000;

fn validity_time_form(leaf: &Leaf<'_>) -> Verdict {
    for (name, time) in [("notBefore", leaf.tbs.not_before), ("notAfter", leaf.tbs.not_after)] {
        ensure(time.generalized == (time.secs >= YEAR_2050), || {
            format!("{name}: through 2049 a time is UTCTime, from 2050 on GeneralizedTime")
        })?;
    }
    Ok(())
}

/// Both ends of the validity period count.
fn validity_length(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy.validity;
    let length = leaf.tbs.not_after.secs - leaf.tbs.not_before.secs + 1;
    ensure(
        length < 1 || (policy.secondsmin..=policy.secondsmax).contains(&length),
        || {
            format!(
                "valid for {length} seconds, where the profile allows {} to {}",
                policy.secondsmin, policy.secondsmax
            )
        },
    )
}

fn validity_within_chain(leaf: &Leaf<'_>) -> Verdict {
    let (until, limit) = (leaf.tbs.not_after.secs, leaf.context.issuer.not_after);
    ensure(until <= limit, || {
        format!("notAfter {until} is beyond the chain's earliest notAfter {limit}")
    })
}

/// The issuer's key identifier, and neither name nor serial of its certificate.
fn authority_key_identifier(leaf: &Leaf<'_>) -> Verdict {
    let issuer = &leaf.context.issuer;
    let identifier = leaf.tbs.extensions.authority_key_identifier;
    let exact = identifier.is_some_and(|id| id.key == Some(&*issuer.subject_key_id) && !id.certificate);
    ensure(exact, || {
        "the authorityKeyIdentifier is not exactly the subjectKeyIdentifier of the issuer".into()
    })
}

/// Derived from the key: 160 bits of a hash of the BIT STRING's contents, of SHA-256 or, as long was usual, of SHA-1.
fn subject_key_identifier(leaf: &Leaf<'_>) -> Verdict {
    let Some(identifier) = leaf.tbs.extensions.subject_key_identifier else {
        return Ok(());
    };
    let hash = |algorithm| digest(algorithm, leaf.tbs.public_key.bits);
    let derived = hash(&SHA256).as_ref()[..20] == *identifier || hash(&SHA1_FOR_LEGACY_USE_ONLY).as_ref() == identifier;
    ensure(derived, || {
        "the subjectKeyIdentifier is not derived from the public key".into()
    })
}
