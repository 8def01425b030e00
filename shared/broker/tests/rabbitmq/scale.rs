//! Many issuers: the broker sees the queues of the own lanes and one binding for each other lane.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use broker::{Broker, Incoming, amqp::Options};
use domain::lane::{Class, Lane, own_lanes};
use engines::rabbitmq::{RabbitMq, Setup};
use tokio::time::timeout;

use crate::bench::{JOBS, LIMIT, Secrets, body, connect, incarnation, options, own, until};

const ISSUERS: usize = 5_000;
const OWN: usize = 200;
/// What a broker of usual set-up may open.
const DESCRIPTORS: u64 = 20_000;

fn lanes() -> impl Iterator<Item = Lane> {
    (0..ISSUERS).flat_map(|issuer| {
        Class::ALL.map(|class| Lane {
            issuer: format!("issuer-{issuer}").parse().unwrap(),
            class,
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_issuers_leave_room_for_new_connections_and_each_is_reached() {
    let secrets = Secrets::new();
    let node = RabbitMq::start_with(Setup {
        descriptors: Some(DESCRIPTORS),
        ..Setup::default()
    });
    let node = node.await.unwrap();
    let options = Options {
        call_timeout: Duration::from_secs(5),
        ..options(&secrets, [node.address()])
    };
    let own_set: BTreeSet<Lane> = own_lanes(lanes(), OWN);
    let all: Vec<Lane> = lanes().collect();
    let begun = Instant::now();
    let signing = connect(options.clone(), own(own_set.clone())).await;
    let mut inbox = signing.serve(&incarnation("signer"), &all, JOBS).await.unwrap();
    let last = all.last().unwrap();
    let (first_own, first_other) = (own_set.first().unwrap(), &all[2]);
    until("the last of the lanes is heard", async || {
        signing.publish(last, body(0), 1, None).await.is_ok()
    })
    .await;
    let attached = begun.elapsed();

    let begun = Instant::now();
    let publishing = connect(options, own(own_set.clone())).await;
    let connected = begun.elapsed();
    until("all queues are there", async || {
        node.list("list_queues", &["name"])
            .await
            .unwrap()
            .iter()
            .filter(|name| name.contains(".lane."))
            .count()
            == OWN
    })
    .await;
    let mut missing: BTreeSet<Lane> = [first_own, first_other, last].into_iter().cloned().collect();
    for lane in missing.clone() {
        assert_eq!(publishing.publish(&lane, body(1), JOBS, None).await, Ok(()), "{lane}");
    }
    while !missing.is_empty() {
        match timeout(LIMIT, inbox.next())
            .await
            .expect("each lane is reached")
            .unwrap()
        {
            Incoming::WakeUp(lane) => {
                assert!(!own_set.contains(&lane));
                missing.remove(&lane);
            }
            Incoming::Delivery(delivery) => {
                assert!(own_set.contains(&delivery.lane));
                inbox.settle(&[delivery.tag]).await.unwrap();
                missing.remove(&delivery.lane);
            }
        }
    }
    let asked = "lists:sum([1 || _ <- rabbit_amqqueue:list()]).";
    println!(
        "| lanes | of their own | queues | attached after | new connections after |\n| --- | --- | --- | --- | --- |"
    );
    println!(
        "| {} | {} | {} | {attached:?} | {connected:?} |",
        all.len(),
        own_set.len(),
        node.control(&["eval", asked]).await.unwrap().trim(),
    );
}
