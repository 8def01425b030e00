//! Following a chain that grows, is tampered with, or cannot be reached.

use domain::{bytes::Digest, issuer::Role};
use wire::{
    signed::NodeKey,
    trust::{RootKey, endorse, revision},
};

use super::*;
use crate::clock::ManualClock;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A chain in memory that control appends to and that somebody may tamper with.
#[derive(Debug, Clone, Default)]
struct Shelf(Arc<Mutex<(Vec<Revision>, bool)>>, Arc<AtomicU64>);

#[async_trait]
impl Chain for Shelf {
    async fn head(&self) -> Result<u64, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let (chain, unreachable) = &*self.0.lock().unwrap();
        if *unreachable {
            Err(StoreError::Unavailable("cut".into()))
        } else {
            Ok(chain.len() as u64)
        }
    }
    async fn after(&self, number: u64) -> Result<Vec<Revision>, StoreError> {
        let (chain, _) = &*self.0.lock().unwrap();
        Ok(chain
            .iter()
            .skip(usize::try_from(number).unwrap())
            .take(PAGE as usize)
            .cloned()
            .collect())
    }
}

fn follower_of(shelf: &Shelf, root: &RootKey, clock: &Arc<ManualClock>, metrics: &Metrics) -> Follower {
    let registry = config::Registry::default();
    Follower::of_chain(
        Box::new(shelf.clone()),
        &root.public_key(),
        clock.clone(),
        &registry,
        metrics,
    )
    .unwrap()
}

struct Scene {
    root: RootKey,
    shelf: Shelf,
    control: NodeKey,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    follower: Arc<Follower>,
}

impl Scene {
    fn new() -> Self {
        let (root, control) = (RootKey::generate(), NodeKey::generate("control-1".parse().unwrap()));
        let (shelf, clock, metrics) = (Shelf::default(), Arc::new(ManualClock::new(NOW)), Metrics::new());
        let follower = follower_of(&shelf, &root, &clock, &metrics);
        let later = NOW + Duration::from_hours(1);
        let node = endorse(
            &root,
            control.node().clone(),
            Role::Control,
            control.public_key(),
            NOW,
            later,
        );
        let scene = Self {
            root,
            shelf,
            control,
            clock,
            metrics,
            follower: Arc::new(follower),
        };
        scene.append(&[Change::PutNode { node }]);
        scene
    }

    /// A follower as after a restart, which remembers in this file.
    fn restarted(&self, path: &std::path::Path) -> Follower {
        let follower = follower_of(&self.shelf, &self.root, &self.clock, &Metrics::new());
        follower.remembering(path.to_owned()).unwrap()
    }

    fn append(&self, changes: &[Change]) {
        let mut shelf = self.shelf.0.lock().unwrap();
        let head = shelf.0.last().map_or(ChainHead::START, ChainHead::of);
        shelf.0.push(revision(&head, changes, &self.control, NOW));
    }

    fn block(&self, n: u8) {
        self.append(&[Change::BlockKey { spki: Digest([n; 32]) }]);
    }

    fn tamper(&self, change: impl FnOnce(&mut Vec<Revision>)) {
        change(&mut self.shelf.0.lock().unwrap().0);
    }

    fn reachable(&self, reachable: bool) {
        self.shelf.0.lock().unwrap().1 = !reachable;
    }
}

#[tokio::test]
async fn the_whole_chain_is_applied_page_by_page() {
    let scene = Scene::new();
    for n in 0..=255 {
        scene.block(n);
        scene.block(n);
    }
    let mut told = scene.follower.subscribe();
    assert_eq!(scene.follower.catch_up().await, Ok(513));
    assert_eq!(*told.borrow_and_update(), 513);
    let applied = scene.follower.applied().load_full();
    assert_eq!(
        (
            applied.revision(),
            applied.snapshot.revision,
            applied.snapshot.blocked_keys.len()
        ),
        (513, 513, 256)
    );
    assert_eq!(scene.follower.behind(), None);
}

#[tokio::test]
async fn a_revision_that_does_not_verify_is_refused_once_and_the_last_good_state_kept() {
    let scene = Scene::new();
    scene.block(1);
    scene.follower.catch_up().await.unwrap();
    scene.block(2);
    scene.tamper(|chain| chain[2].body.0[3] ^= 1);
    for _ in 0..3 {
        assert_eq!(
            scene.follower.catch_up().await,
            Err(FollowError::Revision(RevisionError::Altered(3)))
        );
    }
    assert_eq!(scene.follower.applied().load().revision(), 2);
    assert!(
        scene
            .metrics
            .encode()
            .contains("bulkhead_registry_revisions_refused_total 1")
    );
    let behind = scene.follower.behind().unwrap();
    assert_eq!(behind.since, NOW);
    assert!(
        behind.reason.contains("revision 2 of 3") && behind.reason.contains("altered"),
        "{}",
        behind.reason
    );
    scene.tamper(|chain| chain[2].body.0[3] ^= 1);
    assert_eq!(scene.follower.catch_up().await, Ok(3));
    assert_eq!(scene.follower.behind(), None);
}

#[tokio::test]
async fn the_good_part_of_a_page_comes_into_force() {
    let scene = Scene::new();
    (1..=4).for_each(|n| scene.block(n));
    scene.tamper(|chain| chain[3].signature.0[0] ^= 1);
    assert!(matches!(scene.follower.catch_up().await, Err(FollowError::Revision(_))));
    assert_eq!(scene.follower.applied().load().revision(), 3);
}

#[tokio::test]
async fn a_chain_that_was_rewritten_is_refused() {
    let scene = Scene::new();
    (1..=2).for_each(|n| scene.block(n));
    scene.follower.catch_up().await.unwrap();
    scene.tamper(|chain| chain.truncate(2));
    scene.block(9);
    scene.block(10);
    assert_eq!(
        scene.follower.catch_up().await,
        Err(FollowError::Revision(RevisionError::Fork(4)))
    );
    assert_eq!(scene.follower.applied().load().revision(), 3);
}

#[tokio::test]
async fn a_signed_change_that_does_not_fit_is_refused() {
    let scene = Scene::new();
    (1..=3).for_each(|n| scene.block(n));
    let profile = domain::template::tls_server(
        "p".parse().unwrap(),
        domain::policy::KeyAlgorithm::Rsa,
        vec![2048],
        "RSA",
        "SHA-256",
    );
    let profile = domain::issuer::Profile { version: 7, ..profile }.into();
    scene.append(&[
        Change::BlockKey { spki: Digest([9; 32]) },
        Change::PutProfile { profile },
    ]);
    scene.block(4);
    assert!(matches!(
        scene.follower.catch_up().await,
        Err(FollowError::Unfit { number: 5, .. })
    ));
    let applied = scene.follower.applied().load_full();
    assert_eq!(
        (applied.revision(), applied.snapshot.blocked_keys.len()),
        (4, 3),
        "half a revision is in force"
    );
}

#[tokio::test]
async fn silence_makes_behind_and_any_news_ends_it() {
    let scene = Scene::new();
    scene.follower.catch_up().await.unwrap();
    scene.reachable(false);
    scene.clock.advance(Duration::from_secs(29));
    assert!(matches!(scene.follower.catch_up().await, Err(FollowError::Store(_))));
    assert_eq!(scene.follower.behind(), None);
    scene.clock.advance(Duration::from_secs(2));
    assert_eq!(scene.follower.behind().unwrap().since, NOW);
    scene.follower.hear_of(1);
    assert_eq!(scene.follower.behind(), None, "control was heard");
    scene.follower.hear_of(2);
    assert_eq!(
        scene.follower.behind().unwrap().since,
        NOW + Duration::from_secs(31),
        "a higher revision is known"
    );
}

#[tokio::test(start_paused = true)]
async fn a_running_follower_applies_at_a_nudge_and_at_a_poll() {
    let scene = Scene::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let mut told = scene.follower.subscribe();
    let running = tokio::spawn({
        let (follower, stop) = (scene.follower.clone(), stop.clone());
        async move { follower.run(stop).await }
    });
    told.wait_for(|number| *number == 1).await.unwrap();
    scene.block(1);
    let before = tokio::time::Instant::now();
    scene.follower.hear_of(2);
    told.wait_for(|number| *number == 2).await.unwrap();
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "the nudge waited for the poll"
    );
    scene.block(2);
    told.wait_for(|number| *number == 3).await.unwrap();
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_heard_of_and_never_comes_costs_one_question_a_poll() {
    let scene = Scene::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (follower, stop) = (scene.follower.clone(), stop.clone());
        async move { follower.run(stop).await }
    });
    scene
        .follower
        .subscribe()
        .wait_for(|number| *number == 1)
        .await
        .unwrap();
    for _ in 0..100 {
        scene.follower.hear_of(9);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let questions = scene.shelf.1.load(Ordering::Relaxed);
    assert!((20..=23).contains(&questions), "{questions} questions in 10 s");
    assert!(scene.follower.behind().unwrap().reason.contains("revision 1 of 9"));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_restarted_follower_goes_on_from_where_it_was_and_publishes_nothing_older() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry-head.json");
    let scene = Scene::new();
    for n in 0..=255 {
        scene.block(n);
        scene.block(n);
    }
    assert_eq!(scene.restarted(&path).catch_up().await, Ok(513));
    let again = scene.restarted(&path);
    let mut told = again.subscribe();
    assert_eq!(again.behind().unwrap().reason, "applies revision 0 of 513");
    scene.tamper(|chain| chain[400].signature.0[0] ^= 1);
    assert!(matches!(again.catch_up().await, Err(FollowError::Revision(_))));
    assert_eq!(again.applied().load().revision(), 0, "an older state came into force");
    assert!(!told.has_changed().unwrap());
    scene.tamper(|chain| chain[400].signature.0[0] ^= 1);
    assert_eq!(again.catch_up().await, Ok(513));
    assert_eq!((*told.borrow_and_update(), again.behind()), (513, None));
}

#[tokio::test]
async fn a_database_that_was_rewound_is_refused_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry-head.json");
    let scene = Scene::new();
    (1..=5).for_each(|n| scene.block(n));
    scene.restarted(&path).catch_up().await.unwrap();
    scene.tamper(|chain| chain.truncate(4));
    let again = scene.restarted(&path);
    let error = again.catch_up().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ends at revision 4") && text.contains("registry-head.json"),
        "{text}"
    );
    (10..=11).for_each(|n| scene.block(n));
    let error = again.catch_up().await.unwrap_err();
    assert!(error.to_string().contains("another revision 6"), "{error}");
    assert_eq!(again.applied().load().revision(), 0);
    assert!(again.behind().is_some());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(scene.restarted(&path).catch_up().await, Ok(6));
    std::fs::write(&path, "{").unwrap();
    let damaged = follower_of(&scene.shelf, &scene.root, &scene.clock, &Metrics::new());
    assert!(
        damaged.remembering(path).is_err(),
        "a damaged memory is not taken for none"
    );
}
