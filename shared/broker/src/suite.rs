//! The contract of [`Broker`], as checks that panic when it is broken. Every adapter runs all of [`CONTRACT`], and
//! [`interleaving::run`] with random steps, against the real engine.
//!
//! Each check gets a [`Subject`] of its own: a broker without lanes.

pub mod interleaving;

mod delivery;
mod signalling;

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Carrier, Class, Lane},
};
use tokio::time::timeout;

use crate::{Broker, BrokerError, Delivery, Inbox, Incoming};

/// A broker to be checked.
#[derive(Debug, Clone)]
pub struct Subject {
    /// It. No lane has been named to it yet. Where it is told which lanes are own, it has been told [`own_lanes`].
    pub broker: Arc<dyn Broker>,
    /// How many lanes get queues of their own, if the first that are named do: at least 4. Otherwise 4.
    pub own_lanes: usize,
    /// How many envelopes a lane's queue takes: 8 to 64.
    pub lane_envelopes: usize,
    /// How many more than that the engine may take before it refuses.
    pub overshoot: usize,
    /// Whether the engine puts what is given back where it stood; if not, it goes to the end of its lane.
    pub returns_in_place: bool,
    /// After how long without a message the engine has certainly nothing to deliver.
    pub patience: Duration,
}

/// Every lane that the suite expects to have a queue of its own, for brokers that are told so.
pub fn own_lanes() -> BTreeSet<Lane> {
    let names = ["a", "b", "deep", "shallow", "full", "paused", "held", "free"].map(str::to_owned);
    let numbered = ["own", "lane"]
        .into_iter()
        .flat_map(|name| (0..4).map(move |number| format!("{name}-{number}")));
    names.into_iter().chain(numbered).map(|name| lane(&name)).collect()
}

/// One check.
pub type Contract = fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every check, with its name.
pub const CONTRACT: [(&str, Contract); 23] = [
    ("what is published is delivered as it is, once", |s| {
        Box::pin(delivery::once(s))
    }),
    ("a lane is delivered in its order", |s| Box::pin(delivery::in_order(s))),
    ("what a dropped inbox had comes again", |s| {
        Box::pin(delivery::after_a_drop(s))
    }),
    ("what is given back comes again", |s| Box::pin(delivery::given_back(s))),
    ("a paused lane gives back what is out and delivers nothing", |s| {
        Box::pin(delivery::paused(s))
    }),
    ("a lane that is paused here is delivered elsewhere", |s| {
        Box::pin(delivery::paused_here(s))
    }),
    ("no more than the prefetch is out", |s| Box::pin(delivery::prefetch(s))),
    ("an envelope over the prefetch comes alone", |s| {
        Box::pin(delivery::over_the_prefetch(s))
    }),
    ("a full lane refuses and loses nothing", |s| Box::pin(delivery::full(s))),
    ("a lane that nobody serves keeps its envelopes", |s| {
        Box::pin(delivery::unserved(s))
    }),
    ("tags that mean nothing are ignored", |s| {
        Box::pin(delivery::unknown_tags(s))
    }),
    ("lanes can be added to an inbox", |s| Box::pin(delivery::added(s))),
    ("signers of one lane are served in turn", |s| {
        Box::pin(delivery::shared(s))
    }),
    ("a deep lane does not delay a shallow one", |s| {
        Box::pin(delivery::in_turn(s))
    }),
    ("a full, paused or held lane delays no other", |s| {
        Box::pin(delivery::isolated(s))
    }),
    ("trace context travels beside the envelope, also a second time", |s| {
        Box::pin(delivery::traced(s))
    }),
    ("a lane of the ledger is woken, not loaded", |s| {
        Box::pin(signalling::wakes_up(s))
    }),
    ("wake-ups are not piled up", |s| Box::pin(signalling::coalesces(s))),
    ("a wake-up waits until its lane is resumed", |s| {
        Box::pin(signalling::wakes_after_a_pause(s))
    }),
    ("answers reach the right run of the right front end", |s| {
        Box::pin(signalling::answers(s))
    }),
    ("trace context travels beside the answer", |s| {
        Box::pin(signalling::traced(s))
    }),
    ("answers over the limit are dropped", |s| {
        Box::pin(signalling::too_many_answers(s))
    }),
    ("what is set aside is counted", |s| Box::pin(signalling::quarantine(s))),
];

/// Jobs of each envelope: a full one, so that engines that count jobs and those that count envelopes agree.
const JOBS: usize = Class::Bulk.envelope_jobs();
/// Long enough for anything that must come.
const LIMIT: Duration = Duration::from_secs(10);

fn lane(issuer: &str) -> Lane {
    Lane {
        issuer: issuer.parse().expect("the suite's names are names"),
        class: Class::Bulk,
    }
}

fn incarnation(node: &str, run: u64) -> Incarnation {
    Incarnation {
        node: node.parse().expect("the suite's names are names"),
        run,
    }
}

/// A body as long as an envelope of 16 serials, different for each lane and number.
fn body(lane: &Lane, number: usize) -> Bytes {
    Bytes::from(format!("{lane} {number} {}", "x".repeat(200)))
}

impl Subject {
    async fn publish(&self, lane: &Lane, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let published = self.offer(lane, number).await;
            assert_eq!(published, Ok(()), "publish {number} to {lane}");
        }
    }

    /// Publishes a full envelope.
    async fn offer(&self, lane: &Lane, number: usize) -> Result<(), BrokerError> {
        self.broker.publish(lane, body(lane, number), JOBS, None).await
    }

    /// Publishes until the lane is full, and says how many it took. An engine may or may not count those that are out.
    async fn fill(&self, lane: &Lane, out: usize) -> usize {
        for number in 0..=self.lane_envelopes + self.overshoot + out {
            let published = self.offer(lane, number).await;
            if is_full(&published, lane) {
                assert!(number >= self.lane_envelopes, "full with {number}");
                return number;
            }
            assert_eq!(published, Ok(()), "publish {number} to {lane}");
        }
        panic!("lane {lane} is never full");
    }

    /// Serves lanes with room for so many full envelopes of each.
    async fn serve(&self, lanes: &[Lane], envelopes: usize) -> Box<dyn Inbox> {
        let signer = incarnation("signer", 1);
        let opened = self.broker.serve(&signer, lanes, envelopes * JOBS).await;
        opened.unwrap_or_else(|error| panic!("serve: {error}"))
    }

    async fn quiet(&self, inbox: &mut Box<dyn Inbox>) {
        if let Ok(message) = timeout(self.patience, inbox.next()).await {
            panic!("nothing should have come, and this did: {message:?}");
        }
    }

    /// A lane without a queue of its own, after all queues are taken.
    fn ledger_lane(&self) -> Lane {
        for number in 0..self.own_lanes {
            assert_eq!(self.broker.carrier(&lane(&format!("own-{number}"))), Carrier::Own);
        }
        let lane = lane("ledger");
        assert_eq!(self.broker.carrier(&lane), Carrier::Ledger);
        lane
    }
}

async fn message(inbox: &mut Box<dyn Inbox>) -> Incoming {
    let message = timeout(LIMIT, inbox.next()).await.expect("a message should have come");
    message.expect("the inbox should be open")
}

async fn delivery(inbox: &mut Box<dyn Inbox>) -> Delivery {
    match message(inbox).await {
        Incoming::Delivery(delivery) => delivery,
        Incoming::WakeUp(lane) => panic!("a wake-up for {lane} came instead of a delivery"),
    }
}

/// Expects these envelopes of a lane for the first time, in order, and returns their tags.
async fn expect(inbox: &mut Box<dyn Inbox>, lane: &Lane, numbers: impl IntoIterator<Item = usize>) -> Vec<u64> {
    let mut tags = Vec::new();
    for number in numbers {
        let delivery = delivery(inbox).await;
        assert_eq!(delivery.lane, *lane);
        assert_eq!(delivery.body, body(lane, number), "envelope {number} should have come");
        assert!(!delivery.redelivered, "envelope {number} was never out");
        tags.push(delivery.tag);
    }
    tags
}

/// Expects these envelopes of a lane, those that were `out` before as redelivered, and first if the engine can do that.
async fn expect_again(
    subject: &Subject,
    inbox: &mut Box<dyn Inbox>,
    lane: &Lane,
    out: &[usize],
    others: &[usize],
) -> Vec<u64> {
    let expected = [out, others].concat();
    let (mut numbers, mut tags) = (Vec::new(), Vec::new());
    for _ in &expected {
        let delivery = delivery(inbox).await;
        let number = expected.iter().find(|&&number| body(lane, number) == delivery.body);
        let number = *number.unwrap_or_else(|| panic!("unexpected: {delivery:?}"));
        assert!(
            delivery.redelivered || !out.contains(&number),
            "envelope {number} was out before"
        );
        numbers.push(number);
        tags.push(delivery.tag);
    }
    if !subject.returns_in_place {
        numbers.sort_unstable();
    }
    assert_eq!(numbers, expected);
    tags
}

async fn settle(inbox: &mut Box<dyn Inbox>, tags: &[u64]) {
    assert_eq!(inbox.settle(tags).await, Ok(()));
}

fn is_full(result: &Result<(), BrokerError>, lane: &Lane) -> bool {
    *result == Err(BrokerError::Full(lane.clone()))
}
