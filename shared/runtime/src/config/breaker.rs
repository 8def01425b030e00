//! `[signer.breaker]`: when the breaker of an issuer opens in a signer, and for how long.

use std::time::Duration;

use domain::{
    backoff::Backoff,
    breaker::{Force, Settings},
};
use serde::{Deserialize, Serialize};

use super::check::{Refusal, refuse};

/// Breakers: one for each issuer in each signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row that open it. Default 5.
    pub consecutive: u32,
    /// Over how much time rates are computed. Default 10s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Operations in the window below which no rate opens it. Default 20.
    pub volume: u32,
    /// Rate of failures that opens it, in percent. Default 50.
    pub failure_percent: u32,
    /// From this time on an operation is slow. Default 1s.
    #[serde(with = "humantime_serde")]
    pub slow: Duration,
    /// Rate of slow operations that opens it, in percent. Default 50.
    pub slow_percent: u32,
    /// How long it stays open the first time; doubled each time it opens again soon. Default 400ms.
    #[serde(with = "humantime_serde")]
    pub open: Duration,
    /// It never stays open longer than this without a probe. Default 5s.
    #[serde(with = "humantime_serde")]
    pub open_longest: Duration,
    /// By how much chance may shorten these times, in percent. Default 25.
    pub open_jitter_percent: u32,
    /// After a recovery, twice as many jobs of the issuer may be in flight after each such step. Default 100ms.
    #[serde(with = "humantime_serde")]
    pub ramp_step: Duration,
    /// Whether breakers only say that they would open, unless an operator orders otherwise. Default false.
    pub observe_only: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        let Settings {
            consecutive,
            window,
            volume,
            failure_percent,
            slow,
            slow_percent,
            open,
            ramp_step,
        } = Settings::default();
        Self {
            consecutive,
            window,
            volume,
            failure_percent,
            slow,
            slow_percent,
            open: open.first,
            open_longest: open.longest,
            open_jitter_percent: open.jitter_percent,
            ramp_step,
            observe_only: false,
        }
    }
}

impl Breaker {
    /// As the dispatcher takes it.
    pub const fn settings(&self) -> Settings {
        Settings {
            consecutive: self.consecutive,
            window: self.window,
            volume: self.volume,
            failure_percent: self.failure_percent,
            slow: self.slow,
            slow_percent: self.slow_percent,
            open: Backoff {
                first: self.open,
                longest: self.open_longest,
                jitter_percent: self.open_jitter_percent,
            },
            ramp_step: self.ramp_step,
        }
    }

    /// What all breakers do of which no operator has ordered anything.
    pub fn force(&self) -> Option<Force> {
        self.observe_only.then_some(Force::ObserveOnly)
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (key, count) in [("consecutive", self.consecutive), ("volume", self.volume)] {
            if count == 0 {
                return wrong(key, "0 would open it for nothing; write at least 1");
            }
        }
        for (key, percent) in [
            ("failure_percent", self.failure_percent),
            ("slow_percent", self.slow_percent),
        ] {
            if !(1..=100).contains(&percent) {
                return wrong(key, "write 1 to 100");
            }
        }
        if self.open_jitter_percent > 100 {
            return wrong("open_jitter_percent", "write 0 to 100");
        }
        if self.window < Duration::from_millis(100) {
            return wrong("window", "write at least \"100ms\"");
        }
        for (key, time) in [("slow", self.slow), ("open", self.open), ("ramp_step", self.ramp_step)] {
            if time < Duration::from_millis(1) {
                return wrong(key, "write at least \"1ms\"");
            }
        }
        if self.open_longest < self.open {
            return wrong(
                "open_longest",
                "is shorter than signer.breaker.open; write at least that",
            );
        }
        Ok(())
    }
}

fn wrong(key: &str, problem: &str) -> Result<(), Refusal> {
    refuse(&format!("signer.breaker.{key}"), problem)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_accepted_is_what_breakers_accept() {
        Breaker::default().settings().check();
        let least = "consecutive = 1\nvolume = 1\nwindow = \"100ms\"\nslow = \"1ms\"\nfailure_percent = 1\nslow_percent = 100\n\
            open = \"1ms\"\nopen_longest = \"1ms\"\nopen_jitter_percent = 100\nramp_step = \"1ms\"\nobserve_only = true";
        let parse = |text: &str| Config::parse(Path::new("b.toml"), &format!("[signer.breaker]\n{text}"));
        let breaker = parse(least).unwrap().signer.breaker;
        breaker.settings().check();
        assert_eq!(breaker.force(), Some(Force::ObserveOnly));
        for (key, value) in [
            ("consecutive", "0"),
            ("volume", "0"),
            ("failure_percent", "0"),
            ("slow_percent", "101"),
            ("open_jitter_percent", "101"),
            ("window", "\"99ms\""),
            ("slow", "\"0s\""),
            ("open", "\"0s\""),
            ("ramp_step", "\"0s\""),
            ("open_longest", "\"399ms\""),
        ] {
            let error = parse(&format!("{key} = {value}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("b.toml: signer.breaker.{key}: ")), "{error}");
        }
    }
}
