//! The contract suite on PostgreSQL, and what only this adapter has.

use std::sync::Arc;

use async_trait::async_trait;
use domain::time::Clock;

use super::{Options, Postgres};
use crate::{
    Store,
    suite::{Harness, suite},
};

/// A server of its own with one database.
pub(super) struct Server(pub(super) engines::Postgres);

impl Server {
    pub(super) fn start() -> Self {
        let server = engines::Postgres::start().unwrap();
        server.create_database("ledger").unwrap();
        Self(server)
    }

    pub(super) fn options(&self) -> Options {
        let mut options = Options::new("127.0.0.1", engines::postgres::USER, "ledger");
        options.port = self.0.port();
        options.password_file = Some(self.0.password_file());
        options
    }
}

#[async_trait]
impl Harness for Server {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let mut options = self.options();
        options.clock = Some(clock);
        Arc::new(Postgres::open(options).await.unwrap())
    }
}

suite!(Server::start());
