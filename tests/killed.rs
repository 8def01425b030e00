//! Ten thousand jobs while the program is killed (SIGKILL) twenty times at random: one visible certificate per accepted job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags};
use tests::{Client, Deployment, Key};
use tokio::sync::RwLock;

const JOBS: usize = 10_000;
const KILLS: usize = 20;
const CLIENTS: usize = 24;
/// How long a job may take after the last kill: a begun job that its signer has lost is taken over after three operation limits.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one client saw of its jobs.
#[derive(Default)]
struct Seen {
    /// Serial by number of the request.
    accepted: BTreeMap<usize, (String, Vec<u8>)>,
    attempts: usize,
    failures: usize,
}

/// Asks for one certificate until it is accepted, as a stubborn client does: the same request with the same idempotency key.
async fn ask(number: usize, client: &RwLock<Client>, seen: &mut Seen) -> Result<()> {
    let key = Key::p256()?;
    let name = format!("job-{number}.example.com");
    let request = key.request(&name)?;
    let idempotency_key = format!("killed-{number}");
    loop {
        seen.attempts += 1;
        let current = client.read().await.clone();
        match current
            .post(&request, &name, &[("Idempotency-Key", &idempotency_key)])
            .await
        {
            Ok(answer) if answer.status == 201 => {
                seen.accepted
                    .insert(number, (answer.serial()?.to_owned(), key.public_key()));
                return Ok(());
            }
            Ok(answer) => ensure!(matches!(answer.status, 401 | 429 | 503), "job {number}: {answer:?}"),
            // The program was killed under the request.
            Err(_) => {}
        }
        seen.failures += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A logged-in client for the program as it runs now.
async fn fresh_client(deployment: &Deployment) -> Result<Client> {
    let mut client = deployment.client(0)?;
    client.login().await?;
    Ok(client)
}

/// How many times a job was taken over from a signer that was killed, and the most strikes that one job collected by it.
fn take_overs(deployment: &Deployment) -> Result<(usize, usize)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let ledger = Connection::open_with_flags(deployment.data().join("ledger/ledger.sqlite"), flags)?;
    let count = "SELECT count(*) FROM job_event WHERE kind = 'taken_over'";
    let most = "SELECT coalesce(max(strikes), 0) FROM result";
    let ask = |question: &str| ledger.query_row(question, [], |row| row.get::<_, u32>(0));
    Ok((usize::try_from(ask(count)?)?, usize::try_from(ask(most)?)?))
}

/// A small pseudo-random sequence (a linear congruential generator), so that a failing run can be repeated.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_jobs_survive_twenty_kills() -> Result<()> {
    let begun = Instant::now();
    let mut deployment = Deployment::started(&[])?;
    let client = Arc::new(RwLock::new(fresh_client(&deployment).await?));
    let number = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, number) = (client.clone(), number.clone());
            tokio::spawn(async move {
                let mut seen = Seen::default();
                loop {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if number >= JOBS {
                        return anyhow::Ok(seen);
                    }
                    ask(number, &client, &mut seen).await?;
                }
            })
        })
        .collect();

    // Each kill comes at a random moment within its twentieth of the work.
    let mut random = 20_201_028;
    for kill in 0..KILLS {
        let at = JOBS * kill / KILLS + usize::try_from(next(&mut random))? % (JOBS / KILLS);
        while number.load(Ordering::Relaxed) < at {
            ensure!(
                !workers.iter().all(tokio::task::JoinHandle::is_finished),
                "the clients ended before kill {kill}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        deployment.kill()?;
        deployment.start()?;
        *client.write().await = fresh_client(&deployment).await?;
    }

    let mut accepted = BTreeMap::new();
    let (mut attempts, mut failures) = (0, 0);
    for worker in workers {
        let seen = worker.await??;
        attempts += seen.attempts;
        failures += seen.failures;
        accepted.extend(seen.accepted);
    }
    let asked = begun.elapsed();

    // One certificate each, for the key that was sent, and each serial once.
    let reader = client.read().await.clone();
    let mut serials = BTreeSet::new();
    for (number, (serial, public_key)) in &accepted {
        let certificate = match reader.certificate(serial, PATIENCE).await {
            Ok(certificate) => certificate,
            Err(error) => bail!(
                "job {number}: {error:#}: {:#}",
                deployment.json(&["job", "show", serial])?
            ),
        };
        let facts = pki::certificate::read(&certificate)?;
        ensure!(
            facts.public_key == public_key.as_slice(),
            "job {number}: the certificate is for another key"
        );
        ensure!(
            serials.insert(serial.clone()),
            "job {number}: serial {serial} was given to two jobs"
        );
    }
    // Nothing beyond them: what the ledger has is what was accepted, and the self-check of each start.
    let issued = reader.get("/counters/certificates/issued").await?.body["value"]
        .as_u64()
        .context("a counter")?;
    let expected = u64::try_from(accepted.len() + KILLS + 1)?;

    let (taken_over, most_strikes) = take_overs(&deployment)?;
    let mut table = comfy_table::Table::new();
    table.set_header(["what", "count"]);
    for (what, count) in [
        ("requests accepted", accepted.len()),
        ("kills (SIGKILL)", KILLS),
        ("attempts", attempts),
        ("attempts that failed and were repeated", failures),
        ("take-overs of begun jobs", taken_over),
        ("most strikes of one job", most_strikes),
        ("certificates seen", serials.len()),
        ("certificates issued, self-checks included", usize::try_from(issued)?),
        ("seconds of requests and kills", usize::try_from(asked.as_secs())?),
        ("seconds in all", usize::try_from(begun.elapsed().as_secs())?),
    ] {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    println!("{table}");

    ensure!(
        accepted.len() == JOBS,
        "{} of {JOBS} jobs were accepted",
        accepted.len()
    );
    ensure!(serials.len() == JOBS, "{} certificates for {JOBS} jobs", serials.len());
    // A start that was killed before its self-check leaves none behind, so the count may fall short by as many.
    ensure!(
        (u64::try_from(JOBS)?..=expected).contains(&issued),
        "{issued} certificates were issued, and at most {expected} were asked for"
    );
    deployment.stop()
}
