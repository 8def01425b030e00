//! Requests that real tools make and that are refused, with an error that says the truth.

use domain::policy::KeyFormat;
use pki::csr::{self, CsrError};

use crate::tools::Workshop;

fn refused(request: &str, says: &str) {
    let error = csr::read(request, KeyFormat::Pkcs10).expect_err(says);
    assert!(error.to_string().contains(says), "{error} does not say {says:?}");
}

#[test]
fn keys_that_are_not_accepted_are_named() {
    let workshop = Workshop::new();
    for (options, says) in [
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
            "RSA keys of 1024 bits are not accepted",
        ),
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2056",
            "RSA keys of 2056 bits are not accepted",
        ),
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3",
            "exponent 3 is not accepted",
        ),
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
            "RSA-PSS keys are not accepted",
        ),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            "the curve secp256k1",
        ),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:secp224r1", "the curve P-224"),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1",
            "the curve brainpoolP256r1",
        ),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "explicit parameters",
        ),
        ("-algorithm ED448", "Ed448 keys are not accepted"),
    ] {
        workshop.run(&format!("openssl genpkey {options} -out key.pem"));
        refused(&workshop.run("openssl req -new -key key.pem -subj /CN=a.example"), says);
    }
    workshop.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    workshop.run("openssl ec -in key.pem -conv_form compressed -out compressed.pem");
    refused(
        &workshop.run("openssl req -new -key compressed.pem -subj /CN=a.example"),
        "compressed form",
    );
}

#[test]
fn signatures_that_are_not_accepted_are_named() {
    let workshop = Workshop::new();
    workshop.run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    workshop.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem");
    for (options, says) in [
        ("-key rsa.pem -sha1", "SHA-1 and RSA are not accepted"),
        ("-key rsa.pem -md5", "MD5 and RSA are not accepted"),
        ("-key rsa.pem -sha224", "SHA-224 and RSA are not accepted"),
        (
            "-key rsa.pem -sha256 -sigopt rsa_padding_mode:pss",
            "RSA-PSS are not accepted",
        ),
        ("-key ec.pem -sha1", "SHA-1 and ECDSA are not accepted"),
    ] {
        refused(
            &workshop.run(&format!("openssl req -new {options} -subj /CN=a.example")),
            says,
        );
    }
}

#[test]
fn a_request_in_text_form_a_certificate_or_a_private_key_is_refused_as_what_it_is() {
    let workshop = Workshop::new();
    workshop.run("openssl genpkey -algorithm ED25519 -out key.pem");
    refused(
        &workshop.run("openssl req -new -key key.pem -subj /CN=a.example -text"),
        "text outside the PEM block",
    );
    refused(
        &workshop.run("openssl req -x509 -new -key key.pem -subj /CN=a.example"),
        "labelled \"CERTIFICATE\"",
    );
    refused(&workshop.read("key.pem"), "private key");
    let error = csr::read(&workshop.read("key.pem"), KeyFormat::Pkcs8).unwrap_err();
    assert!(
        matches!(error, CsrError::Pem(pki::pem::PemError::PrivateKey)),
        "{error}"
    );
}
