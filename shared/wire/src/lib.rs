//! What crosses a process: signed messages and their proofs, the documents of the REST APIs, and typed clients for them.
//!
//! Whatever one of our processes says to another is signed by its node and verified before a byte of it is parsed ([`signed`]);
//! who may say what follows from the registry ([`trust`]). Every document has a version, and an unknown version is an error of its own.

pub mod admin;
pub mod answer;
pub mod attest;
pub mod audit;
#[cfg(feature = "client")]
pub mod client;
pub mod enrol;
pub mod envelope;
pub mod hvca;
pub mod operate;
pub mod problem;
pub mod signed;
pub mod token;
pub mod trust;
