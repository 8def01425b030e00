//! Keys that fail, owners that die, issuers that are switched off: whose matter it is, and that nobody else notices.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use domain::{
    audit::AuditEvent,
    bytes::Blob,
    failure::{KeysFailure, Scope},
    id::Incarnation,
    issuer::{IssuerState, Role},
    job::{RevocationReason, State},
    registry::Change,
    time::Clock,
};
use keys::Keys;
use runtime::{clock::SystemClock, telemetry};
use store::{Announcement, Begin, Revocation, Revoked, Store};
use tokio::{runtime::Handle, sync::mpsc};
use wire::attest::Verifier;

use super::{
    bench::{Bench, lane, only},
    token::Fault,
};
use crate::{
    check::{View, check},
    issue::Issue,
    keyring::Keyring,
    metrics::Metrics,
    report::Reporter,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_defers_its_jobs_and_the_other_issuer_goes_on() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Fails(KeysFailure::OperationFailed));
    let signer = bench.start();
    let a = bench.submit("a", 40).await;
    let b = bench.submit("b", 200).await;
    bench.issued("b", &b).await;
    assert!(
        bench.token.asked("a") < 60,
        "the failing key spins: {}",
        bench.token.asked("a")
    );
    for job in &a {
        assert!(bench.state(*job).await.is_open());
    }
    bench
        .until("the lane says so", async || {
            let lanes = signer.health.readiness().lanes;
            lanes
                .iter()
                .any(|part| part.lane == Some(lane("a").to_string()) && !part.ready)
        })
        .await;
    bench.token.mend("a");
    bench.issued("a", &a).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_destroyed_leaves_its_jobs_waiting_and_its_lane_to_others() {
    let bench = Bench::new().await;
    let signer = bench.start();
    let first = bench.submit("a", 1).await;
    bench.issued("a", &first).await;
    bench.token.break_key("a", Fault::Gone);
    let a = bench.submit("a", 10).await;
    let b = bench.submit("b", 50).await;
    bench.issued("b", &b).await;
    bench
        .until("the lane is not served", async || {
            let lanes = signer.health.readiness().lanes;
            lanes.iter().any(|part| part.reason.contains("is not on token"))
        })
        .await;
    for job in &a {
        assert!(bench.state(*job).await.is_open());
    }
    bench.token.mend("a");
    bench.issued("a", &a).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_does_not_verify_is_dropped_and_made_once_more() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Wrong(1));
    let signer = bench.start();
    let jobs = bench.submit("a", 1).await;
    bench.issued("a", &jobs).await;
    assert_eq!(bench.token.asked("a"), 2);
    bench.token.break_key("a", Fault::Wrong(2));
    let jobs = bench.submit("a", 1).await;
    bench.issued("a", &jobs).await;
    assert_eq!(bench.token.asked("a"), 5);
    assert!(bench.events(jobs[0]).await.contains(&"deferred".to_owned()));
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_over_one_job_refuses_it_alone() {
    let bench = Bench::new().await;
    bench
        .token
        .break_key("a", Fault::PanicsOver(b"host-2.example.com".to_vec()));
    let signer = bench.start();
    let mut jobs = bench.submit("a", 4).await;
    let poison = jobs.remove(2);
    assert_eq!(bench.refused(poison).await.0, "internal");
    bench.issued("a", &jobs).await;
    bench
        .until("it is reported", async || {
            bench.events(poison).await.contains(&"panicked".to_owned())
        })
        .await;
    // Nothing of the job is held: neither its slot nor its identity, so that the same request may be made again.
    bench.token.mend("a");
    let mut again = bench.draft("a", "host-2.example.com");
    again.new.repeat = bench.repeat_of(poison).await;
    let more = bench.accept(vec![again]).await;
    assert_ne!(more[0], poison);
    bench.issued("a", &more).await;
    bench
        .until("every slot is free", async || {
            signer.metric("bulkhead_signer_in_flight") == 0
        })
        .await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_error_of_a_request_is_met_once_however_often_it_is_delivered() {
    let bench = Bench::new().await;
    let jobs = bench.accept(vec![bench.draft("a", "host.example.com")]).await;
    let stricter = bench.profile_change("a", |profile| profile.policy.san.dns_names = only("example.org"));
    bench.change(vec![stricter]).await;
    let signer = bench.start();
    for _ in 0..20 {
        bench.publish("a", &jobs).await;
    }
    assert_eq!(bench.refused(jobs[0]).await.0, "policy_violation");
    bench.publish("a", &jobs).await;
    bench
        .until("every delivery is settled", async || {
            signer.metric("bulkhead_signer_waiting") == 0 && signer.metric("bulkhead_signer_in_flight") == 0
        })
        .await;
    assert_eq!((bench.job(jobs[0]).await.turn, bench.token.asked("a")), (1, 0));
    assert_eq!(
        signer.metric("bulkhead_signer_refused_total{id=\"policy_violation\"}"),
        1
    );
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_hangs_holds_half_of_the_threads_and_its_jobs_are_given_up() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Waits);
    let signer = bench.start();
    let a = bench.submit("a", 40).await;
    bench.until("threads hang", async || bench.token.waiting() > 0).await;
    let b = bench.submit("b", 100).await;
    bench.issued("b", &b).await;
    assert!(bench.token.waiting() <= 2, "{} threads of 4", bench.token.waiting());
    bench
        .until("a job is given up", async || {
            bench.events(a[0]).await.contains(&"deferred".to_owned())
        })
        .await;
    bench.token.mend("a");
    bench.issued("a", &a).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_disabled_between_begin_and_finish_gives_no_certificate() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Waits);
    let signer = bench.start();
    let jobs = bench.submit("a", 1).await;
    bench
        .until("it is being signed", async || bench.token.waiting() == 1)
        .await;
    bench.change(vec![bench.switched("a", false)]).await;
    bench.token.mend("a");
    assert_eq!(bench.refused(jobs[0]).await.0, "issuer_disabled");
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_jobs_of_disabled_and_destroyed_issuers_are_refused_without_touching_their_keys() {
    let bench = Bench::new().await;
    let a = bench.submit("a", 5).await;
    let drafts = (0..5).map(|n| bench.draft("b", &format!("h{n}.example.com"))).collect();
    let b = bench.accept(drafts).await;
    let mut destroyed = bench.issuer("b");
    destroyed.state = IssuerState::Destroyed;
    let issuer = Box::new(destroyed);
    bench
        .change(vec![bench.switched("a", false), Change::PutIssuer { issuer }])
        .await;
    let signer = bench.start();
    for job in a {
        assert_eq!(bench.refused(job).await.0, "issuer_disabled");
    }
    for job in b {
        assert_eq!(bench.refused(job).await.0, "issuer_destroyed");
    }
    assert_eq!((bench.token.asked("a"), bench.token.asked("b")), (0, 0));
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_says_yes_where_the_signed_registry_says_no_gives_no_certificate() {
    let bench = Bench::new().await;
    let lie = |row: &mut store::IssuerRow| row.usage.issue = true;
    bench.change_with(vec![bench.switched("a", false)], lie).await;
    let mut draft = bench.draft("a", "host.example.com");
    draft.new.waiter = None;
    let jobs = bench.accept(vec![draft]).await;
    let signer = bench.start();
    bench.publish("a", &jobs).await;
    assert_eq!(bench.refused(jobs[0]).await.0, "issuer_disabled");
    assert_eq!(bench.token.asked("a"), 0);
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_signers_job_is_taken_over() {
    let bench = Bench::new().await;
    let drafts = vec![bench.draft("a", "one.example.com"), bench.draft("a", "two.example.com")];
    let jobs = bench.accept(drafts).await;
    let dead = Incarnation {
        node: "signer-1".parse().unwrap(),
        run: 666,
    };
    let announcement = Announcement {
        in_flight: 2,
        ..Announcement::new(dead.clone(), Role::Signer, 1)
    };
    let lease = Duration::from_millis(200);
    bench.store.heartbeat(&announcement, lease).await.unwrap();
    let begun = bench.store.begin(&dead, &jobs).await.unwrap();
    assert!(begun.iter().all(|begun| matches!(begun, Begin::Begun(_))));
    let signer = bench.start();
    bench.issued("a", &jobs).await;
    for job in &jobs {
        let job = bench.job(*job).await;
        assert_eq!((job.turn, job.strikes), (2, 1));
    }
    assert_eq!(signer.metric("bulkhead_signer_taken_over_total"), 2);
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_profile_refuses_what_was_accepted_before_it_naming_both_versions() {
    let bench = Bench::new().await;
    let drafts = vec![
        bench.draft("a", "host.example.com"),
        bench.draft("a", "host.example.org"),
    ];
    let jobs = bench.accept(drafts).await;
    let stricter = bench.profile_change("a", |profile| profile.policy.san.dns_names = only("example.org"));
    bench.change(vec![stricter]).await;
    let signer = bench.start();
    let (id, detail) = bench.refused(jobs[0]).await;
    assert_eq!(id, "policy_violation");
    assert!(detail.contains("version 1") && detail.contains("version 2"), "{detail}");
    bench.issued("a", &jobs[1..]).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_and_a_blocked_key_are_never_signed() {
    let bench = Bench::new().await;
    let jobs = bench.accept(vec![bench.draft("a", "host.example.com")]).await;
    let revocation = Revocation {
        job: jobs[0],
        account: None,
        reason: RevocationReason::CessationOfOperation,
        revocation_date: None,
        cancel_pending: true,
        by: "operator:alice".to_owned(),
    };
    assert_eq!(bench.store.revoke(revocation).await.unwrap(), Revoked::Cancelled);
    let blocked = bench.draft("b", "host.example.com");
    let spki = blocked.new.public_key;
    let other = bench.accept(vec![blocked]).await;
    bench.change(vec![Change::BlockKey { spki }]).await;
    let signer = bench.start();
    bench.publish("a", &jobs).await;
    bench.publish("b", &other).await;
    let (id, detail) = bench.refused(jobs[0]).await;
    assert_eq!(id, "refused", "{detail}");
    assert_eq!(bench.refused(other[0]).await.0, "blocked_key");
    assert_eq!((bench.token.asked("a"), bench.token.asked("b")), (0, 0));
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_off_takes_no_jobs_and_expires_nothing() {
    let bench = Bench::new().await;
    bench.host.0.store(10_000, Ordering::SeqCst);
    let signer = bench.start();
    let jobs = bench.submit("a", 3).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for job in &jobs {
        assert_eq!(bench.state(*job).await, State::Queued);
    }
    assert!(!signer.health.readiness().ready);
    bench.host.0.store(0, Ordering::SeqCst);
    bench.issued("a", &jobs).await;
    signer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_nothing_costs_no_job_and_no_signature() {
    let bench = Bench::new().await;
    bench.token.break_key("a", Fault::Waits);
    let signer = bench.start();
    let signed = bench.submit("a", 2).await;
    bench
        .until("it is being signed", async || bench.token.waiting() > 0)
        .await;
    let queued = bench.accept(vec![bench.draft("b", "host.example.com")]).await;
    let connection = bench.connection();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.token.mend("a");
    bench
        .until("it says so", async || !signer.health.readiness().ready)
        .await;
    connection.execute_batch("ROLLBACK").unwrap();
    bench.issued("a", &signed).await;
    bench.issued("b", &queued).await;
    bench
        .until("it is well again", async || signer.health.readiness().ready)
        .await;
    signer.stop().await.unwrap();
}

/// The one way to such a certificate is a fault of the program: here the content is exchanged between check and signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_over_bytes_that_nobody_intended_is_kept_as_evidence_and_stops_the_signer() {
    let bench = Bench::new().await;
    let jobs = bench.accept(vec![bench.draft("a", "host.example.com")]).await;
    let Begin::Begun(begun) = bench.store.begin(&bench.waiter, &jobs).await.unwrap().remove(0) else {
        panic!("not begun");
    };
    let applied = bench.follower.applied();
    let keys: Vec<Arc<dyn Keys>> = vec![bench.token.clone()];
    let keyring = Keyring::look(&bench.snapshot(), &keys, &[], &Keyring::default());
    let held = keyring.get(&begun.lane.issuer).unwrap().clone();
    let mut checked = {
        let (applied, verifier) = (applied.load(), Verifier::new());
        let view = View {
            applied: &applied,
            verifier: &verifier,
            now: SystemClock.now(),
            held: None,
        };
        check(&begun, &view).unwrap()
    };
    checked.statement.content.public_key = Blob(b"another key".to_vec());

    let metrics = Metrics::new(&telemetry::Metrics::new());
    let (reports, to_report) = mpsc::channel(4);
    let issue = Issue {
        store: bench.store.clone(),
        applied,
        keyring: Arc::default(),
        verifier: Verifier::new(),
        clock: Arc::new(SystemClock),
        handle: Handle::current(),
        news: mpsc::channel(1).0,
        reports,
        metrics: metrics.clone(),
    };
    let failure = issue.sign(&begun, &checked, Some(&held)).unwrap_err();
    // What follows from it: `dispatch::tests::a_fault_of_the_program_ends_the_job_and_stops_the_signer`.
    assert_eq!(failure.scope(), Some(Scope::Program));

    drop(issue);
    let reporter = Reporter {
        store: bench.store.clone(),
        key: bench.signer.clone(),
        clock: Arc::new(SystemClock),
        metrics,
    };
    reporter.run(to_report).await;
    assert_eq!(bench.events(jobs[0]).await, ["foreign_certificate"]);
    let links = bench.store.audit(None, 0, 10).await.unwrap();
    let event: AuditEvent = serde_json::from_slice(&links[0].events[0]).unwrap();
    assert_eq!(event.kind, "job_foreign_certificate");
    let (_, pem) = event.detail.split_once('\n').expect("the certificate is in it");
    let certificate = pki::pem::decode("CERTIFICATE", pem).unwrap();
    assert_eq!(pki::certificate::read(&certificate).unwrap().tbs, begun.tbs);
}
