//! What failures do to issuers and tokens, and how it is found out that they work again: the dispatcher's breakers, probes and canaries.
//!
//! Why no sequence of issuers' failures makes a signer back off: the only way out for a token is [`Verdict::Out`], which only canary
//! signatures lead to (or a refused PIN), and the only way to back off is that every token is out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Dispatcher, Life,
    action::{Evidence, evidence},
    alert::Alert,
    event::{Effect, ProbeBy, ProbeKey},
    issuers::{PATIENCE, RESUME_PERIOD},
    tokens::{CANDIDATES, Pending, Verdict},
};
use crate::{
    breaker::{Change, Force, Outcome, Permit, Standing},
    failure::Failure,
    id::{IssuerId, TokenId},
    reconcile::in_turn,
    time::Timestamp,
};

/// A clock that goes back by less than this is slewed; by more, it was set.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Canary signatures that are under way.
#[derive(Debug, Default)]
pub(super) struct Probes {
    under_way: BTreeMap<u64, Probing>,
    last: u64,
    /// Issuers whose keys they are made with: never two with one.
    issuers: BTreeSet<IssuerId>,
    /// How many of them are issuers' own.
    own: usize,
}

#[derive(Debug)]
struct Probing {
    issuer: Option<IssuerId>,
    token: usize,
    /// Of an issuer's own probe. Otherwise it tests the token.
    permit: Option<Permit>,
}

impl Probes {
    fn start(&mut self, probing: Probing) -> u64 {
        self.last += 1;
        self.own += usize::from(probing.permit.is_some());
        self.issuers.extend(probing.issuer.clone());
        self.under_way.insert(self.last, probing);
        self.last
    }

    fn end(&mut self, probe: u64) -> Option<Probing> {
        let probing = self.under_way.remove(&probe)?;
        self.own -= usize::from(probing.permit.is_some());
        if let Some(issuer) = &probing.issuer {
            self.issuers.remove(issuer);
        }
        Some(probing)
    }
}

impl Dispatcher {
    /// Notices a clock that was set back.
    pub(super) fn look_at_clock(&mut self, now: Timestamp) {
        if now + CLOCK_TOLERANCE < self.latest {
            self.clock_set_back(now);
        }
        self.latest = now;
    }

    /// Does what is due by now.
    pub(super) fn look_at_timers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(issuer) = self.issuers.next_due(now) {
            self.review(&issuer, now, effects);
        }
        self.send_canaries(now, effects);
    }

    fn clock_set_back(&mut self, now: Timestamp) {
        self.next_claim = now;
        self.take_over_now(now);
        self.stand.clock_set_back(now);
        for token in self.tokens.iter_mut() {
            token.clock_set_back(now);
        }
        let known: Vec<IssuerId> = self.issuers.iter().map(|(id, _)| id.clone()).collect();
        for issuer in known {
            if let Some(known) = self.issuers.get_mut(&issuer) {
                known.shut_since = known.shut_since.map(|since| since.min(now));
                known.resumed_at = known.resumed_at.map(|at| at.min(now));
                for budget in &mut known.budgets {
                    budget.clock_set_back(now);
                }
            }
            self.issuers.set_timer(&issuer, &self.limits.breaker, now);
        }
    }

    /// Looks at one issuer: whether its lanes are to be left or taken up, and whether a probe is due. Sets its timer.
    pub(super) fn review(&mut self, id: &IssuerId, now: Timestamp, effects: &mut Vec<Effect>) {
        let settings = &self.limits.breaker;
        let Some(issuer) = self.issuers.get_mut(id) else { return };
        let leaves = issuer.shut_since.is_some_and(|since| now.since(since) >= PATIENCE);
        let rested = issuer.resumed_at.is_none_or(|at| now.since(at) >= RESUME_PERIOD);
        if !issuer.left && leaves {
            issuer.left = true;
            self.lanes.look_at_issuer(id);
        } else if issuer.left && issuer.shut_since.is_none() && rested {
            issuer.left = false;
            issuer.resumed_at = Some(now);
            self.lanes.look_at_issuer(id);
        }
        let probes = issuer.served
            && issuer.enabled
            && issuer.probe_by == ProbeBy::OwnKey
            && issuer.breaker.is_probe_due(settings, now)
            && self.life == Life::Working
            && self.tokens.takes_jobs(issuer.token)
            && self.probes.own < self.limits.probes
            && !self.probes.issuers.contains(id);
        if probes && let Some(permit) = issuer.breaker.permit(settings, now) {
            let token = issuer.token;
            let probing = Probing {
                issuer: Some(id.clone()),
                token,
                permit: Some(permit),
            };
            let probe = self.probes.start(probing);
            let key = ProbeKey::Issuer(id.clone());
            effects.extend(self.tokens.get_mut(token).map(|token| {
                let token = token.id.clone();
                Effect::Probe { probe, token, key }
            }));
        }
        if issuer.refused {
            issuer.refused = false;
            self.intake.release(id);
        }
        self.issuers.set_timer(id, settings, now);
    }

    /// Weighs the outcome of a key operation, a job's or a probe's.
    pub(super) fn weigh(
        &mut self,
        id: &IssuerId,
        token: usize,
        permit: Option<Permit>,
        (result, took): (Result<(), &Failure>, Duration),
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let is_slow = took >= self.limits.breaker.slow;
        let (outcome, doubt) = match result.map_err(evidence) {
            Ok(()) => (Outcome::Succeeded, is_slow),
            Err(Evidence::Nothing) => (Outcome::Unproven, false),
            Err(Evidence::Issuer) => (Outcome::Failed, is_slow),
            Err(Evidence::IssuerAndDoubt(outcome)) => (outcome, true),
            Err(Evidence::PinRefused) => {
                self.lock_token(token, effects);
                (Outcome::Unproven, false)
            }
            Err(Evidence::IssuerOrToken) => {
                let limit = self.limits.in_flight;
                match (self.tokens.get_mut(token), permit) {
                    (Some(token), Some(permit)) if !token.is_out() && token.pending.len() < limit => {
                        let issuer = id.clone();
                        token.pending.push(Pending { issuer, permit, took });
                        token.doubt();
                        return;
                    }
                    _ => (Outcome::Unproven, true),
                }
            }
        };
        if doubt && let Some(token) = self.tokens.get_mut(token) {
            token.doubt();
        }
        self.record(id, permit, (outcome, took), now, effects);
    }

    /// Tells an issuer's breaker what came of what it allowed.
    pub(super) fn record(
        &mut self,
        id: &IssuerId,
        permit: Option<Permit>,
        outcome: (Outcome, Duration),
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(permit), Some(issuer)) = (permit, self.issuers.get_mut(id)) else {
            return;
        };
        let entropy = self.entropy.draw();
        let change = issuer
            .breaker
            .record(&self.limits.breaker, permit, outcome, now, entropy);
        if change.is_some() || permit.is_probe() {
            self.changed(id, change, now, effects);
        }
    }

    fn changed(&mut self, id: &IssuerId, change: Option<Change>, now: Timestamp, effects: &mut Vec<Effect>) {
        let was_closed = self.issuers.get(id).is_some_and(|issuer| issuer.shut_since.is_none());
        self.issuers.note_standing(id, now);
        match change {
            None => {}
            Some(Change::Opened(cause)) => {
                if was_closed {
                    effects.push(Effect::Alert(Alert::BreakerOpened(id.clone(), cause)));
                }
                self.defer_ready(id, "the issuer's breaker is open", effects);
            }
            Some(Change::Closed) => effects.push(Effect::Alert(Alert::BreakerClosed(id.clone()))),
            Some(Change::WouldOpen(cause)) => {
                effects.push(Effect::Alert(Alert::BreakerWouldOpen(id.clone(), cause)));
            }
        }
        self.review(id, now, effects);
    }

    /// What was begun and has no worker yet goes back, so that nobody else waits for its slots.
    fn defer_ready(&mut self, id: &IssuerId, reason: &str, effects: &mut Vec<Effect>) {
        for (job, turn) in self.flights.drain_ready_of(id) {
            let reason = reason.to_owned();
            effects.push(Effect::Defer { job, turn, reason });
        }
    }

    /// Operators' orders: these issuers' breakers are forced, all others do as they see fit.
    pub(super) fn forced(&mut self, forced: Vec<(IssuerId, Force)>, now: Timestamp, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.forced, forced.into_iter().collect());
        let concerned: BTreeSet<IssuerId> = before.into_keys().chain(self.forced.keys().cloned()).collect();
        for issuer in concerned {
            self.force(&issuer, now, effects);
        }
    }

    /// Gives the issuer's breaker the order that is in force for it.
    pub(super) fn force(&mut self, id: &IssuerId, now: Timestamp, effects: &mut Vec<Effect>) {
        let force = self.forced.get(id).copied().or(self.limits.force);
        let Some(issuer) = self.issuers.get_mut(id) else { return };
        if issuer.breaker.forced() != force {
            let change = issuer.breaker.force(force, now);
            self.changed(id, change, now, effects);
        }
    }

    /// A canary signature was made, or was not.
    pub(super) fn probed(
        &mut self,
        probe: u64,
        result: &Result<(), Failure>,
        took: Duration,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Probing { issuer, token, permit }) = self.probes.end(probe) else {
            return;
        };
        if let (Some(issuer), Some(permit)) = (issuer, permit) {
            let result = result.as_ref().copied();
            self.weigh(&issuer, token, Some(permit), (result, took), now, effects);
            return;
        }
        let entropy = self.entropy.draw();
        let is_slow = took >= self.limits.breaker.slow;
        let Some(tested) = self.tokens.get_mut(token) else {
            return;
        };
        let verdict = match result.as_ref().map_err(evidence) {
            Ok(()) => tested.canary_ended(true, is_slow, now, entropy),
            Err(Evidence::Nothing) => {
                tested.canary_unproven();
                Verdict::Undecided
            }
            Err(Evidence::PinRefused) => {
                tested.canary_unproven();
                self.lock_token(token, effects);
                return;
            }
            Err(Evidence::Issuer | Evidence::IssuerAndDoubt(_) | Evidence::IssuerOrToken) => {
                tested.canary_ended(false, is_slow, now, entropy)
            }
        };
        if tested.take_canary_key_alert() {
            effects.push(Effect::Alert(Alert::CanaryKeyFails(tested.id.clone())));
        }
        match verdict {
            Verdict::Undecided | Verdict::StillOut => {}
            Verdict::Works => self.token_works(token, now, effects),
            Verdict::Back => {
                effects.extend(
                    self.tokens
                        .get_mut(token)
                        .map(|token| Effect::Alert(Alert::TokenBack(token.id.clone()))),
                );
                self.lanes.look_at_all();
                self.token_works(token, now, effects);
                self.review_back_off(effects);
            }
            Verdict::Out => self.token_out(token, false, now, effects),
        }
    }

    /// The token has stood its test: what was pending was the issuers' own failure. All its issuers are asked again.
    fn token_works(&mut self, token: usize, now: Timestamp, effects: &mut Vec<Effect>) {
        let pending = self
            .tokens
            .get_mut(token)
            .map(|token| std::mem::take(&mut token.pending));
        for Pending { issuer, permit, took } in pending.into_iter().flatten() {
            self.record(&issuer, Some(permit), (Outcome::Failed, took), now, effects);
        }
        let refused = self
            .issuers
            .iter_mut()
            .filter(|(_, issuer)| issuer.token == token && issuer.refused);
        for (id, issuer) in refused {
            issuer.refused = false;
            self.intake.release(id);
        }
    }

    fn token_out(&mut self, number: usize, pin: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(token) = self.tokens.get_mut(number) else {
            return;
        };
        effects.push(Effect::Alert(Alert::TokenOut(token.id.clone(), pin)));
        for Pending { issuer, permit, took } in std::mem::take(&mut token.pending) {
            self.record(&issuer, Some(permit), (Outcome::Unproven, took), now, effects);
        }
        let on_it = self
            .issuers
            .iter()
            .filter(|(_, issuer)| issuer.token == number && issuer.in_flight > 0);
        let on_it: BTreeSet<IssuerId> = on_it.map(|(id, _)| id.clone()).collect();
        for issuer in on_it {
            self.defer_ready(&issuer, "the token is out", effects);
        }
        self.lanes.look_at_all();
        self.review_back_off(effects);
    }

    fn lock_token(&mut self, number: usize, effects: &mut Vec<Effect>) {
        if self.tokens.get_mut(number).is_some_and(super::tokens::Token::lock) {
            self.token_out(number, true, self.latest, effects);
        }
    }

    /// An operator says that the token's PIN may be tried again: its next test decides.
    pub(super) fn unlock_token(&mut self, token: &TokenId, now: Timestamp) {
        let number = self.tokens.named(token);
        if let Some(token) = number.and_then(|number| self.tokens.get_mut(number)) {
            token.unlock(now);
        }
    }

    pub(super) fn review_back_off(&mut self, effects: &mut Vec<Effect>) {
        let backs_off = self.tokens.all_out();
        if std::mem::replace(&mut self.backs_off, backs_off) != backs_off {
            let alert = if backs_off {
                Alert::BackedOff
            } else {
                Alert::BackOffEnded
            };
            effects.push(Effect::Alert(alert));
        }
    }

    fn send_canaries(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.life != Life::Working {
            return;
        }
        let watched = self.is_watched();
        for number in 0..self.tokens.len() {
            let Some(token) = self.tokens.get_mut(number) else {
                continue;
            };
            if token.canary_at(watched).is_none_or(|at| now < at) {
                continue;
            }
            let candidates = token.wants_candidates().then(|| self.candidates(number));
            let Some(token) = self.tokens.get_mut(number) else {
                continue;
            };
            let issuer = token.send_canary(candidates, now);
            let id = token.id.clone();
            let key = issuer.clone().map_or(ProbeKey::Canary, ProbeKey::Issuer);
            let probe = self.probes.start(Probing {
                issuer,
                token: number,
                permit: None,
            });
            effects.push(Effect::Probe { probe, token: id, key });
        }
    }

    /// Enabled issuers with keys on a token that nothing is known against, in turn; without any, those that something is known against.
    fn candidates(&mut self, token: usize) -> Vec<IssuerId> {
        let mut good: Vec<IssuerId> = Vec::new();
        let mut other: Vec<IssuerId> = Vec::new();
        for (lane, _) in in_turn(&self.serving, self.last_candidate.as_ref()) {
            let id = &lane.issuer;
            let Some(issuer) = self.issuers.get(id) else { continue };
            if issuer.token != token || !issuer.enabled || self.probes.issuers.contains(id) {
                continue;
            }
            let closed = issuer.breaker.standing() == Standing::Closed;
            let list = if closed { &mut good } else { &mut other };
            if list.len() < CANDIDATES && !list.contains(id) {
                list.push(id.clone());
                if closed {
                    self.last_candidate = Some(lane.clone());
                }
            }
            if good.len() == CANDIDATES {
                break;
            }
        }
        if good.is_empty() { other } else { good }
    }

    /// Breakers that are not closed, with how they stand.
    pub fn breakers(&self) -> impl Iterator<Item = (&IssuerId, Standing)> {
        self.issuers.shut()
    }

    /// Tokens that are out.
    pub fn tokens_out(&self) -> impl Iterator<Item = &TokenId> {
        self.tokens.iter().filter(|token| token.is_out()).map(|token| &token.id)
    }

    /// When a canary is due, at the earliest.
    pub(super) fn canary_at(&self) -> Option<Timestamp> {
        let watched = self.is_watched();
        self.tokens.iter().filter_map(|token| token.canary_at(watched)).min()
    }

    /// Whether an issuer is enabled, as it was served last.
    #[cfg(test)]
    pub(super) fn is_enabled(&self, issuer: &IssuerId) -> bool {
        self.issuers.get(issuer).is_some_and(|issuer| issuer.enabled)
    }

    /// Whether a token refuses the PIN, so that every probe would be another try.
    #[cfg(test)]
    pub(super) fn takes_no_probes(&self, token: &TokenId) -> bool {
        self.tokens.iter().any(|known| known.id == *token && known.is_locked())
    }
}
