//! Endorsements, roles, and the chain of revisions.

use proptest::prelude::*;

use super::{
    fixtures::{Fleet, LATER, NOW},
    *,
};

type Alteration = Box<dyn FnOnce(&mut Node)>;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

fn said(directory: &Directory, key: &NodeKey, context: Context, at: Timestamp) -> Result<(), Distrust> {
    directory.verify(context, key.node(), at, b"message", &key.sign(context, b"message"))
}

#[test]
fn an_enrolled_node_is_believed_during_its_enrolment_only() {
    let fleet = Fleet::new();
    for at in [NOW, LATER] {
        assert_eq!(said(&fleet.directory, &fleet.signer, Context::Answer, at), Ok(()));
    }
    for at in [NOW - SECOND, LATER + SECOND] {
        let node = fleet.signer.node().clone();
        assert_eq!(
            said(&fleet.directory, &fleet.signer, Context::Answer, at),
            Err(Distrust::Expired { node, at })
        );
    }
}

#[test]
fn a_revoked_node_is_refused_at_any_time() {
    let fleet = Fleet::new();
    let directory = fleet.with_node("signer-1", |node| node.revoked = true);
    let node = fleet.signer.node().clone();
    assert_eq!(
        said(&directory, &fleet.signer, Context::Answer, NOW),
        Err(Distrust::Revoked(node))
    );
}

#[test]
fn a_stranger_is_refused() {
    let fleet = Fleet::new();
    let stranger = NodeKey::generate("signer-2".parse().unwrap());
    let node = stranger.node().clone();
    assert_eq!(
        said(&fleet.directory, &stranger, Context::Answer, NOW),
        Err(Distrust::Unknown(node))
    );
    let impostor = NodeKey::generate("signer-1".parse().unwrap());
    let node = impostor.node().clone();
    assert_eq!(
        said(&fleet.directory, &impostor, Context::Answer, NOW),
        Err(Distrust::Signature(node))
    );
}

#[test]
fn a_node_whose_enrolment_was_altered_is_left_out_and_named() {
    let fleet = Fleet::new();
    let stolen = NodeKey::generate("x".parse().unwrap());
    let alterations: [Alteration; 5] = [
        Box::new(|node| node.role = Role::Control),
        Box::new(move |node| node.public_key = stolen.public_key().into()),
        Box::new(|node| node.not_after = LATER + SECOND),
        Box::new(|node| node.not_before = NOW - SECOND),
        Box::new(|node| node.endorsement.0[0] ^= 1),
    ];
    for alter in alterations {
        let directory = fleet.with_node("signer-1", alter);
        assert_eq!(directory.refused(), [fleet.signer.node().clone()]);
        assert_eq!(
            said(&directory, &fleet.signer, Context::Answer, NOW),
            Err(Distrust::Unknown(fleet.signer.node().clone()))
        );
        assert_eq!(said(&directory, &fleet.frontend, Context::Envelope, NOW), Ok(()));
    }
}

#[test]
fn a_fleet_of_another_root_is_unknown_here() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let directory = Directory::new(&ours.root.public_key(), &theirs.snapshot).unwrap();
    assert_eq!(directory.refused().len(), 3);
    assert!(said(&directory, &theirs.signer, Context::Answer, NOW).is_err());
}

#[test]
fn the_next_directory_forgets_who_left_and_learns_who_came() {
    let fleet = Fleet::new();
    let newcomer = NodeKey::generate("signer-2".parse().unwrap());
    let mut snapshot = fleet.snapshot.clone();
    snapshot.nodes.remove(fleet.signer.node());
    let node = endorse(
        &fleet.root,
        newcomer.node().clone(),
        Role::Signer,
        newcomer.public_key(),
        NOW,
        LATER,
    );
    snapshot.nodes.insert(node.id.clone(), Arc::new(node));
    let directory = fleet.directory.next(&snapshot);
    assert_eq!(said(&directory, &newcomer, Context::Answer, NOW), Ok(()));
    assert!(said(&directory, &fleet.signer, Context::Answer, NOW).is_err());
}

#[test]
fn a_root_that_is_not_a_key_is_refused() {
    assert_eq!(Directory::empty(&[0; 31]).err(), Some(RootUnusable));
    let root = RootKey::generate();
    assert_eq!(
        RootKey::from_pkcs8(&root.to_pkcs8()).unwrap().public_key(),
        root.public_key()
    );
}

/// A chain whose first revision enrols the fleet, and `more` revisions after it.
fn chain(fleet: &Fleet, more: u8) -> Vec<Revision> {
    let enrol: Vec<Change> = fleet
        .snapshot
        .nodes
        .values()
        .map(|node| Change::PutNode {
            node: node.as_ref().clone(),
        })
        .collect();
    let mut chain = vec![revision(&ChainHead::START, &enrol, &fleet.control, NOW)];
    for n in 0..more {
        let head = ChainHead::of(&chain[chain.len() - 1]);
        let changes = [Change::BlockKey { spki: Digest([n; 32]) }];
        chain.push(revision(&head, &changes, &fleet.control, NOW + SECOND * u32::from(n)));
    }
    chain
}

/// Follows a chain from the start as every process does; the last state that verified, and why it stopped.
fn follow(fleet: &Fleet, chain: &[Revision]) -> (Snapshot, Option<RevisionError>) {
    let mut snapshot = Snapshot::default();
    let mut directory = Directory::empty(&fleet.root.public_key()).unwrap();
    let mut head = ChainHead::START;
    for revision in chain {
        match verify_revision(revision, &head, &directory) {
            Ok(changes) => snapshot = snapshot.next(&changes).unwrap(),
            Err(error) => return (snapshot, Some(error)),
        }
        directory = directory.next(&snapshot);
        head = ChainHead::of(revision);
    }
    (snapshot, None)
}

#[test]
fn a_chain_is_followed_from_its_first_revision() {
    let fleet = Fleet::new();
    let (snapshot, error) = follow(&fleet, &chain(&fleet, 20));
    assert_eq!(error, None);
    assert_eq!(
        (snapshot.revision, snapshot.blocked_keys.len(), snapshot.nodes.len()),
        (21, 20, 3)
    );
}

#[test]
fn a_gap_a_swap_a_repeat_and_a_fork_are_found() {
    let fleet = Fleet::new();
    let whole = chain(&fleet, 4);
    let mut gap = whole.clone();
    gap.remove(2);
    assert_eq!(follow(&fleet, &gap).1, Some(RevisionError::Gap { head: 2, found: 4 }));
    let mut swapped = whole.clone();
    swapped.swap(2, 3);
    assert_eq!(
        follow(&fleet, &swapped).1,
        Some(RevisionError::Gap { head: 2, found: 4 })
    );
    let mut renumbered = swapped;
    (renumbered[2].number, renumbered[3].number) = (3, 4);
    assert_eq!(follow(&fleet, &renumbered).1, Some(RevisionError::Fork(3)));
    let mut repeated = whole.clone();
    repeated.insert(2, whole[1].clone());
    assert_eq!(
        follow(&fleet, &repeated).1,
        Some(RevisionError::Gap { head: 2, found: 2 })
    );
    let mut forked = whole;
    let elsewhere = ChainHead {
        hash: Digest([9; 32]),
        ..ChainHead::of(&forked[1])
    };
    forked[2] = revision(&elsewhere, &[], &fleet.control, NOW);
    assert_eq!(follow(&fleet, &forked).1, Some(RevisionError::Fork(3)));
}

#[test]
fn times_never_run_backwards_along_the_chain() {
    let fleet = Fleet::new();
    let mut chain = chain(&fleet, 1);
    let head = ChainHead::of(&chain[1]);
    let clock_went_back = revision(&head, &[], &fleet.control, NOW - SECOND);
    assert_eq!(clock_went_back.at, head.at);
    let pretended = ChainHead {
        at: Timestamp::from_millis(0),
        ..head
    };
    chain.push(revision(&pretended, &[], &fleet.control, NOW - SECOND));
    assert_eq!(follow(&fleet, &chain).1, Some(RevisionError::Backwards(3)));
}

#[test]
fn only_control_changes_the_registry_and_only_while_enrolled() {
    let fleet = Fleet::new();
    let mut chain = chain(&fleet, 1);
    let head = ChainHead::of(&chain[1]);
    chain.push(revision(&head, &[], &fleet.frontend, NOW));
    assert!(matches!(
        follow(&fleet, &chain).1,
        Some(RevisionError::Distrusted {
            number: 3,
            reason: Distrust::Role { .. }
        })
    ));
    chain[2] = revision(&head, &[], &fleet.control, LATER + SECOND);
    assert!(matches!(
        follow(&fleet, &chain).1,
        Some(RevisionError::Distrusted {
            number: 3,
            reason: Distrust::Expired { .. }
        })
    ));
}

#[test]
fn a_first_revision_cannot_enrol_a_signer_of_its_own_choice() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let (snapshot, error) = follow(&ours, &chain(&theirs, 0));
    assert!(matches!(
        error,
        Some(RevisionError::Distrusted {
            number: 1,
            reason: Distrust::Unknown(_)
        })
    ));
    assert_eq!(snapshot, Snapshot::default());
}

#[test]
fn a_second_control_node_enrols_itself_with_an_endorsement_of_the_root() {
    let fleet = Fleet::new();
    let mut chain = chain(&fleet, 1);
    let head = ChainHead::of(&chain[1]);
    let second = NodeKey::generate("control-2".parse().unwrap());
    let enrol = |root: &RootKey, role| {
        let node = endorse(root, second.node().clone(), role, second.public_key(), NOW, LATER);
        revision(&head, &[Change::PutNode { node }], &second, NOW)
    };
    chain.push(enrol(&fleet.root, Role::Control));
    chain.push(revision(&ChainHead::of(&chain[2]), &[], &second, NOW));
    let (snapshot, error) = follow(&fleet, &chain);
    assert_eq!((snapshot.revision, error), (4, None));

    for (stranger, said) in [
        (enrol(&RootKey::generate(), Role::Control), "not enrolled"),
        (enrol(&fleet.root, Role::Signer), "may not sign"),
        (revision(&head, &[], &second, NOW), "not enrolled"),
    ] {
        chain.truncate(2);
        chain.push(stranger);
        let (snapshot, error) = follow(&fleet, &chain);
        assert_eq!(snapshot.revision, 2);
        let error = error.unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_revoked_control_node_does_not_enrol_itself_again() {
    let fleet = Fleet::new();
    let mut chain = chain(&fleet, 0);
    let endorsed = (*fleet.snapshot.nodes[fleet.control.node()]).clone();
    let second = NodeKey::generate("control-2".parse().unwrap());
    let node = endorse(
        &fleet.root,
        second.node().clone(),
        Role::Control,
        second.public_key(),
        NOW,
        LATER,
    );
    let revoked = Node {
        revoked: true,
        ..endorsed.clone()
    };
    let changes = [Change::PutNode { node }, Change::PutNode { node: revoked }];
    chain.push(revision(&ChainHead::of(&chain[0]), &changes, &fleet.control, NOW));
    let again = [Change::PutNode { node: endorsed }];
    chain.push(revision(&ChainHead::of(&chain[1]), &again, &fleet.control, NOW));
    assert!(matches!(
        follow(&fleet, &chain).1,
        Some(RevisionError::Distrusted {
            number: 3,
            reason: Distrust::Revoked(_)
        })
    ));
}

#[test]
fn a_signed_change_that_this_program_does_not_know_says_update() {
    let fleet = Fleet::new();
    let mut chain = chain(&fleet, 0);
    let mut newer = revision(&ChainHead::of(&chain[0]), &[], &fleet.control, NOW);
    newer.body = br#"[{"change":"put_moon","moon":1}]"#.to_vec().into();
    newer.hash = revision_hash(&newer);
    newer.signature = fleet.control.sign(Context::Revision, &newer.hash.0).into();
    chain.push(newer);
    assert!(matches!(
        follow(&fleet, &chain).1,
        Some(RevisionError::Unreadable { number: 2, .. })
    ));
}

proptest! {
    #[test]
    fn any_altered_field_of_a_revision_is_found(which in 0_usize..3, field in 0_u8..7, at: prop::sample::Index, flip in 1..=255_u8) {
        let fleet = Fleet::shared();
        let mut chain = chain(fleet, 2);
        let revision = &mut chain[which];
        match field {
            0 => revision.number ^= u64::from(flip),
            1 => revision.previous.0[at.index(32)] ^= flip,
            2 => { let at = at.index(revision.body.len()); revision.body.0[at] ^= flip; }
            3 => revision.hash.0[at.index(32)] ^= flip,
            4 => revision.node = "frontend-1".parse().unwrap(),
            5 => revision.signature.0[at.index(64)] ^= flip,
            _ => revision.at = revision.at + SECOND * u32::from(flip),
        }
        let (snapshot, error) = follow(fleet, &chain);
        prop_assert!(error.is_some());
        prop_assert_eq!(snapshot.revision, which as u64);
    }
}
