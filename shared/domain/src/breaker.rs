//! The circuit breaker of one issuer in one signer.
//!
//! It opens on any of four signals: failures in a row (a dead key, within a few jobs), a failure rate over a window with enough calls in
//! it (a flickering key, which never fails often enough in a row), the same for slow calls (a key that answers in the end holds workers
//! all the while), and at once when the key is gone. After a short pause it lets exactly one probe through, whose answer closes it or
//! opens it for longer. There is nothing to fail over to behind it: it frees workers, tells clients when to come back, and notices
//! recovery quickly, so its pauses are short, jittered and capped.
//!
//! Nobody else's failures belong here: whoever records an outcome has classified it as this issuer's. Each call carries a [`Permit`] of
//! the breaker's generation, which changes whenever the breaker opens or closes: what was allowed before proves nothing afterwards.
//!
//! No clock and no randomness: `now` and `entropy` are arguments. Every operation costs O(1), and a breaker's size never changes.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{backoff::Backoff, time::Timestamp};

/// Buckets of the window.
const BUCKETS: usize = 10;
/// The same, to count time with.
const WINDOW_STEPS: i64 = 10;

/// After this many steps of the ramp, as much as anybody may.
const RAMP_STEPS: u128 = 10;

/// When breakers open, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it.
    pub consecutive: u32,
    /// What rates are computed over, in ten steps. Whole tens of milliseconds.
    pub window: Duration,
    /// Calls in the window below which no rate says anything.
    pub volume: u32,
    /// The failure rate that opens it, in percent.
    pub failure_percent: u32,
    /// From this time on a call is slow.
    pub slow: Duration,
    /// The rate of slow calls that opens it, in percent.
    pub slow_percent: u32,
    /// How long it stays open.
    pub open: Backoff,
    /// How long each step of the wake-up after a recovery takes; each doubles what may be in flight.
    pub ramp_step: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive: 5,
            window: Duration::from_secs(10),
            volume: 20,
            failure_percent: 50,
            slow: Duration::from_secs(1),
            slow_percent: 50,
            open: Backoff {
                first: Duration::from_millis(400),
                longest: Duration::from_secs(5),
                jitter_percent: 25,
            },
            ramp_step: Duration::from_millis(100),
        }
    }
}

impl Settings {
    /// Refuses what would never open, or open for nothing.
    ///
    /// # Panics
    /// If a threshold is zero, a percentage is over a hundred, or the window is shorter than its steps.
    pub fn check(&self) {
        assert!(
            self.consecutive > 0 && self.volume > 0,
            "a threshold of zero opens for nothing"
        );
        let percents = [self.failure_percent, self.slow_percent];
        assert!(
            percents.iter().all(|percent| (1..=100).contains(percent)),
            "a rate is 1 to 100 percent"
        );
        assert!(
            self.window >= Duration::from_millis(10 * BUCKETS as u64),
            "a window needs ten steps of ten milliseconds"
        );
        assert!(
            !self.open.first.is_zero() && self.open.first <= self.open.longest,
            "an open time of nothing"
        );
        assert!(!self.ramp_step.is_zero(), "a ramp without steps");
    }
}

/// What an operator has ordered instead of what the breaker would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Force {
    /// Nothing passes, nothing probes.
    #[serde(rename = "open")]
    Open,
    /// Everything passes, nothing counts.
    #[serde(rename = "closed")]
    Closed,
    /// Everything passes; it counts, and says when it would have opened.
    #[serde(rename = "observe")]
    ObserveOnly,
}

impl Force {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::ObserveOnly];

    /// As it is stored and written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::ObserveOnly => "observe",
        }
    }
}

impl FromStr for Force {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|force| force.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no order to a breaker: write open, closed or observe"))
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// One probe is out; nothing else passes.
    HalfOpen,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// Allows one call, and says of its outcome whether it still proves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "an outcome is recorded for every permit, or a probe is out for ever"]
pub struct Permit {
    generation: u64,
    probe: bool,
}

impl Permit {
    /// Whether it is the one that a half-open breaker waits for.
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key did what it is for.
    Succeeded,
    /// It did not, and it was the issuer's failure.
    Failed,
    /// The key is gone.
    Gone,
    /// The call says nothing about the issuer: it never came to the key, or somebody else failed. A probe's place is free again.
    Unproven,
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// The failure rate of the window.
    Rate,
    /// The rate of slow calls of the window.
    Slow,
    /// The key is gone.
    Gone,
    /// The probe failed.
    Probe,
    /// An operator's order.
    Forced,
}

/// What a breaker has done, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is open now. Was it before, its probe has failed.
    Opened(Cause),
    /// It is closed now.
    Closed,
    /// It would have opened, if it were not observed only.
    WouldOpen(Cause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Timestamp },
    HalfOpen,
}

/// The breaker. Closed when new.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    force: Option<Force>,
    generation: u64,
    consecutive: u32,
    window: Window,
    /// How often it has opened since it last was closed for a whole window.
    openings: u32,
    closed_at: Option<Timestamp>,
    /// Observed only: until when it would have been open.
    would_be_open_until: Option<Timestamp>,
}

impl Breaker {
    /// A closed one.
    pub fn new() -> Self {
        Self {
            state: State::Closed,
            force: None,
            generation: 0,
            consecutive: 0,
            window: Window::default(),
            openings: 0,
            closed_at: None,
            would_be_open_until: None,
        }
    }

    /// How it stands.
    pub const fn standing(&self) -> Standing {
        match (self.force, self.state) {
            (Some(Force::Open), _) | (None, State::Open { .. }) => Standing::Open,
            (Some(Force::Closed | Force::ObserveOnly), _) | (None, State::Closed) => Standing::Closed,
            (None, State::HalfOpen) => Standing::HalfOpen,
        }
    }

    /// What an operator has ordered.
    pub const fn forced(&self) -> Option<Force> {
        self.force
    }

    /// When the next probe is due; `None` while none is: it is closed, forced, or a probe is out.
    pub const fn probe_at(&self) -> Option<Timestamp> {
        match (self.force, self.state) {
            (None, State::Open { until }) => Some(until),
            _ => None,
        }
    }

    /// Whether a call would be allowed now.
    pub fn admits(&self, settings: &Settings, now: Timestamp) -> bool {
        self.standing() == Standing::Closed || self.is_probe_due(settings, now)
    }

    /// Whether the one probe of an open breaker is due.
    pub fn is_probe_due(&self, settings: &Settings, now: Timestamp) -> bool {
        // A clock that was set back keeps nobody out for longer than the cap.
        self.probe_at()
            .is_some_and(|until| now >= until || until.since(now) > settings.open.longest)
    }

    /// Allows a call. Of an open breaker whose pause is over it is the probe, and the only one until its outcome is recorded.
    pub fn permit(&mut self, settings: &Settings, now: Timestamp) -> Option<Permit> {
        if self.standing() == Standing::Closed {
            return Some(Permit {
                generation: self.generation,
                probe: false,
            });
        }
        if !self.is_probe_due(settings, now) {
            return None;
        }
        self.state = State::HalfOpen;
        Some(Permit {
            generation: self.generation,
            probe: true,
        })
    }

    /// How many calls may be in flight at once: few after a recovery, then more and more, then as many as anybody's.
    pub fn allowance(&self, settings: &Settings, now: Timestamp) -> usize {
        let Some(closed_at) = self.closed_at.filter(|closed_at| *closed_at <= now) else {
            return usize::MAX;
        };
        let steps = now.since(closed_at).as_millis() / settings.ramp_step.as_millis().max(1);
        if steps < RAMP_STEPS { 1 << steps } else { usize::MAX }
    }

    /// When [`allowance`](Self::allowance) will have grown; `None` if it will not.
    pub fn ramps_at(&self, settings: &Settings, now: Timestamp) -> Option<Timestamp> {
        (self.standing() == Standing::Closed && self.allowance(settings, now) < usize::MAX)
            .then(|| now + settings.ramp_step)
    }

    /// Takes the outcome of a call that took `took`. What was allowed before the breaker last opened or closed changes nothing.
    pub fn record(
        &mut self,
        settings: &Settings,
        permit: Permit,
        (outcome, took): (Outcome, Duration),
        now: Timestamp,
        entropy: u64,
    ) -> Option<Change> {
        if permit.generation != self.generation || self.force == Some(Force::Closed) {
            return None;
        }
        let is_slow = took >= settings.slow;
        if permit.probe {
            return match outcome {
                Outcome::Unproven => {
                    let until = now + settings.open.pause(0, entropy);
                    self.state = State::Open { until };
                    None
                }
                Outcome::Succeeded if !is_slow => Some(self.close(now)),
                Outcome::Succeeded => Some(self.open(settings, Cause::Slow, now, entropy)),
                Outcome::Failed | Outcome::Gone => Some(self.open(settings, Cause::Probe, now, entropy)),
            };
        }
        let failed = match outcome {
            Outcome::Unproven => return None,
            Outcome::Succeeded => false,
            Outcome::Failed | Outcome::Gone => true,
        };
        if self.would_be_open_until.is_some_and(|until| now < until) {
            return None;
        }
        self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
        self.window.count(settings.window, failed, is_slow, now);
        let cause = if outcome == Outcome::Gone {
            Cause::Gone
        } else {
            self.signal(settings)?
        };
        if self.force == Some(Force::ObserveOnly) {
            self.forget_evidence();
            self.would_be_open_until = Some(now + settings.open.pause(0, entropy));
            return Some(Change::WouldOpen(cause));
        }
        Some(self.open(settings, cause, now, entropy))
    }

    /// Does as an operator says; `None`: as it sees fit, which after an order to stay open begins with a probe.
    pub fn force(&mut self, force: Option<Force>, now: Timestamp) -> Option<Change> {
        if force == self.force {
            return None;
        }
        let before = self.standing();
        if force == Some(Force::Open) || (force.is_none() && before == Standing::Open) {
            self.state = State::Open { until: now };
        } else {
            self.state = State::Closed;
        }
        self.closed_at = None;
        self.force = force;
        self.generation += 1;
        self.forget_evidence();
        match (before, self.standing()) {
            (Standing::Closed, Standing::Open) => Some(Change::Opened(Cause::Forced)),
            (Standing::Open | Standing::HalfOpen, Standing::Closed) => Some(Change::Closed),
            _ => None,
        }
    }

    fn signal(&self, settings: &Settings) -> Option<Cause> {
        if self.consecutive >= settings.consecutive {
            return Some(Cause::Consecutive);
        }
        let Counts { calls, failed, slow } = self.window.sum;
        let reaches = |count: u32, percent: u32| u64::from(count) * 100 >= u64::from(calls) * u64::from(percent);
        if calls < settings.volume {
            None
        } else if reaches(failed, settings.failure_percent) {
            Some(Cause::Rate)
        } else if reaches(slow, settings.slow_percent) {
            Some(Cause::Slow)
        } else {
            None
        }
    }

    fn open(&mut self, settings: &Settings, cause: Cause, now: Timestamp, entropy: u64) -> Change {
        if self
            .closed_at
            .is_some_and(|closed_at| now.since(closed_at) >= settings.window)
        {
            self.openings = 0;
        }
        let until = now + settings.open.pause(self.openings, entropy);
        self.state = State::Open { until };
        self.openings = self.openings.saturating_add(1);
        self.closed_at = None;
        self.generation += 1;
        self.forget_evidence();
        Change::Opened(cause)
    }

    fn close(&mut self, now: Timestamp) -> Change {
        self.state = State::Closed;
        self.closed_at = Some(now);
        self.generation += 1;
        self.forget_evidence();
        Change::Closed
    }

    fn forget_evidence(&mut self) {
        self.consecutive = 0;
        self.window = Window::default();
        self.would_be_open_until = None;
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    calls: u32,
    failed: u32,
    slow: u32,
}

/// The last calls, in buckets that leave the sum when they are a window old.
#[derive(Debug, Clone, Default)]
struct Window {
    /// The number of the newest bucket, counted from the epoch.
    newest: i64,
    buckets: [Counts; BUCKETS],
    sum: Counts,
}

impl Window {
    fn count(&mut self, window: Duration, failed: bool, slow: bool, now: Timestamp) {
        let width = i64::try_from(window.as_millis() / BUCKETS as u128)
            .unwrap_or(i64::MAX)
            .max(1);
        self.move_to(now.as_millis().div_euclid(width));
        let bucket = &mut self.buckets[Self::index(self.newest)];
        for counts in [bucket, &mut self.sum] {
            counts.calls = counts.calls.saturating_add(1);
            counts.failed = counts.failed.saturating_add(u32::from(failed));
            counts.slow = counts.slow.saturating_add(u32::from(slow));
        }
    }

    fn move_to(&mut self, number: i64) {
        let steps = number - self.newest;
        if steps.abs() >= WINDOW_STEPS {
            // Long ago; or the clock was set back, and what was counted belongs to no time that can be compared with now.
            *self = Self {
                newest: number,
                ..Self::default()
            };
            return;
        }
        for _ in 0..steps {
            self.newest += 1;
            let old = std::mem::take(&mut self.buckets[Self::index(self.newest)]);
            self.sum.calls -= old.calls.min(self.sum.calls);
            self.sum.failed -= old.failed.min(self.sum.failed);
            self.sum.slow -= old.slow.min(self.sum.slow);
        }
    }

    fn index(number: i64) -> usize {
        usize::try_from(number.rem_euclid(WINDOW_STEPS)).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
