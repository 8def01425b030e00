//! The registry on a real ledger and soft keys.

mod api;
mod changes;
mod issuers;
mod nodes;

use std::{path::Path, sync::Arc, time::Duration};

use domain::{bytes::Digest, id::TokenId, issuer::Role, time::Clock};
use keys::{
    Keys,
    soft::{Cost, SoftKeys, ensure_passphrase_file},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use runtime::{access_ca::AccessCa, clock::SystemClock, config, follow::Follower, telemetry::Metrics};
use store::{
    Store,
    sqlite::{Options, Sqlite},
};
use tempfile::TempDir;
use wire::{
    admin::{Past, PrivateKey, RegisterIssuer},
    signed::NodeKey,
    trust::{RootKey, endorse},
};

use crate::{Enrolment, Parts, Registry};

/// A new installation in a directory of its own.
pub struct Bench {
    pub directory: TempDir,
    pub store: Arc<Sqlite>,
    pub keys: Arc<SoftKeys>,
    root: Arc<RootKey>,
    ca: Arc<AccessCa>,
    pub control: Arc<NodeKey>,
}

/// The only token.
pub fn token() -> TokenId {
    "soft".parse().unwrap()
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Sqlite::open(path("ledger"), Options::new(Arc::new(SystemClock))).unwrap();
        ensure_passphrase_file(&path("passphrase"), &token()).unwrap();
        let cheap = Cost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        let keys = SoftKeys::open_or_create_at(&path("keys"), &path("passphrase"), token(), cheap).unwrap();
        Self {
            store: Arc::new(store),
            keys: Arc::new(keys),
            root: Arc::new(RootKey::generate()),
            ca: Arc::new(AccessCa::open_or_create(&path("access"), SystemClock.now()).unwrap()),
            control: Arc::new(NodeKey::generate("control-1".parse().unwrap())),
            directory,
        }
    }

    /// A control process with this node's key. Nothing is enrolled by it.
    pub fn control(&self, key: &Arc<NodeKey>) -> Registry {
        let (store, clock): (Arc<dyn Store>, _) = (self.store.clone(), Arc::new(SystemClock));
        let settings = config::Registry::default();
        let follower = Follower::new(
            store.clone(),
            &self.root.public_key(),
            clock.clone(),
            &settings,
            &Metrics::new(),
        )
        .unwrap();
        Registry::new(Parts {
            store,
            node_key: key.clone(),
            keys: vec![self.keys.clone()],
            clock,
            public_url: "http://pki.example".into(),
            archive: self.directory.path().join("history"),
            follower: Arc::new(follower),
            enrolment: Some(Enrolment {
                root: self.root.clone(),
                ca: self.ca.clone(),
                life: Duration::from_hours(24),
            }),
        })
    }

    /// The enrolment of a control node by the installation root.
    pub fn node(&self, key: &NodeKey) -> domain::issuer::Node {
        let now = SystemClock.now();
        let (from, until) = (now - Duration::from_hours(1), now + Duration::from_hours(24));
        endorse(
            &self.root,
            key.node().clone(),
            Role::Control,
            key.public_key(),
            from,
            until,
        )
    }

    /// A control process after its first start: itself enrolled, alice known by a certificate.
    pub async fn started(&self) -> Registry {
        let registry = self.control(&self.control);
        let operators = [("alice".parse().unwrap(), Digest([1; 32]))];
        registry.enrol(&[self.node(&self.control)], &operators).await.unwrap();
        registry
    }

    /// The same with the demo hierarchy.
    pub async fn with_demo(&self) -> Registry {
        let registry = self.started().await;
        let accounts = registry
            .make_demo(&token(), Digest([9; 32]), &config::Accounts::default())
            .await
            .unwrap();
        assert_eq!(accounts.len(), 2);
        registry
    }
}

/// A CA of somebody else's making.
pub struct Elsewhere {
    pub key: KeyPair,
    pub chain: String,
}

/// A self-signed P-256 CA with these key usages.
pub fn elsewhere(usages: Vec<KeyUsagePurpose>) -> Elsewhere {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Elsewhere CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages;
    let now = SystemClock.now().as_secs();
    params.not_before = time::OffsetDateTime::from_unix_timestamp(now - 3600).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(now + 86_400 * 365).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Elsewhere {
        chain: pki::pem::encode("CERTIFICATE", certificate.der()),
        key,
    }
}

/// The usages that a CA should have.
pub fn ca_usages() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

/// What an operator sends to import it.
pub fn import(name: &str, ca: &Elsewhere) -> RegisterIssuer {
    RegisterIssuer {
        id: name.parse().unwrap(),
        chain: ca.chain.clone(),
        token: token(),
        key: name.into(),
        private_key: Some(PrivateKey(ca.key.serialize_der().into())),
        past: Past::None,
        public_url: None,
        crl_shards: 16,
        profile: None,
        dry_run: false,
        reason: "test".into(),
    }
}

/// Whether the token holds a key of that name.
pub fn holds(bench: &Bench, name: &str) -> bool {
    Keys::find(&*bench.keys, name).unwrap().is_some()
}

/// The files below a directory, by name.
pub fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}
