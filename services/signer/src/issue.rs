//! A run: begun jobs of one lane, checked, looked at once more and signed, one after the other, on one thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use domain::{
    bytes::Blob,
    failure::{Failure, KeysFailure},
    id::Serial,
    lane::Lane,
    time::Clock,
};
use runtime::follow::Applied;
use store::{Begun, Store};
use tokio::{runtime::Handle, sync::mpsc};
use tracing::Span;
use wire::attest::Verifier;

use crate::{
    check::{Checked, Objection, View, check, last_look},
    keyring::{Held, Keyring},
    metrics::{Metrics, SignOutcome},
    news::{News, Report},
    pool::shielded,
    sign::{NotSigned, Signed, sign},
};

/// How long the ledger may take for the last look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What every run needs.
#[derive(Debug)]
pub struct Issue {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// The registry as it is applied.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Keys that are here.
    pub keyring: Arc<ArcSwap<Keyring>>,
    /// Verifier of statements.
    pub verifier: Verifier,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// Where the ledger is asked.
    pub handle: Handle,
    /// Whom to tell.
    pub news: mpsc::Sender<News>,
    /// Who writes down what operators must hear of.
    pub reports: mpsc::Sender<Report>,
    /// Measurements.
    pub metrics: Metrics,
}

/// A begun job, and the stage of its trace that it is in.
#[derive(Debug)]
pub struct Task {
    /// As it stands in the ledger.
    pub begun: Begun,
    /// What the check and the signature are parts of.
    pub span: Span,
}

impl Issue {
    /// Takes every job of the run to its end and says so, job by job. Blocks; panics of one job are its own.
    pub fn run(&self, run: u64, lane: &Lane, tasks: &[Task]) {
        if let Err(message) = shielded(|| self.run_jobs(run, lane, tasks)) {
            // Between two jobs: none of them is to blame. Those that have come to their end already are not put back.
            tracing::error!(%lane, message, "a run panicked outside of its jobs: {message}");
            self.metrics.panics.inc();
            for Task { begun, .. } in tasks {
                let result = Err(Failure::Store);
                let (job, turn) = (begun.job, begun.turn);
                self.tell(News::Ran { run, job, turn, result });
            }
        }
        self.tell(News::RunEnded(run));
    }

    fn run_jobs(&self, run: u64, lane: &Lane, tasks: &[Task]) {
        let keyring = self.keyring.load();
        let held = keyring.get(&lane.issuer).map(|held| &**held);
        let checked: Vec<(&Task, Result<Checked, Failure>)> = tasks
            .iter()
            .map(|task| {
                let _stage = runtime::stage!(parent: &task.span, "check").entered();
                let begun = &task.begun;
                (task, self.shield(begun, || self.check(begun, held)))
            })
            .collect();
        drop(keyring);
        let to_sign: Vec<Serial> = checked
            .iter()
            .filter(|(_, checked)| checked.is_ok())
            .map(|(task, _)| task.begun.job)
            .collect();
        let cancelled = if to_sign.is_empty() {
            Ok(Vec::new())
        } else {
            self.ask(self.store.cancelled(&to_sign))
        };
        let held = self.keyring.load().get(&lane.issuer).cloned();
        for (Task { begun, span }, checked) in checked {
            let result = checked.and_then(|checked| match &cancelled {
                Err(failure) => Err(failure.clone()),
                Ok(cancelled) if cancelled.contains(&begun.job) => Err(Failure::Cancelled),
                Ok(_) => {
                    let _stage = runtime::stage!(parent: span, "sign").entered();
                    self.shield(begun, || self.sign(begun, &checked, held.as_deref()))
                }
            });
            let (job, turn) = (begun.job, begun.turn);
            self.tell(News::Ran { run, job, turn, result });
        }
    }

    fn shield<T>(&self, begun: &Begun, job: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        shielded(job).unwrap_or_else(|message| {
            self.metrics.panics.inc();
            Err(Failure::Panicked(format!("job {}: {message}", begun.job)))
        })
    }

    fn check(&self, begun: &Begun, held: Option<&Held>) -> Result<Checked, Failure> {
        let applied = self.applied.load();
        let view = View {
            applied: &applied,
            verifier: &self.verifier,
            now: self.clock.now(),
            held,
        };
        check(begun, &view).map_err(|objection| self.weigh(begun, objection, &applied))
    }

    /// Looks once more, then signs. A certificate that is not what was intended is kept as evidence, and never leaves.
    pub fn sign(&self, begun: &Begun, checked: &Checked, held: Option<&Held>) -> Result<Signed, Failure> {
        let applied = self.applied.load();
        last_look(checked, begun, &applied.snapshot, self.clock.now())
            .map_err(|objection| self.weigh(begun, objection, &applied))?;
        let held = held.filter(|held| held.issuer.public_key == checked.issuer.public_key);
        let held = held.ok_or(Failure::Keys(KeysFailure::KeyNotFound))?;
        let started = Instant::now();
        let signed = sign(held, begun, checked);
        let outcome = match &signed {
            Ok(_) => SignOutcome::Signed,
            Err(not) if not.failure == Failure::SignatureWrong => SignOutcome::Wrong,
            Err(_) => SignOutcome::Failed,
        };
        self.metrics.signed(begun.lane.class, outcome, started.elapsed());
        signed.map_err(|NotSigned { failure, foreign }| {
            if let Some(certificate) = foreign {
                self.report(begun, "foreign_certificate", &failure, Some(Blob(certificate)));
            }
            failure
        })
    }

    /// An objection that rests on the snapshot holds only if the ledger has no later revision. What then remains to be reported, is.
    fn weigh(&self, begun: &Begun, objection: Objection, applied: &Applied) -> Failure {
        let Objection {
            failure,
            report,
            by_snapshot,
        } = objection;
        if by_snapshot {
            match self.ask(self.store.head()) {
                Ok(head) if head.revision > applied.revision() => return Failure::Behind,
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
        if let Some(kind) = report {
            self.report(begun, kind, &failure, None);
        }
        failure
    }

    fn report(&self, begun: &Begun, kind: &'static str, failure: &Failure, evidence: Option<Blob>) {
        let report = Report {
            job: begun.job,
            lane: begun.lane.clone(),
            kind,
            detail: describe(failure),
            evidence,
        };
        if self.reports.try_send(report).is_err() {
            tracing::error!(job = %begun.job, kind, "too much to report: this is not recorded");
        }
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, store::StoreError>>) -> Result<T, Failure> {
        let answer = self
            .handle
            .block_on(async { tokio::time::timeout(LOOK_TIMEOUT, question).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ledger did not answer a signing thread");
                Err(Failure::Store)
            }
            Err(_) => {
                tracing::warn!("the ledger did not answer a signing thread in time");
                Err(Failure::Store)
            }
        }
    }

    fn tell(&self, news: News) {
        if self.news.blocking_send(news).is_err() {
            tracing::debug!("the signer has ended before its runs");
        }
    }
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Request(refused) => refused.detail.clone(),
        Failure::IssuerDisabled => {
            "the ledger's row of the issuer says enabled, the signed registry disabled".to_owned()
        }
        Failure::IssuerDestroyed => {
            "the ledger's row of the issuer says enabled, the signed registry destroyed".to_owned()
        }
        Failure::Program(fault) => fault.clone(),
        other => format!("{other:?}"),
    }
}
