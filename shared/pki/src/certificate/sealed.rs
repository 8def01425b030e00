//! The last look before a certificate leaves: is it what was intended, and does it verify under the issuer's whole chain?

use domain::{issuer::Issuer, request::Content};

use super::facts::parts;
use crate::{
    asn1::{Fault, tag},
    chain::{self, ChainError},
    signature::{BadSignature, Verifier, algorithm_identifier},
};

/// What is wrong with a sealed certificate, or with the issuer that signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedWrong {
    /// The issuer's chain does not hold.
    #[error("the issuer's chain does not verify: {0}")]
    Chain(#[from] ChainError),
    /// The chain is of another issuer.
    #[error("the first certificate of the issuer's chain has another {0} than the issuer")]
    OtherIssuer(&'static str),
    /// Not a certificate.
    #[error("not a DER certificate: {0}")]
    Malformed(&'static str),
    /// Something else was signed than intended. Never to be published.
    #[error("the to-be-signed bytes are not the intended ones")]
    OtherTbs,
    /// The intent itself is not for this content or issuer.
    #[error("the intended bytes have another {0} than asked for")]
    OtherIntent(&'static str),
    /// Inner or outer signature algorithm is not the issuer's.
    #[error("the signature algorithm is not the issuer's")]
    OtherAlgorithm,
    /// The signature is wrong.
    #[error("the signature of the certificate: {0}")]
    Signature(#[from] BadSignature),
}

impl From<Fault> for SealedWrong {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault)
    }
}

/// An issuer whose chain was verified once, for checking what it signs: one signature verification each.
#[derive(Debug)]
pub struct ChainVerifier {
    verifier: Verifier,
    subject: Vec<u8>,
    algorithm: &'static [u8],
}

impl ChainVerifier {
    /// Verifies the issuer's default chain, and that it is the chain of this name, key and key identifier.
    pub fn new(issuer: &Issuer) -> Result<Self, SealedWrong> {
        let links = chain::verify(&issuer.chain)?;
        let own = links.first().ok_or(ChainError::Length(0))?;
        for (what, same) in [
            ("subject", own.subject == &*issuer.subject),
            ("public key", own.public_key == &*issuer.public_key),
            (
                "subject key identifier",
                own.subject_key_id == Some(&*issuer.subject_key_id),
            ),
        ] {
            if !same {
                return Err(SealedWrong::OtherIssuer(what));
            }
        }
        Ok(Self {
            verifier: Verifier::new(&issuer.public_key, issuer.signature_algorithm)?,
            subject: issuer.subject.0.clone(),
            algorithm: algorithm_identifier(issuer.signature_algorithm),
        })
    }

    /// Checks one certificate: its to-be-signed bytes are the intent, which has the requested key and this issuer's name and algorithm,
    /// and its signature verifies.
    pub fn check(&self, certificate: &[u8], intent: &[u8], content: &Content) -> Result<(), SealedWrong> {
        let (tbs, algorithm, signature) = parts(certificate)?;
        if tbs.raw != intent {
            return Err(SealedWrong::OtherTbs);
        }
        if algorithm != self.algorithm {
            return Err(SealedWrong::OtherAlgorithm);
        }
        let mut fields = tbs.inside();
        fields.optional(tag::explicit(0))?;
        fields.expect(tag::INTEGER, "it has no serial number")?;
        if fields.any()?.raw != self.algorithm {
            return Err(SealedWrong::OtherAlgorithm);
        }
        if fields.any()?.raw != self.subject {
            return Err(SealedWrong::OtherIntent("issuer"));
        }
        fields.any()?; // validity
        fields.any()?; // subject
        if fields.any()?.raw != &*content.public_key {
            return Err(SealedWrong::OtherIntent("public key"));
        }
        Ok(self.verifier.verify(tbs.raw, signature)?)
    }
}

/// Checks one certificate under the issuer's whole chain. [`ChainVerifier`] does the same for many at the price of the last step.
pub fn check_sealed(certificate: &[u8], tbs: &[u8], content: &Content, issuer: &Issuer) -> Result<(), SealedWrong> {
    ChainVerifier::new(issuer)?.check(certificate, tbs, content)
}
