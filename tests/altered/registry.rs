//! The registry's tables: issuers' rows, revisions, audit chains.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use runtime::{
    clock::SystemClock,
    config,
    follow::{Applied, Follower},
    identity::Identity,
    telemetry::Metrics,
};
use rusqlite::{Connection, types::Value};
use store::{
    Store,
    sqlite::{Options, Sqlite},
};
use tests::Deployment;
use tokio::time::sleep;

use super::{Asked, Expect::AsAsked, Expect::Reported, Plan, ask, blob, covers, is_as_asked, ledger, pause};

/// A row that says no where the signed registry says yes takes something away, and gives nothing. The other way round is the next test's.
const ISSUER: &[Plan] = &[
    ("issuer", "id", "'demo-p256-'", AsAsked),
    ("issuer", "state", "'destroyed'", AsAsked),
    ("issuer", "issue", "0", AsAsked),
    ("issuer", "crl", "0", AsAsked),
    ("issuer", "ocsp", "0", AsAsked),
    ("issuer", "not_after", "0", AsAsked),
];

fn done(deployment: &Deployment, command: &[&str]) -> Result<()> {
    let output = deployment.bulkhead(command)?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_an_issuers_row_issues_what_nobody_asked_for() -> Result<()> {
    let deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    covers(&connection, &["issuer"], ISSUER)?;
    for plan in ISSUER {
        let &(table, column, value, _) = plan;
        let row: i64 = connection.query_row(
            "SELECT count(*) FROM issuer WHERE id = 'demo-p256' AND state = 'enabled' AND issue",
            [],
            |row| row.get(0),
        )?;
        ensure!(row == 1, "{column}: the row is not as it was");
        let kept: Value = connection.query_row(
            &format!("SELECT {column} FROM {table} WHERE id = 'demo-p256'"),
            [],
            |row| row.get(0),
        )?;
        let alter = format!("UPDATE {table} SET {column} = {value} WHERE id = 'demo-p256'");
        ensure!(connection.execute(&alter, [])? == 1, "{alter}");
        let (key, name) = (tests::Key::p256()?, format!("{column}.example.com").replace('_', "-"));
        let answer = client.post(&key.request(&name)?, &name, &[]).await?;
        let mut seen = format!("answered {}", answer.status);
        if answer.status == 201 {
            let asked = Asked {
                table,
                column,
                value,
                expect: AsAsked,
                name,
                serial: answer.serial()?.to_owned(),
                public_key: key.public_key(),
            };
            let certificate = client.certificate(&asked.serial, Duration::from_secs(20)).await?;
            ensure!(
                is_as_asked(&certificate, &asked)?,
                "{table}.{column}: another certificate"
            );
            seen += ", issued as asked";
        }
        println!("{table}.{column} = {value}: {seen}");
        let restore = format!("UPDATE {table} SET {column} = ?1 WHERE id LIKE 'demo-p256%'");
        ensure!(connection.execute(&restore, [kept])? == 1, "{restore}");
    }
    // Everything is as it was, and so is the service.
    let asked = ask(&client, &[("issuer", "id", "id", AsAsked)]).await?;
    let certificate = client.certificate(&asked[0].serial, Duration::from_secs(20)).await?;
    ensure!(is_as_asked(&certificate, &asked[0])?, "another certificate");
    Ok(())
}

/// Makes a job one that its owner has lost, so that only a take-over brings it on: the sweep, which knows of the disable as well, looks
/// at queued jobs alone and cannot be first.
fn lose(connection: &Connection, asked: &Asked) -> Result<()> {
    let changed = connection.execute(
        "UPDATE open SET state = 'signing', owner = 'nobody#00000000000000ff', begun_at = accepted_at, turn = 1 WHERE job = ?1",
        [blob(&asked.serial)?],
    )?;
    ensure!(changed == 1, "the job is not open");
    Ok(())
}

/// An issuer that an operator has disabled is not switched on again by its row alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_says_yes_where_the_signed_snapshot_says_no_issues_nothing() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let connection = ledger(&deployment)?;

    // Where row and snapshot both say yes, a job in this position is issued.
    pause(&connection, true)?;
    let before = ask(&client, &[("issuer", "issue", "issue", AsAsked)]).await?;
    deployment.kill()?;
    lose(&connection, &before[0])?;
    pause(&connection, false)?;
    deployment.start()?;
    client = deployment.client(0)?;
    client.login().await?;
    let certificate = client.certificate(&before[0].serial, Duration::from_secs(20)).await?;
    ensure!(is_as_asked(&certificate, &before[0])?, "another certificate");

    // Parked, so that nobody settles it when its issuer is disabled.
    pause(&connection, true)?;
    let asked = ask(&client, &[("issuer", "issue", "1", Reported)]).await?;
    connection.execute(
        "UPDATE open SET state = 'parked' WHERE job = ?1",
        [blob(&asked[0].serial)?],
    )?;
    done(
        &deployment,
        &["issuer", "disable", "demo-p256", "--reason", "altered rows"],
    )?;
    deployment.kill()?;
    let lied = connection.execute(
        "UPDATE issuer SET issue = 1, state = 'enabled' WHERE id = 'demo-p256'",
        [],
    )?;
    ensure!(lied == 1, "the issuer has no row");
    lose(&connection, &asked[0])?;
    pause(&connection, false)?;
    deployment.start()?;
    client = deployment.client(0)?;
    client.login().await?;

    let said = |()| -> Result<Vec<String>> {
        let mut events = connection.prepare("SELECT kind FROM job_event WHERE job = ?1 ORDER BY id")?;
        let kinds = events.query_map([blob(&asked[0].serial)?], |row| row.get(0))?;
        Ok(kinds.collect::<Result<_, _>>()?)
    };
    let begun = std::time::Instant::now();
    while !said(())?.iter().any(|kind| kind == "issuer_row_disagreement") {
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "no event says so: {:?}\n{}",
            said(())?,
            deployment.json(&["job", "show", &asked[0].serial])?
        );
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(
        said(())?.iter().any(|kind| kind == "taken_over"),
        "no signer has met the row"
    );
    let certificate = client.certificate(&asked[0].serial, Duration::from_secs(2)).await;
    ensure!(certificate.is_err(), "a disabled issuer has issued");
    // The row still says yes, and the front end does not believe it either.
    let (key, name) = (tests::Key::p256()?, "later.example.com");
    let refused = client.post(&key.request(name)?, name, &[]).await?;
    ensure!(
        refused.status == 422 && refused.body["id"] == "issuer_disabled",
        "{refused:?}"
    );
    println!(
        "no certificate: {:#}; events: {:?}",
        certificate.unwrap_err(),
        said(())?
    );
    Ok(())
}

/// Whether a table says anything else than what was kept of it.
fn is_altered(connection: &Connection, table: &str) -> Result<bool> {
    let same = format!(
        "SELECT NOT EXISTS (SELECT * FROM {table} EXCEPT SELECT * FROM kept) \
         AND NOT EXISTS (SELECT * FROM kept EXCEPT SELECT * FROM {table})"
    );
    Ok(!connection.query_row(&same, [], |row| row.get::<_, bool>(0))?)
}

/// Of the last revision, which disables an issuer.
const REVISION: &[(&str, &str)] = &[
    ("number", "number + 1"),
    ("previous", "randomblob(32)"),
    ("body", "CAST(replace(CAST(body AS TEXT), 'false', 'true') AS BLOB)"),
    ("hash", "randomblob(32)"),
    ("node", "'frontend-1'"),
    ("signature", "randomblob(64)"),
    ("at", "at + 1"),
];

/// Whoever alters, removes or exchanges a revision gets no program that believes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_altered_column_of_a_revision_comes_into_force() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    let connection = ledger(&deployment)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    let plan: Vec<Plan> = REVISION
        .iter()
        .map(|(column, value)| ("revision", *column, *value, Reported))
        .collect();
    covers(&connection, &["revision"], &plan)?;
    done(&deployment, &["issuer", "disable", "demo-p256", "--reason", "a test"])?;
    deployment.kill()?;
    connection.execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM revision")?;
    let last = "(SELECT max(number) FROM revision)";
    let alterations = REVISION
        .iter()
        .map(|(column, value)| {
            (
                *column,
                format!("UPDATE revision SET {column} = {value} WHERE number = {last}"),
            )
        })
        .chain([("the whole row", format!("DELETE FROM revision WHERE number = {last}"))]);
    for (what, alteration) in alterations {
        ensure!(connection.execute(&alteration, [])? == 1, "{alteration}");
        ensure!(is_altered(&connection, "revision")?, "{what}: nothing to alter");
        let log = deployment.log().len();
        match deployment.start() {
            Ok(()) => bail!("{what}: the program believes it"),
            Err(error) => ensure!(error.to_string().contains("cannot be believed"), "{what}: {error:#}"),
        }
        let said = deployment.log()[log..].to_owned();
        let line = said
            .lines()
            .rfind(|line| line.contains("cannot be believed"))
            .unwrap_or_default();
        println!("{what}: {line}");
        connection.execute_batch("DELETE FROM revision; INSERT INTO revision SELECT * FROM kept")?;
    }
    // As it was, it is believed again, and the issuer is disabled.
    deployment.start()?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let (key, name) = (tests::Key::p256()?, "after.example.com");
    let refused = client.post(&key.request(name)?, name, &[]).await?;
    ensure!(refused.body["id"] == "issuer_disabled", "{refused:?}");
    deployment.stop()
}

/// Of a link in the midst of a chain.
const AUDIT: &[(&str, &str)] = &[
    ("writer", "'nobody-1'"),
    ("sequence", "sequence + 1000"),
    ("at", "at + 1"),
    ("previous", "randomblob(32)"),
    // The first word of the first event, in base64.
    (
        "events",
        "CAST(replace(CAST(events AS TEXT), 'eyJhdCI6', 'eyJidCI6') AS BLOB)",
    ),
    ("hash", "randomblob(32)"),
    ("signature", "randomblob(64)"),
];

/// Every chain of the log, from its first link to its last.
async fn verify(store: &Sqlite, applied: &Applied) -> Result<usize> {
    let mut links = 0;
    for head in store.audit_heads().await? {
        let chain = store.audit(Some(&head.writer), 0, 10_000).await?;
        wire::audit::verify(&chain, None, &applied.directory)?;
        links += chain.len();
    }
    Ok(links)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_altered_column_of_the_audit_log_is_found() -> Result<()> {
    let mut deployment = Deployment::started(&[])?;
    for (verb, reason) in [("disable", "one"), ("enable", "two"), ("disable", "three")] {
        done(&deployment, &["issuer", verb, "demo-p256", "--reason", reason])?;
    }
    deployment.stop()?;
    let connection = ledger(&deployment)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    let plan: Vec<Plan> = AUDIT
        .iter()
        .map(|(column, value)| ("audit", *column, *value, Reported))
        .collect();
    covers(&connection, &["audit"], &plan)?;

    let store = Arc::new(Sqlite::open(
        deployment.data().join("ledger"),
        Options::new(Arc::new(SystemClock)),
    )?);
    let root = Identity::open(&deployment.data().join("identity"))?.root_or_create()?;
    let follower = Follower::new(
        store.clone(),
        &root.public_key(),
        Arc::new(SystemClock),
        &config::Registry::default(),
        &Metrics::new(),
    )?;
    follower.catch_up().await?;
    let applied = follower.applied().load_full();
    let links = verify(&store, &applied).await?;
    ensure!(links >= 4, "{links} links are too few for a midst");

    connection.execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM audit")?;
    let (writer, last): (String, i64) = connection.query_row(
        "SELECT writer, max(sequence) FROM audit GROUP BY writer ORDER BY 2 DESC LIMIT 1",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let midst = last - 1;
    let of_it = format!("WHERE writer = '{writer}' AND sequence = {midst}");
    let alterations = AUDIT
        .iter()
        .map(|(column, value)| (*column, format!("UPDATE audit SET {column} = {value} {of_it}")))
        .chain([("the whole row", format!("DELETE FROM audit {of_it}"))]);
    for (what, alteration) in alterations {
        let changed = connection
            .execute(&alteration, [])
            .with_context(|| alteration.clone())?;
        ensure!(changed == 1, "{alteration}: {changed} rows");
        ensure!(is_altered(&connection, "audit")?, "{what}: nothing to alter");
        let found = verify(&store, &applied).await;
        println!(
            "{what}: {}",
            found
                .as_ref()
                .map_or_else(ToString::to_string, |links| format!("{links} links are good"))
        );
        ensure!(found.is_err(), "{what}: nobody notices");
        connection.execute_batch("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept")?;
    }
    // A tail that is cut off shows against a head that was written down elsewhere.
    let heads = store.audit_heads().await?;
    let known = heads
        .iter()
        .find(|head| head.writer.as_str() == writer)
        .context("a head")?;
    connection.execute("DELETE FROM audit WHERE writer = ?1 AND sequence = ?2", (&writer, last))?;
    let chain = store.audit(Some(&known.writer), 0, 10_000).await?;
    wire::audit::verify(&chain, None, &applied.directory)?;
    let at_known = chain.iter().find(|link| link.sequence == known.sequence);
    ensure!(
        wire::audit::verify_head(at_known, known).is_err(),
        "a cut tail goes unnoticed"
    );
    Ok(())
}
