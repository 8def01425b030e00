//! The end of a signer.

use domain::job::State;
use store::Store;
use tokio::{sync::oneshot, task::JoinSet};

use super::{bench::Bench, token::Fault};
use crate::while_nothing_panics;

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_is_in_flight_leaves_the_rest_to_others_and_says_goodbye() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Waits);
    let signer = bench.start();
    let jobs = bench.submit("a", 4).await;
    bench
        .until("it is being signed", async || bench.token.waiting() > 0)
        .await;
    let shutdown = signer.shutdown.clone();
    let stopped = tokio::spawn(signer.stop());
    bench.until("it stops", async || shutdown.has_begun()).await;
    let later = bench.submit("a", 2).await;
    bench.token.mend("a");
    stopped.await.unwrap().unwrap();
    bench.issued("a", &jobs).await;
    for job in &later {
        assert_eq!(bench.state(*job).await, State::Queued);
    }
    let now = bench.store.now().await.unwrap();
    for announced in bench.store.incarnations().await.unwrap() {
        assert!(announced.lease_until <= now, "the lease goes on");
    }
    let signer = bench.start();
    bench.issued("a", &later).await;
    signer.stop().await.unwrap();
}

#[tokio::test]
async fn a_part_that_panics_stops_the_worker_and_one_that_merely_ends_does_not() {
    let mut parts = JoinSet::new();
    parts.spawn(async {});
    let (finish, finished) = oneshot::channel();
    let worker = tokio::spawn(finished);
    let working = tokio::spawn(async move { while_nothing_panics(worker, &mut parts).await });
    tokio::task::yield_now().await;
    finish.send("done").unwrap();
    assert_eq!(working.await.unwrap().unwrap(), Ok("done"));

    let mut parts = JoinSet::new();
    parts.spawn(async { panic!("the lease is not kept any more") });
    let (alive, mut gone) = oneshot::channel::<()>();
    let worker = tokio::spawn(async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    });
    assert!(while_nothing_panics(worker, &mut parts).await.unwrap_err().is_panic());
    assert!((&mut gone).await.is_err(), "the worker goes on");
}
