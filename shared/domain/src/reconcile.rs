//! What a signer claims from the ledger because nothing seems to bring it.
//!
//! For each lane that it serves, any queued job that
//! * is older than what the lane was delivering here [`PATIENCE`] ago: others that were accepted later have come already; or
//! * has waited for [`PATIENCE`] while this signer holds nothing of the lane; or
//! * belongs to a lane that the ledger itself carries.
//!
//! A claim is a question; `begin` decides. So a claim that was not needed costs a read and harms nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    lane::{Carrier, Lane},
    time::Timestamp,
};

/// How long the broker may take before the ledger is asked.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How often, and how much at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often a lane is asked about that had nothing to claim.
    pub period: Duration,
    /// Lanes in one question.
    pub lanes: usize,
    /// Jobs of one lane in one question.
    pub jobs: u32,
}

/// A lane as the signer sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Which.
    pub lane: Lane,
    /// How its jobs travel.
    pub carrier: Carrier,
    /// Jobs of it that wait here or are being begun.
    pub held: usize,
    /// How many more may wait here.
    pub room: usize,
}

/// A question to the ledger: queued jobs of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which lane.
    pub lane: Lane,
    /// Only jobs accepted before this.
    pub accepted_before: Timestamp,
    /// At most this many, at least one.
    pub limit: u32,
}

/// Remembers what each lane delivered and when it was asked about.
#[derive(Debug)]
pub struct Reconciler {
    limits: Limits,
    lanes: BTreeMap<Lane, Memory>,
    /// The lane after which the next question begins, so that all have their turn.
    last: Option<Lane>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The youngest job delivered here: in this stretch of [`PATIENCE`], in the one before, and earlier than that.
    stretch: i64,
    youngest: Option<Timestamp>,
    before: Option<Timestamp>,
    earlier: Option<Timestamp>,
    /// When the lane may be asked about again. `None`: at once.
    next: Option<Timestamp>,
}

impl Memory {
    fn age(&mut self, now: Timestamp) {
        let stretch = now.as_secs();
        if stretch > self.stretch {
            self.earlier = self.earlier.max(self.before.take());
            if stretch == self.stretch + 1 {
                self.before = self.youngest.take();
            } else {
                self.earlier = self.earlier.max(self.youngest.take());
            }
            self.stretch = stretch;
        }
    }
}

impl Reconciler {
    /// Knows nothing yet.
    ///
    /// # Panics
    /// If a limit is zero.
    pub fn new(limits: Limits) -> Self {
        assert!(
            limits.lanes > 0 && limits.jobs > 0 && !limits.period.is_zero(),
            "a limit of zero claims nothing or never stops"
        );
        Self {
            limits,
            lanes: BTreeMap::new(),
            last: None,
        }
    }

    /// Notes that the broker brought a job of a lane.
    pub fn delivered(&mut self, lane: &Lane, accepted_at: Timestamp, now: Timestamp) {
        let memory = self.memory(lane);
        memory.age(now);
        memory.youngest = memory.youngest.max(Some(accepted_at));
    }

    /// Notes that there is something in the ledger: a wake-up, or a claim that was answered in full. The lane is asked about at once.
    pub fn woken(&mut self, lane: &Lane) {
        self.memory(lane).next = None;
    }

    /// Forgets every lane but these.
    pub fn keep(&mut self, lanes: &BTreeSet<Lane>) {
        self.lanes.retain(|lane, _| lanes.contains(lane));
    }

    /// The claims that are due, of these lanes, in turn. None of them is due again before [`Limits::period`] has passed, unless it is
    /// woken. `observed` must be in the order of lanes.
    pub fn due(&mut self, observed: &[Observation], now: Timestamp) -> Vec<Claim> {
        let start = self
            .last
            .as_ref()
            .map_or(0, |last| observed.partition_point(|o| o.lane <= *last));
        let (first, second) = observed.split_at(start);
        let mut claims = Vec::new();
        for observation in second.iter().chain(first) {
            if claims.len() == self.limits.lanes {
                break;
            }
            if let Some(claim) = self.claim(observation, now) {
                self.last = Some(claim.lane.clone());
                claims.push(claim);
            }
        }
        claims
    }

    fn claim(&mut self, observation: &Observation, now: Timestamp) -> Option<Claim> {
        let Limits { period, jobs, .. } = self.limits;
        let memory = self.memory(&observation.lane);
        memory.age(now);
        if memory.next.is_some_and(|next| now < next) {
            return None;
        }
        let patient = now - PATIENCE;
        let accepted_before = match observation.carrier {
            // By whole milliseconds: a job that was accepted in this very one counts.
            Carrier::Ledger => now + Duration::from_millis(1),
            Carrier::Own if observation.held == 0 => memory.earlier.unwrap_or(patient).max(patient),
            Carrier::Own => memory.earlier?,
        };
        let limit = jobs.min(u32::try_from(observation.room).unwrap_or(u32::MAX));
        if limit == 0 {
            return None;
        }
        memory.next = Some(now + period);
        let lane = observation.lane.clone();
        Some(Claim {
            lane,
            accepted_before,
            limit,
        })
    }

    fn memory(&mut self, lane: &Lane) -> &mut Memory {
        if !self.lanes.contains_key(lane) {
            self.lanes.insert(lane.clone(), Memory::default());
        }
        self.lanes.get_mut(lane).expect("it was just inserted")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        period: Duration::from_millis(250),
        lanes: 4,
        jobs: 100,
    };

    fn lane(name: &str) -> Lane {
        format!("{name}.bulk").parse().unwrap()
    }

    fn observed(name: &str, carrier: Carrier, held: usize) -> Observation {
        Observation {
            lane: lane(name),
            carrier,
            held,
            room: 1000,
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_lane_that_holds_nothing_claims_what_has_waited_a_second() {
        let mut reconciler = Reconciler::new(LIMITS);
        let claims = reconciler.due(&[observed("a", Carrier::Own, 0)], at(0));
        assert_eq!(
            claims,
            [Claim {
                lane: lane("a"),
                accepted_before: at(-1000),
                limit: 100
            }]
        );
        assert!(reconciler.due(&[observed("a", Carrier::Own, 0)], at(249)).is_empty());
        assert_eq!(reconciler.due(&[observed("a", Carrier::Own, 0)], at(250)).len(), 1);
    }

    #[test]
    fn a_busy_lane_claims_only_what_is_older_than_its_deliveries_of_a_second_ago() {
        let mut reconciler = Reconciler::new(LIMITS);
        let busy = [observed("a", Carrier::Own, 5)];
        assert!(reconciler.due(&busy, at(0)).is_empty(), "nothing was delivered yet");
        reconciler.delivered(&lane("a"), at(-300), at(0));
        reconciler.delivered(&lane("a"), at(-200), at(500));
        assert!(
            reconciler.due(&busy, at(1499)).is_empty(),
            "that was delivered 0.999 s ago"
        );
        let claims = reconciler.due(&busy, at(2000));
        assert_eq!(claims[0].accepted_before, at(-200));
        reconciler.delivered(&lane("a"), at(1900), at(2100));
        assert_eq!(reconciler.due(&busy, at(2300))[0].accepted_before, at(-200));
        assert_eq!(reconciler.due(&busy, at(4000))[0].accepted_before, at(1900));
    }

    #[test]
    fn a_ledger_lane_claims_everything_and_a_wake_up_makes_it_at_once() {
        let mut reconciler = Reconciler::new(LIMITS);
        let lanes = [observed("a", Carrier::Ledger, 3)];
        assert_eq!(reconciler.due(&lanes, at(0))[0].accepted_before, at(1));
        assert!(reconciler.due(&lanes, at(1)).is_empty());
        reconciler.woken(&lane("a"));
        assert_eq!(reconciler.due(&lanes, at(2)).len(), 1);
    }

    #[test]
    fn a_lane_without_room_claims_nothing() {
        let mut reconciler = Reconciler::new(LIMITS);
        let mut full = observed("a", Carrier::Ledger, 3);
        full.room = 0;
        assert!(reconciler.due(&[full], at(0)).is_empty());
    }

    proptest! {
        #[test]
        fn every_lane_has_its_turn_and_no_question_is_over_its_limits(count in 1..40_usize, rounds in 1..30_i64) {
            let mut reconciler = Reconciler::new(LIMITS);
            let lanes: Vec<Observation> = (0..count).map(|i| observed(&format!("i{i:03}"), Carrier::Ledger, 0)).collect();
            let mut asked = vec![0_i32; count];
            for round in 0..rounds {
                for claim in reconciler.due(&lanes, at(round * 250)) {
                    prop_assert!(claim.limit <= LIMITS.jobs);
                    asked[lanes.iter().position(|o| o.lane == claim.lane).unwrap()] += 1;
                }
            }
            let (least, most) = (asked.iter().min().unwrap(), asked.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{asked:?}");
        }

        #[test]
        fn no_job_that_was_accepted_before_the_deliveries_of_a_second_ago_is_forgotten(
            deliveries in proptest::collection::vec((0..400_i64, 0..2000_i64), 1..100),
        ) {
            let mut reconciler = Reconciler::new(LIMITS);
            let mut now = 0;
            let mut seen = Vec::new();
            for (pause, age) in deliveries {
                now += pause;
                reconciler.delivered(&lane("a"), at(now - age), at(now));
                seen.push((now, now - age));
            }
            // Deliveries of one old job go on until what came before has aged.
            for _ in 0..12 {
                now += 250;
                reconciler.delivered(&lane("a"), at(-5000), at(now));
            }
            now += 250;
            let claims = reconciler.due(&[observed("a", Carrier::Own, 1)], at(now));
            let youngest = seen.iter().filter(|(when, _)| now - when >= 3000).map(|(_, accepted)| *accepted).max();
            if let Some(youngest) = youngest {
                prop_assert!(claims[0].accepted_before >= at(youngest));
            }
        }
    }
}
