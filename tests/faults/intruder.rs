//! Another client of the broker: its credentials are valid, and it has no key of a node. It listens in by the broker's own tracing,
//! takes what it can reach, and publishes what it likes.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt as _, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tests::Grown;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;

/// Publications that are not confirmed at a time.
const UNCONFIRMED: usize = 64;
/// How long the intruder rests when a queue is full.
const REST: Duration = Duration::from_millis(50);
/// What a consumer of the intruder's is called.
const TAG: &str = "intruder";

/// The client.
pub struct Intruder {
    _connection: Connection,
    channel: Channel,
}

/// A message to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub queue: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn to(queue: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            queue: queue.to_owned(),
            body: body.into(),
        }
    }
}

impl Intruder {
    pub async fn connect(grown: &Grown) -> Result<Self> {
        let address = format!("amqp://guest:guest@{}/%2f", grown.rabbitmq.address());
        let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self {
            _connection: connection,
            channel,
        })
    }

    /// Publishes until the broker has taken everything. A queue that is full is tried again.
    pub async fn send(&self, messages: &[Message]) -> Result<()> {
        let mut left: Vec<&Message> = messages.iter().collect();
        while !left.is_empty() {
            let mut full = Vec::new();
            for some in left.chunks(UNCONFIRMED) {
                let taken = try_join_all(some.iter().map(|message| self.publish(message))).await?;
                full.extend(
                    some.iter()
                        .zip(taken)
                        .filter(|(_, taken)| !taken)
                        .map(|(message, _)| *message),
                );
            }
            if !full.is_empty() {
                sleep(REST).await;
            }
            left = full;
        }
        Ok(())
    }

    async fn publish(&self, message: &Message) -> Result<bool> {
        let mandatory = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let (exchange, queue) = ("".into(), message.queue.as_str().into());
        let published =
            self.channel
                .basic_publish(exchange, queue, mandatory, &message.body, BasicProperties::default());
        match timeout(PATIENCE, published.await?).await?? {
            Confirmation::Ack(None) => Ok(true),
            Confirmation::Nack(_) => Ok(false),
            other => bail!("{} took nothing: {other:?}", message.queue),
        }
    }

    /// Listens in until `enough`: everything that anybody publishes to a queue.
    pub async fn overhear(&self, grown: &Grown, mut enough: impl FnMut(&[Message]) -> bool) -> Result<Vec<Message>> {
        grown.rabbitmq.control(&["trace_on"]).await?;
        let own = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare("".into(), own, FieldTable::default())
            .await?;
        let (name, bind, none) = (queue.name().clone(), QueueBindOptions::default(), FieldTable::default());
        self.channel
            .queue_bind(
                name.clone(),
                "amq.rabbitmq.trace".into(),
                "publish.#".into(),
                bind,
                none,
            )
            .await?;
        let mut stream = self.consume(name.as_str()).await?;
        let mut heard = Vec::new();
        while !enough(&heard) {
            let next = timeout(PATIENCE, stream.next()).await?;
            let delivery = next.context("the broker tells nothing any more")??;
            let headers = delivery.properties.headers().as_ref();
            let keys = headers.and_then(|headers| headers.inner().get("routing_keys"));
            if let Some(AMQPValue::FieldArray(keys)) = keys
                && let Some(AMQPValue::LongString(key)) = keys.as_slice().first()
            {
                heard.push(Message::to(&key.to_string(), delivery.data));
            }
        }
        self.leave().await?;
        grown.rabbitmq.control(&["trace_off"]).await?;
        Ok(heard)
    }

    /// Consumes a queue beside those whose it is, and hands nothing on. How many messages it took in this time.
    pub async fn steal(&self, queue: &str, time: Duration) -> Result<usize> {
        let mut stream = self.consume(queue).await?;
        let mut stolen = 0;
        let taking = async {
            while let Some(Ok(_)) = stream.next().await {
                stolen += 1;
            }
        };
        let ended = timeout(time, taking).await;
        ensure!(ended.is_err(), "{queue} could not be consumed");
        self.leave().await?;
        Ok(stolen)
    }

    async fn consume(&self, queue: &str) -> Result<Consumer> {
        let taken = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let none = FieldTable::default();
        Ok(self
            .channel
            .basic_consume(queue.into(), TAG.into(), taken, none)
            .await?)
    }

    async fn leave(&self) -> Result<()> {
        Ok(self
            .channel
            .basic_cancel(TAG.into(), BasicCancelOptions::default())
            .await?)
    }

    /// How many messages wait in a durable queue.
    pub async fn waiting(&self, queue: &str) -> Result<u64> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await?;
        Ok(queue.message_count().into())
    }

    /// Takes one message from a queue: its body, and its headers that are text.
    pub async fn take(&self, queue: &str) -> Result<Option<(Vec<u8>, Vec<(String, String)>)>> {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await?;
        Ok(got.map(|message| {
            let headers = message.properties.headers().clone().unwrap_or_default();
            let text = |(name, value): (&_, &AMQPValue)| match value {
                AMQPValue::LongString(text) => Some((ToString::to_string(name), text.to_string())),
                _ => None,
            };
            let headers = headers.inner().iter().filter_map(text).collect();
            (message.delivery.data, headers)
        }))
    }
}
