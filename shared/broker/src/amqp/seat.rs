//! Which deliveries of one channel are finished, and the fewest acknowledgements that say so.
//!
//! A broker numbers the deliveries of a channel 1, 2, 3, ...; several consumers share it, so they are not seen in that order. Acknowledging
//! "all up to here" is only right when everything up to there has been seen and finished: an acknowledgement of what nobody has looked at
//! loses it, and one that comes a second time closes the channel.

use std::collections::BTreeSet;

/// An acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    pub delivery_tag: u64,
    /// Of this one and all before it.
    pub multiple: bool,
}

/// The deliveries of one channel.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// All up to this one are finished.
    floor: u64,
    /// Finished ones above it.
    finished: BTreeSet<u64>,
}

impl Seat {
    /// Finishes these with acknowledgements, which must be sent in this order before any others of the same channel.
    pub fn acknowledge(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<Acknowledgement> {
        let mut tags: BTreeSet<u64> = tags.into_iter().collect();
        let (mut together, mut count) = (0, 0);
        loop {
            let next = self.floor + 1;
            if tags.remove(&next) {
                (together, count) = (next, count + 1);
            } else if !self.finished.remove(&next) {
                break;
            }
            self.floor = next;
        }
        let together = (count > 0).then_some(Acknowledgement {
            delivery_tag: together,
            multiple: count > 1,
        });
        self.finished.extend(&tags);
        let alone = tags.into_iter().map(|delivery_tag| Acknowledgement {
            delivery_tag,
            multiple: false,
        });
        together.into_iter().chain(alone).collect()
    }

    /// This one was rejected, and the broker has been told.
    pub fn rejected(&mut self, tag: u64) {
        self.finished.insert(tag);
        while self.finished.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn multiple(delivery_tag: u64) -> Acknowledgement {
        Acknowledgement {
            delivery_tag,
            multiple: true,
        }
    }

    fn alone(delivery_tag: u64) -> Acknowledgement {
        Acknowledgement {
            delivery_tag,
            multiple: false,
        }
    }

    #[test]
    fn a_run_from_the_first_is_acknowledged_at_once_and_a_gap_stops_it() {
        let mut seat = Seat::default();
        assert_eq!(seat.acknowledge([1, 2, 3]), [multiple(3)]);
        assert_eq!(seat.acknowledge([5, 6]), [alone(5), alone(6)]);
        assert_eq!(seat.acknowledge([4]), [alone(4)]);
        assert_eq!(seat.acknowledge([7]), [alone(7)]);
        seat.rejected(9);
        assert_eq!(seat.acknowledge([8, 10]), [multiple(10)]);
        seat.rejected(11);
        assert_eq!(seat.acknowledge([12, 13]), [multiple(13)]);
    }

    proptest! {
        /// Against a model of the broker: everything is acknowledged or rejected exactly once, and only what was asked for.
        #[test]
        fn the_broker_hears_of_each_delivery_once(
            order in Just((1..60_u64).collect::<Vec<_>>()).prop_shuffle(),
            sizes in proptest::collection::vec(1..8_usize, 1..10),
            rejects in proptest::collection::vec(any::<bool>(), 1..20),
        ) {
            let mut seat = Seat::default();
            let mut unheard: BTreeSet<u64> = (1..60).collect();
            let (mut rest, mut round) = (order.as_slice(), 0);
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(sizes[round % sizes.len()].min(rest.len()));
                let before = unheard.clone();
                if rejects[round % rejects.len()] {
                    for tag in batch {
                        prop_assert!(unheard.remove(tag));
                        seat.rejected(*tag);
                    }
                } else {
                    for acknowledgement in seat.acknowledge(batch.iter().copied()) {
                        let tag = acknowledgement.delivery_tag;
                        prop_assert!(unheard.contains(&tag), "{tag} is unknown to the broker");
                        unheard.retain(|other| *other > tag || (*other < tag && !acknowledgement.multiple));
                    }
                }
                let heard: BTreeSet<u64> = before.difference(&unheard).copied().collect();
                prop_assert_eq!(heard, batch.iter().copied().collect::<BTreeSet<u64>>());
                (rest, round) = (after, round + 1);
            }
            prop_assert_eq!(seat.acknowledge([60, 61]), [multiple(61)]);
        }
    }
}
