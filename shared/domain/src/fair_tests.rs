//! The queue against a model, and the bounds that it promises.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const ISSUERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const LIMITS: Limits = Limits {
    total: 60,
    per_lane: 20,
};

fn slot(class: usize, issuer: usize, account: usize) -> Slot {
    Slot {
        class: Class::ALL[class % 3],
        issuer: ISSUERS[issuer % 5].parse().unwrap(),
        account: ["x", "y", "z"][account % 3].parse().unwrap(),
    }
}

fn issuer(name: &str) -> IssuerId {
    name.parse().unwrap()
}

impl<T> FairQueue<T> {
    /// Everything that must hold between any two operations.
    fn check(&self) {
        let mut len = 0;
        for class in &self.classes {
            let distinct: BTreeSet<_> = class.ring.iter().collect();
            assert_eq!(distinct.len(), class.ring.len(), "an issuer is in the ring twice");
            for issuer in &class.ring {
                assert!(class.lanes[issuer].in_ring, "residue in the ring");
            }
            for (issuer, lane) in &class.lanes {
                assert!(lane.len > 0, "an empty lane stays");
                assert_eq!(lane.turns.len(), lane.accounts.len());
                assert!(lane.accounts.values().all(|entries| !entries.is_empty()));
                assert_eq!(lane.accounts.values().map(VecDeque::len).sum::<usize>(), lane.len);
                assert!(lane.len <= self.limits.per_lane);
                assert_eq!(lane.in_ring, distinct.contains(issuer));
                assert_ne!(lane.in_ring, lane.held, "forgotten, or served although held: {issuer}");
                len += lane.len;
            }
        }
        assert_eq!(len, self.len);
        assert!(self.len <= self.limits.total);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Push(usize, usize, usize, u32),
    Pop,
    Hold(usize),
    Release(usize),
    RemoveLane(usize, usize),
    RemoveOne(usize, usize, usize),
    Drain,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0..3_usize, 0..5_usize, 0..3_usize, 0..80_u32).prop_map(|(c, i, a, cost)| Op::Push(c, i, a, cost)),
        40 => Just(Op::Pop),
        4 => (0..5_usize).prop_map(Op::Hold),
        6 => (0..5_usize).prop_map(Op::Release),
        1 => (0..3_usize, 0..5_usize).prop_map(|(c, i)| Op::RemoveLane(c, i)),
        3 => (0..3_usize, 0..5_usize, 0..3_usize).prop_map(|(c, i, a)| Op::RemoveOne(c, i, a)),
        1 => Just(Op::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_comes_twice_and_each_account_keeps_its_order(ops in proptest::collection::vec(op(), 1..2000)) {
        let mut queue = FairQueue::new(LIMITS);
        let mut model: BTreeMap<Slot, VecDeque<u32>> = BTreeMap::new();
        let mut held: BTreeSet<IssuerId> = BTreeSet::new();
        for (number, op) in (0..).zip(ops) {
            match op {
                Op::Push(c, i, a, cost) => {
                    let slot = slot(c, i, a);
                    match queue.push(&slot, cost, number) {
                        Ok(()) => model.entry(slot).or_default().push_back(number),
                        Err(refused) => prop_assert_eq!(refused.item, number),
                    }
                }
                Op::Pop => match queue.pop_where(|issuer, _| !held.contains(issuer)) {
                    Some((slot, item)) => {
                        prop_assert!(!held.contains(&slot.issuer), "served although held");
                        prop_assert_eq!(model.get_mut(&slot).and_then(VecDeque::pop_front), Some(item));
                    }
                    None => prop_assert!(
                        model.iter().all(|(slot, items)| items.is_empty() || held.contains(&slot.issuer))
                    ),
                },
                Op::Hold(i) => drop(held.insert(issuer(ISSUERS[i]))),
                Op::Release(i) => {
                    held.remove(&issuer(ISSUERS[i]));
                    queue.release(&issuer(ISSUERS[i]));
                }
                Op::RemoveLane(c, i) => {
                    let lane = slot(c, i, 0).lane();
                    for (slot, item) in queue.remove_lane(&lane) {
                        prop_assert_eq!(slot.lane(), lane.clone());
                        prop_assert_eq!(model.get_mut(&slot).and_then(VecDeque::pop_front), Some(item));
                    }
                    prop_assert_eq!(queue.lane_len(&lane), 0);
                }
                Op::RemoveOne(c, i, a) => {
                    let slot = slot(c, i, a);
                    let items = model.entry(slot.clone()).or_default();
                    let wanted = items.get(items.len() / 2).copied();
                    items.retain(|item| Some(*item) != wanted);
                    prop_assert_eq!(queue.remove(&slot, |item| Some(*item) == wanted), wanted);
                }
                Op::Drain => {
                    for (slot, item) in queue.drain() {
                        prop_assert_eq!(model.get_mut(&slot).and_then(VecDeque::pop_front), Some(item));
                    }
                    prop_assert!(queue.is_empty());
                }
            }
            prop_assert_eq!(queue.len(), model.values().map(VecDeque::len).sum::<usize>());
            if number % 16 == 0 {
                queue.check();
            }
        }
        queue.check();
    }

    #[test]
    fn two_issuers_that_wait_all_the_time_are_served_alike_whatever_their_entries_cost(
        costs in proptest::collection::vec(1..=MAX_COST, 2..5),
        steps in 1..4000_usize,
    ) {
        let mut queue = FairQueue::new(Limits { total: 100, per_lane: 10 });
        let mut served = vec![0_u32; costs.len()];
        for (i, cost) in costs.iter().enumerate() {
            for a in 0..3 {
                queue.push(&slot(0, i, a), *cost, i).unwrap();
            }
        }
        for _ in 0..steps {
            let (slot, i) = queue.pop().unwrap();
            served[i] += costs[i];
            queue.push(&slot, costs[i], i).unwrap();
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            prop_assert!(most - least <= MAX_COST + 1, "{served:?}");
        }
    }

    #[test]
    fn every_class_gets_its_share_whatever_the_others_ask_for(
        costs in proptest::array::uniform3(1..=MAX_COST),
        steps in 2000..3000_usize,
    ) {
        let mut queue = FairQueue::new(LIMITS);
        let mut served = [0_u32; 3];
        for (c, cost) in costs.iter().enumerate() {
            queue.push(&slot(c, 0, 0), *cost, c).unwrap();
            queue.push(&slot(c, 0, 1), *cost, c).unwrap();
        }
        for _ in 0..steps {
            let (slot, c) = queue.pop().unwrap();
            served[c] += costs[c];
            queue.push(&slot, costs[c], c).unwrap();
            let rounds = served.iter().zip(SHARES).map(|(served, share)| f64::from(*served) / f64::from(share));
            let (least, most) = rounds.fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(r), most.max(r)));
            prop_assert!(most - least <= f64::from(MAX_COST) + 2.0, "{served:?}");
        }
    }

    #[test]
    fn whoever_comes_last_finds_room(order in proptest::collection::vec((0..4_usize, 0..3_usize), 0..3000)) {
        let mut queue = FairQueue::new(Limits { total: 1000, per_lane: 1000 });
        for (i, a) in order {
            let _ = queue.push(&slot(2, i, a), 1, ());
        }
        // Each flood leaves at least half of what it found.
        for number in 0..30 {
            prop_assert_eq!(queue.push(&slot(2, 4, 0), 1, ()), Ok(()), "entry {}", number);
        }
        prop_assert_eq!(queue.push(&slot(0, 0, 0), 1, ()), Ok(()));
    }
}

#[test]
fn a_single_account_holds_half_of_its_lane_and_a_second_finds_room() {
    let mut queue = FairQueue::new(Limits {
        total: 1000,
        per_lane: 100,
    });
    let mut taken = 0;
    while queue.push(&slot(0, 0, 0), 1, ()).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 50);
    assert_eq!(queue.room(&slot(0, 0, 0)), Err(Full::Account));
    assert_eq!(queue.room(&slot(0, 0, 1)), Ok(()));
}

#[test]
fn accounts_of_one_issuer_take_turns() {
    let mut queue = FairQueue::new(LIMITS);
    for number in 0..6 {
        queue.push(&slot(0, 0, 0), 1, number).unwrap();
    }
    queue.push(&slot(0, 0, 1), 1, 100).unwrap();
    let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
    assert_eq!(served, [0, 100, 1, 2, 3, 4, 5]);
}

#[test]
fn a_held_issuer_costs_the_others_nothing_and_keeps_its_entries() {
    let mut queue = FairQueue::new(LIMITS);
    for number in 0..5 {
        queue.push(&slot(0, 0, 0), 1, number).unwrap();
    }
    let beside = |issuer: &IssuerId, _| issuer.as_str() != "a";
    assert!(queue.pop_where(beside).is_none());
    queue.push(&slot(0, 1, 0), 1, 50).unwrap();
    queue.push(&slot(0, 0, 1), 1, 60).unwrap();
    assert_eq!(queue.pop_where(beside).unwrap().1, 50);
    assert!(queue.pop().is_none(), "it is not asked about again");
    queue.release(&issuer("a"));
    assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 6);
    queue.check();
}

#[test]
fn an_urgent_entry_overtakes_a_backlog_of_bulk_at_once() {
    let mut queue = FairQueue::new(LIMITS);
    for number in 0..10 {
        queue.push(&slot(2, 0, number), 1, 0).unwrap();
    }
    queue.pop().unwrap();
    queue.push(&slot(0, 1, 0), 1, 1).unwrap();
    assert_eq!(queue.pop().unwrap().1, 1);
}
