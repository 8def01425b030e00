//! The jobs themselves: what was asked for, what is open, what was issued.
//!
//! The lane is paused (in the database, as an intruder could), one job is asked for each column, the program is killed, each job has one
//! column altered, the pause is lifted, and the program is started again.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::Deployment;

use super::{
    Expect::{AsAsked, Reported},
    FLIP, Plan, RENAME, alter, ask, covers, is_as_asked, judge, ledger, pause,
};

/// Of a job that waits.
const OPEN_JOB: &[Plan] = &[
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
const ISSUED: &[Plan] = &[
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
