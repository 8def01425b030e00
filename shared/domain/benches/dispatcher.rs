//! How many events a dispatcher takes in a second on one core, and that neither issuers nor depth make an event dearer.
//!
//! Everything around it answers at once, on the same core: what is measured includes making the events and reading the effects.

use std::{
    collections::{HashMap, VecDeque},
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use domain::{
    breaker,
    dispatch::{Begun, Dispatcher, Effect, Event, Hindrance, Hint, Limits, ProbeBy, Recorded, Serving},
    failure::{Failure, KeysFailure},
    id::{AccountId, Serial},
    lane::{Carrier, Lane},
    reconcile,
    time::Timestamp,
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// As many jobs as an interactive envelope carries.
const ENVELOPE: usize = 4;
/// As many jobs as a signer begins at a time.
const BEGIN: usize = 64;

struct World {
    dispatcher: Dispatcher,
    lanes: Vec<Lane>,
    account: AccountId,
    /// Issuers from this one on have keys that fail.
    broken_from: usize,
    now: Timestamp,
    serial: u64,
    tag: u64,
    last_lane: usize,
    events: u64,
    todo: VecDeque<Effect>,
    /// Whether jobs wait all the time: a begin is answered when as many have come as it takes.
    is_deep: bool,
    begin: Option<Vec<Serial>>,
    jobs: HashMap<Serial, usize>,
}

impl World {
    fn new(issuers: usize, broken: usize) -> Self {
        let limits = Limits {
            waiting: 200_000,
            waiting_per_lane: 20_000,
            in_flight: 512,
            begin: BEGIN,
            workers: 8,
            probes: 2,
            claims: reconcile::Limits {
                period: Duration::from_millis(250),
                lanes: 32,
                jobs: 128,
            },
            breaker: breaker::Settings::default(),
            force: None,
            take_over_period: Duration::from_millis(500),
        };
        let lanes: Vec<Lane> = (0..issuers)
            .map(|number| format!("issuer-{number:05}.interactive").parse().expect("it is a lane"))
            .collect();
        let serving = |lane: &Lane| {
            let serving = Serving {
                carrier: Carrier::Own,
                cost: 1,
                token: "hsm".parse().expect("it is a name"),
                enabled: true,
                probe_by: ProbeBy::OwnKey,
            };
            (lane.clone(), serving)
        };
        let served = lanes.iter().map(serving).collect();
        let mut world = Self {
            dispatcher: Dispatcher::new(limits, 1),
            lanes,
            account: "0".parse().expect("it is a name"),
            broken_from: issuers - broken,
            now: START,
            serial: 0,
            tag: 0,
            last_lane: 0,
            events: 0,
            todo: VecDeque::new(),
            is_deep: false,
            begin: None,
            jobs: HashMap::new(),
        };
        world.tell(Event::Freed(Hindrance::Lease));
        world.tell(Event::Served(served));
        world.answer_all();
        world
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.dispatcher.handle(event, self.now, &mut effects);
        self.todo.extend(effects);
        self.events += 1;
        // A hundred events a millisecond, which is what a busy signer may see.
        if self.events.is_multiple_of(100) {
            self.now = self.now + Duration::from_millis(1);
        }
    }

    fn deliver(&mut self, number: usize) {
        let lane = self.lanes[number].clone();
        let jobs: Vec<Hint> = (0..ENVELOPE)
            .map(|_| {
                self.serial += 1;
                let mut entropy = [0; 10];
                entropy[..8].copy_from_slice(&self.serial.to_be_bytes());
                let job = Serial::new(self.now, entropy);
                self.jobs.insert(job, number);
                let account = self.account.clone();
                Hint { job, account }
            })
            .collect();
        self.tag += 1;
        let tag = self.tag;
        self.tell(Event::Delivered { tag, lane, jobs });
    }

    /// Answers everything that is asked for, until nothing is.
    fn answer_all(&mut self) {
        while let Some(effect) = self.todo.pop_front() {
            self.answer(effect);
        }
    }

    fn begun(&mut self, jobs: &[Serial]) {
        let begun = jobs.iter().map(|job| Begun {
            job: *job,
            lane: self.lanes[self.jobs[job]].clone(),
            account: self.account.clone(),
            turn: 1,
        });
        let begun = begun.collect();
        self.tell(Event::Begun { begun, not: Vec::new() });
    }

    fn answer(&mut self, effect: Effect) {
        match effect {
            Effect::Begin(jobs) if self.is_deep && self.begin.is_none() => self.begin = Some(jobs),
            Effect::Begin(jobs) => self.begun(&jobs),
            Effect::Run { run, jobs, .. } => {
                for (job, turn) in jobs {
                    let broken = self.jobs[&job] >= self.broken_from;
                    let failure = Failure::Keys(KeysFailure::OperationFailed);
                    let result = if broken { Err(failure) } else { Ok(()) };
                    let took = Duration::from_micros(100);
                    self.tell(Event::Ran {
                        job,
                        turn,
                        result,
                        took,
                    });
                }
                self.tell(Event::RunEnded(run));
            }
            Effect::Finish { job, turn } | Effect::Refuse { job, turn, .. } | Effect::Defer { job, turn, .. } => {
                self.jobs.remove(&job);
                let how = Recorded::Done;
                self.tell(Event::Recorded { job, turn, how });
            }
            Effect::Claim(asked) => self.tell(Event::Claimable {
                asked,
                jobs: Vec::new(),
            }),
            Effect::TakeOver(_) => self.tell(Event::TakenOver(None)),
            Effect::Probe { probe, .. } => {
                let result = Err(Failure::Keys(KeysFailure::OperationFailed));
                let took = Duration::from_micros(100);
                self.tell(Event::Probed { probe, result, took });
            }
            other => drop(black_box(other)),
        }
    }

    /// One envelope for each issuer in turn, until so many events were taken.
    fn take(&mut self, events: u64) {
        let until = self.events + events;
        while self.events < until {
            for _ in 0..BEGIN / ENVELOPE {
                self.last_lane = (self.last_lane + 1) % self.lanes.len();
                self.deliver(self.last_lane);
                self.answer_all();
            }
            if let Some(jobs) = self.begin.take() {
                self.begun(&jobs);
                self.answer_all();
            }
        }
    }

    /// So many jobs of all issuers wait, and as many go on waiting while others come and go.
    fn fill(&mut self, jobs: usize) {
        self.is_deep = true;
        for number in 0..jobs / ENVELOPE {
            self.deliver(number % self.lanes.len());
            self.answer_all();
        }
        let waiting = self.dispatcher.status().waiting;
        assert!(waiting > jobs / 10 * 9, "{waiting} jobs wait");
    }
}

/// Times so many events; the world is made before, and goes on.
fn time(world: &mut World, events: u64) -> Duration {
    let started = Instant::now();
    world.take(events);
    started.elapsed()
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatcher");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for issuers in [10, 1_000, 10_000] {
        let mut world = World::new(issuers, 0);
        group.bench_function(BenchmarkId::new("issuers", issuers), |bencher| {
            bencher.iter_custom(|events| time(&mut world, events));
        });
    }
    for depth in [1_000, 100_000] {
        let mut world = World::new(10_000, 0);
        world.fill(depth);
        group.bench_function(BenchmarkId::new("10000_issuers_depth", depth), |bencher| {
            bencher.iter_custom(|events| time(&mut world, events));
        });
    }
    let mut world = World::new(10_000, 6_000);
    world.take(2_000_000);
    group.bench_function("10000_issuers_6000_broken", |bencher| {
        bencher.iter_custom(|events| time(&mut world, events));
    });
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
