//! Statements signed by the batch: one signature over the root of a Merkle tree (RFC 9162, section 2.1), and for each statement the
//! proof that it is a leaf.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use domain::{
    bytes::{Blob, Digest},
    statement::Proof,
    time::Timestamp,
};

use crate::{
    signed::{Context, NodeKey, sha256},
    trust::{Directory, Distrust},
};

/// The greatest number of statements in one batch.
pub const MAX_BATCH: usize = 1 << 16;

/// How many verified batches a [`Verifier`] remembers.
const REMEMBERED: usize = 4096;

fn leaf_hash(leaf: &[u8]) -> Digest {
    sha256(&[&[0], leaf])
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}

/// Every level of the tree over these leaves, from the leaf hashes up to the root. A node without a sibling moves up as it is, which
/// gives the tree of RFC 9162. At least one leaf is needed.
fn levels(leaves: &[&[u8]]) -> Vec<Vec<Digest>> {
    let mut levels = vec![leaves.iter().map(|leaf| leaf_hash(leaf)).collect::<Vec<_>>()];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        let above = below
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node_hash(left, right),
                lone => lone[0],
            })
            .collect();
        levels.push(above);
    }
    levels
}

/// The root of the tree over these leaves; the hash of nothing when there are none (RFC 9162, 2.1.1).
pub fn merkle_root(leaves: &[&[u8]]) -> Digest {
    if leaves.is_empty() {
        return sha256(&[]);
    }
    levels(leaves).pop().map_or_else(|| sha256(&[]), |top| top[0])
}

/// The root that a proof leads to; `None` if its shape does not fit its size and index.
fn root_of(statement: &[u8], proof: &Proof) -> Option<Digest> {
    let (mut index, mut last) = (proof.index, proof.size.checked_sub(1)?);
    if index > last {
        return None;
    }
    let mut hash = leaf_hash(statement);
    let mut siblings = proof.path.iter();
    while last > 0 {
        if index % 2 == 1 {
            hash = node_hash(siblings.next()?, &hash);
        } else if index < last {
            hash = node_hash(&hash, siblings.next()?);
        }
        index /= 2;
        last /= 2;
    }
    siblings.next().is_none().then_some(hash)
}

fn signed_root(size: u32, root: &Digest) -> [u8; 36] {
    let mut message = [0; 36];
    message[..4].copy_from_slice(&size.to_be_bytes());
    message[4..].copy_from_slice(&root.0);
    message
}

/// Signs a batch of statements once. One proof each, in order; none for no statements.
///
/// # Panics
/// If there are more than [`MAX_BATCH`] statements.
pub fn attest(key: &NodeKey, statements: &[&[u8]]) -> Vec<Proof> {
    assert!(
        statements.len() <= MAX_BATCH,
        "a batch has at most {MAX_BATCH} statements"
    );
    if statements.is_empty() {
        return Vec::new();
    }
    let size = u32::try_from(statements.len()).expect("a batch was just checked to be small");
    let levels = levels(statements);
    let signature = Blob(key.sign(Context::Statement, &signed_root(size, &levels[levels.len() - 1][0])));
    (0..size)
        .map(|index| {
            let mut position = index as usize;
            let mut path = Vec::new();
            for level in &levels[..levels.len() - 1] {
                path.extend(level.get(position ^ 1));
                position /= 2;
            }
            Proof {
                node: key.node().clone(),
                size,
                index,
                path,
                signature: signature.clone(),
            }
        })
        .collect()
}

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// Index, size and path do not belong together.
    #[error("the proof is misshapen: {siblings} siblings at index {index} of {size}")]
    Misshapen {
        /// Position.
        index: u32,
        /// Size of the batch.
        size: u32,
        /// Length of the path.
        siblings: usize,
    },
    /// Its signer is not believed.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

/// Verifies proofs. Batches whose signature was verified are remembered, so that a batch costs one verification, not one a statement.
#[derive(Debug, Default)]
pub struct Verifier {
    verified: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    known: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies that the node named in `proof` signed a batch with `statement` in it, and could do so at `at`: the time of acceptance.
    ///
    /// Role, revocation and time are checked at every call; only the signature is remembered, with the key that it was verified under.
    pub fn verify(
        &self,
        directory: &Directory,
        statement: &[u8],
        proof: &Proof,
        at: Timestamp,
    ) -> Result<(), AttestError> {
        let Proof {
            node,
            size,
            index,
            path,
            signature,
        } = proof;
        let root = root_of(statement, proof).ok_or(AttestError::Misshapen {
            index: *index,
            size: *size,
            siblings: path.len(),
        })?;
        let message = signed_root(*size, &root);
        let public_key = directory.public_key(Context::Statement, node, at)?;
        let batch = sha256(&[public_key, &message, signature, node.as_str().as_bytes()]);
        if self.remembers(&batch) {
            return Ok(());
        }
        directory.verify(Context::Statement, node, at, &message, signature)?;
        self.remember(batch);
        Ok(())
    }

    fn remembers(&self, batch: &Digest) -> bool {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .known
            .contains(batch)
    }

    fn remember(&self, batch: Digest) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.known.insert(batch) {
            verified.order.push_back(batch);
            if verified.order.len() > REMEMBERED
                && let Some(oldest) = verified.order.pop_front()
            {
                verified.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::{Fleet, LATER, NOW};

    /// The tree hash as RFC 9162, 2.1.1 defines it: by splitting at the largest power of two below the number of leaves.
    fn rfc_9162(leaves: &[&[u8]]) -> Digest {
        match leaves {
            [] => sha256(&[]),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&rfc_9162(&leaves[..split]), &rfc_9162(&leaves[split..]))
            }
        }
    }

    fn texts(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|n| format!("statement {n}").into_bytes()).collect()
    }

    fn slices(texts: &[Vec<u8>]) -> Vec<&[u8]> {
        texts.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn the_tree_is_that_of_rfc_9162() {
        for count in 0..70 {
            let texts = texts(count);
            assert_eq!(
                merkle_root(&slices(&texts)),
                rfc_9162(&slices(&texts)),
                "{count} leaves"
            );
        }
    }

    #[test]
    fn every_statement_of_a_batch_verifies_and_no_other_does() {
        let fleet = Fleet::new();
        for count in [1, 2, 3, 7, 16, 33] {
            let texts = texts(count);
            let proofs = attest(&fleet.frontend, &slices(&texts));
            let verifier = Verifier::new();
            for (at, text) in texts.iter().enumerate() {
                for (index, proof) in proofs.iter().enumerate() {
                    assert_eq!(verifier.verify(&fleet.directory, text, proof, NOW).is_ok(), at == index);
                }
            }
        }
        assert_eq!(attest(&fleet.frontend, &[]), []);
    }

    #[test]
    fn a_batch_that_is_remembered_is_still_refused_when_its_node_is_revoked_or_was_not_yet_enrolled() {
        let fleet = Fleet::new();
        let verifier = Verifier::new();
        let proof = &attest(&fleet.frontend, &[b"text"])[0];
        assert_eq!(verifier.verify(&fleet.directory, b"text", proof, NOW), Ok(()));
        let second = std::time::Duration::from_secs(1);
        assert_eq!(verifier.verify(&fleet.directory, b"text", proof, LATER), Ok(()));
        for at in [NOW - second, LATER + second] {
            assert!(matches!(
                verifier.verify(&fleet.directory, b"text", proof, at),
                Err(AttestError::Distrusted(Distrust::Expired { .. }))
            ));
        }
        let directory = fleet.with_node("frontend-1", |node| node.revoked = true);
        assert!(matches!(
            verifier.verify(&directory, b"text", proof, NOW),
            Err(AttestError::Distrusted(Distrust::Revoked(_)))
        ));
    }

    #[test]
    fn a_batch_that_is_remembered_is_not_believed_of_another_key_or_role() {
        let fleet = Fleet::new();
        let verifier = Verifier::new();
        let mut proof = attest(&fleet.frontend, &[b"text"]).remove(0);
        verifier.verify(&fleet.directory, b"text", &proof, NOW).unwrap();
        let stranger = Fleet::new();
        assert!(verifier.verify(&stranger.directory, b"text", &proof, NOW).is_err());
        proof.node = fleet.signer.node().clone();
        assert!(matches!(
            verifier.verify(&fleet.directory, b"text", &proof, NOW),
            Err(AttestError::Distrusted(Distrust::Role { .. }))
        ));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let fleet = Fleet::shared();
        let verifier = Verifier::new();
        for n in 0..REMEMBERED + 10 {
            verifier.remember(sha256(&[&n.to_be_bytes()]));
        }
        let proof = &attest(&fleet.frontend, &[b"text"])[0];
        verifier.verify(&fleet.directory, b"text", proof, NOW).unwrap();
        let verified = verifier.verified.lock().unwrap();
        assert_eq!((verified.known.len(), verified.order.len()), (REMEMBERED, REMEMBERED));
    }

    proptest! {
        #[test]
        fn any_altered_byte_of_statement_or_proof_is_found(count in 1_usize..20, which: prop::sample::Index, field in 0_u8..6, at: prop::sample::Index, flip in 1..=255_u8) {
            let fleet = Fleet::shared();
            let mut texts = texts(count);
            let which = which.index(count);
            let mut proof = attest(&fleet.frontend, &slices(&texts)).swap_remove(which);
            let verifier = Verifier::new();
            prop_assert!(verifier.verify(&fleet.directory, &texts[which], &proof, NOW).is_ok());
            match field {
                0 => { let at = at.index(texts[which].len()); texts[which][at] ^= flip; }
                1 => proof.size ^= u32::from(flip),
                2 => proof.index ^= u32::from(flip),
                3 if !proof.path.is_empty() => { let level = at.index(proof.path.len()); proof.path[level].0[7] ^= flip; }
                4 => { proof.path.push(Digest([flip; 32])); }
                5 => proof.node = "signer-1".parse().unwrap(),
                _ => proof.signature.0[at.index(64)] ^= flip,
            }
            prop_assert!(verifier.verify(&fleet.directory, &texts[which], &proof, NOW).is_err());
        }
    }
}
