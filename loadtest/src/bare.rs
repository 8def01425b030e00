//! The bare loop: what every CA must do for a certificate, and nothing else. It is the measure for everything built around it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use domain::{
    bytes::Blob,
    id::Serial,
    issuer::{Issuer, IssuerState, Usage},
    key::{KeyType, SignatureAlgorithm},
    policy::{KeyFormat, ValueType},
    request::{AlternativeNames, Content, KeyUsage, TypedValue},
    time::Timestamp,
};
use pki::signature::Verifier;

use crate::{
    cpu,
    report::BareRow,
    subject::{Csr, Signer},
};

/// 2026-11-01T00:00:00Z.
const NOW: i64 = 1_793_491_200;

/// Issues over the requests, again and again, with so many threads for so long.
pub fn run(key_type: KeyType, requests: &[Csr], threads: usize, duration: Duration) -> Result<BareRow> {
    let authority = Authority::new(key_type)?;
    ensure!(!requests.is_empty(), "there are no requests");

    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let csr = &requests[number % requests.len()];
            std::hint::black_box(authority.issue(&csr.pem, &csr.name, number)?);
        }
        Ok(())
    };
    let (start, before) = (Instant::now(), cpu::own());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let (elapsed, cpu) = (start.elapsed(), cpu::own().saturating_sub(before));
    Ok(BareRow::of(key_type, threads, next.into_inner(), elapsed, cpu))
}

/// An issuer with a key of its own in memory.
pub struct Authority {
    form: Form,
    signer: Signer,
}

impl Authority {
    /// A new key under a name.
    pub fn new(key_type: KeyType) -> Result<Self> {
        let signer = Signer::generate(key_type)?;
        let form = Form::new(key_type, signer.spki()?)?;
        Ok(Self { form, signer })
    }

    /// One certificate: its request verified, its bytes encoded, signed, the signature verified, sealed.
    pub fn issue(&self, pem: &str, name: &str, number: usize) -> Result<Vec<u8>> {
        let tbs = self.form.prepare(pem, name, number)?;
        let signature = self.signer.sign(&tbs)?;
        self.form.seal(&tbs, &signature)
    }
}

/// What an issuer, without any registry, does around its key.
pub struct Form {
    issuer: Issuer,
    verifier: Verifier,
    /// Of a TLS server's certificate, but for key and names.
    content: Content,
}

impl Form {
    /// For a key of this type, whose DER `SubjectPublicKeyInfo` this is.
    pub fn new(key_type: KeyType, public_key: Vec<u8>) -> Result<Self> {
        let algorithm = key_type.signature_algorithm();
        let verifier = Verifier::new(&public_key, algorithm).context("the issuer's own key")?;
        let key_id = pki::certificate::subject_key_id(&public_key).context("the issuer's own key")?;
        let issuer = Issuer {
            id: "bare".parse()?,
            // CN=bare
            subject: Blob(b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04bare".to_vec()),
            public_key: Blob(public_key),
            key_type,
            signature_algorithm: algorithm,
            subject_key_id: Blob(key_id.to_vec()),
            chain: Vec::new(),
            other_chains: Vec::new(),
            not_after: i64::MAX,
            state: IssuerState::Enabled,
            usage: Usage {
                issue: true,
                crl: true,
                ocsp: true,
            },
            reason: None,
            crl_shards: 16,
            public_url: "http://ca.example.com".into(),
            bindings: Vec::new(),
        };
        let mut key_usage = vec![KeyUsage::DigitalSignature];
        key_usage.extend(key_type.is_rsa().then_some(KeyUsage::KeyEncipherment));
        let content = Content {
            subject: Vec::new(),
            san: AlternativeNames::default(),
            key_usage,
            extended_key_usage: vec!["1.3.6.1.5.5.7.3.1".into()],
            extended_key_usage_critical: false,
            certificate_policies: vec!["2.23.140.1.2.1".into()],
            ocsp_no_check: false,
            subject_da: None,
            subject_da_extra: Vec::new(),
            qualified_statements: None,
            ms_extension_template: None,
            custom_extensions: Vec::new(),
            public_key: Blob::default(),
            not_before: NOW,
            not_after: NOW + 90 * 86_400 - 1,
        };
        Ok(Self {
            issuer,
            verifier,
            content,
        })
    }

    /// What the issuer signs with.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.issuer.signature_algorithm
    }

    /// The bytes to be signed, once the request is verified.
    pub fn prepare(&self, pem: &str, name: &str, number: usize) -> Result<Vec<u8>> {
        let requested = pki::csr::read(pem, KeyFormat::Pkcs10)?;
        let mut content = self.content.clone();
        content.public_key = Blob(requested.spki);
        content.subject.push(TypedValue {
            oid: "2.5.4.3".into(),
            value_type: ValueType::Utf8string,
            value: name.to_owned(),
        });
        content.san.dns_names = vec![name.to_owned(), format!("www.{name}")];
        let mut entropy = [0; 10];
        entropy[2..].copy_from_slice(&(number as u64).to_be_bytes());
        let serial = Serial::new(Timestamp::from_secs(NOW), entropy);
        Ok(pki::certificate::prepare(&content, &self.issuer, serial)?)
    }

    /// The certificate, once the signature is verified.
    pub fn seal(&self, tbs: &[u8], signature: &[u8]) -> Result<Vec<u8>> {
        self.verifier.verify(tbs, signature)?;
        Ok(pki::certificate::seal(tbs, self.issuer.signature_algorithm, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject;

    #[test]
    fn the_bare_loop_makes_certificates_for_the_requested_keys() {
        for key_type in [KeyType::P256, KeyType::Rsa2048] {
            let requests = subject::requests(key_type, 3, 1, &|| ()).unwrap();
            let authority = Authority::new(key_type).unwrap();
            let certificate = authority.issue(&requests[1].pem, &requests[1].name, 1).unwrap();
            let facts = pki::certificate::read(&certificate).unwrap();
            assert_eq!(facts.public_key, requests[1].spki);
            let row = run(key_type, &requests, 2, Duration::from_millis(50)).unwrap();
            assert!(row.certificates > 0);
        }
    }
}
