//! Subject alternative names.

use std::net::IpAddr;

use super::{
    Findings,
    subject::{COMMON_NAME, check_list, check_patterns, check_typed, check_typed_policy, settle_list, settle_typed},
};
use crate::{
    issuer::Profile,
    policy::{Pattern, Policy},
    request::{AlternativeNames, Content, Oid, Request, TypedValue},
};

/// id-kp-serverAuth (RFC 5280, 4.2.1.12).
const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";

/// The names as they will be encoded. A common name that is a DNS name is among them in a server's certificate, asked for or not
/// (BR 7.1.4.3: the common name is one of the alternative names).
pub(super) fn settle(
    request: &Request,
    policy: &Policy,
    subject: &[TypedValue],
    extended_key_usage: &[Oid],
    findings: &mut Findings,
) -> AlternativeNames {
    let given = &request.san;
    let policy = &policy.san;
    let mut dns_names: Vec<String> = settle_list("san.dns_names", &policy.dns_names, &given.dns_names, findings)
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let ip_addresses: Vec<IpAddr> =
        settle_list("san.ip_addresses", &policy.ip_addresses, &given.ip_addresses, findings)
            .iter()
            .filter_map(|text| {
                let address = text.parse().ok();
                if address.is_none() {
                    findings.add("san.ip_addresses", format!("{text:?} is not an IP address"));
                }
                address
            })
            .collect();
    if extended_key_usage.iter().any(|oid| oid == SERVER_AUTH) {
        let common_name = subject
            .iter()
            .find(|value| value.oid == COMMON_NAME)
            .map(|value| value.value.to_ascii_lowercase());
        if let Some(name) = common_name
            && looks_like_dns(&name)
            && !dns_names.contains(&name)
            && !policy.dns_names.is_static
            && policy.dns_names.maxcount > 0
        {
            dns_names.insert(0, name);
        }
    }
    AlternativeNames {
        critical: policy.critical || subject.is_empty(),
        dns_names,
        emails: settle_list("san.emails", &policy.emails, &given.emails, findings),
        ip_addresses,
        uris: settle_list("san.uris", &policy.uris, &given.uris, findings),
        other_names: settle_typed("san.other_names", &policy.other_names, &given.other_names, findings),
    }
}

/// A server's common name that is a DNS name is written as the alternative name is (BR 7.1.4.3 compares them character by character).
pub(super) fn settle_common_name(subject: &mut [TypedValue], extended_key_usage: &[Oid]) {
    if extended_key_usage.iter().any(|oid| oid == SERVER_AUTH) {
        for name in subject
            .iter_mut()
            .filter(|value| value.oid == COMMON_NAME && looks_like_dns(&value.value))
        {
            name.value.make_ascii_lowercase();
        }
    }
}

/// Whether a common name can only be meant as a DNS name: labels of letters, digits and hyphens, two or more, the last not a number.
fn looks_like_dns(name: &str) -> bool {
    let labels: Vec<&str> = name.strip_prefix("*.").unwrap_or(name).split('.').collect();
    labels.len() > 1
        && labels
            .iter()
            .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        && labels
            .last()
            .is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

/// Judges the names of a content.
pub(super) fn check(content: &Content, profile: &Profile, findings: &mut Findings) {
    let policy = &profile.policy.san;
    let san = &content.san;
    if san.critical != (policy.critical || content.subject.is_empty()) {
        findings.add("san", "has another criticality than the policy's");
    }
    check_list(
        "san.dns_names",
        &policy.dns_names,
        &texts(&san.dns_names),
        findings,
        |suffix, name| is_below(suffix, name.strip_prefix("*.").unwrap_or(name)),
    );
    for name in &san.dns_names {
        if !name.is_ascii() {
            findings.add(
                "san.dns_names",
                format!("{name:?} is not ASCII; write its A-label (xn--...)"),
            );
        } else if name.starts_with("*.") && !profile.wildcards {
            findings.add(
                "san.dns_names",
                format!("{name:?} is a wildcard, which profile {} does not allow", profile.id),
            );
        }
    }
    check_list(
        "san.emails",
        &policy.emails,
        &texts(&san.emails),
        findings,
        |domain, mail| {
            mail.rsplit_once('@')
                .is_some_and(|(_, host)| domain.as_str() == "*" || domain.as_str().eq_ignore_ascii_case(host))
        },
    );
    let addresses: Vec<String> = san.ip_addresses.iter().map(ToString::to_string).collect();
    if !policy.ip_addresses.is_static {
        check_list(
            "san.ip_addresses",
            &policy.ip_addresses,
            &texts(&addresses),
            findings,
            Pattern::matches,
        );
    }
    check_list("san.uris", &policy.uris, &texts(&san.uris), findings, Pattern::matches);
    check_typed("san.other_names", &policy.other_names, san.other_names.iter(), findings);
}

fn texts(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

/// Whether a name is the suffix or a name below it, label by label. A leading dot of the suffix allows only names below it.
fn is_below(suffix: &Pattern, name: &str) -> bool {
    let suffix = suffix.as_str();
    if suffix == "*" {
        return true;
    }
    let (bare, below_only) = suffix.strip_prefix('.').map_or((suffix, false), |bare| (bare, true));
    let Some(start) = name.len().checked_sub(bare.len()) else {
        return false;
    };
    if !name.is_char_boundary(start) || !name[start..].eq_ignore_ascii_case(bare) {
        return false;
    }
    if start == 0 {
        !below_only
    } else {
        name.as_bytes()[start - 1] == b'.'
    }
}

/// Judges the policy itself.
pub(super) fn check_policy(policy: &Policy, findings: &mut Findings) {
    check_patterns("san.ip_addresses", &policy.san.ip_addresses.list, findings);
    check_patterns("san.uris", &policy.san.uris.list, findings);
    check_typed_policy("san.other_names", &policy.san.other_names, findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_match_on_label_boundaries() {
        for (suffix, name, below) in [
            ("example.com", "example.com", true),
            ("example.com", "www.example.com", true),
            ("example.com", "badexample.com", false),
            ("example.com", "example.com.evil.org", false),
            (".example.com", "example.com", false),
            (".example.com", "www.example.com", true),
            ("EXAMPLE.com", "www.example.COM", true),
            ("*", "anything.at.all", true),
            ("example.com", "com", false),
            ("", "x", false),
        ] {
            assert_eq!(is_below(&suffix.into(), name), below, "{suffix} {name}");
        }
    }

    #[test]
    fn only_what_can_be_meant_as_a_dns_name_is_taken_for_one() {
        for (name, is) in [
            ("www.example.com", true),
            ("*.example.com", true),
            ("example", false),
            ("Example Ltd.", false),
            ("10.0.0.1", false),
            ("a..b", false),
            ("user@example.com", false),
        ] {
            assert_eq!(looks_like_dns(name), is, "{name}");
        }
    }
}
