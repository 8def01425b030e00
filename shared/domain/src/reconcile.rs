//! What a signer claims from the ledger because nothing seems to bring it.
//!
//! For each lane that it serves, any queued job that
//! * is older than what the lane was delivering here [`PATIENCE`] ago: others that were accepted later have come already; or
//! * has waited for [`PATIENCE`] while this signer holds nothing of the lane; or
//! * belongs to a lane that the ledger itself carries.
//!
//! Thousands of lanes have their turn in questions of a few dozen. A wake-up does not wait for its lane's turn: lanes that were woken are
//! asked about first, in three quarters of a question at most.
//!
//! A claim is a question; `begin` decides. So a claim that was not needed costs a read and harms nobody.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound::{Excluded, Included, Unbounded},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt as _};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
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
    lanes: HashMap<Lane, Memory>,
    /// The lane after which the next question begins, so that all have their turn.
    last: Option<Lane>,
    /// Lanes that were woken since they were asked about, each once, the longest ago first.
    woken: VecDeque<Lane>,
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
    /// Whether it is among the woken.
    is_woken: bool,
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
            lanes: HashMap::new(),
            last: None,
            woken: VecDeque::new(),
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
        let memory = self.memory(lane);
        memory.next = None;
        if !std::mem::replace(&mut memory.is_woken, true) {
            self.woken.push_back(lane.clone());
        }
    }

    /// Forgets every lane but these.
    pub fn keep(&mut self, lanes: &BTreeSet<Lane>) {
        self.lanes.retain(|lane, _| lanes.contains(lane));
        self.woken.retain(|lane| lanes.contains(lane));
    }

    /// The claims that are due, of the lanes that are served: those that were woken, and then the others in turn. None of them is due again
    /// before [`Limits::period`] has passed, unless it is woken. `observe` says how a lane stands; nothing if it must not be asked about now.
    pub fn due<S>(
        &mut self,
        serving: &BTreeMap<Lane, S>,
        observe: impl Fn(&Lane, &S) -> Option<Observation>,
        now: Timestamp,
    ) -> Vec<Claim> {
        let mut claims = Vec::new();
        while claims.len() < (self.limits.lanes * 3).div_ceil(4)
            && let Some(lane) = self.woken.pop_front()
        {
            self.memory(&lane).is_woken = false;
            let served = serving.get(&lane).and_then(|served| observe(&lane, served));
            claims.extend(served.and_then(|observation| self.claim(&lane, observation, now)));
        }
        let last = self.last.take();
        for (lane, served) in in_turn(serving, last.as_ref()) {
            if claims.len() == self.limits.lanes {
                break;
            }
            let claim = observe(lane, served).and_then(|observation| self.claim(lane, observation, now));
            if let Some(claim) = claim {
                self.last = Some(claim.lane.clone());
                claims.push(claim);
            }
        }
        self.last = self.last.take().or(last);
        claims
    }

    fn claim(&mut self, lane: &Lane, observation: Observation, now: Timestamp) -> Option<Claim> {
        let Limits { period, jobs, .. } = self.limits;
        let memory = self.memory(lane);
        memory.age(now);
        // A clock that was set back keeps nobody waiting for longer than the period.
        if memory.next.is_some_and(|next| now < next && next.since(now) <= period) {
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
        Some(Claim {
            lane: lane.clone(),
            accepted_before,
            limit,
        })
    }

    fn memory(&mut self, lane: &Lane) -> &mut Memory {
        self.lanes.entry(lane.clone()).or_default()
    }
}

/// Everything that is served, in the order of lanes, beginning after `last`.
pub fn in_turn<'a, S>(
    serving: &'a BTreeMap<Lane, S>,
    last: Option<&Lane>,
) -> impl Iterator<Item = (&'a Lane, &'a S)> + use<'a, S> {
    let after = serving.range::<Lane, _>((last.map_or(Unbounded, Excluded), Unbounded));
    let before = last.map(|last| serving.range::<Lane, _>((Unbounded, Included(last))));
    after.chain(before.into_iter().flatten())
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

    type Lanes = BTreeMap<Lane, Observation>;

    fn observed(name: &str, carrier: Carrier, held: usize) -> Lanes {
        let observation = Observation {
            carrier,
            held,
            room: 1000,
        };
        BTreeMap::from([(lane(name), observation)])
    }

    fn due(reconciler: &mut Reconciler, lanes: &Lanes, now: Timestamp) -> Vec<Claim> {
        reconciler.due(lanes, |_, observation| Some(*observation), now)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_lane_that_holds_nothing_claims_what_has_waited_a_second() {
        let mut reconciler = Reconciler::new(LIMITS);
        let claims = due(&mut reconciler, &observed("a", Carrier::Own, 0), at(0));
        assert_eq!(
            claims,
            [Claim {
                lane: lane("a"),
                accepted_before: at(-1000),
                limit: 100
            }]
        );
        assert!(due(&mut reconciler, &observed("a", Carrier::Own, 0), at(249)).is_empty());
        assert_eq!(due(&mut reconciler, &observed("a", Carrier::Own, 0), at(250)).len(), 1);
    }

    #[test]
    fn a_busy_lane_claims_only_what_is_older_than_its_deliveries_of_a_second_ago() {
        let mut reconciler = Reconciler::new(LIMITS);
        let busy = observed("a", Carrier::Own, 5);
        assert!(
            due(&mut reconciler, &busy, at(0)).is_empty(),
            "nothing was delivered yet"
        );
        reconciler.delivered(&lane("a"), at(-300), at(0));
        reconciler.delivered(&lane("a"), at(-200), at(500));
        assert!(
            due(&mut reconciler, &busy, at(1499)).is_empty(),
            "that was delivered 0.999 s ago"
        );
        let claims = due(&mut reconciler, &busy, at(2000));
        assert_eq!(claims[0].accepted_before, at(-200));
        reconciler.delivered(&lane("a"), at(1900), at(2100));
        assert_eq!(due(&mut reconciler, &busy, at(2300))[0].accepted_before, at(-200));
        assert_eq!(due(&mut reconciler, &busy, at(4000))[0].accepted_before, at(1900));
    }

    #[test]
    fn a_ledger_lane_claims_everything_and_a_wake_up_makes_it_at_once() {
        let mut reconciler = Reconciler::new(LIMITS);
        let lanes = observed("a", Carrier::Ledger, 3);
        assert_eq!(due(&mut reconciler, &lanes, at(0))[0].accepted_before, at(1));
        assert!(due(&mut reconciler, &lanes, at(1)).is_empty());
        reconciler.woken(&lane("a"));
        assert_eq!(due(&mut reconciler, &lanes, at(2)).len(), 1);
    }

    #[test]
    fn a_lane_without_room_claims_nothing() {
        let mut reconciler = Reconciler::new(LIMITS);
        let mut full = observed("a", Carrier::Ledger, 3);
        for observation in full.values_mut() {
            observation.room = 0;
        }
        assert!(due(&mut reconciler, &full, at(0)).is_empty());
    }

    #[test]
    fn a_woken_lane_does_not_wait_for_its_turn_and_keeps_nobody_from_his() {
        let mut reconciler = Reconciler::new(LIMITS);
        let names: Vec<String> = (0..1_000).map(|i| format!("i{i:03}")).collect();
        let lanes: Lanes = names
            .iter()
            .flat_map(|name| observed(name, Carrier::Ledger, 0))
            .collect();
        assert_eq!(due(&mut reconciler, &lanes, at(0)).len(), LIMITS.lanes);
        reconciler.woken(&lane("i777"));
        reconciler.woken(&lane("i777"));
        let claims = due(&mut reconciler, &lanes, at(50));
        let asked: Vec<_> = claims.iter().map(|claim| claim.lane.clone()).collect();
        assert_eq!(asked, ["i777", "i004", "i005", "i006"].map(lane));

        // Everybody is woken all the time: one lane of each question is still asked about in turn.
        let mut last = lane("i006");
        for question in 2..20 {
            for name in &names {
                reconciler.woken(&lane(name));
            }
            let claims = due(&mut reconciler, &lanes, at(50 * question));
            assert_eq!(claims.len(), LIMITS.lanes);
            let in_turn = claims.into_iter().next_back().unwrap().lane;
            assert!(in_turn > last, "{in_turn} after {last}");
            last = in_turn;
        }
    }

    #[test]
    fn a_woken_lane_that_is_not_served_or_not_to_be_asked_about_is_no_claim() {
        let mut reconciler = Reconciler::new(LIMITS);
        reconciler.woken(&lane("b"));
        let lanes = observed("a", Carrier::Ledger, 0);
        assert_eq!(due(&mut reconciler, &lanes, at(0)).len(), 1);
        reconciler.woken(&lane("a"));
        assert!(reconciler.due(&lanes, |_, _| None, at(1)).is_empty());
        assert_eq!(due(&mut reconciler, &lanes, at(2)).len(), 1, "it is due all the same");
    }

    proptest! {
        #[test]
        fn every_lane_has_its_turn_and_no_question_is_over_its_limits(count in 1..40_usize, rounds in 1..30_i64) {
            let mut reconciler = Reconciler::new(LIMITS);
            let lanes: Lanes = (0..count).flat_map(|i| observed(&format!("i{i:03}"), Carrier::Ledger, 0)).collect();
            let mut asked = vec![0_i32; count];
            for round in 0..rounds {
                for claim in due(&mut reconciler, &lanes, at(round * 250)) {
                    prop_assert!(claim.limit <= LIMITS.jobs);
                    asked[lanes.keys().position(|lane| *lane == claim.lane).unwrap()] += 1;
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
            let claims = due(&mut reconciler, &observed("a", Carrier::Own, 1), at(now));
            let youngest = seen.iter().filter(|(when, _)| now - when >= 3000).map(|(_, accepted)| *accepted).max();
            if let Some(youngest) = youngest {
                prop_assert!(claims[0].accepted_before >= at(youngest));
            }
        }
    }
}
