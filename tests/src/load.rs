//! Clients that go on asking for certificates while something is done to the installation, and what they saw of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use crate::{Client, Key};

/// How long a client waits for its certificate in the answer, in seconds.
const WAIT: &str = "wait=10";
/// How long a client rests after a failure.
const REST: Duration = Duration::from_millis(100);

/// Clients that ask until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<Tally>>>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Accepted jobs by serial: the public key that was sent.
    pub accepted: BTreeMap<String, Vec<u8>>,
    /// Certificates that came with a 201, by serial: DER.
    pub answered: BTreeMap<String, Vec<u8>>,
    /// Attempts that failed, by what came back.
    pub failed: BTreeMap<String, usize>,
    /// When a 201 came.
    accepted_at: Vec<Instant>,
    /// When a 201 came with its certificate in it.
    issued_at: Vec<Instant>,
    /// Requests that were answered with the serial of another request.
    pub twice: usize,
}

impl Load {
    /// Starts `workers` clients, which take the front ends in turn. Each request is repeated, with its idempotency key, at the next front
    /// end until it is accepted.
    pub fn start(at: &[Client], workers: usize, name: &str) -> Self {
        Self::begin(at, workers, name, None)
    }

    /// The same, with one key in every request.
    pub fn with_key(at: &[Client], workers: usize, name: &str, key: Key) -> Self {
        Self::begin(at, workers, name, Some(&Arc::new(key)))
    }

    fn begin(at: &[Client], workers: usize, name: &str, key: Option<&Arc<Key>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..workers).map(|worker| {
            let (at, stop, name, key) = (at.to_vec(), stop.clone(), format!("{name}-{worker}"), key.cloned());
            let over = move || stop.load(Ordering::Relaxed);
            tokio::spawn(async move { ask(at, worker, &name, over, true, key).await })
        });
        Self {
            tasks: tasks.collect(),
            stop,
        }
    }

    /// Stops, and adds up what the clients saw.
    pub async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for task in self.tasks {
            all.add(task.await??);
        }
        all.accepted_at.sort_unstable();
        all.issued_at.sort_unstable();
        Ok(all)
    }
}

/// Asks for this many certificates and does not wait for them.
pub async fn post(at: &[Client], jobs: usize, name: &str) -> Result<Tally> {
    const WORKERS: usize = 16;
    let tasks: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (at, name) = (at.to_vec(), format!("{name}-{worker}"));
            let mut left = jobs / WORKERS + usize::from(worker < jobs % WORKERS);
            tokio::spawn(async move {
                let over = move || {
                    let over = left == 0;
                    left = left.saturating_sub(1);
                    over
                };
                ask(at, worker, &name, over, false, None).await
            })
        })
        .collect();
    let mut all = Tally::default();
    for task in tasks {
        all.add(task.await??);
    }
    Ok(all)
}

async fn ask(
    mut at: Vec<Client>,
    worker: usize,
    name: &str,
    mut over: impl FnMut() -> bool,
    waits: bool,
    key: Option<Arc<Key>>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut turn = worker;
    let mut number = 0;
    while !over() {
        number += 1;
        let key = match &key {
            Some(key) => key.clone(),
            None => Arc::new(Key::p256()?),
        };
        let host = format!("{name}-{number}.example.com");
        let csr = key.request(&host)?;
        loop {
            turn += 1;
            let place = turn % at.len();
            let mut headers = vec![("Idempotency-Key", host.as_str())];
            if waits {
                headers.push(("Prefer", WAIT));
            }
            let problem = match at[place].post(&csr, &host, &headers).await {
                Ok(answer) if answer.status == 201 => {
                    let now = Instant::now();
                    tally.accepted_at.push(now);
                    let serial = answer.serial()?.to_owned();
                    if !answer.body.is_null() {
                        tally.issued_at.push(now);
                        let certificate = answer.body["certificate"].as_str().unwrap_or_default();
                        let certificate = pki::pem::decode("CERTIFICATE", certificate)?;
                        tally.answered.insert(serial.clone(), certificate);
                    }
                    let before = tally.accepted.insert(serial, key.public_key());
                    tally.twice += usize::from(before.is_some());
                    break;
                }
                Ok(answer) if answer.status == 401 => {
                    // The front end is another than the one that gave the token: log in again, when it can.
                    let _ = at[place].login().await;
                    "401".to_owned()
                }
                Ok(answer) => {
                    ensure!(matches!(answer.status, 429 | 503), "{host}: {answer:?}");
                    format!("{} {}", answer.status, answer.body["id"].as_str().unwrap_or("-"))
                }
                Err(_) => "no answer".to_owned(),
            };
            *tally.failed.entry(problem).or_default() += 1;
            tokio::time::sleep(REST).await;
        }
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.twice += other.twice;
        for (serial, key) in other.accepted {
            self.twice += usize::from(self.accepted.insert(serial, key).is_some());
        }
        self.answered.extend(other.answered);
        for (problem, count) in other.failed {
            *self.failed.entry(problem).or_default() += count;
        }
        self.accepted_at.extend(other.accepted_at);
        self.issued_at.extend(other.issued_at);
    }

    /// Longest time, between two moments, without a 201 and without a certificate that came with one.
    pub fn gaps(&self, from: Instant, to: Instant) -> (Duration, Duration) {
        (gap(&self.accepted_at, from, to), gap(&self.issued_at, from, to))
    }

    /// Attempts that failed.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// Fetches the certificate of every accepted job: each is there, for its key, and is the one that came with the 201. How many.
    pub async fn verify(&self, client: &Client, patience: Duration) -> Result<usize> {
        for (serial, public_key) in &self.accepted {
            let certificate = client.certificate(serial, patience).await?;
            let facts = pki::certificate::read(&certificate)?;
            ensure!(
                facts.public_key == public_key.as_slice(),
                "{serial}: the certificate is for another key"
            );
            ensure!(
                self.answered
                    .get(serial)
                    .is_none_or(|answered| *answered == certificate),
                "{serial}: another certificate came with the 201"
            );
        }
        ensure!(self.twice == 0, "{} serials were given twice", self.twice);
        Ok(self.accepted.len())
    }
}

fn gap(moments: &[Instant], from: Instant, to: Instant) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    for moment in moments.iter().filter(|moment| (from..to).contains(*moment)) {
        longest = longest.max(*moment - last);
        last = *moment;
    }
    longest.max(to - last)
}

/// A table of what several faults led to.
#[derive(Debug)]
pub struct Report(comfy_table::Table);

impl Default for Report {
    fn default() -> Self {
        let mut table = comfy_table::Table::new();
        table.set_header([
            "fault",
            "accepted",
            "certificates",
            "lost",
            "twice",
            "attempts that failed",
            "longest without 201, ms",
            "longest without certificate, ms",
        ]);
        Self(table)
    }
}

impl Report {
    /// One fault: what the clients saw, how many certificates there are, and the gaps while it lasted, if somebody asked meanwhile.
    pub fn row(&mut self, fault: &str, tally: &Tally, certificates: usize, gaps: Option<(Duration, Duration)>) {
        let gap = |gap: Option<Duration>| gap.map_or_else(|| "-".to_owned(), |gap| gap.as_millis().to_string());
        self.0.add_row([
            fault.to_owned(),
            tally.accepted.len().to_string(),
            certificates.to_string(),
            (tally.accepted.len() - certificates).to_string(),
            tally.twice.to_string(),
            format!("{} {:?}", tally.failures(), tally.failed),
            gap(gaps.map(|gaps| gaps.0)),
            gap(gaps.map(|gaps| gaps.1)),
        ]);
    }

    /// Prints it.
    pub fn print(&self) {
        println!("{}", self.0);
    }
}
