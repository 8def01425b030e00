//! `bulkhead up`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// `bulkhead up`.
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
    /// Base of the URLs inside certificates, `http://...`, of issuers that are made from now on [default: `place.public_url` of the
    /// configuration; with port 0 an address of its own]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Written, complete, once everything is ready, and removed at the end: a copy of DIR/context.json
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}
