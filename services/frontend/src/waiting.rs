//! Who waits for which job. A signer's answer and the ledger itself both end a wait, whichever comes first.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::{bytes::Blob, fair::Slot, id::Serial, time::Timestamp};
use tokio::{sync::oneshot, time::Instant};

use crate::room::{Place, Room};

type Waits = HashMap<Serial, Vec<(u64, oneshot::Sender<Arrival>)>>;

/// What ends a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A signer says that there is a certificate, not revoked.
    Issued {
        /// The signature over the job's intent.
        signature: Blob,
        /// When it was issued.
        at: Timestamp,
    },
    /// The job has ended; the ledger tells how.
    Ended,
}

/// Everybody who waits. Seats are divided between issuers and accounts, so that those who wait for a dead one keep nobody from waiting
/// for another.
#[derive(Debug)]
pub struct Waiters {
    seats: Room,
    next: AtomicU64,
    waits: Mutex<Waits>,
}

/// The right to wait.
#[derive(Debug)]
pub struct Seat {
    _place: Place,
}

/// One wait for one job. Dropping it gives it up.
#[derive(Debug)]
pub struct Wait {
    waiters: Arc<Waiters>,
    job: Serial,
    number: u64,
    arrival: oneshot::Receiver<Arrival>,
    _seat: Seat,
}

impl Waiters {
    /// Room for `limit` waits.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            seats: Room::new(limit),
            next: AtomicU64::new(0),
            waits: Mutex::new(HashMap::new()),
        })
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Every change is a single call on the map, so it is whole whatever panicked.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, if there is one left for this issuer and account.
    pub fn seat(&self, slot: &Slot) -> Option<Seat> {
        let place = self.seats.enter(slot).ok()?;
        Some(Seat { _place: place })
    }

    /// Waits for a job from now on. Called before anybody can know of the job, it misses nothing.
    pub fn wait(self: &Arc<Self>, job: Serial, seat: Seat) -> Wait {
        let (sender, arrival) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waits().entry(job).or_default().push((number, sender));
        Wait {
            waiters: self.clone(),
            job,
            number,
            arrival,
            _seat: seat,
        }
    }

    /// Tells everybody who waits for a job.
    pub fn arrived(&self, job: Serial, arrival: &Arrival) {
        let waits = self.waits().remove(&job);
        for (_, sender) in waits.into_iter().flatten() {
            // A client that has gone needs no answer.
            let _ = sender.send(arrival.clone());
        }
    }

    /// The jobs that somebody waits for.
    pub fn jobs(&self) -> Vec<Serial> {
        self.waits().keys().copied().collect()
    }

    /// How many jobs are waited for.
    pub fn len(&self) -> usize {
        self.waits().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Wait {
    /// The job.
    pub fn job(&self) -> Serial {
        self.job
    }

    /// Waits until the job has ended, at most until `deadline` (`None`).
    pub async fn until(&mut self, deadline: Instant) -> Option<Arrival> {
        tokio::time::timeout_at(deadline, &mut self.arrival).await.ok()?.ok()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Entry::Occupied(mut waits) = self.waiters.waits().entry(self.job) {
            waits.get_mut().retain(|(number, _)| *number != self.number);
            if waits.get().is_empty() {
                waits.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn serial(n: u8) -> Serial {
        Serial::new(Timestamp::from_secs(1_800_000_000), [n; 10])
    }

    fn slot() -> Slot {
        Slot {
            class: domain::lane::Class::Interactive,
            issuer: "alpha".parse().unwrap(),
            account: "acme".parse().unwrap(),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn everybody_who_waits_for_a_job_is_told_and_nobody_else() {
        let waiters = Waiters::new(100);
        let mut one = waiters.wait(serial(1), waiters.seat(&slot()).unwrap());
        let mut two = waiters.wait(serial(1), waiters.seat(&slot()).unwrap());
        let mut other = waiters.wait(serial(2), waiters.seat(&slot()).unwrap());
        let issued = Arrival::Issued {
            signature: vec![1].into(),
            at: Timestamp::default(),
        };
        waiters.arrived(serial(1), &issued);
        assert_eq!(one.until(soon()).await, Some(issued.clone()));
        assert_eq!(two.until(soon()).await, Some(issued));
        assert_eq!(other.until(soon()).await, None);
        assert_eq!(waiters.jobs(), [serial(2)]);
    }

    #[tokio::test]
    async fn seats_are_bounded_and_given_back_by_clients_that_go() {
        let waiters = Waiters::new(8);
        let one = waiters.wait(serial(1), waiters.seat(&slot()).unwrap());
        let two = waiters.wait(serial(1), waiters.seat(&slot()).unwrap());
        assert!(waiters.seat(&slot()).is_none());
        drop(one);
        assert_eq!(waiters.len(), 1, "the other client still waits");
        drop(two);
        assert!(waiters.is_empty());
        assert!(waiters.seat(&slot()).is_some());
    }
}
