//! The registry's state as this process applies it: revisions are pulled from the store, verified, folded, and published.
//!
//! What does not verify is refused and reported; the last state that did stays in force. Who wants to know at once reads
//! [`Follower::applied`]; who wants to be told subscribes. A follower that remembers how far it came never goes back, not even after a
//! restart: whoever rewinds the database does not bring back an issuer that was disabled.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use domain::{
    registry::{Change, ChangeRefused, Revision, Snapshot},
    time::{Clock, Timestamp},
};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use store::{Store, StoreError};
use tokio::sync::{Notify, watch};
use wire::trust::{ChainHead, Directory, RevisionError, RootUnusable, verify_revision};

use crate::{
    config,
    files::{FileError, read, write_public},
    telemetry::Metrics,
};

/// Revisions read in one query.
const PAGE: u32 = 256;

/// The state in force: a snapshot, who may say what in it, and where in the chain it stands.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The registry.
    pub snapshot: Arc<Snapshot>,
    /// Its nodes.
    pub directory: Arc<Directory>,
    /// The last revision of the chain that led here.
    pub head: ChainHead,
}

impl Applied {
    /// The state before the first revision: the root is known and nobody else.
    pub fn start(root_public: &[u8]) -> Result<Self, RootUnusable> {
        Ok(Self {
            snapshot: Arc::default(),
            directory: Arc::new(Directory::empty(root_public)?),
            head: ChainHead::START,
        })
    }

    /// Its number.
    pub const fn revision(&self) -> u64 {
        self.head.number
    }
}

/// Why the follower is where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A revision does not verify.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// A revision is signed, but does not fit the state.
    #[error("revision {number} does not fit the state before it: {reason}")]
    Unfit {
        /// Which.
        number: u64,
        /// Why.
        reason: ChangeRefused,
    },
    /// The chain in the store is not the one that was applied before.
    #[error(
        "{found}, but this process has applied revision {applied} before: the registry was rewound. If an operator restored it on \
         purpose, remove {memory} and start again", memory = memory.display()
    )]
    Rewound {
        /// What the store holds.
        found: String,
        /// How far this process came before.
        applied: u64,
        /// Where it remembers that.
        memory: PathBuf,
    },
}

/// What a follower remembers over a restart.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    /// How far it came before this start.
    floor: ChainHead,
}

/// That a process applies less than there is, or cannot know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

#[derive(Debug)]
struct News {
    /// When the head was last read, or control was last heard.
    heard_at: Timestamp,
    /// Since when a higher revision is known.
    higher_since: Option<Timestamp>,
    /// The last refusal.
    refused: Option<FollowError>,
}

/// The part of a store that is followed.
#[async_trait]
trait Chain: Send + Sync + std::fmt::Debug {
    async fn head(&self) -> Result<u64, StoreError>;
    async fn after(&self, number: u64) -> Result<Vec<Revision>, StoreError>;
}

#[async_trait]
impl Chain for Arc<dyn Store> {
    async fn head(&self) -> Result<u64, StoreError> {
        Ok(Store::head(self.as_ref()).await?.revision)
    }
    async fn after(&self, number: u64) -> Result<Vec<Revision>, StoreError> {
        self.revisions(number, PAGE).await
    }
}

/// Follows the registry. Share it as an `Arc`; run [`Follower::run`] once.
#[derive(Debug)]
pub struct Follower {
    chain: Box<dyn Chain>,
    memory: Option<Memory>,
    clock: Arc<dyn Clock>,
    applied: Arc<ArcSwap<Applied>>,
    known: AtomicU64,
    news: Mutex<News>,
    nudge: Notify,
    turn: tokio::sync::Mutex<()>,
    told: watch::Sender<u64>,
    poll: Duration,
    silence: Duration,
    revision_gauge: Gauge,
    known_gauge: Gauge,
    refusals: Counter,
}

impl Follower {
    /// A follower that has applied nothing yet.
    pub fn new(
        store: Arc<dyn Store>,
        root_public: &[u8],
        clock: Arc<dyn Clock>,
        config: &config::Registry,
        metrics: &Metrics,
    ) -> Result<Self, RootUnusable> {
        Self::of_chain(Box::new(store), root_public, clock, config, metrics)
    }

    fn of_chain(
        chain: Box<dyn Chain>,
        root_public: &[u8],
        clock: Arc<dyn Clock>,
        config: &config::Registry,
        metrics: &Metrics,
    ) -> Result<Self, RootUnusable> {
        let news = News {
            heard_at: clock.now(),
            higher_since: None,
            refused: None,
        };
        Ok(Self {
            chain,
            memory: None,
            applied: Arc::new(ArcSwap::from_pointee(Applied::start(root_public)?)),
            clock,
            known: AtomicU64::new(0),
            news: Mutex::new(news),
            nudge: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            told: watch::Sender::new(0),
            poll: config.poll,
            silence: config.silence,
            revision_gauge: metrics.register("registry_revision", "Revision applied", Gauge::default()),
            known_gauge: metrics.register("registry_revision_known", "Highest revision heard of", Gauge::default()),
            refusals: metrics.register(
                "registry_revisions_refused",
                "Revisions that did not verify or did not fit",
                Counter::default(),
            ),
        })
    }

    /// The same follower, which remembers in this file how far it came, and never applies less or anything else again.
    pub fn remembering(mut self, path: PathBuf) -> Result<Self, FileError> {
        let floor = match read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| FileError::damaged(&path, e.to_string()))?,
            Err(error) if error.is_missing() => ChainHead::START,
            Err(error) => return Err(error),
        };
        self.note(floor.number);
        self.memory = Some(Memory { path, floor });
        Ok(self)
    }

    /// The state in force, now and later.
    pub fn applied(&self) -> Arc<ArcSwap<Applied>> {
        self.applied.clone()
    }

    /// Numbers of revisions as they come into force.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Somebody says that there is a revision of this number (an accepted job, a heartbeat, control): if it is news, it is fetched at once.
    pub fn hear_of(&self, head: u64) {
        if self.note(head) {
            self.nudge.notify_one();
        }
    }

    /// Notes that there is a revision of this number. Whether that is news.
    fn note(&self, head: u64) -> bool {
        let applied = self.applied.load().revision();
        let before = self.known.fetch_max(head, Ordering::Relaxed);
        let known = before.max(head);
        self.known_gauge.set(i64::try_from(known).unwrap_or(i64::MAX));
        let now = self.clock.now();
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.heard_at = now;
        if known > applied {
            news.higher_since.get_or_insert(now);
        } else {
            news.higher_since = None;
        }
        head > before
    }

    /// Whether the process is behind: it knows of a higher revision, or has read no head and heard nothing for too long.
    pub fn behind(&self) -> Option<Behind> {
        let (applied, known) = (self.applied.load().revision(), self.known.load(Ordering::Relaxed));
        let now = self.clock.now();
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = news.higher_since.filter(|_| known > applied) {
            let why = news
                .refused
                .as_ref()
                .map_or(String::new(), |error| format!(": {error}"));
            return Some(Behind {
                since,
                reason: format!("applies revision {applied} of {known}{why}"),
            });
        }
        (now.since(news.heard_at) > self.silence).then(|| Behind {
            since: news.heard_at,
            reason: format!(
                "has heard nothing of the registry for {} s",
                now.since(news.heard_at).as_secs()
            ),
        })
    }

    /// Asks for the head and applies everything up to it. The number now in force.
    pub async fn catch_up(&self) -> Result<u64, FollowError> {
        let _one_at_a_time = self.turn.lock().await;
        let head = self.chain.head().await?;
        self.note(head);
        let before = self.applied.load().head;
        let outcome = self.apply_up_to(head).await;
        self.remember(before).await;
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(_) => news.refused = None,
            Err(FollowError::Store(_)) => {}
            Err(error) if news.refused.as_ref() == Some(error) => {}
            Err(error) => {
                tracing::error!(%error, "a revision of the registry is refused; the last good state stays in force");
                self.refusals.inc();
                news.refused = Some(error.clone());
            }
        }
        if self.applied.load().revision() >= self.known.load(Ordering::Relaxed) {
            news.higher_since = None;
        }
        outcome
    }

    async fn apply_up_to(&self, head: u64) -> Result<u64, FollowError> {
        let mut state = self.applied.load_full();
        self.check_floor(head, &state)?;
        while state.revision() < head {
            let page = self.chain.after(state.revision()).await?;
            let (next, outcome) = fold(&state, &page, self.memory.as_ref());
            let next = Arc::new(next);
            if next.revision() > state.revision() && next.revision() >= self.floor() {
                self.publish(next.clone());
            }
            outcome?;
            if page.is_empty() {
                break;
            }
            state = next;
        }
        Ok(self.applied.load().revision())
    }

    /// The revision below which nothing is published.
    fn floor(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.floor.number)
    }

    fn check_floor(&self, head: u64, state: &Applied) -> Result<(), FollowError> {
        match &self.memory {
            Some(Memory { path, floor }) if head < floor.number && state.revision() < floor.number => {
                Err(FollowError::Rewound {
                    found: format!("the store ends at revision {head}"),
                    applied: floor.number,
                    memory: path.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Writes down how far it has come, if that is further than `before`.
    async fn remember(&self, before: ChainHead) {
        let head = self.applied.load().head;
        let Some(Memory { path, .. }) = self.memory.as_ref().filter(|_| head != before) else {
            return;
        };
        let path = path.clone();
        let text = serde_json::to_vec(&head).expect("numbers and texts always serialise");
        let written = tokio::task::spawn_blocking(move || write_public(&path, &text)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "cannot remember how far the registry was applied; a restart would not notice a rewound database");
        }
    }

    fn publish(&self, state: Arc<Applied>) {
        let number = state.revision();
        self.applied.store(state);
        self.revision_gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        self.told.send_replace(number);
        tracing::info!(revision = number, "registry applied");
    }

    /// Follows until told to stop: at every nudge, and at every poll.
    pub async fn run(&self, stop: tokio_util::sync::CancellationToken) {
        let mut was_reachable = true;
        loop {
            let caught_up = self.catch_up().await;
            match &caught_up {
                Err(FollowError::Store(error)) if was_reachable => {
                    tracing::warn!(%error, "the registry cannot be read from the store");
                }
                Ok(_) if !was_reachable => tracing::info!("the registry can be read again"),
                _ => {}
            }
            was_reachable = !matches!(caught_up, Err(FollowError::Store(_)));
            // A refused revision stays known as higher, and each nudge would only refuse it again: that waits for the poll.
            let nudged = async {
                if caught_up.is_ok() {
                    self.nudge.notified().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = nudged => {}
                () = tokio::time::sleep(self.poll) => {}
            }
        }
    }
}

/// The state after these revisions, or after those before the first that does not verify or does not fit.
fn fold(before: &Applied, page: &[Revision], memory: Option<&Memory>) -> (Applied, Result<(), FollowError>) {
    let mut snapshot = Snapshot::clone(&before.snapshot);
    let (mut directory, mut head) = (before.directory.clone(), before.head);
    let mut outcome = Ok(());
    for (index, revision) in page.iter().enumerate() {
        let changes = match verify_revision(revision, &head, &directory) {
            Ok(changes) => changes,
            Err(error) => {
                outcome = Err(error.into());
                break;
            }
        };
        if let Some(Memory { path, floor }) = memory
            && revision.number == floor.number
            && revision.hash != floor.hash
        {
            outcome = Err(FollowError::Rewound {
                found: format!("the store holds another revision {}", floor.number),
                applied: floor.number,
                memory: path.clone(),
            });
            break;
        }
        if let Err(reason) = snapshot.advance(&changes) {
            let (state, _) = fold(before, &page[..index], memory);
            let number = revision.number;
            return (state, Err(FollowError::Unfit { number, reason }));
        }
        if changes.iter().any(|change| matches!(change, Change::PutNode { .. })) {
            directory = Arc::new(directory.next(&snapshot));
            for node in directory.refused() {
                tracing::error!(%node, revision = revision.number, "the installation root did not endorse this node as it stands");
            }
        }
        head = ChainHead::of(revision);
    }
    let snapshot = Arc::new(snapshot);
    (
        Applied {
            snapshot,
            directory,
            head,
        },
        outcome,
    )
}

#[cfg(test)]
mod tests;
