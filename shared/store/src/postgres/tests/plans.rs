//! How the server runs the statements on a ledger with a million jobs in one lane: what they cost does not grow with it.

use super::{super::claim::claimable_sql, Server};
use crate::{
    Claim,
    suite::world::{World, lane, node},
};

/// A million queued jobs of 50 accounts in one lane, put there behind the store's back, all of one millisecond.
fn fill(server: &Server, jobs: u32) {
    server.sql(&format!(
        "SET synchronous_commit = off;
         INSERT INTO open (job, issuer, class, account, purpose, state, accepted_at, sign_by, not_before, not_after, join_within,
             intent, repeat)
         SELECT '\\x01330000000000'::bytea || int8send(n) || '\\x00'::bytea, 'alpha', 'bulk', 'account-' || n % 50, 'end-entity',
             'queued', 1800000000000, 1800003600000, 0, 1, 0, decode(repeat('11', 24), 'hex') || int8send(n),
             decode(repeat('22', 24), 'hex') || int8send(n)
         FROM generate_series(1, {jobs}) AS n;
         INSERT INTO lane_tally (issuer, class, writer, queued) VALUES ('alpha', 'bulk', 999, {jobs})"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_a_lane_of_a_million_touches_few_rows() {
    let server = Server::start();
    let world = World::new(&server).await;
    fill(&server, 1_000_000);
    // Before the server has counted the table and after: a plan that was good for an empty one must still be good.
    for analyzed in [false, true] {
        if analyzed {
            server.sql("VACUUM ANALYZE open");
        }
        let explained = server.sql(&format!(
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan;
             PREPARE claim (bigint, text[], text[], bigint[], bigint[], text[]) AS {};
             EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
             EXECUTE claim (1800000001000, '{{alpha}}', '{{bulk}}', '{{1800000001000}}', '{{64}}', '{{account-7}}')",
            claimable_sql()
        ));
        assert!(!explained.contains("Seq Scan on open"), "{explained}");
        assert!(explained.contains("using open_queued"), "{explained}");
        let blocks: u64 = explained
            .lines()
            .find(|line| line.trim_start().starts_with("Buffers: "))
            .map(|line| {
                let numbers = line.split([' ', '=']).filter_map(|word| word.parse::<u64>().ok());
                numbers.sum()
            })
            .unwrap();
        assert!(
            blocks < 3_000,
            "{blocks} blocks of a table of a million rows\n{explained}"
        );
        println!("a claim of 64 among 1,000,000 reads {blocks} blocks");
    }

    // The same through the store, and what follows: begun by name, the lane's depth counted without counting.
    let claim = Claim {
        lane: lane("alpha.bulk"),
        accepted_before: world.now() + std::time::Duration::from_secs(1),
        limit: 64,
    };
    let found = world.store.claimable(std::slice::from_ref(&claim)).await.unwrap();
    assert_eq!(found.len(), 64);
    let mut accounts: Vec<_> = found.iter().map(|claimable| claimable.account.clone()).collect();
    accounts.sort();
    accounts.dedup();
    assert_eq!(accounts.len(), 50, "every account has its turn");
    let mut full = world.job();
    full.lane = lane("alpha.bulk");
    full.limits.lane_depth = 1_000_000;
    assert_eq!(world.accept(&full).await, Err(crate::AcceptError::LaneFull));
    full.limits.lane_depth += 1;
    world.accept(&full).await.unwrap();
    world.begin(&node("signer"), full.job).await;
    assert_eq!(world.lane("alpha.bulk").await.queued, 1_000_000);
}
