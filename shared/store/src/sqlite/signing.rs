//! What signers do: begin, take over, defer, finish, refuse. Each condition of the law stands in a WHERE clause; why a statement
//! found nothing is asked afterwards.

use std::time::Duration;

use domain::{
    id::{Incarnation, Serial},
    job::{STRIKES, State},
    lane::Lane,
    time::Timestamp,
};
use rusqlite::Row;

use super::{
    column::Column,
    counts::{Sign, Total},
    fault::Fault,
    ledger::Ledger,
    open::{OpenRow, open_row, owner_lost, paused, read_lane, usage_on},
};
use crate::{
    Begin, Begun, Deferral, Ended, Finish, Finished, NotBegun, Outcome, Refusal, RequestRow, StoreError, TakenOver,
};

/// Selects an open row with everything that a signer needs of it.
macro_rules! begun_row {
    ($law:expr) => {
        open_row!(
            ", request.profile, request.profile_version, request.intent, statement.statement, statement.proof, intent.tbs, \
             EXISTS (SELECT 1 FROM joined WHERE joined.job = open.job), open.purpose, request.issuer, request.class, \
             request.account, request.purpose, request.sign_by",
            "LEFT JOIN statement ON statement.id = request.id LEFT JOIN intent ON intent.id = request.id ",
            $law
        )
    };
}

impl Ledger<'_> {
    /// Begins jobs. One that cannot be read is set aside, and the others go on.
    pub(super) fn begin(&mut self, owner: &Incarnation, jobs: &[Serial]) -> Result<Vec<Begin>, StoreError> {
        let begin = |job| match self.row(|ledger| ledger.begin_one(owner, job)) {
            Err(StoreError::Damaged(why) | StoreError::Rejected(why)) => {
                self.row(|ledger| ledger.set_aside(job, &why))?;
                Ok(Begin::Not(*job, NotBegun::Damaged))
            }
            answer => answer,
        };
        jobs.iter().map(begin).collect()
    }

    fn begin_one(&mut self, owner: &Incarnation, job: &Serial) -> Result<Begin, Fault> {
        let now = self.now;
        let found = self.one(
            begun_row!(concat!(
                "open.state = 'queued' AND open.sign_by > ?2 AND ",
                usage_on!(),
                " AND NOT ",
                paused!()
            )),
            (Column(job), Column(now)),
            |row| Found::read(row, now),
        )?;
        let Some(mut found) = found else {
            return match self.begun_before(owner, job)? {
                Some(begun) => Ok(Begin::Begun(Box::new(begun))),
                None => Ok(Begin::Not(*job, self.why_not_begun(job)?)),
            };
        };
        found.next_turn()?;
        self.execute(
            "UPDATE open SET state = 'signing', owner = ?2, turn = ?3, begun_at = ?4 WHERE job = ?1",
            (Column(job), Column(owner), found.begun.turn, Column(now)),
        )?;
        self.counts.moved(&found.begun.lane, State::Queued, State::Signing);
        Ok(Begin::Begun(Box::new(self.with_joined(found)?)))
    }

    /// The job, where it is this owner's already: the answer to its begin was lost.
    fn begun_before(&self, owner: &Incarnation, job: &Serial) -> Result<Option<Begun>, Fault> {
        let now = self.now;
        let found = self.one(
            begun_row!("open.state = 'signing' AND open.owner = ?2"),
            (Column(job), Column(owner)),
            |row| Found::read(row, now),
        )?;
        found.map(|found| self.with_joined(found)).transpose()
    }

    fn why_not_begun(&self, job: &Serial) -> Result<NotBegun, Fault> {
        let open = self.one(
            concat!(
                "SELECT state, sign_by > ?2, ",
                paused!(),
                ", ",
                usage_on!(),
                ", (SELECT issuer.state = 'destroyed' FROM issuer WHERE issuer.id = open.issuer) FROM open WHERE job = ?1"
            ),
            (Column(job), Column(self.now)),
            |row| {
                let (in_time, paused, usage_on): (bool, bool, bool) = (row.get(1)?, row.get(2)?, row.get(3)?);
                let destroyed: Option<bool> = row.get(4)?;
                Ok(Some(match row.get::<_, Column<State>>(0)?.0 {
                    State::Signing => NotBegun::Elsewhere,
                    State::Parked => NotBegun::Parked,
                    _ if !in_time => NotBegun::Late,
                    _ if paused => NotBegun::Paused,
                    _ if destroyed == Some(true) => NotBegun::IssuerDestroyed,
                    _ if destroyed.is_none() => return Ok(None),
                    _ if !usage_on => NotBegun::IssuerDisabled,
                    _ => NotBegun::Elsewhere,
                }))
            },
        )?;
        match open {
            Some(Some(why)) => return Ok(why),
            // Nothing is accepted for an issuer that has no row, and no issuer's row is ever deleted.
            Some(None) => {
                return Err(Fault::damaged(format!(
                    "job {job}: nobody knows the issuer of its open row"
                )));
            }
            None => {}
        }
        Ok(match self.ended(job)? {
            Some(ended) => NotBegun::Ended(ended.outcome.state()),
            None => NotBegun::Unknown,
        })
    }

    /// Adds the statements of those who joined.
    fn with_joined(&self, found: Found) -> Result<Begun, Fault> {
        let Found { mut begun, joined } = found;
        if joined {
            begun.joined = self.all(
                "SELECT statement, proof FROM joined WHERE job = ?1 ORDER BY joiner",
                [Column(&begun.job)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
        }
        Ok(begun)
    }

    /// Parks an open job whose rows cannot be read, and says so.
    pub(super) fn set_aside(&mut self, job: &Serial, why: &str) -> Result<(), Fault> {
        let before = self.one("SELECT state FROM open WHERE job = ?1", [Column(job)], |row| {
            Ok(row.get::<_, Column<State>>(0)?.0)
        });
        let parked = self.one(
            "UPDATE open SET state = 'parked', owner = NULL, begun_at = NULL \
             WHERE job = ?1 AND state <> 'parked' RETURNING issuer, class",
            [Column(job)],
            |row| read_lane(row, 0),
        );
        match (before, parked) {
            (Ok(Some(before)), Ok(Some(lane))) => self.counts.moved(&lane, before, State::Parked),
            (Err(fault @ Fault::Store(_)), _) | (_, Err(fault @ Fault::Store(_))) => return Err(fault),
            // Rows that name no lane were never counted in one.
            _ => {}
        }
        self.note(job, "damaged", why, "store")
    }

    /// Takes over what others have lost.
    pub(super) fn take_over(
        &mut self,
        owner: &Incarnation,
        lanes: &[Lane],
        operation_limit: Duration,
        limit: u32,
    ) -> Result<TakenOver, StoreError> {
        let mut taken = TakenOver::default();
        let mut left = limit;
        for lane in lanes {
            if left == 0 {
                break;
            }
            for job in self.row(|ledger| ledger.lost(lane, operation_limit, left))? {
                match self.row(|ledger| ledger.take_one(owner, &job)) {
                    Ok(Taken::Begun(begun)) => taken.begun.push(*begun),
                    Ok(Taken::Poison) => taken.poisoned.push((job, lane.clone())),
                    Err(StoreError::Damaged(why) | StoreError::Rejected(why)) => {
                        self.row(|ledger| ledger.set_aside(&job, &why))?;
                    }
                    Err(error) => return Err(error),
                }
                left = left.saturating_sub(1);
            }
        }
        Ok(taken)
    }

    /// Jobs of a lane that may be taken over, or have had their last owner.
    fn lost(&self, lane: &Lane, operation_limit: Duration, limit: u32) -> Result<Vec<Serial>, Fault> {
        self.all(
            concat!(
                "SELECT job FROM open WHERE issuer = ?1 AND class = ?2 AND state = 'signing' AND (begun_at <= ?4 OR ",
                owner_lost!("?3"),
                ") AND (strikes >= ?5 OR (sign_by > ?3 AND ",
                usage_on!(),
                ")) ORDER BY begun_at LIMIT ?6"
            ),
            rusqlite::params![
                Column(&lane.issuer),
                Column(&lane.class),
                Column(self.now),
                Column(self.now - operation_limit * 3),
                STRIKES,
                limit
            ],
            |row| Ok(row.get::<_, Column<Serial>>(0)?.0),
        )
    }

    fn take_one(&mut self, owner: &Incarnation, job: &Serial) -> Result<Taken, Fault> {
        let now = self.now;
        let found = self.one(
            begun_row!(concat!(
                "open.state = 'signing' AND open.strikes < ?3 AND open.sign_by > ?2 AND ",
                usage_on!()
            )),
            (Column(job), Column(now), STRIKES),
            |row| Found::read(row, now),
        )?;
        let Some(mut found) = found else {
            return self.poison(owner, job);
        };
        found.next_turn()?;
        found.begun.strikes += 1;
        let (turn, strikes) = (found.begun.turn, found.begun.strikes);
        self.execute(
            "UPDATE open SET owner = ?2, turn = ?3, strikes = ?4, begun_at = ?5 WHERE job = ?1",
            (Column(job), Column(owner), turn, strikes, Column(now)),
        )?;
        let detail = format!("turn {turn}, strike {strikes}");
        self.note(job, "taken_over", &detail, owner.node.as_str())?;
        Ok(Taken::Begun(Box::new(self.with_joined(found)?)))
    }

    /// Parks a job that has lost its owner each time that it ran alone.
    fn poison(&mut self, owner: &Incarnation, job: &Serial) -> Result<Taken, Fault> {
        let open = self.one(
            open_row!("open.state = 'signing' AND open.strikes >= ?2"),
            (Column(job), STRIKES),
            OpenRow::read,
        )?;
        let Some(open) = open else {
            return Err(Fault::damaged(format!("job {job}: it is neither lost nor poison")));
        };
        self.execute(
            "UPDATE open SET state = 'parked', owner = NULL, begun_at = NULL WHERE job = ?1",
            [Column(job)],
        )?;
        self.counts.moved(&open.lane, State::Signing, State::Parked);
        let detail = format!("lost its owner {} times while it ran alone", open.strikes);
        self.note(job, "poisoned", &detail, owner.node.as_str())?;
        Ok(Taken::Poison)
    }

    /// Puts back what this owner had begun.
    pub(super) fn defer(&mut self, owner: &Incarnation, deferrals: &[Deferral]) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for deferral in deferrals {
            let deferred = self.row(|ledger| ledger.defer_one(owner, deferral));
            failed = failed.and(deferred);
        }
        failed
    }

    fn defer_one(&mut self, owner: &Incarnation, deferral: &Deferral) -> Result<(), Fault> {
        let open = self.one(
            open_row!("open.state = 'signing' AND open.turn = ?2 AND open.owner = ?3"),
            (Column(&deferral.job), deferral.turn, Column(owner)),
            OpenRow::read,
        )?;
        if let Some(open) = open {
            self.execute(
                "UPDATE open SET state = 'queued', owner = NULL, begun_at = NULL WHERE job = ?1",
                [Column(&open.job)],
            )?;
            self.counts.moved(&open.lane, State::Signing, State::Queued);
            self.note(&open.job, "deferred", &deferral.reason, owner.node.as_str())?;
        }
        Ok(())
    }

    /// Records signatures, each by itself.
    pub(super) fn finish(&mut self, finishes: &[Finish]) -> Vec<Result<Finished, StoreError>> {
        finishes
            .iter()
            .map(|finish| self.row(|ledger| ledger.finish_one(finish)))
            .collect()
    }

    fn finish_one(&mut self, finish: &Finish) -> Result<Finished, Fault> {
        let open = self.one(
            open_row!(concat!(
                "open.state IN ('signing', 'queued') AND open.turn > 0 AND request.intent = ?2 AND ",
                usage_on!()
            )),
            (Column(&finish.job), Column(&finish.intent)),
            OpenRow::read,
        )?;
        let Some(open) = open else {
            return self.why_not_finished(finish);
        };
        let revoked = open.cancelled;
        if revoked {
            self.counts.total(&open.account, Total::Revoked, Sign::Plus);
            self.execute("UPDATE revocation SET issued = 1 WHERE job = ?1", [Column(&open.job)])?;
        }
        let outcome = Outcome::Issued {
            signature: finish.signature.clone(),
            at: self.now,
        };
        Ok(Finished::Issued {
            ended: self.end(open, outcome, Some(finish.node.as_str()))?,
            first: true,
            revoked,
        })
    }

    fn why_not_finished(&self, finish: &Finish) -> Result<Finished, Fault> {
        let matches = self.one(
            "SELECT intent = ?2 FROM request WHERE job = ?1",
            (Column(&finish.job), Column(&finish.intent)),
            |row| row.get(0),
        )?;
        match matches {
            None => return Ok(Finished::Lost(None)),
            Some(false) => return Ok(Finished::IntentMismatch),
            Some(true) => {}
        }
        if let Some(ended) = self.ended(&finish.job)? {
            return Ok(match ended.outcome {
                Outcome::Issued { .. } => Finished::Issued {
                    revoked: super::read::revocation(self.connection, &finish.job)?.is_some(),
                    ended,
                    first: false,
                },
                outcome => Finished::Lost(Some(outcome.state())),
            });
        }
        let open = self.one(
            "SELECT state, turn FROM open WHERE job = ?1",
            [Column(&finish.job)],
            |row| Ok((row.get::<_, Column<State>>(0)?.0, row.get::<_, u32>(1)?)),
        )?;
        Ok(match open {
            Some((State::Parked, _)) => Finished::Lost(Some(State::Parked)),
            Some((state, 0)) => Finished::Lost(Some(state)),
            Some(_) => Finished::IssuerOff,
            None => return Err(Fault::damaged(format!("job {}: neither open nor ended", finish.job))),
        })
    }

    /// Refuses jobs, each by itself.
    pub(super) fn refuse(
        &mut self,
        owner: &Incarnation,
        refusals: &[Refusal],
    ) -> Vec<Result<Option<Ended>, StoreError>> {
        refusals
            .iter()
            .map(|refusal| self.row(|ledger| ledger.refuse_one(owner, refusal)))
            .collect()
    }

    fn refuse_one(&mut self, owner: &Incarnation, refusal: &Refusal) -> Result<Option<Ended>, Fault> {
        let open = self.one(
            open_row!("(open.state = 'queued' OR (open.state = 'signing' AND open.turn = ?2 AND open.owner = ?3))"),
            (Column(&refusal.job), refusal.turn, Column(owner)),
            OpenRow::read,
        )?;
        let Some(open) = open else {
            return self.ended(&refusal.job);
        };
        let outcome = Outcome::Refused {
            id: refusal.id.clone(),
            detail: refusal.detail.clone(),
            at: self.now,
        };
        self.end(open, outcome, Some(owner.node.as_str())).map(Some)
    }
}

/// What came of a lost job.
enum Taken {
    Begun(Box<Begun>),
    Poison,
}

/// A job to begin.
struct Found {
    begun: Begun,
    /// Whether somebody has joined it.
    joined: bool,
}

impl Found {
    fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let open = OpenRow::read(row)?;
        let first = OpenRow::COLUMNS;
        let begun = Begun {
            job: open.job,
            lane: open.lane,
            account: open.account,
            purpose: row.get::<_, Column<_>>(first + 7)?.0,
            request: RequestRow {
                lane: read_lane(row, first + 8)?,
                account: row.get::<_, Column<_>>(first + 10)?.0,
                profile: row.get::<_, Column<_>>(first)?.0,
                profile_version: row.get(first + 1)?,
                purpose: row.get::<_, Column<_>>(first + 11)?.0,
                sign_by: row.get::<_, Column<_>>(first + 12)?.0,
                not_before: open.not_before,
                not_after: open.not_after,
            },
            turn: open.turn,
            strikes: open.strikes,
            sign_by: open.sign_by,
            remaining: open.sign_by.since(now),
            statement: row.get(first + 3)?,
            proof: row.get(first + 4)?,
            joined: Vec::new(),
            tbs: row.get(first + 5)?,
            intent: row.get::<_, Column<_>>(first + 2)?.0,
        };
        let joined = row.get(first + 6)?;
        Ok(Self { begun, joined })
    }

    /// The turn that this begin is.
    fn next_turn(&mut self) -> Result<(), Fault> {
        let turn = self.begun.turn.checked_add(1);
        self.begun.turn =
            turn.ok_or_else(|| Fault::damaged(format!("job {}: its turns are used up", self.begun.job)))?;
        Ok(())
    }
}
