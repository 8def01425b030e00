//! Names and numbers that identify things. Parsed once, at the edge; held as values that cannot be wrong.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a valid {kind}: use 1 to 63 characters of a-z, 0-9, '-', '_' and '.', beginning with a letter or a digit"
)]
pub struct InvalidName {
    kind: &'static str,
    text: String,
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(InvalidName { kind: $kind, text: text.into() }) }
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// An issuer, as every command and every lane calls it.
    IssuerId,
    "issuer"
);
name!(
    /// A profile.
    ProfileId,
    "profile"
);
name!(
    /// An account: one API client.
    AccountId,
    "account"
);
name!(
    /// A node: one enrolled process with a key of its own.
    NodeId,
    "node"
);
name!(
    /// An operator.
    OperatorId,
    "operator"
);
name!(
    /// A token: where keys live, a PKCS#11 token or a software key store.
    TokenId,
    "token"
);

/// The serial number of a certificate, and at the same time the name of the job that makes it.
///
/// 16 bytes: `01`, 40 bits of milliseconds since 2020-01-01T00:00:00Z (enough until 2054), 80 random bits. Always positive, always
/// 16 bytes in DER (RFC 5280, section 4.1.2.2, allows 20), growing with time so that inserts stay in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial([u8; 16]);

/// 2020-01-01T00:00:00Z in milliseconds since the UNIX epoch: where the time in a serial begins.
const SERIAL_EPOCH: i64 = 1_577_836_800_000;

impl Serial {
    /// A serial for `now` with 80 bits of `entropy`. Times outside the 40 bits are clamped.
    pub fn new(now: Timestamp, entropy: [u8; 10]) -> Self {
        let ticks = (now.as_millis() - SERIAL_EPOCH).clamp(0, (1 << 40) - 1);
        let mut bytes = [0; 16];
        bytes[0] = 1;
        bytes[1..6].copy_from_slice(&ticks.to_be_bytes()[3..]);
        bytes[6..].copy_from_slice(&entropy);
        Self(bytes)
    }

    /// The 16 bytes, most significant first.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A serial from its 16 bytes; `None` unless the first is `01`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        (bytes[0] == 1).then_some(Self(bytes))
    }

    /// When the job was accepted, to the millisecond, as the serial tells it.
    pub fn time(&self) -> Timestamp {
        let mut ticks = [0; 8];
        ticks[3..].copy_from_slice(&self.0[1..6]);
        Timestamp::from_millis(i64::from_be_bytes(ticks) + SERIAL_EPOCH)
    }
}

/// Why a text is not a serial of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSerial {
    /// Not a row of hexadecimal digits (colons, hyphens, spaces and signs are not taken).
    #[error("invalid serial number length or digit: give the hexadecimal digits alone, without separators")]
    NotHexadecimal,
    /// A number, but never one that this installation gave out.
    #[error("no certificate has this serial number")]
    NotOurs,
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    /// Reads the text as a hexadecimal integer: any case, leading zeros or none (clients send 31 digits, `atlas-wire` 2.1).
    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidSerial::NotHexadecimal);
        }
        let digits = text.trim_start_matches('0');
        if digits.len() != 31 {
            return Err(InvalidSerial::NotOurs);
        }
        let value = u128::from_str_radix(digits, 16).map_err(|_| InvalidSerial::NotHexadecimal)?;
        Self::from_bytes(&value.to_be_bytes()).ok_or(InvalidSerial::NotOurs)
    }
}
impl TryFrom<String> for Serial {
    type Error = InvalidSerial;
    fn try_from(text: String) -> Result<Self, InvalidSerial> {
        text.parse()
    }
}
impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}
impl fmt::Display for Serial {
    /// 32 upper-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(32);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
        f.pad(&text)
    }
}
impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of one process: the node and a number that is new at every start. Leases and waits belong to it, so that a restarted
/// process is never taken for the one before.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// The node.
    pub node: NodeId,
    /// Random, new at every start.
    pub run: u64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}", self.node, self.run)
    }
}
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Incarnation {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            kind: "incarnation",
            text: text.into(),
        };
        let (node, run) = text.split_once('#').ok_or_else(invalid)?;
        Ok(Self {
            node: node.parse()?,
            run: u64::from_str_radix(run, 16).map_err(|_| invalid())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_serial_is_read_back_in_any_case_and_without_its_leading_zero(ms in SERIAL_EPOCH..SERIAL_EPOCH + (1 << 40), entropy: [u8; 10]) {
            let serial = Serial::new(Timestamp::from_millis(ms), entropy);
            let text = serial.to_string();
            prop_assert_eq!(text.len(), 32);
            prop_assert!(text.starts_with("01"));
            prop_assert_eq!(text.parse::<Serial>(), Ok(serial));
            prop_assert_eq!(text.to_lowercase()[1..].parse::<Serial>(), Ok(serial));
            prop_assert_eq!(serial.time().as_millis(), ms);
        }

        #[test]
        fn a_later_serial_sorts_after_an_earlier_one(ms in SERIAL_EPOCH..SERIAL_EPOCH + (1 << 40) - 1, a: [u8; 10], b: [u8; 10]) {
            prop_assert!(Serial::new(Timestamp::from_millis(ms), a) < Serial::new(Timestamp::from_millis(ms + 1), b));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let _ = text.parse::<Serial>();
            let _ = text.parse::<IssuerId>();
            let _ = text.parse::<Incarnation>();
        }
    }

    #[test]
    fn separators_and_signs_are_not_serials() {
        for text in ["", "01:02", "-1", "+1", "01-02", "0x01", " 01"] {
            assert_eq!(text.parse::<Serial>(), Err(InvalidSerial::NotHexadecimal), "{text:?}");
        }
        assert_eq!("0".parse::<Serial>(), Err(InvalidSerial::NotOurs));
    }
}
