//! What ends without a signer: the sweep, the front end whose wait is over, revocations.

use domain::{
    id::{AccountId, Incarnation, Serial},
    job::{RevocationReason, State},
    time::Timestamp,
};

use super::{
    column::Column,
    counts::{Sign, Total},
    fault::Fault,
    ledger::Ledger,
    open::{OpenRow, open_row, owner_lost},
};
use crate::{
    Ended, Outcome, Revocation, Revoked, StoreError,
    rules::{LEASE_KEPT, Waiters, revocation_date},
};

impl Ledger<'_> {
    /// Ends what nobody wants any more and forgets what has run out, in chunks of `limit`.
    pub(super) fn sweep(&mut self, limit: u32) -> Result<Vec<Ended>, StoreError> {
        let mut ended = Vec::new();
        for job in self.row(|ledger| ledger.late(limit))? {
            match self.row(|ledger| ledger.expire(&job)) {
                Ok(expired) => ended.extend(expired),
                Err(StoreError::Damaged(why) | StoreError::Rejected(why)) => {
                    self.row(|ledger| ledger.give_up(&job, &why))?;
                }
                Err(error) => return Err(error),
            }
        }
        self.row(|ledger| ledger.prune(limit))?;
        Ok(ended)
    }

    fn late(&self, limit: u32) -> Result<Vec<Serial>, Fault> {
        self.all(
            concat!(
                "SELECT job FROM open WHERE sign_by <= ?1 AND (state <> 'signing' OR ",
                owner_lost!("?1"),
                ") ORDER BY sign_by LIMIT ?2"
            ),
            (Column(self.now), limit),
            |row| Ok(row.get::<_, Column<Serial>>(0)?.0),
        )
    }

    fn expire(&mut self, job: &Serial) -> Result<Option<Ended>, Fault> {
        let open = self.one(
            open_row!(concat!(
                "open.sign_by <= ?2 AND (open.state <> 'signing' OR ",
                owner_lost!("?2"),
                ")"
            )),
            (Column(job), Column(self.now)),
            OpenRow::read,
        )?;
        let at = self.now;
        open.map(|open| self.end(open, Outcome::Expired { at }, None))
            .transpose()
    }

    /// Sets a late job aside that cannot be ended as what it is, and sweeps it no more.
    fn give_up(&mut self, job: &Serial, why: &str) -> Result<(), Fault> {
        self.set_aside(job, why)?;
        self.execute("UPDATE open SET sign_by = ?2 WHERE job = ?1", (Column(job), i64::MAX))?;
        Ok(())
    }

    fn prune(&self, limit: u32) -> Result<(), Fault> {
        let now = Column(self.now);
        self.execute(
            "DELETE FROM repeat WHERE (account, repeat) IN \
             (SELECT account, repeat FROM repeat WHERE until <= ?1 ORDER BY until LIMIT ?2)",
            (&now, limit),
        )?;
        self.execute(
            "DELETE FROM idempotency WHERE key IN \
             (SELECT key FROM idempotency WHERE until <= ?1 ORDER BY until LIMIT ?2)",
            (&now, limit),
        )?;
        self.execute("DELETE FROM lease WHERE lease_until <= ?1 - ?2", (&now, LEASE_KEPT))?;
        Ok(())
    }

    /// Ends late jobs that nobody but this front end waits for.
    pub(super) fn withdraw(&mut self, frontend: &Incarnation, jobs: &[Serial]) -> Result<Vec<Ended>, StoreError> {
        let mut ended = Vec::new();
        for job in jobs {
            ended.extend(self.row(|ledger| ledger.withdraw_one(frontend, job))?);
        }
        Ok(ended)
    }

    fn withdraw_one(&mut self, frontend: &Incarnation, job: &Serial) -> Result<Option<Ended>, Fault> {
        let open = self.one(
            open_row!("open.sign_by <= ?2 AND open.state <> 'signing' AND open.waiters = ?3"),
            (Column(job), Column(self.now), Column(&Waiters(vec![frontend.clone()]))),
            OpenRow::read,
        )?;
        let at = self.now;
        open.map(|open| self.end(open, Outcome::Expired { at }, None))
            .transpose()
    }

    /// Records a revocation, or says why not.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<Revoked, Fault> {
        let job = &revocation.job;
        let request = self.one(
            "SELECT account, not_before FROM request WHERE job = ?1",
            [Column(job)],
            |row| Ok((row.get::<_, Column<AccountId>>(0)?.0, row.get::<_, i64>(1)?)),
        )?;
        let Some((account, not_before)) = request else {
            return Ok(Revoked::Unknown);
        };
        if revocation.account.as_ref().is_some_and(|mine| *mine != account) {
            return Ok(Revoked::Unknown);
        }
        let state = self.one(
            "SELECT state FROM open WHERE job = ?1 UNION ALL SELECT state FROM result WHERE job = ?1",
            [Column(job)],
            |row| Ok(row.get::<_, Column<State>>(0)?.0),
        )?;
        match state {
            None => return Err(Fault::damaged(format!("job {job}: neither open nor ended"))),
            Some(State::Issued) => {}
            Some(state) if !state.is_open() => return Ok(Revoked::NeverIssued(state)),
            Some(_) if !revocation.cancel_pending => return Ok(Revoked::Pending),
            Some(_) => {}
        }
        let issued = state == Some(State::Issued);
        let before = super::read::revocation(self.connection, job)?.map(|record| record.reason);
        let raised = revocation.reason == RevocationReason::KeyCompromise;
        match before {
            Some(reason) if !raised || reason == RevocationReason::KeyCompromise => {
                return Ok(Revoked::Already(reason));
            }
            _ => {}
        }
        let date = match revocation_date(revocation, not_before, self.now) {
            Ok(date) => date,
            Err(refused) => return Ok(refused),
        };
        if before.is_some() {
            // The date of the first decision stands unless an earlier one was given with the compromise.
            self.execute(
                "UPDATE revocation SET reason = ?2, revocation_date = min(revocation_date, ?3), decided_by = ?4, \
                 published_at = NULL WHERE job = ?1",
                (Column(job), Column(&revocation.reason), date, &revocation.by),
            )?;
            return Ok(Revoked::Raised);
        }
        self.execute(
            "INSERT INTO revocation (job, account, reason, decided_at, revocation_date, decided_by, issued) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                Column(job),
                Column(&account),
                Column(&revocation.reason),
                Column(self.now),
                date,
                &revocation.by,
                issued,
            ),
        )?;
        if issued {
            self.counts.total(&account, Total::Revoked, Sign::Plus);
            return Ok(Revoked::Done);
        }
        self.note(job, "cancelled", revocation.reason.as_str(), &revocation.by)?;
        Ok(Revoked::Cancelled)
    }

    /// Marks of a job's life that signers and front ends want kept.
    pub(super) fn notes(&mut self, events: &[crate::JobEvent]) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for event in events {
            let noted = self.row(|ledger| ledger.note(&event.job, &event.kind, &event.detail, &event.by));
            failed = failed.and(noted);
        }
        failed
    }

    /// Renews a lease.
    pub(super) fn heartbeat(
        &mut self,
        incarnation: &Incarnation,
        announcement: &str,
        until: Timestamp,
    ) -> Result<crate::Heartbeat, Fault> {
        self.execute(
            "INSERT INTO lease (incarnation, lease_until, seen, announcement) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (incarnation) DO UPDATE SET lease_until = excluded.lease_until, seen = excluded.seen, \
             announcement = excluded.announcement, stands_down = stands_down AND lease.lease_until > excluded.seen",
            (Column(incarnation), Column(until), Column(self.now), announcement),
        )?;
        Ok(crate::Heartbeat {
            now: self.now,
            head: self.head()?,
        })
    }

    /// Ends a lease.
    pub(super) fn goodbye(&mut self, incarnation: &Incarnation) -> Result<(), Fault> {
        self.execute(
            "UPDATE lease SET lease_until = min(lease_until, ?2) WHERE incarnation = ?1",
            (Column(incarnation), Column(self.now)),
        )?;
        Ok(())
    }
}
