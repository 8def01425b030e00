//! What the benches of the ledger share: jobs of the usual sizes, an empty ledger on PostgreSQL, CPU times.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use domain::{
    bytes::{Blob, Digest},
    id::{Incarnation, Serial},
    issuer::{IssuerState, Purpose, Usage},
    registry::Revision,
    time::{Clock, Timestamp},
};
use store::{Begin, Finish, Finished, IssuerRow, Limits, NewJob, Store, postgres};
use tokio::runtime::Runtime;

/// This machine's time.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.expect("the clock is past 1970").as_millis();
        Timestamp::from_millis(i64::try_from(millis).expect("the clock is before the year 292 million"))
    }
}

/// A ledger and a supply of jobs.
pub struct Bench {
    store: Arc<dyn Store>,
    owner: Incarnation,
    made: u64,
}

impl Bench {
    /// On an empty ledger: the first revision is written, so that there is an issuer.
    pub async fn new(store: Arc<dyn Store>) -> Self {
        let revision = Revision {
            number: 1,
            previous: Digest([0; 32]),
            body: Blob(b"[]".to_vec()),
            hash: Digest([1; 32]),
            node: "control".parse().expect("a name"),
            signature: Blob(vec![0; 64]),
            at: SystemClock.now(),
        };
        let issuer = IssuerRow {
            id: "demo-p256".parse().expect("a name"),
            state: IssuerState::Enabled,
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
            not_after: i64::MAX,
        };
        store
            .append_revision(&revision, &[issuer])
            .await
            .expect("the first revision is appended");
        let owner = Incarnation {
            node: "signer".parse().expect("a name"),
            run: 1,
        };
        Self { store, owner, made: 0 }
    }

    /// A new job with bodies of the usual sizes.
    fn job(&mut self, lane: &str) -> NewJob {
        self.made += 1;
        let now = SystemClock.now();
        let random = scramble(self.made);
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&random.to_be_bytes());
        let digest = |what: u8| {
            let mut bytes = [what; 32];
            bytes[..8].copy_from_slice(&random.to_be_bytes());
            Digest(bytes)
        };
        NewJob {
            job: Serial::new(now, entropy),
            lane: lane.parse().expect("a lane"),
            account: "demo-p256".parse().expect("a name"),
            profile: "demo-p256".parse().expect("a name"),
            profile_version: 1,
            purpose: Purpose::EndEntity,
            sign_by: now + Duration::from_hours(40),
            not_before: now.as_secs(),
            not_after: now.as_secs() + 90 * 86_400,
            statement: vec![b's'; 1_200],
            proof: vec![b'p'; 500],
            tbs: vec![b't'; 700],
            intent: digest(1),
            public_key: digest(2),
            unique_key: false,
            repeat: digest(3),
            join_within: Duration::ZERO,
            idempotency: None,
            waiter: Some(Incarnation {
                node: "front".parse().expect("a name"),
                run: 1,
            }),
            limits: Limits {
                quota: u64::MAX,
                jobs_in_flight: u64::MAX,
                lane_depth: u64::MAX,
                lane_share: u64::MAX,
            },
        }
    }

    /// Accepts, begins and finishes so many jobs, one commit each.
    pub async fn issue(&mut self, number: usize) {
        let jobs = self.jobs("demo-p256.interactive", number);
        let (serials, finishes) = self.asked(&jobs);
        self.accept(jobs).await;
        self.begin(&serials).await;
        self.finish(finishes).await;
    }

    /// So many new jobs of a lane.
    pub fn jobs(&mut self, lane: &str, number: usize) -> Vec<NewJob> {
        (0..number).map(|_| self.job(lane)).collect()
    }

    /// What a signer asks for with jobs: which to begin, and then how to finish them.
    pub fn asked(&self, jobs: &[NewJob]) -> (Vec<Serial>, Vec<Finish>) {
        let finish = |job: &NewJob| Finish {
            job: job.job,
            intent: job.intent,
            signature: vec![7; 72],
            node: self.owner.node.clone(),
            turn: 1,
        };
        jobs.iter().map(|job| (job.job, finish(job))).unzip()
    }

    /// Accepts jobs: one commit.
    pub async fn accept(&self, jobs: Vec<NewJob>) {
        for accepted in self.store.accept(jobs).await {
            accepted.expect("a job is accepted");
        }
    }

    /// Begins jobs: one commit.
    pub async fn begin(&self, jobs: &[Serial]) {
        let begun = self.store.begin(&self.owner, jobs).await;
        let begun = begun.expect("the ledger begins");
        assert!(begun.iter().all(|begin| matches!(begin, Begin::Begun(_))));
    }

    /// Finishes jobs: one commit.
    pub async fn finish(&self, finishes: Vec<Finish>) {
        for finished in self.store.finish(&self.owner, finishes).await {
            assert!(matches!(finished, Ok(Finished::Issued { first: true, .. })));
        }
    }
}

/// Numbers in no order (the finaliser of `splitmix64`).
fn scramble(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// CPU time of every living thread of this process.
pub fn cpu_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux lists a process's threads");
    let run = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split_ascii_whitespace()
            .next()
            .and_then(|nanos| nanos.parse().ok())
            .unwrap_or(0)
    };
    Duration::from_nanos(tasks.filter_map(Result::ok).map(run).sum())
}

/// A private server, and an empty ledger on it. The server stops when it is dropped.
pub fn postgres(runtime: &Runtime) -> (engines::Postgres, postgres::Postgres) {
    let settings = [("shared_buffers", "1GB"), ("max_wal_size", "4GB")];
    let server = engines::Postgres::start_with(&settings).expect("PostgreSQL starts");
    server.create_database("ledger").expect("a database is made");
    let mut options = postgres::Options::new("127.0.0.1", engines::postgres::USER, "ledger");
    options.port = server.port();
    options.password_file = Some(server.password_file());
    options.commit_gap = Duration::ZERO;
    let store = runtime
        .block_on(postgres::Postgres::open(options))
        .expect("an empty database opens");
    (server, store)
}

/// The number in a variable of the environment; 0 if it is not set.
pub fn number(variable: &str) -> usize {
    std::env::var(variable).map_or(0, |text| text.parse().expect("a number of jobs"))
}
