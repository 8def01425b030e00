//! Operators' orders to breakers: read from the store every second, and told to the worker when they have changed.

use std::{sync::Arc, time::Duration};

use store::Store;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::news::News;

const PERIOD: Duration = Duration::from_secs(1);
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads until it is stopped. While the store does not answer, what was ordered last holds.
pub async fn run(store: Arc<dyn Store>, news: mpsc::Sender<News>, stop: CancellationToken) {
    let mut known = Vec::new();
    let mut heard = true;
    loop {
        let read = timeout(STORE_TIMEOUT, store.forced_breakers()).await;
        let problem = match read {
            Ok(Ok(forced)) => {
                if forced != known {
                    known.clone_from(&forced);
                    tracing::info!(?forced, "operators' orders to breakers have changed");
                    if news.send(News::Forced(forced)).await.is_err() {
                        return;
                    }
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {STORE_TIMEOUT:?}")),
        };
        if let Some(problem) = problem.as_ref().filter(|_| heard) {
            tracing::warn!("operators' orders to breakers cannot be read; the last ones hold: {problem}");
        }
        heard = problem.is_none();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
