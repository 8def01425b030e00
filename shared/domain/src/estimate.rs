//! Whether a certificate can be ready while its client waits: an estimate of a lane's wait, from what the ledger and the signers last
//! said of it.
//!
//! The wait is the number of jobs ahead divided by how fast signers end them. That speed is only known while the lane has a backlog (an
//! idle lane is slow because nobody asks), so it is taken from looks at a lane that had one for some time. A request that cannot be
//! answered in time is refused at once; the closer the wait comes to the client's patience, the more are, so that the queue settles
//! instead of swinging.
//!
//! **It never locks itself shut.** Nobody is refused with fewer than [`SPARE`] jobs ahead, nor on figures older than [`FRESH`], and of
//! [`PROBE_EVERY`] requests that would be refused one is let through. A speed that was measured while the key could not be used is
//! forgotten as soon as it can, so the first request after a recovery is admitted, however long the outage was.
//!
//! Requests whose clients do not wait are never judged here.

use std::{collections::VecDeque, time::Duration};

/// Jobs ahead below which nobody is refused.
pub const SPARE: u64 = 8;

/// The age from which figures say nothing.
pub const FRESH: Duration = Duration::from_secs(3);

/// Of so many requests of a lane that would be refused, one is not.
pub const PROBE_EVERY: u32 = 100;

/// How long a lane must have had a backlog before its speed is measured: signers announce it every half second, for the time before, and
/// a machine that stands still for a moment is no slow lane.
const SETTLING: Duration = Duration::from_secs(2);

/// Looks at a backlog from which its speed is known, and the most that are remembered.
const FEWEST: usize = 2;
const MOST: usize = 6;

/// Part of a client's patience up to which a wait refuses nobody. From there to the whole of it, the share of the refused grows.
const EASY: f64 = 0.75;

/// When to come back, at the least and at the most.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_mins(1);

/// Whether signers can use an issuer's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// No signer has said anything lately.
    Unknown,
    /// One at least holds it, and its breaker is closed there.
    Usable,
    /// Wherever it is, its breaker is not closed.
    Unusable,
    /// None says that it holds it. The one that does may be starting again: only after [`FRESH`] is the key taken for unusable.
    Absent,
}

/// What is seen of a lane at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// When, on a clock that never goes back.
    pub at: Duration,
    /// Jobs that wait or are worked on.
    pub open: u64,
    /// How its issuer's key stands.
    pub key: Key,
    /// Jobs that signers ended a second, if they have said so.
    pub speed: Option<f64>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Too much waits already.
    Overloaded,
    /// Nothing is signed now.
    Unavailable,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// After how long it is worth asking again.
    pub retry_after: Duration,
}

/// What becomes of a request whose client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Admit,
    /// It goes on although the estimate is against it, to find out.
    Probe,
    /// It is refused.
    Refuse(Refusal),
}

/// The estimate of one lane.
#[derive(Debug, Default)]
pub struct Estimate {
    look: Option<Look>,
    /// Requests that went on since the last look.
    arrived: u64,
    /// Since when there has been a backlog and a key to work on it.
    backlog_since: Option<Duration>,
    /// Speeds of that time, each with when it was seen.
    speeds: VecDeque<(Duration, f64)>,
    /// Since when no signer can use the key.
    unusable_since: Option<Duration>,
    /// Whether that is sure.
    unusable: bool,
    /// Requests that would have been refused since one was let through.
    turned_away: u32,
}

impl Estimate {
    /// Takes in what is seen now. Looks come in the order of their times.
    pub fn look(&mut self, look: Look) {
        let before = self.look.replace(look);
        self.arrived = 0;
        let gap = before.is_none_or(|before| look.at.saturating_sub(before.at) > FRESH);
        let missing = matches!(look.key, Key::Unusable | Key::Absent);
        if missing {
            let since = *self.unusable_since.get_or_insert(look.at);
            self.unusable |= look.key == Key::Unusable || look.at.saturating_sub(since) > FRESH;
        } else {
            self.unusable_since = None;
            self.unusable = false;
        }
        let Some(speed) = look.speed.filter(|_| look.open >= SPARE && !missing) else {
            self.backlog_since = None;
            self.speeds.clear();
            return;
        };
        if gap || self.backlog_since.is_none() {
            self.backlog_since = Some(look.at);
            self.speeds.clear();
        }
        if self
            .backlog_since
            .is_some_and(|since| look.at.saturating_sub(since) >= SETTLING)
        {
            self.speeds.push_back((look.at, speed));
            if self.speeds.len() > MOST {
                self.speeds.pop_front();
            }
        }
    }

    /// A request goes on into the lane, whether its client waits or not.
    pub fn arrived(&mut self) {
        self.arrived = self.arrived.saturating_add(1);
    }

    /// Whether nothing is known that matters: no job is open and none has come.
    pub fn is_idle(&self) -> bool {
        self.arrived == 0 && self.look.is_none_or(|look| look.open == 0)
    }

    /// Judges a request whose client waits for `patience`.
    pub fn decide(&mut self, now: Duration, patience: Duration, entropy: u64) -> Decision {
        let Some(refusal) = self.against(now, patience, entropy) else {
            return Decision::Admit;
        };
        self.turned_away += 1;
        if self.turned_away >= PROBE_EVERY {
            self.turned_away = 0;
            return Decision::Probe;
        }
        Decision::Refuse(refusal)
    }

    /// What speaks against a request, if anything does.
    fn against(&self, now: Duration, patience: Duration, entropy: u64) -> Option<Refusal> {
        let look = self.look.filter(|look| now.saturating_sub(look.at) <= FRESH)?;
        let speed = self.speed();
        let ahead = self.ahead(&look, speed, now);
        if ahead < SPARE {
            return None;
        }
        let (chance, jitter) = halves(entropy);
        if self.unusable {
            // What has lasted for long is likely to last for as long again.
            let lasted = self
                .unusable_since
                .map_or(Duration::ZERO, |since| now.saturating_sub(since));
            return Some(Refusal {
                why: Why::Unavailable,
                retry_after: later(lasted, jitter),
            });
        }
        let speed = speed?;
        let wait = Duration::try_from_secs_f64(number(ahead) / speed.smoothed).unwrap_or(Duration::MAX);
        let share = wait.as_secs_f64() / patience.as_secs_f64();
        if (share - EASY) / (1.0 - EASY) <= chance {
            return None;
        }
        Some(Refusal {
            why: if speed.measured > 0.0 {
                Why::Overloaded
            } else {
                Why::Unavailable
            },
            retry_after: later(wait.saturating_sub(patience.mul_f64(EASY)), jitter),
        })
    }

    /// Jobs ahead of a request that comes now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a product of positive numbers; casts of floats saturate"
    )]
    fn ahead(&self, look: &Look, speed: Option<Speed>, now: Duration) -> u64 {
        let since = now.saturating_sub(look.at).as_secs_f64();
        let ended = speed.map_or(0.0, |speed| speed.measured * since);
        look.open.saturating_add(self.arrived).saturating_sub(ended as u64)
    }

    /// Jobs that are ended a second, if there has been a backlog for long enough to know.
    fn speed(&self) -> Option<Speed> {
        let (Some((first, _)), Some((last, _))) = (self.speeds.front(), self.speeds.back()) else {
            return None;
        };
        let measured_for = last.saturating_sub(*first).as_secs_f64();
        if self.speeds.len() < FEWEST || measured_for <= 0.0 {
            return None;
        }
        let sum: f64 = self.speeds.iter().map(|(_, speed)| speed.max(0.0)).sum();
        let measured = sum / number(self.speeds.len() as u64);
        Some(Speed {
            measured,
            smoothed: measured + 1.0 / measured_for,
        })
    }
}

/// Jobs that are ended a second.
#[derive(Debug, Clone, Copy)]
struct Speed {
    measured: f64,
    /// As if one more job had been ended meanwhile: it may be about to.
    smoothed: f64,
}

/// Two independent numbers, at least 0 and below 1.
fn halves(entropy: u64) -> (f64, f64) {
    let part = |bits: u64| f64::from(u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default()) / 4_294_967_296.0;
    (part(entropy), part(entropy >> 32))
}

/// When to come back: not all at once.
fn later(after: Duration, jitter: f64) -> Duration {
    after.clamp(SOONEST, LATEST).mul_f64(1.0 + jitter / 2.0)
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
