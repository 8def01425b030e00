//! The incident of 28 October 2020, in its order: keys of six issuers are destroyed, nobody tells the front ends, OCSP signers of all nine
//! issuers ask for certificates, ask again when they time out, and are restarted, whereupon there are more of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use domain::{job::State, key::KeyType};
use hsm_faults::SoftHsm;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::{
    Engine, Glance, HEALTHY, ISSUERS, Options, RENEWAL_WAIT,
    asking::{Asked, Asker, Pool, Requested, Seen, Stream},
    bulkhead::{Bulkhead, Http, INTERACTIVE_WAIT, issuer},
    hardware::{self, TOKENS},
    judge::{self, Counted, Figures, Marks, Moment, Second},
    phase,
    reference::{Issuer, OldClient, Reference},
    report::{self, Report},
    say,
};
use crate::{
    bare::Form,
    client::Access,
    cpu,
    packages::{self, Package},
    processors, subject,
};

/// Healthy requests before and during the incident.
const REQUESTS: usize = 20_000;
const REQUESTS_QUICK: usize = 5_000;
/// Of what Bulkhead can do, what the healthy issuers' clients ask for.
const LOAD: f64 = 0.3;
/// Connections over which they ask.
const CONNECTIONS: usize = 128;
/// How long is measured what Bulkhead can do.
const CAPACITY: Duration = Duration::from_secs(6);
/// Between the ceremony and the renewals.
const UNNOTICED: Duration = Duration::from_secs(1);
/// OCSP signers of each issuer, and how many times as many there are after the restart.
const OCSP_SIGNERS: usize = 20;
const MULTIPLIED: usize = 3;
/// Over how long they begin to ask.
const SPREAD: Duration = Duration::from_secs(2);
/// When within the incident they are restarted.
const RESTART_AT: f64 = 0.4;
/// How long Bulkhead is watched afterwards, and the reference, which nobody can expect to be well again soon.
const WATCHED: Duration = Duration::from_secs(8);
const REFERENCE_WATCHED: Duration = Duration::from_secs(20);
/// How often is looked how things are.
const GLANCE: Duration = Duration::from_millis(250);
/// How long jobs may take to come to an end once the registry knows.
const SETTLED: Duration = Duration::from_secs(30);

/// Replays it, and says whether every mark was met.
pub fn run(options: &Options) -> Result<bool> {
    packages::check(&[Package::SoftHsm])?;
    let runtime = Runtime::new()?;
    let report = runtime.block_on(replay(options))?;
    report.write(&options.report)?;
    print!("{}", report.page());
    Ok(report.passed)
}

async fn replay(options: &Options) -> Result<Report> {
    let wanted = options
        .requests
        .unwrap_or(if options.quick { REQUESTS_QUICK } else { REQUESTS });
    let bar = phase("starting Bulkhead, nine issuers on two tokens", 1);
    let bulkhead = match options.engine {
        Engine::Embedded => Bulkhead::embedded().await?,
    };
    bar.finish_and_clear();
    let capacity = capacity(&bulkhead, wanted).await?;
    let course = Course::new(capacity * LOAD, wanted);
    let papers = Papers::new(bulkhead.access(), &course)?;

    let (own, start) = (cpu::own(), Instant::now());
    let bar = phase("Bulkhead", papers.healthy.len());
    let seen = course.run(&bulkhead, &papers, WATCHED, &bar).await?;
    bar.finish_and_clear();
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 processors")]
    let machine = start.elapsed().as_secs_f64() * processors() as f64;
    let generator_share = cpu::own().saturating_sub(own).as_secs_f64() / machine;
    let counted = settle(&bulkhead, &seen).await?;
    verify(&bulkhead, &seen, &papers)?;
    let ours = seen.judge(counted);
    let hsm = bulkhead.stop().await?;

    let old = Old::start(hsm)?;
    let bar = phase("the reference", papers.healthy.len());
    let seen = course.run(&old, &papers, REFERENCE_WATCHED, &bar).await?;
    bar.finish_and_clear();
    let counted = Counted {
        lost: 0,
        issued_twice: old.reference.issued_twice(),
    };
    let reference = seen.judge(counted);
    tokio::task::spawn_blocking(move || old.reference.stop()).await?;

    let marks = report::marks(&ours.0, &reference.0, wanted);
    Ok(Report {
        incident: "atlas",
        engine: options.engine,
        passed: marks.iter().all(|mark| mark.met),
        marks,
        ours: ours.0,
        reference: reference.0,
        capacity_per_second: capacity,
        healthy_per_second: course.per_second,
        generator_share,
        ours_by_second: ours.1,
        reference_by_second: reference.1,
    })
}

/// Certificates a second that Bulkhead issues, with its shipped limits, to as many clients as there are connections.
async fn capacity(bulkhead: &Bulkhead, wanted: usize) -> Result<f64> {
    let papers = requested(bulkhead.access(), wanted.max(CONNECTIONS), "preparing requests")?;
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        clients.push(Http::connected(bulkhead.interactive(number)).await?);
    }
    let bar = phase("measuring what Bulkhead can do", 1);
    // A warm-up of a third as long does not count.
    let begin = Instant::now() + CAPACITY / 3;
    let end = begin + CAPACITY;
    let mut asking = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let papers = papers.clone();
        asking.spawn(async move {
            let mut issued = 0_u32;
            // A key whose certificate is issued may be certified anew.
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
    ensure!(issued > 0, "no certificate was issued:\n{}", bulkhead.log());
    Ok(f64::from(issued) / CAPACITY.as_secs_f64())
}

fn requested(access: &Access, count: usize, what: &'static str) -> Result<Arc<[Requested]>> {
    let bar = phase(what, count);
    let made = subject::requests(KeyType::P256, count, processors(), &|| bar.inc(1))?;
    bar.finish_and_clear();
    let requested = made.into_iter().map(|csr| Requested {
        body: access.body(&csr),
        csr,
    });
    Ok(requested.collect())
}

/// Everything that is asked for, of whichever system.
struct Papers {
    healthy: Arc<[Requested]>,
    renewals: Arc<[Requested]>,
}

impl Papers {
    fn new(access: &Access, course: &Course) -> Result<Self> {
        let longest = course.quiet + course.incident + REFERENCE_WATCHED.max(WATCHED) + Duration::from_secs(5);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate times a time, both positive and small"
        )]
        let healthy = (course.per_second * longest.as_secs_f64()).ceil() as usize;
        Ok(Self {
            healthy: requested(access, healthy, "preparing requests")?,
            renewals: requested(access, ISSUERS * OCSP_SIGNERS * (1 + MULTIPLIED), "preparing renewals")?,
        })
    }
}

/// A system to which an incident may happen.
trait System {
    type Client: Asker;

    /// A client of a healthy issuer, of which there are so many that a slow system delays none.
    fn interactive(&self) -> impl Future<Output = Result<Vec<Self::Client>>>;
    /// An OCSP signer of an issuer.
    fn renewal(&self, issuer: usize, number: usize) -> Self::Client;
    /// The keys of six issuers are destroyed.
    fn ceremony(&self) -> impl Future<Output = Result<()>>;
    /// Operators mend what they can.
    fn mend(&self) -> impl Future<Output = Result<()>>;
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

    fn renewal(&self, issuer: usize, number: usize) -> Http {
        Http::new(self.renewal(issuer, number))
    }

    async fn ceremony(&self) -> Result<()> {
        destroy(&self.hsm, &issuer).await
    }

    async fn mend(&self) -> Result<()> {
        self.tell_registry().await
    }

    async fn glance(&self) -> Result<Glance> {
        self.glance().await
    }
}

/// The reference, on the same tokens with keys of its own.
struct Old {
    hsm: SoftHsm,
    reference: Reference,
    /// Clients enough for a rate at which each may wait twice.
    clients: usize,
}

fn old_key(number: usize) -> String {
    format!("old-{}", issuer(number))
}

impl Old {
    fn start(hsm: SoftHsm) -> Result<Self> {
        let tokens = || {
            TOKENS
                .iter()
                .map(|label| hardware::open(&hsm, label))
                .collect::<Result<Vec<_>>>()
        };
        let making = tokens()?;
        let issuers = (0..ISSUERS).map(|number| {
            let (key, token) = (old_key(number), number % TOKENS.len());
            let made = making[token].generate(&key, KeyType::P256)?;
            let form = Form::new(made.key_type, made.public_key)?;
            Ok(Issuer { key, token, form })
        });
        let issuers = issuers.collect::<Result<Vec<_>>>()?;
        let reference = Reference::start(issuers, tokens)?;
        Ok(Self {
            hsm,
            reference,
            clients: 16_384,
        })
    }
}

impl System for Old {
    type Client = OldClient;

    async fn interactive(&self) -> Result<Vec<OldClient>> {
        let patience = Duration::from_secs(INTERACTIVE_WAIT.into());
        Ok((0..self.clients)
            .map(|number| self.reference.client(number % HEALTHY, patience))
            .collect())
    }

    fn renewal(&self, issuer: usize, _: usize) -> OldClient {
        self.reference.client(issuer, Duration::from_secs(RENEWAL_WAIT.into()))
    }

    async fn ceremony(&self) -> Result<()> {
        destroy(&self.hsm, &old_key).await
    }

    async fn mend(&self) -> Result<()> {
        // Nothing but what ends the renewals: taking the retired issuers out of the OCSP signers' configuration.
        Ok(())
    }

    async fn glance(&self) -> Result<Glance> {
        Ok(Glance {
            depth: self.reference.depth() as u64,
            backing_off: self.reference.backing_off() as u64,
        })
    }
}

async fn destroy(hsm: &SoftHsm, name: &impl Fn(usize) -> String) -> Result<()> {
    let keys: Vec<_> = (HEALTHY..ISSUERS)
        .map(|number| (number % TOKENS.len(), name(number)))
        .collect();
    tokio::task::block_in_place(|| hardware::destroy(hsm, &keys))
}

/// How fast, and how long.
struct Course {
    per_second: f64,
    quiet: Duration,
    incident: Duration,
}

/// What was seen of a system.
struct Observed {
    asked: Vec<Asked>,
    renewals: Vec<(usize, Seen)>,
    moments: Vec<Moment>,
    marks: Marks,
}

impl Observed {
    fn judge(&self, counted: Counted) -> (Figures, Vec<Second>) {
        (
            judge::figures(&self.asked, &self.moments, self.marks, counted),
            judge::seconds(&self.asked, &self.moments, self.marks),
        )
    }
}

impl Course {
    /// So long that there are `wanted` healthy requests before the first fault, and as many before the last one ends.
    fn new(per_second: f64, wanted: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
        let enough = Duration::from_secs_f64(wanted as f64 / per_second) + Duration::from_millis(500);
        Self {
            per_second,
            quiet: enough.max(Duration::from_secs(6)),
            incident: enough.max(Duration::from_secs(15)),
        }
    }

    /// Makes it happen to a system.
    async fn run<S: System>(
        &self,
        system: &S,
        papers: &Papers,
        watched: Duration,
        bar: &ProgressBar,
    ) -> Result<Observed> {
        let clients = system.interactive().await?;
        let start = Instant::now();
        let stream = Stream::new(papers.healthy.clone(), start, self.per_second, bar.clone());
        let asking = tokio::spawn(stream.clone().run(clients));
        let mut moments = Vec::new();
        let mut pool = Pool::default();
        let happening = async {
            tokio::time::sleep_until((start + self.quiet).into()).await;
            let first_fault = start.elapsed();
            say(bar, "keys are destroyed");
            system.ceremony().await?;
            tokio::time::sleep(UNNOTICED).await;
            say(bar, "OCSP signers renew");
            join(system, &mut pool, papers, 0..OCSP_SIGNERS);
            let restart = self.quiet + self.incident.mul_f64(RESTART_AT);
            tokio::time::sleep_until((start + restart).into()).await;
            say(bar, "OCSP signers are restarted");
            pool.restart().await;
            join(system, &mut pool, papers, OCSP_SIGNERS..OCSP_SIGNERS * (1 + MULTIPLIED));
            tokio::time::sleep_until((start + self.quiet + self.incident).into()).await;
            say(bar, "recovery");
            pool.restart().await;
            let last_fault = start.elapsed();
            system.mend().await?;
            tokio::time::sleep_until((start + last_fault + watched).into()).await;
            anyhow::Ok((first_fault, last_fault))
        };
        let (first_fault, last_fault) = tokio::select! {
            happened = happening => happened?,
            failed = watch(system, start, &mut moments) => bail!("cannot see how the system is: {failed:#}"),
        };
        stream.stop();
        let end = start.elapsed();
        let asked = asking.await.context("asking ended early")??;
        Ok(Observed {
            asked,
            renewals: pool.end().await,
            moments,
            marks: Marks {
                first_fault,
                last_fault,
                end,
            },
        })
    }
}

/// OCSP signers of these numbers, of each issuer, begin to ask.
fn join<S: System>(system: &S, pool: &mut Pool, papers: &Papers, numbers: std::ops::Range<usize>) {
    let count = u32::try_from(numbers.len() * ISSUERS).unwrap_or(u32::MAX);
    let clients = numbers.flat_map(|number| (0..ISSUERS).map(move |issuer| (number, issuer)));
    for (position, (number, issuer)) in (0..).zip(clients) {
        let asker = system.renewal(issuer, number);
        pool.join(
            asker,
            &papers.renewals,
            number * ISSUERS + issuer,
            SPREAD * position / count,
        );
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
async fn settle(bulkhead: &Bulkhead, seen: &Observed) -> Result<Counted> {
    let healthy = seen.asked.iter().flat_map(|asked| {
        let answers = [Some(&asked.seen), asked.again.as_ref()];
        answers
            .into_iter()
            .flatten()
            .map(move |seen| ((true, asked.request), seen))
    });
    let renewals = seen.renewals.iter().map(|(number, seen)| ((false, *number), seen));
    let mut certificates: HashMap<(bool, usize), HashSet<String>> = HashMap::new();
    let mut open: HashMap<String, (bool, usize)> = HashMap::new();
    for (request, answer) in healthy.chain(renewals) {
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
fn verify(bulkhead: &Bulkhead, seen: &Observed, papers: &Papers) -> Result<()> {
    let bodies: Vec<Bytes> = papers.healthy.iter().map(|paper| paper.body.clone()).collect();
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
