//! Admission: whether a request may become a job, and what its certificate will say.
//!
//! [`admit`] settles a request into [`Content`]: it fills in what the policy fixes and refuses what it fixes otherwise. [`check`]
//! judges a content by the whole policy. The front end does both; the signer does the second again, under the profile then in force.

mod extensions;
mod names;
mod subject;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use crate::{
    bytes::Blob,
    issuer::{BeyondIssuer, Issuer, Profile, Purpose},
    key::KeyType,
    policy::{Presence, StringPolicy},
    registry::Terms,
    request::{Content, Request},
    time::Timestamp,
};

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// HVCA's path of the field, `subject_dn.common_name`.
    pub field: String,
    /// What is wrong and, where it helps, what to do: `is required`.
    pub problem: String,
    /// Which problem id it has.
    pub kind: ViolationKind,
}

/// What sort of violation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// The policy does not allow it.
    Policy,
    /// The public key is not of the pinned type.
    KeyType,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Gathers violations under a common path.
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            problem: problem.into(),
            kind: ViolationKind::Policy,
        });
    }

    /// A text that a request may give. Says what goes into the certificate: the literal when static.
    fn settle(&mut self, field: &str, policy: &StringPolicy, given: Option<&String>) -> Option<String> {
        match (policy.presence, given) {
            (Presence::Static, Some(_)) => {
                self.add(field, "is static");
                None
            }
            (Presence::Static, None) => Some(policy.format.as_str().to_owned()),
            (_, given) => given.cloned(),
        }
    }

    /// A text that is in a content, or is not.
    fn judge(&mut self, field: &str, policy: &StringPolicy, value: Option<&str>) {
        match (policy.presence, value) {
            (Presence::Forbidden, Some(_)) => self.add(field, "is forbidden"),
            (Presence::Required | Presence::Static, None) => self.add(field, "is required"),
            (Presence::Static, Some(value)) if value != policy.format.as_str() => self.add(field, "is static"),
            (Presence::Required | Presence::Optional, Some(value)) if !policy.format.matches(value) => {
                self.add(field, format!("does not match {}", policy.format.as_str()));
            }
            _ => {}
        }
    }

    fn count(&mut self, field: &str, count: usize, least: u32, most: u32) {
        if count < least as usize {
            self.add(
                field,
                if least == 1 {
                    "is required".into()
                } else {
                    format!("needs at least {least} values")
                },
            );
        } else if count > most as usize {
            let problem = if most == 0 {
                "is forbidden".into()
            } else {
                format!("allows at most {most} values")
            };
            self.add(field, problem);
        }
    }

    fn end<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// Settles a request under `terms` at `now`: what the certificate will say, or everything that is wrong.
///
/// `key` is the DER SubjectPublicKeyInfo that the request brought, already read and of type `key_type`.
pub fn admit(
    request: &Request,
    key: &[u8],
    key_type: KeyType,
    terms: &Terms,
    now: Timestamp,
) -> Result<Content, Vec<Violation>> {
    let policy = &terms.profile.policy;
    let mut findings = Findings(Vec::new());
    let (not_before, not_after) = times(request, terms, now, &mut findings);
    let extended_key_usage = extensions::settle_extended_key_usages(request, policy, &mut findings);
    let mut subject = subject::settle(request, policy, &mut findings);
    names::settle_common_name(&mut subject, &extended_key_usage);
    let san = names::settle(request, policy, &subject, &extended_key_usage, &mut findings);
    let subject_da = extensions::settle_subject_da(request, policy, &mut findings);
    let subject_da_extra = extensions::settle_subject_da_extra(request, policy, &mut findings);
    settle_signature(request, policy, &mut findings);
    let content = Content {
        subject,
        san,
        key_usage: extensions::settle_key_usages(request, policy, &mut findings),
        extended_key_usage,
        extended_key_usage_critical: policy.extended_key_usages.critical,
        certificate_policies: terms.profile.certificate_policies.clone(),
        ocsp_no_check: terms.profile.purpose == Purpose::OcspSigner,
        subject_da,
        subject_da_extra,
        qualified_statements: extensions::settle_qualified_statements(request, policy, &mut findings),
        ms_extension_template: extensions::settle_ms_template(request, policy, &mut findings),
        custom_extensions: extensions::settle_custom(request, policy, &mut findings),
        public_key: Blob(key.to_vec()),
        not_before,
        not_after,
    };
    match (
        findings.end(()),
        check(&content, key_type, &terms.profile, &terms.issuer),
    ) {
        (Ok(()), Ok(())) => Ok(content),
        (Err(mut all), Err(more)) => {
            for violation in more {
                if !all.iter().any(|known| known.field == violation.field) {
                    all.push(violation);
                }
            }
            Err(all)
        }
        (Err(all), Ok(())) | (Ok(()), Err(all)) => Err(all),
    }
}

/// Settles a rekey under `terms` at `now`: what the old certificate says, for another key, from now on until the old one would have
/// ended. Of `request` only the wanted signature and the proof of possession are looked at.
pub fn rekey(
    old: Content,
    request: &Request,
    key: &[u8],
    key_type: KeyType,
    terms: &Terms,
    now: Timestamp,
) -> Result<Content, Vec<Violation>> {
    let mut findings = Findings(Vec::new());
    settle_signature(request, &terms.profile.policy, &mut findings);
    let content = Content {
        public_key: Blob(key.to_vec()),
        not_before: now.as_secs(),
        not_after: within_issuer(old.not_after, terms),
        ..old
    };
    if content.not_after <= content.not_before {
        findings.add("validity.not_after", "is past: request a new certificate instead");
        return findings.end(content);
    }
    match check(&content, key_type, &terms.profile, &terms.issuer) {
        Ok(()) => findings.end(content),
        Err(more) => {
            findings.0.extend(more);
            findings.end(content)
        }
    }
}

/// Judges a content by the whole of a profile: every rule, whoever settled it.
pub fn check(content: &Content, key_type: KeyType, profile: &Profile, issuer: &Issuer) -> Result<(), Vec<Violation>> {
    let policy = &profile.policy;
    let mut findings = Findings(Vec::new());
    if !policy.public_key.allows(key_type) {
        let pins: Vec<_> = policy.public_key.pins().iter().map(|pin| pin.as_str()).collect();
        findings.0.push(Violation {
            field: "public_key".into(),
            problem: format!("is {key_type}, and profile {} takes {}", profile.id, pins.join(" or ")),
            kind: ViolationKind::KeyType,
        });
    }
    let seconds = content.not_after.saturating_sub(content.not_before).saturating_add(1);
    if seconds < policy.validity.secondsmin || seconds > policy.validity.secondsmax {
        findings.add(
            "validity.not_after",
            format!(
                "gives {seconds} seconds, and the policy takes {} to {}",
                policy.validity.secondsmin, policy.validity.secondsmax
            ),
        );
    }
    if content.not_after > issuer.not_after {
        findings.add(
            "validity.not_after",
            format!("is after the issuer's own end, {}", issuer.not_after),
        );
    }
    subject::check(content, policy, &mut findings);
    names::check(content, profile, &mut findings);
    extensions::check(content, profile, &mut findings);
    findings.end(())
}

/// notBefore and notAfter, both inclusive, in UNIX seconds.
fn times(request: &Request, terms: &Terms, now: Timestamp, findings: &mut Findings) -> (i64, i64) {
    let policy = &terms.profile.policy.validity;
    let now = now.as_secs();
    let not_before = match request.validity.not_before {
        None | Some(0) => now,
        Some(wanted) => wanted.max(now.saturating_sub(policy.not_before_negative_skew)),
    };
    if not_before > now.saturating_add(policy.not_before_positive_skew) {
        let latest = now.saturating_add(policy.not_before_positive_skew);
        findings.add(
            "validity.not_before",
            format!("is too far ahead; the latest is {latest}"),
        );
    }
    let longest = not_before.saturating_add(policy.secondsmax.saturating_sub(1));
    let not_after = match request.validity.not_after {
        None | Some(0) => longest,
        // Clients add the maximum to not_before; both ends count, so that is one second too many, which nobody misses.
        Some(wanted) if wanted == longest.saturating_add(1) => longest,
        Some(wanted) => wanted,
    };
    if not_after <= not_before {
        findings.add("validity.not_after", "is not after not_before");
    }
    (not_before, within_issuer(not_after, terms))
}

/// A notAfter, shortened to the chain's own where the profile says so.
fn within_issuer(not_after: i64, terms: &Terms) -> i64 {
    match terms.profile.beyond_issuer {
        BeyondIssuer::Clip => not_after.min(terms.issuer.not_after),
        BeyondIssuer::Refuse => not_after,
    }
}

/// The issuer's key decides how it signs: a request may only name what happens anyway.
fn settle_signature(request: &Request, policy: &crate::policy::Policy, findings: &mut Findings) {
    let parts = [
        (
            "signature.algorithm",
            &policy.signature.algorithm,
            &request.signature.algorithm,
        ),
        (
            "signature.hash_algorithm",
            &policy.signature.hash_algorithm,
            &request.signature.hash_algorithm,
        ),
    ];
    for (field, choice, given) in parts {
        match (choice.presence, given) {
            (Presence::Required, None) => findings.add(field, "is required"),
            (Presence::Static, Some(_)) => findings.add(field, "is static"),
            (Presence::Forbidden, Some(_)) => findings.add(field, "is forbidden"),
            (_, Some(given)) if !choice.list.contains(given) => {
                findings.add(
                    field,
                    format!("is {given}, and the policy takes {}", choice.list.join(" or ")),
                );
            }
            _ => {}
        }
    }
    match (policy.public_key_signature, &request.public_key_signature) {
        (Presence::Required, None) => findings.add("public_key_signature", "is required"),
        (Presence::Static, Some(_)) => findings.add("public_key_signature", "is static"),
        (Presence::Forbidden, Some(_)) => findings.add("public_key_signature", "is forbidden"),
        _ => {}
    }
}

/// How long after notBefore a signature may still be made (BR 7.1.2.7: notBefore within 48 hours of signing).
pub const SIGNING_WINDOW: Duration = Duration::from_hours(48);

/// Until when anybody wants the certificate: the profile's time after acceptance, but never past notBefore + 48 h, nor past notAfter.
pub fn sign_by(accepted_at: Timestamp, profile: &Profile, content: &Content) -> Timestamp {
    (accepted_at + profile.sign_within)
        .min(Timestamp::from_secs(content.not_before) + SIGNING_WINDOW)
        .min(Timestamp::from_secs(content.not_after))
}

/// Whether a policy can be kept at all: every pattern is a regular expression, every count makes sense. Asked when a profile is
/// registered, so that no request meets a policy that nobody can satisfy.
pub fn check_profile(profile: &Profile) -> Result<(), Vec<Violation>> {
    let mut findings = Findings(Vec::new());
    let validity = &profile.policy.validity;
    if validity.secondsmin < 1 || validity.secondsmin > validity.secondsmax {
        findings.add("validity.secondsmin", "must be at least 1 and at most secondsmax");
    }
    if validity.not_before_negative_skew < 0 || validity.not_before_positive_skew < 0 {
        findings.add("validity", "skews are not negative");
    }
    if profile.policy.public_key.pins().is_empty() {
        findings.add(
            "public_key.allowed_lengths",
            "names no key type that exists: nothing could be issued",
        );
    }
    if profile.sign_within > SIGNING_WINDOW {
        findings.add("sign_within", "is longer than 48 h");
    }
    subject::check_policy(&profile.policy, &mut findings);
    names::check_policy(&profile.policy, &mut findings);
    extensions::check_policy(&profile.policy, &mut findings);
    findings.end(())
}
