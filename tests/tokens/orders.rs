//! What operators order of breakers, and what they are told of a canary key that is gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hsm_faults::{Faults, SoftHsm};
use serde_json::Value;
use tests::Key;

use crate::{
    hexadecimal,
    world::{PATIENCE, World, issue, issue_within},
};

/// The only signer that lives, as the fleet shows it.
fn signer(world: &World) -> Result<Value> {
    let fleet = world.json(&["fleet"])?;
    let mut signers = fleet.as_array().context("no fleet")?.iter();
    let signer = signers.find(|process| process["role"] == "signer" && process["alive"] == true);
    signer.cloned().context("no signer in the fleet")
}

/// Waits until the fleet shows the signer like this.
async fn until(world: &World, what: &str, shown: impl Fn(&Value) -> bool) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let signer = signer(world)?;
        if shown(&signer) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{what}: {signer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_a_breaker_holds_across_restarts_and_for_one_issuer_alone() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let mut world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let ordered = world.issuer("ordered", "first", "P-256").await?;
    let neighbour = world.issuer("neighbour", "first", "P-256").await?;
    let order = |world: &World, order: &str| world.json(&["breaker", "force", "ordered", order, "--reason", "drill"]);
    ensure!(order(&world, "open")?["changed"] == true);
    ensure!(order(&world, "open")?["changed"] == false);
    let is_open = |signer: &Value| signer["breakers"][0]["issuer"] == "ordered";
    until(&world, "the breaker is not open", is_open).await?;
    let posted = ordered
        .post(&Key::p256()?.request("waits.example.com")?, "waits.example.com", &[])
        .await?;
    ensure!(posted.status == 201, "{posted:?}");
    issue(&neighbour, "beside.example.com").await?;

    world.restart()?;
    let (ordered, neighbour) = (world.client("ordered").await?, world.client("neighbour").await?);
    until(&world, "the order is forgotten", is_open).await?;
    issue(&neighbour, "again.example.com").await?;
    let waiting = ordered.get(&format!("/certificates/{}", posted.serial()?)).await?;
    ensure!(waiting.status == 202, "{waiting:?}");
    let listed = world.json(&["breaker", "list"])?;
    ensure!(
        listed[0]["issuer"] == "ordered" && listed[0]["force"] == "open",
        "{listed}"
    );
    ensure!(listed[0]["signers"][0]["standing"] == "open", "{listed}");

    ensure!(order(&world, "auto")?["changed"] == true);
    ordered.certificate(posted.serial()?, PATIENCE).await?;
    until(&world, "the breaker is not closed", |signer| {
        signer["breakers"] == serde_json::json!([])
    })
    .await?;
    let unknown = world.bulkhead(&["breaker", "force", "nobody", "open", "--reason", "drill"])?;
    ensure!(unknown.status.code() == Some(4), "{unknown:?}");
    world.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_stay_closed_lets_a_failing_key_be_tried() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let faults = Faults::new(&hsm.path(""));
    let world = World::start(&hsm, &Faults::module(), &[faults.environment()])?;
    let failing = world.issuer("failing", "first", "P-256").await?;
    issue(&failing, "before.example.com").await?;
    world.json(&["breaker", "force", "failing", "observe", "--reason", "drill"])?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // CKR_FUNCTION_FAILED: the operation's failure, while the canary is fine.
    faults.set(&format!("sign return=0x6 id={}", hexadecimal("failing")));
    for number in 0..8 {
        let name = format!("f-{number}.example.com");
        failing.post(&Key::p256()?.request(&name)?, &name, &[]).await?;
    }
    let patience = Instant::now() + PATIENCE;
    while !world.log().contains("would open") {
        ensure!(Instant::now() < patience, "nobody says that a breaker would open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(signer(&world)?["breakers"] == serde_json::json!([]), "it is open");
    faults.set("");
    issue_within(&failing, "after.example.com", PATIENCE).await?;
    world.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_keys_that_are_gone_from_every_token_take_nobody_out() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let faults = Faults::new(&hsm.path(""));
    let world = World::start(&hsm, &Faults::module(), &[faults.environment()])?;
    let mut clients = Vec::new();
    for (issuer, token) in [
        ("one", "first"),
        ("two", "first"),
        ("three", "second"),
        ("four", "second"),
    ] {
        let client = world.issuer(issuer, token, "P-256").await?;
        issue(&client, &format!("{issuer}.example.com")).await?;
        clients.push(client);
    }
    for token in ["first", "second"] {
        hsm.delete_canary(token);
    }
    // CKR_DEVICE_ERROR, now and then: each time the token is in doubt, and is tested.
    for round in 0..3 {
        for issuer in ["one", "three"] {
            faults.set(&format!("sign return=0x30 id={} times=2", hexadecimal(issuer)));
            for (number, client) in clients.iter().enumerate() {
                issue_within(client, &format!("r{round}-{number}-{issuer}.example.com"), PATIENCE).await?;
            }
        }
    }
    let patience = Instant::now() + PATIENCE;
    for token in ["first", "second"] {
        let alarm = format!("the canary key of token {token} fails");
        while !world.log().contains(&alarm) {
            ensure!(Instant::now() < patience, "nobody is told of token {token}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let signer = signer(&world)?;
    ensure!(
        signer["tokens_out"] == serde_json::json!([]) && signer["stands_down"] == false && signer["backs_off"] == false,
        "{signer}"
    );
    let log = world.log();
    for never in ["is out: no canary", "stands down", "may not stand down", "backs off"] {
        ensure!(!log.contains(never), "the log says {never:?}");
    }
    world.stop()
}
