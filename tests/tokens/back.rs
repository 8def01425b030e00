//! Tokens that go out and come back without a restart, and an issuer whose key is on two of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::{Faults, SoftHsm};
use serde_json::{Value, json};
use tests::Key;

use crate::{
    hexadecimal,
    world::{PATIENCE, World, issue, issue_within},
};

/// Waits until the signer announces that these tokens are out.
async fn until_out(world: &World, out: Value) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let fleet = world.json(&["fleet"])?;
        let mut processes = fleet.as_array().context("no fleet")?.iter();
        let signer = processes.find(|process| process["role"] == "signer" && process["alive"] == true);
        if signer.is_some_and(|signer| signer["tokens_out"] == out) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "not {out}: {signer:?}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_on_two_tokens_goes_on_when_one_of_them_is_gone() -> Result<()> {
    let hsm = SoftHsm::new(&[]);
    let first = hsm.initialise("first");
    hsm.initialise("second");
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let both = world.issuer_on_two("both", ["first", "second"]).await?;
    let alone = world.issuer("alone", "first", "P-256").await?;
    issue(&both, "before.example.com").await?;
    let again = ["issuer", "bind", "both", "--token", "second", "--reason", "test"];
    ensure!(world.json(&again)?["changed"] == false);
    let other = world.bulkhead(&["issuer", "bind", "alone", "--token", "second", "--reason", "test"])?;
    ensure!(
        other.status.code() == Some(4),
        "a token without the key is taken: {other:?}"
    );

    let aside = hsm.path("aside");
    fs::rename(&first, &aside)?;
    let waits = alone
        .post(&Key::p256()?.request("waits.example.com")?, "waits.example.com", &[])
        .await?;
    until_out(&world, json!(["first"])).await?;
    for number in 0..5 {
        issue_within(&both, &format!("meanwhile-{number}.example.com"), PATIENCE).await?;
    }
    let waiting = alone.get(&format!("/certificates/{}", waits.serial()?)).await?;
    ensure!(waiting.status == 202, "{waiting:?}");
    fs::rename(&aside, &first)?;
    until_out(&world, json!([])).await?;
    alone.certificate(waits.serial()?, PATIENCE).await?;
    issue_within(&both, "after.example.com", PATIENCE).await?;
    world.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_refuses_its_pin_at_work_is_asked_again_when_an_operator_says_so() -> Result<()> {
    let hsm = SoftHsm::new(&["first", "second"]);
    let faults = Faults::new(&hsm.path(""));
    let world = World::start(&hsm, &Faults::module(), &[faults.environment()])?;
    let issuer = world.issuer("issuer", "first", "P-256").await?;
    let elsewhere = world.issuer("elsewhere", "second", "P-256").await?;
    issue(&issuer, "before.example.com").await?;
    // Somebody logs out, and the PIN has been locked meanwhile.
    let id = hexadecimal("issuer");
    faults.set(&format!("sign logout id={id} times=1\ninfo locked"));
    let waits = issuer
        .post(&Key::p256()?.request("waits.example.com")?, "waits.example.com", &[])
        .await?;
    until_out(&world, json!(["first"])).await?;
    faults.set("");
    // The PIN may be right again; nobody tries it before an operator has looked.
    let logins = faults.calls("login");
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(faults.calls("login") == logins, "somebody has logged in again");
    until_out(&world, json!(["first"])).await?;
    issue(&elsewhere, "elsewhere.example.com").await?;
    let retried = world.retry("first")?;
    ensure!(retried["refusal"].is_string(), "{retried}");
    until_out(&world, json!([])).await?;
    issuer.certificate(waits.serial()?, PATIENCE).await?;
    world.stop()
}
