//! A DER writer for crafted certificates: it writes what it is told, right or wrong.

/// An element with the contents that the parts make together.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut bytes = vec![tag];
    match content.len() {
        length @ 0..=0x7f => bytes.push(u8::try_from(length).unwrap()),
        length @ 0x80..=0xff => bytes.extend([0x81, u8::try_from(length).unwrap()]),
        length => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

pub(super) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

pub(super) fn int(content: &[u8]) -> Vec<u8> {
    tlv(0x02, &[content])
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, &[content])
}

pub(super) fn bits(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content])
}

pub(super) fn printable(text: &str) -> Vec<u8> {
    tlv(0x13, &[text.as_bytes()])
}

pub(super) fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, &[text.as_bytes()])
}

pub(super) fn ia5(text: &str) -> Vec<u8> {
    tlv(0x16, &[text.as_bytes()])
}

/// An OBJECT IDENTIFIER from dotted decimal.
pub(super) fn oid(text: &str) -> Vec<u8> {
    let mut numbers = text.split('.').map(|number| number.parse::<u64>().unwrap());
    let first = numbers.next().unwrap() * 40 + numbers.next().unwrap();
    let mut content = Vec::new();
    for number in std::iter::once(first).chain(numbers) {
        let mut groups = vec![(number & 0x7f) as u8];
        let mut rest = number >> 7;
        while rest > 0 {
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        content.extend(groups.into_iter().rev());
    }
    tlv(0x06, &[&content])
}

/// A relative distinguished name with one attribute.
pub(super) fn rdn(kind: &str, value: &[u8]) -> Vec<u8> {
    set(&[&seq(&[&oid(kind), value])])
}

pub(super) fn dns(name: &str) -> Vec<u8> {
    tlv(0x82, &[name.as_bytes()])
}

pub(super) fn mail(name: &str) -> Vec<u8> {
    tlv(0x81, &[name.as_bytes()])
}

pub(super) fn uri(name: &str) -> Vec<u8> {
    tlv(0x86, &[name.as_bytes()])
}

pub(super) fn ip(address: &[u8]) -> Vec<u8> {
    tlv(0x87, &[address])
}

/// A SEQUENCE of the parts.
pub(super) fn list(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &[&parts.concat()])
}

pub(super) fn utc(text: &str) -> Vec<u8> {
    tlv(0x17, &[text.as_bytes()])
}

pub(super) fn generalized(text: &str) -> Vec<u8> {
    tlv(0x18, &[text.as_bytes()])
}
