//! The contract of every broker, and random steps.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use broker::{
    OwnLanes,
    amqp::Options,
    suite::{CONTRACT, Subject, interleaving, own_lanes},
};
use engines::rabbitmq::RabbitMq;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::bench::{Secrets, connect, options};

/// Random runs: each takes seconds against a real broker.
const RUNS: usize = 6;

async fn subject(node: &RabbitMq, secrets: &Secrets) -> Subject {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = OwnLanes::default();
    own.settle(own_lanes());
    let options = Options {
        // Each check has names of its own, and so a broker without lanes.
        prefix: format!("check-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        lane_envelopes: 8,
        call_timeout: Duration::from_secs(5),
        ..options(secrets, [node.address()])
    };
    Subject {
        broker: connect(options, own).await,
        own_lanes: 4,
        lane_envelopes: 8,
        overshoot: 2,
        returns_in_place: false,
        patience: Duration::from_millis(250),
    }
}

fn step() -> impl Strategy<Value = interleaving::Step> {
    use interleaving::Step::{GiveBack, Next, Pause, Publish, Reopen, Resume, Settle};
    let (lane, signer, which) = (0..3_usize, 0..2_usize, 0..8_usize);
    prop_oneof![
        6 => lane.clone().prop_map(|lane| Publish { lane }),
        6 => signer.clone().prop_map(|signer| Next { signer }),
        3 => (signer.clone(), which.clone()).prop_map(|(signer, which)| Settle { signer, which }),
        2 => (signer.clone(), which).prop_map(|(signer, which)| GiveBack { signer, which }),
        1 => (signer.clone(), lane.clone()).prop_map(|(signer, lane)| Pause { signer, lane }),
        2 => (signer.clone(), lane).prop_map(|(signer, lane)| Resume { signer, lane }),
        1 => signer.prop_map(|signer| Reopen { signer }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract_in_any_order_of_steps() {
    let (node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());
    for (name, contract) in CONTRACT {
        println!("{name}");
        contract(subject(&node, &secrets).await).await;
    }
    let mut runner = TestRunner::new(Config::default());
    for run in 0..RUNS {
        let steps = proptest::collection::vec(step(), 20..50)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        println!("random run {run}: {steps:?}");
        interleaving::run(subject(&node, &secrets).await, &steps).await;
    }
}
