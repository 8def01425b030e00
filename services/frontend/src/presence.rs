//! What this front end says of itself to the store, and what it learns from the answer: the store's time and the registry's head.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{id::Incarnation, issuer::Role};
use runtime::{clock::StoreClock, follow::Follower};
use store::{Announcement, Store};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::waiting::Waiters;

/// How often the lease is renewed, and how long it lasts.
const EVERY: Duration = Duration::from_millis(500);
const LEASE: Duration = Duration::from_secs(2);

/// How far this host's clock may be from store time before nothing is judged by it.
const OFF: Duration = Duration::from_secs(2);

/// The heartbeat of one front end, and what it knows of the store.
#[derive(Debug)]
pub struct Presence {
    /// Where it goes.
    pub store: Arc<dyn Store>,
    /// Whose it is.
    pub incarnation: Incarnation,
    /// Learns the time.
    pub clock: Arc<StoreClock>,
    /// Hears of the registry's head, and says which revision is applied.
    pub follower: Arc<Follower>,
    /// Who waits.
    pub waiters: Arc<Waiters>,
    /// Whether the last heartbeat was answered.
    pub reachable: AtomicBool,
}

impl Presence {
    /// Beats until `stop`, then says goodbye.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.beat().await;
        }
        if let Err(error) = timeout(LEASE, self.store.goodbye(&self.incarnation)).await {
            tracing::debug!(%error, "the lease ends by itself");
        }
    }

    /// One heartbeat. It is given up when the lease would be over anyway.
    pub async fn beat(&self) {
        let announcement = Announcement {
            in_flight: self.waiters.len() as u64,
            started_at: Some(self.clock.started_at()),
            clock_offset_ms: self.clock.offset_ms(),
            ..Announcement::new(
                self.incarnation.clone(),
                Role::Frontend,
                self.follower.applied().load().revision(),
            )
        };
        let sent = Instant::now();
        let answer = timeout(LEASE, self.store.heartbeat(&announcement, LEASE)).await;
        match answer {
            Ok(Ok(heartbeat)) => {
                self.clock.learn(heartbeat.now, sent.elapsed());
                self.follower.hear_of(heartbeat.head);
                self.reachable.store(true, Ordering::Relaxed);
            }
            Ok(Err(error)) => self.lost(&error.to_string()),
            Err(_) => self.lost("no answer in time"),
        }
    }

    fn lost(&self, error: &str) {
        if self.reachable.swap(false, Ordering::Relaxed) {
            tracing::warn!(error, "the store does not answer heartbeats");
        }
    }

    /// Whether the last heartbeat was answered.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// How far this host's clock is off, if that is too far: then no token is judged by it.
    pub fn clock_off(&self) -> Option<Duration> {
        self.clock.skew().filter(|&skew| skew > OFF)
    }
}
