//! Permits to stand down.

use domain::{
    id::Incarnation,
    stand_down::{Permit, decide},
};

use super::{
    column::get,
    core::Core,
    fault::Fault,
    link::{Lent, Transaction},
};
use crate::rules::holder;

/// The advisory lock under which permits are counted and given.
const LOCK: i64 = 0x6275_6c6b_7374_646e;

impl Core {
    /// Gives a permit, or takes it away.
    pub(super) async fn stand_down(&self, lent: &mut Lent, signer: &Incarnation, percent: u8) -> Result<Permit, Fault> {
        let mut transaction = lent.begin().await?;
        match self.decide_stand_down(&mut transaction, signer, percent).await {
            Ok(permit) => {
                transaction.commit().await?;
                Ok(permit)
            }
            Err(fault) => {
                transaction.roll_back().await?;
                Err(fault)
            }
        }
    }

    async fn decide_stand_down(
        &self,
        transaction: &mut Transaction<'_>,
        signer: &Incarnation,
        percent: u8,
    ) -> Result<Permit, Fault> {
        // One after the other: what is given here is what the next one counts.
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
        transaction.rows(lock).await?;
        let live =
            sqlx::query("SELECT announcement, stands_down FROM lease WHERE lease_until > coalesce($1, ledger_now())");
        let mut holders = Vec::new();
        for row in transaction.rows(live.bind(self.given_now())).await? {
            holders.extend(holder(get(&row, "announcement")?, get(&row, "stands_down")?));
        }
        let permit = decide(signer, &holders, percent);
        let set = sqlx::query(
            "UPDATE lease SET stands_down = $2 WHERE incarnation = $1 AND lease_until > coalesce($3, ledger_now())",
        );
        let set = set
            .bind(signer.to_string())
            .bind(permit == Permit::Granted)
            .bind(self.given_now());
        transaction.rows(set).await?;
        Ok(permit)
    }

    /// Takes a permit back.
    pub(super) async fn stand_up(&self, lent: &mut Lent, signer: &Incarnation) -> Result<(), Fault> {
        let up = sqlx::query("UPDATE lease SET stands_down = FALSE WHERE incarnation = $1 AND stands_down");
        lent.rows(up.bind(signer.to_string())).await.map(drop)
    }
}
