//! Watches the tokens: which issuers' keys are on them, and whether an operator has let a token be logged in to again.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use domain::id::TokenId;
use keys::Keys;
use runtime::follow::Applied;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{heartbeat::Said, keyring::Keyring, news::News};

/// How often it is looked whether the registry or the tokens that are out have changed.
const PERIOD: Duration = Duration::from_millis(100);
/// How often tokens are looked at even if nothing has, since keys come and go on them.
const KEYS_PERIOD: Duration = Duration::from_secs(3);
/// How often it is looked whether a token that is out may be logged in to.
const LOGIN_PERIOD: Duration = Duration::from_secs(1);

/// Watches the tokens.
#[derive(Debug)]
pub struct Watch {
    /// All of them.
    pub tokens: Vec<Arc<dyn Keys>>,
    /// The registry as it is applied.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Which tokens are out, as the worker says.
    pub said: Arc<ArcSwap<Said>>,
    /// What is found goes here.
    pub keyring: Arc<ArcSwap<Keyring>>,
    /// Whom to tell.
    pub news: mpsc::Sender<News>,
}

impl Watch {
    /// Watches until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        // The revision and the tokens that were out at the last look, and when that was.
        let mut looked: Option<(u64, Vec<TokenId>, Instant)> = None;
        let mut asked = Instant::now();
        loop {
            let now = Instant::now();
            let revision = self.applied.load().snapshot.revision;
            let out = self.said.load().tokens_out.clone();
            let is_due = looked
                .as_ref()
                .is_none_or(|(known, were_out, at)| *known != revision || *were_out != out || now - *at >= KEYS_PERIOD);
            if is_due {
                looked = Some((revision, out.clone(), now));
                if !self.look(out.clone()).await {
                    return;
                }
            }
            if now - asked >= LOGIN_PERIOD && !out.is_empty() {
                asked = now;
                if !self.look_at_logins(&out).await {
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks for keys. Whether anybody still wants to know.
    async fn look(&self, out: Vec<TokenId>) -> bool {
        let snapshot = self.applied.load().snapshot.clone();
        let (tokens, before) = (self.tokens.clone(), self.keyring.load_full());
        match tokio::task::spawn_blocking(move || Keyring::look(&snapshot, &tokens, &out, &before)).await {
            Ok(ring) => {
                ring.say_what_changed(&self.keyring.load());
                self.keyring.store(Arc::new(ring));
                self.news.send(News::Keys).await.is_ok()
            }
            Err(error) => {
                tracing::error!(%error, "the tokens could not be looked at");
                true
            }
        }
    }

    /// Tells of tokens that are out and do not refuse the login, or not any more. Of those that are out for another reason this says
    /// nothing new; and who asks a token too early is stopped by its own record of the refusal.
    async fn look_at_logins(&self, out: &[TokenId]) -> bool {
        let tokens: Vec<Arc<dyn Keys>> = self
            .tokens
            .iter()
            .filter(|token| out.contains(token.token()))
            .cloned()
            .collect();
        let look = move || {
            let may = tokens.into_iter().filter(|token| !token.refuses_login());
            may.map(|token| token.token().clone()).collect::<Vec<_>>()
        };
        for token in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
            if self.news.send(News::MayLogIn(token)).await.is_err() {
                return false;
            }
        }
        true
    }
}
