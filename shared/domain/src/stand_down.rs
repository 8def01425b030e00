//! Which signers may stand down: a share of the live holders of each issuer's key, and never the last one.
//!
//! A signer that is slow or flickers asks before it stops taking jobs, because all of them may be slow at once, and somebody must serve.
//! Whoever answers counts and decides in one transaction of the store, so that two who ask at the same instant are counted one after the
//! other.

use std::{collections::BTreeMap, fmt};

use crate::id::{Incarnation, IssuerId};

/// A signer whose lease lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub signer: Incarnation,
    /// Issuers that it can sign for.
    pub issuers: Vec<IssuerId>,
    /// Whether it has a permit.
    pub stands_down: bool,
}

/// The answer to a signer that asks whether it may stand down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// It may, until its lease ends, it gives the permit back, or it asks again and is refused.
    Granted,
    /// It may not, and has no permit any more if it had one.
    Refused(Refusal),
}

/// Why a signer may not stand down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It has no lease: nobody counts on it anyway.
    NoLease,
    /// Nobody else who takes jobs holds this issuer's key.
    LastHolder(IssuerId),
    /// As many holders of this issuer's key stand down as may.
    Share(IssuerId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLease => f.write_str("it has no lease"),
            Self::LastHolder(issuer) => write!(f, "nobody else takes jobs for issuer {issuer}"),
            Self::Share(issuer) => write!(f, "too many that hold the key of issuer {issuer} stand down already"),
        }
    }
}

/// How many of so many holders may stand down, `percent` of them (0 to 100) being the most.
const fn most(holders: usize, percent: u8) -> usize {
    let share = holders * percent as usize / 100;
    if share < holders {
        share
    } else {
        holders.saturating_sub(1)
    }
}

/// Whether `asking` may stand down beside those that have a permit already. `live` are all signers whose lease lasts, itself included.
pub fn decide(asking: &Incarnation, live: &[Holder], percent: u8) -> Permit {
    let Some(own) = live.iter().find(|holder| holder.signer == *asking) else {
        return Permit::Refused(Refusal::NoLease);
    };
    // Of each of its issuers: holders, and those that would stand down.
    let mut counts: BTreeMap<&IssuerId, (usize, usize)> = own.issuers.iter().map(|issuer| (issuer, (1, 1))).collect();
    for other in live.iter().filter(|holder| holder.signer != *asking) {
        for issuer in &other.issuers {
            if let Some((holders, down)) = counts.get_mut(issuer) {
                *holders += 1;
                *down += usize::from(other.stands_down);
            }
        }
    }
    for (issuer, (holders, down)) in counts {
        if down > most(holders, percent) {
            return Permit::Refused(if down == holders {
                Refusal::LastHolder(issuer.clone())
            } else {
                Refusal::Share(issuer.clone())
            });
        }
    }
    Permit::Granted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str, issuers: &[&str], stands_down: bool) -> Holder {
        Holder {
            signer: format!("{name}#00000000000000ff").parse().unwrap(),
            issuers: issuers.iter().map(|issuer| issuer.parse().unwrap()).collect(),
            stands_down,
        }
    }

    fn ask(live: &[Holder], percent: u8) -> Permit {
        decide(&live[0].signer, live, percent)
    }

    #[test]
    fn a_share_is_rounded_down_and_never_everybody() {
        let counted = |percent| (0..=5).map(|holders| most(holders, percent)).collect::<Vec<_>>();
        assert_eq!(counted(50), [0, 0, 1, 1, 2, 2]);
        assert_eq!(counted(100), [0, 0, 1, 2, 3, 4]);
        assert_eq!(counted(0), [0; 6]);
    }

    #[test]
    fn the_last_who_takes_jobs_is_refused_whoever_else_holds_the_key() {
        let alone = [holder("a", &["x"], false)];
        let last = Permit::Refused(Refusal::LastHolder("x".parse().unwrap()));
        assert_eq!(ask(&alone, 100), last);
        let others_down = [holder("a", &["x"], false), holder("b", &["x"], true)];
        assert_eq!(ask(&others_down, 100), last);
        let well = [holder("a", &["x"], false), holder("b", &["x"], false)];
        assert_eq!(ask(&well, 50), Permit::Granted);
    }

    #[test]
    fn each_issuer_is_counted_by_itself() {
        // Of `y` there is nobody else, whatever there is of `x`.
        let live = [
            holder("a", &["x", "y"], false),
            holder("b", &["x"], false),
            holder("c", &["x"], false),
        ];
        assert_eq!(
            ask(&live, 50),
            Permit::Refused(Refusal::LastHolder("y".parse().unwrap()))
        );
        let three = [
            holder("a", &["x"], false),
            holder("b", &["x"], true),
            holder("c", &["x"], false),
        ];
        assert_eq!(ask(&three, 50), Permit::Refused(Refusal::Share("x".parse().unwrap())));
        assert_eq!(ask(&three, 67), Permit::Granted);
        // Who stands down for other issuers takes nothing from these.
        let elsewhere = [
            holder("a", &["x"], false),
            holder("b", &["x"], false),
            holder("c", &["z"], true),
        ];
        assert_eq!(ask(&elsewhere, 50), Permit::Granted);
    }

    #[test]
    fn who_asks_again_keeps_its_permit_only_while_it_would_get_one() {
        let two = [holder("a", &["x"], true), holder("b", &["x"], false)];
        assert_eq!(ask(&two, 50), Permit::Granted);
        let alone = [holder("a", &["x"], true)];
        assert!(matches!(ask(&alone, 50), Permit::Refused(_)));
        let nobody = decide(&alone[0].signer, &[], 50);
        assert_eq!(nobody, Permit::Refused(Refusal::NoLease));
    }

    #[test]
    fn who_serves_nothing_is_missed_by_nobody() {
        assert_eq!(ask(&[holder("a", &[], false)], 50), Permit::Granted);
    }
}
