//! One signature: made, sealed, verified under the issuer's whole chain, and made once more if it does not hold.

use std::time::{Duration, Instant};

use domain::failure::Failure;
use pki::certificate::{SealedWrong, seal};
use store::Begun;

use crate::{check::Checked, keyring::Held};

/// A signature that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// As it goes into the certificate's BIT STRING.
    pub signature: Vec<u8>,
    /// Signatures that were made, the bad ones included.
    pub attempts: u32,
    /// How long the key took for the one that holds.
    pub took: Duration,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSigned {
    /// What follows.
    pub failure: Failure,
    /// DER of a certificate that was made and must never be seen, if there is one: it is kept as evidence.
    pub foreign: Option<Vec<u8>>,
}

impl From<Failure> for NotSigned {
    fn from(failure: Failure) -> Self {
        Self { failure, foreign: None }
    }
}

/// Signs the intent of a job. Blocks as long as the key operation takes.
pub fn sign(held: &Held, begun: &Begun, checked: &Checked) -> Result<Signed, NotSigned> {
    for attempts in 1..=2 {
        let started = Instant::now();
        let signature = held.sign(&begun.tbs).map_err(|error| {
            tracing::warn!(job = %begun.job, lane = %begun.lane, error = %error, "key operation failed");
            Failure::Keys(error.failure)
        })?;
        let took = started.elapsed();
        let certificate = seal(&begun.tbs, held.issuer.signature_algorithm, &signature);
        match held.chain.check(&certificate, &begun.tbs, &checked.statement.content) {
            Ok(()) => {
                return Ok(Signed {
                    signature,
                    attempts,
                    took,
                });
            }
            Err(SealedWrong::Signature(error)) => {
                tracing::error!(job = %begun.job, lane = %begun.lane, token = %held.token(), attempts, %error, "a signature does not verify: dropped");
            }
            Err(
                error @ (SealedWrong::Chain(_)
                | SealedWrong::OtherIssuer(_)
                | SealedWrong::Malformed(_)
                | SealedWrong::OtherTbs
                | SealedWrong::OtherIntent(_)
                | SealedWrong::OtherAlgorithm),
            ) => {
                return Err(NotSigned {
                    failure: Failure::Program(format!("job {}: {error}", begun.job)),
                    foreign: Some(certificate),
                });
            }
        }
    }
    Err(Failure::SignatureWrong.into())
}
