//! The law of a job, step by step: whatever is done to a job in whatever order, the store and `domain::job` agree on where it is.

use std::time::Duration;

use domain::{
    bytes::Digest,
    id::Incarnation,
    job::{Position, State, Step},
    time::Timestamp,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    Harness,
    world::{World, issuer, node, signature},
};
use crate::{Begin, Deferral, Finished, LaneSwitches, NewJob};

const LEASE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(4);
const WALKS: u32 = 32;

/// Something done to the job or to the world around it. Owners are 0 to 2.
#[derive(Debug, Clone, Copy)]
enum Act {
    Begin(usize),
    TakeOver(usize),
    Defer(usize, u32),
    Finish(usize, bool),
    Refuse(usize, Option<u32>),
    Sweep,
    Withdraw,
    Heartbeat(usize),
    Goodbye(usize),
    Usage(bool),
    Pause(bool),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let owner = 0..3_usize;
    prop_oneof![
        6 => owner.clone().prop_map(Act::Begin),
        4 => owner.clone().prop_map(Act::TakeOver),
        4 => (owner.clone(), 0..4_u32).prop_map(|(owner, turn)| Act::Defer(owner, turn)),
        2 => (owner.clone(), any::<bool>()).prop_map(|(owner, right)| Act::Finish(owner, right)),
        1 => (owner.clone(), proptest::option::of(0..4_u32)).prop_map(|(owner, turn)| Act::Refuse(owner, turn)),
        2 => Just(Act::Sweep),
        1 => Just(Act::Withdraw),
        4 => owner.clone().prop_map(Act::Heartbeat),
        1 => owner.prop_map(Act::Goodbye),
        2 => any::<bool>().prop_map(Act::Usage),
        2 => any::<bool>().prop_map(Act::Pause),
        4 => (100..4_000_u64).prop_map(Act::Pass),
    ]
}

pub(crate) async fn a_random_walk_keeps_the_law(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut runner = TestRunner::new(Config {
        cases: WALKS,
        failure_persistence: None,
        ..Config::default()
    });
    let walks = (any::<bool>(), proptest::collection::vec(act(), 1..40));
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&walks, |(diverted, acts)| {
            runtime.block_on(walk(&world, diverted, &acts));
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// One job, its position by the law, and the facts on which the law depends.
struct Walk<'w> {
    world: &'w World,
    job: NewJob,
    position: Position,
    owner: Option<usize>,
    begun_at: Timestamp,
    lease_until: [Timestamp; 3],
    usage_on: bool,
    paused: bool,
}

async fn walk(world: &World, diverted: bool, acts: &[Act]) {
    world.put_issuers(&[issuer("alpha")]).await;
    let mut job = world.job();
    let switches = LaneSwitches {
        diverted,
        ..LaneSwitches::default()
    };
    world.store.switch_lane(&job.lane, switches).await.unwrap();
    job.sign_by = world.now() + Duration::from_secs(20);
    job.waiter = Some(node("front"));
    world.accept(&job).await.unwrap();
    world
        .store
        .switch_lane(&job.lane, LaneSwitches::default())
        .await
        .unwrap();
    let mut walk = Walk {
        world,
        job,
        position: Position::accepted(diverted),
        owner: None,
        begun_at: world.now(),
        // Leases of the walk before have run out with its incarnations.
        lease_until: [Timestamp::default(); 3],
        usage_on: true,
        paused: false,
    };
    for number in 0..3 {
        world.store.goodbye(&owner(number)).await.unwrap();
    }
    for act in acts {
        walk.act(*act).await;
        walk.compare(*act).await;
    }
    walk.leave().await;
}

fn owner(number: usize) -> Incarnation {
    node(["one", "two", "three"][number])
}

impl Walk<'_> {
    async fn act(&mut self, act: Act) {
        let (store, job) = (&self.world.store, self.job.job);
        let now = self.world.now();
        let in_time = self.job.sign_by > now;
        match act {
            Act::Begin(number) => {
                let answers = store.begin(&owner(number), &[job]).await.unwrap();
                if self.position.state == State::Signing && self.owner == Some(number) {
                    // Asked again: nothing changes.
                    assert!(matches!(&answers[0], Begin::Begun(begun) if begun.turn == self.position.turn));
                    return;
                }
                let begun = self.step(Step::Begin {
                    usage_on: self.usage_on,
                    paused: self.paused,
                    in_time,
                });
                assert_eq!(matches!(answers[0], Begin::Begun(_)), begun, "{answers:?}");
                if begun {
                    (self.owner, self.begun_at) = (Some(number), now);
                }
            }
            Act::TakeOver(number) => {
                let lanes = [self.job.lane.clone()];
                let taken = store.take_over(&owner(number), &lanes, LIMIT, 10).await.unwrap();
                let step = Step::TakeOver {
                    owner_lost: self.owner_gone() || self.begun_at + LIMIT * 3 <= now,
                    usage_on: self.usage_on,
                    in_time,
                };
                if self.step(step) {
                    assert_eq!(taken.begun.len() + taken.poisoned.len(), 1, "{taken:?}");
                    let begun = self.position.state == State::Signing;
                    assert_eq!(taken.begun.len() == 1, begun, "{taken:?}");
                    (self.owner, self.begun_at) = (begun.then_some(number), now);
                }
            }
            Act::Defer(number, turn) => {
                let deferral = Deferral {
                    job,
                    turn,
                    reason: "a reason".into(),
                };
                store.defer(&owner(number), vec![deferral]).await.unwrap();
                let turn = self.turn_of(number, turn);
                self.step(Step::Defer { turn });
            }
            Act::Finish(number, right) => {
                let mut finish = signature(&self.job, self.position.turn);
                if !right {
                    finish.intent = Digest([1; 32]);
                }
                let issued_before = self.position.state == State::Issued;
                let finished = self.world.finish(&owner(number), finish).await;
                let first = self.step(Step::Finish {
                    intent_matches: right,
                    usage_on: self.usage_on,
                });
                let expected = first || (issued_before && right);
                assert_eq!(matches!(finished, Finished::Issued { .. }), expected, "{finished:?}");
            }
            Act::Refuse(number, turn) => {
                self.world.refuse(&owner(number), job, turn).await;
                let turn = turn.map(|turn| self.turn_of(number, turn));
                self.step(Step::Refuse { turn });
            }
            Act::Sweep | Act::Withdraw => {
                if matches!(act, Act::Sweep) {
                    store.sweep(100).await.unwrap();
                    let owner_lost = self.owner_gone();
                    self.step(Step::Lapse {
                        owner_lost,
                        past: !in_time,
                    });
                } else {
                    store.withdraw(&node("front"), &[job]).await.unwrap();
                }
                self.step(Step::Expire { past: !in_time });
            }
            Act::Heartbeat(number) => {
                self.world.live(&owner(number), LEASE).await;
                self.lease_until[number] = now + LEASE;
            }
            Act::Goodbye(number) => {
                store.goodbye(&owner(number)).await.unwrap();
                self.lease_until[number] = now;
            }
            Act::Usage(on) => {
                let mut row = issuer("alpha");
                row.usage.issue = on;
                self.world.put_issuers(&[row]).await;
                self.usage_on = on;
            }
            Act::Pause(paused) => {
                let switches = LaneSwitches {
                    paused,
                    ..LaneSwitches::default()
                };
                store.switch_lane(&self.job.lane, switches).await.unwrap();
                self.paused = paused;
            }
            Act::Pass(millis) => self.world.advance(Duration::from_millis(millis)),
        }
    }

    /// Takes a step if the law allows it. Whether it does.
    fn step(&mut self, step: Step) -> bool {
        let next = self.position.after(step);
        if let Some(next) = next {
            self.position = next;
            if next.state != State::Signing {
                self.owner = None;
            }
        }
        next.is_some()
    }

    /// A turn as the law sees it: nobody's but the owner's.
    fn turn_of(&self, number: usize, turn: u32) -> u32 {
        if self.owner == Some(number) { turn } else { u32::MAX }
    }

    fn owner_gone(&self) -> bool {
        self.owner
            .is_some_and(|owner| self.lease_until[owner] <= self.world.now())
    }

    async fn compare(&self, act: Act) {
        let stored = self.world.get(self.job.job).await;
        assert_eq!(stored.state, self.position.state, "after {act:?}");
        assert_eq!(stored.owner, self.owner.map(owner), "after {act:?}");
        assert_eq!(stored.outcome.is_some(), !stored.state.is_open(), "after {act:?}");
        let position = (self.position.turn, self.position.strikes);
        assert_eq!((stored.turn, stored.strikes), position, "after {act:?}");
        assert_eq!(
            stored.revocation.is_some(),
            self.position.leaves_a_doubt(),
            "after {act:?}"
        );
        let lane = self.world.lane("alpha.interactive").await;
        let depth = [State::Queued, State::Signing, State::Parked].map(|state| u64::from(state == stored.state));
        assert_eq!([lane.queued, lane.signing, lane.parked], depth, "after {act:?}");
    }

    /// Ends what is left of the job, so that the next walk has the lane to itself.
    async fn leave(self) {
        self.world.advance(Duration::from_secs(30));
        self.world.store.sweep(100).await.unwrap();
        assert!(!self.world.state(self.job.job).await.is_open());
    }
}
