//! Jobs of lost owners: asked for, and run, one at a time.

use super::{
    Dispatcher,
    action::Notice,
    event::{Begun, Effect},
};
use crate::{id::Serial, lane::Lane, reconcile::in_turn, time::Timestamp};

/// Lanes in one question for lost jobs; a ledger takes twice as many.
const TAKE_OVER_LANES: usize = 5_000;

/// Lost owners' jobs are asked for and run one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakingOver {
    Idle { next: Timestamp },
    Asking,
    Running(Serial, u32),
}

impl Dispatcher {
    pub(super) fn taken_over(&mut self, job: Option<Begun>, now: Timestamp, effects: &mut Vec<Effect>) {
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
        if self.flights.find(job, turn).is_some() {
            // A begin that was asked again was told of it first.
            self.take_over_later(now);
            return;
        }
        self.taking_over = TakingOver::Running(job, turn);
        let mut settled = Vec::new();
        self.intake.resolve(job, &mut settled);
        if !settled.is_empty() {
            effects.push(Effect::Settle(settled));
        }
        let issuer = self.issuers.get_mut(&lane.issuer);
        let permit = issuer.and_then(|issuer| issuer.permit(&self.limits.breaker, now));
        self.flights.start(&mut self.issuers, (job, turn), &lane, permit);
        let cost = self.issuers.cost(&lane).unwrap_or(1);
        self.flights.make_ready(&lane, &account, &[(job, turn)], cost);
        effects.push(Effect::Note {
            job,
            lane,
            kind: Notice::TakenOver,
            detail: format!("turn {turn}"),
        });
    }

    /// Lost jobs may be asked for at once.
    pub(super) fn take_over_now(&mut self, now: Timestamp) {
        if let TakingOver::Idle { next } = &mut self.taking_over {
            *next = now.min(*next);
        }
    }

    pub(super) fn take_over_later(&mut self, now: Timestamp) {
        let next = now + self.limits.take_over_period;
        self.taking_over = TakingOver::Idle { next };
    }

    pub(super) fn take_over(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let TakingOver::Idle { next } = self.taking_over else {
            return;
        };
        if now < next || !self.takes_jobs() || self.flights.free() == 0 {
            return;
        }
        let lanes: Vec<Lane> = in_turn(&self.serving, self.taken_over_last.as_ref())
            .map(|(lane, _)| lane)
            .filter(|lane| self.may_claim(lane, now))
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
