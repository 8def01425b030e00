//! What the front end asks of the registry, when both are in one process.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{bytes::Digest, issuer::TokenKey};
use frontend::{BlockKey, NotPublished, PublishTokenKey};
use registry::{Registry, RegistryError};

/// The registry as the front end knows it.
#[derive(Debug)]
pub struct Local(pub Arc<Registry>);

fn not_published(error: &RegistryError) -> NotPublished {
    NotPublished(error.to_string())
}

#[async_trait]
impl PublishTokenKey for Local {
    async fn publish_token_key(&self, key: TokenKey) -> Result<(), NotPublished> {
        self.0
            .publish_token_key(key)
            .await
            .map_err(|error| not_published(&error))
    }
}

#[async_trait]
impl BlockKey for Local {
    async fn block_key(&self, public_key: Digest) -> Result<(), NotPublished> {
        self.0
            .block_key(public_key, "reported compromised")
            .await
            .map_err(|error| not_published(&error))
    }
}
