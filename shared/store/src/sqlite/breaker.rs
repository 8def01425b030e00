//! Operators' orders to breakers.

use domain::{breaker::Force, id::IssuerId};
use rusqlite::Connection;

use super::{column::Column, fault::Fault, ledger::Ledger, sql::readable};

impl Ledger<'_> {
    /// Orders an issuer's breakers, or takes the order back.
    pub(super) fn force_breaker(&mut self, issuer: &IssuerId, force: Option<Force>) -> Result<(), Fault> {
        match force {
            Some(force) => self.execute(
                "INSERT INTO forced_breaker (issuer, force) VALUES (?1, ?2) ON CONFLICT (issuer) DO UPDATE SET force = excluded.force",
                (Column(issuer), Column(&force)),
            ),
            None => self.execute("DELETE FROM forced_breaker WHERE issuer = ?1", [Column(issuer)]),
        }
        .map(drop)
    }
}

/// Every order that is in force.
pub(super) fn forced_breakers(connection: &Connection) -> Result<Vec<(IssuerId, Force)>, Fault> {
    readable(
        connection,
        "SELECT issuer, force FROM forced_breaker ORDER BY issuer",
        [],
        |row| Ok((row.get::<_, Column<IssuerId>>(0)?.0, row.get::<_, Column<Force>>(1)?.0)),
    )
}
