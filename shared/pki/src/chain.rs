//! Chains of CA certificates: the issuer's own first, the root last.

use domain::{bytes::Blob, request::KeyUsage};

use crate::{
    certificate::{Facts, ReadError, read},
    signature::{BadSignature, UnknownAlgorithm, Verifier, read_algorithm},
};

/// The longest chain that is taken.
pub const MAX_CHAIN: usize = 8;

/// What is wrong with a chain. Certificates are counted from 1, the issuer's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate, or more than [`MAX_CHAIN`].
    #[error("the chain has {0} certificates; give from 1 to {MAX_CHAIN}, the issuer's own first and the root last")]
    Length(usize),
    /// One cannot be read.
    #[error("certificate {number} of the chain: {error}")]
    Unreadable {
        /// Which.
        number: usize,
        /// Why.
        error: ReadError,
    },
    /// One is no CA certificate.
    #[error("certificate {number} of the chain {what}; a CA certificate is needed")]
    NotCa {
        /// Which.
        number: usize,
        /// What it lacks.
        what: &'static str,
    },
    /// One does not name the next as its issuer.
    #[error("certificate {number} of the chain was not issued by certificate {}: {what}; order the chain from the issuer to the root", number + 1)]
    NotIssuedByNext {
        /// Which.
        number: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// The last one is not signed by itself.
    #[error("the last certificate of the chain is not self-signed; append the root")]
    NoRoot,
    /// More CA certificates below than pathLenConstraint allows.
    #[error("certificate {number} of the chain allows only {allowed} CA certificates below it, and there are {below}")]
    PathLength {
        /// Which.
        number: usize,
        /// Its pathLenConstraint.
        allowed: u32,
        /// How many there are.
        below: usize,
    },
    /// Signed in a way that is not accepted.
    #[error("certificate {number} of the chain: {error}")]
    Algorithm {
        /// Which.
        number: usize,
        /// Why.
        error: UnknownAlgorithm,
    },
    /// A signature that does not verify.
    #[error("certificate {number} of the chain does not verify under its issuer's key: {error}")]
    Signature {
        /// Which.
        number: usize,
        /// Why.
        error: BadSignature,
    },
}

/// Reads a chain and checks every link: CA certificates of version 3 with keyCertSign, names and key identifiers that fit, path
/// lengths, every signature under the next one's key, and a self-signed root at the end. Times are not looked at.
pub fn verify(chain: &[Blob]) -> Result<Vec<Facts<'_>>, ChainError> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(ChainError::Length(chain.len()));
    }
    let mut all = Vec::with_capacity(chain.len());
    for (number, der) in (1..).zip(chain) {
        let facts = read(der).map_err(|error| ChainError::Unreadable { number, error })?;
        check_ca(number, &facts)?;
        all.push(facts);
    }
    for (number, facts) in (1..).zip(&all) {
        let issuer = all.get(number).unwrap_or(facts);
        let is_root = number == all.len();
        check_link(number, facts, issuer).map_err(|error| {
            if is_root && matches!(error, ChainError::NotIssuedByNext { .. }) {
                ChainError::NoRoot
            } else {
                error
            }
        })?;
    }
    Ok(all)
}

fn check_ca(number: usize, facts: &Facts<'_>) -> Result<(), ChainError> {
    let lacks = |what| Err(ChainError::NotCa { number, what });
    if facts.version != 3 {
        return lacks("is not of version 3");
    }
    if !facts.is_ca() {
        return lacks("does not say CA:TRUE");
    }
    if !facts.may(KeyUsage::KeyCertificateSign) {
        return lacks("has a key usage without keyCertSign");
    }
    // The certificate itself does not count, and neither would self-issued ones, which a path of ours does not have (RFC 5280, 6.1.4 l).
    let below = number - 1;
    match facts.basic_constraints.and_then(|constraints| constraints.path_length) {
        Some(allowed) if below > allowed as usize => Err(ChainError::PathLength { number, allowed, below }),
        _ => Ok(()),
    }
}

fn check_link(number: usize, facts: &Facts<'_>, issuer: &Facts<'_>) -> Result<(), ChainError> {
    if facts.issuer != issuer.subject {
        let what = "the names differ";
        return Err(ChainError::NotIssuedByNext { number, what });
    }
    if let (Some(wanted), Some(found)) = (facts.authority_key_id, issuer.subject_key_id)
        && wanted != found
    {
        let what = "the key identifiers differ";
        return Err(ChainError::NotIssuedByNext { number, what });
    }
    let algorithm =
        read_algorithm(facts.signature_algorithm).map_err(|error| ChainError::Algorithm { number, error })?;
    Verifier::new(issuer.public_key, algorithm)
        .and_then(|verifier| verifier.verify(facts.tbs, facts.signature))
        .map_err(|error| ChainError::Signature { number, error })
}
