//! The only place where a clock is read and randomness is drawn.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use domain::time::{Clock, Timestamp};

/// Random bytes from the operating system.
///
/// # Panics
/// If the operating system gives none: nothing could be signed or named any more.
pub fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Timestamp::from_millis(millis)
    }
}

/// Store time: the host's monotonic clock and the offset that heartbeats teach. Until the first one it is the host's clock.
///
/// A step of the host's wall clock does not move it.
pub struct StoreClock {
    host: Arc<dyn Clock>,
    started: Instant,
    /// Store time at `started`, in milliseconds; `i64::MIN` until it is known.
    origin: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl StoreClock {
    /// A clock that has not heard from the store yet.
    pub fn new(host: Arc<dyn Clock>) -> Self {
        Self {
            host,
            started: Instant::now(),
            origin: AtomicI64::new(UNKNOWN),
        }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Learns that the store said `store` in an exchange that took `round_trip` and has just ended; the middle of it counts.
    pub fn learn(&self, store: Timestamp, round_trip: Duration) {
        let now = store + round_trip / 2;
        self.origin.store(now.as_millis() - self.elapsed(), Ordering::Relaxed);
    }

    /// How far the host's clock is from store time; `None` until that is known.
    pub fn skew(&self) -> Option<Duration> {
        self.offset_ms()
            .map(|offset| Duration::from_millis(offset.unsigned_abs()))
    }

    /// By how many milliseconds the host's clock is ahead of store time; `None` until that is known.
    pub fn offset_ms(&self) -> Option<i64> {
        let origin = self.origin.load(Ordering::Relaxed);
        (origin != UNKNOWN).then(|| self.host.now().as_millis() - (origin + self.elapsed()))
    }

    /// When this clock was made, which is when the process started, in the time that it tells now.
    pub fn started_at(&self) -> Timestamp {
        Timestamp::from_millis(self.now().as_millis() - self.elapsed())
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        match self.origin.load(Ordering::Relaxed) {
            UNKNOWN => self.host.now(),
            origin => Timestamp::from_millis(origin + self.elapsed()),
        }
    }
}

impl fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreClock(skew {:?})", self.skew())
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    /// Sets it.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_in_this_century_and_entropy_differs() {
        assert!(SystemClock.now() > Timestamp::from_secs(1_700_000_000));
        assert_ne!(entropy::<16>(), entropy::<16>());
    }

    #[test]
    fn store_time_is_the_hosts_until_a_heartbeat_and_the_stores_afterwards() {
        let host = Arc::new(ManualClock::new(Timestamp::from_secs(1000)));
        let clock = StoreClock::new(host.clone());
        assert_eq!((clock.now(), clock.skew()), (Timestamp::from_secs(1000), None));
        clock.learn(Timestamp::from_secs(1010), Duration::from_secs(2));
        let late = clock.now().since(Timestamp::from_secs(1011));
        assert!(late < Duration::from_millis(500), "{late:?}");
        assert!(clock.skew().unwrap().abs_diff(Duration::from_secs(11)) < Duration::from_millis(500));
        host.set(Timestamp::from_secs(5000));
        assert!(
            clock.now() < Timestamp::from_secs(1100),
            "a step of the wall clock moves store time"
        );
    }
}
