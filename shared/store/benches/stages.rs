//! What accept, begin and finish cost PostgreSQL, each by itself: CPU time of the server's processes and of this one, for a job, by how
//! many jobs share a commit. A table in a minute, so that a change of one statement can be judged at once.
//!
//! `cargo bench -p store --bench stages`; `LEDGER_ROWS=1000000` fills the ledger first. The server's figure does not depend on how this
//! program is compiled.

mod support;

use std::{sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use self::support::{Bench, cpu_time, number, postgres};

const BATCHES: [usize; 6] = [1, 4, 8, 16, 64, 256];
/// Jobs of each size of batch, and the most commits: what is measured takes a second or two.
const JOBS: usize = 6_000;
const COMMITS: usize = 1_500;
/// Commits of one kind in a row.
const ROUND: usize = 20;

fn main() {
    let runtime = Runtime::new().expect("a runtime starts");
    let (server, store) = postgres(&runtime);
    let server_time = || server.cpu_time().expect("the server runs");
    let mut bench = runtime.block_on(Bench::new(Arc::new(store)));
    for _ in 0..number("LEDGER_ROWS").max(2_000).div_ceil(500) {
        runtime.block_on(bench.issue(500));
    }
    println!("CPU us for a job, server + client");
    println!(
        "{:>6} {:>12} {:>12} {:>12} {:>12}",
        "batch", "accept", "begin", "finish", "all"
    );
    let only = number("LEDGER_BATCH");
    for batch in BATCHES.into_iter().filter(|&batch| only == 0 || batch == only) {
        let mut costs = [[Duration::ZERO; 2]; 3];
        let rounds = (JOBS / batch).min(COMMITS).div_ceil(ROUND);
        for _ in 0..rounds {
            let batches: Vec<_> = (0..ROUND).map(|_| bench.jobs("demo-p256.interactive", batch)).collect();
            let (serials, finishes): (Vec<_>, Vec<_>) = batches.iter().map(|jobs| bench.asked(jobs)).unzip();
            let clocks = || {
                // The server's processes finish what follows an answer, and are counted once they wait.
                std::thread::sleep(Duration::from_millis(3));
                [server_time(), cpu_time()]
            };
            let mut read = vec![clocks()];
            runtime.block_on(async {
                for jobs in batches {
                    bench.accept(jobs).await;
                }
            });
            read.push(clocks());
            runtime.block_on(async {
                for jobs in serials {
                    bench.begin(&jobs).await;
                }
            });
            read.push(clocks());
            runtime.block_on(async {
                for finishes in finishes {
                    bench.finish(finishes).await;
                }
            });
            read.push(clocks());
            for (cost, pair) in costs.iter_mut().zip(read.windows(2)) {
                for (side, cost) in cost.iter_mut().enumerate() {
                    *cost += pair[1][side].saturating_sub(pair[0][side]);
                }
            }
        }
        let commits = rounds * ROUND;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand jobs")]
        let each = |cost: Duration| cost.as_secs_f64() * 1e6 / (commits * batch) as f64;
        let cell = |cost: [Duration; 2]| format!("{:.1} + {:.1}", each(cost[0]), each(cost[1]));
        let all = costs
            .iter()
            .fold([Duration::ZERO; 2], |sum, cost| [sum[0] + cost[0], sum[1] + cost[1]]);
        println!(
            "{batch:>6} {:>12} {:>12} {:>12} {:>12}",
            cell(costs[0]),
            cell(costs[1]),
            cell(costs[2]),
            cell(all)
        );
    }
}
