//! The contract of [`Keys`], as checks that panic when it is broken. Every adapter runs all of [`CONTRACT`] against the real thing.
//!
//! Signatures are verified by aws-lc-rs from the exported `SubjectPublicKeyInfo`, so neither the encoder of the keys nor the signing
//! code vouches for itself.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use domain::{
    failure::KeysFailure,
    key::{KeyType, SignatureAlgorithm},
};

use crate::{KeyInfo, Keys};

/// One check. The token may hold other keys, but none whose name begins with `suite-`.
pub type Contract = fn(&dyn Keys);

/// Every check, with its name.
pub const CONTRACT: [(&str, Contract); 8] = [
    (
        "keys of every type sign what their public halves verify",
        every_type_signs,
    ),
    ("an unknown key is not found", an_unknown_key_is_not_found),
    ("a name is taken only once", a_name_is_taken_once),
    ("a destroyed key is gone", a_destroyed_key_is_gone),
    ("an algorithm must fit the key", an_algorithm_must_fit),
    ("several threads sign at a time", threads_sign_at_a_time),
    ("long and empty messages are signed", any_message_is_signed),
    ("the canary is well and nobody's key", the_canary_is_nobodys_key),
];

const ALGORITHMS: [SignatureAlgorithm; 7] = [
    SignatureAlgorithm::RsaSha256,
    SignatureAlgorithm::RsaSha384,
    SignatureAlgorithm::RsaSha512,
    SignatureAlgorithm::EcdsaSha256,
    SignatureAlgorithm::EcdsaSha384,
    SignatureAlgorithm::EcdsaSha512,
    SignatureAlgorithm::Ed25519,
];

fn generate(keys: &dyn Keys, name: &str, key_type: KeyType) -> KeyInfo {
    let info = keys
        .generate(name, key_type)
        .unwrap_or_else(|error| panic!("generate {name}: {error}"));
    assert_eq!((info.name.as_str(), info.key_type), (name, key_type));
    info
}

fn sign(keys: &dyn Keys, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Vec<u8> {
    keys.sign(name, algorithm, message)
        .unwrap_or_else(|error| panic!("sign with {name}, {algorithm:?}: {error}"))
}

fn destroy(keys: &dyn Keys, name: &str) {
    keys.destroy(name)
        .unwrap_or_else(|error| panic!("destroy {name}: {error}"));
}

fn failure<T: std::fmt::Debug>(result: Result<T, crate::KeysError>, keys: &dyn Keys) -> KeysFailure {
    match result {
        Ok(done) => panic!("this should have failed, and gave {done:?}"),
        Err(error) => {
            assert_eq!(&error.token, keys.token());
            error.failure
        }
    }
}

fn verifies(public_key: &[u8], algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    let verification: &'static dyn VerificationAlgorithm = match algorithm {
        SignatureAlgorithm::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::RsaSha384 => &RSA_PKCS1_2048_8192_SHA384,
        SignatureAlgorithm::RsaSha512 => &RSA_PKCS1_2048_8192_SHA512,
        SignatureAlgorithm::EcdsaSha256 => &ECDSA_P256_SHA256_ASN1,
        SignatureAlgorithm::EcdsaSha384 => &ECDSA_P384_SHA384_ASN1,
        SignatureAlgorithm::EcdsaSha512 => &ECDSA_P521_SHA512_ASN1,
        SignatureAlgorithm::Ed25519 => &ED25519,
    };
    UnparsedPublicKey::new(verification, public_key)
        .verify(message, signature)
        .is_ok()
}

/// How a `SubjectPublicKeyInfo` of this type begins, and how long it is: RFC 3279, 2.3.1 with NULL parameters and the exponent 65537;
/// RFC 5480, 2.1.1 with a named curve and an uncompressed point; RFC 8410, 4 without parameters.
fn encoding(key_type: KeyType) -> (&'static [u8], usize) {
    match key_type {
        KeyType::Rsa2048 => (b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00\x30\x82\x01\x0a\x02\x82\x01\x01\x00", 294),
        KeyType::Rsa3072 => (b"\x30\x82\x01\xa2\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x8f\x00\x30\x82\x01\x8a\x02\x82\x01\x81\x00", 422),
        KeyType::Rsa4096 => (b"\x30\x82\x02\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x02\x0f\x00\x30\x82\x02\x0a\x02\x82\x02\x01\x00", 550),
        KeyType::P256 => (b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04", 91),
        KeyType::P384 => (b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04", 120),
        KeyType::P521 => (b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00\x04", 158),
        KeyType::Ed25519 => (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 44),
    }
}

fn every_type_signs(keys: &dyn Keys) {
    for key_type in KeyType::ALL {
        let name = format!("suite-{}", key_type.as_str().to_ascii_lowercase());
        let info = generate(keys, &name, key_type);
        let (beginning, length) = encoding(key_type);
        assert!(
            info.public_key.starts_with(beginning),
            "{key_type}: {:02x?}",
            info.public_key
        );
        assert_eq!(info.public_key.len(), length, "{key_type}");
        if key_type.is_rsa() {
            assert!(
                info.public_key.ends_with(b"\x02\x03\x01\x00\x01"),
                "the exponent is not 65537"
            );
        }
        assert_eq!(keys.find(&name).as_ref().map(Option::as_ref), Ok(Some(&info)));
        assert!(keys.list().is_ok_and(|all| all.contains(&info)), "{name} is not listed");

        for algorithm in ALGORITHMS.into_iter().filter(|algorithm| algorithm.fits(key_type)) {
            let signature = sign(keys, &name, algorithm, b"message");
            assert!(
                verifies(&info.public_key, algorithm, b"message", &signature),
                "{name}, {algorithm:?}"
            );
            assert!(
                !verifies(&info.public_key, algorithm, b"another", &signature),
                "{name}, {algorithm:?}"
            );
        }
        destroy(keys, &name);
    }
}

fn an_unknown_key_is_not_found(keys: &dyn Keys) {
    assert_eq!(keys.find("suite-nowhere"), Ok(None));
    let signed = keys.sign("suite-nowhere", SignatureAlgorithm::EcdsaSha256, b"message");
    assert_eq!(failure(signed, keys), KeysFailure::KeyNotFound);
    assert_eq!(failure(keys.destroy("suite-nowhere"), keys), KeysFailure::KeyNotFound);
}

fn a_name_is_taken_once(keys: &dyn Keys) {
    let first = generate(keys, "suite-taken", KeyType::P256);
    for key_type in [KeyType::P256, KeyType::Ed25519] {
        assert_eq!(
            failure(keys.generate("suite-taken", key_type), keys),
            KeysFailure::KeyExists
        );
    }
    assert_eq!(keys.find("suite-taken"), Ok(Some(first)));
    destroy(keys, "suite-taken");
}

fn a_destroyed_key_is_gone(keys: &dyn Keys) {
    let first = generate(keys, "suite-destroyed", KeyType::P256);
    let neighbour = generate(keys, "suite-neighbour", KeyType::P256);
    sign(keys, "suite-destroyed", SignatureAlgorithm::EcdsaSha256, b"message");
    destroy(keys, "suite-destroyed");

    let signed = keys.sign("suite-destroyed", SignatureAlgorithm::EcdsaSha256, b"message");
    assert_eq!(failure(signed, keys), KeysFailure::KeyNotFound);
    assert_eq!(failure(keys.destroy("suite-destroyed"), keys), KeysFailure::KeyNotFound);
    assert_eq!(keys.find("suite-destroyed"), Ok(None));
    assert!(
        keys.list()
            .is_ok_and(|all| !all.contains(&first) && all.contains(&neighbour))
    );
    sign(keys, "suite-neighbour", SignatureAlgorithm::EcdsaSha256, b"message");

    // The name is free again, and means another key.
    let second = generate(keys, "suite-destroyed", KeyType::P256);
    assert_ne!(second.public_key, first.public_key);
    let signature = sign(keys, "suite-destroyed", SignatureAlgorithm::EcdsaSha256, b"message");
    assert!(verifies(
        &second.public_key,
        SignatureAlgorithm::EcdsaSha256,
        b"message",
        &signature
    ));
    destroy(keys, "suite-destroyed");
    destroy(keys, "suite-neighbour");
}

fn an_algorithm_must_fit(keys: &dyn Keys) {
    for key_type in [KeyType::Rsa2048, KeyType::P256, KeyType::P384, KeyType::Ed25519] {
        generate(keys, "suite-unfit", key_type);
        for algorithm in ALGORITHMS.into_iter().filter(|algorithm| !algorithm.fits(key_type)) {
            let signed = keys.sign("suite-unfit", algorithm, b"message");
            assert_eq!(
                failure(signed, keys),
                KeysFailure::KeyUnfit,
                "{key_type} with {algorithm:?}"
            );
        }
        destroy(keys, "suite-unfit");
    }
}

fn threads_sign_at_a_time(keys: &dyn Keys) {
    let types = [KeyType::P256, KeyType::Rsa2048];
    let infos = types.map(|key_type| {
        let name = format!("suite-threads-{}", key_type.as_str().to_ascii_lowercase());
        generate(keys, &name, key_type)
    });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let infos = &infos;
            scope.spawn(move || {
                for round in 0..25 {
                    let info = &infos[(thread + round) % infos.len()];
                    let algorithm = info.key_type.signature_algorithm();
                    let message = format!("message {round} of thread {thread}");
                    let signature = sign(keys, &info.name, algorithm, message.as_bytes());
                    assert!(verifies(&info.public_key, algorithm, message.as_bytes(), &signature));
                }
            });
        }
    });
    for info in infos {
        destroy(keys, &info.name);
    }
}

fn any_message_is_signed(keys: &dyn Keys) {
    let info = generate(keys, "suite-message", KeyType::P256);
    for message in [vec![], vec![0], vec![0xa5; 1_000_000]] {
        let signature = sign(keys, "suite-message", SignatureAlgorithm::EcdsaSha256, &message);
        assert!(verifies(
            &info.public_key,
            SignatureAlgorithm::EcdsaSha256,
            &message,
            &signature
        ));
    }
    destroy(keys, "suite-message");
}

fn the_canary_is_nobodys_key(keys: &dyn Keys) {
    let before = keys.list().expect("keys can be listed");
    for _ in 0..3 {
        assert_eq!(keys.canary(), Ok(()));
    }
    assert_eq!(keys.list().as_ref(), Ok(&before), "the canary key is listed");
}
