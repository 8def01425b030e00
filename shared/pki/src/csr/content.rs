//! The parts of a request that are never used: looked at only to refuse what is malformed in them.

use crate::asn1::{Element, Fault, check, tag};

/// `extensionRequest`, 1.2.840.113549.1.9.14 (RFC 2985, 5.4.2).
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// Microsoft's older name for the same, 1.3.6.1.4.1.311.2.1.14.
const MS_EXTENSION_REQUEST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0e];
/// `subjectAltName`, 2.5.29.17.
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-ce`, 2.5.29: the extensions of X.509 itself, whose values are known to be DER.
const CERTIFICATE_EXTENSION: &[u8] = &[0x55, 0x1d];

/// Whether a `Name` is a sequence of sets of at least one attribute each.
pub(super) fn check_subject(subject: Element<'_>) -> Result<(), Fault> {
    let mut relative_names = subject.inside();
    while !relative_names.is_at_end() {
        let mut attributes = relative_names
            .expect(tag::SET, "a relative name of its subject is no set")?
            .inside();
        if attributes.is_at_end() {
            return Err("a relative name of its subject is empty");
        }
        while !attributes.is_at_end() {
            let attribute = attributes.expect(tag::SEQUENCE, "an attribute of its subject is no sequence")?;
            let mut parts = attribute.inside();
            parts.expect(tag::OBJECT_IDENTIFIER, "an attribute of its subject has no type")?;
            parts.any().map_err(|_| "an attribute of its subject has no value")?;
            parts.end("an attribute of its subject has a third part")?;
        }
    }
    Ok(())
}

/// Whether attributes are well-formed, with at most one request for extensions, itself well-formed.
pub(super) fn check_attributes(attributes: Element<'_>) -> Result<(), Fault> {
    let mut list = attributes.inside();
    let (mut requests, mut ms_requests) = (0, 0);
    while !list.is_at_end() {
        let mut parts = list.expect(tag::SEQUENCE, "an attribute is no sequence")?.inside();
        let oid = parts.expect(tag::OBJECT_IDENTIFIER, "an attribute has no type")?.value;
        let values = parts.expect(tag::SET, "an attribute has no set of values")?;
        parts.end("an attribute has a third part")?;
        if values.value.is_empty() {
            return Err("an attribute has no value");
        }
        match oid {
            EXTENSION_REQUEST => requests += 1,
            MS_EXTENSION_REQUEST => ms_requests += 1,
            _ => continue,
        }
        if requests > 1 || ms_requests > 1 {
            return Err("it has two extensionRequest attributes");
        }
        let extensions = Element::only(values.value).map_err(|_| "its extensionRequest has two values")?;
        check_extensions(extensions)?;
    }
    Ok(())
}

fn check_extensions(extensions: Element<'_>) -> Result<(), Fault> {
    if extensions.tag != tag::SEQUENCE {
        return Err("its extensionRequest is no sequence of extensions");
    }
    let mut list = extensions.inside();
    if list.is_at_end() {
        return Err("its extensionRequest is empty");
    }
    let mut seen: Vec<&[u8]> = Vec::new();
    while !list.is_at_end() {
        let mut parts = list
            .expect(tag::SEQUENCE, "a requested extension is no sequence")?
            .inside();
        let oid = parts
            .expect(tag::OBJECT_IDENTIFIER, "a requested extension has no object identifier")?
            .value;
        if parts
            .optional(tag::BOOLEAN)?
            .is_some_and(|critical| critical.value == [0])
        {
            return Err("a requested extension says critical FALSE, which DER leaves out");
        }
        let value = parts
            .expect(tag::OCTET_STRING, "a requested extension has no value")?
            .value;
        parts.end("a requested extension has a fourth part")?;
        if seen.contains(&oid) {
            return Err("an extension is requested twice");
        }
        seen.push(oid);
        if oid.starts_with(CERTIFICATE_EXTENSION) {
            check(value)?;
        }
        if oid == SUBJECT_ALTERNATIVE_NAME {
            check_alternative_names(value)?;
        }
    }
    Ok(())
}

fn check_alternative_names(value: &[u8]) -> Result<(), Fault> {
    let names = Element::only(value)?;
    if names.tag != tag::SEQUENCE {
        return Err("its alternative names are no sequence");
    }
    let mut list = names.inside();
    if list.is_at_end() {
        return Err("its list of alternative names is empty");
    }
    while !list.is_at_end() {
        check_general_name(list.any()?)?;
    }
    Ok(())
}

/// `GeneralName` (RFC 5280, 4.2.1.6). Any kind may be there; the usual ones must be well-formed.
fn check_general_name(name: Element<'_>) -> Result<(), Fault> {
    const MAIL: u8 = tag::implicit(1);
    const DNS: u8 = tag::implicit(2);
    const URI: u8 = tag::implicit(6);
    const IP_ADDRESS: u8 = tag::implicit(7);
    const REGISTERED_ID: u8 = tag::implicit(8);
    const OTHER_NAME: u8 = tag::explicit(0);
    const DIRECTORY_NAME: u8 = tag::explicit(4);
    match name.tag {
        MAIL | DNS | URI if name.value.is_empty() => Err("an alternative name is empty"),
        MAIL | DNS | URI if name.value.contains(&0) => Err("an alternative name has a NUL character"),
        MAIL | DNS | URI if !name.value.is_ascii() => Err("an alternative name is not ASCII"),
        IP_ADDRESS if !matches!(name.value.len(), 4 | 16) => Err("an IP address has neither 4 nor 16 octets"),
        OTHER_NAME => check_other_name(name),
        DIRECTORY_NAME => check_subject(Element::only(name.value)?),
        MAIL | DNS | URI | IP_ADDRESS | REGISTERED_ID | 0xa3 | 0xa5 => Ok(()),
        _ => Err("an alternative name is of no known kind"),
    }
}

fn check_other_name(name: Element<'_>) -> Result<(), Fault> {
    let mut parts = name.inside();
    parts.expect(tag::OBJECT_IDENTIFIER, "an other name has no type")?;
    let value = parts.expect(tag::explicit(0), "an other name has no value")?;
    parts.end("an other name has a third part")?;
    Element::only(value.value).map(|_| ())
}
