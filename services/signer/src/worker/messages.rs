//! What the broker brings: believed and taken in, or set aside.

use std::collections::HashMap;

use broker::{Delivery, Incoming};
use domain::{
    dispatch::{Event, Hint},
    id::{AccountId, Serial},
};
use runtime::trace;
use tokio::sync::mpsc::error::TrySendError;
use wire::envelope::Envelope;

use super::{Word, Worker};
use crate::aside::Unbelievable;

/// Traced jobs that wait to be begun.
const CONTEXTS: usize = 4096;

/// Trace contexts of delivered jobs, until they are begun. Jobs past [`CONTEXTS`] are not traced here.
#[derive(Default)]
pub struct Contexts(HashMap<Serial, Box<str>>);

impl Contexts {
    fn remember(&mut self, jobs: &[Serial], contexts: Option<&str>) {
        if contexts.is_none() {
            return;
        }
        for (job, context) in jobs.iter().zip(trace::split(contexts)) {
            if self.0.len() >= CONTEXTS {
                // Some were never begun here: tracing is not worth remembering which.
                self.0.clear();
            }
            if let Some(context) = context {
                self.0.insert(*job, context.into());
            }
        }
    }

    pub(super) fn take(&mut self, job: Serial) -> Option<Box<str>> {
        self.0.remove(&job)
    }
}

impl Worker {
    pub(super) async fn receive(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::WakeUp(lane) => self.happen(Event::WokenUp(lane)).await,
            Incoming::Delivery(delivery) => match self.open(&delivery) {
                Ok(envelope) => {
                    self.state.contexts.remember(&envelope.jobs, delivery.trace.as_deref());
                    let lane = delivery.lane;
                    let jobs = envelope.jobs.into_iter().map(|job| Hint { job, account: nobody() });
                    let jobs = jobs.collect();
                    let tag = delivery.tag;
                    self.happen(Event::Delivered { tag, lane, jobs }).await;
                }
                Err(reason) => self.set_aside(delivery, reason),
            },
        }
    }

    /// The envelope: signature first, then its words.
    fn open(&self, delivery: &Delivery) -> Result<Envelope, String> {
        let applied = self.applied.load();
        let (_, envelope) =
            Envelope::open(&delivery.body, &applied.directory, self.clock.now()).map_err(|error| error.to_string())?;
        if envelope.lane != delivery.lane {
            return Err(format!("it is for lane {}", envelope.lane));
        }
        Ok(envelope)
    }

    /// Has a message set aside beside this loop, which waits for nothing. Where too many wait for that already, it stays with the broker.
    fn set_aside(&mut self, delivery: Delivery, reason: String) {
        let message = Unbelievable {
            inbox: self.state.inboxes,
            delivery,
            reason,
        };
        match self.aside.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message) | TrySendError::Closed(message)) => {
                self.state.put_off.push(message.delivery.tag);
            }
        }
    }

    /// A message was set aside, or could not be: it is done with either way.
    pub(super) async fn is_set_aside(&mut self, inbox: u64, tag: u64) {
        if inbox == self.state.inboxes {
            self.tell_broker(Word::Settle(&[tag])).await;
        }
    }

    /// As many as can be set aside now come again.
    pub(super) async fn give_back_put_off(&mut self) {
        let many = self.state.put_off.len().min(self.aside.capacity());
        if many > 0 {
            let tags: Vec<u64> = self.state.put_off.drain(..many).collect();
            self.tell_broker(Word::GiveBack(&tags)).await;
        }
    }
}

/// Envelopes carry serials alone: until a job is begun, its account is not known.
fn nobody() -> AccountId {
    "0".parse().expect("it is a name")
}
