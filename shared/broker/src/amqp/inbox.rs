//! A signer's inbox: the desk, and the tasks that keep it attached. Nothing here waits for the broker longer than a call may take.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use domain::lane::Lane;
use futures_util::future::join_all;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    attendant::{Desks, attend},
    desk::{Desk, Receipt, SeatId},
    lock,
    tending::next_seat,
};
use crate::{BrokerError, Inbox, Incoming};

/// What an inbox and its tasks have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub desk: Mutex<Desk>,
    /// There may be something to take.
    pub news: Notify,
    /// What is wanted may have changed.
    pub changed: Notify,
    channels: Mutex<HashMap<SeatId, Channel>>,
    changes: AtomicU64,
    /// The latest change that is planned for. Tells of everything that comes true, too.
    planned: watch::Sender<u64>,
}

impl Shared {
    pub fn new(lanes: &[Lane]) -> Self {
        let mut desk = Desk::default();
        desk.add(lanes);
        Self {
            desk: Mutex::new(desk),
            news: Notify::new(),
            changed: Notify::new(),
            channels: Mutex::default(),
            changes: AtomicU64::new(1),
            planned: watch::Sender::new(0),
        }
    }

    /// The number of the latest change.
    pub fn latest(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Changes up to this one are planned for.
    pub fn planned(&self, change: u64) {
        self.planned.send_replace(change);
    }

    /// Something that was planned has come true.
    pub fn progressed(&self) {
        self.planned.send_modify(|_| {});
    }

    /// A lane is consumed on this channel, until what is returned is dropped. `None`: that is not wanted any more.
    pub fn occupy<'a>(&'a self, lane: &'a Lane, generation: u64, channel: Channel) -> Option<Occupied<'a>> {
        let seat = next_seat();
        if !lock(&self.desk).consumed(lane, generation, seat) {
            return None;
        }
        lock(&self.channels).insert(seat, channel);
        self.progressed();
        Some(Occupied {
            shared: self,
            lane,
            seat,
        })
    }

    fn change(&self) -> u64 {
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.notify_one();
        change
    }

    fn channel(&self, seat: SeatId) -> Option<Channel> {
        lock(&self.channels).get(&seat).cloned()
    }

    /// Gives one delivery back. Only afterwards it counts as finished, or an acknowledgement of all before another one could overtake
    /// and include it.
    async fn reject(&self, receipt: Receipt) {
        let Some(channel) = self.channel(receipt.seat) else {
            return;
        };
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        // An error says that the channel is gone, and the broker gives to another what was out of it.
        let _ = channel.basic_nack(receipt.delivery_tag, options).await;
        lock(&self.desk).rejected(receipt);
    }
}

/// A lane's channel. Dropping it lets go of the lane.
#[derive(Debug)]
pub(super) struct Occupied<'a> {
    shared: &'a Shared,
    lane: &'a Lane,
    pub seat: SeatId,
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        lock(&self.shared.desk).lost(self.lane, self.seat);
        lock(&self.shared.channels).remove(&self.seat);
    }
}

#[derive(Debug)]
pub(super) struct AmqpInbox {
    desks: Arc<Desks>,
    _attendant: AbortOnDropHandle<()>,
}

impl AmqpInbox {
    pub async fn open(desks: Desks) -> Self {
        let desks = Arc::new(desks);
        let inbox = Self {
            _attendant: AbortOnDropHandle::new(tokio::spawn(attend(desks.clone()))),
            desks,
        };
        inbox.attached(inbox.desks.shared.latest()).await;
        inbox
    }

    /// Waits until a change has come true, as long as a call may take and the broker is there. What takes longer is done behind.
    async fn attached(&self, change: u64) {
        let Desks {
            shared, link, options, ..
        } = &*self.desks;
        if link.live().is_ok() {
            let mut planned = shared.planned.subscribe();
            let attached = planned.wait_for(|planned| *planned >= change && lock(&shared.desk).is_attached());
            let _ = timeout(options.call_timeout, attached).await;
        }
    }

    /// Waits for what is told to the broker, as long as a call may take.
    async fn told(&self, telling: impl Future) -> Result<(), BrokerError> {
        let limit = self.desks.options.call_timeout;
        let told = timeout(limit, telling).await;
        told.map(drop).map_err(|_| {
            let reason = format!("not told within {limit:?}");
            self.desks.link.live().err().unwrap_or(BrokerError::Unavailable(reason))
        })
    }
}

#[async_trait]
impl Inbox for AmqpInbox {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            let taken = lock(&self.desks.shared.desk).take();
            if taken.is_some() {
                return taken;
            }
            // What arrives between the look and the wait leaves a permit, and the wait ends at once.
            self.desks.shared.news.notified().await;
        }
    }

    async fn add(&mut self, lanes: &[Lane]) -> Result<(), BrokerError> {
        lock(&self.desks.shared.desk).add(lanes);
        self.attached(self.desks.shared.change()).await;
        Ok(())
    }

    async fn settle(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let shared = &self.desks.shared;
        let settled = lock(&shared.desk).settle(tags);
        let mut telling = Vec::new();
        for (seat, acknowledgements) in settled {
            let Some(channel) = shared.channel(seat) else { continue };
            telling.extend(acknowledgements.into_iter().map(|acknowledgement| {
                let (channel, multiple) = (channel.clone(), acknowledgement.multiple);
                async move {
                    // An error says that the channel is gone, and the broker gives to another what was out of it.
                    let _ = channel
                        .basic_ack(acknowledgement.delivery_tag, BasicAckOptions { multiple })
                        .await;
                }
            }));
        }
        // They are sent in the order in which they stand here: each is queued when it is first polled.
        self.told(join_all(telling)).await
    }

    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let receipts = lock(&self.desks.shared.desk).close(tags);
        self.told(join_all(
            receipts.into_iter().map(|receipt| self.desks.shared.reject(receipt)),
        ))
        .await
    }

    async fn pause(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        lock(&self.desks.shared.desk).pause(lane);
        self.desks.shared.change();
        Ok(())
    }

    async fn resume(&mut self, lane: &Lane) -> Result<(), BrokerError> {
        if lock(&self.desks.shared.desk).resume(lane) {
            self.desks.shared.news.notify_one();
        }
        self.desks.shared.change();
        Ok(())
    }
}
