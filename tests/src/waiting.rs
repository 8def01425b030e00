//! What clients that wait are told while their issuer's key is gone: at once, and only they.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{Answer, Client, Key};

/// How long a client waits, and by when it is told that it waits in vain: long before.
const WAIT: [(&str, &str); 1] = [("Prefer", "wait=6")];
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long it may take until everybody knows, and until everything is as before.
const PATIENCE: Duration = Duration::from_secs(40);

/// An account's client, and the key that it asks certificates for.
#[derive(Debug)]
pub struct Party {
    /// Logged in.
    pub client: Client,
    /// Of the type that its profile pins.
    pub key: Key,
}

impl Party {
    async fn ask(&self, name: &str, headers: &[(&str, &str)]) -> Result<(Answer, Duration)> {
        let request = self.key.request(name)?;
        let started = Instant::now();
        let answer = self.client.post(&request, name, headers).await?;
        Ok((answer, started.elapsed()))
    }

    /// Asks until an answer of this kind comes: that one.
    async fn until(&self, kind: &str, wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let begun = Instant::now();
        let mut number = 0;
        loop {
            let (answer, _) = self.ask(&format!("{kind}-{number}.example.com"), &WAIT).await?;
            if wanted(&answer) {
                return Ok(answer);
            }
            ensure!(begun.elapsed() < PATIENCE, "{kind}: {answer:?}");
            number += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_unavailable(answer: &Answer) -> bool {
    answer.status == 503 && answer.body["id"] == "issuer_unavailable"
}

fn is_issued(answer: &Answer) -> bool {
    answer.status == 201 && !answer.body.is_null()
}

/// Moves what is at `key` to `aside`, and brings it back: meanwhile clients of `broken` that wait are told at once that they wait in vain, those
/// that do not wait are accepted, and clients of `other` notice nothing. Afterwards whoever asks is served, and whatever was accepted.
pub async fn only_those_that_wait_are_told(broken: &Party, other: &Party, key: &Path, aside: &Path) -> Result<()> {
    for party in [broken, other] {
        let (answer, _) = party.ask("before.example.com", &WAIT).await?;
        ensure!(is_issued(&answer), "{answer:?}");
    }
    std::fs::rename(key, aside)?;
    let mut queued = Vec::new();
    for number in 0..10 {
        let (answer, _) = broken.ask(&format!("queued-{number}.example.com"), &[]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        queued.push(answer.serial()?.to_owned());
    }
    let refused = broken.until("gone", is_unavailable).await?;
    ensure!(refused.retry_after.is_some_and(|after| after >= 1), "{refused:?}");
    let (mut told, mut longest) = (0, Duration::ZERO);
    for number in 0..40 {
        let (answer, took) = broken.ask(&format!("told-{number}.example.com"), &WAIT).await?;
        if is_unavailable(&answer) {
            ensure!(took < AT_ONCE, "it took {took:?} to say no");
            (told, longest) = (told + 1, longest.max(took));
        } else {
            ensure!(answer.status == 201, "{answer:?}");
        }
        let (answer, _) = broken.ask(&format!("beside-{number}.example.com"), &[]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        let (answer, _) = other.ask(&format!("other-{number}.example.com"), &WAIT).await?;
        ensure!(is_issued(&answer), "the other issuer's client: {answer:?}");
    }
    // One in a hundred finds out whether it is still so.
    ensure!(told >= 38, "{told} of 40 were told");
    println!("{told} of 40 clients were told at once, each within {longest:?}");

    std::fs::rename(aside, key)?;
    broken.until("back", is_issued).await?;
    for serial in &queued {
        let certificate = broken.client.certificate(serial, PATIENCE).await;
        certificate.with_context(|| format!("{serial} was accepted"))?;
    }
    let (answer, _) = other.ask("after.example.com", &WAIT).await?;
    ensure!(is_issued(&answer), "{answer:?}");
    Ok(())
}
