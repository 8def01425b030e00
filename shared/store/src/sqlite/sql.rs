//! Running cached statements.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::fault::Fault;

/// Changes rows. How many.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, Fault> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// The first row, if there is one.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Fault> {
    Ok(connection.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// Every row.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
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
    let mut statement = connection.prepare_cached(sql)?;
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
