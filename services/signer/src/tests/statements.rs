//! Whoever can write to the database gets nothing signed: every field of what is begun, altered in turn.

use std::{sync::Arc, time::Duration};

use domain::{
    bytes::Digest,
    failure::Failure,
    id::Serial,
    issuer::Purpose,
    job::State,
    lane::Class,
    statement::{Proof, Statement},
    time::{Clock, Timestamp},
};
use runtime::{clock::SystemClock, follow::Applied};
use store::{Begin, Begun, Store};
use wire::{
    attest::{Verifier, attest},
    signed::NodeKey,
};

use super::bench::Bench;
use crate::check::{Objection, View, check};

/// What is altered, and how.
type Alteration<T> = (&'static str, fn(&mut T));

async fn begun(bench: &Bench) -> Begun {
    let jobs = bench.accept(vec![bench.draft("a", "host.example.com")]).await;
    let owner = bench.waiter.clone();
    match bench.store.begin(&owner, &jobs).await.unwrap().remove(0) {
        Begin::Begun(begun) => *begun,
        Begin::Not(job, why) => panic!("{job}: {why:?}"),
    }
}

fn judge(begun: &Begun, applied: &Applied) -> Result<(), Objection> {
    let verifier = Verifier::new();
    let view = View {
        applied,
        verifier: &verifier,
        now: SystemClock.now(),
        held: None,
    };
    check(begun, &view).map(|_| ())
}

/// The statement of a job, altered and signed again with `key`.
fn resigned(begun: &Begun, key: &NodeKey, change: impl FnOnce(&mut Statement)) -> Begun {
    let mut statement: Statement = serde_json::from_slice(&begun.statement).unwrap();
    change(&mut statement);
    let statement = serde_json::to_vec(&statement).unwrap();
    let proof = attest(key, &[&statement]).remove(0);
    Begun {
        proof: serde_json::to_vec(&proof).unwrap(),
        statement,
        ..begun.clone()
    }
}

#[tokio::test]
async fn every_field_of_a_row_that_is_altered_is_found() {
    let bench = Bench::new().await;
    let applied = bench.follower.applied().load_full();
    let good = begun(&bench).await;
    judge(&good, &applied).unwrap();
    let alterations: [Alteration<Begun>; 20] = [
        ("job", |b| b.job = Serial::new(b.job.time(), [9; 10])),
        ("issuer", |b| b.lane.issuer = "b".parse().unwrap()),
        ("class", |b| b.lane.class = Class::Bulk),
        ("account", |b| b.account = "b".parse().unwrap()),
        ("purpose", |b| b.purpose = Purpose::Tsa),
        ("request's issuer", |b| b.request.lane.issuer = "b".parse().unwrap()),
        ("request's class", |b| b.request.lane.class = Class::Bulk),
        ("request's account", |b| b.request.account = "b".parse().unwrap()),
        ("profile", |b| b.request.profile = "b".parse().unwrap()),
        ("profile version", |b| b.request.profile_version += 1),
        ("request's purpose", |b| b.request.purpose = Purpose::OcspSigner),
        ("request's sign_by", |b| {
            b.request.sign_by = b.request.sign_by + Duration::from_secs(1);
        }),
        ("notBefore", |b| b.request.not_before -= 1),
        ("notAfter", |b| b.request.not_after += 1),
        ("later sign_by", |b| b.sign_by = b.sign_by + Duration::from_secs(1)),
        ("earlier sign_by", |b| b.sign_by = b.sign_by - Duration::from_secs(1)),
        ("intent", |b| b.intent = Digest([7; 32])),
        ("to-be-signed bytes", |b| *b.tbs.last_mut().unwrap() ^= 1),
        ("bytes and intent", |b| {
            *b.tbs.last_mut().unwrap() ^= 1;
            b.intent = pki::sha256(&b.tbs);
        }),
        ("joined", |b| b.joined.push((b"{}".to_vec(), b.proof.clone()))),
    ];
    for (what, alter) in alterations {
        let mut altered = good.clone();
        alter(&mut altered);
        let objection = judge(&altered, &applied).expect_err(what);
        assert!(
            matches!(objection.failure, Failure::Altered(_)),
            "{what}: {objection:?}"
        );
    }
    for index in 0..good.statement.len() {
        let mut altered = good.clone();
        altered.statement[index] ^= 1;
        assert!(judge(&altered, &applied).is_err(), "byte {index} of the statement");
    }
    for index in 0..good.proof.len() {
        let mut altered = good.clone();
        altered.proof[index] ^= 1;
        let same = serde_json::from_slice::<Proof>(&altered.proof).ok() == serde_json::from_slice(&good.proof).ok();
        assert!(same || judge(&altered, &applied).is_err(), "byte {index} of the proof");
    }
}

#[tokio::test]
async fn a_statement_counts_only_from_a_front_end_that_is_enrolled() {
    let bench = Bench::new().await;
    let applied = bench.follower.applied().load_full();
    let good = begun(&bench).await;
    judge(&resigned(&good, &bench.frontend, |_| {}), &applied).unwrap();
    for key in [
        &*bench.signer,
        &bench.control,
        &NodeKey::generate("frontend-1".parse().unwrap()),
        &NodeKey::generate("frontend-2".parse().unwrap()),
    ] {
        let objection = judge(&resigned(&good, key, |_| {}), &applied).unwrap_err();
        assert!(matches!(objection.failure, Failure::Altered(_)), "{objection:?}");
    }
}

#[tokio::test]
async fn every_field_of_a_statement_must_fit_the_row_and_its_time_the_enrolment() {
    let bench = Bench::new().await;
    let applied = bench.follower.applied().load_full();
    let good = begun(&bench).await;
    let alterations: [Alteration<Statement>; 12] = [
        ("version", |s| s.version = 2),
        ("job", |s| s.job = Serial::new(s.job.time(), [9; 10])),
        ("account", |s| s.account = "b".parse().unwrap()),
        ("issuer", |s| s.issuer = "b".parse().unwrap()),
        ("profile", |s| s.profile = "b".parse().unwrap()),
        ("profile version", |s| s.profile_version += 1),
        ("class", |s| s.class = Class::Renewal),
        ("accepted_at", |s| s.accepted_at = Timestamp::from_secs(5_000_000_000)),
        ("sign_by", |s| s.sign_by = s.sign_by + Duration::from_secs(1)),
        ("intent", |s| s.intent = Digest([1; 32])),
        ("purpose", |s| s.purpose = Purpose::OcspSigner),
        ("content", |s| s.content.not_after += 60),
    ];
    for (what, alter) in alterations {
        assert!(
            judge(&resigned(&good, &bench.frontend, alter), &applied).is_err(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_later_sign_by_counts_only_with_a_statement_of_the_same_request_that_carries_it() {
    let bench = Bench::new().await;
    let applied = bench.follower.applied().load_full();
    let good = begun(&bench).await;
    let later = good.sign_by + Duration::from_mins(10);
    let joined = |change: fn(&mut Statement), key: &NodeKey| {
        let joiner = resigned(&good, key, |statement| {
            statement.job = Serial::new(statement.job.time(), [3; 10]);
            statement.sign_by = later;
            change(statement);
        });
        Begun {
            sign_by: later,
            joined: vec![(joiner.statement, joiner.proof)],
            ..good.clone()
        }
    };
    judge(&joined(|_| {}, &bench.frontend), &applied).unwrap();
    judge(&joined(|s| s.account = "b".parse().unwrap(), &bench.frontend), &applied).unwrap_err();
    judge(&joined(|s| s.repeat = Digest([5; 32]), &bench.frontend), &applied).unwrap_err();
    judge(&joined(|_| {}, &bench.signer), &applied).unwrap_err();
    let mut beyond = good.clone();
    let far = good.sign_by + Duration::from_hours(24);
    let joiner = resigned(&good, &bench.frontend, |statement| statement.sign_by = far);
    (beyond.sign_by, beyond.joined) = (far, vec![(joiner.statement, joiner.proof)]);
    judge(&beyond, &applied).expect_err("more than two days after notBefore");
}

#[tokio::test]
async fn a_row_that_says_yes_where_the_signed_registry_says_no_is_reported() {
    let bench = Bench::new().await;
    let lie = |row: &mut store::IssuerRow| row.usage.issue = true;
    bench.change_with(vec![bench.switched("a", false)], lie).await;
    let objection = judge(&begun(&bench).await, &bench.follower.applied().load()).unwrap_err();
    assert_eq!(objection.failure, Failure::IssuerDisabled);
    assert_eq!(objection.report, Some("issuer_row_disagreement"));
    assert!(objection.by_snapshot, "a signer that is behind must not judge");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_ledger_gives_no_certificate_and_an_event_beside_the_job_and_in_the_audit_log_says_so() {
    let bench = Bench::new().await;
    let sql = [
        "UPDATE intent SET tbs = zeroblob(100) WHERE id = (SELECT id FROM request WHERE job = ?1)",
        "UPDATE open SET account = 'b' WHERE job = ?1",
        "UPDATE open SET sign_by = sign_by + 60000 WHERE job = ?1",
        "UPDATE open SET issuer = 'b' WHERE job = ?1",
        "UPDATE statement SET statement = CAST(replace(CAST(statement AS TEXT), 'host', 'evil') AS BLOB) WHERE id = (SELECT id FROM request WHERE job = ?1)",
        "UPDATE request SET profile_version = 9 WHERE job = ?1",
    ];
    let drafts = sql.iter().map(|_| bench.draft("a", "host.example.com")).collect();
    let jobs = bench.accept(drafts).await;
    for (sql, job) in sql.iter().zip(&jobs) {
        bench.tamper(sql, *job);
    }
    let signer = bench.start();
    for job in &jobs {
        bench
            .until("it is set aside or refused", async || {
                let job = bench.job(*job).await;
                !matches!(job.state, State::Queued | State::Signing)
            })
            .await;
        bench
            .until("it is reported", async || {
                let events = bench.events(*job).await;
                events.iter().any(|kind| kind == "altered" || kind == "damaged")
            })
            .await;
    }
    assert_eq!((bench.token.asked("a"), bench.token.asked("b")), (0, 0));
    assert_eq!(signer.metric("bulkhead_ledger_altered_total"), jobs.len() as u64);
    signer.stop().await.unwrap();
    let links = bench.store.audit(None, 0, 100).await.unwrap();
    let applied: Arc<Applied> = bench.follower.applied().load_full();
    wire::audit::verify(&links, None, &applied.directory).unwrap();
    let told = links.iter().flat_map(|link| &link.events);
    let told = told
        .filter(|event| String::from_utf8_lossy(event).contains("job_altered"))
        .count();
    assert!(told >= 4, "{told} of {} alterations are in the audit log", jobs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_an_issuer_that_nobody_knows_keeps_no_other_from_being_begun_or_swept() {
    let bench = Bench::new().await;
    let drafts = (0..8)
        .map(|n| bench.draft("a", &format!("host-{n}.example.com")))
        .collect();
    let mut jobs = bench.accept(drafts).await;
    let strangers = [jobs.remove(0), jobs.remove(3)];
    for (stranger, issuer) in strangers.iter().zip(["nobody", "NO NAME"]) {
        bench.tamper(
            &format!("UPDATE open SET issuer = '{issuer}' WHERE job = ?1"),
            *stranger,
        );
    }
    let (late, in_time) = jobs.split_at(2);
    for late in late.iter().chain(&strangers[1..]) {
        bench.tamper("UPDATE open SET sign_by = accepted_at WHERE job = ?1", *late);
    }
    let signer = bench.start();
    for jobs in [&strangers[..], in_time] {
        bench.publish("a", jobs).await;
    }
    bench.issued("a", in_time).await;
    bench.ended(late).await;
    for stranger in strangers {
        bench
            .until("it is set aside and reported", async || {
                let reported = bench.events(stranger).await.contains(&"damaged".to_owned());
                reported && bench.state(stranger).await == State::Parked
            })
            .await;
    }
    assert_eq!((bench.token.asked("a"), bench.token.asked("b")), (4, 0));
    assert!(signer.metric("bulkhead_ledger_altered_total") > 0, "it is not counted");
    signer.stop().await.unwrap();
}
