//! Faults that SoftHSM cannot show: calls that hang, crash or lie, errors of the device, PINs that are locked.

use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use domain::{failure::KeysFailure, key::KeyType};
use hsm_faults::Faults;
use keys::{
    KeyInfo, Keys, KeysError,
    pkcs11::{Options, Pkcs11Token, Program},
};

use crate::hsm::{Hsm, children, failure, sign};

/// Longer than it takes to replace a process: who waits for that shall not fail.
const LIMIT: Duration = Duration::from_millis(2500);

/// A token behind the module that fails on demand.
struct Sick {
    hsm: Hsm,
    faults: Faults,
}

impl Sick {
    fn new() -> Self {
        let hsm = Hsm::new();
        let faults = Faults::new(&hsm.path(""));
        Self { hsm, faults }
    }
    fn options(&self) -> Options {
        Options {
            module: Faults::module(),
            operation_limit: LIMIT,
            slow_limit: Duration::from_secs(20),
            ..self.hsm.options()
        }
    }
    fn open(&self) -> Pkcs11Token {
        self.open_with(self.options())
    }
    fn open_with(&self, options: Options) -> Pkcs11Token {
        let mut program: Program = self.hsm.program();
        let (name, value) = self.faults.environment();
        program
            .arguments
            .insert(0, format!("{name}={}", value.display()).into());
        Pkcs11Token::new("hsm".parse().unwrap(), options, program)
    }
    /// Two keys: `first`, with which something will be wrong, and `second`.
    fn with_keys(&self) -> (Pkcs11Token, KeyInfo, KeyInfo) {
        let token = self.open();
        let [first, second] = ["first", "second"].map(|name| token.generate(name, KeyType::P256).unwrap());
        (token, first, second)
    }
}

const FIRST: &str = "id=6669727374";

fn verifies(key: &KeyInfo, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.public_key)
        .verify(b"message", signature)
        .is_ok()
}

#[test]
fn a_call_that_hangs_is_given_up_and_its_process_replaced_while_others_go_on() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    let before = children();
    sick.faults.set(&format!("sign hang {FIRST}"));
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| {
            let began = Instant::now();
            (sign(&token, "first"), began.elapsed())
        });
        // Whoever has another key does not notice: not while it hangs, and not while the process is replaced.
        while !hanging.is_finished() {
            sign(&token, "second").unwrap();
        }
        let (hung, took) = hanging.join().unwrap();
        assert_eq!(failure(hung), KeysFailure::Hang);
        assert!(took >= LIMIT, "{took:?}");
    });
    sign(&token, "second").unwrap();
    token.canary().unwrap();
    sick.faults.set("");
    sign(&token, "first").unwrap();
    // The process in which it hung is gone.
    let until = Instant::now() + Duration::from_secs(10);
    while children().iter().any(|child| before.contains(child)) {
        assert!(Instant::now() < until, "the hanging process lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(children().len(), 1);
}

#[test]
fn a_token_that_hangs_altogether_fails_and_recovers() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    sick.faults.set("sign hang");
    std::thread::scope(|scope| {
        // More than there are seats: nobody waits for ever.
        let calls: Vec<_> = (0..24).map(|_| scope.spawn(|| sign(&token, "second"))).collect();
        for call in calls {
            let failure = failure(call.join().unwrap());
            assert!(
                matches!(failure, KeysFailure::Hang | KeysFailure::Device),
                "{failure:?}"
            );
        }
    });
    assert!(matches!(failure(token.canary()), KeysFailure::Hang));
    sick.faults.set("");
    let until = Instant::now() + Duration::from_secs(20);
    while token.canary().is_err() {
        assert!(Instant::now() < until, "the token does not recover");
    }
    sign(&token, "first").unwrap();
}

#[test]
fn a_crash_in_the_library_is_the_tokens_failure_and_nobody_elses() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    sick.faults.set(&format!("sign crash {FIRST}"));
    let crashed: KeysError = sign(&token, "first").unwrap_err();
    assert_eq!(crashed.failure, KeysFailure::Device);
    assert!(crashed.detail.contains("process has ended"), "{crashed}");
    sign(&token, "second").unwrap();
    token.canary().unwrap();
}

#[test]
fn an_error_of_the_device_is_the_tokens_whatever_key_it_meets() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    let before = children();
    // CKR_DEVICE_ERROR, CKR_TOKEN_NOT_PRESENT
    for value in ["0x30", "0xe0"] {
        sick.faults.set(&format!("sign return={value} {FIRST}"));
        assert_eq!(failure(sign(&token, "first")), KeysFailure::Device, "{value}");
        // The canary key tells that the token is well: nobody else has to wait for another process.
        sign(&token, "second").unwrap();
        token.canary().unwrap();
        assert_eq!(children(), before);
    }
    sick.faults.set("sign return=0x30");
    assert_eq!(failure(sign(&token, "second")), KeysFailure::Device);
    assert_eq!(failure(token.canary()), KeysFailure::Device);
    sick.faults.set("");
    let until = Instant::now() + Duration::from_secs(20);
    while sign(&token, "second").is_err() {
        assert!(Instant::now() < until, "the token does not recover");
    }
}

#[test]
fn an_unclear_error_is_the_keys_while_the_canary_key_is_well_and_the_tokens_otherwise() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    // CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, a vendor's own
    for value in ["0x5", "0x6", "0x80000001"] {
        sick.faults.set(&format!("sign return={value} {FIRST}"));
        assert_eq!(failure(sign(&token, "first")), KeysFailure::OperationFailed, "{value}");
        sign(&token, "second").unwrap();
        sick.faults.set(&format!("sign return={value}"));
        assert_eq!(failure(sign(&token, "first")), KeysFailure::Device, "{value}");
        sick.faults.set("");
        let until = Instant::now() + Duration::from_secs(20);
        while sign(&token, "first").is_err() {
            assert!(Instant::now() < until, "the token does not recover from {value}");
        }
    }
}

#[test]
fn what_another_session_or_login_mends_is_no_failure() {
    let sick = Sick::new();
    let (token, first, _) = sick.with_keys();
    sign(&token, "first").unwrap();
    let before = children();
    // Somebody logs out; CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_OPERATION_ACTIVE, CKR_OBJECT_HANDLE_INVALID,
    // CKR_KEY_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN, CKR_DEVICE_ERROR
    for fault in [
        "logout",
        "return=0xb3",
        "return=0xb0",
        "return=0x90",
        "return=0x82",
        "return=0x60",
        "return=0x101",
        "return=0x30",
    ] {
        let struck = sick.faults.calls("struck");
        sick.faults.set(&format!("sign {fault} times=1"));
        let signature = sign(&token, "first").unwrap_or_else(|error| panic!("{fault}: {error}"));
        assert!(verifies(&first, &signature), "{fault}");
        assert_eq!(sick.faults.calls("struck"), struck + 1, "{fault}");
    }
    assert_eq!(children(), before);
}

#[test]
fn a_logout_is_not_taken_for_a_lost_key() {
    let sick = Sick::new();
    let (token, first, second) = sick.with_keys();
    for call in 0..3 {
        let struck = sick.faults.calls("struck");
        sick.faults.set("find logout times=1");
        match call {
            0 => assert_eq!(token.find("first"), Ok(Some(first.clone()))),
            1 => assert_eq!(token.find("second"), Ok(Some(second.clone()))),
            _ => assert!(verifies(&second, &sign(&token, "second").unwrap())),
        }
        sick.faults.set("");
        // A signature needs no search where the key is known already.
        assert!(call == 2 || sick.faults.calls("struck") == struck + 1);
    }
}

#[test]
fn a_library_that_was_finalised_is_loaded_anew() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    let before = children();
    // CKR_CRYPTOKI_NOT_INITIALIZED
    sick.faults.set("sign return=0x190");
    assert_eq!(failure(sign(&token, "first")), KeysFailure::Device);
    sick.faults.set("");
    sign(&token, "first").unwrap();
    assert_ne!(children(), before);
}

#[test]
fn a_wrong_signature_reaches_whoever_verifies_and_a_wrong_canary_is_the_tokens() {
    let sick = Sick::new();
    let (token, first, second) = sick.with_keys();
    sick.faults.set(&format!("sign wrong {FIRST}"));
    assert!(!verifies(&first, &sign(&token, "first").unwrap()));
    assert!(verifies(&second, &sign(&token, "second").unwrap()));
    token.canary().unwrap();
    sick.faults.set("sign wrong");
    assert_eq!(failure(token.canary()), KeysFailure::Device);
}

#[test]
fn a_pin_that_is_locked_or_nearly_so_is_not_tried() {
    for (fault, logins) in [
        ("info locked", 0),
        ("info final-try", 0),
        // CKR_PIN_LOCKED, CKR_PIN_EXPIRED, CKR_PIN_INCORRECT
        ("login return=0xa4", 1),
        ("login return=0xa3", 1),
        ("login return=0xa0", 1),
    ] {
        let sick = Sick::new();
        sick.faults.set(fault);
        for _ in 0..2 {
            let token = sick.open();
            for _ in 0..3 {
                assert_eq!(failure(sign(&token, "first")), KeysFailure::PinRefused, "{fault}");
                assert_eq!(failure(token.canary()), KeysFailure::PinRefused, "{fault}");
            }
        }
        assert_eq!(sick.faults.calls("login"), logins, "{fault}");
        // What was wrong is right again, and still nobody logs in before an operator says so.
        sick.faults.set("");
        assert_eq!(failure(sick.open().canary()), KeysFailure::PinRefused, "{fault}");
        assert_eq!(sick.faults.calls("login"), logins, "{fault}");
    }
}

#[test]
fn a_logout_with_a_locked_pin_is_not_answered_by_a_login() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    let logins = sick.faults.calls("login");
    sick.faults.set("sign logout times=1\ninfo locked");
    assert_eq!(failure(sign(&token, "first")), KeysFailure::PinRefused);
    sick.faults.set("");
    assert_eq!(failure(sign(&token, "second")), KeysFailure::PinRefused);
    assert_eq!(sick.faults.calls("login"), logins);
}

#[test]
fn a_slow_key_holds_up_nobody_else() {
    let sick = Sick::new();
    let (token, ..) = sick.with_keys();
    sick.faults.set(&format!("sign slow=400 {FIRST}"));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| sign(&token, "first"));
        let mut signed = 0;
        while !slow.is_finished() {
            sign(&token, "second").unwrap();
            signed += 1;
        }
        slow.join().unwrap().unwrap();
        assert!(signed > 1, "{signed}");
    });
}

#[test]
fn a_token_that_hangs_while_it_is_opened_is_waited_for_once() {
    let sick = Sick::new();
    sick.faults.set("login hang");
    let token = sick.open_with(Options {
        slow_limit: Duration::from_secs(5),
        ..sick.options()
    });
    assert_eq!(failure(sign(&token, "first")), KeysFailure::Device);
    let began = Instant::now();
    for number in 0..50 {
        assert_eq!(failure(token.find(&format!("key-{number}"))), KeysFailure::Device);
    }
    assert!(
        began.elapsed() < LIMIT,
        "each of many calls waits: {:?}",
        began.elapsed()
    );
    sick.faults.set("");
    let until = Instant::now() + Duration::from_secs(20);
    while token.canary().is_err() {
        assert!(Instant::now() < until, "the token does not recover");
        std::thread::sleep(Duration::from_millis(20));
    }
}
