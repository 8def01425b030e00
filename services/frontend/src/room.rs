//! Places that are divided as the queues are: an issuer may hold as many as it leaves free and never more than half, and likewise each
//! account among those of its issuer. Whoever comes next finds one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::fair::{FairQueue, Full, Limits, Slot};

/// A bounded number of places.
#[derive(Debug, Clone)]
pub struct Room(Arc<Mutex<FairQueue<()>>>);

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Room,
    slot: Slot,
}

impl Room {
    /// A room of `total` places.
    pub fn new(total: usize) -> Self {
        let limits = Limits {
            total,
            per_lane: total.div_ceil(2),
        };
        Self(Arc::new(Mutex::new(FairQueue::new(limits))))
    }

    fn places(&self) -> MutexGuard<'_, FairQueue<()>> {
        // The queue is whole between its operations, so a panic elsewhere cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, or says whose share is used up.
    pub fn enter(&self, slot: &Slot) -> Result<Place, Full> {
        self.places().push(slot, 1, ()).map_err(|refused| refused.full)?;
        Ok(Place {
            room: self.clone(),
            slot: slot.clone(),
        })
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.places().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.places().remove(&self.slot, |()| true);
    }
}

#[cfg(test)]
mod tests {
    use domain::lane::Class;

    use super::*;

    fn slot(issuer: &str, account: &str) -> Slot {
        Slot {
            class: Class::Interactive,
            issuer: issuer.parse().unwrap(),
            account: account.parse().unwrap(),
        }
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_room_for_the_next_and_gives_its_places_back() {
        let room = Room::new(100);
        let fill = |slot: &Slot| std::iter::from_fn(|| room.enter(slot).ok()).collect::<Vec<_>>();
        let greedy = fill(&slot("a", "one"));
        assert!((20..=50).contains(&greedy.len()), "{}", greedy.len());
        let sibling = fill(&slot("a", "two"));
        assert!(!sibling.is_empty(), "another account of the issuer finds room");
        let other = fill(&slot("b", "three"));
        assert!(other.len() >= 20, "another issuer finds more: {}", other.len());
        assert_eq!(room.taken(), greedy.len() + sibling.len() + other.len());
        let before = greedy.len();
        drop((greedy, sibling, other));
        assert_eq!(room.taken(), 0);
        assert_eq!(fill(&slot("a", "one")).len(), before);
    }
}
