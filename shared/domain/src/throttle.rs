//! A throttle in front of what is overloaded: the more of its requests were refused because too much waits, the fewer of an account's next
//! ones come that far ("Handling Overload" in Google's book on site reliability). Refusing costs work as well, and whoever asks again and
//! again is to pay for it himself.
//!
//! A request is turned away with probability (requests - K x accepted - [`SPARE`]) / (requests + 1), and never more than [`MOST`], over a
//! sliding window in which those that were turned away here count as requests. So about K times as much as is accepted still gets through,
//! which finds out that there is room again, and an account of which little is refused never notices. Whatever was not refused for overload
//! counts as accepted.

use std::time::Duration;

/// How many times as much as is accepted gets through.
const K: u64 = 2;

/// Refusals that are not held against anybody.
const SPARE: u64 = 16;

/// The greatest chance: enough comes through to find out within seconds that nothing is refused any more.
const MOST: f64 = 0.9;

/// The window: so many steps of one second.
const STEPS: usize = 10;

/// What an account has asked lately, and what was refused of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttle {
    steps: [Counts; STEPS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Whole seconds on the caller's clock, plus one; 0: never used.
    second: u64,
    requests: u64,
    refused: u64,
}

impl Throttle {
    /// Counts a request, and turns it away or not. `now` is on a clock that never goes back.
    ///
    /// # Errors
    /// After how long to ask again, if it is turned away.
    pub fn ask(&mut self, now: Duration, entropy: u64) -> Result<(), Duration> {
        let chance = self.chance(now);
        let drawn = f64::from(u32::try_from(entropy & u64::from(u32::MAX)).unwrap_or_default()) / 4_294_967_296.0;
        let counts = self.counts(now);
        counts.requests += 1;
        if drawn >= chance {
            return Ok(());
        }
        counts.refused += 1;
        Err(Duration::from_secs(1).mul_f64(1.0 + chance * 9.0))
    }

    /// Counts that a request which had come through was refused because too much waits.
    pub fn refused(&mut self, now: Duration) {
        self.counts(now).refused += 1;
    }

    /// The probability with which the next request is turned away.
    pub fn chance(&self, now: Duration) -> f64 {
        let current = now.as_secs() + 1;
        let lately = self
            .steps
            .iter()
            .filter(|counts| current - counts.second.min(current) < STEPS as u64);
        let (requests, refused) = lately.fold((0, 0), |(requests, refused), counts| {
            (requests + counts.requests, refused + counts.refused)
        });
        // A refusal may be of a request of a second that is forgotten.
        let accepted = requests.saturating_sub(refused);
        let over = requests
            .saturating_sub(K.saturating_mul(accepted))
            .saturating_sub(SPARE);
        (number(over) / (number(requests) + 1.0)).min(MOST)
    }

    fn counts(&mut self, now: Duration) -> &mut Counts {
        let second = now.as_secs() + 1;
        let place = usize::try_from(second % STEPS as u64).unwrap_or_default();
        let counts = &mut self.steps[place];
        if counts.second != second {
            *counts = Counts {
                second,
                ..Counts::default()
            };
        }
        counts
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A generator that is good enough to draw with.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    }

    #[test]
    fn whoever_is_refused_for_overload_asks_less_and_less_and_a_service_that_recovers_is_found_out() {
        let (mut throttle, mut seed) = (Throttle::default(), 1);
        // 200 requests a second, all refused.
        let (mut through, mut last) = (0, 0);
        for request in 0..4000 {
            if throttle.ask(at(request * 5), next(&mut seed)).is_ok() {
                through += 1;
                last += u32::from(request >= 3000);
                throttle.refused(at(request * 5));
            }
        }
        assert!(through < 600, "{through} of 4000 came through");
        assert!(last > 0, "it is shut for good");
        // From now on nothing is refused.
        let turned_away = (4000..12_000)
            .filter(|request| throttle.ask(at(request * 5), next(&mut seed)).is_err())
            .filter(|request| *request >= 10_000)
            .count();
        assert_eq!(turned_away, 0, "after half a minute, nothing is turned away");
    }

    #[test]
    fn about_twice_as_much_as_is_accepted_gets_through() {
        let (mut throttle, mut seed) = (Throttle::default(), 7);
        let (mut asked, mut accepted) = (0, 0);
        // Room for 20 of 400 a second.
        for second in 0..60 {
            let mut room = 20;
            for request in 0..400 {
                let now = Duration::from_secs(second) + Duration::from_micros(request * 2500);
                if throttle.ask(now, next(&mut seed)).is_err() {
                    continue;
                }
                asked += u32::from(second >= 20);
                if room > 0 {
                    room -= 1;
                    accepted += u32::from(second >= 20);
                } else {
                    throttle.refused(now);
                }
            }
        }
        assert!(accepted >= 700, "{accepted} of 800 places were used");
        assert!((accepted..accepted * 3).contains(&asked), "{asked} for {accepted}");
    }

    proptest! {
        #[test]
        fn an_account_of_which_little_is_refused_never_notices(
            pauses in proptest::collection::vec((0..300_u64, any::<u64>(), any::<bool>()), 1..400),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), 0);
            let mut even = false;
            for (pause, entropy, refused) in pauses {
                now += pause;
                prop_assert_eq!(throttle.ask(at(now), entropy), Ok(()));
                // Never more than every second one.
                even = !even;
                if refused && even {
                    throttle.refused(at(now));
                }
            }
        }

        #[test]
        fn the_chance_is_one_and_ten_seconds_forget_everything(
            requests in proptest::collection::vec((0..2000_u64, any::<u64>(), any::<bool>()), 1..200),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), 0);
            for (pause, entropy, refused) in requests {
                now += pause;
                let chance = throttle.chance(at(now));
                prop_assert!((0.0..=MOST).contains(&chance), "{chance}");
                match throttle.ask(at(now), entropy) {
                    Ok(()) if refused => throttle.refused(at(now)),
                    Ok(()) => {}
                    Err(after) => prop_assert!(after >= Duration::from_secs(1) && after <= Duration::from_secs(10)),
                }
            }
            prop_assert!(throttle.chance(at(now + 10_000)) <= 0.0);
        }
    }
}
