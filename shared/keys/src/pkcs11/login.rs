//! The PIN: read from its file, given to the token only while nothing speaks against it, and never again once it was refused.
//!
//! A token locks itself for good after a few wrong PINs, and everybody's keys with it. So a refusal is written down, in a file that
//! outlives every process, before anybody hears of it; as long as that file is there, nobody logs in. An operator who has put things
//! right removes it.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, SessionState, UserType},
    slot::Slot,
    types::RawAuthPin,
};
use domain::failure::KeysFailure;

use super::{
    Options,
    bench::Trouble,
    fault::{Fault, Meaning},
};
use crate::files;

const PIN_LIMIT: u64 = 1024;

/// The PIN of a token, and whether it may be used.
pub(super) struct Login {
    pin: RawAuthPin,
    /// Held while logging in: a token is logged in to once for all sessions.
    one_at_a_time: Mutex<()>,
    refused: std::path::PathBuf,
}

impl Login {
    /// Reads the PIN, unless it was refused.
    pub fn new(options: &Options) -> Result<Self, Fault> {
        refuse_if_refused(&options.refused_file)?;
        let unreadable = |why: &dyn std::fmt::Display| {
            Fault::new(
                KeysFailure::StoreUnreadable,
                format_args!("PIN file: {why}").to_string(),
            )
        };
        let (content, _) = files::read_private(&options.pin_file, PIN_LIMIT).map_err(|error| unreadable(&error))?;
        let pin = content.trim_ascii_end();
        if pin.is_empty() {
            return Err(unreadable(&format_args!(
                "{} is empty: write the user PIN into it",
                options.pin_file.display()
            )));
        }
        Ok(Self {
            pin: RawAuthPin::new(Box::new(pin.to_vec())),
            one_at_a_time: Mutex::new(()),
            refused: options.refused_file.clone(),
        })
    }

    /// Sees to it that the user is logged in. Tries the PIN only if nobody is, and never after it was refused once.
    pub fn ensure(&self, module: &Pkcs11, slot: Slot, session: &Session) -> Result<(), Trouble> {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        match session.get_session_info()?.session_state() {
            SessionState::RoUser | SessionState::RwUser => return Ok(()),
            SessionState::RoPublic | SessionState::RwPublic | SessionState::RwSecurityOfficer => {}
        }
        refuse_if_refused(&self.refused)?;
        let info = module.get_token_info(slot)?;
        if info.user_pin_locked() {
            return Err(self.refuse("the user PIN is locked: unlock it with the vendor's tool"));
        }
        if info.user_pin_final_try() {
            return Err(self.refuse(
                "one wrong PIN more locks this token: check the PIN file, and log in once with the vendor's tool",
            ));
        }
        match session.login_with_raw(UserType::User, &self.pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) if Meaning::of(&error) == Meaning::Pin => Err(self.refuse(&error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(&self, why: &str) -> Trouble {
        let written = write_down(&self.refused, why).map_err(|error| {
            format!(
                "; this could not be written to {} ({error}), so a restart will try once more",
                self.refused.display()
            )
        });
        let detail = format!(
            "the token refuses the login: {why}{}",
            written.err().unwrap_or_default()
        );
        Fault::spent(KeysFailure::PinRefused, detail).into()
    }
}

/// Fails while a refusal is on record.
pub(super) fn refuse_if_refused(file: &Path) -> Result<(), Fault> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        read => Err(Fault::spent(
            KeysFailure::PinRefused,
            format!(
                "the token has refused the login and is not asked again ({}): put the PIN right, then remove {}",
                read.map_or_else(|error| error.to_string(), |why| why.trim().to_owned()),
                file.display()
            ),
        )),
    }
}

fn write_down(file: &Path, why: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut record = fs::File::create(file)?;
    record.write_all(why.as_bytes())?;
    record.sync_all()?;
    file.parent()
        .map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}
