//! The reference: issuance as it was done before. One queue for all issuers; a failure is a failure, whoever's key it is; a signer that
//! sees many of them takes its hardware for sick and backs off; a job whose client has gone is still a job; asking twice is two jobs; what
//! fails goes to the end of the queue and is tried again, so that everything that was asked for is issued in the end.
//!
//! It signs on the same tokens as Bulkhead, through the same adapter, and checks requests and signatures alike. It has no HTTP, no ledger
//! and no broker, so it has more of the machine for itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use keys::Keys;
use tokio::{sync::oneshot, time::timeout};

use super::{
    asking::{Asker, Requested, Seen},
    judge::Counted,
};
use crate::bare::Form;

/// Signers, and threads in each.
pub const SIGNERS: usize = 3;
const THREADS: usize = 4;
/// How long the front waits for a certificate.
const FRONT_LIMIT: Duration = Duration::from_secs(6);
/// So many failures of a signer within so long are "the hardware is sick".
const FAILURES: usize = 10;
const WITHIN: Duration = Duration::from_secs(10);
/// How long a signer backs off: the first time, and at most. It doubles as long as each pause is followed by another.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// After so long without a pause the next one is a first one again.
const FORGET: Duration = Duration::from_secs(30);

/// An issuer: its key's name, the token, and what is done around the key.
pub struct Issuer {
    pub key: String,
    pub token: usize,
    pub form: Form,
}

/// A job. Nobody knows whether its client still waits.
struct Job {
    issuer: usize,
    /// What was asked for.
    name: String,
    tbs: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

/// The old system.
pub struct Reference {
    queue: Arc<Queue>,
    signers: Vec<JoinHandle<()>>,
}

struct Queue {
    issuers: Vec<Issuer>,
    jobs: Mutex<VecDeque<Job>>,
    /// Certificates by what was asked for.
    issued: Mutex<HashMap<String, usize>>,
    arrived: Condvar,
    number: AtomicUsize,
    /// Jobs that clients have put into it.
    put: AtomicUsize,
    backing_off: AtomicUsize,
    ended: AtomicBool,
}

/// How a signer thinks of its hardware.
#[derive(Default)]
struct Health {
    failures: VecDeque<Instant>,
    paused_until: Option<Instant>,
    pause: Duration,
}

impl Health {
    /// Notes a failure, whoever's it is.
    fn failed(&mut self, now: Instant) {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now - *at > WITHIN) {
            self.failures.pop_front();
        }
        if self.failures.len() < FAILURES || self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        let again = self.paused_until.is_some_and(|until| now - until < FORGET);
        self.pause = if again {
            (self.pause * 2).min(LONGEST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        self.paused_until = Some(now + self.pause);
        self.failures.clear();
    }

    /// How long it backs off still.
    fn pause(&self, now: Instant) -> Option<Duration> {
        self.paused_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reference {
    /// Starts its signers; each has connections of its own to every token.
    pub fn start(issuers: Vec<Issuer>, tokens: impl Fn() -> Result<Vec<Arc<dyn Keys>>>) -> Result<Self> {
        let queue = Arc::new(Queue {
            issuers,
            jobs: Mutex::default(),
            issued: Mutex::default(),
            arrived: Condvar::new(),
            number: AtomicUsize::new(0),
            put: AtomicUsize::new(0),
            backing_off: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let mut signers = Vec::new();
        for _ in 0..SIGNERS {
            let (health, tokens) = (Arc::new(Mutex::new(Health::default())), Arc::new(tokens()?));
            for number in 0..THREADS {
                let (queue, health, tokens) = (queue.clone(), health.clone(), tokens.clone());
                signers.push(thread::spawn(move || queue.serve(&health, &tokens, number == 0)));
            }
        }
        Ok(Self { queue, signers })
    }

    /// A client of one issuer, who waits so long.
    pub fn client(&self, issuer: usize, patience: Duration) -> OldClient {
        OldClient {
            queue: self.queue.clone(),
            issuer,
            patience,
        }
    }

    /// Jobs in the queue.
    pub fn depth(&self) -> usize {
        lock(&self.queue.jobs).len()
    }

    /// Signers that back off.
    pub fn backing_off(&self) -> usize {
        self.queue.backing_off.load(Ordering::Relaxed)
    }

    /// Ends it, with whatever is in the queue. What was put there and is neither issued nor there any more is lost.
    pub fn stop(self) -> Counted {
        {
            // Nobody may be between looking and waiting.
            let _jobs = lock(&self.queue.jobs);
            self.queue.ended.store(true, Ordering::Relaxed);
        }
        self.queue.arrived.notify_all();
        for signer in self.signers {
            let _ = signer.join();
        }
        let issued = lock(&self.queue.issued);
        let found = issued.values().sum::<usize>() + lock(&self.queue.jobs).len();
        Counted {
            lost: self.queue.put.load(Ordering::Relaxed).saturating_sub(found),
            issued_twice: issued.values().filter(|count| **count > 1).count(),
        }
    }
}

impl Queue {
    /// To the end of the queue: a new job, or one that failed.
    fn queue(&self, job: Job) {
        lock(&self.jobs).push_back(job);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = jobs.pop_front() {
                return Some(job);
            }
            jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One thread of a signer. One of them counts whether the signer backs off.
    fn serve(&self, health: &Mutex<Health>, tokens: &[Arc<dyn Keys>], counts: bool) {
        while !self.ended.load(Ordering::Relaxed) {
            let pause = lock(health).pause(Instant::now());
            if let Some(pause) = pause {
                self.back_off(pause, counts);
                continue;
            }
            let Some(job) = self.take() else { return };
            let issuer = &self.issuers[job.issuer];
            let token = &tokens[issuer.token];
            let signed = token.sign(&issuer.key, issuer.form.algorithm(), &job.tbs);
            let sealed = signed
                .map_err(anyhow::Error::from)
                .and_then(|signature| issuer.form.seal(&job.tbs, &signature));
            if let Ok(certificate) = sealed {
                *lock(&self.issued).entry(job.name).or_default() += 1;
                // Whoever does not wait any more hears nothing of it.
                let _ = job.answer.send(certificate);
            } else {
                lock(health).failed(Instant::now());
                self.queue(job);
            }
        }
    }

    fn back_off(&self, pause: Duration, counts: bool) {
        let until = Instant::now() + pause;
        if counts {
            self.backing_off.fetch_add(1, Ordering::Relaxed);
        }
        while Instant::now() < until && !self.ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
        if counts {
            self.backing_off.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A client of the reference.
pub struct OldClient {
    queue: Arc<Queue>,
    issuer: usize,
    patience: Duration,
}

impl Asker for OldClient {
    async fn ask(&mut self, request: &Requested) -> Seen {
        let number = self.queue.number.fetch_add(1, Ordering::Relaxed);
        let form = &self.queue.issuers[self.issuer].form;
        let tbs = match form.prepare(&request.csr.pem, &request.csr.name, number) {
            Ok(tbs) => tbs,
            Err(error) => return Seen::Nothing(error.to_string()),
        };
        let (answer, answered) = oneshot::channel();
        self.queue.put.fetch_add(1, Ordering::Relaxed);
        self.queue.queue(Job {
            issuer: self.issuer,
            name: request.csr.name.clone(),
            tbs,
            answer,
        });
        match timeout(self.patience.min(FRONT_LIMIT), answered).await {
            Ok(Ok(certificate)) => Seen::Issued {
                serial: format!("{number:032X}"),
                body: Bytes::from(certificate),
            },
            _ => Seen::Nothing("(HTTP 503)".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_in_ten_seconds_are_a_pause_that_doubles_and_is_forgotten() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut health = Health::default();
        for _ in 0..9 {
            health.failed(start);
        }
        assert_eq!(health.pause(start), None);
        // The others are too long ago.
        health.failed(after(11));
        assert_eq!(health.pause(after(11)), None);
        let mut fail = |seconds: u64| {
            for _ in 0..10 {
                health.failed(after(seconds));
            }
            health.pause(after(seconds))
        };
        assert_eq!(fail(12), Some(FIRST_PAUSE));
        assert_eq!(fail(14), Some(FIRST_PAUSE * 2));
        assert_eq!(fail(17), Some(FIRST_PAUSE * 4));
        assert_eq!(fail(22), Some(LONGEST_PAUSE));
        assert_eq!(fail(31), Some(LONGEST_PAUSE));
        assert_eq!(fail(100), Some(FIRST_PAUSE));
    }
}
