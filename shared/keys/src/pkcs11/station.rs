//! One session with a token, on one thread: everything that is done with keys, and what is tried before a failure is called one.

use std::{collections::HashMap, sync::Arc};

use cryptoki::{
    error::Error,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use domain::{
    failure::KeysFailure,
    key::{KeyType, SignatureAlgorithm},
};
use zeroize::Zeroize;

use super::{
    bench::{Bench, Trouble},
    fault::{Fault, Meaning},
    form,
    frame::Canary,
    name::KeyId,
};
use crate::{KeyInfo, pair::Pair};

/// Handles that a session remembers.
const REMEMBERED: usize = 65_536;
/// What the worker itself has the canary key sign, to tell a sick key from a sick token.
const SELF_TEST: &[u8] = b"bulkhead canary: this is no certificate, no CRL and no OCSP response";

/// One session with a token.
pub(super) struct Station {
    bench: Arc<Bench>,
    session: Option<Session>,
    keys: HashMap<KeyId, (ObjectHandle, KeyType)>,
    destroyed: u64,
}

impl Station {
    /// A session is opened when it is first needed.
    pub fn new(bench: Arc<Bench>) -> Self {
        Self {
            bench,
            session: None,
            keys: HashMap::new(),
            destroyed: 0,
        }
    }

    /// Every key on the token that is of one of our types. Two halves belong together by their `CKA_ID`.
    pub fn list(&mut self) -> Result<Vec<KeyInfo>, Fault> {
        let mut keys = self.persist(|station| {
            let session = station.session()?;
            let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
            let mut keys = Vec::new();
            for handle in session.find_objects(&private)? {
                for attribute in session.get_attributes(handle, &[AttributeType::Id])? {
                    if let Attribute::Id(id) = attribute
                        && let Some(id) = KeyId::found(&id)
                        && let Some((key_type, public_key)) = public_key(session, &id, handle)?
                    {
                        keys.push(info(&id, key_type, public_key));
                    }
                }
            }
            Ok(keys)
        })?;
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }

    /// One key.
    pub fn find(&mut self, name: &str) -> Result<Option<KeyInfo>, Fault> {
        let Some(id) = KeyId::named(name) else { return Ok(None) };
        match self.persist(|station| station.look(&id)) {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.failure == KeysFailure::KeyNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Makes a key pair.
    pub fn generate(&mut self, name: &str, key_type: KeyType) -> Result<KeyInfo, Fault> {
        let id = new_name(name)?;
        self.make(&id, key_type)?;
        self.persist(|station| station.look(&id))
    }

    /// Takes in a key pair that was made elsewhere.
    pub fn import(&mut self, name: &str, pkcs8: &[u8]) -> Result<KeyInfo, Fault> {
        let id = new_name(name)?;
        let unfit = || {
            Fault::new(
                KeysFailure::KeyUnfit,
                format!(
                    "key {name}: not an unencrypted PKCS#8 private key of RSA (2048, 3072, 4096 bits), P-256, P-384, P-521 or Ed25519"
                ),
            )
        };
        let pair = Pair::from_pkcs8(pkcs8).ok_or_else(unfit)?;
        let public_key = pair.public_key().map_err(|_| unfit())?;
        let public_half = form::public_half_of(pair.key_type(), &public_key).ok_or_else(unfit)?;
        let mut private_half = form::private_key(pair.key_type(), pkcs8).ok_or_else(unfit)?;
        let taken = self.persist(|station| {
            let (session, _alone) = station.bench.change()?;
            refuse_taken(&session, &id)?;
            let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
            template.extend(form::public_half(&id));
            template.extend(public_half.iter().cloned());
            let public = session.create_object(&template)?;
            let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
            template.extend(form::private_half(&id));
            template.extend(private_half.iter().cloned());
            let private = session.create_object(&template);
            template.iter_mut().for_each(erase);
            if private.is_err() {
                // Half a key would keep the name for itself.
                session.destroy_object(public)?;
            }
            Ok(private.map(drop)?)
        });
        private_half.iter_mut().for_each(erase);
        taken?;
        self.persist(|station| station.look(&id))
    }

    /// Signs a message.
    pub fn sign(&mut self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let id = KeyId::named(name).ok_or_else(|| not_found(name))?;
        self.persist(|station| station.sign_once(&id, algorithm, message))
    }

    /// Signs a message with the canary key.
    pub fn sign_canary(&mut self, message: &[u8]) -> Result<Canary, Fault> {
        self.persist(|station| station.sign_canary_once(message))
    }

    fn sign_canary_once(&mut self, message: &[u8]) -> Result<Canary, Trouble> {
        let id = KeyId::canary();
        let signature = self.sign_once(&id, SignatureAlgorithm::EcdsaSha256, message)?;
        let session = self.session()?;
        let mut public_keys = Vec::new();
        for object in session.find_objects(&form::search(ObjectClass::PUBLIC_KEY, &id))? {
            let attributes = session.get_attributes(object, &form::PUBLIC_ATTRIBUTES)?;
            public_keys.extend(form::public_key(&attributes).map(|(_, public_key)| public_key));
        }
        Ok(Canary { public_keys, signature })
    }

    /// Makes the canary key, if there is none.
    pub fn ensure_canary(&mut self) -> Result<(), Fault> {
        let id = KeyId::canary();
        match self.persist(|station| station.look(&id)) {
            Err(fault) if fault.failure == KeysFailure::KeyNotFound => self.make(&id, KeyType::P256),
            looked => looked.map(drop),
        }
    }

    /// Destroys both halves of a key pair.
    pub fn destroy(&mut self, name: &str) -> Result<(), Fault> {
        let id = KeyId::named(name).ok_or_else(|| not_found(name))?;
        self.persist(|station| {
            let (session, _alone) = station.bench.change()?;
            let private = session.find_objects(&form::search(ObjectClass::PRIVATE_KEY, &id))?;
            let public = session.find_objects(&form::search(ObjectClass::PUBLIC_KEY, &id))?;
            if private.is_empty() && public.is_empty() {
                return Err(Trouble::Unseen);
            }
            for object in private.into_iter().chain(public) {
                session.destroy_object(object)?;
                station.bench.has_destroyed();
            }
            Ok(())
        })
    }

    fn make(&mut self, id: &KeyId, key_type: KeyType) -> Result<(), Fault> {
        let (mechanism, parameters) = form::generation(key_type).map_err(|error| {
            Fault::new(
                KeysFailure::OperationFailed,
                format!("a key of type {key_type} cannot be described: {error}"),
            )
        })?;
        let mut public_half = form::public_half(id);
        public_half.extend(parameters);
        self.persist(|station| {
            let (session, _alone) = station.bench.change()?;
            refuse_taken(&session, id)?;
            session.generate_key_pair(&mechanism, &public_half, &form::private_half(id))?;
            Ok(())
        })
    }

    fn look(&mut self, id: &KeyId) -> Result<KeyInfo, Trouble> {
        let session = self.session()?;
        let handle = only(session, id)?;
        let found = public_key(session, id, handle)?;
        let (key_type, public_key) = found.ok_or_else(|| {
            Fault::new(
                KeysFailure::KeyUnfit,
                format!(
                    "key {} is of no type that an issuer may have, or its public half is not on the token",
                    id.name()
                ),
            )
        })?;
        self.remember(id, handle, key_type);
        Ok(info(id, key_type, public_key))
    }

    fn sign_once(&mut self, id: &KeyId, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Trouble> {
        let destroyed = self.bench.destroyed();
        if destroyed != self.destroyed {
            self.keys.clear();
            self.destroyed = destroyed;
        }
        if !self.keys.contains_key(id) {
            self.look(id)?;
        }
        let (handle, key_type) = self.keys.get(id).copied().ok_or(Trouble::Unseen)?;
        if !algorithm.fits(key_type) {
            return Err(Fault::new(
                KeysFailure::KeyUnfit,
                format!("key {} of type {key_type} cannot sign with {algorithm:?}", id.name()),
            )
            .into());
        }
        let (mechanism, data) = form::to_sign(algorithm, message);
        let raw = self.session()?.sign(&mechanism, handle, &data)?;
        let length = raw.len();
        form::signature(key_type, raw).ok_or_else(|| {
            Fault::new(
                KeysFailure::OperationFailed,
                format!(
                    "signing with key {} gave {length} bytes, which is no signature",
                    id.name()
                ),
            )
            .into()
        })
    }

    /// Does something; where it fails in a way that may be the session's or the login's, puts that right and does it once more. What
    /// still fails then is a failure.
    fn persist<T>(&mut self, mut call: impl FnMut(&mut Self) -> Result<T, Trouble>) -> Result<T, Fault> {
        let trouble = match call(self) {
            Ok(done) => return Ok(done),
            Err(trouble) => trouble,
        };
        self.keys.clear();
        let prepared = match &trouble {
            Trouble::Known(_) => return Err(self.judge(trouble)),
            Trouble::Unseen => self.log_in(),
            Trouble::Token(error) => match Meaning::of(error) {
                Meaning::Stale => self.log_in(),
                Meaning::Session | Meaning::Token | Meaning::Unclear => {
                    self.session = None;
                    Ok(())
                }
                Meaning::Unfit | Meaning::Declined | Meaning::Pin | Meaning::Library => return Err(self.judge(trouble)),
            },
        };
        match prepared.and_then(|()| call(self)) {
            Ok(done) => Ok(done),
            Err(trouble) => Err(self.judge(trouble)),
        }
    }

    /// What a failure is, after everything that could be tried was tried.
    fn judge(&mut self, trouble: Trouble) -> Fault {
        let error = match trouble {
            Trouble::Known(fault) => return fault,
            Trouble::Unseen => {
                return match self.bench.present() {
                    Ok(()) => Fault::new(KeysFailure::KeyNotFound, "the key is not on the token"),
                    Err(gone) => Fault::spent(KeysFailure::Device, gone),
                };
            }
            Trouble::Token(error) => error,
        };
        let failed = |failure| Fault::new(failure, &error);
        match Meaning::of(&error) {
            Meaning::Unfit => failed(KeysFailure::KeyUnfit),
            Meaning::Declined => failed(KeysFailure::OperationFailed),
            Meaning::Pin => Fault::spent(KeysFailure::PinRefused, &error),
            Meaning::Library => Fault::spent(KeysFailure::Device, &error),
            Meaning::Session | Meaning::Token => match self.test() {
                Ok(()) => failed(KeysFailure::Device),
                Err(sick) => Fault::spent(KeysFailure::Device, format!("{error}; {sick}")),
            },
            Meaning::Stale | Meaning::Unclear => match self.test() {
                Ok(()) => failed(KeysFailure::OperationFailed),
                Err(sick) => Fault::spent(KeysFailure::Device, format!("{error}; {sick}")),
            },
        }
    }

    /// Tests the token, in a new session: it is there, and its canary key signs. A canary key that is missing says nothing.
    fn test(&mut self) -> Result<(), String> {
        self.session = None;
        self.keys.clear();
        self.bench.present()?;
        match self.sign_canary_once(SELF_TEST) {
            Ok(canary) if canary.verifies(SELF_TEST) => Ok(()),
            Ok(_) => Err("the canary key's signature is wrong".into()),
            Err(Trouble::Unseen) => Ok(()),
            Err(Trouble::Token(error)) => Err(format!("the canary key fails as well: {error}")),
            Err(Trouble::Known(fault)) => Err(format!("the canary key fails as well: {}", fault.detail)),
        }
    }

    fn session(&mut self) -> Result<&Session, Trouble> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.bench.session()?,
        };
        Ok(self.session.insert(session))
    }

    fn log_in(&mut self) -> Result<(), Trouble> {
        let bench = self.bench.clone();
        bench.login(self.session()?)
    }

    fn remember(&mut self, id: &KeyId, handle: ObjectHandle, key_type: KeyType) {
        if self.keys.len() >= REMEMBERED {
            self.keys.clear();
        }
        self.keys.insert(id.clone(), (handle, key_type));
    }
}

/// The one private key of this identifier. Of canary keys there may be several, where two signers made one at the same time.
fn only(session: &Session, id: &KeyId) -> Result<ObjectHandle, Trouble> {
    let mut found = session.find_objects(&form::search(ObjectClass::PRIVATE_KEY, id))?;
    if found.len() > 1 && *id != KeyId::canary() {
        return Err(Fault::new(
            KeysFailure::KeyUnfit,
            format!(
                "{} keys on the token have the CKA_ID {}: give each its own",
                found.len(),
                id.name()
            ),
        )
        .into());
    }
    found.truncate(1);
    found.pop().ok_or(Trouble::Unseen)
}

/// Type and public half, from the public object if there is one, otherwise from the private one.
fn public_key(session: &Session, id: &KeyId, private: ObjectHandle) -> Result<Option<(KeyType, Vec<u8>)>, Error> {
    for object in session
        .find_objects(&form::search(ObjectClass::PUBLIC_KEY, id))?
        .into_iter()
        .chain([private])
    {
        let attributes = session.get_attributes(object, &form::PUBLIC_ATTRIBUTES)?;
        if let Some(found) = form::public_key(&attributes) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn refuse_taken(session: &Session, id: &KeyId) -> Result<(), Trouble> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if !session.find_objects(&form::search(class, id))?.is_empty() {
            let detail = format!("key {} exists already", id.name());
            return Err(Fault::new(KeysFailure::KeyExists, detail).into());
        }
    }
    Ok(())
}

fn new_name(name: &str) -> Result<KeyId, Fault> {
    KeyId::named(name).ok_or_else(|| {
        Fault::new(
            KeysFailure::KeyUnfit,
            format!(
                "{name:?} cannot name a key: use 1 to 63 characters of a-z, 0-9, '-', '_' and '.', beginning with a letter or a digit, or \
                 0x and a CKA_ID in hexadecimal"
            ),
        )
    })
}

fn not_found(name: &str) -> Fault {
    Fault::new(KeysFailure::KeyNotFound, format!("no key can be called {name:?}"))
}

fn info(id: &KeyId, key_type: KeyType, public_key: Vec<u8>) -> KeyInfo {
    KeyInfo {
        name: id.name(),
        key_type,
        public_key,
    }
}

fn erase(attribute: &mut Attribute) {
    match attribute {
        Attribute::PrivateExponent(secret)
        | Attribute::Prime1(secret)
        | Attribute::Prime2(secret)
        | Attribute::Exponent1(secret)
        | Attribute::Exponent2(secret)
        | Attribute::Coefficient(secret)
        | Attribute::Value(secret) => secret.zeroize(),
        _ => {}
    }
}
