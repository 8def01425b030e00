//! Faults of the broker: acceptance and issuance go on through every one of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{Grown, load};

use crate::{Bench, settle};

/// The lane of the demo account's jobs, as its queue is called.
const QUEUE: &str = "bulkhead.lane.demo-p256.interactive";
/// Jobs that wait while the broker loses them.
const WAITING: usize = 1_000;
/// No longer than this goes by without a 201, nor without a certificate, whatever the broker does: a publication may take a second,
/// a claim another.
const GAP: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_broker_jobs_are_accepted_and_issued() -> Result<()> {
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;

    let fault = "broker stopped (SIGSTOP) for 30 s";
    let load = bench.load(fault);
    settle(3).await;
    let from = Instant::now();
    bench.grown.rabbitmq.freeze()?;
    settle(30).await;
    bench.grown.rabbitmq.thaw()?;
    let to = Instant::now();
    settle(5).await;
    during(&mut bench, fault, load, from, to).await?;

    let fault = "memory alarm for 15 s";
    let load = bench.load(fault);
    settle(2).await;
    let from = Instant::now();
    bench.grown.rabbitmq.memory_alarm(true).await?;
    settle(15).await;
    bench.grown.rabbitmq.memory_alarm(false).await?;
    let to = Instant::now();
    settle(3).await;
    during(&mut bench, fault, load, from, to).await?;

    let fault = "lane purged by hand while 1,000 jobs wait";
    bench.hold_signers(true)?;
    let tally = load::post(&bench.at, WAITING, "purged").await?;
    bench.grown.rabbitmq.purge_queue(QUEUE).await?;
    bench.hold_signers(false)?;
    bench.conclude(fault, &tally, None).await?;

    let fault = "broker wiped while 1,000 jobs wait";
    bench.hold_signers(true)?;
    let tally = load::post(&bench.at, WAITING, "wiped").await?;
    bench.grown.rabbitmq.reset().await?;
    bench.hold_signers(false)?;
    bench.conclude(fault, &tally, None).await?;

    let fault = "broker away for 60 s and back";
    let load = bench.load(fault);
    settle(2).await;
    let from = Instant::now();
    bench.grown.rabbitmq.kill();
    settle(60).await;
    bench.grown.rabbitmq.boot().await?;
    let to = Instant::now();
    settle(10).await;
    during(&mut bench, fault, load, from, to).await?;

    let fault = "broker away for good";
    let load = bench.load(fault);
    settle(2).await;
    let from = Instant::now();
    bench.grown.rabbitmq.kill();
    settle(15).await;
    let to = Instant::now();
    during(&mut bench, fault, load, from, to).await?;
    bench.end().await
}

async fn during(bench: &mut Bench, fault: &str, load: load::Load, from: Instant, to: Instant) -> Result<()> {
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;
    let (accepted, issued) = tally.gaps(from, to);
    ensure!(
        accepted < GAP && issued < GAP,
        "{fault}: {accepted:?} without a 201, {issued:?} without a certificate"
    );
    ensure!(tally.failures() == 0, "{fault}: clients noticed it: {:?}", tally.failed);
    Ok(())
}
