//! One trace from a client's request through the broker to the signature and back, as a collector gets it; and a collector that is away,
//! fails or is late disturbs nobody.

mod collector;
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use collector::{Collector, Mood};
use serde_json::Value;
use tests::{
    Client, Deployment, Grown, Key,
    load::{self, Load, Tally},
};
use tree::{Stage, Tree, time};

const PATIENCE: Duration = Duration::from_mins(1);
/// Clients that ask while the collector is treated badly, and for how long each time.
const CLIENTS: usize = 6;
const EACH: Duration = Duration::from_secs(6);
/// Certificates that are asked for while the collector does not answer: their spans are more than anybody keeps.
const UNHEARD: usize = 1_500;
/// Processes that send spans in these tests.
const SENDERS: [&str; 2] = ["frontend-1", "signer-1"];
/// What a process says, once an outage.
const LOST: &str = "spans are lost until it does";
const AGAIN: &str = "the collector takes spans again";
/// The collector is away, then fails (perhaps the same outage to a process), is late now and then, never answers.
const OUTAGES: usize = 4;
/// Nothing came for this long: nothing waits any more. Processes send every 5 s.
const QUIET: Duration = Duration::from_secs(11);
/// Spans that a process keeps at most: those that wait (2,048), and the batch that is being sent (512).
const KEPT: usize = 2_048 + 512;

/// The span of a client that takes part in a trace.
struct Caller {
    trace: String,
    span: String,
}

impl Caller {
    fn new() -> Self {
        Self {
            trace: hex::encode(runtime::clock::entropy::<16>()),
            span: hex::encode(runtime::clock::entropy::<8>()),
        }
    }

    fn header(&self, is_recorded: bool) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(is_recorded))
    }
}

/// Asks for a certificate and has it in the answer: its serial, and the request as it was sent.
async fn issue(client: &Client, name: &str, traceparent: Option<&str>) -> Result<(String, String, Key)> {
    let key = Key::p256()?;
    let request = key.request(name)?;
    let mut headers = vec![("Prefer", "wait=20")];
    headers.extend(traceparent.map(|value| ("traceparent", value)));
    let answer = client.post(&request, name, &headers).await?;
    ensure!(answer.status == 201 && !answer.body.is_null(), "{name}: {answer:?}");
    Ok((answer.serial()?.to_owned(), request, key))
}

/// The stages of a certificate's way.
fn stages<'a>(frontend: &'a str, signer: &'a str) -> [Stage<'a>; 9] {
    [
        ("request", frontend, None),
        ("admit", frontend, Some("request")),
        ("accept", frontend, Some("admit")),
        ("publish", frontend, Some("admit")),
        ("issue", signer, Some("publish")),
        ("check", signer, Some("issue")),
        ("sign", signer, Some("issue")),
        ("record", signer, Some("issue")),
        ("answered", frontend, Some("record")),
    ]
}

/// Issues one certificate within a client's trace; nothing of requests that are not to be recorded; the spans that came, while everything
/// goes on running.
async fn follow(collector: &Collector, client: &Client, stages: &[Stage<'_>], secret: &str) -> Result<Tree> {
    // Whatever is made when it is first needed is made.
    issue(client, "unrecorded-1.example.com", None).await?;
    let unwanted = Caller::new().header(false);
    issue(client, "unrecorded-2.example.com", Some(&unwanted)).await?;

    let caller = Caller::new();
    let name = "recorded.example.com";
    let (serial, request, key) = issue(client, name, Some(&caller.header(true))).await?;
    let spans = collector.trace(&caller.trace, stages.len(), PATIENCE).await?;
    let tree = Tree::check(spans, &caller.span, &serial, stages)?;

    let token = client.token().context("not logged in")?;
    let lines = request.lines().filter(|line| !line.starts_with('-'));
    let texts = [secret, token, "Bearer", name].into_iter().chain(lines);
    for secret in texts.map(str::as_bytes).chain([key.public_key().as_slice()]) {
        ensure!(
            !collector.has_seen(secret),
            "spans hold what is nobody's business: {}",
            String::from_utf8_lossy(secret)
        );
    }
    Ok(tree)
}

fn secret(context: &Value) -> Result<&str> {
    context["accounts"][0]["api_secret"].as_str().context("no api_secret")
}

/// A deployment whose processes send their spans here.
async fn observed(collector: &Collector, frontends: usize, ratio: f64) -> Result<Grown> {
    let grown = Grown::new(frontends, 1).await?;
    for node in grown.nodes()? {
        let (role, _) = node.split_once('-').context("a node is called ROLE-NUMBER")?;
        grown.append(&node, &collector.configuration(&format!("bulkhead-{role}"), ratio))?;
    }
    grown.set_up()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_through_the_broker_to_the_signature_and_back() -> Result<()> {
    let collector = Collector::start().await?;
    let mut grown = observed(&collector, 2, 0.0).await?;
    let mut client = grown.client("frontend-2", 0)?;
    client.login().await?;
    let context = serde_json::from_slice(&fs::read(grown.context())?)?;
    let stages = stages("frontend-2", "signer-1");
    let tree = follow(&collector, &client, &stages, secret(&context)?).await?;
    for (stage, service) in [("request", "bulkhead-frontend"), ("issue", "bulkhead-signer")] {
        ensure!(tree.stage(stage)?.service == service, "{stage} is not of {service}");
    }
    // Processes that end send what they still have.
    grown.stop_all()?;
    ensure!(
        collector.sent().len() == stages.len(),
        "spans came that nobody asked for: {:?}",
        collector.sent()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_sends_the_same_trace() -> Result<()> {
    let collector = Collector::start().await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("bulkhead.toml");
    fs::write(&file, collector.configuration("bulkhead-up", 0.0))?;
    let file = file.display().to_string();
    let mut deployment = Deployment::started(&["--config", &file])?;
    let mut client = deployment.client(0)?;
    client.login().await?;
    let stages = stages("", "");
    let tree = follow(&collector, &client, &stages, secret(deployment.ready())?).await?;
    ensure!(tree.stage("sign")?.service == "bulkhead-up", "another service");
    deployment.stop()?;
    ensure!(
        collector.sent().len() == stages.len(),
        "spans came that nobody asked for"
    );
    Ok(())
}

/// What was done to the collector, and what clients and processes noticed.
struct Bench {
    collector: Collector,
    grown: Grown,
    at: Vec<Client>,
    table: comfy_table::Table,
}

impl Bench {
    /// Every accepted job has its certificate, and nobody was refused; one line of the table. `before` is what the collector had got.
    async fn conclude(&mut self, state: &str, tally: &Tally, before: usize) -> Result<()> {
        let certificates = tally.verify(&self.at[0], PATIENCE).await?;
        ensure!(
            tally.failures() == 0 && certificates > CLIENTS,
            "{state}: {certificates} certificates, and clients met {:?}",
            tally.failed
        );
        self.table.add_row([
            state.to_owned(),
            certificates.to_string(),
            (self.collector.sent().len() - before).to_string(),
            memory(&self.grown, "frontend-1")?.to_string(),
            memory(&self.grown, "signer-1")?.to_string(),
            said(&self.grown, "signer-1", LOST).to_string(),
        ]);
        Ok(())
    }

    /// Waits until every process has said so often that spans are lost and that they come again.
    async fn wait(&self, what: &str, is_so: impl Fn(usize, usize) -> bool) -> Result<()> {
        let begun = Instant::now();
        for node in SENDERS {
            while !is_so(said(&self.grown, node, LOST), said(&self.grown, node, AGAIN)) {
                ensure!(begun.elapsed() < PATIENCE, "{node} does not say that it is {what}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

/// How often the log of a process holds this.
fn said(grown: &Grown, node: &str, text: &str) -> usize {
    grown.log(node).lines().filter(|line| line.contains(text)).count()
}

/// Memory that a process has now, in MiB.
fn memory(grown: &Grown, node: &str) -> Result<u64> {
    let id = grown.id(node).with_context(|| format!("{node} does not run"))?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? / 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_fails_or_is_late_disturbs_nobody() -> Result<()> {
    let collector = Collector::start().await?;
    let grown = observed(&collector, 1, 1.0).await?;
    let mut client = grown.client("frontend-1", 0)?;
    client.login().await?;
    let mut table = comfy_table::Table::new();
    table.set_header([
        "the collector",
        "certificates",
        "spans that came",
        "front end, MiB",
        "signer, MiB",
        "signer said so, times",
    ]);
    let mut bench = Bench {
        collector,
        grown,
        at: vec![client],
        table,
    };

    let takes = Mood::Takes(Duration::ZERO);
    for (state, mood, is_reached, gets) in [
        ("takes all", takes, true, true),
        ("is away", takes, false, false),
        ("answers 500", Mood::Fails, true, false),
        ("answers after 4 s", Mood::Takes(Duration::from_secs(4)), true, true),
    ] {
        if !is_reached {
            bench.collector.link.cut();
        }
        bench.collector.set(mood);
        // What was on its way has arrived.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (sent, calls) = (bench.collector.sent().len(), bench.collector.calls());
        let load = Load::start(&bench.at, CLIENTS, &state.replace(' ', "-"));
        tokio::time::sleep(EACH).await;
        let tally = load.stop().await?;
        bench.conclude(state, &tally, sent).await?;
        let begun = Instant::now();
        while (bench.collector.calls() > calls, bench.collector.sent().len() > sent) != (is_reached, gets) {
            ensure!(begun.elapsed() < PATIENCE, "{state}: who sends what?");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bench.collector.link.restore();
    }

    // What waits for a collector that never answers is bounded: most of these spans are lost, and nothing else. It begins when every
    // process has been heard again, and lasts until every process has given up on it, however fast the certificates are there.
    bench.collector.set(takes);
    bench.wait("heard again", |lost, again| lost == again).await?;
    let never = Mood::Takes(Duration::from_hours(1));
    bench.collector.set(never);
    let sent = bench.collector.sent().len();
    let from = now();
    let tally = load::post(&bench.at, UNHEARD, "never").await?;
    bench.conclude("never answers", &tally, sent).await?;
    let to = now();
    bench.wait("not heard", |lost, again| lost > again).await?;
    bench.collector.set(takes);
    let mut kept = BTreeMap::new();
    let (mut last, mut quiet) = (0, Instant::now());
    while quiet.elapsed() < QUIET {
        let sent = bench.collector.sent();
        if sent.len() > last {
            (last, quiet) = (sent.len(), Instant::now());
        }
        kept.clear();
        for sent in sent.iter().filter(|sent| (from..to).contains(&time(sent).0)) {
            *kept.entry(sent.instance.clone()).or_insert(0) += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{}", bench.table);
    println!("of {UNHEARD} certificates that were issued while it never answered, {kept:?} spans were kept for it");
    for node in SENDERS {
        let kept = kept.get(node).copied().unwrap_or(0);
        ensure!((1..=KEPT).contains(&kept), "{node} kept {kept} spans");
    }

    for node in SENDERS {
        let (lost, again) = (said(&bench.grown, node, LOST), said(&bench.grown, node, AGAIN));
        ensure!(
            (2..=OUTAGES).contains(&lost),
            "{node} said {lost} times that spans are lost"
        );
        ensure!(
            lost == again,
            "{node} said {lost} times that spans are lost, and {again} times that they come again"
        );
    }

    // All is as before; and a process ends in good order while nobody takes its last spans.
    let caller = Caller::new();
    let (serial, ..) = issue(&bench.at[0], "afterwards.example.com", Some(&caller.header(true))).await?;
    let stages = stages("frontend-1", "signer-1");
    let spans = bench.collector.trace(&caller.trace, stages.len(), PATIENCE).await?;
    Tree::check(spans, &caller.span, &serial, &stages)?;
    bench.collector.set(never);
    issue(&bench.at[0], "at-the-end.example.com", None).await?;
    bench.grown.stop_all()
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
