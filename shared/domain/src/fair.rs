//! A bounded queue that serves classes by guaranteed shares, then issuers, then accounts in turn, so that nobody's backlog is
//! anybody else's wait, and nobody's flood takes anybody else's room.
//!
//! **Service.** Classes are served in their order as long as they have credit; credit is renewed, up to [`SHARES`], when nobody who
//! waits has any left, so a lower class gets its share even under a flood of a higher one. Within a class, issuers are visited in a ring (deficit
//! round robin, one entry a visit): an entry that costs more than one unit leaves its issuer in debt, and an issuer in debt is passed
//! over while each visit pays one unit back. Between two issuers of a class that wait all the time, the cost served differs by at most
//! [`MAX_COST`] `+ 1`, whatever they ask for. Within an issuer, accounts take turns, one entry each.
//!
//! **Room.** A lane may hold as much as it leaves free in the queue, and no more than its own limit: a flood leaves half of the room that
//! it found, floods that come together share alike, and there is room for whoever comes next. Within a lane the same holds for accounts.
//!
//! All operations cost O(1), amortised over the units of cost, but removal, which looks at what it removes from.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt as _};

use crate::{
    id::{AccountId, IssuerId},
    lane::{Class, Lane},
};

/// How many units of cost each class is served in a round in which all of them wait, in the order of [`Class::ALL`].
pub const SHARES: [u32; 3] = [12, 3, 1];

/// The greatest cost of one entry; larger ones are taken for this.
pub const MAX_COST: u32 = 64;

/// Where an entry belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Class: the first level.
    pub class: Class,
    /// Issuer: the second.
    pub issuer: IssuerId,
    /// Account: the third.
    pub account: AccountId,
}

impl Slot {
    /// The lane of the slot.
    pub fn lane(&self) -> Lane {
        Lane {
            issuer: self.issuer.clone(),
            class: self.class,
        }
    }
}

/// How much a queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries in all.
    pub total: usize,
    /// Entries of one lane, of which one account may hold half.
    pub per_lane: usize,
}

/// Which limit an entry met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Full {
    /// The lane holds as much as it leaves free in the whole queue.
    #[error("the queue is full")]
    Queue,
    /// The lane holds all it may.
    #[error("the lane is full")]
    Lane,
    /// The account holds as much as it leaves free in its lane.
    #[error("the account's share of the lane is full")]
    Account,
}

/// An entry that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken<T> {
    /// The limit.
    pub full: Full,
    /// The entry, as it was given.
    pub item: T,
}

/// The queue. See the module's own words for what it promises.
#[derive(Debug)]
pub struct FairQueue<T> {
    limits: Limits,
    len: usize,
    classes: [ClassQueue<T>; 3],
}

#[derive(Debug)]
struct ClassQueue<T> {
    /// May fall below zero when an entry costs more than was left.
    credit: i64,
    /// Issuers to visit, each at most once. Those that are not admitted drop out when they are visited.
    ring: VecDeque<IssuerId>,
    lanes: HashMap<IssuerId, LaneQueue<T>>,
}

#[derive(Debug)]
struct LaneQueue<T> {
    len: usize,
    /// Units of cost to be paid back before the next entry is served.
    debt: u32,
    in_ring: bool,
    /// Whether it was not admitted, and has not been released since.
    held: bool,
    turns: VecDeque<AccountId>,
    accounts: HashMap<AccountId, VecDeque<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    cost: u32,
    item: T,
}

impl<T> LaneQueue<T> {
    fn new() -> Self {
        Self {
            len: 0,
            debt: 0,
            in_ring: false,
            held: false,
            turns: VecDeque::new(),
            accounts: HashMap::new(),
        }
    }

    fn pop(&mut self) -> Option<(AccountId, Entry<T>)> {
        let account = self.turns.pop_front()?;
        let entries = self.accounts.get_mut(&account)?;
        let entry = entries.pop_front()?;
        self.len -= 1;
        if entries.is_empty() {
            self.accounts.remove(&account);
        } else {
            self.turns.push_back(account.clone());
        }
        Some((account, entry))
    }
}

impl<T> ClassQueue<T> {
    fn new(share: u32) -> Self {
        Self {
            credit: i64::from(share),
            ring: VecDeque::new(),
            lanes: HashMap::new(),
        }
    }

    fn enter(&mut self, issuer: &IssuerId) {
        if let Some(lane) = self.lanes.get_mut(issuer)
            && !lane.in_ring
            && !lane.held
        {
            lane.in_ring = true;
            self.ring.push_back(issuer.clone());
        }
    }

    /// Forgets a lane that has become empty outside of its turn.
    fn forget_if_empty(&mut self, issuer: &IssuerId) {
        if self.lanes.get(issuer).is_some_and(|lane| lane.len == 0) {
            self.lanes.remove(issuer);
            self.ring.retain(|other| other != issuer);
        }
    }

    /// Whether somebody in the ring may be served; those that are not admitted leave it.
    fn is_ready(&mut self, mut admits: impl FnMut(&IssuerId) -> bool) -> bool {
        while let Some(issuer) = self.ring.front() {
            if admits(issuer) {
                return true;
            }
            if let Some(lane) = self.lanes.get_mut(issuer) {
                lane.in_ring = false;
                lane.held = true;
            }
            self.ring.pop_front();
        }
        false
    }

    fn pop(&mut self, mut admits: impl FnMut(&IssuerId) -> bool) -> Option<(IssuerId, AccountId, Entry<T>)> {
        while self.is_ready(&mut admits) {
            let issuer = self.ring.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&issuer) else {
                continue;
            };
            if lane.debt > 0 {
                lane.debt -= 1;
                self.ring.push_back(issuer);
                continue;
            }
            let Some((account, entry)) = lane.pop() else {
                self.lanes.remove(&issuer);
                continue;
            };
            if lane.len == 0 {
                self.lanes.remove(&issuer);
            } else {
                lane.debt = entry.cost - 1;
                self.ring.push_back(issuer.clone());
            }
            return Some((issuer, account, entry));
        }
        None
    }
}

impl<T> FairQueue<T> {
    /// An empty queue.
    ///
    /// # Panics
    /// If a limit is zero.
    pub fn new(limits: Limits) -> Self {
        assert!(
            limits.total > 0 && limits.per_lane > 0,
            "a queue without room is a mistake"
        );
        Self {
            limits,
            len: 0,
            classes: SHARES.map(ClassQueue::new),
        }
    }

    /// Takes an entry that costs `cost` units to serve (at least 1; at most [`MAX_COST`] are counted), or hands it back.
    pub fn push(&mut self, slot: &Slot, cost: u32, item: T) -> Result<(), NotTaken<T>> {
        if let Err(full) = self.room(slot) {
            return Err(NotTaken { full, item });
        }
        let class = &mut self.classes[slot.class as usize];
        let lane = class.lanes.entry(slot.issuer.clone()).or_insert_with(LaneQueue::new);
        let entries = lane.accounts.entry(slot.account.clone()).or_default();
        if entries.is_empty() {
            lane.turns.push_back(slot.account.clone());
        }
        entries.push_back(Entry {
            cost: cost.clamp(1, MAX_COST),
            item,
        });
        lane.len += 1;
        self.len += 1;
        class.enter(&slot.issuer);
        Ok(())
    }

    /// Whether an entry would be taken now.
    pub fn room(&self, slot: &Slot) -> Result<(), Full> {
        let free = self.limits.total - self.len;
        let Some(lane) = self.classes[slot.class as usize].lanes.get(&slot.issuer) else {
            return if free > 0 { Ok(()) } else { Err(Full::Queue) };
        };
        if lane.len >= free {
            return Err(Full::Queue);
        }
        if lane.len >= self.limits.per_lane {
            return Err(Full::Lane);
        }
        let account = lane.accounts.get(&slot.account).map_or(0, VecDeque::len);
        if account > 0 && account >= free.min(self.limits.per_lane - lane.len) {
            return Err(Full::Account);
        }
        Ok(())
    }

    /// The next entry; `None` if there is none.
    pub fn pop(&mut self) -> Option<(Slot, T)> {
        self.pop_where(|_, _| true)
    }

    /// The next entry of a lane that `admits` says yes to. A lane that it says no to is passed over, without being asked about again,
    /// until its issuer is [released](Self::release); what it has stays, and more may be pushed.
    pub fn pop_where(&mut self, mut admits: impl FnMut(&IssuerId, Class) -> bool) -> Option<(Slot, T)> {
        loop {
            for (class, name) in self.classes.iter_mut().zip(Class::ALL) {
                if class.credit <= 0 {
                    continue;
                }
                let Some((issuer, account, entry)) = class.pop(|issuer| admits(issuer, name)) else {
                    continue;
                };
                class.credit -= i64::from(entry.cost);
                self.len -= 1;
                let slot = Slot {
                    class: name,
                    issuer,
                    account,
                };
                return Some((slot, entry.item));
            }
            let mut somebody_waits = false;
            for (class, name) in self.classes.iter_mut().zip(Class::ALL) {
                somebody_waits |= class.credit <= 0 && class.is_ready(|issuer| admits(issuer, name));
            }
            if !somebody_waits {
                return None;
            }
            for (class, share) in self.classes.iter_mut().zip(SHARES) {
                class.credit = (class.credit + i64::from(share)).min(i64::from(share));
            }
        }
    }

    /// Asks again about an issuer's lanes that were not admitted.
    pub fn release(&mut self, issuer: &IssuerId) {
        for class in &mut self.classes {
            if let Some(lane) = class.lanes.get_mut(issuer) {
                lane.held = false;
                class.enter(issuer);
            }
        }
    }

    /// Entries in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries of one lane.
    pub fn lane_len(&self, lane: &Lane) -> usize {
        self.classes[lane.class as usize]
            .lanes
            .get(&lane.issuer)
            .map_or(0, |queue| queue.len)
    }

    /// The lanes that have entries, and how many, in no order.
    pub fn lanes(&self) -> impl Iterator<Item = (Lane, usize)> {
        Class::ALL.into_iter().zip(&self.classes).flat_map(|(class, queue)| {
            queue.lanes.iter().map(move |(issuer, lane)| {
                let issuer = issuer.clone();
                (Lane { issuer, class }, lane.len)
            })
        })
    }

    /// Takes out everything of one lane: account by account, each in order.
    pub fn remove_lane(&mut self, lane: &Lane) -> Vec<(Slot, T)> {
        let class = &mut self.classes[lane.class as usize];
        let Some(mut queue) = class.lanes.remove(&lane.issuer) else {
            return Vec::new();
        };
        class.ring.retain(|issuer| *issuer != lane.issuer);
        self.len -= queue.len;
        let mut removed = Vec::with_capacity(queue.len);
        for account in queue.turns {
            let slot = Slot {
                class: lane.class,
                issuer: lane.issuer.clone(),
                account,
            };
            let entries = queue.accounts.remove(&slot.account).unwrap_or_default();
            removed.extend(entries.into_iter().map(|entry| (slot.clone(), entry.item)));
        }
        removed
    }

    /// Takes out the first entry of a slot for which `wanted` holds.
    pub fn remove(&mut self, slot: &Slot, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let class = &mut self.classes[slot.class as usize];
        let lane = class.lanes.get_mut(&slot.issuer)?;
        let entries = lane.accounts.get_mut(&slot.account)?;
        let position = entries.iter().position(|entry| wanted(&entry.item))?;
        let entry = entries.remove(position)?;
        if entries.is_empty() {
            lane.accounts.remove(&slot.account);
            lane.turns.retain(|account| *account != slot.account);
        }
        lane.len -= 1;
        self.len -= 1;
        class.forget_if_empty(&slot.issuer);
        Some(entry.item)
    }

    /// Takes out everything, whether admitted or not.
    pub fn drain(&mut self) -> Vec<(Slot, T)> {
        let lanes: Vec<Lane> = self.lanes().map(|(lane, _)| lane).collect();
        lanes.iter().flat_map(|lane| self.remove_lane(lane)).collect()
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
