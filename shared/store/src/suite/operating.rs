//! The registry's shelf, audit chains, leases, and a store that is opened again.

use std::time::Duration;

use domain::{
    audit::AuditLink,
    breaker::Force,
    bytes::{Blob, Digest},
    issuer::IssuerState,
    job::State,
};

use super::{
    Harness,
    world::{World, issuer, node, signature},
};
use crate::{AcceptError, Appended, Counter, Finished, How, Idempotency, LaneSwitches};

pub(crate) async fn a_revision_follows_the_head_or_is_refused(harness: &impl Harness) {
    let world = World::new(harness).await;
    let next = world.next_revision().await;
    let mut ahead = next.clone();
    ahead.number += 1;
    let mut branch = next.clone();
    branch.previous = Digest([9; 32]);
    for wrong in [ahead, branch] {
        assert_eq!(
            world.store.append_revision(&wrong, &[]).await.unwrap(),
            Appended::Conflict(1)
        );
    }
    assert_eq!(world.store.append_revision(&next, &[]).await.unwrap(), Appended::Done);
    assert_eq!(
        world.store.append_revision(&next, &[]).await.unwrap(),
        Appended::Conflict(2)
    );
    let head = world.store.head().await.unwrap();
    assert_eq!((head.revision, head.now), (2, world.now()));
    assert_eq!(world.store.now().await.unwrap(), world.now());
    assert_eq!(world.store.revisions(1, 10).await.unwrap(), [next]);
    assert_eq!(world.store.revisions(0, 1).await.unwrap()[0].number, 1);
    assert_eq!(world.store.revisions(2, 10).await.unwrap(), []);
}

pub(crate) async fn a_revision_takes_effect_with_its_commit(harness: &impl Harness) {
    let world = World::new(harness).await;
    world.accepted().await;
    let mut row = issuer("alpha");
    row.state = IssuerState::Disabled;
    row.usage.issue = false;
    // A revision that is refused changes no issuer.
    let mut late = world.next_revision().await;
    late.number = 1;
    let refused = world
        .store
        .append_revision(&late, std::slice::from_ref(&row))
        .await
        .unwrap();
    assert_eq!(refused, Appended::Conflict(1));
    world.accepted().await;
    world.put_issuers(&[row]).await;
    assert_eq!(world.accept(&world.job()).await, Err(AcceptError::IssuerDisabled));
}

fn link(writer: &str, sequence: u64, previous: &Digest, at: domain::time::Timestamp) -> AuditLink {
    let mut hash = previous.0;
    hash[..8].copy_from_slice(&sequence.to_be_bytes());
    hash[8] = writer.as_bytes()[0];
    AuditLink {
        writer: writer.parse().unwrap(),
        sequence,
        at,
        previous: *previous,
        events: vec![Blob(b"{}".to_vec()), Blob(sequence.to_string().into_bytes())],
        hash: Digest(hash),
        signature: Blob(vec![1]),
    }
}

pub(crate) async fn an_audit_chain_has_no_gaps_and_no_branches(harness: &impl Harness) {
    let world = World::new(harness).await;
    let zeros = Digest([0; 32]);
    let first = link("control", 1, &zeros, world.now());
    assert_eq!(world.store.append_audit(&first).await.unwrap(), Appended::Done);
    world.advance(Duration::from_secs(1));
    let other = link("signer", 1, &zeros, world.now());
    assert_eq!(world.store.append_audit(&other).await.unwrap(), Appended::Done);
    world.advance(Duration::from_secs(1));
    let second = link("control", 2, &first.hash, world.now());
    assert_eq!(world.store.append_audit(&second).await.unwrap(), Appended::Done);

    let branch = link("control", 3, &first.hash, world.now());
    let gap = link("control", 4, &second.hash, world.now());
    for wrong in [branch, gap, second.clone()] {
        assert_eq!(world.store.append_audit(&wrong).await.unwrap(), Appended::Conflict(2));
    }
    let all = [first.clone(), other.clone(), second.clone()];
    assert_eq!(world.store.audit(None, 0, 10).await.unwrap(), all);
    let after = u64::try_from(first.at.as_millis()).unwrap();
    assert_eq!(
        world.store.audit(None, after, 1).await.unwrap(),
        std::slice::from_ref(&other)
    );
    assert_eq!(
        world.store.audit(Some(&first.writer), 0, 10).await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(
        world.store.audit(Some(&second.writer), 1, 10).await.unwrap(),
        std::slice::from_ref(&second)
    );
    assert_eq!(world.store.audit_heads().await.unwrap(), [second, other]);
}

pub(crate) async fn a_lease_ends_by_itself_or_with_goodbye(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (one, two) = (node("one"), node("two"));
    let lease = Duration::from_secs(2);
    world.live(&one, lease).await;
    world.live(&two, lease).await;
    world.advance(Duration::from_secs(1));
    world.live(&one, lease).await;
    world.store.goodbye(&two).await.unwrap();
    world.store.goodbye(&node("stranger")).await.unwrap();
    let announced = world.store.incarnations().await.unwrap();
    assert_eq!(announced.len(), 2);
    assert_eq!(announced[0].announcement.incarnation, one);
    assert_eq!(announced[0].announcement.in_flight, 7);
    let signed = &announced[0].announcement.signed;
    let lane = super::world::lane("alpha.interactive");
    assert_eq!((signed.over_ms, &*signed.lanes), (500, &[(lane, 40)][..]));
    let said = &announced[0].announcement;
    assert_eq!(
        (said.tokens_out.len(), said.stands_down, said.clock_offset_ms),
        (1, true, Some(-3))
    );
    assert_eq!(
        (announced[0].seen, announced[0].lease_until),
        (world.now(), world.now() + lease)
    );
    assert_eq!(announced[1].lease_until, world.now());
    // Shown for a minute after its end, then no more.
    world.advance(Duration::from_mins(1));
    let announced = world.store.incarnations().await.unwrap();
    assert_eq!(announced.len(), 1);
    assert_eq!(announced[0].announcement.incarnation, one);
    world.advance(lease);
    assert_eq!(world.store.incarnations().await.unwrap(), []);
}

pub(crate) async fn an_order_to_breakers_holds_until_it_is_taken_back(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (alpha, beta) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
    assert_eq!(world.store.forced_breakers().await.unwrap(), []);
    for force in Force::ALL {
        world.store.force_breaker(&beta, Some(force)).await.unwrap();
        assert_eq!(world.store.forced_breakers().await.unwrap(), [(beta.clone(), force)]);
    }
    world.store.force_breaker(&alpha, Some(Force::Open)).await.unwrap();
    let both = [(alpha.clone(), Force::Open), (beta.clone(), Force::ObserveOnly)];
    let world = world.reopen(harness).await;
    assert_eq!(world.store.forced_breakers().await.unwrap(), both);
    world.store.force_breaker(&beta, None).await.unwrap();
    world.store.force_breaker(&beta, None).await.unwrap();
    assert_eq!(world.store.forced_breakers().await.unwrap(), [(alpha, Force::Open)]);
}

pub(crate) async fn a_store_that_is_opened_again_has_everything(harness: &impl Harness) {
    let world = World::new(harness).await;
    let issued = world.job();
    world.issue(&issued).await;
    let begun = world.accepted().await;
    let owner = node("signer");
    world.live(&owner, Duration::from_secs(2)).await;
    let turn = world.begin(&owner, begun.job).await.turn;
    let mut queued = world.job();
    queued.limits.lane_depth = 2;
    queued.waiter = Some(node("front"));
    queued.idempotency = Some(Idempotency {
        key: Digest([1; 32]),
        request: Digest([2; 32]),
        keep: Duration::from_mins(1),
    });
    world.accept(&queued).await.unwrap();
    let switches = LaneSwitches {
        paused: true,
        ..LaneSwitches::default()
    };
    world
        .store
        .switch_lane(&super::world::lane("beta.bulk"), switches)
        .await
        .unwrap();
    let before = (
        world.get(issued.job).await,
        world.get(begun.job).await,
        world.get(queued.job).await,
        world.store.lanes().await.unwrap(),
        world.store.incarnations().await.unwrap(),
    );

    let world = world.reopen(harness).await;
    let after = (
        world.get(issued.job).await,
        world.get(begun.job).await,
        world.get(queued.job).await,
        world.store.lanes().await.unwrap(),
        world.store.incarnations().await.unwrap(),
    );
    assert_eq!(after, before);
    assert_eq!(world.store.head().await.unwrap().revision, 1);
    assert_eq!(world.store.counter(&issued.account, Counter::Issued).await.unwrap(), 1);
    assert_eq!(world.store.quota_left(&issued.account, 10).await.unwrap(), 7);
    // Limits still count what was there; repeats and keys still find it; what was begun is still its owner's.
    let mut more = world.job();
    more.limits.lane_depth = 2;
    assert_eq!(world.accept(&more).await, Err(AcceptError::LaneFull));
    let mut again = world.job();
    again.repeat = queued.repeat;
    assert_eq!(world.accept(&again).await.unwrap().how, How::Joined);
    let mut keyed = world.job();
    keyed.idempotency = queued.idempotency;
    let repeated = world.accept(&keyed).await.unwrap();
    assert_eq!(
        (repeated.job, repeated.how, repeated.state),
        (queued.job, How::Repeated, State::Queued)
    );
    let finished = world.finish(&owner, signature(&begun, turn)).await;
    assert!(matches!(finished, Finished::Issued { first: true, .. }), "{finished:?}");
    let ended = world.refuse(&owner, queued.job, None).await.unwrap();
    assert_eq!(ended.waiters, [node("front")]);
    world.accepted().await;
}
