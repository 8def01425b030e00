//! The retry budget of one lane: failed attempts, each of which comes again, may not outnumber what succeeds by more than a little.
//!
//! Breakers stop what fails all the time. The budget bounds what they let through or are told to let through: a key that fails under a
//! breaker that is forced to stay closed costs everybody this much, and no more.

use crate::time::Timestamp;

/// Failures that a lane may be ahead of its successes, in thousandths.
const FULL: u32 = 20_000;
/// One attempt.
const ATTEMPT: u32 = 1_000;
/// What each millisecond gives back: five attempts a second.
const PER_MILLISECOND: u32 = 5;

#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    left: u32,
    at: Timestamp,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: FULL,
            at: Timestamp::default(),
        }
    }
}

impl Budget {
    /// An attempt succeeded.
    pub fn deposit(&mut self) {
        if self.left < FULL {
            self.left = (self.left + ATTEMPT).min(FULL);
        }
    }

    /// An attempt failed.
    pub fn withdraw(&mut self, now: Timestamp) {
        self.left = self.level(now).saturating_sub(ATTEMPT);
        self.at = now;
    }

    /// Whether there is anything left.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.left >= ATTEMPT || self.level(now) >= ATTEMPT
    }

    /// When there will be; `None` if there is.
    pub fn admits_at(&self, now: Timestamp) -> Option<Timestamp> {
        let missing = ATTEMPT.saturating_sub(self.level(now));
        let wait = std::time::Duration::from_millis(missing.div_ceil(PER_MILLISECOND).into());
        (missing > 0).then(|| now + wait)
    }

    /// The clock was set back: what was to come back later comes from now on.
    pub fn clock_set_back(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
    }

    fn level(&self, now: Timestamp) -> u32 {
        let passed = u32::try_from(now.since(self.at).as_millis()).unwrap_or(u32::MAX);
        self.left
            .saturating_add(passed.saturating_mul(PER_MILLISECOND))
            .min(FULL)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failures_may_not_outnumber_successes_by_more_than_five_a_second() {
        let start = Timestamp::from_secs(1_000);
        let mut budget = Budget::default();
        let attempts = (0..10_000)
            .map(|millis| start + Duration::from_millis(millis))
            .filter(|now| {
                let admitted = budget.admits(*now);
                assert_eq!(admitted, budget.admits_at(*now).is_none());
                if admitted {
                    budget.withdraw(*now);
                }
                admitted
            })
            .count();
        assert!(
            (69..=70).contains(&attempts),
            "20 at once, 50 in ten seconds: {attempts}"
        );
        let now = start + Duration::from_secs(20);
        for _ in 0..10_000 {
            budget.deposit();
            budget.withdraw(now);
            assert!(budget.admits(now), "what half succeeds is not held");
        }
    }
}
