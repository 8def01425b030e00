//! From a hint to a begun job: what waits, what is begun, and what the ledger is asked for.

use std::{collections::BTreeMap, time::Duration};

use super::{
    CLAIM_LOOK, Dispatcher, Life,
    action::action,
    event::{Begun, Effect, Hint, NotBegun, Serving},
    flights::Ended,
    intake::Taken,
    issuers::Issuers,
    tokens::Tokens,
};
use crate::{
    breaker::{Outcome, Permit, Settings},
    failure::Failure,
    id::{AccountId, Serial},
    lane::Lane,
    pace::rest,
    reconcile::{Claim, Observation},
    time::Timestamp,
};

impl Dispatcher {
    pub(super) fn delivered(
        &mut self,
        tag: u64,
        lane: Lane,
        jobs: Vec<Hint>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cost) = self.issuers.cost(&lane) else {
            effects.push(Effect::GiveBack(vec![tag]));
            return;
        };
        if !self.takes_jobs() || self.lanes.is_paused(&lane) {
            // It was on its way when its lane was paused, which gave it back.
            return;
        }
        if let Some(youngest) = jobs.iter().map(|hint| hint.job.time()).max() {
            self.reconciler.delivered(&lane, youngest, now);
        }
        let flights = &self.flights;
        match self.intake.deliver(tag, &lane, jobs, cost, |job| flights.has(job)) {
            Taken::Held => {}
            Taken::Settled => effects.push(Effect::Settle(vec![tag])),
            Taken::Full => {
                effects.push(Effect::GiveBack(vec![tag]));
                self.lanes.is_full(lane);
            }
        }
    }

    pub(super) fn claimable(&mut self, asked: &[Claim], jobs: Vec<(Lane, Hint)>, now: Timestamp) {
        self.claiming = false;
        let mut found: BTreeMap<Lane, (u32, bool)> = BTreeMap::new();
        for (lane, hint) in jobs {
            let Some(cost) = self.issuers.cost(&lane) else {
                continue;
            };
            let wanted = self.takes_jobs() && self.may_claim(&lane, now) && !self.flights.has(hint.job);
            let new = wanted && self.intake.hint(&lane, hint, cost);
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

    pub(super) fn begun(
        &mut self,
        begun: Vec<Begun>,
        not: Vec<(Serial, NotBegun)>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.beginning = false;
        self.next_begin = now + rest(now.since(self.begin_asked));
        let mut settled = Vec::new();
        let mut lanes: BTreeMap<Lane, (AccountId, Vec<(Serial, u32)>)> = BTreeMap::new();
        for Begun {
            job,
            lane,
            account,
            turn,
        } in begun
        {
            self.intake.resolve(job, &mut settled);
            if self.flights.find(job, turn).is_some() {
                // Begun once before without our knowledge, and taken over meanwhile: it is under way.
                self.ended(job, 0, now, effects);
                continue;
            }
            self.flights.begun(&mut self.issuers, job, turn, &lane);
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
                    self.ended(job, 0, now, effects);
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
            let cost = self.issuers.cost(&lane).unwrap_or(1);
            self.flights.make_ready(&lane, &account, &jobs, cost);
        }
    }

    pub(super) fn begin_failed(&mut self, jobs: Vec<Serial>, now: Timestamp, effects: &mut Vec<Effect>) {
        self.beginning = false;
        let mut given_back = Vec::new();
        for job in jobs {
            self.ended(job, 0, now, effects);
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

    /// Gives back the slot of a job. What its breaker allowed for it and has not heard of, has come to nothing.
    pub(super) fn ended(&mut self, job: Serial, turn: u32, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(Ended { lane, permit }) = self.flights.end(&mut self.issuers, job, turn) else {
            return;
        };
        if permit.is_some_and(Permit::is_probe) {
            let outcome = (Outcome::Unproven, Duration::ZERO);
            self.record(&lane.issuer, permit, outcome, now, effects);
        }
    }

    pub(super) fn begin(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for issuer in self.flights.released() {
            self.intake.release(&issuer);
        }
        if self.beginning || !self.takes_jobs() || self.intake.len() == 0 {
            return;
        }
        if now < self.next_begin && self.intake.len() < self.limits.begin {
            return;
        }
        let mut jobs = Vec::new();
        while jobs.len() < self.limits.begin && self.flights.free() > 0 {
            let (settings, tokens) = (&self.limits.breaker, &self.tokens);
            let (issuers, flights) = (&mut self.issuers, &mut self.flights);
            let next = self.intake.next(|id, class| {
                let Some(issuer) = issuers.get_mut(id) else { return true };
                let admitted = tokens.takes_jobs(issuer.token)
                    && issuer.admits(class, settings, now)
                    && flights.has_slot(id, issuer);
                issuer.refused |= !admitted;
                admitted
            });
            let Some((lane, job)) = next else { break };
            let issuer = self.issuers.know(&lane.issuer);
            let permit = issuer.permit(&self.limits.breaker, now);
            if permit.is_some_and(Permit::is_probe) {
                self.issuers.set_timer(&lane.issuer, &self.limits.breaker, now);
            }
            self.flights.start(&mut self.issuers, (job, 0), &lane, permit);
            jobs.push(job);
        }
        if !jobs.is_empty() {
            self.beginning = true;
            self.begin_asked = now;
            effects.push(Effect::Begin(jobs));
        }
    }

    /// Whether the ledger may be asked for jobs of the lane.
    pub(super) fn may_claim(&self, lane: &Lane, now: Timestamp) -> bool {
        may_claim(&self.issuers, &self.tokens, &self.limits.breaker, lane, now)
    }

    pub(super) fn claim(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.next_claim {
            return;
        }
        self.next_claim = now + CLAIM_LOOK;
        if self.claiming || !self.takes_jobs() {
            return;
        }
        let (issuers, tokens, intake, settings) = (&self.issuers, &self.tokens, &self.intake, &self.limits.breaker);
        let observe = |lane: &Lane, serving: &Serving| {
            may_claim(issuers, tokens, settings, lane, now).then(|| Observation {
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
}

fn may_claim(issuers: &Issuers, tokens: &Tokens, settings: &Settings, lane: &Lane, now: Timestamp) -> bool {
    let issuer = issuers.get(&lane.issuer);
    issuer.is_some_and(|issuer| issuer.may_claim(settings, now) && tokens.takes_jobs(issuer.token))
}
