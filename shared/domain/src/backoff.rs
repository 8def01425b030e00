//! How long to wait before trying again: longer after each failure, up to a cap, and never the same for two who failed together.

use std::time::Duration;

/// Pauses that double, are capped, and are shortened by a random part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// By how much entropy may shorten a pause, in percent.
    pub jitter_percent: u32,
}

impl Backoff {
    /// The pause after `failures` earlier ones (0: the first). `entropy` is any 64 random bits.
    pub fn pause(&self, failures: u32, entropy: u64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(20)).min(self.longest);
        let width = doubled / 100 * self.jitter_percent.min(100);
        let thousandths = u32::try_from(entropy % 1001).unwrap_or_default();
        doubled.saturating_sub(width / 1000 * thousandths)
    }
}

/// A stream of entropy from one seed, so that a machine that needs jitter all the time is handed its randomness once (SplitMix64).
#[derive(Debug, Clone)]
pub struct Entropy(u64);

impl Entropy {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits. Good for jitter; for nothing secret.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_capped_and_differ_by_the_jitter() {
        let backoff = Backoff {
            first: Duration::from_millis(400),
            longest: Duration::from_secs(5),
            jitter_percent: 25,
        };
        let exact: Vec<u64> = [0, 1, 2, 3, 4, 60]
            .map(|failures| u64::try_from(backoff.pause(failures, 0).as_millis()).unwrap())
            .into();
        assert_eq!(exact, [400, 800, 1600, 3200, 5000, 5000]);
        let mut entropy = Entropy::new(7);
        let pauses: Vec<Duration> = (0..1000).map(|_| backoff.pause(9, entropy.draw())).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= Duration::from_millis(3750) && *least < Duration::from_millis(3900));
        assert!(*most <= backoff.longest && *most > Duration::from_millis(4900));
    }
}
