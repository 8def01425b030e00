//! Batches without coupling: a bad row fails alone, and nobody's call spoils another's.

use std::{collections::HashSet, sync::Arc};

use super::{
    Harness,
    world::{World, node, signature},
};
use crate::{AcceptError, Begin, Deferral, Finished, How, NewJob, Outcome, Refusal, StoreError};

/// A job that no store takes: its certificate would end before it begins.
fn bad(mut job: NewJob) -> NewJob {
    job.not_after = job.not_before - 1;
    job
}

pub(crate) async fn a_job_that_stands_twice_in_a_batch_ends_once_and_is_counted_once(harness: &impl Harness) {
    let world = World::new(harness).await;
    let owner = node("signer");
    let (job, other) = (world.accepted().await, world.accepted().await);
    // A signer that takes over its own job, because its answers were late, ends it in two turns.
    for job in [&job, &other] {
        world.begin(&owner, job.job).await;
    }
    let ends = vec![
        signature(&job, 1),
        signature(&other, 1),
        signature(&job, 2),
        signature(&job, 1),
    ];
    let answers = world.store.finish(&owner, ends).await;
    let firsts: Vec<bool> = answers
        .iter()
        .map(|answer| matches!(answer, Ok(Finished::Issued { first: true, .. })))
        .collect();
    assert_eq!(firsts, [true, true, false, false], "{answers:?}");
    let Ok(Finished::Issued {
        ended, first: false, ..
    }) = &answers[2]
    else {
        panic!("{:?}", answers[2]);
    };
    assert!(
        matches!(&ended.outcome, Outcome::Issued { signature: kept, .. } if *kept == signature(&job, 1).signature),
        "{ended:?}"
    );
    let counter = world.store.counter(&job.account, crate::Counter::Issued);
    assert_eq!(counter.await.unwrap(), 2);
    assert!(world.store.lanes().await.unwrap().iter().all(|lane| lane.signing == 0));

    // Put back twice, refused twice.
    let job = world.accepted().await;
    let turn = world.begin(&owner, job.job).await.turn;
    let deferral = Deferral {
        job: job.job,
        turn,
        reason: "a test".into(),
    };
    let twice = vec![deferral.clone(), deferral];
    world.store.defer(&owner, twice).await.unwrap();
    let lane = world.lane("alpha.interactive").await;
    assert_eq!((lane.queued, lane.signing), (1, 0));
    let refusal = Refusal {
        job: job.job,
        turn: None,
        id: "policy_violation".into(),
        detail: "a test".into(),
    };
    let answers = world.store.refuse(&owner, vec![refusal.clone(), refusal]).await;
    assert!(
        answers.iter().all(|answer| matches!(answer, Ok(Some(_)))),
        "{answers:?}"
    );
    assert!(world.store.lanes().await.unwrap().iter().all(|lane| lane.queued == 0));
    assert_eq!(world.store.quota_left(&job.account, 100).await.unwrap(), 98);
}

pub(crate) async fn a_bad_row_in_a_hundred_fails_alone(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut jobs: Vec<NewJob> = (0..100).map(|_| world.job()).collect();
    jobs[41] = bad(jobs[41].clone());
    let answers = world.store.accept(jobs.clone()).await;
    assert_eq!(answers.len(), 100);
    for (number, (answer, job)) in answers.iter().zip(&jobs).enumerate() {
        if number == 41 {
            assert!(
                matches!(answer, Err(AcceptError::Store(StoreError::Rejected(_)))),
                "{answer:?}"
            );
            assert_eq!(world.store.job(job.job).await.unwrap(), None);
        } else {
            assert_eq!(answer.as_ref().unwrap().job, job.job);
        }
    }
    // Nothing of the bad one is counted, and everything of the others.
    assert_eq!(world.lane("alpha.interactive").await.queued, 99);
    assert_eq!(world.store.quota_left(&jobs[0].account, 100).await.unwrap(), 1);

    // The same in `finish`: a signature that cannot be one.
    let owner = node("signer");
    let mut finishes = Vec::new();
    for job in jobs.iter().filter(|job| job.not_after > job.not_before) {
        finishes.push(signature(job, world.begin(&owner, job.job).await.turn));
    }
    finishes[7].signature.clear();
    let answers = world.store.finish(&owner, finishes).await;
    for (number, answer) in answers.iter().enumerate() {
        if number == 7 {
            assert!(matches!(answer, Err(StoreError::Rejected(_))), "{answer:?}");
        } else {
            assert!(matches!(answer, Ok(Finished::Issued { first: true, .. })), "{answer:?}");
        }
    }
    assert_eq!(world.lane("alpha.interactive").await.signing, 1);
    assert_eq!(
        world
            .store
            .counter(&jobs[0].account, crate::Counter::Issued)
            .await
            .unwrap(),
        98
    );
}

pub(crate) async fn a_bad_row_among_concurrent_calls_fails_alone(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut job = world.job();
        if number % 10 == 3 {
            job = bad(job);
        }
        let store = Arc::clone(&world.store);
        calls.spawn(async move { (number, store.accept(vec![job]).await.remove(0)) });
    }
    while let Some(call) = calls.join_next().await {
        let (number, answer) = call.unwrap();
        assert_eq!(answer.is_err(), number % 10 == 3, "{number}: {answer:?}");
    }
    assert_eq!(world.lane("alpha.interactive").await.queued, 90);
}

pub(crate) async fn a_call_of_too_many_rows_is_refused_whole(harness: &impl Harness) {
    let world = World::new(harness).await;
    let jobs: Vec<NewJob> = (0..1_001).map(|_| world.job()).collect();
    let serials: Vec<_> = jobs.iter().map(|job| job.job).collect();
    let refused = |answer: &Result<_, AcceptError>| matches!(answer, Err(AcceptError::Store(StoreError::Rejected(_))));
    let answers = world.store.accept(jobs).await;
    assert_eq!((answers.len(), answers.iter().all(refused)), (1_001, true));
    let begun = world.store.begin(&node("signer"), &serials).await;
    assert!(matches!(begun, Err(StoreError::Rejected(_))), "{begun:?}");
    assert_eq!(world.lane("alpha.interactive").await.queued, 0);
}

pub(crate) async fn concurrent_calls_begin_each_job_once(harness: &impl Harness) {
    let world = World::new(harness).await;
    let jobs: Vec<NewJob> = (0..64).map(|_| world.job()).collect();
    let serials: Vec<_> = jobs.iter().map(|job| job.job).collect();
    world.store.accept(jobs).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (store, mut serials) = (Arc::clone(&world.store), serials.clone());
        serials.rotate_left(number * 8);
        let owner = node(&format!("signer-{number}"));
        calls.spawn(async move { store.begin(&owner, &serials).await.unwrap() });
    }
    let mut begun = HashSet::new();
    let mut times = 0;
    while let Some(answers) = calls.join_next().await {
        for answer in answers.unwrap() {
            if let Begin::Begun(job) = answer {
                times += 1;
                begun.insert(job.job);
            }
        }
    }
    assert_eq!((times, begun.len()), (64, 64));
}

/// Begins, deferrals, joins and signatures of the same jobs, in opposite orders and at the same time: everybody is answered, and
/// nobody hears of a deadlock.
pub(crate) async fn batches_in_opposite_orders_are_no_obstacle_to_each_other(harness: &impl Harness) {
    let world = World::new(harness).await;
    let jobs: Vec<NewJob> = (0..48).map(|_| world.job()).collect();
    world.store.accept(jobs.clone()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..6 {
        let store = Arc::clone(&world.store);
        let mut serials: Vec<_> = jobs.iter().map(|job| job.job).collect();
        if number % 2 == 0 {
            serials.reverse();
        }
        serials.rotate_left(number * 5);
        // The same requests again, under other serials: they join.
        let mut again: Vec<NewJob> = serials.iter().map(|_| world.job()).collect();
        for (joiner, serial) in again.iter_mut().zip(&serials) {
            joiner.repeat = jobs.iter().find(|job| job.job == *serial).unwrap().repeat;
            joiner.waiter = Some(node(&format!("front-{number}")));
        }
        calls.spawn(async move {
            let owner = node(&format!("signer-{number}"));
            for _ in 0..5 {
                let begun = store.begin(&owner, &serials).await.unwrap();
                let deferral = |begin| match begin {
                    Begin::Begun(begun) => Some(Deferral {
                        job: begun.job,
                        turn: begun.turn,
                        reason: String::new(),
                    }),
                    Begin::Not(..) => None,
                };
                let mut deferrals: Vec<_> = begun.into_iter().filter_map(deferral).collect();
                deferrals.reverse();
                store.defer(&owner, deferrals).await.unwrap();
            }
            for (answer, serial) in store.accept(again).await.into_iter().zip(&serials) {
                let accepted = answer.unwrap();
                assert_eq!((accepted.job, accepted.how), (*serial, How::Joined));
            }
        });
    }
    calls.join_all().await;
    assert_eq!(world.lane("alpha.interactive").await.queued, 48);

    let serials: Vec<_> = jobs.iter().map(|job| job.job).collect();
    let owner = node("signer");
    let begun = world.store.begin(&owner, &serials).await.unwrap();
    assert!(begun.iter().all(|begin| matches!(begin, Begin::Begun(_))), "{begun:?}");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..4 {
        let mut finishes: Vec<_> = jobs.iter().map(|job| signature(job, 1)).collect();
        if number % 2 == 0 {
            finishes.reverse();
        }
        let (store, owner) = (Arc::clone(&world.store), owner.clone());
        calls.spawn(async move { store.finish(&owner, finishes).await });
    }
    let mut first_of_all = 0;
    for answers in calls.join_all().await {
        for answer in answers {
            let Ok(Finished::Issued { first, .. }) = answer else {
                panic!("{answer:?}");
            };
            first_of_all += usize::from(first);
        }
    }
    assert_eq!(first_of_all, 48);
    let status = world.lane("alpha.interactive").await;
    assert_eq!((status.queued, status.signing), (0, 0));
}
