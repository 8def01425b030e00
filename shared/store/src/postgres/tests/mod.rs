//! The contract suite on a real server, and what only this adapter has: other processes, a server that goes away, partitions, plans.

mod faults;
mod ledger;
mod plans;
mod several;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use domain::time::Clock;

use super::{Options, Postgres};
use crate::{
    Store,
    suite::{Harness, suite, world::World},
};

/// A server of its own with one database.
struct Server(engines::Postgres);

impl Server {
    fn start() -> Self {
        let server = engines::Postgres::start().unwrap();
        server.create_database("ledger").unwrap();
        Self(server)
    }

    fn options(&self) -> Options {
        let mut options = Options::new("127.0.0.1", engines::postgres::USER, "ledger");
        options.port = self.0.port();
        options.password_file = Some(self.0.password_file());
        options
    }

    /// Runs statements behind the store's back.
    fn sql(&self, statements: &str) -> String {
        self.0.psql("ledger", statements).unwrap()
    }

    /// Another process's store, as far as the database can tell, with the world's clock.
    async fn another(&self, world: &World) -> Arc<dyn Store> {
        self.open(world.clock.clone()).await
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
