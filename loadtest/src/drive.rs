//! Requests in a closed loop (a connection asks again when it was answered) or an open one (requests begin when they are due, whatever
//! the answers take, and their latency counts from when they were due: no coordinated omission).

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::StatusCode;
use indicatif::ProgressBar;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    client::{Answer, Connection, Session},
    cpu::{self, Watched},
};

/// When requests begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the connection is free.
    Closed,
    /// At a fixed rate.
    Open {
        /// The rate.
        per_second: f64,
    },
}

/// What to request, and how.
pub struct Plan {
    /// JSON documents.
    pub bodies: Arc<[Bytes]>,
    /// Which of them.
    pub range: Range<usize>,
    /// How many connections.
    pub connections: usize,
    /// When.
    pub pace: Pace,
}

/// What came of it.
pub struct Outcome {
    /// Certificates received.
    pub issued: usize,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Request (or when it was due) to certificate, in microseconds.
    pub latency: Histogram<u64>,
    /// Requests that brought no certificate, by problem id.
    pub errors: BTreeMap<String, usize>,
    /// CPU time of each process of the server meanwhile, by name.
    pub server_cpu: Vec<(String, Duration)>,
    /// CPU time of this process meanwhile.
    pub own_cpu: Duration,
    /// Some answers, with the numbers of their requests.
    pub samples: Vec<(usize, Bytes)>,
}

impl Outcome {
    /// Adds what came afterwards.
    pub fn add(&mut self, later: Self) -> Result<()> {
        self.issued += later.issued;
        self.elapsed += later.elapsed;
        self.latency.add(&later.latency)?;
        for (id, count) in later.errors {
            *self.errors.entry(id).or_default() += count;
        }
        for ((_, sum), (_, more)) in self.server_cpu.iter_mut().zip(later.server_cpu) {
            *sum += more;
        }
        self.own_cpu += later.own_cpu;
        self.samples.extend(later.samples);
        Ok(())
    }
}

/// Every so many answers one is kept, to be looked into afterwards.
const SAMPLE_EVERY: usize = 256;
/// How long a connection of a closed loop holds back when the server asks for less.
const HOLD_BACK: Duration = Duration::from_millis(100);

/// What the workers share.
struct Run {
    plan: Plan,
    next: AtomicUsize,
    start: Instant,
    due: Semaphore,
    bar: ProgressBar,
}

/// What one worker saw.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    errors: BTreeMap<String, usize>,
    samples: Vec<(usize, Bytes)>,
    serials: Vec<String>,
}

/// Makes the requests of a plan. `server` are the processes whose CPU time counts.
pub async fn run(session: &Session, plan: Plan, server: &Watched, bar: &ProgressBar) -> Result<Outcome> {
    let mut opening = JoinSet::new();
    for number in 0..plan.connections {
        opening.spawn(Connection::open(session.endpoint(number)));
    }
    let connections = opening.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;

    let server_before = server.cpu();
    let own_before = cpu::own();
    let run = Arc::new(Run {
        plan,
        next: AtomicUsize::new(0),
        start: Instant::now(),
        due: Semaphore::new(0),
        bar: bar.clone(),
    });
    let pacer = match run.plan.pace {
        Pace::Closed => None,
        Pace::Open { per_second } => {
            let run = run.clone();
            Some(thread::spawn(move || run.keep_pace(per_second)))
        }
    };
    let mut working = JoinSet::new();
    for connection in connections {
        working.spawn(run.clone().work(connection));
    }
    let tallies = working.join_all().await;
    let elapsed = run.start.elapsed();
    let own_cpu = cpu::own().saturating_sub(own_before);
    let server_cpu = std::iter::zip(server.cpu(), server_before)
        .map(|((name, after), (_, before))| (name, after.saturating_sub(before)))
        .collect();
    if let Some(pacer) = pacer {
        pacer.join().ok().context("the pacer panicked")?;
    }
    gather(tallies, elapsed, server_cpu, own_cpu)
}

fn gather(
    tallies: Vec<Tally>,
    elapsed: Duration,
    server_cpu: Vec<(String, Duration)>,
    own_cpu: Duration,
) -> Result<Outcome> {
    let mut outcome = Outcome {
        issued: 0,
        elapsed,
        latency: Histogram::new(3)?,
        errors: BTreeMap::new(),
        server_cpu,
        own_cpu,
        samples: Vec::new(),
    };
    let mut serials = HashSet::new();
    for tally in tallies {
        outcome.issued += tally.latencies.len();
        for latency in tally.latencies {
            outcome
                .latency
                .record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))?;
        }
        for (id, count) in tally.errors {
            *outcome.errors.entry(id).or_default() += count;
        }
        outcome.samples.extend(tally.samples);
        for serial in tally.serials {
            ensure!(
                serials.insert(serial.clone()),
                "serial {serial} was given to two requests"
            );
        }
    }
    Ok(outcome)
}

impl Run {
    fn count(&self) -> usize {
        self.plan.range.len()
    }

    /// When the request of this number, from 0, is due in an open loop.
    fn due_at(&self, number: usize, per_second: f64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
        let offset = number as f64 / per_second;
        self.start + Duration::from_secs_f64(offset)
    }

    /// Lets one request begin whenever one is due. A thread of its own: timers of the runtime are a millisecond coarse.
    fn keep_pace(&self, per_second: f64) {
        for number in 0..self.count() {
            let wait = self
                .due_at(number, per_second)
                .saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            self.due.add_permits(1);
        }
        // Whoever waits now finds nothing left to do.
        self.due.add_permits(self.plan.connections);
    }

    async fn work(self: Arc<Self>, mut connection: Connection) -> Tally {
        let mut tally = Tally::default();
        loop {
            if let Pace::Open { .. } = self.plan.pace
                && let Ok(permit) = self.due.acquire().await
            {
                permit.forget();
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count() {
                return tally;
            }
            let from = match self.plan.pace {
                Pace::Closed => Instant::now(),
                Pace::Open { per_second } => self.due_at(number, per_second),
            };
            let body = self.plan.range.start + number;
            match connection.issue(self.plan.bodies[body].clone()).await {
                Ok(answer) => {
                    let turned_away =
                        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status);
                    tally.enter(body, answer, from.elapsed());
                    if turned_away && self.plan.pace == Pace::Closed {
                        tokio::time::sleep(HOLD_BACK).await;
                    }
                }
                Err(error) => {
                    tally.error(format!("({})", error.root_cause()));
                    match Connection::open(connection.endpoint()).await {
                        Ok(again) => connection = again,
                        Err(_) => tokio::time::sleep(HOLD_BACK).await,
                    }
                }
            }
            self.bar.inc(1);
        }
    }
}

impl Tally {
    fn error(&mut self, id: String) {
        *self.errors.entry(id).or_default() += 1;
    }

    fn enter(&mut self, number: usize, answer: Answer, latency: Duration) {
        let reason = (!answer.ready).then(|| answer.reason());
        self.serials.extend(answer.serial);
        if let Some(reason) = reason {
            self.error(reason);
            return;
        }
        self.latencies.push(latency);
        if number.is_multiple_of(SAMPLE_EVERY) {
            self.samples.push((number, answer.body));
        }
    }
}
