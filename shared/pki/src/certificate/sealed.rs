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

#[cfg(test)]
mod tests {
    use domain::key::SignatureAlgorithm;

    use super::*;
    use crate::{
        certificate::{prepare, seal},
        testing::{Authority, Hierarchy, content, serial},
    };

    #[test]
    fn what_was_intended_and_signed_passes() {
        let (hierarchy, content) = (Hierarchy::new(), content());
        let (tbs, certificate) = hierarchy.issue(&content);
        assert_eq!(check_sealed(&certificate, &tbs, &content, &hierarchy.issuer()), Ok(()));
    }

    #[test]
    fn other_bytes_than_the_intent_are_told_from_a_bad_signature() {
        let (hierarchy, content) = (Hierarchy::new(), content());
        let verifier = ChainVerifier::new(&hierarchy.issuer()).unwrap();
        let (tbs, certificate) = hierarchy.issue(&content);
        let later = Content {
            not_after: content.not_after + 1,
            ..content.clone()
        };
        let (other_tbs, other_certificate) = hierarchy.issue(&later);
        assert_eq!(
            verifier.check(&other_certificate, &tbs, &content),
            Err(SealedWrong::OtherTbs)
        );
        assert_eq!(
            verifier.check(&certificate, &other_tbs, &content),
            Err(SealedWrong::OtherTbs)
        );
        let by_stranger = seal(
            &tbs,
            SignatureAlgorithm::EcdsaSha256,
            &Authority::new("Stranger").sign(&tbs),
        );
        assert_eq!(
            verifier.check(&by_stranger, &tbs, &content),
            Err(SealedWrong::Signature(BadSignature::Wrong))
        );
    }

    #[test]
    fn another_key_than_the_requested_one_is_found() {
        let (hierarchy, content) = (Hierarchy::new(), content());
        let verifier = ChainVerifier::new(&hierarchy.issuer()).unwrap();
        let (tbs, certificate) = hierarchy.issue(&content);
        let asked = Content {
            public_key: Authority::new("Other").spki.into(),
            ..content
        };
        assert_eq!(
            verifier.check(&certificate, &tbs, &asked),
            Err(SealedWrong::OtherIntent("public key"))
        );
    }

    #[test]
    fn another_issuer_or_algorithm_is_found() {
        let (hierarchy, content) = (Hierarchy::new(), content());
        let verifier = ChainVerifier::new(&hierarchy.issuer()).unwrap();
        let mut issuer = hierarchy.issuer();
        issuer.subject = Authority::new("Namesake").subject.into();
        let tbs = prepare(&content, &issuer, serial()).unwrap();
        let certificate = seal(&tbs, SignatureAlgorithm::EcdsaSha256, &hierarchy.ca.sign(&tbs));
        assert_eq!(
            verifier.check(&certificate, &tbs, &content),
            Err(SealedWrong::OtherIntent("issuer"))
        );
        let mut issuer = hierarchy.issuer();
        issuer.signature_algorithm = SignatureAlgorithm::EcdsaSha384;
        let tbs = prepare(&content, &issuer, serial()).unwrap();
        for outside in [SignatureAlgorithm::EcdsaSha384, SignatureAlgorithm::EcdsaSha256] {
            let certificate = seal(&tbs, outside, &hierarchy.ca.sign(&tbs));
            assert_eq!(
                verifier.check(&certificate, &tbs, &content),
                Err(SealedWrong::OtherAlgorithm)
            );
        }
    }

    #[test]
    fn every_octet_of_a_certificate_counts() {
        let (hierarchy, content) = (Hierarchy::new(), content());
        let verifier = ChainVerifier::new(&hierarchy.issuer()).unwrap();
        let (tbs, certificate) = hierarchy.issue(&content);
        for at in 0..certificate.len() {
            let mut altered = certificate.clone();
            altered[at] ^= 1;
            assert!(verifier.check(&altered, &tbs, &content).is_err(), "octet {at}");
        }
        assert!(
            verifier
                .check(&[&certificate[..], &[0]].concat(), &tbs, &content)
                .is_err()
        );
        assert!(verifier.check(b"", &tbs, &content).is_err());
    }

    #[test]
    fn an_issuer_whose_chain_does_not_hold_is_found() {
        let hierarchy = Hierarchy::new();
        let mut broken = hierarchy.issuer();
        *broken.chain[0].0.last_mut().unwrap() ^= 1;
        assert!(matches!(
            ChainVerifier::new(&broken),
            Err(SealedWrong::Chain(ChainError::Signature { number: 1, .. }))
        ));
        let stranger = Authority::new("Issuer");
        for (what, issuer) in [
            (
                "subject",
                Issuer {
                    subject: Authority::new("Other").subject.into(),
                    ..hierarchy.issuer()
                },
            ),
            (
                "public key",
                Issuer {
                    public_key: stranger.spki.clone().into(),
                    ..hierarchy.issuer()
                },
            ),
            (
                "subject key identifier",
                Issuer {
                    subject_key_id: stranger.key_id().to_vec().into(),
                    ..hierarchy.issuer()
                },
            ),
        ] {
            assert_eq!(ChainVerifier::new(&issuer).unwrap_err(), SealedWrong::OtherIssuer(what));
        }
    }
}
