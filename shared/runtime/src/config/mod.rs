//! The one configuration file of all processes, in TOML. Every key has a default; an unknown key is an error.

mod breaker;
mod check;
mod engines;
mod load;
mod sections;
mod token;

pub use breaker::*;
pub use engines::*;
pub use load::{ConfigError, sample};
pub use sections::*;
pub use token::*;

use serde::{Deserialize, Serialize};

/// Everything that can be configured. Each process reads the sections that concern it; [`sample`] says what each key means.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which process this is.
    pub node: Node,
    /// Where things are: directories, addresses, names.
    pub place: Place,
    /// Connections.
    pub tls: Tls,
    /// The ledger.
    pub store: Store,
    /// Transport between front ends and signers.
    pub broker: Broker,
    /// Tokens that hold keys.
    pub token: Vec<Token>,
    /// Front ends.
    pub frontend: Frontend,
    /// What a new account may do unless the operator says otherwise.
    pub accounts: Accounts,
    /// Signers.
    pub signer: Signer,
    /// Depth of lanes.
    pub lanes: Lanes,
    /// Bearer tokens.
    pub tokens: Tokens,
    /// The registry and how it is followed.
    pub registry: Registry,
    /// Logs.
    pub telemetry: Telemetry,
    /// Stopping.
    pub shutdown: Shutdown,
}
