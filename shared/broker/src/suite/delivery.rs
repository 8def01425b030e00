//! Envelopes in lanes of their own.

use std::slice::from_ref;

use super::{JOBS, Subject, body, delivery, expect, expect_again, incarnation, is_full, lane, settle};
use crate::MAX_TRACE_BYTES;

pub(super) async fn once(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    subject.publish(&lane, 0..3).await;
    let tags = expect(&mut inbox, &lane, 0..3).await;
    subject.quiet(&mut inbox).await;
    settle(&mut inbox, &tags).await;
    drop(inbox);
    let mut inbox = subject.serve(&[lane], 64).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn in_order(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 2).await;
    subject.publish(&lane, 0..8).await;
    for number in 0..8 {
        let tags = expect(&mut inbox, &lane, [number]).await;
        settle(&mut inbox, &tags).await;
    }
}

pub(super) async fn after_a_drop(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 4).await;
    subject.publish(&lane, 0..6).await;
    let tags = expect(&mut inbox, &lane, 0..4).await;
    settle(&mut inbox, &tags[1..2]).await;
    drop(inbox);
    let mut inbox = subject.serve(from_ref(&lane), 5).await;
    expect_again(&subject, &mut inbox, &lane, &[0, 2, 3], &[4, 5]).await;
}

pub(super) async fn given_back(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    subject.publish(&lane, 0..4).await;
    let tags = expect(&mut inbox, &lane, 0..4).await;
    assert_eq!(inbox.give_back(&[tags[2], tags[0]]).await, Ok(()));
    let again = expect_again(&subject, &mut inbox, &lane, &[0, 2], &[]).await;
    assert!(again.iter().all(|tag| !tags.contains(tag)), "a tag names one delivery");
    // The old tags mean nothing any more.
    settle(&mut inbox, &tags).await;
    drop(inbox);
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    expect_again(&subject, &mut inbox, &lane, &[0, 2], &[]).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn paused(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    subject.publish(&lane, 0..4).await;
    let tags = expect(&mut inbox, &lane, 0..2).await;
    assert_eq!(inbox.pause(&lane).await, Ok(()));
    subject.publish(&lane, 4..6).await;
    subject.quiet(&mut inbox).await;
    assert_eq!(inbox.resume(&lane).await, Ok(()));
    expect_again(&subject, &mut inbox, &lane, &[0, 1], &[2, 3, 4, 5]).await;
    subject.quiet(&mut inbox).await;
    // The tags from before the pause mean nothing any more.
    settle(&mut inbox, &tags).await;
    drop(inbox);
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    expect_again(&subject, &mut inbox, &lane, &[0, 1, 2, 3, 4, 5], &[]).await;
}

pub(super) async fn paused_here(subject: Subject) {
    let lane = lane("a");
    let mut first = subject.serve(from_ref(&lane), 64).await;
    subject.publish(&lane, 0..4).await;
    expect(&mut first, &lane, 0..2).await;
    let elsewhere = incarnation("another-signer", 1);
    let opened = subject.broker.serve(&elsewhere, from_ref(&lane), 8 * JOBS).await;
    let mut second = opened.expect("a second signer may serve the lane");
    subject.quiet(&mut second).await;
    assert_eq!(first.pause(&lane).await, Ok(()));
    expect_again(&subject, &mut second, &lane, &[0, 1], &[2, 3]).await;
    subject.quiet(&mut first).await;
}

pub(super) async fn prefetch(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 2).await;
    subject.publish(&lane, 0..6).await;
    let tags = expect(&mut inbox, &lane, 0..2).await;
    subject.quiet(&mut inbox).await;
    settle(&mut inbox, &tags[..1]).await;
    expect(&mut inbox, &lane, [2]).await;
    subject.quiet(&mut inbox).await;
    settle(&mut inbox, &tags[1..]).await;
    expect(&mut inbox, &lane, [3]).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn over_the_prefetch(subject: Subject) {
    let lane = lane("a");
    let opened = subject
        .broker
        .serve(&incarnation("signer", 1), from_ref(&lane), 3)
        .await;
    let mut inbox = opened.expect("a signer may serve a lane");
    subject.publish(&lane, 0..3).await;
    for number in 0..3 {
        let tags = expect(&mut inbox, &lane, [number]).await;
        subject.quiet(&mut inbox).await;
        settle(&mut inbox, &tags).await;
    }
}

pub(super) async fn full(subject: Subject) {
    let lane = lane("a");
    let limit = subject.fill(&lane, 0).await;
    for number in limit..limit + 3 {
        let refused = subject.offer(&lane, number).await;
        assert!(is_full(&refused, &lane), "{refused:?}");
    }
    let mut inbox = subject.serve(from_ref(&lane), 2 * limit).await;
    let tags = expect(&mut inbox, &lane, 0..limit).await;
    settle(&mut inbox, &tags).await;
    subject.publish(&lane, [limit]).await;
    expect(&mut inbox, &lane, [limit]).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn unserved(subject: Subject) {
    let (lane, other) = (lane("a"), lane("b"));
    subject.publish(&lane, 0..2).await;
    let mut inbox = subject.serve(&[other], 64).await;
    subject.quiet(&mut inbox).await;
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    expect(&mut inbox, &lane, 0..2).await;
}

pub(super) async fn unknown_tags(subject: Subject) {
    let lane = lane("a");
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    subject.publish(&lane, 0..3).await;
    let tags = expect(&mut inbox, &lane, 0..3).await;
    let nonsense = [u64::MAX, tags[2] + 1_000_000, 0];
    settle(&mut inbox, &nonsense).await;
    assert_eq!(inbox.give_back(&nonsense).await, Ok(()));
    settle(&mut inbox, &tags[..1]).await;
    // Settled is settled.
    settle(&mut inbox, &tags[..1]).await;
    assert_eq!(inbox.give_back(&tags[..1]).await, Ok(()));
    subject.quiet(&mut inbox).await;
    drop(inbox);
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    expect_again(&subject, &mut inbox, &lane, &[1, 2], &[]).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn added(subject: Subject) {
    let (first, second) = (lane("a"), lane("b"));
    subject.publish(&second, 0..1).await;
    let mut inbox = subject.serve(from_ref(&first), 64).await;
    subject.publish(&first, 0..1).await;
    let kept = expect(&mut inbox, &first, 0..1).await;
    subject.quiet(&mut inbox).await;
    assert_eq!(inbox.add(&[first.clone(), second.clone()]).await, Ok(()));
    expect(&mut inbox, &second, 0..1).await;
    subject.quiet(&mut inbox).await;
    settle(&mut inbox, &kept).await;
    subject.publish(&first, 1..2).await;
    expect(&mut inbox, &first, 1..2).await;
}

pub(super) async fn shared(subject: Subject) {
    let lane = lane("a");
    let mut inboxes = Vec::new();
    for run in 0..2 {
        let opened = subject
            .broker
            .serve(&incarnation("signer", run), from_ref(&lane), 8 * JOBS)
            .await;
        inboxes.push(opened.expect("several signers may serve a lane"));
    }
    subject.publish(&lane, 0..8).await;
    for inbox in &mut inboxes {
        let mut before = None;
        for _ in 0..4 {
            let body = delivery(inbox).await.body;
            assert!(before.is_none_or(|before| before < body), "out of order");
            before = Some(body);
        }
        subject.quiet(inbox).await;
    }
}

pub(super) async fn in_turn(subject: Subject) {
    let (deep, shallow) = (lane("deep"), lane("shallow"));
    let limit = subject.lane_envelopes;
    subject.publish(&deep, 0..limit).await;
    subject.publish(&shallow, 0..2).await;
    let mut inbox = subject.serve(&[deep, shallow.clone()], 2 * limit).await;
    tokio::time::sleep(subject.patience).await;
    let mut places = Vec::new();
    for place in 0..limit + 2 {
        if delivery(&mut inbox).await.lane == shallow {
            places.push(place);
        }
    }
    assert_eq!(places.len(), 2);
    assert!(places[1] <= 4, "the shallow lane was served at places {places:?}");
}

pub(super) async fn isolated(subject: Subject) {
    let lanes = ["full", "paused", "held", "free"].map(lane);
    let [full, paused, held, free] = &lanes;
    let mut inbox = subject.serve(&[paused.clone(), held.clone(), free.clone()], 2).await;
    assert_eq!(inbox.pause(paused).await, Ok(()));
    for (lane, out) in [(full, 0), (paused, 0), (held, 2)] {
        subject.fill(lane, out).await;
    }
    // Two are out and stay out: the lane has no room.
    expect(&mut inbox, held, 0..2).await;
    subject.quiet(&mut inbox).await;
    for number in 0..4 {
        subject.publish(free, [number]).await;
        let tags = expect(&mut inbox, free, [number]).await;
        settle(&mut inbox, &tags).await;
    }
}

pub(super) async fn traced(subject: Subject) {
    let lane = lane("a");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let too_long = "x".repeat(MAX_TRACE_BYTES + 1);
    for (number, trace) in [Some(trace), None, Some(&too_long), Some(&too_long[1..])]
        .into_iter()
        .enumerate()
    {
        let published = subject.broker.publish(&lane, body(&lane, number), 1, trace).await;
        assert_eq!(published, Ok(()));
    }
    let expected = [Some(trace), None, None, Some(&too_long[1..])];
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    let mut tags = Vec::new();
    for expected in expected {
        let delivery = delivery(&mut inbox).await;
        assert_eq!(delivery.trace.as_deref(), expected);
        tags.push(delivery.tag);
    }
    assert_eq!(inbox.give_back(&tags[..1]).await, Ok(()));
    assert_eq!(delivery(&mut inbox).await.trace.as_deref(), Some(trace));
    drop(inbox);
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    for _ in expected {
        let delivery = delivery(&mut inbox).await;
        let number = (0..expected.len()).find(|&number| body(&lane, number) == delivery.body);
        assert_eq!(delivery.trace.as_deref(), expected[number.expect("it was published")]);
    }
}
