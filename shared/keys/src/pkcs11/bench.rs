//! A token that is open in this process: library, slot, login. What all its sessions share.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    session::Session,
    slot::{Slot, TokenInfo},
};
use domain::failure::KeysFailure;

use super::{
    Options,
    fault::{Fault, Meaning},
    login::Login,
};

/// Why a call did not end well: as the token says it, or as it is known already.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The token's own word.
    Token(Error),
    /// No object has this name. Whether the key is gone or only not to be seen is not known yet.
    Unseen,
    /// It is known what this is.
    Known(Fault),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}
impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Known(fault)
    }
}

/// A token that is open in this process.
pub(super) struct Bench {
    module: Pkcs11,
    slot: Slot,
    serial: String,
    login: Login,
    /// Stays open for as long as the process lives: some libraries lose the login, or worse, when the last session closes.
    _anchor: Mutex<Session>,
    /// Held by whoever makes or destroys keys: some libraries cannot do that twice at a time.
    changing: Mutex<()>,
    /// How often keys were destroyed here. Handles from before may have come to mean other keys.
    destroyed: AtomicU64,
}

impl Bench {
    /// Loads the library, finds the token, logs in.
    pub fn open(options: &Options) -> Result<Self, Fault> {
        let login = Login::new(options)?;
        let unusable = |error: Error| {
            let module = options.module.display();
            Fault::spent(
                KeysFailure::StoreUnreadable,
                format!("PKCS#11 module {module} cannot be used: {error}"),
            )
        };
        let module = Pkcs11::new(&options.module).map_err(unusable)?;
        module
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| at_opening(error.into(), "cannot be reached"))?;
        let (slot, info) = find(&module, options)?;
        let opened = (|| {
            let anchor = module.open_ro_session(slot)?;
            login.ensure(&module, slot, &anchor)?;
            Ok(anchor)
        })();
        let anchor = opened.map_err(|trouble| at_opening(trouble, "cannot be opened"))?;
        Ok(Self {
            module,
            slot,
            serial: info.serial_number().to_owned(),
            login,
            _anchor: Mutex::new(anchor),
            changing: Mutex::new(()),
            destroyed: AtomicU64::new(0),
        })
    }

    /// A session that can use keys.
    pub fn session(&self) -> Result<Session, Trouble> {
        let session = self.module.open_ro_session(self.slot)?;
        self.login(&session)?;
        Ok(session)
    }

    /// A session that can make and destroy keys, alone.
    pub fn change(&self) -> Result<(Session, MutexGuard<'_, ()>), Trouble> {
        let alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let session = self.module.open_rw_session(self.slot)?;
        self.login(&session)?;
        Ok((session, alone))
    }

    /// Sees to it that the user is logged in.
    pub fn login(&self, session: &Session) -> Result<(), Trouble> {
        self.login.ensure(&self.module, self.slot, session)
    }

    /// Whether the token that was opened is still there.
    pub fn present(&self) -> Result<(), String> {
        match self.module.get_token_info(self.slot) {
            Ok(info) if info.error_state() => Err("the token says that it is in an error state".into()),
            Ok(info) if info.serial_number() == self.serial => Ok(()),
            Ok(info) => Err(format!(
                "the token of serial number {} is gone, and {} is in its place",
                self.serial,
                info.serial_number()
            )),
            Err(error) => Err(format!("the token is gone: {error}")),
        }
    }

    /// How often keys were destroyed.
    pub fn destroyed(&self) -> u64 {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Keys were destroyed: handles are no longer to be trusted.
    pub fn has_destroyed(&self) {
        self.destroyed.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a failure says that met the very first calls, where there is nothing to compare it with.
pub(super) fn at_opening(trouble: Trouble, what: &str) -> Fault {
    match trouble {
        Trouble::Known(fault) => fault,
        Trouble::Unseen => Fault::spent(KeysFailure::KeyNotFound, what),
        Trouble::Token(error) => {
            let failure = match Meaning::of(&error) {
                Meaning::Pin => KeysFailure::PinRefused,
                Meaning::Library
                | Meaning::Stale
                | Meaning::Session
                | Meaning::Token
                | Meaning::Unclear
                | Meaning::Unfit
                | Meaning::Declined => KeysFailure::Device,
            };
            Fault::spent(failure, format!("the token {what}: {error}"))
        }
    }
}

fn find(module: &Pkcs11, options: &Options) -> Result<(Slot, TokenInfo), Fault> {
    let sick = |error: Error| at_opening(error.into(), "cannot be looked for");
    let mut found = Vec::new();
    let mut others = Vec::new();
    for slot in module.get_slots_with_token().map_err(sick)? {
        let info = match module.get_token_info(slot) {
            Ok(info) => info,
            // One slot that is out of order shall not hide the others.
            Err(Error::Pkcs11(RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::DeviceRemoved, _)) => {
                continue;
            }
            Err(error) => return Err(sick(error)),
        };
        let named = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        if info.token_initialized()
            && named(&options.label, info.label())
            && named(&options.serial, info.serial_number())
        {
            found.push((slot, info));
        } else if info.token_initialized() {
            others.push(format!("{:?} ({})", info.label(), info.serial_number()));
        }
    }
    let wanted = match (&options.label, &options.serial) {
        (Some(label), Some(serial)) => format!("with the label {label:?} and the serial number {serial}"),
        (Some(label), None) => format!("with the label {label:?}"),
        (None, Some(serial)) => format!("with the serial number {serial}"),
        (None, None) => "at all".into(),
    };
    if found.len() > 1 {
        return Err(Fault::spent(
            KeysFailure::StoreUnreadable,
            format!("there is more than one token {wanted}: say which, by its serial number"),
        ));
    }
    found.pop().ok_or_else(|| {
        Fault::spent(
            KeysFailure::Device,
            format!(
                "there is no token {wanted} in {}; there are: {}",
                options.module.display(),
                if others.is_empty() {
                    "none".into()
                } else {
                    others.join(", ")
                }
            ),
        )
    })
}
