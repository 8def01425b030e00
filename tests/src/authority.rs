//! A root outside of the installation, which makes the chains of issuers whose keys are on tokens.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// The root, with its key in memory.
#[derive(Debug)]
pub struct Root {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    /// A new one of this common name.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        })
    }

    /// The chain of the issuer that made this PKCS#10 request: PEM, its own certificate first.
    pub fn chain(&self, request: &str) -> Result<String> {
        let request = rcgen::CertificateSigningRequestParams::from_pem(request)?;
        let mut params = authority(BasicConstraints::Constrained(0));
        params.distinguished_name = request.params.distinguished_name.clone();
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem() + &self.pem)
    }
}

fn authority(constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    params
}
