//! Quotas are leased in blocks: a writer takes a block of an account's quota and uses it up in a row of its own, so that accepting
//! shares no row with anyone. The sum of what is used and what is leased never exceeds the quota, however many writers there are.
//! When it is used up, what others have leased and not used (above all what a dead process left) is taken back first.

use domain::{id::AccountId, lane::Lane};

use super::{
    column::get,
    core::one,
    fault::Fault,
    link::{Lent, Transaction},
};

/// The largest block.
const BLOCK: i64 = 1_000;
/// A block is at most this part of what is left, so that the last certificates are not all with one writer.
const PART: i64 = 16;
/// The first of the two numbers of the advisory lock of an account's quota.
const LOCK: i32 = 0x5155_4f54;

/// Leases at least `want` of an account's quota for this connection's writer, if there is as much. How much there is for it.
pub(super) async fn lease(
    lent: &mut Lent,
    account: &AccountId,
    lane: &Lane,
    want: usize,
    quota: i64,
) -> Result<usize, Fault> {
    let mut transaction = lent.begin().await?;
    match take(
        &mut transaction,
        account,
        lane,
        i64::try_from(want).unwrap_or(i64::MAX),
        quota,
    )
    .await
    {
        Ok(granted) => {
            transaction.commit().await?;
            Ok(usize::try_from(granted).unwrap_or(0).min(want))
        }
        Err(fault) => {
            transaction.roll_back().await?;
            Err(fault)
        }
    }
}

async fn take(
    transaction: &mut Transaction<'_>,
    account: &AccountId,
    lane: &Lane,
    want: i64,
    quota: i64,
) -> Result<i64, Fault> {
    let name = account.as_str().to_owned();
    let locked = sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(LOCK)
        .bind(name.clone());
    transaction.rows(locked).await?;
    let mut left = left(transaction, &name, quota).await?;
    if left < want {
        // Accounts come in order where a writer locks rows of several, and writers in order here: no circle of waiting.
        let back = sqlx::query(
            "UPDATE account_tally SET reserved = 0 WHERE account = $1 AND reserved > 0 AND writer = ANY(ARRAY(\
             SELECT writer FROM account_tally WHERE account = $1 AND reserved > 0 ORDER BY issuer, class, writer FOR UPDATE))",
        );
        transaction.rows(back.bind(name.clone())).await?;
        left = self::left(transaction, &name, quota).await?;
    }
    let granted = (left / PART).clamp(0, BLOCK).max(want).min(left).max(0);
    if granted > 0 {
        let leased = sqlx::query(
            "INSERT INTO account_tally AS tally (account, issuer, class, writer, reserved) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (account, issuer, class, writer) DO UPDATE SET reserved = tally.reserved + excluded.reserved",
        );
        let leased = leased
            .bind(name)
            .bind(lane.issuer.as_str().to_owned())
            .bind(lane.class.as_str())
            .bind(transaction.writer())
            .bind(granted);
        transaction.rows(leased).await?;
    }
    Ok(granted)
}

/// What of an account's quota is neither used nor leased.
async fn left(transaction: &mut Transaction<'_>, account: &str, quota: i64) -> Result<i64, Fault> {
    let taken =
        sqlx::query("SELECT coalesce(sum(used + reserved), 0)::bigint AS taken FROM account_tally WHERE account = $1");
    let row = one(transaction.rows(taken.bind(account.to_owned())).await?)?;
    Ok(quota.saturating_sub(get(&row, "taken")?))
}
