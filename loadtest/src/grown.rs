//! Load on the grown-up deployment: a private RabbitMQ and PostgreSQL, control, front ends and signers as processes of their own, on this
//! machine, and beside it the raw round trips that the same broker makes.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tests::Grown;
use tokio::runtime::Runtime;

use crate::{Load, client::Session, cpu::Watched, fill, progress, report::Report, round_trips, run_loops};

/// What is deployed.
#[derive(Args)]
pub struct Deployed {
    /// Front ends. Connections are spread over them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    frontends: u8,
    /// Signers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    signers: u8,
    /// The account that requests.
    #[arg(long, default_value = "demo-p256")]
    account: String,
    /// Certificates issued beforehand, so that the ledger has grown.
    #[arg(long, default_value_t = 0)]
    fill: usize,
    /// Raw round trips at a time.
    #[arg(long, default_value_t = 128)]
    window: usize,
    /// How long raw round trips are made, in seconds; 0 leaves them out.
    #[arg(long, default_value_t = 10)]
    round_trip_seconds: u64,
}

/// Starts the deployment, measures, and stops it.
pub fn run(deployed: &Deployed, load: &Load, report: &mut Report) -> Result<()> {
    let runtime = Runtime::new()?;
    let bar = progress("starting RabbitMQ, PostgreSQL and the processes", 1);
    let making = Grown::new(deployed.frontends.into(), deployed.signers.into());
    let grown = runtime.block_on(making)?;
    grown.append("control-1", "[accounts]\nrequests_per_second = 100000")?;
    let mut grown = grown.set_up()?;
    bar.finish_and_clear();
    let broker = Watched(vec![(
        "rabbitmq".to_owned(),
        grown.rabbitmq.id().context("RabbitMQ does not run")?,
    )]);
    if deployed.round_trip_seconds > 0 {
        let uri = format!("amqp://guest:guest@{}/%2f", grown.rabbitmq.address());
        let period = Duration::from_secs(deployed.round_trip_seconds);
        let measured = round_trips::measure(&uri, &broker, deployed.window, period);
        report.round_trips = Some(runtime.block_on(measured)?);
    }

    let nodes = grown.nodes()?;
    let mut watched: Vec<(String, u32)> = nodes
        .iter()
        .chain([&"control-1".to_owned()])
        .filter_map(|node| Some((node.clone(), grown.id(node)?)))
        .collect();
    watched.push((
        "postgresql".to_owned(),
        grown.postgres.id().context("PostgreSQL does not run")?,
    ));
    watched.extend(broker.0);
    let urls = nodes.iter().filter(|node| node.starts_with("frontend")).map(|node| {
        let url = grown.ready(node)?["url"].as_str().map(str::to_owned);
        url.with_context(|| format!("{node} says no url"))
    });
    let urls: Vec<String> = urls.collect::<Result<_>>()?;
    let session = Session::open(&grown.context(), &urls, Some(&deployed.account), 1, load.wait)?;
    let server = Watched(watched);
    if deployed.fill > 0 {
        let mut filled = Report::default();
        fill(&session, &server, deployed.fill, load.connections, &mut filled)?;
        report.runs.append(&mut filled.runs);
    }
    let filled = report.runs.len();
    let before = runtime.block_on(batches(&grown, &nodes))?;
    run_loops(&session, &server, load, report)?;
    let after = runtime.block_on(batches(&grown, &nodes))?;
    report.batches = std::iter::zip(after, before)
        .map(|((name, jobs, count), (_, jobs_before, count_before))| {
            (name.to_owned(), jobs - jobs_before, count - count_before)
        })
        .collect();
    let closed = report.runs.get(filled).filter(|_| !load.open_only);
    let rate = closed.map(|run| run.per_second);
    if let (Some(raw), Some(rate)) = (&mut report.round_trips, rate) {
        raw.share = Some(rate / raw.per_second);
    }
    grown.stop_all()
}

/// What is done for several jobs at a time, with the sums of two series of all processes: jobs, and how often.
const BATCHES: [(&str, &str, &str); 4] = [
    (
        "accepted in one commit",
        "bulkhead_frontend_accept_batch_jobs_sum",
        "bulkhead_frontend_accept_batch_jobs_count",
    ),
    (
        "in one envelope",
        "bulkhead_frontend_accept_batch_jobs_sum",
        "bulkhead_frontend_envelopes_published_total",
    ),
    (
        "begun in one commit",
        "bulkhead_signer_begin_jobs_sum",
        "bulkhead_signer_begin_jobs_count",
    ),
    (
        "finished in one commit",
        "bulkhead_signer_finish_jobs_sum",
        "bulkhead_signer_finish_jobs_count",
    ),
];

async fn batches(grown: &Grown, nodes: &[String]) -> Result<Vec<(&'static str, u64, u64)>> {
    let mut batches = Vec::new();
    for (name, jobs, count) in BATCHES {
        let mut sums = (0, 0);
        for node in nodes {
            sums.0 += grown.metric(node, jobs).await?;
            sums.1 += grown.metric(node, count).await?;
        }
        batches.push((name, sums.0, sums.1));
    }
    Ok(batches)
}
