//! Every column of the ledger altered in turn, by somebody who can write to the database: no certificate comes of it that a front end
//! did not ask for, and where a certificate depends on the column, an event says so.

mod beside;
mod jobs;
mod registry;

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

/// Table, column, its altered value ([`FLIP`], [`RENAME`], or SQL over the row), and what must come of it. A column that is missing in a
/// plan fails its test.
type Plan = (&'static str, &'static str, &'static str, Expect);

/// The last byte of a blob with one bit turned.
const FLIP: &str = "flip";
/// A blob that says another name of the same length.
const RENAME: &str = "rename";

/// How a job's row is found in a table.
fn row_of(table: &str) -> &'static str {
    match table {
        "statement" | "intent" => "id = (SELECT id FROM request WHERE job = ?1)",
        _ => "job = ?1",
    }
}

/// A job, and what is done to it.
struct Asked {
    table: &'static str,
    column: &'static str,
    value: &'static str,
    expect: Expect,
    name: String,
    serial: String,
    public_key: Vec<u8>,
}

async fn ask(client: &Client, plan: &[Plan]) -> Result<Vec<Asked>> {
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
fn covers(connection: &Connection, tables: &[&str], plan: &[Plan]) -> Result<()> {
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
