//! `bulkhead frontend`, `signer` and `control`.

use std::path::PathBuf;

use clap::Args;

/// A process that is one part of an installation.
#[derive(Debug, Args)]
pub struct Serve {
    /// Configuration (`bulkhead config sample --role ROLE` prints one to begin with)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Written, complete, once the process is ready, and removed at the end
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// `bulkhead control`.
#[derive(Debug, Args)]
pub struct ServeControl {
    #[command(flatten)]
    pub serve: Serve,
    /// Make the demo hierarchy, which nobody must trust, on the first token of the configuration, unless there are issuers already
    #[arg(long)]
    pub demo: bool,
}
