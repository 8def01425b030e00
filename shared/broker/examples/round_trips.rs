//! How many round trips (publish, confirm, deliver, acknowledge) the AMQP adapter makes through a private RabbitMQ node, and what they
//! cost this process and the broker. `cargo run --release -p broker --example round_trips`

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

use broker::{
    Broker, Incoming, OwnLanes,
    amqp::{Amqp, Login, Options},
};
use bytes::Bytes;
use domain::{
    id::Incarnation,
    lane::{Class, Lane},
};
use engines::rabbitmq::RabbitMq;

/// Bytes of a sealed envelope of 16 serials.
const BODY: usize = 900;
const SECONDS: u64 = 10;

/// Processor time of a process and its threads, in seconds (fields 14 and 15 of `/proc/PID/stat`, in hundredths).
fn cpu(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |index: usize| {
        after
            .split(' ')
            .nth(index)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = RabbitMq::start().await?;
    let server = node
        .control(&["eval", "os:getpid()."])
        .await?
        .trim()
        .trim_matches('"')
        .to_owned();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("password");
    fs::write(&file, "guest")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    println!("| lanes | unconfirmed a lane | round trips/s | client us | broker us |\n| --- | --- | --- | --- | --- |");
    for (lanes, window) in [(1, 1), (1, 16), (1, 128), (3, 16), (30, 16)] {
        let names: Vec<Lane> = (0..lanes)
            .map(|number| Lane {
                issuer: format!("issuer-{lanes}-{window}-{number}").parse().expect("a name"),
                class: Class::Bulk,
            })
            .collect();
        let own = OwnLanes::default();
        own.settle(names.iter().cloned().collect());
        let options = Options {
            addresses: vec![node.address().to_string()],
            login: Login::Password {
                user: "guest".into(),
                file: file.clone(),
            },
            ..Options::default()
        };
        let broker = Arc::new(Amqp::connect(options, own)?);
        while broker.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let signer = Incarnation {
            node: "signer".parse()?,
            run: 1,
        };
        let mut inbox = broker.serve(&signer, &names, 256 * Class::Bulk.envelope_jobs()).await?;
        let (begun, cpu_before, server_before) = (Instant::now(), cpu("self"), cpu(&server));
        let deadline = begun + Duration::from_secs(SECONDS);
        for lane in names.iter().flat_map(|lane| std::iter::repeat_n(lane, window)) {
            let (broker, lane) = (broker.clone(), lane.clone());
            tokio::spawn(async move {
                let body = Bytes::from(vec![7; BODY]);
                while Instant::now() < deadline {
                    if broker.publish(&lane, body.clone(), 16, None).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            });
        }
        let (mut received, mut tags) = (0_u64, Vec::new());
        while let Ok(Some(Incoming::Delivery(delivery))) =
            tokio::time::timeout(Duration::from_secs(1), inbox.next()).await
        {
            tags.push(delivery.tag);
            received += 1;
            while tags.len() < 16
                && let Ok(Some(Incoming::Delivery(delivery))) =
                    tokio::time::timeout(Duration::from_micros(1), inbox.next()).await
            {
                tags.push(delivery.tag);
                received += 1;
            }
            inbox.settle(&tags).await?;
            tags.clear();
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' work")]
        let count = received as f64;
        let per = |seconds: f64| seconds * 1e6 / count;
        println!(
            "| {lanes} | {window} | {:.0} | {:.0} | {:.0} |",
            count / (begun.elapsed().as_secs_f64() - 1.0),
            per(cpu("self") - cpu_before),
            per(cpu(&server) - server_before)
        );
    }
    Ok(())
}
