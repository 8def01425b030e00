//! The contract, and what is particular to the embedded adapter.

use std::{slice::from_ref, time::Duration};

use domain::lane::Class;
use proptest::prelude::*;

use super::*;
use crate::suite::{CONTRACT, Subject, interleaving};

fn subject() -> Subject {
    let limits = Limits {
        own_lanes: 4,
        lane_envelopes: 8,
        ..Limits::default()
    };
    Subject {
        broker: Arc::new(Embedded::new(limits)),
        own_lanes: 4,
        lane_envelopes: 8,
        overshoot: 0,
        returns_in_place: true,
        patience: Duration::from_millis(5),
    }
}

fn lane(issuer: &str) -> Lane {
    Lane {
        issuer: issuer.parse().unwrap(),
        class: Class::Interactive,
    }
}

fn node(run: u64) -> Incarnation {
    Incarnation {
        node: "node".parse().unwrap(),
        run,
    }
}

#[tokio::test]
async fn the_embedded_broker_keeps_the_contract() {
    for (name, contract) in CONTRACT {
        println!("{name}");
        contract(subject()).await;
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

proptest! {
    #[test]
    fn no_order_of_steps_loses_or_repeats_an_envelope(steps in proptest::collection::vec(step(), 0..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(interleaving::run(subject(), &steps));
    }
}

#[tokio::test]
async fn a_lane_is_bounded_in_bytes_as_well() {
    let broker = Embedded::new(Limits {
        lane_bytes: 100,
        ..Limits::default()
    });
    let lane = lane("a");
    broker.publish(&lane, Bytes::from(vec![0; 60]), 1, None).await.unwrap();
    let refused = broker.publish(&lane, Bytes::from(vec![0; 60]), 1, None).await;
    assert_eq!(refused, Err(BrokerError::Full(lane.clone())));
    broker.publish(&lane, Bytes::from(vec![0; 40]), 1, None).await.unwrap();
    assert_eq!(broker.counters().envelopes_rejected, 1);

    let mut inbox = broker.serve(&node(1), from_ref(&lane), 8).await.unwrap();
    let Some(Incoming::Delivery(delivery)) = inbox.next().await else {
        panic!("the first should come")
    };
    inbox.settle(&[delivery.tag]).await.unwrap();
    broker.publish(&lane, Bytes::from(vec![0; 60]), 1, None).await.unwrap();
}

#[tokio::test]
async fn the_newest_stay_in_quarantine_and_all_are_counted() {
    let broker = Embedded::new(Limits {
        quarantine_bodies: 3,
        quarantine_bytes: 10,
        ..Limits::default()
    });
    let lane = lane("a");
    for body in ["first", "second", "third", "4"] {
        broker
            .quarantine(&lane, Bytes::from(body), "unknown version")
            .await
            .unwrap();
    }
    let kept: Vec<_> = broker
        .in_quarantine()
        .into_iter()
        .map(|set_aside| set_aside.body)
        .collect();
    assert_eq!(kept, ["third", "4"]);
    assert_eq!(broker.quarantined().await, Ok(4));
    assert_eq!(broker.counters().quarantined, 4);
}

#[tokio::test]
async fn dropped_answers_are_counted_and_a_second_inbox_of_a_name_closes_the_first() {
    let broker = Embedded::default();
    let mut first = broker.answers(&node(1), 1).await.unwrap();
    for _ in 0..3 {
        broker.answer(&node(1), Bytes::from("answer"), None).await.unwrap();
    }
    assert_eq!(broker.counters().answers_dropped, 2);
    let mut second = broker.answers(&node(1), 1).await.unwrap();
    assert_eq!(first.next().await, None);
    drop(first);
    broker.answer(&node(1), Bytes::from("again"), None).await.unwrap();
    assert_eq!(
        second.next().await.map(|answer| answer.body),
        Some(Bytes::from("again"))
    );
}

#[tokio::test]
async fn a_waiting_signer_is_woken_by_a_publication_of_another_task() {
    let broker = Embedded::default();
    let lane = lane("a");
    let mut inbox = broker.serve(&node(1), from_ref(&lane), 8).await.unwrap();
    let waiting = tokio::spawn(async move {
        let mut count = 0;
        while count < 100 {
            let Some(Incoming::Delivery(delivery)) = inbox.next().await else {
                panic!("deliveries only")
            };
            inbox.settle(&[delivery.tag]).await.unwrap();
            count += 1;
        }
    });
    for _ in 0..100 {
        broker.publish(&lane, Bytes::from("body"), 1, None).await.unwrap();
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
}
