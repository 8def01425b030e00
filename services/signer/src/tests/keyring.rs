//! Which keys a signer finds on tokens that fail.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use domain::{
    failure::KeysFailure,
    id::TokenId,
    issuer::Binding,
    key::{KeyType, SignatureAlgorithm},
};
use keys::{KeyInfo, Keys, KeysError};

use super::bench::Bench;
use crate::keyring::Keyring;

/// A token on which every call fails alike.
#[derive(Debug)]
struct Failing {
    token: TokenId,
    failure: KeysFailure,
    asked: AtomicU32,
}

impl Failing {
    fn fail<T>(&self) -> Result<T, KeysError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(KeysError {
            token: self.token.clone(),
            failure: self.failure,
            detail: "as told".into(),
        })
    }
}

impl Keys for Failing {
    fn token(&self) -> &TokenId {
        &self.token
    }
    fn fit_for_real_ca(&self) -> bool {
        false
    }
    fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        self.fail()
    }
    fn find(&self, _: &str) -> Result<Option<KeyInfo>, KeysError> {
        self.fail()
    }
    fn generate(&self, _: &str, _: KeyType) -> Result<KeyInfo, KeysError> {
        self.fail()
    }
    fn sign(&self, _: &str, _: SignatureAlgorithm, _: &[u8]) -> Result<Vec<u8>, KeysError> {
        self.fail()
    }
    fn canary(&self) -> Result<(), KeysError> {
        self.fail()
    }
    fn destroy(&self, _: &str) -> Result<(), KeysError> {
        self.fail()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_fails_as_a_whole_is_asked_once_and_not_for_every_issuer() {
    let bench = Bench::new().await;
    let snapshot = bench.snapshot();
    let issuers = u32::try_from(snapshot.issuers.len()).unwrap();
    assert!(issuers >= 2);
    for (failure, asked) in [(KeysFailure::Hang, 1), (KeysFailure::OperationFailed, issuers)] {
        let token = Arc::new(Failing {
            token: bench.token.token().clone(),
            failure,
            asked: AtomicU32::new(0),
        });
        let keys: Vec<Arc<dyn Keys>> = vec![token.clone()];
        let ring = Keyring::look(&snapshot, &keys, &[], &Keyring::default());
        assert_eq!(token.asked.load(Ordering::Relaxed), asked, "{failure:?}");
        assert_eq!(ring.missing().len(), snapshot.issuers.len());
        assert!(ring.missing().values().all(|reason| reason.contains("as told")));
    }
}

/// Another token with the same keys.
#[derive(Debug)]
struct Twin {
    token: TokenId,
    keys: Arc<dyn Keys>,
}

impl Keys for Twin {
    fn token(&self) -> &TokenId {
        &self.token
    }
    fn fit_for_real_ca(&self) -> bool {
        self.keys.fit_for_real_ca()
    }
    fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        self.keys.list()
    }
    fn find(&self, name: &str) -> Result<Option<KeyInfo>, KeysError> {
        self.keys.find(name)
    }
    fn generate(&self, name: &str, key_type: KeyType) -> Result<KeyInfo, KeysError> {
        self.keys.generate(name, key_type)
    }
    fn sign(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        self.keys.sign(name, algorithm, message)
    }
    fn canary(&self) -> Result<(), KeysError> {
        self.keys.canary()
    }
    fn destroy(&self, name: &str) -> Result<(), KeysError> {
        self.keys.destroy(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_on_several_tokens_is_signed_for_on_the_first_that_is_not_out() {
    let bench = Bench::new().await;
    let (first, second) = (bench.token.token().clone(), "second".parse::<TokenId>().unwrap());
    let mut snapshot = (*bench.snapshot()).clone();
    let mut issuer = bench.issuer("a");
    let id = issuer.id.clone();
    issuer.bindings.push(Binding {
        token: second.clone(),
        key: issuer.bindings[0].key.clone(),
    });
    snapshot.issuers.insert(id.clone(), Arc::new(issuer));
    let twin = Twin {
        token: second.clone(),
        keys: bench.token.clone(),
    };
    let keys: Vec<Arc<dyn Keys>> = vec![bench.token.clone(), Arc::new(twin)];
    let mut ring = Keyring::default();
    for (out, on) in [
        (vec![], &first),
        (vec![first.clone()], &second),
        (vec![first.clone(), second.clone()], &first),
        (vec![second.clone()], &first),
    ] {
        ring = Keyring::look(&snapshot, &keys, &out, &ring);
        assert_eq!(ring.get(&id).unwrap().token(), on, "out: {out:?}");
        let announced = ring.issuers_beside(&out).contains(&id);
        assert_eq!(announced, !out.contains(on), "out: {out:?}");
    }
}
