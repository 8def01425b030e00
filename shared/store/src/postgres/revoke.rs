//! Revocations and cancellations, and what signers ask of them.

use std::collections::HashSet;

use domain::{
    id::{AccountId, Serial},
    job::{RevocationReason, State},
};

use super::{
    column::{get, parsed, serial, serials, text},
    core::{Core, one},
    event::Event,
    fault::Fault,
    link::{Lent, Transaction},
    partition::Day,
};
use crate::{Revocation, Revoked, StoreError, rules::revocation_date};

/// How often a revocation is tried again where another one, or the job's end, came in between.
const ATTEMPTS: u32 = 5;

impl Core {
    /// Records a revocation, or says why not.
    pub(super) async fn revoke(&self, lent: &mut Lent, revocation: &Revocation) -> Result<Revoked, Fault> {
        for _ in 0..ATTEMPTS {
            let mut transaction = lent.begin().await?;
            match self.decide(&mut transaction, revocation).await {
                Ok(revoked) => {
                    transaction.commit().await?;
                    if revoked == Revoked::Cancelled {
                        let reason = revocation.reason.as_str();
                        let event = Event::new(revocation.job, "cancelled", reason, &revocation.by);
                        self.note(lent, &[event]).await?;
                    }
                    return Ok(revoked);
                }
                Err(fault) => {
                    transaction.roll_back().await?;
                    if !fault.is_passing() && !matches!(fault, Fault::Taken(_)) {
                        return Err(fault);
                    }
                }
            }
        }
        Err(Fault::Again("others are in the way of this revocation".into()))
    }

    async fn decide(&self, transaction: &mut Transaction<'_>, revocation: &Revocation) -> Result<Revoked, Fault> {
        let job = revocation.job.as_bytes().to_vec();
        let day = Day::of(revocation.job.time());
        let request = self.days.over(
            day,
            "SELECT account, issuer, class, not_before, coalesce($2::bigint, ledger_now()) AS now \
             FROM request{day} AS request WHERE job = $1",
        );
        let rows = transaction
            .rows(request.bind(job.clone()).bind(self.given_now()))
            .await?;
        let Some(row) = rows.first() else {
            return Ok(Revoked::Unknown);
        };
        let account: AccountId = parsed(row, "account")?;
        if revocation.account.as_ref().is_some_and(|mine| *mine != account) {
            return Ok(Revoked::Unknown);
        }
        let open = sqlx::query("SELECT state FROM open WHERE job = $1 FOR UPDATE").bind(job.clone());
        let open: Option<State> = match transaction.rows(open).await?.first() {
            Some(row) => Some(parsed(row, "state")?),
            None => None,
        };
        let issued = match open {
            Some(_) if !revocation.cancel_pending => return Ok(Revoked::Pending),
            Some(_) => false,
            None => {
                let result = self
                    .days
                    .over(day, "SELECT state FROM result{day} AS result WHERE job = $1")
                    .bind(job.clone());
                match transaction.rows(result).await?.first() {
                    None => {
                        return Err(Fault::damaged(format!(
                            "job {}: neither open nor ended",
                            revocation.job
                        )));
                    }
                    Some(row) => match parsed(row, "state")? {
                        State::Issued => true,
                        state => return Ok(Revoked::NeverIssued(state)),
                    },
                }
            }
        };
        let before = sqlx::query("SELECT reason FROM revocation WHERE job = $1 FOR UPDATE").bind(job.clone());
        let before: Option<RevocationReason> = match transaction.rows(before).await?.first() {
            Some(row) => Some(parsed(row, "reason")?),
            None => None,
        };
        let raised = revocation.reason == RevocationReason::KeyCompromise;
        if let Some(reason) = before.filter(|reason| !raised || *reason == RevocationReason::KeyCompromise) {
            return Ok(Revoked::Already(reason));
        }
        let now = super::column::time(row, "now")?;
        let date = match revocation_date(revocation, get(row, "not_before")?, now) {
            Ok(date) => date,
            Err(refused) => return Ok(refused),
        };
        if before.is_some() {
            // The date of the first decision stands unless an earlier one was given with the compromise.
            let raise = sqlx::query(
                "UPDATE revocation SET reason = $2, revocation_date = least(revocation_date, $3), decided_by = $4, \
                 published_at = NULL WHERE job = $1",
            );
            let raise = raise
                .bind(job)
                .bind(revocation.reason.as_str())
                .bind(date)
                .bind(text(&revocation.by));
            transaction.rows(raise).await?;
            return Ok(Revoked::Raised);
        }
        let record = sqlx::query(
            "INSERT INTO revocation (job, account, reason, decided_at, revocation_date, decided_by, issued) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        let record = record
            .bind(job.clone())
            .bind(account.as_str().to_owned())
            .bind(revocation.reason.as_str())
            .bind(now.as_millis())
            .bind(date)
            .bind(text(&revocation.by))
            .bind(issued);
        transaction.rows(record).await?;
        if !issued {
            // Nobody joins it any more.
            let cancel = sqlx::query("UPDATE open SET cancelled = TRUE, repeat = NULL WHERE job = $1");
            transaction.rows(cancel.bind(job)).await?;
            return Ok(Revoked::Cancelled);
        }
        let counted = sqlx::query(
            "INSERT INTO account_tally AS tally (account, issuer, class, writer, revoked) VALUES ($1, $2, $3, $4, 1) \
             ON CONFLICT (account, issuer, class, writer) DO UPDATE SET revoked = tally.revoked + 1",
        );
        let counted = counted
            .bind(account.as_str().to_owned())
            .bind(get::<String>(row, "issuer")?)
            .bind(get::<String>(row, "class")?)
            .bind(transaction.writer());
        transaction.rows(counted).await?;
        Ok(Revoked::Done)
    }

    /// Of each of these jobs, whether somebody has revoked or cancelled it.
    pub(super) async fn are_cancelled(&self, lent: &mut Lent, jobs: &[Serial]) -> Vec<Result<bool, StoreError>> {
        match self.revoked(lent, jobs).await {
            Ok(revoked) => jobs.iter().map(|job| Ok(revoked.contains(job))).collect(),
            Err(fault) => jobs.iter().map(|_| Err(fault.clone().into_error())).collect(),
        }
    }

    async fn revoked(&self, lent: &mut Lent, jobs: &[Serial]) -> Result<HashSet<Serial>, Fault> {
        let revoked = sqlx::query("SELECT job FROM revocation WHERE job = ANY($1)");
        let rows = lent.rows(revoked.bind(serials(jobs))).await?;
        rows.iter().map(|row| serial(row, "job")).collect()
    }

    /// A job's revocation.
    pub(super) async fn revocation(
        &self,
        lent: &mut Lent,
        job: &Serial,
    ) -> Result<Option<crate::RevocationRecord>, Fault> {
        let record =
            sqlx::query("SELECT reason, decided_at, revocation_date, published_at FROM revocation WHERE job = $1");
        let rows = lent.rows(record.bind(job.as_bytes().to_vec())).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let row = one(rows)?;
        Ok(Some(crate::RevocationRecord {
            reason: parsed(&row, "reason")?,
            decided_at: super::column::time(&row, "decided_at")?,
            revocation_date: get(&row, "revocation_date")?,
            published_at: get::<Option<i64>>(&row, "published_at")?.map(domain::time::Timestamp::from_millis),
        }))
    }
}
