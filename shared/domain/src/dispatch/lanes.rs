//! Which lanes the broker is to deliver: all of those that are served, but for the reasons listed in [`Dispatcher::leaves`].
//!
//! Only lanes that something has happened to are looked at, and a few of those that had no room; so it costs the same with one lane and with
//! thirty thousand.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use super::{Dispatcher, event::Effect};
use crate::{
    id::IssuerId,
    lane::{Class, Lane},
};

/// How many lanes that had no room are looked at with each event.
const LOOKED_AT: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Lanes that the broker was told not to deliver.
    paused: BTreeSet<Lane>,
    /// Lanes that had no room, and will be delivered again when half of it is free.
    full: BTreeSet<Lane>,
    /// The one that was looked at last.
    last_full: Option<Lane>,
    /// Lanes that something has happened to.
    to_look_at: BTreeSet<Lane>,
    all: bool,
    took_jobs: bool,
}

/// Why a lane is not to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// For now: what waits here goes on waiting.
    Pause,
    /// Others shall have it: what waits here is forgotten.
    ToOthers,
}

impl Lanes {
    pub fn look_at_all(&mut self) {
        self.all = true;
    }

    pub fn look_at_issuer(&mut self, issuer: &IssuerId) {
        self.to_look_at.extend(Class::ALL.map(|class| Lane {
            issuer: issuer.clone(),
            class,
        }));
    }

    /// The lane had no room for a delivery.
    pub fn is_full(&mut self, lane: Lane) {
        self.to_look_at.insert(lane.clone());
        self.full.insert(lane);
    }

    pub fn is_paused(&self, lane: &Lane) -> bool {
        self.paused.contains(lane)
    }

    #[cfg(test)]
    pub fn paused_len(&self) -> usize {
        self.paused.len()
    }

    /// The lane is served no more.
    pub fn forget(&mut self, lane: &Lane) {
        self.paused.remove(lane);
        self.full.remove(lane);
    }

    /// The broker has forgotten what it was told.
    pub fn void(&mut self) {
        self.paused.clear();
        self.full.clear();
        self.all = true;
    }
}

impl Dispatcher {
    /// Tells the broker which lanes to deliver.
    pub(super) fn review_lanes(&mut self, effects: &mut Vec<Effect>) {
        self.look_at_full_lanes();
        let takes = self.takes_jobs();
        if std::mem::replace(&mut self.lanes.took_jobs, takes) != takes {
            self.lanes.all = true;
        }
        if !self.lanes.all && self.lanes.to_look_at.is_empty() {
            return;
        }
        let mut looked_at = std::mem::take(&mut self.lanes.to_look_at);
        if std::mem::take(&mut self.lanes.all) {
            looked_at = self.serving.keys().cloned().collect();
        }
        for lane in looked_at {
            if !self.serving.contains_key(&lane) {
                continue;
            }
            match self.leaves(&lane, takes) {
                Some(why) => {
                    if !self.lanes.paused.contains(&lane) {
                        self.intake.void_lane(&lane);
                        effects.push(Effect::PauseLane(lane.clone()));
                        self.lanes.paused.insert(lane.clone());
                    }
                    if why == Leave::ToOthers {
                        self.intake.drop_lane(&lane);
                    }
                }
                None => {
                    if self.lanes.paused.remove(&lane) {
                        effects.push(Effect::ResumeLane(lane));
                    }
                }
            }
        }
    }

    fn leaves(&self, lane: &Lane, takes: bool) -> Option<Leave> {
        let issuer = self.issuers.get(&lane.issuer)?;
        if (issuer.left && issuer.enabled) || self.tokens.is_out(issuer.token) || self.stands_down() {
            Some(Leave::ToOthers)
        } else if !takes || self.lanes.full.contains(lane) {
            Some(Leave::Pause)
        } else {
            None
        }
    }

    fn look_at_full_lanes(&mut self) {
        for _ in 0..LOOKED_AT.min(self.lanes.full.len()) {
            let last = self.lanes.last_full.take();
            let after = (last.as_ref().map_or(Unbounded, Excluded), Unbounded);
            let next = self
                .lanes
                .full
                .range::<Lane, _>(after)
                .next()
                .or_else(|| self.lanes.full.first());
            let Some(lane) = next.cloned() else { return };
            if self.intake.has_plenty(&lane) {
                self.lanes.full.remove(&lane);
                self.lanes.to_look_at.insert(lane.clone());
            }
            self.lanes.last_full = Some(lane);
        }
    }
}
