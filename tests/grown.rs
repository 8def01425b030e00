//! The grown-up deployment works: processes that were set up by commands alone, over PostgreSQL and RabbitMQ.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    Client, Grown, Key,
    waiting::{Party, only_those_that_wait_are_told},
};

const CERTIFICATES: usize = 200;
const CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for one certificate and fetches it, at another front end if there is one: serial and DER.
async fn issue(client: &Client, elsewhere: &Client, name: &str) -> Result<(String, Vec<u8>)> {
    let key = Key::p256()?;
    let answer = client.post(&key.request(name)?, name, &[]).await?;
    ensure!(answer.status == 201, "{name}: {answer:?}");
    let serial = answer.serial()?.to_owned();
    let certificate = elsewhere.certificate(&serial, PATIENCE).await?;
    let parsed = pki::certificate::read(&certificate)?;
    ensure!(
        parsed.public_key == key.public_key(),
        "{serial}: the certificate is for another key"
    );
    Ok((serial, certificate))
}

/// Has OpenSSL verify all of them under the account's trust chain.
async fn verify(client: &Client, directory: &Path, certificates: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let chain = client.get("/trustchain").await?;
    let chain: Vec<&str> = chain
        .body
        .as_array()
        .context("the trust chain is no list")?
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    let authorities = directory.join("chain.pem");
    fs::write(&authorities, chain.concat())?;
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-CAfile"]).arg(authorities);
    for (serial, certificate) in certificates {
        let file = directory.join(format!("{serial}.pem"));
        fs::write(&file, pki::pem::encode("CERTIFICATE", certificate))?;
        command.arg(file);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.ends_with(": OK"))
        .count();
    ensure!(
        output.status.success() && said == certificates.len(),
        "OpenSSL verified {said} of {}: {}",
        certificates.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// How many processes of each role hold a lease.
fn alive(grown: &Grown) -> Result<BTreeMap<String, u64>> {
    let nodes = grown.json(&["node", "list"])?;
    let nodes = nodes.as_array().context("node list is no list")?;
    let alive = nodes.iter().filter(|node| node["alive"] == true);
    let mut roles = BTreeMap::new();
    for node in alive {
        let role = node["role"].as_str().context("a node without role")?;
        *roles.entry(role.to_owned()).or_insert(0) += 1;
    }
    Ok(roles)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_front_ends_and_two_signers_issue_and_stop_in_good_order() -> Result<()> {
    let mut grown = Grown::started(2, 2).await?;
    let roles = alive(&grown)?;
    let expected = [("control", 1), ("frontend", 2), ("signer", 2)].map(|(role, count)| (role.to_owned(), count));
    ensure!(roles == BTreeMap::from(expected), "who lives: {roles:?}");

    let mut at = Vec::new();
    for frontend in ["frontend-1", "frontend-2"] {
        let mut client = grown.client(frontend, 0)?;
        client.login().await?;
        at.push(client);
    }
    let began = Instant::now();
    let tasks = (0..CLIENTS).map(|number| {
        let (client, elsewhere) = (at[number % 2].clone(), at[(number + 1) % 2].clone());
        tokio::spawn(async move {
            let mut certificates = Vec::new();
            for job in 0..CERTIFICATES / CLIENTS {
                let name = format!("grown-{number}-{job}.example.com");
                certificates.push(issue(&client, &elsewhere, &name).await?);
            }
            anyhow::Ok(certificates)
        })
    });
    let mut certificates = BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        certificates.extend(task.await??);
    }
    let took = began.elapsed();
    ensure!(certificates.len() == CERTIFICATES, "{} serials", certificates.len());
    verify(&at[0], grown.directory(), &certificates).await?;
    println!(
        "{CERTIFICATES} certificates through two front ends, each fetched at the other and verified, in {} ms",
        took.as_millis()
    );
    grown.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_start_in_any_order_and_wait_for_what_is_not_there() -> Result<()> {
    let mut grown = Grown::new(1, 1).await?;
    grown.start("control-1")?;
    grown.wait("control-1")?;
    for node in ["frontend-1", "signer-1"] {
        grown.enrol(node)?;
    }
    grown.stop("control-1")?;

    // Nothing is there but the processes themselves.
    grown.postgres.stop()?;
    grown.rabbitmq.stop().await?;
    for node in ["frontend-1", "signer-1", "control-1"] {
        grown.start(node)?;
    }
    for node in ["frontend-1", "signer-1", "control-1"] {
        let told = waits_for(&grown, node).await?;
        ensure!(told.contains("store"), "{node} waits for {told}");
    }
    grown.postgres.launch()?;
    for node in ["signer-1", "frontend-1", "control-1"] {
        grown.wait(node)?;
    }
    // Without a broker, signers claim from the ledger.
    let mut client = grown.client("frontend-1", 0)?;
    client.login().await?;
    issue(&client, &client, "without-a-broker.example.com").await?;
    grown.rabbitmq.boot().await?;
    issue(&client, &client, "with-a-broker.example.com").await?;

    // Nor does anybody who was enrolled once need control to start, give tokens and issue.
    grown.stop("control-1")?;
    for node in ["frontend-1", "signer-1"] {
        grown.stop(node)?;
        grown.start(node)?;
        grown.wait(node)?;
    }
    issue(&client, &client, "with-the-token-of-before.example.com").await?;
    let mut client = grown.client("frontend-1", 0)?;
    client.login().await?;
    issue(&client, &client, "without-control.example.com").await?;
    grown.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_nothing() -> Result<()> {
    let mut grown = Grown::started(2, 2).await?;
    let mut at = Vec::new();
    for frontend in ["frontend-1", "frontend-2"] {
        let mut client = grown.client(frontend, 0)?;
        client.login().await?;
        at.push(client);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..2)
        .map(|number| {
            let (at, stop) = (at.clone(), stop.clone());
            tokio::spawn(async move { stubborn(&at, number, &stop).await })
        })
        .collect();
    for node in ["signer-1", "frontend-1", "signer-2", "frontend-2"] {
        grown.stop(node)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        grown.start(node)?;
        grown.wait(node)?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for task in tasks {
        accepted.extend(task.await??);
    }
    let fetching = grown.client("frontend-1", 0)?;
    let mut fetching = fetching;
    fetching.login().await?;
    for serial in &accepted {
        fetching.certificate(serial, PATIENCE).await?;
    }
    ensure!(accepted.len() > 10, "only {} jobs were accepted", accepted.len());
    println!(
        "{} jobs accepted during a restart of every front end and signer, all of them issued",
        accepted.len()
    );
    grown.stop_all()
}

/// Asks for certificates, at whichever front end takes the request, until told to stop: the serials that were accepted.
async fn stubborn(at: &[Client], number: usize, stop: &AtomicBool) -> Result<Vec<String>> {
    let mut accepted = Vec::new();
    let mut request = 0;
    while !stop.load(Ordering::Relaxed) {
        request += 1;
        let name = format!("rolling-{number}-{request}.example.com");
        let csr = Key::p256()?.request(&name)?;
        for client in at.iter().cycle().skip(number + request).take(2 * at.len()) {
            match client.post(&csr, &name, &[("Idempotency-Key", &name)]).await {
                Ok(answer) if answer.status == 201 => {
                    accepted.push(answer.serial()?.to_owned());
                    break;
                }
                Ok(answer) => ensure!(matches!(answer.status, 503 | 429), "{name}: {answer:?}"),
                // It is being restarted.
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(accepted)
}

/// What a process that is not ready says it waits for.
async fn waits_for(grown: &Grown, node: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        if let Ok((status, body)) = grown.readyz(node).await
            && status == 503
            && body.to_string().contains("waiting")
        {
            return Ok(body.to_string());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{node} does not say what it waits for:\n{}",
            grown.log(node)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_for_a_key_that_no_signer_has_are_told_at_once_and_only_they() -> Result<()> {
    let mut grown = Grown::started(1, 2).await?;
    let mut parties = Vec::new();
    for (account, key) in [(0, Key::p256()?), (1, Key::rsa2048()?)] {
        let mut client = grown.client("frontend-1", account)?;
        client.login().await?;
        parties.push(Party { client, key });
    }
    let (key, aside) = (
        grown.directory().join("keys/soft/demo-p256.key"),
        grown.directory().join("aside"),
    );
    only_those_that_wait_are_told(&parties[0], &parties[1], &key, &aside).await?;
    grown.stop_all()
}
