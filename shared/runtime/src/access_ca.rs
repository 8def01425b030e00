//! The access CA: it vouches for servers, API clients and operators towards each other, and for nothing that customers see.
//!
//! P-256, in a directory of its own. Certificates are renewed, with a new key, when a third of their life is left.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use domain::{
    bytes::Digest,
    id::{NodeId, OperatorId},
    time::Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    clock::entropy,
    files::{FileError, create_private_dir, read, read_private, write_private, write_public},
};

const CA_LIFE: Duration = Duration::from_hours(20 * 365 * 24);
const SERVER_LIFE: Duration = Duration::from_hours(90 * 24);
const PERSON_LIFE: Duration = Duration::from_hours(365 * 24);
/// How far notBefore lies in the past, for clocks that are slow.
const SKEW: Duration = Duration::from_mins(5);

/// Why a certificate cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum AccessCaError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name cannot be put into a certificate.
    #[error("{name:?} cannot be put into a certificate: {detail}")]
    Name {
        /// Which.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// The certificate cannot be made.
    #[error("the access CA cannot make the certificate of {name}: {detail}")]
    Make {
        /// Whose.
        name: String,
        /// What is wrong.
        detail: String,
    },
}

/// A certificate with its key, as two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Certificate: one PEM block.
    pub certificate_file: PathBuf,
    /// Key: PKCS#8, mode 0600.
    pub key_file: PathBuf,
    /// SHA-256 of the certificate: what accounts and operators are known by.
    pub fingerprint: Digest,
}

/// A certificate that was renewed. Its fingerprint must take the place of the old one wherever that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Name of the files: `server`, `client-NAME`, `operator-NAME`.
    pub name: String,
    /// Fingerprint before.
    pub before: Digest,
    /// Fingerprint now.
    pub now: Digest,
}

/// The access CA of a directory.
#[derive(Debug)]
pub struct AccessCa {
    dir: PathBuf,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Server(Vec<String>),
    Person(String),
}

impl AccessCa {
    /// The CA in this directory, made if there is none.
    pub fn open_or_create(dir: &Path, now: Timestamp) -> Result<Self, AccessCaError> {
        create_private_dir(dir)?;
        let ca = Self { dir: dir.into() };
        if !ca.ca_file().exists() {
            ca.create(now)?;
        }
        ca.issuer()?;
        Ok(ca)
    }

    /// PEM of the CA certificate: the one trust anchor of servers and clients.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The server's certificate for these names and addresses; `localhost`, `127.0.0.1` and `::1` are always in it. Issued anew when the
    /// names have changed or it is due.
    pub fn server(&self, names: &[String], now: Timestamp) -> Result<Issued, AccessCaError> {
        self.provide("server", &Purpose::Server(with_own_host(names)), now)
    }

    /// The certificate of an API client.
    pub fn client(&self, name: &str, now: Timestamp) -> Result<Issued, AccessCaError> {
        check_person(name)?;
        self.provide(&format!("client-{name}"), &Purpose::Person(name.into()), now)
    }

    /// Whether the certificate of this operator is here.
    pub fn has_operator(&self, name: &str) -> bool {
        self.dir.join(format!("operator-{name}.pem")).exists()
    }

    /// The certificate of an operator.
    pub fn operator(&self, name: &str, now: Timestamp) -> Result<Issued, AccessCaError> {
        check_person(name)?;
        self.provide(&format!("operator-{name}"), &Purpose::Person(name.into()), now)
    }

    /// The certificate of the CA, PEM.
    pub fn certificate_pem(&self) -> Result<String, AccessCaError> {
        let path = self.ca_file();
        let text = read(&path)?;
        Ok(String::from_utf8(text).map_err(|e| FileError::damaged(&path, e.to_string()))?)
    }

    /// SHA-256 of the CA's certificate: by this it is known to who has only a code.
    pub fn fingerprint(&self) -> Result<Digest, AccessCaError> {
        Ok(fingerprint(&self.certificate("ca")?))
    }

    /// Whether a name can be put into a certificate.
    pub fn check_name(name: &str) -> Result<(), AccessCaError> {
        alternative_name(name).map(drop)
    }

    /// A certificate, PEM, for the key of a node's PKCS#10 request (RFC 2986), of which nothing else counts. With `serves` the node may
    /// serve under these names, and under those of its own host; without, it is only a client.
    pub fn node(
        &self,
        node: &NodeId,
        serves: Option<&[String]>,
        csr: &str,
        now: Timestamp,
    ) -> Result<String, AccessCaError> {
        let make = |e: rcgen::Error| AccessCaError::Make {
            name: node.to_string(),
            detail: e.to_string(),
        };
        let key = CertificateSigningRequestParams::from_pem(csr).map_err(make)?.public_key;
        let mut params = leaf_params(node.as_str(), now, SERVER_LIFE);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(names) = serves {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in with_own_host(names) {
                params.subject_alt_names.push(alternative_name(&name)?);
            }
        }
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(make)?;
        Ok(certificate.pem())
    }

    /// Renews every certificate of which a third of its life, or less, is left. Called at start and once a day.
    pub fn renew_if_due(&self, now: Timestamp) -> Result<Vec<Renewed>, AccessCaError> {
        let mut renewed = Vec::new();
        let entries = fs::read_dir(&self.dir).map_err(FileError::io("list", &self.dir))?;
        for entry in entries {
            let file = entry.map_err(FileError::io("list", &self.dir))?.file_name();
            let file = file.to_string_lossy();
            let Some(name) = file.strip_suffix(".pem").filter(|name| is_ours(name)) else {
                continue;
            };
            let der = self.certificate(name)?;
            let facts = self.facts(name, &der)?;
            if facts.is_due(now) {
                let before = fingerprint(&der);
                let issued = self.issue(name, &facts.purpose, now)?;
                renewed.push(Renewed {
                    name: name.to_owned(),
                    before,
                    now: issued.fingerprint,
                });
            }
        }
        Ok(renewed)
    }

    fn create(&self, now: Timestamp) -> Result<(), AccessCaError> {
        let make = |e: rcgen::Error| AccessCaError::Make {
            name: "the CA".into(),
            detail: e.to_string(),
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let tag: [u8; 4] = entropy();
        let mut params = params(
            &format!("Bulkhead access CA {:08x}", u32::from_be_bytes(tag)),
            now,
            CA_LIFE,
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(make)?;
        write_private(&self.dir.join("ca-key.pem"), key.serialize_pem().as_bytes())?;
        write_public(&self.ca_file(), certificate.pem().as_bytes())?;
        Ok(())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, FileError> {
        let (key_path, path) = (self.dir.join("ca-key.pem"), self.ca_file());
        let damaged = |path: &Path, detail: String| FileError::damaged(path, detail);
        let key_text = read_private(&key_path)?;
        let key_text = std::str::from_utf8(&key_text).map_err(|e| damaged(&key_path, e.to_string()))?;
        let key = KeyPair::from_pem(key_text).map_err(|e| damaged(&key_path, e.to_string()))?;
        let certificate = String::from_utf8(read(&path)?).map_err(|e| damaged(&path, e.to_string()))?;
        Issuer::from_ca_cert_pem(&certificate, key).map_err(|e| damaged(&path, e.to_string()))
    }

    fn provide(&self, name: &str, purpose: &Purpose, now: Timestamp) -> Result<Issued, AccessCaError> {
        if let Ok(der) = self.certificate(name)
            && let Ok(facts) = self.facts(name, &der)
            && facts.purpose == *purpose
            && !facts.is_due(now)
        {
            return Ok(self.issued(name, fingerprint(&der)));
        }
        self.issue(name, purpose, now)
    }

    fn issued(&self, name: &str, fingerprint: Digest) -> Issued {
        Issued {
            certificate_file: self.dir.join(format!("{name}.pem")),
            key_file: self.dir.join(format!("{name}-key.pem")),
            fingerprint,
        }
    }

    fn issue(&self, name: &str, purpose: &Purpose, now: Timestamp) -> Result<Issued, AccessCaError> {
        let make = |e: rcgen::Error| AccessCaError::Make {
            name: name.into(),
            detail: e.to_string(),
        };
        let mut params = match purpose {
            Purpose::Server(_) => leaf_params("Bulkhead", now, SERVER_LIFE),
            Purpose::Person(person) => leaf_params(person, now, PERSON_LIFE),
        };
        params.extended_key_usages = match purpose {
            Purpose::Server(names) => {
                for name in names {
                    params.subject_alt_names.push(alternative_name(name)?);
                }
                vec![ExtendedKeyUsagePurpose::ServerAuth]
            }
            Purpose::Person(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(make)?;
        let issued = self.issued(name, fingerprint(certificate.der()));
        write_private(&issued.key_file, key.serialize_pem().as_bytes())?;
        write_public(&issued.certificate_file, certificate.pem().as_bytes())?;
        Ok(issued)
    }

    fn certificate(&self, name: &str) -> Result<CertificateDer<'static>, FileError> {
        let path = self.dir.join(format!("{name}.pem"));
        CertificateDer::from_pem_slice(&read(&path)?).map_err(|e| FileError::damaged(&path, e.to_string()))
    }

    fn facts(&self, name: &str, der: &CertificateDer<'_>) -> Result<Facts, FileError> {
        let damaged = |detail: String| FileError::damaged(&self.dir.join(format!("{name}.pem")), detail);
        Facts::of(der).map_err(damaged)
    }
}

/// Whether this is the name of a certificate that the CA looks after.
fn is_ours(name: &str) -> bool {
    (name == "server" || name.starts_with("client-") || name.starts_with("operator-")) && !name.ends_with("-key")
}

/// A person's name becomes part of a file's name.
fn check_person(name: &str) -> Result<(), AccessCaError> {
    let fits = name.parse::<OperatorId>().is_ok() && !name.ends_with("-key");
    let detail = "write 1 to 63 characters of a-z, 0-9, '-', '_' and '.', and no \"-key\" at the end";
    if fits {
        Ok(())
    } else {
        Err(AccessCaError::Name {
            name: name.into(),
            detail: detail.into(),
        })
    }
}

struct Facts {
    purpose: Purpose,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Facts {
    fn of(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        let purpose = if let Some(names) = names {
            let mut all: Vec<String> = names.value.general_names.iter().filter_map(text_of).collect();
            all.sort();
            Purpose::Server(all)
        } else {
            let mut names = certificate.subject().iter_common_name();
            let person = names.next().and_then(|name| name.as_str().ok());
            Purpose::Person(person.ok_or("it has no common name")?.to_owned())
        };
        let validity = certificate.validity();
        let seconds = |time: x509_parser::time::ASN1Time| Timestamp::from_secs(time.timestamp());
        Ok(Self {
            purpose,
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
        })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.not_after.since(now) <= self.not_after.since(self.not_before) / 3
    }
}

/// The names in a certificate of the access CA, and whether a third of its life, or less, is left.
pub fn names_and_due(der: &[u8], now: Timestamp) -> Result<(Vec<String>, bool), String> {
    let facts = Facts::of(der)?;
    let due = facts.is_due(now);
    match facts.purpose {
        Purpose::Server(names) => Ok((names, due)),
        Purpose::Person(_) => Ok((Vec::new(), due)),
    }
}

fn fingerprint(der: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    Digest(bytes)
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn alternative_name(name: &str) -> Result<SanType, AccessCaError> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = |detail: &str| AccessCaError::Name {
        name: name.into(),
        detail: detail.into(),
    };
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label_fits) {
        return Err(wrong(
            "write an IP address or a DNS name, without port, wildcard or dot at the end",
        ));
    }
    name.try_into()
        .map(SanType::DnsName)
        .map_err(|_| wrong("it is not ASCII"))
}

fn params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time(now - SKEW);
    params.not_after = date_time(now + life);
    let mut serial: [u8; 16] = entropy();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn leaf_params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = params(common_name, now, life);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// Names, sorted, with those by which a host calls itself.
fn with_own_host(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    all
}

fn date_time(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_secs()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn certificates_are_found_again_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(dir.path(), NOW).unwrap();
        let server = ca.server(&names(&["ca.example.com", "192.0.2.7"]), NOW).unwrap();
        let client = ca.client("demo", NOW).unwrap();
        assert_ne!(ca.operator("demo", NOW).unwrap().fingerprint, client.fingerprint);
        for key in [&server.key_file, &client.key_file, &dir.path().join("ca-key.pem")] {
            assert_eq!(fs::metadata(key).unwrap().mode() & 0o777, 0o600, "{}", key.display());
        }
        let again = AccessCa::open_or_create(dir.path(), NOW + DAY).unwrap();
        assert_eq!(
            again
                .server(&names(&["192.0.2.7", "ca.example.com", "localhost"]), NOW + DAY)
                .unwrap(),
            server
        );
        assert_eq!(again.client("demo", NOW + DAY).unwrap(), client);
        let facts = again.facts("server", &again.certificate("server").unwrap()).unwrap();
        let expected = names(&["127.0.0.1", "192.0.2.7", "::1", "ca.example.com", "localhost"]);
        assert_eq!(facts.purpose, Purpose::Server(expected));
    }

    #[test]
    fn a_server_that_moves_gets_another_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(dir.path(), NOW).unwrap();
        let before = ca.server(&[], NOW).unwrap();
        assert_ne!(
            ca.server(&names(&["elsewhere.example"]), NOW).unwrap().fingerprint,
            before.fingerprint
        );
    }

    #[test]
    fn what_has_a_third_of_its_life_left_is_renewed_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(dir.path(), NOW).unwrap();
        let server = ca.server(&[], NOW).unwrap();
        let client = ca.client("demo", NOW).unwrap();
        assert_eq!(ca.renew_if_due(NOW + DAY * 59).unwrap(), []);
        let renewed = ca.renew_if_due(NOW + DAY * 61).unwrap();
        assert_eq!(renewed.len(), 1);
        assert_eq!(
            (renewed[0].name.as_str(), renewed[0].before),
            ("server", server.fingerprint)
        );
        assert_eq!(ca.server(&[], NOW + DAY * 61).unwrap().fingerprint, renewed[0].now);
        fs::write(dir.path().join("notes.pem"), "not ours").unwrap();
        let renewed = ca.renew_if_due(NOW + DAY * 250).unwrap();
        assert!(
            renewed
                .iter()
                .any(|r| r.name == "client-demo" && r.before == client.fingerprint)
        );
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = AccessCa::open_or_create(dir.path(), NOW).unwrap();
        for name in ["", "a b", "host:8443", "*.example.com", "x.", "münchen.example"] {
            let error = ca.server(&names(&[name]), NOW).unwrap_err();
            assert!(matches!(error, AccessCaError::Name { .. }), "{name:?}: {error}");
        }
        for name in ["", "../server", "a/b", "A", "demo-key"] {
            let error = ca.client(name, NOW).unwrap_err();
            assert!(matches!(error, AccessCaError::Name { .. }), "{name:?}: {error}");
        }
    }

    #[test]
    fn a_damaged_or_exposed_ca_is_refused_not_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        AccessCa::open_or_create(dir.path(), NOW).unwrap();
        let key = dir.path().join("ca-key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            AccessCa::open_or_create(dir.path(), NOW)
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
        fs::remove_file(&key).unwrap();
        assert!(AccessCa::open_or_create(dir.path(), NOW).is_err());
    }
}
