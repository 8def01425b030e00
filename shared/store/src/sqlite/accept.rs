//! Accepting: an idempotency key's job, the job in flight that the request joins, or a new job.

use domain::{
    id::Serial,
    issuer::{IssuerState, Purpose},
    job::{Position, State},
    lane::Lane,
    time::Timestamp,
};

use super::{
    column::Column,
    counts::Repeat,
    fault::Fault,
    ledger::Ledger,
    open::{OpenRow, open_row, read_lane},
};
use crate::{
    AcceptError, Accepted, How, Idempotency, NewJob, StoreError,
    rules::{JOINERS, SIGN_AFTER_NOT_BEFORE, Waiters},
};

impl Ledger<'_> {
    /// Accepts jobs, each by itself.
    pub(super) fn accept(&mut self, jobs: &[NewJob]) -> Vec<Result<Accepted, AcceptError>> {
        jobs.iter()
            .map(|job| {
                self.row(|ledger| ledger.accept_one(job))
                    .map_err(AcceptError::from)
                    .flatten()
            })
            .collect()
    }

    fn accept_one(&mut self, job: &NewJob) -> Result<Result<Accepted, AcceptError>, Fault> {
        let head = self.head()?;
        let answer = |job, how, state| Ok(Ok(Accepted { job, how, state, head }));
        if let Some(idempotency) = &job.idempotency {
            match self.remembered(idempotency)? {
                Remembered::Nothing => {}
                Remembered::Conflict => return Ok(Err(AcceptError::IdempotencyConflict)),
                Remembered::Job(earlier, state) => {
                    if state.is_open() {
                        self.join(&earlier, job)?;
                    }
                    return answer(earlier, How::Repeated, state);
                }
            }
        }
        if let Err(refused) = self.standing(job)? {
            return Ok(Err(refused));
        }
        if let Some((earlier, state)) = self.joinable(job)? {
            if state.is_open() {
                self.join(&earlier, job)?;
            }
            self.remember(job, &earlier)?;
            return answer(earlier, How::Joined, state);
        }
        match self.room(job)? {
            Err(refused) => Ok(Err(refused)),
            Ok(state) => match self.insert(job, state)? {
                Inserted::Done => answer(job.job, How::New, state),
                Inserted::SerialTaken => match self.accepted_before(job)? {
                    Some(state) => answer(job.job, How::Repeated, state),
                    None => Ok(Err(AcceptError::SerialTaken)),
                },
            },
        }
    }

    /// What an idempotency key stands for.
    fn remembered(&self, idempotency: &Idempotency) -> Result<Remembered, Fault> {
        let found = self.one(
            "SELECT request = ?2, job FROM idempotency WHERE key = ?1 AND until > ?3",
            (Column(&idempotency.key), Column(&idempotency.request), Column(self.now)),
            |row| Ok((row.get(0)?, row.get::<_, Column<Serial>>(1)?.0)),
        )?;
        Ok(match found {
            None => Remembered::Nothing,
            Some((false, _)) => Remembered::Conflict,
            Some((true, job)) => match self.answerable(&job)? {
                Some(state) => Remembered::Job(job, state),
                None => Remembered::Nothing,
            },
        })
    }

    fn remember(&self, job: &NewJob, answer: &Serial) -> Result<(), Fault> {
        if let Some(idempotency) = &job.idempotency {
            self.execute(
                "INSERT INTO idempotency (key, request, job, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) \
                 DO UPDATE SET request = excluded.request, job = excluded.job, until = excluded.until",
                (
                    Column(&idempotency.key),
                    Column(&idempotency.request),
                    Column(answer),
                    Column(self.now + idempotency.keep),
                ),
            )?;
        }
        Ok(())
    }

    /// Whether the issuer issues for this purpose now.
    fn standing(&mut self, job: &NewJob) -> Result<Result<(), AcceptError>, Fault> {
        let now = self.now.as_secs();
        let Some(issuer) = self.issuer(&job.lane.issuer)? else {
            return Ok(Err(AcceptError::IssuerUnknown));
        };
        let usage = match job.purpose {
            Purpose::EndEntity | Purpose::Tsa => issuer.usage.issue,
            Purpose::OcspSigner => issuer.usage.ocsp,
        };
        Ok(if issuer.state == IssuerState::Destroyed {
            Err(AcceptError::IssuerDestroyed)
        } else if now > issuer.not_after {
            Err(AcceptError::IssuerExpired)
        } else if usage {
            Ok(())
        } else {
            Err(AcceptError::IssuerDisabled)
        })
    }

    /// The job of the same account and lane that answers the same request, if there is one.
    fn joinable(&self, job: &NewJob) -> Result<Option<(Serial, State)>, Fault> {
        if let Some(earlier) = self.counts.repeat(Repeat::new(&job.account, &job.repeat)) {
            // The memory knows a part of what makes requests the same; the row knows all of it.
            let lane = self.one(
                "SELECT issuer, class FROM open WHERE job = ?1 AND account = ?2 AND repeat = ?3",
                (Column(&earlier), Column(&job.account), Column(&job.repeat)),
                |row| read_lane(row, 0),
            )?;
            return self.if_answerable(lane.map(|lane| (earlier, lane)), job);
        }
        if job.join_within.is_zero() {
            return Ok(None);
        }
        let issued = self.one(
            "SELECT request.job, request.issuer, request.class FROM repeat JOIN request ON request.job = repeat.job \
             WHERE repeat.account = ?1 AND repeat.repeat = ?2 AND repeat.until > ?3 AND request.account = ?1",
            (Column(&job.account), Column(&job.repeat), Column(self.now)),
            |row| Ok((row.get::<_, Column<Serial>>(0)?.0, read_lane(row, 1)?)),
        )?;
        self.if_answerable(issued, job)
    }

    fn if_answerable(&self, earlier: Option<(Serial, Lane)>, job: &NewJob) -> Result<Option<(Serial, State)>, Fault> {
        match earlier {
            Some((earlier, lane)) if lane == job.lane => Ok(self.answerable(&earlier)?.map(|state| (earlier, state))),
            _ => Ok(None),
        }
    }

    /// Adds a request to an open job: its front end to the waiters, and, if it is the same request, its statement to the first and
    /// its `sign_by` where that is later.
    fn join(&mut self, earlier: &Serial, job: &NewJob) -> Result<(), Fault> {
        let found = self.one(open_row!("TRUE"), [Column(earlier)], OpenRow::read)?;
        let Some(mut open) = found else {
            return Err(Fault::damaged(format!("job {earlier}: its open row is gone")));
        };
        let latest = Timestamp::from_secs(open.not_before) + SIGN_AFTER_NOT_BEFORE;
        let same = open.repeat == job.repeat && open.account == job.account && open.lane == job.lane;
        let mut changed = open.waiters.add(job.waiter.as_ref());
        if same && job.job != open.job {
            self.keep_statement(earlier, job)?;
            if job.sign_by > open.sign_by && job.sign_by <= latest {
                open.sign_by = job.sign_by;
                changed = true;
            }
        }
        if changed {
            self.execute(
                "UPDATE open SET waiters = ?2, sign_by = ?3 WHERE job = ?1",
                (Column(earlier), Column(&open.waiters), Column(open.sign_by)),
            )?;
        }
        Ok(())
    }

    fn keep_statement(&self, earlier: &Serial, job: &NewJob) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO joined (job, joiner, sign_by, statement, proof) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (job, joiner) DO NOTHING",
            (
                Column(earlier),
                Column(&job.job),
                Column(job.sign_by),
                &job.statement,
                &job.proof,
            ),
        )?;
        self.execute(
            "DELETE FROM joined WHERE job = ?1 AND joiner NOT IN \
             (SELECT joiner FROM joined WHERE job = ?1 ORDER BY sign_by DESC, joiner DESC LIMIT ?2)",
            (Column(earlier), JOINERS),
        )?;
        Ok(())
    }

    /// Whether there is room for a new job, and the state in which its lane takes it.
    fn room(&mut self, job: &NewJob) -> Result<Result<State, AcceptError>, Fault> {
        let switches = self.switches(&job.lane)?;
        let NewJob {
            lane, account, limits, ..
        } = job;
        let refused = if switches.draining {
            Some(AcceptError::LaneDraining)
        } else if self.counts.share(lane, account) >= limits.lane_share {
            Some(AcceptError::LaneShareFull)
        } else if self.counts.depth(lane).total() >= limits.lane_depth {
            Some(AcceptError::LaneFull)
        } else if self.counts.in_flight(account) >= limits.jobs_in_flight {
            Some(AcceptError::TooManyInFlight)
        } else if self.counts.used(account) >= limits.quota {
            Some(AcceptError::QuotaExceeded)
        } else if job.unique_key && self.key_is_used(job)? {
            Some(AcceptError::KeyReused)
        } else {
            None
        };
        Ok(refused.map_or(Ok(Position::accepted(switches.diverted).state), Err))
    }

    /// Whether the serial is taken by this very job: a front end asks again after an outcome that it never learnt.
    fn accepted_before(&self, job: &NewJob) -> Result<Option<State>, Fault> {
        let same = self.one(
            "SELECT 1 FROM request WHERE job = ?1 AND account = ?2 AND intent = ?3",
            (Column(&job.job), Column(&job.account), Column(&job.intent)),
            |_| Ok(()),
        )?;
        match same {
            Some(()) => self.answerable(&job.job),
            None => Ok(None),
        }
    }

    fn key_is_used(&self, job: &NewJob) -> Result<bool, Fault> {
        let found = self.one(
            "SELECT 1 FROM key_use WHERE public_key = ?1",
            [Column(&job.public_key)],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    fn insert(&mut self, job: &NewJob, state: State) -> Result<Inserted, Fault> {
        let id = self.next_id();
        let Lane { issuer, class } = &job.lane;
        let inserted = self.execute(
            "INSERT INTO request (job, id, issuer, class, account, profile, profile_version, purpose, accepted_at, \
             sign_by, not_before, not_after, intent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
             ON CONFLICT (job) DO NOTHING",
            rusqlite::params![
                Column(&job.job),
                id,
                Column(issuer),
                Column(class),
                Column(&job.account),
                Column(&job.profile),
                job.profile_version,
                Column(&job.purpose),
                Column(self.now),
                Column(job.sign_by),
                job.not_before,
                job.not_after,
                Column(&job.intent)
            ],
        )?;
        if inserted == 0 {
            return Ok(Inserted::SerialTaken);
        }
        self.execute(
            "INSERT INTO statement (id, statement, proof) VALUES (?1, ?2, ?3)",
            (id, &job.statement, &job.proof),
        )?;
        self.execute("INSERT INTO intent (id, tbs) VALUES (?1, ?2)", (id, &job.tbs))?;
        let mut waiters = Waiters::default();
        waiters.add(job.waiter.as_ref());
        let unique_key = job.unique_key.then_some(Column(&job.public_key));
        self.execute(
            "INSERT INTO open (job, issuer, class, account, purpose, state, accepted_at, sign_by, waiters, repeat, \
             join_within, unique_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            rusqlite::params![
                Column(&job.job),
                Column(issuer),
                Column(class),
                Column(&job.account),
                Column(&job.purpose),
                Column(&state),
                Column(self.now),
                Column(job.sign_by),
                Column(&waiters),
                Column(&job.repeat),
                i64::try_from(job.join_within.as_millis()).unwrap_or(i64::MAX),
                unique_key
            ],
        )?;
        if job.unique_key {
            self.execute(
                "INSERT INTO key_use (public_key, job) VALUES (?1, ?2)",
                (Column(&job.public_key), Column(&job.job)),
            )?;
        }
        self.remember(job, &job.job)?;
        let repeat = Repeat::new(&job.account, &job.repeat);
        self.counts.opened(&job.lane, &job.account, state, repeat, job.job);
        Ok(Inserted::Done)
    }
}

/// What an idempotency key stands for.
enum Remembered {
    /// Nothing, or a job that is not answered with any more.
    Nothing,
    /// Another request.
    Conflict,
    /// This job, in this state.
    Job(Serial, State),
}

enum Inserted {
    Done,
    SerialTaken,
}

/// A call that did not reach the ledger: every job of it hears the same.
pub(super) fn none_accepted(jobs: usize, error: &StoreError) -> Vec<Result<Accepted, AcceptError>> {
    (0..jobs).map(|_| Err(AcceptError::Store(error.clone()))).collect()
}
