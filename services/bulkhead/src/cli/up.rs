//! `bulkhead up`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Start everything in one process
///
/// The first start makes an installation of its own in DIR: keys, a ledger, and a demo hierarchy that nobody must trust. Later
/// starts go on where the last one stopped. Each start issues one certificate through the whole path before it says that it is
/// ready. Ctrl-C or SIGTERM finishes what was begun and ends with 0; a second one ends at once.
#[derive(Debug, Args)]
pub struct Up {
    /// Where everything is kept [default: ./bulkhead-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration (`bulkhead config sample` prints one with every default)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients connect. With port 0 every listener takes a free port at the first start and keeps it [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Base of the URLs inside certificates, `http://...`. Fixed for an issuer when it is made [default: where OCSP and CRLs
    /// will be served]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Written, complete, once everything is ready: a copy of DIR/context.json
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}
