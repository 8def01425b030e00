//! A key ceremony, in its order: the key is destroyed while clients wait, then the issuer is marked.

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::SoftHsm;
use serde_json::Value;
use tests::{Client, Key};

use crate::{
    go_on, hexadecimal,
    world::{PATIENCE, World, issue},
};

/// How long the clients wait at most; they are answered before.
const WAIT: Duration = Duration::from_secs(6);

fn wait_for(client: &Client, name: String) -> tokio::task::JoinHandle<Result<(String, Duration)>> {
    let client = client.clone();
    tokio::spawn(async move {
        let request = Key::p256()?.request(&name)?;
        let begun = Instant::now();
        let answer = client.post(&request, &name, &[("Prefer", "wait=6")]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        Ok((answer.serial()?.to_owned(), begun.elapsed()))
    })
}

fn open_jobs(world: &World) -> Result<u64> {
    let lanes = world.json(&["lane", "list"])?;
    let lanes = lanes.as_array().context("no lanes")?.iter();
    let of_doomed = lanes.filter(|lane| lane["lane"]["issuer"] == "doomed");
    Ok(of_doomed
        .map(|lane| lane["queued"].as_u64().unwrap_or(0) + lane["signing"].as_u64().unwrap_or(0))
        .sum())
}

fn signer(world: &World) -> Result<Value> {
    let fleet = world.json(&["fleet"])?;
    let fleet = fleet.as_array().context("no fleet")?.iter();
    let mut signers = fleet.filter(|process| process["role"] == "signer");
    signers.next().cloned().context("no signer in the fleet")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_destroyed_issuer_is_answered_at_once_and_no_breaker_remembers_it() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let doomed = world.issuer("doomed", "first", "P-256").await?;
    let neighbour = world.issuer("neighbour", "first", "P-256").await?;
    issue(&doomed, "before.example.com").await?;

    let stop = Arc::new(AtomicBool::new(false));
    let other = go_on(&neighbour, "n", &stop);
    let id = hexadecimal("doomed");
    hsm.pkcs11_tool("first", &["--delete-object", "--type", "privkey", "--id", &id]);
    let waiting: Vec<_> = (0..3)
        .map(|number| wait_for(&doomed, format!("waits-{number}.example.com")))
        .collect();
    let until = Instant::now() + PATIENCE;
    while open_jobs(&world)? < 3 {
        ensure!(Instant::now() < until, "the jobs do not wait: {}", open_jobs(&world)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let mark = |more: &[&'static str]| {
        let mut arguments = vec!["issuer", "mark-destroyed", "doomed", "--reason", "key ceremony"];
        arguments.extend(more);
        arguments
    };
    let tried = world.json(&mark(&["--dry-run"]))?;
    ensure!(
        tried["jobs"] == 3 && tried["changed"] == true && tried["accounts"][0] == "doomed",
        "{tried}"
    );
    let refused = world.bulkhead(&mark(&["--expect-count", "99"]))?;
    ensure!(refused.status.code() == Some(4), "{refused:?}");
    ensure!(open_jobs(&world)? == 3, "a dry run or a refusal has settled jobs");
    let marked = world.json(&mark(&["--expect-count", "3"]))?;
    ensure!(marked["changed"] == true && marked["jobs"] == 3, "{marked}");

    for waits in waiting {
        let (serial, waited) = waits.await??;
        ensure!(
            waited < WAIT,
            "{serial} was not answered before its client had waited enough"
        );
        let answer = doomed.get(&format!("/certificates/{serial}")).await?;
        ensure!(answer.body["id"] == "issuer_destroyed", "{answer:?}");
    }
    let refused = doomed
        .post(&Key::p256()?.request("late.example.com")?, "late.example.com", &[])
        .await?;
    ensure!(
        refused.status == 422 && refused.body["id"] == "issuer_destroyed",
        "{refused:?}"
    );
    ensure!(world.json(&["issuer", "show", "doomed"])?["state"] == "destroyed");
    let back = world.bulkhead(&["issuer", "enable", "doomed", "--reason", "no"])?;
    ensure!(back.status.code() == Some(4), "{back:?}");

    // The signer has let go of the key and of its breaker, and blames no token.
    let until = Instant::now() + PATIENCE;
    loop {
        let signer = signer(&world)?;
        let breakers = signer["breakers"].as_array().context("no breakers")?;
        // Those of the demo and the neighbour.
        if breakers.is_empty() && signer["keys"] == 3 {
            ensure!(signer["tokens_out"] == serde_json::json!([]), "{signer}");
            ensure!(signer["alive"] == true && signer["behind"] == 0, "{signer}");
            break;
        }
        ensure!(Instant::now() < until, "{signer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    ensure!(other.await?? > 0, "nothing was issued meanwhile");
    world.stop()
}
