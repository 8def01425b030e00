//! Hears the wake-ups of an inbox's ledger lanes: an exclusive queue, bound to the exchange of the wake-ups once for each lane.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::lane::Lane;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep},
};

use super::{
    RETRY,
    attendant::Desks,
    connect::{Live, Silence},
    lock,
    topology::Resource,
};
use crate::BrokerError;

/// Wake-ups that wait in an inbox's queue on the broker, and that are read together.
const WAITING: u32 = 10_000;
const TOGETHER: u16 = 256;
/// How often all lanes are bound anew: an exchange that was deleted and declared again has lost its bindings.
const REBIND: Duration = Duration::from_mins(5);
/// How much longer the question about many bindings may take for each of them.
const PER_BINDING: Duration = Duration::from_millis(5);

/// Hears the wake-ups of these lanes for ever.
pub(super) async fn hear_wake_ups(desks: Arc<Desks>, mut wanted: watch::Receiver<BTreeSet<Lane>>) {
    loop {
        if wanted.borrow().is_empty() && wanted.changed().await.is_err() {
            return;
        }
        if let Err(error) = hear(&desks, &mut wanted).await
            && desks.link.live().is_ok()
        {
            tracing::debug!(%error, "no wake-ups are heard; trying again");
        }
        lock(&desks.shared.desk).hears(BTreeSet::new());
        desks.declarations.forget(&Resource::WakeUps);
        sleep(RETRY).await;
    }
}

async fn hear(desks: &Desks, wanted: &mut watch::Receiver<BTreeSet<Lane>>) -> Result<(), BrokerError> {
    let (live, limit) = (desks.link.live()?, desks.options.connect_timeout);
    desks.declarations.ensure(&Resource::WakeUps).await?;
    let channel = live.channel(limit).await?;
    let listening = listen(&channel);
    let (queue, mut stream) = live
        .within(limit, Silence::OfConnection, "consume wake-ups", listening)
        .await?;
    let mut heard = BTreeSet::new();
    let mut rebind = interval_at(Instant::now() + REBIND, REBIND);
    loop {
        let lanes = wanted.borrow_and_update().clone();
        if lanes != heard {
            bind(desks, &live, &channel, &queue, &heard, &lanes).await?;
            heard = lanes;
            lock(&desks.shared.desk).hears(heard.clone());
            desks.shared.progressed();
        }
        tokio::select! {
            next = stream.next() => match next {
                Some(Ok(first)) => {
                    let (mut last, mut keys) = (first.delivery_tag, vec![first.routing_key]);
                    while let Some(Some(Ok(next))) = stream.next().now_or_never() {
                        last = next.delivery_tag;
                        keys.push(next.routing_key);
                    }
                    wake(desks, &keys);
                    let acknowledged = channel.basic_ack(last, BasicAckOptions { multiple: true });
                    live.within(limit, Silence::OfConnection, "acknowledge wake-ups", acknowledged).await?;
                }
                ended => return Err(BrokerError::Unavailable(format!("wake-ups: {ended:?}"))),
            },
            changed = wanted.changed() => changed.map_err(|_| BrokerError::Unavailable("the inbox is closed".into()))?,
            _ = rebind.tick() => heard.clear(),
        }
    }
}

fn wake(desks: &Desks, keys: &[ShortString]) {
    let mut desk = lock(&desks.shared.desk);
    // Anybody on the broker may publish here; a name that is no lane wakes nobody.
    for lane in keys.iter().filter_map(|key| key.as_str().parse().ok()) {
        desk.wake(&lane);
    }
    desks.shared.news.notify_one();
}

/// Consumes a new queue of this connection's own.
async fn listen(channel: &Channel) -> lapin::Result<(ShortString, Consumer)> {
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(WAITING.into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let queue = channel.queue_declare("".into(), own, arguments).await?;
    channel.basic_qos(TOGETHER, BasicQosOptions { global: false }).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let stream = channel
        .basic_consume(queue.name().clone(), "".into(), options, none)
        .await?;
    Ok((queue.name().clone(), stream))
}

/// Binds and unbinds what is different.
async fn bind(
    desks: &Desks,
    live: &Live,
    channel: &Channel,
    queue: &ShortString,
    heard: &BTreeSet<Lane>,
    wanted: &BTreeSet<Lane>,
) -> Result<(), BrokerError> {
    let exchange = desks.declarations.names.of(&Resource::WakeUps);
    let new: Vec<&Lane> = wanted.difference(heard).collect();
    let old: Vec<&Lane> = heard.difference(wanted).collect();
    let count = u32::try_from(new.len() + old.len()).unwrap_or(u32::MAX);
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
            channel
                .queue_bind(queue.clone(), exchange.clone(), key, options, FieldTable::default())
                .await?;
        }
        Ok(())
    };
    let limit = desks.options.connect_timeout + PER_BINDING * count;
    live.within(limit, Silence::OfConnection, "bind wake-ups", binding)
        .await
}
