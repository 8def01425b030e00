//! A front end's inbox for answers: an exclusive queue that lives as long as its connection, consumed into a bounded list.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{RETRY, connect::Silence, link::Link, lock, options::Options, trace_of};
use crate::{Answers, BrokerError, SealedAnswer};

/// Answers that are read together.
const TOGETHER: u16 = 256;

#[derive(Debug)]
pub(super) struct AmqpAnswers {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<VecDeque<SealedAnswer>>,
    limit: usize,
    news: Notify,
    dropped: Arc<AtomicU64>,
}

impl AmqpAnswers {
    /// Begins to take answers; waits for the broker as long as a call may take and it is there.
    pub async fn open(
        link: Link,
        options: Arc<Options>,
        queue: ShortString,
        limit: usize,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            limit,
            news: Notify::new(),
            dropped,
        });
        let (consumes, mut consuming) = watch::channel(false);
        let there = link.live().is_ok();
        let task = tokio::spawn(run(link, options.clone(), queue, shared.clone(), consumes));
        if there {
            let _ = timeout(options.call_timeout, consuming.wait_for(|consuming| *consuming)).await;
        }
        Self {
            shared,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

#[async_trait]
impl Answers for AmqpAnswers {
    async fn next(&mut self) -> Option<SealedAnswer> {
        loop {
            let next = lock(&self.shared.waiting).pop_front();
            if next.is_some() {
                return next;
            }
            self.shared.news.notified().await;
        }
    }
}

/// Consumes for ever, and again after whatever ends it.
async fn run(
    link: Link,
    options: Arc<Options>,
    queue: ShortString,
    shared: Arc<Shared>,
    consumes: watch::Sender<bool>,
) {
    loop {
        match consume(&link, &options, &queue, shared.limit).await {
            Ok((channel, stream)) => {
                consumes.send_replace(true);
                pump(&channel, stream, &shared).await;
            }
            Err(error) if link.live().is_ok() => tracing::debug!(%queue, %error, "no answers yet; trying again"),
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

async fn consume(
    link: &Link,
    options: &Options,
    queue: &ShortString,
    limit: usize,
) -> Result<(Channel, Consumer), BrokerError> {
    let live = link.live()?;
    let channel = live.channel(options.connect_timeout).await?;
    let asked = async {
        let own = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        let length = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        channel.queue_declare(queue.clone(), own, arguments).await?;
        channel.basic_qos(TOGETHER, BasicQosOptions { global: false }).await?;
        let (consume, none) = (BasicConsumeOptions::default(), FieldTable::default());
        channel
            .basic_consume(queue.clone(), "answers".into(), consume, none)
            .await
    };
    let stream = live
        .within(options.connect_timeout, Silence::OfConnection, "consume answers", asked)
        .await?;
    Ok((channel, stream))
}

async fn pump(channel: &Channel, mut stream: Consumer, shared: &Shared) {
    while let Some(Ok(first)) = stream.next().await {
        let mut last = first.delivery_tag;
        shared.take(first);
        while let Some(Some(Ok(next))) = stream.next().now_or_never() {
            last = next.delivery_tag;
            shared.take(next);
        }
        shared.news.notify_one();
        if channel
            .basic_ack(last, BasicAckOptions { multiple: true })
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Shared {
    fn take(&self, delivery: Delivery) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < self.limit {
            waiting.push_back(SealedAnswer {
                trace: trace_of(&delivery.properties),
                body: Bytes::from(delivery.data),
            });
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
