//! The lease: renewed all the time, and the way in which this signer learns store time and others learn of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use domain::{
    dispatch::Hindrance,
    id::{Incarnation, IssuerId, TokenId},
    issuer::Role,
};
use runtime::{clock::StoreClock, follow::Applied, health::Condition};
use store::{Announcement, Store};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{keyring::Keyring, news::News, tally::Tally};

/// What the worker lets others know of breakers, tokens and itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Breakers that are not closed: issuer and state.
    pub breakers: Vec<(IssuerId, String)>,
    /// Tokens that are out.
    pub tokens_out: Vec<TokenId>,
    /// Whether all of them are.
    pub backs_off: bool,
    /// Whether this signer stands down.
    pub stands_down: bool,
}

/// Keeps the lease.
#[derive(Debug)]
pub struct Heart {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Whose lease.
    pub incarnation: Incarnation,
    /// What learns store time.
    pub clock: Arc<StoreClock>,
    /// The registry as it is applied.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Keys that are here.
    pub keyring: Arc<ArcSwap<Keyring>>,
    /// Jobs in flight, as the worker counts them.
    pub in_flight: Arc<AtomicU64>,
    /// What has been signed since the last beat.
    pub signed: Arc<Tally>,
    /// What the worker says of itself.
    pub said: Arc<ArcSwap<Said>>,
    /// How long a lease lasts, how often it is renewed, and how far the clocks may be apart.
    pub config: runtime::config::Signer,
    /// Whom to tell.
    pub news: mpsc::Sender<News>,
    /// What the world is told.
    pub condition: Condition,
}

impl Heart {
    /// Beats until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            let started = Instant::now();
            match self.beat().await {
                Ok(()) => {
                    if started - renewed >= self.config.lease {
                        // A process that was stopped: the lease had run out, and the permit to stand down with it.
                        self.tell(News::Hindered(Hindrance::Lease)).await;
                    }
                    renewed = started;
                    self.tell(News::Freed(Hindrance::Store)).await;
                    self.tell(News::Freed(Hindrance::Lease)).await;
                    self.judge_clock().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease could not be renewed: {error}");
                    self.condition
                        .not_ready(format!("the lease could not be renewed: {error}"));
                    self.tell(News::Hindered(Hindrance::Store)).await;
                    if renewed.elapsed() >= self.config.lease {
                        self.tell(News::Hindered(Hindrance::Lease)).await;
                    }
                }
            }
            let rest = self.config.heartbeat.saturating_sub(started.elapsed());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    async fn beat(&self) -> Result<(), String> {
        let said = self.said.load_full();
        let announcement = Announcement {
            incarnation: self.incarnation.clone(),
            role: Role::Signer,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.applied.load().revision(),
            issuers: self.keyring.load().issuers_beside(&said.tokens_out),
            breakers: said.breakers.clone(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            signed: self.signed.take(),
            tokens_out: said.tokens_out.clone(),
            backs_off: said.backs_off,
            stands_down: said.stands_down,
            started_at: Some(self.clock.started_at()),
            clock_offset_ms: self.clock.offset_ms(),
        };
        let started = Instant::now();
        let beat = self.store.heartbeat(&announcement, self.config.lease);
        let heartbeat = timeout(self.config.lease, beat)
            .await
            .map_err(|_| format!("no answer within {:?}", self.config.lease))?
            .map_err(|error| error.to_string())?;
        let round_trip = started.elapsed();
        if round_trip < Duration::from_secs(1) {
            self.clock.learn(heartbeat.now, round_trip);
        }
        Ok(())
    }

    async fn judge_clock(&self) {
        match self.clock.skew() {
            Some(skew) if skew <= self.config.clock_limit => {
                self.condition.ready();
                self.tell(News::Freed(Hindrance::Clock)).await;
            }
            skew => {
                let reason = match skew {
                    Some(skew) => format!("this host's clock is {skew:?} off the store's; set it"),
                    None => "store time is not known yet: heartbeats take too long".to_owned(),
                };
                tracing::error!("{reason}");
                self.condition.not_ready(reason);
                self.tell(News::Hindered(Hindrance::Clock)).await;
            }
        }
    }

    async fn tell(&self, news: News) {
        if self.news.send(news).await.is_err() {
            tracing::debug!("the signer has ended before its heartbeat");
        }
    }
}
