//! Ends without a certificate: refusals, the sweep, withdrawals.

use std::time::Duration;

use domain::{
    bytes::Digest,
    job::{RevocationReason, State},
};

use super::{
    Harness,
    world::{World, node},
};
use crate::{How, Idempotency, Outcome};

const HOUR: Duration = Duration::from_hours(1);

pub(crate) async fn a_refusal_is_told_once_to_the_waiters_and_always_to_readers(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut job = world.job();
    job.waiter = Some(node("front"));
    world.accept(&job).await.unwrap();
    let owner = node("signer");
    let begun = world.begin(&owner, job.job).await;
    let ended = world.refuse(&owner, job.job, Some(begun.turn)).await.unwrap();
    let outcome = Outcome::Refused {
        id: "policy_violation".into(),
        detail: "san: is required".into(),
        at: world.now(),
    };
    assert_eq!(
        (ended.job, &ended.outcome, ended.waiters),
        (job.job, &outcome, vec![node("front")])
    );

    let again = world.refuse(&node("another"), job.job, None).await.unwrap();
    assert_eq!((&again.outcome, again.waiters.len()), (&outcome, 0));
    let read = world.store.ended(&[job.job, world.serial()]).await.unwrap();
    assert_eq!((read.len(), &read[0].outcome, read[0].waiters.len()), (1, &outcome, 0));
    let stored = world.get(job.job).await;
    assert_eq!((stored.state, stored.outcome), (State::Refused, Some(outcome)));
}

pub(crate) async fn a_refusal_out_of_turn_changes_nothing(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let begun = world.begin(&node("one"), job.job).await;
    assert_eq!(world.refuse(&node("one"), job.job, Some(begun.turn + 1)).await, None);
    assert_eq!(world.refuse(&node("one"), job.job, None).await, None);
    assert_eq!(world.refuse(&node("two"), job.job, Some(begun.turn)).await, None);
    assert_eq!(world.refuse(&node("two"), world.serial(), None).await, None);
    assert_eq!(world.state(job.job).await, State::Signing);
}

pub(crate) async fn a_late_job_is_swept_and_its_waiters_are_returned(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut late = world.job();
    late.waiter = Some(node("front"));
    world.accept(&late).await.unwrap();
    let mut patient = world.job();
    patient.sign_by = world.now() + HOUR * 2;
    world.accept(&patient).await.unwrap();
    world.advance(HOUR.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(world.store.sweep(10).await.unwrap(), []);
    world.advance(Duration::from_millis(1));
    let ended = world.store.sweep(10).await.unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].job, &ended[0].outcome),
        (late.job, &Outcome::Expired { at: world.now() })
    );
    assert_eq!(ended[0].waiters, [node("front")]);
    assert_eq!(world.state(patient.job).await, State::Queued);
    // A begun job in its owner's hands is not swept.
    let owner = node("signer");
    world.live(&owner, HOUR * 9).await;
    world.begin(&owner, patient.job).await;
    world.advance(HOUR);
    assert_eq!(world.store.sweep(10).await.unwrap(), []);
}

pub(crate) async fn the_sweep_goes_in_chunks_and_forgets_what_has_run_out(harness: &impl Harness) {
    let world = World::new(harness).await;
    for number in 0..5 {
        let mut job = world.job();
        job.join_within = HOUR;
        job.idempotency = Some(Idempotency {
            key: Digest([number; 32]),
            request: Digest([0; 32]),
            keep: HOUR,
        });
        if number < 2 {
            world.issue(&job).await;
        } else {
            world.accept(&job).await.unwrap();
        }
    }
    world.advance(HOUR * 2);
    let chunks = [2, 1, 0];
    for chunk in chunks {
        assert_eq!(world.store.sweep(2).await.unwrap().len(), chunk);
    }
    // What has run out is forgotten for good: the keys begin anew.
    let mut anew = world.job();
    anew.idempotency = Some(Idempotency {
        key: Digest([0; 32]),
        request: Digest([1; 32]),
        keep: HOUR,
    });
    assert_eq!(world.accept(&anew).await.unwrap().how, How::New);
}

pub(crate) async fn only_the_last_waiter_withdraws_a_late_job(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (one, two) = (node("front-one"), node("front-two"));
    let mut job = world.job();
    job.waiter = Some(one.clone());
    world.accept(&job).await.unwrap();
    assert_eq!(
        world.store.withdraw(&one, &[job.job]).await.unwrap(),
        [],
        "before sign_by"
    );
    let mut joiner = world.job();
    joiner.repeat = job.repeat;
    joiner.waiter = Some(two.clone());
    world.accept(&joiner).await.unwrap();
    world.advance(HOUR);
    assert_eq!(
        world.store.withdraw(&one, &[job.job]).await.unwrap(),
        [],
        "another waits"
    );

    let mut lone = world.job();
    lone.waiter = Some(one.clone());
    world.accept(&lone).await.unwrap();
    world.advance(HOUR);
    assert_eq!(
        world.store.withdraw(&two, &[lone.job]).await.unwrap(),
        [],
        "not a waiter"
    );
    let ended = world
        .store
        .withdraw(&one, &[job.job, lone.job, world.serial()])
        .await
        .unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].job, &ended[0].waiters), (lone.job, &vec![one]));
    assert_eq!(world.state(lone.job).await, State::Expired);
}

pub(crate) async fn what_was_begun_and_ends_without_a_certificate_is_revoked(harness: &impl Harness) {
    let world = World::new(harness).await;
    let owner = node("signer");
    let (refused, expired, untouched) = (world.accepted().await, world.accepted().await, world.accepted().await);
    for job in [&refused, &expired] {
        let begun = world.begin(&owner, job.job).await;
        let deferral = crate::Deferral {
            job: job.job,
            turn: begun.turn,
            reason: String::new(),
        };
        world.store.defer(&owner, vec![deferral]).await.unwrap();
    }
    world.refuse(&owner, refused.job, None).await;
    world.advance(HOUR);
    assert_eq!(world.store.sweep(10).await.unwrap().len(), 2);
    for job in [&refused, &expired] {
        let revocation = world.get(job.job).await.revocation.unwrap();
        assert_eq!(revocation.reason, RevocationReason::Unspecified);
    }
    assert_eq!(world.get(untouched.job).await.revocation, None);
    // No client ever saw a certificate, so none counts as revoked.
    let revoked = world
        .store
        .counter(&refused.account, crate::Counter::Revoked)
        .await
        .unwrap();
    assert_eq!(revoked, 0);
}

pub(crate) async fn an_owner_that_is_gone_leaves_no_late_job_behind(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("signer");
    world.live(&owner, Duration::from_secs(2)).await;
    world.begin(&owner, job.job).await;
    world.disable("alpha").await;
    world.advance(HOUR);
    // Nobody may take it over any more: its issuer is disabled, its time is past.
    let lanes = [job.lane.clone()];
    let taken = world
        .store
        .take_over(&node("two"), &lanes, Duration::from_secs(1), 10)
        .await
        .unwrap();
    assert_eq!((taken.begun.len(), taken.poisoned.len()), (0, 0));
    let ended = world.store.sweep(10).await.unwrap();
    assert_eq!((ended.len(), ended[0].job), (1, job.job));
    assert!(world.get(job.job).await.revocation.is_some());
}
