//! The end of a signer.

use domain::job::State;
use store::Store;

use super::{bench::Bench, token::Fault};

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
