//! A PKCS#11 module that stands before SoftHSM and fails on demand, for faults that SoftHSM cannot show; [`Faults`], with which a test
//! makes it fail; and [`SoftHsm`], tokens of a test's own.
//!
//! Everything is handed on to SoftHSM, except what a control file says. The file is read at each call; a line is one fault:
//!
//! ```text
//! FUNCTION FAULT [id=HEX] [times=N]
//! sign hang                       this and every other call of C_Sign never returns
//! sign return=0x30 id=6669727374  with the key of this CKA_ID, C_SignInit returns CKR_DEVICE_ERROR
//! sign wrong times=1              the next signature is wrong
//! sign slow=300                   takes 300 ms longer
//! sign crash                      the process dies
//! sign logout times=1             somebody logs out first
//! find logout times=1             somebody logs out before a key is looked for
//! login return=0xa4               C_Login returns CKR_PIN_LOCKED, and SoftHSM hears nothing of it
//! info locked | final-try         what C_GetTokenInfo says of the user PIN
//! ```
//!
//! Each call of `C_Login` and `C_Sign`, and each fault that strikes, is noted in a second file beside it.

mod control;
mod module;
mod softhsm;

pub use control::Faults;
pub use softhsm::{PIN, SoftHsm};

/// SoftHSM's library, where Debian puts it.
const BEHIND: &str = "/usr/lib/softhsm/libsofthsm2.so";
