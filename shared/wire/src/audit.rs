//! Audit chains: each writer links its flushes by hash and signs each link, so that a row removed, altered or put elsewhere is found.
//!
//! A tail that was cut off is found against a head that was written down elsewhere (a heartbeat, an anchor): [`verify_head`].

use domain::{
    audit::{AuditEvent, AuditLink},
    bytes::{Blob, Digest},
    id::NodeId,
    time::Timestamp,
};

use crate::{
    attest::merkle_root,
    signed::{Context, NodeKey, sha256, write_json},
    trust::{Directory, Distrust},
};

/// The hash before the first link.
pub const BEGINNING: Digest = Digest([0; 32]);

fn hash_of(link: &AuditLink) -> Digest {
    let events: Vec<&[u8]> = link.events.iter().map(|event| &event[..]).collect();
    sha256(&[
        Context::Audit.label().as_bytes(),
        &[0],
        link.writer.as_str().as_bytes(),
        &[0],
        &link.sequence.to_be_bytes(),
        &link.at.as_millis().to_be_bytes(),
        &link.previous.0,
        &merkle_root(&events).0,
    ])
}

/// The link that follows `last` (the writer's head; `None` at the beginning of its chain) and records `events`.
pub fn link(key: &NodeKey, last: Option<&AuditLink>, events: &[AuditEvent], at: Timestamp) -> AuditLink {
    let mut link = AuditLink {
        writer: key.node().clone(),
        sequence: last.map_or(1, |last| last.sequence + 1),
        at,
        previous: last.map_or(BEGINNING, |last| last.hash),
        events: events.iter().map(|event| Blob(write_json(event))).collect(),
        hash: BEGINNING,
        signature: Blob::default(),
    };
    link.hash = hash_of(&link);
    link.signature = Blob(key.sign(Context::Audit, &link.hash.0));
    link
}

/// Where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A link is missing, or two were exchanged.
    #[error("audit chain of {writer}: link {found} stands where {expected} belongs; rows were removed or moved")]
    Gap {
        /// Whose chain.
        writer: NodeId,
        /// Sequence that should be here.
        expected: u64,
        /// Sequence that is here.
        found: u64,
    },
    /// A link belongs to another writer.
    #[error("audit chain of {writer}: link {sequence} is another writer's")]
    Foreign {
        /// Whose chain.
        writer: NodeId,
        /// Which link.
        sequence: u64,
    },
    /// A link does not follow from the one before it.
    #[error("audit chain of {writer}: link {sequence} does not follow the one before it")]
    Unchained {
        /// Whose chain.
        writer: NodeId,
        /// Which link.
        sequence: u64,
    },
    /// A link was altered.
    #[error("audit chain of {writer}: link {sequence} was altered")]
    Altered {
        /// Whose chain.
        writer: NodeId,
        /// Which link.
        sequence: u64,
    },
    /// A link's signature does not hold.
    #[error("audit chain of {writer}: link {sequence}: {reason}")]
    Unsigned {
        /// Whose chain.
        writer: NodeId,
        /// Which link.
        sequence: u64,
        /// Why.
        reason: Distrust,
    },
    /// The chain ends before a head that is known from elsewhere.
    #[error(
        "audit chain of {writer} does not reach link {sequence}, which is known from elsewhere; its tail was cut off"
    )]
    CutOff {
        /// Whose chain.
        writer: NodeId,
        /// The known head.
        sequence: u64,
    },
}

/// Verifies consecutive links of one writer, after `last` (`None`: from the beginning).
pub fn verify(links: &[AuditLink], last: Option<&AuditLink>, directory: &Directory) -> Result<(), Broken> {
    let mut before = last;
    for link in links {
        let (writer, sequence) = (link.writer.clone(), link.sequence);
        let expected = before.map_or(1, |before| before.sequence + 1);
        if let Some(before) = before.filter(|before| before.writer != writer) {
            return Err(Broken::Foreign {
                writer: before.writer.clone(),
                sequence,
            });
        }
        if sequence != expected {
            return Err(Broken::Gap {
                writer,
                expected,
                found: sequence,
            });
        }
        if link.previous != before.map_or(BEGINNING, |before| before.hash) {
            return Err(Broken::Unchained { writer, sequence });
        }
        if link.hash != hash_of(link) {
            return Err(Broken::Altered { writer, sequence });
        }
        directory
            .verify(Context::Audit, &writer, link.at, &link.hash.0, &link.signature)
            .map_err(|reason| Broken::Unsigned {
                writer,
                sequence,
                reason,
            })?;
        before = Some(link);
    }
    Ok(())
}

/// Verifies that a chain whose last link is `end` contains a head that is known from elsewhere. `at_known` is the chain's own link with
/// the head's sequence, if it has one.
pub fn verify_head(at_known: Option<&AuditLink>, known: &AuditLink) -> Result<(), Broken> {
    let (writer, sequence) = (known.writer.clone(), known.sequence);
    match at_known {
        Some(link) if link.hash == known.hash => Ok(()),
        Some(_) => Err(Broken::Altered { writer, sequence }),
        None => Err(Broken::CutOff { writer, sequence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{Fleet, NOW};

    fn event(kind: &str) -> AuditEvent {
        AuditEvent {
            at: NOW,
            kind: kind.into(),
            by: "operator:alice".into(),
            subject: "issuer:demo".into(),
            reason: Some("ceremony".into()),
            count: 1,
            detail: String::new(),
        }
    }

    fn chain(fleet: &Fleet) -> Vec<AuditLink> {
        let mut links: Vec<AuditLink> = Vec::new();
        for kinds in [vec!["a", "b", "c"], vec!["d"], vec!["e", "f"], vec!["g"]] {
            let events: Vec<AuditEvent> = kinds.into_iter().map(event).collect();
            links.push(link(&fleet.frontend, links.last(), &events, NOW));
        }
        links
    }

    #[test]
    fn a_chain_holds_from_any_link_on() {
        let fleet = Fleet::new();
        let links = chain(&fleet);
        assert_eq!(verify(&links, None, &fleet.directory), Ok(()));
        assert_eq!(verify(&links[2..], Some(&links[1]), &fleet.directory), Ok(()));
    }

    #[test]
    fn a_row_removed_moved_or_altered_is_found() {
        let fleet = Fleet::new();
        let links = chain(&fleet);
        let broken = |change: &dyn Fn(&mut Vec<AuditLink>)| {
            let mut links = links.clone();
            change(&mut links);
            verify(&links, None, &fleet.directory).unwrap_err()
        };
        assert!(matches!(
            broken(&|links| drop(links.remove(1))),
            Broken::Gap {
                expected: 2,
                found: 3,
                ..
            }
        ));
        assert!(matches!(broken(&|links| links.swap(1, 2)), Broken::Gap { .. }));
        assert!(matches!(
            broken(&|links| drop(links[0].events.remove(1))),
            Broken::Altered { sequence: 1, .. }
        ));
        assert!(matches!(
            broken(&|links| links[0].events.swap(0, 1)),
            Broken::Altered { sequence: 1, .. }
        ));
        assert!(matches!(
            broken(&|links| links[3].at = Timestamp::default()),
            Broken::Altered { sequence: 4, .. }
        ));
        let renumbered = |links: &mut Vec<AuditLink>| {
            links.remove(1);
            links[1].sequence = 2;
        };
        assert!(matches!(broken(&renumbered), Broken::Unchained { sequence: 2, .. }));
        let forged = |links: &mut Vec<AuditLink>| {
            links[3].events.push(Blob(b"{}".to_vec()));
            links[3].hash = hash_of(&links[3]);
        };
        assert!(matches!(broken(&forged), Broken::Unsigned { sequence: 4, .. }));
    }

    #[test]
    fn a_tail_that_was_cut_off_is_found_against_a_known_head() {
        let fleet = Fleet::new();
        let links = chain(&fleet);
        assert_eq!(verify_head(links.get(3), &links[3]), Ok(()));
        assert!(matches!(
            verify_head(None, &links[3]),
            Err(Broken::CutOff { sequence: 4, .. })
        ));
        let other = link(&fleet.frontend, Some(&links[2]), &[event("other")], NOW);
        assert!(matches!(
            verify_head(Some(&other), &links[3]),
            Err(Broken::Altered { sequence: 4, .. })
        ));
    }
}
