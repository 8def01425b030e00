//! From a parsed request to everything that the ledger is to hold of it: the key verified, the content settled, the to-be-signed bytes
//! made and linted, the statement written.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use domain::{
    admission,
    bytes::Digest,
    id::{Incarnation, Serial},
    policy::Presence,
    registry::Terms,
    repeat,
    request::{Content, Request},
    statement::{STATEMENT_VERSION, Statement},
    time::{Clock, Timestamp},
};
use pki::{csr::RequestedKey, lint::LintContext};
use runtime::{config::Lanes, follow::Applied};
use store::{Idempotency, Limits, NewJob};
use tracing::Span;

use super::{Intent, Order, Reply, Wanted, refusal::Refusal, slot, stage::Stage};
use crate::{issuers::Issuers, waiting::Seat};

/// Prepares jobs. Pure work: it waits for nothing but the processor.
#[derive(Debug)]
pub struct Preparer {
    /// The registry, for blocked keys.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// Who waits for the job.
    pub incarnation: Incarnation,
    /// How much a lane may hold, and one account of it.
    pub lanes: Lanes,
    /// How long an idempotency key is remembered.
    pub keep_idempotency: Duration,
    /// What each issuer demands.
    pub issuers: Arc<Issuers>,
}

/// A job that is ready to be accepted.
#[derive(Debug)]
pub struct Prepared {
    /// For the ledger. Its proof is still empty: a batch is signed together.
    pub job: NewJob,
    /// What the certificate shall say, should it need another serial.
    pub content: Content,
    /// What it was judged by.
    pub terms: Terms,
    /// Where the client sits, if it waits.
    pub seat: Option<Seat>,
    /// Where the answer goes.
    pub reply: Reply,
    /// How many serials were taken already.
    pub attempts: u8,
    /// The stage of the request's trace that this is.
    pub span: Span,
}

impl Preparer {
    /// Prepares an order and passes it on to be accepted, or answers it. A panic ends this order alone.
    pub fn pass_on(&self, order: Order, prepared: &Stage<Prepared>) {
        let Order {
            wanted,
            terms,
            idempotency,
            seat,
            reply,
            span,
        } = order;
        if reply.is_abandoned() {
            return;
        }
        if reply.is_late() {
            return reply.send(Err(Refusal::Late));
        }
        let waits = seat.is_some();
        let prepare = || span.in_scope(|| self.prepare(wanted, &terms, idempotency, waits));
        let made = catch_unwind(AssertUnwindSafe(prepare));
        let (job, content) = match made.unwrap_or(Err(Refusal::Panicked)) {
            Ok(made) => made,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        let ready = Prepared {
            job,
            content,
            terms,
            seat,
            reply,
            attempts: 0,
            span,
        };
        if let Err(refused) = prepared.push(&slot(&ready.terms), ready) {
            refused.item.reply.send(Err(Refusal::Full(refused.full)));
        }
    }

    fn prepare(
        &self,
        wanted: Wanted,
        terms: &Terms,
        idempotency: Option<Digest>,
        waits: bool,
    ) -> Result<(NewJob, Content), Refusal> {
        let now = self.clock.now();
        let (content, repeat) = match wanted {
            Wanted::Certificate(request) => {
                let key = self.requested_key(&request, terms)?;
                let content =
                    admission::admit(&request, &key.spki, key.key_type, terms, now).map_err(Refusal::Policy)?;
                let canonical = repeat::canonical(&terms.account.id, &terms.profile.id, &request, &key.spki);
                (content, pki::sha256(&canonical))
            }
            Wanted::Rekey { of, content, request } => {
                let key = self.requested_key(&request, terms)?;
                let content = admission::rekey(*content, &request, &key.spki, key.key_type, terms, now)
                    .map_err(Refusal::Policy)?;
                let mut canonical = repeat::canonical(&terms.account.id, &terms.profile.id, &request, &key.spki);
                canonical.extend_from_slice(b"rekey");
                canonical.extend_from_slice(of.as_bytes());
                (content, pki::sha256(&canonical))
            }
        };
        let idempotency = idempotency.map(|key| Idempotency {
            key,
            request: repeat,
            keep: self.keep_idempotency,
        });
        let serial = new_serial(now);
        let lint = &self.issuers.get(&terms.issuer).lint;
        let (tbs, statement) = intend(&content, terms, lint, serial, repeat, now)?;
        let job = NewJob {
            job: serial,
            lane: slot(terms).lane(),
            account: terms.account.id.clone(),
            profile: terms.profile.id.clone(),
            profile_version: terms.profile.version,
            purpose: terms.profile.purpose,
            sign_by: statement.sign_by,
            not_before: content.not_before,
            not_after: content.not_after,
            statement: to_json(&statement),
            proof: Vec::new(),
            tbs,
            intent: statement.intent,
            public_key: pki::sha256(&content.public_key),
            unique_key: terms.profile.unique_key,
            repeat,
            join_within: terms.profile.join_within,
            idempotency,
            waiter: waits.then(|| self.incarnation.clone()),
            limits: Limits {
                quota: terms.account.issuance_quota,
                jobs_in_flight: u64::from(terms.account.jobs_in_flight),
                lane_depth: self.lanes.depth(terms.profile.class),
                lane_share: self.lanes.share(terms.profile.class),
            },
        };
        Ok((job, content))
    }

    /// Reads the requested key, verifies that the client holds it where the format proves that, and refuses weak and blocked ones.
    fn requested_key(&self, request: &Request, terms: &Terms) -> Result<RequestedKey, Refusal> {
        let unfit = |error| Refusal::Key(error, terms.profile.clone());
        let policy = &terms.profile.policy;
        let key = pki::csr::read(&request.public_key, policy.public_key.key_format).map_err(unfit)?;
        // Where the policy forbids it, admission says so.
        let looked_at = matches!(policy.public_key_signature, Presence::Optional | Presence::Required);
        if let Some(signature) = request.public_key_signature.as_ref().filter(|_| looked_at) {
            pki::csr::verify_possession(&key.spki, key.key_type, signature).map_err(unfit)?;
        }
        if self
            .applied
            .load()
            .snapshot
            .blocked_keys
            .contains(&pki::sha256(&key.spki))
        {
            return Err(Refusal::Blocked);
        }
        Ok(key)
    }
}

impl Prepared {
    /// What is to be signed, kept for a client that waits.
    pub fn awaited_intent(&self) -> Option<Intent> {
        self.seat.as_ref().map(|_| Intent {
            tbs: self.job.tbs.clone(),
            issuer: self.terms.issuer.clone(),
        })
    }

    /// The same job under another serial: the one it had is taken.
    pub fn renumber(&mut self, issuers: &Issuers, now: Timestamp) -> Result<(), Refusal> {
        let serial = new_serial(now);
        let lint = &issuers.get(&self.terms.issuer).lint;
        let (tbs, statement) = intend(&self.content, &self.terms, lint, serial, self.job.repeat, now)?;
        self.job.job = serial;
        self.job.sign_by = statement.sign_by;
        self.job.intent = statement.intent;
        self.job.statement = to_json(&statement);
        self.job.tbs = tbs;
        self.attempts += 1;
        Ok(())
    }
}

fn new_serial(now: Timestamp) -> Serial {
    Serial::new(now, runtime::clock::entropy())
}

/// The intent, linted, and the statement about it.
fn intend(
    content: &Content,
    terms: &Terms,
    lint: &LintContext,
    serial: Serial,
    repeat: Digest,
    now: Timestamp,
) -> Result<(Vec<u8>, Statement), Refusal> {
    let tbs = pki::certificate::prepare(content, &terms.issuer, serial).map_err(Refusal::Encoding)?;
    let findings = lint.lint_tbs(&tbs, &terms.profile);
    if !findings.is_empty() {
        return Err(Refusal::Lint(findings));
    }
    let statement = Statement {
        version: STATEMENT_VERSION,
        job: serial,
        account: terms.account.id.clone(),
        issuer: terms.issuer.id.clone(),
        profile: terms.profile.id.clone(),
        profile_version: terms.profile.version,
        class: terms.profile.class,
        purpose: terms.profile.purpose,
        accepted_at: now,
        sign_by: admission::sign_by(now, &terms.profile, content),
        repeat,
        content: content.clone(),
        intent: pki::sha256(&tbs),
    };
    Ok((tbs, statement))
}

fn to_json(statement: &Statement) -> Vec<u8> {
    serde_json::to_vec(statement).expect("a statement has text keys only, so it always serialises")
}
