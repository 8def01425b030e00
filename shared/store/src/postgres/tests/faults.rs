//! A server that goes away, an answer that is lost, a client that stands still in the middle of a transaction.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use domain::{id::Serial, job::State};
use engines::chaos_proxy::ChaosProxy;
use tokio::task::JoinSet;

use super::{Postgres, Server};
use crate::{
    AcceptError, Begin, Finished, How, NewJob, NotBegun, Store, StoreError,
    suite::world::{World, node, signature},
};

/// What came of many calls, in words.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
    fn of(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or(0)
    }
}

/// Offers jobs one after the other, each until it is accepted. Serials that were accepted, and what was heard meanwhile.
async fn insist(store: Arc<dyn Store>, jobs: Vec<NewJob>) -> (Vec<Serial>, Tally) {
    let (mut accepted, mut tally) = (Vec::new(), Tally::default());
    for job in jobs {
        loop {
            match store.accept(vec![job.clone()]).await.remove(0) {
                Ok(answer) => {
                    assert_eq!(answer.job, job.job);
                    accepted.push(job.job);
                    tally.count("accepted");
                    break;
                }
                Err(AcceptError::Store(StoreError::Unavailable(_))) => tally.count("unavailable"),
                Err(AcceptError::Store(StoreError::OutcomeUnknown(_))) => tally.count("outcome unknown"),
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    (accepted, tally)
}

/// Loads the store from several tasks while `fault` is done to the server, and demands that all is there in the end.
async fn under_load(server: &mut Server, each: usize, fault: impl FnOnce(&mut engines::Postgres)) -> Tally {
    let world = World::new(server).await;
    let mut load = JoinSet::new();
    for _ in 0..8 {
        let jobs = (0..each).map(|_| world.job()).collect();
        load.spawn(insist(Arc::clone(&world.store), jobs));
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    tokio::task::block_in_place(|| fault(&mut server.0));
    let mut tally = Tally::default();
    let mut all = Vec::new();
    for (accepted, heard) in load.join_all().await {
        all.extend(accepted);
        for (what, number) in heard.0 {
            *tally.0.entry(what).or_default() += number;
        }
    }
    for job in &all {
        assert_eq!(world.state(*job).await, State::Queued);
    }
    assert_eq!(world.lane("alpha.interactive").await.queued, all.len() as u64);
    assert_eq!(server.sql("SELECT count(*) FROM open"), all.len().to_string());
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_nothing_and_doubles_nothing() {
    let mut server = Server::start();
    let tally = under_load(&mut server, 150, |postgres| postgres.restart().unwrap()).await;
    println!("restart under load: {:?}", tally.0);
    assert_eq!(tally.of("accepted"), 1_200);
    assert!(
        tally.of("unavailable") + tally.of("outcome unknown") > 0,
        "nobody noticed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_loses_nothing_and_doubles_nothing() {
    let mut server = Server::start();
    let tally = under_load(&mut server, 150, |postgres| {
        postgres.kill().unwrap();
        postgres.launch().unwrap();
    })
    .await;
    println!("kill under load: {:?}", tally.0);
    assert_eq!(tally.of("accepted"), 1_200);
    assert!(
        tally.of("unavailable") + tally.of("outcome unknown") > 0,
        "nobody noticed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_answered_for_in_time_and_goes_on_when_it_wakes() {
    let mut server = Server::start();
    let world = World::new(&server).await;
    let before = world.accepted().await;
    server.0.suspend().unwrap();
    let jobs: Vec<NewJob> = (0..20).map(|_| world.job()).collect();
    let mut calls = JoinSet::new();
    for job in jobs.clone() {
        let store = Arc::clone(&world.store);
        calls.spawn(async move { store.accept(vec![job]).await.remove(0) });
    }
    let read = world.store.job(before.job).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let answers = tokio::time::timeout(Duration::from_mins(1), calls.join_all());
    for answer in answers.await.expect("callers were left waiting") {
        let honest = matches!(
            answer,
            Err(AcceptError::Store(
                StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)
            ))
        );
        assert!(honest, "{answer:?}");
    }
    server.0.resume().unwrap();
    let (accepted, tally) = insist(Arc::clone(&world.store), jobs).await;
    println!("after the server woke: {:?}", tally.0);
    assert_eq!(accepted.len(), 20);
    assert_eq!(world.state(before.job).await, State::Queued);
    assert_eq!(world.lane("alpha.interactive").await.queued, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown_and_a_repeat_finds_the_job() {
    let server = Server::start();
    let world = World::new(&server).await;
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, server.0.port()));
    let proxy = ChaosProxy::start(upstream).await.unwrap();
    let mut options = server.options();
    options.port = proxy.address().port();
    options.clock = Some(world.clock.clone());
    let far: Arc<dyn Store> = Arc::new(Postgres::open(options).await.unwrap());
    for _ in 0..3 {
        // The first is for the connection, its statements and its lease of quota: the second is one round trip.
        far.accept(vec![world.job()]).await.remove(0).unwrap();
        proxy.delay(Duration::from_millis(250));
        let job = world.job();
        let call = {
            let (far, job) = (Arc::clone(&far), job.clone());
            tokio::spawn(async move { far.accept(vec![job]).await.remove(0) })
        };
        // As soon as it is committed, and while its answer is still on the way, the link is cut.
        while world.store.job(job.job).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
        let answer = call.await.unwrap();
        let unknown = matches!(answer, Err(AcceptError::Store(StoreError::OutcomeUnknown(_))));
        assert!(unknown, "{answer:?}");
        proxy.restore();
        let (found, _) = insist(Arc::clone(&far), vec![job.clone()]).await;
        assert_eq!(found, [job.job]);
        assert_eq!(far.accept(vec![job]).await.remove(0).unwrap().how, How::Joined);
    }
    assert_eq!(world.lane("alpha.interactive").await.queued, 6);
}

/// A client of its own that holds rows locked, as a process does that stopped in the middle of a transaction.
struct Holder(Child);

impl Holder {
    fn hold(server: &Server, jobs: &[NewJob], idle_limit: &str) -> Self {
        let mut child = server
            .0
            .psql_command("ledger")
            .env(
                "PGOPTIONS",
                format!("-c idle_in_transaction_session_timeout={idle_limit}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let names: Vec<String> = jobs.iter().map(|job| format!("'\\x{}'", job.job)).collect();
        let mut input = child.stdin.take().unwrap();
        let lock = format!(
            "BEGIN; SELECT 'locked' FROM open WHERE job IN ({}) FOR UPDATE;\n",
            names.join(", ")
        );
        input.write_all(lock.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "locked");
        let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
        assert!(stopped.unwrap().success());
        // Its input stays open, or it would leave when it is woken.
        std::mem::forget(input);
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_get_past_a_client_that_stopped_in_the_middle_of_a_transaction() {
    let server = Server::start();
    let world = World::new(&server).await;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(world.accepted().await);
    }
    let serials: Vec<Serial> = jobs.iter().map(|job| job.job).collect();
    let owner = node("signer");
    let holder = Holder::hold(&server, &jobs[..5], "0");
    let begun = world.store.begin(&owner, &serials).await.unwrap();
    for (number, begin) in begun.iter().enumerate() {
        if number < 5 {
            assert_eq!(*begin, Begin::Not(serials[number], NotBegun::Elsewhere));
        } else {
            assert!(matches!(begin, Begin::Begun(_)), "{begin:?}");
        }
    }
    // New work is accepted, other jobs end.
    world.accepted().await;
    let finishes = jobs[5..].iter().map(|job| signature(job, 1)).collect();
    for answer in world.store.finish(&owner, finishes).await {
        assert!(matches!(answer, Ok(Finished::Issued { first: true, .. })), "{answer:?}");
    }
    drop(holder);
    let begun = world.store.begin(&owner, &serials[..5]).await.unwrap();
    assert!(begun.iter().all(|begin| matches!(begin, Begin::Begun(_))), "{begun:?}");

    // A signature for a row that is held: the others of its batch are recorded, and it is told to come again.
    let holder = Holder::hold(&server, &jobs[..1], "0");
    let finishes: Vec<_> = jobs[..5].iter().map(|job| signature(job, 1)).collect();
    let answers = world.store.finish(&owner, finishes.clone()).await;
    assert!(
        matches!(answers[0], Err(StoreError::Unavailable(_))),
        "{:?}",
        answers[0]
    );
    assert!(
        answers[1..]
            .iter()
            .all(|answer| matches!(answer, Ok(Finished::Issued { first: true, .. })))
    );
    drop(holder);
    let again = world.finish(&owner, finishes[0].clone()).await;
    assert!(matches!(again, Finished::Issued { first: true, .. }), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_a_transaction_of_ours_that_stands_still() {
    let server = Server::start();
    let world = World::new(&server).await;
    let job = world.accepted().await;
    // With the limit that our connections have the server lets go of the rows by itself, though the client still stands there.
    let holder = Holder::hold(&server, std::slice::from_ref(&job), "1000");
    let begun = async {
        while world.try_begin(&node("signer"), job.job).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun)
        .await
        .expect("the row was never free");
    drop(holder);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkhead'";
    assert_ne!(server.sql(ours), "0");
}
