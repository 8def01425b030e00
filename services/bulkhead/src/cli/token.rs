//! `bulkhead token`, and the process of each token.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::id::TokenId;

/// `bulkhead token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Have a token that has refused its PIN asked once more
    ///
    /// A PIN that was wrong, locked or expired is not tried again, not even after a restart: a few more tries would lock the token for
    /// good. Put the PIN right first, then run this beside the process that uses the token; it goes on by itself.
    Retry(TokenRetry),
}

/// `bulkhead token retry`.
#[derive(Debug, Args)]
pub struct TokenRetry {
    /// The token, as the configuration calls it
    pub token: TokenId,
    /// The configuration of the process that uses it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where that process keeps everything [default: `place.data_dir` of the configuration]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `bulkhead token-worker`.
#[derive(Debug, Args)]
pub struct TokenWorker {
    /// The token, for whoever lists processes
    pub token: TokenId,
}
