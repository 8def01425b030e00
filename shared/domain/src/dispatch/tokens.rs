//! The tokens that a signer's keys are on, and what it takes to say that one is out: a token is tested, never judged by what its users'
//! keys do.
//!
//! A failure that may be the token's raises a doubt. A doubt is answered by canary signatures, one at a time and at most one in
//! [`CANARY_PERIOD`]: with the token's canary key, and if that fails, with up to three enabled issuers' keys. One that succeeds clears the
//! token, and what raised the doubt was the issuer's own failure after all. If all fail, the token is out: it takes no jobs, and is tested
//! again after pauses that grow, are jittered and capped. A token that refuses the PIN is out without a test and stays so until an operator
//! says otherwise: a test would be another try.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    backoff::Backoff,
    breaker::Permit,
    id::{IssuerId, TokenId},
    time::Timestamp,
};

/// The shortest time between two canary signatures on one token.
pub(super) const CANARY_PERIOD: Duration = Duration::from_millis(200);
/// How many issuers' keys are tried when the canary key fails.
pub(super) const CANDIDATES: usize = 3;
/// How long a token that is out is left alone.
const OUT: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(15),
    jitter_percent: 25,
};
/// So many troubles in so long a time, and the token is not well: it flickers, or its canaries are slow.
const TROUBLES: usize = 3;
const TROUBLES_WINDOW: Duration = Duration::from_mins(1);
/// How often a token that is not well is tested, and how many good canaries in a row make it well.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
const GOOD_CANARIES: u32 = 5;

/// A failure that is the issuer's if the token is fine.
#[derive(Debug)]
pub(super) struct Pending {
    pub issuer: IssuerId,
    pub permit: Permit,
    pub took: Duration,
}

/// What a canary signature has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The token works: what is pending is the issuers'.
    Works,
    /// It works again: it was out.
    Back,
    /// It is not known yet.
    Undecided,
    /// It is out now: what is pending was its own failure.
    Out,
    /// It still is.
    StillOut,
}

#[derive(Debug)]
pub(super) struct Token {
    pub id: TokenId,
    /// Issuers that are served on it.
    pub issuers: usize,
    pub pending: Vec<Pending>,
    state: State,
    /// Canary signatures of this test that have failed; of a token that is out, since it is.
    step: usize,
    /// The keys that this test tries after the canary key.
    candidates: Vec<IssuerId>,
    under_way: bool,
    /// Whether the canary that is under way, or was the last, is made with the canary key.
    with_canary_key: bool,
    next: Timestamp,
    canary_key: CanaryKey,
    troubles: VecDeque<Timestamp>,
    good: u32,
}

/// Whether the canary key fails while other keys work, and whether operators have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CanaryKey {
    Works,
    FailsUntold,
    Fails,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    Doubted,
    Out { locked: bool },
}

impl Token {
    fn new(id: TokenId) -> Self {
        Self {
            id,
            issuers: 0,
            pending: Vec::new(),
            state: State::Works,
            step: 0,
            candidates: Vec::new(),
            under_way: false,
            with_canary_key: false,
            next: Timestamp::default(),
            canary_key: CanaryKey::Works,
            troubles: VecDeque::new(),
            good: 0,
        }
    }

    /// Whether jobs may be begun on it.
    pub fn takes_jobs(&self) -> bool {
        match self.state {
            State::Works => true,
            // A canary key that is known to fail says nothing new.
            State::Doubted => self.step <= usize::from(self.canary_key != CanaryKey::Works),
            State::Out { .. } => false,
        }
    }

    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Out { .. })
    }

    /// A failure may be its own: it is to be tested.
    pub fn doubt(&mut self) {
        if self.state == State::Works {
            self.state = State::Doubted;
            self.step = 0;
        }
    }

    /// When the next canary is due; `None` if none is wanted. `watched`: whether it is tested even if there is no doubt.
    pub fn canary_at(&self, watched: bool) -> Option<Timestamp> {
        let wanted = match self.state {
            _ if self.under_way => false,
            State::Works => watched,
            State::Doubted => true,
            State::Out { locked } => !locked,
        };
        wanted.then_some(self.next)
    }

    /// Whether the next canary needs issuers to choose its key from.
    pub fn wants_candidates(&self) -> bool {
        self.step == 1 || self.is_out()
    }

    /// A canary is sent; the issuer with whose key, or `None` for the canary key.
    pub fn send_canary(&mut self, candidates: Option<Vec<IssuerId>>, now: Timestamp) -> Option<IssuerId> {
        self.under_way = true;
        self.next = now
            + if self.state == State::Works {
                WATCH_PERIOD
            } else {
                CANARY_PERIOD
            };
        self.candidates = candidates.unwrap_or_else(|| std::mem::take(&mut self.candidates));
        let turn = self.step % (CANDIDATES + 1);
        let key = turn
            .checked_sub(1)
            .and_then(|index| self.candidates.get(index).cloned());
        self.with_canary_key = key.is_none();
        key
    }

    /// A canary that says nothing about the token.
    pub fn canary_unproven(&mut self) {
        self.under_way = false;
    }

    /// A canary signature was made, or was not.
    pub fn canary_ended(&mut self, succeeded: bool, is_slow: bool, now: Timestamp, entropy: u64) -> Verdict {
        self.under_way = false;
        if let State::Out { locked: true } = self.state {
            return Verdict::StillOut;
        }
        if succeeded {
            self.good = if is_slow { 0 } else { self.good.saturating_add(1) };
            let was_out = self.is_out();
            if self.with_canary_key {
                self.canary_key = CanaryKey::Works;
            } else if !was_out && self.canary_key == CanaryKey::Works {
                self.canary_key = CanaryKey::FailsUntold;
            }
            // That the canary key alone fails is no flicker.
            if is_slow || was_out || (self.step > 0 && self.canary_key == CanaryKey::Works) {
                self.trouble(now);
            }
            self.state = State::Works;
            self.step = 0;
            return if was_out { Verdict::Back } else { Verdict::Works };
        }
        self.good = 0;
        self.step += 1;
        if self.is_out() {
            let failures = u32::try_from(self.step).unwrap_or(u32::MAX);
            self.next = now + OUT.pause(failures, entropy);
            return Verdict::StillOut;
        }
        // Without issuers, the canary key itself is tried twice.
        if self.step <= 1 || self.step <= self.candidates.len() {
            self.state = State::Doubted;
            return Verdict::Undecided;
        }
        self.state = State::Out { locked: false };
        self.step = 0;
        self.next = now + OUT.pause(0, entropy);
        Verdict::Out
    }

    /// Whether the canary key has been found to fail while other keys work, and nobody was told yet.
    pub fn take_canary_key_alert(&mut self) -> bool {
        let untold = self.canary_key == CanaryKey::FailsUntold;
        if untold {
            self.canary_key = CanaryKey::Fails;
        }
        untold
    }

    /// It refused the PIN. Whether it was in until now.
    pub fn lock(&mut self) -> bool {
        let was_in = !self.is_out();
        self.state = State::Out { locked: true };
        was_in
    }

    #[cfg(test)]
    pub fn is_locked(&self) -> bool {
        self.state == (State::Out { locked: true })
    }

    /// An operator says that the PIN may be tried again.
    pub fn unlock(&mut self, now: Timestamp) {
        if self.state == (State::Out { locked: true }) {
            self.state = State::Out { locked: false };
            self.step = 0;
            self.next = now;
        }
    }

    fn trouble(&mut self, now: Timestamp) {
        if self.troubles.len() == TROUBLES {
            self.troubles.pop_front();
        }
        self.troubles.push_back(now);
    }

    /// Whether it flickers or is slow.
    pub fn is_unwell(&self, now: Timestamp) -> bool {
        self.troubles.len() == TROUBLES
            && self
                .troubles
                .front()
                .is_some_and(|first| now.since(*first) < TROUBLES_WINDOW)
    }

    /// Whether it has been tested well for long enough to be called well.
    pub fn is_well_again(&self) -> bool {
        self.good >= GOOD_CANARIES
    }

    /// Its troubles are over, or begin to be watched.
    pub fn forget_troubles(&mut self) {
        self.troubles.clear();
        self.good = 0;
    }

    /// The clock was set back: what was to be done later may be done now.
    pub fn clock_set_back(&mut self, now: Timestamp) {
        self.next = self.next.min(now + OUT.longest);
        self.troubles.clear();
    }
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    numbers: BTreeMap<TokenId, usize>,
    all: Vec<Token>,
}

impl Tokens {
    /// The token's number, for ever.
    pub fn number(&mut self, id: &TokenId) -> usize {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.all.len();
        self.numbers.insert(id.clone(), number);
        self.all.push(Token::new(id.clone()));
        number
    }

    pub fn named(&self, id: &TokenId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    pub fn get_mut(&mut self, number: usize) -> Option<&mut Token> {
        self.all.get_mut(number)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Token> {
        self.all.iter_mut()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether jobs may be begun with keys on this token.
    pub fn takes_jobs(&self, number: usize) -> bool {
        self.all.get(number).is_none_or(Token::takes_jobs)
    }

    pub fn is_out(&self, number: usize) -> bool {
        self.all.get(number).is_some_and(Token::is_out)
    }

    /// Whether there are tokens with issuers, and all of them are out.
    pub fn all_out(&self) -> bool {
        let mut served = self.all.iter().filter(|token| token.issuers > 0).peekable();
        served.peek().is_some() && served.all(Token::is_out)
    }
}
