//! What a broker, an operator or a link can do to the adapter. After each fault everything goes on by itself: nothing that was confirmed
//! and not wiped is missing, and no caller waits longer than a call may take.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice::from_ref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use broker::{Broker, BrokerError, Inbox, Incoming, amqp::Amqp};
use domain::lane::Lane;
use engines::{
    chaos_proxy::ChaosProxy,
    rabbitmq::{Cluster, RabbitMq},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{
    JOBS, LIMIT, Secrets, body, connect, connections, incarnation, insist, lane, logged, number, options, own, ready,
    until,
};

/// A front end that publishes without pause, and a signer that settles what it gets.
struct Traffic {
    amqp: Arc<Amqp>,
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
    /// How often each envelope was received.
    received: Arc<Mutex<BTreeMap<usize, usize>>>,
    front_end: JoinHandle<Published>,
    signer: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Published {
    confirmed: BTreeSet<usize>,
    refused: usize,
    longest: Duration,
}

/// What a fault did.
struct Counts {
    missing: usize,
    confirmed: usize,
}

impl Traffic {
    async fn begin(amqp: Arc<Amqp>, lanes: usize) -> Self {
        let lanes: Vec<Lane> = (0..lanes).map(|number| lane(&format!("lane-{number}"))).collect();
        let inbox = amqp.serve(&incarnation("signer"), &lanes, 16 * JOBS).await.unwrap();
        let (received, confirmed) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let traffic = Self {
            signer: AbortOnDropHandle::new(tokio::spawn(sign(inbox, received.clone()))),
            front_end: tokio::spawn(publish(amqp.clone(), lanes, stop.clone(), confirmed.clone())),
            amqp,
            stop,
            confirmed,
            received,
        };
        traffic.flows().await;
        traffic
    }

    fn received(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Waits until envelopes are confirmed and received again.
    async fn flows(&self) {
        let (confirmed, received) = (self.confirmed.load(Ordering::Relaxed), self.received());
        until("envelopes flow", async || {
            self.confirmed.load(Ordering::Relaxed) >= confirmed + 100 && self.received() >= received + 100
        })
        .await;
    }

    /// Ends it, and counts.
    async fn end(self, fault: &str) -> Counts {
        self.flows().await;
        self.stop.store(true, Ordering::Relaxed);
        let published = self.front_end.await.unwrap();
        let missing = || {
            let received = self.received.lock().unwrap();
            published
                .confirmed
                .iter()
                .filter(|number| !received.contains_key(number))
                .count()
        };
        let mut last = (Instant::now(), missing());
        while last.1 > 0 && last.0.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if missing() != last.1 {
                last = (Instant::now(), missing());
            }
        }
        drop(self.signer);
        let received = self.received.lock().unwrap();
        let repeated = received.values().filter(|times| **times > 1).count();
        println!("| fault | confirmed | not published | received | missing | repeated | longest call |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        println!(
            "| {fault} | {} | {} | {} | {} | {repeated} | {:?} |",
            published.confirmed.len(),
            published.refused,
            received.len(),
            last.1,
            published.longest
        );
        // A call is made of a declaration and a publication, twice if the queue was missing, each within a second; the rest is a busy
        // machine's.
        assert!(
            published.longest < Duration::from_secs(8),
            "a caller waited {:?}",
            published.longest
        );
        Counts {
            missing: last.1,
            confirmed: published.confirmed.len(),
        }
    }
}

/// After how long without news nothing more comes.
const QUIET: Duration = Duration::from_secs(5);

async fn sign(mut inbox: Box<dyn Inbox>, received: Arc<Mutex<BTreeMap<usize, usize>>>) {
    while let Some(incoming) = inbox.next().await {
        let Incoming::Delivery(delivery) = incoming else {
            continue;
        };
        *received.lock().unwrap().entry(number(&delivery.body)).or_default() += 1;
        // The broker may be away just now: then the envelope comes again.
        let _ = inbox.settle(&[delivery.tag]).await;
    }
}

async fn publish(broker: Arc<Amqp>, lanes: Vec<Lane>, stop: Arc<AtomicBool>, confirmed: Arc<AtomicUsize>) -> Published {
    let mut published = Published::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        match broker
            .publish(&lanes[number % lanes.len()], body(number), JOBS, None)
            .await
        {
            Ok(()) => {
                published.confirmed.insert(number);
                confirmed.fetch_add(1, Ordering::Relaxed);
            }
            Err(BrokerError::Unavailable(_) | BrokerError::Full(_)) => {
                published.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
        published.longest = published.longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    published
}

async fn traffic(node: &RabbitMq, secrets: &Secrets) -> Traffic {
    let own = own((0..LANES).map(|number| lane(&format!("lane-{number}"))));
    Traffic::begin(connect(options(secrets, [node.address()]), own).await, LANES).await
}

/// Lanes that traffic is spread over.
const LANES: usize = 3;

/// The client library has a thread for each of the two connections, and none that was left behind.
async fn nothing_leaks() {
    until("threads of given-up connections are gone", async || connections() <= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_wiped_or_away_for_long_is_found_again() {
    let (mut node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());
    let running = traffic(&node, &secrets).await;
    // RabbitMQ 3.10 writes down the names of new quorum queues when no more come for half a second; one whose name is lost in a crash
    // comes up without a leader, and stays so.
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.kill();
    until("the loss is noticed", async || running.amqp.ready().is_err()).await;
    node.boot().await.unwrap();
    assert_eq!(running.end("killed (SIGKILL) and started").await.missing, 0);
    nothing_leaks().await;

    let running = traffic(&node, &secrets).await;
    node.reset().await.unwrap();
    let counts = running.end("wiped (reset) under load").await;
    assert!(
        counts.missing < counts.confirmed / 2,
        "what was published after the wipe is received"
    );
    nothing_leaks().await;

    // Longer than the pauses between attempts grow, many times over.
    let running = traffic(&node, &secrets).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.kill();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let begun = Instant::now();
    let refused = running.amqp.publish(&lane("lane-0"), body(0), JOBS, None).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    println!("away: a publication was refused in {:?}: {refused:?}", begun.elapsed());
    node.boot().await.unwrap();
    assert_eq!(running.end("away for 30 s").await.missing, 0);
    nothing_leaks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_and_a_memory_alarm_hold_up_no_caller() {
    let (node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());
    let running = traffic(&node, &secrets).await;
    node.freeze().unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("frozen: {} connections of the library", connections());
    // Each attempt is taken back before the next, however long the broker says nothing.
    assert!(connections() <= 4, "{} threads", connections());
    node.thaw().unwrap();
    assert_eq!(running.end("frozen (SIGSTOP) for 20 s").await.missing, 0);
    nothing_leaks().await;

    let running = traffic(&node, &secrets).await;
    // Enough waits for the signer to see that it is still served.
    let waiting = lane("waiting");
    let amqp = connect(options(&secrets, [node.address()]), own([waiting.clone()])).await;
    for number in 0..50 {
        insist(&*amqp, &waiting, number).await;
    }
    node.memory_alarm(true).await.unwrap();
    until("publishers are blocked", async || {
        running
            .amqp
            .publish(&lane("lane-0"), body(0), JOBS, None)
            .await
            .is_err()
    })
    .await;
    let begun = Instant::now();
    let refused = running.amqp.publish(&lane("lane-0"), body(0), JOBS, None).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    println!("alarm: a publication was refused in {:?}: {refused:?}", begun.elapsed());
    let mut inbox = amqp
        .serve(&incarnation("another"), from_ref(&waiting), 4 * JOBS)
        .await
        .unwrap();
    let mut consumed = 0;
    while consumed < 50 {
        let next = timeout(LIMIT, inbox.next())
            .await
            .expect("consuming goes on during the alarm");
        let Some(Incoming::Delivery(delivery)) = next else {
            panic!("{next:?}")
        };
        inbox.settle(&[delivery.tag]).await.unwrap();
        consumed += 1;
    }
    println!("alarm: {consumed} envelopes were consumed meanwhile");
    // Longer than a connection that confirms nothing is kept: one that is blocked is kept.
    tokio::time::sleep(Duration::from_secs(12)).await;
    node.memory_alarm(false).await.unwrap();
    assert_eq!(running.end("memory alarm for 12 s").await.missing, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_deletes_purges_or_closes_comes_back() {
    let (node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());

    let running = traffic(&node, &secrets).await;
    node.close_connections().await.unwrap();
    assert_eq!(running.end("connections closed by the operator").await.missing, 0);
    nothing_leaks().await;

    let running = traffic(&node, &secrets).await;
    for queue in ["bulkhead.lane.lane-0.bulk", "bulkhead.lane.lane-1.bulk"] {
        node.delete_queue(queue).await.unwrap();
    }
    let counts = running.end("two queues deleted under their consumers").await;
    assert!(
        counts.missing < 100,
        "only what waited in them is gone, not {}",
        counts.missing
    );

    let running = traffic(&node, &secrets).await;
    node.purge_queue("bulkhead.lane.lane-0.bulk").await.unwrap();
    let counts = running.end("a lane purged by hand").await;
    assert!(
        counts.missing < 100,
        "only what waited in it is gone, not {}",
        counts.missing
    );

    // The exchange of the wake-ups is deleted: the channel that names it is closed by the broker, and nothing but wake-ups suffers.
    let running = traffic(&node, &secrets).await;
    let ledger = lane("of-the-ledger");
    let mut inbox = running
        .amqp
        .serve(&incarnation("another"), from_ref(&ledger), JOBS)
        .await
        .unwrap();
    insist(&*running.amqp, &ledger, 0).await;
    assert_eq!(
        timeout(LIMIT, inbox.next()).await.unwrap(),
        Some(Incoming::WakeUp(ledger.clone()))
    );
    let delete =
        r#"rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"bulkhead.wake-ups">>), false, <<"test">>)."#;
    node.control(&["eval", delete]).await.unwrap();
    until("publishing makes the exchange anew", async || {
        let published = running.amqp.publish(&ledger, body(0), JOBS, None).await;
        matches!(published, Ok(()) | Err(BrokerError::Unserved(_)))
    })
    .await;
    assert_eq!(running.end("exchange of the wake-ups deleted").await.missing, 0);
    nothing_leaks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_the_broker_closes_costs_its_lane_a_moment_and_no_other_lane_anything() {
    let (node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());
    // A delivery that is not settled for two seconds closes its channel; usually that takes half an hour.
    for (setting, milliseconds) in [("consumer_timeout", 2_000), ("channel_tick_interval", 500)] {
        let set = format!("application:set_env(rabbit, {setting}, {milliseconds}).");
        node.control(&["eval", &set]).await.unwrap();
    }
    let lanes = [lane("held"), lane("free")];
    let amqp = connect(options(&secrets, [node.address()]), own(lanes.clone())).await;
    let mut inbox = amqp.serve(&incarnation("signer"), &lanes, 4 * JOBS).await.unwrap();
    let [held, free] = &lanes;
    insist(&*amqp, held, 0).await;
    let first = timeout(LIMIT, inbox.next()).await.unwrap();
    let Some(Incoming::Delivery(first)) = first else {
        panic!("{first:?}")
    };
    insist(&*amqp, free, 1).await;
    let mut again = None;
    let (mut number_of_free, begun) = (1, Instant::now());
    while again.is_none() {
        assert!(begun.elapsed() < LIMIT, "what was held did not come again");
        let next = timeout(LIMIT, inbox.next()).await.unwrap();
        let Some(Incoming::Delivery(delivery)) = next else {
            panic!("{next:?}")
        };
        if delivery.lane == *held {
            again = Some(delivery);
        } else {
            assert!(!delivery.redelivered, "the other lane's channel was closed as well");
            inbox.settle(&[delivery.tag]).await.unwrap();
            number_of_free += 1;
            insist(&*amqp, free, number_of_free).await;
        }
    }
    let again = again.unwrap();
    println!(
        "| lane | what came of it |\n| --- | --- |\n| held | the envelope, again, after {:?} |",
        begun.elapsed()
    );
    println!("| free | {number_of_free} envelopes meanwhile, each once |");
    assert!(again.redelivered && again.body == first.body && again.tag != first.tag);
    // The tag from before the channel was closed means nothing, and closes nothing.
    inbox.settle(&[first.tag]).await.unwrap();
    inbox.settle(&[again.tag]).await.unwrap();
    insist(&*amqp, held, 7).await;
    until("the lane goes on", async || {
        let next = timeout(LIMIT, inbox.next()).await.unwrap();
        let Some(Incoming::Delivery(delivery)) = next else {
            panic!("{next:?}")
        };
        inbox.settle(&[delivery.tag]).await.unwrap();
        delivery.lane == *held && number(&delivery.body) == 7
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_slow_or_swallows_everything_is_given_up_and_made_anew() {
    let (node, secrets) = (RabbitMq::start().await.unwrap(), Secrets::new());
    let proxy = ChaosProxy::start(node.address()).await.unwrap();
    let options = options(&secrets, [proxy.address()]);

    // A broker that accepts connections and says nothing, as one does that has no descriptors left.
    proxy.black_hole();
    let own = own((0..LANES).map(|number| lane(&format!("lane-{number}"))));
    logged();
    let amqp = Arc::new(Amqp::connect(options.clone(), own).unwrap());
    let mut inbox = amqp
        .serve(&incarnation("early"), &[lane("lane-0")], JOBS)
        .await
        .unwrap();
    let mut complaint = String::new();
    until("the silence is named", async || {
        complaint = amqp.ready().unwrap_err().to_string();
        complaint.contains("descriptors")
    })
    .await;
    println!("silence: {complaint}");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(
        connections() <= 2,
        "{} threads for connections that never were",
        connections()
    );
    proxy.restore();
    ready(&amqp).await;
    insist(&*amqp, &lane("lane-0"), 7).await;
    let next = timeout(LIMIT, inbox.next())
        .await
        .expect("an inbox from before the broker was there comes alive");
    assert!(matches!(next, Some(Incoming::Delivery(_))));
    drop(inbox);

    for fault in [
        "cut 5 times",
        "black hole for 8 s",
        "cut in mid-frame 5 times",
        "50 ms each way",
    ] {
        let running = Traffic::begin(amqp.clone(), LANES).await;
        match fault {
            "cut 5 times" => {
                for _ in 0..5 {
                    proxy.cut();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    proxy.restore();
                    running.flows().await;
                }
            }
            "black hole for 8 s" => {
                proxy.black_hole();
                tokio::time::sleep(Duration::from_secs(8)).await;
                proxy.restore();
            }
            "cut in mid-frame 5 times" => {
                for bytes in [1_001, 5_003, 20_011, 333, 7_777] {
                    proxy.cut_after(bytes);
                    until("the link is cut", async || amqp.ready().is_err()).await;
                    proxy.restore();
                    running.flows().await;
                }
            }
            _ => {
                proxy.delay(Duration::from_millis(50));
                running.flows().await;
                proxy.restore();
            }
        }
        assert_eq!(running.end(fault).await.missing, 0);
    }
    nothing_leaks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_a_queue_dies_and_the_others_go_on() {
    let (mut cluster, secrets) = (Cluster::start().await.unwrap(), Secrets::new());
    let addresses: Vec<_> = cluster.nodes.iter().map(RabbitMq::address).collect();
    let lanes = own((0..LANES).map(|number| lane(&format!("lane-{number}"))));
    let running = Traffic::begin(connect(options(&secrets, addresses), lanes).await, LANES).await;
    let killed = cluster.kill_leader("bulkhead.lane.lane-0.bulk").await.unwrap();
    println!("node {killed} led lane-0 and is dead");
    assert_eq!(running.end("leader of a queue killed, of three nodes").await.missing, 0);
    nothing_leaks().await;
}
