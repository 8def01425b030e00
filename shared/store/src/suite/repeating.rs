//! Asking twice: joining the job in flight, and idempotency keys.

use std::time::Duration;

use domain::{
    bytes::Digest,
    job::{RevocationReason, State},
};

use super::{
    Harness,
    world::{World, lane, node},
};
use crate::{AcceptError, Begin, How, Idempotency, LaneSwitches, NewJob, Revocation, Revoked};

const DAY: Duration = Duration::from_hours(24);

/// The same request as `job`, under another serial.
fn again(world: &World, job: &NewJob) -> NewJob {
    NewJob {
        repeat: job.repeat,
        lane: job.lane.clone(),
        account: job.account.clone(),
        join_within: job.join_within,
        ..world.job()
    }
}

fn keyed(job: NewJob, key: u8, request: u8) -> NewJob {
    let idempotency = Some(Idempotency {
        key: Digest([key; 32]),
        request: Digest([request; 32]),
        keep: DAY,
    });
    NewJob { idempotency, ..job }
}

async fn revoke(world: &World, job: &NewJob, cancel_pending: bool) -> Revoked {
    let revocation = Revocation {
        job: job.job,
        account: None,
        reason: RevocationReason::Superseded,
        revocation_date: None,
        cancel_pending,
        by: "operator:olga".into(),
    };
    world.store.revoke(revocation).await.unwrap()
}

pub(crate) async fn the_same_request_joins_the_job_in_flight(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut second = again(&world, &first);
    second.waiter = Some(node("front"));
    let joined = world.accept(&second).await.unwrap();
    assert_eq!(
        (joined.job, joined.how, joined.state),
        (first.job, How::Joined, State::Queued)
    );
    assert_eq!(world.store.job(second.job).await.unwrap(), None);

    let owner = node("signer");
    world.begin(&owner, first.job).await;
    let third = again(&world, &first);
    let joined = world.accept(&third).await.unwrap();
    assert_eq!((joined.job, joined.state), (first.job, State::Signing));

    // Whoever waits is told by the end of it, wherever it asked; each once.
    let ended = world.refuse(&owner, first.job, Some(1)).await.unwrap();
    assert_eq!(ended.waiters, [node("front")]);
    // Asked again after an outcome that was never learnt, the very same job is found.
    let lone = world.accepted().await;
    let accepted = world.accept(&lone).await.unwrap();
    assert_eq!((accepted.job, accepted.how), (lone.job, How::Joined));
    let begun = world.begin(&owner, lone.job).await;
    world.finish(&owner, super::world::signature(&lone, begun.turn)).await;
    let accepted = world.accept(&lone).await.unwrap();
    assert_eq!((accepted.job, accepted.state), (lone.job, State::Issued));
}

pub(crate) async fn a_joiner_leaves_its_statement_and_raises_sign_by(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut later = again(&world, &first);
    later.sign_by = first.sign_by + Duration::from_mins(1);
    world.accept(&later).await.unwrap();
    let mut earlier = again(&world, &first);
    earlier.sign_by = world.now() + Duration::from_mins(1);
    world.accept(&earlier).await.unwrap();

    assert_eq!(world.get(first.job).await.sign_by, later.sign_by);
    let begun = world.begin(&node("signer"), first.job).await;
    assert_eq!((begun.sign_by, &begun.statement), (later.sign_by, &first.statement));
    let expected = [&later, &earlier].map(|job| (job.statement.clone(), job.proof.clone()));
    assert_eq!(begun.joined, expected);
}

pub(crate) async fn a_joiner_never_raises_sign_by_past_two_days_after_not_before(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut later = again(&world, &first);
    later.sign_by = world.now() + DAY * 2 + Duration::from_secs(1);
    assert_eq!(world.accept(&later).await.unwrap().how, How::Joined);
    assert_eq!(world.get(first.job).await.sign_by, first.sign_by);
    later.sign_by = world.now() + DAY * 2;
    world.accept(&later).await.unwrap();
    assert_eq!(world.get(first.job).await.sign_by, later.sign_by);
}

pub(crate) async fn joiners_and_waiters_are_bounded(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut last = first.clone();
    for number in 1..60 {
        last = again(&world, &first);
        last.sign_by = first.sign_by + Duration::from_secs(number);
        last.waiter = Some(node(&format!("front-{number}")));
        world.accept(&last).await.unwrap();
    }
    let owner = node("signer");
    let begun = world.begin(&owner, first.job).await;
    assert!(begun.joined.len() < 20, "{} statements", begun.joined.len());
    // The statement that justifies `sign_by` is among those that are kept.
    assert_eq!(begun.sign_by, last.sign_by);
    assert!(begun.joined.iter().any(|(statement, _)| *statement == last.statement));
    let ended = world.refuse(&owner, first.job, Some(begun.turn)).await.unwrap();
    assert!(
        (1..=50).contains(&ended.waiters.len()),
        "{} waiters",
        ended.waiters.len()
    );
}

pub(crate) async fn the_same_request_of_another_account_or_issuer_is_another_job(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.accepted().await;
    let mut other = again(&world, &first);
    other.account = "bob".parse().unwrap();
    assert_eq!(world.accept(&other).await.unwrap().how, How::New);
    let mut other = again(&world, &first);
    other.lane = lane("beta.interactive");
    assert_eq!(world.accept(&other).await.unwrap().how, How::New);
}

pub(crate) async fn an_issued_job_is_joined_only_within_its_time_and_never_when_revoked(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.job();
    world.issue(&job).await;
    assert_eq!(world.accept(&again(&world, &job)).await.unwrap().how, How::New);

    let mut job = world.job();
    job.join_within = Duration::from_mins(1);
    world.issue(&job).await;
    world.advance(Duration::from_secs(59));
    let joined = world.accept(&again(&world, &job)).await.unwrap();
    assert_eq!(
        (joined.job, joined.how, joined.state),
        (job.job, How::Joined, State::Issued)
    );
    world.advance(Duration::from_secs(1));
    assert_eq!(world.accept(&again(&world, &job)).await.unwrap().how, How::New);

    let mut job = world.job();
    job.join_within = Duration::from_mins(1);
    world.issue(&job).await;
    assert_eq!(revoke(&world, &job, false).await, Revoked::Done);
    assert_eq!(world.accept(&again(&world, &job)).await.unwrap().how, How::New);
}

pub(crate) async fn a_job_that_ended_without_a_certificate_is_not_joined(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut job = world.job();
    job.join_within = Duration::from_mins(10);
    world.accept(&job).await.unwrap();
    world.refuse(&node("signer"), job.job, None).await;
    let second = again(&world, &job);
    assert_eq!(world.accept(&second).await.unwrap().how, How::New);
    world.advance(Duration::from_hours(1));
    assert_eq!(world.store.sweep(10).await.unwrap().len(), 1);
    assert_eq!(world.accept(&again(&world, &job)).await.unwrap().how, How::New);
}

pub(crate) async fn a_cancelled_job_is_not_joined(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    assert_eq!(revoke(&world, &job, true).await, Revoked::Cancelled);
    let second = again(&world, &job);
    assert_eq!(world.accept(&second).await.unwrap().how, How::New);
    // The end of the first does not make the second forgotten.
    world.refuse(&node("signer"), job.job, None).await;
    let third = world.accept(&again(&world, &job)).await.unwrap();
    assert_eq!((third.job, third.how), (second.job, How::Joined));
}

pub(crate) async fn an_idempotency_key_answers_with_its_job_until_it_runs_out(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = keyed(world.job(), 1, 1);
    world.issue(&job).await;
    // Whatever else the request says, and whatever has become of the issuer since.
    world.disable("alpha").await;
    let paused = LaneSwitches {
        draining: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&job.lane, paused).await.unwrap();
    world.advance(DAY.checked_sub(Duration::from_secs(1)).unwrap());
    let repeated = world.accept(&keyed(world.job(), 1, 1)).await.unwrap();
    assert_eq!(
        (repeated.job, repeated.how, repeated.state),
        (job.job, How::Repeated, State::Issued)
    );
    world
        .store
        .switch_lane(&job.lane, LaneSwitches::default())
        .await
        .unwrap();
    world.put_issuers(&[super::world::issuer("alpha")]).await;

    world.advance(Duration::from_secs(1));
    let anew = keyed(world.job(), 1, 1);
    assert_eq!(world.accept(&anew).await.unwrap().how, How::New);
    // In flight it answers as well, and the new front end is told too.
    let mut waiting = keyed(world.job(), 1, 1);
    waiting.waiter = Some(node("front"));
    let repeated = world.accept(&waiting).await.unwrap();
    assert_eq!(
        (repeated.job, repeated.how, repeated.state),
        (anew.job, How::Repeated, State::Queued)
    );
    let ended = world.refuse(&node("signer"), anew.job, None).await.unwrap();
    assert_eq!(ended.waiters, [node("front")]);
}

pub(crate) async fn an_idempotency_key_with_another_request_is_a_conflict(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = keyed(world.job(), 1, 1);
    world.accept(&job).await.unwrap();
    let other = keyed(world.job(), 1, 2);
    assert_eq!(world.accept(&other).await, Err(AcceptError::IdempotencyConflict));
    assert_eq!(world.accept(&keyed(world.job(), 2, 2)).await.unwrap().how, How::New);
    // A key that joined stands for the job that it joined.
    let mut joined = keyed(again(&world, &job), 3, 1);
    assert_eq!(world.accept(&joined).await.unwrap().how, How::Joined);
    joined = keyed(world.job(), 3, 1);
    let repeated = world.accept(&joined).await.unwrap();
    assert_eq!((repeated.job, repeated.how), (job.job, How::Repeated));
}

pub(crate) async fn an_idempotency_key_of_a_refused_job_begins_anew(harness: &impl Harness) {
    let world = World::new(harness).await;
    let refused = keyed(world.job(), 1, 1);
    world.accept(&refused).await.unwrap();
    world.refuse(&node("signer"), refused.job, None).await;
    let second = keyed(world.job(), 1, 1);
    assert_eq!(world.accept(&second).await.unwrap().how, How::New);
    let third = world.accept(&keyed(world.job(), 1, 1)).await.unwrap();
    assert_eq!((third.job, third.how), (second.job, How::Repeated));

    let revoked = keyed(world.job(), 2, 1);
    world.issue(&revoked).await;
    revoke(&world, &revoked, false).await;
    assert_eq!(world.accept(&keyed(world.job(), 2, 1)).await.unwrap().how, How::New);
}

pub(crate) async fn repeats_and_joins_use_no_quota(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut job = keyed(world.job(), 1, 1);
    job.limits.quota = 1;
    job.limits.jobs_in_flight = 1;
    job.limits.lane_depth = 1;
    world.accept(&job).await.unwrap();
    for _ in 0..3 {
        let mut joiner = again(&world, &job);
        joiner.limits = job.limits;
        assert_eq!(world.accept(&joiner).await.unwrap().how, How::Joined);
        let mut repeater = keyed(world.job(), 1, 1);
        repeater.limits = job.limits;
        assert_eq!(world.accept(&repeater).await.unwrap().how, How::Repeated);
    }
    assert_eq!(world.store.quota_left(&job.account, 1).await.unwrap(), 0);
    assert_eq!(world.lane("alpha.interactive").await.queued, 1);
}

pub(crate) async fn repeats_within_one_call_join_each_other(harness: &impl Harness) {
    let world = World::new(harness).await;
    let first = world.job();
    let others = [again(&world, &first), again(&world, &first)];
    let [second, third] = others;
    let answers = world.store.accept(vec![first.clone(), second, third]).await;
    let how: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().how).collect();
    assert_eq!(how, [How::New, How::Joined, How::Joined]);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().job == first.job));
}

pub(crate) async fn a_job_that_is_joined_while_it_is_begun_has_a_statement_for_its_time(harness: &impl Harness) {
    let world = World::new(harness).await;
    let owner = node("signer");
    for _ in 0..100 {
        let first = world.accepted().await;
        let second = NewJob {
            sign_by: first.sign_by + Duration::from_secs(1),
            ..again(&world, &first)
        };
        let jobs = [first.job];
        let (joined, begun) = tokio::join!(world.accept(&second), world.store.begin(&owner, &jobs));
        joined.unwrap();
        let Ok([Begin::Begun(begun)]) = begun.as_deref() else {
            panic!("{begun:?}");
        };
        if begun.sign_by != begun.request.sign_by {
            assert_eq!(
                begun.joined,
                [(second.statement, second.proof)],
                "sign_by without its statement"
            );
        }
    }
}
