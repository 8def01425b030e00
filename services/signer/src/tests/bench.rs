//! A ledger, a broker, a token, a registry with two issuers, and a front end's half of the way: everything around a signer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use broker::{Broker, embedded::Embedded};
use domain::{
    admission,
    bytes::{Blob, Digest},
    id::{Incarnation, IssuerId, Serial},
    issuer::{Account, Api, Binding, Issuer, Profile, Role, Usage},
    job::State,
    key::KeyType,
    lane::Lane,
    policy::{KeyAlgorithm, ListPolicy},
    registry::{Change, Snapshot},
    request::{Request, RequestedSan, RequestedSubject},
    statement::{STATEMENT_VERSION, Statement},
    template::tls_server,
    time::{Clock, Timestamp},
};
use keys::Keys;
use pki::{
    certificate::{check_sealed, prepare, seal},
    issuer::{Registration, import},
};
use runtime::{
    clock::{StoreClock, SystemClock, entropy},
    config,
    follow::Follower,
    health::Health,
    shutdown::{Cause, Shutdown},
    telemetry::Metrics,
};
use store::{
    IssuerRow, Job, Limits, NewJob, Outcome, Store,
    sqlite::{Options, Sqlite},
};
use tokio::task::JoinHandle;
use wire::{
    answer::Answers,
    attest::attest,
    envelope::Envelope,
    signed::NodeKey,
    trust::{RootKey, endorse, revision},
};

use super::token::FaultyToken;
use crate::{Context, SignerError, serve};

/// The system's clock, set wrong by some milliseconds.
#[derive(Debug, Default)]
pub struct WrongClock(pub AtomicI64);

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0.load(Ordering::SeqCst))
    }
}

pub struct Bench {
    pub store: Arc<Sqlite>,
    pub broker: Embedded,
    pub token: Arc<FaultyToken>,
    pub follower: Arc<Follower>,
    pub frontend: NodeKey,
    pub control: NodeKey,
    pub signer: Arc<NodeKey>,
    pub waiter: Incarnation,
    pub answers: Box<dyn broker::Answers>,
    /// The clock of the signers' host.
    pub host: Arc<WrongClock>,
    pub dir: tempfile::TempDir,
    subscriber: Vec<u8>,
}

/// A job to be accepted, on its way.
pub struct Draft {
    pub new: NewJob,
    pub statement: Statement,
}

pub struct Running {
    pub shutdown: Shutdown,
    pub metrics: Metrics,
    pub health: Health,
    task: JoinHandle<Result<(), SignerError>>,
}

impl Running {
    pub async fn stop(self) -> Result<(), SignerError> {
        self.shutdown.begin(Cause::Asked("a test".to_owned()));
        self.ended().await
    }

    pub async fn ended(self) -> Result<(), SignerError> {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        ended.expect("the signer does not end").unwrap()
    }

    /// The value of a series, 0 if there is none.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

pub fn lane(issuer: &str) -> Lane {
    format!("{issuer}.interactive").parse().unwrap()
}

fn issuer(name: &str, token: &FaultyToken) -> Issuer {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    token.import(name, &key.serialize_der()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key).unwrap();
    let registration = Registration {
        id: name.parse().unwrap(),
        public_url: "http://pki.example.com".to_owned(),
        crl_shards: 4,
        bindings: vec![Binding {
            token: token.token().clone(),
            key: name.to_owned(),
        }],
        usage: Usage {
            issue: true,
            crl: true,
            ocsp: true,
        },
    };
    import(registration, vec![Blob(root.der().to_vec())], Vec::new()).unwrap()
}

fn account(name: &str) -> Account {
    Account {
        id: name.parse().unwrap(),
        api: Api::Hvca,
        api_key: name.to_owned(),
        api_secret: Digest([0; 32]),
        client_certificates: Vec::new(),
        issuer: name.parse().unwrap(),
        profile: name.parse().unwrap(),
        issuance_quota: 1_000_000,
        requests_per_second: 1000,
        jobs_in_flight: 100_000,
        tokens_not_before: Timestamp::default(),
        enabled: true,
    }
}

pub fn profile(name: &str) -> Profile {
    tls_server(
        name.parse().unwrap(),
        KeyAlgorithm::Ecdsa,
        vec![256],
        "ECDSA",
        "SHA-256",
    )
}

impl Bench {
    /// Issuers, profiles and accounts `a` and `b`, each named as its fellows.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Arc::new(WrongClock::default());
        let store = Arc::new(Sqlite::open(dir.path().join("ledger"), Options::new(Arc::new(SystemClock))).unwrap());
        let root = RootKey::generate();
        let node = |name: &str| NodeKey::generate(name.parse().unwrap());
        let (frontend, control, signer) = (node("frontend-1"), node("control-1"), node("signer-1"));
        let follower = Follower::new(
            store.clone(),
            &root.public_key(),
            Arc::new(SystemClock),
            &config::Registry::default(),
            &Metrics::new(),
        );
        let broker = Embedded::default();
        let waiter = Incarnation {
            node: frontend.node().clone(),
            run: 7,
        };
        let answers = broker.answers(&waiter, 10_000).await.unwrap();
        let subscriber = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let bench = Self {
            store,
            broker,
            token: Arc::new(FaultyToken::new(dir.path())),
            follower: Arc::new(follower.unwrap()),
            frontend,
            control,
            signer: Arc::new(signer),
            waiter,
            answers,
            host,
            dir,
            subscriber: subscriber.public_key().as_der().unwrap().as_ref().to_vec(),
        };
        let (since, until) = (Timestamp::from_secs(0), Timestamp::from_secs(4_000_000_000));
        let mut changes: Vec<Change> = [
            (&bench.control, Role::Control),
            (&bench.frontend, Role::Frontend),
            (&*bench.signer, Role::Signer),
        ]
        .map(|(key, role)| Change::PutNode {
            node: endorse(&root, key.node().clone(), role, key.public_key(), since, until),
        })
        .into();
        for name in ["a", "b"] {
            changes.extend(bench.trio(name));
        }
        bench.change(changes).await;
        bench
    }

    /// An issuer with a key on the token, its profile and its account.
    pub fn trio(&self, name: &str) -> [Change; 3] {
        [
            Change::PutIssuer {
                issuer: Box::new(issuer(name, &self.token)),
            },
            Change::PutProfile {
                profile: Box::new(profile(name)),
            },
            Change::PutAccount {
                account: Box::new(account(name)),
            },
        ]
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.follower.applied().load().snapshot.clone()
    }

    pub fn issuer(&self, name: &str) -> Issuer {
        self.snapshot().issuers[&name.parse::<IssuerId>().unwrap()]
            .as_ref()
            .clone()
    }

    /// Appends a revision with its rows, and applies it.
    pub async fn change(&self, changes: Vec<Change>) {
        self.change_with(changes, |_| {}).await;
    }

    /// The same, with rows that `lie` has altered.
    pub async fn change_with(&self, changes: Vec<Change>, lie: impl Fn(&mut IssuerRow)) {
        let applied = self.follower.applied().load_full();
        let next = applied.snapshot.next(&changes).unwrap();
        let rows: Vec<IssuerRow> = next
            .issuers
            .values()
            .map(|issuer| {
                let mut row = IssuerRow {
                    id: issuer.id.clone(),
                    state: issuer.state,
                    usage: issuer.usage,
                    not_after: issuer.not_after,
                };
                lie(&mut row);
                row
            })
            .collect();
        let revision = revision(&applied.head, &changes, &self.control, SystemClock.now());
        self.store.append_revision(&revision, &rows).await.unwrap();
        self.follower.catch_up().await.unwrap();
    }

    pub fn switched(&self, name: &str, issue: bool) -> Change {
        let mut issuer = self.issuer(name);
        issuer.usage.issue = issue;
        Change::PutIssuer {
            issuer: Box::new(issuer),
        }
    }

    /// A job of `name` as a front end would accept it now.
    pub fn draft(&self, name: &str, common_name: &str) -> Draft {
        let now = SystemClock.now();
        let snapshot = self.snapshot();
        let terms = snapshot.terms(&name.parse().unwrap()).unwrap();
        let request = Request {
            subject_dn: RequestedSubject {
                single: [("common_name".to_owned(), common_name.to_owned())].into(),
                ..RequestedSubject::default()
            },
            san: RequestedSan {
                dns_names: vec![common_name.to_owned()],
                ..RequestedSan::default()
            },
            ..Request::default()
        };
        let content = admission::admit(&request, &self.subscriber, KeyType::P256, &terms, now).unwrap();
        let job = Serial::new(now, entropy());
        let tbs = prepare(&content, &terms.issuer, job).unwrap();
        let sign_by = admission::sign_by(now, &terms.profile, &content);
        let statement = Statement {
            version: STATEMENT_VERSION,
            job,
            account: terms.account.id.clone(),
            issuer: terms.issuer.id.clone(),
            profile: terms.profile.id.clone(),
            profile_version: terms.profile.version,
            class: terms.profile.class,
            purpose: terms.profile.purpose,
            accepted_at: now,
            sign_by,
            repeat: pki::sha256(job.as_bytes()),
            intent: pki::sha256(&tbs),
            content,
        };
        let new = NewJob {
            job,
            lane: statement.lane(),
            account: statement.account.clone(),
            profile: statement.profile.clone(),
            profile_version: statement.profile_version,
            purpose: statement.purpose,
            sign_by,
            not_before: statement.content.not_before,
            not_after: statement.content.not_after,
            statement: Vec::new(),
            proof: Vec::new(),
            tbs,
            intent: statement.intent,
            public_key: pki::sha256(&self.subscriber),
            unique_key: false,
            repeat: statement.repeat,
            join_within: Duration::ZERO,
            idempotency: None,
            waiter: Some(self.waiter.clone()),
            limits: Limits {
                quota: 1_000_000,
                jobs_in_flight: 1_000_000,
                lane_depth: 1_000_000,
                lane_share: 1_000_000,
            },
        };
        Draft { new, statement }
    }

    /// Signs and accepts a batch, without a word to the broker.
    pub async fn accept(&self, drafts: Vec<Draft>) -> Vec<Serial> {
        let statements: Vec<Vec<u8>> = drafts
            .iter()
            .map(|draft| serde_json::to_vec(&draft.statement).unwrap())
            .collect();
        let references: Vec<&[u8]> = statements.iter().map(Vec::as_slice).collect();
        let proofs = attest(&self.frontend, &references);
        let jobs = drafts.into_iter().zip(statements.iter().zip(proofs));
        let jobs = jobs.map(|(draft, (statement, proof))| NewJob {
            statement: statement.clone(),
            proof: serde_json::to_vec(&proof).unwrap(),
            ..draft.new
        });
        let accepted = self.store.accept(jobs.collect()).await;
        accepted.into_iter().map(|accepted| accepted.unwrap().job).collect()
    }

    pub async fn publish(&self, name: &str, jobs: &[Serial]) {
        for jobs in jobs.chunks(4) {
            let envelope = Envelope::new(lane(name), jobs.to_vec(), SystemClock.now());
            let sealed = envelope.to_bytes(&self.frontend);
            self.broker
                .publish(&lane(name), sealed, jobs.len(), None)
                .await
                .unwrap();
        }
    }

    /// Accepts and publishes `count` jobs of `name`.
    pub async fn submit(&self, name: &str, count: usize) -> Vec<Serial> {
        let drafts = (0..count)
            .map(|n| self.draft(name, &format!("host-{n}.example.com")))
            .collect();
        let jobs = self.accept(drafts).await;
        self.publish(name, &jobs).await;
        jobs
    }

    pub fn start(&self) -> Running {
        self.start_as(&config::Signer {
            threads: 4,
            operation_limit: Duration::from_millis(700),
            ..config::Signer::default()
        })
    }

    pub fn start_as(&self, config: &config::Signer) -> Running {
        self.start_on(config, Arc::new(self.broker.clone()))
    }

    pub fn start_on(&self, config: &config::Signer, broker: Arc<dyn Broker>) -> Running {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let metrics = Metrics::new();
        let health = Health::new(Arc::new(SystemClock), shutdown.clone());
        let context = Context {
            store: self.store.clone(),
            broker,
            keys: vec![self.token.clone()],
            applied: self.follower.applied(),
            node_key: self.signer.clone(),
            incarnation: Incarnation {
                node: self.signer.node().clone(),
                run: u64::from_be_bytes(entropy()),
            },
            clock: Arc::new(StoreClock::new(self.host.clone())),
            config: config.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(serve(context));
        Running {
            shutdown,
            metrics,
            health,
            task,
        }
    }

    pub async fn job(&self, job: Serial) -> Job {
        self.store.job(job).await.unwrap().expect("the job is in the ledger")
    }

    pub async fn state(&self, job: Serial) -> State {
        self.job(job).await.state
    }

    /// Waits until every job has ended, at most ten seconds.
    pub async fn ended(&self, jobs: &[Serial]) {
        let began = Instant::now();
        loop {
            let ended = self.store.ended(jobs).await.unwrap();
            if ended.len() == jobs.len() {
                return;
            }
            if began.elapsed() > Duration::from_secs(10) {
                for job in jobs {
                    let (state, events) = (self.state(*job).await, self.store.events(*job).await.unwrap());
                    eprintln!("{job}: {state} {events:?}");
                }
                panic!("{} of {} jobs have ended", ended.len(), jobs.len());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all are issued, and judges every certificate.
    pub async fn issued(&self, name: &str, jobs: &[Serial]) {
        self.ended(jobs).await;
        let issuer = self.issuer(name);
        for job in jobs {
            let job = self.job(*job).await;
            let Some(Outcome::Issued { signature, .. }) = &job.outcome else {
                panic!("{}: {:?}", job.job, job.outcome);
            };
            let statement: Statement = serde_json::from_slice(&job.statement).unwrap();
            let certificate = seal(&job.tbs, issuer.signature_algorithm, signature);
            check_sealed(&certificate, &job.tbs, &statement.content, &issuer).unwrap();
        }
    }

    /// Waits until the job is refused: the problem id and the words for the client.
    pub async fn refused(&self, job: Serial) -> (String, String) {
        self.ended(&[job]).await;
        match self.job(job).await.outcome {
            Some(Outcome::Refused { id, detail, .. }) => (id, detail),
            other => panic!("{job}: {other:?}"),
        }
    }

    /// What makes another request the same as the one of this job.
    pub async fn repeat_of(&self, job: Serial) -> Digest {
        let statement: Statement = serde_json::from_slice(&self.job(job).await.statement).unwrap();
        statement.repeat
    }

    /// The kinds of events that are recorded of a job.
    pub async fn events(&self, job: Serial) -> Vec<String> {
        let events = self.store.events(job).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// The next message for the waiting front end, opened.
    pub async fn answer(&mut self) -> Answers {
        let sealed = tokio::time::timeout(Duration::from_secs(10), self.answers.next()).await;
        let sealed = sealed.expect("no answer").expect("the inbox is closed");
        let applied = self.follower.applied().load_full();
        Answers::open(&sealed.body, &applied.directory, SystemClock.now())
            .unwrap()
            .1
    }

    /// Another connection to the ledger's file.
    pub fn connection(&self) -> rusqlite::Connection {
        let file = self.dir.path().join("ledger").join("ledger.sqlite");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = rusqlite::Connection::open_with_flags(file, flags).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    /// Alters the ledger behind everybody's back.
    pub fn tamper(&self, sql: &str, job: Serial) {
        let changed = self.connection().execute(sql, [job.as_bytes()]).unwrap();
        assert_eq!(changed, 1, "{sql}");
    }

    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A profile with one change.
    pub fn profile_change(&self, name: &str, change: impl FnOnce(&mut Profile)) -> Change {
        let mut profile = self.snapshot().profiles[&name.parse().unwrap()].as_ref().clone();
        profile.version += 1;
        change(&mut profile);
        Change::PutProfile {
            profile: Box::new(profile),
        }
    }
}

/// A list of texts that allows these suffixes.
pub fn only(suffix: &str) -> ListPolicy {
    let mut list = profile("x").policy.san.dns_names;
    list.list = vec![suffix.into()];
    list
}
