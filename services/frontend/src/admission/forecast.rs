//! What this front end knows of each lane's wait: what the ledger and the signers say, read twice a second, and what has come here since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{
    estimate::{Decision, Estimate, FRESH, Key, Look},
    id::IssuerId,
    issuer::Role,
    lane::Lane,
    time::Timestamp,
};
use store::{Announced, Announcement, Signed, Store, StoreError};
use tokio::time::{Instant, timeout};

/// How often ledger and signers are looked at, and how long that may take.
pub const EVERY: Duration = Duration::from_millis(500);
const STORE: Duration = Duration::from_secs(2);

/// The estimates of all lanes.
#[derive(Debug)]
pub struct Forecast {
    started: Instant,
    lanes: Mutex<HashMap<Lane, Estimate>>,
}

impl Default for Forecast {
    /// Nothing is known yet, so nobody is refused.
    fn default() -> Self {
        Self {
            started: Instant::now(),
            lanes: Mutex::default(),
        }
    }
}

impl Forecast {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Estimate>> {
        // An estimate is whole between its operations, so a panic elsewhere cannot have left it half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a request whose client waits for `patience`.
    pub fn decide(&self, lane: &Lane, patience: Duration) -> Decision {
        let entropy = u64::from_be_bytes(runtime::clock::entropy());
        let now = self.started.elapsed();
        let mut lanes = self.lanes();
        // A lane that was never looked at says nothing.
        lanes
            .get_mut(lane)
            .map_or(Decision::Admit, |estimate| estimate.decide(now, patience, entropy))
    }

    /// A request goes on into its lane.
    pub fn arrived(&self, lane: &Lane) {
        let mut lanes = self.lanes();
        match lanes.get_mut(lane) {
            Some(estimate) => estimate.arrived(),
            None => lanes.entry(lane.clone()).or_default().arrived(),
        }
    }

    /// Looks at every lane in which something is open. `here` is what waits in this front end and is not in the ledger yet.
    pub async fn look(&self, store: &dyn Store, here: &[(Lane, usize)], now: Timestamp) -> Result<(), StoreError> {
        let late = |_| StoreError::Unavailable(format!("no answer within {STORE:?}"));
        let asked = async { tokio::try_join!(store.depths(), store.incarnations()) };
        let (depths, fleet) = timeout(STORE, asked).await.map_err(late)??;
        let signers = Signers::of(&fleet, now);
        let mut open: HashMap<Lane, u64> = depths.into_iter().collect();
        for (lane, waiting) in here {
            *open.entry(lane.clone()).or_default() += *waiting as u64;
        }
        let at = self.started.elapsed();
        let mut lanes = self.lanes();
        lanes.retain(|lane, estimate| open.contains_key(lane) || !estimate.is_idle());
        for lane in open.keys() {
            if !lanes.contains_key(lane) {
                lanes.insert(lane.clone(), Estimate::default());
            }
        }
        for (lane, estimate) in lanes.iter_mut() {
            estimate.look(Look {
                at,
                open: open.get(lane).copied().unwrap_or(0),
                key: signers.key(&lane.issuer),
                speed: signers.speed(lane),
            });
        }
        Ok(())
    }
}

/// What the signers that live say of themselves.
#[derive(Default)]
struct Signers<'a> {
    /// Issuers that one at least can sign for, and those whose breaker is not closed somewhere.
    usable: HashSet<&'a IssuerId>,
    shut: HashSet<&'a IssuerId>,
    /// Jobs that all of them together sign a second.
    speeds: HashMap<&'a Lane, f64>,
    /// How many there are, and whether each has said how fast it is, and of every lane.
    count: usize,
    silent: bool,
    brief: bool,
}

impl<'a> Signers<'a> {
    fn of(fleet: &'a [Announced], now: Timestamp) -> Self {
        let mut signers = Self::default();
        let lives = |announced: &&Announced| announced.lease_until > now && now.since(announced.seen) <= FRESH;
        for Announced { announcement, .. } in fleet.iter().filter(lives) {
            if announcement.role == Role::Signer {
                signers.hear(announcement);
            }
        }
        signers
    }

    fn hear(&mut self, said: &'a Announcement) {
        let shut: HashSet<&IssuerId> = said.breakers.iter().map(|(issuer, _)| issuer).collect();
        self.usable
            .extend(said.issuers.iter().filter(|issuer| !shut.contains(issuer)));
        self.shut.extend(shut);
        let Signed { over_ms, lanes } = &said.signed;
        let over = Duration::from_millis(*over_ms).as_secs_f64();
        if over > 0.0 {
            for (lane, jobs) in lanes {
                let jobs = f64::from(u32::try_from(*jobs).unwrap_or(u32::MAX));
                *self.speeds.entry(lane).or_default() += jobs / over;
            }
        }
        self.count += 1;
        self.silent |= over <= 0.0;
        self.brief |= lanes.len() >= Signed::MOST;
    }

    fn key(&self, issuer: &IssuerId) -> Key {
        match () {
            () if self.usable.contains(issuer) => Key::Usable,
            () if self.shut.contains(issuer) => Key::Unusable,
            // A signer that has just started has not looked for its keys yet.
            () if self.usable.is_empty() && self.shut.is_empty() => Key::Unknown,
            () => Key::Absent,
        }
    }

    /// Jobs of a lane that are signed a second. One that is not named has none, unless some are left out.
    fn speed(&self, lane: &Lane) -> Option<f64> {
        match self.speeds.get(lane) {
            _ if self.count == 0 || self.silent => None,
            None if self.brief => None,
            speed => Some(speed.copied().unwrap_or(0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::id::Incarnation;

    use super::*;

    fn announced(name: &str, issuers: &[&str], shut: &[&str], signed: &[(&str, u64)], seen: i64) -> Announced {
        let issuer = |name: &&str| name.parse::<IssuerId>().unwrap();
        let seen = Timestamp::from_millis(seen);
        Announced {
            announcement: Announcement {
                issuers: issuers.iter().map(issuer).collect(),
                breakers: shut.iter().map(|name| (issuer(name), "open".into())).collect(),
                signed: Signed {
                    over_ms: 500,
                    lanes: signed
                        .iter()
                        .map(|(lane, jobs)| (lane.parse().unwrap(), *jobs))
                        .collect(),
                },
                ..Announcement::new(
                    Incarnation {
                        node: name.parse().unwrap(),
                        run: 1,
                    },
                    Role::Signer,
                    1,
                )
            },
            lease_until: seen + Duration::from_secs(2),
            seen,
        }
    }

    #[test]
    fn a_key_is_usable_if_one_living_signer_can_use_it() {
        let fleet = [
            announced("one", &["a", "b", "c"], &["b", "c"], &[("a.bulk", 5)], 10_000),
            announced("two", &["a", "c"], &[], &[("a.bulk", 10), ("c.bulk", 1)], 10_000),
            announced("dead", &["a", "b", "d"], &[], &[("a.bulk", 100)], 7_000),
        ];
        let signers = Signers::of(&fleet, Timestamp::from_millis(10_100));
        let keys = ["a", "b", "c", "d"].map(|name| signers.key(&name.parse().unwrap()));
        assert_eq!(keys, [Key::Usable, Key::Unusable, Key::Usable, Key::Absent]);
        let speeds = ["a.bulk", "b.bulk", "c.bulk"].map(|lane| signers.speed(&lane.parse().unwrap()));
        assert_eq!(speeds, [Some(30.0), Some(0.0), Some(2.0)]);
    }

    #[test]
    fn a_speed_that_is_not_told_is_not_known() {
        let lane = |name: &str| name.parse::<Lane>().unwrap();
        let now = Timestamp::from_millis(10_100);
        let names: Vec<String> = (0..Signed::MOST).map(|n| format!("i{n}.bulk")).collect();
        let busiest: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
        let brief = [announced("one", &["a"], &[], &busiest, 10_000)];
        let signers = Signers::of(&brief, now);
        assert_eq!(
            (signers.speed(&lane("i7.bulk")), signers.speed(&lane("a.bulk"))),
            (Some(4.0), None)
        );
        let mut silent = [announced("one", &["a"], &[], &[("a.bulk", 5)], 10_000)];
        silent[0].announcement.signed.over_ms = 0;
        assert_eq!(Signers::of(&silent, now).speed(&lane("a.bulk")), None);
    }

    #[test]
    fn a_fleet_that_says_nothing_is_not_known_to_have_no_keys() {
        let issuer = "a".parse().unwrap();
        let lane = "a.bulk".parse().unwrap();
        let starting = [announced("one", &[], &[], &[], 10_000)];
        let dead = [announced("one", &["b"], &[], &[], 1_000)];
        for fleet in [&starting[..], &dead[..], &[]] {
            let signers = Signers::of(fleet, Timestamp::from_millis(10_100));
            assert_eq!(signers.key(&issuer), Key::Unknown);
        }
        assert_eq!(Signers::of(&dead, Timestamp::from_millis(10_100)).speed(&lane), None);
        // All that it has is broken: that is known.
        let gone = [announced("one", &[], &["a"], &[], 10_000)];
        assert_eq!(
            Signers::of(&gone, Timestamp::from_millis(10_100)).key(&issuer),
            Key::Unusable
        );
    }
}
