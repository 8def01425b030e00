//! The gate of one issuer in one signer: consulted before a job of it is begun.
//!
//! It spaces the attempts of an issuer whose key operations fail, so that a deferred job does not spin: after a failure nothing is begun
//! until a pause has passed, then one job at a time, until one succeeds. It is no circuit breaker yet, which would look at rates and
//! slowness, probe without a customer's job, and tell clients; that one takes this place, behind the same three questions.

use std::time::Duration;

use crate::time::Timestamp;

/// The first pause; each failed attempt doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// From this pause on, the issuer's lanes are left to other signers.
const LONG: Duration = Duration::from_millis(800);

/// Open when new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gate {
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed {
    until: Timestamp,
    pause: Duration,
}

impl Gate {
    /// Whether a job may be begun while `in_flight` others of the issuer are under way.
    pub fn admits(&self, in_flight: usize, now: Timestamp) -> bool {
        self.closed.is_none_or(|closed| now >= closed.until && in_flight == 0)
    }

    /// Whether jobs of the issuer should be left to other signers for now.
    pub fn turns_away(&self, now: Timestamp) -> bool {
        self.closed
            .is_some_and(|closed| now < closed.until && closed.pause >= LONG)
    }

    /// Whether nothing is known against the issuer.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// A key operation failed. What was begun before the pause does not lengthen it.
    pub fn failed(&mut self, now: Timestamp) {
        let pause = match self.closed {
            None => FIRST_PAUSE,
            Some(closed) if now < closed.until => return,
            Some(closed) => (closed.pause * 2).min(LONGEST_PAUSE),
        };
        let until = now + pause;
        self.closed = Some(Closed { until, pause });
    }

    /// A key operation succeeded.
    pub fn succeeded(&mut self) {
        self.closed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1000) + Duration::from_millis(millis)
    }

    #[test]
    fn attempts_are_spaced_ever_wider_and_come_one_at_a_time_until_one_succeeds() {
        let mut gate = Gate::default();
        assert!(gate.admits(10, at(0)));
        gate.failed(at(0));
        gate.failed(at(50));
        assert!(!gate.admits(0, at(99)));
        assert!(gate.admits(0, at(100)));
        assert!(!gate.admits(1, at(100)));
        gate.failed(at(100));
        assert!(!gate.admits(0, at(299)) && gate.admits(0, at(300)));
        let mut now = 300;
        for _ in 0..20 {
            gate.failed(at(now));
            now += 5000;
        }
        assert!(gate.turns_away(at(now - 1)));
        assert!(gate.admits(0, at(now)) && !gate.turns_away(at(now)));
        gate.succeeded();
        assert!(gate.is_open() && gate.admits(10, at(now)));
    }
}
