//! Inviting, enrolling, and what enrolled nodes ask.

use std::sync::Arc;

use domain::{
    bytes::Digest,
    id::NodeId,
    issuer::{Role, TokenKey},
    time::Clock,
};
use rcgen::{CertificateParams, KeyPair};
use runtime::{
    access_ca::names_and_due,
    clock::SystemClock,
    node_files::{NodeFiles, fingerprint_of},
};
use wire::{
    enrol::{Code, Enrol, Enrolled, Invite, NodeAnswer, NodeRequest, seal_request},
    signed::NodeKey,
    trust::Directory,
};

use super::Bench;
use crate::{Registry, RegistryError};

const BY: &str = "operator:alice";

fn invite(node: &str, role: Role) -> Invite {
    Invite {
        node: node.parse().unwrap(),
        role,
        names: if role == Role::Frontend {
            vec!["fe.example.com".into()]
        } else {
            Vec::new()
        },
        seconds: 600,
        reason: "test".into(),
    }
}

fn csr(node: &NodeId) -> String {
    let directory = tempfile::tempdir().unwrap();
    NodeFiles::open(directory.path()).unwrap().begin(node).csr
}

async fn code(registry: &Registry, invite: Invite) -> Code {
    registry.invite_node(BY, invite).await.unwrap().code.parse().unwrap()
}

async fn enrolled(registry: &Registry, node: &str, role: Role) -> (NodeKey, Enrolled) {
    let key = NodeKey::generate(node.parse().unwrap());
    let code = code(registry, invite(node, role)).await;
    let enrol = Enrol::new(&key, role, code.secret, csr(key.node()));
    let enrolled = registry.enrol_node(enrol).await.unwrap();
    (key, enrolled)
}

fn der(pem: &str) -> Vec<u8> {
    pki::pem::decode("CERTIFICATE", pem).unwrap()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RegistryError>, said: &str) {
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(said), "{said:?} is not in {error:?}");
}

#[tokio::test]
async fn an_invited_node_is_enrolled_once_and_believed_from_then_on() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let key = NodeKey::generate("fe-1".parse().unwrap());
    let code = code(&registry, invite("fe-1", Role::Frontend)).await;
    assert_eq!(code.access_ca, bench.ca.fingerprint().unwrap());
    let kept = format!("{:?}", registry.current().await.unwrap().invitations);
    assert!(
        kept.contains(&format!("{:?}", code.secret.digest())),
        "only its digest is kept: {kept}"
    );

    let enrol = Enrol::new(&key, Role::Frontend, code.secret, csr(key.node()));
    let Enrolled {
        node,
        root,
        certificate,
        access_ca,
    } = registry.enrol_node(enrol.clone()).await.unwrap();
    assert_eq!(*root, bench.root.public_key());
    assert_eq!(fingerprint_of(&access_ca), Some(code.access_ca));
    let (names, _) = names_and_due(&der(&certificate), SystemClock.now()).unwrap();
    assert!(names.contains(&"fe.example.com".to_owned()), "{names:?}");
    let snapshot = registry.current().await.unwrap();
    assert_eq!(*snapshot.nodes[key.node()], node);
    assert!(Directory::new(&root, &snapshot).unwrap().refused().is_empty());
    assert!(snapshot.invitations.is_empty());

    refused(registry.enrol_node(enrol).await, "was used");
}

#[tokio::test]
async fn a_code_that_is_wrong_late_or_for_another_enrols_nobody() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let key = NodeKey::generate("fe-1".parse().unwrap());
    let code = code(&registry, invite("fe-1", Role::Frontend)).await;
    let ask = |key: &NodeKey, role, code: &Code| Enrol::new(key, role, code.secret.clone(), csr(key.node()));

    let wrong = Code::generate(code.access_ca);
    refused(
        registry.enrol_node(ask(&key, Role::Frontend, &wrong)).await,
        "none that is open",
    );
    let other = NodeKey::generate("fe-2".parse().unwrap());
    refused(
        registry.enrol_node(ask(&other, Role::Frontend, &code)).await,
        "none that is open",
    );
    refused(
        registry.enrol_node(ask(&key, Role::Signer, &code)).await,
        "another role",
    );
    let mut forged = ask(&key, Role::Frontend, &code);
    forged.public_key = other.public_key().into();
    refused(registry.enrol_node(forged).await, "not signed");
    let mut unreadable = Enrol::new(&key, Role::Frontend, code.secret.clone(), "no request".into());
    refused(
        registry.enrol_node(unreadable.clone()).await,
        "cannot make the certificate",
    );
    unreadable.version = 2;
    refused(registry.enrol_node(unreadable).await, "version");

    let snapshot = registry.current().await.unwrap();
    assert!(!snapshot.nodes.contains_key(key.node()));
    let mut late = (*snapshot.invitations[key.node()]).clone();
    late.not_after = SystemClock.now() - std::time::Duration::from_secs(1);
    let changes = [domain::registry::Change::PutInvitation { invitation: late }];
    let order = registry.own_order("test", "invitation", "test");
    registry.commit(&order, |_| Ok(changes.to_vec())).await.unwrap();
    refused(registry.enrol_node(ask(&key, Role::Frontend, &code)).await, "run out");

    // Another one takes its place, and the old one is gone.
    let again = self::code(&registry, invite("fe-1", Role::Frontend)).await;
    refused(registry.enrol_node(ask(&key, Role::Frontend, &code)).await, "replaced");
    registry.enrol_node(ask(&key, Role::Frontend, &again)).await.unwrap();
}

#[tokio::test]
async fn an_invitation_that_cannot_be_meant_is_refused() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let invite = |change: fn(&mut Invite)| {
        let mut invite = invite("fe-1", Role::Frontend);
        change(&mut invite);
        registry.invite_node(BY, invite)
    };
    refused(invite(|invite| invite.role = Role::Control).await, "enrols itself");
    refused(invite(|invite| invite.role = Role::Signer).await, "names");
    refused(invite(|invite| invite.names.push("no name".into())).await, "no name");
    refused(invite(|invite| invite.seconds = 0).await, "seconds");
    refused(
        invite(|invite| invite.node = "control-1".parse().unwrap()).await,
        "another role",
    );
}

#[tokio::test]
async fn a_name_stays_with_its_key() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let (key, first) = enrolled(&registry, "signer-1", Role::Signer).await;
    let thief = NodeKey::generate(key.node().clone());
    let code = code(&registry, invite("signer-1", Role::Signer)).await;
    let ask = |key: &NodeKey| Enrol::new(key, Role::Signer, code.secret.clone(), csr(key.node()));
    refused(registry.enrol_node(ask(&thief)).await, "another key");
    let again = registry.enrol_node(ask(&key)).await.unwrap();
    assert_eq!(
        (again.node.public_key, again.node.not_before),
        (first.node.public_key, first.node.not_before)
    );
}

#[tokio::test]
async fn enrolled_nodes_ask_what_their_role_may_and_get_no_name_that_they_had_not() {
    let bench = Bench::new();
    let registry = bench.started().await;
    let (frontend, certificate) = enrolled(&registry, "fe-1", Role::Frontend).await;
    let (signer, _) = enrolled(&registry, "signer-1", Role::Signer).await;
    let connection = der(&certificate.certificate);
    let ask = async |key: &NodeKey, request| {
        registry
            .node_request(&seal_request(key, SystemClock.now(), request), &connection)
            .await
    };

    let spki = Digest([7; 32]);
    refused(ask(&signer, NodeRequest::BlockKey { spki }).await, "may not ask");
    assert_eq!(
        ask(&frontend, NodeRequest::BlockKey { spki }).await.unwrap(),
        NodeAnswer::Done
    );
    let key = |node: &NodeKey| TokenKey {
        id: "k1".into(),
        node: node.node().clone(),
        public_key: vec![1; 32].into(),
        not_after: SystemClock.now() + std::time::Duration::from_hours(1),
    };
    refused(
        ask(&frontend, NodeRequest::PublishTokenKey { key: key(&signer) }).await,
        "has no keys of",
    );
    ask(&frontend, NodeRequest::PublishTokenKey { key: key(&frontend) })
        .await
        .unwrap();
    let snapshot = registry.current().await.unwrap();
    assert!(snapshot.blocked_keys.contains(&spki) && snapshot.token_keys.contains_key("k1"));

    // The request names more than the certificate has; only the key in it counts.
    let mut params = CertificateParams::new(vec!["evil.example.com".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "evil");
    let csr = params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
        .unwrap();
    let renewed = ask(&frontend, NodeRequest::Renew { csr: csr.clone() }).await.unwrap();
    let NodeAnswer::Renewed { certificate } = renewed else {
        panic!("{renewed:?}")
    };
    let (names, _) = names_and_due(&der(&certificate), SystemClock.now()).unwrap();
    assert!(
        names.contains(&"fe.example.com".into()) && !names.contains(&"evil.example.com".into()),
        "{names:?}"
    );

    let stranger = NodeKey::generate("fe-1".parse().unwrap());
    refused(
        ask(&stranger, NodeRequest::Renew { csr: csr.clone() }).await,
        "does not hold",
    );
    let mut revoked = (*snapshot.nodes[frontend.node()]).clone();
    revoked.revoked = true;
    let changes = [domain::registry::Change::PutNode { node: revoked }];
    let order = registry.own_order("test", "node", "test");
    registry.commit(&order, |_| Ok(changes.to_vec())).await.unwrap();
    refused(ask(&frontend, NodeRequest::Renew { csr }).await, "revoked");
}

#[tokio::test]
async fn a_second_control_process_enrols_itself_with_the_root() {
    let bench = Bench::new();
    bench.started().await;
    let key = Arc::new(NodeKey::generate("control-2".parse().unwrap()));
    let second = bench.control(&key);
    second.enrol(&[bench.node(&key)], &[]).await.unwrap();
    second.block_key(Digest([1; 32]), "test").await.unwrap();
    assert!(second.current().await.unwrap().nodes.contains_key(key.node()));
}
