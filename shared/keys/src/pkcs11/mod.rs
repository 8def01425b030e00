//! PKCS#11 tokens: hardware security modules, and whatever speaks like one.
//!
//! A vendor's library is code that nobody here has read: it may crash, and a call into it may hang for ever and cannot be cancelled. So it
//! is loaded by a child process and nowhere else ([`worker`]), which also alone reads the PIN; [`Pkcs11Token`] drives that process over a
//! socket, gives each call a limit, and kills and restarts what has hung or crashed.
//!
//! ```text
//!  caller ─┐                    ┌─ session thread ─┐
//!  caller ─┼─ Pkcs11Token ═════ worker             ├─ the vendor's library ── token
//!  caller ─┘   limits, seats    └─ session thread ─┘
//! ```
//!
//! Errors of the token are classified in `fault`, after `station` has tried what may help: another session, another login, another search
//! for the key, and the canary key where it must be known whether the key or the token is sick.

mod bench;
mod child;
mod fault;
mod form;
mod frame;
mod login;
mod name;
mod station;
mod token;
pub mod worker;

pub use self::{child::Program, token::Pkcs11Token};

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Which token, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// File that holds the user PIN, mode 0600; line ends at its end do not count.
    pub pin_file: PathBuf,
    /// Written when the token has refused the login. While it is there, nobody logs in; an operator removes it.
    pub refused_file: PathBuf,
    /// Sessions, each with a thread: how many operations the token does at a time.
    pub sessions: u16,
    /// How long one operation may take before it counts as hanging.
    pub operation_limit: Duration,
    /// The same for what takes long: opening the token, making keys.
    pub slow_limit: Duration,
}
