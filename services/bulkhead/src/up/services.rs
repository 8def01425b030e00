//! Starting the services, and the order in which they stop: front end, then signer, so that who waits is still answered.

use std::{net::TcpListener, sync::Arc};

use axum::Router;
use runtime::{
    identity::incarnation,
    shutdown::{Cause, Shutdown},
    tls::{self, Limits, ServerTls, TlsFiles},
};

use super::{addresses::Bound, handles::Handles, installation::Installation, renewal};
use crate::failure::{Failure, Outcome};

/// Starts everything. What ends unasked stops the process.
pub(super) fn start(installation: &Arc<Installation>, bound: Bound, shutdown: &Shutdown) -> Outcome {
    let limits = || Limits::from(&installation.config.tls);
    let files = TlsFiles {
        certificate: installation.access.server.certificate_file.clone(),
        key: installation.access.server.key_file.clone(),
        client_ca: installation.access.ca.ca_file(),
    };
    let server = Arc::new(ServerTls::new(files, &installation.metrics).map_err(Failure::failed)?);

    let (follower, stop) = (installation.follower.clone(), shutdown.soft().clone());
    shutdown.spawn(async move { follower.run(stop).await });

    // The signer goes on until the front end has answered whom it could.
    let answered = Shutdown::new(installation.config.shutdown.grace);
    shutdown.spawn_part("signer", signer::serve(signer_context(installation, answered.clone())));

    let front = frontend::start(frontend_context(installation, shutdown)).map_err(Failure::failed)?;
    let (router, listener) = (front.router(), listener(bound.hvca)?);
    let served = tls::serve(listener, server.clone(), router, limits(), shutdown.clone());
    shutdown.spawn_part("front end", async move {
        let served = served.await;
        front.stop().await;
        answered.begin(Cause::Asked("the front end".into()));
        served
    });

    shutdown.spawn_part(
        "control",
        registry::serve(registry::Context {
            registry: installation.registry.clone(),
            listener: self::listener(bound.admin)?,
            tls: server.clone(),
            limits: limits(),
            health: installation.health.clone(),
            shutdown: shutdown.clone(),
        }),
    );

    let metrics = installation.health.router(installation.metrics.clone());
    let metrics = tls::serve_plain(self::listener(bound.metrics)?, metrics, limits(), shutdown.clone());
    shutdown.spawn_part("metrics", metrics);
    if let Some(status) = bound.status {
        // Nothing is published here yet. Holding the port keeps it for the URLs that certificates carry for life.
        let status = tls::serve_plain(self::listener(status)?, Router::new(), limits(), shutdown.clone());
        shutdown.spawn_part("status", status);
    }
    shutdown.spawn(renewal::run(installation.clone(), vec![server], shutdown.clone()));
    Ok(())
}

fn listener(listener: TcpListener) -> Outcome<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener).map_err(Failure::failed)
}

fn signer_context(installation: &Installation, shutdown: Shutdown) -> signer::Context {
    signer::Context {
        store: installation.store.clone(),
        broker: installation.broker.clone(),
        keys: installation.keys.clone(),
        applied: installation.follower.applied(),
        node_key: installation.trust.signer.clone(),
        incarnation: incarnation(installation.trust.signer.node()),
        clock: installation.clock.clone(),
        config: installation.config.signer.clone(),
        metrics: installation.metrics.clone(),
        health: installation.health.clone(),
        shutdown,
    }
}

fn frontend_context(installation: &Installation, shutdown: &Shutdown) -> frontend::Context {
    let handles = Arc::new(Handles(installation.registry.clone()));
    frontend::Context {
        config: installation.config.clone(),
        store: installation.store.clone(),
        broker: installation.broker.clone(),
        follower: installation.follower.clone(),
        node_key: installation.trust.frontend.clone(),
        incarnation: incarnation(installation.trust.frontend.node()),
        clock: installation.clock.clone(),
        token_keys: handles.clone(),
        blocked_keys: handles,
        metrics: installation.metrics.clone(),
        health: installation.health.clone(),
        shutdown: shutdown.clone(),
    }
}
