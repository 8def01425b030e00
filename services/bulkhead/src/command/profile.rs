//! `bulkhead profile`.

use std::path::Path;

use domain::{
    issuer::Profile,
    key::KeyType,
    policy::{KeyAlgorithm, KeyFormat},
    template,
};
use wire::{admin::PutProfile, client::AdminClient};

use super::{files, render, session::Session};
use crate::{
    cli::{Common, Output, ProfileCommand, ProfileSample},
    failure::{Failure, Outcome},
    output::fields,
};

pub(super) async fn run(common: &Common, command: ProfileCommand) -> Outcome {
    match command {
        ProfileCommand::List => {
            let profiles = Session::open(common)?.ask(AdminClient::profiles).await?;
            common.output.print(&profiles, || render::profiles(&profiles))
        }
        ProfileCommand::Show { profile } => {
            let profile = Session::open(common)?.ask(|api| api.profile(&profile)).await?;
            common.output.print(&profile, || describe(&profile))
        }
        ProfileCommand::Put { file, dry_run, reason } => {
            let request = PutProfile {
                profile: Box::new(read(&file)?),
                dry_run,
                reason,
            };
            let done = format!("profile {} is in force", request.profile.id);
            let changed = Session::open(common)?.ask(|api| api.put_profile(&request)).await?;
            common.output.print(&changed, || render::changed(&changed, &done))
        }
        ProfileCommand::Sample(sample) => print_sample(common.output, sample),
    }
}

/// A profile from a TOML or JSON file.
pub(super) fn read(path: &Path) -> Outcome<Profile> {
    let text = files::read_text(path)?;
    let is_json = path.extension().is_some_and(|extension| extension == "json") || text.trim_start().starts_with('{');
    let read = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        toml::from_str(&text).map_err(|error| error.to_string())
    };
    read.map_err(|error| {
        Failure::usage(format_args!("{}: {}", path.display(), error.trim_end()))
            .next("`bulkhead profile sample` prints a complete one")
    })
}

fn print_sample(output: Output, sample: ProfileSample) -> Outcome {
    let (algorithm, signature) = match sample.key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => (KeyAlgorithm::Rsa, "RSA"),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => (KeyAlgorithm::Ecdsa, "ECDSA"),
        KeyType::Ed25519 => (KeyAlgorithm::Ed25519, "ECDSA"),
    };
    let profile = template::tls_server(sample.id, algorithm, vec![sample.key_type.bits()], signature, "SHA-256");
    let mut document = toml::Table::try_from(&profile).map_err(Failure::failed)?;
    leave_out_forbidden(&mut document);
    let text = toml::to_string(&document).map_err(Failure::failed)?;
    output.print(&profile, || format!("{HEADING}{text}"))
}

/// Takes away what says no more than its absence: fields that are forbidden.
fn leave_out_forbidden(table: &mut toml::Table) {
    const OPTIONAL: [&str; 6] = [
        "subject_dn",
        "san",
        "subject_da",
        "extra_attributes",
        "other_names",
        "custom_extensions",
    ];
    table.retain(|name, value| {
        let Some(field) = value.as_table_mut() else {
            return true;
        };
        leave_out_forbidden(field);
        let is = |key: &str, value: toml::Value| field.get(key) == Some(&value);
        let forbidden = is("presence", "FORBIDDEN".into()) || is("maxcount", 0.into());
        let says_nothing = field.values().all(|value| *value == toml::Value::from("FORBIDDEN"));
        !(forbidden || (says_nothing && OPTIONAL.contains(&name)))
    });
}

const HEADING: &str = "\
# A profile for TLS servers. `bulkhead profile put FILE --reason TEXT` puts it in.
# presence: OPTIONAL, REQUIRED, FORBIDDEN or STATIC (then `format` is the value itself). Formats are anchored regular expressions.
# A field of policy.subject_dn or policy.san that is left out is forbidden.
# policy.signature says what the issuer signs with: RSA or ECDSA, and SHA-256, SHA-384 or SHA-512.

";

fn describe(profile: &Profile) -> String {
    let policy = &profile.policy;
    let days = |seconds: i64| format!("{} days", seconds / 86_400);
    fields([
        ("profile", profile.id.to_string()),
        ("version", profile.version.to_string()),
        ("class", profile.class.to_string()),
        ("keys", crate::output::list(policy.public_key.pins())),
        (
            "key arrives as",
            match policy.public_key.key_format {
                KeyFormat::Pkcs10 => "PKCS#10 request",
                KeyFormat::Pkcs8 => "public key",
            }
            .into(),
        ),
        ("validity", format!("at most {}", days(policy.validity.secondsmax))),
        (
            "sign within",
            humantime::format_duration(profile.sign_within).to_string(),
        ),
        (
            "answer within",
            humantime::format_duration(profile.answer_within).to_string(),
        ),
        (
            "dns names",
            format!(
                "{} to {} of {}",
                policy.san.dns_names.mincount,
                policy.san.dns_names.maxcount,
                crate::output::list(
                    policy
                        .san
                        .dns_names
                        .list
                        .iter()
                        .map(|pattern| pattern.as_str().to_owned())
                ),
            ),
        ),
        (
            "wildcards",
            if profile.wildcards { "allowed" } else { "refused" }.into(),
        ),
        (
            "extended usage",
            crate::output::list(
                policy
                    .extended_key_usages
                    .ekus
                    .list
                    .iter()
                    .map(|p| p.as_str().to_owned()),
            ),
        ),
        ("policies", crate::output::list(&profile.certificate_policies)),
        (
            "whole policy",
            format!("bulkhead profile show {} --output json", profile.id),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_read_back_as_the_profile_that_it_was() {
        let id = "tls-server".parse().expect("a name");
        let profile = template::tls_server(id, KeyAlgorithm::Ecdsa, vec![256], "ECDSA", "SHA-256");
        let mut document = toml::Table::try_from(&profile).unwrap();
        leave_out_forbidden(&mut document);
        let text = toml::to_string(&document).unwrap();
        assert!(!text.contains("FORBIDDEN\"\nformat"), "{text}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        std::fs::write(&path, format!("{HEADING}{text}")).unwrap();
        assert_eq!(read(&path).unwrap(), profile);
        std::fs::write(&path, serde_json::to_string(&profile).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), profile);
        std::fs::write(&path, "id = 1").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("profile sample"));
    }
}
