//! Usages and the extensions beyond names.

use super::{
    Findings,
    subject::{
        check_list, check_patterns, check_string_policy, check_typed, check_typed_policy, check_value, settle_list,
        settle_typed,
    },
};
use crate::{
    issuer::{Profile, Purpose},
    policy::{Flag, IntegerPolicy, KeyUsagesPolicy, Pattern, Policy, Presence, StringPolicy},
    request::{
        Content, CustomExtension, KeyUsage, MsExtensionTemplate, Oid, QualifiedStatements, Request, Semantics,
        SubjectDa, TypedValue,
    },
};

type FlagOf = fn(&KeyUsagesPolicy) -> Flag;

/// Key usages: HVCA's name, bit, and where its policy is; in the order of the bits.
const KEY_USAGES: [(&str, KeyUsage, FlagOf); 9] = [
    ("digital_signature", KeyUsage::DigitalSignature, |p| p.digital_signature),
    ("content_commitment", KeyUsage::ContentCommitment, |p| {
        p.content_commitment
    }),
    ("key_encipherment", KeyUsage::KeyEncipherment, |p| p.key_encipherment),
    ("data_encipherment", KeyUsage::DataEncipherment, |p| p.data_encipherment),
    ("key_agreement", KeyUsage::KeyAgreement, |p| p.key_agreement),
    ("key_certificate_sign", KeyUsage::KeyCertificateSign, |p| {
        p.key_certificate_sign
    }),
    ("crl_sign", KeyUsage::CrlSign, |p| p.crl_sign),
    ("encipher_only", KeyUsage::EncipherOnly, |p| p.encipher_only),
    ("decipher_only", KeyUsage::DecipherOnly, |p| p.decipher_only),
];

/// Whether a text is an object identifier in dotted decimal.
pub(super) fn is_oid(text: &str) -> bool {
    let arcs: Vec<&str> = text.split('.').collect();
    arcs.len() >= 2
        && matches!(arcs[0], "0" | "1" | "2")
        && arcs.iter().all(|arc| {
            !arc.is_empty()
                && arc.len() <= 39
                && arc.bytes().all(|b| b.is_ascii_digit())
                && (arc.len() == 1 || !arc.starts_with('0'))
        })
}

/// A bit that a request may set.
fn settle_flag(field: &str, flag: Flag, given: Option<bool>, findings: &mut Findings) -> bool {
    match (flag, given) {
        (Flag::StaticTrue, Some(false)) | (Flag::StaticFalse, Some(true)) => {
            findings.add(field, "is static");
            flag == Flag::StaticTrue
        }
        (Flag::StaticTrue, _) => true,
        (Flag::StaticFalse, _) => false,
        (Flag::Optional, given) => given.unwrap_or(false),
    }
}

fn judge_flag(field: &str, flag: Flag, value: bool, findings: &mut Findings) {
    if matches!((flag, value), (Flag::StaticTrue, false) | (Flag::StaticFalse, true)) {
        findings.add(field, "is static");
    }
}

pub(super) fn settle_key_usages(request: &Request, policy: &Policy, findings: &mut Findings) -> Vec<KeyUsage> {
    for name in request.key_usages.keys() {
        if !KEY_USAGES.iter().any(|(known, ..)| known == name) {
            findings.add(format!("key_usages.{name}"), "is not a key usage that this API knows");
        }
    }
    KEY_USAGES
        .iter()
        .filter(|(name, _, flag)| {
            let given = request.key_usages.get(*name).copied();
            settle_flag(&format!("key_usages.{name}"), flag(&policy.key_usages), given, findings)
        })
        .map(|(_, usage, _)| *usage)
        .collect()
}

pub(super) fn settle_extended_key_usages(request: &Request, policy: &Policy, findings: &mut Findings) -> Vec<Oid> {
    settle_list(
        "extended_key_usages",
        &policy.extended_key_usages.ekus,
        &request.extended_key_usages,
        findings,
    )
}

pub(super) fn settle_subject_da(request: &Request, policy: &Policy, findings: &mut Findings) -> Option<SubjectDa> {
    let empty = SubjectDa::default();
    let given = request.subject_da.as_ref().unwrap_or(&empty);
    let policy = &policy.subject_da;
    if policy.date_of_birth == Presence::Static && given.date_of_birth.is_some() {
        findings.add("subject_da.date_of_birth", "is static");
    }
    let countries =
        |field: &str, policy, given: &Vec<String>, findings: &mut Findings| settle_list(field, policy, given, findings);
    let settled = SubjectDa {
        gender: findings.settle("subject_da.gender", &policy.gender, given.gender.as_ref()),
        date_of_birth: given.date_of_birth.clone(),
        place_of_birth: findings.settle(
            "subject_da.place_of_birth",
            &policy.place_of_birth,
            given.place_of_birth.as_ref(),
        ),
        country_of_citizenship: countries(
            "subject_da.country_of_citizenship",
            &policy.country_of_citizenship,
            &given.country_of_citizenship,
            findings,
        ),
        country_of_residence: countries(
            "subject_da.country_of_residence",
            &policy.country_of_residence,
            &given.country_of_residence,
            findings,
        ),
        extra_attributes: Vec::new(),
    };
    (settled != SubjectDa::default()).then_some(settled)
}

pub(super) fn settle_subject_da_extra(request: &Request, policy: &Policy, findings: &mut Findings) -> Vec<TypedValue> {
    let given = request.subject_da.as_ref().map_or(&[][..], |da| &da.extra_attributes);
    settle_typed(
        "subject_da.extra_attributes",
        &policy.subject_da.extra_attributes,
        given,
        findings,
    )
}

fn settle_integer(field: &str, policy: &IntegerPolicy, given: Option<i64>, findings: &mut Findings) -> Option<i64> {
    if policy.presence != Presence::Static {
        return given;
    }
    if given.is_some() {
        findings.add(field, "is static");
    }
    Some(policy.max)
}

fn judge_integer(field: &str, policy: &IntegerPolicy, value: Option<i64>, findings: &mut Findings) {
    match (policy.presence, value) {
        (Presence::Forbidden, Some(_)) => findings.add(field, "is forbidden"),
        (Presence::Required | Presence::Static, None) => findings.add(field, "is required"),
        (Presence::Static, Some(value)) if value != policy.max => findings.add(field, "is static"),
        (Presence::Required | Presence::Optional, Some(value)) if !(policy.min..=policy.max).contains(&value) => {
            findings.add(field, format!("is not within {} to {}", policy.min, policy.max));
        }
        _ => {}
    }
}

pub(super) fn settle_qualified_statements(
    request: &Request,
    policy: &Policy,
    findings: &mut Findings,
) -> Option<QualifiedStatements> {
    let Some(policy) = &policy.qualified_statements else {
        if request.qualified_statements.is_some() {
            findings.add("qualified_statements", "is forbidden");
        }
        return None;
    };
    let empty = QualifiedStatements::default();
    let given = request.qualified_statements.as_ref().unwrap_or(&empty);
    let given_semantics = given.semantics.clone().unwrap_or_default();
    let semantics = Semantics {
        identifier: findings.settle(
            "qualified_statements.semantics.identifier",
            &policy.semantics.identifier,
            given_semantics.identifier.as_ref(),
        ),
        name_authorities: settle_list(
            "qualified_statements.semantics.name_authorities",
            &policy.semantics.name_authorities,
            &given_semantics.name_authorities,
            findings,
        ),
    };
    let pds = &policy.etsi_qc_pds;
    if pds.presence == Presence::Static && !given.etsi_qc_pds.is_empty() {
        findings.add("qualified_statements.etsi_qc_pds", "is static");
    }
    let mut flag = |name: &str, flag, given| {
        settle_flag(&format!("qualified_statements.{name}"), flag, given, findings).then_some(true)
    };
    let settled = QualifiedStatements {
        etsi_qc_compliance: flag(
            "etsi_qc_compliance",
            policy.etsi_qc_compliance,
            given.etsi_qc_compliance,
        ),
        etsi_qc_sscd_compliance: flag(
            "etsi_qc_sscd_compliance",
            policy.etsi_qc_sscd_compliance,
            given.etsi_qc_sscd_compliance,
        ),
        semantics: (semantics != Semantics::default()).then_some(semantics),
        etsi_qc_type: findings.settle(
            "qualified_statements.etsi_qc_type",
            &policy.etsi_qc_type,
            given.etsi_qc_type.as_ref(),
        ),
        etsi_qc_retention_period: settle_integer(
            "qualified_statements.etsi_qc_retention_period",
            &policy.etsi_qc_retention_period,
            given.etsi_qc_retention_period,
            findings,
        ),
        etsi_qc_pds: if pds.presence == Presence::Static {
            pds.policies.clone()
        } else {
            given.etsi_qc_pds.clone()
        },
    };
    (settled != QualifiedStatements::default()).then_some(settled)
}

pub(super) fn settle_ms_template(
    request: &Request,
    policy: &Policy,
    findings: &mut Findings,
) -> Option<(bool, MsExtensionTemplate)> {
    let Some(policy) = &policy.ms_extension_template else {
        if request.ms_extension_template.is_some() {
            findings.add("ms_extension_template", "is forbidden");
        }
        return None;
    };
    let empty = MsExtensionTemplate::default();
    let given = request.ms_extension_template.as_ref().unwrap_or(&empty);
    let settled = MsExtensionTemplate {
        id: findings.settle("ms_extension_template.id", &policy.template_id, given.id.as_ref()),
        major_version: settle_integer(
            "ms_extension_template.major_version",
            &policy.major_version,
            given.major_version,
            findings,
        ),
        minor_version: settle_integer(
            "ms_extension_template.minor_version",
            &policy.minor_version,
            given.minor_version,
            findings,
        ),
    };
    (settled != MsExtensionTemplate::default()).then_some((policy.critical, settled))
}

pub(super) fn settle_custom(request: &Request, policy: &Policy, findings: &mut Findings) -> Vec<CustomExtension> {
    for oid in request.custom_extensions.keys() {
        if !policy.custom_extensions.contains_key(oid) {
            findings.add(format!("custom_extensions.{oid}"), "is not in the policy");
        }
    }
    let mut extensions = Vec::new();
    for (oid, rule) in &policy.custom_extensions {
        let field = format!("custom_extensions.{oid}");
        let string = StringPolicy {
            presence: rule.presence,
            format: rule.value_format.clone(),
        };
        if let Some(value) = findings.settle(&field, &string, request.custom_extensions.get(oid)) {
            let value = TypedValue {
                oid: oid.clone(),
                value_type: rule.value_type,
                value,
            };
            extensions.push(CustomExtension {
                critical: rule.critical,
                value,
            });
        }
    }
    extensions
}

/// Judges usages and extensions of a content.
pub(super) fn check(content: &Content, profile: &Profile, findings: &mut Findings) {
    let policy = &profile.policy;
    for (name, usage, flag) in &KEY_USAGES {
        let flag = flag(&policy.key_usages);
        if flag != Flag::Optional {
            judge_flag(
                &format!("key_usages.{name}"),
                flag,
                content.key_usage.contains(usage),
                findings,
            );
        }
    }
    if !content.key_usage.is_sorted_by(|a, b| a < b) {
        findings.add("key_usages", "are not in the order of their bits");
    }
    let ekus: Vec<&str> = content.extended_key_usage.iter().map(String::as_str).collect();
    check_list(
        "extended_key_usages",
        &policy.extended_key_usages.ekus,
        &ekus,
        findings,
        Pattern::matches,
    );
    if let Some(bad) = ekus.iter().find(|oid| !is_oid(oid)) {
        findings.add("extended_key_usages", format!("{bad:?} is not an object identifier"));
    }
    if content.extended_key_usage_critical != policy.extended_key_usages.critical {
        findings.add("extended_key_usages", "has another criticality than the policy's");
    }
    if content.certificate_policies != profile.certificate_policies {
        findings.add("certificate_policies", "are not the profile's");
    }
    if content.ocsp_no_check != (profile.purpose == Purpose::OcspSigner) {
        findings.add("ocsp_no_check", "goes with OCSP signers, and with them alone");
    }
    check_subject_da(content, policy, findings);
    check_qualified_statements(content.qualified_statements.as_ref(), policy, findings);
    check_ms_template(content.ms_extension_template.as_ref(), policy, findings);
    check_custom(content, policy, findings);
}

fn check_subject_da(content: &Content, policy: &Policy, findings: &mut Findings) {
    let empty = SubjectDa::default();
    let da = content.subject_da.as_ref().unwrap_or(&empty);
    let policy = &policy.subject_da;
    findings.judge("subject_da.gender", &policy.gender, da.gender.as_deref());
    findings.judge(
        "subject_da.place_of_birth",
        &policy.place_of_birth,
        da.place_of_birth.as_deref(),
    );
    match (policy.date_of_birth, &da.date_of_birth) {
        (Presence::Forbidden, Some(_)) => findings.add("subject_da.date_of_birth", "is forbidden"),
        (Presence::Required, None) => findings.add("subject_da.date_of_birth", "is required"),
        (_, Some(date)) if !is_date(date) => findings.add("subject_da.date_of_birth", "is not a date YYYY-MM-DD"),
        _ => {}
    }
    for (field, policy, values) in [
        (
            "subject_da.country_of_citizenship",
            &policy.country_of_citizenship,
            &da.country_of_citizenship,
        ),
        (
            "subject_da.country_of_residence",
            &policy.country_of_residence,
            &da.country_of_residence,
        ),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        check_list(field, policy, &values, findings, Pattern::matches);
    }
    check_typed(
        "subject_da.extra_attributes",
        &policy.extra_attributes,
        content.subject_da_extra.iter(),
        findings,
    );
}

/// Whether a text is a day of the Gregorian calendar, `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) || !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return false;
    }
    let (Ok(year), Ok(month), Ok(day)) = (year.parse::<u32>(), month.parse::<u32>(), day.parse::<u32>()) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn check_qualified_statements(statements: Option<&QualifiedStatements>, policy: &Policy, findings: &mut Findings) {
    let Some(policy) = &policy.qualified_statements else {
        if statements.is_some() {
            findings.add("qualified_statements", "is forbidden");
        }
        return;
    };
    let empty = QualifiedStatements::default();
    let statements = statements.unwrap_or(&empty);
    for (name, flag, value) in [
        (
            "qualified_statements.etsi_qc_compliance",
            policy.etsi_qc_compliance,
            statements.etsi_qc_compliance,
        ),
        (
            "qualified_statements.etsi_qc_sscd_compliance",
            policy.etsi_qc_sscd_compliance,
            statements.etsi_qc_sscd_compliance,
        ),
    ] {
        judge_flag(name, flag, value.unwrap_or(false), findings);
    }
    let semantics = statements.semantics.clone().unwrap_or_default();
    findings.judge(
        "qualified_statements.semantics.identifier",
        &policy.semantics.identifier,
        semantics.identifier.as_deref(),
    );
    let authorities: Vec<&str> = semantics.name_authorities.iter().map(String::as_str).collect();
    let field = "qualified_statements.semantics.name_authorities";
    check_list(
        field,
        &policy.semantics.name_authorities,
        &authorities,
        findings,
        Pattern::matches,
    );
    findings.judge(
        "qualified_statements.etsi_qc_type",
        &policy.etsi_qc_type,
        statements.etsi_qc_type.as_deref(),
    );
    judge_integer(
        "qualified_statements.etsi_qc_retention_period",
        &policy.etsi_qc_retention_period,
        statements.etsi_qc_retention_period,
        findings,
    );
    let field = "qualified_statements.etsi_qc_pds";
    match (policy.etsi_qc_pds.presence, statements.etsi_qc_pds.is_empty()) {
        (Presence::Forbidden, false) => findings.add(field, "is forbidden"),
        (Presence::Required, true) => findings.add(field, "is required"),
        (Presence::Static, _) if statements.etsi_qc_pds != policy.etsi_qc_pds.policies => {
            findings.add(field, "is static");
        }
        _ => {}
    }
}

fn check_ms_template(template: Option<&(bool, MsExtensionTemplate)>, policy: &Policy, findings: &mut Findings) {
    let Some(policy) = &policy.ms_extension_template else {
        if template.is_some() {
            findings.add("ms_extension_template", "is forbidden");
        }
        return;
    };
    let empty = (policy.critical, MsExtensionTemplate::default());
    let (critical, template) = template.unwrap_or(&empty);
    if *critical != policy.critical {
        findings.add("ms_extension_template", "has another criticality than the policy's");
    }
    findings.judge("ms_extension_template.id", &policy.template_id, template.id.as_deref());
    judge_integer(
        "ms_extension_template.major_version",
        &policy.major_version,
        template.major_version,
        findings,
    );
    judge_integer(
        "ms_extension_template.minor_version",
        &policy.minor_version,
        template.minor_version,
        findings,
    );
}

fn check_custom(content: &Content, policy: &Policy, findings: &mut Findings) {
    for extension in &content.custom_extensions {
        let field = format!("custom_extensions.{}", extension.value.oid);
        match policy.custom_extensions.get(&extension.value.oid) {
            None => findings.add(field, "is not in the policy"),
            Some(rule) if rule.critical != extension.critical || rule.value_type != extension.value.value_type => {
                findings.add(field, "has another criticality or encoding than the policy's");
            }
            Some(_) => {}
        }
    }
    for (oid, rule) in &policy.custom_extensions {
        let field = format!("custom_extensions.{oid}");
        let mut values = content
            .custom_extensions
            .iter()
            .filter(|extension| extension.value.oid == *oid);
        let value = values.next().map(|extension| extension.value.value.as_str());
        if values.next().is_some() {
            findings.add(&field, "occurs more than once");
        }
        match (rule.presence, value) {
            (Presence::Optional | Presence::Required, Some(value)) => {
                check_value(&field, rule.value_type, &rule.value_format, value, findings);
            }
            (presence, value) => {
                findings.judge(
                    &field,
                    &StringPolicy {
                        presence,
                        format: rule.value_format.clone(),
                    },
                    value,
                );
            }
        }
    }
}

/// Judges the policy itself.
pub(super) fn check_policy(policy: &Policy, findings: &mut Findings) {
    let ekus = &policy.extended_key_usages.ekus;
    if ekus.is_static {
        if ekus.list.iter().any(|oid| !is_oid(oid.as_str())) {
            findings.add("extended_key_usages", "list has what is not an object identifier");
        }
    } else {
        check_patterns("extended_key_usages", &ekus.list, findings);
    }
    check_string_policy("subject_da.gender", &policy.subject_da.gender, findings);
    check_string_policy("subject_da.place_of_birth", &policy.subject_da.place_of_birth, findings);
    check_typed_policy(
        "subject_da.extra_attributes",
        &policy.subject_da.extra_attributes,
        findings,
    );
    for (oid, rule) in &policy.custom_extensions {
        if !is_oid(oid) {
            findings.add(format!("custom_extensions.{oid}"), "is not an object identifier");
        }
        if rule.presence != Presence::Static && !rule.value_format.is_valid() {
            findings.add(
                format!("custom_extensions.{oid}"),
                "value_format is not a regular expression, or is too large",
            );
        }
    }
}
