//! Revisions, races, the audit log, and what control does by itself.

use std::{sync::Arc, time::Duration};

use domain::{
    audit::AuditEvent,
    breaker::Force,
    bytes::Digest,
    issuer::{IssuerState, Role, TokenKey},
    time::Clock,
};
use runtime::{clock::SystemClock, config};
use store::{Announcement, Store};
use wire::{
    admin::{AddAccount, PutProfile},
    operate::{ForceBreaker, MarkDestroyed},
    signed::NodeKey,
};

use super::{Bench, holds, token};
use crate::RegistryError;

#[tokio::test]
async fn the_first_revision_enrols_and_every_other_start_changes_nothing() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let snapshot = registry.current().await.unwrap();
    assert_eq!(
        (snapshot.revision, snapshot.nodes.len(), snapshot.operators.len()),
        (1, 1, 1)
    );
    let (node, operators) = (
        registry.node(bench.control.node()).await.unwrap().unwrap(),
        [("alice".parse().unwrap(), Digest([1; 32]))],
    );
    assert_eq!(bench.control(&bench.control).enrol(&[node], &operators).await, Ok(1));
}

#[tokio::test]
async fn a_control_node_that_nobody_enrolled_changes_nothing() {
    let bench = Bench::new();
    bench.started().await;
    let stranger = bench.control(&Arc::new(NodeKey::generate("control-9".parse().unwrap())));
    let refused = stranger.block_key(Digest([3; 32]), "test").await;
    assert!(matches!(refused, Err(RegistryError::Trust(_))), "{refused:?}");
    assert!(bench.started().await.current().await.unwrap().blocked_keys.is_empty());
}

#[tokio::test]
async fn disabling_takes_issuance_alone_and_enabling_gives_it_back() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let id = "demo-p256".parse().unwrap();
    let changed = registry
        .switch_issuer("operator:alice", &id, false, "drill")
        .await
        .unwrap();
    assert!(changed.changed);
    let issuer = registry.current().await.unwrap().issuers[&id].clone();
    assert_eq!(
        (issuer.state, issuer.reason.as_deref()),
        (IssuerState::Disabled, Some("drill"))
    );
    assert_eq!(
        (issuer.usage.issue, issuer.usage.crl, issuer.usage.ocsp),
        (false, true, true)
    );
    let again = registry
        .switch_issuer("operator:alice", &id, false, "drill")
        .await
        .unwrap();
    assert_eq!((again.changed, again.revision), (false, changed.revision));
    registry
        .switch_issuer("operator:alice", &id, true, "over")
        .await
        .unwrap();
    let issuer = registry.current().await.unwrap().issuers[&id].clone();
    assert_eq!((issuer.state, issuer.usage.issue), (IssuerState::Enabled, true));
}

#[tokio::test]
async fn a_destroyed_issuer_loses_everything_for_ever_and_a_dry_run_says_what() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let id = "demo-p256".parse().unwrap();
    let mark = |dry_run, expect_count| MarkDestroyed {
        dry_run,
        expect_count,
        reason: "ceremony".into(),
    };
    let by = "operator:alice";
    let tried = registry
        .mark_issuer_destroyed(by, &id, mark(true, Some(0)))
        .await
        .unwrap();
    assert!(tried.dry_run && tried.changed && tried.lanes.is_empty());
    assert_eq!(tried.accounts, ["demo-p256".parse().unwrap()]);
    assert!(
        tried.warnings[0].contains("still on token soft"),
        "{:?}",
        tried.warnings
    );
    let refused = registry.mark_issuer_destroyed(by, &id, mark(false, Some(1))).await;
    assert!(matches!(refused, Err(RegistryError::State(_))), "{refused:?}");
    let before = registry.current().await.unwrap();
    assert_eq!(before.issuers[&id].state, IssuerState::Enabled);

    let marked = registry
        .mark_issuer_destroyed(by, &id, mark(false, None))
        .await
        .unwrap();
    assert_eq!((marked.changed, marked.revision), (true, before.revision + 1));
    let issuer = registry.current().await.unwrap().issuers[&id].clone();
    assert_eq!(
        (issuer.state, issuer.reason.as_deref()),
        (IssuerState::Destroyed, Some("ceremony"))
    );
    assert_eq!(
        (issuer.usage.issue, issuer.usage.crl, issuer.usage.ocsp),
        (false, false, false)
    );
    assert!(holds(&bench, "demo-p256"), "the command has touched a token");
    let again = registry
        .mark_issuer_destroyed(by, &id, mark(false, None))
        .await
        .unwrap();
    assert_eq!((again.changed, again.revision), (false, marked.revision));
    let back = registry.switch_issuer(by, &id, true, "no").await;
    assert!(matches!(back, Err(RegistryError::State(_))), "{back:?}");

    let links = bench.store.audit(Some(bench.control.node()), 0, 100).await.unwrap();
    let last: AuditEvent = serde_json::from_slice(links.last().unwrap().events.last().unwrap()).unwrap();
    assert_eq!(
        (last.kind.as_str(), last.subject.as_str()),
        ("issuer_destroyed", "issuer:demo-p256")
    );
}

#[tokio::test]
async fn the_fleet_is_what_announced_itself_and_how_far_it_is_behind() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let head = registry.current().await.unwrap().revision;
    let announcement = announcement(head);
    bench
        .store
        .heartbeat(&announcement, Duration::from_secs(2))
        .await
        .unwrap();
    let fleet = registry.fleet().await.unwrap();
    assert_eq!(fleet.len(), 1);
    let signer = &fleet[0];
    assert_eq!(
        (signer.alive, signer.behind, signer.keys, signer.in_flight),
        (true, 1, 1, 3)
    );
    assert_eq!(
        (signer.tokens_out.len(), signer.stands_down, signer.backs_off),
        (1, true, false)
    );
    assert_eq!(signer.breakers[0].standing, "open");
    bench.store.goodbye(&announcement.incarnation).await.unwrap();
    assert!(!registry.fleet().await.unwrap()[0].alive);
}

#[tokio::test]
async fn an_order_to_breakers_is_audited_and_listed_beside_what_signers_say() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let (by, id) = ("operator:alice", "demo-p256".parse().unwrap());
    let order = |force| ForceBreaker {
        force,
        reason: "drill".into(),
    };
    let forced = registry.force_breaker(by, &id, order(Some(Force::Open))).await.unwrap();
    assert_eq!((forced.force, forced.changed), (Some(Force::Open), true));
    let again = registry.force_breaker(by, &id, order(Some(Force::Open))).await.unwrap();
    assert!(!again.changed);
    let unknown = registry
        .force_breaker(by, &"nobody".parse().unwrap(), order(None))
        .await;
    assert!(matches!(unknown, Err(RegistryError::Unknown(..))), "{unknown:?}");
    let mut announcement = announcement(registry.current().await.unwrap().revision);
    announcement
        .breakers
        .push(("demo-rsa2048".parse().unwrap(), "half-open".into()));
    bench
        .store
        .heartbeat(&announcement, Duration::from_secs(2))
        .await
        .unwrap();
    let breakers = registry.breakers().await.unwrap();
    let listed: Vec<_> = breakers
        .iter()
        .map(|breaker| (breaker.issuer.as_str(), breaker.force, breaker.signers.len()))
        .collect();
    assert_eq!(listed, [("demo-p256", Some(Force::Open), 1), ("demo-rsa2048", None, 1)]);
    registry.force_breaker(by, &id, order(None)).await.unwrap();
    assert_eq!(bench.store.forced_breakers().await.unwrap(), []);

    let links = bench.store.audit(Some(bench.control.node()), 0, 100).await.unwrap();
    let events = links.iter().flat_map(|link| &link.events);
    let events: Vec<AuditEvent> = events.map(|event| serde_json::from_slice(event).unwrap()).collect();
    let details: Vec<&str> = events
        .iter()
        .filter(|event| event.kind == "breaker_forced")
        .map(|event| event.detail.as_str())
        .collect();
    assert_eq!(details, ["from auto to open", "from open to auto"]);
}

/// What a signer says that is one revision behind and not well.
fn announcement(head: u64) -> Announcement {
    Announcement {
        issuers: vec!["demo-p256".parse().unwrap()],
        breakers: vec![("demo-p256".parse().unwrap(), "open".into())],
        in_flight: 3,
        tokens_out: vec!["hsm".parse().unwrap()],
        stands_down: true,
        clock_offset_ms: Some(12),
        ..Announcement::new("signer-1#00000000000000ff".parse().unwrap(), Role::Signer, head - 1)
    }
}

#[tokio::test]
async fn two_control_nodes_that_change_at_the_same_time_both_get_their_change() {
    let bench = Bench::new();
    let first = bench.with_demo().await;
    let other_key = Arc::new(NodeKey::generate("control-2".parse().unwrap()));
    first.enrol(&[bench.node(&other_key)], &[]).await.unwrap();
    let second = bench.control(&other_key);
    for round in 0..8_u8 {
        let (a, b) = (Digest([round; 32]), Digest([100 + round; 32]));
        let (one, other) = tokio::join!(first.block_key(a, "race"), second.block_key(b, "race"));
        one.unwrap();
        other.unwrap();
    }
    assert_eq!(second.current().await.unwrap().blocked_keys.len(), 16);
}

#[tokio::test]
async fn every_revision_has_its_line_in_an_audit_log_that_verifies() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    registry
        .switch_issuer("operator:alice", &"demo-p256".parse().unwrap(), false, "drill")
        .await
        .unwrap();
    let links = bench.store.audit(Some(bench.control.node()), 0, 100).await.unwrap();
    let applied = registry.follower.applied().load_full();
    wire::audit::verify(&links, None, &applied.directory).unwrap();
    let events: Vec<AuditEvent> = links
        .iter()
        .flat_map(|link| &link.events)
        .map(|event| serde_json::from_slice(event).unwrap())
        .collect();
    let revisions = bench.store.revisions(0, 100).await.unwrap();
    for revision in &revisions {
        let line = format!("revision {} {:?}", revision.number, revision.hash);
        assert!(events.iter().any(|event| event.detail == line), "{line} is in no event");
    }
    let last = events.last().unwrap();
    assert_eq!(
        (last.kind.as_str(), last.by.as_str()),
        ("issuer_disabled", "operator:alice")
    );
    assert_eq!(
        (last.subject.as_str(), last.reason.as_deref()),
        ("issuer:demo-p256", Some("drill"))
    );
}

#[tokio::test]
async fn the_demo_hierarchy_is_made_once_and_finds_its_keys_after_a_crash() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let again = registry
        .make_demo(&token(), Digest([9; 32]), &config::Accounts::default())
        .await
        .unwrap();
    assert!(again.is_empty());
    let snapshot = registry.current().await.unwrap();
    assert_eq!(snapshot.issuers.len(), 2);
    for (id, issuer) in &snapshot.issuers {
        assert!(holds(&bench, id.as_str()));
        assert!(crate::describe::name(&issuer.subject).contains("DO NOT TRUST"));
        assert!(issuer.ocsp_url().starts_with("http://pki.example/"));
        assert_eq!(
            snapshot.profiles[&id.as_str().parse().unwrap()]
                .policy
                .public_key
                .pins(),
            [issuer.key_type]
        );
    }
    let token_and_ledger = Bench::new();
    let lost = Bench {
        keys: bench.keys.clone(),
        ..token_and_ledger
    };
    assert_eq!(lost.with_demo().await.current().await.unwrap().issuers.len(), 2);
}

#[tokio::test]
async fn a_demo_account_gets_a_new_secret_only_when_the_old_one_is_lost() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let (id, certificate) = ("demo-p256".parse().unwrap(), Digest([9; 32]));
    let before = registry.current().await.unwrap().accounts[&id].clone();
    assert!(
        registry
            .refresh_demo_account(&id, certificate, false)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(registry.current().await.unwrap().accounts[&id], before);
    let fresh = registry
        .refresh_demo_account(&id, certificate, true)
        .await
        .unwrap()
        .unwrap();
    let after = registry.current().await.unwrap().accounts[&id].clone();
    assert_eq!((&after.api_key, after.api_secret), (&fresh.api_key, fresh.digest()));
    assert_ne!(after.api_secret, before.api_secret);
}

#[tokio::test]
async fn an_account_needs_an_issuer_a_profile_and_a_name_of_its_own() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let ca = super::elsewhere(super::ca_usages());
    let request = |id: &str, issuer: &str, profile: &str| AddAccount {
        id: id.parse().unwrap(),
        issuer: issuer.parse().unwrap(),
        profile: profile.parse().unwrap(),
        client_certificates: vec![ca.chain.clone()],
        issuance_quota: 10,
        requests_per_second: 5,
        jobs_in_flight: 3,
        reason: "test".into(),
    };
    let added = registry
        .add_account("operator:alice", request("new", "demo-p256", "demo-p256"))
        .await
        .unwrap();
    let account = registry.current().await.unwrap().accounts[&"new".parse().unwrap()].clone();
    assert_eq!(account.api_secret, pki::sha256(added.api_secret.as_bytes()));
    assert_eq!(
        (
            account.issuance_quota,
            account.requests_per_second,
            account.jobs_in_flight
        ),
        (10, 5, 3)
    );
    for (id, issuer, profile, said) in [
        ("new", "demo-p256", "demo-p256", "exists"),
        ("more", "nobody", "demo-p256", "issuer nobody"),
        ("more", "demo-p256", "nothing", "profile nothing"),
    ] {
        let error = registry
            .add_account("operator:alice", request(id, issuer, profile))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_dry_run_of_a_profile_leaves_the_one_in_force() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    let id = "demo-p256".parse().unwrap();
    let mut profile = registry.profile(&id).await.unwrap();
    profile.wildcards = false;
    let request = |dry_run| PutProfile {
        profile: Box::new(profile.clone()),
        dry_run,
        reason: "test".into(),
    };
    let tried = registry.put_profile("operator:alice", request(true)).await.unwrap();
    assert!(tried.dry_run && tried.changed);
    assert_eq!(registry.profile(&id).await.unwrap().version, 1);
    registry.put_profile("operator:alice", request(false)).await.unwrap();
    assert_eq!(registry.profile(&id).await.unwrap().version, 2);
}

#[tokio::test]
async fn a_node_has_two_token_keys_at_most() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let now = SystemClock.now();
    for number in 1..=4_u64 {
        let key = TokenKey {
            id: format!("key-{number}"),
            node: "frontend-1".parse().unwrap(),
            public_key: vec![7; 32].into(),
            not_after: now + Duration::from_hours(number),
        };
        registry.publish_token_key(key.clone()).await.unwrap();
        registry.publish_token_key(key).await.unwrap();
    }
    let snapshot = registry.current().await.unwrap();
    assert_eq!(snapshot.token_keys.keys().collect::<Vec<_>>(), ["key-3", "key-4"]);
    assert_eq!(snapshot.revision, 5);
}

#[tokio::test]
async fn whoever_was_known_by_a_certificate_is_known_by_the_one_that_renewed_it() {
    let bench = Bench::new();
    let registry = bench.with_demo().await;
    registry
        .renew_certificate(Digest([9; 32]), Digest([10; 32]))
        .await
        .unwrap();
    registry
        .renew_certificate(Digest([1; 32]), Digest([2; 32]))
        .await
        .unwrap();
    let snapshot = registry.current().await.unwrap();
    assert!(
        snapshot
            .accounts
            .values()
            .all(|account| account.client_certificates == [Digest([10; 32])])
    );
    assert!(
        snapshot
            .operators
            .values()
            .all(|operator| operator.client_certificates == [Digest([2; 32])])
    );
}
