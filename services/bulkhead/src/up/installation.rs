//! What is there before anybody is served: ledger, keys, control, and the nodes of the parts.

use std::sync::Arc;

use broker::Broker;
use domain::{
    id::{NodeId, TokenId},
    issuer::Role,
};
use keys::Keys;
use runtime::{data_dir::DataDir, follow::Follower, identity::Identity, shutdown::Shutdown, tls::TlsFiles};
use wire::signed::NodeKey;

use super::addresses::Bound;
use crate::{
    compose::{self, Context, Control, Founding, Local, Missing, Plain, Process},
    failure::{Failure, Outcome},
};

/// Node names are tried from 1 to this, past those whose key is lost.
const MOST_NODES: u32 = 1_000;

/// Everything that services are given.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) context: Context,
    pub(super) control: Arc<Control>,
    broker: Arc<dyn Broker>,
    /// Its own token is the first.
    keys: Vec<Arc<dyn Keys>>,
    demo: TokenId,
    frontend: Arc<NodeKey>,
    signer: Arc<NodeKey>,
}

impl Installation {
    /// Opens what is in the directory, and makes what is not.
    pub(super) async fn open(process: &Process, data: &DataDir, bound: &Bound) -> Outcome<Self> {
        let store = compose::open_store(&process.config, data).await?;
        let own = compose::own_token(data).await?;
        let demo = own.token().clone();
        let mut keys = vec![own];
        for token in &process.config.token {
            keys.push(compose::open_token(token, data, Missing::IsMade).await?);
        }
        let identity = Identity::open(&data.file("identity")).map_err(Failure::failed)?;
        let root = identity.root_or_create().map_err(Failure::failed)?;
        let context = Context::new(process, data, store, &root.public_key())?;
        context.follower.catch_up().await.map_err(|error| {
            Failure::failed(format_args!(
                "the registry in {} cannot be believed: {error}",
                data.path().display()
            ))
        })?;
        let node = |role| node_key(&identity, role, &context.follower).map(Arc::new);
        let (frontend, signer) = (node("frontend")?, node("signer")?);
        let founding = Founding {
            root,
            nodes: vec![
                (node("control")?, Role::Control),
                (frontend.clone(), Role::Frontend),
                (signer.clone(), Role::Signer),
            ],
            keys: keys.clone(),
            public_url: bound.public_url(&process.config)?,
            names: process.config.place.called(),
            sole: true,
        };
        Ok(Self {
            control: Arc::new(Control::open(&context, data, founding).await?),
            broker: compose::open_broker(&context)?,
            context,
            keys,
            demo,
            frontend,
            signer,
        })
    }

    /// The token of the demo keys.
    pub(super) fn token(&self) -> &TokenId {
        &self.demo
    }

    /// Starts everything. It stops in this order: front end, then signer, so that who waits is still answered.
    pub(super) fn start(&self, bound: Bound) -> Outcome {
        let (context, control) = (&self.context, &self.control);
        let process = &context.process;
        let access = &control.access;
        let files = TlsFiles {
            certificate: access.server.certificate_file.clone(),
            key: access.server.key_file.clone(),
            client_ca: access.ca.ca_file(),
        };
        let tls = compose::server_tls(process, files)?;
        context.follow();
        let answered = Shutdown::new(process.config.shutdown.grace);
        compose::signer(
            context,
            self.broker.clone(),
            self.signer.clone(),
            self.keys.clone(),
            answered.clone(),
        );
        compose::frontend(
            context,
            self.broker.clone(),
            self.frontend.clone(),
            Arc::new(Local(control.registry.clone())),
            (bound.hvca, tls.clone()),
            Some(answered),
        )?;
        compose::operators(context, control, bound.admin, &tls)?;
        compose::plain(process, bound.metrics, Plain::Telemetry)?;
        match bound.status {
            Some(status) => compose::plain(process, status, Plain::Status),
            None => Ok(()),
        }
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
