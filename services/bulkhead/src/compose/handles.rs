//! What the front end asks of the registry: of the one in the same process, or of control elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{bytes::Digest, issuer::TokenKey, time::Clock};
use frontend::{BlockKey, NotPublished, PublishTokenKey};
use registry::{Registry, RegistryError};
use runtime::{clock::StoreClock, config::Config, node_files::NodeFiles};
use wire::{
    client::{ClientError, NodeClient, TlsFiles},
    enrol::{NodeAnswer, NodeRequest, seal_request},
    signed::NodeKey,
};

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

/// Control, as a node of another process asks it.
#[derive(Debug)]
pub struct Remote {
    urls: Vec<String>,
    files: NodeFiles,
    key: Arc<NodeKey>,
    clock: Arc<StoreClock>,
}

impl Remote {
    /// Control of this configuration, asked by the node of this key.
    pub fn new(config: &Config, files: &NodeFiles, key: &Arc<NodeKey>, clock: Arc<StoreClock>) -> Self {
        Self {
            urls: config.node.control_urls.clone(),
            files: files.clone(),
            key: key.clone(),
            clock,
        }
    }

    /// Asks the control processes in turn; the first that answers counts. Every request may be repeated.
    pub async fn ask(&self, request: NodeRequest) -> Result<NodeAnswer, String> {
        let mut last = String::from("no control process is configured");
        for url in &self.urls {
            match self.ask_at(url, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// Seldom enough that the files are read anew each time: they may have been renewed.
    async fn ask_at(&self, url: &str, request: NodeRequest) -> Result<NodeAnswer, ClientError> {
        let (certificate, ca) = (self.files.certificate_and_key(), self.files.ca());
        let files = TlsFiles {
            ca: &ca,
            certificate: &certificate,
            key: &certificate,
        };
        let client = NodeClient::new(url, &files)?;
        client.ask(seal_request(&self.key, self.clock.now(), request)).await
    }

    async fn enter(&self, request: NodeRequest) -> Result<(), NotPublished> {
        self.ask(request).await.map(drop).map_err(NotPublished)
    }
}

#[async_trait]
impl PublishTokenKey for Remote {
    async fn publish_token_key(&self, key: TokenKey) -> Result<(), NotPublished> {
        self.enter(NodeRequest::PublishTokenKey { key }).await
    }
}

#[async_trait]
impl BlockKey for Remote {
    async fn block_key(&self, public_key: Digest) -> Result<(), NotPublished> {
        self.enter(NodeRequest::BlockKey { spki: public_key }).await
    }
}
