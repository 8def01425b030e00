//! A bounded queue in two halves in front of threads: what is urgent goes first, and what is not still comes to its turn.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::StoreError;

/// Which half of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits, and the work is short.
    Interactive,
    /// It can wait for a moment.
    Bulk,
}

/// How long bulk work may be passed over before one piece of it goes along whatever else there is.
const PASSED_OVER: Duration = Duration::from_millis(50);

/// A bounded queue in two halves.
#[derive(Debug)]
pub(super) struct Queue<W> {
    state: Mutex<State<W>>,
    wake: Condvar,
    interactive: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    patience: Duration,
}

#[derive(Debug)]
struct State<W> {
    interactive: VecDeque<Place<W>>,
    bulk: VecDeque<Place<W>>,
    closed: bool,
}

#[derive(Debug)]
struct Place<W> {
    work: W,
    rows: usize,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<W> Queue<W> {
    /// A queue with so many places in each half. `patience` is how long a caller waits for one.
    pub(super) fn new(interactive: usize, bulk: usize, patience: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                interactive: VecDeque::new(),
                bulk: VecDeque::new(),
                closed: false,
            }),
            wake: Condvar::new(),
            interactive: Arc::new(Semaphore::new(interactive)),
            bulk: Arc::new(Semaphore::new(bulk)),
            patience,
        }
    }

    /// Queues work that writes about so many rows.
    pub(super) async fn push(&self, urgency: Urgency, rows: usize, work: W) -> Result<(), StoreError> {
        let places = match urgency {
            Urgency::Interactive => &self.interactive,
            Urgency::Bulk => &self.bulk,
        };
        let permit = match places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(self.patience, places.clone().acquire_owned())
                .await
                .map_err(|_| StoreError::Unavailable(format!("no place in the queue within {:?}", self.patience)))?
                .map_err(|_| closed())?,
        };
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        let place = Place {
            work,
            rows,
            since: Instant::now(),
            _permit: permit,
        };
        match urgency {
            Urgency::Interactive => state.interactive.push_back(place),
            Urgency::Bulk => state.bulk.push_back(place),
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for work. `false`: the queue is closed and empty.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if !state.interactive.is_empty() || !state.bulk.is_empty() {
                return true;
            }
            if state.closed {
                return false;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes interactive work up to `rows` rows, then bulk work for the room that is left. At least one piece, if there is any; and a
    /// piece of bulk work in any case, once it has been passed over for a while. With it, how many rows it writes.
    pub(super) fn take(&self, rows: usize) -> (Vec<W>, usize) {
        let mut state = self.lock();
        let mut taken = Vec::new();
        let (mut room, mut sum) = (rows, 0);
        let State { interactive, bulk, .. } = &mut *state;
        let overdue = bulk.front().is_some_and(|place| place.since.elapsed() >= PASSED_OVER);
        sum += fill(interactive, &mut taken, &mut room);
        if overdue && let Some(place) = bulk.pop_front() {
            room = room.saturating_sub(place.rows);
            sum += place.rows;
            taken.push(place.work);
        }
        if room > 0 {
            sum += fill(bulk, &mut taken, &mut room);
        }
        (taken, sum)
    }

    /// Waits for one piece of work and takes it: the most urgent. `None`: the queue is closed and empty. With `only_interactive`
    /// bulk work is left to others.
    pub(super) fn take_one(&self, only_interactive: bool) -> Option<W> {
        let mut state = self.lock();
        loop {
            let mut place = state.interactive.pop_front();
            if place.is_none() && !only_interactive {
                place = state.bulk.pop_front();
            }
            if let Some(place) = place {
                return Some(place.work);
            }
            if state.closed {
                return None;
            }
            // Whoever sleeps may be the one that does not take what comes next: it passes the call on.
            if only_interactive && !state.bulk.is_empty() {
                self.wake.notify_one();
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more work; what is queued is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.interactive.close();
        self.bulk.close();
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill<W>(queue: &mut VecDeque<Place<W>>, taken: &mut Vec<W>, room: &mut usize) -> usize {
    let mut rows = 0;
    while let Some(place) = queue.front()
        && (taken.is_empty() || place.rows <= *room)
        && let Some(place) = queue.pop_front()
    {
        *room = room.saturating_sub(place.rows);
        rows += place.rows;
        taken.push(place.work);
    }
    rows
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn queue(work: &[(Urgency, usize, &'static str)]) -> Queue<&'static str> {
        let queue = Queue::new(100, 100, Duration::from_millis(5));
        for (urgency, rows, name) in work {
            queue.push(*urgency, *rows, *name).await.unwrap();
        }
        queue
    }

    #[tokio::test]
    async fn interactive_work_goes_before_bulk_work_that_came_first() {
        let bulk = [(Urgency::Bulk, 5, "b1"), (Urgency::Bulk, 5, "b2")];
        let queue = queue(&bulk).await;
        for name in ["i1", "i2", "i3"] {
            queue.push(Urgency::Interactive, 2, name).await.unwrap();
        }
        assert_eq!(queue.take(4).0, ["i1", "i2"]);
        assert_eq!(queue.take(10).0, ["i3", "b1"]);
        assert_eq!(queue.take(1).0, ["b2"], "one piece always fits");
    }

    #[tokio::test]
    async fn bulk_work_that_was_passed_over_for_long_goes_along() {
        let queue = queue(&[(Urgency::Bulk, 50, "b1"), (Urgency::Bulk, 50, "b2")]).await;
        std::thread::sleep(PASSED_OVER);
        for name in ["i1", "i2"] {
            queue.push(Urgency::Interactive, 10, name).await.unwrap();
        }
        assert_eq!(queue.take(10).0, ["i1", "b1"]);
    }

    #[tokio::test]
    async fn a_full_half_refuses_and_leaves_the_other_open() {
        let queue = Queue::new(1, 1, Duration::from_millis(5));
        queue.push(Urgency::Bulk, 1, "b1").await.unwrap();
        let refused = queue.push(Urgency::Bulk, 1, "b2").await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        queue.push(Urgency::Interactive, 1, "i1").await.unwrap();
        assert_eq!(queue.take(10).0, ["i1", "b1"]);
        queue.push(Urgency::Bulk, 1, "b2").await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_takes_no_more() {
        let queue = queue(&[(Urgency::Bulk, 1, "b1")]).await;
        queue.close();
        assert!(queue.push(Urgency::Interactive, 1, "i1").await.is_err());
        assert!(queue.wait());
        assert_eq!(queue.take_one(false), Some("b1"));
        assert!(!queue.wait());
        assert_eq!(queue.take_one(false), None);
    }

    #[test]
    fn a_thread_that_is_kept_for_short_work_leaves_the_long() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let queue = Arc::new(runtime.block_on(queue(&[(Urgency::Bulk, 1, "b1"), (Urgency::Interactive, 1, "i1")])));
        assert_eq!(queue.take_one(true), Some("i1"));
        let kept = Arc::clone(&queue);
        let kept = std::thread::spawn(move || kept.take_one(true));
        assert_eq!(queue.take_one(false), Some("b1"));
        queue.close();
        assert_eq!(kept.join().unwrap(), None);
    }
}
