//! The incident of 28 October 2020, in its order: keys of six issuers are destroyed, nobody tells the front ends, OCSP signers of all nine
//! issuers ask for certificates, ask again when they time out, and are restarted, whereupon there are more of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use domain::{key::KeyType, lane::Class};
use hsm_faults::SoftHsm;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::{
    Glance, HEALTHY, INTERACTIVE_WAIT, ISSUERS, Options, RENEWAL_WAIT,
    asking::{Pool, Requested, Seen},
    bulkhead::{Bulkhead, Http, Layout},
    course::{self, Observed, System, requested},
    hardware::{self, TOKENS},
    phase,
    reference::{Issuer, OldClient, Reference},
    registry::Ask,
    report::{self, Report},
    say,
};
use crate::{bare::Form, client::Access, cpu, processors};

/// Healthy requests before and during the incident.
const REQUESTS: usize = 20_000;
const REQUESTS_QUICK: usize = 5_000;
/// Of what Bulkhead can do, what the healthy issuers' clients ask for.
const LOAD: f64 = 0.3;
/// Between the ceremony and the renewals.
const UNNOTICED: Duration = Duration::from_secs(1);
/// OCSP signers of each issuer, as a share of the certificates that Bulkhead can issue in a second, so that the incident weighs the same
/// everywhere; and how many times as many there are after the restart.
const OCSP_SIGNERS: f64 = 0.007;
const MULTIPLIED: usize = 3;
/// Over how long they begin to ask.
const SPREAD: Duration = Duration::from_secs(2);
/// When within the incident they are restarted.
const RESTART_AT: f64 = 0.4;
/// Clients of the reference: enough for a thousand requests a second of which each is made twice and waits 6 s both times.
const OLD_CLIENTS: usize = 16_384;

/// How long things take at least, however few requests there are.
#[derive(Clone, Copy)]
struct Pace {
    quiet: Duration,
    incident: Duration,
    /// How long Bulkhead is watched afterwards, and the reference, which nobody can expect to be well again soon.
    watched: Duration,
    reference_watched: Duration,
}

impl Options {
    fn pace(&self) -> Pace {
        let seconds = Duration::from_secs;
        let [quiet, incident, watched, reference_watched] = match self.requests {
            None => [6, 15, 8, 20].map(seconds),
            Some(_) => [4, 9, 5, 5].map(seconds),
        };
        Pace {
            quiet,
            incident,
            watched,
            reference_watched,
        }
    }
}

/// Replays it, and says whether every mark was met.
pub fn run(options: &Options) -> Result<bool> {
    options.engine.check_packages()?;
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
    let bulkhead = Bulkhead::start(options.engine, layout()).await?;
    bar.finish_and_clear();
    let capacity = course::capacity(&bulkhead, wanted * 12).await?;
    let course = Course::new(capacity, wanted, options.pace());
    let papers = Papers::new(bulkhead.access(), &course)?;

    let (own, start) = (cpu::own(), Instant::now());
    let bar = phase("Bulkhead", papers.healthy.len());
    let (seen, renewals) = course.run(&bulkhead, &papers, course.pace.watched, &bar).await?;
    bar.finish_and_clear();
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 processors")]
    let machine = start.elapsed().as_secs_f64() * processors() as f64;
    let generator_share = cpu::own().saturating_sub(own).as_secs_f64() / machine;
    let counted = course::settle(&bulkhead, &seen, &renewals).await?;
    course::verify(&bulkhead, &seen, &papers.healthy)?;
    let ours = seen.judge(counted);
    let fault_seconds = seen
        .marks
        .last_fault
        .saturating_sub(seen.marks.first_fault)
        .as_secs_f64();
    bulkhead.installation.keep_logs(&options.report)?;
    let hsm = bulkhead.stop()?;

    let old = Old::start(hsm)?;
    let bar = phase("the reference", papers.healthy.len());
    let (seen, _) = course.run(&old, &papers, course.pace.reference_watched, &bar).await?;
    bar.finish_and_clear();
    let counted = tokio::task::spawn_blocking(move || old.reference.stop()).await?;
    let reference = seen.judge(counted);

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
        fault_seconds,
        ours_by_second: ours.1,
        reference_by_second: reference.1,
    })
}

/// Everything that is asked for, of whichever system.
struct Papers {
    healthy: Arc<[Requested]>,
    renewals: Arc<[Requested]>,
}

impl Papers {
    fn new(access: &Access, course: &Course) -> Result<Self> {
        let longest = course.quiet
            + course.incident
            + course.pace.reference_watched.max(course.pace.watched)
            + Duration::from_secs(5);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate times a time, both positive and small"
        )]
        let healthy = (course.per_second * longest.as_secs_f64()).ceil() as usize;
        Ok(Self {
            healthy: requested(access, healthy, "preparing requests")?,
            renewals: requested(
                access,
                ISSUERS * course.signers * (1 + MULTIPLIED),
                "preparing renewals",
            )?,
        })
    }
}

/// A system to which this incident may happen.
trait Victim: System {
    /// An OCSP signer of an issuer.
    fn renewal(&self, issuer: usize, number: usize) -> Self::Client;
    /// The keys of six issuers are destroyed.
    fn ceremony(&self) -> impl Future<Output = Result<()>>;
    /// Operators mend what they can.
    fn mend(&self) -> impl Future<Output = Result<()>>;
}

impl Victim for Bulkhead {
    fn renewal(&self, issuer: usize, number: usize) -> Http {
        Http::new(self.account(HEALTHY + issuer, number))
    }

    /// Where the registry is a process of its own it is told at once, and the front ends hear nothing of it.
    async fn ceremony(&self) -> Result<()> {
        tokio::task::block_in_place(|| self.installation.cut_news())?;
        destroy(&self.hsm, &issuer)?;
        if self.installation.can_be_deaf() {
            end_issuers(self).await?;
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        if self.installation.can_be_deaf() {
            self.installation.mend_news().await
        } else {
            end_issuers(self).await
        }
    }
}

/// The registry is told that the issuers whose keys are gone are gone.
async fn end_issuers(bulkhead: &Bulkhead) -> Result<()> {
    for number in HEALTHY..ISSUERS {
        bulkhead
            .end_issuer(&issuer(number), "its key was destroyed in a ceremony")
            .await?;
    }
    Ok(())
}

/// The name of an issuer, and of its key.
fn issuer(number: usize) -> String {
    if number < HEALTHY {
        format!("healthy-{}", number + 1)
    } else {
        format!("retired-{}", number + 1 - HEALTHY)
    }
}

/// Nine issuers on two tokens: an account for those who wait of each healthy one, and one for OCSP signers of every one.
fn layout() -> Layout {
    let waiting = (0..HEALTHY).map(|issuer| Ask {
        issuer,
        class: Class::Interactive,
        wait: INTERACTIVE_WAIT,
    });
    let renewing = (0..ISSUERS).map(|issuer| Ask {
        issuer,
        class: Class::Renewal,
        wait: RENEWAL_WAIT,
    });
    Layout {
        issuers: (0..ISSUERS)
            .map(|number| (issuer(number), TOKENS[number % TOKENS.len()]))
            .collect(),
        healthy: HEALTHY,
        asks: waiting.chain(renewing).collect(),
        fail_on_demand: false,
    }
}

/// The reference, on the same tokens with keys of its own.
struct Old {
    hsm: SoftHsm,
    reference: Reference,
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
        Ok(Self { hsm, reference })
    }
}

impl System for Old {
    type Client = OldClient;

    async fn interactive(&self) -> Result<Vec<OldClient>> {
        let patience = Duration::from_secs(INTERACTIVE_WAIT.into());
        Ok((0..OLD_CLIENTS)
            .map(|number| self.reference.client(number % HEALTHY, patience))
            .collect())
    }

    async fn glance(&self) -> Result<Glance> {
        Ok(Glance {
            depth: self.reference.depth() as u64,
            backing_off: self.reference.backing_off() as u64,
        })
    }
}

impl Victim for Old {
    fn renewal(&self, issuer: usize, _: usize) -> OldClient {
        self.reference.client(issuer, Duration::from_secs(RENEWAL_WAIT.into()))
    }

    async fn ceremony(&self) -> Result<()> {
        destroy(&self.hsm, &old_key)
    }

    /// Nothing but what ends the renewals: the retired issuers are taken out of the OCSP signers' configuration.
    async fn mend(&self) -> Result<()> {
        Ok(())
    }
}

fn destroy(hsm: &SoftHsm, name: &impl Fn(usize) -> String) -> Result<()> {
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
    /// OCSP signers of each issuer.
    signers: usize,
    pace: Pace,
}

impl Course {
    /// So long that there are `wanted` healthy requests before the first fault, and as many before the last one ends.
    fn new(capacity: f64, wanted: usize, pace: Pace) -> Self {
        let per_second = capacity * LOAD;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate, positive and small"
        )]
        let signers = ((capacity * OCSP_SIGNERS).ceil() as usize).clamp(2, 60);
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
        let enough = Duration::from_secs_f64(wanted as f64 / per_second) + Duration::from_millis(500);
        Self {
            per_second,
            quiet: enough.max(pace.quiet),
            incident: enough.max(pace.incident),
            signers,
            pace,
        }
    }

    /// Makes it happen to a system: what was seen of it, and by the OCSP signers.
    async fn run<S: Victim>(
        &self,
        system: &S,
        papers: &Papers,
        watched: Duration,
        bar: &ProgressBar,
    ) -> Result<(Observed, Vec<(usize, Seen)>)> {
        let mut pool = Pool::default();
        let happening = async |start: Instant| {
            let until = |after: Duration| tokio::time::sleep_until((start + after).into());
            until(self.quiet).await;
            let first_fault = start.elapsed();
            say(bar, "keys are destroyed");
            system.ceremony().await?;
            tokio::time::sleep(UNNOTICED).await;
            say(bar, "OCSP signers renew");
            join(system, &mut pool, papers, 0..self.signers);
            until(self.quiet + self.incident.mul_f64(RESTART_AT)).await;
            say(bar, "OCSP signers are restarted");
            pool.restart().await;
            join(system, &mut pool, papers, self.signers..self.signers * (1 + MULTIPLIED));
            until(self.quiet + self.incident).await;
            say(bar, "recovery");
            let last_fault = self.recover(system, &mut pool, start).await?;
            until(last_fault + watched).await;
            Ok((first_fault, last_fault))
        };
        let seen = course::observe(system, &papers.healthy, self.per_second, bar, happening).await?;
        Ok((seen, pool.end().await))
    }

    /// What ends the incident: the OCSP signers stop, and operators do what they can. When the last fault ended.
    async fn recover<S: Victim>(&self, system: &S, pool: &mut Pool, start: Instant) -> Result<Duration> {
        pool.restart().await;
        let last_fault = start.elapsed();
        system.mend().await?;
        Ok(last_fault)
    }
}

/// OCSP signers of these numbers, of each issuer, begin to ask.
fn join<S: Victim>(system: &S, pool: &mut Pool, papers: &Papers, numbers: std::ops::Range<usize>) {
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
