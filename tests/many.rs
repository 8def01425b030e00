//! Thousands of issuers in one installation, each with a key and an account of its own: what they cost, and that each of them issues,
//! whether its lane has a queue of its own or not.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use domain::bytes::Blob;
use engines::rabbitmq::Setup;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber};
use serde_json::Value;
use tests::{Client, Grown, Key};
use wire::{
    admin::{AddAccount, NewAccount, Past, PrivateKey, RegisterIssuer},
    client::{AdminClient, TlsFiles},
};

/// Issuers, unless [`COUNT`] says another number. Most of the time goes into making them: 5,000 take some minutes.
const ISSUERS: usize = 2_000;
/// The environment variable that says how many.
const COUNT: &str = "BULKHEAD_TEST_ISSUERS";
/// Issuers that are asked for a certificate, of each kind.
const ASKED: usize = 125;
/// Descriptors that the broker may open: `ulimit -n`.
const DESCRIPTORS: u64 = 20_000;
/// Commands to control, and clients, at a time.
const AT_ONCE: usize = 4;
/// Lanes with queues of their own (`broker.amqp.own_lanes`).
const OWN_LANES: usize = 200;
/// Connections that are opened, and how long one may take on a busy machine.
const CONNECTIONS: usize = 20;
const CONNECTION_LIMIT: Duration = Duration::from_secs(2);
/// How long processes are watched while nobody asks.
const REST: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn each_of_thousands_of_issuers_issues() -> Result<()> {
    let broker = Setup {
        descriptors: Some(DESCRIPTORS),
        ..Setup::default()
    };
    let mut grown = Grown::with_broker(1, 1, broker).await?.set_up()?;
    let mut told = comfy_table::Table::new();
    told.set_header(["what", "how much"]);

    let issuers = std::env::var(COUNT).map_or(Ok(ISSUERS), |count| count.parse())?;
    ensure!(issuers >= 100, "{COUNT}: {issuers} are not many");
    let accounts = register(&grown, issuers).await?;
    let head = accounts.iter().map(|account| account.revision).max().unwrap_or(0);
    for node in ["frontend-1", "signer-1"] {
        let took = follow(&grown, node, head).await?;
        told.add_row([
            format!("{node} has applied the last of them after, ms"),
            took.as_millis().to_string(),
        ]);
    }
    let (files, bytes) = size(&grown.directory().join("keys/soft"))?;
    told.add_row([format!("{files} key files, KiB"), (bytes / 1024).to_string()]);

    // Nobody asks for anything.
    let before = [
        cpu(&grown, "control-1")?,
        cpu(&grown, "frontend-1")?,
        cpu(&grown, "signer-1")?,
    ];
    tokio::time::sleep(REST).await;
    for (node, before) in ["control-1", "frontend-1", "signer-1"].into_iter().zip(before) {
        let percent = cpu(&grown, node)?.saturating_sub(before).as_secs_f64() / REST.as_secs_f64() * 100.0;
        told.add_row([format!("{node} at rest, % of a core"), format!("{percent:.1}")]);
    }

    let opened = connect(&grown).await?;
    told.add_row([
        "a connection to the broker opens, median and longest of 20, ms".to_owned(),
        format!(
            "{} {}",
            opened[CONNECTIONS / 2].as_millis(),
            opened[CONNECTIONS - 1].as_millis()
        ),
    ]);

    // Everybody counts lanes in the order of their names: the first ones have queues.
    let (own, ledger) = accounts.split_at((OWN_LANES / 2).min(issuers / 2));
    for (kind, of) in [("own", own), ("ledger", ledger)] {
        let step = (of.len() / ASKED).max(1);
        let asked: Vec<_> = of.iter().step_by(step).take(ASKED).cloned().collect();
        let mut took = ask(&grown, asked, kind).await?;
        took.sort_unstable();
        told.add_row([
            format!("{} issuers with {kind} lanes issue, median and longest, ms", took.len()),
            format!(
                "{} {}",
                took[took.len() / 2].as_millis(),
                took[took.len() - 1].as_millis()
            ),
        ]);
    }

    // What a signer had begun when it died is found, among thousands of lanes, by the one that comes after it.
    let some: Vec<_> = accounts.iter().step_by(issuers / 40).cloned().collect();
    let mut posted = Vec::new();
    for account in &some {
        let client = log_in(&grown.client("frontend-1", 0)?, account).await?;
        let name = format!("killed-{}.example.com", account.account.id);
        let answer = client.post(&Key::p256()?.request(&name)?, &name, &[]).await?;
        ensure!(answer.status == 201, "{name}: {answer:?}");
        posted.push((client, answer.serial()?.to_owned()));
    }
    grown.kill("signer-1")?;
    let begun = Instant::now();
    grown.start("signer-1")?;
    grown.wait("signer-1")?;
    for (client, serial) in &posted {
        client.certificate(serial, PATIENCE).await?;
    }
    told.add_row([
        format!("{} jobs are issued after SIGKILL of their signer in, ms", posted.len()),
        begun.elapsed().as_millis().to_string(),
    ]);
    let log = grown.log("signer-1");
    let unasked = log.lines().find(|line| line.contains("the ledger could not be asked"));
    ensure!(unasked.is_none(), "{unasked:?}");

    for node in ["signer-1", "frontend-1", "control-1"] {
        told.add_row([format!("{node} has, MiB"), memory(&grown, node)?.to_string()]);
        grown.stop(node)?;
        let begun = Instant::now();
        grown.start(node)?;
        grown.wait(node)?;
        told.add_row([
            format!("{node} starts again in, ms"),
            begun.elapsed().as_millis().to_string(),
        ]);
    }
    let again: Vec<_> = accounts.iter().rev().step_by(issuers / 10).cloned().collect();
    ask(&grown, again, "again").await?;
    println!("{told}");
    grown.stop_all()
}

/// Registers issuers, with their keys, and an account for each, as an operator's script does: by the operators' API. They are named in
/// their order.
async fn register(grown: &Grown, issuers: usize) -> Result<Vec<NewAccount>> {
    let context: Value = serde_json::from_slice(&fs::read(grown.context())?)?;
    let path = |value: &Value| value.as_str().map(|path| Path::new(path).to_owned()).context("no path");
    let operator = &context["operators"][0];
    let (ca, certificate, key) = (
        path(&context["tls_ca_file"])?,
        path(&operator["cert_file"])?,
        path(&operator["key_file"])?,
    );
    let files = TlsFiles {
        ca: &ca,
        certificate: &certificate,
        key: &key,
    };
    let admin = Arc::new(AdminClient::new(
        context["admin_url"].as_str().context("no admin_url")?,
        &files,
    )?);
    let client = fs::read_to_string(path(&context["client_cert_file"])?)?;
    let root = Arc::new(Root::new()?);

    let mut table = comfy_table::Table::new();
    table.set_header(["issuers", "each takes, ms"]);
    let mut accounts = Vec::with_capacity(issuers);
    let begun = Instant::now();
    for part in 0..10 {
        let began = Instant::now();
        let (from, to) = (part * issuers / 10, (part + 1) * issuers / 10);
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|worker| {
                let (admin, root, client) = (admin.clone(), root.clone(), client.clone());
                tokio::spawn(async move {
                    let mut made = Vec::new();
                    for number in (from + worker..to).step_by(AT_ONCE) {
                        made.push(add(&admin, &root, number, &client).await?);
                    }
                    anyhow::Ok(made)
                })
            })
            .collect();
        for task in tasks {
            accounts.extend(task.await??);
        }
        let each = began.elapsed().as_secs_f64() * 1000.0 / f64::from(u32::try_from(to - from)?);
        table.add_row([format!("{from} to {to}"), format!("{each:.1}")]);
    }
    accounts.sort_by(|one, other| one.account.id.cmp(&other.account.id));
    println!(
        "{issuers} issuers and accounts by the operators' API in {} s",
        begun.elapsed().as_secs()
    );
    println!("{table}");
    Ok(accounts)
}

async fn add(admin: &AdminClient, root: &Root, number: usize, client: &str) -> Result<NewAccount> {
    let id = format!("issuer-{number:05}");
    let (chain, key) = root.issuer(&id)?;
    let request = RegisterIssuer {
        id: id.parse()?,
        chain,
        token: "soft".parse()?,
        key: id.clone(),
        private_key: Some(PrivateKey(Blob(key.serialize_der()))),
        past: Past::None,
        public_url: None,
        crl_shards: 16,
        profile: None,
        dry_run: false,
        reason: "test".into(),
    };
    admin.register_issuer(&request).await.with_context(|| id.clone())?;
    let account = AddAccount {
        id: id.parse()?,
        issuer: id.parse()?,
        profile: "demo-p256".parse()?,
        client_certificates: vec![client.to_owned()],
        issuance_quota: 1_000,
        requests_per_second: 10,
        jobs_in_flight: 10,
        reason: "test".into(),
    };
    admin.add_account(&account).await.with_context(|| id.clone())
}

/// The root above all of them.
struct Root {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = authority("Root of thousands", BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        })
    }

    /// A chain in PEM, and the key of its first certificate.
    fn issuer(&self, name: &str) -> Result<(String, KeyPair)> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority(name, BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        let own = params.signed_by(&key, &self.issuer)?.pem();
        Ok((own + &self.pem, key))
    }
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Bulkhead Test");
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = runtime::clock::entropy::<16>();
    serial[0] = 2;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Waits until a process applies this revision.
async fn follow(grown: &Grown, node: &str, revision: u64) -> Result<Duration> {
    let begun = Instant::now();
    while grown.metric(node, "bulkhead_registry_revision").await? < revision {
        ensure!(begun.elapsed() < PATIENCE, "{node} does not apply revision {revision}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(begun.elapsed())
}

/// How long connections to the broker take to open, shortest first.
async fn connect(grown: &Grown) -> Result<Vec<Duration>> {
    let uri = format!("amqp://guest:guest@{}/%2f", grown.rabbitmq.address());
    let mut took = Vec::new();
    for _ in 0..CONNECTIONS {
        let begun = Instant::now();
        let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await?;
        took.push(begun.elapsed());
        connection.close(200, "seen".into()).await?;
    }
    took.sort_unstable();
    let longest = took[CONNECTIONS - 1];
    ensure!(
        longest < CONNECTION_LIMIT,
        "a connection to the broker took {longest:?}"
    );
    Ok(took)
}

/// Asks each account's issuer for one certificate: how long each took. The certificate is the issuer's.
async fn ask(grown: &Grown, accounts: Vec<NewAccount>, kind: &str) -> Result<Vec<Duration>> {
    let client = grown.client("frontend-1", 0)?;
    let accounts = Arc::new(accounts);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|worker| {
            let (client, accounts, kind) = (client.clone(), accounts.clone(), kind.to_owned());
            tokio::spawn(async move {
                let mut took = Vec::new();
                for account in accounts.iter().skip(worker).step_by(AT_ONCE) {
                    took.push(issue(&client, account, &kind).await?);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    ensure!(took.len() == accounts.len(), "{} of {}", took.len(), accounts.len());
    Ok(took)
}

async fn log_in(client: &Client, account: &NewAccount) -> Result<Client> {
    let mut client = client.of_account(&account.account.api_key, &account.api_secret);
    client.login().await.with_context(|| account.account.id.to_string())?;
    Ok(client)
}

async fn issue(client: &Client, account: &NewAccount, kind: &str) -> Result<Duration> {
    let id = account.account.id.as_str();
    let client = log_in(client, account).await?;
    let key = Key::p256()?;
    let name = format!("{kind}-{id}.example.com");
    let begun = Instant::now();
    let answer = client
        .post(&key.request(&name)?, &name, &[("Prefer", "wait=20")])
        .await?;
    ensure!(answer.status == 201, "{id}: {answer:?}");
    let certificate = client.certificate(answer.serial()?, PATIENCE).await?;
    let took = begun.elapsed();
    let facts = pki::certificate::read(&certificate)?;
    ensure!(
        facts.public_key == key.public_key(),
        "{id}: the certificate is for another key"
    );
    let chain = client.get("/trustchain").await?;
    let own = chain.body[0].as_str().context("no trust chain")?;
    let own = pki::pem::decode("CERTIFICATE", own)?;
    let issuer = pki::certificate::read(&own)?;
    ensure!(
        facts.issuer == issuer.subject,
        "{id}: the certificate is another issuer's"
    );
    Ok(took)
}

/// Files in a directory, and their bytes.
fn size(directory: &Path) -> Result<(usize, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(directory)? {
        sum = (sum.0 + 1, sum.1 + entry?.metadata()?.len());
    }
    Ok(sum)
}

fn of_process(grown: &Grown, node: &str, file: &str) -> Result<String> {
    let id = grown.id(node).with_context(|| format!("{node} does not run"))?;
    Ok(fs::read_to_string(format!("/proc/{id}/{file}"))?)
}

/// Memory that a process has now, in MiB.
fn memory(grown: &Grown, node: &str) -> Result<u64> {
    let status = of_process(grown, node, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? / 1024)
}

/// Processor time that a process has used, user and system.
fn cpu(grown: &Grown, node: &str) -> Result<Duration> {
    let stat = of_process(grown, node, "stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    // USER_HZ is 100 wherever Linux runs.
    Ok(Duration::from_millis(ticks * 10))
}
