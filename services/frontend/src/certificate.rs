//! The certificate of an issued job, put together from to-be-signed bytes and a signature, and verified before anybody sees it.

use std::{sync::Arc, time::Duration};

use domain::{
    id::{IssuerId, Serial},
    issuer::Issuer,
};
use moka::sync::Cache;
use pki::{
    certificate::{ReadError, read, seal},
    signature::BadSignature,
};

use crate::issuers::Issuers;

/// How many damaged jobs are remembered as reported, and for how long.
const REPORTED: u64 = 10_000;
const REPORT_AGAIN: Duration = Duration::from_hours(1);

/// Why a certificate is not served.
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

/// Puts certificates together.
#[derive(Debug)]
pub struct Certificates {
    issuers: Arc<Issuers>,
    reported: Cache<Serial, ()>,
}

impl Certificates {
    /// Certificates of these issuers.
    pub fn new(issuers: Arc<Issuers>) -> Self {
        let reported = Cache::builder()
            .max_capacity(REPORTED)
            .time_to_live(REPORT_AGAIN)
            .build();
        Self { issuers, reported }
    }

    /// DER of the certificate that these to-be-signed bytes and this signature make. It verifies under the issuer's key and is the one
    /// with the job's serial, or it is not given out.
    pub fn assemble(
        &self,
        job: Serial,
        tbs: &[u8],
        signature: &[u8],
        issuer: &Arc<Issuer>,
    ) -> Result<Vec<u8>, Altered> {
        let known = self.issuers.get(issuer);
        let verifier = known
            .verifier
            .as_ref()
            .map_err(|error| Altered::IssuerKey(issuer.id.clone(), error.clone()))?;
        verifier.verify(tbs, signature).map_err(Altered::Signature)?;
        let certificate = seal(tbs, issuer.signature_algorithm, signature);
        let facts = read(&certificate).map_err(Altered::Bytes)?;
        if facts.serial == job.as_bytes() && facts.issuer == &*issuer.subject {
            Ok(certificate)
        } else {
            Err(Altered::Another)
        }
    }

    /// Whether damage of this job is news: a client that asks again makes no second event.
    pub fn is_news(&self, job: Serial) -> bool {
        self.reported.entry(job).or_insert(()).is_fresh()
    }
}
