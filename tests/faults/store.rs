//! Faults of the store: clients hear 503 meanwhile, and what they had heard 201 for is issued.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::Grown;

use crate::{Bench, settle};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_comes_back_has_lost_nothing() -> Result<()> {
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;

    let fault = "PostgreSQL restarted under load";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.postgres.restart()?;
    let to = Instant::now();
    settle(8).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;

    let fault = "PostgreSQL killed (SIGKILL) under load";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.postgres.kill()?;
    bench.grown.postgres.launch()?;
    let to = Instant::now();
    settle(8).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;

    let fault = "PostgreSQL away for 30 s";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.postgres.stop()?;
    settle(30).await;
    bench.grown.postgres.launch()?;
    let to = Instant::now();
    settle(10).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;
    ensure!(tally.failures() > 0, "nobody noticed that PostgreSQL was away: was it?");

    let fault = "PostgreSQL stopped (SIGSTOP) for 10 s";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.postgres.suspend()?;
    settle(10).await;
    bench.grown.postgres.resume()?;
    let to = Instant::now();
    settle(8).await;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;
    bench.end().await
}
