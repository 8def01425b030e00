//! A strict reader of DER (X.690, clauses 8, 10 and 11), made for judging what an encoder made: it shares no code with one.
//!
//! Slices of the input come out, nothing is copied, nothing panics. [`check`] judges everything below one element; [`Reader`] takes
//! the elements one by one.

use super::primitive::{
    bit_string, boolean, characters, generalized_time, integer, is_printable, object_identifier, utc_time,
};

/// Universal tags, with the bit for constructed types where it belongs.
pub(super) mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const ENUMERATED: u8 = 0x0a;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const NUMERIC_STRING: u8 = 0x12;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const TELETEX_STRING: u8 = 0x14;
    pub const IA5_STRING: u8 = 0x16;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const VISIBLE_STRING: u8 = 0x1a;
    pub const UNIVERSAL_STRING: u8 = 0x1c;
    pub const BMP_STRING: u8 = 0x1e;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// The bit that marks a constructed type.
    pub const CONSTRUCTED: u8 = 0x20;
    /// `[number]`, primitive.
    pub const fn context(number: u8) -> u8 {
        0x80 | number
    }
    /// `[number]`, constructed.
    pub const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// Greatest size of what is read, in bytes.
pub(super) const SIZE_LIMIT: usize = 65_535;
/// Greatest depth of nesting.
pub(super) const DEPTH_LIMIT: usize = 16;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it ends in the middle of an element")]
    Truncated,
    #[error("there are bytes after its end")]
    Trailing,
    #[error("it is longer than {SIZE_LIMIT} bytes")]
    TooLong,
    #[error("it is nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("an indefinite length")]
    IndefiniteLength,
    #[error("a length that is not written in the fewest bytes")]
    LengthNotMinimal,
    #[error("a tag number above 30")]
    HighTag,
    #[error("tag 0x{0:02x} names no type that certificates use")]
    UnknownType(u8),
    #[error("a BOOLEAN that is neither 00 nor FF")]
    Boolean,
    #[error("an INTEGER that is empty or not written in the fewest bytes")]
    Integer,
    #[error("a BIT STRING with a wrong count of unused bits, or with unused bits set")]
    BitString,
    #[error("a list of named bits with zeros at its end")]
    NamedBits,
    #[error("a NULL that is not empty")]
    Null,
    #[error("a malformed OBJECT IDENTIFIER")]
    ObjectIdentifier,
    #[error("a character that the {0} type does not have")]
    Characters(&'static str),
    #[error("a time that is not written as DER and RFC 5280 demand, or does not exist")]
    Time,
    #[error("a SET OF that is not in order")]
    SetOrder,
    #[error("a default value that is written out")]
    DefaultWritten,
    #[error("{expected} is missing where tag 0x{found:02x} stands")]
    Unexpected { expected: &'static str, found: u8 },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Shape(&'static str),
}

impl Malformed {
    /// Whether the encoding itself is sound, but the structure is another than the one that belongs there.
    pub(super) const fn is_shape(self) -> bool {
        matches!(self, Self::Unexpected { .. } | Self::Missing(_) | Self::Shape(_))
    }
}

/// One element: tag, contents, and both with the length between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// A reader of what a constructed element contains.
    pub(super) const fn inner(&self) -> Reader<'a> {
        Reader { rest: self.content }
    }

    /// The only element in `bytes`.
    pub(super) fn only(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let element = reader.element()?;
        reader.end()?;
        Ok(element)
    }

    /// The text of a PrintableString, UTF8String or IA5String.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.tag {
            tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => std::str::from_utf8(self.content).ok(),
            _ => None,
        }
    }
}

/// Takes elements one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The contents of the SEQUENCE that is the only element in `bytes`.
    pub(super) fn sequence_in(bytes: &'a [u8], name: &'static str) -> Result<Self, Malformed> {
        let mut reader = Self::new(bytes);
        let inner = reader.expect(tag::SEQUENCE, name)?.inner();
        reader.end()?;
        Ok(inner)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub(super) const fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing)
        }
    }

    /// The tag that comes next.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is.
    pub(super) fn element(&mut self) -> Result<Element<'a>, Malformed> {
        let all = self.rest;
        let (&[tag, first], after) = all.split_first_chunk::<2>().ok_or(Malformed::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed::HighTag);
        }
        let (length, after) = match first {
            0..0x80 => (usize::from(first), after),
            0x80 => return Err(Malformed::IndefiniteLength),
            0x81 => {
                let (&length, after) = after.split_first().ok_or(Malformed::Truncated)?;
                if length < 0x80 {
                    return Err(Malformed::LengthNotMinimal);
                }
                (usize::from(length), after)
            }
            0x82 => {
                let (&length, after) = after.split_first_chunk::<2>().ok_or(Malformed::Truncated)?;
                if length[0] == 0 {
                    return Err(Malformed::LengthNotMinimal);
                }
                (usize::from(u16::from_be_bytes(length)), after)
            }
            _ => {
                return Err(if after.first() == Some(&0) {
                    Malformed::LengthNotMinimal
                } else {
                    Malformed::TooLong
                });
            }
        };
        let (content, rest) = after.split_at_checked(length).ok_or(Malformed::Truncated)?;
        let whole = &all[..all.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag, content, whole })
    }

    /// The next element, which must have this tag. `name` is what it is called when it is not there.
    pub(super) fn expect(&mut self, tag: u8, name: &'static str) -> Result<Element<'a>, Malformed> {
        match self.peek() {
            None => Err(Malformed::Missing(name)),
            Some(found) if found == tag => self.element(),
            Some(found) => Err(Malformed::Unexpected { expected: name, found }),
        }
    }

    /// The next element if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Malformed> {
        if self.peek() == Some(tag) {
            self.element().map(Some)
        } else {
            Ok(None)
        }
    }

    /// What every element still to come is made into.
    pub(super) fn each<T>(
        mut self,
        mut make: impl FnMut(Element<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(make(self.element()?)?);
        }
        Ok(all)
    }
}

/// Checks that `bytes` are one element, in DER all the way down.
pub(super) fn check(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() > SIZE_LIMIT {
        return Err(Malformed::TooLong);
    }
    check_element(&Element::only(bytes)?, DEPTH_LIMIT)
}

fn check_element(element: &Element<'_>, depth: usize) -> Result<(), Malformed> {
    let content = element.content;
    match element.tag {
        tag::BOOLEAN => boolean(content).map(|_| ()),
        tag::INTEGER | tag::ENUMERATED => integer(content).map(|_| ()),
        tag::BIT_STRING => bit_string(content).map(|_| ()),
        tag::NULL if content.is_empty() => Ok(()),
        tag::NULL => Err(Malformed::Null),
        tag::OBJECT_IDENTIFIER => object_identifier(content).map(|_| ()),
        tag::UTF8_STRING if std::str::from_utf8(content).is_ok() => Ok(()),
        tag::UTF8_STRING => Err(Malformed::Characters("UTF8String")),
        tag::PRINTABLE_STRING => characters(content, "PrintableString", is_printable),
        tag::NUMERIC_STRING => characters(content, "NumericString", |byte| byte.is_ascii_digit() || byte == b' '),
        tag::IA5_STRING => characters(content, "IA5String", |byte| byte.is_ascii()),
        tag::VISIBLE_STRING => characters(content, "VisibleString", |byte| matches!(byte, b' '..=b'~')),
        tag::BMP_STRING if !content.len().is_multiple_of(2) => Err(Malformed::Characters("BMPString")),
        tag::UNIVERSAL_STRING if !content.len().is_multiple_of(4) => Err(Malformed::Characters("UniversalString")),
        tag::OCTET_STRING | tag::TELETEX_STRING | tag::BMP_STRING | tag::UNIVERSAL_STRING => Ok(()),
        tag::UTC_TIME => utc_time(content).map(|_| ()),
        tag::GENERALIZED_TIME => generalized_time(content).map(|_| ()),
        tag::SEQUENCE => check_contents(element, depth, false),
        tag::SET => check_contents(element, depth, true),
        // Context-specific, application and private tags: what is inside constructed ones is known to be DER, the others are opaque.
        tag if tag >= 0x40 => {
            if tag & tag::CONSTRUCTED == 0 {
                Ok(())
            } else {
                check_contents(element, depth, false)
            }
        }
        tag => Err(Malformed::UnknownType(tag)),
    }
}

fn check_contents(element: &Element<'_>, depth: usize, ordered: bool) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
    let mut reader = element.inner();
    let mut before: &[u8] = &[];
    while !reader.is_empty() {
        let element = reader.element()?;
        check_element(&element, depth)?;
        // X.690, 11.6: shorter encodings count as padded with zeros; that is the order of the slices, as no element begins another.
        if ordered && element.whole < before {
            return Err(Malformed::SetOrder);
        }
        before = element.whole;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::primitive, *};

    #[test]
    fn what_is_not_der_is_refused_and_the_reason_is_named() {
        use Malformed as M;
        let cases: &[(&[u8], M)] = &[
            (&[], M::Truncated),
            (&[0x30], M::Truncated),
            (&[0x30, 0x01], M::Truncated),
            (&[0x30, 0x80, 0x00, 0x00], M::IndefiniteLength),
            (&[0x04, 0x81, 0x01, 0x00], M::LengthNotMinimal),
            (&[0x04, 0x82, 0x00, 0x80, 0x00], M::LengthNotMinimal),
            (&[0x04, 0x83, 0x00, 0x00, 0x01, 0x00], M::LengthNotMinimal),
            (&[0x04, 0x83, 0x01, 0x00, 0x00, 0x00], M::TooLong),
            (&[0x04, 0xff, 0x01], M::TooLong),
            (&[0x1f, 0x81, 0x01, 0x00], M::HighTag),
            (&[0x05, 0x00, 0x00], M::Trailing),
            (&[0x00, 0x00], M::UnknownType(0x00)),
            (&[0x09, 0x00], M::UnknownType(0x09)),
            (&[0x24, 0x00], M::UnknownType(0x24)),
            (&[0x10, 0x00], M::UnknownType(0x10)),
            (&[0x01, 0x01, 0x01], M::Boolean),
            (&[0x01, 0x00], M::Boolean),
            (&[0x02, 0x00], M::Integer),
            (&[0x02, 0x02, 0x00, 0x7f], M::Integer),
            (&[0x02, 0x02, 0xff, 0x80], M::Integer),
            (&[0x0a, 0x02, 0x00, 0x01], M::Integer),
            (&[0x03, 0x00], M::BitString),
            (&[0x03, 0x01, 0x01], M::BitString),
            (&[0x03, 0x02, 0x08, 0x00], M::BitString),
            (&[0x03, 0x02, 0x01, 0x01], M::BitString),
            (&[0x05, 0x01, 0x00], M::Null),
            (&[0x06, 0x00], M::ObjectIdentifier),
            (&[0x06, 0x02, 0x2a, 0x80], M::ObjectIdentifier),
            (&[0x06, 0x03, 0x2a, 0x80, 0x01], M::ObjectIdentifier),
            (&[0x0c, 0x01, 0xff], M::Characters("UTF8String")),
            (&[0x13, 0x01, b'*'], M::Characters("PrintableString")),
            (&[0x13, 0x01, b'@'], M::Characters("PrintableString")),
            (&[0x12, 0x01, b'a'], M::Characters("NumericString")),
            (&[0x16, 0x01, 0x80], M::Characters("IA5String")),
            (&[0x1a, 0x01, 0x0a], M::Characters("VisibleString")),
            (&[0x1e, 0x01, 0x00], M::Characters("BMPString")),
            (&[0x1c, 0x02, 0x00, 0x00], M::Characters("UniversalString")),
            (&[0x31, 0x06, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01], M::SetOrder),
            (&[0xa0, 0x02, 0x02, 0x00], M::Integer),
        ];
        for (bytes, reason) in cases {
            assert_eq!(check(bytes), Err(*reason), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_der_passes() {
        let cases: &[&[u8]] = &[
            &[0x05, 0x00],
            &[0x01, 0x01, 0xff],
            &[0x02, 0x02, 0x00, 0x80],
            &[0x02, 0x02, 0xff, 0x7f],
            &[0x03, 0x01, 0x00],
            &[0x03, 0x02, 0x07, 0x80],
            &[0x06, 0x03, 0x2a, 0x81, 0x00],
            &[0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x02],
            &[0x80, 0x01, 0xff],
        ];
        for bytes in cases {
            assert_eq!(check(bytes), Ok(()), "{bytes:02x?}");
        }
    }

    #[test]
    fn nesting_and_size_have_limits() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x05, 0x00];
            for _ in 0..levels {
                let length = u8::try_from(bytes.len()).unwrap();
                bytes.splice(0..0, [0x30, length]);
            }
            bytes
        };
        assert_eq!(check(&nested(DEPTH_LIMIT)), Ok(()));
        assert_eq!(check(&nested(DEPTH_LIMIT + 1)), Err(Malformed::TooDeep));
        assert_eq!(check(&vec![0; SIZE_LIMIT + 1]), Err(Malformed::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
            let _ = primitive::dotted(&bytes);
            let _ = primitive::is_dotted(&bytes, "2.999.340282366920938463463374607431768211455");
            let _ = Reader::new(&bytes).each(|element| primitive::time(&element).map(|_| ()));
        }
    }
}
