//! Reading DER (X.690) one element at a time, and the few writers that splice bytes which must stay exactly as they are.
//!
//! What is wrong is said with a short phrase; the caller knows of which file and field.

/// Tags that occur in certificates and requests (X.680, 8.4): the identifier octet.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const NUMERIC_STRING: u8 = 0x12;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const VISIBLE_STRING: u8 = 0x1a;
    pub(crate) const UNIVERSAL_STRING: u8 = 0x1c;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE_PRIMITIVE: u8 = 0x10;
    pub(crate) const SET_PRIMITIVE: u8 = 0x11;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// Context-specific, constructed.
    pub(crate) const fn explicit(number: u8) -> u8 {
        0xa0 | number
    }
    /// Context-specific, primitive.
    pub(crate) const fn implicit(number: u8) -> u8 {
        0x80 | number
    }
}

/// What is not DER, or not what the structure asks for.
pub(crate) type Fault = &'static str;

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 32;

/// One element: identifier octet, contents, and both together with the length as they stand in the input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
    pub(crate) raw: &'a [u8],
}

impl<'a> Element<'a> {
    /// The one element that the bytes are.
    pub(crate) fn only(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let element = reader.any()?;
        reader.end("there are bytes after its end")?;
        Ok(element)
    }

    /// The elements inside.
    pub(crate) fn inside(self) -> Reader<'a> {
        Reader::new(self.value)
    }

    /// The octets of a BIT STRING that is made of whole octets.
    pub(crate) fn bit_string(self) -> Result<&'a [u8], Fault> {
        match self.value {
            [0, octets @ ..] if self.tag == tag::BIT_STRING => Ok(octets),
            _ => Err("a bit string is not made of whole octets"),
        }
    }
}

/// Reads elements in order.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(&self, fault: Fault) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(fault) }
    }

    /// Whether an element with this tag comes next.
    pub(crate) fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The next element, if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Fault> {
        if self.next_is(tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8, fault: Fault) -> Result<Element<'a>, Fault> {
        if self.next_is(tag) { self.any() } else { Err(fault) }
    }

    /// The next element, whatever it is. Lengths must be definite and as short as can be (X.690, 10.1).
    pub(crate) fn any(&mut self) -> Result<Element<'a>, Fault> {
        const SHORT: Fault = "it ends in the middle of an element";
        let bytes = self.rest;
        let tag = *bytes.first().ok_or(SHORT)?;
        if tag == 0 {
            return Err("it has an end-of-contents octet, which is BER and not DER");
        }
        let mut header = 1;
        if tag & 0x1f == 0x1f {
            let number = &bytes[1..];
            let octets = number.iter().take_while(|octet| **octet & 0x80 != 0).count() + 1;
            let first = *number.first().ok_or(SHORT)?;
            if octets > 4 || first == 0x80 || (octets == 1 && first < 0x1f) {
                return Err("a tag number is not encoded as DER demands");
            }
            header += octets;
        }
        let first = *bytes.get(header).ok_or(SHORT)?;
        header += 1;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x80 => return Err("it has an indefinite length, which is BER and not DER"),
            0x81..=0x84 => {
                let octets = bytes.get(header..header + usize::from(first & 0x7f)).ok_or(SHORT)?;
                header += octets.len();
                let length = octets
                    .iter()
                    .fold(0_usize, |length, octet| (length << 8) | usize::from(*octet));
                if octets[0] == 0 || length < 0x80 {
                    return Err("a length is not as short as can be, which is BER and not DER");
                }
                length
            }
            _ => return Err("a length is too long"),
        };
        let end = header.checked_add(length).ok_or(SHORT)?;
        let raw = bytes.get(..end).ok_or(SHORT)?;
        self.rest = &bytes[end..];
        Ok(Element {
            tag,
            value: &raw[header..],
            raw,
        })
    }
}

/// Whether bytes are one element, DER all through: definite and minimal lengths, well-formed primitive values, valid characters. The
/// contents of OCTET STRINGs and the order inside SETs are not looked at.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Fault> {
    check_element(Element::only(bytes)?, MAX_DEPTH)
}

fn check_element(element: Element<'_>, depth: usize) -> Result<(), Fault> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("it is nested too deeply");
    };
    if element.tag & 0x20 != 0 {
        if element.tag < 0x40 && !matches!(element.tag, tag::SEQUENCE | tag::SET | 0x28 | 0x2b) {
            return Err("a primitive type is encoded in parts, which is BER and not DER");
        }
        let mut inside = element.inside();
        while !inside.is_at_end() {
            check_element(inside.any()?, depth)?;
        }
        return Ok(());
    }
    check_primitive(element)
}

fn check_primitive(element: Element<'_>) -> Result<(), Fault> {
    let value = element.value;
    let (holds, fault) = match element.tag {
        tag::BOOLEAN => (matches!(value, [0 | 0xff]), "a boolean is neither 00 nor FF"),
        tag::INTEGER | 0x0a => (is_minimal_integer(value), "an integer is not as short as can be"),
        tag::BIT_STRING => (is_bit_string(value), "a bit string has wrong unused bits"),
        tag::NULL => (value.is_empty(), "a null has contents"),
        tag::OBJECT_IDENTIFIER => (is_object_identifier(value), "an object identifier is malformed"),
        tag::UTF8_STRING => (std::str::from_utf8(value).is_ok(), "a UTF8String is not UTF-8"),
        tag::IA5_STRING | tag::VISIBLE_STRING | tag::PRINTABLE_STRING | tag::NUMERIC_STRING => {
            (value.is_ascii(), "a text has characters that its type cannot have")
        }
        tag::BMP_STRING => (value.len().is_multiple_of(2), "a BMPString has half a character"),
        tag::UNIVERSAL_STRING => (
            value.len().is_multiple_of(4),
            "a UniversalString has part of a character",
        ),
        tag::SEQUENCE_PRIMITIVE | tag::SET_PRIMITIVE => (false, "a sequence or set is marked as primitive"),
        _ => (true, ""),
    };
    if holds { Ok(()) } else { Err(fault) }
}

fn is_minimal_integer(value: &[u8]) -> bool {
    match value {
        [] => false,
        [0, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

fn is_bit_string(value: &[u8]) -> bool {
    match value {
        [0] => true,
        [unused @ 0..=7, .., last] => last.trailing_zeros() >= u32::from(*unused),
        _ => false,
    }
}

fn is_object_identifier(value: &[u8]) -> bool {
    let starts_arc = |at: usize| at == 0 || value[at - 1] & 0x80 == 0;
    value.last().is_some_and(|last| last & 0x80 == 0)
        && value
            .iter()
            .enumerate()
            .all(|(at, octet)| *octet != 0x80 || !starts_arc(at))
}

/// An object identifier in dotted decimal, for messages. Arcs beyond 64 bits are shown as `..`.
pub(crate) fn dotted(value: &[u8]) -> String {
    let mut text = String::new();
    let mut arc = Some(0_u64);
    for octet in value {
        arc = arc
            .and_then(|arc| arc.checked_mul(128))
            .map(|arc| arc | u64::from(octet & 0x7f));
        if octet & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let value = arc.unwrap_or(u64::MAX);
            let root = (value / 40).min(2);
            text = format!("{root}.{}", value - 40 * root);
        } else {
            text.push('.');
            text.push_str(&arc.map_or_else(|| "..".to_owned(), |arc| arc.to_string()));
        }
        arc = Some(0);
    }
    text
}

/// The name of a known object identifier, or its numbers.
pub(crate) fn name_of(value: &[u8]) -> String {
    let known = const_oid::ObjectIdentifier::from_bytes(value).ok();
    known
        .and_then(|oid| const_oid::db::DB.by_oid(&oid))
        .map_or_else(|| dotted(value), str::to_owned)
}

/// One element with these contents.
pub(crate) fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let octets = length.to_be_bytes();
    let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
    let mut bytes = Vec::with_capacity(length + 2 + octets.len());
    bytes.push(tag);
    if length < 0x80 {
        bytes.push(length.to_le_bytes()[0]);
    } else {
        bytes.push(0x80 | octets.len().to_le_bytes()[0]);
        bytes.extend_from_slice(octets);
    }
    for part in contents {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(tag in 0x01_u8..0x1f, parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let bytes = element(tag, &slices);
            let read = Element::only(&bytes).expect("it is one element");
            let contents = parts.concat();
            prop_assert_eq!((read.tag, read.value, read.raw), (tag, contents.as_slice(), bytes.as_slice()));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes);
            let _ = dotted(&bytes);
            let _ = name_of(&bytes);
        }
    }

    #[test]
    fn what_is_ber_and_not_der_is_refused() {
        for bytes in [
            &b"\x30\x80\x00\x00"[..],
            b"\x02\x81\x01\x05",
            b"\x02\x02\x00\x05",
            b"\x02\x00",
            b"\x01\x01\x01",
            b"\x05\x01\x00",
            b"\x03\x02\x01\x01",
            b"\x03\x01\x08",
            b"\x06\x02\x80\x01",
            b"\x06\x01\x81",
            b"\x24\x03\x04\x01\x00",
            b"\x0c\x01\xff",
            b"\x16\x01\xff",
            b"\x1e\x01\x41",
            b"\x10\x00",
            b"\x30\x03\x02\x02\x01",
            b"\x04\x01",
            b"\x05\x00\x00",
            b"",
        ] {
            assert!(check(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let mut bytes = vec![0x05, 0];
        for _ in 0..5000 {
            bytes = element(tag::SEQUENCE, &[&bytes]);
        }
        assert_eq!(check(&bytes), Err("it is nested too deeply"));
    }

    #[test]
    fn object_identifiers_are_named_or_dotted() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]), "1.2.840.113549");
        assert_eq!(dotted(&[0x88, 0x37]), "2.999");
        assert_eq!(name_of(&[0x2b, 0x65, 0x70]), "id-Ed25519");
    }
}
