//! Revocations and cancellations.

use std::time::Duration;

use domain::job::{RevocationReason, State};

use super::{
    Harness,
    world::{START, World, node, signature},
};
use crate::{Counter, Finished, NewJob, Revocation, Revoked, Statistics, StatisticsQuery};

fn revocation(job: &NewJob, reason: RevocationReason) -> Revocation {
    Revocation {
        job: job.job,
        account: Some(job.account.clone()),
        reason,
        revocation_date: None,
        cancel_pending: false,
        by: format!("account:{}", job.account),
    }
}

pub(crate) async fn a_certificate_is_revoked_once_and_only_a_compromise_raises_the_reason(harness: &impl Harness) {
    use RevocationReason::{KeyCompromise, Superseded, Unspecified};
    let world = World::new(harness).await;
    let job = world.job();
    world.issue(&job).await;
    world.advance(Duration::from_mins(1));
    let revoke = |reason| world.store.revoke(revocation(&job, reason));
    assert_eq!(revoke(Superseded).await.unwrap(), Revoked::Done);
    let record = world.get(job.job).await.revocation.unwrap();
    assert_eq!((record.reason, record.decided_at), (Superseded, world.now()));
    assert_eq!((record.revocation_date, record.published_at), (START + 60, None));
    assert_eq!(world.state(job.job).await, State::Issued);

    assert_eq!(revoke(Unspecified).await.unwrap(), Revoked::Already(Superseded));
    world.advance(Duration::from_mins(1));
    assert_eq!(revoke(KeyCompromise).await.unwrap(), Revoked::Raised);
    assert_eq!(revoke(KeyCompromise).await.unwrap(), Revoked::Already(KeyCompromise));
    assert_eq!(revoke(Superseded).await.unwrap(), Revoked::Already(KeyCompromise));
    let record = world.get(job.job).await.revocation.unwrap();
    assert_eq!((record.reason, record.revocation_date), (KeyCompromise, START + 60));
    assert_eq!(world.store.counter(&job.account, Counter::Revoked).await.unwrap(), 1);
}

pub(crate) async fn anothers_certificate_is_unknown(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.job();
    world.issue(&job).await;
    let mut foreign = revocation(&job, RevocationReason::Superseded);
    foreign.account = Some("bob".parse().unwrap());
    assert_eq!(world.store.revoke(foreign).await.unwrap(), Revoked::Unknown);
    let never = revocation(&world.job(), RevocationReason::Superseded);
    assert_eq!(world.store.revoke(never).await.unwrap(), Revoked::Unknown);
    assert_eq!(world.get(job.job).await.revocation, None);
}

pub(crate) async fn a_pending_job_is_refused_and_an_operator_cancels_it(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let mut wanted = revocation(&job, RevocationReason::Superseded);
    assert_eq!(world.store.revoke(wanted.clone()).await.unwrap(), Revoked::Pending);
    assert_eq!(world.store.cancelled(&[job.job]).await.unwrap(), []);
    wanted.cancel_pending = true;
    assert_eq!(world.store.revoke(wanted.clone()).await.unwrap(), Revoked::Cancelled);
    let already = Revoked::Already(RevocationReason::Superseded);
    assert_eq!(world.store.revoke(wanted).await.unwrap(), already);
    let other = world.accepted().await;
    assert_eq!(world.store.cancelled(&[other.job, job.job]).await.unwrap(), [job.job]);
    assert_eq!(world.store.counter(&job.account, Counter::Revoked).await.unwrap(), 0);
}

pub(crate) async fn a_cancelled_job_that_is_signed_all_the_same_is_issued_and_revoked_at_once(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("signer");
    let begun = world.begin(&owner, job.job).await;
    let mut wanted = revocation(&job, RevocationReason::KeyCompromise);
    wanted.cancel_pending = true;
    assert_eq!(world.store.revoke(wanted).await.unwrap(), Revoked::Cancelled);
    let finish = signature(&job, begun.turn);
    let finished = world.finish(&owner, finish.clone()).await;
    assert!(
        matches!(
            finished,
            Finished::Issued {
                first: true,
                revoked: true,
                ..
            }
        ),
        "{finished:?}"
    );
    let again = world.finish(&owner, finish).await;
    assert!(
        matches!(
            again,
            Finished::Issued {
                first: false,
                revoked: true,
                ..
            }
        ),
        "{again:?}"
    );
    let stored = world.get(job.job).await;
    assert_eq!(stored.state, State::Issued);
    assert_eq!(stored.revocation.unwrap().reason, RevocationReason::KeyCompromise);
    for counter in [Counter::Issued, Counter::Revoked] {
        assert_eq!(world.store.counter(&job.account, counter).await.unwrap(), 1);
    }
}

pub(crate) async fn a_job_without_a_certificate_was_never_issued(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let owner = node("signer");
    let begun = world.begin(&owner, job.job).await;
    world.refuse(&owner, job.job, Some(begun.turn)).await;
    let mut wanted = revocation(&job, RevocationReason::KeyCompromise);
    wanted.cancel_pending = true;
    let answer = world.store.revoke(wanted).await.unwrap();
    assert_eq!(answer, Revoked::NeverIssued(State::Refused));
}

pub(crate) async fn revocation_dates_are_judged_by_the_stores_time(harness: &impl Harness) {
    use RevocationReason::{KeyCompromise, Superseded};
    let world = World::new(harness).await;
    let dated = |job: &NewJob, reason, date| {
        let mut wanted = revocation(job, reason);
        wanted.revocation_date = Some(date);
        world.store.revoke(wanted)
    };
    let job = world.job();
    world.issue(&job).await;
    world.advance(Duration::from_mins(10));
    let now = START + 600;
    assert_eq!(dated(&job, Superseded, now + 60).await.unwrap(), Revoked::InTheFuture);
    assert_eq!(
        dated(&job, KeyCompromise, now + 60).await.unwrap(),
        Revoked::InTheFuture
    );
    assert_eq!(dated(&job, Superseded, now - 60).await.unwrap(), Revoked::TooEarly);
    assert_eq!(dated(&job, KeyCompromise, START - 1).await.unwrap(), Revoked::TooEarly);
    assert_eq!(world.get(job.job).await.revocation, None);
    // A compromise dates back; a client's now may be a second old.
    assert_eq!(dated(&job, KeyCompromise, START).await.unwrap(), Revoked::Done);
    assert_eq!(world.get(job.job).await.revocation.unwrap().revocation_date, START);
    let other = world.job();
    world.issue(&other).await;
    world.advance(Duration::from_secs(1));
    assert_eq!(dated(&other, Superseded, now).await.unwrap(), Revoked::Done);
}

pub(crate) async fn a_cancellation_and_a_signature_at_the_same_instant_make_one_revoked_certificate(
    harness: &impl Harness,
) {
    let world = World::new(harness).await;
    let owner = node("signer");
    let rounds = 60;
    let mut account = None;
    for _ in 0..rounds {
        let job = world.accepted().await;
        let turn = world.begin(&owner, job.job).await.turn;
        let mut wanted = revocation(&job, RevocationReason::KeyCompromise);
        wanted.cancel_pending = true;
        let finish = world.store.finish(&owner, vec![signature(&job, turn)]);
        let (revoked, finished) = tokio::join!(world.store.revoke(wanted), finish);
        let was_cancelled = matches!(
            finished[0],
            Ok(Finished::Issued {
                first: true,
                revoked: true,
                ..
            })
        );
        let expected = if was_cancelled {
            Revoked::Cancelled
        } else {
            Revoked::Done
        };
        assert_eq!(revoked.unwrap(), expected, "{finished:?}");
        account = Some(job.account);
    }
    let account = account.unwrap();
    assert_eq!(world.store.counter(&account, Counter::Revoked).await.unwrap(), rounds);
    let window = StatisticsQuery {
        account,
        statistics: Statistics::Revoked,
        from: START,
        to: START,
        page: 1,
        per_page: 1,
    };
    assert_eq!(world.store.statistics(&window).await.unwrap().total, rounds);
}
