//! Setting messages aside that cannot be believed or read: beside the worker's loop, so that a quarantine that does not answer is nobody
//! else's wait, and one after the other, so that they do not crowd one another out of it.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Delivery};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, news::News};

/// Messages that wait to be set aside. Each may hold a mebibyte.
pub const WAITING: usize = 32;
/// How long the broker may take to confirm one.
const BROKER_TIMEOUT: Duration = Duration::from_secs(2);

/// A message, and what is wrong with it.
#[derive(Debug)]
pub struct Unbelievable {
    /// The number of the inbox that brought it.
    pub inbox: u64,
    /// As it came.
    pub delivery: Delivery,
    /// For people.
    pub reason: String,
}

/// Sets aside what comes, until it is stopped.
pub async fn run(
    broker: Arc<dyn Broker>,
    mut inlet: mpsc::Receiver<Unbelievable>,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let work = async {
        while let Some(message) = inlet.recv().await {
            let Unbelievable {
                inbox,
                delivery: Delivery { lane, tag, body, .. },
                reason,
            } = message;
            metrics.quarantined.inc();
            tracing::error!(%lane, reason, "a message on lane {lane} is set aside: {reason}");
            match timeout(BROKER_TIMEOUT, broker.quarantine(&lane, body, &reason)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%lane, %error, "it could not be kept for inspection"),
                Err(_) => tracing::error!(%lane, "it could not be kept for inspection: no answer in time"),
            }
            if news.send(News::SetAside { inbox, tag }).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
