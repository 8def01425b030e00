//! What a signer does next: events in, effects out. Nothing here waits, signs or stores.
//!
//! The way of a job: a hint (delivered, claimed) waits in the signer's own lane queues, which serve classes, issuers and accounts in turn
//! ([`crate::fair`]); it is begun in the ledger together with others, across lanes; it runs on a worker with others of its lane; its end
//! is recorded. It holds a slot from the first of these to the last, and never while it waits. Jobs that are taken over from a lost owner
//! come one at a time, and run alone: the one that killed its owner takes no others with it.
//!
//! What keeps issuers apart: a share of slots and workers that always leaves some free, and a gate for each issuer whose keys fail. What an
//! event means for one issuer never depends on another's.

mod action;
mod event;
mod flights;
mod gate;
mod intake;

use std::collections::{BTreeMap, BTreeSet};

pub use action::Notice;
pub use event::{Begun, Effect, Event, Hindrance, Hint, Limits, NotBegun, Recorded, Serving, cost};

use self::{
    action::{Action, action},
    flights::Flights,
    intake::{Intake, Taken},
};
use crate::{
    failure::{Failure, Refused},
    id::{IssuerId, Serial},
    lane::{Class, Lane},
    reconcile::{Claim, Observation, Reconciler, in_turn},
    time::Timestamp,
};

/// How often it is looked whether a claim is due.
const CLAIM_LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// Lanes in one question for lost jobs; a ledger takes twice as many.
const TAKE_OVER_LANES: usize = 5_000;

/// Decides what a signer does next.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    serving: BTreeMap<Lane, Serving>,
    intake: Intake,
    flights: Flights,
    reconciler: Reconciler,
    /// Lanes that the broker was told not to deliver.
    paused: BTreeSet<Lane>,
    /// Lanes that had no room, and will be delivered again when half of it is free.
    full: BTreeSet<Lane>,
    /// Issuers whose gate is not open.
    gated: BTreeSet<IssuerId>,
    /// Issuers that are passed over: gated, or with their whole share of the slots.
    held: BTreeSet<IssuerId>,
    hindrances: BTreeSet<Hindrance>,
    beginning: bool,
    claiming: bool,
    next_claim: Timestamp,
    taking_over: TakingOver,
    /// The lane after which the next question for lost jobs begins, where there are too many lanes for one question.
    taken_over_last: Option<Lane>,
    life: Life,
}

/// Lost owners' jobs are asked for and run one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakingOver {
    Idle { next: Timestamp },
    Asking,
    Running(Serial, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Working,
    Draining,
    Over,
}

/// What a dispatcher holds, for metrics and for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Hints that wait.
    pub waiting: usize,
    /// Jobs in flight.
    pub in_flight: usize,
    /// Lanes that are served.
    pub lanes: usize,
    /// Issuers whose gate is not open.
    pub gated: Vec<IssuerId>,
    /// Whether jobs may be begun at all.
    pub beginning: bool,
}

impl Dispatcher {
    /// A dispatcher that serves nothing yet, and begins nothing before [`Hindrance::Lease`] is freed: what it began without a lease,
    /// everybody would take for lost, itself included.
    ///
    /// # Panics
    /// If a limit is zero.
    pub fn new(limits: Limits) -> Self {
        assert!(
            limits.in_flight > 0 && limits.begin > 0 && limits.workers > 0,
            "a limit of zero does nothing for ever"
        );
        Self {
            limits,
            serving: BTreeMap::new(),
            intake: Intake::new(limits.waiting, limits.waiting_per_lane),
            flights: Flights::new(limits.in_flight, limits.workers),
            reconciler: Reconciler::new(limits.claims),
            paused: BTreeSet::new(),
            full: BTreeSet::new(),
            gated: BTreeSet::new(),
            held: BTreeSet::new(),
            hindrances: BTreeSet::from([Hindrance::Lease]),
            beginning: false,
            claiming: false,
            next_claim: Timestamp::default(),
            taking_over: TakingOver::Idle {
                next: Timestamp::default(),
            },
            taken_over_last: None,
            life: Life::Working,
        }
    }

    /// What it holds.
    pub fn status(&self) -> Status {
        Status {
            waiting: self.intake.len(),
            in_flight: self.flights.len(),
            lanes: self.serving.len(),
            gated: self.gated.iter().cloned().collect(),
            beginning: self.takes_jobs(),
        }
    }

    /// When an [`Event::Tick`] is wanted, at the latest.
    pub fn deadline(&self) -> Timestamp {
        self.next_claim
    }

    /// Takes an event, and adds what is to be done about it to `effects`.
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match event {
            Event::Served(lanes) => self.served(lanes, effects),
            Event::InboxOpened => {
                self.intake.void();
                self.paused.clear();
                self.full.clear();
            }
            Event::Delivered { tag, lane, jobs } => self.delivered(tag, lane, jobs, now, effects),
            Event::WokenUp(lane) => {
                self.reconciler.woken(&lane);
                self.next_claim = now;
            }
            Event::Claimable { asked, jobs } => self.claimable(&asked, jobs, now),
            Event::ClaimFailed => self.claiming = false,
            Event::Begun { begun, not } => self.begun(begun, not, effects),
            Event::BeginFailed(jobs) => {
                self.hindrances.insert(Hindrance::Store);
                self.begin_failed(jobs, effects);
            }
            Event::TakenOver(job) => self.taken_over(job, now, effects),
            Event::TakeOverFailed => self.take_over_later(now),
            Event::Ran { job, turn, result } => self.ran(job, turn, result, now, effects),
            Event::RunEnded(run) => self.flights.run_ended(run),
            Event::Recorded { job, turn, how } => self.recorded(job, turn, how, now, effects),
            Event::Tick => {}
            Event::Hindered(hindrance) => {
                self.hindrances.insert(hindrance);
            }
            Event::Freed(hindrance) => {
                self.hindrances.remove(&hindrance);
            }
            Event::Drain => {
                self.life = Life::Draining;
                self.intake.drop_waiting();
            }
        }
        self.review_lanes(now, effects);
        self.begin(now, effects);
        self.run(effects);
        self.claim(now, effects);
        self.take_over(now, effects);
        if self.life == Life::Draining && self.flights.len() == 0 && !self.asks_for_jobs() {
            self.life = Life::Over;
            effects.push(Effect::Drained);
        }
    }

    fn takes_jobs(&self) -> bool {
        self.life == Life::Working && self.hindrances.is_empty()
    }

    /// Whether an answer is awaited that may bring jobs of ours.
    fn asks_for_jobs(&self) -> bool {
        self.beginning || self.taking_over == TakingOver::Asking
    }

    fn served(&mut self, lanes: Vec<(Lane, Serving)>, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.serving, lanes.into_iter().collect());
        let mut given_back = Vec::new();
        for lane in before.keys().filter(|lane| !self.serving.contains_key(*lane)) {
            given_back.extend(self.intake.drop_lane(lane));
            self.paused.remove(lane);
            self.full.remove(lane);
        }
        if !given_back.is_empty() {
            effects.push(Effect::GiveBack(given_back));
        }
        self.reconciler.keep(&self.serving.keys().cloned().collect());
    }

    fn delivered(&mut self, tag: u64, lane: Lane, jobs: Vec<Hint>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(serving) = self.serving.get(&lane) else {
            effects.push(Effect::GiveBack(vec![tag]));
            return;
        };
        if !self.takes_jobs() || self.paused.contains(&lane) {
            // It was on its way when its lane was paused, which gave it back.
            return;
        }
        if let Some(youngest) = jobs.iter().map(|hint| hint.job.time()).max() {
            self.reconciler.delivered(&lane, youngest, now);
        }
        let flights = &self.flights;
        match self
            .intake
            .deliver(tag, &lane, jobs, serving.cost, |job| flights.has(job))
        {
            Taken::Held => {}
            Taken::Settled => effects.push(Effect::Settle(vec![tag])),
            Taken::Full => {
                effects.push(Effect::GiveBack(vec![tag]));
                self.full.insert(lane);
            }
        }
    }

    fn claimable(&mut self, asked: &[Claim], jobs: Vec<(Lane, Hint)>, now: Timestamp) {
        self.claiming = false;
        let mut found: BTreeMap<Lane, (u32, bool)> = BTreeMap::new();
        for (lane, hint) in jobs {
            let Some(serving) = self.serving.get(&lane) else {
                continue;
            };
            let new = self.takes_jobs() && !self.flights.has(hint.job) && self.intake.hint(&lane, hint, serving.cost);
            let (count, any_new) = found.entry(lane).or_default();
            *count += 1;
            *any_new |= new;
        }
        for claim in asked {
            if found
                .get(&claim.lane)
                .is_some_and(|(count, new)| *new && *count >= claim.limit)
            {
                self.reconciler.woken(&claim.lane);
                self.next_claim = now;
            }
        }
    }

    fn begun(&mut self, begun: Vec<Begun>, not: Vec<(Serial, NotBegun)>, effects: &mut Vec<Effect>) {
        self.beginning = false;
        let mut settled = Vec::new();
        let mut lanes: BTreeMap<Lane, (crate::id::AccountId, Vec<(Serial, u32)>)> = BTreeMap::new();
        for Begun {
            job,
            lane,
            account,
            turn,
        } in begun
        {
            self.intake.resolve(job, &mut settled);
            self.flights.start(job, turn, &lane, false);
            self.flights.end(job, 0);
            lanes
                .entry(lane)
                .or_insert_with(|| (account, Vec::new()))
                .1
                .push((job, turn));
        }
        let mut refused = Vec::new();
        for (job, why) in not {
            self.intake.resolve(job, &mut settled);
            let failure = match why {
                NotBegun::NotWanted => {
                    self.flights.end(job, 0);
                    continue;
                }
                NotBegun::IssuerDisabled => Failure::IssuerDisabled,
                NotBegun::IssuerDestroyed => Failure::IssuerDestroyed,
            };
            refused.push((job, failure));
        }
        if !settled.is_empty() {
            effects.push(Effect::Settle(settled));
        }
        for (job, failure) in refused {
            self.follow(job, 0, action(failure), effects);
        }
        for (lane, (account, jobs)) in lanes {
            let cost = self.serving.get(&lane).map_or(1, |serving| serving.cost);
            self.flights.make_ready(&lane, &account, &jobs, cost);
        }
    }

    fn begin_failed(&mut self, jobs: Vec<Serial>, effects: &mut Vec<Effect>) {
        self.beginning = false;
        let mut given_back = Vec::new();
        for job in jobs {
            self.flights.end(job, 0);
            if self.life == Life::Working {
                self.intake.put_back(job, &mut given_back);
            } else {
                self.intake.resolve(job, &mut given_back);
            }
        }
        if !given_back.is_empty() {
            effects.push(Effect::GiveBack(given_back));
        }
    }

    fn taken_over(&mut self, job: Option<Begun>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(begun) = job else {
            self.take_over_later(now);
            return;
        };
        let Begun {
            job,
            lane,
            account,
            turn,
        } = begun;
        self.taking_over = TakingOver::Running(job, turn);
        let mut settled = Vec::new();
        self.intake.resolve(job, &mut settled);
        if !settled.is_empty() {
            effects.push(Effect::Settle(settled));
        }
        self.flights.start(job, turn, &lane, true);
        let cost = self.serving.get(&lane).map_or(1, |serving| serving.cost);
        self.flights.make_ready(&lane, &account, &[(job, turn)], cost);
        effects.push(Effect::Note {
            job,
            lane,
            kind: Notice::TakenOver,
            detail: format!("turn {turn}"),
        });
    }

    fn take_over_later(&mut self, now: Timestamp) {
        let next = now + self.limits.take_over_period;
        self.taking_over = TakingOver::Idle { next };
    }

    fn ran(&mut self, job: Serial, turn: u32, result: Result<(), Failure>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(lane) = self.flights.lane(job, turn) else {
            return;
        };
        let issuer = lane.issuer.clone();
        match result {
            Ok(()) => {
                self.flights.tried(&issuer, true, now);
                self.gated.remove(&issuer);
                effects.push(Effect::Finish { job, turn });
            }
            Err(failure) => {
                let action = action(failure);
                if action.counts() {
                    self.flights.tried(&issuer, false, now);
                    self.gated.insert(issuer);
                }
                self.follow(job, turn, action, effects);
            }
        }
    }

    /// Does what follows from a failure. The job keeps its slot until that is recorded.
    fn follow(&mut self, job: Serial, turn: u32, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Refuse(Refused { id, detail }, notice) => {
                if let (Some((kind, detail)), Some(lane)) = (notice, self.flights.lane(job, turn)) {
                    let lane = lane.clone();
                    effects.push(Effect::Note {
                        job,
                        lane,
                        kind,
                        detail,
                    });
                }
                effects.push(Effect::Refuse { job, turn, id, detail });
            }
            Action::Defer { reason, .. } => effects.push(Effect::Defer { job, turn, reason }),
            Action::Stop { refused, fault } => {
                self.life = Life::Over;
                self.intake.drop_waiting();
                self.flights.drain_ready();
                let Refused { id, detail } = refused;
                effects.push(Effect::Refuse { job, turn, id, detail });
                effects.push(Effect::Stop(fault));
            }
        }
    }

    fn recorded(&mut self, job: Serial, turn: u32, how: Recorded, now: Timestamp, effects: &mut Vec<Effect>) {
        match how {
            Recorded::IssuerOff => self.follow(job, turn, action(Failure::IssuerDisabled), effects),
            Recorded::IntentMismatch => {
                let detail = "the recorded intent is not what was signed".to_owned();
                self.follow(job, turn, action(Failure::Altered(detail)), effects);
            }
            Recorded::Done => {
                self.flights.end(job, turn);
                if self.taking_over == TakingOver::Running(job, turn) {
                    self.taking_over = TakingOver::Idle { next: now };
                }
            }
        }
    }

    /// Tells the broker which lanes to deliver.
    fn review_lanes(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let takes = self.takes_jobs();
        self.full.retain(|lane| !self.intake.has_plenty(lane));
        let nothing_wanted = takes && self.full.is_empty() && self.gated.is_empty();
        let all_wanted = !takes && self.paused.len() == self.serving.len();
        if nothing_wanted && self.paused.is_empty() || all_wanted {
            return;
        }
        let wanted: BTreeSet<Lane> = if takes {
            let gated = self.gated.iter().filter(|issuer| self.flights.turns_away(issuer, now));
            let gated = gated.flat_map(|issuer| {
                Class::ALL.map(|class| Lane {
                    issuer: issuer.clone(),
                    class,
                })
            });
            let gated = gated.filter(|lane| self.serving.contains_key(lane));
            gated.chain(self.full.iter().cloned()).collect()
        } else {
            self.serving.keys().cloned().collect()
        };
        for lane in wanted.difference(&self.paused) {
            self.intake.void_lane(lane);
            effects.push(Effect::PauseLane(lane.clone()));
        }
        for lane in self.paused.difference(&wanted) {
            effects.push(Effect::ResumeLane(lane.clone()));
        }
        self.paused = wanted;
    }

    fn begin(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.beginning || !self.takes_jobs() || self.intake.len() == 0 || self.flights.free() == 0 {
            return;
        }
        self.held.extend(self.gated.iter().cloned());
        self.held.retain(|issuer| {
            if self.flights.admits(issuer, now) {
                self.intake.release(issuer);
                return false;
            }
            self.intake.hold(issuer);
            true
        });
        let mut jobs = Vec::new();
        while jobs.len() < self.limits.begin && self.flights.free() > 0 {
            let Some((lane, job)) = self.intake.next() else { break };
            self.flights.start(job, 0, &lane, false);
            if !self.flights.admits(&lane.issuer, now) {
                self.intake.hold(&lane.issuer);
                self.held.insert(lane.issuer);
            }
            jobs.push(job);
        }
        if !jobs.is_empty() {
            self.beginning = true;
            effects.push(Effect::Begin(jobs));
        }
    }

    fn run(&mut self, effects: &mut Vec<Effect>) {
        while let Some((run, flights::Run { lane, jobs })) = self.flights.next_run() {
            effects.push(Effect::Run { run, lane, jobs });
        }
    }

    fn claim(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.next_claim {
            return;
        }
        self.next_claim = now + CLAIM_LOOK;
        if self.claiming || !self.takes_jobs() {
            return;
        }
        let (flights, intake) = (&self.flights, &self.intake);
        let observe = |lane: &Lane, serving: &Serving| {
            flights.gate_admits(&lane.issuer, now).then(|| Observation {
                carrier: serving.carrier,
                held: intake.lane_len(lane),
                room: intake.room(lane),
            })
        };
        let claims = self.reconciler.due(&self.serving, observe, now);
        if !claims.is_empty() {
            self.claiming = true;
            effects.push(Effect::Claim(claims));
        }
    }

    fn take_over(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let TakingOver::Idle { next } = self.taking_over else {
            return;
        };
        if now < next || !self.takes_jobs() || self.flights.free() == 0 {
            return;
        }
        let lanes: Vec<Lane> = in_turn(&self.serving, self.taken_over_last.as_ref())
            .map(|(lane, _)| lane)
            .filter(|lane| self.flights.gate_admits(&lane.issuer, now))
            .take(TAKE_OVER_LANES)
            .cloned()
            .collect();
        if lanes.is_empty() {
            self.take_over_later(now);
            return;
        }
        self.taken_over_last = lanes.get(TAKE_OVER_LANES - 1).cloned();
        self.taking_over = TakingOver::Asking;
        effects.push(Effect::TakeOver(lanes));
    }
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
