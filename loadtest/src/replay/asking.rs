//! Clients: those who ask at a fixed rate whatever the answers take, and those who ask again and again until they have what they want.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use indicatif::ProgressBar;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::subject::Csr;

/// How long an impatient client that was turned away holds back.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Every so many answers one is kept, to be looked into afterwards.
const SAMPLE_EVERY: usize = 256;

/// One request: the same whoever is asked, and however often.
pub struct Requested {
    /// The key, and its name.
    pub csr: Csr,
    /// The JSON document.
    pub body: Bytes,
}

/// What a client saw of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The certificate.
    Issued {
        /// Its serial.
        serial: String,
        /// The whole answer.
        body: Bytes,
    },
    /// A promise.
    Accepted(String),
    /// Nothing: why.
    Nothing(String),
}

impl Seen {
    pub const fn is_issued(&self) -> bool {
        matches!(self, Self::Issued { .. })
    }
}

/// One client, with one request at a time.
pub trait Asker: Send + 'static {
    /// Asks once.
    fn ask(&mut self, request: &Requested) -> impl Future<Output = Seen> + Send;
}

/// One request, as it went.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When it was due, since the start.
    pub due: Duration,
    /// From then to the answer.
    pub took: Duration,
    /// Which it was.
    pub request: usize,
    /// The answer. Bodies are kept of some only.
    pub seen: Seen,
    /// What came of asking once more, where the first answer held no certificate.
    pub again: Option<Seen>,
}

/// Requests at a fixed rate.
pub struct Stream {
    requests: Arc<[Requested]>,
    start: Instant,
    per_second: f64,
    next: AtomicUsize,
    /// How many become due; known in the end.
    limit: AtomicUsize,
    due: Semaphore,
    stop: CancellationToken,
    bar: ProgressBar,
}

impl Stream {
    /// One that begins now.
    pub fn new(requests: Arc<[Requested]>, start: Instant, per_second: f64, bar: ProgressBar) -> Arc<Self> {
        Arc::new(Self {
            next: AtomicUsize::new(0),
            limit: AtomicUsize::new(requests.len()),
            requests,
            start,
            per_second,
            due: Semaphore::new(0),
            stop: CancellationToken::new(),
            bar,
        })
    }

    /// No further request becomes due.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Asks until told to stop, and waits for every answer.
    pub async fn run(self: Arc<Self>, askers: Vec<impl Asker>) -> Result<Vec<Asked>> {
        let pacer = {
            let (stream, clients) = (self.clone(), askers.len());
            thread::spawn(move || stream.keep_pace(clients))
        };
        let mut working = JoinSet::new();
        for asker in askers {
            working.spawn(self.clone().work(asker));
        }
        let mut all: Vec<Asked> = working.join_all().await.into_iter().flatten().collect();
        pacer.join().ok().context("the pacer panicked")?;
        all.sort_by_key(|asked| asked.due);
        Ok(all)
    }

    fn due_at(&self, number: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
        let offset = number as f64 / self.per_second;
        Duration::from_secs_f64(offset)
    }

    /// Lets one request begin whenever one is due. A thread of its own: timers of the runtime are a millisecond coarse.
    fn keep_pace(&self, clients: usize) {
        for number in 0..self.requests.len() {
            let wait = (self.start + self.due_at(number)).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if self.stop.is_cancelled() {
                self.limit.store(number, Ordering::Release);
                break;
            }
            self.due.add_permits(1);
        }
        // What was due is still done; whoever waits now finds nothing left to do.
        self.due.add_permits(clients);
    }

    async fn work(self: Arc<Self>, mut asker: impl Asker) -> Vec<Asked> {
        let mut all = Vec::new();
        loop {
            if let Ok(permit) = self.due.acquire().await {
                permit.forget();
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.limit.load(Ordering::Acquire) {
                return all;
            }
            let (request, due) = (&self.requests[number], self.due_at(number));
            let mut seen = asker.ask(request).await;
            let took = (self.start + due).elapsed();
            let again = if seen.is_issued() {
                None
            } else {
                Some(asker.ask(request).await)
            };
            if let Seen::Issued { body, .. } = &mut seen
                && !number.is_multiple_of(SAMPLE_EVERY)
            {
                *body = Bytes::new();
            }
            self.bar.inc(1);
            all.push(Asked {
                due,
                took,
                request: number,
                seen,
                again,
            });
        }
    }
}

/// Impatient clients: each wants one certificate, and asks for it again as soon as an answer does not hold it.
#[derive(Default)]
pub struct Pool {
    asking: JoinSet<()>,
    stop: CancellationToken,
    answers: Arc<Mutex<Vec<(usize, Seen)>>>,
}

impl Pool {
    /// Another client, which wants this. It begins after a while.
    pub fn join<A: Asker>(&mut self, mut asker: A, requests: &Arc<[Requested]>, number: usize, after: Duration) {
        let (requests, answers, stop) = (requests.clone(), self.answers.clone(), self.stop.clone());
        self.asking.spawn(async move {
            let ask = async {
                tokio::time::sleep(after).await;
                loop {
                    let seen = asker.ask(&requests[number]).await;
                    let (is_issued, is_refused) = (seen.is_issued(), matches!(seen, Seen::Nothing(_)));
                    answers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((number, seen));
                    if is_issued {
                        return;
                    }
                    if is_refused {
                        tokio::time::sleep(IMPATIENCE).await;
                    }
                }
            };
            stop.run_until_cancelled(ask).await;
        });
    }

    /// Every client goes away, in the midst of whatever it does.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        while self.asking.join_next().await.is_some() {}
        self.stop = CancellationToken::new();
    }

    /// Every answer: which request, and what was seen.
    pub async fn end(mut self) -> Vec<(usize, Seen)> {
        self.restart().await;
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses the first so many, and takes so long for each.
    #[derive(Clone)]
    struct Grumbler {
        refused: Arc<AtomicUsize>,
        takes: Duration,
    }

    impl Grumbler {
        fn new(refused: usize, takes: Duration) -> Self {
            Self {
                refused: Arc::new(AtomicUsize::new(refused)),
                takes,
            }
        }
    }

    impl Asker for Grumbler {
        async fn ask(&mut self, request: &Requested) -> Seen {
            tokio::time::sleep(self.takes).await;
            let left = self
                .refused
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() {
                return Seen::Accepted(request.csr.name.clone());
            }
            Seen::Issued {
                serial: request.csr.name.clone(),
                body: Bytes::from_static(b"certificate"),
            }
        }
    }

    fn requests(count: usize) -> Arc<[Requested]> {
        let made = (0..count).map(|number| Requested {
            csr: Csr {
                name: number.to_string(),
                pem: String::new(),
                spki: Vec::new(),
            },
            body: Bytes::new(),
        });
        made.collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_counts_from_when_a_request_was_due_and_asks_once_more() {
        let stream = Stream::new(requests(40), Instant::now(), 400.0, ProgressBar::hidden());
        // One client answers 50 a second: the last request is some 700 ms late.
        let asked = stream
            .run(vec![Grumbler::new(1, Duration::from_millis(20))])
            .await
            .unwrap();
        assert_eq!(asked.len(), 40);
        assert!(asked[39].took > Duration::from_millis(500), "{:?}", asked[39].took);
        assert!(asked.windows(2).all(|pair| pair[0].due < pair[1].due));
        let again = asked.iter().filter(|asked| asked.again.is_some()).count();
        assert!(
            again == 1 && asked[0].again.as_ref().is_some_and(Seen::is_issued),
            "{again}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_that_is_stopped_ends_with_every_client() {
        for _ in 0..20 {
            let stream = Stream::new(requests(10_000), Instant::now(), 2_000.0, ProgressBar::hidden());
            let running = tokio::spawn(stream.clone().run(vec![Grumbler::new(0, Duration::ZERO); 16]));
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.stop();
            let asked = running.await.unwrap().unwrap();
            assert!(!asked.is_empty() && asked.len() < 10_000);
            assert!((0..).zip(&asked).all(|(number, asked)| asked.request == number));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_impatient_client_asks_until_it_has_its_certificate_or_is_restarted() {
        let (requests, mut pool) = (requests(2), Pool::default());
        pool.join(Grumbler::new(3, Duration::from_millis(1)), &requests, 0, Duration::ZERO);
        pool.join(
            Grumbler::new(usize::MAX, Duration::from_millis(1)),
            &requests,
            1,
            Duration::ZERO,
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
        let answers = pool.end().await;
        let of = |number: usize| {
            answers
                .iter()
                .filter(move |(of, _)| *of == number)
                .map(|(_, seen)| seen)
        };
        assert_eq!(
            of(0).map(Seen::is_issued).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert!(of(1).count() > 4 && !of(1).any(Seen::is_issued));
    }
}
