//! The contract that every adapter keeps, and keys that were made with other tools.

use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1, EcdsaKeyPair, Ed25519KeyPair, UnparsedPublicKey},
};
use domain::{
    failure::KeysFailure,
    key::{KeyType, SignatureAlgorithm},
};
use keys::{Keys, suite};

use crate::hsm::{Hsm, failure, sign};

#[test]
fn the_contract_is_kept() {
    let hsm = Hsm::new();
    let token = hsm.open();
    for (what, check) in suite::CONTRACT {
        eprintln!("{what}");
        check(&token);
    }
    assert!(token.fit_for_real_ca());
}

#[test]
fn keys_of_another_tool_are_known_by_their_cka_id() {
    let hsm = Hsm::new();
    hsm.pkcs11_tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        "01ff",
        "--label",
        "a",
    ]);
    hsm.pkcs11_tool(&[
        "--keypairgen",
        "--key-type",
        "rsa:2048",
        "--id",
        "706c61696e",
        "--label",
        "b",
    ]);
    let token = hsm.open();
    let listed = token.list().unwrap();
    let named: Vec<_> = listed.iter().map(|key| (key.name.as_str(), key.key_type)).collect();
    assert_eq!(named, [("0x01ff", KeyType::P256), ("plain", KeyType::Rsa2048)]);
    let signature = sign(&token, "0x01ff").unwrap();
    assert!(
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &listed[0].public_key)
            .verify(b"message", &signature)
            .is_ok()
    );
    // Two keys of one name: nobody can say which one is meant.
    hsm.pkcs11_tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        "01ff",
        "--label",
        "c",
    ]);
    assert_eq!(failure(token.find("0x01ff")), KeysFailure::KeyUnfit);
}

#[test]
fn keys_that_were_made_elsewhere_are_taken_in_and_never_come_out() {
    let hsm = Hsm::new();
    let token = hsm.open();
    let p256 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    for (name, pkcs8, key_type) in [
        ("p256", p256.to_pkcs8v1().unwrap().as_ref(), KeyType::P256),
        ("ed25519", ed25519.to_pkcs8v1().unwrap().as_ref(), KeyType::Ed25519),
        ("ed25519-2", ed25519.to_pkcs8().unwrap().as_ref(), KeyType::Ed25519),
        ("rsa", pkcs8.as_ref(), KeyType::Rsa2048),
    ] {
        let taken = token
            .import(name, pkcs8)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((taken.name.as_str(), taken.key_type), (name, key_type));
        assert_eq!(token.find(name), Ok(Some(taken.clone())));
        let signature = token.sign(name, key_type.signature_algorithm(), b"message").unwrap();
        let verification: &'static dyn aws_lc_rs::signature::VerificationAlgorithm = match key_type {
            KeyType::P256 => &ECDSA_P256_SHA256_ASN1,
            KeyType::Ed25519 => &aws_lc_rs::signature::ED25519,
            _ => &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
        };
        let verified = UnparsedPublicKey::new(verification, &taken.public_key).verify(b"message", &signature);
        assert!(verified.is_ok(), "{name}");
        assert_eq!(failure(token.import(name, pkcs8)), KeysFailure::KeyExists);
    }
    assert_eq!(
        failure(token.import("nonsense", b"\x30\x03\x02\x01\x00")),
        KeysFailure::KeyUnfit
    );
    assert_eq!(token.find("nonsense"), Ok(None));
    let attributes = hsm.pkcs11_tool(&["--list-objects", "--type", "privkey"]);
    // Four, and the canary key.
    assert_eq!(attributes.matches("Private Key Object").count(), 5, "{attributes}");
    assert_eq!(attributes.matches("Access:     sensitive").count(), 5, "{attributes}");
    for line in attributes.lines() {
        assert!(!line.contains("Usage:") || line.trim() == "Usage:      sign", "{line}");
        assert!(
            !line.contains("extractable") || line.contains("never extractable"),
            "{line}"
        );
    }
}

#[test]
fn the_canary_key_belongs_to_nobody() {
    let hsm = Hsm::new();
    let token = hsm.open();
    token.canary().unwrap();
    assert_eq!(token.list(), Ok(vec![]));
    let canary = "0x42756c6b686561642063616e617279";
    assert_eq!(token.find(canary), Ok(None));
    assert_eq!(failure(token.destroy(canary)), KeysFailure::KeyNotFound);
    assert_eq!(failure(token.generate(canary, KeyType::P256)), KeysFailure::KeyUnfit);
    // It is there for good: another process finds the same one.
    drop(token);
    let again = hsm.open();
    again.canary().unwrap();
    let objects = hsm.pkcs11_tool(&["--list-objects", "--type", "privkey"]);
    assert_eq!(objects.matches("Private Key Object").count(), 1, "{objects}");
    // Deleted, it is missed, and says nothing about the keys of issuers.
    again.generate("issuing", KeyType::P256).unwrap();
    let id = &canary[2..];
    hsm.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", id]);
    assert_eq!(failure(again.canary()), KeysFailure::KeyNotFound);
    sign(&again, "issuing").unwrap();
    assert_eq!(
        failure(again.sign("issuing", SignatureAlgorithm::RsaSha256, b"message")),
        KeysFailure::KeyUnfit
    );
}
