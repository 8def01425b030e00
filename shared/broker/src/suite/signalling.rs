//! Wake-ups, answers, quarantine.

use std::{slice::from_ref, time::Duration};

use bytes::Bytes;
use domain::{id::Incarnation, lane::Lane};
use tokio::time::timeout;

use super::{LIMIT, Subject, body, expect, incarnation, lane, message};
use crate::{Answers, Broker, BrokerError, Incoming, MAX_TRACE_BYTES};

pub(super) async fn wakes_up(subject: Subject) {
    let lane = subject.ledger_lane();
    let unheard = subject.offer(&lane, 0).await;
    assert_eq!(unheard, Err(BrokerError::Unserved(lane.clone())));

    let mut inboxes = Vec::new();
    for run in 0..2 {
        let opened = subject
            .broker
            .serve(&incarnation("signer", run), from_ref(&lane), 64)
            .await;
        inboxes.push(opened.expect("several signers may serve a lane"));
    }
    subject.publish(&lane, [1]).await;
    for inbox in &mut inboxes {
        assert_eq!(message(inbox).await, Incoming::WakeUp(lane.clone()));
        subject.quiet(inbox).await;
    }
    subject.publish(&lane, [2]).await;
    assert_eq!(message(&mut inboxes[0]).await, Incoming::WakeUp(lane.clone()));

    drop(inboxes);
    soon_unserved(&subject, &lane).await;
}

pub(super) async fn coalesces(subject: Subject) {
    let lane = subject.ledger_lane();
    let other = self::lane("own-0");
    let mut inbox = subject.serve(&[lane.clone(), other.clone()], 64).await;
    // More than any queue takes: wake-ups have no queue.
    subject.publish(&lane, 0..subject.lane_envelopes + 5).await;
    tokio::time::sleep(subject.patience).await;
    assert_eq!(message(&mut inbox).await, Incoming::WakeUp(lane.clone()));
    subject.quiet(&mut inbox).await;
    subject.publish(&other, [0]).await;
    expect(&mut inbox, &other, [0]).await;
}

pub(super) async fn wakes_after_a_pause(subject: Subject) {
    let lane = subject.ledger_lane();
    let mut inbox = subject.serve(from_ref(&lane), 64).await;
    assert_eq!(inbox.pause(&lane).await, Ok(()));
    subject.publish(&lane, 0..3).await;
    subject.quiet(&mut inbox).await;
    assert_eq!(inbox.resume(&lane).await, Ok(()));
    assert_eq!(message(&mut inbox).await, Incoming::WakeUp(lane.clone()));
    subject.quiet(&mut inbox).await;
}

/// How long an engine may take to notice that an inbox is dropped, looked at this often.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: usize = 500;

async fn soon_unserved(subject: &Subject, lane: &Lane) {
    for _ in 0..LOOKS {
        match subject.offer(lane, 0).await {
            Ok(()) => tokio::time::sleep(LOOK).await,
            Err(BrokerError::Unserved(of)) if of == *lane => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("lane {lane} is still served");
}

async fn soon_unanswerable(broker: &dyn Broker, frontend: &Incarnation) {
    for _ in 0..LOOKS {
        match broker.answer(frontend, Bytes::from("late"), None).await {
            Ok(()) => tokio::time::sleep(LOOK).await,
            Err(BrokerError::Unanswerable(who)) if who == *frontend => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("{frontend} still takes answers");
}

async fn answer(inbox: &mut Box<dyn Answers>) -> Bytes {
    let answer = timeout(LIMIT, inbox.next()).await.expect("an answer should have come");
    answer.expect("the inbox should be open").body
}

pub(super) async fn answers(subject: Subject) {
    let broker = &subject.broker;
    let (now, before, elsewhere) = (
        incarnation("front", 2),
        incarnation("front", 1),
        incarnation("other", 2),
    );
    let mut mine = broker.answers(&now, 8).await.expect("a front end may take answers");
    let mut others = broker
        .answers(&elsewhere, 8)
        .await
        .expect("a front end may take answers");
    for (to, text) in [(&now, "one"), (&elsewhere, "two"), (&now, "three")] {
        assert_eq!(broker.answer(to, Bytes::from(text), None).await, Ok(()));
    }
    let late = broker.answer(&before, Bytes::from("late"), None).await;
    assert_eq!(late, Err(BrokerError::Unanswerable(before)));
    assert_eq!(answer(&mut mine).await, "one");
    assert_eq!(answer(&mut mine).await, "three");
    assert_eq!(answer(&mut others).await, "two");
    assert!(timeout(subject.patience, mine.next()).await.is_err());

    drop(mine);
    soon_unanswerable(&**broker, &now).await;
    assert_eq!(broker.answer(&elsewhere, Bytes::from("four"), None).await, Ok(()));
    assert_eq!(answer(&mut others).await, "four");
}

pub(super) async fn too_many_answers(subject: Subject) {
    let front_end = incarnation("front", 1);
    let mut inbox = subject
        .broker
        .answers(&front_end, 3)
        .await
        .expect("a front end may take answers");
    for number in 0..6 {
        let sent = subject
            .broker
            .answer(&front_end, Bytes::from(number.to_string()), None)
            .await;
        assert_eq!(sent, Ok(()), "an answer is a hint: nobody is told that it was dropped");
    }
    tokio::time::sleep(subject.patience).await;
    for number in 0..3 {
        assert_eq!(answer(&mut inbox).await, number.to_string());
    }
    assert!(timeout(subject.patience, inbox.next()).await.is_err());
    assert_eq!(
        subject.broker.answer(&front_end, Bytes::from("after"), None).await,
        Ok(())
    );
    assert_eq!(answer(&mut inbox).await, "after");
}

pub(super) async fn quarantine(subject: Subject) {
    let lane = lane("a");
    assert_eq!(subject.broker.quarantined().await, Ok(0));
    for number in 0..3 {
        let set_aside = subject
            .broker
            .quarantine(&lane, body(&lane, number), "signature does not verify")
            .await;
        assert_eq!(set_aside, Ok(()));
    }
    assert_eq!(subject.broker.quarantined().await, Ok(3));
    let mut inbox = subject.serve(&[lane], 64).await;
    subject.quiet(&mut inbox).await;
}

pub(super) async fn traced(subject: Subject) {
    let front_end = incarnation("front", 1);
    let opened = subject.broker.answers(&front_end, 8).await;
    let mut inbox = opened.expect("a front end may take answers");
    let too_long = "x".repeat(MAX_TRACE_BYTES + 1);
    for (trace, expected) in [
        (Some("00-1-2-01"), Some("00-1-2-01")),
        (None, None),
        (Some(&too_long), None),
    ] {
        let sent = subject.broker.answer(&front_end, Bytes::from("body"), trace).await;
        assert_eq!(sent, Ok(()));
        let answer = timeout(LIMIT, inbox.next()).await.expect("an answer should have come");
        assert_eq!(answer.expect("the inbox should be open").trace.as_deref(), expected);
    }
}
