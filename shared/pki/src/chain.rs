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
        check_ca(number, &facts, number == chain.len())?;
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

fn check_ca(number: usize, facts: &Facts<'_>, is_root: bool) -> Result<(), ChainError> {
    let lacks = |what| Err(ChainError::NotCa { number, what });
    if facts.version != 3 {
        return lacks("is not of version 3");
    }
    if !facts.is_ca() {
        return lacks("does not say CA:TRUE");
    }
    // Old roots have no key usage at all; nobody judges a trust anchor by it (RFC 5280, 6.1.1 d).
    if !facts.may(KeyUsage::KeyCertificateSign) || (facts.key_usage.is_none() && !is_root) {
        return lacks("has no key usage with keyCertSign");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        signature::algorithm_identifier,
        testing::{
            AUTHORITY_KEY_IDENTIFIER, Authority, BASIC_CONSTRAINTS, Draft, Hierarchy, KEY_USAGE, SUBJECT_KEY_IDENTIFIER,
        },
    };
    use domain::key::SignatureAlgorithm;

    /// The error of a chain whose issuer certificate is this draft, under a good root.
    fn error_of(change: impl FnOnce(Draft) -> Draft) -> ChainError {
        let Hierarchy {
            root,
            ca,
            root_certificate,
            ..
        } = Hierarchy::new();
        let certificate = root.certify(&change(Draft::new(&ca, &root)));
        verify(&[certificate, root_certificate]).unwrap_err()
    }

    #[test]
    fn a_chain_up_to_its_root_is_good() {
        let hierarchy = Hierarchy::new();
        let chain = hierarchy.chain();
        let facts = verify(&chain).unwrap();
        assert_eq!(facts.len(), 2);
        assert_eq!(
            (facts[0].subject, facts[0].issuer),
            (&*hierarchy.ca.subject, &*hierarchy.root.subject)
        );
        assert!(verify(&chain[1..]).is_ok(), "a root alone is a chain");
    }

    #[test]
    fn a_certificate_that_is_no_ca_is_refused() {
        let not_ca = |what| ChainError::NotCa { number: 1, what };
        let no_ca = not_ca("does not say CA:TRUE");
        assert_eq!(error_of(|draft| draft.without(BASIC_CONSTRAINTS)), no_ca);
        assert_eq!(
            error_of(|draft| draft.with(BASIC_CONSTRAINTS, true, b"\x30\x00")),
            no_ca
        );
        let no_sign = not_ca("has no key usage with keyCertSign");
        assert_eq!(error_of(|draft| draft.without(KEY_USAGE)), no_sign);
        assert_eq!(
            error_of(|draft| draft.with(KEY_USAGE, true, b"\x03\x02\x01\x02")),
            no_sign
        );
        let version_1 = |draft| Draft {
            version: vec![],
            extensions: vec![],
            ..draft
        };
        assert_eq!(error_of(version_1), not_ca("is not of version 3"));
    }

    #[test]
    fn an_old_root_may_do_without_key_usage() {
        let Hierarchy {
            root, ca_certificate, ..
        } = Hierarchy::new();
        let old = root.certify(&Draft::new(&root, &root).without(KEY_USAGE));
        assert!(verify(&[ca_certificate, old]).is_ok());
    }

    #[test]
    fn path_lengths_are_kept() {
        let (root, middle, ca) = (
            Authority::new("Root"),
            Authority::new("Middle"),
            Authority::new("Issuer"),
        );
        let chain = |root_length: &[u8], middle_length: &[u8]| {
            let draft = |draft: Draft, length: &[u8]| {
                draft.with(BASIC_CONSTRAINTS, true, &[b"\x30\x06\x01\x01\xff", length].concat())
            };
            vec![
                middle.certify(&Draft::new(&ca, &middle)),
                root.certify(&draft(Draft::new(&middle, &root), middle_length)),
                root.certify(&draft(Draft::new(&root, &root), root_length)),
            ]
        };
        assert!(verify(&chain(b"\x02\x01\x02", b"\x02\x01\x01")).is_ok());
        let too_long = |number, allowed, below| Err(ChainError::PathLength { number, allowed, below });
        assert_eq!(verify(&chain(b"\x02\x01\x01", b"\x02\x01\x01")), too_long(3, 1, 2));
        assert_eq!(verify(&chain(b"\x02\x01\x02", b"\x02\x01\x00")), too_long(2, 0, 1));
    }

    #[test]
    fn links_must_fit_by_name_key_identifier_and_signature() {
        let stranger = Authority::new("Stranger");
        let hierarchy = Hierarchy::new();
        let not_by_next = |what| ChainError::NotIssuedByNext { number: 1, what };
        let foreign = stranger.certify(&Draft::new(&hierarchy.ca, &stranger));
        let root = hierarchy.root_certificate.clone();
        assert_eq!(verify(&[foreign, root.clone()]), Err(not_by_next("the names differ")));
        let wrong = |draft: Draft| draft.with(AUTHORITY_KEY_IDENTIFIER, false, b"\x30\x03\x80\x01\x07");
        assert_eq!(error_of(wrong), not_by_next("the key identifiers differ"));
        let mut forged = hierarchy.ca_certificate.clone();
        *forged.0.last_mut().unwrap() ^= 1;
        let error = BadSignature::Wrong;
        assert_eq!(verify(&[forged, root]), Err(ChainError::Signature { number: 1, error }));
    }

    #[test]
    fn a_chain_in_the_wrong_order_or_without_its_root_is_refused() {
        let hierarchy = Hierarchy::new();
        let chain = hierarchy.chain();
        assert_eq!(verify(&chain[..1]), Err(ChainError::NoRoot));
        let reversed: Vec<Blob> = chain.iter().rev().cloned().collect();
        assert!(matches!(
            verify(&reversed),
            Err(ChainError::NotIssuedByNext { number: 1, .. })
        ));
        assert_eq!(verify(&[]), Err(ChainError::Length(0)));
        assert_eq!(verify(&vec![chain[1].clone(); 9]), Err(ChainError::Length(9)));
    }

    #[test]
    fn certificates_that_cannot_be_read_are_refused() {
        assert!(matches!(
            error_of(|draft| draft.with(KEY_USAGE, true, b"\x05\x00")),
            ChainError::Unreadable { number: 1, .. }
        ));
        let twice = |mut draft: Draft| {
            draft.extensions.push(draft.extensions[0].clone());
            draft
        };
        assert!(matches!(error_of(twice), ChainError::Unreadable { number: 1, .. }));
        let other_inside = algorithm_identifier(SignatureAlgorithm::Ed25519).to_vec();
        assert!(matches!(
            error_of(|draft| Draft {
                algorithm: other_inside,
                ..draft
            }),
            ChainError::Unreadable { number: 1, .. }
        ));
        let mut longer = Hierarchy::new().chain();
        longer[0].0.push(0);
        assert!(matches!(verify(&longer), Err(ChainError::Unreadable { number: 1, .. })));
        assert!(matches!(
            error_of(|draft| draft.with(SUBJECT_KEY_IDENTIFIER, false, b"\x04\x00")),
            ChainError::Unreadable { .. }
        ));
    }
}
