//! How the server runs the statements on a ledger with a million jobs in one lane: what they cost does not grow with it.

use std::time::Duration;

use domain::job::{RevocationReason, State};

use super::{super::claim::claimable_sql, Server};
use crate::{
    Begin, Claim, Counter, Deferral, Finished, How, Idempotency, JobFilter, NewJob, Revocation, Revoked, Statistics,
    StatisticsQuery,
    suite::world::{World, lane, node, signature},
};

/// So many queued jobs of 50 accounts in one lane, put there behind the store's back, all of one millisecond.
fn fill(server: &Server, jobs: u32) {
    server.sql(&format!(
        "SET synchronous_commit = off;
         INSERT INTO open (job, issuer, class, account, purpose, state, accepted_at, sign_by, not_before, not_after, join_within,
             intent, repeat)
         SELECT '\\x01330000000000'::bytea || int8send(n) || '\\x00'::bytea, 'alpha', 'bulk', 'account-' || n % 50, 'end-entity',
             'queued', 1800000000000, 1800003600000, 0, 1, 0, decode(repeat('11', 24), 'hex') || int8send(n),
             decode(repeat('22', 24), 'hex') || int8send(n)
         FROM generate_series(1, {jobs}) AS n;
         INSERT INTO request (job, issuer, class, account, profile, profile_version, purpose, accepted_at, sign_by, not_before,
             not_after, intent)
         SELECT job, issuer, class, account, 'tls', 1, purpose, accepted_at, sign_by, not_before, not_after, intent FROM open;
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
        accepted_before: world.now() + Duration::from_secs(1),
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

/// Everything that a store does, once, with a few jobs.
async fn everything(world: &World) {
    let store = &world.store;
    let owner = node("signer");
    let lanes = [lane("alpha.interactive"), lane("alpha.bulk")];
    let mut jobs: Vec<NewJob> = (0..8).map(|_| world.job()).collect();
    for job in &mut jobs {
        job.join_within = Duration::from_mins(1);
        job.unique_key = true;
        job.idempotency = Some(Idempotency {
            key: job.intent,
            request: job.repeat,
            keep: Duration::from_mins(1),
        });
    }
    let serials: Vec<_> = jobs.iter().map(|job| job.job).collect();
    for _ in 0..2 {
        for accepted in store.accept(jobs.clone()).await {
            accepted.unwrap();
        }
    }
    let mut joiner = world.job();
    joiner.repeat = jobs[0].repeat;
    joiner.waiter = Some(node("front"));
    world.accept(&joiner).await.unwrap();
    let begun = store.begin(&owner, &serials).await.unwrap();
    assert!(begun.iter().all(|begin| matches!(begin, Begin::Begun(_))), "{begun:?}");
    let deferral = Deferral {
        job: serials[0],
        turn: 1,
        reason: "a reason".into(),
    };
    store.defer(&owner, vec![deferral]).await.unwrap();
    let taken = store
        .take_over(&node("other"), &lanes, Duration::from_secs(10), 8)
        .await
        .unwrap();
    assert_eq!(taken.begun.len(), 7);
    world.refuse(&owner, serials[0], None).await;
    for _ in 0..2 {
        let finishes = jobs[1..].iter().map(|job| signature(job, 2)).collect();
        for finished in store.finish(&owner, finishes).await {
            assert!(matches!(finished, Ok(Finished::Issued { .. })), "{finished:?}");
        }
    }
    assert_eq!(
        store.accept(vec![jobs[1].clone()]).await[0].as_ref().unwrap().how,
        How::Repeated
    );
    let revocation = Revocation {
        job: serials[1],
        account: None,
        reason: RevocationReason::KeyCompromise,
        revocation_date: None,
        cancel_pending: true,
        by: "operator:olga".into(),
    };
    assert_eq!(store.revoke(revocation).await.unwrap(), Revoked::Done);
    // The first one was begun and refused: a signature of it may exist.
    assert_eq!(store.cancelled(&serials).await.unwrap(), serials[..2]);
    assert_eq!(store.ended(&serials).await.unwrap().len(), 8);
    assert_eq!(store.events(serials[0]).await.unwrap().len(), 1);
    world.get(serials[2]).await;
    let claims = lanes.clone().map(|lane| Claim {
        lane,
        accepted_before: world.now() + Duration::from_secs(1),
        limit: 8,
    });
    assert_eq!(store.claimable(&claims).await.unwrap().len(), 8);
    world.live(&owner, Duration::from_secs(2)).await;
    store.goodbye(&owner).await.unwrap();
    store.withdraw(&node("front"), &serials).await.unwrap();
    store.sweep(8).await.unwrap();
    store.lanes().await.unwrap();
    let account = &jobs[0].account;
    store.counter(account, Counter::Issued).await.unwrap();
    store.quota_left(account, 10).await.unwrap();
    for statistics in [Statistics::Issued, Statistics::Expiring, Statistics::Revoked] {
        let query = StatisticsQuery {
            account: account.clone(),
            statistics,
            from: world.now().as_secs() - 1,
            to: world.now().as_secs(),
            page: 1,
            per_page: 10,
        };
        store.statistics(&query).await.unwrap();
    }
    for state in [None, Some(State::Queued), Some(State::Issued)] {
        let filter = JobFilter {
            state,
            limit: 8,
            ..JobFilter::default()
        };
        store.jobs(&filter).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_walks_along_a_table_that_grows() {
    const ROWS: u32 = 300_000;
    // Statistics stay as they are made here.
    let settings = [
        ("shared_preload_libraries", "pg_stat_statements"),
        ("autovacuum", "off"),
    ];
    let server = Server(engines::Postgres::start_with(&settings).unwrap());
    server.0.create_database("ledger").unwrap();
    server.sql("CREATE EXTENSION pg_stat_statements");
    let mut world = World::new(&server).await;
    server.sql("ANALYZE");
    fill(&server, ROWS);
    for table in ["request", "result"] {
        let (columns, values) = match table {
            "request" => (
                "issuer, class, account, profile, profile_version, purpose, accepted_at, sign_by, not_before, not_after, intent",
                "'alpha', 'bulk', 'account-' || n % 50, 'tls', 1, 'end-entity', 1800000000000, 1800003600000, 0, 1, \
                 decode(repeat('11', 32), 'hex')",
            ),
            _ => (
                "state, at, turn, strikes, account, not_before, not_after, signature",
                "'issued', 1799990000000, 1, 0, 'account-' || n % 50, 1799990000, 1899990000, '\\x01'",
            ),
        };
        // Of the same day, before the open ones: issued jobs.
        server.sql(&format!(
            "SET synchronous_commit = off; INSERT INTO {table} (job, {columns}) \
             SELECT '\\x0133b83df401'::bytea || int8send(n) || '\\x0000'::bytea, {values} FROM generate_series(1, {ROWS}) AS n"
        ));
    }
    for analyzed in [false, true] {
        if analyzed {
            server.sql("ANALYZE");
            // Statements are planned anew.
            world = world.reopen(&server).await;
        }
        server.sql("SELECT pg_stat_statements_reset()");
        // Plans for any arguments are made from the sixth time on.
        for _ in 0..7 {
            everything(&world).await;
            world.advance(Duration::from_secs(1));
        }
        let worst = server.sql(
            "SELECT (shared_blks_hit + shared_blks_read) / calls, query FROM pg_stat_statements \
             WHERE query !~ '^(ANALYZE|CREATE|ALTER|SET|VACUUM)' \
             ORDER BY 1 DESC LIMIT 1",
        );
        let (blocks, _) = worst.split_once('|').unwrap();
        let blocks: u64 = blocks.parse().unwrap();
        assert!(blocks < 1_000, "after statistics: {analyzed}; blocks a call: {worst}");
        println!(
            "statistics of an empty ledger: {}; at most {blocks} blocks a call",
            !analyzed
        );
    }
}
