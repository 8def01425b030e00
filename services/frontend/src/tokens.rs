//! Bearer tokens: the keys of this front end that sign them, replaced daily, and the tokens that were verified already.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use domain::{
    bytes::Digest,
    id::AccountId,
    issuer::{Account, Api, TokenKey},
    registry::Snapshot,
    time::{Clock, Timestamp},
};
use moka::sync::Cache;
use runtime::{config, follow::Applied};
use tokio::time::sleep;
use wire::{
    hvca::Secret,
    signed::NodeKey,
    token::{Claims, TokenError, TokenSigner, check_bearer, verify},
};

/// What tokens of this API are for.
const AUDIENCE: &str = "hvca";

/// How often the task that replaces keys looks, and how long it waits for the registry to show a key that was published.
const LOOK: Duration = Duration::from_millis(100);
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// The registry did not take a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry did not take it: {0}")]
pub struct NotPublished(pub String);

/// Has the registry take in the public half of a key that signs tokens. Whoever implements it keeps at most two of a node and forgets
/// those that have run out.
#[async_trait]
pub trait PublishTokenKey: Send + Sync + std::fmt::Debug {
    /// Adds the key. It is in force once a snapshot has it.
    async fn publish_token_key(&self, key: TokenKey) -> Result<(), NotPublished>;
}

/// Has the registry block a public key for ever.
#[async_trait]
pub trait BlockKey: Send + Sync + std::fmt::Debug {
    /// Blocks the key with this SHA-256 of its SPKI.
    async fn block_key(&self, public_key: Digest) -> Result<(), NotPublished>;
}

/// A token that was verified once: nothing but time, bearer and account is left to be judged.
#[derive(Debug)]
struct Verified {
    key: String,
    claims: Claims,
}

/// Mints tokens and verifies them.
#[derive(Debug)]
pub struct Tokens {
    node_key: Arc<NodeKey>,
    settings: config::Tokens,
    applied: Arc<ArcSwap<Applied>>,
    clock: Arc<dyn Clock>,
    signer: ArcSwapOption<TokenSigner>,
    verified: Cache<Digest, Arc<Verified>>,
}

impl Tokens {
    /// Without a key yet: [`Tokens::rotate`] makes one.
    pub fn new(
        node_key: Arc<NodeKey>,
        settings: config::Tokens,
        remembered: u64,
        applied: Arc<ArcSwap<Applied>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let verified = Cache::builder()
            .max_capacity(remembered)
            .time_to_live(settings.hvca_life)
            .build();
        Self {
            node_key,
            settings,
            applied,
            clock,
            signer: ArcSwapOption::empty(),
            verified,
        }
    }

    fn usable_signer(&self) -> Option<Arc<TokenSigner>> {
        let signer = self.signer.load_full()?;
        let key = signer.public();
        let in_force = self.applied.load().snapshot.token_keys.contains_key(&key.id);
        (in_force && self.clock.now() < key.not_after).then_some(signer)
    }

    /// Whether tokens can be given: there is a key, and every front end knows it.
    pub fn can_mint(&self) -> bool {
        self.usable_signer().is_some()
    }

    /// A new token, unlike any other; `None` while there is no key.
    pub fn mint(&self, account: &AccountId, certificate: &Digest) -> Option<Secret> {
        let seconds = i64::try_from(self.settings.hvca_life.as_secs()).unwrap_or(i64::MAX);
        let token = self
            .usable_signer()?
            .mint(account, AUDIENCE, certificate, self.clock.now(), seconds);
        Some(Secret::new(token))
    }

    /// Whose token this is, shown over a connection with this client certificate.
    pub fn check(&self, token: &str, certificate: &Digest, snapshot: &Snapshot) -> Result<Arc<Account>, TokenError> {
        let now = self.clock.now();
        let verified = self.verified(token, snapshot, now)?;
        let Verified { key, claims } = &*verified;
        if now.as_secs() >= claims.exp {
            return Err(TokenError::Expired);
        }
        let revoked = snapshot.nodes.get(&claims.iss).is_none_or(|node| node.revoked);
        if revoked || !snapshot.token_keys.contains_key(key) {
            return Err(TokenError::UnknownKey);
        }
        check_bearer(claims, certificate)?;
        let account = snapshot.accounts.get(&claims.sub);
        let account = account.ok_or_else(|| TokenError::Refused("the account is gone".into()))?;
        if account.api != Api::Hvca || !account.client_certificates.contains(certificate) {
            return Err(TokenError::OtherCertificate);
        }
        if claims.iat.saturating_mul(1000) < account.tokens_not_before.as_millis() {
            return Err(TokenError::Expired);
        }
        Ok(account.clone())
    }

    /// The token, verified now or before.
    fn verified(&self, token: &str, snapshot: &Snapshot, now: Timestamp) -> Result<Arc<Verified>, TokenError> {
        let digest = pki::sha256(token.as_bytes());
        if let Some(verified) = self.verified.get(&digest) {
            return Ok(verified);
        }
        let claims = verify(token, &snapshot.token_keys, AUDIENCE, now)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let key = header.kid.ok_or(TokenError::UnknownKey)?;
        let verified = Arc::new(Verified { key, claims });
        self.verified.insert(digest, verified.clone());
        Ok(verified)
    }

    /// Keeps a key at hand, for ever: one for each stretch of time, whose tokens stay good for another. A front end that starts anew goes
    /// on with the one that the registry shows already.
    pub async fn rotate(self: Arc<Self>, publish: Arc<dyn PublishTokenKey>) {
        loop {
            let until = self.until();
            let signer = TokenSigner::of(&self.node_key, until + self.settings.key_life);
            self.publish(&signer, &*publish).await;
            self.signer.store(Some(Arc::new(signer)));
            while self.can_mint() && self.until() == until {
                sleep(LOOK * 10).await;
            }
        }
    }

    /// When this stretch of time ends.
    fn until(&self) -> Timestamp {
        let life = i64::try_from(self.settings.key_life.as_millis()).unwrap_or(i64::MAX);
        let number = self.clock.now().as_millis().div_euclid(life).saturating_add(1);
        Timestamp::from_millis(number.saturating_mul(life))
    }

    async fn publish(&self, signer: &TokenSigner, publish: &dyn PublishTokenKey) {
        let shown = || {
            self.applied
                .load()
                .snapshot
                .token_keys
                .contains_key(&signer.public().id)
        };
        while !shown() {
            match publish.publish_token_key(signer.public().clone()).await {
                Ok(()) => {
                    let asked = tokio::time::Instant::now();
                    while !shown() && asked.elapsed() < SHOWN_WITHIN {
                        sleep(LOOK).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the key that signs tokens is not published yet");
                    sleep(LOOK * 10).await;
                }
            }
        }
    }
}
