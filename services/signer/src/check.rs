//! Everything that is checked before a signature: what the ledger says is what a front end signed, and may be issued now.
//!
//! Nothing in a begun job is believed because the ledger has it. The proof is verified before the statement is parsed; the row must say
//! what the statement says; the to-be-signed bytes must hash to what the statement names and are made once more and compared; the
//! content is judged by the profile in force; the bytes are linted.

use std::sync::Arc;

use domain::{
    admission,
    bytes::Digest,
    failure::{Failure, Refused},
    issuer::{Issuer, Profile, Purpose, Standing},
    registry::Snapshot,
    statement::{Proof, STATEMENT_VERSION, Statement},
    time::Timestamp,
};
use pki::certificate;
use runtime::follow::Applied;
use serde_json::from_slice;
use store::{Begun, RequestRow};
use wire::{
    attest::{AttestError, Verifier},
    problem::ProblemId,
    trust::Distrust,
};

use crate::keyring::Held;

/// A job that may be signed, as far as can be told before the last look.
#[derive(Debug)]
pub struct Checked {
    /// What a front end vouches for.
    pub statement: Statement,
    /// Who signs, as the signed registry has it.
    pub issuer: Arc<Issuer>,
    /// SHA-256 of the requested key.
    pub public_key: Digest,
}

/// Why a job is not signed, and whether operators must hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// What follows.
    pub failure: Failure,
    /// A word for the record when two parts of the system disagree: `lint_disagreement`, `issuer_row_disagreement` ...
    pub report: Option<&'static str>,
    /// Whether it may be this signer's snapshot that is wrong: to be looked at again under the ledger's last revision.
    pub by_snapshot: bool,
}

impl Objection {
    fn plain(failure: Failure) -> Self {
        Self {
            failure,
            report: None,
            by_snapshot: false,
        }
    }

    fn altered(what: impl Into<String>) -> Self {
        Self::plain(Failure::Altered(what.into()))
    }

    fn refused(id: ProblemId, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::plain(Failure::Request(Refused {
            id: id.as_str(),
            detail,
        }))
    }

    fn by_snapshot(self) -> Self {
        Self {
            by_snapshot: true,
            ..self
        }
    }

    fn reported(self, report: &'static str) -> Self {
        Self {
            report: Some(report),
            ..self
        }
    }
}

/// What a job is checked against.
#[derive(Debug)]
pub struct View<'a> {
    /// The registry as it is applied.
    pub applied: &'a Applied,
    /// Verifier of statements.
    pub verifier: &'a Verifier,
    /// Store time.
    pub now: Timestamp,
    /// The issuer, if its key is here: what its chain demands is worked out already.
    pub held: Option<&'a Held>,
}

/// Checks a begun job. The order is the order of trust: signature, statement, row, issuer, bytes, policy.
pub fn check(begun: &Begun, view: &View<'_>) -> Result<Checked, Objection> {
    let statement = believe(begun, &begun.statement, &begun.proof, view)?;
    compare_rows(begun, &statement)?;
    compare_sign_by(begun, &statement, view)?;
    let (issuer, profile) = terms(&statement, &view.applied.snapshot)?;
    standing(&issuer, statement.purpose, view.now)?;
    compare_bytes(begun, &statement, &issuer)?;
    judge(&statement, &issuer, &profile)?;
    lint(begun, &issuer, &profile, view.held)?;
    let public_key = pki::sha256(&statement.content.public_key);
    Ok(Checked {
        statement,
        issuer,
        public_key,
    })
}

/// Reads a statement once its proof holds. Its signer is judged by the time of acceptance, which the serial tells before anything is
/// parsed (a joiner spoke later: by now), and then by the time that the statement itself names.
fn believe(begun: &Begun, statement: &[u8], proof: &[u8], view: &View<'_>) -> Result<Statement, Objection> {
    let proof: Proof =
        from_slice(proof).map_err(|error| Objection::altered(format!("the proof cannot be read: {error}")))?;
    let verify = |at| {
        let verified = view.verifier.verify(&view.applied.directory, statement, &proof, at);
        verified.map_err(|error| {
            let objection = Objection::altered(error.to_string());
            match error {
                AttestError::Distrusted(Distrust::Unknown(_) | Distrust::Expired { .. }) => objection.by_snapshot(),
                AttestError::Distrusted(Distrust::Revoked(_) | Distrust::Role { .. } | Distrust::Signature(_))
                | AttestError::Misshapen { .. } => objection,
            }
        })
    };
    verify(begun.job.time()).or_else(|_| verify(view.now))?;
    let parsed: Statement =
        from_slice(statement).map_err(|error| Objection::altered(format!("the statement cannot be read: {error}")))?;
    verify(parsed.accepted_at)?;
    if parsed.version != STATEMENT_VERSION {
        let version = parsed.version;
        return Err(Objection::altered(format!("the statement has version {version}")));
    }
    Ok(parsed)
}

/// The rows say what the statement says. A difference is an intruder's, whatever it would lead to.
fn compare_rows(begun: &Begun, statement: &Statement) -> Result<(), Objection> {
    let RequestRow {
        lane,
        account,
        profile,
        profile_version,
        purpose,
        sign_by,
        not_before,
        not_after,
    } = &begun.request;
    for (what, equal) in [
        ("job", begun.job == statement.job),
        ("lane", begun.lane == statement.lane() && *lane == statement.lane()),
        (
            "account",
            begun.account == statement.account && *account == statement.account,
        ),
        ("profile", *profile == statement.profile),
        ("profile version", *profile_version == statement.profile_version),
        (
            "purpose",
            begun.purpose == statement.purpose && *purpose == statement.purpose,
        ),
        ("sign_by at acceptance", *sign_by == statement.sign_by),
        ("notBefore", *not_before == statement.content.not_before),
        ("notAfter", *not_after == statement.content.not_after),
        ("intent", begun.intent == statement.intent),
        ("to-be-signed bytes", pki::sha256(&begun.tbs) == statement.intent),
    ] {
        if !equal {
            return Err(Objection::altered(format!(
                "the {what} of the row is not the one of the statement"
            )));
        }
    }
    Ok(())
}

/// Whoever extends `sign_by` leaves a statement: that of the acceptance, or one of a repeated request.
fn compare_sign_by(begun: &Begun, statement: &Statement, view: &View<'_>) -> Result<(), Objection> {
    let mut named = begun.sign_by == statement.sign_by;
    for (joined, proof) in &begun.joined {
        let joined = believe(begun, joined, proof, view)?;
        if joined.account != statement.account || joined.repeat != statement.repeat {
            return Err(Objection::altered("a joined statement is of another request"));
        }
        named |= begun.sign_by == joined.sign_by;
    }
    let latest = Timestamp::from_secs(statement.content.not_before) + admission::SIGNING_WINDOW;
    if named && begun.sign_by <= latest {
        return Ok(());
    }
    Err(Objection::altered(
        "no statement of this job allows the sign_by of the row",
    ))
}

/// Issuer and profile as they are now.
fn terms(statement: &Statement, snapshot: &Snapshot) -> Result<(Arc<Issuer>, Arc<Profile>), Objection> {
    let Statement {
        issuer,
        profile,
        profile_version,
        ..
    } = statement;
    let unknown = |detail| Objection::refused(ProblemId::UnknownIssuer, detail).by_snapshot();
    let found = snapshot.issuers.get(issuer).cloned();
    let issuer = found.ok_or_else(|| unknown(format!("issuer {issuer} is not registered")))?;
    let found = snapshot.profiles.get(profile).cloned();
    let profile = found.ok_or_else(|| unknown(format!("profile {profile} is not registered")))?;
    if profile.version < *profile_version {
        let detail = format!("profile {} has version {} here", profile.id, profile.version);
        return Err(Objection::altered(detail).by_snapshot());
    }
    Ok((issuer, profile))
}

/// The issuer issues for this purpose. The ledger let the job be begun, so its row said yes: that the signed registry says no is
/// tampering, unless this signer is behind.
pub fn standing(issuer: &Issuer, purpose: Purpose, now: Timestamp) -> Result<(), Objection> {
    let disagreement = |failure| {
        Objection::plain(failure)
            .by_snapshot()
            .reported("issuer_row_disagreement")
    };
    match issuer.standing(purpose, now) {
        Standing::Good => Ok(()),
        Standing::Disabled => Err(disagreement(Failure::IssuerDisabled)),
        Standing::Destroyed => Err(disagreement(Failure::IssuerDestroyed)),
        Standing::Expired => Err(Objection::refused(
            ProblemId::IssuerExpired,
            format!("a certificate of the chain of issuer {} has run out", issuer.id),
        )),
    }
}

/// The same content under the same issuer gives the same bytes. The front end signed the hash of these, so that a difference is none of
/// an intruder: the issuer's registration has changed, or the two programs disagree.
fn compare_bytes(begun: &Begun, statement: &Statement, issuer: &Issuer) -> Result<(), Objection> {
    let prepared = certificate::prepare(&statement.content, issuer, begun.job);
    if prepared.is_ok_and(|tbs| tbs == begun.tbs) {
        return Ok(());
    }
    let detail = "the issuer was changed after the request was accepted; send it again";
    Err(Objection::refused(ProblemId::Refused, detail)
        .by_snapshot()
        .reported("intent_disagreement"))
}

/// The content passes the profile in force.
fn judge(statement: &Statement, issuer: &Issuer, profile: &Profile) -> Result<(), Objection> {
    let (accepted, now) = (statement.profile_version, profile.version);
    let id = &profile.id;
    let refuse = |problem: String| {
        let detail = if accepted == now {
            format!("profile {id}, version {now}: {problem}")
        } else {
            format!("profile {id}: accepted under version {accepted}, but version {now} is in force: {problem}")
        };
        let objection = Objection::refused(ProblemId::PolicyViolation, detail).by_snapshot();
        if accepted == now {
            objection.reported("policy_disagreement")
        } else {
            objection
        }
    };
    let key_type = pki::key::inspect(&statement.content.public_key).map_err(|error| refuse(error.to_string()))?;
    if profile.purpose != statement.purpose {
        return Err(refuse("it is for another purpose".to_owned()));
    }
    admission::check(&statement.content, key_type, profile, issuer).map_err(|violations| {
        let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
        refuse(all.join("; "))
    })
}

/// The bytes pass the lint, which the front end's copy of it has passed already.
fn lint(begun: &Begun, issuer: &Issuer, profile: &Profile, held: Option<&Held>) -> Result<(), Objection> {
    let findings = match held.filter(|held| *held.issuer == *issuer) {
        Some(held) => held.lint.lint_tbs(&begun.tbs, profile),
        None => pki::lint::lint_tbs(&begun.tbs, issuer, profile),
    };
    let Some(first) = findings.first() else { return Ok(()) };
    let detail = format!("{} ({}): {}", first.rule, first.citation, first.detail);
    Err(Objection::refused(ProblemId::LintFailed, detail)
        .by_snapshot()
        .reported("lint_disagreement"))
}

/// The last look, right before the signature: nothing that was pushed meanwhile is overlooked.
pub fn last_look(checked: &Checked, begun: &Begun, snapshot: &Snapshot, now: Timestamp) -> Result<(), Objection> {
    let Checked {
        statement, public_key, ..
    } = checked;
    if now >= begun.sign_by {
        return Err(Objection::plain(Failure::TooLate));
    }
    if snapshot.blocked_keys.contains(public_key) {
        let detail = "the public key was blocked after the request was accepted";
        return Err(Objection::refused(ProblemId::BlockedKey, detail));
    }
    match snapshot.issuers.get(&statement.issuer) {
        Some(issuer) => standing(issuer, statement.purpose, now),
        None => Err(Objection::plain(Failure::IssuerDestroyed).by_snapshot()),
    }
}
