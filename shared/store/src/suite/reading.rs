//! Counters, statistics, lists, events, depths.

use std::time::Duration;

use domain::job::{RevocationReason, State};

use super::{
    Harness,
    world::{START, World, lane, node},
};
use crate::{
    Counter, JobEvent, JobFilter, LaneSwitches, NewJob, Revocation, Statistics, StatisticsPage, StatisticsQuery,
};

async fn window(world: &World, statistics: Statistics, from: i64, to: i64) -> StatisticsPage {
    let query = StatisticsQuery {
        account: "alice".parse().unwrap(),
        statistics,
        from,
        to,
        page: 1,
        per_page: 100,
    };
    world.store.statistics(&query).await.unwrap()
}

async fn revoke(world: &World, job: &NewJob) {
    let revocation = Revocation {
        job: job.job,
        account: None,
        reason: RevocationReason::Superseded,
        revocation_date: None,
        cancel_pending: false,
        by: "operator:olga".into(),
    };
    assert_eq!(world.store.revoke(revocation).await.unwrap(), crate::Revoked::Done);
}

pub(crate) async fn counters_count_what_was_issued_and_revoked(harness: &impl Harness) {
    let world = World::new(harness).await;
    let jobs = [world.job(), world.job(), world.job()];
    for job in &jobs {
        world.issue(job).await;
    }
    world.accepted().await;
    revoke(&world, &jobs[1]).await;
    let count = async |account: &str, counter| world.store.counter(&account.parse().unwrap(), counter).await.unwrap();
    assert_eq!(count("alice", Counter::Issued).await, 3);
    assert_eq!(count("alice", Counter::Revoked).await, 1);
    assert_eq!(count("bob", Counter::Issued).await, 0);
}

pub(crate) async fn a_window_of_issued_certificates_is_paged(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut serials = Vec::new();
    for _ in 0..7 {
        let job = world.job();
        world.issue(&job).await;
        serials.push(job.job);
        world.advance(Duration::from_secs(1));
    }
    let mut others = world.job();
    others.account = "bob".parse().unwrap();
    world.issue(&others).await;
    let page = async |page| {
        let query = StatisticsQuery {
            account: "alice".parse().unwrap(),
            statistics: Statistics::Issued,
            from: START,
            to: START + 100,
            page,
            per_page: 3,
        };
        let found = world.store.statistics(&query).await.unwrap();
        assert_eq!(found.total, 7);
        found.entries.into_iter().map(|entry| entry.job).collect::<Vec<_>>()
    };
    assert_eq!(page(1).await, serials[..3]);
    assert_eq!(page(2).await, serials[3..6]);
    assert_eq!(page(3).await, serials[6..]);
    assert_eq!(page(4).await, []);
    assert_eq!(page(u32::MAX).await, []);
}

pub(crate) async fn windows_are_inclusive_and_know_their_times(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.job();
    world.advance(Duration::from_millis(10_900));
    world.issue(&job).await;
    world.advance(Duration::from_secs(20));
    revoke(&world, &job).await;

    let count = async |statistics, from, to| {
        let page = window(&world, statistics, from, to).await;
        assert_eq!(page.entries.len() as u64, page.total);
        if let Some(entry) = page.entries.first() {
            assert_eq!(
                (entry.job, entry.not_before, entry.not_after),
                (job.job, job.not_before, job.not_after)
            );
        }
        page.total
    };
    // notBefore was ten seconds before issuance: the time of issuance counts.
    let issued = START + 10;
    assert_eq!(count(Statistics::Issued, issued, issued).await, 1);
    assert_eq!(count(Statistics::Issued, START, issued - 1).await, 0);
    assert_eq!(count(Statistics::Issued, issued + 1, issued + 9).await, 0);
    assert_eq!(count(Statistics::Expiring, job.not_after, job.not_after).await, 1);
    assert_eq!(count(Statistics::Expiring, START, job.not_after - 1).await, 0);
    let revoked = START + 30;
    assert_eq!(count(Statistics::Revoked, revoked, revoked).await, 1);
    assert_eq!(count(Statistics::Revoked, START, revoked - 1).await, 0);
    assert_eq!(count(Statistics::Issued, i64::MIN, i64::MAX).await, 1);

    // A notBefore within a second of issuance counts as its time too.
    let mut close = world.job();
    close.not_before = world.now().as_secs() - 1;
    world.issue(&close).await;
    let page = window(&world, Statistics::Issued, close.not_before, close.not_before).await;
    assert_eq!(page.entries[0].job, close.job);
}

pub(crate) async fn jobs_are_listed_newest_first_and_filtered(harness: &impl Harness) {
    let world = World::new(harness).await;
    let issued = world.job();
    world.issue(&issued).await;
    revoke(&world, &issued).await;
    let mut bobs = world.job();
    bobs.account = "bob".parse().unwrap();
    bobs.lane = lane("beta.bulk");
    world.accept(&bobs).await.unwrap();
    let refused = world.accepted().await;
    world.refuse(&node("signer"), refused.job, None).await;
    let queued = world.accepted().await;

    let list = async |filter: JobFilter| {
        let listed = world.store.jobs(&JobFilter { limit: 10, ..filter }).await.unwrap();
        listed.into_iter().map(|job| job.job).collect::<Vec<_>>()
    };
    let all = JobFilter::default();
    assert_eq!(list(all.clone()).await, [queued.job, refused.job, bobs.job, issued.job]);
    let before = JobFilter {
        before: Some(refused.job),
        ..all.clone()
    };
    assert_eq!(list(before).await, [bobs.job, issued.job]);
    let state = |state| JobFilter {
        state: Some(state),
        ..JobFilter::default()
    };
    assert_eq!(list(state(State::Queued)).await, [queued.job, bobs.job]);
    assert_eq!(list(state(State::Issued)).await, [issued.job]);
    assert_eq!(list(state(State::Parked)).await, []);
    let account = JobFilter {
        account: Some(bobs.account.clone()),
        issuer: Some("beta".parse().unwrap()),
        ..all.clone()
    };
    assert_eq!(list(account).await, [bobs.job]);

    let one = world
        .store
        .jobs(&JobFilter {
            limit: 1,
            ..all.clone()
        })
        .await
        .unwrap();
    assert_eq!((one.len(), one[0].job, one[0].revoked), (1, queued.job, false));
    let last = world
        .store
        .jobs(&JobFilter { limit: u32::MAX, ..all })
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        (last.job, &last.lane, &last.account),
        (issued.job, &issued.lane, &issued.account)
    );
    assert_eq!(
        (&last.profile, last.state, last.revoked),
        (&issued.profile, State::Issued, true)
    );
    assert_eq!((last.accepted_at, last.sign_by), (world.now(), issued.sign_by));
}

pub(crate) async fn events_tell_what_happened_to_a_job(harness: &impl Harness) {
    let world = World::new(harness).await;
    let job = world.accepted().await;
    let event = |kind: &str, detail: String| JobEvent {
        job: job.job,
        kind: kind.into(),
        detail,
        by: "signer-1".into(),
        at: domain::time::Timestamp::default(),
    };
    let first = vec![event("altered", "the intent is not what was asked for".into())];
    world.store.note(first).await.unwrap();
    world.advance(Duration::from_secs(1));
    world
        .store
        .note(vec![event("resigned", "x".repeat(100_000))])
        .await
        .unwrap();
    let events = world.store.events(job.job).await.unwrap();
    assert_eq!((events.len(), events[0].kind.as_str()), (2, "altered"));
    assert_eq!((events[0].by.as_str(), events[0].at.as_secs()), ("signer-1", START));
    assert_eq!(events[1].at, world.now());
    assert!((1..10_000).contains(&events[1].detail.len()), "details are bounded");
    // So is their number.
    for _ in 0..3 {
        let many = (0..400).map(|_| event("deferred", String::new())).collect();
        world.store.note(many).await.unwrap();
    }
    assert_eq!(world.store.events(job.job).await.unwrap().len(), 1_000);
    assert_eq!(world.store.events(world.serial()).await.unwrap(), []);
}

pub(crate) async fn lanes_show_their_depth_and_how_long_the_oldest_waits(harness: &impl Harness) {
    let world = World::new(harness).await;
    assert_eq!(world.store.lanes().await.unwrap(), []);
    assert_eq!(world.store.depths().await.unwrap(), []);
    let first = world.accepted().await;
    world.advance(Duration::from_secs(5));
    let second = world.accepted().await;
    let mut bobs = world.job();
    bobs.account = "bob".parse().unwrap();
    world.accept(&bobs).await.unwrap();
    let status = world.lane("alpha.interactive").await;
    assert_eq!((status.queued, status.signing, status.parked), (3, 0, 0));
    assert_eq!(status.oldest, Some(Duration::from_secs(5)));
    let owner = node("signer");
    world.begin(&owner, first.job).await;
    world.refuse(&owner, second.job, None).await;
    let status = world.lane("alpha.interactive").await;
    assert_eq!(
        (status.queued, status.signing, status.oldest),
        (1, 1, Some(Duration::ZERO))
    );
    // What is set aside is before nobody.
    let diverted = LaneSwitches {
        diverted: true,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&lane("beta.bulk"), diverted).await.unwrap();
    let mut parked = world.job();
    parked.lane = lane("beta.bulk");
    world.accept(&parked).await.unwrap();
    assert_eq!(world.store.depths().await.unwrap(), [(lane("alpha.interactive"), 2)]);

    let switches = LaneSwitches {
        paused: true,
        draining: true,
        diverted: false,
    };
    world.store.switch_lane(&lane("beta.renewal"), switches).await.unwrap();
    let lanes = world.store.lanes().await.unwrap();
    assert_eq!(lanes.len(), 3);
    assert_eq!((&lanes[1].lane, lanes[1].switches), (&lane("beta.renewal"), switches));
    assert_eq!((lanes[1].queued, lanes[1].oldest), (0, None));
}

pub(crate) async fn many_jobs_are_read_in_one_call(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (issued, open) = (world.job(), world.accepted().await);
    world.issue(&issued).await;
    let mut asked: Vec<_> = (0..500).map(|_| world.serial()).collect();
    asked.extend([open.job, issued.job]);
    let ended = world.store.ended(&asked).await.unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].job, ended[0].outcome.state()), (issued.job, State::Issued));
    assert_eq!(world.store.ended(&[]).await.unwrap(), []);
}
