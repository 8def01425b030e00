//! Profiles: putting in a new one, or the next version of one.

use std::time::Duration;

use domain::{
    id::ProfileId,
    issuer::{Profile, Purpose},
    policy::Pattern,
    registry::{Change, Snapshot},
};
use serde_json::Value;
use wire::admin::{Changed, PutProfile};

use crate::{Order, Registry, RegistryError};

/// notBefore lies at most this long before the signature (CA/Browser Forum Baseline Requirements, section 7.1.2.7).
const LONGEST_SIGN_WITHIN: Duration = Duration::from_hours(48);

/// A client that waits holds a connection and a seat at the front end.
const LONGEST_ANSWER_WITHIN: Duration = Duration::from_mins(1);

impl Registry {
    /// Puts in a profile.
    pub async fn put_profile(&self, by: &str, request: PutProfile) -> Result<Changed, RegistryError> {
        let plan = |snapshot: &Snapshot| plan(snapshot, &request.profile);
        if request.dry_run {
            return self.dry_run(plan, Vec::new()).await;
        }
        let order = Order {
            by: by.into(),
            kind: "profile_put",
            subject: format!("profile:{}", request.profile.id),
            reason: request.reason.clone(),
        };
        Ok(self.commit(&order, plan).await?.into_document(Vec::new()))
    }

    /// Every profile.
    pub async fn profiles(&self) -> Result<Vec<Profile>, RegistryError> {
        let snapshot = self.current().await?;
        Ok(snapshot.profiles.values().map(|profile| (**profile).clone()).collect())
    }

    /// One profile.
    pub async fn profile(&self, id: &ProfileId) -> Result<Profile, RegistryError> {
        let snapshot = self.current().await?;
        let found = snapshot.profiles.get(id);
        found
            .map(|profile| (**profile).clone())
            .ok_or_else(|| RegistryError::Unknown(format!("profile {id}"), "bulkhead profile list"))
    }
}

/// What has to change so that the profile is in force; nothing if it is already. A file made from the version in force and a file that
/// names the version it becomes are both taken.
pub(crate) fn plan(snapshot: &Snapshot, offered: &Profile) -> Result<Vec<Change>, RegistryError> {
    check(offered)?;
    let mut profile = offered.clone();
    let current = snapshot.profiles.get(&offered.id);
    if let Some(current) = current.filter(|current| current.version == offered.version) {
        if *offered == **current {
            return Ok(Vec::new());
        }
        profile.version += 1;
    }
    Ok(vec![Change::PutProfile {
        profile: Box::new(profile),
    }])
}

/// Refuses what could never issue a certificate, or only wrong ones.
fn check(profile: &Profile) -> Result<(), RegistryError> {
    let wrong = |what: String| Err(RegistryError::Invalid(format!("profile {}: {what}", profile.id)));
    if profile.purpose != Purpose::EndEntity {
        return wrong("purpose: only end-entity profiles are put in by hand; the others are built in".into());
    }
    if profile.sign_within.is_zero() || profile.sign_within > LONGEST_SIGN_WITHIN {
        return wrong("sign_within: must be longer than 0s and at most 48h".into());
    }
    if profile.answer_within < Duration::from_secs(1) || profile.answer_within > LONGEST_ANSWER_WITHIN {
        return wrong("answer_within: must be at least 1s and at most 60s".into());
    }
    let policy = &profile.policy;
    let validity = &policy.validity;
    if validity.secondsmin < 1 || validity.secondsmax < validity.secondsmin {
        return wrong("policy.validity: secondsmin must be at least 1 and secondsmax at least secondsmin".into());
    }
    if validity.not_before_negative_skew < 0 || validity.not_before_positive_skew < 0 {
        return wrong("policy.validity: skews must not be negative".into());
    }
    if policy.public_key.pins().is_empty() {
        return wrong(
            "policy.public_key: key_type and allowed_lengths together name no key type; nothing defaults".into(),
        );
    }
    let san = &policy.san;
    for (field, list) in [
        ("dns_names", &san.dns_names),
        ("emails", &san.emails),
        ("ip_addresses", &san.ip_addresses),
        ("uris", &san.uris),
    ] {
        if list.mincount > list.maxcount {
            return wrong(format!("policy.san.{field}: mincount is greater than maxcount"));
        }
        if list.maxcount > 0 && list.list.is_empty() {
            return wrong(format!(
                "policy.san.{field}: list is empty, so no value could ever match"
            ));
        }
    }
    let policy = serde_json::to_value(policy).map_err(|error| RegistryError::Internal(error.to_string()))?;
    match bad_pattern("policy", &policy) {
        Some((field, pattern)) => wrong(format!(
            "{field}: {pattern:?} is not a regular expression, or compiles to more than 1 MiB"
        )),
        None => Ok(()),
    }
}

/// The first text that should be a regular expression and is none, with its path. DNS names and mails are suffixes, static texts are
/// themselves.
fn bad_pattern(path: &str, value: &Value) -> Option<(String, String)> {
    let Value::Object(fields) = value else {
        return None;
    };
    let is = |field: &str, text: &str| fields.get(field).and_then(Value::as_str) == Some(text);
    let is_static = is("presence", "STATIC") || fields.get("static") == Some(&Value::Bool(true));
    let is_suffix = path.ends_with(".dns_names") || path.ends_with(".emails");
    let formats = ["format", "value_format"]
        .into_iter()
        .filter_map(|field| Some((field, fields.get(field)?.as_str()?)));
    // Where there is a `presence`, a list is a choice of words.
    let list = fields
        .get("list")
        .and_then(Value::as_array)
        .filter(|_| !is_suffix && !fields.contains_key("presence"));
    let listed = list
        .into_iter()
        .flatten()
        .filter_map(|text| Some(("list", text.as_str()?)));
    let bad = formats
        .chain(listed)
        .find(|(_, text)| !is_static && !Pattern::from(*text).is_valid());
    if let Some((field, text)) = bad {
        return Some((format!("{path}.{field}"), text.to_owned()));
    }
    fields
        .iter()
        .find_map(|(name, value)| bad_pattern(&format!("{path}.{name}"), value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::policy::{KeyAlgorithm, ListPolicy, Presence, StringPolicy};

    use super::*;

    fn sample() -> Profile {
        let id = "sample".parse().unwrap();
        domain::template::tls_server(id, KeyAlgorithm::Ecdsa, vec![256], "ECDSA", "SHA-256")
    }

    fn registered(profile: &Profile) -> Snapshot {
        let profile = Box::new(profile.clone());
        Snapshot::default().next(&[Change::PutProfile { profile }]).unwrap()
    }

    fn put(changes: &[Change]) -> &Profile {
        match changes {
            [Change::PutProfile { profile }] => profile,
            other => panic!("not one profile: {other:?}"),
        }
    }

    #[test]
    fn the_same_profile_again_changes_nothing() {
        let profile = sample();
        assert_eq!(plan(&registered(&profile), &profile), Ok(Vec::new()));
    }

    #[test]
    fn an_edited_copy_of_the_version_in_force_becomes_the_next_one() {
        let snapshot = registered(&sample());
        let mut edited = sample();
        edited.policy.validity.secondsmax = 86_400;
        assert_eq!(put(&plan(&snapshot, &edited).unwrap()).version, 2);
        edited.version = 2;
        assert_eq!(put(&plan(&snapshot, &edited).unwrap()).version, 2);
    }

    #[test]
    fn a_copy_of_an_older_version_is_refused() {
        let first = sample();
        let mut second = sample();
        (second.version, second.wildcards) = (2, false);
        let mut snapshot = registered(&first);
        snapshot.profiles.insert(first.id.clone(), Arc::new(second));
        let mut stale = first;
        stale.policy.validity.secondsmax = 86_400;
        let changes = plan(&snapshot, &stale).unwrap();
        assert!(snapshot.next(&changes).is_err());
    }

    #[test]
    fn a_profile_that_could_issue_nothing_is_refused_naming_the_field() {
        let refuse = |spoil: &dyn Fn(&mut Profile), field: &str| {
            let mut profile = sample();
            spoil(&mut profile);
            let error = plan(&Snapshot::default(), &profile).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        refuse(&|p| p.sign_within = Duration::from_hours(49), "sign_within");
        refuse(&|p| p.answer_within = Duration::from_millis(999), "answer_within");
        refuse(&|p| p.answer_within = Duration::from_secs(61), "answer_within");
        refuse(&|p| p.purpose = Purpose::OcspSigner, "purpose");
        refuse(
            &|p| p.policy.public_key.allowed_lengths = vec![255],
            "policy.public_key",
        );
        refuse(&|p| p.policy.validity.secondsmax = 0, "policy.validity");
        refuse(&|p| p.policy.san.dns_names.mincount = 101, "policy.san.dns_names");
        refuse(
            &|p| {
                p.policy.subject_dn.organization = StringPolicy {
                    presence: Presence::Required,
                    format: "(".into(),
                }
            },
            "policy.subject_dn.organization.format",
        );
        refuse(
            &|p| {
                p.policy.san.uris = ListPolicy {
                    is_static: false,
                    list: vec!["[".into()],
                    mincount: 0,
                    maxcount: 1,
                }
            },
            "policy.san.uris.list",
        );
    }
}
