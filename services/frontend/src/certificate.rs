//! The certificate of an issued job, put together from what the ledger holds and verified before anybody sees it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    id::{IssuerId, Serial},
    issuer::Issuer,
};
use moka::sync::Cache;
use pki::{
    certificate::{ReadError, read, seal},
    signature::{BadSignature, Verifier},
};
use store::Job;

/// How many damaged jobs are remembered as reported, and for how long.
const REPORTED: u64 = 10_000;
const REPORT_AGAIN: Duration = Duration::from_hours(1);

/// Why a stored certificate is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Altered {
    /// The issuer that the row names is not registered.
    #[error("issuer {0} is not registered")]
    Issuer(IssuerId),
    /// The issuer's own key cannot be used.
    #[error("issuer {0}: {1}")]
    IssuerKey(IssuerId, BadSignature),
    /// Signature and to-be-signed bytes do not belong together under the issuer's key.
    #[error("the stored signature: {0}")]
    Signature(BadSignature),
    /// Not a certificate.
    #[error("the stored bytes: {0}")]
    Bytes(ReadError),
    /// A certificate, but not this one.
    #[error("the stored bytes are those of another certificate")]
    Another,
}

/// Puts certificates together. Keeps one parsed key for each issuer.
#[derive(Debug)]
pub struct Certificates {
    keys: Mutex<HashMap<IssuerId, Arc<IssuerKey>>>,
    reported: Cache<Serial, ()>,
}

#[derive(Debug)]
struct IssuerKey {
    issuer: Arc<Issuer>,
    verifier: Verifier,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
            reported: Cache::builder()
                .max_capacity(REPORTED)
                .time_to_live(REPORT_AGAIN)
                .build(),
        }
    }
}

impl Certificates {
    /// DER of the certificate that the job's to-be-signed bytes and this signature make. It verifies under the issuer's key and is the
    /// one with the job's serial, or it is not given out.
    pub fn assemble(&self, job: &Job, signature: &[u8], issuer: &Arc<Issuer>) -> Result<Vec<u8>, Altered> {
        let key = self.key(issuer)?;
        key.verifier.verify(&job.tbs, signature).map_err(Altered::Signature)?;
        let certificate = seal(&job.tbs, issuer.signature_algorithm, signature);
        let facts = read(&certificate).map_err(Altered::Bytes)?;
        if facts.serial == job.job.as_bytes() && facts.issuer == &*issuer.subject {
            Ok(certificate)
        } else {
            Err(Altered::Another)
        }
    }

    /// Whether damage of this job is news: a client that asks again makes no second event.
    pub fn is_news(&self, job: Serial) -> bool {
        self.reported.entry(job).or_insert(()).is_fresh()
    }

    fn key(&self, issuer: &Arc<Issuer>) -> Result<Arc<IssuerKey>, Altered> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.get(&issuer.id) {
            Some(key) if Arc::ptr_eq(&key.issuer, issuer) => Ok(key.clone()),
            _ => {
                let verifier = Verifier::new(&issuer.public_key, issuer.signature_algorithm)
                    .map_err(|error| Altered::IssuerKey(issuer.id.clone(), error))?;
                let key = Arc::new(IssuerKey {
                    issuer: issuer.clone(),
                    verifier,
                });
                keys.insert(issuer.id.clone(), key.clone());
                Ok(key)
            }
        }
    }
}
