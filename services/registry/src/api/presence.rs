//! Control says that it is there, as every process does.

use std::{sync::Arc, time::Duration};

use domain::{id::Incarnation, issuer::Role};
use runtime::health::Condition;
use store::Announcement;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Registry;

const HEARTBEAT: Duration = Duration::from_secs(2);
/// A lease outlives a few heartbeats that were lost.
const LEASE: Duration = Duration::from_secs(8);

/// Announces this run of control until `stop`, then says goodbye. Control is ready while the store hears it.
pub(super) async fn announce(
    registry: Arc<Registry>,
    incarnation: Incarnation,
    condition: Condition,
    stop: CancellationToken,
) {
    let mut heard = true;
    let started_at = registry.clock.now();
    loop {
        let announcement = Announcement {
            started_at: Some(started_at),
            ..Announcement::new(
                incarnation.clone(),
                Role::Control,
                registry.follower.applied().load().revision(),
            )
        };
        let beat = registry.store.heartbeat(&announcement, LEASE).await;
        match &beat {
            Ok(_) => condition.ready(),
            Err(error) => {
                condition.not_ready(format!("the store does not hear control: {error}"));
                if heard {
                    warn!(%error, "control cannot announce itself");
                }
            }
        }
        heard = beat.is_ok();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }
    if let Err(error) = registry.store.goodbye(&incarnation).await {
        warn!(%error, "control could not say goodbye; its lease ends by itself");
    }
}
