//! Single values: texts by their declared type, object identifiers, times.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use der::{
    DateTime, Encode,
    asn1::{GeneralizedTime, UtcTime},
};
use domain::{policy::ValueType, request::TypedValue};

use super::PrepareError;
use crate::asn1::{check, element, tag};

/// The DER object identifier (X.690, 8.19); arcs up to 128 bits, as identifiers made of UUIDs have them.
pub(super) fn object_identifier(field: &'static str, oid: &str) -> Result<Vec<u8>, PrepareError> {
    let contents = object_identifier_contents(oid).ok_or_else(|| {
        let shown: String = oid.chars().take(100).collect();
        PrepareError::new(
            field,
            format!("{shown:?} is not an object identifier in dotted decimal"),
        )
    })?;
    Ok(element(tag::OBJECT_IDENTIFIER, &[&contents]))
}

fn object_identifier_contents(oid: &str) -> Option<Vec<u8>> {
    const LONGEST: usize = 256;
    if oid.len() > LONGEST {
        return None;
    }
    let mut arcs = oid.split('.').map(|arc| {
        let canonical = arc == "0" || (arc.starts_with(|c: char| c.is_ascii_digit()) && !arc.starts_with('0'));
        if canonical { arc.parse::<u128>().ok() } else { None }
    });
    let (root, second) = (arcs.next()??, arcs.next()??);
    if root > 2 || (root < 2 && second > 39) {
        return None;
    }
    let mut contents = Vec::with_capacity(oid.len());
    push_arc(&mut contents, second.checked_add(40 * root)?);
    for arc in arcs {
        push_arc(&mut contents, arc?);
    }
    Some(contents)
}

fn push_arc(contents: &mut Vec<u8>, arc: u128) {
    let groups = (128 - arc.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let seven_bits = (arc >> (7 * group)).to_le_bytes()[0] & 0x7f;
        contents.push(if group == 0 { seven_bits } else { seven_bits | 0x80 });
    }
}

/// The value in the encoding that it declares.
pub(super) fn typed(field: &'static str, value: &TypedValue) -> Result<Vec<u8>, PrepareError> {
    let text = value.value.as_str();
    match value.value_type {
        ValueType::Utf8string => utf8(field, text),
        ValueType::Printablestring => printable(field, text),
        ValueType::Ia5string => ia5(field, tag::IA5_STRING, text),
        ValueType::Integer => integer(field, text),
        ValueType::Der => {
            let der = STANDARD
                .decode(text)
                .map_err(|_| PrepareError::new(field, "is not base64"))?;
            check(&der).map_err(|fault| PrepareError::new(field, format!("is not DER: {fault}")))?;
            Ok(der)
        }
        ValueType::Nil => Ok(element(tag::NULL, &[])),
    }
}

fn not_empty(field: &'static str, text: &str) -> Result<(), PrepareError> {
    if text.is_empty() {
        Err(PrepareError::new(field, "is empty; leave it out instead"))
    } else if text.contains('\0') {
        Err(PrepareError::new(field, "has a NUL character"))
    } else {
        Ok(())
    }
}

/// A `UTF8String` of at least one character and without NUL.
pub(super) fn utf8(field: &'static str, text: &str) -> Result<Vec<u8>, PrepareError> {
    not_empty(field, text)?;
    Ok(element(tag::UTF8_STRING, &[text.as_bytes()]))
}

/// A `PrintableString` (X.680, 41.4) of at least one character.
pub(super) fn printable(field: &'static str, text: &str) -> Result<Vec<u8>, PrepareError> {
    not_empty(field, text)?;
    if let Some(c) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(*c)))
    {
        return Err(PrepareError::new(
            field,
            format!("has the character {c:?}, which a PrintableString cannot have"),
        ));
    }
    Ok(element(tag::PRINTABLE_STRING, &[text.as_bytes()]))
}

/// An `IA5String`, or an implicitly tagged one, of at least one character and without NUL.
pub(super) fn ia5(field: &'static str, tag: u8, text: &str) -> Result<Vec<u8>, PrepareError> {
    not_empty(field, text)?;
    if let Some(c) = text.chars().find(|c| !c.is_ascii()) {
        return Err(PrepareError::new(
            field,
            format!("has the character {c:?}, which is not ASCII"),
        ));
    }
    Ok(element(tag, &[text.as_bytes()]))
}

fn integer(field: &'static str, text: &str) -> Result<Vec<u8>, PrepareError> {
    let number: i128 = text
        .parse()
        .map_err(|_| PrepareError::new(field, "is not a whole number in decimal, or beyond 127 bits"))?;
    Ok(whole_number(number))
}

/// An INTEGER in as few octets as can be.
pub(super) fn whole_number(number: i128) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let sign = if number < 0 { 0xff } else { 0 };
    let needless = (0..15)
        .take_while(|&at| octets[at] == sign && (octets[at + 1] ^ sign) & 0x80 == 0)
        .count();
    element(tag::INTEGER, &[&octets[needless..]])
}

/// `Validity` (RFC 5280, 4.1.2.5) from UNIX seconds, both inclusive.
pub(super) fn validity(not_before: i64, not_after: i64) -> Result<Vec<u8>, PrepareError> {
    if not_after < not_before {
        return Err(PrepareError::new("validity.not_after", "is before not_before"));
    }
    let not_before = time("validity.not_before", not_before)?;
    let not_after = time("validity.not_after", not_after)?;
    Ok(element(tag::SEQUENCE, &[&not_before, &not_after]))
}

fn time(field: &'static str, seconds: i64) -> Result<Vec<u8>, PrepareError> {
    /// 2050-01-01T00:00:00Z.
    const FROM_2050: i64 = 2_524_608_000;
    let out_of_range = || PrepareError::new(field, "is not a time from 1970 to 9999 in UNIX seconds");
    let since_1970 = Duration::from_secs(u64::try_from(seconds).map_err(|_| out_of_range())?);
    let time = DateTime::from_unix_duration(since_1970).map_err(|_| out_of_range())?;
    let der = if seconds < FROM_2050 {
        UtcTime::from_date_time(time).and_then(|time| time.to_der())
    } else {
        GeneralizedTime::from_date_time(time).to_der()
    };
    der.map_err(|_| out_of_range())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asn1::dotted;

    proptest! {
        #[test]
        fn an_integer_is_minimal_and_read_back(number: i128) {
            let der = whole_number(number);
            prop_assert_eq!(check(&der), Ok(()));
            let sign = if number < 0 { -1 } else { 0 };
            let read = der[2..].iter().fold(sign, |value, octet| (value << 8) | i128::from(*octet));
            prop_assert_eq!(read, number);
        }

        #[test]
        fn an_object_identifier_is_well_formed_and_read_back(root in 0_u64..3, second in 0_u64..40, arcs in proptest::collection::vec(any::<u64>(), 0..8)) {
            let text = arcs.iter().fold(format!("{root}.{second}"), |text, arc| format!("{text}.{arc}"));
            let der = object_identifier("", &text).expect("it is one");
            prop_assert_eq!(check(&der), Ok(()));
            prop_assert_eq!(dotted(&der[2..]), text);
        }

        #[test]
        fn no_text_makes_the_encoders_panic(text in ".{0,40}", digits in "[0-9.]{0,60}") {
            let _ = object_identifier("", &text);
            let _ = object_identifier("", &digits);
            let _ = integer("", &digits);
            let _ = printable("", &text);
        }
    }

    #[test]
    fn object_identifiers_beyond_the_usual_are_encoded() {
        assert_eq!(
            object_identifier("", "2.999").expect("the example arc"),
            b"\x06\x02\x88\x37"
        );
        let uuid = object_identifier("", "2.25.340282366920938463463374607431768211455").expect("a UUID");
        assert_eq!(check(&uuid), Ok(()));
        assert_eq!(uuid.len(), 2 + 1 + 19);
        for wrong in [
            "",
            "1",
            "1.",
            ".1",
            "1..2",
            "1.40",
            "3.1",
            "1.2.-3",
            "1.2.+3",
            "1.2.03",
            "1.2. 3",
            "2.25.340282366920938463463374607431768211456",
        ] {
            assert!(object_identifier("", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn small_integers_take_one_octet() {
        for (number, der) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0, 128]),
            (-1, vec![0xff]),
            (-129, vec![0xff, 0x7f]),
        ] {
            assert_eq!(whole_number(number)[2..], der, "{number}");
        }
    }

    #[test]
    fn times_are_utc_time_up_to_2049_and_generalized_time_from_2050() {
        assert_eq!(time("", 2_524_607_999).expect("2049"), b"\x17\x0d491231235959Z");
        assert_eq!(time("", 2_524_608_000).expect("2050"), b"\x18\x0f20500101000000Z");
        assert_eq!(time("", 0).expect("1970"), b"\x17\x0d700101000000Z");
        assert_eq!(time("", 253_402_300_799).expect("9999"), b"\x18\x0f99991231235959Z");
        assert!(time("", -1).is_err());
        assert!(time("", 253_402_300_800).is_err());
        assert!(validity(2, 1).is_err());
    }

    #[test]
    fn a_text_that_its_type_cannot_hold_is_refused() {
        assert!(printable("", "a@b").is_err());
        assert!(printable("", "Muster").is_ok());
        assert!(ia5("", tag::IA5_STRING, "grün").is_err());
        assert!(utf8("", "a\0b").is_err());
        assert!(utf8("", "").is_err());
        assert!(object_identifier("", "1.2.").is_err());
        assert!(object_identifier("", "3.1").is_err());
        for (value_type, value) in [
            (ValueType::Integer, "0x10"),
            (ValueType::Der, "AgIABQ=="),
            (ValueType::Der, "not base64!"),
        ] {
            let value = TypedValue {
                oid: String::new(),
                value_type,
                value: value.into(),
            };
            assert!(typed("", &value).is_err(), "{value:?}");
        }
    }
}
