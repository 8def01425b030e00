//! Issuers whose keys are on PKCS#11 tokens, in the whole program: what happens to one token, and to one key, is nobody else's affair.

mod back;
mod destroyed;
mod orders;
mod standing_down;
mod waiting;
mod world;

use std::{
    fmt::Write,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::{Faults, PIN, SoftHsm};
use tests::{Client, Key};

use world::{PATIENCE, World, issue, issue_within};

/// Issues one certificate after the other until told to stop: how many there were. The first that fails ends it.
fn go_on(client: &Client, name: &'static str, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Result<usize>> {
    let (client, stop) = (client.clone(), stop.clone());
    tokio::spawn(async move {
        let mut issued = 0;
        while !stop.load(Ordering::Relaxed) {
            issue(&client, &format!("{name}-{issued}.example.com")).await?;
            issued += 1;
        }
        Ok(issued)
    })
}

/// A key's `CKA_ID`, as other tools want to have it.
fn hexadecimal(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Waits until none of these processes runs.
async fn until_gone(workers: &[u32]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while workers
        .iter()
        // What has ended and was not yet waited for by its new parent has no arguments any more.
        .any(|worker| fs::read(format!("/proc/{worker}/cmdline")).is_ok_and(|line| !line.is_empty()))
    {
        ensure!(Instant::now() < until, "a worker outlives the program");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_destroyed_and_a_token_that_goes_are_nobody_elses_affair() -> Result<()> {
    let hsm = SoftHsm::new(&[]);
    // Each token's directory is told from the other's by when it was made.
    let first = hsm.initialise("first");
    let second = hsm.initialise("second");
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let doomed = world.issuer("doomed", "first", "P-256").await?;
    let neighbour = world.issuer("neighbour", "first", "P-384").await?;
    let elsewhere = world.issuer("elsewhere", "second", "RSA-2048").await?;
    for (client, name) in [
        (&doomed, "doomed"),
        (&neighbour, "neighbour"),
        (&elsewhere, "elsewhere"),
    ] {
        issue(client, &format!("{name}.example.com")).await?;
    }
    ensure!(
        world.workers()?.len() == 2,
        "each token has a process: {:?}",
        world.workers()?
    );

    // Under load, somebody destroys one issuer's key with a tool of his own.
    let stop = Arc::new(AtomicBool::new(false));
    let others = [go_on(&neighbour, "n", &stop), go_on(&elsewhere, "e", &stop)];
    let id = hexadecimal("doomed");
    hsm.pkcs11_tool("first", &["--delete-object", "--type", "privkey", "--id", &id]);
    let lost = doomed
        .post(&Key::p256()?.request("lost.example.com")?, "lost.example.com", &[])
        .await?;
    ensure!(lost.status == 201, "{lost:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    for other in others {
        ensure!(other.await?? > 0, "nothing was issued meanwhile");
    }
    let waiting = doomed.get(&format!("/certificates/{}", lost.serial()?)).await?;
    ensure!(waiting.status == 202, "a job without a key waits: {waiting:?}");
    ensure!(world.workers()?.len() == 2, "{:?}", world.workers()?);

    // A whole token goes, and the other does not notice.
    let stop = Arc::new(AtomicBool::new(false));
    let other = go_on(&elsewhere, "o", &stop);
    let aside = hsm.path("aside");
    fs::rename(&first, &aside)?;
    let kept = neighbour
        .post(&Key::p256()?.request("kept.example.com")?, "kept.example.com", &[])
        .await?;
    ensure!(kept.status == 201, "{kept:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    ensure!(other.await?? > 0, "nothing was issued meanwhile");
    let waiting = neighbour.get(&format!("/certificates/{}", kept.serial()?)).await?;
    ensure!(waiting.status == 202, "a job whose token is gone waits: {waiting:?}");
    // It comes back, and what had to wait is issued.
    fs::rename(&aside, &first)?;
    neighbour.certificate(kept.serial()?, PATIENCE).await?;
    issue_within(&neighbour, "back.example.com", PATIENCE).await?;
    ensure!(second.exists(), "the second token was not touched");
    world.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_tokens_are_replaced_and_end_with_the_program() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let issuer = world.issuer("issuer", "first", "P-256").await?;
    issue(&issuer, "before.example.com").await?;
    let before = world.workers()?;
    for worker in &before {
        tests::signal(*worker, "KILL")?;
    }
    issue_within(&issuer, "after.example.com", PATIENCE).await?;
    let after = world.workers()?;
    ensure!(
        after.iter().all(|worker| !before.contains(worker)),
        "{before:?} {after:?}"
    );
    // What a terminal or a service manager sends to everybody does not end a worker before its parent has finished.
    for worker in &after {
        tests::signal(*worker, "TERM")?;
        tests::signal(*worker, "INT")?;
    }
    issue(&issuer, "asked.example.com").await?;
    ensure!(world.workers()? == after, "a signal for its parent has ended a worker");
    world.stop()?;
    until_gone(&after).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pin_waits_for_an_operator_and_is_told_to_nobody() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let mut world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let issuer = world.issuer("issuer", "first", "P-256").await?;
    issue(&issuer, "before.example.com").await?;
    hsm.write_pin("999999");
    world.restart()?;
    let issuer = world.client("issuer").await?;
    let posted = issuer
        .post(&Key::p256()?.request("waits.example.com")?, "waits.example.com", &[])
        .await?;
    ensure!(posted.status == 201, "{posted:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = world.log();
    ensure!(log.contains("refuses the login"), "nobody is told:\n{log}");
    hsm.write_pin(PIN);
    world.restart()?;
    let issuer = world.client("issuer").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = issuer.get(&format!("/certificates/{}", posted.serial()?)).await?;
    ensure!(waiting.status == 202, "somebody has logged in again: {waiting:?}");
    let retried = world.retry("first")?;
    ensure!(
        retried["refusal"].as_str().context("no refusal")?.contains("PIN"),
        "{retried}"
    );
    issuer.certificate(posted.serial()?, PATIENCE).await?;
    let log = world.log();
    ensure!(!log.contains(PIN) && !log.contains("999999"), "a PIN is in the log");
    world.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_hangs_holds_up_its_own_issuer_alone() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let faults = Faults::new(&hsm.path(""));
    let world = World::start(&hsm, &Faults::module(), &[faults.environment()])?;
    let hanging = world.issuer("hanging", "first", "P-256").await?;
    let neighbour = world.issuer("neighbour", "first", "P-256").await?;
    let elsewhere = world.issuer("elsewhere", "second", "P-256").await?;
    let before = world.workers()?;

    let id = hexadecimal("hanging");
    faults.set(&format!("sign hang id={id}"));
    let stop = Arc::new(AtomicBool::new(false));
    let others = [go_on(&neighbour, "n", &stop), go_on(&elsewhere, "e", &stop)];
    let posted = hanging
        .post(&Key::p256()?.request("hangs.example.com")?, "hangs.example.com", &[])
        .await?;
    ensure!(posted.status == 201, "{posted:?}");
    let until = Instant::now() + PATIENCE;
    // The process in which it hangs is killed and replaced; that of the other token is not.
    loop {
        let now = world.workers()?;
        if now.len() == 2 && now.iter().filter(|worker| before.contains(worker)).count() == 1 {
            break;
        }
        ensure!(Instant::now() < until, "{before:?} {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        ensure!(other.await?? > 0, "nothing was issued meanwhile");
    }
    ensure!(faults.calls("struck") > 0, "nothing hung");
    let waiting = hanging.get(&format!("/certificates/{}", posted.serial()?)).await?;
    ensure!(waiting.status == 202, "{waiting:?}");
    faults.set("");
    hanging.certificate(posted.serial()?, PATIENCE).await?;

    // Even a process that hangs does not outlive the program, however that ends.
    let struck = faults.calls("struck");
    faults.set("sign hang");
    hanging
        .post(&Key::p256()?.request("orphan.example.com")?, "orphan.example.com", &[])
        .await?;
    while faults.calls("struck") == struck {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let workers = world.workers()?;
    world.kill()?;
    until_gone(&workers).await
}
