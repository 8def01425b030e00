//! Consumes one lane's queue, and again after whatever ends it.
//!
//! Each lane has a channel of its own: what goes wrong with one queue (no leader, deleted, broken) then stops no other, and to let go of a
//! lane is to close its channel, which gives back everything that came over it.
//!
//! A consumer can also end without a word: when a queue is deleted and declared anew by somebody else within moments, the broker forgets
//! its consumers without cancelling them, and a channel that knew the old queue takes the new one's envelopes for old ones and swallows
//! them. So a lane of which nothing comes is looked at, and a queue that was lost is never consumed on the same channel again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domain::lane::Lane;
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::{
    RETRY,
    attendant::Desks,
    connect::{Live, Silence},
    desk::{Arrived, SeatId},
    inbox::Occupied,
    lock,
    topology::Resource,
    trace_of,
};
use crate::BrokerError;

/// Longest pause before a lane that cannot be consumed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tends one lane for ever. `lanes` share what the inbox may be sent.
pub(super) async fn tend(desks: Arc<Desks>, lane: Lane, generation: u64, lanes: usize) {
    let mut links = desks.link.subscribe();
    let (mut pause, mut complained) = (RETRY, false);
    loop {
        let Ok(live) = desks.link.live() else {
            // Whether it is there again is not always said, so it is also looked for.
            let _ = timeout(LONGEST_PAUSE, links.changed()).await;
            continue;
        };
        match consume(&desks, &live, &lane, lanes).await {
            Ok((channel, stream)) => {
                let Some(occupied) = desks.shared.occupy(&lane, generation, channel.clone()) else {
                    // Somebody is about to end this task.
                    return;
                };
                let begun = Instant::now();
                let ended = pump(&desks, &live, &lane, &channel, stream, &occupied).await;
                tracing::debug!(%lane, "lane {lane} is not consumed any more: {ended}");
                if begun.elapsed() > LONGEST_PAUSE {
                    (pause, complained) = (RETRY, false);
                }
            }
            Err(error) if live.connected() && !complained => {
                let queue = desks.declarations.names.of(&Resource::Lane(lane.clone()));
                tracing::warn!(%lane, "queue {queue} cannot be consumed ({error}); delete it if it stays so; its jobs are in the ledger");
                complained = true;
            }
            Err(error) => tracing::debug!(%lane, %error, "lane {lane} cannot be consumed"),
        }
        // Whatever it was, the queue may be gone.
        desks.declarations.forget(&Resource::Lane(lane.clone()));
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

async fn consume(desks: &Desks, live: &Live, lane: &Lane, lanes: usize) -> Result<(Channel, Consumer), BrokerError> {
    let resource = Resource::Lane(lane.clone());
    desks.declarations.ensure(&resource).await?;
    let limit = desks.options.connect_timeout;
    let channel = live.channel(limit).await?;
    let consuming = async {
        // A quorum queue knows no limit but a consumer's own.
        let own = BasicQosOptions { global: false };
        channel.basic_qos(envelopes(desks, lane, lanes), own).await?;
        let (queue, options) = (desks.declarations.names.of(&resource), BasicConsumeOptions::default());
        channel
            .basic_consume(queue, "".into(), options, FieldTable::default())
            .await
    };
    let stream = live.within(limit, Silence::OfQueue, "consume", consuming).await?;
    Ok((channel, stream))
}

/// How many envelopes of a lane may be out: as many as surely carry no more jobs than may be, and no more than the lane's share of the
/// inbox.
fn envelopes(desks: &Desks, lane: &Lane, lanes: usize) -> u16 {
    let of_jobs = desks.prefetch / lane.class.envelope_jobs();
    let share = desks.options.prefetch_envelopes / lanes.max(1);
    u16::try_from(of_jobs.min(share).max(1)).unwrap_or(u16::MAX)
}

/// Brings what a lane's consumer receives to the desk, until it ends; says why.
async fn pump(
    desks: &Desks,
    live: &Live,
    lane: &Lane,
    channel: &Channel,
    mut stream: Consumer,
    occupied: &Occupied<'_>,
) -> String {
    let every = desks.options.look_every;
    let mut look = interval_at(Instant::now() + every, every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspected = None;
    loop {
        tokio::select! {
            next = stream.next() => match next {
                Some(Ok(delivery)) => {
                    let arrived = Arrived {
                        delivery_tag: delivery.delivery_tag,
                        trace: trace_of(&delivery.properties),
                        redelivered: delivery.redelivered,
                        body: Bytes::from(delivery.data),
                    };
                    if !lock(&desks.shared.desk).arrive(lane, occupied.seat, arrived) {
                        return "it is not wanted".into();
                    }
                    desks.shared.news.notify_one();
                }
                Some(Err(error)) => return error.to_string(),
                None => return "the broker has cancelled its consumer".into(),
            },
            _ = look.tick() => {
                let Some(arrivals) = lock(&desks.shared.desk).idle(lane) else { continue };
                let waiting = match seen(desks, live, lane, channel).await {
                    Ok((_, 0)) => return "the broker has forgotten its consumer".into(),
                    Ok((waiting, _)) => waiting > 0,
                    Err(error) => return error.to_string(),
                };
                // Envelopes wait and none comes: either they are on their way just now, or they never come.
                if waiting && suspected == Some(arrivals) {
                    return "the broker delivers nothing although something waits".into();
                }
                suspected = waiting.then_some(arrivals);
            }
        }
    }
}

/// How many messages and consumers a lane's queue has.
async fn seen(desks: &Desks, live: &Live, lane: &Lane, channel: &Channel) -> Result<(u32, u32), BrokerError> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let name = desks.declarations.names.of(&Resource::Lane(lane.clone()));
    let asked = channel.queue_declare(name, passive, FieldTable::default());
    let limit = desks.options.connect_timeout;
    let queue = live.within(limit, Silence::OfQueue, "look at the queue", asked).await?;
    Ok((queue.message_count(), queue.consumer_count()))
}

/// A number for a channel, once in this process.
pub(super) fn next_seat() -> SeatId {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    SeatId(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
