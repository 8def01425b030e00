//! Transport between front ends and signers. Everything that travels is a hint: the ledger is the truth, and what the broker loses,
//! signers claim from the ledger.
//!
//! [`Broker`] is the seam; every adapter passes the contract suite ([`suite`]) against the real engine.

pub mod amqp;
pub mod embedded;
pub mod suite;

mod own_lanes;

pub use self::own_lanes::OwnLanes;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Carrier, Lane},
};

/// A broker's failure. It never changes what was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The lane's queue is full, or an engine takes nothing into it just now: signers will claim from the ledger.
    #[error("lane {0} is full on the broker")]
    Full(Lane),
    /// Nobody serves the lane now.
    #[error("no signer serves lane {0}")]
    Unserved(Lane),
    /// Nobody of that name waits for answers.
    #[error("no front end {0} takes answers")]
    Unanswerable(Incarnation),
    /// The broker cannot be reached, or does not answer in time.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
}

/// The broker.
#[async_trait]
pub trait Broker: Send + Sync + std::fmt::Debug {
    /// How this lane's jobs travel now. At most so many lanes as an adapter is given have queues of their own; which, is settled outside
    /// ([`OwnLanes`]) or, within one process, by who is named first. Two processes may think differently for a moment: signers then claim
    /// from the ledger what neither queue nor wake-up brings.
    fn carrier(&self, lane: &Lane) -> Carrier;

    /// Publishes a sealed envelope (`wire::envelope`) that carries `jobs` jobs of `lane`: to the lane's queue, which keeps it until
    /// somebody serves the lane ([`BrokerError::Full`] past its limit, in which an engine may or may not count what is out), or, when its carrier is the ledger, as a wake-up without a body
    /// to every signer that serves the lane now ([`BrokerError::Unserved`] if none does).
    ///
    /// `trace` travels beside the envelope: W3C trace context, which nobody believes. Past [`MAX_TRACE_BYTES`] it is left out.
    async fn publish(&self, lane: &Lane, envelope: Bytes, jobs: usize, trace: Option<&str>) -> Result<(), BrokerError>;

    /// Opens a signer's inbox for these lanes. At most `prefetch` jobs of each lane are out and not settled at a time; an envelope with
    /// more jobs than that comes alone. An engine that cannot count jobs takes every envelope for a full one
    /// (`Class::envelope_jobs`). Signers that serve the same lane are delivered to in turn. When the broker is away, the inbox is opened
    /// all the same and comes alive with it, or the call fails with [`BrokerError::Unavailable`].
    async fn serve(&self, signer: &Incarnation, lanes: &[Lane], prefetch: usize)
    -> Result<Box<dyn Inbox>, BrokerError>;

    /// Opens a front end's inbox for answers (`wire::answer`), at most `limit` of them waiting; what is over is dropped, since the
    /// ledger has it.
    async fn answers(&self, frontend: &Incarnation, limit: usize) -> Result<Box<dyn Answers>, BrokerError>;

    /// Sends a sealed answer to a front end ([`BrokerError::Unanswerable`] if it is not there any more), with trace context as in [`Broker::publish`].
    async fn answer(&self, frontend: &Incarnation, answer: Bytes, trace: Option<&str>) -> Result<(), BrokerError>;

    /// Sets aside what cannot be verified or parsed.
    async fn quarantine(&self, lane: &Lane, body: Bytes, reason: &str) -> Result<(), BrokerError>;

    /// How many bodies are set aside.
    async fn quarantined(&self) -> Result<usize, BrokerError>;
}

/// What a signer receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// An envelope: to be verified, then begun, then settled.
    Delivery(Delivery),
    /// There is something in the ledger for this lane. At most one of each lane waits in an inbox.
    WakeUp(Lane),
}

/// An envelope that is out to a signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which lane it was published to.
    pub lane: Lane,
    /// Names this delivery towards [`Inbox::settle`] and [`Inbox::give_back`]; another delivery of the same envelope has another.
    pub tag: u64,
    /// The sealed envelope.
    pub body: Bytes,
    /// Whether it was out before.
    pub redelivered: bool,
    /// Trace context, as it was published; anybody on the broker could have written it.
    pub trace: Option<Arc<str>>,
}

/// An answer as a front end receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedAnswer {
    /// The sealed answer.
    pub body: Bytes,
    /// Trace context, as it was sent; anybody on the broker could have written it.
    pub trace: Option<Arc<str>>,
}

/// Longest trace context that travels, in bytes.
pub const MAX_TRACE_BYTES: usize = 4096;

/// Trace context that may travel.
fn bounded_trace(trace: Option<&str>) -> Option<&str> {
    trace.filter(|trace| trace.len() <= MAX_TRACE_BYTES)
}

/// A signer's inbox. Dropping it gives everything back that is not settled.
///
/// What is given back comes again as redelivered: from where it stood in its lane (embedded) or from its end (quorum queues). Tags that
/// mean nothing (settled, given back, never given, or from before the broker was lost) are ignored. A pause and a drop are heard by the
/// broker a moment later; nothing of the lane comes to this inbox from then on.
#[async_trait]
pub trait Inbox: Send + std::fmt::Debug {
    /// The next message, lanes in turn. `None` when the broker has closed the inbox: open another. Cancel safe.
    async fn next(&mut self) -> Option<Incoming>;

    /// Serves these lanes as well; those it serves already go on as they are.
    async fn add(&mut self, lanes: &[Lane]) -> Result<(), BrokerError>;

    /// These are begun, or known not to be wanted.
    async fn settle(&mut self, tags: &[u64]) -> Result<(), BrokerError>;

    /// These go back to where they came from.
    async fn give_back(&mut self, tags: &[u64]) -> Result<(), BrokerError>;

    /// Stops delivery from a lane; what is out of it and not settled is given back. A wake-up that comes meanwhile waits.
    async fn pause(&mut self, lane: &Lane) -> Result<(), BrokerError>;

    /// Starts it again.
    async fn resume(&mut self, lane: &Lane) -> Result<(), BrokerError>;
}

/// A front end's inbox for answers.
#[async_trait]
pub trait Answers: Send + std::fmt::Debug {
    /// The next sealed answer. `None` when the broker has closed the inbox. Cancel safe.
    async fn next(&mut self) -> Option<SealedAnswer>;
}
