//! What this signer has signed since it last said so, by lane: front ends estimate from it how long a lane's jobs wait.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use domain::lane::Lane;
use store::Signed;

/// Counts, from one announcement to the next.
#[derive(Debug)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    since: Instant,
    lanes: HashMap<Lane, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self(Mutex::new(Counts::begin()))
    }
}

impl Counts {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            lanes: HashMap::new(),
        }
    }
}

impl Tally {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        // A count is a single step, so it is whole whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a job of this lane.
    pub fn count(&self, lane: &Lane) {
        let mut counts = self.counts();
        match counts.lanes.get_mut(lane) {
            Some(count) => *count += 1,
            None => drop(counts.lanes.insert(lane.clone(), 1)),
        }
    }

    /// What was counted since this was last asked, the busiest lanes first.
    pub fn take(&self) -> Signed {
        let Counts { since, lanes } = std::mem::replace(&mut *self.counts(), Counts::begin());
        let mut lanes: Vec<_> = lanes.into_iter().collect();
        lanes.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        lanes.truncate(Signed::MOST);
        Signed {
            over_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            lanes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_lanes_are_told_and_each_count_once() {
        let tally = Tally::default();
        let lane = |n: usize| format!("issuer-{n}.bulk").parse::<Lane>().unwrap();
        for n in 0..Signed::MOST + 10 {
            tally.count(&lane(n));
        }
        tally.count(&lane(505));
        let told = tally.take();
        assert_eq!((told.lanes.len(), &told.lanes[0]), (Signed::MOST, &(lane(505), 2)));
        tally.count(&lane(3));
        let told = tally.take();
        assert_eq!(told.lanes, [(lane(3), 1)]);
    }
}
