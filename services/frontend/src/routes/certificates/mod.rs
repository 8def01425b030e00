//! Certificates: request, show, revoke, rekey.

pub mod issue;
pub mod rekey;
pub mod revoke;
pub mod show;
