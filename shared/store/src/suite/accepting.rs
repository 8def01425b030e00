//! Acceptance: what is kept, what is refused, what is counted.

use std::time::Duration;

use domain::{
    issuer::{IssuerState, Purpose},
    job::State,
};

use super::{
    Harness,
    world::{START, World, issuer, lane, node, signature},
};
use crate::{AcceptError, Finished, How, LaneSwitches, Outcome};

pub(crate) async fn a_new_job_is_queued_and_everything_about_it_is_kept(harness: &impl Harness) {
    let world = World::new(harness).await;
    let new = world.job();
    let accepted = world.accept(&new).await.unwrap();
    assert_eq!(
        (accepted.job, accepted.how, accepted.state),
        (new.job, How::New, State::Queued)
    );

    let job = world.get(new.job).await;
    assert_eq!((job.job, &job.lane, &job.account), (new.job, &new.lane, &new.account));
    assert_eq!((&job.profile, job.profile_version), (&new.profile, new.profile_version));
    assert_eq!((job.accepted_at, job.sign_by), (world.now(), new.sign_by));
    assert_eq!((job.not_before, job.not_after), (new.not_before, new.not_after));
    assert_eq!((&job.statement, &job.tbs), (&new.statement, &new.tbs));
    assert_eq!(
        (job.state, job.turn, job.strikes, job.owner),
        (State::Queued, 0, 0, None)
    );
    assert_eq!((job.outcome, job.revocation, job.successor), (None, None, None));
    assert_eq!(world.store.job(world.serial()).await.unwrap(), None);
}

pub(crate) async fn a_job_of_a_diverted_lane_is_parked(harness: &impl Harness) {
    let world = World::new(harness).await;
    let diverted = LaneSwitches {
        diverted: true,
        ..LaneSwitches::default()
    };
    let job = world.job();
    world.store.switch_lane(&job.lane, diverted).await.unwrap();
    assert_eq!(world.accept(&job).await.unwrap().state, State::Parked);
    assert_eq!(world.state(job.job).await, State::Parked);
    assert_eq!(world.lane("alpha.interactive").await.parked, 1);
}

pub(crate) async fn a_paused_lane_accepts_and_a_draining_one_does_not(harness: &impl Harness) {
    let world = World::new(harness).await;
    let lane = lane("alpha.interactive");
    let paused = LaneSwitches {
        paused: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&lane, paused).await.unwrap();
    let first = world.accepted().await;

    let draining = LaneSwitches {
        draining: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&lane, draining).await.unwrap();
    assert_eq!(world.accept(&world.job()).await, Err(AcceptError::LaneDraining));
    // What is there already may be joined and begun.
    let mut again = world.job();
    again.repeat = first.repeat;
    assert_eq!(world.accept(&again).await.unwrap().how, How::Joined);
    world.begin(&node("signer"), first.job).await;

    world.store.switch_lane(&lane, LaneSwitches::default()).await.unwrap();
    world.accepted().await;
}

pub(crate) async fn an_issuer_that_may_not_issue_is_refused_before_anything_is_written(harness: &impl Harness) {
    let world = World::new(harness).await;
    let open = world.accepted().await;
    let mut repeat = world.job();
    repeat.repeat = open.repeat;

    let mut disabled = issuer("alpha");
    disabled.usage.issue = false;
    let mut destroyed = issuer("alpha");
    destroyed.state = IssuerState::Destroyed;
    let mut expired = issuer("alpha");
    expired.not_after = START - 1;
    for (row, error) in [
        (disabled, AcceptError::IssuerDisabled),
        (expired, AcceptError::IssuerExpired),
        (destroyed, AcceptError::IssuerDestroyed),
    ] {
        world.put_issuers(&[row]).await;
        let job = world.job();
        assert_eq!(world.accept(&job).await, Err(error.clone()));
        assert_eq!(world.accept(&repeat).await, Err(error));
        assert_eq!(world.store.job(job.job).await.unwrap(), None);
    }
    let mut unknown = world.job();
    unknown.lane = lane("nobody.interactive");
    assert_eq!(world.accept(&unknown).await, Err(AcceptError::IssuerUnknown));
    // The other issuer is untouched.
    let mut other = world.job();
    other.lane = lane("beta.interactive");
    world.accept(&other).await.unwrap();
}

pub(crate) async fn the_purpose_decides_which_usage_bit_counts(harness: &impl Harness) {
    let world = World::new(harness).await;
    world.disable("alpha").await;
    let mut job = world.job();
    job.purpose = Purpose::Tsa;
    assert_eq!(world.accept(&job).await, Err(AcceptError::IssuerDisabled));
    job.purpose = Purpose::OcspSigner;
    world.accept(&job).await.unwrap();
    let owner = node("signer");
    let begun = world.begin(&owner, job.job).await;
    let finished = world.finish(&owner, signature(&job, begun.turn)).await;
    assert!(matches!(finished, Finished::Issued { .. }));

    let mut row = issuer("alpha");
    row.usage.ocsp = false;
    world.put_issuers(&[row]).await;
    let mut job = world.job();
    job.purpose = Purpose::OcspSigner;
    assert_eq!(world.accept(&job).await, Err(AcceptError::IssuerDisabled));
}

pub(crate) async fn a_full_lane_refuses_and_others_do_not_notice(harness: &impl Harness) {
    let world = World::new(harness).await;
    for _ in 0..3 {
        world.accepted().await;
    }
    let mut job = world.job();
    job.limits.lane_depth = 3;
    assert_eq!(world.accept(&job).await, Err(AcceptError::LaneFull));
    job.lane = lane("alpha.bulk");
    world.accept(&job).await.unwrap();
}

pub(crate) async fn one_account_may_not_fill_a_lane(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut job = world.job();
    job.limits.lane_share = 1;
    assert_eq!(world.accept(&job).await, Err(AcceptError::LaneShareFull));
    // Who has the most of a full lane hears of that, not that the lane is full.
    let mut crowded = job.clone();
    crowded.limits.lane_depth = 1;
    assert_eq!(world.accept(&crowded).await, Err(AcceptError::LaneShareFull));
    job.account = "bob".parse().unwrap();
    world.accept(&job).await.unwrap();
    // Room again when the first has ended.
    world.refuse(&node("signer"), first.job, None).await;
    let mut job = world.job();
    job.limits.lane_share = 1;
    world.accept(&job).await.unwrap();
}

pub(crate) async fn an_account_has_only_so_many_jobs_in_flight(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut job = world.job();
    job.lane = lane("beta.bulk");
    job.limits.jobs_in_flight = 1;
    assert_eq!(world.accept(&job).await, Err(AcceptError::TooManyInFlight));
    let owner = node("signer");
    let begun = world.begin(&owner, first.job).await;
    assert_eq!(world.accept(&job).await, Err(AcceptError::TooManyInFlight));
    world.finish(&owner, signature(&first, begun.turn)).await;
    world.accept(&job).await.unwrap();
}

pub(crate) async fn a_quota_is_reserved_and_given_back_when_no_certificate_comes(harness: &impl Harness) {
    let world = World::new(harness).await;
    let alice = "alice".parse().unwrap();
    let with_quota = |quota| {
        let mut job = world.job();
        job.limits.quota = quota;
        job
    };
    let (first, second) = (with_quota(2), with_quota(2));
    world.accept(&first).await.unwrap();
    world.accept(&second).await.unwrap();
    assert_eq!(world.accept(&with_quota(2)).await, Err(AcceptError::QuotaExceeded));
    assert_eq!(world.store.quota_left(&alice, 2).await.unwrap(), 0);

    // Refused: given back. Issued: used for ever. Expired: given back.
    world.refuse(&node("signer"), first.job, None).await;
    assert_eq!(world.store.quota_left(&alice, 2).await.unwrap(), 1);
    let owner = node("signer");
    let begun = world.begin(&owner, second.job).await;
    world.finish(&owner, signature(&second, begun.turn)).await;
    assert_eq!(world.store.quota_left(&alice, 2).await.unwrap(), 1);
    let third = with_quota(2);
    world.accept(&third).await.unwrap();
    assert_eq!(world.accept(&with_quota(2)).await, Err(AcceptError::QuotaExceeded));
    world.advance(Duration::from_secs(3601));
    let ended = world.store.sweep(100).await.unwrap();
    assert!(matches!(ended[0].outcome, Outcome::Expired { .. }));
    assert_eq!(world.store.quota_left(&alice, 2).await.unwrap(), 1);
    assert_eq!(world.store.quota_left(&"bob".parse().unwrap(), 5).await.unwrap(), 5);
}

pub(crate) async fn a_serial_that_is_taken_fails_alone(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let (one, mut taken, two) = (world.job(), world.job(), world.job());
    taken.job = first.job;
    let mut twice = world.job();
    twice.job = one.job;
    let answers = world.store.accept(vec![one.clone(), taken, two.clone(), twice]).await;
    assert_eq!(answers[0].as_ref().unwrap().job, one.job);
    assert_eq!(answers[1], Err(AcceptError::SerialTaken));
    assert_eq!(answers[2].as_ref().unwrap().job, two.job);
    assert_eq!(answers[3], Err(AcceptError::SerialTaken));
    assert_eq!(world.get(first.job).await.statement, first.statement);
    assert_eq!(world.lane("alpha.interactive").await.queued, 3);
}

pub(crate) async fn a_key_that_must_be_unique_is_certified_once(harness: &impl Harness) {
    let world = World::new(harness).await;
    let unique = || {
        let mut job = world.job();
        job.unique_key = true;
        job.public_key = domain::bytes::Digest([5; 32]);
        job
    };
    let first = unique();
    world.accept(&first).await.unwrap();
    assert_eq!(world.accept(&unique()).await, Err(AcceptError::KeyReused));
    // Free again when no certificate came of it, taken for ever when one did.
    world.refuse(&node("signer"), first.job, None).await;
    world.issue(&unique()).await;
    assert_eq!(world.accept(&unique()).await, Err(AcceptError::KeyReused));
    // Where the profile does not ask for it, a key may be used again.
    let mut other = unique();
    other.unique_key = false;
    world.accept(&other).await.unwrap();
}

pub(crate) async fn a_front_end_learns_the_head_revision(harness: &impl Harness) {
    let world = World::new(harness).await;
    assert_eq!(world.accept(&world.job()).await.unwrap().head, 1);
    world.put_issuers(&[]).await;
    assert_eq!(world.accept(&world.job()).await.unwrap().head, 2);
}
