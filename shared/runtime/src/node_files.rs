//! What an enrolled node has for its connections: its access certificate with the key, and the CA that vouches for the others.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use domain::{id::NodeId, time::Timestamp};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{
    access_ca::names_and_due,
    files::{FileError, create_private_dir, read, write_private, write_public},
};

/// The files, in a directory of their own.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    dir: PathBuf,
}

/// A key that has no certificate yet. It leaves this process only as a file.
pub struct Pending {
    /// PKCS#10 (RFC 2986) in PEM.
    pub csr: String,
    key: Zeroizing<String>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl NodeFiles {
    /// The files in this directory, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        create_private_dir(dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// PEM, mode 0600: the node's certificate and its key in one file, so that they are always of one kind.
    pub fn certificate_and_key(&self) -> PathBuf {
        self.dir.join("node.pem")
    }

    /// PEM of the access CA.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A new P-256 key and the request for its certificate.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    pub fn begin(&self, node: &NodeId) -> Pending {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the operating system gives randomness");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem());
        Pending {
            csr: csr.expect("a request with a name and a key can be encoded"),
            key: Zeroizing::new(key.serialize_pem()),
        }
    }

    /// Puts the certificate of that key in the place of the one before.
    pub fn keep(&self, certificate: &str, pending: &Pending) -> Result<(), FileError> {
        let text = Zeroizing::new(format!("{}\n{}", certificate.trim_end(), *pending.key));
        write_private(&self.certificate_and_key(), text.as_bytes())
    }

    /// Keeps the certificate of the access CA.
    pub fn keep_ca(&self, certificate: &str) -> Result<(), FileError> {
        write_public(&self.ca(), certificate.as_bytes())
    }

    /// Whether a third of the certificate's life, or less, is left.
    pub fn is_due(&self, now: Timestamp) -> Result<bool, FileError> {
        let path = self.certificate_and_key();
        let damaged = |detail: String| FileError::damaged(&path, detail);
        let der = CertificateDer::from_pem_slice(&read(&path)?).map_err(|e| damaged(e.to_string()))?;
        let (_, due) = names_and_due(&der, now).map_err(damaged)?;
        Ok(due)
    }
}

/// SHA-256 of the first certificate in a PEM text.
pub fn fingerprint_of(pem: &str) -> Option<domain::bytes::Digest> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let bytes = digest(&SHA256, &der).as_ref().try_into().ok()?;
    Some(domain::bytes::Digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::Duration};

    use super::*;
    use crate::{
        access_ca::AccessCa,
        telemetry::Metrics,
        tls::{ServerTls, TlsFiles},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_certificate_for_a_key_that_never_travelled_serves_and_is_due_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(&dir.path().join("ca"), NOW).unwrap();
        let files = NodeFiles::open(&dir.path().join("node")).unwrap();
        let node: NodeId = "fe-1".parse().unwrap();
        let pending = files.begin(&node);
        let names = ["fe-1.example.com".to_owned()];
        let certificate = ca.node(&node, Some(&names), &pending.csr, NOW).unwrap();
        files.keep(&certificate, &pending).unwrap();
        files.keep_ca(&ca.certificate_pem().unwrap()).unwrap();
        assert_eq!(
            fingerprint_of(&ca.certificate_pem().unwrap()),
            Some(ca.fingerprint().unwrap())
        );
        let path = files.certificate_and_key();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let tls = TlsFiles {
            certificate: path.clone(),
            key: path,
            client_ca: files.ca(),
        };
        ServerTls::new(tls, &Metrics::new()).unwrap();
        assert!(!files.is_due(NOW).unwrap());
        assert!(files.is_due(NOW + Duration::from_hours(61 * 24)).unwrap());

        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let (names, _) = names_and_due(&der, NOW).unwrap();
        assert!(names.contains(&"fe-1.example.com".to_owned()), "{names:?}");
        let client = ca.node(&node, None, &pending.csr, NOW).unwrap();
        let der = CertificateDer::from_pem_slice(client.as_bytes()).unwrap();
        assert_eq!(names_and_due(&der, NOW).unwrap().0, Vec::<String>::new());
        assert!(ca.node(&node, Some(&names), "no request", NOW).is_err());
    }
}
