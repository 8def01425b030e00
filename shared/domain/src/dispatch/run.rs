//! What comes of a job that was begun: it runs, and its end is recorded.

use std::time::Duration;

use super::{
    Dispatcher, Life,
    action::{Action, Evidence, action, evidence},
    event::{Effect, Recorded},
    flights::Run,
    take_over::TakingOver,
};
use crate::{
    failure::{Failure, Refused},
    id::Serial,
    time::Timestamp,
};

impl Dispatcher {
    pub(super) fn run(&mut self, effects: &mut Vec<Effect>) {
        while let Some((run, Run { lane, jobs })) = self.flights.next_run(&mut self.issuers) {
            effects.push(Effect::Run { run, lane, jobs });
        }
    }

    pub(super) fn ran(
        &mut self,
        (job, turn): (Serial, u32),
        result: Result<(), Failure>,
        took: Duration,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some((lane, token)) = self.flights.find(job, turn) else {
            return;
        };
        let (id, class) = (lane.issuer.clone(), lane.class);
        let permit = self.flights.take_permit(job, turn);
        self.weigh(&id, token, permit, (result.as_ref().copied(), took), now, effects);
        let budget = self
            .issuers
            .get_mut(&id)
            .map(|issuer| &mut issuer.budgets[class as usize]);
        match result {
            Ok(()) => {
                if let Some(budget) = budget {
                    budget.deposit();
                }
                effects.push(Effect::Finish { job, turn });
            }
            Err(failure) => {
                if evidence(&failure) != Evidence::Nothing
                    && let Some(budget) = budget
                {
                    budget.withdraw(now);
                    if !budget.admits(now) {
                        self.issuers.set_timer(&id, &self.limits.breaker, now);
                    }
                }
                self.follow(job, turn, action(failure), effects);
            }
        }
    }

    /// Does what follows from a failure. The job keeps its slot until that is recorded.
    pub(super) fn follow(&mut self, job: Serial, turn: u32, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Refuse(Refused { id, detail }, notice) => {
                if let (Some((kind, detail)), Some((lane, _))) = (notice, self.flights.find(job, turn)) {
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
            Action::Defer { reason } => effects.push(Effect::Defer { job, turn, reason }),
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

    pub(super) fn recorded(
        &mut self,
        job: Serial,
        turn: u32,
        how: Recorded,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match how {
            Recorded::IssuerOff => self.follow(job, turn, action(Failure::IssuerDisabled), effects),
            Recorded::IntentMismatch => {
                let detail = "the recorded intent is not what was signed".to_owned();
                self.follow(job, turn, action(Failure::Altered(detail)), effects);
            }
            Recorded::Done => {
                self.ended(job, turn, now, effects);
                if self.taking_over == TakingOver::Running(job, turn) {
                    self.taking_over = TakingOver::Idle { next: now };
                }
            }
        }
    }
}
