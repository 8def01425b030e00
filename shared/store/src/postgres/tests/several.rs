//! Several processes on one ledger: each `Postgres` here has connections and counts of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::id::Serial;
use tokio::task::JoinSet;

use super::{Options, Postgres, Server};
use crate::{
    AcceptError, Accepted, How, NewJob, Store, StoreError,
    suite::{
        Harness,
        world::{World, node},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_open_an_empty_database_at_the_same_time() {
    let server = Server::start();
    let mut opening = JoinSet::new();
    for _ in 0..6 {
        opening.spawn(Postgres::open(server.options()));
    }
    let stores: Vec<Postgres> = opening.join_all().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(stores.len(), 6);
    let head = stores[5].head().await.unwrap();
    assert_eq!(head.revision, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_at_two_front_ends_at_the_same_instant_is_one_job() {
    let server = Server::start();
    let world = World::new(&server).await;
    let other = server.another(&world).await;
    for _ in 0..100 {
        let (mut one, mut two) = (world.job(), world.job());
        two.repeat = one.repeat;
        (one.waiter, two.waiter) = (Some(node("front-one")), Some(node("front-two")));
        let (first, second) = tokio::join!(world.store.accept(vec![one]), other.accept(vec![two]));
        let [first, second] = [first, second].map(|mut answers| answers.remove(0).unwrap());
        assert_eq!(first.job, second.job);
        let mut how = [first.how, second.how];
        how.sort_by_key(|how| *how != How::New);
        assert_eq!(how, [How::New, How::Joined]);
        let ended = world.refuse(&node("signer"), first.job, None).await.unwrap();
        assert_eq!(ended.waiters.len(), 2, "each is told");
    }
    assert_eq!(world.lane("alpha.interactive").await.queued, 0);
}

fn limited(world: &World, number: usize, quota: u64) -> Vec<NewJob> {
    let mut jobs: Vec<NewJob> = (0..number).map(|_| world.job()).collect();
    for job in &mut jobs {
        job.limits.quota = quota;
    }
    jobs
}

fn accepted(answers: &[Result<Accepted, AcceptError>]) -> usize {
    for answer in answers {
        assert!(matches!(answer, Ok(_) | Err(AcceptError::QuotaExceeded)), "{answer:?}");
    }
    answers.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_exact_over_all_front_ends() {
    let server = Server::start();
    let world = World::new(&server).await;
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let store = server.another(&world).await;
        for _ in 0..8 {
            let (store, jobs) = (Arc::clone(&store), limited(&world, 10, 137));
            calls.spawn(async move { accepted(&store.accept(jobs).await) });
        }
    }
    let total: usize = calls.join_all().await.into_iter().sum();
    assert_eq!(total, 137, "of 240 requests");
    assert_eq!(world.store.quota_left(&world.job().account, 137).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_front_end_had_leased_when_it_died_is_given_back() {
    let server = Server::start();
    let world = World::new(&server).await;
    let gone = server.another(&world).await;
    assert_eq!(accepted(&gone.accept(limited(&world, 1, 1_000)).await), 1);
    let leased = "SELECT sum(reserved) > 1 FROM account_tally";
    assert_eq!(server.sql(leased), "t", "a block was leased");
    drop(gone);
    let mut total = 0;
    for _ in 0..6 {
        total += accepted(&world.store.accept(limited(&world, 200, 1_000)).await);
    }
    assert_eq!(total, 999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_commit_of_a_disable_on_no_job_appears_anywhere() {
    let server = Server::start();
    let world = World::new(&server).await;
    for _ in 0..5 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut floods = JoinSet::new();
        for _ in 0..2 {
            let store = server.another(&world).await;
            for _ in 0..4 {
                let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
                let jobs: Vec<NewJob> = (0..4_000).map(|_| world.job()).collect();
                floods.spawn(async move {
                    let mut accepted = 0;
                    for job in jobs {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        accepted += usize::from(store.accept(vec![job]).await[0].is_ok());
                    }
                    accepted
                });
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.disable("alpha").await;
        let count = "SELECT count(*) FROM open";
        let then = server.sql(count);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(server.sql(count), then);
        stop.store(true, Ordering::Relaxed);
        assert!(
            floods.join_all().await.into_iter().sum::<usize>() > 0,
            "nothing was under way"
        );
        world.put_issuers(&[crate::suite::world::issuer("alpha")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_added_up_over_connections_that_come_and_go() {
    let server = Server::start();
    let world = World::new(&server).await;
    let (one, two) = (server.another(&world).await, server.another(&world).await);
    let mut jobs: Vec<Serial> = Vec::new();
    for store in [&one, &two, &one] {
        let some: Vec<NewJob> = (0..10).map(|_| world.job()).collect();
        jobs.extend(some.iter().map(|job| job.job));
        // The other's calls wait for nothing, and its connection counts for itself.
        let owner = node("signer");
        let (accepted, begun) = tokio::join!(store.accept(some), two.begin(&owner, &jobs[..5]));
        begun.unwrap();
        for answer in accepted {
            answer.unwrap();
        }
    }
    drop((one, two));
    // Whoever comes next takes the numbers of those that are gone, with their counts.
    let three = server.another(&world).await;
    three.begin(&node("signer"), &jobs[10..20]).await.unwrap();
    let more: Vec<NewJob> = (0..10).map(|_| world.job()).collect();
    for answer in three.accept(more).await {
        answer.unwrap();
    }
    let status = world.lane("alpha.interactive").await;
    let open = server.sql("SELECT state, count(*) FROM open GROUP BY state ORDER BY state");
    assert_eq!(
        open,
        format!("queued|{}\nsigning|{}", status.queued, status.signing).trim_start_matches("queued|0\n")
    );
    assert_eq!(status.queued + status.signing, 40);
    let writers = server.sql("SELECT count(DISTINCT writer) > 1 FROM lane_tally");
    assert_eq!(writers, "t", "several connections have counted");
}

#[tokio::test]
async fn options_out_of_range_name_themselves_and_secrets_are_not_shown() {
    type Change = fn(&mut Options);
    let server = Server::start();
    let wrong: [(&str, Change); 5] = [
        ("commit_gap", |options| options.commit_gap = Duration::from_secs(1)),
        ("writers", |options| options.writers = 0),
        ("batch_rows", |options| options.batch_rows = 5_000),
        ("statement_limit", |options| {
            options.statement_limit = Duration::from_mins(1);
        }),
        ("password_file", |options| {
            options.password_file = Some("/nowhere".into());
        }),
    ];
    for (name, change) in wrong {
        let mut options = server.options();
        change(&mut options);
        let error = Postgres::open(options).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Rejected(text) if text.contains(name)),
            "{error}"
        );
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a wrong secret\n").unwrap();
    let mut options = server.options();
    options.password_file = Some(secret.path().into());
    let shown = format!("{options:?}");
    let error = Postgres::open(options).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(_)), "{error}");
    assert!(!format!("{shown} {error}").contains("secret"), "{shown} {error}");
}

#[tokio::test]
async fn the_time_is_the_servers() {
    let server = Server::start();
    let store = Postgres::open(server.options()).await.unwrap();
    let before: i64 = server.sql("SELECT ledger_now()").parse().unwrap();
    let now = store.now().await.unwrap().as_millis();
    let after: i64 = server.sql("SELECT ledger_now()").parse().unwrap();
    assert!((before..=after).contains(&now), "{before} {now} {after}");
    assert!(
        Harness::open(&server, Arc::new(Never))
            .await
            .now()
            .await
            .unwrap()
            .as_millis()
            == 0
    );
}

/// A clock that stands at the beginning.
#[derive(Debug)]
struct Never;

impl domain::time::Clock for Never {
    fn now(&self) -> domain::time::Timestamp {
        domain::time::Timestamp::default()
    }
}
