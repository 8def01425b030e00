//! Canary signatures: made on a signing thread, over words that nobody can take for a certificate, and verified.

use std::time::Instant;

use domain::{
    dispatch::{Alert, ProbeKey},
    failure::{Failure, KeysFailure},
    id::{IssuerId, TokenId},
    stand_down::Permit,
};
use runtime::clock::entropy;
use tokio::{sync::oneshot, time::timeout};

use super::{Worker, send, within};
use crate::{keyring::Keyring, news::News, pool::shielded};

impl Worker {
    /// Makes a canary signature, for as long as a key operation may take. A thread that is still occupied then comes back by itself.
    pub(super) fn probe(&self, probe: u64, token: TokenId, key: ProbeKey) {
        let (keyring, news, limit) = (self.keyring.load_full(), self.news.clone(), self.config.operation_limit);
        let started = Instant::now();
        let (answer, answered) = oneshot::channel();
        let canary = move || {
            let result = shielded(|| canary(&keyring, &token, &key));
            let result = result.unwrap_or_else(|message| Err(Failure::Panicked(message)));
            if answer.send(result).is_err() {
                tracing::warn!(%token, ?key, "a canary signature on token {token} came too late to say anything");
            }
        };
        if let Err(busy) = self.pool.give(canary) {
            // Its answer is dropped with it, which says that the threads hang.
            tracing::error!(probe, "{busy}");
        }
        tokio::spawn(async move {
            let hang = Err(Failure::Keys(KeysFailure::Hang));
            let result = timeout(limit, answered)
                .await
                .map_or(hang.clone(), |answer| answer.unwrap_or(hang));
            let took = started.elapsed();
            send(&news, News::Probed { probe, result, took }).await;
        });
    }

    /// Asks the store whether this signer may stand down, or still may. Without an answer it may not.
    pub(super) fn ask_permit(&self) {
        let (store, signer, news) = (self.store.clone(), self.incarnation.clone(), self.news.clone());
        let percent = self.config.stand_down_percent;
        tokio::spawn(async move {
            let answer = within(store.stand_down(&signer, percent)).await;
            match &answer {
                Ok(Permit::Granted) => {}
                Ok(Permit::Refused(why)) => tracing::info!("this signer may not stand down: {why}"),
                Err(error) => tracing::warn!(%error, "the store gives no permit to stand down: {error}"),
            }
            let granted = matches!(answer, Ok(Permit::Granted));
            send(
                &news,
                if granted {
                    News::PermitGranted
                } else {
                    News::PermitRefused
                },
            )
            .await;
        });
    }

    /// Gives the permit back. If the store does not hear it, it ends with the next question or with the lease.
    pub(super) fn return_permit(&self) {
        let (store, signer) = (self.store.clone(), self.incarnation.clone());
        tokio::spawn(async move {
            if let Err(error) = within(store.stand_up(&signer)).await {
                tracing::warn!(%error, "the permit to stand down was not given back: {error}");
            }
        });
    }

    /// Says aloud what concerns more than one job.
    pub(super) fn alert(alert: &Alert) {
        match alert {
            Alert::TokenOut(..) | Alert::BackedOff | Alert::CanaryKeyFails(_) => {
                tracing::error!(page = true, "{alert}");
            }
            Alert::BreakerOpened(issuer, _) | Alert::BreakerWouldOpen(issuer, _) => tracing::warn!(%issuer, "{alert}"),
            Alert::StoodDown | Alert::StandDownRefused => tracing::warn!("{alert}"),
            Alert::BreakerClosed(issuer) => tracing::info!(%issuer, "{alert}"),
            Alert::TokenBack(_) | Alert::BackOffEnded | Alert::StandDownEnded => tracing::info!("{alert}"),
        }
    }
}

fn canary(keyring: &Keyring, token: &TokenId, key: &ProbeKey) -> Result<(), Failure> {
    let result = match key {
        ProbeKey::Canary => {
            // A token that is not here any more says nothing.
            let token = keyring.token_named(token).ok_or(Failure::Behind)?;
            token.canary()
        }
        ProbeKey::Issuer(issuer) => return with_key_of(keyring, token, issuer),
    };
    result.map_err(|error| {
        tracing::warn!(%token, %error, "a canary signature failed: {error}");
        Failure::Keys(error.failure)
    })
}

fn with_key_of(keyring: &Keyring, token: &TokenId, issuer: &IssuerId) -> Result<(), Failure> {
    let Some(held) = keyring.get(issuer).filter(|held| held.token() == token) else {
        let missing = keyring.missing().contains_key(issuer);
        return Err(if missing {
            Failure::Keys(KeysFailure::KeyNotFound)
        } else {
            Failure::Behind
        });
    };
    let message = keys::canary_message(issuer, entropy());
    let signature = held.sign(message.as_bytes()).map_err(|error| {
        tracing::warn!(%issuer, %token, %error, "a canary signature failed: {error}");
        Failure::Keys(error.failure)
    })?;
    let (public_key, algorithm) = (&held.issuer.public_key, held.issuer.signature_algorithm);
    pki::signature::verify(public_key, algorithm, message.as_bytes(), &signature).map_err(|error| {
        tracing::error!(%issuer, %token, %error, "a canary signature does not verify");
        Failure::SignatureWrong
    })
}
