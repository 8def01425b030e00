//! What every process needs and no decision depends on: configuration, identity, listeners, telemetry, health, shutdown, the clock,
//! and the registry's state as it is followed from the store.

pub mod access_ca;
pub mod clock;
pub mod config;
pub mod context_file;
pub mod data_dir;
pub mod files;
pub mod follow;
pub mod health;
pub mod identity;
pub mod node_files;
pub mod ports;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod trace;

/// For [`stage!`].
#[doc(hidden)]
pub use tracing;
