//! X.509 for Bulkhead: bytes in, bytes out. No private key, no clock, no randomness, no I/O.

mod asn1;
pub mod certificate;
pub mod chain;
pub mod csr;
pub mod issuer;
pub mod key;
pub mod lint;
pub mod pem;
pub mod signature;
#[cfg(test)]
mod testing;
mod weakness;

use domain::bytes::Digest;

/// SHA-256 of the bytes (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest(digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes"))
}
