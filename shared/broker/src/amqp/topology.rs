//! What the adapter asks the broker to have: names, arguments, and when they are declared.
//!
//! Everything is declared when it is first needed and again after whatever may have taken it away: a new connection (perhaps to a broker
//! that was wiped), a message that found no queue, a consumer that was cancelled. Each declaration has a channel of its own, since a
//! refused one closes its channel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::{id::Incarnation, lane::Lane};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    connect::{Live, Silence, Version, is_contradiction},
    link::Link,
    lock,
    options::Options,
};
use crate::BrokerError;

/// Declarations under way on one link.
const UNDER_WAY: usize = 32;
/// How long a refusal stands before the broker is asked again.
const REFUSAL: Duration = Duration::from_secs(5);
/// A lane's queue that nobody consumes and nobody declares is removed after this time: what is in it, the ledger has.
const LANE_EXPIRES: Duration = Duration::from_hours(24);
/// Bytes in quarantine; the newest stay.
const QUARANTINE_BYTES: i64 = 64 * 1024 * 1024;

/// Something durable on the broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// A lane's queue.
    Lane(Lane),
    /// Where bodies are set aside.
    Quarantine,
    /// Where wake-ups are published to.
    WakeUps,
}

/// Names on the broker.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: Arc<str>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    pub fn of(&self, resource: &Resource) -> ShortString {
        match resource {
            Resource::Lane(lane) => format!("{}.lane.{lane}", self.prefix),
            Resource::Quarantine => format!("{}.quarantine", self.prefix),
            Resource::WakeUps => format!("{}.wake-ups", self.prefix),
        }
        .into()
    }

    /// A front end's own queue.
    pub fn answers(&self, frontend: &Incarnation) -> ShortString {
        format!("{}.answers.{}.{}", self.prefix, frontend.node, frontend.run).into()
    }
}

/// What is known to be declared on one link.
#[derive(Debug)]
pub(super) struct Declarations {
    link: Link,
    options: Arc<Options>,
    pub names: Names,
    known: Mutex<HashMap<Resource, Known>>,
    under_way: Semaphore,
}

#[derive(Debug, Clone)]
enum Known {
    /// On the connection of this number.
    Declared(u64),
    Refused(Instant, BrokerError),
}

impl Declarations {
    pub fn new(link: Link, options: Arc<Options>) -> Self {
        Self {
            link,
            names: Names::new(&options.prefix),
            options,
            known: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY),
        }
    }

    /// Makes sure that the broker has it.
    pub async fn ensure(&self, resource: &Resource) -> Result<(), BrokerError> {
        let live = self.link.live()?;
        match lock(&self.known).get(resource) {
            Some(Known::Declared(number)) if *number == live.number => return Ok(()),
            Some(Known::Refused(at, error)) if at.elapsed() < REFUSAL => return Err(error.clone()),
            _ => {}
        }
        let _permit = self.under_way.acquire().await;
        let declared = self.declare(&live, resource).await;
        let mut known = lock(&self.known);
        match declared {
            Ok(()) => {
                known.insert(resource.clone(), Known::Declared(live.number));
                Ok(())
            }
            Err(Declaring::Refused(error)) => {
                tracing::error!(queue = %self.names.of(resource), "{error}");
                known.insert(resource.clone(), Known::Refused(Instant::now(), error.clone()));
                Err(error)
            }
            Err(Declaring::Failed(error)) => Err(error),
        }
    }

    /// Something says that the broker has it no more.
    pub fn forget(&self, resource: &Resource) {
        lock(&self.known).remove(resource);
    }

    /// How many messages wait in a queue.
    pub async fn count(&self, resource: &Resource) -> Result<u32, BrokerError> {
        self.ensure(resource).await?;
        let live = self.link.live()?;
        let limit = self.options.call_timeout;
        let channel = live.channel(limit).await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asked = channel.queue_declare(self.names.of(resource), passive, FieldTable::default());
        Ok(live
            .within(limit, Silence::OfQueue, "count messages", asked)
            .await?
            .message_count())
    }

    async fn declare(&self, live: &Live, resource: &Resource) -> Result<(), Declaring> {
        let limit = self.options.connect_timeout;
        let channel = live.channel(limit).await.map_err(Declaring::Failed)?;
        let name = self.names.of(resource);
        let arguments = arguments(resource, &self.options, &live.version);
        let declaring = async {
            let declared = if let Some(arguments) = arguments {
                let durable = QueueDeclareOptions {
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                channel.queue_declare(name.clone(), durable, arguments).await.map(drop)
            } else {
                let durable = ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let none = FieldTable::default();
                channel
                    .exchange_declare(name.clone(), ExchangeKind::Direct, durable, none)
                    .await
            };
            // What contradicts what is there is an answer, and the connection is sound.
            Ok(match declared {
                Err(error) if is_contradiction(&error) => Err(error),
                declared => Ok(declared?),
            })
        };
        let declared = live
            .within(limit, Silence::OfQueue, &format!("declare {name}"), declaring)
            .await;
        match declared.map_err(Declaring::Failed)? {
            Ok(()) => {
                // An open channel costs the broker memory; whether it hears of the end is its own concern.
                let _ = live
                    .within(
                        limit,
                        Silence::OfQueue,
                        "close a channel",
                        channel.close(200, "declared".into()),
                    )
                    .await;
                Ok(())
            }
            Err(error) => Err(Declaring::Refused(BrokerError::Unavailable(format!(
                "{name} is there with other arguments; delete it, and it is declared anew: {error}"
            )))),
        }
    }
}

enum Declaring {
    /// The broker will not have it so.
    Refused(BrokerError),
    Failed(BrokerError),
}

/// Arguments of a queue; `None` for an exchange.
fn arguments(resource: &Resource, options: &Options, version: &Version) -> Option<FieldTable> {
    let mut arguments = FieldTable::default();
    let mut set = |name: &str, value: AMQPValue| {
        arguments.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    set("x-queue-type", text("quorum"));
    match resource {
        Resource::WakeUps => return None,
        Resource::Lane(_) => {
            set("x-max-length", AMQPValue::LongLongInt(options.lane_envelopes.into()));
            set("x-overflow", text("reject-publish"));
            let expires = i64::try_from(LANE_EXPIRES.as_millis()).unwrap_or(i64::MAX);
            set("x-expires", AMQPValue::LongLongInt(expires));
            // Being given back is no fault of an envelope: a lane that is paused often must not lose what is in it. Before RabbitMQ 4
            // there is no limit unless one is asked for, and asking for none is taken for a limit of none.
            if version.major() >= 4 {
                set("x-delivery-limit", AMQPValue::LongLongInt(-1));
            }
        }
        Resource::Quarantine => {
            set("x-max-length", AMQPValue::LongLongInt(options.quarantine_bodies.into()));
            set("x-max-length-bytes", AMQPValue::LongLongInt(QUARANTINE_BYTES));
            set("x-overflow", text("drop-head"));
        }
    }
    Some(arguments)
}
