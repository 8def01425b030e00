//! Two signers that hold the same keys, and are slow or stopped at the worst time: somebody always serves.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::{Faults, SoftHsm};
use serde_json::Value;
use tests::{Client, Grown, Key};

use crate::{
    hexadecimal,
    world::{Authority, PATIENCE, issue_within},
};

const SIGNERS: [&str; 2] = ["signer-1", "signer-2"];
/// A canary that takes longer than `signer.breaker.slow` counts against its token; three in a minute, and it is not well.
const SLOW: &str = "sign slow=1200";

/// Two signers with the same SoftHSM token, each with a fault module of its own in front of it.
struct Pair {
    grown: Grown,
    faults: [Faults; 2],
    /// Of an issuer whose key is on the token.
    client: Client,
    _hsm: SoftHsm,
}

impl Pair {
    async fn start() -> Result<Self> {
        let hsm = SoftHsm::new(&["shared"]);
        let mut grown = Grown::new(1, 2).await?;
        let token = |module: &std::path::Path| {
            format!(
                "[[token]]\nname = \"shared\"\nkind = \"pkcs11\"\nmodule = \"{}\"\nlabel = \"shared\"\npin_file = \"{}\"\n",
                module.display(),
                hsm.pin_file().display()
            )
        };
        grown.append("control-1", &token(&SoftHsm::module()))?;
        grown.set_environment("control-1", hsm.environment());
        let faults = SIGNERS.map(|signer| {
            let directory = hsm.path(signer);
            fs::create_dir(&directory).expect("a directory can be made");
            Faults::new(&directory)
        });
        for (signer, faults) in SIGNERS.iter().zip(&faults) {
            // The token is slow, not the issuer: its breaker is not what is tested.
            grown.append(signer, "[signer.breaker]\nvolume = 1000000")?;
            grown.append(signer, &token(&Faults::module()))?;
            grown.set_environment(signer, hsm.environment());
            grown.set_environment(signer, faults.environment());
        }
        let grown = grown.set_up()?;
        let authority = Authority::new(grown.directory())?;
        let (key, secret) = authority.issuer(&|arguments| grown.bulkhead(arguments), "issuer", "shared", "P-256")?;
        let mut client = grown.client("frontend-1", 0)?.of_account(&key, &secret);
        // The front end may not have heard of the account yet.
        let patience = Instant::now() + PATIENCE;
        while let Err(error) = client.login().await {
            ensure!(Instant::now() < patience, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let pair = Self {
            grown,
            faults,
            client,
            _hsm: hsm,
        };
        // Both hold its key, the demo's two, and say so.
        for signer in SIGNERS {
            pair.until(signer, "does not hold every key", |shown| shown["keys"] == 3)
                .await?;
        }
        Ok(pair)
    }

    fn fleet(&self) -> Result<Vec<Value>> {
        let fleet = self.grown.json(&["fleet"])?;
        let fleet = fleet.as_array().context("no fleet")?.iter();
        Ok(fleet.filter(|process| process["role"] == "signer").cloned().collect())
    }

    fn shown(&self, signer: &str) -> Result<Value> {
        let fleet = self.fleet()?;
        let shown = fleet.into_iter().find(|process| process["node"] == signer);
        shown.with_context(|| format!("{signer} is not in the fleet"))
    }

    /// Waits until the fleet shows a signer like this, and keeps asking for certificates meanwhile.
    async fn until(&self, signer: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        let mut number = 0;
        loop {
            let shown = self.shown(signer)?;
            if is(&shown) {
                return Ok(());
            }
            ensure!(
                Instant::now() < patience,
                "{signer} {what}: {shown}\n{}",
                self.grown.log(signer)
            );
            self.post(&format!("{signer}-{number}")).await?;
            number += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks for a certificate and does not wait for it: the serial.
    async fn post(&self, name: &str) -> Result<String> {
        let name = format!("{name}.example.com");
        let answer = self.client.post(&Key::p256()?.request(&name)?, &name, &[]).await?;
        ensure!(answer.status == 201, "{answer:?}");
        Ok(answer.serial()?.to_owned())
    }
}

fn stands_down(shown: &Value) -> bool {
    shown["alive"] == true && shown["stands_down"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_signers_that_are_slow_at_the_same_instant_one_serves() -> Result<()> {
    let mut pair = Pair::start().await?;
    for faults in &pair.faults {
        faults.set(SLOW);
    }
    let patience = Instant::now() + PATIENCE;
    let mut posted = Vec::new();
    let mut rounds_with_one = 0;
    while rounds_with_one < 10 {
        let down: Vec<Value> = pair.fleet()?.into_iter().filter(stands_down).collect();
        ensure!(down.len() <= 1, "both stand down: {down:?}");
        rounds_with_one += down.len();
        ensure!(Instant::now() < patience, "nobody stands down: {:?}", pair.fleet()?);
        posted.push(pair.post(&format!("slow-{}", posted.len())).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The other one was refused, and says whose key it is needed for.
    let refused = SIGNERS.iter().filter(|signer| {
        let log = pair.grown.log(signer);
        log.contains("nobody else takes jobs for issuer") && log.contains("one job a token")
    });
    ensure!(refused.count() >= 1, "nobody was refused");

    // Once both are well again, both serve again, and nothing that was asked for is lost.
    for faults in &pair.faults {
        faults.set("");
    }
    for signer in SIGNERS {
        pair.until(signer, "still stands down", |shown| shown["stands_down"] == false)
            .await?;
    }
    for serial in posted {
        pair.client.certificate(&serial, PATIENCE).await?;
    }
    pair.grown.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_whose_stopped_neighbour_still_looks_well_does_not_stand_down() -> Result<()> {
    let mut pair = Pair::start().await?;
    let neighbour = pair.grown.id("signer-2").context("signer-2 does not run")?;
    // What it said last stands in its row, and is news of somebody who does nothing.
    tests::signal(neighbour, "STOP")?;
    pair.faults[0].set(SLOW);
    let patience = Instant::now() + PATIENCE;
    while !pair.grown.log("signer-1").contains("nobody else takes jobs for issuer") {
        ensure!(
            !stands_down(&pair.shown("signer-1")?),
            "the last who serves stands down"
        );
        ensure!(Instant::now() < patience, "signer-1 does not ask");
        pair.post("stopped").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // It goes on, slowly.
    issue_within(&pair.client, "slowly.example.com", PATIENCE).await?;

    // With the neighbour back it may; without it, it serves again, slow as it is.
    tests::signal(neighbour, "CONT")?;
    pair.until("signer-1", "does not stand down", stands_down).await?;
    issue_within(&pair.client, "neighbour.example.com", PATIENCE).await?;
    tests::signal(neighbour, "STOP")?;
    pair.until("signer-1", "is needed and stands down", |shown| !stands_down(shown))
        .await?;
    issue_within(&pair.client, "needed.example.com", PATIENCE).await?;
    tests::signal(neighbour, "CONT")?;
    pair.faults[0].set("");
    pair.grown.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_out_in_one_signer_is_shown_and_served_by_the_other() -> Result<()> {
    let mut pair = Pair::start().await?;
    // CKR_DEVICE_ERROR, whatever the key.
    pair.faults[0].set("sign return=0x30");
    pair.until("signer-1", "has its token in", |shown| {
        shown["tokens_out"] == serde_json::json!(["shared"])
    })
    .await?;
    let shown = pair.shown("signer-1")?;
    // The demo's issuers are on another token: it neither backs off nor stands down.
    ensure!(
        shown["backs_off"] == false && shown["stands_down"] == false && shown["keys"] == 2,
        "{shown}"
    );
    ensure!(
        pair.shown("signer-2")?["tokens_out"] == serde_json::json!([]),
        "the other's token is out as well"
    );
    for number in 0..5 {
        issue_within(&pair.client, &format!("other-{number}.example.com"), PATIENCE).await?;
    }
    // A failure of one issuer's key alone takes no token out.
    pair.faults[1].set(&format!("sign return=0x6 id={} times=1", hexadecimal("issuer")));
    issue_within(&pair.client, "again.example.com", PATIENCE).await?;
    pair.faults[0].set("");
    pair.until("signer-1", "has its token out", |shown| {
        shown["tokens_out"] == serde_json::json!([]) && shown["keys"] == 3
    })
    .await?;
    pair.grown.stop_all()
}
