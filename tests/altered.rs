//! Every column of the ledger altered in turn, by somebody who can write to the database: no certificate comes of it that a front end
//! did not ask for, and an event says so.
//!
//! The lane is paused (in the database, as such a person could), one job is asked for each column, the program is killed, each job has
//! one column altered, the pause is lifted, and the program is started again.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;
use tests::{Client, Deployment, Key};

/// What must come of an alteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// No certificate, and an event of the job, or a line of the log that names it, says so.
    Reported,
    /// The column orders work and says nothing about a certificate: the job is issued exactly as it was asked for, or not at all.
    AsAsked,
}
use Expect::{AsAsked, Reported};

/// The last byte of a blob with one bit turned.
const FLIP: &str = "flip";
/// A blob that says another name of the same length.
const RENAME: &str = "rename";

/// Table, column, its altered value ([`FLIP`], [`RENAME`], or SQL over the row), and what must come of it. A column that is missing here fails the test.
const OPEN_JOB: &[(&str, &str, &str, Expect)] = &[
    ("request", "job", FLIP, Reported),
    ("request", "id", "id + 1000000", Reported),
    ("request", "issuer", "'demo-rsa2048'", Reported),
    ("request", "class", "'bulk'", Reported),
    ("request", "account", "'demo-rsa2048'", Reported),
    ("request", "profile", "'demo-rsa2048'", Reported),
    ("request", "profile_version", "profile_version + 1", Reported),
    ("request", "purpose", "'tsa'", Reported),
    ("request", "accepted_at", "accepted_at - 86400000", AsAsked),
    ("request", "sign_by", "sign_by + 86400000", Reported),
    ("request", "not_before", "not_before - 86400", Reported),
    ("request", "not_after", "not_after + 86400", Reported),
    ("request", "intent", "randomblob(32)", Reported),
    ("statement", "id", "id + 2000000", Reported),
    ("statement", "statement", RENAME, Reported),
    ("statement", "proof", FLIP, Reported),
    ("intent", "id", "id + 3000000", Reported),
    ("intent", "tbs", RENAME, Reported),
    ("open", "job", FLIP, Reported),
    ("open", "issuer", "'demo-rsa2048'", Reported),
    ("open", "class", "'bulk'", Reported),
    ("open", "account", "'demo-rsa2048'", Reported),
    ("open", "purpose", "'tsa'", Reported),
    ("open", "state", "'parked'", AsAsked),
    ("open", "owner", "NULL", AsAsked),
    ("open", "turn", "turn + 7", AsAsked),
    ("open", "strikes", "2", AsAsked),
    ("open", "accepted_at", "accepted_at - 86400000", AsAsked),
    ("open", "begun_at", "NULL", AsAsked),
    ("open", "sign_by", "sign_by + 864000000", Reported),
    ("open", "waiters", "'nobody#00000000000000ff'", AsAsked),
    ("open", "repeat", "randomblob(32)", AsAsked),
    ("open", "unique_key", "randomblob(32)", AsAsked),
    ("open", "join_within", "join_within + 1000", AsAsked),
];

/// The same for a certificate that is there already: what is read back is what was signed, or nothing.
const ISSUED: &[(&str, &str, &str, Expect)] = &[
    ("result", "signature", FLIP, Reported),
    ("result", "job", FLIP, AsAsked),
    ("result", "account", "'demo-rsa2048'", AsAsked),
    ("result", "at", "at + 1000", AsAsked),
    ("result", "not_before", "not_before - 1", AsAsked),
    ("result", "not_after", "not_after + 1", AsAsked),
    ("result", "node", "'somebody'", AsAsked),
    ("result", "problem", "'internal'", AsAsked),
    ("result", "detail", "'altered'", AsAsked),
    ("result", "state", "'refused'", AsAsked),
    ("result", "turn", "turn + 1", AsAsked),
    ("result", "strikes", "strikes + 1", AsAsked),
    ("intent", "tbs", RENAME, Reported),
];

/// How a job's row is found in a table.
fn row_of(table: &str) -> &'static str {
    match table {
        "statement" | "intent" => "id = (SELECT id FROM request WHERE job = ?1)",
        _ => "job = ?1",
    }
}

struct Asked {
    table: &'static str,
    column: &'static str,
    value: &'static str,
    expect: Expect,
    name: String,
    serial: String,
    public_key: Vec<u8>,
}

async fn ask(client: &Client, plan: &[(&'static str, &'static str, &'static str, Expect)]) -> Result<Vec<Asked>> {
    let mut asked = Vec::new();
    for (number, &(table, column, value, expect)) in plan.iter().enumerate() {
        let key = Key::p256()?;
        let name = format!("a{number}.example.com");
        let answer = client.post(&key.request(&name)?, &name, &[]).await?;
        ensure!(answer.status == 201, "{table}.{column}: {answer:?}");
        let (serial, public_key) = (answer.serial()?.to_owned(), key.public_key());
        asked.push(Asked {
            table,
            column,
            value,
            expect,
            name,
            serial,
            public_key,
        });
    }
    Ok(asked)
}

fn blob(serial: &str) -> Result<Vec<u8>> {
    (0..serial.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&serial[at..at + 2], 16)?))
        .collect()
}

fn ledger(deployment: &Deployment) -> Result<Connection> {
    let connection = Connection::open(deployment.data().join("ledger/ledger.sqlite"))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

fn pause(connection: &Connection, paused: bool) -> Result<()> {
    connection.execute(
        "INSERT INTO lane (issuer, class, paused, draining, diverted) VALUES ('demo-p256', 'interactive', ?1, 0, 0) \
         ON CONFLICT (issuer, class) DO UPDATE SET paused = ?1",
        [paused],
    )?;
    Ok(())
}

/// Alters each job's column. Constraints stand in nobody's way who can write to the database.
fn alter(connection: &Connection, asked: &[Asked]) -> Result<()> {
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    for Asked {
        table,
        column,
        value,
        serial,
        ..
    } in asked
    {
        let (job, row) = (blob(serial)?, row_of(table));
        let altered: Option<Vec<u8>> = match *value {
            FLIP | RENAME => {
                let read = format!("SELECT {column} FROM {table} WHERE {row}");
                let mut bytes: Vec<u8> = connection.query_row(&read, [&job], |row| row.get(0)).context(read)?;
                alter_bytes(&mut bytes, value)?;
                Some(bytes)
            }
            _ => None,
        };
        let value = if altered.is_some() { "?2" } else { value };
        let statement = format!("UPDATE {table} SET {column} = {value} WHERE {row}");
        let changed = match altered {
            Some(bytes) => connection.execute(&statement, (&job, bytes)),
            None => connection.execute(&statement, [&job]),
        };
        let changed = changed.with_context(|| statement.clone())?;
        ensure!(changed == 1, "{statement}: {changed} rows");
    }
    Ok(())
}

fn alter_bytes(bytes: &mut [u8], how: &str) -> Result<()> {
    if how == FLIP {
        *bytes.last_mut().context("an empty blob")? ^= 1;
        return Ok(());
    }
    let (name, other) = (b"example.com", b"attack.test");
    let mut found = false;
    for at in 0..bytes.len().saturating_sub(name.len() - 1) {
        if bytes[at..].starts_with(name) {
            bytes[at..at + name.len()].copy_from_slice(other);
            found = true;
        }
    }
    ensure!(found, "the blob does not say the name");
    Ok(())
}

/// Every column of these tables has a line in the plan.
fn covers(connection: &Connection, tables: &[&str], plan: &[(&str, &str, &str, Expect)]) -> Result<()> {
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?;
        let columns: BTreeSet<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let planned: BTreeSet<String> = plan
            .iter()
            .filter(|(of, ..)| of == table)
            .map(|(_, column, ..)| (*column).to_owned())
            .collect();
        ensure!(columns == planned, "{table}: columns {columns:?}, planned {planned:?}");
    }
    Ok(())
}

/// Whether the certificate is the one that was asked for: key and name.
fn is_as_asked(certificate: &[u8], asked: &Asked) -> Result<bool> {
    let facts = pki::certificate::read(certificate)?;
    let named = certificate
        .windows(asked.name.len())
        .any(|window| window == asked.name.as_bytes());
    Ok(facts.public_key == asked.public_key.as_slice() && named)
}

/// What an event of the job says, or, where the event itself can name no job any more, a line of the log.
fn report(deployment: &Deployment, connection: &Connection, serial: &str) -> Result<Option<String>> {
    let mut events = connection
        .prepare("SELECT kind || ': ' || detail FROM job_event WHERE job = ?1 AND kind IN ('altered', 'damaged')")?;
    if let Some(said) = events.query_map([blob(serial)?], |row| row.get(0))?.next() {
        return Ok(Some(said?));
    }
    let log = deployment.log();
    let line = log
        .lines()
        .find(|line| line.contains(serial) && (line.contains("altered") || line.contains("damaged")));
    Ok(line.map(|line| format!("log: {}", line.chars().take(120).collect::<String>())))
}

/// What came of every alteration, as a table; fails at the end if anything is not as it must be.
async fn judge(deployment: &Deployment, connection: &Connection, client: &Client, asked: &[Asked]) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.set_header(["column", "certificate", "said"]);
    let mut wrong = Vec::new();
    for one in asked {
        let column = format!("{}.{}", one.table, one.column);
        let certificate = client.certificate(&one.serial, Duration::from_secs(3)).await.ok();
        let as_asked = certificate.as_deref().map(|der| is_as_asked(der, one)).transpose()?;
        let said = report(deployment, connection, &one.serial)?;
        let is_right = match one.expect {
            Reported => certificate.is_none() && said.is_some(),
            AsAsked => as_asked != Some(false),
        };
        let seen = match as_asked {
            None => "none",
            Some(true) => "as asked",
            Some(false) => "NOT AS ASKED",
        };
        table.add_row([column.clone(), seen.to_owned(), said.clone().unwrap_or_default()]);
        if !is_right {
            wrong.push(format!(
                "{column}: certificate {seen}, said {said:?}, and {:?} was expected",
                one.expect
            ));
        }
    }
    println!("{table}");
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_an_open_job_brings_a_certificate_that_nobody_asked_for() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    covers(&connection, &["request", "statement", "intent", "open"], OPEN_JOB)?;
    pause(&connection, true)?;
    let asked = ask(&client, OPEN_JOB).await?;
    // An untouched job beside the others proves that the lane goes on.
    let control = ask(&client, &[("open", "state", "state", AsAsked)]).await?;
    deployment.kill()?;
    alter(&connection, &asked)?;
    pause(&connection, false)?;
    deployment.start()?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let untouched = client.certificate(&control[0].serial, Duration::from_secs(20)).await?;
    ensure!(
        is_as_asked(&untouched, &control[0])?,
        "the untouched job's certificate is another's"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    judge(&deployment, &connection, &client, &asked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_an_issued_certificate_is_served() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    covers(&connection, &["result"], ISSUED)?;
    let asked = ask(&client, ISSUED).await?;
    for one in &asked {
        client.certificate(&one.serial, Duration::from_secs(20)).await?;
    }
    deployment.kill()?;
    alter(&connection, &asked)?;
    deployment.start()?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    judge(&deployment, &connection, &client, &asked).await
}

/// An issuer that an operator has disabled is not switched on again by its row alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_says_yes_where_the_signed_snapshot_says_no_issues_nothing() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    pause(&connection, true)?;
    let asked = ask(&client, &[("issuer", "issue", "1", Reported)]).await?;
    let disabled = deployment.bulkhead(&["issuer", "disable", "demo-p256", "--reason", "altered rows"])?;
    ensure!(
        disabled.status.success(),
        "issuer disable: {}",
        String::from_utf8_lossy(&disabled.stderr)
    );
    deployment.kill()?;
    connection.execute(
        "UPDATE issuer SET issue = 1, state = 'enabled' WHERE id = 'demo-p256'",
        [],
    )?;
    pause(&connection, false)?;
    deployment.start()?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let certificate = client.certificate(&asked[0].serial, Duration::from_secs(2)).await;
    ensure!(certificate.is_err(), "a disabled issuer has issued");
    println!(
        "no certificate: {:#}; said: {:?}",
        certificate.unwrap_err(),
        report(&deployment, &connection, &asked[0].serial)?
    );
    Ok(())
}
