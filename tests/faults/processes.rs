//! Faults of front ends and signers: others go on with what they leave behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Grown, Key, load};

use crate::{Bench, PATIENCE, settle};

/// How long jobs may wait that were accepted and never published: claimed after a second, found by the next look.
const CLAIMED: Duration = Duration::from_secs(2);

/// The series of envelopes that the broker has confirmed.
const PUBLISHED: &str = "bulkhead_frontend_envelopes_published_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_that_dies_before_it_publishes_leaves_its_jobs_to_the_claims() -> Result<()> {
    let mut bench = Bench::start(Grown::linked(2, 2).await?).await?;
    let fault = "front end killed between accept's commit and its publish";
    // Nothing that it publishes gets anywhere.
    bench.grown.links["frontend-1"].broker.black_hole();
    let first = &bench.at[..1];
    let tally = load::post(first, 100, "unpublished").await?;
    let accepted = Instant::now();
    let published = bench.grown.metric("frontend-1", PUBLISHED).await?;
    bench.grown.kill("frontend-1")?;
    ensure!(published == 0, "{published} envelopes were published");
    let jobs = u64::try_from(tally.accepted.len())?;
    while bench.issued(1).await? < jobs {
        ensure!(
            accepted.elapsed() < PATIENCE,
            "{} of {jobs} jobs are issued",
            bench.issued(1).await?
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = accepted.elapsed();
    bench.at.remove(0);
    bench.conclude(fault, &tally, None).await?;
    println!(
        "{} jobs of a front end that was killed: issued {} ms after the last 201",
        tally.accepted.len(),
        took.as_millis()
    );
    ensure!(took < CLAIMED, "{took:?} until the last of its jobs was issued");
    bench.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_stops_or_loses_its_links_for_a_while_does_no_harm_when_it_comes_back() -> Result<()> {
    let mut bench = Bench::start(Grown::linked(2, 2).await?).await?;

    let fault = "signer stopped (SIGSTOP) for 10 s, then continued";
    let load = bench.load(fault);
    settle(3).await;
    let id = bench.grown.id("signer-1").context("signer-1 runs")?;
    let from = Instant::now();
    tests::signal(id, "STOP")?;
    settle(10).await;
    tests::signal(id, "CONT")?;
    let to = Instant::now();
    settle(5).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;

    let fault = "signer's link to the store swallows everything for 10 s";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.links["signer-1"].store.black_hole();
    settle(10).await;
    bench.grown.links["signer-1"].store.restore();
    let to = Instant::now();
    settle(5).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;

    for (node, what) in [("signer-1", "signer"), ("frontend-1", "front end")] {
        let fault = format!("{what}'s links cut and delayed in turn");
        let load = bench.load(&fault);
        settle(2).await;
        let from = Instant::now();
        for _ in 0..3 {
            let links = &bench.grown.links[node];
            links.broker.cut();
            settle(1).await;
            links.broker.restore();
            links.store.cut();
            settle(1).await;
            links.store.restore();
            links.store.delay(Duration::from_millis(100));
            links.broker.delay(Duration::from_millis(100));
            settle(1).await;
            links.store.restore();
            links.broker.restore();
        }
        let to = Instant::now();
        settle(5).await;
        let tally = load.stop().await?;
        bench.conclude(&fault, &tally, Some((from, to))).await?;
    }
    bench.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_survive_kills_of_front_ends_and_signers() -> Result<()> {
    const JOBS: usize = 10_000;
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;
    let posting = {
        let at = bench.at.clone();
        tokio::spawn(async move { load::post(&at, JOBS, "killed").await })
    };
    let victims = ["signer-1", "frontend-2", "signer-2", "frontend-1"];
    let mut kills = 0;
    while !posting.is_finished() {
        let victim = victims[kills % victims.len()];
        bench.grown.kill(victim)?;
        kills += 1;
        bench.grown.start(victim)?;
        bench.grown.wait(victim)?;
    }
    let tally = posting.await??;
    // Tokens are the front ends' own: those that were killed give new ones.
    for client in &mut bench.at {
        client.login().await?;
    }
    ensure!(
        tally.accepted.len() == JOBS,
        "{} jobs were accepted",
        tally.accepted.len()
    );
    bench
        .conclude(
            &format!("{kills} kills (SIGKILL) of front ends and signers"),
            &tally,
            None,
        )
        .await?;
    bench.end().await
}

/// Lets clients of the first demo account wait for half a minute.
fn wait_for_longer(grown: &Grown) -> Result<()> {
    let mut profile = grown.json(&["profile", "show", "demo-p256"])?;
    profile["answer_within"] = "30s".into();
    let file = grown.directory().join("patient.json");
    std::fs::write(&file, profile.to_string())?;
    let file = file.to_str().context("a path that is no text")?;
    grown.json(&["profile", "put", file, "--reason", "test"])?;
    // Front ends hear of it within this time.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_two_front_ends_at_once_is_one_job_answered_at_both() -> Result<()> {
    const REQUESTS: usize = 100;
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;
    wait_for_longer(&bench.grown)?;
    // Only a job in flight is joined: it stays in flight until both front ends have it.
    bench.hold_signers(true)?;
    let pairs: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let at = bench.at.clone();
            tokio::spawn(async move {
                let host = format!("both-{number}.example.com");
                let csr = Key::p256()?.request(&host)?;
                let ask = |client: usize| at[client].post(&csr, &host, &[("Prefer", "wait=25")]);
                let (one, other) = tokio::join!(ask(0), ask(1));
                anyhow::Ok((one?, other?))
            })
        })
        .collect();
    let begun = Instant::now();
    for frontend in ["frontend-1", "frontend-2"] {
        while bench.grown.metric(frontend, "bulkhead_frontend_waiting").await? < REQUESTS as u64 {
            ensure!(begun.elapsed() < PATIENCE, "not every client waits at {frontend}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    bench.hold_signers(false)?;
    let mut serials = std::collections::BTreeSet::new();
    for pair in pairs {
        let (one, other) = pair.await??;
        for answer in [&one, &other] {
            ensure!(answer.status == 201 && !answer.body.is_null(), "{answer:?}");
        }
        ensure!(one.serial()? == other.serial()?, "{one:?} and {other:?}");
        ensure!(one.body == other.body, "{one:?} and {other:?}");
        serials.insert(one.serial()?.to_owned());
    }
    println!(
        "{REQUESTS} requests, each at two front ends at once: {} jobs, each answered at both",
        serials.len()
    );
    ensure!(serials.len() == REQUESTS, "{} jobs", serials.len());
    bench.accepted = serials;
    bench.end().await
}
