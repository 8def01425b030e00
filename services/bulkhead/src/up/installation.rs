//! What is there before anybody is served: keys, ledger, trust, the registry's first revision, the demo hierarchy. Each step is safe to
//! repeat, so that a start that was killed half-way is simply started again.

use std::{path::Path, sync::Arc, time::Duration};

use broker::{Broker, embedded};
use domain::{
    id::{NodeId, OperatorId, TokenId},
    issuer::{Node, Role},
    time::{Clock, Timestamp},
};
use keys::{Keys, soft};
use registry::{Parts, Registry};
use runtime::{
    access_ca::{AccessCa, Issued},
    clock::{StoreClock, SystemClock},
    config::Config,
    data_dir::DataDir,
    follow::Follower,
    health::Health,
    identity::Identity,
    shutdown::Shutdown,
    telemetry::Metrics,
};
use store::{Store, sqlite};
use wire::{
    signed::NodeKey,
    trust::{RootKey, endorse},
};

use super::addresses::Bound;
use crate::failure::{Failure, Outcome};

/// The software key store.
const TOKEN: &str = "soft";
/// Client certificate of the demo accounts.
const CLIENT: &str = "demo";
/// Operators of a new installation.
const OPERATORS: [&str; 2] = ["alice", "bob"];
/// How far an enrolment reaches back, for clocks that are slow.
const SKEW: Duration = Duration::from_mins(5);
/// Node names are tried from 1 to this, past those whose key is lost.
const MOST_NODES: u32 = 1_000;

/// Everything that services are given.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) config: Arc<Config>,
    pub(super) store: Arc<dyn Store>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) keys: Vec<Arc<dyn Keys>>,
    pub(super) follower: Arc<Follower>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Arc<StoreClock>,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) access: Access,
    pub(super) trust: Trust,
}

/// Who this process is towards clients and operators.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) ca: AccessCa,
    pub(super) server: Issued,
    pub(super) client: Issued,
    pub(super) operators: Vec<(OperatorId, Issued)>,
}

/// Who the parts of this process are towards each other.
#[derive(Debug)]
pub(super) struct Trust {
    root: RootKey,
    pub(super) frontend: Arc<NodeKey>,
    pub(super) signer: Arc<NodeKey>,
    pub(super) control: Arc<NodeKey>,
}

impl Installation {
    /// Opens what is in the directory, and makes what is not.
    pub(super) async fn open(config: Arc<Config>, data: &DataDir, bound: &Bound, shutdown: &Shutdown) -> Outcome<Self> {
        let clock = Arc::new(StoreClock::new(Arc::new(SystemClock)));
        let metrics = Metrics::new();
        let health = Health::new(clock.clone(), shutdown.clone());
        let store = open_store(&config, data).await?;
        let keys = vec![open_keys(data).await?];
        let identity = Identity::open(&data.file("identity")).map_err(Failure::failed)?;
        let root = identity.root_or_create().map_err(Failure::failed)?;
        let follower = Follower::new(
            store.clone(),
            &root.public_key(),
            clock.clone(),
            &config.registry,
            &metrics,
        )
        .map_err(Failure::failed)?
        .remembering(data.file("registry-head.json"))
        .map_err(Failure::failed)?;
        let follower = Arc::new(follower);
        follower.catch_up().await.map_err(|error| {
            Failure::failed(format_args!(
                "the registry in {} cannot be believed: {error}",
                data.path().display()
            ))
        })?;
        let trust = Trust::open(&identity, root, &follower)?;
        let registry = Arc::new(Registry::new(Parts {
            store: store.clone(),
            node_key: trust.control.clone(),
            keys: keys.clone(),
            clock: clock.clone(),
            public_url: bound.public_url(&config)?,
            archive: data.file("history"),
            follower: follower.clone(),
        }));
        let ca = AccessCa::open_or_create(&data.file("access"), clock.now()).map_err(Failure::failed)?;
        super::renewal::renew_access(&ca, &registry, clock.now()).await?;
        let access = Access::provide(ca, &config, clock.now())?;
        let installation = Self {
            config,
            store,
            broker: Arc::new(embedded::Embedded::new(embedded::Limits::default())),
            keys,
            follower,
            registry,
            clock,
            metrics,
            health,
            access,
            trust,
        };
        installation.enrol().await?;
        Ok(installation)
    }

    /// Enrols this process's nodes and operators, and makes the demo hierarchy of a new installation.
    async fn enrol(&self) -> Outcome {
        let operators: Vec<_> = self
            .access
            .operators
            .iter()
            .map(|(id, issued)| (id.clone(), issued.fingerprint))
            .collect();
        let nodes = self.trust.nodes(&self.follower, &self.config, self.clock.now());
        self.registry.enrol(&nodes, &operators).await.map_err(Failure::failed)?;
        Ok(())
    }

    /// Enrols again the nodes whose enrolment ends soon.
    pub(super) async fn renew_enrolment(&self) -> Result<(), registry::RegistryError> {
        let nodes = self.trust.nodes(&self.follower, &self.config, self.clock.now());
        self.registry.enrol(&nodes, &[]).await.map(drop)
    }

    /// The token of the demo keys.
    pub(super) fn token(&self) -> TokenId {
        self.keys[0].token().clone()
    }
}

impl Access {
    fn provide(ca: AccessCa, config: &Config, now: Timestamp) -> Outcome<Self> {
        let place = &config.place;
        let mut names: Vec<String> = place.names.clone();
        names.extend(
            [place.listen, place.admin_listen]
                .iter()
                .map(std::net::SocketAddr::ip)
                .filter(|address| !address.is_unspecified())
                .map(|address| address.to_string()),
        );
        let operators = OPERATORS.map(|name| {
            let issued = ca.operator(name, now).map_err(Failure::failed)?;
            Ok((name.parse().expect("operators' names are names"), issued))
        });
        Ok(Self {
            server: ca.server(&names, now).map_err(Failure::failed)?,
            client: ca.client(CLIENT, now).map_err(Failure::failed)?,
            operators: operators.into_iter().collect::<Outcome<_>>()?,
            ca,
        })
    }
}

impl Trust {
    fn open(identity: &Identity, root: RootKey, follower: &Follower) -> Outcome<Self> {
        let key = |role| node_key(identity, role, follower).map(Arc::new);
        Ok(Self {
            frontend: key("frontend")?,
            signer: key("signer")?,
            control: key("control")?,
            root,
        })
    }

    /// The nodes of this process as they must be enrolled: as they are, unless their enrolment is missing or ends soon.
    fn nodes(&self, follower: &Follower, config: &Config, now: Timestamp) -> Vec<Node> {
        let snapshot = follower.applied().load().snapshot.clone();
        let parts = [
            (&self.frontend, Role::Frontend),
            (&self.signer, Role::Signer),
            (&self.control, Role::Control),
        ];
        let life = config.registry.enrolment;
        parts
            .into_iter()
            .map(|(key, role)| match snapshot.nodes.get(key.node()) {
                Some(node) if node.revoked || node.not_after > now + life / 3 => (**node).clone(),
                known => {
                    // What was said under the old enrolment stays believable under the new one.
                    let not_before = known.map_or(now - SKEW, |node| node.not_before);
                    endorse(
                        &self.root,
                        key.node().clone(),
                        role,
                        key.public_key(),
                        not_before,
                        now + life,
                    )
                }
            })
            .collect()
    }
}

/// The key of the first node of this role whose name is free or whose key is here. A node whose key file is lost keeps its name, so that
/// what it said stays verifiable; another takes its place.
fn node_key(identity: &Identity, role: &str, follower: &Follower) -> Outcome<NodeKey> {
    let snapshot = follower.applied().load().snapshot.clone();
    for number in 1..=MOST_NODES {
        let id: NodeId = format!("{role}-{number}").parse().map_err(Failure::failed)?;
        let key = identity.node_key(&id).map_err(Failure::failed)?;
        let known = snapshot.nodes.get(&id);
        if known.is_none_or(|node| !node.revoked && *node.public_key == *key.public_key()) {
            return Ok(key);
        }
    }
    Err(Failure::failed(format_args!(
        "{MOST_NODES} nodes of role {role} were revoked or lost"
    )))
}

async fn open_store(config: &Config, data: &DataDir) -> Outcome<Arc<dyn Store>> {
    let settings = &config.store;
    let directory = if settings.path.as_os_str().is_empty() {
        data.file("ledger")
    } else {
        settings.path.clone()
    };
    let options = sqlite::Options {
        commit_gap: settings.commit_gap,
        batch_rows: settings.commit_rows,
        interactive_calls: settings.queue,
        readers: settings.readers,
        checkpoint_pages: settings.wal_autocheckpoint,
        ..sqlite::Options::new(Arc::new(SystemClock))
    };
    let store = blocking(move || sqlite::Sqlite::open(&directory, options))
        .await?
        .map_err(Failure::failed)?;
    Ok(Arc::new(store))
}

async fn open_keys(data: &DataDir) -> Outcome<Arc<dyn Keys>> {
    let token: TokenId = TOKEN.parse().map_err(Failure::failed)?;
    let directory = data.directory("keys").map_err(Failure::failed)?;
    let passphrase = directory.join("passphrase");
    let keys = blocking(move || {
        soft::ensure_passphrase_file(&passphrase, &token)?;
        soft::SoftKeys::open_or_create(&directory.join(TOKEN), &passphrase, token)
    });
    Ok(Arc::new(keys.await?.map_err(Failure::failed)?))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::failed)
}

/// An absolute path, for files that others are told of.
pub(super) fn absolute(path: &Path) -> Outcome<std::path::PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
}
