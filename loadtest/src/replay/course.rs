//! How a system is watched while something happens to it: what it can do, clients who ask at a fixed rate, what becomes of their jobs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use domain::{job::State, key::KeyType};
use indicatif::ProgressBar;

use super::{
    Glance,
    asking::{Asked, Asker, Requested, Seen, Stream},
    bulkhead::{Bulkhead, Http},
    judge::{self, Counted, Figures, Marks, Moment, Second},
    phase,
};
use crate::{client::Access, processors, subject};

/// Connections over which healthy issuers' clients ask.
pub const CONNECTIONS: usize = 128;
/// How long is measured what Bulkhead can do.
const CAPACITY: Duration = Duration::from_secs(6);
/// The most requests with which it is measured.
const CAPACITY_REQUESTS: usize = 60_000;
/// How often is looked how things are.
const GLANCE: Duration = Duration::from_millis(250);
/// How long jobs may take to come to an end once everything is well.
const SETTLED: Duration = Duration::from_secs(30);

/// A system to which something may happen.
pub trait System {
    type Client: Asker;

    /// Clients of the healthy issuers, of which there are so many that a slow system delays none.
    fn interactive(&self) -> impl Future<Output = Result<Vec<Self::Client>>>;
    /// How it is.
    fn glance(&self) -> impl Future<Output = Result<Glance>>;
}

impl System for Bulkhead {
    type Client = Http;

    async fn interactive(&self) -> Result<Vec<Http>> {
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS {
            clients.push(Http::connected(self.interactive(number)).await?);
        }
        Ok(clients)
    }

    async fn glance(&self) -> Result<Glance> {
        self.glance().await
    }
}

/// Certificates a second that Bulkhead issues, with its shipped limits, to as many clients as there are connections. No request is made
/// twice while `wanted` is enough.
pub async fn capacity(bulkhead: &Bulkhead, wanted: usize) -> Result<f64> {
    let wanted = wanted.clamp(CONNECTIONS, CAPACITY_REQUESTS);
    let papers = requested(bulkhead.access(), wanted, "preparing requests")?;
    let clients = System::interactive(bulkhead).await?;
    let bar = phase("measuring what Bulkhead can do", 1);
    // A warm-up of a third as long does not count.
    let begin = Instant::now() + CAPACITY / 3;
    let end = begin + CAPACITY;
    let mut asking = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let papers = papers.clone();
        asking.spawn(async move {
            let mut issued = 0_u32;
            for paper in (0..papers.len()).cycle().skip(number * papers.len() / CONNECTIONS) {
                let is_issued = client.ask(&papers[paper]).await.is_issued();
                let now = Instant::now();
                issued += u32::from(is_issued && now >= begin && now < end);
                if now >= end {
                    break;
                }
            }
            issued
        });
    }
    let issued: u32 = asking.join_all().await.into_iter().sum();
    bar.finish_and_clear();
    ensure!(
        issued > 0,
        "no certificate was issued: {:?}",
        bulkhead.installation.logs()?
    );
    Ok(f64::from(issued) / CAPACITY.as_secs_f64())
}

/// Requests for keys of their own.
pub fn requested(access: &Access, count: usize, what: &'static str) -> Result<Arc<[Requested]>> {
    let bar = phase(what, count);
    let made = subject::requests(KeyType::P256, count, processors(), &|| bar.inc(1))?;
    bar.finish_and_clear();
    let requested = made.into_iter().map(|csr| Requested {
        body: access.body(&csr),
        csr,
    });
    Ok(requested.collect())
}

/// What was seen of a system.
pub struct Observed {
    /// The healthy issuers' clients.
    asked: Vec<Asked>,
    moments: Vec<Moment>,
    pub marks: Marks,
}

/// Lets something happen to a system, which says when the first fault came and when the last one ended, while the healthy issuers' clients
/// ask.
pub async fn observe<S: System>(
    system: &S,
    requests: &Arc<[Requested]>,
    per_second: f64,
    bar: &ProgressBar,
    happening: impl AsyncFnOnce(Instant) -> Result<(Duration, Duration)>,
) -> Result<Observed> {
    let clients = system.interactive().await?;
    let start = Instant::now();
    let stream = Stream::new(requests.clone(), start, per_second, bar.clone());
    let asking = tokio::spawn(stream.clone().run(clients));
    let mut moments = Vec::new();
    let (first_fault, last_fault) = tokio::select! {
        happened = happening(start) => happened?,
        failed = watch(system, start, &mut moments) => bail!("cannot see how the system is: {failed:#}"),
    };
    stream.stop();
    let end = start.elapsed();
    let asked = asking.await.context("asking ended early")??;
    Ok(Observed {
        asked,
        moments,
        marks: Marks {
            first_fault,
            last_fault,
            end,
        },
    })
}

impl Observed {
    /// The figures, and the plot's seconds.
    pub fn judge(&self, counted: Counted) -> (Figures, Vec<Second>) {
        (
            judge::figures(&self.asked, &self.moments, self.marks, counted),
            judge::seconds(&self.asked, &self.moments, self.marks),
        )
    }
}

/// Looks how the system is, until it cannot be seen: why.
async fn watch<S: System>(system: &S, start: Instant, moments: &mut Vec<Moment>) -> anyhow::Error {
    loop {
        match system.glance().await {
            Ok(Glance { depth, backing_off }) => moments.push(Moment {
                at: start.elapsed(),
                depth,
                backing_off,
            }),
            Err(error) => return error,
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Waits until every job that was accepted has come to an end, and counts those that have none and those that have two.
pub async fn settle(bulkhead: &Bulkhead, seen: &Observed, others: &[(usize, Seen)]) -> Result<Counted> {
    let healthy = seen.asked.iter().flat_map(|asked| {
        let answers = [Some(&asked.seen), asked.again.as_ref()];
        answers
            .into_iter()
            .flatten()
            .map(move |seen| ((true, asked.request), seen))
    });
    let others = others.iter().map(|(number, seen)| ((false, *number), seen));
    let mut certificates: HashMap<(bool, usize), HashSet<String>> = HashMap::new();
    let mut open: HashMap<String, (bool, usize)> = HashMap::new();
    for (request, answer) in healthy.chain(others) {
        match answer {
            Seen::Issued { serial, .. } => {
                certificates.entry(request).or_default().insert(serial.clone());
            }
            Seen::Accepted(serial) => {
                open.insert(serial.clone(), request);
            }
            Seen::Nothing(_) => {}
        }
    }
    let bar = phase("waiting for every job to end", open.len());
    let until = Instant::now() + SETTLED;
    let mut lost = 0;
    for (serial, request) in open {
        loop {
            match bulkhead.state(&serial).await? {
                Some(State::Issued) => {
                    certificates.entry(request).or_default().insert(serial);
                }
                Some(State::Queued | State::Signing | State::Parked) if Instant::now() < until => {
                    tokio::time::sleep(GLANCE).await;
                    continue;
                }
                None | Some(State::Queued | State::Signing | State::Parked) => lost += 1,
                Some(State::Refused | State::Expired | State::Discarded) => {}
            }
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let issued_twice = certificates.values().filter(|serials| serials.len() > 1).count();
    Ok(Counted { lost, issued_twice })
}

/// Checks that some of the answers hold certificates for the keys that were requested.
pub fn verify(bulkhead: &Bulkhead, seen: &Observed, requests: &[Requested]) -> Result<()> {
    let bodies: Vec<Bytes> = requests.iter().map(|paper| paper.body.clone()).collect();
    let samples: Vec<(usize, Bytes)> = seen
        .asked
        .iter()
        .filter_map(|asked| match &asked.seen {
            Seen::Issued { body, .. } if !body.is_empty() => Some((asked.request, body.clone())),
            _ => None,
        })
        .collect();
    bulkhead.access().verify(&samples, &bodies)
}
