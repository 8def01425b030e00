//! Diseases of one issuer, one signer or all tokens, one at a time, while the clients of two healthy issuers ask: what they notice of it.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use domain::lane::Class;
use hsm_faults::Faults;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::{runtime::Runtime, task::JoinHandle};

use super::{
    Engine, INTERACTIVE_WAIT,
    asking::{Asked, Requested, Stream},
    bulkhead::{Bulkhead, Http, Layout},
    course::{self, Observed, requested},
    hardware::TOKENS,
    judge::{ALLOWED_RATIO, Figures},
    phase, poison,
    registry::Ask,
    say,
};

/// Of what Bulkhead can do, what the healthy issuers' clients ask for, and what the sick one's do.
const LOAD: f64 = 0.3;
const SICK_LOAD: f64 = 0.05;
/// The same of one who floods: as much again as all the others can have.
const FLOOD: f64 = 0.6;
/// How long it is quiet before, how long the disease lasts, and how long is watched afterwards.
const QUIET: Duration = Duration::from_secs(8);
const SICK: Duration = Duration::from_secs(8);
const WATCHED: Duration = Duration::from_secs(7);
/// The same of hardware that is sick altogether: no longer than clients wait.
const ALL_SICK: Duration = Duration::from_secs(3);
/// How long a key that flaps is well, and is not.
const FLAP: Duration = Duration::from_millis(500);
/// Connections of the sick issuer's clients.
const CONNECTIONS: usize = 64;
/// Within what hardware that is well again must be noticed.
const NOTICED: f64 = 5.0;

/// The issuers: two healthy ones, and one for each disease of an issuer. Healthy and sick ones share a token.
const HEALTHY: [&str; 2] = ["healthy-1", "healthy-2"];

/// How it is done.
#[derive(Debug, Args)]
pub struct Options {
    /// What Bulkhead runs on.
    #[arg(long, value_enum)]
    pub engine: Engine,
    /// Where the report goes, if anywhere: isolation.json, isolation.md
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Only these diseases
    #[arg(long = "only", value_enum, value_name = "DISEASE")]
    pub only: Vec<Disease>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disease {
    /// One issuer's key takes 700 ms for a signature
    SlowIssuer,
    /// Calls with one issuer's key never return
    HangingCall,
    /// One issuer's key fails every other half second
    FlappingKey,
    /// Valid requests to one issuer, more than everybody else makes
    Flood,
    /// Jobs of one issuer that kill whoever signs them, and messages in its lane that nobody can read
    Poison,
    /// Every token of one signer of three fails
    SickSigner,
    /// Every token of every signer fails for 3 s
    AllTokens,
}

impl Disease {
    const ALL: [Self; 7] = [
        Self::SlowIssuer,
        Self::HangingCall,
        Self::FlappingKey,
        Self::Flood,
        Self::Poison,
        Self::SickSigner,
        Self::AllTokens,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::SlowIssuer => "slow issuer",
            Self::HangingCall => "hanging HSM call",
            Self::FlappingKey => "flapping key",
            Self::Flood => "flood of valid requests to one issuer",
            Self::Poison => "poison",
            Self::SickSigner => "one sick signer of three",
            Self::AllTokens => "all tokens sick at once",
        }
    }

    /// The issuer that has it, or whose clients ask meanwhile.
    const fn issuer(self) -> &'static str {
        match self {
            Self::SlowIssuer => "slow",
            Self::HangingCall => "hanging",
            Self::FlappingKey => "flapping",
            Self::Flood => "flooded",
            Self::Poison => "poisoned",
            Self::SickSigner | Self::AllTokens => "bystander",
        }
    }

    /// Whether it takes several signers.
    const fn takes_many(self) -> bool {
        matches!(self, Self::SickSigner)
    }

    const fn lasts(self) -> Duration {
        match self {
            Self::AllTokens => ALL_SICK,
            _ => SICK,
        }
    }

    /// What the healthy issuers' clients may notice: everybody notices hardware that is sick altogether.
    fn is_passed(self, figures: &Figures) -> bool {
        let nothing_lost = figures.lost == 0 && figures.issued_twice == 0 && figures.recovered;
        if self == Self::AllTokens {
            return nothing_lost && figures.recovery_seconds < NOTICED;
        }
        nothing_lost
            && figures.healthy_failed == 0
            && figures.healthy_p99_ratio <= ALLOWED_RATIO
            && figures.recovery_seconds < 2.0
    }
}

/// One disease, as it went.
#[derive(Debug, Serialize)]
struct Row {
    disease: Disease,
    /// Why it was left out, if it was.
    left_out: Option<&'static str>,
    passed: bool,
    figures: Option<Figures>,
}

/// Every disease that this engine can have; whether all were passed.
pub fn run(options: &Options) -> Result<bool> {
    options.engine.check_packages()?;
    let runtime = Runtime::new()?;
    let rows = runtime.block_on(go_through(options))?;
    let page = page(options.engine, &rows);
    if let Some(directory) = &options.report {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        fs::write(
            directory.join("isolation.json"),
            serde_json::to_string_pretty(&rows)? + "\n",
        )?;
        fs::write(directory.join("isolation.md"), &page)?;
    }
    print!("{page}");
    Ok(rows.iter().all(|row| row.passed))
}

/// Two healthy issuers and those that fall ill, each with an account.
fn layout() -> Layout {
    let mut issuers = vec![(HEALTHY[0].to_owned(), TOKENS[0]), (HEALTHY[1].to_owned(), TOKENS[1])];
    for disease in Disease::ALL {
        if !issuers.iter().any(|(name, _)| name == disease.issuer()) {
            issuers.push((disease.issuer().to_owned(), TOKENS[0]));
        }
    }
    let asks = (0..issuers.len()).map(|issuer| Ask {
        issuer,
        class: Class::Interactive,
        wait: INTERACTIVE_WAIT,
    });
    Layout {
        asks: asks.collect(),
        issuers,
        healthy: HEALTHY.len(),
        fail_on_demand: true,
    }
}

async fn go_through(options: &Options) -> Result<Vec<Row>> {
    let bar = phase("starting Bulkhead", 1);
    let layout = layout();
    let names: Vec<String> = layout.issuers.iter().map(|(name, _)| name.clone()).collect();
    let bulkhead = Bulkhead::start(options.engine, layout).await?;
    bar.finish_and_clear();
    let capacity = course::capacity(&bulkhead, 40_000).await?;
    let mut rows = Vec::new();
    for disease in Disease::ALL {
        if !options.only.is_empty() && !options.only.contains(&disease) {
            continue;
        }
        if disease.takes_many() && options.engine == Engine::Embedded {
            rows.push(Row {
                disease,
                left_out: Some("needs several signers: rabbitmq only"),
                passed: true,
                figures: None,
            });
            continue;
        }
        let account = names.iter().position(|name| name == disease.issuer());
        let account = account.context("an issuer without an account")?;
        let figures = endure(&bulkhead, disease, account, capacity).await?;
        rows.push(Row {
            disease,
            left_out: None,
            passed: disease.is_passed(&figures),
            figures: Some(figures),
        });
    }
    if let Some(directory) = &options.report {
        bulkhead.installation.keep_logs(directory)?;
    }
    bulkhead.stop()?;
    Ok(rows)
}

/// One disease.
async fn endure(bulkhead: &Bulkhead, disease: Disease, account: usize, capacity: f64) -> Result<Figures> {
    let longest = QUIET + disease.lasts() + WATCHED + Duration::from_secs(3);
    let healthy = count(capacity * LOAD, longest);
    let rate = capacity * if disease == Disease::Flood { FLOOD } else { SICK_LOAD };
    let requests = requested(bulkhead.access(), healthy, "preparing requests")?;
    let others = requested(bulkhead.access(), count(rate, disease.lasts()), "preparing requests")?;
    let bar = phase(disease.name(), requests.len());
    let mut sufferers = None;
    let happening = async |start: Instant| {
        tokio::time::sleep(QUIET).await;
        let first_fault = start.elapsed();
        say(&bar, disease.name());
        sufferers = Some(suffer(bulkhead, disease, account, others.clone(), rate).await?);
        let last_fault = start.elapsed();
        tokio::time::sleep(WATCHED).await;
        Ok((first_fault, last_fault))
    };
    let seen: Observed = course::observe(bulkhead, &requests, capacity * LOAD, &bar, happening).await?;
    bar.finish_and_clear();
    let suffered = sufferers.context("the disease did not happen")?.await??;
    let answers = suffered.into_iter().flat_map(|asked| {
        let answers = [Some(asked.seen), asked.again];
        answers.into_iter().flatten().map(move |seen| (asked.request, seen))
    });
    let counted = course::settle(bulkhead, &seen, &answers.collect::<Vec<_>>()).await?;
    course::verify(bulkhead, &seen, &requests)?;
    Ok(seen.judge(counted).0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate times a time, both positive and small"
)]
fn count(per_second: f64, period: Duration) -> usize {
    (per_second * period.as_secs_f64()).ceil() as usize
}

/// The clients of the issuer that has it, who ask as long as it lasts and wait for their answers.
type Sufferers = JoinHandle<Result<Vec<Asked>>>;

/// The disease, from its beginning to its end.
async fn suffer(
    bulkhead: &Bulkhead,
    disease: Disease,
    account: usize,
    requests: Arc<[Requested]>,
    per_second: f64,
) -> Result<Sufferers> {
    let end = Instant::now() + disease.lasts();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| Http::new(bulkhead.account(account, number)))
        .collect();
    let stream = Stream::new(requests, Instant::now(), per_second, ProgressBar::hidden());
    let asking = tokio::spawn(stream.clone().run(clients));
    let id = disease.issuer().bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let all = &bulkhead.faults[..];
    match disease {
        Disease::SlowIssuer => set(all, &format!("sign slow=700 id={id}")),
        Disease::HangingCall => set(all, &format!("sign hang id={id}")),
        Disease::FlappingKey => {
            while Instant::now() < end {
                set(all, &format!("sign return=0x6 id={id}"));
                tokio::time::sleep(FLAP).await;
                set(all, "");
                tokio::time::sleep(FLAP).await;
            }
        }
        Disease::Flood => {}
        Disease::Poison => {
            set(all, &format!("sign crash id={id}"));
            poison::pour(&bulkhead.installation, disease.issuer()).await?;
        }
        Disease::SickSigner => set(&all[..1], "sign return=0x30"),
        Disease::AllTokens => set(all, "sign return=0x30"),
    }
    tokio::time::sleep_until(end.into()).await;
    set(all, "");
    stream.stop();
    Ok(asking)
}

fn set(faults: &[Faults], text: &str) {
    for faults in faults {
        faults.set(text);
    }
}

/// The table.
fn page(engine: Engine, rows: &[Row]) -> String {
    let mut page = format!(
        "# Isolation: {}\n\n\
         | disease | healthy requests | failed | p99 before, ms | three quiet windows | p99 during, ms | ratio | to normal, s | lost | twice | signers backed off | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
        engine.describe()
    );
    for row in rows {
        let name = row.disease.name();
        let verdict = if row.passed { "passed" } else { "**failed**" };
        let Some(figures) = &row.figures else {
            let why = row.left_out.unwrap_or_default();
            let _ = writeln!(page, "| {name} | | | | | | | | | | | {why} |");
            continue;
        };
        let windows: Vec<_> = figures.quiet_p99_ms.iter().map(|p99| format!("{p99:.1}")).collect();
        let normal = if figures.recovered {
            format!("{:.2}", figures.recovery_seconds)
        } else {
            format!("not within {:.0}", figures.recovery_seconds)
        };
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {:.1} | {} | {:.1} | {:.2} | {normal} | {} | {} | {} | {verdict} |",
            figures.healthy_requests,
            figures.healthy_failed,
            figures.healthy_p99_ms_before,
            windows.join(", "),
            figures.healthy_p99_ms_during,
            figures.healthy_p99_ratio,
            figures.lost,
            figures.issued_twice,
            figures.signers_backed_off_max
        );
    }
    page.push_str(
        "\nA disease is passed when no healthy request fails, none is lost or issued twice, p99 is at most 1.25 of what it was before, and \
         everything is normal within 2 s. What befalls all hardware at once is passed when nothing is lost or issued twice and everything is \
         normal within 5 s.\n",
    );
    page
}
