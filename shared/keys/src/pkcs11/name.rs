//! Names of keys, and the `CKA_ID`s that they stand for: one for one.

use std::fmt::Write;

/// The label and `CKA_ID` of the canary key. No name of a key stands for it, so no issuer can be bound to it.
const CANARY: &[u8] = b"Bulkhead canary";

/// A key's `CKA_ID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyId(Vec<u8>);

impl KeyId {
    /// The canary key's.
    pub fn canary() -> Self {
        Self(CANARY.to_vec())
    }

    /// What a name stands for: `0x` and hexadecimal digits for those bytes, anything else for its own text. `None` if it names no key.
    pub fn named(name: &str) -> Option<Self> {
        let id = match hexadecimal(name) {
            Some(bytes) => bytes,
            None if is_plain(name.as_bytes()) => name.as_bytes().to_vec(),
            None => return None,
        };
        let id = Self(id);
        (id != Self::canary() && id.name() == name).then_some(id)
    }

    /// A `CKA_ID` as it is found on a token; `None` for what no key of an issuer has: nothing at all, or the canary's.
    pub fn found(id: &[u8]) -> Option<Self> {
        (!id.is_empty() && id != CANARY).then(|| Self(id.to_vec()))
    }

    /// The name that stands for it.
    pub fn name(&self) -> String {
        match str::from_utf8(&self.0) {
            Ok(text) if is_plain(&self.0) && hexadecimal(text).is_none() => text.to_owned(),
            _ => self.0.iter().fold(String::from("0x"), |mut name, byte| {
                let _ = write!(name, "{byte:02x}");
                name
            }),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Text for `CKA_LABEL`, which is for people.
    pub fn label(&self) -> Vec<u8> {
        if *self == Self::canary() {
            CANARY.to_vec()
        } else {
            self.name().into_bytes()
        }
    }
}

/// The bytes that `0x` and pairs of lower-case digits stand for.
fn hexadecimal(name: &str) -> Option<Vec<u8>> {
    let digits = name.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    if pairs.is_empty() || pairs.len() > 63 {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// 1 to 63 characters of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or a digit: what soft keys are named, too.
fn is_plain(name: &[u8]) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 63
        && name.first().copied().is_some_and(ordinary)
        && name
            .iter()
            .all(|byte| ordinary(*byte) || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_identifiers_stand_for_one_another() {
        for (name, id) in [
            ("issuing-1", &b"issuing-1"[..]),
            ("0x01", &[1]),
            ("0x00ff", &[0, 255]),
            ("0x417a", b"Az"),
            ("0x", b"0x"),
            ("0x0", b"0x0"),
            // Text that would be read as hexadecimal is written as what it is.
            ("0x30786162", b"0xab"),
        ] {
            let found = KeyId::found(id).unwrap();
            assert_eq!(found.name(), name);
            assert_eq!(KeyId::named(name), Some(found));
        }
        for name in ["", "-a", "A", "a b", "0x6162", "0xAB", "a/b", &"a".repeat(64)] {
            assert_eq!(KeyId::named(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_stands_for_the_canary_key() {
        let canary = KeyId::canary();
        assert_eq!(KeyId::found(canary.bytes()), None);
        assert_eq!(KeyId::named(&canary.name()), None);
        assert_eq!(KeyId::named("Bulkhead canary"), None);
    }
}
