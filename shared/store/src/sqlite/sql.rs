//! Running cached statements.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use super::fault::Fault;

/// A statement, from the connection's cache if it is there.
pub(super) fn prepare<'c>(connection: &'c Connection, sql: &str) -> rusqlite::Result<CachedStatement<'c>> {
    #[cfg(test)]
    super::tests::plans::seen(sql);
    connection.prepare_cached(sql)
}

/// Changes rows. How many.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, Fault> {
    Ok(prepare(connection, sql)?.execute(params)?)
}

/// The first row, if there is one.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Fault> {
    Ok(prepare(connection, sql)?.query_row(params, read).optional()?)
}

/// Every row.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = prepare(connection, sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every row that can be read. Those that cannot are reported and left out, so that one damaged row does not hide the others.
pub(super) fn readable<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = prepare(connection, sql)?;
    let mut found = Vec::new();
    for row in statement.query_map(params, read)? {
        match row.map_err(Fault::from) {
            Ok(row) => found.push(row),
            Err(Fault::Row(error)) => tracing::error!(%error, "a stored row is left out"),
            Err(fault @ Fault::Store(_)) => return Err(fault),
        }
    }
    Ok(found)
}
