//! The self-check of every start: one certificate, asked for as any client would, through the whole path.

use std::time::{Duration, Instant};

use domain::{
    id::{AccountId, IssuerId, Serial},
    issuer::{Purpose, Standing},
    lane::Lane,
    registry::Terms,
    request::{Request, RequestedValidity},
    time::Clock,
};
use runtime::context_file::{AccountEntry, ContextFile};
use serde::Serialize;
use tracing::warn;
use wire::{
    client::{HvcaClient, TlsFiles},
    hvca::{CertificateRequest, Login, Secret},
};

use super::installation::Installation;
use crate::client_key;

/// How long one issuer may take. It is not the others' fault, and a start does not fail because of it.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// What the certificate is for: a name that nobody can own (RFC 6761, section 6.4).
const NAME: &str = "self-check.bulkhead.invalid";

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Checked {
    /// A certificate.
    Issued {
        /// Its serial.
        serial: Serial,
        /// Under which issuer.
        issuer: IssuerId,
        /// How long it took, in milliseconds.
        milliseconds: u64,
    },
    /// No issuer may issue now: each is disabled, expired or destroyed, its lane paused, draining or diverted, or no account's
    /// credential is known here.
    NothingToCheck,
    /// No issuer gave a certificate.
    Failed {
        /// Why not, one line for each issuer.
        reasons: Vec<String>,
    },
}

/// Issues one certificate under the first issuer that may issue; when that one fails, under the next.
pub(super) async fn run(installation: &Installation, context: &ContextFile) -> Checked {
    ready(installation).await;
    let mut reasons = Vec::new();
    for account in &context.accounts {
        let Some(terms) = open_for_issuance(installation, account).await else {
            continue;
        };
        let began = Instant::now();
        let attempt = tokio::time::timeout(
            PATIENCE,
            issue(
                context,
                account,
                &terms,
                installation.context.process.clock.now().as_secs(),
            ),
        );
        let issued = attempt
            .await
            .unwrap_or_else(|_| Err(format!("no certificate within {} s", PATIENCE.as_secs())));
        match issued {
            Ok(serial) => {
                return Checked::Issued {
                    serial,
                    issuer: terms.issuer.id.clone(),
                    milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                };
            }
            Err(reason) => {
                warn!(issuer = %terms.issuer.id, reason, "the self-check got no certificate");
                reasons.push(format!("{}: {reason}", terms.issuer.id));
            }
        }
    }
    if reasons.is_empty() {
        Checked::NothingToCheck
    } else {
        Checked::Failed { reasons }
    }
}

/// Waits until every part says that it is ready. Without that the self-check would be refused, and would say nothing of the issuer.
async fn ready(installation: &Installation) {
    let waiting = async {
        while !installation.context.process.health.readiness().ready {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        let parts = installation.context.process.health.readiness().parts;
        for part in parts.iter().filter(|part| !part.ready) {
            warn!(part = part.part, reason = part.reason, "not ready yet");
        }
    }
}

/// The terms of an account whose issuer is enabled and whose lane takes and begins jobs.
async fn open_for_issuance(installation: &Installation, account: &AccountEntry) -> Option<Terms> {
    let id: AccountId = account.name.parse().ok()?;
    let terms = installation.control.registry.current().await.ok()?.terms(&id)?;
    let good = terms
        .issuer
        .standing(Purpose::EndEntity, installation.context.process.clock.now())
        == Standing::Good;
    let lane = Lane {
        issuer: terms.issuer.id.clone(),
        class: terms.profile.class,
    };
    let lanes = installation.context.store.lanes().await.ok()?;
    let switches = lanes
        .iter()
        .find(|status| status.lane == lane)
        .map(|status| status.switches)
        .unwrap_or_default();
    let held = switches.paused || switches.draining || switches.diverted;
    (good && terms.account.enabled && !held).then_some(terms)
}

async fn issue(context: &ContextFile, account: &AccountEntry, terms: &Terms, now: i64) -> Result<Serial, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let files = TlsFiles {
        ca: &context.tls_ca_file,
        certificate: &context.client_cert_file,
        key: &context.client_key_file,
    };
    let login = Login {
        api_key: account.api_key.clone(),
        api_secret: Secret::new(account.api_secret.clone()),
    };
    let url = context.url.as_deref().unwrap_or_default();
    let client = HvcaClient::new(url, &files, login).map_err(|e| text(&e))?;
    let request = CertificateRequest(request(terms, now)?);
    let submitted = client.issue_in_time(&request, PATIENCE).await.map_err(|e| text(&e))?;
    if submitted.certificate.is_none() {
        let issued = client
            .certificate_within(submitted.serial, PATIENCE)
            .await
            .map_err(|e| text(&e))?;
        issued.ok_or("it is accepted and not issued")?;
    }
    Ok(submitted.serial)
}

/// The shortest-lived certificate that the profile allows, for a key that is thrown away.
fn request(terms: &Terms, now: i64) -> Result<Request, String> {
    let policy = &terms.profile.policy;
    let pin = policy
        .public_key
        .pins()
        .first()
        .copied()
        .ok_or("the profile pins no key type")?;
    let pair = client_key::generate(pin).map_err(|error| format!("cannot make a key: {error}"))?;
    let key = client_key::public_key(&pair, policy).map_err(|error| format!("cannot sign: {error}"))?;
    let validity = RequestedValidity {
        not_before: Some(now),
        // Both ends of a validity period count (RFC 5280, section 4.1.2.5).
        not_after: Some(now + policy.validity.secondsmin.max(60) - 1),
    };
    Ok(client_key::server_request(
        Some(NAME.into()),
        vec![NAME.into()],
        validity,
        key,
    ))
}
