//! What clients that wait are told while their issuer's key is gone: at once, and only they.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::SoftHsm;
use tests::{Answer, Client, Key};

use super::world::{PATIENCE, World, issue};

/// How long a client waits, and by when it is told that it waits in vain: long before.
const WAIT: [(&str, &str); 1] = [("Prefer", "wait=6")];
const AT_ONCE: Duration = Duration::from_secs(3);

async fn ask(client: &Client, name: &str, headers: &[(&str, &str)]) -> Result<(Answer, Duration)> {
    let request = Key::p256()?.request(name)?;
    let started = Instant::now();
    let answer = client.post(&request, name, headers).await?;
    Ok((answer, started.elapsed()))
}

/// Asks until an answer of this kind comes: that one.
async fn until(client: &Client, kind: &str, wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
    let begun = Instant::now();
    for number in 0.. {
        let (answer, _) = ask(client, &format!("{kind}-{number}.example.com"), &WAIT).await?;
        if wanted(&answer) {
            return Ok(answer);
        }
        ensure!(begun.elapsed() < PATIENCE, "{kind}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("it counts for longer than anybody's patience")
}

fn is_unavailable(answer: &Answer) -> bool {
    answer.status == 503 && answer.body["id"] == "issuer_unavailable"
}

fn is_issued(answer: &Answer) -> bool {
    answer.status == 201 && !answer.body.is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_for_a_key_that_is_gone_are_told_at_once_and_only_they() -> Result<()> {
    let hsm = SoftHsm::new(&[]);
    let token = hsm.initialise("first");
    hsm.initialise("second");
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let broken = world.issuer("broken", "first", "P-256").await?;
    let other = world.issuer("other", "second", "P-256").await?;
    for client in [&broken, &other] {
        let (answer, _) = ask(client, "before.example.com", &WAIT).await?;
        ensure!(is_issued(&answer), "{answer:?}");
    }

    let aside = hsm.path("aside");
    fs::rename(&token, &aside)?;
    // Who does not wait is accepted as ever.
    let mut queued = Vec::new();
    for number in 0..10 {
        let (answer, _) = ask(&broken, &format!("queued-{number}.example.com"), &[]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        queued.push(answer.serial()?.to_owned());
    }
    let refused = until(&broken, "gone", is_unavailable).await?;
    ensure!(refused.retry_after.is_some_and(|after| after >= 1), "{refused:?}");
    let (mut told, mut longest) = (0, Duration::ZERO);
    for number in 0..40 {
        let (answer, took) = ask(&broken, &format!("told-{number}.example.com"), &WAIT).await?;
        if is_unavailable(&answer) {
            ensure!(took < AT_ONCE, "it took {took:?} to say no");
            (told, longest) = (told + 1, longest.max(took));
        } else {
            ensure!(answer.status == 201, "{answer:?}");
        }
        let (answer, _) = ask(&broken, &format!("beside-{number}.example.com"), &[]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        let (answer, _) = ask(&other, &format!("other-{number}.example.com"), &WAIT).await?;
        ensure!(is_issued(&answer), "the other issuer's client: {answer:?}");
    }
    // One in a hundred finds out whether it is still so.
    ensure!(told >= 38, "{told} of 40 were told");
    println!("{told} of 40 clients were told at once, the last of them after {longest:?}");

    // It comes back: whoever asks then is served, and so is everything that was accepted.
    fs::rename(&aside, &token)?;
    until(&broken, "back", is_issued).await?;
    for serial in &queued {
        broken
            .certificate(serial, PATIENCE)
            .await
            .with_context(|| format!("{serial} was accepted"))?;
    }
    issue(&other, "after.example.com").await?;
    world.stop()
}
