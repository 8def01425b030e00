//! A whole front end without its listener: real ledger, real broker, real registry, and a signer that signs when a test wants it to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use broker::{Broker, Incoming, embedded};
use domain::{
    bytes::Digest,
    id::{AccountId, Incarnation, IssuerId, Serial},
    issuer::{Account, Api, Issuer, Profile, Role, TokenKey},
    policy::{KeyAlgorithm, KeyFormat, Presence},
    registry::Change,
    template,
    time::{Clock, Timestamp},
};
use frontend::{BlockKey, Context, NotPublished, PublishTokenKey, Running};
use http::{Method, StatusCode};
use runtime::{
    clock::{ManualClock, StoreClock, SystemClock},
    config::Config,
    follow::Follower,
    health::Health,
    shutdown::{Cause, Shutdown},
    telemetry::Metrics,
};
use serde_json::json;
use store::{
    Announcement, Appended, Begin, Finish, Finished, IssuerRow, Outcome, Refusal, Signed, Store,
    sqlite::{Options, Sqlite},
};
use wire::{
    answer::{Answer, AnswerOutcome, Answers},
    envelope::Envelope,
    signed::NodeKey,
    trust::{self, RootKey},
};

use crate::{
    ca::Authority,
    client::{Answered, Client, request, send},
    faulty::Faulty,
};

/// The client certificate of everybody but `other`.
pub const CERTIFICATE: Digest = Digest([1; 32]);
/// The client certificate of `other`.
pub const OTHER_CERTIFICATE: Digest = Digest([2; 32]);
/// The secret of every account.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef01234567";

/// Control, as far as a front end needs it.
#[derive(Debug)]
struct Control {
    key: NodeKey,
    store: Arc<dyn Store>,
    follower: Arc<Follower>,
    clock: Arc<dyn Clock>,
    turn: tokio::sync::Mutex<()>,
}

impl Control {
    async fn append(&self, changes: &[Change]) {
        self.write(changes).await;
        self.follower.catch_up().await.unwrap();
    }

    async fn write(&self, changes: &[Change]) {
        let _turn = self.turn.lock().await;
        let before = self.follower.applied().load_full();
        let revision = trust::revision(&before.head, changes, &self.key, self.clock.now());
        let snapshot = before.snapshot.next(changes).unwrap();
        let rows: Vec<IssuerRow> = snapshot
            .issuers
            .values()
            .map(|issuer| IssuerRow {
                id: issuer.id.clone(),
                state: issuer.state,
                usage: issuer.usage,
                not_after: issuer.not_after,
            })
            .collect();
        assert_eq!(self.store.append_revision(&revision, &rows).await, Ok(Appended::Done));
    }
}

#[async_trait]
impl PublishTokenKey for Control {
    async fn publish_token_key(&self, key: TokenKey) -> Result<(), NotPublished> {
        self.append(&[Change::PutTokenKey { key }]).await;
        Ok(())
    }
}

#[async_trait]
impl BlockKey for Control {
    async fn block_key(&self, public_key: Digest) -> Result<(), NotPublished> {
        self.append(&[Change::BlockKey { spki: public_key }]).await;
        Ok(())
    }
}

pub struct World {
    pub store: Arc<Faulty>,
    pub broker: Arc<embedded::Embedded>,
    pub health: Health,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    pub host: Arc<ManualClock>,
    pub follower: Arc<Follower>,
    pub router: Router,
    pub frontend: Incarnation,
    pub signer: Incarnation,
    pub signer_key: Arc<NodeKey>,
    pub authorities: Arc<Vec<Authority>>,
    running: Mutex<Option<Running>>,
    control: Arc<Control>,
    pub directory: tempfile::TempDir,
}

fn account(name: &str, certificate: Digest, issuer: &str, profile: &str, api: Api) -> Account {
    Account {
        id: name.parse().unwrap(),
        api,
        api_key: api_key(name),
        api_secret: pki::sha256(SECRET.as_bytes()),
        client_certificates: vec![certificate],
        issuer: issuer.parse().unwrap(),
        profile: profile.parse().unwrap(),
        issuance_quota: 1000,
        requests_per_second: 10_000,
        jobs_in_flight: 500,
        tokens_not_before: Timestamp::default(),
        enabled: true,
    }
}

/// An account's `api_key`.
pub fn api_key(account: &str) -> String {
    format!("{account:0>16}")
}

fn changes(authorities: &[Authority]) -> Vec<Change> {
    let p256 = || {
        template::tls_server(
            "tls".parse().unwrap(),
            KeyAlgorithm::Ecdsa,
            vec![256],
            "ECDSA",
            "SHA-256",
        )
    };
    let rsa = template::tls_server(
        "tls-rsa".parse().unwrap(),
        KeyAlgorithm::Rsa,
        vec![2048],
        "RSA",
        "SHA-256",
    );
    let mut bare = Profile {
        id: "bare".parse().unwrap(),
        ..p256()
    };
    bare.policy.public_key.key_format = KeyFormat::Pkcs8;
    bare.policy.public_key_signature = Presence::Optional;
    let issuers = authorities.iter().map(|authority| Change::PutIssuer {
        issuer: Box::new(authority.issuer.clone()),
    });
    let profiles = [p256(), rsa, bare].map(|profile| Change::PutProfile {
        profile: Box::new(profile),
    });
    let accounts = [
        account("acme", CERTIFICATE, "alpha", "tls", Api::Hvca),
        account("other", OTHER_CERTIFICATE, "alpha", "tls", Api::Hvca),
        account("bare", CERTIFICATE, "alpha", "bare", Api::Hvca),
        account("rsa", CERTIFICATE, "beta", "tls-rsa", Api::Hvca),
        account("dss", CERTIFICATE, "alpha", "tls", Api::Dss),
    ]
    .map(|account| Change::PutAccount {
        account: Box::new(account),
    });
    issuers.chain(profiles).chain(accounts).collect()
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A world with another configuration.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let (mut world, context) = Self::prepare(configure).await;
        let running = frontend::start(context).unwrap();
        world.router = running.router();
        world.running = Mutex::new(Some(running));
        world.ready().await;
        world
    }

    /// A world in which the front end is yet to be started.
    pub async fn prepare(configure: impl FnOnce(&mut Config)) -> (Self, Context) {
        let mut config = Config::default();
        config.frontend.admission_threads = 2;
        config.shutdown.grace = Duration::from_secs(3);
        configure(&mut config);
        let directory = tempfile::tempdir().unwrap();
        let host = Arc::new(ManualClock::new(SystemClock.now()));
        let sqlite = Sqlite::open(directory.path(), Options::new(host.clone())).unwrap();
        let store = Faulty::new(Arc::new(sqlite));
        let metrics = Metrics::new();
        let root = RootKey::generate();
        let clock = Arc::new(StoreClock::new(host.clone()));
        let follower = Follower::new(
            store.clone(),
            &root.public_key(),
            clock.clone(),
            &config.registry,
            &metrics,
        )
        .unwrap();
        let follower = Arc::new(follower);
        let [frontend_key, signer_key, control_key] =
            ["frontend-1", "signer-1", "control-1"].map(|name| NodeKey::generate(name.parse().unwrap()));
        let authorities = vec![
            Authority::new("alpha", &rcgen::PKCS_ECDSA_P256_SHA256),
            Authority::new("beta", &rcgen::PKCS_RSA_SHA256),
        ];
        let control = Arc::new(Control {
            key: control_key,
            store: store.clone(),
            follower: follower.clone(),
            clock: host.clone(),
            turn: tokio::sync::Mutex::default(),
        });
        let (from, until) = (
            host.now() - Duration::from_hours(1),
            host.now() + Duration::from_hours(24 * 365),
        );
        let mut first: Vec<Change> = [
            (&frontend_key, Role::Frontend),
            (&signer_key, Role::Signer),
            (&control.key, Role::Control),
        ]
        .into_iter()
        .map(|(key, role)| Change::PutNode {
            node: trust::endorse(&root, key.node().clone(), role, key.public_key(), from, until),
        })
        .collect();
        first.extend(changes(&authorities));
        control.append(&first).await;

        let broker = Arc::new(embedded::Embedded::new(embedded::Limits::default()));
        let shutdown = Shutdown::new(config.shutdown.grace);
        let health = Health::new(host.clone(), shutdown.clone());
        let run = |key: &NodeKey, run| Incarnation {
            node: key.node().clone(),
            run,
        };
        let (frontend, signer) = (run(&frontend_key, 7), run(&signer_key, 8));
        let context = Context {
            config: Arc::new(config),
            store: store.clone(),
            broker: broker.clone(),
            follower: follower.clone(),
            node_key: Arc::new(frontend_key),
            incarnation: frontend.clone(),
            clock,
            token_keys: control.clone(),
            blocked_keys: control.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let world = Self {
            store,
            broker,
            health,
            metrics,
            shutdown,
            host,
            follower,
            router: Router::new(),
            frontend,
            signer,
            signer_key: Arc::new(signer_key),
            authorities: Arc::new(authorities),
            running: Mutex::default(),
            control,
            directory,
        };
        (world, context)
    }

    /// Waits until clients can log in.
    pub async fn ready(&self) {
        let world = self;
        world
            .until(|world| world.follower.applied().load().snapshot.token_keys.len() == 1)
            .await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    /// Waits until something holds, at most ten seconds.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came true");
    }

    /// Moves this host's and the store's clock, and lets the front end learn of it.
    pub async fn advance(&self, by: Duration) {
        self.host.advance(by);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }

    pub async fn change(&self, changes: &[Change]) {
        self.control.append(changes).await;
    }

    /// A revision that the front end has not been told of.
    pub async fn change_behind_its_back(&self) {
        let spki = Digest([5; 32]);
        self.control.write(&[Change::BlockKey { spki }]).await;
    }

    pub async fn change_account(&self, name: &str, change: impl FnOnce(&mut Account)) {
        let id: AccountId = name.parse().unwrap();
        let mut account = self.follower.applied().load().snapshot.accounts[&id].as_ref().clone();
        change(&mut account);
        let account = Box::new(account);
        self.change(&[Change::PutAccount { account }]).await;
    }

    pub async fn change_issuer(&self, name: &str, change: impl FnOnce(&mut Issuer)) {
        let id: IssuerId = name.parse().unwrap();
        let mut issuer = self.follower.applied().load().snapshot.issuers[&id].as_ref().clone();
        change(&mut issuer);
        let issuer = Box::new(issuer);
        self.change(&[Change::PutIssuer { issuer }]).await;
    }

    pub async fn change_profile(&self, name: &str, change: impl FnOnce(&mut Profile)) {
        let id = name.parse().unwrap();
        let mut profile = self.follower.applied().load().snapshot.profiles[&id].as_ref().clone();
        change(&mut profile);
        profile.version += 1;
        let profile = Box::new(profile);
        self.change(&[Change::PutProfile { profile }]).await;
    }

    pub async fn post_login(&self, certificate: Digest, body: &str) -> Answered {
        let request = request(Method::POST, "/login")
            .header("content-type", "application/json;charset=utf-8")
            .header("content-length", body.len())
            .body(Body::from(body.to_owned()));
        send(&self.router, Some(certificate), request).await
    }

    /// Logs an account in.
    pub async fn client(&self, account: &str) -> Client {
        let certificate = if account == "other" {
            OTHER_CERTIFICATE
        } else {
            CERTIFICATE
        };
        let body = json!({"api_key": api_key(account), "api_secret": SECRET}).to_string();
        let answered = self.post_login(certificate, &body).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        Client {
            router: self.router.clone(),
            token: answered.json()["access_token"].as_str().unwrap().into(),
            certificate,
        }
    }

    /// What a signer says of itself from now on: it holds both issuers' keys, some breakers of which are not closed, and has signed so many
    /// jobs of alpha's in half a second. The front end has heard of it when this returns.
    pub async fn announce(&self, shut: &[&str], signed: u64) {
        let announcement = Announcement {
            issuers: vec!["alpha".parse().unwrap(), "beta".parse().unwrap()],
            breakers: shut
                .iter()
                .map(|issuer| (issuer.parse().unwrap(), "open".to_owned()))
                .collect(),
            signed: Signed {
                over_ms: 500,
                lanes: vec![("alpha.interactive".parse().unwrap(), signed)],
            },
            ..Announcement::new(self.signer.clone(), Role::Signer, 1)
        };
        let lease = Duration::from_hours(1);
        self.store.heartbeat(&announcement, lease).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }

    /// The value of a series, 0 if there is none.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    fn hand(&self) -> Hand {
        Hand {
            store: self.store.clone(),
            broker: self.broker.clone(),
            owner: self.signer.clone(),
            key: self.signer_key.clone(),
            authorities: self.authorities.clone(),
        }
    }

    /// Begins, signs and finishes a job, and answers whoever waits.
    pub async fn sign(&self, job: Serial) {
        assert!(self.hand().sign(job).await, "{job} was not begun");
    }

    /// The same, and nobody is told.
    pub async fn sign_silently(&self, job: Serial) {
        let quiet = Hand {
            broker: Arc::new(embedded::Embedded::new(embedded::Limits::default())),
            ..self.hand()
        };
        assert!(quiet.sign(job).await, "{job} was not begun");
    }

    /// Refuses a job, as a signer does.
    pub async fn refuse(&self, job: Serial, id: &str, detail: &str) {
        let refusal = Refusal {
            job,
            turn: None,
            id: id.into(),
            detail: detail.into(),
        };
        let refused = self.store.refuse(&self.signer, vec![refusal]).await.remove(0).unwrap();
        assert!(refused.is_some());
    }

    /// From now on a signer takes envelopes from the broker, verifies them, and signs what is in them.
    pub async fn run_signer(&self) {
        self.run_signer_of(&["alpha", "beta"]).await;
    }

    /// The same, for some issuers.
    pub async fn run_signer_of(&self, issuers: &[&str]) {
        let lanes: Vec<_> = issuers
            .iter()
            .map(|issuer| format!("{issuer}.interactive").parse().unwrap())
            .collect();
        let mut inbox = self.broker.serve(&self.signer, &lanes, 64).await.unwrap();
        let (hand, directory, clock) = (self.hand(), self.follower.applied(), self.host.clone());
        tokio::spawn(async move {
            while let Some(incoming) = inbox.next().await {
                let Incoming::Delivery(delivery) = incoming else {
                    continue;
                };
                let (node, envelope) =
                    Envelope::open(&delivery.body, &directory.load().directory, clock.now()).unwrap();
                assert_eq!((node.as_str(), &envelope.lane), ("frontend-1", &delivery.lane));
                inbox.settle(&[delivery.tag]).await.unwrap();
                for job in envelope.jobs {
                    hand.sign(job).await;
                }
            }
        });
    }

    /// Stops the front end as its process would.
    pub async fn stop(&self) {
        self.shutdown.begin(Cause::Asked("a test".into()));
        let running = self.running.lock().unwrap().take().unwrap();
        running.stop().await;
    }
}

/// The hand that signs.
struct Hand {
    store: Arc<Faulty>,
    broker: Arc<embedded::Embedded>,
    owner: Incarnation,
    key: Arc<NodeKey>,
    authorities: Arc<Vec<Authority>>,
}

impl Hand {
    async fn sign(&self, job: Serial) -> bool {
        let Begin::Begun(begun) = self.store.begin(&self.owner, &[job]).await.unwrap().remove(0) else {
            return false;
        };
        let mut authorities = self.authorities.iter();
        let authority = authorities
            .find(|authority| authority.issuer.id == begun.lane.issuer)
            .unwrap();
        assert_eq!(pki::sha256(&begun.tbs), begun.intent);
        let finish = Finish {
            job,
            intent: begun.intent,
            signature: authority.sign(&begun.tbs),
            node: self.owner.node.clone(),
            turn: begun.turn,
        };
        let finished = self.store.finish(&self.owner, vec![finish]).await.remove(0).unwrap();
        let Finished::Issued { ended, .. } = finished else {
            panic!("{finished:?}");
        };
        let Outcome::Issued { signature, at } = ended.outcome else {
            panic!("{ended:?}");
        };
        for waiter in ended.waiters {
            let outcome = AnswerOutcome::Issued {
                signature: signature.clone().into(),
                at,
            };
            let answers = Answers::new(waiter.clone(), vec![Answer { job, outcome }]);
            // Where nobody listens, the ledger has it.
            let _ = self.broker.answer(&waiter, answers.to_bytes(&self.key), None).await;
        }
        true
    }
}
