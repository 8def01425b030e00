//! What a signer does next: events in, effects out. Nothing here waits, signs or stores.
//!
//! The way of a job: a hint (delivered, claimed) waits in the signer's own lane queues, which serve classes, issuers and accounts in turn
//! ([`crate::fair`]); it is begun in the ledger together with others, across lanes; it runs on a worker with others of its lane; its end
//! is recorded. It holds a slot from the first of these to the last, and never while it waits. Jobs that are taken over from a lost owner
//! come one at a time, and run alone: the one that killed its owner takes no others with it.
//!
//! What keeps issuers apart: a share of slots and workers that always leaves some free, and a breaker for each issuer ([`crate::breaker`])
//! whose lanes are left to other signers while it is open. What an event means for one issuer never depends on another's. What keeps the
//! machine honest: tokens are tested with canary signatures before anything is said about them, and only if every one of them is proven
//! dead does the signer back off.

mod action;
mod alert;
mod begin;
mod budget;
mod event;
mod flights;
mod health;
mod intake;
mod issuers;
mod lanes;
mod run;
mod stand_down;
mod take_over;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use action::Notice;
pub use alert::Alert;
pub use event::{Begun, Effect, Event, Hindrance, Hint, Limits, NotBegun, ProbeBy, ProbeKey, Recorded, Serving, cost};

use self::{
    flights::Flights,
    health::Probes,
    intake::Intake,
    issuers::Issuers,
    lanes::Lanes,
    stand_down::{Asked, Stand},
    take_over::TakingOver,
    tokens::Tokens,
};
use crate::{
    backoff::Entropy,
    breaker::Force,
    id::{IssuerId, TokenId},
    lane::Lane,
    reconcile::Reconciler,
    time::Timestamp,
};

/// How often it is looked whether a claim is due.
const CLAIM_LOOK: Duration = Duration::from_millis(50);

/// Decides what a signer does next.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    serving: BTreeMap<Lane, Serving>,
    issuers: Issuers,
    forced: BTreeMap<IssuerId, Force>,
    tokens: Tokens,
    probes: Probes,
    /// The lane whose issuer's key was the last one that a token was tested with.
    last_candidate: Option<Lane>,
    /// Whether every token is out.
    backs_off: bool,
    stand: Stand,
    /// Whether the store is asked for a permit to stand down.
    asked: Asked,
    intake: Intake,
    flights: Flights,
    lanes: Lanes,
    reconciler: Reconciler,
    hindrances: BTreeSet<Hindrance>,
    beginning: bool,
    /// When the ledger was asked last to begin jobs, and before when it is not asked for a few.
    begin_asked: Timestamp,
    next_begin: Timestamp,
    claiming: bool,
    next_claim: Timestamp,
    taking_over: TakingOver,
    /// The lane after which the next question for lost jobs begins, where there are too many lanes for one question.
    taken_over_last: Option<Lane>,
    life: Life,
    entropy: Entropy,
    /// The time of the last event.
    latest: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Working,
    Draining,
    Over,
}

/// What a dispatcher holds, for metrics and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Hints that wait.
    pub waiting: usize,
    /// Jobs in flight.
    pub in_flight: usize,
    /// Lanes that are served.
    pub lanes: usize,
    /// Issuers whose breaker is not closed.
    pub shut: usize,
    /// Whether jobs may be begun at all.
    pub beginning: bool,
    /// Whether every token is out.
    pub backs_off: bool,
    /// Whether it stands down.
    pub stands_down: bool,
}

impl Dispatcher {
    /// A dispatcher that serves nothing yet, and begins nothing before [`Hindrance::Lease`] is freed: what it began without a lease,
    /// everybody would take for lost, itself included. `seed` is any 64 random bits: its jitter comes from them.
    ///
    /// # Panics
    /// If a limit is zero.
    pub fn new(limits: Limits, seed: u64) -> Self {
        assert!(
            limits.in_flight > 0 && limits.begin > 0 && limits.workers > 0 && limits.probes > 0,
            "a limit of zero does nothing for ever"
        );
        limits.breaker.check();
        Self {
            limits,
            serving: BTreeMap::new(),
            issuers: Issuers::default(),
            forced: BTreeMap::new(),
            tokens: Tokens::default(),
            probes: Probes::default(),
            last_candidate: None,
            backs_off: false,
            stand: Stand::Well,
            asked: Asked::Nothing,
            intake: Intake::new(limits.waiting, limits.waiting_per_lane),
            flights: Flights::new(limits.in_flight, limits.workers),
            lanes: Lanes::default(),
            reconciler: Reconciler::new(limits.claims),
            hindrances: BTreeSet::from([Hindrance::Lease]),
            beginning: false,
            begin_asked: Timestamp::default(),
            next_begin: Timestamp::default(),
            claiming: false,
            next_claim: Timestamp::default(),
            taking_over: TakingOver::Idle {
                next: Timestamp::default(),
            },
            taken_over_last: None,
            life: Life::Working,
            entropy: Entropy::new(seed),
            latest: Timestamp::default(),
        }
    }

    /// What it holds.
    pub fn status(&self) -> Status {
        Status {
            waiting: self.intake.len(),
            in_flight: self.flights.len(),
            lanes: self.serving.len(),
            shut: self.issuers.shut_len(),
            beginning: self.takes_jobs(),
            backs_off: self.backs_off,
            stands_down: self.stands_down(),
        }
    }

    /// When an [`Event::Tick`] is wanted, at the latest.
    pub fn deadline(&self) -> Timestamp {
        let begins =
            (!self.beginning && self.intake.len() > 0 && self.latest < self.next_begin).then_some(self.next_begin);
        let timers = [self.issuers.deadline(), self.canary_at(), begins];
        timers.into_iter().flatten().fold(self.next_claim, Timestamp::min)
    }

    /// Takes an event, and adds what is to be done about it to `effects`.
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        self.look_at_clock(now);
        match event {
            Event::Served(lanes) => self.served(lanes, now, effects),
            Event::InboxOpened => {
                self.intake.void();
                self.lanes.void();
            }
            Event::Delivered { tag, lane, jobs } => self.delivered(tag, lane, jobs, now, effects),
            Event::WokenUp(lane) => {
                self.reconciler.woken(&lane);
                self.next_claim = now;
            }
            Event::Claimable { asked, jobs } => self.claimable(&asked, jobs, now),
            Event::ClaimFailed => self.claiming = false,
            Event::Begun { begun, not } => self.begun(begun, not, now, effects),
            Event::BeginFailed(jobs) => {
                self.hindrances.insert(Hindrance::Store);
                self.begin_failed(jobs, now, effects);
            }
            Event::TakenOver(job) => self.taken_over(job, now, effects),
            Event::TakeOverFailed => self.take_over_later(now),
            Event::Ran {
                job,
                turn,
                result,
                took,
            } => self.ran((job, turn), result, took, now, effects),
            Event::RunEnded(run) => self.flights.run_ended(&mut self.issuers, run),
            Event::Recorded { job, turn, how } => self.recorded(job, turn, how, now, effects),
            Event::Probed { probe, result, took } => self.probed(probe, &result, took, now, effects),
            Event::Forced(issuers) => self.forced(issuers, now, effects),
            Event::TokenUnlocked(token) => self.unlock_token(&token, now),
            Event::PermitGranted => self.permit_granted(now, effects),
            Event::PermitRefused => self.permit_refused(now, effects),
            Event::Tick => self.flights.ask_again(),
            Event::Hindered(hindrance) => {
                self.hindrances.insert(hindrance);
                if hindrance == Hindrance::Lease {
                    self.permit_lost(now);
                }
            }
            Event::Freed(hindrance) => {
                self.hindrances.remove(&hindrance);
            }
            Event::Drain => {
                self.life = Life::Draining;
                self.intake.drop_waiting();
            }
        }
        self.look_at_timers(now, effects);
        self.review_stand(now, effects);
        self.review_lanes(effects);
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
        self.life == Life::Working && self.hindrances.is_empty() && !self.stands_down()
    }

    /// Whether an answer is awaited that may bring jobs of ours.
    fn asks_for_jobs(&self) -> bool {
        self.beginning || self.taking_over == TakingOver::Asking
    }

    fn served(&mut self, lanes: Vec<(Lane, Serving)>, now: Timestamp, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.serving, lanes.into_iter().collect());
        let mut given_back = Vec::new();
        for lane in before.keys().filter(|lane| !self.serving.contains_key(*lane)) {
            given_back.extend(self.intake.drop_lane(lane));
            self.lanes.forget(lane);
        }
        if !given_back.is_empty() {
            effects.push(Effect::GiveBack(given_back));
        }
        self.reconciler.keep(&self.serving.keys().cloned().collect());
        self.know_issuers();
        self.lanes.look_at_all();
        let concerned: Vec<IssuerId> = self.issuers.iter().map(|(id, _)| id.clone()).collect();
        for issuer in concerned {
            self.force(&issuer, now, effects);
            self.review(&issuer, now, effects);
            self.issuers.forget_if_idle(&issuer);
        }
        self.review_back_off(effects);
    }

    /// Remembers of each issuer that is served where its key is and how it is probed.
    fn know_issuers(&mut self) {
        for (_, issuer) in self.issuers.iter_mut() {
            issuer.served = false;
            issuer.costs = [None; 3];
        }
        for token in self.tokens.iter_mut() {
            token.issuers = 0;
        }
        for (lane, serving) in &self.serving {
            let number = self.tokens.number(&serving.token);
            let issuer = self.issuers.know(&lane.issuer);
            if !std::mem::replace(&mut issuer.served, true)
                && let Some(token) = self.tokens.get_mut(number)
            {
                token.issuers += 1;
            }
            issuer.token = number;
            issuer.costs[lane.class as usize] = Some(serving.cost);
            issuer.enabled = serving.enabled;
            issuer.probe_by = serving.probe_by;
        }
        let served = self.tokens.iter().filter(|token| token.issuers > 0).count();
        self.flights.set_tokens(self.tokens.len(), served);
    }

    /// The token that an issuer's key is on, as it was served last; for those who keep to its verdicts.
    pub fn token_of(&self, issuer: &IssuerId) -> Option<&TokenId> {
        let number = self.issuers.get(issuer)?.token;
        self.tokens.iter().nth(number).map(|token| &token.id)
    }
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod sequences_tests;
#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
