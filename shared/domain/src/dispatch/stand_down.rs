//! Standing down: what a signer does that can still sign, but is slow or flickers, so that others serve its issuers better.
//!
//! It asks first, since all may be slow at once, and somebody must serve: the store gives permits to a share of each issuer's holders, and
//! never to the last one. Others may go after it was given, so it is asked for anew all the time, and whoever is needed now is refused.
//! Without a permit the signer goes on, with one job a token. Either way its tokens are watched with canaries until they are well. What customers' keys do is no evidence here: only canaries are.

use std::time::Duration;

use super::{Dispatcher, alert::Alert, event::Effect, tokens::Token};
use crate::{backoff::Backoff, time::Timestamp};

/// How long after a refusal it is asked again.
const ASK_AGAIN: Backoff = Backoff {
    first: Duration::from_secs(10),
    longest: Duration::from_secs(10),
    jitter_percent: 50,
};

/// How often a permit is asked for anew while it is used.
const RENEW: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing says that it is not well.
    Well,
    /// The store is asked for a permit.
    Asking,
    /// It has one, and takes no jobs.
    Down { renew_at: Timestamp },
    /// It has none, and goes on with one job a token.
    Limited { ask_again: Timestamp },
}

impl Stand {
    /// The clock was set back: what was to be asked later is asked now.
    pub(super) fn clock_set_back(&mut self, now: Timestamp) {
        if let Self::Limited { ask_again: at } | Self::Down { renew_at: at } = self {
            *at = now.min(*at);
        }
    }
}

/// Whether the store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Asked {
    #[default]
    Nothing,
    /// Its answer is awaited.
    Once,
    /// Its answer is awaited and will be out of date: it is asked once more then.
    AndAgain,
}

impl Dispatcher {
    /// Whether tokens are tested though nothing has failed.
    pub(super) fn is_watched(&self) -> bool {
        self.stand != Stand::Well
    }

    pub(super) fn review_stand(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.stand {
            Stand::Well if self.tokens.iter().any(|token| token.is_unwell(now)) => self.ask_permit(effects),
            Stand::Down { .. } | Stand::Limited { .. } if self.is_well_again() => {
                if self.stands_down() {
                    effects.push(Effect::ReturnPermit);
                }
                self.stand = Stand::Well;
                self.forget_troubles();
                self.set_one_each(false);
                effects.push(Effect::Alert(Alert::StandDownEnded));
            }
            Stand::Limited { ask_again } if now >= ask_again => self.ask_permit(effects),
            Stand::Down { renew_at } if now >= renew_at && self.asked == Asked::Nothing => {
                self.asked = Asked::Once;
                effects.push(Effect::AskPermit);
            }
            Stand::Well | Stand::Asking | Stand::Down { .. } | Stand::Limited { .. } => {}
        }
    }

    pub(super) fn stands_down(&self) -> bool {
        matches!(self.stand, Stand::Down { .. })
    }

    fn ask_permit(&mut self, effects: &mut Vec<Effect>) {
        self.stand = Stand::Asking;
        if self.asked == Asked::Nothing {
            self.asked = Asked::Once;
            effects.push(Effect::AskPermit);
        } else {
            self.asked = Asked::AndAgain;
        }
    }

    /// Whether the store's answer is out of date; then it is asked once more.
    fn is_out_of_date(&mut self, effects: &mut Vec<Effect>) -> bool {
        let again = self.asked == Asked::AndAgain;
        self.asked = if again { Asked::Once } else { Asked::Nothing };
        if again {
            effects.push(Effect::AskPermit);
        }
        again
    }

    /// The store's answer.
    pub(super) fn permit_granted(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.is_out_of_date(effects) {
            return;
        }
        let stand = self.stand;
        match stand {
            Stand::Asking | Stand::Down { .. } => self.stand = Stand::Down { renew_at: now + RENEW },
            Stand::Well | Stand::Limited { .. } => effects.push(Effect::ReturnPermit),
        }
        if stand == Stand::Asking {
            self.set_one_each(false);
            self.forget_troubles();
            effects.push(Effect::Alert(Alert::StoodDown));
        }
    }

    /// The store's answer.
    pub(super) fn permit_refused(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.is_out_of_date(effects) {
            return;
        }
        if self.stand == Stand::Asking || self.stands_down() {
            let ask_again = now + ASK_AGAIN.pause(0, self.entropy.draw());
            self.stand = Stand::Limited { ask_again };
            if self.set_one_each(true) {
                self.forget_troubles();
                effects.push(Effect::Alert(Alert::StandDownRefused));
            }
        }
    }

    /// The lease is lost, and the permit with it.
    pub(super) fn permit_lost(&mut self, now: Timestamp) {
        if self.stands_down() {
            self.stand = Stand::Limited { ask_again: now };
            self.set_one_each(true);
        }
    }

    fn set_one_each(&mut self, one_each: bool) -> bool {
        self.flights.set_one_each(one_each)
    }

    /// Whether every token that is not out has been tested well for a good while; if all are out, nothing was.
    fn is_well_again(&self) -> bool {
        let mut tested = self.tokens.iter().filter(|token| !token.is_out()).peekable();
        tested.peek().is_some() && tested.all(Token::is_well_again)
    }

    fn forget_troubles(&mut self) {
        for token in self.tokens.iter_mut() {
            token.forget_troubles();
        }
    }
}
