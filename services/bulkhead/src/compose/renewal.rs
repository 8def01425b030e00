//! Renewal of what runs out by itself where control is: access certificates and enrolments. Looked at on every start and then daily.

use std::{sync::Arc, time::Duration};

use domain::time::{Clock, Timestamp};
use registry::Registry;
use runtime::{access_ca::AccessCa, tls::ServerTls};
use tracing::{error, info};

use super::{Context, control::Control};
use crate::failure::{Failure, Outcome};

/// How often it is looked whether something ends soon.
pub const PERIOD: Duration = Duration::from_hours(24);

/// Renews access certificates that are due, and lets the registry know them.
pub(super) async fn renew_access(ca: &AccessCa, registry: &Registry, now: Timestamp) -> Outcome {
    for renewed in ca.renew_if_due(now).map_err(Failure::failed)? {
        registry
            .renew_certificate(renewed.before, renewed.now)
            .await
            .map_err(Failure::failed)?;
        info!(certificate = renewed.name, "access certificate renewed");
    }
    Ok(())
}

/// Looks daily, until stopping begins. What fails today is tried again tomorrow, long before it is too late.
pub(super) async fn run(context: Context, control: Arc<Control>, servers: Vec<Arc<ServerTls>>) {
    loop {
        tokio::select! {
            () = context.process.shutdown.soft().cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let now = context.process.clock.now();
        if let Err(failure) = renew_access(&control.access.ca, &control.registry, now).await {
            error!(%failure, "access certificates could not be renewed");
        }
        for server in &servers {
            if let Err(error) = server.reload() {
                error!(%error, "the server certificate could not be read again");
            }
        }
        if let Err(error) = control.nodes.enrol(&context, &control.registry).await {
            error!(%error, "nodes could not be enrolled again");
        }
    }
}
