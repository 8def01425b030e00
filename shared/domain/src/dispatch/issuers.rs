//! What a signer knows of each issuer that it serves: breaker, retry budgets, places that it takes, and whether its lanes are left alone.
//!
//! One look-up an event; whatever is due at some time stands in one list of timers, so that an event costs the same with ten issuers and
//! with ten thousand.

use std::{collections::BTreeSet, time::Duration};

use foldhash::HashMap;

use super::{budget::Budget, event::ProbeBy};
use crate::{
    breaker::{Breaker, Permit, Settings, Standing},
    id::IssuerId,
    lane::{Class, Lane},
    time::Timestamp,
};

/// How long after its breaker has opened an issuer's lanes are left to other signers, if it is still open.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// They are taken up again at most once in this time.
pub(super) const RESUME_PERIOD: Duration = Duration::from_secs(2);
/// How long a probe waits that is due while something else must be done first.
const LATER: Duration = Duration::from_millis(100);

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on one another, each asked for alone"
)]
pub(super) struct Issuer {
    /// Whether it is served; if not, it is remembered only for what is in flight.
    pub served: bool,
    pub token: usize,
    /// What a job costs in each of its lanes that are served.
    pub costs: [Option<u32>; 3],
    pub enabled: bool,
    pub probe_by: ProbeBy,
    pub breaker: Breaker,
    pub budgets: [Budget; 3],
    /// Jobs of it that hold slots.
    pub in_flight: usize,
    /// Workers that it keeps busy.
    pub running: usize,
    /// Whether it was refused a slot, and is to be asked again when one of its own jobs ends.
    pub refused: bool,
    /// Since when its breaker is not closed.
    pub shut_since: Option<Timestamp>,
    /// Whether its lanes are left to other signers.
    pub left: bool,
    pub resumed_at: Option<Timestamp>,
    timer: Option<Timestamp>,
}

impl Issuer {
    fn new() -> Self {
        Self {
            served: false,
            token: 0,
            costs: [None; 3],
            enabled: true,
            probe_by: ProbeBy::OwnKey,
            breaker: Breaker::new(),
            budgets: [Budget::default(); 3],
            in_flight: 0,
            running: 0,
            refused: false,
            shut_since: None,
            left: false,
            resumed_at: None,
            timer: None,
        }
    }

    /// Whether another job of this class may be begun, for all that this issuer has done.
    pub fn admits(&self, class: Class, settings: &Settings, now: Timestamp) -> bool {
        if !self.budgets[class as usize].admits(now) {
            return false;
        }
        match self.breaker.standing() {
            Standing::Closed => self.in_flight < self.breaker.allowance(settings, now),
            // Its jobs are refused by the ledger, one at a time, and never come to the key.
            _ if !self.enabled => self.in_flight == 0,
            _ => self.probe_by == ProbeBy::OldestJob && self.breaker.is_probe_due(settings, now),
        }
    }

    /// Whether the ledger may be asked for jobs of it.
    pub fn may_claim(&self, settings: &Settings, now: Timestamp) -> bool {
        match self.breaker.standing() {
            Standing::Closed => true,
            _ if !self.enabled => true,
            _ => self.probe_by == ProbeBy::OldestJob && self.breaker.is_probe_due(settings, now),
        }
    }

    /// What its breaker allows for a job that was admitted.
    pub fn permit(&mut self, settings: &Settings, now: Timestamp) -> Option<Permit> {
        let allowed =
            self.breaker.standing() == Standing::Closed || (self.enabled && self.probe_by == ProbeBy::OldestJob);
        allowed.then(|| self.breaker.permit(settings, now)).flatten()
    }

    /// When to look at it again; `None` if only an event can change anything.
    fn due(&self, settings: &Settings, now: Timestamp) -> Option<Timestamp> {
        let leave = self.shut_since.filter(|_| !self.left).map(|since| since + PATIENCE);
        let resume = match self.shut_since {
            None if self.left => self.resumed_at.map(|resumed| resumed + RESUME_PERIOD),
            _ => None,
        };
        let later = now + LATER;
        let probe = self.breaker.probe_at().filter(|_| self.enabled);
        let is_due = self.breaker.is_probe_due(settings, now);
        let probe = probe.map(|at| if is_due { later } else { at.max(later) });
        let ramp = self.breaker.ramps_at(settings, now);
        let budgets = self.budgets.iter().filter_map(|budget| budget.admits_at(now));
        [leave, resume, probe, ramp].into_iter().flatten().chain(budgets).min()
    }
}

#[derive(Debug, Default)]
pub(super) struct Issuers {
    known: HashMap<IssuerId, Issuer>,
    timers: BTreeSet<(Timestamp, IssuerId)>,
    /// Issuers whose breaker is not closed.
    shut: BTreeSet<IssuerId>,
}

impl Issuers {
    pub fn get(&self, issuer: &IssuerId) -> Option<&Issuer> {
        self.known.get(issuer)
    }

    /// What a job of the lane costs; `None` if it is not served.
    pub fn cost(&self, lane: &Lane) -> Option<u32> {
        self.known.get(&lane.issuer)?.costs[lane.class as usize]
    }

    pub fn get_mut(&mut self, issuer: &IssuerId) -> Option<&mut Issuer> {
        self.known.get_mut(issuer)
    }

    /// The issuer, known from now on.
    pub fn know(&mut self, issuer: &IssuerId) -> &mut Issuer {
        self.known.entry(issuer.clone()).or_insert_with(Issuer::new)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&IssuerId, &Issuer)> {
        self.known.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&IssuerId, &mut Issuer)> {
        self.known.iter_mut()
    }

    /// Issuers whose breaker is not closed, with how it stands.
    pub fn shut(&self) -> impl Iterator<Item = (&IssuerId, Standing)> {
        let standing = |issuer| self.known.get(issuer).map(|known: &Issuer| known.breaker.standing());
        self.shut
            .iter()
            .filter_map(move |issuer| Some((issuer, standing(issuer)?)))
    }

    pub fn shut_len(&self) -> usize {
        self.shut.len()
    }

    /// Notes how the issuer's breaker stands now.
    pub fn note_standing(&mut self, issuer: &IssuerId, now: Timestamp) {
        let Some(known) = self.known.get_mut(issuer) else {
            return;
        };
        if known.breaker.standing() == Standing::Closed {
            known.shut_since = None;
            self.shut.remove(issuer);
        } else if known.shut_since.is_none() {
            known.shut_since = Some(now);
            self.shut.insert(issuer.clone());
        }
    }

    /// Sets the issuer's timer anew.
    pub fn set_timer(&mut self, issuer: &IssuerId, settings: &Settings, now: Timestamp) {
        let Some(known) = self.known.get_mut(issuer) else {
            return;
        };
        let due = known.due(settings, now).filter(|_| known.served);
        if due == known.timer {
            return;
        }
        if let Some(before) = known.timer {
            self.timers.remove(&(before, issuer.clone()));
        }
        known.timer = due;
        self.timers.extend(due.map(|due| (due, issuer.clone())));
    }

    /// The next issuer whose timer has run out; its timer is gone.
    pub fn next_due(&mut self, now: Timestamp) -> Option<IssuerId> {
        let (at, _) = self.timers.first()?;
        if *at > now {
            return None;
        }
        let (_, issuer) = self.timers.pop_first()?;
        if let Some(known) = self.known.get_mut(&issuer) {
            known.timer = None;
        }
        Some(issuer)
    }

    /// When the next timer runs out.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Forgets an issuer that is neither served nor in flight.
    pub fn forget_if_idle(&mut self, issuer: &IssuerId) {
        let Some(known) = self.known.get(issuer) else { return };
        if known.served || known.in_flight > 0 || known.running > 0 {
            return;
        }
        if let Some(at) = known.timer {
            self.timers.remove(&(at, issuer.clone()));
        }
        self.shut.remove(issuer);
        self.known.remove(issuer);
    }
}
