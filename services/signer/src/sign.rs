//! One signature: made, sealed, verified under the issuer's whole chain, and made once more if it does not hold.

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
}

/// Signs the intent of a job. Blocks as long as the key operation takes.
pub fn sign(held: &Held, begun: &Begun, checked: &Checked) -> Result<Signed, Failure> {
    for attempts in 1..=2 {
        let signature = held.sign(&begun.tbs).map_err(|error| {
            tracing::warn!(job = %begun.job, lane = %begun.lane, error = %error, "key operation failed");
            Failure::Keys(error.failure)
        })?;
        let certificate = seal(&begun.tbs, held.issuer.signature_algorithm, &signature);
        match held.chain.check(&certificate, &begun.tbs, &checked.statement.content) {
            Ok(()) => {
                return Ok(Signed { signature, attempts });
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
            ) => return Err(Failure::Program(format!("job {}: {error}", begun.job))),
        }
    }
    Err(Failure::SignatureWrong)
}
