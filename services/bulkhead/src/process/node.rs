//! Front ends and signers: enrolled by control, they hold a key of their own, believe one root, and wait for what is not there yet.

use std::sync::Arc;

use domain::{id::NodeId, issuer::Role, time::Clock};
use keys::Keys;
use runtime::{
    config::{Config, NodeRole},
    data_dir::DataDir,
    files::FileError,
    follow::FollowError,
    identity::Identity,
    node_files::NodeFiles,
    ports::Ports,
    tls::TlsFiles,
};
use wire::signed::NodeKey;

use super::{Ready, renewal, wait};
use crate::{
    compose::{self, Context, Host, Process, Remote},
    failure::{Failure, Outcome},
};

/// What an enrolled node has.
#[derive(Debug)]
pub struct Enrolled {
    pub key: Arc<NodeKey>,
    pub files: NodeFiles,
    pub root: Vec<u8>,
}

impl Enrolled {
    /// What `bulkhead node enrol` has left in the data directory.
    fn open(data: &DataDir, node: &NodeId) -> Outcome<Self> {
        let identity = identity(data)?;
        let files = files(data)?;
        let root = identity.root_public_key();
        if root.as_ref().is_err_and(FileError::is_missing) || !files.certificate_and_key().exists() {
            return Err(
                Failure::failed(format_args!("{}: node {node} is not enrolled", data.path().display())).next(
                    "an operator runs `bulkhead node invite`; give its code to `bulkhead node enrol --config FILE` here",
                ),
            );
        }
        Ok(Self {
            key: Arc::new(identity.node_key(node).map_err(Failure::failed)?),
            files,
            root: root.map_err(Failure::failed)?,
        })
    }
}

/// Where keys with which processes speak to each other are.
pub fn identity(data: &DataDir) -> Outcome<Identity> {
    Identity::open(&data.file("identity")).map_err(Failure::failed)
}

/// Where certificates for connections are.
pub fn files(data: &DataDir) -> Outcome<NodeFiles> {
    NodeFiles::open(&data.file("access")).map_err(Failure::failed)
}

/// The name in a configuration that was checked.
pub fn name(config: &Config) -> Outcome<NodeId> {
    config.node.id.parse().map_err(Failure::usage)
}

pub(super) async fn start(process: &Process, data: &DataDir, mut ports: Ports, metrics_url: String) -> Outcome<Ready> {
    let config = &process.config;
    let node = name(config)?;
    let enrolled = Enrolled::open(data, &node)?;
    let store = wait(process, "store", || compose::open_store(config, data)).await;
    let context = Context::new(process, data, store, &enrolled.root)?;
    in_the_registry(&context, &enrolled.key).await?;
    context.follow();
    let broker = compose::open_broker(&context)?;
    let handles = Arc::new(Remote::new(
        config,
        &enrolled.files,
        &enrolled.key,
        process.clock.clone(),
    ));
    let mut ready = Ready {
        role: config.node.role.as_str(),
        node,
        url: None,
        metrics_url,
    };
    let mut servers = Vec::new();
    if config.node.role == NodeRole::Signer {
        let keys = tokens(process, data).await;
        compose::signer(&context, broker, enrolled.key.clone(), keys, process.shutdown.clone());
    } else {
        let place = &config.place;
        let listener = ports.bind("hvca", place.listen).map_err(Failure::failed)?;
        let url = Host::of(&place.names, place.listen.ip()).url("https", &listener)?;
        ready.url = Some(format!("{url}/v2"));
        let certificate = enrolled.files.certificate_and_key();
        let tls = compose::server_tls(
            process,
            TlsFiles {
                key: certificate.clone(),
                certificate,
                client_ca: enrolled.files.ca(),
            },
        )?;
        servers.push(tls.clone());
        compose::frontend(
            &context,
            broker,
            enrolled.key.clone(),
            handles.clone(),
            (listener, tls),
            None,
        )?;
    }
    process
        .shutdown
        .spawn(renewal::run(context, enrolled, handles, servers));
    Ok(ready)
}

/// Waits until the registry says that this node may speak. What cannot be believed at all ends the start.
async fn in_the_registry(context: &Context, key: &NodeKey) -> Outcome {
    let unbelievable = wait(&context.process, "enrolment", || async {
        match context.follower.catch_up().await {
            Ok(_) => {}
            Err(FollowError::Store(error)) => return Err(Failure::failed(error)),
            Err(error) => return Ok(Some(error)),
        }
        let snapshot = context.follower.applied().load().snapshot.clone();
        let now = context.process.clock.now();
        let told = |what: &str| Err(Failure::failed(format_args!("node {}: {what}", key.node())));
        match snapshot.nodes.get(key.node()) {
            None => told("the registry does not know it; is this the database of the installation that enrolled it?"),
            Some(node) if node.revoked => told("it is revoked; enrol this machine under another name"),
            Some(node) if *node.public_key != *key.public_key() => told("it is enrolled with another key"),
            Some(node) if node.not_after <= now => told("its enrolment has run out; have it invited again"),
            Some(_) => Ok(None),
        }
    })
    .await;
    match unbelievable {
        None => Ok(()),
        Some(error) => Err(Failure::failed(format_args!(
            "the registry cannot be believed: {error}"
        ))),
    }
}

/// The tokens of this process. One that cannot be opened yet is waited for.
async fn tokens(process: &Process, data: &DataDir) -> Vec<Arc<dyn Keys>> {
    let mut keys = Vec::new();
    for token in &process.config.token {
        keys.push(
            wait(process, "token", || {
                compose::open_token(token, data, compose::Missing::IsWaitedFor)
            })
            .await,
        );
    }
    keys
}

/// What a node of this role is enrolled as.
pub fn role(config: &Config) -> Outcome<Role> {
    match config.node.role.enrolled_as() {
        Some(role @ (Role::Frontend | Role::Signer)) => Ok(role),
        Some(Role::Control) | None => Err(Failure::usage(format_args!(
            "node.role: a process of role \"{}\" is not enrolled by others; this is for front ends and signers",
            config.node.role.as_str()
        ))),
    }
}
