//! Listening for operators.

use std::{io, sync::Arc};

use runtime::{
    health::Health,
    identity,
    shutdown::Shutdown,
    tls::{self, Limits, ServerTls},
};
use tokio::net::TcpListener;

use super::{presence, router};
use crate::Registry;

/// The greatest body of an order, in bytes: the history of an imported issuer is the largest.
const BODY_LIMIT: usize = 64 << 20;

/// What the operators' API needs.
#[derive(Debug)]
pub struct Context {
    /// The registry.
    pub registry: Arc<Registry>,
    /// Where operators connect.
    pub listener: TcpListener,
    /// Server certificate, and the CA of client certificates.
    pub tls: Arc<ServerTls>,
    /// What a listener allows.
    pub limits: Limits,
    /// Where this part says how it is.
    pub health: Health,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// Serves the operators' API until shutdown begins.
pub async fn serve(context: Context) -> io::Result<()> {
    let Context {
        registry,
        listener,
        tls,
        limits,
        health,
        shutdown,
    } = context;
    let incarnation = identity::incarnation(registry.node_key.node());
    shutdown.spawn(presence::announce(
        registry.clone(),
        incarnation,
        health.part("control"),
        shutdown.soft().clone(),
    ));
    tls::serve(listener, tls, router(registry, BODY_LIMIT), limits, shutdown).await
}
