//! Forged, altered, repeated and misdirected messages of another client of the broker, while others go on asking for certificates:
//! everybody gets the certificate that was asked for, nobody any other, and what cannot be believed is counted and kept for inspection.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use domain::{
    id::{Incarnation, NodeId, Serial},
    lane::Lane,
    time::Timestamp,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use tests::{Grown, Key, load::Load};
use wire::{
    answer::{Answer, AnswerOutcome, Answers},
    envelope::Envelope,
    signed::{Context as Said, MAX_SEALED, NodeKey, seal},
};

use crate::{
    Bench, CLIENTS, PATIENCE,
    intruder::{Intruder, Message},
    settle,
};

/// The lane of the demo account's jobs, and another one that is served.
const LANE: &str = "demo-p256.interactive";
const OTHER_LANE: &str = "demo-rsa2048.interactive";
const QUARANTINE: &str = "bulkhead.quarantine";
/// What the quarantine keeps at most.
const KEPT: u64 = 10_000;
const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// True messages that are heard of each kind, and how often each is said again.
const HEARD: usize = 30;
const AGAIN: usize = 20;
/// Messages of 1 MiB, and small ones: each more than the quarantine keeps.
const LARGE: usize = 80;
const SMALL: usize = 11_000;
/// No longer than this goes by without a 201, nor without a certificate.
const GAP: Duration = Duration::from_secs(5);

const SET_ASIDE: (&str, [&str; 2]) = ("bulkhead_signer_quarantined_total", ["signer-1", "signer-2"]);
const REFUSED: (&str, [&str; 2]) = ("bulkhead_frontend_answers_refused_total", ["frontend-1", "frontend-2"]);
const WAITING: (&str, [&str; 2]) = ("bulkhead_frontend_waiting", REFUSED.1);

fn lane_queue(lane: &str) -> String {
    format!("bulkhead.lane.{lane}")
}

/// What the intruder does, and what is counted of it.
struct Attack {
    intruder: Intruder,
    table: comfy_table::Table,
    set_aside: u64,
    refused: u64,
}

impl Attack {
    async fn begin(grown: &Grown) -> Result<Self> {
        let mut table = comfy_table::Table::new();
        table.set_header(["message", "sent", "not believed", "believed, without effect"]);
        Ok(Self {
            intruder: Intruder::connect(grown).await?,
            table,
            set_aside: counted(grown, SET_ASIDE).await?,
            refused: counted(grown, REFUSED).await?,
        })
    }

    /// Sends envelopes that no signer may believe.
    async fn on_signers(&mut self, grown: &Grown, what: &str, messages: &[Message]) -> Result<()> {
        self.intruder.send(messages).await?;
        self.set_aside += messages.len() as u64;
        await_count(grown, SET_ASIDE, self.set_aside, what).await?;
        self.row(what, messages.len(), messages.len());
        Ok(())
    }

    /// Sends answers that no front end may believe.
    async fn on_frontends(&mut self, grown: &Grown, what: &str, messages: &[Message]) -> Result<()> {
        self.intruder.send(messages).await?;
        self.refused += messages.len() as u64;
        await_count(grown, REFUSED, self.refused, what).await?;
        self.row(what, messages.len(), messages.len());
        Ok(())
    }

    /// Sends what is true and said at the wrong time or place. Nothing is counted.
    async fn with_the_truth(&mut self, what: &str, messages: &[Message]) -> Result<()> {
        self.intruder.send(messages).await?;
        self.row(what, messages.len(), 0);
        Ok(())
    }

    fn row(&mut self, what: &str, sent: usize, counted: usize) {
        let (sent, counted, rest) = (sent.to_string(), counted.to_string(), (sent - counted).to_string());
        self.table.add_row([what, &sent, &counted, &rest]);
    }

    /// What is counted now is what was sent, and no more.
    async fn check(&self, grown: &Grown) -> Result<()> {
        let now = (counted(grown, SET_ASIDE).await?, counted(grown, REFUSED).await?);
        ensure!(
            now == (self.set_aside, self.refused),
            "{now:?} messages were not believed, of {} and {} that were sent",
            self.set_aside,
            self.refused
        );
        Ok(())
    }
}

async fn counted(grown: &Grown, (series, nodes): (&str, [&str; 2])) -> Result<u64> {
    Ok(grown.metric(nodes[0], series).await? + grown.metric(nodes[1], series).await?)
}

async fn await_count(grown: &Grown, series: (&str, [&str; 2]), expected: u64, what: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let counted = counted(grown, series).await?;
        if counted == expected {
            return Ok(());
        }
        ensure!(
            counted < expected && begun.elapsed() < PATIENCE,
            "{what}: {counted} of {expected} are counted in {}",
            series.0
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True messages.
struct Truth {
    envelopes: Vec<Vec<u8>>,
    /// Answers by the queue of their front end.
    answers: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Truth {
    async fn overhear(grown: &Grown, intruder: &Intruder) -> Result<Self> {
        let is_envelope = |message: &&Message| message.queue == lane_queue(LANE);
        let is_answer = |message: &&Message| message.queue.starts_with("bulkhead.answers.");
        let heard = intruder
            .overhear(grown, |heard| {
                let mut queues: BTreeMap<&str, usize> = BTreeMap::new();
                for answer in heard.iter().filter(is_answer) {
                    *queues.entry(&answer.queue).or_default() += 1;
                }
                heard.iter().filter(is_envelope).count() >= HEARD
                    && queues.len() == 2
                    && queues.values().all(|answers| *answers >= HEARD)
            })
            .await?;
        let mut answers: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for answer in heard.iter().filter(is_answer) {
            answers
                .entry(answer.queue.clone())
                .or_default()
                .push(answer.body.clone());
        }
        for answers in answers.values_mut() {
            answers.truncate(HEARD);
        }
        let envelopes = heard.iter().filter(is_envelope).take(HEARD);
        Ok(Self {
            envelopes: envelopes.map(|message| message.body.clone()).collect(),
            answers,
        })
    }

    /// Whom the answers of a queue are for.
    fn addressee(&self, queue: &str) -> Result<Incarnation> {
        let answer = &self.answers[queue][0];
        let read: Answers = serde_json::from_slice(body(answer)?)?;
        Ok(read.to)
    }
}

/// What a sealed message says.
fn body(sealed: &[u8]) -> Result<&[u8]> {
    let name = usize::from(*sealed.get(3).context("a short message")?);
    sealed.get(4 + name + 64..).context("a short message")
}

/// A message with one byte altered, at each of its places.
fn altered(message: &[u8]) -> Vec<Vec<u8>> {
    let alter = |place: usize| {
        let mut altered = message.to_vec();
        altered[place] ^= 1 << (place % 8);
        altered
    };
    (0..message.len()).map(alter).collect()
}

/// A message that ends early, at every eighth place, and one that goes on.
fn cut(message: &[u8]) -> Vec<Vec<u8>> {
    let cut = (0..message.len()).step_by(8).map(|length| message[..length].to_vec());
    cut.chain([[message, b"x"].concat()]).collect()
}

/// Bytes that mean nothing.
fn noise(length: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn all(queue: &str, bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<Message> {
    bodies.into_iter().map(|body| Message::to(queue, body)).collect()
}

fn now() -> Result<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(Timestamp::from_millis(i64::try_from(since.as_millis())?))
}

/// Keys that nobody knows, under names of nodes and under a name of its own.
fn strangers(role: &str) -> Result<Vec<NodeKey>> {
    let names = [format!("{role}-1"), format!("{role}-2"), "stranger-1".to_owned()];
    names
        .iter()
        .map(|name| Ok(NodeKey::generate(name.parse::<NodeId>()?)))
        .collect()
}

/// Envelopes of jobs that nobody has accepted.
fn inventions(lane: &Lane, count: u8) -> Result<Vec<Envelope>> {
    let now = now()?;
    let of = |number| Envelope::new(lane.clone(), vec![Serial::new(now, [number; 10])], now);
    Ok((0..count).map(of).collect())
}

/// What only a front end's own key could say, said with it: the intruder has stolen it from its disk.
fn with_a_stolen_key(grown: &Grown, truth: &Truth) -> Result<(Vec<Message>, Vec<Message>)> {
    let file = grown.directory().join("frontend-1/identity/node-frontend-1.pem");
    let key = PrivatePkcs8KeyDer::from_pem_file(&file).with_context(|| file.display().to_string())?;
    let key = NodeKey::from_pkcs8("frontend-1".parse()?, key.secret_pkcs8_der())?;
    let (lane, other): (Lane, Lane) = (LANE.parse()?, OTHER_LANE.parse()?);
    let mut harmless: Vec<Vec<u8>> = Vec::new();
    for invention in inventions(&lane, 50)? {
        harmless.push(invention.to_bytes(&key).to_vec());
    }
    let mut unbelievable = Vec::new();
    for envelope in &truth.envelopes {
        let read: Envelope = serde_json::from_slice(body(envelope)?)?;
        // Jobs that have ended, in their own lane and in one that is not theirs.
        harmless.push(envelope.clone());
        let misplaced = Envelope::new(other.clone(), read.jobs.clone(), read.sent_at);
        unbelievable.push(misplaced.to_bytes(&key).to_vec());
        let many = read
            .jobs
            .iter()
            .copied()
            .cycle()
            .take(lane.class.envelope_jobs() + 1)
            .collect();
        unbelievable.push(Envelope::new(lane.clone(), many, read.sent_at).to_bytes(&key).to_vec());
        unbelievable.push(seal(Said::Envelope, &key, br#"{"version":9}"#).to_vec());
        unbelievable.push(seal(Said::Envelope, &key, b"[]").to_vec());
    }
    let queue = lane_queue(LANE);
    Ok((all(&queue, harmless), all(&queue, unbelievable)))
}

/// Answers of all kinds for a job, to a front end.
fn lies(to: &Incarnation, job: Serial, key: &NodeKey) -> Result<Vec<Vec<u8>>> {
    let outcomes = [
        AnswerOutcome::Issued {
            signature: noise(71, 7).into(),
            at: now()?,
        },
        AnswerOutcome::Refused {
            id: "refused".into(),
            detail: "by nobody".into(),
        },
        AnswerOutcome::Expired,
        AnswerOutcome::Discarded {
            reason: "by nobody".into(),
        },
    ];
    let seal = |outcome| {
        Answers::new(to.clone(), vec![Answer { job, outcome }])
            .to_bytes(key)
            .to_vec()
    };
    Ok(outcomes.map(seal).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_certificate_or_an_answer_by_what_another_client_of_the_broker_says() -> Result<()> {
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;
    let fault = "another client of the broker forges, alters, repeats";
    let load = bench.load(fault);
    settle(2).await;
    let from = Instant::now();
    let mut attack = Attack::begin(&bench.grown).await?;
    let truth = Truth::overhear(&bench.grown, &attack.intruder).await?;
    on_signers(&bench.grown, &mut attack, &truth).await?;
    on_frontends(&bench.grown, &mut attack, &truth).await?;
    let stolen = attack.intruder.steal(&lane_queue(LANE), Duration::from_secs(5)).await?;
    attack.table.add_row([
        "envelopes taken away by another consumer",
        "-",
        "-",
        &stolen.to_string(),
    ]);
    inspect(&bench.grown, &attack).await?;
    let to = Instant::now();

    // The longest silence that clients see here is the intruder's own doing: signers are stopped meanwhile.
    answers_for_those_who_wait(&bench, &mut attack, &truth).await?;
    let tally = load.stop().await?;
    bench.conclude(fault, &tally, Some((from, to))).await?;
    let (accepted, issued) = tally.gaps(from, to);
    ensure!(
        accepted < GAP && issued < GAP,
        "{fault}: {accepted:?} without a 201, {issued:?} without a certificate"
    );
    ensure!(tally.failures() == 0, "{fault}: clients noticed it: {:?}", tally.failed);
    ensure!(
        !tally.answered.is_empty() && stolen > 0,
        "there was nothing to meddle with"
    );

    let beside = flood(&mut bench, &mut attack).await?;
    attack.check(&bench.grown).await?;
    println!("{}", attack.table);
    afterwards(bench, beside).await
}

async fn on_signers(grown: &Grown, attack: &mut Attack, truth: &Truth) -> Result<()> {
    let queue = lane_queue(LANE);
    let lane: Lane = LANE.parse()?;
    let first = &truth.envelopes[0];
    let mut forged = Vec::new();
    for key in strangers("frontend")? {
        for envelope in inventions(&lane, 50)? {
            forged.push(envelope.to_bytes(&key).to_vec());
        }
    }
    let what = "envelopes of unknown jobs, signed by strangers";
    attack.on_signers(grown, what, &all(&queue, forged)).await?;
    let mut forged = Vec::new();
    for key in strangers("frontend")? {
        for envelope in &truth.envelopes {
            forged.push(seal(Said::Envelope, &key, body(envelope)?).to_vec());
        }
    }
    let what = "true envelopes, signed anew by strangers";
    attack.on_signers(grown, what, &all(&queue, forged)).await?;
    let what = "a true envelope, each byte altered";
    attack.on_signers(grown, what, &all(&queue, altered(first))).await?;
    let what = "a true envelope, cut short (empty to whole) and lengthened";
    attack.on_signers(grown, what, &all(&queue, cut(first))).await?;
    let what = "true envelopes in the queue of another lane";
    let misplaced = all(&lane_queue(OTHER_LANE), truth.envelopes.iter().cloned());
    attack.on_signers(grown, what, &misplaced).await?;
    let what = "true answers in the queue of a lane";
    let answers = truth.answers.values().flatten().cloned();
    attack.on_signers(grown, what, &all(&queue, answers)).await?;
    let what = "true envelopes, each said again 20 times";
    let again = truth
        .envelopes
        .iter()
        .flat_map(|envelope| vec![envelope.clone(); AGAIN]);
    attack.with_the_truth(what, &all(&queue, again)).await?;
    let (harmless, unbelievable) = with_a_stolen_key(grown, truth)?;
    let what = "by a front end's stolen key: unknown jobs, ended jobs";
    attack.with_the_truth(what, &harmless).await?;
    let what = "by a front end's stolen key: another lane, too many jobs, another version, no envelope";
    attack.on_signers(grown, what, &unbelievable).await
}

async fn on_frontends(grown: &Grown, attack: &mut Attack, truth: &Truth) -> Result<()> {
    let queues: Vec<&String> = truth.answers.keys().collect();
    for (place, queue) in queues.iter().enumerate() {
        let answers = &truth.answers[*queue];
        let to = truth.addressee(queue)?;
        let mut forged = Vec::new();
        for key in strangers("signer")? {
            for answer in answers {
                forged.push(seal(Said::Answer, &key, body(answer)?).to_vec());
            }
            forged.extend(lies(&to, Serial::new(now()?, [9; 10]), &key)?);
        }
        let what = format!("answers to {}, signed by strangers", to.node);
        attack.on_frontends(grown, &what, &all(queue, forged)).await?;
        let what = format!("a true answer to {}, each byte altered", to.node);
        attack
            .on_frontends(grown, &what, &all(queue, altered(&answers[0])))
            .await?;
        let what = format!("a true answer to {}, cut short and lengthened", to.node);
        attack.on_frontends(grown, &what, &all(queue, cut(&answers[0]))).await?;
        let what = format!("true envelopes to {}", to.node);
        let envelopes = all(queue, truth.envelopes.iter().cloned());
        attack.on_frontends(grown, &what, &envelopes).await?;
        let what = format!("noise to {}, 1 MiB", to.node);
        let noise = (0..8).map(|seed| noise(MAX_SEALED, seed));
        attack.on_frontends(grown, &what, &all(queue, noise)).await?;
        let what = format!("true answers to {}, each said again 20 times", to.node);
        let again = answers.iter().flat_map(|answer| vec![answer.clone(); AGAIN]);
        attack.with_the_truth(&what, &all(queue, again)).await?;
        let other = queues[(place + 1) % queues.len()];
        let what = format!("true answers to {}, said to the other front end", to.node);
        attack
            .with_the_truth(&what, &all(other, answers.iter().cloned()))
            .await?;
    }
    Ok(())
}

/// Answers for jobs that clients wait for at this moment, before any true one: signers are stopped.
async fn answers_for_those_who_wait(bench: &Bench, attack: &mut Attack, truth: &Truth) -> Result<()> {
    let grown = &bench.grown;
    bench.hold_signers(true)?;
    let begun = Instant::now();
    // Front ends look four times a second how many wait.
    while counted(grown, WAITING).await? != CLIENTS as u64 {
        ensure!(begun.elapsed() < PATIENCE, "not every client waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let jobs = grown
        .postgres
        .psql(Grown::DATABASE, "SELECT encode(job, 'hex') FROM open")?;
    let mut forged = Vec::new();
    for job in jobs.lines() {
        for queue in truth.answers.keys() {
            for key in strangers("signer")? {
                forged.extend(all(queue, lies(&truth.addressee(queue)?, job.parse()?, &key)?));
            }
        }
    }
    let what = format!(
        "answers for the {} jobs that clients wait for, signed by strangers",
        jobs.lines().count()
    );
    attack.on_frontends(grown, &what, &forged).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let still = counted(grown, WAITING).await?;
    ensure!(still == CLIENTS as u64, "{still} of {CLIENTS} clients still wait");
    bench.hold_signers(false)?;
    settle(3).await;
    Ok(())
}

/// What was set aside lies in quarantine, with the reason; what could not be laid there was said in the log.
async fn inspect(grown: &Grown, attack: &Attack) -> Result<()> {
    let not_kept: usize = SET_ASIDE
        .1
        .map(|signer| grown.log(signer).matches("could not be kept").count())
        .iter()
        .sum();
    let kept = attack.intruder.waiting(QUARANTINE).await?;
    println!("{kept} messages in quarantine, {not_kept} could not be kept");
    ensure!(
        kept + not_kept as u64 == attack.set_aside,
        "{kept} messages lie in quarantine, {not_kept} could not be kept, of {}",
        attack.set_aside
    );
    let (body, headers) = attack.intruder.take(QUARANTINE).await?.context("an empty quarantine")?;
    let header = |name: &str| {
        headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    };
    ensure!(
        !body.is_empty() && header("lane") == Some(LANE) && header("reason").is_some_and(|reason| !reason.is_empty()),
        "{headers:?}"
    );
    Ok(())
}

/// More than the quarantine keeps, in bytes and in messages, in one lane; meanwhile others ask for certificates of another issuer. How
/// many they got.
async fn flood(bench: &mut Bench, attack: &mut Attack) -> Result<u64> {
    let queue = lane_queue(LANE);
    let mut neighbours = Vec::new();
    for frontend in REFUSED.1 {
        let mut client = bench.grown.client(frontend, 1)?;
        client.login().await?;
        neighbours.push(client);
    }
    let mut issued = 0;
    for (what, count, length, kept) in [
        ("noise, 1 MiB", LARGE, MAX_SEALED, KEPT_BYTES / MAX_SEALED as u64),
        ("noise, 64 bytes", SMALL, 64, KEPT),
    ] {
        let load = bench.load(&format!("{length} bytes of noise, again and again"));
        let beside = Load::with_key(&neighbours, CLIENTS, &format!("beside-{length}"), Key::rsa2048()?);
        settle(1).await;
        let from = Instant::now();
        let noise: Vec<Message> = (0..count)
            .map(|seed| Message::to(&queue, noise(length, seed)))
            .collect();
        attack.on_signers(&bench.grown, what, &noise).await?;
        let to = Instant::now();
        settle(2).await;
        let (tally, beside) = (load.stop().await?, beside.stop().await?);
        let fault = format!("lane flooded with {what}, {count} times in {} s", (to - from).as_secs());
        bench.conclude(&fault, &tally, Some((from, to))).await?;
        let certificates = beside.verify(&neighbours[0], PATIENCE).await?;
        let gaps = beside.gaps(from, to);
        bench
            .report
            .row("  another issuer meanwhile", &beside, certificates, Some(gaps));
        issued += certificates as u64;
        ensure!(
            tally.failures() + beside.failures() == 0,
            "{fault}: clients noticed it: {:?}, {:?}",
            tally.failed,
            beside.failed
        );
        ensure!(
            gaps.1 < GAP,
            "{fault}: another issuer gave no certificate for {:?}",
            gaps.1
        );
        within_limit(attack, kept).await?;
    }
    Ok(issued)
}

/// The quarantine keeps the newest, up to its limit.
async fn within_limit(attack: &Attack, limit: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let kept = attack.intruder.waiting(QUARANTINE).await?;
        if kept <= limit {
            println!("{kept} messages in quarantine, which keeps {limit} of these");
            ensure!(kept > limit / 2, "only {kept} messages are kept of more than {limit}");
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "the quarantine keeps {kept} messages, not {limit}"
        );
        settle(1).await;
    }
}

/// Every process issues as before, and there is nothing in the ledger that nobody asked for: of the account, and of others beside it.
async fn afterwards(mut bench: Bench, beside: u64) -> Result<()> {
    let load = bench.load("afterwards, nothing is amiss");
    let from = Instant::now();
    settle(3).await;
    let to = Instant::now();
    let tally = load.stop().await?;
    bench.conclude("none: afterwards", &tally, Some((from, to))).await?;
    ensure!(tally.failures() == 0, "clients notice something: {:?}", tally.failed);
    let ledger = bench.grown.postgres.psql(
        Grown::DATABASE,
        "SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM result), \
             (SELECT count(*) FROM result WHERE state = 'issued'), (SELECT count(*) FROM open)",
    )?;
    let accepted = bench.jobs() + beside;
    ensure!(
        ledger == format!("{accepted}|{accepted}|{accepted}|0"),
        "{accepted} jobs were accepted; requests, results, certificates and open jobs are {ledger}"
    );
    bench.end().await
}
