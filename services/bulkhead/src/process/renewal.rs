//! A node renews its own enrolment and its access certificate, long before they end.

use std::sync::Arc;

use domain::time::Clock;
use runtime::tls::ServerTls;
use tracing::{error, info, warn};
use wire::enrol::{NodeAnswer, NodeRequest};

use super::node::Enrolled;
use crate::compose::{Context, RENEWAL_PERIOD, Remote};

/// Looks at the start and then daily, until stopping begins. What fails today is tried again tomorrow.
pub(super) async fn run(context: Context, enrolled: Enrolled, control: Arc<Remote>, servers: Vec<Arc<ServerTls>>) {
    loop {
        if is_due(&context, &enrolled) {
            match renew(&enrolled, &control).await {
                Ok(()) => info!("enrolment and access certificate renewed"),
                Err(reason) => warn!(
                    reason,
                    "enrolment and access certificate could not be renewed; trying again tomorrow"
                ),
            }
            for server in &servers {
                if let Err(error) = server.reload() {
                    error!(%error, "the server certificate could not be read again");
                }
            }
        }
        tokio::select! {
            () = context.process.shutdown.soft().cancelled() => return,
            () = tokio::time::sleep(RENEWAL_PERIOD) => {}
        }
    }
}

/// Whether little is left of certificate or enrolment.
fn is_due(context: &Context, enrolled: &Enrolled) -> bool {
    let now = context.process.clock.now();
    let life = context.process.config.registry.enrolment;
    let snapshot = context.follower.applied().load().snapshot.clone();
    let enrolment = snapshot.nodes.get(enrolled.key.node());
    let ends = enrolment.is_some_and(|node| node.not_after <= now + life / 3);
    ends || enrolled.files.is_due(now).unwrap_or(true)
}

async fn renew(enrolled: &Enrolled, control: &Remote) -> Result<(), String> {
    let pending = enrolled.files.begin(enrolled.key.node());
    let csr = pending.csr.clone();
    match control.ask(NodeRequest::Renew { csr }).await? {
        NodeAnswer::Renewed { certificate } => enrolled
            .files
            .keep(&certificate, &pending)
            .map_err(|error| error.to_string()),
        NodeAnswer::Done => Err("control answered something else".into()),
    }
}
