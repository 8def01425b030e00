//! How tables look.

use domain::{
    id::Serial,
    issuer::{Api, OperatorRole, Role},
    job::{RevocationReason, State},
    key::SignatureAlgorithm,
    lane::Class,
    policy::KeyAlgorithm,
    template,
    time::Timestamp,
};
use wire::{
    admin::{JobEventDocument, RevocationDocument},
    operate::{BreakerDocument, FleetDocument, MarkedDestroyed},
};

use super::*;

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn serial() -> Serial {
    "0132A72343D4D8847647B29F61A0E373".parse().unwrap()
}

fn issuer_document(name: &str, state: &str, soft: bool) -> IssuerDocument {
    IssuerDocument {
        id: name.parse().unwrap(),
        state: state.into(),
        reason: (state == "disabled").then(|| "drill".into()),
        usage: Usage {
            issue: state == "enabled",
            crl: true,
            ocsp: soft,
        },
        subject: "C=XX, O=Example, CN=Example CA".into(),
        key_type: KeyType::P256,
        signature_algorithm: SignatureAlgorithm::EcdsaSha256,
        subject_key_id: "51DBDBA5".into(),
        not_after: 2_000_000_000,
        bindings: vec![Binding {
            token: "soft".parse().unwrap(),
            key: name.into(),
        }],
        fit_for_real_ca: !soft,
        crl_shards: 16,
        public_url: "http://pki.example".into(),
        accounts: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        chain: vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()],
    }
}

fn job_document(state: State, revoked: bool) -> JobDocument {
    JobDocument {
        job: serial(),
        issuer: "demo-p256".parse().unwrap(),
        class: Class::Interactive,
        account: "demo-p256".parse().unwrap(),
        profile: "demo-p256".parse().unwrap(),
        state,
        accepted_at: AT,
        sign_by: AT + std::time::Duration::from_hours(40),
        revoked,
    }
}

#[test]
fn issuers_look_like_this() {
    let all = [
        issuer_document("demo-p256", "enabled", true),
        issuer_document("ca", "disabled", false),
    ];
    insta::assert_snapshot!("issuer_list", issuers(&all));
    insta::assert_snapshot!("issuer_show", issuer(&all[1]));
}

#[test]
fn changes_look_like_this() {
    let change = |changed, dry_run| Changed {
        revision: 7,
        changed,
        dry_run,
        warnings: vec!["crl stays off".into()],
    };
    let all = [(true, true), (false, true), (true, false), (false, false)];
    let text: String = all
        .map(|(is, dry)| changed(&change(is, dry), "issuer ca is registered"))
        .concat();
    insta::assert_snapshot!("changed", text);
}

#[test]
fn profiles_and_accounts_look_like_this() {
    let id = "tls".parse().unwrap();
    let profile = template::tls_server(id, KeyAlgorithm::Rsa, vec![2048, 3072], "RSA", "SHA-256");
    insta::assert_snapshot!("profile_list", profiles(&[profile]));
    let account = AccountDocument {
        id: "demo-p256".parse().unwrap(),
        api: Api::Hvca,
        api_key: "0011223344556677".into(),
        issuer: "demo-p256".parse().unwrap(),
        profile: "demo-p256".parse().unwrap(),
        client_certificates: Vec::new(),
        issuance_quota: 10_000_000,
        requests_per_second: 2_000,
        jobs_in_flight: 10,
        enabled: false,
    };
    insta::assert_snapshot!("account_list", accounts(&[account]));
}

#[test]
fn jobs_look_like_this() {
    insta::assert_snapshot!(
        "job_list",
        jobs(&[job_document(State::Issued, true), job_document(State::Queued, false)])
    );
    let detail = JobDetail {
        job: job_document(State::Refused, false),
        profile_version: 3,
        turn: 2,
        strikes: 1,
        owner: None,
        ended_at: Some(AT),
        refusal: Some("issuer_disabled".into()),
        detail: Some("issuer demo-p256 is disabled".into()),
        successor: None,
        events: vec![JobEventDocument {
            at: AT,
            kind: "deferred".into(),
            detail: "the token hangs".into(),
            by: "signer-1".into(),
        }],
    };
    insta::assert_snapshot!("job_show", job(&detail));
}

#[test]
fn lanes_operators_and_nodes_look_like_this() {
    let lane = |paused, oldest_seconds| LaneDocument {
        lane: "demo-p256.interactive".parse().unwrap(),
        paused,
        draining: paused,
        diverted: false,
        queued: 12_345,
        signing: 6,
        parked: 0,
        oldest_seconds,
    };
    insta::assert_snapshot!("lane_list", lanes(&[lane(true, Some(3_700)), lane(false, None)]));
    let operator = OperatorDocument {
        id: "alice".parse().unwrap(),
        role: OperatorRole::SecurityOfficer,
        client_certificates: vec!["a9".into(), "8f".into()],
    };
    insta::assert_snapshot!("operator_list", operators(&[operator]));
    let node = |revoked, alive| NodeDocument {
        id: "signer-1".parse().unwrap(),
        role: Role::Signer,
        not_after: AT,
        revoked,
        alive,
        version: alive.then(|| "0.1.0".into()),
        revision: alive.then_some(7),
        in_flight: alive.then_some(64),
    };
    insta::assert_snapshot!(
        "node_list",
        nodes(&[node(false, true), node(false, false), node(true, false)])
    );
}

#[test]
fn a_fleet_and_a_destroyed_issuer_look_like_this() {
    let process = |node: &str, role, alive, stands_down| FleetDocument {
        node: node.parse().unwrap(),
        incarnation: format!("{node}#00000000000000ff"),
        role,
        alive,
        version: "0.1.0".into(),
        revision: 7,
        behind: u64::from(!alive),
        keys: 9,
        in_flight: 64,
        breakers: (0..7)
            .filter(|_| stands_down)
            .map(|number| BreakerDocument {
                issuer: format!("ca-{number}").parse().unwrap(),
                standing: "open".into(),
            })
            .collect(),
        tokens_out: stands_down.then(|| "hsm-2".parse().unwrap()).into_iter().collect(),
        backs_off: false,
        stands_down,
        since: Some(AT),
        seen: AT,
        clock_offset_ms: alive.then_some(-3),
    };
    insta::assert_snapshot!(
        "fleet",
        fleet(&[
            process("frontend-1", Role::Frontend, true, false),
            process("signer-1", Role::Signer, true, true),
            process("signer-2", Role::Signer, false, false),
        ])
    );
    let marked = MarkedDestroyed {
        revision: 7,
        changed: true,
        dry_run: true,
        accounts: vec!["shop".parse().unwrap()],
        lanes: vec![LaneDocument {
            lane: "ca-1.renewal".parse().unwrap(),
            paused: false,
            draining: false,
            diverted: false,
            queued: 12,
            signing: 1,
            parked: 3,
            oldest_seconds: Some(61),
        }],
        jobs: 13,
        warnings: vec!["key ca-1 is still on token hsm; this command destroys no key".into()],
    };
    insta::assert_snapshot!(
        "issuer_mark_destroyed",
        marked_destroyed(&marked, &"ca-1".parse().unwrap())
    );
}

#[test]
fn certificates_and_keys_look_like_this() {
    let certificate_document = CertificateDocument {
        serial: serial(),
        issuer: "demo-p256".parse().unwrap(),
        account: "demo-p256".parse().unwrap(),
        profile: "demo-p256".parse().unwrap(),
        subject: "CN=www.example.com".into(),
        names: vec!["www.example.com".into(), "example.com".into()],
        not_before: 1_800_000_000,
        not_after: 1_807_775_999,
        issued_at: AT,
        revocation: Some(RevocationDocument {
            reason: RevocationReason::KeyCompromise,
            decided_at: AT,
            revocation_date: 1_800_000_000,
        }),
        certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
    };
    insta::assert_snapshot!("cert_show", certificate(&certificate_document));
    let report = KeyReport {
        token: "soft".parse().unwrap(),
        key: "ca".into(),
        key_type: KeyType::P384,
        public_key: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into(),
        public_key_sha256: "9696".into(),
        fit_for_real_ca: false,
        made_by: "operator:alice".into(),
        made_at: AT,
        reason: "new issuer".into(),
    };
    insta::assert_snapshot!("issuer_keygen", key_report(&report));
}
