//! The contract suite on SQLite, and what only this adapter has: the lock, the schema, the full disk, damaged rows.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    id::Serial,
    job::State,
    time::{Clock, Timestamp},
};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{OpenError, Options, Sqlite, counts::Repeat, fault::Fault, queue::Urgency};
use crate::{
    AcceptError, Begin, Claim, NotBegun, Store, StoreError,
    suite::{
        Harness, suite,
        world::{START, World, lane, node, signature},
    },
};

/// A ledger in a directory of its own.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Alters the ledger behind the store's back, as somebody with access to the file could.
    fn alter(&self, sql: &str) {
        let connection = Connection::open(self.path().join("ledger.sqlite")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        let unchecked = "PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0;";
        connection.execute_batch(unchecked).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

#[async_trait]
impl Harness for Directory {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(self.path(), Options::new(clock)).unwrap())
    }
}

suite!(Directory::new());

/// A world and the adapter beneath it.
async fn world(directory: &Directory, options: fn(&mut Options)) -> (World, Arc<Sqlite>) {
    let world = World::new(directory).await;
    let clock: Arc<dyn Clock> = world.clock.clone();
    let world = world.close();
    let mut settings = Options::new(clock);
    options(&mut settings);
    let store = Arc::new(Sqlite::open(directory.path(), settings).unwrap());
    (world.over(store.clone()), store)
}

#[tokio::test]
async fn a_second_opening_of_the_same_directory_is_refused() {
    let directory = Directory::new();
    let world = World::new(&directory).await;
    let second = Sqlite::open(directory.path(), Options::new(world.clock.clone()));
    let error = second.unwrap_err();
    assert!(
        matches!(&error, OpenError::InUse(path) if path == directory.path()),
        "{error}"
    );
    assert!(error.to_string().contains("in use by another process"), "{error}");
    // The first goes on, and when it is gone the next may come.
    world.accepted().await;
    world.reopen(&directory).await.accepted().await;
}

#[tokio::test]
async fn a_newer_schema_and_a_foreign_database_are_refused() {
    let directory = Directory::new();
    let world = World::new(&directory).await.close();
    let open = || Sqlite::open(directory.path(), Options::new(world.clock.clone())).unwrap_err();
    directory.alter("PRAGMA user_version = 99");
    let error = open();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    directory.alter("PRAGMA user_version = 0");
    assert!(matches!(open(), OpenError::NotALedger(_)));
    std::fs::write(
        directory.path().join("ledger.sqlite"),
        b"not a database, but long enough",
    )
    .unwrap();
    let error = open();
    assert!(matches!(&error, OpenError::Database { .. }), "{error}");
}

type Change = fn(&mut Options);

#[tokio::test]
async fn options_out_of_range_name_themselves() {
    let directory = Directory::new();
    let world = World::new(&directory).await.close();
    let wrong: [(&str, Change); 5] = [
        ("checkpoint_pages", |options| options.checkpoint_pages = 20_000),
        ("commit_gap", |options| options.commit_gap = Duration::from_secs(1)),
        ("readers", |options| options.readers = 1),
        ("batch_rows", |options| options.batch_rows = 0),
        ("bulk_calls", |options| options.bulk_calls = 0),
    ];
    for (name, change) in wrong {
        let mut options = Options::new(world.clock.clone());
        change(&mut options);
        let error = Sqlite::open(directory.path(), options).unwrap_err();
        assert!(matches!(error, OpenError::Option { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_ledgers_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let world = World::new(&directory).await;
    world.accepted().await;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing_and_works_again_when_there_is_room() {
    let directory = Directory::new();
    let (world, store) = world(&directory, |_| {}).await;
    let pages = async |limit: &'static str| {
        store
            .write_row(Urgency::Interactive, move |ledger| {
                Ok(ledger.connection.query_row(limit, [], |row| row.get::<_, i64>(0))?)
            })
            .await
            .unwrap()
    };
    let before = world.accepted().await;
    let owner = node("signer");
    let turn = world.begin(&owner, before.job).await.turn;
    // The smallest number that SQLite allows is what there is already.
    pages("PRAGMA max_page_count = 1").await;
    let mut accepted = Vec::new();
    let mut refused = None;
    for _ in 0..1_000 {
        let job = world.job();
        match world.accept(&job).await {
            Ok(_) => accepted.push(job),
            Err(error) => {
                refused = Some((job, error));
                break;
            }
        }
    }
    let (job, error) = refused.expect("the disk never filled");
    assert!(
        matches!(error, AcceptError::Store(StoreError::Unavailable(_))),
        "{error}"
    );
    assert_eq!(world.store.job(job.job).await.unwrap(), None);
    let depth = world.lane("alpha.interactive").await;
    assert_eq!((depth.queued, depth.signing), (accepted.len() as u64, 1));

    pages("PRAGMA max_page_count = 1000000").await;
    world.accept(&job).await.unwrap();
    world.finish(&owner, signature(&before, turn)).await;
    drop(store);
    let world = world.reopen(&directory).await;
    for job in accepted.iter().chain([&job]) {
        assert_eq!(world.get(job.job).await.tbs, job.tbs);
    }
    assert_eq!(world.state(before.job).await, State::Issued);
    assert_eq!(world.lane("alpha.interactive").await.queued, accepted.len() as u64 + 1);
}

#[tokio::test]
async fn a_damaged_job_is_set_aside_and_the_others_of_the_batch_are_begun() {
    let directory = Directory::new();
    let world = World::new(&directory).await;
    let damages = [
        "DELETE FROM intent WHERE id = (SELECT id FROM request WHERE job = x'{}')",
        "DELETE FROM statement WHERE id = (SELECT id FROM request WHERE job = x'{}')",
        "UPDATE request SET profile = 'Not A Name' WHERE job = x'{}'",
        "UPDATE request SET intent = x'00' WHERE job = x'{}'",
        "UPDATE open SET account = '' WHERE job = x'{}'",
        "UPDATE open SET waiters = 'garbage' WHERE job = x'{}'",
        "UPDATE open SET repeat = x'00' WHERE job = x'{}'",
        "UPDATE open SET turn = 4294967295 WHERE job = x'{}'",
        "UPDATE open SET class = 'urgent' WHERE job = x'{}'",
        "UPDATE open SET issuer = 'nobody' WHERE job = x'{}'",
    ];
    for damage in damages {
        let (one, damaged, two) = (world.accepted().await, world.accepted().await, world.accepted().await);
        directory.alter(&damage.replace("{}", &damaged.job.to_string()));
        let jobs = [one.job, damaged.job, two.job];
        let answers = world.store.begin(&node("signer"), &jobs).await.unwrap();
        assert!(matches!(answers[0], Begin::Begun(_)), "{damage}: {answers:?}");
        assert_eq!(answers[1], Begin::Not(damaged.job, NotBegun::Damaged), "{damage}");
        assert!(matches!(answers[2], Begin::Begun(_)), "{damage}: {answers:?}");
        let again = world.try_begin(&node("signer"), damaged.job).await;
        assert_eq!(again, Err(NotBegun::Parked), "{damage}");
        let events = world.store.events(damaged.job).await.unwrap();
        assert_eq!(events[0].kind, "damaged", "{damage}");
    }
}

#[tokio::test]
async fn damaged_rows_are_said_to_be_damaged_and_hide_no_others() {
    let directory = Directory::new();
    let world = World::new(&directory).await;
    let (good, bad, gone) = (world.job(), world.job(), world.job());
    for job in [&good, &bad, &gone] {
        world.issue(job).await;
    }
    let queued = world.accepted().await;
    let mut strange = world.job();
    strange.account = "bob".parse().unwrap();
    world.accept(&strange).await.unwrap();
    directory.alter(&format!(
        "UPDATE result SET at = 1, signature = NULL WHERE job = x'{}'; DELETE FROM result WHERE job = x'{}'; \
         UPDATE open SET account = '***' WHERE job = x'{}'; UPDATE request SET account = '***' WHERE job = x'{}';",
        bad.job, gone.job, strange.job, bad.job
    ));
    for job in [bad.job, gone.job] {
        let answer = world.store.job(job).await;
        assert!(matches!(answer, Err(StoreError::Damaged(_))), "{answer:?}");
    }
    assert_eq!(world.state(good.job).await, State::Issued);
    let filter = crate::JobFilter {
        limit: 10,
        ..crate::JobFilter::default()
    };
    let listed: Vec<Serial> = world
        .store
        .jobs(&filter)
        .await
        .unwrap()
        .into_iter()
        .map(|job| job.job)
        .collect();
    assert!(listed.contains(&good.job) && !listed.contains(&bad.job), "{listed:?}");
    // The lane's other jobs are still claimed, and a job that cannot be read is ended by no sweep and stops none.
    let claim = Claim {
        lane: lane("alpha.interactive"),
        accepted_before: world.now() + Duration::from_secs(1),
        limit: 10,
    };
    let claimable = world.store.claimable(&[claim]).await.unwrap();
    assert_eq!(claimable.iter().map(|c| c.job).collect::<Vec<_>>(), [queued.job]);
    world.advance(Duration::from_hours(1));
    assert_eq!(world.store.sweep(1).await.unwrap().len(), 1);
    assert_eq!(world.store.sweep(1).await.unwrap(), []);
    assert_eq!(world.store.sweep(1).await.unwrap(), []);
    assert_eq!(world.store.events(strange.job).await.unwrap()[0].kind, "damaged");
}

#[tokio::test]
async fn work_that_panics_fails_alone() {
    let directory = Directory::new();
    let (world, store) = world(&directory, |options| options.commit_gap = Duration::from_millis(50)).await;
    // One commit first, so that the next three calls share one.
    world.accepted().await;
    let (before, after) = (world.job(), world.job());
    let (lane, account, repeat, job) = (
        before.lane.clone(),
        before.account.clone(),
        before.repeat,
        world.serial(),
    );
    let panics = store.write_row(Urgency::Interactive, move |ledger| -> Result<(), Fault> {
        ledger.execute("DELETE FROM open", [])?;
        ledger
            .counts
            .opened(&lane, &account, State::Parked, Repeat::new(&account, &repeat), job);
        panic!("a bug");
    });
    let (one, panicked, two) = tokio::join!(world.accept(&before), panics, world.accept(&after));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert!(matches!(panicked, Err(StoreError::Rejected(_))), "{panicked:?}");
    let depth = world.lane("alpha.interactive").await;
    assert_eq!((depth.queued, depth.parked), (3, 0));
    let world = {
        drop(store);
        world.reopen(&directory).await
    };
    assert_eq!(world.lane("alpha.interactive").await.queued, 3);
}

/// A clock that moves on each time it is read: the writer reads it once a commit.
#[derive(Debug)]
struct TickingClock(AtomicI64);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(START * 1000 + self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_come_together_share_a_commit_and_hear_after_it() {
    let directory = Directory::new();
    let world = World::new(&directory).await.close();
    let mut options = Options::new(Arc::new(TickingClock(AtomicI64::new(0))));
    options.commit_gap = Duration::from_millis(100);
    let world = world.over(Arc::new(Sqlite::open(directory.path(), options).unwrap()));
    world.accepted().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (job, store) = (world.job(), Arc::clone(&world.store));
        calls.spawn(async move {
            let serial = job.job;
            store.accept(vec![job]).await.remove(0).unwrap();
            // Another connection sees it as soon as its caller is answered.
            store.job(serial).await.unwrap().unwrap().accepted_at
        });
    }
    let commits: BTreeSet<Timestamp> = calls.join_all().await.into_iter().collect();
    assert!(commits.len() <= 5, "{} commits for 50 calls", commits.len());
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_then_refuses() {
    let directory = Directory::new();
    let (world, store) = world(&directory, |options| {
        options.commit_gap = Duration::from_millis(100);
        options.interactive_calls = 1;
        options.patience = Duration::from_millis(5);
    })
    .await;
    world.accepted().await;
    // The writer waits out its gap: one call has the only place, the others none.
    let jobs = [world.job(), world.job(), world.job()];
    let (one, two, three) = tokio::join!(world.accept(&jobs[0]), world.accept(&jobs[1]), world.accept(&jobs[2]));
    let answers = [one, two, three];
    let refused =
        |answer: &&Result<_, AcceptError>| matches!(answer, Err(AcceptError::Store(StoreError::Unavailable(_))));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(refused).count(), 2, "{answers:?}");
    drop(store);
}

/// Statements and how SQLite would run them.
pub(super) mod plans {
    use std::{
        collections::BTreeSet,
        sync::{Mutex, PoisonError},
    };

    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    /// Remembers a statement that was run.
    pub(in crate::sqlite) fn seen(sql: &str) {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(sql) {
            seen.insert(sql.to_owned());
        }
    }

    /// Every statement that was run by any test of this process so far.
    pub(super) fn all() -> BTreeSet<String> {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_walks_along_a_table_that_grows() {
    use crate::suite::{ending, operating, reading, repeating, revoking, signing};
    // Cases that, together, run every statement.
    repeating::joiners_and_waiters_are_bounded(&Directory::new()).await;
    repeating::an_issued_job_is_joined_only_within_its_time_and_never_when_revoked(&Directory::new()).await;
    signing::a_job_that_loses_its_owner_three_times_alone_is_poison(&Directory::new()).await;
    signing::queued_jobs_are_claimable_oldest_first_and_account_by_account(&Directory::new()).await;
    signing::what_nobody_began_is_not_finished(&Directory::new()).await;
    ending::the_sweep_goes_in_chunks_and_forgets_what_has_run_out(&Directory::new()).await;
    ending::only_the_last_waiter_withdraws_a_late_job(&Directory::new()).await;
    revoking::a_certificate_is_revoked_once_and_only_a_compromise_raises_the_reason(&Directory::new()).await;
    reading::windows_are_inclusive_and_know_their_times(&Directory::new()).await;
    reading::jobs_are_listed_newest_first_and_filtered(&Directory::new()).await;
    reading::lanes_show_their_depth_and_how_long_the_oldest_waits(&Directory::new()).await;
    operating::a_store_that_is_opened_again_has_everything(&Directory::new()).await;

    let directory = Directory::new();
    World::new(&directory).await.close();
    let connection = Connection::open(directory.path().join("ledger.sqlite")).unwrap();
    let statements = plans::all();
    assert!(statements.len() > 60, "{} statements were seen", statements.len());
    let grows = [
        "request",
        "statement",
        "intent",
        "result",
        "job_event",
        "open",
        "joined",
        "repeat",
        "idempotency",
        "key_use",
        "revocation",
    ];
    for sql in statements {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps: Vec<String> = plan
            .raw_query()
            .mapped(|row| row.get(3))
            .collect::<Result<_, _>>()
            .unwrap();
        for table in grows {
            let walks = format!("SCAN {table}");
            let walks = steps
                .iter()
                .any(|step| *step == walks || step.starts_with(&format!("{walks} ")));
            assert!(!walks, "{sql}\n{steps:#?}");
        }
        // What is written for every job builds no temporary tables. (Only damaged jobs are set aside.)
        let always = [
            "INSERT INTO request",
            "INSERT INTO open",
            "INSERT INTO result",
            "UPDATE open",
            "DELETE FROM open",
        ];
        if always.iter().any(|begin| sql.starts_with(begin)) && !sql.contains("RETURNING") {
            let mut program = connection.prepare(&format!("EXPLAIN {sql}")).unwrap();
            let steps: Vec<String> = program
                .raw_query()
                .mapped(|row| row.get(1))
                .collect::<Result<_, _>>()
                .unwrap();
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}");
        }
    }
}
