//! A stage of the front door: work waits here by class, issuer and account, and is taken in turn by as many workers as there are.

use std::sync::{Mutex, PoisonError};

use domain::{
    fair::{FairQueue, Full, Limits, NotTaken, Slot},
    lane::Lane,
};
use tokio::sync::Notify;

/// A fair, bounded queue between tasks and threads.
#[derive(Debug)]
pub struct Stage<T> {
    inner: Mutex<Inner<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    queue: FairQueue<T>,
    closed: bool,
}

impl<T> Stage<T> {
    /// An empty stage.
    pub fn new(limits: Limits) -> Self {
        Self {
            inner: Mutex::new(Inner {
                queue: FairQueue::new(limits),
                closed: false,
            }),
            filled: Notify::new(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        // The queue is whole between its operations, so a panic elsewhere cannot have left it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts work in, or hands it back when there is no room for it.
    pub fn push(&self, slot: &Slot, item: T) -> Result<(), NotTaken<T>> {
        {
            let mut inner = self.inner();
            if inner.closed {
                return Err(NotTaken {
                    full: Full::Queue,
                    item,
                });
            }
            inner.queue.push(slot, 1, item)?;
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Whether there is room for one more.
    pub fn room(&self, slot: &Slot) -> Result<(), Full> {
        self.inner().queue.room(slot)
    }

    /// Takes what is there, in turn, at most `limit`, without waiting.
    pub fn try_take(&self, limit: usize) -> Vec<T> {
        let mut inner = self.inner();
        let taken: Vec<T> = std::iter::from_fn(|| inner.queue.pop().map(|(_, item)| item))
            .take(limit)
            .collect();
        let more = !inner.queue.is_empty();
        drop(inner);
        if more {
            self.filled.notify_one();
        }
        taken
    }

    /// Takes at least one and at most `limit`, in turn. `None` once the stage is closed and empty. Cancel safe.
    pub async fn take(&self, limit: usize) -> Option<Vec<T>> {
        loop {
            let filled = self.filled.notified();
            let taken = self.try_take(limit);
            if !taken.is_empty() {
                return Some(taken);
            }
            if self.inner().closed {
                // The next worker learns it as well.
                self.filled.notify_one();
                return None;
            }
            filled.await;
        }
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.inner().queue.len()
    }

    /// Takes nothing more in; what is there is still taken out.
    pub fn close(&self) {
        self.inner().closed = true;
        self.filled.notify_one();
    }

    /// How much waits, by lane.
    pub fn depths(&self) -> Vec<(Lane, usize)> {
        self.inner().queue.lanes().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use domain::lane::Class;

    use super::*;

    fn slot(issuer: &str, account: &str) -> Slot {
        Slot {
            class: Class::Interactive,
            issuer: issuer.parse().unwrap(),
            account: account.parse().unwrap(),
        }
    }

    const LIMITS: Limits = Limits {
        total: 1000,
        per_lane: 100,
    };

    #[tokio::test]
    async fn a_flooded_issuer_neither_fills_the_stage_nor_delays_the_other() {
        let stage = Stage::new(LIMITS);
        let mut taken_in = 0;
        while stage.push(&slot("flooded", "many"), "flood").is_ok() {
            taken_in += 1;
        }
        assert!(taken_in <= 100, "{taken_in} of one issuer");
        stage.push(&slot("quiet", "one"), "quiet").unwrap();
        let first = stage.take(2).await.unwrap();
        assert!(first.contains(&"quiet"), "{first:?}");
    }

    #[tokio::test]
    async fn every_worker_is_woken_for_its_share_and_told_of_the_end() {
        let stage = Arc::new(Stage::new(LIMITS));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let stage = stage.clone();
                tokio::spawn(async move {
                    let mut taken = 0;
                    while let Some(items) = stage.take(1).await {
                        taken += items.len();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    taken
                })
            })
            .collect();
        for n in 0..40 {
            stage.push(&slot("a", &format!("account-{n}")), n).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.close();
        assert!(stage.push(&slot("a", "late"), 0).is_err());
        let mut total = 0;
        for worker in workers {
            let taken = worker.await.unwrap();
            assert!(taken > 0, "a worker was never woken");
            total += taken;
        }
        assert_eq!(total, 40);
    }
}
