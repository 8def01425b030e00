//! Ends what nobody waits for: jobs whose `sign_by` is past, and queued jobs of issuers that issue no more. Every signer does it, whatever
//! keys it holds; doing it twice is doing it once.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use domain::{
    id::{Incarnation, IssuerId},
    issuer::Standing,
    job::State,
    registry::Snapshot,
    time::Clock,
};
use runtime::{clock::StoreClock, config, follow::Applied};
use store::{Ended, JobFilter, JobSummary, Outcome, Refusal, Store, StoreError};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use wire::problem::ProblemId;

use crate::{answer::Finale, metrics::Metrics};

/// Jobs in one chunk, and how many chunks are looked through for one that is to be refused.
const CHUNK: u32 = 256;
const PAGES: u32 = 40;
/// How long one question may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the queues of issuers that issue no more are looked at.
const CLEAR_PERIOD: Duration = Duration::from_secs(1);

/// Sweeps.
#[derive(Debug)]
pub struct Sweeper {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Who sweeps.
    pub owner: Incarnation,
    /// Store time.
    pub clock: Arc<StoreClock>,
    /// The registry as it is applied.
    pub applied: Arc<ArcSwap<Applied>>,
    /// How often, and how far the clocks may be apart.
    pub config: config::Signer,
    /// Where waiting front ends are answered.
    pub answers: mpsc::Sender<Finale>,
    /// Measurements.
    pub metrics: Metrics,
}

impl Sweeper {
    /// Sweeps until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut next_clearing = tokio::time::Instant::now();
        let mut cleared = None;
        loop {
            let mut more = false;
            if self.clock_is_right() {
                more = report("sweep", self.sweep().await).unwrap_or(false);
                let now = tokio::time::Instant::now();
                let revision = Some(self.applied.load().revision());
                if revision != cleared || now >= next_clearing {
                    let left = report("clear the queues of disabled issuers", self.clear().await);
                    more |= left == Some(true);
                    next_clearing = if left == Some(true) { now } else { now + CLEAR_PERIOD };
                    cleared = revision;
                }
            }
            let rest = if more {
                Duration::from_millis(10)
            } else {
                self.config.sweep
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// A host that does not know what time it is expires nothing.
    fn clock_is_right(&self) -> bool {
        self.clock.skew().is_some_and(|skew| skew <= self.config.clock_limit)
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        let ended = within(self.store.sweep(CHUNK)).await?;
        let more = ended.len() >= CHUNK as usize;
        for ended in ended {
            if matches!(ended.outcome, Outcome::Expired { .. }) {
                self.metrics.expired.inc();
            }
            self.answer(ended);
        }
        Ok(more)
    }

    fn answer(&self, ended: Ended) {
        if ended.waiters.is_empty() {
            return;
        }
        let trace = None;
        if self.answers.try_send(Finale { ended, trace }).is_err() {
            self.metrics.answers_dropped.inc();
        }
    }

    /// Refuses what is queued for issuers that the signed registry has disabled, destroyed, or seen expire. Only under the ledger's last
    /// revision: who is behind refuses nothing. One chunk of each issuer; whether there may be more.
    async fn clear(&self) -> Result<bool, StoreError> {
        let applied = self.applied.load_full();
        let off = issuers_that_are_off(&applied.snapshot, self.clock.as_ref());
        if off.is_empty() || within(self.store.head()).await?.revision != applied.revision() {
            return Ok(false);
        }
        let mut more = false;
        for issuer in off {
            more |= self.clear_issuer(issuer, &applied.snapshot).await?;
        }
        Ok(more)
    }

    async fn clear_issuer(&self, issuer: IssuerId, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let mut filter = JobFilter {
            state: Some(State::Queued),
            issuer: Some(issuer),
            limit: CHUNK,
            ..JobFilter::default()
        };
        // Jobs of a purpose that the issuer still serves may stand before the others.
        for _ in 0..PAGES {
            let queued = within(self.store.jobs(&filter)).await?;
            let last_page = queued.len() < CHUNK as usize;
            let refusals: Vec<Refusal> = queued
                .iter()
                .filter_map(|job| refusal(job, snapshot, self.clock.as_ref()))
                .collect();
            if refusals.is_empty() && !last_page {
                filter.before = queued.last().map(|job| job.job);
                continue;
            }
            self.refuse(refusals).await?;
            return Ok(!last_page);
        }
        Ok(false)
    }

    async fn refuse(&self, refusals: Vec<Refusal>) -> Result<(), StoreError> {
        if refusals.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = refusals.iter().map(|refusal| refusal.id.clone()).collect();
        let refused = within(async { Ok(self.store.refuse(&self.owner, refusals).await) }).await?;
        for (id, refused) in ids.iter().zip(refused) {
            if let Some(ended) = refused? {
                self.metrics.refused(id);
                self.answer(ended);
            }
        }
        Ok(())
    }
}

/// Issuers that some account issues under, and that do not issue for the purpose of its profile.
fn issuers_that_are_off(snapshot: &Snapshot, clock: &dyn Clock) -> BTreeSet<IssuerId> {
    let now = clock.now();
    let off = snapshot.accounts.values().filter(|account| {
        let issuer = snapshot.issuers.get(&account.issuer);
        let profile = snapshot.profiles.get(&account.profile);
        issuer
            .zip(profile)
            .is_some_and(|(issuer, profile)| issuer.standing(profile.purpose, now) != Standing::Good)
    });
    off.map(|account| account.issuer.clone()).collect()
}

/// The refusal of a queued job, if its issuer does not issue for its purpose.
fn refusal(job: &JobSummary, snapshot: &Snapshot, clock: &dyn Clock) -> Option<Refusal> {
    let issuer = snapshot.issuers.get(&job.lane.issuer)?;
    let profile = snapshot.profiles.get(&job.profile)?;
    let (id, detail) = match issuer.standing(profile.purpose, clock.now()) {
        Standing::Good => return None,
        Standing::Disabled => (ProblemId::IssuerDisabled, "the issuer is disabled"),
        Standing::Destroyed => (ProblemId::IssuerDestroyed, "the issuer's key was destroyed"),
        Standing::Expired => (
            ProblemId::IssuerExpired,
            "a certificate of the issuer's chain has run out",
        ),
    };
    Some(Refusal {
        job: job.job,
        turn: None,
        id: id.as_str().to_owned(),
        detail: detail.to_owned(),
    })
}

fn report<T>(what: &str, done: Result<T, StoreError>) -> Option<T> {
    done.inspect_err(|error| tracing::warn!(%error, "failed to {what}: {error}"))
        .ok()
}

async fn within<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::OutcomeUnknown(format!("no answer within {STORE_TIMEOUT:?}"));
    timeout(STORE_TIMEOUT, question).await.map_err(|_| late())?
}
