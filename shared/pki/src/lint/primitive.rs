//! The primitive types of DER (X.690, clauses 8 and 11), judged by their contents.

use super::parser::{Element, Malformed, tag};

pub(super) fn characters(content: &[u8], kind: &'static str, allowed: fn(u8) -> bool) -> Result<(), Malformed> {
    if content.iter().all(|&byte| allowed(byte)) {
        Ok(())
    } else {
        Err(Malformed::Characters(kind))
    }
}

pub(super) const fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b' ' | b'\'' | b'(' | b')' | b'+' | b',' | b'-' | b'.' | b'/' | b':' | b'=' | b'?'
        )
}

/// The contents of a BOOLEAN.
pub(super) const fn boolean(content: &[u8]) -> Result<bool, Malformed> {
    match content {
        [0x00] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(Malformed::Boolean),
    }
}

/// The contents of an INTEGER: two's complement in the fewest bytes.
pub(super) const fn integer(content: &[u8]) -> Result<&[u8], Malformed> {
    match content {
        [] => Err(Malformed::Integer),
        [0x00, second, ..] if *second < 0x80 => Err(Malformed::Integer),
        [0xff, second, ..] if *second >= 0x80 => Err(Malformed::Integer),
        _ => Ok(content),
    }
}

/// The contents of a BIT STRING: how many bits of the last byte are unused, and the bytes.
pub(super) fn bit_string(content: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let (&unused, bytes) = content.split_first().ok_or(Malformed::BitString)?;
    let clear = match bytes.last() {
        Some(last) => unused < 8 && u16::from(*last) & ((1 << unused) - 1) == 0,
        None => unused == 0,
    };
    if clear {
        Ok((unused, bytes))
    } else {
        Err(Malformed::BitString)
    }
}

/// The contents of an OBJECT IDENTIFIER: each number in the fewest bytes.
pub(super) fn object_identifier(content: &[u8]) -> Result<&[u8], Malformed> {
    let mut begins = true;
    for &byte in content {
        if begins && byte == 0x80 {
            return Err(Malformed::ObjectIdentifier);
        }
        begins = byte < 0x80;
    }
    if content.is_empty() || content.len() > 63 || !begins {
        Err(Malformed::ObjectIdentifier)
    } else {
        Ok(content)
    }
}

/// A point in time as it is written: UNIX seconds, and in which of the two types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub secs: i64,
    pub generalized: bool,
}

/// A UTCTime or GeneralizedTime in the only form that RFC 5280, 4.1.2.5, leaves: to the second, with `Z`.
pub(super) fn time(element: &Element<'_>) -> Result<Time, Malformed> {
    let (secs, generalized) = match element.tag {
        tag::UTC_TIME => (utc_time(element.content)?, false),
        tag::GENERALIZED_TIME => (generalized_time(element.content)?, true),
        found => {
            return Err(Malformed::Unexpected {
                expected: "a time",
                found,
            });
        }
    };
    Ok(Time { secs, generalized })
}

pub(super) fn utc_time(content: &[u8]) -> Result<i64, Malformed> {
    let (year, rest) = content.split_at_checked(2).ok_or(Malformed::Time)?;
    let year = number(year)?;
    seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
}

pub(super) fn generalized_time(content: &[u8]) -> Result<i64, Malformed> {
    let (year, rest) = content.split_at_checked(4).ok_or(Malformed::Time)?;
    seconds(number(year)?, rest)
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    digits.iter().try_fold(0, |value, byte| {
        if byte.is_ascii_digit() {
            Ok(value * 10 + i64::from(byte - b'0'))
        } else {
            Err(Malformed::Time)
        }
    })
}

/// UNIX seconds of `MMDDHHMMSSZ` in a year.
fn seconds(year: i64, rest: &[u8]) -> Result<i64, Malformed> {
    let (&digits, b"Z") = rest.split_first_chunk::<10>().ok_or(Malformed::Time)? else {
        return Err(Malformed::Time);
    };
    let part = |at: usize| number(&digits[at..at + 2]);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(Malformed::Time),
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(Malformed::Time);
    }
    // Days since 1970-01-01 in the Gregorian calendar, with years that begin in March so that the leap day comes last.
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// An OBJECT IDENTIFIER in dotted decimal, for reports.
pub(super) fn dotted(content: &[u8]) -> String {
    let mut text = String::new();
    let mut value: u128 = 0;
    for &byte in content {
        value = value.saturating_mul(128).saturating_add(u128::from(byte & 0x7f));
        if byte < 0x80 {
            if text.is_empty() {
                let first = (value / 40).min(2);
                text = format!("{first}.{}", value - first * 40);
            } else {
                text.push('.');
                text.push_str(&value.to_string());
            }
            value = 0;
        }
    }
    text
}

/// Whether `content` is the OBJECT IDENTIFIER that `text` writes in dotted decimal. Allocates nothing.
pub(super) fn is_dotted(content: &[u8], text: &str) -> bool {
    let mut rest = content;
    let mut parts = text.split('.').map(str::parse::<u128>);
    let (Some(Ok(first)), Some(Ok(second))) = (parts.next(), parts.next()) else {
        return false;
    };
    let mut wanted = first.checked_mul(40).and_then(|value| value.checked_add(second));
    loop {
        let Some(end) = rest.iter().position(|byte| *byte < 0x80) else {
            return false;
        };
        let value = rest[..=end].iter().try_fold(0u128, |value, byte| {
            value.checked_mul(128)?.checked_add(u128::from(byte & 0x7f))
        });
        if value.is_none() || value != wanted {
            return false;
        }
        rest = &rest[end + 1..];
        match (parts.next(), rest.is_empty()) {
            (None, true) => return true,
            (Some(Ok(part)), false) => wanted = Some(part),
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_to_the_second_and_only_in_the_der_form() {
        let utc = |text: &str| utc_time(text.as_bytes());
        let general = |text: &str| generalized_time(text.as_bytes());
        assert_eq!(utc("700101000000Z"), Ok(0));
        assert_eq!(utc("500101000000Z"), Ok(-631_152_000));
        assert_eq!(utc("491231235959Z"), Ok(2_524_607_999));
        assert_eq!(general("20500101000000Z"), Ok(2_524_608_000));
        assert_eq!(general("20240229120000Z"), Ok(1_709_208_000));
        assert_eq!(general("99991231235959Z"), Ok(253_402_300_799));
        for text in [
            "",
            "2401010000Z",
            "240101000000",
            "240101000000+0000",
            "240101000000ZZ",
            "241301000000Z",
            "240001000000Z",
            "240100000000Z",
            "230229000000Z",
            "240101240000Z",
            "240101006000Z",
            "240101000060Z",
            "24010100000aZ",
        ] {
            assert_eq!(utc(text), Err(Malformed::Time), "{text}");
        }
        for text in [
            "20240101000000.5Z",
            "21000229000000Z",
            "20240101000000",
            "240101000000Z",
        ] {
            assert_eq!(general(text), Err(Malformed::Time), "{text}");
        }
    }

    #[test]
    fn object_identifiers_are_written_and_compared_in_dotted_decimal() {
        for (content, text) in [
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d][..], "1.2.840.113549"),
            (&[0x55, 0x04, 0x03][..], "2.5.4.3"),
            (&[0x88, 0x37, 0x03][..], "2.999.3"),
        ] {
            assert_eq!(dotted(content), text);
            assert!(is_dotted(content, text));
            assert!(!is_dotted(content, &format!("{text}.1")));
            assert!(!is_dotted(&content[..content.len() - 1], text));
        }
        assert!(!is_dotted(&[], "1.2"));
        assert!(!is_dotted(&[0x2a], "x"));
    }

    proptest! {
        #[test]
        fn accepted_times_are_those_of_the_calendar(secs in -631_152_000i64..4_102_444_800) {
            let days = secs.div_euclid(86_400);
            let mut year = 1970;
            let mut left = days;
            let length = |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
            while left < 0 { year -= 1; left += length(year); }
            while left >= length(year) { left -= length(year); year += 1; }
            let months = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= months[month] { left -= months[month]; month += 1; }
            let second = secs.rem_euclid(86_400);
            let text = format!("{year:04}{:02}{:02}{:02}{:02}{:02}Z", month + 1, left + 1, second / 3600, second / 60 % 60, second % 60);
            prop_assert_eq!(generalized_time(text.as_bytes()), Ok(secs));
        }
    }
}
