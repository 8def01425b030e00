//! What stands beside the jobs: who joined, what answers a repeated request, revocations, leases.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;
use tests::{Client, Deployment, Key};
use tokio::time::sleep;

use super::{
    Asked,
    Expect::{AsAsked, Reported},
    FLIP, Plan, RENAME, alter, ask, blob, covers, is_as_asked, judge, ledger, pause,
};

const JOINED: &[Plan] = &[
    ("joined", "job", FLIP, Reported),
    ("joined", "joiner", FLIP, AsAsked),
    ("joined", "sign_by", "sign_by + 86400000", AsAsked),
    ("joined", "statement", RENAME, Reported),
    ("joined", "proof", FLIP, Reported),
];

/// A revocation is believed as its row has it: it takes a certificate away, and gives none.
const REVOCATION: &[Plan] = &[
    ("revocation", "job", FLIP, AsAsked),
    ("revocation", "account", "'demo-rsa2048'", AsAsked),
    ("revocation", "reason", "'keyCompromise'", AsAsked),
    ("revocation", "decided_at", "decided_at + 1000", AsAsked),
    ("revocation", "revocation_date", "revocation_date - 86400", AsAsked),
    ("revocation", "published_at", "decided_at", AsAsked),
    ("revocation", "decided_by", "'nobody'", AsAsked),
    ("revocation", "issued", "1 - issued", AsAsked),
];

/// Statements of jobs that were joined are what lets their `sign_by` be later than that of the first request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_a_joined_request_lends_a_job_more_time() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    covers(&connection, &["joined"], JOINED)?;
    pause(&connection, true)?;
    let mut asked = Vec::new();
    for plan in JOINED.iter().chain([&("open", "state", "state", AsAsked)]) {
        asked.push(ask_twice(&client, &connection, plan).await?);
    }
    let control = asked.split_off(JOINED.len());
    deployment.kill()?;
    alter(&connection, &asked)?;
    pause(&connection, false)?;
    deployment.start()?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    // The one that is as it was proves that a later sign_by counts where its statement is whole.
    let untouched = client.certificate(&control[0].serial, Duration::from_secs(20)).await?;
    ensure!(
        is_as_asked(&untouched, &control[0])?,
        "the untouched job's certificate is another's"
    );
    sleep(Duration::from_secs(1)).await;
    judge(&deployment, &connection, &client, &asked).await
}

/// Asks for one certificate and, a moment later, for the same once more.
async fn ask_twice(client: &Client, connection: &Connection, plan: &Plan) -> Result<Asked> {
    let &(table, column, value, expect) = plan;
    let (key, name) = (Key::p256()?, format!("joined-{column}.example.com").replace('_', "-"));
    let first = client.post(&key.request(&name)?, &name, &[]).await?;
    sleep(Duration::from_millis(20)).await;
    let second = client.post(&key.request(&name)?, &name, &[]).await?;
    let serial = first.serial()?.to_owned();
    ensure!(second.serial()? == serial, "not joined: {second:?}");
    let later: bool = connection.query_row(
        "SELECT open.sign_by = joined.sign_by AND open.sign_by > request.sign_by \
         FROM open JOIN joined USING (job) JOIN request USING (job) WHERE job = ?1",
        [blob(&serial)?],
        |row| row.get(0),
    )?;
    ensure!(later, "{table}.{column}: the joiner's sign_by does not count");
    Ok(Asked {
        table,
        column,
        value,
        expect,
        name,
        serial,
        public_key: key.public_key(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_a_revocation_makes_another_certificate() -> Result<()> {
    let deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    covers(&connection, &["revocation"], REVOCATION)?;
    let asked = ask(&client, REVOCATION).await?;
    for one in &asked {
        client.certificate(&one.serial, Duration::from_secs(20)).await?;
        let revoked = deployment.bulkhead(&["cert", "revoke", "--reason", "superseded", &one.serial])?;
        ensure!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    }
    alter(&connection, &asked)?;
    judge(&deployment, &connection, &client, &asked).await
}

/// What answers a repeated request, altered while the program runs.
struct Hint {
    table: &'static str,
    column: &'static str,
    value: &'static str,
}

const HINTS: &[Hint] = &[
    Hint {
        table: "idempotency",
        column: "key",
        value: "randomblob(32)",
    },
    Hint {
        table: "idempotency",
        column: "request",
        value: "randomblob(32)",
    },
    Hint {
        table: "idempotency",
        column: "job",
        value: "?2",
    },
    Hint {
        table: "idempotency",
        column: "until",
        value: "0",
    },
    Hint {
        table: "repeat",
        column: "account",
        value: "'demo-rsa2048'",
    },
    Hint {
        table: "repeat",
        column: "repeat",
        value: "randomblob(32)",
    },
    Hint {
        table: "repeat",
        column: "job",
        value: "?2",
    },
    Hint {
        table: "repeat",
        column: "until",
        value: "0",
    },
];

/// Both tables say which job answers a request, and nothing of a certificate. Whoever points them at another job makes a client fetch a
/// certificate that the same account asked for before, for another key, or none at all; another account's stays unknown to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_answer_to_a_repeated_request_leads_to_what_the_account_never_asked_for() -> Result<()> {
    let deployment = Deployment::started(&[])?;
    join_what_is_issued(&deployment)?;
    let context = std::fs::read(deployment.data().join("context.json"))?;
    let mut stranger = Client::new(&serde_json::from_slice(&context)?, 2)?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    stranger.login().await?;
    let connection = ledger(&deployment)?;
    let plan: Vec<Plan> = HINTS
        .iter()
        .map(|hint| (hint.table, hint.column, hint.value, AsAsked))
        .collect();
    covers(&connection, &["idempotency", "repeat"], &plan)?;
    let own = issued(&client, "own.example.com").await?;
    let foreign = issued(&stranger, "foreign.example.com").await?;
    let mut table = comfy_table::Table::new();
    table.set_header(["column", "asked again"]);
    for Hint {
        table: name,
        column,
        value,
    } in HINTS
    {
        let targets: &[&Known] = if *value == "?2" { &[&own, &foreign] } else { &[&own] };
        for target in targets {
            let host = format!("{name}-{column}-{}.example.com", &target.name[..3]);
            let key = Key::p256()?;
            let idempotency_key = format!("key-of-{host}");
            let headers: &[(&str, &str)] = match *name {
                "idempotency" => &[("Idempotency-Key", &idempotency_key)],
                _ => &[],
            };
            let first = client.post(&key.request(&host)?, &host, headers).await?;
            let serial = first.serial()?.to_owned();
            client.certificate(&serial, Duration::from_secs(20)).await?;
            let statement = format!("UPDATE {name} SET {column} = {value} WHERE job = ?1");
            let changed = match *value {
                "?2" => connection.execute(&statement, (blob(&serial)?, blob(&target.serial)?)),
                _ => connection.execute(&statement, [blob(&serial)?]),
            };
            ensure!(changed.context(statement)? == 1, "{name}.{column}: nothing to alter");

            let again = client.post(&key.request(&host)?, &host, headers).await?;
            let seen = match again.status {
                201 => {
                    let found = client.certificate(again.serial()?, Duration::from_secs(20)).await.ok();
                    let mine = found
                        .as_deref()
                        .map(|der| names(der, &host, &key.public_key()))
                        .transpose()?;
                    let before = found
                        .as_deref()
                        .map(|der| names(der, &own.name, &own.public_key))
                        .transpose()?;
                    match (mine, before) {
                        (Some(true), _) => "as asked",
                        (_, Some(true)) => "one that the account asked for before",
                        (None, _) => "none",
                        _ => bail!("{name}.{column}: a certificate that the account never asked for"),
                    }
                }
                409 | 422 => "refused",
                _ => bail!("{name}.{column}: {again:?}"),
            };
            table.add_row([format!("{name}.{column} ({})", target.name), seen.to_owned()]);
        }
    }
    println!("{table}");
    Ok(())
}

/// A certificate that is there.
struct Known {
    name: String,
    serial: String,
    public_key: Vec<u8>,
}

async fn issued(client: &Client, name: &str) -> Result<Known> {
    let key = Key::p256()?;
    let answer = client.post(&key.request(name)?, name, &[]).await?;
    let serial = answer.serial()?.to_owned();
    client.certificate(&serial, Duration::from_secs(20)).await?;
    Ok(Known {
        name: name.to_owned(),
        serial,
        public_key: key.public_key(),
    })
}

fn names(certificate: &[u8], name: &str, public_key: &[u8]) -> Result<bool> {
    let facts = pki::certificate::read(certificate)?;
    let named = certificate.windows(name.len()).any(|window| window == name.as_bytes());
    Ok(named && facts.public_key == public_key)
}

/// The demo profile joins a repeated request for an hour after issuance; a second account under it is somebody else.
fn join_what_is_issued(deployment: &Deployment) -> Result<()> {
    let mut profile = deployment.json(&["profile", "show", "demo-p256"])?;
    profile["join_within"] = "1h".into();
    let file = deployment.data().join("profile.json");
    std::fs::write(&file, profile.to_string())?;
    let file = file.to_str().context("a path in UTF-8")?;
    for command in [
        &["profile", "put", file, "--reason", "a test"][..],
        &[
            "account",
            "add",
            "stranger",
            "--issuer",
            "demo-p256",
            "--profile",
            "demo-p256",
            "--save",
            "--reason",
            "a test",
        ],
    ] {
        let done = deployment.bulkhead(command)?;
        ensure!(
            done.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}

/// Columns of the signer's own lease, and what an intruder makes of them while the signer lives.
const LEASE: &[(&str, &str)] = &[
    ("incarnation", "'nobody#00000000000000ff'"),
    ("lease_until", "0"),
    ("seen", "0"),
    ("announcement", "'{}'"),
    ("stands_down", "1"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_a_lease_issues_a_job_twice_or_not_at_all() -> Result<()> {
    let deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    let plan: Vec<Plan> = LEASE
        .iter()
        .map(|(column, value)| ("lease", *column, *value, AsAsked))
        .collect();
    covers(&connection, &["lease"], &plan)?;
    let mut asked = Vec::new();
    for (column, value) in LEASE {
        // In the midst of ten jobs.
        let ten = vec![("lease", *column, *value, AsAsked); 10];
        let (first, second) = ten.split_at(5);
        asked.extend(ask(&client, first).await?);
        let statement = format!("UPDATE lease SET {column} = {value} WHERE incarnation LIKE 'signer%'");
        // Each heartbeat writes the row again.
        let begun = Instant::now();
        while connection.execute(&statement, [])? == 0 {
            ensure!(begun.elapsed() < Duration::from_secs(10), "{statement}: no lease");
            sleep(Duration::from_millis(10)).await;
        }
        asked.extend(ask(&client, second).await?);
    }
    for one in &asked {
        let certificate = client.certificate(&one.serial, Duration::from_secs(30)).await?;
        ensure!(
            is_as_asked(&certificate, one)?,
            "lease.{}: another certificate",
            one.column
        );
        let results: u32 = connection.query_row(
            "SELECT count(*) FROM result WHERE job = ?1 AND state = 'issued'",
            [blob(&one.serial)?],
            |row| row.get(0),
        )?;
        ensure!(results == 1, "lease.{}: {results} results", one.column);
    }
    println!(
        "{} jobs while the lease was altered: each issued once, as asked",
        asked.len()
    );
    Ok(())
}
