//! Documents of the operators' API as text for people.

mod operate;

use domain::{
    issuer::{Binding, Profile, Usage},
    key::KeyType,
};
use wire::admin::{
    AccountDocument, CertificateDocument, Changed, IssuerDocument, JobDetail, JobDocument, KeyReport, LaneDocument,
    NodeDocument, OperatorDocument,
};

pub use operate::{breakers, fleet, forced, marked_destroyed};

use crate::output::{fields, flag, list, seconds, table, time};

fn usage(usage: Usage) -> String {
    let bits = [(usage.issue, "issue"), (usage.crl, "crl"), (usage.ocsp, "ocsp")];
    list(bits.into_iter().filter(|(on, _)| *on).map(|(_, name)| name))
}

fn bindings(bindings: &[Binding]) -> String {
    if bindings.is_empty() {
        return "offline".into();
    }
    list(
        bindings
            .iter()
            .map(|binding| format!("{}/{}", binding.token, binding.key)),
    )
}

fn note(issuer: &IssuerDocument) -> String {
    if issuer.fit_for_real_ca {
        String::new()
    } else {
        "not for a real CA".into()
    }
}

/// `issuer list`.
pub fn issuers(issuers: &[IssuerDocument]) -> String {
    table(
        ["ISSUER", "STATE", "USAGE", "KEY", "NOT AFTER", "WHERE", "NOTE"],
        issuers.iter().map(|issuer| {
            [
                issuer.id.to_string(),
                issuer.state.clone(),
                usage(issuer.usage),
                issuer.key_type.to_string(),
                seconds(issuer.not_after),
                bindings(&issuer.bindings),
                note(issuer),
            ]
        }),
    )
}

/// `issuer show`.
pub fn issuer(issuer: &IssuerDocument) -> String {
    fields([
        ("issuer", issuer.id.to_string()),
        ("state", issuer.state.clone()),
        ("reason", issuer.reason.clone().unwrap_or_default()),
        ("usage", usage(issuer.usage)),
        ("subject", issuer.subject.clone()),
        ("key", issuer.key_type.to_string()),
        ("key identifier", issuer.subject_key_id.clone()),
        ("not after", seconds(issuer.not_after)),
        ("where", bindings(&issuer.bindings)),
        ("note", note(issuer)),
        ("public url", issuer.public_url.clone()),
        ("crl shards", issuer.crl_shards.to_string()),
        ("accounts", list(&issuer.accounts)),
        ("chain", issuer.chain.concat()),
    ])
}

/// What a change came to.
pub fn changed(changed: &Changed, done: &str) -> String {
    let mut text = match (changed.dry_run, changed.changed) {
        (true, true) => format!("dry run: nothing was changed; it would be: {done}\n"),
        (true, false) => "dry run: nothing would change\n".into(),
        (false, true) => format!("{done} (revision {})\n", changed.revision),
        (false, false) => format!(
            "nothing to change: it is so since revision {} or before\n",
            changed.revision
        ),
    };
    for warning in &changed.warnings {
        text.push_str("note: ");
        text.push_str(warning);
        text.push('\n');
    }
    text
}

/// `issuer keygen`.
pub fn key_report(report: &KeyReport) -> String {
    fields([
        ("token", report.token.to_string()),
        ("key", report.key.clone()),
        ("type", report.key_type.to_string()),
        ("sha-256", report.public_key_sha256.clone()),
        ("made by", report.made_by.clone()),
        ("made at", time(report.made_at)),
        ("reason", report.reason.clone()),
        (
            "note",
            if report.fit_for_real_ca {
                String::new()
            } else {
                "not for a real CA".into()
            },
        ),
        ("public key", report.public_key.clone()),
    ])
}

/// `profile list`.
pub fn profiles(profiles: &[Profile]) -> String {
    table(
        ["PROFILE", "#VERSION", "CLASS", "KEYS", "#DAYS", "SIGN WITHIN"],
        profiles.iter().map(|profile| {
            [
                profile.id.to_string(),
                profile.version.to_string(),
                profile.class.to_string(),
                list(profile.policy.public_key.pins().into_iter().map(KeyType::as_str)),
                (profile.policy.validity.secondsmax / 86_400).to_string(),
                humantime::format_duration(profile.sign_within).to_string(),
            ]
        }),
    )
}

/// `account list`.
pub fn accounts(accounts: &[AccountDocument]) -> String {
    table(
        [
            "ACCOUNT",
            "ISSUER",
            "PROFILE",
            "API KEY",
            "#QUOTA",
            "#REQUESTS/S",
            "LOGIN",
        ],
        accounts.iter().map(|account| {
            [
                account.id.to_string(),
                account.issuer.to_string(),
                account.profile.to_string(),
                account.api_key.clone(),
                account.issuance_quota.to_string(),
                account.requests_per_second.to_string(),
                if account.enabled { "yes" } else { "no" }.into(),
            ]
        }),
    )
}

/// `job list`.
pub fn jobs(jobs: &[JobDocument]) -> String {
    table(
        ["JOB", "STATE", "ISSUER", "CLASS", "ACCOUNT", "ACCEPTED", "REVOKED"],
        jobs.iter().map(|job| {
            [
                job.job.to_string(),
                job.state.to_string(),
                job.issuer.to_string(),
                job.class.to_string(),
                job.account.to_string(),
                time(job.accepted_at),
                flag(job.revoked),
            ]
        }),
    )
}

/// `job show`.
pub fn job(detail: &JobDetail) -> String {
    let job = &detail.job;
    let mut text = fields([
        ("job", job.job.to_string()),
        ("state", job.state.to_string()),
        ("issuer", job.issuer.to_string()),
        ("class", job.class.to_string()),
        ("account", job.account.to_string()),
        (
            "profile",
            format!("{} (version {})", job.profile, detail.profile_version),
        ),
        ("accepted", time(job.accepted_at)),
        ("sign by", time(job.sign_by)),
        ("ended", detail.ended_at.map(time).unwrap_or_default()),
        ("refusal", detail.refusal.clone().unwrap_or_default()),
        ("detail", detail.detail.clone().unwrap_or_default()),
        ("begun", times(detail.turn)),
        (
            "owner lost",
            if detail.strikes == 0 {
                String::new()
            } else {
                times(detail.strikes.into())
            },
        ),
        ("owner", detail.owner.clone().unwrap_or_default()),
        (
            "resubmitted as",
            detail.successor.map(|serial| serial.to_string()).unwrap_or_default(),
        ),
        ("revoked", flag(job.revoked)),
    ]);
    if !detail.events.is_empty() {
        text.push('\n');
        text.push_str(&table(
            ["AT", "EVENT", "BY", "DETAIL"],
            detail.events.iter().map(|event| {
                [
                    time(event.at),
                    event.kind.clone(),
                    event.by.clone(),
                    event.detail.clone(),
                ]
            }),
        ));
    }
    text
}

fn times(count: u32) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        more => format!("{more} times"),
    }
}

/// `lane list`.
pub fn lanes(lanes: &[LaneDocument]) -> String {
    table(
        ["LANE", "#QUEUED", "#SIGNING", "#PARKED", "OLDEST", "SWITCHES"],
        lanes.iter().map(|lane| {
            let switches = [
                (lane.paused, "paused"),
                (lane.draining, "draining"),
                (lane.diverted, "diverted"),
            ];
            [
                lane.lane.to_string(),
                lane.queued.to_string(),
                lane.signing.to_string(),
                lane.parked.to_string(),
                lane.oldest_seconds
                    .map(|age| humantime::format_duration(std::time::Duration::from_secs(age)).to_string())
                    .unwrap_or_default(),
                list(switches.into_iter().filter(|(on, _)| *on).map(|(_, name)| name)),
            ]
        }),
    )
}

/// `cert show`.
pub fn certificate(certificate: &CertificateDocument) -> String {
    let revocation = certificate.revocation.as_ref();
    fields([
        ("serial", certificate.serial.to_string()),
        ("status", if revocation.is_some() { "revoked" } else { "issued" }.into()),
        (
            "reason",
            revocation
                .map(|revocation| revocation.reason.as_str().to_owned())
                .unwrap_or_default(),
        ),
        (
            "revoked at",
            revocation
                .map(|revocation| seconds(revocation.revocation_date))
                .unwrap_or_default(),
        ),
        ("subject", certificate.subject.clone()),
        ("names", list(&certificate.names)),
        ("not before", seconds(certificate.not_before)),
        ("not after", seconds(certificate.not_after)),
        ("issued at", time(certificate.issued_at)),
        ("issuer", certificate.issuer.to_string()),
        ("account", certificate.account.to_string()),
        ("profile", certificate.profile.to_string()),
        ("certificate", certificate.certificate.clone()),
    ])
}

/// `operator list`.
pub fn operators(operators: &[OperatorDocument]) -> String {
    table(
        ["OPERATOR", "ROLE", "CLIENT CERTIFICATES (SHA-256)"],
        operators.iter().map(|operator| {
            [
                operator.id.to_string(),
                serde_json::to_value(operator.role)
                    .ok()
                    .and_then(|role| role.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                list(&operator.client_certificates),
            ]
        }),
    )
}

/// `node list`.
pub fn nodes(nodes: &[NodeDocument]) -> String {
    table(
        [
            "NODE",
            "ROLE",
            "ALIVE",
            "VERSION",
            "#REVISION",
            "#IN FLIGHT",
            "ENROLLED UNTIL",
        ],
        nodes.iter().map(|node| {
            let alive = match (node.revoked, node.alive) {
                (true, _) => "revoked",
                (false, true) => "yes",
                (false, false) => "no",
            };
            [
                node.id.to_string(),
                format!("{:?}", node.role).to_lowercase(),
                alive.into(),
                node.version.clone().unwrap_or_default(),
                node.revision.map(|revision| revision.to_string()).unwrap_or_default(),
                node.in_flight.map(|count| count.to_string()).unwrap_or_default(),
                time(node.not_after),
            ]
        }),
    )
}

#[cfg(test)]
mod tests;
