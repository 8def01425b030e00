//! What a job costs in the ledger: accept, begin and finish, in batches, on an empty ledger or on one with rows.
//!
//! On SQLite, and on a private PostgreSQL server. `LEDGER_ROWS=1000000 cargo bench -p store` fills the ledger first;
//! `LEDGER_OPEN=1000000` leaves so many jobs of another lane open; a filter (`cargo bench -p store -- postgres`) chooses the engine.
//! The groups `cpu` are CPU times per batch, which say what a job costs whatever else the machine does: of the whole process, and of
//! the server's processes. The groups `wall` are what a caller waits.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use domain::{
    bytes::{Blob, Digest},
    id::{Incarnation, Serial},
    issuer::{IssuerState, Purpose, Usage},
    registry::Revision,
    time::{Clock, Timestamp},
};
use store::{Begin, Finish, Finished, IssuerRow, Limits, NewJob, Store, postgres, sqlite};
use tokio::runtime::Runtime;

const BATCHES: [usize; 3] = [1, 16, 64];

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.expect("the clock is past 1970").as_millis();
        Timestamp::from_millis(i64::try_from(millis).expect("the clock is before the year 292 million"))
    }
}

/// A ledger and a supply of jobs.
struct Bench {
    store: Arc<dyn Store>,
    owner: Incarnation,
    jobs: u64,
}

impl Bench {
    async fn new(store: Arc<dyn Store>) -> Self {
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
        Self { store, owner, jobs: 0 }
    }

    /// A new job with bodies of the usual sizes.
    fn job(&mut self, lane: &str) -> NewJob {
        self.jobs += 1;
        let now = SystemClock.now();
        let random = scramble(self.jobs);
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
    async fn issue(&mut self, number: usize) {
        let jobs: Vec<NewJob> = (0..number).map(|_| self.job("demo-p256.interactive")).collect();
        let serials: Vec<Serial> = jobs.iter().map(|job| job.job).collect();
        let finishes = jobs.iter().map(|job| Finish {
            job: job.job,
            intent: job.intent,
            signature: vec![7; 72],
            node: self.owner.node.clone(),
            turn: 1,
        });
        let finishes: Vec<Finish> = finishes.collect();
        for accepted in self.store.accept(jobs).await {
            accepted.expect("a job is accepted");
        }
        let begun = self
            .store
            .begin(&self.owner, &serials)
            .await
            .expect("the ledger begins");
        assert!(begun.iter().all(|begin| matches!(begin, Begin::Begun(_))));
        for finished in self.store.finish(&self.owner, finishes).await {
            assert!(matches!(finished, Ok(Finished::Issued { first: true, .. })));
        }
    }

    /// Leaves so many jobs open in another lane.
    async fn pile_up(&mut self, number: usize) {
        let jobs: Vec<NewJob> = (0..number).map(|_| self.job("demo-p256.bulk")).collect();
        for accepted in self.store.accept(jobs).await {
            accepted.expect("a job is accepted");
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
fn cpu_time() -> Duration {
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

fn number(variable: &str) -> usize {
    std::env::var(variable).map_or(0, |text| text.parse().expect("a number of jobs"))
}

fn on_sqlite(criterion: &mut Criterion) {
    if !is_chosen("sqlite") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime starts");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = sqlite::Options::new(Arc::new(SystemClock));
    let store = sqlite::Sqlite::open(directory.path(), options).expect("an empty directory opens");
    measure(
        criterion,
        &runtime,
        Arc::new(store),
        &[("sqlite, cpu", &cpu_time), ("sqlite, wall", &wall_time)],
    );
}

fn on_postgres(criterion: &mut Criterion) {
    if !is_chosen("postgres") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime starts");
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
    let server_time = || server.cpu_time().expect("the server runs");
    measure(
        criterion,
        &runtime,
        Arc::new(store),
        &[
            ("postgres, cpu of the server", &server_time),
            ("postgres, cpu of the client", &cpu_time),
            ("postgres, wall", &wall_time),
        ],
    );
}

/// Whether the filter of the command line, if there is one, leaves this engine in.
fn is_chosen(engine: &str) -> bool {
    let names = ["sqlite", "postgres"];
    let mut filters = std::env::args().filter(|argument| names.iter().any(|name| argument.starts_with(name)));
    filters.next().is_none_or(|chosen| chosen.starts_with(engine))
}

/// A name, and what it reads: a time that goes on.
type Measure<'m> = (&'static str, &'m dyn Fn() -> Duration);

fn measure(criterion: &mut Criterion, runtime: &Runtime, store: Arc<dyn Store>, measures: &[Measure<'_>]) {
    let mut bench = runtime.block_on(Bench::new(store));
    let (rows, open) = (number("LEDGER_ROWS"), number("LEDGER_OPEN"));
    for _ in 0..rows.div_ceil(500) {
        runtime.block_on(bench.issue(500));
    }
    for _ in 0..open.div_ceil(500) {
        runtime.block_on(bench.pile_up(500));
    }
    for (name, measure) in measures {
        let mut group = criterion.benchmark_group(format!("{name}, {rows} rows, {open} open"));
        group.sample_size(20).measurement_time(Duration::from_secs(6));
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                bencher.iter_custom(|times| {
                    let before = measure();
                    for _ in 0..times {
                        runtime.block_on(bench.issue(batch));
                    }
                    measure().saturating_sub(before)
                });
            });
        }
    }
}

/// Time since the first call.
fn wall_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

criterion_group!(benches, on_sqlite, on_postgres);
criterion_main!(benches);
