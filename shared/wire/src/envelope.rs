//! Jobs for signers: which jobs of one lane may be begun. A hint, and never more: it carries serials alone, and what is signed comes
//! from the ledger.

use bytes::Bytes;
use domain::{
    id::{NodeId, Serial},
    lane::Lane,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    signed::{self, Context, DocumentError, NodeKey, read_versioned, write_json},
    trust::Directory,
};

/// The only version so far. Others are set aside and reported.
pub const ENVELOPE_VERSION: u16 = 1;

/// Jobs of one lane that were accepted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`ENVELOPE_VERSION`].
    pub version: u16,
    /// Their lane.
    pub lane: Lane,
    /// Which: at least one, at most [`domain::lane::Class::envelope_jobs`].
    pub jobs: Vec<Serial>,
    /// When the front end sent it.
    pub sent_at: Timestamp,
}

impl Envelope {
    /// An envelope of the version that this program writes.
    pub fn new(lane: Lane, jobs: Vec<Serial>, sent_at: Timestamp) -> Self {
        Self {
            version: ENVELOPE_VERSION,
            lane,
            jobs,
            sent_at,
        }
    }

    /// Seals it.
    pub fn to_bytes(&self, key: &NodeKey) -> Bytes {
        signed::seal(Context::Envelope, key, &write_json(self))
    }

    /// Opens a sealed envelope: a front end says it, it is of a known version, and it holds as many jobs as its class may.
    pub fn open(sealed: &[u8], directory: &Directory, at: Timestamp) -> Result<(NodeId, Self), DocumentError> {
        let opened = signed::open(Context::Envelope, directory, at, sealed)?;
        let envelope: Self = read_versioned("envelope", ENVELOPE_VERSION, &opened.body)?;
        let (count, limit) = (envelope.jobs.len(), envelope.lane.class.envelope_jobs());
        if count == 0 || count > limit {
            let detail = format!(
                "{count} jobs of class {}, which takes 1 to {limit}",
                envelope.lane.class
            );
            return Err(DocumentError::Malformed {
                kind: "envelope",
                detail,
            });
        }
        Ok((opened.node, envelope))
    }
}

#[cfg(test)]
mod tests {
    use domain::lane::Class;
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::{Fleet, NOW};

    fn envelope(class: Class, jobs: u8) -> Envelope {
        let lane = Lane {
            issuer: "demo-p256".parse().unwrap(),
            class,
        };
        Envelope::new(lane, (0..jobs).map(|n| Serial::new(NOW, [n; 10])).collect(), NOW)
    }

    fn sealed(fleet: &Fleet, body: &str) -> Bytes {
        signed::seal(Context::Envelope, &fleet.frontend, body.as_bytes())
    }

    #[test]
    fn an_envelope_is_read_back_as_it_was_sealed() {
        let fleet = Fleet::new();
        let envelope = envelope(Class::Bulk, 16);
        let (node, opened) = Envelope::open(&envelope.to_bytes(&fleet.frontend), &fleet.directory, NOW).unwrap();
        assert_eq!((node.as_str(), opened), ("frontend-1", envelope));
    }

    #[test]
    fn an_envelope_holds_one_job_at_least_and_no_more_than_its_class_takes() {
        let fleet = Fleet::new();
        for (class, jobs, fits) in [
            (Class::Interactive, 0, false),
            (Class::Interactive, 1, true),
            (Class::Interactive, 4, true),
            (Class::Interactive, 5, false),
            (Class::Bulk, 17, false),
        ] {
            let sealed = envelope(class, jobs).to_bytes(&fleet.frontend);
            assert_eq!(
                Envelope::open(&sealed, &fleet.directory, NOW).is_ok(),
                fits,
                "{jobs} of {class}"
            );
        }
    }

    #[test]
    fn another_version_is_an_error_of_its_own_whatever_else_it_holds() {
        let fleet = Fleet::new();
        let sealed = sealed(&fleet, r#"{"version":2,"lanes":["new"]}"#);
        assert_eq!(
            Envelope::open(&sealed, &fleet.directory, NOW),
            Err(DocumentError::UnknownVersion {
                kind: "envelope",
                version: 2,
                known: 1
            })
        );
    }

    #[test]
    fn an_unknown_field_and_no_json_at_all_are_malformed() {
        let fleet = Fleet::new();
        let unknown = r#"{"version":1,"lane":{"issuer":"a","class":"bulk"},"jobs":["01000000000000000000000000000001"],"sent_at":0,"x":1}"#;
        for body in [unknown, "", "{}", "[1]", r#"{"version":-1}"#, "\u{0}"] {
            assert!(
                matches!(
                    Envelope::open(&sealed(&fleet, body), &fleet.directory, NOW),
                    Err(DocumentError::Malformed { .. })
                ),
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_altered_byte_of_an_envelope_is_found(at: prop::sample::Index, flip in 1..=255_u8) {
            let fleet = Fleet::shared();
            let mut sealed = envelope(Class::Interactive, 3).to_bytes(&fleet.frontend).to_vec();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(Envelope::open(&sealed, &fleet.directory, NOW).is_err());
        }
    }
}
