//! What happens to tokens, and what each is taken for.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use domain::{failure::KeysFailure, key::KeyType};
use keys::{Keys, pkcs11::Pkcs11Token};

use crate::hsm::{Hsm, children, failure, kill, sign};

/// Signs until it works, or time is up.
fn until_signed(token: &Pkcs11Token, name: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match sign(token, name) {
            Ok(_) => return,
            Err(error) if Instant::now() > until => panic!("does not recover: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[test]
fn a_key_destroyed_under_load_is_one_issuers_affair() {
    let hsm = Hsm::new();
    let token = hsm.open();
    for name in ["first", "second"] {
        token.generate(name, KeyType::P256).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (gone, signed) = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            loop {
                if let Err(error) = sign(&token, "first") {
                    return error.failure;
                }
            }
        });
        let second = scope.spawn(|| {
            let mut signed = 0;
            while !stop.load(Ordering::Relaxed) {
                sign(&token, "second").unwrap();
                signed += 1;
            }
            signed
        });
        // "first"
        hsm.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "6669727374"]);
        let gone = first.join().unwrap();
        for _ in 0..20 {
            assert_eq!(failure(sign(&token, "first")), KeysFailure::KeyNotFound);
        }
        stop.store(true, Ordering::Relaxed);
        (gone, second.join().unwrap())
    });
    assert_eq!(gone, KeysFailure::KeyNotFound);
    assert!(signed > 0);
    token.canary().unwrap();
}

#[test]
fn a_token_that_is_gone_is_the_tokens_affair_and_comes_back() {
    let hsm = Hsm::new();
    let token = hsm.open();
    token.generate("issuing", KeyType::P256).unwrap();
    sign(&token, "issuing").unwrap();
    let elsewhere = hsm.path("elsewhere");
    fs::rename(hsm.tokens(), &elsewhere).unwrap();
    for _ in 0..5 {
        assert_eq!(failure(sign(&token, "issuing")), KeysFailure::Device);
        assert_eq!(failure(token.find("issuing")), KeysFailure::Device);
        assert_eq!(failure(token.canary()), KeysFailure::Device);
    }
    fs::rename(&elsewhere, hsm.tokens()).unwrap();
    until_signed(&token, "issuing");
    token.canary().unwrap();
}

#[test]
fn a_wrong_pin_is_tried_once_and_not_again_after_a_restart() {
    let hsm = Hsm::new();
    hsm.write_pin("999999");
    for _ in 0..3 {
        let token = hsm.open();
        for _ in 0..3 {
            let error = sign(&token, "issuing").unwrap_err();
            assert_eq!(error.failure, KeysFailure::PinRefused, "{error}");
            assert!(!error.to_string().contains("999999"), "{error}");
        }
    }
    let refusal = fs::read_to_string(hsm.refused_file()).unwrap();
    assert!(!refusal.contains("999999"), "{refusal}");
    // The right PIN alone does not help: somebody must say that it is right.
    hsm.write_pin(hsm_faults::PIN);
    let token = hsm.open();
    assert_eq!(failure(token.canary()), KeysFailure::PinRefused);
    fs::remove_file(hsm.refused_file()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while token.canary().is_err() {
        assert!(Instant::now() < until, "the token is not tried again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pin_file_that_others_may_read_is_refused() {
    let hsm = Hsm::new();
    fs::set_permissions(hsm.path("pin"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = hsm.open().canary().unwrap_err();
    assert_eq!(error.failure, KeysFailure::StoreUnreadable);
    assert!(error.detail.contains("chmod 600"), "{error}");
    fs::remove_file(hsm.path("pin")).unwrap();
    let error = hsm.open().canary().unwrap_err();
    assert_eq!(error.failure, KeysFailure::StoreUnreadable);
    assert!(error.detail.contains("does not exist"), "{error}");
}

#[test]
fn a_library_or_token_that_is_not_there_is_named() {
    let hsm = Hsm::new();
    let mut options = hsm.options();
    options.module = "/nowhere/libvendor.so".into();
    let error = hsm.open_with(options).canary().unwrap_err();
    assert_eq!(error.failure, KeysFailure::StoreUnreadable);
    assert!(error.detail.contains("/nowhere/libvendor.so"), "{error}");
    let mut options = hsm.options();
    options.label = Some("other".into());
    let error = hsm.open_with(options).canary().unwrap_err();
    assert_eq!(error.failure, KeysFailure::Device);
    assert!(
        error.detail.contains("\"other\"") && error.detail.contains("\"issuing\""),
        "{error}"
    );
}

#[test]
fn a_process_that_is_killed_is_replaced_at_most_once_a_second() {
    let hsm = Hsm::new();
    let token = hsm.open();
    token.generate("issuing", KeyType::P256).unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        let before = children();
        assert_eq!(before.len(), 1, "one process for a token");
        kill(before[0]);
        // Whoever was asking is told; whoever asks afterwards waits for the next one.
        until_signed(&token, "issuing");
        assert_ne!(children(), before);
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn the_process_ends_with_the_token() {
    let hsm = Hsm::new();
    let token = hsm.open();
    token.canary().unwrap();
    assert_eq!(children().len(), 1);
    drop(token);
    let until = Instant::now() + Duration::from_secs(10);
    while !children().is_empty() {
        assert!(Instant::now() < until, "the process goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn answers_are_never_mixed_up() {
    let hsm = Hsm::new();
    let token = hsm.open();
    let keys: Vec<_> = (0..4)
        .map(|number| token.generate(&format!("key-{number}"), KeyType::P256).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (token, keys) = (&token, &keys);
            scope.spawn(move || {
                for round in 0..50 {
                    let key = &keys[(thread + round) % keys.len()];
                    let message = vec![u8::try_from(thread).unwrap(); 10 * round];
                    let signature = token
                        .sign(&key.name, key.key_type.signature_algorithm(), &message)
                        .unwrap();
                    aws_lc_rs::signature::UnparsedPublicKey::new(
                        &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
                        &key.public_key,
                    )
                    .verify(&message, &signature)
                    .unwrap();
                }
            });
        }
    });
}
