//! What is worked out once for each state of an issuer and used for every certificate: its parsed key, and what its chain demands.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{id::IssuerId, issuer::Issuer};
use pki::{
    lint::LintContext,
    signature::{BadSignature, Verifier},
};

/// An issuer, worked out.
#[derive(Debug)]
pub struct Known {
    issuer: Arc<Issuer>,
    /// Verifies what it signs, if its key can be used.
    pub verifier: Result<Verifier, BadSignature>,
    /// Judges what it is to sign.
    pub lint: LintContext,
}

/// Every issuer that was asked for.
#[derive(Debug, Default)]
pub struct Issuers(Mutex<HashMap<IssuerId, Arc<Known>>>);

impl Issuers {
    /// The issuer as it is in this snapshot.
    pub fn get(&self, issuer: &Arc<Issuer>) -> Arc<Known> {
        let known = self.lock().get(&issuer.id).cloned();
        // Snapshots share what has not changed.
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.issuer, issuer)) {
            return known;
        }
        let known = Arc::new(Known {
            issuer: issuer.clone(),
            verifier: Verifier::new(&issuer.public_key, issuer.signature_algorithm),
            lint: LintContext::new(issuer),
        });
        self.lock().insert(issuer.id.clone(), known.clone());
        known
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IssuerId, Arc<Known>>> {
        // Every change is a single call on the map, so it is whole whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
