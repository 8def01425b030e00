//! Certificates and times as text for people.

use domain::id::Serial;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, ParsedExtension, X509Certificate},
    x509::X509Name,
};

/// A DER `Name` as text, most significant attribute first: `C=DE, O=Example, CN=Example CA`.
pub fn name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) => name.to_string(),
        Err(_) => format!("unreadable name of {} bytes", der.len()),
    }
}

/// What a certificate says of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Subject, most significant attribute first; empty if it has none.
    pub subject: String,
    /// Alternative names.
    pub names: Vec<String>,
}

/// Describes a DER certificate.
pub fn certificate(der: &[u8]) -> Described {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Described {
            subject: format!("unreadable certificate of {} bytes", der.len()),
            names: Vec::new(),
        };
    };
    let names = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .map(general_name)
        .collect();
    Described {
        subject: certificate.subject().to_string(),
        names,
    }
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => std::net::Ipv4Addr::from(four).to_string(),
            Err(_) => <[u8; 16]>::try_from(*bytes).map_or_else(
                |_| hex::encode(bytes),
                |sixteen| std::net::Ipv6Addr::from(sixteen).to_string(),
            ),
        },
        other => other.to_string(),
    }
}

/// UNIX seconds as `2026-01-31T12:00:00Z`.
pub fn date(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// A serial as it names a file.
pub fn file_name(serial: &[u8]) -> String {
    Serial::from_bytes(serial).map_or_else(|| hex::encode_upper(serial), |serial| serial.to_string())
}
