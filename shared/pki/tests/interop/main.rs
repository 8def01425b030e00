//! Real input and real judges: requests and keys made by OpenSSL, GnuTLS, Java and Python, certificates checked by OpenSSL, GnuTLS,
//! rustls-webpki and Python. A tool that is missing fails the test.

mod authority;
mod certificates;
mod refusals;
mod requests;
mod tools;
mod weaknesses;
