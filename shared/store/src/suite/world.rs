//! A store with two issuers, a clock that is set by hand, and short ways of doing what the cases do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{
    bytes::{Blob, Digest},
    id::{Incarnation, IssuerId, Serial},
    issuer::{IssuerState, Purpose, Role, Usage},
    job::State,
    lane::Lane,
    registry::Revision,
    time::{Clock, Timestamp},
};

use super::Harness;
use crate::{
    AcceptError, Accepted, Announcement, Appended, Begin, Begun, Ended, Finish, Finished, IssuerRow, Job, LaneStatus,
    Limits, NewJob, NotBegun, Refusal, Signed, Store,
};

/// Where the clock stands when a case begins.
pub(crate) const START: i64 = 1_800_000_000;

/// A clock that stands still until it is told otherwise.
#[derive(Debug)]
pub(crate) struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A store and what belongs to it.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<ManualClock>,
    serials: AtomicU64,
}

impl World {
    /// Opens a store in which the issuers `alpha` and `beta` are enabled.
    pub(crate) async fn new(harness: &impl Harness) -> Self {
        let clock = Arc::new(ManualClock(AtomicI64::new(START * 1000)));
        let store = harness.open(clock.clone()).await;
        let world = Self {
            store,
            clock,
            serials: AtomicU64::new(0),
        };
        world.put_issuers(&[issuer("alpha"), issuer("beta")]).await;
        world
    }

    /// Lets go of the store and opens it again.
    pub(crate) async fn reopen(self, harness: &impl Harness) -> Self {
        let closed = self.close();
        let store = harness.open(closed.clock.clone()).await;
        closed.over(store)
    }

    /// Lets go of the store.
    pub(crate) fn close(self) -> Closed {
        let Self { clock, serials, .. } = self;
        Closed { clock, serials }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap();
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// The next serial: time from the clock, a running number for entropy.
    pub(crate) fn serial(&self) -> Serial {
        let number = self.serials.fetch_add(1, Ordering::SeqCst) + 1;
        let mut entropy = [0; 10];
        entropy[2..].copy_from_slice(&number.to_be_bytes());
        Serial::new(self.now(), entropy)
    }

    /// A new job of `alice` in `alpha.interactive`, unlike any other.
    pub(crate) fn job(&self) -> NewJob {
        let job = self.serial();
        NewJob {
            job,
            lane: lane("alpha.interactive"),
            account: "alice".parse().unwrap(),
            profile: "tls".parse().unwrap(),
            profile_version: 3,
            purpose: Purpose::EndEntity,
            sign_by: self.now() + Duration::from_hours(1),
            not_before: self.now().as_secs(),
            not_after: self.now().as_secs() + 90 * 86_400,
            statement: format!("statement of {job}").into_bytes(),
            proof: format!("proof of {job}").into_bytes(),
            tbs: format!("to be signed: {job}").into_bytes(),
            intent: digest("intent", job),
            public_key: digest("key", job),
            unique_key: false,
            repeat: digest("repeat", job),
            join_within: Duration::ZERO,
            idempotency: None,
            waiter: None,
            limits: Limits {
                quota: 1_000_000,
                jobs_in_flight: 1_000_000,
                lane_depth: 1_000_000,
                lane_share: 1_000_000,
            },
        }
    }

    pub(crate) async fn accept(&self, job: &NewJob) -> Result<Accepted, AcceptError> {
        let answers = self.store.accept(vec![job.clone()]).await;
        answers.into_iter().next().unwrap()
    }

    /// Accepts a new job and gives it back.
    pub(crate) async fn accepted(&self) -> NewJob {
        let job = self.job();
        self.accept(&job).await.unwrap();
        job
    }

    pub(crate) async fn try_begin(&self, owner: &Incarnation, job: Serial) -> Result<Begun, NotBegun> {
        let answers = self.store.begin(owner, &[job]).await.unwrap();
        match answers.into_iter().next().unwrap() {
            Begin::Begun(begun) => {
                assert_eq!(begun.job, job);
                Ok(*begun)
            }
            Begin::Not(other, why) => {
                assert_eq!(other, job);
                Err(why)
            }
        }
    }

    pub(crate) async fn begin(&self, owner: &Incarnation, job: Serial) -> Begun {
        self.try_begin(owner, job).await.unwrap()
    }

    pub(crate) async fn finish(&self, owner: &Incarnation, finish: Finish) -> Finished {
        let answers = self.store.finish(owner, vec![finish]).await;
        answers.into_iter().next().unwrap().unwrap()
    }

    /// Accepts, begins and finishes a job.
    pub(crate) async fn issue(&self, job: &NewJob) -> Finished {
        let owner = node("signer");
        assert_eq!(self.accept(job).await.unwrap().job, job.job);
        let begun = self.begin(&owner, job.job).await;
        let finished = self.finish(&owner, signature(job, begun.turn)).await;
        assert!(matches!(finished, Finished::Issued { first: true, .. }), "{finished:?}");
        finished
    }

    pub(crate) async fn refuse(&self, owner: &Incarnation, job: Serial, turn: Option<u32>) -> Option<Ended> {
        let refusal = Refusal {
            job,
            turn,
            id: "policy_violation".into(),
            detail: "san: is required".into(),
        };
        let answers = self.store.refuse(owner, vec![refusal]).await;
        answers.into_iter().next().unwrap().unwrap()
    }

    /// What a signer says of itself.
    pub(crate) fn announcement(&self, incarnation: &Incarnation) -> Announcement {
        Announcement {
            incarnation: incarnation.clone(),
            role: Role::Signer,
            version: "0".into(),
            revision: 1,
            issuers: vec!["alpha".parse().unwrap()],
            breakers: vec![("beta".parse().unwrap(), "open".into())],
            in_flight: 7,
            signed: Signed {
                over_ms: 500,
                lanes: vec![(lane("alpha.interactive"), 40)],
            },
            tokens_out: vec!["hsm".parse().unwrap()],
            backs_off: false,
            stands_down: true,
            started_at: Some(self.now()),
            clock_offset_ms: Some(-3),
        }
    }

    /// Says that a process lives, for so long.
    pub(crate) async fn live(&self, incarnation: &Incarnation, lease: Duration) {
        let announcement = self.announcement(incarnation);
        let heartbeat = self.store.heartbeat(&announcement, lease).await.unwrap();
        assert_eq!(heartbeat.now, self.now());
    }

    pub(crate) async fn get(&self, job: Serial) -> Job {
        self.store.job(job).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, job: Serial) -> State {
        self.get(job).await.state
    }

    /// A lane's row, empty if it has none.
    pub(crate) async fn lane(&self, name: &str) -> LaneStatus {
        let lane = lane(name);
        let lanes = self.store.lanes().await.unwrap();
        lanes
            .into_iter()
            .find(|status| status.lane == lane)
            .unwrap_or(LaneStatus {
                lane,
                switches: crate::LaneSwitches::default(),
                queued: 0,
                signing: 0,
                parked: 0,
                oldest: None,
            })
    }

    /// The revision that would follow the head.
    pub(crate) async fn next_revision(&self) -> Revision {
        let head = self.store.head().await.unwrap().revision;
        let previous = if head == 0 {
            Digest([0; 32])
        } else {
            self.store.revisions(head - 1, 1).await.unwrap()[0].hash
        };
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&(head + 1).to_be_bytes());
        Revision {
            number: head + 1,
            previous,
            body: Blob(format!("[{head}]").into_bytes()),
            hash: Digest(hash),
            node: "control".parse().unwrap(),
            signature: Blob(vec![1, 2, 3]),
            at: self.now(),
        }
    }

    /// Appends a revision with these issuers.
    pub(crate) async fn put_issuers(&self, issuers: &[IssuerRow]) {
        let revision = self.next_revision().await;
        let appended = self.store.append_revision(&revision, issuers).await.unwrap();
        assert_eq!(appended, Appended::Done);
    }

    /// Takes `issue` from an issuer.
    pub(crate) async fn disable(&self, name: &str) {
        let mut row = issuer(name);
        row.state = IssuerState::Disabled;
        row.usage.issue = false;
        self.put_issuers(&[row]).await;
    }
}

/// A world without its store.
pub(crate) struct Closed {
    pub(crate) clock: Arc<ManualClock>,
    serials: AtomicU64,
}

impl Closed {
    /// The world over this store, which was opened with the world's clock.
    pub(crate) fn over(self, store: Arc<dyn Store>) -> World {
        let Self { clock, serials } = self;
        World { store, clock, serials }
    }
}

/// An issuer that may do everything for a year.
pub(crate) fn issuer(name: &str) -> IssuerRow {
    IssuerRow {
        id: name.parse::<IssuerId>().unwrap(),
        state: IssuerState::Enabled,
        usage: Usage {
            issue: true,
            crl: true,
            ocsp: true,
        },
        not_after: START + 365 * 86_400,
    }
}

/// A lane by name.
pub(crate) fn lane(name: &str) -> Lane {
    name.parse().unwrap()
}

/// An incarnation of a node.
pub(crate) fn node(name: &str) -> Incarnation {
    Incarnation {
        node: name.parse().unwrap(),
        run: 0x00c0_ffee,
    }
}

/// Thirty-two bytes that stand for something of a job.
pub(crate) fn digest(what: &str, job: Serial) -> Digest {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(what.bytes().rev()) {
        *to = from;
    }
    bytes[16..].copy_from_slice(job.as_bytes());
    Digest(bytes)
}

/// A signature over the job's intent.
pub(crate) fn signature(job: &NewJob, turn: u32) -> Finish {
    Finish {
        job: job.job,
        intent: job.intent,
        signature: format!("signature of turn {turn} over {}", job.job).into_bytes(),
        node: "signer".parse().unwrap(),
        turn,
    }
}
