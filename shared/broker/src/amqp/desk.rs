//! What a signer's inbox holds, without tasks or waiting: which lanes it serves and from where, what has arrived, what is out. One mutex
//! holds all of it, never across an await.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use domain::lane::{Carrier, Lane};

use super::seat::{Acknowledgement, Seat};
use crate::{Delivery, Incoming};

/// A channel, for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeatId(pub u64);

/// A consumer, for as long as it consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConsumerId(pub u64);

/// A delivery as the broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub seat: SeatId,
    pub delivery_tag: u64,
}

/// A message that has arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub receipt: Receipt,
    pub body: Bytes,
    pub trace: Option<Arc<str>>,
    pub redelivered: bool,
}

/// Who consumes a lane's queue for this inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consuming {
    pub consumer: ConsumerId,
    pub seat: SeatId,
}

/// What has to be done so that this inbox gets what it wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Consumers that are to stop.
    pub stop: Vec<(Lane, Consuming)>,
    /// What is then to be given back.
    pub give_back: Vec<Receipt>,
    /// Lanes whose queues are to be consumed.
    pub consume: Vec<Lane>,
    /// Lanes whose wake-ups are to be heard; all others are not.
    pub hear: BTreeSet<Lane>,
    /// Lanes with queues of their own, those included that are consumed already.
    pub own: usize,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    served: HashMap<Lane, Served>,
    /// Lanes that have something, each once, in turn.
    turns: VecDeque<Lane>,
    out: HashMap<u64, (Lane, Receipt)>,
    next_tag: u64,
    seats: HashMap<SeatId, Seat>,
    /// What a pause took back, and the broker has not been told.
    taken_back: Vec<Receipt>,
}

#[derive(Debug, Default)]
struct Served {
    paused: bool,
    waiting: VecDeque<Arrived>,
    wake_up: bool,
    /// Whether the lane is among the turns.
    announced: bool,
    /// How many envelopes have ever come.
    arrivals: u64,
    consumption: Consumption,
}

/// How a lane's queue is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Consumption {
    #[default]
    None,
    By(Consuming),
    /// This one is to stop, whatever is wanted afterwards.
    Stopping(Consuming),
}

impl Desk {
    /// Serves these as well.
    pub fn add(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            self.served.entry(lane.clone()).or_default();
        }
    }

    /// Stops what comes of a lane and takes back what is out of it.
    pub fn pause(&mut self, lane: &Lane) {
        let Some(served) = self.served.get_mut(lane) else {
            return;
        };
        served.paused = true;
        self.withdraw(lane);
    }

    /// Starts it again. Whether there is something for [`Desk::take`] now.
    pub fn resume(&mut self, lane: &Lane) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        served.paused = false;
        served.wake_up && self.announce(lane)
    }

    /// What a lane's consumer has brought. `false`: it is not wanted any more, and goes back.
    pub fn arrive(&mut self, lane: &Lane, consumer: ConsumerId, arrived: Arrived) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        let by_it = matches!(served.consumption, Consumption::By(by) if by.consumer == consumer);
        if !by_it || served.paused {
            return false;
        }
        served.waiting.push_back(arrived);
        served.arrivals += 1;
        self.announce(lane);
        true
    }

    /// Lanes that are consumed and of which nothing is here, and how many envelopes of each have ever come.
    pub fn idle(&self) -> Vec<(Lane, u64)> {
        let out: BTreeSet<&Lane> = self.out.values().map(|(lane, _)| lane).collect();
        let idle = self.served.iter().filter(|(lane, served)| {
            matches!(served.consumption, Consumption::By(_)) && served.waiting.is_empty() && !out.contains(lane)
        });
        idle.map(|(lane, served)| (lane.clone(), served.arrivals)).collect()
    }

    /// The channel that a lane is consumed on.
    pub fn seat_of(&self, lane: &Lane) -> Option<SeatId> {
        match self.served.get(lane)?.consumption {
            Consumption::By(consuming) => Some(consuming.seat),
            Consumption::None | Consumption::Stopping(_) => None,
        }
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
            let Some(arrived) = served.waiting.pop_front() else {
                continue;
            };
            if !served.waiting.is_empty() {
                self.announce(&lane);
            }
            self.next_tag += 1;
            let tag = self.next_tag;
            self.out.insert(tag, (lane.clone(), arrived.receipt));
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
        tags.iter()
            .filter_map(|tag| self.out.remove(tag))
            .map(|(_, receipt)| receipt)
            .collect()
    }

    /// The broker has been told that this one goes back.
    pub fn rejected(&mut self, receipt: Receipt) {
        if let Some(seat) = self.seats.get_mut(&receipt.seat) {
            seat.rejected(receipt.delivery_tag);
        }
    }

    /// What is to be done. Lanes travel as `carrier` says.
    pub fn plan(&mut self, carrier: impl Fn(&Lane) -> Carrier) -> Plan {
        let mut plan = Plan::default();
        let carried: Vec<(Lane, Carrier)> = self.served.keys().map(|lane| (lane.clone(), carrier(lane))).collect();
        for (lane, carrier) in carried {
            let Some(served) = self.served.get_mut(&lane) else {
                continue;
            };
            let wanted = carrier == Carrier::Own && !served.paused;
            if !wanted && matches!(served.consumption, Consumption::By(_)) {
                self.withdraw(&lane);
            }
            let Some(served) = self.served.get_mut(&lane) else {
                continue;
            };
            if let Consumption::Stopping(consuming) = served.consumption {
                plan.stop.push((lane.clone(), consuming));
                served.consumption = Consumption::None;
            }
            match carrier {
                Carrier::Own => plan.own += 1,
                Carrier::Ledger => {
                    plan.hear.insert(lane.clone());
                }
            }
            if wanted && served.consumption == Consumption::None {
                plan.consume.push(lane);
            }
        }
        plan.give_back = std::mem::take(&mut self.taken_back);
        plan
    }

    /// A channel is open.
    pub fn seated(&mut self, seat: SeatId) {
        self.seats.insert(seat, Seat::default());
    }

    /// A lane is consumed.
    pub fn consumed(&mut self, lane: &Lane, consuming: Consuming) {
        if let Some(served) = self.served.get_mut(lane) {
            served.consumption = Consumption::By(consuming);
        }
    }

    /// A consumer has ended by itself. What it brought stays, as long as its channel is open. Whether it was the lane's.
    pub fn ended(&mut self, lane: &Lane, consumer: ConsumerId) -> bool {
        let Some(served) = self.served.get_mut(lane) else {
            return false;
        };
        let was = matches!(served.consumption, Consumption::By(by) if by.consumer == consumer);
        if was {
            served.consumption = Consumption::None;
        }
        was
    }

    /// A channel is lost, and the broker gives to others what was out of it.
    pub fn lose(&mut self, seat: SeatId) {
        self.seats.remove(&seat);
        self.out.retain(|_, (_, receipt)| receipt.seat != seat);
        self.taken_back.retain(|receipt| receipt.seat != seat);
        for served in self.served.values_mut() {
            served.waiting.retain(|arrived| arrived.receipt.seat != seat);
            if let Consumption::By(by) | Consumption::Stopping(by) = served.consumption
                && by.seat == seat
            {
                served.consumption = Consumption::None;
            }
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

    /// Takes back what a lane's consumer has brought.
    fn withdraw(&mut self, lane: &Lane) {
        let Some(served) = self.served.get_mut(lane) else {
            return;
        };
        if let Consumption::By(consuming) = served.consumption {
            served.consumption = Consumption::Stopping(consuming);
        }
        self.taken_back
            .extend(served.waiting.drain(..).map(|arrived| arrived.receipt));
        let taken_back = &mut self.taken_back;
        self.out.retain(|_, (of, receipt)| {
            let ends = of == lane;
            if ends {
                taken_back.push(*receipt);
            }
            !ends
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        name.parse().unwrap()
    }

    fn arrived(seat: u64, delivery_tag: u64) -> Arrived {
        Arrived {
            receipt: receipt(seat, delivery_tag),
            body: Bytes::from(delivery_tag.to_string()),
            trace: None,
            redelivered: false,
        }
    }

    fn receipt(seat: u64, delivery_tag: u64) -> Receipt {
        Receipt {
            seat: SeatId(seat),
            delivery_tag,
        }
    }

    fn consuming(consumer: u64, seat: u64) -> Consuming {
        Consuming {
            consumer: ConsumerId(consumer),
            seat: SeatId(seat),
        }
    }

    /// A desk that consumes lane `a.bulk` by consumer 1 on channel 1.
    fn desk() -> (Desk, Lane) {
        let (mut desk, a) = (Desk::default(), lane("a.bulk"));
        desk.add(std::slice::from_ref(&a));
        assert_eq!(desk.plan(|_| Carrier::Own).consume, std::slice::from_ref(&a));
        desk.seated(SeatId(1));
        desk.consumed(&a, consuming(1, 1));
        assert_eq!(desk.plan(|_| Carrier::Own).consume, []);
        (desk, a)
    }

    fn tag(incoming: Option<Incoming>) -> u64 {
        match incoming {
            Some(Incoming::Delivery(delivery)) => delivery.tag,
            other => panic!("a delivery was expected, not {other:?}"),
        }
    }

    #[test]
    fn a_pause_and_a_resumption_before_anybody_looks_still_give_everything_back() {
        let (mut desk, a) = desk();
        assert!(desk.arrive(&a, ConsumerId(1), arrived(1, 1)));
        assert!(desk.arrive(&a, ConsumerId(1), arrived(1, 2)));
        let out = tag(desk.take());
        desk.pause(&a);
        assert_eq!(desk.take(), None);
        desk.resume(&a);
        assert!(
            !desk.arrive(&a, ConsumerId(1), arrived(1, 3)),
            "its consumer is to stop"
        );
        let plan = desk.plan(|_| Carrier::Own);
        assert_eq!(plan.stop, [(a.clone(), consuming(1, 1))]);
        assert_eq!(plan.give_back, [receipt(1, 2), receipt(1, 1)]);
        assert_eq!(plan.consume, [a]);
        assert_eq!(desk.settle(&[out]), [], "the old tag means nothing");
    }

    #[test]
    fn a_lane_that_loses_its_queue_is_heard_of_by_wake_ups() {
        let (mut desk, a) = desk();
        assert!(desk.arrive(&a, ConsumerId(1), arrived(1, 1)));
        let plan = desk.plan(|_| Carrier::Ledger);
        assert_eq!(plan.stop, [(a.clone(), consuming(1, 1))]);
        assert_eq!(plan.give_back, [receipt(1, 1)]);
        assert_eq!((plan.consume.len(), plan.hear.contains(&a)), (0, true));
        desk.wake(&a);
        desk.wake(&a);
        assert_eq!(desk.take(), Some(Incoming::WakeUp(a.clone())));
        assert_eq!(desk.take(), None);
        assert_eq!(desk.plan(|_| Carrier::Own).consume, [a]);
    }

    #[test]
    fn a_lost_channel_takes_along_what_came_over_it_and_nothing_else() {
        let (mut desk, a) = desk();
        let b = lane("b.bulk");
        desk.add(std::slice::from_ref(&b));
        desk.seated(SeatId(2));
        desk.consumed(&b, consuming(2, 2));
        assert!(desk.arrive(&a, ConsumerId(1), arrived(1, 1)));
        assert!(desk.arrive(&b, ConsumerId(2), arrived(2, 1)));
        let first = tag(desk.take());
        let second = tag(desk.take());
        desk.lose(SeatId(1));
        assert_eq!(desk.settle(&[first]), []);
        assert_eq!(desk.settle(&[second]).len(), 1);
        assert_eq!(desk.plan(|_| Carrier::Own).consume, [a]);
    }

    #[test]
    fn what_a_cancelled_consumer_brought_can_still_be_settled() {
        let (mut desk, a) = desk();
        assert!(desk.arrive(&a, ConsumerId(1), arrived(1, 1)));
        assert!(desk.ended(&a, ConsumerId(1)));
        assert!(!desk.ended(&a, ConsumerId(1)));
        let out = tag(desk.take());
        assert_eq!(desk.settle(&[out]).len(), 1);
        assert_eq!(desk.plan(|_| Carrier::Own).consume, [a]);
    }
}
