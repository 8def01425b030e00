//! Keeps a signer's inbox attached to the broker: a reconciler that compares what the inbox wants with what is consumed, and does what is
//! missing. It is woken by every change and by a clock, and may be run at any time.
//!
//! Whatever ends (a connection, a channel that the broker closed, a consumer whose queue was deleted) ends one pump, and the next look
//! finds what is missing. Nothing is repaired where it broke.
//!
//! A consumer can also end without a word: when a queue is deleted and declared anew by somebody else within moments, the broker forgets
//! its consumers without cancelling them, and a channel that knew the old queue takes the new one's envelopes for old ones and swallows
//! them. So lanes of which nothing comes are looked at, and a lane whose queue was lost is never consumed on the same channel again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use domain::lane::Lane;
use futures_util::{FutureExt, StreamExt, future::join_all};
use lapin::{
    Channel, Consumer,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    RETRY,
    connect::Live,
    desk::{Arrived, ConsumerId, Consuming, Plan, Receipt, SeatId},
    inbox::Shared,
    link::Link,
    lock,
    options::Options,
    topology::{Declarations, Resource},
    trace_of,
};
use crate::{BrokerError, OwnLanes};

/// How often all wake-ups are bound anew: an exchange that was deleted and declared again has lost its bindings.
const REBIND: Duration = Duration::from_mins(5);
/// Wake-ups that wait in an inbox's queue on the broker, and that are read together.
const WAKE_UPS: u32 = 10_000;
const WAKE_UPS_TOGETHER: u16 = 256;

pub(super) struct Attendant {
    pub link: Link,
    pub declarations: Arc<Declarations>,
    pub options: Arc<Options>,
    pub own: OwnLanes,
    pub shared: Arc<Shared>,
    /// Jobs of one lane that may be out.
    pub prefetch: usize,
}

/// What is attached, on one connection.
struct Attached {
    live: Arc<Live>,
    seats: HashMap<SeatId, Taken>,
    wake_ups: Option<WakeUps>,
    pumps: JoinSet<Ended>,
    looked: Instant,
    /// Lanes that looked unconsumed, with what had come of them then.
    suspects: HashMap<Lane, u64>,
}

/// A channel with consumers.
struct Taken {
    channel: Channel,
    consumers: HashMap<ConsumerId, ShortString>,
}

struct WakeUps {
    channel: Channel,
    queue: ShortString,
    heard: BTreeSet<Lane>,
    since: Instant,
}

enum Ended {
    Lane(Lane, Consuming),
    WakeUps,
}

impl Attendant {
    /// Attends for ever.
    pub async fn run(self) {
        let (mut links, mut own) = (self.link.subscribe(), self.own.subscribe());
        let mut attached: Option<Attached> = None;
        let mut names = 1..;
        loop {
            let wanted = self.shared.wanted();
            attached = self.on_the_present_connection(attached.take());
            let done = match attached.as_mut() {
                Some(attached) => self.reconcile(attached, &mut names).await,
                None => Ok(()),
            };
            if let Err(error) = &done {
                tracing::debug!(%error, "the inbox is not wholly attached; trying again");
            }
            self.shared.attended(wanted);
            let ended = async {
                match attached.as_mut() {
                    Some(Attached { pumps, .. }) if !pumps.is_empty() => pumps.join_next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = ended => {
                    if let (Some(attached), Some(Ok(ended))) = (attached.as_mut(), ended) {
                        self.ended(attached, ended).await;
                    }
                }
                () = self.shared.changed.notified() => {}
                _ = links.changed() => {}
                _ = own.changed() => {}
                () = sleep(if done.is_ok() { self.options.look_every } else { RETRY }) => {}
            }
        }
    }

    /// What is attached, unless it was on a connection that is gone.
    fn on_the_present_connection(&self, attached: Option<Attached>) -> Option<Attached> {
        let live = self.link.live().ok();
        match (attached, live) {
            (Some(attached), Some(live)) if attached.live.number == live.number => Some(attached),
            (gone, live) => {
                for seat in gone.iter().flat_map(|gone| gone.seats.keys()) {
                    lock(&self.shared.desk).lose(*seat);
                }
                live.map(|live| Attached {
                    live,
                    seats: HashMap::new(),
                    wake_ups: None,
                    pumps: JoinSet::new(),
                    looked: Instant::now(),
                    suspects: HashMap::new(),
                })
            }
        }
    }

    async fn ended(&self, attached: &mut Attached, ended: Ended) {
        match ended {
            Ended::WakeUps => attached.wake_ups = None,
            Ended::Lane(lane, Consuming { consumer, seat }) => {
                if let Some(taken) = attached.seats.get_mut(&seat) {
                    taken.consumers.remove(&consumer);
                }
                let ended = lock(&self.shared.desk).ended(&lane, consumer);
                if ended {
                    // It was not stopped by us: its queue may be gone.
                    tracing::debug!(%lane, "a consumer has ended");
                    self.retire(attached, &lane, seat).await;
                }
            }
        }
        let desk = &self.shared.desk;
        attached.seats.retain(|seat, taken| {
            let open = taken.channel.status().connected();
            if !open {
                lock(desk).lose(*seat);
            }
            open
        });
    }

    /// Gives up a channel on which a lane's queue was lost; its other lanes move to another.
    async fn retire(&self, attached: &mut Attached, lane: &Lane, seat: SeatId) {
        self.declarations.forget(&Resource::Lane(lane.clone()));
        lock(&self.shared.desk).lose(seat);
        if let Some(Taken { channel, .. }) = attached.seats.remove(&seat) {
            let closed = channel.close(200, "a queue was lost".into());
            // One that does not close in time goes with its connection; one that is closed already is what is wanted.
            let _ = attached
                .live
                .within(self.options.connect_timeout, "close a channel", closed)
                .await;
        }
    }

    /// Looks whether lanes of which nothing comes are really consumed.
    async fn look(&self, attached: &mut Attached) -> Result<(), BrokerError> {
        if attached.looked.elapsed() < self.options.look_every {
            return Ok(());
        }
        attached.looked = Instant::now();
        let idle = lock(&self.shared.desk).idle();
        let lanes: Vec<Lane> = idle.iter().map(|(lane, _)| lane.clone()).collect();
        let before = std::mem::take(&mut attached.suspects);
        for ((lane, arrivals), seen) in idle.into_iter().zip(self.declarations.look(&lanes).await?) {
            let lost = match seen {
                None | Some((_, 0)) => true,
                // Envelopes wait and none comes: either they are on their way just now, or they never come.
                Some((1.., _)) if before.get(&lane) == Some(&arrivals) => true,
                Some((1.., _)) => {
                    attached.suspects.insert(lane.clone(), arrivals);
                    false
                }
                Some((0, _)) => false,
            };
            let seat = lock(&self.shared.desk).seat_of(&lane);
            if let (true, Some(seat)) = (lost, seat) {
                tracing::warn!(%lane, "lane {lane} was not consumed any more; consuming it anew");
                self.retire(attached, &lane, seat).await;
            }
        }
        Ok(())
    }

    /// Does what is missing. One lane's failure holds up no other; the first is returned.
    async fn reconcile(
        &self,
        attached: &mut Attached,
        names: &mut impl Iterator<Item = u64>,
    ) -> Result<(), BrokerError> {
        let looked = self.look(attached).await;
        let plan = lock(&self.shared.desk).plan(|lane| self.own.carrier(lane));
        let stopped = self.stop(attached, &plan).await;
        let heard = self.hear(attached, plan.hear).await;
        let resources = plan.consume.into_iter().map(Resource::Lane);
        let declaring = resources.map(|resource| async {
            let declared = self.declarations.ensure(&resource).await;
            (resource, declared)
        });
        let mut first = looked.and(stopped).and(heard);
        for (resource, declared) in join_all(declaring).await {
            let Resource::Lane(lane) = resource else { continue };
            let consumed = match declared {
                Ok(()) => self.consume(attached, &lane, plan.own, names).await,
                Err(error) => Err(error),
            };
            first = first.and(consumed);
        }
        first
    }

    /// Stops consumers, and then gives back what they brought: the other way round it would come again.
    async fn stop(&self, attached: &mut Attached, plan: &Plan) -> Result<(), BrokerError> {
        let live = attached.live.clone();
        let mut first = Ok(());
        for (_, Consuming { consumer, seat }) in &plan.stop {
            let Some(taken) = attached.seats.get_mut(seat) else {
                continue;
            };
            let Some(tag) = taken.consumers.remove(consumer) else {
                continue;
            };
            let cancelled = taken.channel.basic_cancel(tag, BasicCancelOptions::default());
            let cancelled = live
                .within(self.options.connect_timeout, "stop consuming", cancelled)
                .await;
            first = first.and(cancelled);
        }
        let channel = |seat: SeatId| attached.seats.get(&seat).map(|taken| taken.channel.clone());
        let given_back = plan
            .give_back
            .iter()
            .filter_map(|receipt| Some((channel(receipt.seat)?, *receipt)));
        for (channel, receipt) in given_back.collect::<Vec<_>>() {
            self.shared.reject(&channel, receipt).await;
        }
        first
    }

    async fn consume(
        &self,
        attached: &mut Attached,
        lane: &Lane,
        own: usize,
        names: &mut impl Iterator<Item = u64>,
    ) -> Result<(), BrokerError> {
        let (live, limit) = (attached.live.clone(), self.options.connect_timeout);
        let free = attached.seats.iter().find(|(_, taken)| {
            taken.consumers.len() < self.options.channel_consumers && taken.channel.status().connected()
        });
        let seat = if let Some((seat, _)) = free {
            *seat
        } else {
            let channel = live.channel(limit).await?;
            let seat = SeatId(names.next().unwrap_or_default());
            lock(&self.shared.desk).seated(seat);
            self.shared.open(seat, channel.clone());
            let consumers = HashMap::new();
            attached.seats.insert(seat, Taken { channel, consumers });
            seat
        };
        let Some(taken) = attached.seats.get_mut(&seat) else {
            return Ok(());
        };
        let consumer = ConsumerId(names.next().unwrap_or_default());
        let tag: ShortString = format!("{lane}.{}", consumer.0).into();
        let consuming = async {
            let options = BasicQosOptions { global: false };
            taken.channel.basic_qos(self.envelopes(lane, own), options).await?;
            let queue = self.declarations.names.of(&Resource::Lane(lane.clone()));
            let options = BasicConsumeOptions::default();
            taken
                .channel
                .basic_consume(queue, tag.clone(), options, FieldTable::default())
                .await
        };
        let stream = live.within(limit, &format!("consume lane {lane}"), consuming).await;
        let stream = stream.inspect_err(|_| self.declarations.forget(&Resource::Lane(lane.clone())))?;
        taken.consumers.insert(consumer, tag);
        let consuming = Consuming { consumer, seat };
        lock(&self.shared.desk).consumed(lane, consuming);
        let (shared, channel) = (self.shared.clone(), taken.channel.clone());
        attached
            .pumps
            .spawn(pump(stream, lane.clone(), consuming, channel, shared));
        Ok(())
    }

    /// How many envelopes of a lane may be out: as many as surely carry no more jobs than may be, and no more than the lane's share of
    /// the inbox.
    fn envelopes(&self, lane: &Lane, own: usize) -> u16 {
        let of_jobs = self.prefetch / lane.class.envelope_jobs();
        let share = self.options.prefetch_envelopes / own.max(1);
        u16::try_from(of_jobs.min(share).max(1)).unwrap_or(u16::MAX)
    }

    /// Hears the wake-ups of these lanes and of no others.
    async fn hear(&self, attached: &mut Attached, wanted: BTreeSet<Lane>) -> Result<(), BrokerError> {
        let (live, limit) = (attached.live.clone(), self.options.connect_timeout);
        if attached.wake_ups.is_none() {
            if wanted.is_empty() {
                return Ok(());
            }
            self.declarations.ensure(&Resource::WakeUps).await?;
            let channel = live.channel(limit).await?;
            let (queue, stream) = live.within(limit, "consume wake-ups", listen(&channel)).await?;
            attached
                .pumps
                .spawn(pump_wake_ups(stream, channel.clone(), self.shared.clone()));
            let heard = BTreeSet::new();
            let since = Instant::now();
            attached.wake_ups = Some(WakeUps {
                channel,
                queue,
                heard,
                since,
            });
        }
        let Some(wake_ups) = attached.wake_ups.as_mut() else {
            return Ok(());
        };
        if wake_ups.since.elapsed() > REBIND {
            (wake_ups.heard, wake_ups.since) = (BTreeSet::new(), Instant::now());
        }
        if wake_ups.heard == wanted {
            return Ok(());
        }
        let exchange = self.declarations.names.of(&Resource::WakeUps);
        let (channel, queue) = (&wake_ups.channel, &wake_ups.queue);
        let new: Vec<&Lane> = wanted.difference(&wake_ups.heard).collect();
        let old: Vec<&Lane> = wake_ups.heard.difference(&wanted).collect();
        let binding = async {
            for lane in old {
                let key = lane.to_string().into();
                channel
                    .queue_unbind(queue.clone(), exchange.clone(), key, FieldTable::default())
                    .await?;
            }
            // Thousands of bindings do not each wait for an answer; the last one's is the answer to all.
            for (index, lane) in new.iter().enumerate() {
                let nowait = index + 1 < new.len();
                let (key, options) = (lane.to_string().into(), QueueBindOptions { nowait });
                let bound = channel.queue_bind(queue.clone(), exchange.clone(), key, options, FieldTable::default());
                bound.await?;
            }
            Ok(())
        };
        let bound = live.within(
            limit + PER_BINDING * u32::try_from(wanted.len()).unwrap_or(u32::MAX),
            "bind",
            binding,
        );
        bound
            .await
            .inspect_err(|_| self.declarations.forget(&Resource::WakeUps))?;
        wake_ups.heard = wanted;
        Ok(())
    }
}

/// How much longer one more binding may take.
const PER_BINDING: Duration = Duration::from_millis(5);

/// Consumes a new queue of this connection's own.
async fn listen(channel: &Channel) -> lapin::Result<(ShortString, Consumer)> {
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(WAKE_UPS.into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let queue = channel.queue_declare("".into(), own, arguments).await?;
    channel
        .basic_qos(WAKE_UPS_TOGETHER, BasicQosOptions { global: false })
        .await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let stream = channel
        .basic_consume(queue.name().clone(), "wake-ups".into(), options, none)
        .await?;
    Ok((queue.name().clone(), stream))
}

/// Brings what a lane's consumer receives to the desk, until it ends.
async fn pump(mut stream: Consumer, lane: Lane, consuming: Consuming, channel: Channel, shared: Arc<Shared>) -> Ended {
    // After an error a consumer has nothing more to say.
    while let Some(Ok(delivery)) = stream.next().await {
        let receipt = Receipt {
            seat: consuming.seat,
            delivery_tag: delivery.delivery_tag,
        };
        let arrived = Arrived {
            receipt,
            trace: trace_of(&delivery.properties),
            redelivered: delivery.redelivered,
            body: Bytes::from(delivery.data),
        };
        if lock(&shared.desk).arrive(&lane, consuming.consumer, arrived) {
            shared.news.notify_one();
        } else {
            shared.reject(&channel, receipt).await;
        }
    }
    Ended::Lane(lane, consuming)
}

async fn pump_wake_ups(mut stream: Consumer, channel: Channel, shared: Arc<Shared>) -> Ended {
    while let Some(Ok(first)) = stream.next().await {
        let (mut last, mut keys) = (first.delivery_tag, vec![first.routing_key]);
        while let Some(Some(Ok(next))) = stream.next().now_or_never() {
            last = next.delivery_tag;
            keys.push(next.routing_key);
        }
        {
            let mut desk = lock(&shared.desk);
            // Anybody on the broker may publish here; a name that is no lane wakes nobody.
            for lane in keys.iter().filter_map(|key| key.as_str().parse().ok()) {
                desk.wake(&lane);
            }
        }
        shared.news.notify_one();
        let all = BasicAckOptions { multiple: true };
        if channel.basic_ack(last, all).await.is_err() {
            break;
        }
    }
    Ended::WakeUps
}

/// Gives one delivery back to its queue. An error says that the channel is gone, and with it the delivery.
pub(super) async fn give_back(channel: &Channel, delivery_tag: u64, limit: Duration) {
    let options = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    let _ = timeout(limit, channel.basic_nack(delivery_tag, options)).await;
}
