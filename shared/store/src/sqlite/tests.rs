//! The contract suite on SQLite, and what only this adapter has: the lock, the schema, the full disk, damaged rows.

use std::sync::Arc;

use async_trait::async_trait;
use domain::time::Clock;
use tempfile::TempDir;

use super::{Options, Sqlite};
use crate::{
    Store,
    suite::{Harness, suite},
};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Harness for Directory {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(self.0.path(), Options::new(clock)).unwrap())
    }
}

suite!(Directory::new());
