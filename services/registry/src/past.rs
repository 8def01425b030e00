//! What an imported issuer did before it came here: certificates that status services must know, and the CRL number that must go on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use domain::{
    issuer::{Issuer, Usage},
    key::SignatureAlgorithm,
};
use wire::admin::Past;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::{RegistryError, describe};

/// The bits that an issuer with this past may have: CRLs need to know where numbering stopped, OCSP needs to know every serial.
pub fn usage(past: &Past) -> Usage {
    let (crl, ocsp) = match past {
        Past::Unknown => (false, false),
        Past::None => (true, true),
        Past::Known { last_crl, .. } => (last_crl.is_some(), true),
    };
    Usage { issue: true, crl, ocsp }
}

/// What the operator should know about bits that stay off.
pub fn warnings(past: &Past) -> Vec<String> {
    match past {
        Past::Unknown => vec![
            "crl and ocsp stay off: nothing is known of what it issued before (give --history and --last-crl, or --no-history)"
                .into(),
        ],
        Past::Known { last_crl: None, .. } => {
            vec!["crl stays off: its CRL numbers might run backwards (give --last-crl)".into()]
        }
        Past::None | Past::Known { .. } => Vec::new(),
    }
}

/// Checks that everything in the past is this issuer's own: its name, its signature.
pub fn check(past: &Past, issuer: &Issuer) -> Result<(), RegistryError> {
    let Past::Known { certificates, last_crl } = past else {
        return Ok(());
    };
    for (number, der) in (1..).zip(certificates) {
        let wrong = |what: String| RegistryError::Invalid(format!("history: certificate {number} {what}"));
        let facts = pki::certificate::read(der).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if facts.issuer != &*issuer.subject {
            return Err(wrong(format!("was issued by {}", describe::name(facts.issuer))));
        }
        if !signed_by(issuer, facts.tbs, facts.signature) {
            return Err(wrong("does not verify under the issuer's key".into()));
        }
    }
    if let Some(der) = last_crl {
        let wrong = |what: &str| RegistryError::Invalid(format!("last CRL: {what}"));
        let (rest, crl) = CertificateRevocationList::from_der(der).map_err(|_| wrong("is not a DER or PEM CRL"))?;
        if !rest.is_empty() {
            return Err(wrong("has something after its end"));
        }
        if crl.tbs_cert_list.issuer.as_raw() != &*issuer.subject {
            return Err(wrong("is another issuer's"));
        }
        if crl.crl_number().is_none() {
            return Err(wrong("has no CRL number (RFC 5280, section 5.2.3)"));
        }
        if !signed_by(issuer, crl.tbs_cert_list.as_ref(), &crl.signature_value.data) {
            return Err(wrong("does not verify under the issuer's key"));
        }
    }
    Ok(())
}

fn signed_by(issuer: &Issuer, message: &[u8], signature: &[u8]) -> bool {
    use SignatureAlgorithm::{EcdsaSha256, EcdsaSha384, EcdsaSha512, Ed25519, RsaSha256, RsaSha384, RsaSha512};
    [
        RsaSha256,
        RsaSha384,
        RsaSha512,
        EcdsaSha256,
        EcdsaSha384,
        EcdsaSha512,
        Ed25519,
    ]
    .into_iter()
    .filter(|algorithm| algorithm.fits(issuer.key_type))
    .any(|algorithm| pki::signature::verify(&issuer.public_key, algorithm, message, signature).is_ok())
}

/// Keeps the past below `archive`: `ISSUER/SERIAL.cer`, `ISSUER/last.crl`. Safe to repeat.
pub fn keep(archive: &Path, past: &Past, issuer: &Issuer) -> Result<(), RegistryError> {
    let Past::Known { certificates, last_crl } = past else {
        return Ok(());
    };
    let directory = archive.join(issuer.id.as_str());
    let failed = |path: &PathBuf, error: &io::Error| {
        RegistryError::Internal(format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(&directory).map_err(|e| failed(&directory, &e))?;
    for der in certificates {
        let facts = pki::certificate::read(der).map_err(|e| RegistryError::Internal(e.to_string()))?;
        let path = directory.join(format!("{}.cer", describe::file_name(facts.serial)));
        fs::write(&path, &**der).map_err(|e| failed(&path, &e))?;
    }
    if let Some(crl) = last_crl {
        let path = directory.join("last.crl");
        fs::write(&path, &**crl).map_err(|e| failed(&path, &e))?;
    }
    Ok(())
}
