//! How long a stage rests after a commit, so that the next one is larger.
//!
//! Commits, messages and wake-ups cost the same for one job as for fifty. A stage that commits what is there as soon as it can makes many
//! small batches just when the machine is short of time. So it rests, once a commit took longer than one does on an idle machine, for twice
//! as long as that one took over it: batches grow with the load, and after quick commits nothing is delayed.

use std::time::Duration;

/// What a commit may take without a rest after it: an idle machine's disk and network.
const IDLE: Duration = Duration::from_millis(2);
/// How many times what a commit took over that.
const TIMES: u32 = 2;
/// The longest rest. It bounds what a stage adds to the way of a request, and a store that stalls is not waited for any longer.
const LONGEST: Duration = Duration::from_millis(10);

/// The rest after a commit that took so long, unless as much as goes into one batch waits already.
pub fn rest(took: Duration) -> Duration {
    (took.saturating_sub(IDLE).min(LONGEST) * TIMES).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_machine_never_rests_and_a_slow_store_is_waited_for_no_longer_than_the_limit() {
        let millis = Duration::from_millis;
        assert_eq!(rest(millis(0)), Duration::ZERO);
        assert_eq!(rest(millis(2)), Duration::ZERO);
        assert_eq!(rest(millis(5)), millis(6));
        assert_eq!(rest(millis(500)), LONGEST);
    }
}
