//! `bulkhead cert`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use domain::{
    id::Serial,
    key::KeyType,
    policy::{KeyFormat, Policy, Presence},
    request::{Request, RequestedValidity},
    time::Clock,
};
use runtime::clock::SystemClock;
use serde::Serialize;
use wire::{
    admin::Revoke,
    client::HvcaClient,
    hvca::{CertificateDocument, CertificateRequest},
};

use super::{
    files, render,
    session::{Place, Session, failure},
};
use crate::{
    cli::{CertCommand, CertIssue, CertRevoke, Common},
    client_key::{self, PublicKey},
    failure::{Failure, Outcome},
    output::fields,
    progress::during,
};

pub(super) async fn run(common: &Common, command: CertCommand) -> Outcome {
    match command {
        CertCommand::Issue(issue) => issue_certificate(common, issue).await,
        CertCommand::Show { serial, out } => {
            let certificate = Session::open(common)?.ask(|api| api.certificate(serial)).await?;
            if let Some(path) = &out {
                files::write(path, &certificate.certificate)?;
            }
            common.output.print(&certificate, || render::certificate(&certificate))
        }
        CertCommand::Revoke(CertRevoke { serial, reason, since }) => {
            let request = Revoke {
                reason,
                revocation_date: since,
            };
            let revocation = Session::open(common)?.ask(|api| api.revoke(serial, &request)).await?;
            common.output.print(&revocation, || match revocation.outcome.as_str() {
                "raised" => format!("certificate {serial} was revoked before; its reason is now keyCompromise\n"),
                "cancelled" => format!("job {serial} is cancelled: no certificate of it will stand\n"),
                _ => format!("certificate {serial} is revoked: {}\n", reason.as_str()),
            })
        }
    }
}

/// What is printed when a certificate was issued.
#[derive(Serialize)]
struct Issued<'a> {
    serial: Serial,
    #[serde(flatten)]
    document: &'a CertificateDocument,
    key_file: Option<&'a Path>,
    certificate_file: Option<&'a Path>,
    chain_file: Option<&'a Path>,
}

async fn issue_certificate(common: &Common, issue: CertIssue) -> Outcome {
    let place = Place::find(common)?;
    let client = place.account(issue.account.as_ref())?;
    let policy = client.policy().await.map_err(failure)?;
    let key = match (&issue.csr, issue.new_key, &issue.key_out) {
        (Some(csr), _, _) => key_of_csr(csr, &policy)?,
        (None, Some(key_type), Some(path)) => new_key(key_type, path, &policy)?,
        _ => return Err(Failure::usage("give --csr FILE, or --new-key TYPE and --key-out FILE")),
    };
    let request = CertificateRequest(request(&issue, key));
    let issued = during("waiting for the certificate", wait_for(&client, &request, issue.wait)).await;
    let (serial, certificate) = match issued {
        Ok(issued) => issued,
        Err(failed) => {
            remove_unused_key(issue.key_out.as_deref().filter(|_| failed.unused));
            return Err(failed.failure);
        }
    };
    if let Some(path) = &issue.out {
        files::write(path, &certificate.certificate)?;
    }
    if let Some(path) = &issue.chain_out {
        files::write(path, &client.trust_chain().await.map_err(failure)?.concat())?;
    }
    let issued = Issued {
        serial,
        document: &certificate,
        key_file: issue.key_out.as_deref(),
        certificate_file: issue.out.as_deref(),
        chain_file: issue.chain_out.as_deref(),
    };
    common.output.print(&issued, || {
        let file = |path: Option<&Path>| path.map(|path| path.display().to_string()).unwrap_or_default();
        let text = fields([
            ("serial", serial.to_string()),
            ("key", file(issued.key_file)),
            ("certificate", file(issued.certificate_file)),
            ("chain", file(issued.chain_file)),
        ]);
        match issued.certificate_file {
            Some(_) => text,
            None => text + &certificate.certificate,
        }
    })
}

/// Why there is no certificate, and whether one may still come of the key.
struct NotIssued {
    failure: Failure,
    unused: bool,
}

async fn wait_for(
    client: &HvcaClient,
    request: &CertificateRequest,
    wait: Duration,
) -> Result<(Serial, CertificateDocument), NotIssued> {
    let deadline = Instant::now() + wait;
    let submitted = client.issue_in_time(request, wait).await.map_err(|error| NotIssued {
        unused: matches!(error.status(), Some(400..500)),
        failure: failure(error),
    })?;
    let serial = submitted.serial;
    let mut certificate = submitted.certificate;
    if certificate.is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        certificate = client
            .certificate_within(serial, left)
            .await
            .map_err(|error| NotIssued {
                unused: false,
                failure: failure(error),
            })?;
    }
    certificate
        .map(|certificate| (serial, certificate))
        .ok_or_else(|| NotIssued {
            failure: Failure::failed(format_args!("certificate {serial} is accepted but not issued yet")).next(
                format!("bulkhead cert show {serial}, later; bulkhead job show {serial} tells what holds it up"),
            ),
            unused: false,
        })
}

/// A refused request leaves no key behind, so that the same command can be typed again.
fn remove_unused_key(path: Option<&Path>) {
    if let Some(path) = path {
        // It was made a moment ago by this command; that it cannot be removed harms nobody.
        let _ = std::fs::remove_file(path);
    }
}

/// The key of a PKCS#10 file, in the form that the policy wants.
fn key_of_csr(path: &Path, policy: &Policy) -> Outcome<PublicKey> {
    let text = files::read_text(path)?;
    let requested = pki::csr::read(&text, KeyFormat::Pkcs10)
        .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
    let pem = match policy.public_key.key_format {
        KeyFormat::Pkcs10 => text,
        KeyFormat::Pkcs8 if policy.public_key_signature == Presence::Required => {
            return Err(Failure::usage(
                "this account wants a signature over the public key, which a CSR does not have",
            )
            .next("use --new-key"));
        }
        KeyFormat::Pkcs8 => pki::pem::encode("PUBLIC KEY", &requested.spki),
    };
    Ok(PublicKey { pem, signature: None })
}

/// A new key, written to `path` before anything is asked for with it.
fn new_key(key_type: KeyType, path: &Path, policy: &Policy) -> Outcome<PublicKey> {
    if policy.public_key_signature == Presence::Required && matches!(key_type, KeyType::P384 | KeyType::P521) {
        return Err(Failure::usage(format_args!(
            "this account wants a SHA-256 signature over the public key, which this program does not make with {key_type} keys"
        )));
    }
    let cannot = |error: rcgen::Error| Failure::failed(format_args!("cannot make a key: {error}"));
    let pair = client_key::generate(key_type).map_err(cannot)?;
    let key = client_key::public_key(&pair, policy).map_err(cannot)?;
    files::write_new_private(path, &pair.serialize_pem())?;
    Ok(key)
}

fn request(issue: &CertIssue, key: PublicKey) -> Request {
    let dns_names = match (&issue.cn, &issue.dns[..]) {
        (Some(common_name), []) => vec![common_name.clone()],
        (_, names) => names.to_vec(),
    };
    let common_name = issue.cn.clone().or_else(|| dns_names.first().cloned());
    let now = SystemClock.now().as_secs();
    let validity = RequestedValidity {
        not_before: Some(now),
        // Both ends of a validity period count (RFC 5280, section 4.1.2.5).
        not_after: issue.days.map(|days| now + i64::from(days) * 86_400 - 1),
    };
    client_key::server_request(common_name, dns_names, validity, key)
}
