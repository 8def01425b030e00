//! The adapter for RabbitMQ, for front ends and signers of many processes on many machines.
//!
//! | what | how it travels |
//! | --- | --- |
//! | envelopes of an own lane | durable quorum queue `PREFIX.lane.ISSUER.CLASS`, bounded, `reject-publish`; consumed with manual acknowledgement |
//! | wake-ups of a ledger lane | direct exchange `PREFIX.wake-ups`; each inbox binds an exclusive queue to the lanes that it serves |
//! | answers | exclusive queue `PREFIX.answers.NODE.RUN` of each front end |
//! | bodies that are set aside | durable quorum queue `PREFIX.quarantine`, bounded; the newest stay |
//!
//! There are two connections: a broker in a memory or disk alarm reads nothing from a connection that publishes, and signers must go on
//! consuming then. Everything is published as mandatory and confirmed. Nothing that a caller asks waits longer than
//! [`Options::call_timeout`]; a broker that is away is answered for at once. Inboxes survive whatever happens to the broker and come alive
//! again by themselves; what was out of them then means nothing any more, and comes again.

mod answers;
mod attendant;
mod connect;
mod desk;
mod inbox;
mod link;
mod options;
mod publisher;
mod seat;
mod tending;
mod topology;
mod verdicts;
mod waking;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Carrier, Lane},
};
use lapin::{BasicProperties, types::AMQPValue};
use tokio_util::task::AbortOnDropHandle;

pub use self::options::{InvalidOptions, Login, Options, Tls};
use self::{
    answers::AmqpAnswers,
    attendant::Desks,
    inbox::AmqpInbox,
    link::Link,
    publisher::{Message, Publisher, Publishers},
    topology::{Declarations, Resource},
    verdicts::Verdict,
};
use crate::{Answers, Broker, BrokerError, Inbox, MAX_TRACE_BYTES, OwnLanes, bounded_trace};

/// The header that trace context travels in.
const TRACE: &str = "traceparent";
/// Longest reason that is kept beside a body in quarantine, in bytes.
const MAX_REASON_BYTES: usize = 1024;
/// File descriptors that RabbitMQ reserves for each quorum queue, before version 4, and needs besides.
const DESCRIPTORS_PER_QUEUE: usize = 3;
const OTHER_DESCRIPTORS: usize = 100;
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// What a caller hears during an alarm.
const BLOCKED: &str = "the broker reads nothing from publishers: a memory or disk alarm";

/// The RabbitMQ broker. Clones share everything; the last one to go closes the connections.
#[derive(Debug, Clone)]
pub struct Amqp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Arc<Options>,
    own: OwnLanes,
    consuming: Link,
    /// What is declared, as the publishing and the consuming side know it.
    to_publish: Declarations,
    to_consume: Arc<Declarations>,
    /// Of envelopes and what is set aside.
    queues: Publishers,
    /// Of wake-ups and answers.
    signals: Publisher,
    publishing: Link,
    answers_dropped: Arc<AtomicU64>,
    _needs: AbortOnDropHandle<()>,
}

impl Amqp {
    /// Begins to connect, and goes on trying for ever. Until it has succeeded, calls are answered with [`BrokerError::Unavailable`], and
    /// inboxes are open and silent. Must be called within a tokio runtime.
    pub fn connect(options: Options, own: OwnLanes) -> Result<Self, InvalidOptions> {
        options.check()?;
        let options = Arc::new(options);
        let publishing = Link::keep(options.clone(), "publishing");
        let consuming = Link::keep(options.clone(), "consuming");
        Ok(Self {
            shared: Arc::new(Shared {
                to_publish: Declarations::new(publishing.clone(), options.clone()),
                to_consume: Arc::new(Declarations::new(consuming.clone(), options.clone())),
                queues: Publishers::new(publishing.clone(), options.clone()),
                signals: Publisher::new(publishing.clone(), options.clone()),
                _needs: AbortOnDropHandle::new(tokio::spawn(say_what_is_needed(publishing.clone(), own.clone()))),
                publishing,
                consuming,
                own,
                options,
                answers_dropped: Arc::default(),
            }),
        })
    }

    /// Whether there is a connection to publish on and one to consume on, and if not, why.
    pub fn ready(&self) -> Result<(), BrokerError> {
        self.shared.publishing.live()?;
        self.shared.consuming.live().map(drop)
    }

    /// How many answers were dropped since the start, because a front end's inbox was full.
    pub fn answers_dropped(&self) -> u64 {
        self.shared.answers_dropped.load(Ordering::Relaxed)
    }

    /// Publishes to a queue of its own. One that turns out to be missing is declared, and published to once more.
    async fn to_queue(
        &self,
        resource: Resource,
        body: Bytes,
        headers: Vec<(&'static str, String)>,
    ) -> Result<Verdict, BrokerError> {
        let Shared {
            to_publish,
            queues,
            own,
            ..
        } = &*self.shared;
        let publisher = queues.of(&resource, |resource| match resource {
            Resource::Lane(lane) => own.carrier(lane) == Carrier::Own,
            Resource::Quarantine | Resource::WakeUps => true,
        });
        let message = Message {
            exchange: "".into(),
            routing_key: to_publish.names.of(&resource),
            body,
            headers,
            persistent: true,
        };
        for _ in 0..2 {
            self.within_a_call(to_publish.ensure(&resource)).await?;
            match publisher.publish(message.clone()).await? {
                Verdict::Unroutable => to_publish.forget(&resource),
                verdict => return Ok(verdict),
            }
        }
        Err(BrokerError::Unavailable(format!(
            "queue {} is gone",
            message.routing_key
        )))
    }

    async fn within_a_call<T>(&self, call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        let limit = self.shared.options.call_timeout;
        let ended = tokio::time::timeout(limit, call).await;
        ended.unwrap_or_else(|_| Err(BrokerError::Unavailable(format!("no answer within {limit:?}"))))
    }
}

#[async_trait]
impl Broker for Amqp {
    fn carrier(&self, lane: &Lane) -> Carrier {
        self.shared.own.carrier(lane)
    }

    async fn publish(&self, lane: &Lane, envelope: Bytes, _: usize, trace: Option<&str>) -> Result<(), BrokerError> {
        match self.carrier(lane) {
            Carrier::Own => {
                let resource = Resource::Lane(lane.clone());
                match self.to_queue(resource, envelope, trace_header(trace)).await? {
                    Verdict::Refused => Err(BrokerError::Full(lane.clone())),
                    Verdict::Confirmed | Verdict::Unroutable => Ok(()),
                }
            }
            Carrier::Ledger => {
                let Shared {
                    to_publish, signals, ..
                } = &*self.shared;
                self.within_a_call(to_publish.ensure(&Resource::WakeUps)).await?;
                let sent = signals.publish(Message {
                    exchange: to_publish.names.of(&Resource::WakeUps),
                    routing_key: lane.to_string().into(),
                    body: Bytes::new(),
                    headers: trace_header(trace),
                    persistent: false,
                });
                let sent = sent.await;
                if sent.is_err() {
                    // An exchange that is gone closes the channel that names it.
                    to_publish.forget(&Resource::WakeUps);
                }
                match sent? {
                    Verdict::Unroutable => Err(BrokerError::Unserved(lane.clone())),
                    Verdict::Confirmed | Verdict::Refused => Ok(()),
                }
            }
        }
    }

    async fn serve(&self, _: &Incarnation, lanes: &[Lane], prefetch: usize) -> Result<Box<dyn Inbox>, BrokerError> {
        let Shared {
            options,
            own,
            consuming,
            to_consume,
            ..
        } = &*self.shared;
        let desks = Desks {
            link: consuming.clone(),
            declarations: to_consume.clone(),
            options: options.clone(),
            own: own.clone(),
            shared: inbox::Shared::new(lanes),
            prefetch,
        };
        Ok(Box::new(AmqpInbox::open(desks).await))
    }

    async fn answers(&self, frontend: &Incarnation, limit: usize) -> Result<Box<dyn Answers>, BrokerError> {
        let Shared {
            options,
            consuming,
            to_consume,
            answers_dropped,
            ..
        } = &*self.shared;
        let queue = to_consume.names.answers(frontend);
        let answers = AmqpAnswers::open(
            consuming.clone(),
            options.clone(),
            queue,
            limit,
            answers_dropped.clone(),
        );
        Ok(Box::new(answers.await))
    }

    async fn answer(&self, frontend: &Incarnation, answer: Bytes, trace: Option<&str>) -> Result<(), BrokerError> {
        let Shared {
            to_publish, signals, ..
        } = &*self.shared;
        let sent = signals.publish(Message {
            exchange: "".into(),
            routing_key: to_publish.names.answers(frontend),
            body: answer,
            headers: trace_header(trace),
            persistent: false,
        });
        match sent.await? {
            Verdict::Unroutable => Err(BrokerError::Unanswerable(frontend.clone())),
            Verdict::Confirmed | Verdict::Refused => Ok(()),
        }
    }

    async fn quarantine(&self, lane: &Lane, body: Bytes, reason: &str) -> Result<(), BrokerError> {
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        let headers = vec![("lane", lane.to_string()), ("reason", reason.to_owned())];
        match self.to_queue(Resource::Quarantine, body, headers).await? {
            Verdict::Confirmed => Ok(()),
            Verdict::Refused | Verdict::Unroutable => {
                Err(BrokerError::Unavailable("the quarantine does not take it".into()))
            }
        }
    }

    async fn quarantined(&self) -> Result<usize, BrokerError> {
        let counted = self
            .within_a_call(self.shared.to_publish.count(&Resource::Quarantine))
            .await?;
        Ok(usize::try_from(counted).unwrap_or(usize::MAX))
    }
}

/// Says how many file descriptors the broker needs for the own lanes, whenever they become more: a broker that has none left takes
/// connections and leaves them hanging, and does not tell anybody how many it may have.
async fn say_what_is_needed(link: Link, own: OwnLanes) {
    let (mut lanes, mut links) = (own.subscribe(), link.subscribe());
    let mut said = 0;
    loop {
        let count = lanes.borrow_and_update().len();
        if let (true, Ok(live)) = (count > said, link.live())
            && live.version.major() < 4
        {
            let descriptors = count * DESCRIPTORS_PER_QUEUE + OTHER_DESCRIPTORS;
            tracing::info!(
                lanes = count,
                descriptors,
                "RabbitMQ {} needs {descriptors} file descriptors for {count} lanes with queues of their own: see that each node may \
                 open more (ulimit -n)",
                live.version
            );
            said = count;
        }
        tokio::select! {
            _ = lanes.changed() => {}
            _ = links.changed() => {}
        }
    }
}

fn trace_header(trace: Option<&str>) -> Vec<(&'static str, String)> {
    bounded_trace(trace)
        .map(|trace| (TRACE, trace.to_owned()))
        .into_iter()
        .collect()
}

/// Trace context of a message, which anybody on the broker may have written, at any length.
fn trace_of(properties: &BasicProperties) -> Option<Arc<str>> {
    let text: &[u8] = match properties.headers().as_ref()?.inner().get(TRACE)? {
        AMQPValue::LongString(text) => text.as_bytes(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes(),
        _ => return None,
    };
    let text = std::str::from_utf8(text).ok()?;
    (text.len() <= MAX_TRACE_BYTES).then(|| text.into())
}

/// Nothing that runs under these locks panics half-way; a poisoned one holds a whole state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
