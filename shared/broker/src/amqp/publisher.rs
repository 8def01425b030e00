//! Publishing with confirms, on a channel that is opened again whenever it is lost.
//!
//! Each queue that is replicated has a channel of its own: a broker that publishes to a queue without a leader waits for one, and with it
//! everything else that came over the same channel.
//!
//! One task owns the channel and every confirm that is awaited on it. A caller that gives up takes nothing with it: the confirm is still
//! awaited here, so the library keeps no list of forgotten ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    BLOCKED, RETRY,
    connect::{Live, Silence},
    link::Link,
    lock,
    options::Options,
    topology::Resource,
    verdicts::{Verdict, Verdicts},
};
use crate::BrokerError;

/// Publications on one channel that are not confirmed, at a time. More gains nothing, and each confirm looks through all of them.
const UNCONFIRMED: usize = 256;
/// Publications that wait for a place among them.
const WAITING: usize = 64;

/// A message to be published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub body: Bytes,
    pub headers: Vec<(&'static str, String)>,
    /// Whether it outlives a restart of the broker.
    pub persistent: bool,
}

type Reply = oneshot::Sender<Result<Verdict, BrokerError>>;

/// Publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link,
    options: Arc<Options>,
    queue: mpsc::Sender<(Message, Reply)>,
    _task: AbortOnDropHandle<()>,
}

impl Publisher {
    pub fn new(link: Link, options: Arc<Options>) -> Self {
        let (queue, messages) = mpsc::channel(WAITING);
        let task = tokio::spawn(run(link.clone(), options.clone(), messages));
        Self {
            link,
            options,
            queue,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Publishes and waits for the broker's word, for at most the time of a call.
    pub async fn publish(&self, message: Message) -> Result<Verdict, BrokerError> {
        let live = self.link.live()?;
        if live.blocked() {
            return Err(BrokerError::Unavailable(BLOCKED.into()));
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.queue.send((message, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(self.options.call_timeout, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(BrokerError::Unavailable("the publisher has ended".into())),
            Err(_) => Err(BrokerError::Unavailable(format!(
                "not confirmed within {:?}",
                self.options.call_timeout
            ))),
        }
    }
}

/// Publishers of queues, each made when it is first needed.
#[derive(Debug)]
pub(super) struct Publishers {
    link: Link,
    options: Arc<Options>,
    by_queue: Mutex<HashMap<Resource, Arc<Publisher>>>,
}

impl Publishers {
    pub fn new(link: Link, options: Arc<Options>) -> Self {
        let by_queue = Mutex::default();
        Self {
            link,
            options,
            by_queue,
        }
    }

    /// The publisher of a queue. Of those that are there, the ones that are not `needed` any more are let go when one is added.
    pub fn of(&self, resource: &Resource, needed: impl Fn(&Resource) -> bool) -> Arc<Publisher> {
        let mut by_queue = lock(&self.by_queue);
        if let Some(publisher) = by_queue.get(resource) {
            return publisher.clone();
        }
        by_queue.retain(|resource, _| needed(resource));
        let publisher = Arc::new(Publisher::new(self.link.clone(), self.options.clone()));
        by_queue.insert(resource.clone(), publisher.clone());
        publisher
    }
}

async fn run(link: Link, options: Arc<Options>, mut messages: mpsc::Receiver<(Message, Reply)>) {
    loop {
        let error = match confirming(&link, &options).await {
            Ok((live, channel)) => publish(&live, channel, &options, &mut messages).await,
            Err(error) => error,
        };
        // Whoever waits now waits for nothing; whoever comes later hears it from the link.
        while let Ok((_, reply)) = messages.try_recv() {
            let _ = reply.send(Err(error.clone()));
        }
        if messages.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

async fn confirming(link: &Link, options: &Options) -> Result<(Arc<Live>, Channel), BrokerError> {
    let live = link.live()?;
    let channel = live.channel(options.connect_timeout).await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    live.within(
        options.connect_timeout,
        Silence::OfConnection,
        "ask for confirms",
        select,
    )
    .await?;
    Ok((live, channel))
}

/// A publication that is not confirmed yet.
struct Pending {
    since: Instant,
    reply: Reply,
}

/// Publishes until the channel is lost.
async fn publish(
    live: &Live,
    channel: Channel,
    options: &Options,
    messages: &mut mpsc::Receiver<(Message, Reply)>,
) -> BrokerError {
    let mut confirms: FuturesUnordered<BoxFuture<'static, (u64, lapin::Result<Confirmation>)>> =
        FuturesUnordered::new();
    let mut pending: HashMap<u64, Pending> = HashMap::new();
    let mut verdicts = Verdicts::default();
    let mut look = interval(RETRY);
    let mut names = 0..;
    let lost = loop {
        tokio::select! {
            biased;
            Some((name, confirmation)) = confirms.next() => {
                let (taken, returned) = match confirmation {
                    Ok(Confirmation::Ack(returned)) => (true, returned),
                    Ok(Confirmation::Nack(returned)) => (false, returned),
                    Ok(Confirmation::NotRequested) => break "the broker confirms nothing".to_owned(),
                    Err(error) => break format!("publish: {error}"),
                };
                let carried = returned.and_then(|message| name_of(&message.delivery.properties));
                for (name, verdict) in verdicts.completed(name, taken, carried, confirms.len()) {
                    if let Some(Pending { reply, .. }) = pending.remove(&name) {
                        let _ = reply.send(Ok(verdict));
                    }
                }
            }
            message = messages.recv(), if pending.len() < UNCONFIRMED => {
                let Some((message, reply)) = message else { break "the broker is let go".to_owned() };
                // Whoever has given up already is not published for.
                if let (Some(name), false) = (names.next(), reply.is_closed()) {
                    pending.insert(name, Pending { since: Instant::now(), reply });
                    confirms.push(send(channel.clone(), name, message).boxed());
                }
            }
            _ = look.tick() => {
                if !channel.status().connected() {
                    break "the channel is lost".to_owned();
                }
                let oldest = pending.values().map(|pending| pending.since).min();
                if !live.blocked() && oldest.is_some_and(|since| since.elapsed() > options.stuck_after) {
                    break format!("not confirmed within {:?}", options.stuck_after);
                }
            }
        }
    };
    let lost = BrokerError::Unavailable(lost);
    for Pending { reply, .. } in pending.into_values() {
        let _ = reply.send(Err(lost.clone()));
    }
    lost
}

async fn send(channel: Channel, name: u64, message: Message) -> (u64, lapin::Result<Confirmation>) {
    let headers = message
        .headers
        .into_iter()
        .fold(FieldTable::default(), |mut headers, (key, value)| {
            headers.insert(key.into(), AMQPValue::LongString(value.into()));
            headers
        });
    let properties = BasicProperties::default()
        .with_message_id(name.to_string().into())
        .with_delivery_mode(if message.persistent { 2 } else { 1 })
        .with_headers(headers);
    let options = BasicPublishOptions {
        // Without it, a message for a queue that is gone is confirmed and lost.
        mandatory: true,
        immediate: false,
    };
    let sent = channel.basic_publish(
        message.exchange,
        message.routing_key,
        options,
        &message.body,
        properties,
    );
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (name, confirmed)
}

fn name_of(properties: &BasicProperties) -> Option<u64> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}
