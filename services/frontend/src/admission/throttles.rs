//! The throttle of each account, of clients that wait and of those that do not apart: what the estimate refuses to the first is not held
//! against the second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{id::AccountId, throttle::Throttle};
use moka::sync::Cache;
use tokio::time::Instant;

/// How many throttles are kept, and how long one that is not used: it has forgotten everything by then.
const THROTTLES: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(30);

/// Throttles, bounded in number.
#[derive(Debug)]
pub struct Throttles {
    started: Instant,
    throttles: Cache<(AccountId, bool), Arc<Mutex<Throttle>>>,
}

/// One account's throttle, which has let a request through.
#[derive(Debug)]
pub struct Passed {
    started: Instant,
    throttle: Arc<Mutex<Throttle>>,
}

impl Default for Throttles {
    /// Nothing was refused to anybody.
    fn default() -> Self {
        Self {
            started: Instant::now(),
            throttles: Cache::builder().max_capacity(THROTTLES).time_to_idle(IDLE).build(),
        }
    }
}

impl Throttles {
    /// Lets a request of an account through, or says how long to stay away.
    pub fn pass(&self, account: &AccountId, waits: bool) -> Result<Passed, Duration> {
        let throttle = self.throttles.get_with((account.clone(), waits), Arc::default);
        let entropy = u64::from_be_bytes(runtime::clock::entropy());
        let asked = throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ask(self.started.elapsed(), entropy);
        asked.map(|()| Passed {
            started: self.started,
            throttle,
        })
    }
}

impl Passed {
    /// It was refused because too much waits.
    pub fn refused(self) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.refused(self.started.elapsed());
    }
}
