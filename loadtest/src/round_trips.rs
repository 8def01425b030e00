//! Raw round trips through RabbitMQ, with nothing of ours around them: a message is published to a quorum queue and confirmed, delivered
//! and acknowledged, and answered on an exclusive queue. What a queue of requests costs on this machine at the least.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cpu::{self, Watched},
    report::RoundTripRow,
};

/// Where requests wait.
const QUEUE: &str = "bulkhead-loadtest";
/// Bytes of a request and of an answer: a CSR with what is asked for, a certificate.
const REQUEST: usize = 1_500;
const ANSWER: usize = 1_000;
/// Deliveries that the answering side may hold.
const PREFETCH: u16 = 256;
/// How long one round trip may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who waits for which answer: one place for each request that may be under way.
type Waiting = Arc<Vec<Mutex<Option<oneshot::Sender<()>>>>>;

/// Makes round trips for so long, `window` at a time. `broker` is its process.
pub async fn measure(uri: &str, broker: &Watched, window: usize, period: Duration) -> Result<RoundTripRow> {
    ensure!(window > 0, "at least one round trip must be under way");
    let publishing = connect(uri).await?;
    let consuming = connect(uri).await?;
    let asking = publishing.create_channel().await?;
    asking.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    asking.queue_declare(QUEUE.into(), durable, quorum).await?;
    let waiting: Waiting = Arc::new((0..window).map(|_| Mutex::default()).collect());
    let (answers, _listening) = listen(&consuming, waiting.clone()).await?;
    let _answering = answer(&consuming).await?;

    let broker_before = total(broker);
    let (own_before, begun, made) = (cpu::own(), Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut asking_tasks = JoinSet::new();
    for number in 0..window {
        let asker = Asker {
            channel: asking.clone(),
            answers: answers.clone(),
            waiting: waiting.clone(),
            number,
        };
        let made = made.clone();
        asking_tasks.spawn(async move {
            while begun.elapsed() < period {
                timeout(PATIENCE, asker.ask())
                    .await
                    .context("a round trip takes too long")??;
                made.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    for ended in asking_tasks.join_all().await {
        ended?;
    }
    let elapsed = begun.elapsed();
    let (client, server) = (
        cpu::own().saturating_sub(own_before),
        total(broker).saturating_sub(broker_before),
    );
    asking.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    Ok(RoundTripRow::of(
        window,
        made.load(Ordering::Relaxed),
        elapsed,
        client,
        server,
    ))
}

fn total(watched: &Watched) -> Duration {
    watched.cpu().into_iter().map(|(_, time)| time).sum()
}

async fn connect(uri: &str) -> Result<Connection> {
    let connecting = Connection::connect(uri, ConnectionProperties::default());
    timeout(PATIENCE, connecting)
        .await
        .context("the broker does not answer")?
        .context("cannot connect to the broker")
}

/// One request after the other.
struct Asker {
    channel: Channel,
    answers: String,
    waiting: Waiting,
    number: usize,
}

impl Asker {
    /// One round trip, to its answer and its confirm.
    async fn ask(&self) -> Result<()> {
        let (sender, answered) = oneshot::channel();
        *self.waiting[self.number].lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_reply_to(self.answers.as_str().into())
            .with_correlation_id(self.number.to_string().into());
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = self
            .channel
            .basic_publish("".into(), QUEUE.into(), mandatory, &[7; REQUEST], properties)
            .await?;
        let confirmed = confirm.await?;
        ensure!(confirmed.is_ack(), "a message was not confirmed");
        answered.await.context("the listener is gone")
    }
}

/// Hands answers to those who wait for them.
async fn listen(connection: &Connection, waiting: Waiting) -> Result<(String, AbortOnDropHandle<()>)> {
    let channel = connection.create_channel().await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await?;
    let name = queue.name().as_str().to_owned();
    let unacknowledged = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume(name.as_str().into(), "".into(), unacknowledged, FieldTable::default())
        .await?;
    let task = tokio::spawn(async move {
        let _channel = channel;
        while let Some(Ok(delivery)) = consumer.next().await {
            let number = delivery
                .properties
                .correlation_id()
                .as_ref()
                .and_then(|id| id.as_str().parse::<usize>().ok());
            let place = number.and_then(|number| waiting.get(number));
            let sender = place.and_then(|place| place.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some(sender) = sender {
                // Who has given up waiting says so itself.
                let _ = sender.send(());
            }
        }
    });
    Ok((name, AbortOnDropHandle::new(task)))
}

/// Takes requests, acknowledges and answers each.
async fn answer(connection: &Connection) -> Result<AbortOnDropHandle<()>> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let mut consumer = channel
        .basic_consume(
            QUEUE.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let task = tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let properties = &delivery.properties;
            let (Some(to), Some(id)) = (properties.reply_to(), properties.correlation_id()) else {
                continue;
            };
            let answer = BasicProperties::default().with_correlation_id(id.clone());
            let done = async {
                delivery.ack(BasicAckOptions::default()).await?;
                let options = BasicPublishOptions::default();
                channel
                    .basic_publish("".into(), to.clone(), options, &[7; ANSWER], answer)
                    .await
            };
            if let Err(error) = done.await {
                eprintln!("a request is not answered: {error}");
                return;
            }
        }
    });
    Ok(AbortOnDropHandle::new(task))
}
