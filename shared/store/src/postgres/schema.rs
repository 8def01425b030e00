//! The schema and its migrations: applied by whoever comes first, under a lock, while the others wait.

use std::{future::Future, pin::Pin, time::Duration};

use sqlx::{
    Connection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgConnection},
};
use tokio::time::timeout;

use super::{fault::Fault, link::dial};
use crate::StoreError;

/// Never changed once released; a change is a new one.
static MIGRATIONS: Migrator = sqlx::migrate!("src/postgres/migrations");
/// How long connecting may take, and how long the migrations with the wait for others.
const CONNECT: Duration = Duration::from_secs(5);
const MIGRATE: Duration = Duration::from_mins(2);

/// Brings the schema up to date.
pub(super) async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let options = options.clone().options([("lock_timeout", "100s"), ("timezone", "UTC")]);
    let late =
        |what: &str, limit: Duration| StoreError::Unavailable(format!("PostgreSQL: {what} took longer than {limit:?}"));
    let connected = timeout(CONNECT, dial(options.clone())).await;
    let host = options.get_host();
    let connection = connected
        .map_err(|_| late("connecting", CONNECT))?
        .map_err(|error| StoreError::Unavailable(format!("PostgreSQL at {host}:{}: {error}", options.get_port())))?;
    let migrated = timeout(MIGRATE, run(connection)).await;
    let migrated = migrated.map_err(|_| late("bringing the schema up to date", MIGRATE))?;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => StoreError::Rejected(format!(
            "the database has schema {found}, which this program does not know: use the newer program that wrote it"
        )),
        MigrateError::VersionMismatch(found) => StoreError::Rejected(format!(
            "schema {found} of the database is not the one that this program knows: it was changed after its release"
        )),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Fault::from(error).into_error(),
        other => StoreError::Rejected(format!("the schema cannot be brought up to date: {other}")),
    })?;
    Ok(())
}

/// Applies what is missing. (Boxed with everything it needs: what borrows is not known to be `Send` everywhere.)
fn run(mut connection: PgConnection) -> Pin<Box<dyn Future<Output = Result<(), MigrateError>> + Send>> {
    Box::pin(async move {
        MIGRATIONS.run_direct(None, &mut connection, false).await?;
        connection.close().await?;
        Ok(())
    })
}
