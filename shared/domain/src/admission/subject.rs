//! The subject's distinguished name.

use std::collections::BTreeMap;

use super::Findings;
use crate::{
    policy::{ListPolicy, Pattern, Policy, Presence, StringPolicy, SubjectDnPolicy, TypeAndValuePolicy, ValueType},
    request::{Content, Request, TypeAndValue, TypedValue},
};

/// id-domainComponent (RFC 4519, 2.4).
const DOMAIN_COMPONENT: &str = "0.9.2342.19200300.100.1.25";
/// id-at-organizationalUnitName.
const ORGANIZATIONAL_UNIT: &str = "2.5.4.11";
/// id-at-commonName.
pub(super) const COMMON_NAME: &str = "2.5.4.3";

/// An attribute that occurs at most once: HVCA's path, object identifier, encoding, and where its policy is.
struct Attribute {
    field: &'static str,
    oid: &'static str,
    value_type: ValueType,
    policy: fn(&SubjectDnPolicy) -> &StringPolicy,
}

/// Single attributes in the order of encoding, OU left out (it follows `pseudonym`) and domain components too (they come first).
/// The order is that of the Baseline Requirements, 7.1.4.2, from the widest to the narrowest; the common name is last.
const ATTRIBUTES: [Attribute; 17] = [
    attribute("subject_dn.country", "2.5.4.6", ValueType::Printablestring, |p| {
        &p.country
    }),
    attribute("subject_dn.state", "2.5.4.8", ValueType::Utf8string, |p| &p.state),
    attribute("subject_dn.locality", "2.5.4.7", ValueType::Utf8string, |p| &p.locality),
    attribute("subject_dn.postal_code", "2.5.4.17", ValueType::Utf8string, |p| {
        &p.postal_code
    }),
    attribute("subject_dn.street_address", "2.5.4.9", ValueType::Utf8string, |p| {
        &p.street_address
    }),
    attribute("subject_dn.organization", "2.5.4.10", ValueType::Utf8string, |p| {
        &p.organization
    }),
    attribute(
        "subject_dn.organization_identifier",
        "2.5.4.97",
        ValueType::Utf8string,
        |p| &p.organization_identifier,
    ),
    attribute("subject_dn.business_category", "2.5.4.15", ValueType::Utf8string, |p| {
        &p.business_category
    }),
    attribute(
        "subject_dn.jurisdiction_of_incorporation_country_name",
        "1.3.6.1.4.1.311.60.2.1.3",
        ValueType::Printablestring,
        |p| &p.jurisdiction_of_incorporation_country_name,
    ),
    attribute(
        "subject_dn.jurisdiction_of_incorporation_state_or_province_name",
        "1.3.6.1.4.1.311.60.2.1.2",
        ValueType::Utf8string,
        |p| &p.jurisdiction_of_incorporation_state_or_province_name,
    ),
    attribute(
        "subject_dn.jurisdiction_of_incorporation_locality_name",
        "1.3.6.1.4.1.311.60.2.1.1",
        ValueType::Utf8string,
        |p| &p.jurisdiction_of_incorporation_locality_name,
    ),
    attribute("subject_dn.surname", "2.5.4.4", ValueType::Utf8string, |p| &p.surname),
    attribute("subject_dn.given_name", "2.5.4.42", ValueType::Utf8string, |p| {
        &p.given_name
    }),
    attribute("subject_dn.pseudonym", "2.5.4.65", ValueType::Utf8string, |p| {
        &p.pseudonym
    }),
    attribute("subject_dn.serial_number", "2.5.4.5", ValueType::Printablestring, |p| {
        &p.serial_number
    }),
    attribute("subject_dn.email", "1.2.840.113549.1.9.1", ValueType::Ia5string, |p| {
        &p.email
    }),
    // Extra attributes other than domain components come here.
    attribute("subject_dn.common_name", COMMON_NAME, ValueType::Utf8string, |p| {
        &p.common_name
    }),
];

const fn attribute(
    field: &'static str,
    oid: &'static str,
    value_type: ValueType,
    policy: fn(&SubjectDnPolicy) -> &StringPolicy,
) -> Attribute {
    Attribute {
        field,
        oid,
        value_type,
        policy,
    }
}

impl Attribute {
    /// HVCA's name.
    fn name(&self) -> &'static str {
        &self.field["subject_dn.".len()..]
    }
}

/// The subject as it will be encoded.
pub(super) fn settle(request: &Request, policy: &Policy, findings: &mut Findings) -> Vec<TypedValue> {
    let given = &request.subject_dn;
    let policy = &policy.subject_dn;
    for name in given.single.keys() {
        if !ATTRIBUTES.iter().any(|attribute| attribute.name() == name) {
            findings.add(format!("subject_dn.{name}"), "is not an attribute that this API knows");
        }
    }
    let extra = settle_typed(
        "subject_dn.extra_attributes",
        &policy.extra_attributes,
        &given.extra_attributes,
        findings,
    );
    let (components, others): (Vec<_>, Vec<_>) = extra.into_iter().partition(|value| value.oid == DOMAIN_COMPONENT);
    let units = settle_list(
        "subject_dn.organizational_unit",
        &policy.organizational_unit,
        &given.organizational_unit,
        findings,
    );

    let mut subject = components;
    for attribute @ Attribute {
        field,
        oid,
        value_type,
        policy: of,
    } in &ATTRIBUTES
    {
        let name = attribute.name();
        if name == "serial_number" {
            subject.extend(units.iter().map(|value| TypedValue {
                oid: ORGANIZATIONAL_UNIT.into(),
                value_type: ValueType::Utf8string,
                value: value.clone(),
            }));
        }
        if name == "common_name" {
            subject.extend(others.iter().cloned());
        }
        if let Some(value) = findings.settle(field, of(policy), given.single.get(name)) {
            subject.push(TypedValue {
                oid: (*oid).into(),
                value_type: *value_type,
                value,
            });
        }
    }
    subject
}

/// Values of a list: the policy's when static.
pub(super) fn settle_list(field: &str, policy: &ListPolicy, given: &[String], findings: &mut Findings) -> Vec<String> {
    if !policy.is_static {
        return given.to_vec();
    }
    if !given.is_empty() && !given.iter().eq(policy.list.iter().map(Pattern::as_str)) {
        findings.add(field, "is static");
    }
    policy.list.iter().map(|pattern| pattern.as_str().to_owned()).collect()
}

/// Values by object identifier: static ones first, then the request's in its order.
pub(super) fn settle_typed(
    field: &str,
    policy: &BTreeMap<String, TypeAndValuePolicy>,
    given: &[TypeAndValue],
    findings: &mut Findings,
) -> Vec<TypedValue> {
    let mut values: Vec<TypedValue> = policy
        .iter()
        .filter(|(_, rule)| rule.is_static)
        .map(|(oid, rule)| TypedValue {
            oid: oid.clone(),
            value_type: rule.value_type,
            value: rule.value_format.as_str().to_owned(),
        })
        .collect();
    for TypeAndValue { oid, value } in given {
        match policy.get(oid) {
            None => findings.add(format!("{field}.{oid}"), "is not in the policy"),
            Some(rule) if rule.is_static => findings.add(format!("{field}.{oid}"), "is static"),
            Some(rule) => {
                values.push(TypedValue {
                    oid: oid.clone(),
                    value_type: rule.value_type,
                    value: value.clone(),
                });
            }
        }
    }
    values
}

/// Judges values by object identifier.
#[expect(clippy::needless_pass_by_value, reason = "an iterator is walked twice by cloning it")]
pub(super) fn check_typed<'a>(
    field: &str,
    policy: &BTreeMap<String, TypeAndValuePolicy>,
    values: impl Iterator<Item = &'a TypedValue> + Clone,
    findings: &mut Findings,
) {
    for value in values.clone() {
        let path = format!("{field}.{}", value.oid);
        match policy.get(&value.oid) {
            None => findings.add(path, "is not in the policy"),
            Some(rule) if rule.value_type != value.value_type => {
                findings.add(path, "has another encoding than the policy's");
            }
            Some(rule) if rule.is_static && rule.value_format.as_str() != value.value => {
                findings.add(path, "is static");
            }
            Some(rule) if !rule.is_static => {
                check_value(&path, rule.value_type, &rule.value_format, &value.value, findings);
            }
            Some(_) => {}
        }
    }
    for (oid, rule) in policy {
        let count = values.clone().filter(|value| value.oid == *oid).count();
        let (least, most) = if rule.is_static {
            (1, 1)
        } else {
            (rule.mincount, rule.maxcount)
        };
        findings.count(&format!("{field}.{oid}"), count, least, most);
    }
}

/// Judges one text by encoding and pattern.
pub(super) fn check_value(path: &str, value_type: ValueType, pattern: &Pattern, value: &str, findings: &mut Findings) {
    if check_encoding(path, value_type, value, findings) && value_type != ValueType::Nil && !pattern.matches(value) {
        findings.add(path, format!("does not match {}", pattern.as_str()));
    }
}

/// Judges whether a text can be encoded as it shall be.
fn check_encoding(path: &str, value_type: ValueType, value: &str, findings: &mut Findings) -> bool {
    let problem = match value_type {
        ValueType::Nil if value != "NIL" => "takes NIL alone",
        ValueType::Integer if value.parse::<i64>().is_err() => "is not a whole number in decimal",
        ValueType::Ia5string if !value.is_ascii() => "has characters outside ASCII (IA5String)",
        ValueType::Printablestring if !is_printable(value) => "has characters outside PrintableString",
        ValueType::Ia5string | ValueType::Printablestring | ValueType::Utf8string if value.is_empty() => "is empty",
        ValueType::Ia5string | ValueType::Utf8string if value.chars().any(char::is_control) => "has control characters",
        _ => return true,
    };
    findings.add(path, problem);
    false
}

/// PrintableString (X.680, table 10).
fn is_printable(value: &str) -> bool {
    value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b))
}

/// Judges the subject of a content.
pub(super) fn check(content: &Content, policy: &Policy, findings: &mut Findings) {
    let policy = &policy.subject_dn;
    for Attribute {
        field,
        oid,
        value_type,
        policy: of,
    } in &ATTRIBUTES
    {
        let mut values = content.subject.iter().filter(|value| value.oid == *oid);
        let value = values.next();
        findings.judge(field, of(policy), value.map(|value| value.value.as_str()));
        if values.next().is_some() {
            findings.add(*field, "occurs more than once");
        }
        if let Some(value) = value {
            if value.value_type != *value_type {
                findings.add(*field, "has another encoding than its own");
            }
            check_encoding(field, *value_type, &value.value, findings);
        }
    }
    let units = content.subject.iter().filter(|value| value.oid == ORGANIZATIONAL_UNIT);
    check_list(
        "subject_dn.organizational_unit",
        &policy.organizational_unit,
        &units.map(|value| value.value.as_str()).collect::<Vec<_>>(),
        findings,
        Pattern::matches,
    );
    let known = |value: &&TypedValue| {
        value.oid == ORGANIZATIONAL_UNIT || ATTRIBUTES.iter().any(|attribute| attribute.oid == value.oid)
    };
    let extra = content.subject.iter().filter(move |value| !known(value));
    check_typed("subject_dn.extra_attributes", &policy.extra_attributes, extra, findings);
}

/// Judges a list of texts.
pub(super) fn check_list(
    field: &str,
    policy: &ListPolicy,
    values: &[&str],
    findings: &mut Findings,
    matches: impl Fn(&Pattern, &str) -> bool,
) {
    if policy.is_static {
        if !values.iter().copied().eq(policy.list.iter().map(Pattern::as_str)) {
            findings.add(field, "is static");
        }
        return;
    }
    findings.count(field, values.len(), policy.mincount, policy.maxcount);
    for value in values {
        if !policy.list.iter().any(|pattern| matches(pattern, value)) {
            findings.add(field, format!("{value:?} is not allowed by the policy"));
        }
    }
}

/// Judges the policy itself.
pub(super) fn check_policy(policy: &Policy, findings: &mut Findings) {
    for Attribute { field, policy: of, .. } in &ATTRIBUTES {
        check_string_policy(field, of(&policy.subject_dn), findings);
    }
    check_patterns(
        "subject_dn.organizational_unit",
        &policy.subject_dn.organizational_unit.list,
        findings,
    );
    check_typed_policy(
        "subject_dn.extra_attributes",
        &policy.subject_dn.extra_attributes,
        findings,
    );
}

pub(super) fn check_string_policy(field: &str, policy: &StringPolicy, findings: &mut Findings) {
    if policy.presence != Presence::Static && !policy.format.is_valid() {
        findings.add(field, "format is not a regular expression, or is too large");
    }
}

pub(super) fn check_patterns(field: &str, patterns: &[Pattern], findings: &mut Findings) {
    if patterns.iter().any(|pattern| !pattern.is_valid()) {
        findings.add(field, "list has what is not a regular expression, or is too large");
    }
}

pub(super) fn check_typed_policy(field: &str, policy: &BTreeMap<String, TypeAndValuePolicy>, findings: &mut Findings) {
    for (oid, rule) in policy {
        if !rule.is_static && !rule.value_format.is_valid() {
            findings.add(
                format!("{field}.{oid}"),
                "value_format is not a regular expression, or is too large",
            );
        }
        if !super::extensions::is_oid(oid) {
            findings.add(format!("{field}.{oid}"), "is not an object identifier");
        }
    }
}
