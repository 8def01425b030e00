//! Key usage, extended key usage and basic constraints (RFC 5280, 4.2.1.3, 4.2.1.9 and 4.2.1.12).

use domain::{issuer::Purpose, policy::Flag, request::KeyUsage};

use super::{
    Leaf, Rule, Verdict, ensure,
    extension::ExtensionKind,
    key::Material,
    oid,
    primitive::{dotted, is_dotted},
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf("key-usage-empty", "RFC 5280 4.2.1.3", "key_usages", usage_empty),
    Rule::leaf(
        "key-usage-for-key",
        "RFC 3279 2.3; RFC 8813 3; RFC 8410 5",
        "key_usages",
        usage_for_key,
    ),
    Rule::leaf(
        "key-usage-for-purpose",
        "RFC 5280 4.2.1.12",
        "key_usages",
        usage_for_purpose,
    ),
    Rule::leaf("key-usage-own", "profile key_usages", "key_usages", usage_own),
    Rule::leaf(
        "purpose-own",
        "profile extended_key_usages",
        "extended_key_usages",
        purpose_own,
    ),
    Rule::leaf("key-usage-agreement", "RFC 5280 4.2.1.3", "key_usages", usage_agreement),
    Rule::leaf("leaf-key-usage", "RFC 5280 4.2.1.3, 4.2.1.9", "key_usages", leaf_usage),
    Rule::leaf(
        "leaf-basic-constraints",
        "RFC 5280 4.2.1.9; BR 7.1.2.7",
        "custom_extensions",
        leaf_basic_constraints,
    ),
    Rule::leaf("any-purpose", "BR 7.1.2.7.10", "extended_key_usages", any_purpose),
    Rule::leaf(
        "purpose-repeated",
        "RFC 5280 4.2.1.12",
        "extended_key_usages",
        purpose_repeated,
    ),
    Rule::leaf(
        "ocsp-signing-alone",
        "RFC 6960 4.2.2.2; BR 7.1.2.8.5",
        "extended_key_usages",
        ocsp_signing_alone,
    ),
    Rule::leaf(
        "ocsp-signing-profile",
        "RFC 6960 4.2.2.2; BR 7.1.2.8",
        "extended_key_usages",
        ocsp_signing_profile,
    ),
    Rule::leaf("ocsp-no-check", "RFC 6960 4.2.2.2.1; BR 4.9.9", "", ocsp_no_check),
    Rule::leaf(
        "time-stamping-alone",
        "RFC 3161 2.3",
        "extended_key_usages",
        time_stamping_alone,
    ),
    Rule::leaf(
        "time-stamping-critical",
        "RFC 3161 2.3",
        "extended_key_usages",
        time_stamping_critical,
    ),
    Rule::leaf(
        "time-stamping-profile",
        "RFC 3161 2.3",
        "extended_key_usages",
        time_stamping_profile,
    ),
];

/// The bit of a usage in [`super::extension::Extensions::key_usage`].
pub(super) const fn bit(usage: KeyUsage) -> u16 {
    0x8000 >> usage as u16
}

/// Any of these bits.
const fn bits(usages: &[KeyUsage]) -> u16 {
    let mut bits = 0;
    let mut at = 0;
    while at < usages.len() {
        bits |= bit(usages[at]);
        at += 1;
    }
    bits
}

use KeyUsage::{
    ContentCommitment, CrlSign, DataEncipherment, DecipherOnly, DigitalSignature, EncipherOnly, KeyAgreement,
    KeyCertificateSign, KeyEncipherment,
};

/// The bits that the profile fixes are as it fixes them.
fn usage_own(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy.key_usages;
    let usage = leaf.tbs.extensions.key_usage.unwrap_or_default();
    let fixed = [
        (DigitalSignature, policy.digital_signature),
        (ContentCommitment, policy.content_commitment),
        (KeyEncipherment, policy.key_encipherment),
        (DataEncipherment, policy.data_encipherment),
        (KeyAgreement, policy.key_agreement),
        (KeyCertificateSign, policy.key_certificate_sign),
        (CrlSign, policy.crl_sign),
        (EncipherOnly, policy.encipher_only),
        (DecipherOnly, policy.decipher_only),
    ];
    for (name, flag) in fixed {
        let set = usage & bit(name) != 0;
        let kept = match flag {
            Flag::Optional => true,
            Flag::StaticTrue => set,
            Flag::StaticFalse => !set,
        };
        ensure(kept, || {
            format!(
                "{name:?} is {}set, and the profile fixes it otherwise",
                if set { "" } else { "not " }
            )
        })?;
    }
    Ok(())
}

/// Where the profile fixes the purposes, exactly these in its order.
fn purpose_own(leaf: &Leaf<'_>) -> Verdict {
    let policy = &leaf.profile.policy.extended_key_usages.ekus;
    let purposes = leaf.tbs.extensions.extended_key_usage.as_deref().unwrap_or_default();
    let exact = purposes.len() == policy.list.len()
        && purposes
            .iter()
            .zip(&policy.list)
            .all(|(purpose, wanted)| is_dotted(purpose, wanted.as_str()));
    ensure(!policy.is_static || exact, || {
        "the purposes are not those that the profile fixes".into()
    })
}

fn usage_empty(leaf: &Leaf<'_>) -> Verdict {
    ensure(leaf.tbs.extensions.key_usage != Some(0), || {
        "keyUsage has no bit set".into()
    })
}

/// RSA keys do not agree on keys; elliptic curve keys encipher nothing; Ed25519 keys only sign.
fn usage_for_key(leaf: &Leaf<'_>) -> Verdict {
    let Some(usage) = leaf.tbs.extensions.key_usage else {
        return Ok(());
    };
    let (key, forbidden) = match leaf.tbs.public_key.material {
        Material::Rsa { .. } => ("an RSA", bits(&[KeyAgreement, EncipherOnly, DecipherOnly])),
        Material::Point { .. } => ("an elliptic curve", bits(&[KeyEncipherment, DataEncipherment])),
        Material::Ed25519(_) => (
            "an Ed25519",
            bits(&[
                KeyEncipherment,
                DataEncipherment,
                KeyAgreement,
                EncipherOnly,
                DecipherOnly,
            ]),
        ),
        Material::Other => return Ok(()),
    };
    ensure(usage & forbidden == 0, || {
        format!("keyUsage {usage:016b} has bits that {key} key cannot be used for")
    })
}

/// What each purpose can be reached with; one of these bits has to be there for each purpose.
const CONSISTENT: &[(&[u8], u16)] = &[
    (
        oid::SERVER_AUTH,
        bits(&[DigitalSignature, KeyEncipherment, KeyAgreement]),
    ),
    (oid::CLIENT_AUTH, bits(&[DigitalSignature, KeyAgreement])),
    (oid::CODE_SIGNING, bits(&[DigitalSignature])),
    (
        oid::EMAIL_PROTECTION,
        bits(&[DigitalSignature, ContentCommitment, KeyEncipherment, KeyAgreement]),
    ),
    (oid::TIME_STAMPING, bits(&[DigitalSignature, ContentCommitment])),
    (oid::OCSP_SIGNING, bits(&[DigitalSignature, ContentCommitment])),
];

fn usage_for_purpose(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    let Some(usage) = extensions.key_usage.filter(|usage| *usage != 0) else {
        return Ok(());
    };
    for (purpose, any_of) in CONSISTENT {
        ensure(usage & any_of != 0 || !extensions.has_purpose(purpose), || {
            format!(
                "keyUsage {usage:016b} has no bit that purpose {} needs",
                dotted(purpose)
            )
        })?;
    }
    Ok(())
}

/// encipherOnly and decipherOnly say something about keyAgreement, and contradict each other.
fn usage_agreement(leaf: &Leaf<'_>) -> Verdict {
    let usage = leaf.tbs.extensions.key_usage.unwrap_or_default();
    let only = usage & bits(&[EncipherOnly, DecipherOnly]);
    ensure(
        only == 0 || usage & bit(KeyAgreement) != 0 && only.is_power_of_two(),
        || "encipherOnly or decipherOnly stands without keyAgreement, or with the other".into(),
    )
}

fn leaf_usage(leaf: &Leaf<'_>) -> Verdict {
    let usage = leaf.tbs.extensions.key_usage.unwrap_or_default();
    ensure(usage & bits(&[KeyCertificateSign, CrlSign]) == 0, || {
        "keyCertSign and cRLSign are for CA certificates".into()
    })
}

fn leaf_basic_constraints(leaf: &Leaf<'_>) -> Verdict {
    let constraints = leaf.tbs.extensions.basic_constraints;
    ensure(
        constraints.is_none_or(|constraints| !constraints.ca && constraints.path_length.is_none()),
        || "basicConstraints says CA:TRUE, or has a path length".into(),
    )
}

fn any_purpose(leaf: &Leaf<'_>) -> Verdict {
    ensure(!leaf.tbs.extensions.has_purpose(oid::ANY_PURPOSE), || {
        "anyExtendedKeyUsage".into()
    })
}

fn purpose_repeated(leaf: &Leaf<'_>) -> Verdict {
    let Some(purposes) = &leaf.tbs.extensions.extended_key_usage else {
        return Ok(());
    };
    for (at, purpose) in purposes.iter().enumerate() {
        ensure(!purposes[..at].contains(purpose), || {
            format!("purpose {} is repeated", dotted(purpose))
        })?;
    }
    Ok(())
}

fn alone(leaf: &Leaf<'_>, purpose: &[u8], name: &str) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    let others = extensions
        .extended_key_usage
        .iter()
        .flatten()
        .any(|other| *other != purpose);
    ensure(!(others && extensions.has_purpose(purpose)), || {
        format!("{name} stands beside other purposes")
    })
}

fn for_purpose(leaf: &Leaf<'_>, oid: &[u8], purpose: Purpose, name: &str) -> Verdict {
    let (has, wanted) = (leaf.tbs.extensions.has_purpose(oid), leaf.profile.purpose == purpose);
    ensure(has == wanted, || {
        if has {
            format!("{name} is not for this profile")
        } else {
            format!("{name} is missing")
        }
    })
}

fn ocsp_signing_alone(leaf: &Leaf<'_>) -> Verdict {
    alone(leaf, oid::OCSP_SIGNING, "OCSPSigning")
}

fn ocsp_signing_profile(leaf: &Leaf<'_>) -> Verdict {
    for_purpose(leaf, oid::OCSP_SIGNING, Purpose::OcspSigner, "OCSPSigning")
}

/// id-pkix-ocsp-nocheck, a NULL, exactly in OCSP signers' certificates.
fn ocsp_no_check(leaf: &Leaf<'_>) -> Verdict {
    let extension = leaf.tbs.extensions.find(ExtensionKind::OcspNoCheck);
    let wanted = leaf.profile.purpose == Purpose::OcspSigner;
    ensure(extension.is_some() == wanted, || {
        format!(
            "id-pkix-ocsp-nocheck is {}",
            if wanted { "missing" } else { "not for this profile" }
        )
    })?;
    ensure(
        extension.is_none_or(|extension| extension.value == [0x05, 0x00]),
        || "id-pkix-ocsp-nocheck is not NULL".into(),
    )
}

fn time_stamping_alone(leaf: &Leaf<'_>) -> Verdict {
    alone(leaf, oid::TIME_STAMPING, "timeStamping")
}

fn time_stamping_critical(leaf: &Leaf<'_>) -> Verdict {
    let extensions = &leaf.tbs.extensions;
    let critical = extensions
        .find(ExtensionKind::ExtendedKeyUsage)
        .is_some_and(|extension| extension.critical);
    ensure(critical || !extensions.has_purpose(oid::TIME_STAMPING), || {
        "extKeyUsage with timeStamping is not critical".into()
    })
}

fn time_stamping_profile(leaf: &Leaf<'_>) -> Verdict {
    for_purpose(leaf, oid::TIME_STAMPING, Purpose::Tsa, "timeStamping")
}
