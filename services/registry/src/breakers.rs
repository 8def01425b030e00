//! Breakers: what operators order of them, and how they stand.

use std::collections::BTreeMap;

use domain::{breaker::Force, id::IssuerId};
use wire::operate::{ForceBreaker, ForcedBreaker, IssuerBreakers, SignerBreaker};

use crate::{Order, Registry, RegistryError, issuers::unknown};

impl Registry {
    /// Orders an issuer's breakers, in every signer, or takes the order back.
    pub async fn force_breaker(
        &self,
        by: &str,
        issuer: &IssuerId,
        request: ForceBreaker,
    ) -> Result<ForcedBreaker, RegistryError> {
        if !self.current().await?.issuers.contains_key(issuer) {
            return Err(unknown(issuer));
        }
        let forced = self.store.forced_breakers().await?;
        let before = forced.iter().find(|(id, _)| id == issuer).map(|(_, force)| *force);
        let force = request.force;
        if before != force {
            let order = Order {
                by: by.into(),
                kind: "breaker_forced",
                subject: format!("issuer:{issuer}"),
                reason: request.reason,
            };
            let word = |force: Option<Force>| force.map_or("auto", Force::as_str);
            let detail = format!("from {} to {}", word(before), word(force));
            self.audit.record(&order, &detail, 1).await?;
            self.store.force_breaker(issuer, force).await?;
        }
        Ok(ForcedBreaker {
            issuer: issuer.clone(),
            force,
            changed: before != force,
        })
    }

    /// Issuers whose breakers are forced, or not closed in some signer that lives.
    pub async fn breakers(&self) -> Result<Vec<IssuerBreakers>, RegistryError> {
        let mut breakers: BTreeMap<IssuerId, IssuerBreakers> = BTreeMap::new();
        let mut of = |issuer: IssuerId, force: Option<Force>, signer: Option<SignerBreaker>| {
            let known = breakers.entry(issuer.clone()).or_insert(IssuerBreakers {
                issuer,
                force,
                signers: Vec::new(),
            });
            known.signers.extend(signer);
        };
        for (issuer, force) in self.store.forced_breakers().await? {
            of(issuer, Some(force), None);
        }
        for process in self.fleet().await?.into_iter().filter(|process| process.alive) {
            for breaker in process.breakers {
                let node = process.node.clone();
                let standing = breaker.standing;
                of(breaker.issuer, None, Some(SignerBreaker { node, standing }));
            }
        }
        Ok(breakers.into_values().collect())
    }
}
