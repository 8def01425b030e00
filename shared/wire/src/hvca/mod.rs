//! The JSON documents of the certificate API (HVCA): read with patience for what clients send, written exactly as they expect.

mod documents;
mod read;
mod request;

pub use documents::{
    AccessToken, CertificateDocument, CertificateStatus, InProgress, Login, Rekey, Revoke, Secret, StatisticsEntry,
    Value,
};
pub use read::BadDocument;
pub use request::{CertificateRequest, PolicyDocument};
