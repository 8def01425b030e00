//! A signer's inbox: the desk, and the attendant that keeps it attached. Nothing here waits for the broker longer than a call may take.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::lane::Lane;
use futures_util::future::join_all;
use lapin::{Channel, options::BasicAckOptions};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    attendant::{Attendant, give_back},
    desk::{Desk, Receipt, SeatId},
    link::Link,
    lock,
};
use crate::{BrokerError, Inbox, Incoming};

/// What an inbox, its attendant and its pumps have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub desk: Mutex<Desk>,
    /// There may be something to take.
    pub news: Notify,
    /// There may be something to reconcile.
    pub changed: Notify,
    channels: Mutex<HashMap<SeatId, Channel>>,
    /// How many changes were made, and how many of them the attendant has looked at.
    changes: AtomicU64,
    attended: watch::Sender<u64>,
    call_timeout: Duration,
}

impl Shared {
    pub fn new(lanes: &[Lane], call_timeout: Duration) -> Self {
        let mut desk = Desk::default();
        desk.add(lanes);
        Self {
            desk: Mutex::new(desk),
            news: Notify::new(),
            changed: Notify::new(),
            channels: Mutex::default(),
            changes: AtomicU64::new(1),
            attended: watch::Sender::new(0),
            call_timeout,
        }
    }

    /// Which change is the latest.
    pub fn wanted(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Changes up to this one have been looked at.
    pub fn attended(&self, change: u64) {
        self.attended.send_replace(change);
    }

    /// A channel was opened; those that are closed are forgotten.
    pub fn open(&self, seat: SeatId, channel: Channel) {
        let mut channels = lock(&self.channels);
        channels.retain(|_, channel| channel.status().connected());
        channels.insert(seat, channel);
    }

    /// Gives one delivery back. Only afterwards it counts as finished, or an acknowledgement of all before another one could overtake
    /// and include it.
    pub async fn reject(&self, channel: &Channel, receipt: Receipt) {
        give_back(channel, receipt.delivery_tag, self.call_timeout).await;
        lock(&self.desk).rejected(receipt);
    }

    fn change(&self) -> u64 {
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.notify_one();
        change
    }

    fn channel(&self, seat: SeatId) -> Option<Channel> {
        lock(&self.channels).get(&seat).cloned()
    }
}

#[derive(Debug)]
pub(super) struct AmqpInbox {
    shared: Arc<Shared>,
    link: Link,
    _attendant: AbortOnDropHandle<()>,
}

impl AmqpInbox {
    pub async fn open(attendant: Attendant) -> Self {
        let (shared, link) = (attendant.shared.clone(), attendant.link.clone());
        let change = shared.wanted();
        let inbox = Self {
            shared,
            link,
            _attendant: AbortOnDropHandle::new(tokio::spawn(attendant.run())),
        };
        inbox.attached(change).await;
        inbox
    }

    /// Waits until a change has taken effect, as long as a call may take and the broker is there. What takes longer is done behind.
    async fn attached(&self, change: u64) {
        if self.link.live().is_ok() {
            let mut attended = self.shared.attended.subscribe();
            let _ = timeout(
                self.shared.call_timeout,
                attended.wait_for(|attended| *attended >= change),
            )
            .await;
        }
    }

    fn unavailable(&self) -> BrokerError {
        let reason = format!("not acknowledged within {:?}", self.shared.call_timeout);
        self.link.live().err().unwrap_or(BrokerError::Unavailable(reason))
    }
}

#[async_trait]
impl Inbox for AmqpInbox {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            let taken = lock(&self.shared.desk).take();
            if taken.is_some() {
                return taken;
            }
            // What arrives between the look and the wait leaves a permit, and the wait ends at once.
            self.shared.news.notified().await;
        }
    }

    async fn add(&mut self, lanes: &[Lane]) -> Result<(), BrokerError> {
        lock(&self.shared.desk).add(lanes);
        self.attached(self.shared.change()).await;
        Ok(())
    }

    async fn settle(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let told = lock(&self.shared.desk).settle(tags);
        let mut telling = Vec::new();
        for (seat, acknowledgements) in told {
            let Some(channel) = self.shared.channel(seat) else {
                continue;
            };
            telling.extend(acknowledgements.into_iter().map(|acknowledgement| {
                let (channel, multiple) = (channel.clone(), acknowledgement.multiple);
                // An error says that the channel is gone, and the broker gives to another what was out of it.
                async move {
                    channel
                        .basic_ack(acknowledgement.delivery_tag, BasicAckOptions { multiple })
                        .await
                }
            }));
        }
        // They are sent in the order in which they stand here: each is queued when it is first polled.
        timeout(self.shared.call_timeout, join_all(telling))
            .await
            .map_err(|_| self.unavailable())?;
        Ok(())
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let shared = &self.shared;
        let receipts = lock(&shared.desk).close(tags);
        let given = receipts.into_iter().map(|receipt| async move {
            if let Some(channel) = shared.channel(receipt.seat) {
                shared.reject(&channel, receipt).await;
            }
        });
        timeout(shared.call_timeout, join_all(given))
            .await
            .map_err(|_| self.unavailable())?;
        Ok(())
    }

    async fn pause(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        lock(&self.shared.desk).pause(lane);
        self.shared.change();
        Ok(())
    }

    async fn resume(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        if lock(&self.shared.desk).resume(lane) {
            self.shared.news.notify_one();
        }
        self.shared.change();
        Ok(())
    }
}
