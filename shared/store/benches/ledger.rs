//! What a job costs in the ledger: accept, begin and finish, in batches, on an empty ledger or on one with rows.
//!
//! On SQLite, and on a private PostgreSQL server. `LEDGER_ROWS=1000000 cargo bench -p store` fills the ledger first;
//! `LEDGER_OPEN=1000000` leaves so many jobs of another lane open; a filter (`cargo bench -p store -- postgres`) chooses the engine.
//! The groups `cpu` are CPU times per batch, which say what a job costs whatever else the machine does: of the whole process, and of
//! the server's processes. The groups `wall` are what a caller waits.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use store::{Store, sqlite};
use tokio::runtime::Runtime;

use self::support::{Bench, SystemClock, cpu_time, number};

const BATCHES: [usize; 3] = [1, 16, 64];

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
    let (server, store) = support::postgres(&runtime);
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
        let jobs = bench.jobs("demo-p256.bulk", 500);
        runtime.block_on(bench.accept(jobs));
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
