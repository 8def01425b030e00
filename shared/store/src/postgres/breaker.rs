//! Operators' orders to breakers.

use domain::{breaker::Force, id::IssuerId};
use sqlx::postgres::PgRow;

use super::{column::parsed, core::Core, fault::Fault, link::Lent};

impl Core {
    /// Orders an issuer's breakers, or takes the order back.
    pub(super) async fn force_breaker(
        &self,
        lent: &mut Lent,
        issuer: &IssuerId,
        force: Option<Force>,
    ) -> Result<(), Fault> {
        let issuer = issuer.as_str().to_owned();
        let order = match force {
            Some(force) => sqlx::query(
                "INSERT INTO forced_breaker (issuer, force) VALUES ($1, $2) \
                 ON CONFLICT (issuer) DO UPDATE SET force = excluded.force",
            )
            .bind(issuer)
            .bind(force.as_str()),
            None => sqlx::query("DELETE FROM forced_breaker WHERE issuer = $1").bind(issuer),
        };
        lent.rows(order).await.map(drop)
    }

    /// Every order that is in force. Rows that cannot be read are reported and left out.
    pub(super) async fn forced_breakers(&self, lent: &mut Lent) -> Result<Vec<(IssuerId, Force)>, Fault> {
        let forced = sqlx::query("SELECT issuer, force FROM forced_breaker ORDER BY issuer");
        let rows = lent.rows(forced).await?;
        let read = |row: &PgRow| -> Result<_, Fault> { Ok((parsed(row, "issuer")?, parsed(row, "force")?)) };
        let report = |fault: &Fault| tracing::error!(?fault, "a stored row is left out");
        Ok(rows
            .iter()
            .filter_map(|row| read(row).inspect_err(report).ok())
            .collect())
    }
}
