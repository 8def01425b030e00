//! A connection that is kept: opened, watched, thrown away when it does not work, and opened again, for ever.

use std::{collections::HashMap, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    connect::{Live, open},
    options::Options,
};
use crate::BrokerError;

/// How often a connection is looked at.
const WATCH: Duration = Duration::from_millis(200);
/// First pause after a connection is lost or refused.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A connection that lives this long is a good one, and the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// How the link is now.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// There is no connection, for this reason.
    Down(Arc<str>),
    /// There is one.
    Up(Arc<Live>),
}

/// A link to the broker. Clones share it; the last one to go ends it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Link {
    /// Begins to connect and returns at once. `role` is part of the name that the broker shows.
    pub fn keep(options: Arc<Options>, role: &'static str) -> Self {
        let (sender, state) = watch::channel(State::Down("not connected yet".into()));
        let keeper = tokio::spawn(keep(options, role, sender));
        Self {
            state,
            _keeper: Arc::new(AbortOnDropHandle::new(keeper)),
        }
    }

    /// The connection, if there is one.
    pub fn live(&self) -> Result<Arc<Live>, BrokerError> {
        match &*self.state.borrow() {
            State::Up(live) if live.connected() => Ok(live.clone()),
            State::Up(live) => Err(BrokerError::Unavailable(format!(
                "{}: the connection is lost",
                live.address
            ))),
            State::Down(reason) => Err(BrokerError::Unavailable(reason.as_ref().to_owned())),
        }
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

async fn keep(options: Arc<Options>, role: &'static str, state: watch::Sender<State>) {
    let name = format!("{} {role} {}", options.prefix, std::process::id());
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(options.reconnect_max)
        .with_jitter()
        .without_max_times();
    let mut pause = pauses.build();
    let mut complaints: HashMap<&str, String> = HashMap::new();
    for number in 0.. {
        let address = &options.addresses[usize::try_from(number).unwrap_or(0) % options.addresses.len()];
        match open(&options, address, &name, number).await {
            Ok(live) => {
                let live = Arc::new(live);
                tracing::info!(address, role, version = %live.version, "connected to RabbitMQ {} at {address} ({role})", live.version);
                complaints.clear();
                let since = tokio::time::Instant::now();
                state.send_replace(State::Up(live.clone()));
                while live.connected() {
                    sleep(WATCH).await;
                }
                live.sever();
                state.send_replace(State::Down(format!("{address}: the connection is lost").into()));
                tracing::warn!(
                    address,
                    role,
                    "the connection to RabbitMQ at {address} is lost ({role}); connecting again"
                );
                if since.elapsed() >= GOOD {
                    pause = pauses.build();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                // The same complaint is made once, not every few seconds.
                if complaints.get(address.as_str()) != Some(&reason) {
                    tracing::warn!(
                        address,
                        role,
                        "no connection to RabbitMQ ({role}): {reason}; trying again"
                    );
                    complaints.insert(address, reason.clone());
                }
                state.send_replace(State::Down(reason.into()));
            }
        }
        sleep(pause.next().unwrap_or(options.reconnect_max)).await;
    }
}
