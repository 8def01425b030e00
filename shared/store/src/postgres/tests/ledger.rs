//! What stands in the tables: partitions, damaged rows, awkward texts, the schema's version, TLS.

use std::time::Duration;

use domain::{id::Serial, job::State};

use super::{Postgres, Server};
use crate::{
    Begin, NotBegun, Outcome, Refusal, StoreError,
    suite::world::{START, World, node, signature},
};

fn hex(job: &Serial) -> String {
    format!("'\\x{job}'")
}

/// The partitions with rows, with how many.
fn partitions(server: &Server, table: &str) -> String {
    server.sql(&format!(
        "SELECT tableoid::regclass, count(*) FROM {table} GROUP BY 1 ORDER BY 1"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_rows_are_in_the_partitions_of_its_day() {
    let server = Server::start();
    let world = World::new(&server).await;
    world.issue(&world.job()).await;
    let today = START / 86_400;
    for table in ["request", "intent", "result"] {
        assert_eq!(partitions(&server, table), format!("{table}_d{today}|1"));
    }
    // What ends on another day stands beside its request.
    let job = world.accepted().await;
    world.advance(Duration::from_hours(50));
    assert_eq!(world.store.sweep(10).await.unwrap().len(), 1);
    assert_eq!(partitions(&server, "result"), format!("result_d{today}|2"));
    assert_eq!(world.state(job.job).await, State::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_without_partition_loses_nothing_and_the_days_after_it_get_theirs() {
    let server = Server::start();
    let world = World::new(&server).await;
    // No sweep for two weeks: nobody made partitions.
    world.advance(Duration::from_hours(14 * 24));
    let issued = world.job();
    world.issue(&issued).await;
    let open = world.accepted().await;
    assert_eq!(partitions(&server, "request"), "request_default|2");
    assert_eq!(world.store.sweep(10).await.unwrap(), []);
    // This day keeps its rows where they are, and they are still found there.
    assert_eq!(world.state(issued.job).await, State::Issued);
    let begun = world.begin(&node("signer"), open.job).await;
    world.finish(&node("signer"), signature(&open, begun.turn)).await;
    assert_eq!(world.store.ended(&[open.job, issued.job]).await.unwrap().len(), 2);
    world.advance(Duration::from_hours(24));
    let next = world.job();
    world.issue(&next).await;
    let tomorrow = world.now().as_secs() / 86_400;
    assert_eq!(
        partitions(&server, "request"),
        format!("request_default|2\nrequest_d{tomorrow}|1")
    );
    assert_eq!(world.get(next.job).await.tbs, next.tbs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_detached_is_not_missed() {
    let server = Server::start();
    let world = World::new(&server).await;
    let old = world.job();
    world.issue(&old).await;
    world.advance(Duration::from_hours(24));
    world.store.sweep(1).await.unwrap();
    let day = START / 86_400;
    for table in ["request", "intent", "result", "job_event"] {
        server.sql(&format!(
            "ALTER TABLE {table} DETACH PARTITION {table}_d{day}; DROP TABLE {table}_d{day}"
        ));
    }
    assert_eq!(world.store.job(old.job).await.unwrap(), None);
    assert_eq!(world.try_begin(&node("signer"), old.job).await, Err(NotBegun::Unknown));
    world.issue(&world.job()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_job_is_set_aside_and_the_others_of_the_batch_are_begun() {
    let server = Server::start();
    let world = World::new(&server).await;
    let damages = [
        "DELETE FROM intent WHERE job = {}",
        "DELETE FROM request WHERE job = {}",
        "UPDATE request SET profile = 'Not A Name' WHERE job = {}",
        "UPDATE open SET account = '' WHERE job = {}",
        "UPDATE open SET turn = 2147483647 WHERE job = {}",
        "UPDATE open SET class = 'urgent' WHERE job = {}",
        "UPDATE open SET issuer = 'nobody' WHERE job = {}",
    ];
    for damage in damages {
        let (one, damaged, two) = (world.accepted().await, world.accepted().await, world.accepted().await);
        server.sql(&damage.replace("{}", &hex(&damaged.job)));
        let jobs = [one.job, damaged.job, two.job];
        let answers = world.store.begin(&node("signer"), &jobs).await.unwrap();
        assert!(matches!(answers[0], Begin::Begun(_)), "{damage}: {answers:?}");
        assert_eq!(answers[1], Begin::Not(damaged.job, NotBegun::Damaged), "{damage}");
        assert!(matches!(answers[2], Begin::Begun(_)), "{damage}: {answers:?}");
        let again = world.try_begin(&node("signer"), damaged.job).await;
        assert_eq!(again, Err(NotBegun::Parked), "{damage}");
        let events = world.store.events(damaged.job).await.unwrap();
        assert_eq!(events[0].kind, "damaged", "{damage}");
    }
    // A late one that cannot be ended as what it is stops the sweep for nobody.
    let late = world.accepted().await;
    server.sql(&format!("ALTER TABLE result ADD CHECK (job <> {})", hex(&late.job)));
    world.advance(Duration::from_hours(1));
    let swept = world.store.sweep(100).await.unwrap().len();
    assert!(swept >= 6, "{swept}");
    assert_eq!(world.store.sweep(100).await.unwrap(), []);
    assert_eq!(world.store.events(late.job).await.unwrap()[0].kind, "damaged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_with_a_nul_byte_fails_nobodys_batch() {
    let server = Server::start();
    let world = World::new(&server).await;
    let jobs = [world.accepted().await, world.accepted().await];
    let refusals = jobs.iter().map(|job| Refusal {
        job: job.job,
        turn: None,
        id: "policy_violation".into(),
        detail: "a name\0with a hole".into(),
    });
    for answer in world.store.refuse(&node("signer"), refusals.collect()).await {
        let Some(Outcome::Refused { detail, .. }) = answer.unwrap().map(|ended| ended.outcome) else {
            panic!("not refused");
        };
        assert_eq!(detail, "a name\u{fffd}with a hole");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused() {
    let server = Server::start();
    drop(Postgres::open(server.options()).await.unwrap());
    server.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'from the future', TRUE, '\\x00', 0)",
    );
    let error = Postgres::open(server.options()).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Rejected(text) if text.contains("schema 99")),
        "{error}"
    );
}
