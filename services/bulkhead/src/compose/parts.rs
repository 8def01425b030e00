//! Starting the parts of a process. What ends unasked stops the process.

use std::{net::TcpListener, sync::Arc};

use axum::Router;
use broker::Broker;
use frontend::{BlockKey, PublishTokenKey};
use keys::Keys;
use runtime::{
    identity::incarnation,
    shutdown::{Cause, Shutdown},
    tls::{self, Limits, ServerTls, TlsFiles},
};
use wire::signed::NodeKey;

use super::{Context, Process, control::Control, renewal};
use crate::failure::{Failure, Outcome};

/// TLS of a listener.
pub fn server_tls(process: &Process, files: TlsFiles) -> Outcome<Arc<ServerTls>> {
    ServerTls::new(files, &process.metrics)
        .map(Arc::new)
        .map_err(Failure::failed)
}

/// TLS of the listener at which nodes enrol as well.
pub fn enrolment_tls(process: &Process, files: TlsFiles) -> Outcome<Arc<ServerTls>> {
    ServerTls::open_to_strangers(files, &process.metrics)
        .map(Arc::new)
        .map_err(Failure::failed)
}

/// Starts a front end. `answered` begins to stop when it has answered whom it could.
pub fn frontend<H: PublishTokenKey + BlockKey + 'static>(
    context: &Context,
    broker: Arc<dyn Broker>,
    node_key: Arc<NodeKey>,
    handles: Arc<H>,
    (listener, tls): (TcpListener, Arc<ServerTls>),
    answered: Option<Shutdown>,
) -> Outcome {
    let Process {
        config,
        clock,
        metrics,
        health,
        shutdown,
    } = &context.process;
    let front = frontend::start(frontend::Context {
        config: config.clone(),
        store: context.store.clone(),
        broker,
        follower: context.follower.clone(),
        incarnation: incarnation(node_key.node()),
        node_key,
        clock: clock.clone(),
        token_keys: handles.clone(),
        blocked_keys: handles,
        metrics: metrics.clone(),
        health: health.clone(),
        shutdown: shutdown.clone(),
    })
    .map_err(Failure::failed)?;
    let served = tls::serve(
        tokio_listener(listener)?,
        tls,
        front.router(),
        Limits::from(&config.tls),
        shutdown.clone(),
    );
    shutdown.spawn_part("front end", async move {
        let served = served.await;
        front.stop().await;
        if let Some(answered) = answered {
            answered.begin(Cause::Asked("the front end".into()));
        }
        served
    });
    Ok(())
}

/// Starts a signer, which goes on until `stop` begins.
pub fn signer(
    context: &Context,
    broker: Arc<dyn Broker>,
    node_key: Arc<NodeKey>,
    keys: Vec<Arc<dyn Keys>>,
    stop: Shutdown,
) {
    let process = &context.process;
    let served = signer::serve(signer::Context {
        store: context.store.clone(),
        broker,
        keys,
        applied: context.follower.applied(),
        incarnation: incarnation(node_key.node()),
        node_key,
        clock: process.clock.clone(),
        config: process.config.signer.clone(),
        metrics: process.metrics.clone(),
        health: process.health.clone(),
        shutdown: stop,
    });
    process.shutdown.spawn_part("signer", served);
}

/// Starts control: the operators' API, and the renewal of what runs out by itself.
pub fn operators(context: &Context, control: &Arc<Control>, listener: TcpListener, tls: &Arc<ServerTls>) -> Outcome {
    let process = &context.process;
    let served = registry::serve(registry::Context {
        registry: control.registry.clone(),
        listener: tokio_listener(listener)?,
        tls: tls.clone(),
        limits: Limits::from(&process.config.tls),
        health: process.health.clone(),
        shutdown: process.shutdown.clone(),
    });
    process.shutdown.spawn_part("control", served);
    let renewal = renewal::run(context.clone(), control.clone(), vec![tls.clone()]);
    process.shutdown.spawn(renewal);
    Ok(())
}

/// Starts a listener without TLS: what this process tells about itself, or nothing at all.
pub fn plain(process: &Process, listener: TcpListener, what: Plain) -> Outcome {
    let (part, router) = match what {
        Plain::Telemetry => ("metrics", process.health.router(process.metrics.clone())),
        Plain::Status => ("status", Router::new()),
    };
    let served = tls::serve_plain(
        tokio_listener(listener)?,
        router,
        Limits::from(&process.config.tls),
        process.shutdown.clone(),
    );
    process.shutdown.spawn_part(part, served);
    Ok(())
}

/// What is served without TLS.
#[derive(Debug, Clone, Copy)]
pub enum Plain {
    /// Health and metrics.
    Telemetry,
    /// Nothing is published yet. Holding the port keeps it for the URLs that certificates carry for life.
    Status,
}

fn tokio_listener(listener: TcpListener) -> Outcome<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener).map_err(Failure::failed)
}
