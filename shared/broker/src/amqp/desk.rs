//! What a signer's inbox holds, without tasks or waiting: which lanes it serves and from where, what has arrived, what is out. One mutex
//! holds all of it, never across an await.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use domain::lane::{Carrier, Lane};

use super::seat::{Acknowledgement, Seat};
use crate::{Delivery, Incoming};

/// The channel on which one lane is consumed, for as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SeatId(pub u64);

/// A delivery as the broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub seat: SeatId,
    pub delivery_tag: u64,
}

/// A message that has arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub delivery_tag: u64,
    pub body: Bytes,
    pub trace: Option<Arc<str>>,
    pub redelivered: bool,
}

/// What the broker is to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Lanes whose queues are to be consumed. The number changes whenever what was consumed so far has to be given back first.
    pub consume: BTreeMap<Lane, u64>,
    /// Lanes whose wake-ups are to be heard.
    pub hear: BTreeSet<Lane>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    served: HashMap<Lane, Served>,
    /// Lanes that have something, each once, in turn.
    turns: VecDeque<Lane>,
    out: HashMap<u64, (Lane, Receipt)>,
    next_tag: u64,
    seats: HashMap<SeatId, Seat>,
    planned: Plan,
    heard: BTreeSet<Lane>,
}

#[derive(Debug, Default)]
struct Served {
    paused: bool,
    waiting: VecDeque<(Receipt, Arrived)>,
    wake_up: bool,
    /// Whether the lane is among the turns.
    announced: bool,
    /// How many envelopes have ever come.
    arrivals: u64,
    seat: Option<SeatId>,
    generation: u64,
}

impl Desk {
    /// Serves these as well.
    pub fn add(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            self.served.entry(lane.clone()).or_default();
        }
    }

    /// Stops what comes of a lane, and forgets what came of it: the broker gives it to others when its channel is closed.
    pub fn pause(&mut self, lane: &Lane) {
        if let Some(served) = self.served.get_mut(lane) {
            served.paused = true;
            self.begin_anew(lane);
        }
    }

    /// Starts it again. Whether there is something for [`Desk::take`] now.
    pub fn resume(&mut self, lane: &Lane) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        served.paused = false;
        served.wake_up && self.announce(lane)
    }

    /// What is to be done, when lanes travel as `carrier` says.
    pub fn plan(&mut self, carrier: impl Fn(&Lane) -> Carrier) -> Plan {
        let mut plan = Plan::default();
        let lanes: Vec<Lane> = self.served.keys().cloned().collect();
        for lane in lanes {
            let own = carrier(&lane) == Carrier::Own;
            if !own && self.served.get(&lane).is_some_and(|served| served.seat.is_some()) {
                self.begin_anew(&lane);
            }
            let Some(served) = self.served.get(&lane) else { continue };
            if !own {
                plan.hear.insert(lane);
            } else if !served.paused {
                plan.consume.insert(lane, served.generation);
            }
        }
        self.planned = plan.clone();
        plan
    }

    /// Whether everything that was planned is so.
    pub fn is_attached(&self) -> bool {
        let seated = |lane: &Lane| self.served.get(lane).is_some_and(|served| served.seat.is_some());
        self.planned.consume.keys().all(seated) && self.planned.hear == self.heard
    }

    /// Whose wake-ups are heard.
    pub fn hears(&mut self, lanes: BTreeSet<Lane>) {
        self.heard = lanes;
    }

    /// A lane is consumed. `false`: not any more wanted so.
    pub fn consumed(&mut self, lane: &Lane, generation: u64, seat: SeatId) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        let wanted = !served.paused && served.generation == generation;
        if wanted {
            served.seat = Some(seat);
            self.seats.insert(seat, Seat::default());
        }
        wanted
    }

    /// A lane's channel is lost, and the broker gives to others what came over it.
    pub fn lost(&mut self, lane: &Lane, seat: SeatId) {
        if self.served.get(lane).is_some_and(|served| served.seat == Some(seat)) {
            self.clear(lane);
        }
    }

    /// What a lane's consumer has brought. `false`: it is not wanted any more.
    pub fn arrive(&mut self, lane: &Lane, seat: SeatId, arrived: Arrived) -> bool {
        let Some(served) = self.served.get_mut(lane).filter(|served| served.seat == Some(seat)) else {
            return false;
        };
        let delivery_tag = arrived.delivery_tag;
        served.waiting.push_back((Receipt { seat, delivery_tag }, arrived));
        served.arrivals += 1;
        self.announce(lane)
    }

    /// How many envelopes of a lane have ever come, if none of them is here now.
    pub fn idle(&self, lane: &Lane) -> Option<u64> {
        let served = self.served.get(lane)?;
        let idle = served.waiting.is_empty() && !self.out.values().any(|(of, _)| of == lane);
        idle.then_some(served.arrivals)
    }

    /// There is something in the ledger for a lane.
    pub fn wake(&mut self, lane: &Lane) {
        let Some(served) = self.served.get_mut(lane) else {
            return;
        };
        served.wake_up = true;
        if !served.paused {
            self.announce(lane);
        }
    }

    /// The next message, lanes in turn.
    pub fn take(&mut self) -> Option<Incoming> {
        loop {
            let lane = self.turns.pop_front()?;
            let Some(served) = self.served.get_mut(&lane) else {
                continue;
            };
            served.announced = false;
            if std::mem::take(&mut served.wake_up) {
                if !served.waiting.is_empty() {
                    self.announce(&lane);
                }
                return Some(Incoming::WakeUp(lane));
            }
            let Some((receipt, arrived)) = served.waiting.pop_front() else {
                continue;
            };
            if !served.waiting.is_empty() {
                self.announce(&lane);
            }
            self.next_tag += 1;
            let tag = self.next_tag;
            self.out.insert(tag, (lane.clone(), receipt));
            return Some(Incoming::Delivery(Delivery {
                lane,
                tag,
                body: arrived.body,
                redelivered: arrived.redelivered,
                trace: arrived.trace,
            }));
        }
    }

    /// These are done with: what to tell the broker, channel by channel, in this order.
    pub fn settle(&mut self, tags: &[u64]) -> Vec<(SeatId, Vec<Acknowledgement>)> {
        let mut by_seat: HashMap<SeatId, Vec<u64>> = HashMap::new();
        for receipt in self.close(tags) {
            by_seat.entry(receipt.seat).or_default().push(receipt.delivery_tag);
        }
        let seats = &mut self.seats;
        let told = |(id, tags)| Some((id, seats.get_mut(&id)?.acknowledge(tags)));
        by_seat.into_iter().filter_map(told).collect()
    }

    /// Ends these deliveries here; the broker is to be told, and then [`Desk::rejected`].
    pub fn close(&mut self, tags: &[u64]) -> Vec<Receipt> {
        let closed = tags.iter().filter_map(|tag| self.out.remove(tag));
        closed.map(|(_, receipt)| receipt).collect()
    }

    /// The broker has been told that this one goes back.
    pub fn rejected(&mut self, receipt: Receipt) {
        if let Some(seat) = self.seats.get_mut(&receipt.seat) {
            seat.rejected(receipt.delivery_tag);
        }
    }

    fn announce(&mut self, lane: &Lane) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        if !std::mem::replace(&mut served.announced, true) {
            self.turns.push_back(lane.clone());
        }
        true
    }

    /// Whoever consumes the lane is to let go of it.
    fn begin_anew(&mut self, lane: &Lane) {
        if let Some(served) = self.served.get_mut(lane) {
            served.generation += 1;
            self.clear(lane);
        }
    }

    /// Forgets what came over a lane's channel, and the channel.
    fn clear(&mut self, lane: &Lane) {
        let Some(served) = self.served.get_mut(lane) else {
            return;
        };
        served.waiting.clear();
        if let Some(seat) = served.seat.take() {
            self.seats.remove(&seat);
        }
        self.out.retain(|_, (of, _)| of != lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        name.parse().unwrap()
    }

    fn arrived(delivery_tag: u64) -> Arrived {
        Arrived {
            delivery_tag,
            body: Bytes::from(delivery_tag.to_string()),
            trace: None,
            redelivered: false,
        }
    }

    /// A desk that consumes `a.bulk` on channel 1 and `b.bulk` on channel 2.
    fn desk() -> (Desk, Lane, Lane) {
        let (mut desk, a, b) = (Desk::default(), lane("a.bulk"), lane("b.bulk"));
        desk.add(&[a.clone(), b.clone()]);
        let plan = desk.plan(|_| Carrier::Own);
        assert!(!desk.is_attached());
        assert!(desk.consumed(&a, plan.consume[&a], SeatId(1)));
        assert!(desk.consumed(&b, plan.consume[&b], SeatId(2)));
        assert!(desk.is_attached());
        (desk, a, b)
    }

    fn tag(incoming: Option<Incoming>) -> u64 {
        match incoming {
            Some(Incoming::Delivery(delivery)) => delivery.tag,
            other => panic!("a delivery was expected, not {other:?}"),
        }
    }

    #[test]
    fn a_pause_and_a_resumption_before_anybody_looks_still_begin_anew() {
        let (mut desk, a, _) = desk();
        let before = desk.plan(|_| Carrier::Own).consume[&a];
        assert!(desk.arrive(&a, SeatId(1), arrived(1)));
        assert!(desk.arrive(&a, SeatId(1), arrived(2)));
        let out = tag(desk.take());
        desk.pause(&a);
        assert_eq!(desk.take(), None);
        assert!(!desk.plan(|_| Carrier::Own).consume.contains_key(&a));
        desk.resume(&a);
        assert!(!desk.arrive(&a, SeatId(1), arrived(3)), "its channel is to be closed");
        assert!(
            !desk.consumed(&a, before, SeatId(3)),
            "that was wanted before the pause"
        );
        assert_ne!(desk.plan(|_| Carrier::Own).consume[&a], before);
        assert_eq!(desk.settle(&[out]), [], "the old tag means nothing");
    }

    #[test]
    fn a_lane_that_loses_its_queue_is_heard_of_by_wake_ups() {
        let (mut desk, a, b) = desk();
        assert!(desk.arrive(&a, SeatId(1), arrived(1)));
        let plan = desk.plan(|lane| if *lane == a { Carrier::Ledger } else { Carrier::Own });
        assert_eq!((plan.consume.len(), plan.consume.contains_key(&b)), (1, true));
        assert_eq!(plan.hear, BTreeSet::from([a.clone()]));
        assert!(!desk.is_attached());
        desk.hears(plan.hear);
        assert!(desk.is_attached());
        assert_eq!(desk.take(), None, "what was consumed is given back");
        desk.wake(&a);
        desk.wake(&a);
        assert_eq!(desk.take(), Some(Incoming::WakeUp(a)));
        assert_eq!(desk.take(), None);
    }

    #[test]
    fn a_lost_channel_takes_along_what_came_over_it_and_nothing_else() {
        let (mut desk, a, b) = desk();
        assert!(desk.arrive(&a, SeatId(1), arrived(1)));
        assert!(desk.arrive(&b, SeatId(2), arrived(1)));
        assert_eq!((desk.idle(&a), desk.idle(&b)), (None, None));
        let (first, second) = (tag(desk.take()), tag(desk.take()));
        desk.lost(&a, SeatId(2));
        assert!(desk.is_attached(), "channel 2 is not that of lane a");
        desk.lost(&a, SeatId(1));
        assert!(!desk.is_attached());
        assert_eq!(desk.settle(&[first]), []);
        assert_eq!(desk.settle(&[second]).len(), 1);
        assert_eq!((desk.idle(&a), desk.idle(&b)), (Some(1), Some(1)));
    }
}
