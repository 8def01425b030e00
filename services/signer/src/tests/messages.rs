//! What comes over the broker is a hint: forged, altered, lost, repeated or misdirected, it harms nothing and loses nothing.

use std::{collections::BTreeSet, time::Duration};

use broker::Broker;
use bytes::Bytes;
use domain::{job::State, time::Clock};
use runtime::clock::SystemClock;
use wire::{
    answer::AnswerOutcome,
    envelope::Envelope,
    signed::{Context, NodeKey, seal},
};

use super::bench::{Bench, lane};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_issuers_become_certificates_that_verify_and_their_front_end_is_answered() {
    let mut bench = Bench::new().await;
    let signer = bench.start();
    let a = bench.submit("a", 20).await;
    let b = bench.submit("b", 20).await;
    bench.issued("a", &a).await;
    bench.issued("b", &b).await;
    let mut answered = BTreeSet::new();
    while answered.len() < 40 {
        let answers = bench.answer().await;
        assert_eq!(answers.to, bench.waiter);
        for answer in answers.answers {
            assert!(matches!(answer.outcome, AnswerOutcome::Issued { .. }));
            assert!(answered.insert(answer.job), "answered twice");
        }
    }
    assert!(signer.health.readiness().ready, "{:?}", signer.health.readiness());
    assert_eq!(signer.metric("bulkhead_signer_issued_total{issuer=\"a\"}"), 20);
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_believed_or_read_is_set_aside_and_its_jobs_are_claimed_from_the_ledger() {
    let bench = Bench::new().await;
    let signer = bench.start();
    let drafts = vec![bench.draft("a", "host.example.com")];
    let jobs = bench.accept(drafts).await;
    let now = SystemClock.now();
    let good = Envelope::new(lane("a"), jobs.clone(), now);
    let stranger = NodeKey::generate("frontend-1".parse().unwrap());
    let mut altered = good.to_bytes(&bench.frontend).to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let bad: [(&str, Bytes); 6] = [
        ("a stranger's", good.to_bytes(&stranger)),
        ("a signer's", good.to_bytes(&bench.signer)),
        ("altered", altered.into()),
        (
            "another lane's",
            Envelope::new(lane("b"), jobs.clone(), now).to_bytes(&bench.frontend),
        ),
        (
            "of another version",
            seal(Context::Envelope, &bench.frontend, br#"{"version":2}"#),
        ),
        ("noise", Bytes::from_static(b"\x00\xff{}")),
    ];
    for (number, (what, sealed)) in (1..).zip(bad) {
        bench.broker.publish(&lane("a"), sealed, 1, None).await.unwrap();
        bench
            .until(what, async || bench.broker.quarantined().await.unwrap() == number)
            .await;
    }
    bench.issued("a", &jobs).await;
    assert_eq!(signer.metric("bulkhead_signer_quarantined_total"), 6);
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_envelope_makes_no_second_signature() {
    let bench = Bench::new().await;
    let signer = bench.start();
    let jobs = bench.submit("a", 4).await;
    bench.publish("a", &jobs).await;
    bench.issued("a", &jobs).await;
    let before = bench.token.asked("a");
    for _ in 0..5 {
        bench.publish("a", &jobs).await;
    }
    let more = bench.submit("a", 1).await;
    bench.issued("a", &more).await;
    assert_eq!(bench.token.asked("a"), before + 1);
    assert_eq!((before, signer.metric("bulkhead_resigned_total")), (4, 0));
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_never_brings_is_claimed_after_a_second() {
    let bench = Bench::new().await;
    let signer = bench.start();
    let drafts = (0..300)
        .map(|n| bench.draft("a", &format!("h{n}.example.com")))
        .collect();
    let jobs = bench.accept(drafts).await;
    bench.issued("a", &jobs).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_new_is_served_from_the_open_inbox_beside_the_others() {
    let bench = Bench::new().await;
    let signer = bench.start();
    let first = bench.submit("a", 1).await;
    bench.issued("a", &first).await;
    bench.change(bench.trio("c").into()).await;
    // Jobs alone would prove nothing: they are claimed from the ledger as well. Noise is only ever met in an inbox.
    for (number, name) in (1..).zip(["c", "a", "b"]) {
        let noise = Bytes::from_static(b"noise");
        bench.broker.publish(&lane(name), noise, 1, None).await.unwrap();
        bench
            .until(name, async || bench.broker.quarantined().await.unwrap() == number)
            .await;
    }
    let jobs = bench.submit("c", 3).await;
    bench.issued("c", &jobs).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_time_is_expired_unsigned_and_its_front_end_is_told() {
    let mut bench = Bench::new().await;
    let mut draft = bench.draft("a", "late.example.com");
    let sign_by = SystemClock.now() + Duration::from_millis(300);
    (draft.statement.sign_by, draft.new.sign_by) = (sign_by, sign_by);
    let jobs = bench.accept(vec![draft]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let signer = bench.start();
    bench.publish("a", &jobs).await;
    bench.ended(&jobs).await;
    assert_eq!(bench.state(jobs[0]).await, State::Expired);
    assert_eq!(bench.token.asked("a"), 0);
    assert!(matches!(
        bench.answer().await.answers[0].outcome,
        AnswerOutcome::Expired
    ));
    signer.stop().await.unwrap();
}
