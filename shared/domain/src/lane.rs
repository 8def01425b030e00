//! Classes and lanes: what is kept apart from what.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::{InvalidName, IssuerId};

/// Criticality. Fixed by the profile, never by the request. The order is the order of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody waits.
    Interactive,
    /// OCSP signers, short-lived certificates.
    Renewal,
    /// Everything else.
    Bulk,
}

impl Class {
    /// All classes, in order of service.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Renewal, Self::Bulk];

    /// The class as text, as in a lane's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Renewal => "renewal",
            Self::Bulk => "bulk",
        }
    }

    /// How many jobs of this class one envelope may carry.
    pub const fn envelope_jobs(self) -> usize {
        match self {
            Self::Interactive => 4,
            Self::Renewal | Self::Bulk => 16,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a class or a lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLane {
    /// The class is none of the three.
    #[error("{0:?} is not a class: use interactive, renewal or bulk")]
    Class(String),
    /// There is no dot.
    #[error("{0:?} is not a lane: write ISSUER.CLASS")]
    Shape(String),
    /// The issuer is not a name.
    #[error(transparent)]
    Issuer(#[from] InvalidName),
}

impl FromStr for Class {
    type Err = InvalidLane;
    fn from_str(text: &str) -> Result<Self, InvalidLane> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| InvalidLane::Class(text.into()))
    }
}

/// The open jobs of one issuer and class: the unit of isolation, of depth, of pausing and of parking. Written `issuer.class`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane {
    /// Who signs.
    pub issuer: IssuerId,
    /// How urgent it is.
    pub class: Class,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.issuer, self.class)
    }
}
impl FromStr for Lane {
    type Err = InvalidLane;
    fn from_str(text: &str) -> Result<Self, InvalidLane> {
        let (issuer, class) = text.rsplit_once('.').ok_or_else(|| InvalidLane::Shape(text.into()))?;
        Ok(Self {
            issuer: issuer.parse()?,
            class: class.parse()?,
        })
    }
}

/// How a lane's jobs reach signers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// A queue of its own on the broker.
    Own,
    /// Only wake-ups travel; signers claim from the ledger.
    Ledger,
}

/// Which lanes get queues of their own on a broker: at most `limit`, the most urgent classes first and within a class those that stand
/// first in `lanes`, so everybody who knows the same registry settles the same.
pub fn own_lanes(lanes: impl IntoIterator<Item = Lane>, limit: usize) -> BTreeSet<Lane> {
    let mut lanes: Vec<Lane> = lanes.into_iter().collect();
    lanes.sort_by_key(|lane| lane.class);
    lanes.truncate(limit);
    lanes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_back_even_when_its_issuer_has_dots() {
        let lane = Lane {
            issuer: "example.com-2026".parse().unwrap(),
            class: Class::Renewal,
        };
        assert_eq!(lane.to_string().parse::<Lane>(), Ok(lane));
        assert!("no-dot".parse::<Lane>().is_err());
        assert!("a.urgent".parse::<Lane>().is_err());
    }

    #[test]
    fn the_urgent_and_then_the_first_get_queues_of_their_own() {
        let lanes = ["z.bulk", "z.interactive", "a.renewal", "a.interactive", "m.interactive"];
        let own = |limit| {
            let own = own_lanes(lanes.map(|lane| lane.parse().unwrap()), limit);
            own.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(own(0), Vec::<String>::new());
        assert_eq!(own(2), ["a.interactive", "z.interactive"]);
        assert_eq!(own(4), ["a.interactive", "a.renewal", "m.interactive", "z.interactive"]);
        assert_eq!(own(9).len(), lanes.len());
    }
}
