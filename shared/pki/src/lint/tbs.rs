//! The structure of a TBSCertificate (RFC 5280, 4.1).
//!
//! [`Tbs::read`] takes what is strict DER and has the right shape; whether it says the right things is for the rules.

use super::{
    extension::Extensions,
    key::PublicKey,
    parser::{Element, Malformed, Reader, check, tag},
    primitive::{Time, time},
    subject::AttributeType,
};

/// Where the reading of a certificate ended, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {reason}")]
pub(super) struct Unreadable {
    /// What was being read.
    pub part: &'static str,
    /// The field of a request that it comes from.
    pub field: &'static str,
    pub reason: Malformed,
}

pub(super) fn within(part: &'static str, field: &'static str) -> impl Fn(Malformed) -> Unreadable + Copy {
    move |reason| Unreadable { part, field, reason }
}

/// A to-be-signed certificate.
#[derive(Debug)]
pub(super) struct Tbs<'a> {
    /// Contents of the version INTEGER.
    pub version: &'a [u8],
    /// Contents of the serial number INTEGER.
    pub serial: &'a [u8],
    /// The inner AlgorithmIdentifier.
    pub signature: &'a [u8],
    /// The issuer's Name.
    pub issuer: &'a [u8],
    pub not_before: Time,
    pub not_after: Time,
    pub subject: Name<'a>,
    pub public_key: PublicKey<'a>,
    /// Whether issuerUniqueID or subjectUniqueID is there.
    pub unique_identifiers: bool,
    pub extensions: Extensions<'a>,
}

impl<'a> Tbs<'a> {
    /// Reads `der`, all of it.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, Unreadable> {
        let whole = within("the to-be-signed certificate", "");
        check(der).map_err(whole)?;
        let mut reader = Reader::sequence_in(der, "TBSCertificate").map_err(whole)?;
        let version = match reader.optional(tag::context_constructed(0)).map_err(whole)? {
            None => &[0],
            Some(explicit) => {
                let value = Element::only(explicit.content).map_err(whole)?;
                match value.content {
                    [0] => return Err(whole(Malformed::DefaultWritten)),
                    content if value.tag == tag::INTEGER => content,
                    _ => return Err(whole(Malformed::Shape("version is not an INTEGER"))),
                }
            }
        };
        let serial = reader.expect(tag::INTEGER, "serialNumber").map_err(whole)?.content;
        let signature = reader.expect(tag::SEQUENCE, "signature").map_err(whole)?.whole;
        let issuer = reader.expect(tag::SEQUENCE, "issuer").map_err(whole)?.whole;
        let mut validity = reader.expect(tag::SEQUENCE, "validity").map_err(whole)?.inner();
        let times = within("validity", "validity");
        let not_before = validity.element().and_then(|element| time(&element)).map_err(times)?;
        let not_after = validity.element().and_then(|element| time(&element)).map_err(times)?;
        validity.end().map_err(times)?;
        let subject = reader.expect(tag::SEQUENCE, "subject").map_err(whole)?;
        let subject = Name::read(subject).map_err(within("subject", "subject_dn"))?;
        let key = reader.expect(tag::SEQUENCE, "subjectPublicKeyInfo").map_err(whole)?;
        let public_key = PublicKey::read(key).map_err(within("subjectPublicKeyInfo", "public_key"))?;
        let mut unique_identifiers = false;
        for number in [1, 2] {
            unique_identifiers |= reader.optional(tag::context(number)).map_err(whole)?.is_some();
        }
        let extensions = match reader.optional(tag::context_constructed(3)).map_err(whole)? {
            None => Extensions::default(),
            Some(explicit) => Extensions::read(explicit.content)?,
        };
        reader.end().map_err(whole)?;
        Ok(Self {
            version,
            serial,
            signature,
            issuer,
            not_before,
            not_after,
            subject,
            public_key,
            unique_identifiers,
            extensions,
        })
    }
}

/// A distinguished name.
#[derive(Debug)]
pub(super) struct Name<'a> {
    pub whole: &'a [u8],
    /// In order of encoding.
    pub attributes: Vec<Attribute<'a>>,
}

/// An attribute of a distinguished name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub oid: &'a [u8],
    pub value: Element<'a>,
    /// Which relative distinguished name it is in, counted from 0.
    pub rdn: usize,
    pub kind: &'static AttributeType,
}

impl<'a> Name<'a> {
    pub(super) fn read(element: Element<'a>) -> Result<Self, Malformed> {
        let mut attributes = Vec::with_capacity(8);
        let mut rdns = element.inner();
        let mut rdn = 0;
        while !rdns.is_empty() {
            let mut set = rdns.expect(tag::SET, "a relative distinguished name")?.inner();
            if set.is_empty() {
                return Err(Malformed::Shape("a relative distinguished name without attributes"));
            }
            while !set.is_empty() {
                let mut attribute = set.expect(tag::SEQUENCE, "an attribute")?.inner();
                let oid = attribute
                    .expect(tag::OBJECT_IDENTIFIER, "the type of an attribute")?
                    .content;
                let value = attribute.element()?;
                attribute.end()?;
                let kind = AttributeType::of(oid);
                attributes.push(Attribute { oid, value, rdn, kind });
            }
            rdn += 1;
        }
        let whole = element.whole;
        Ok(Self { whole, attributes })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }
}

/// A GeneralName (RFC 5280, 4.2.1.6): its tag and its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GeneralName<'a> {
    pub tag: u8,
    pub content: &'a [u8],
}

impl<'a> GeneralName<'a> {
    pub(super) const OTHER: u8 = tag::context_constructed(0);
    pub(super) const MAIL: u8 = tag::context(1);
    pub(super) const DNS: u8 = tag::context(2);
    pub(super) const X400: u8 = tag::context_constructed(3);
    pub(super) const DIRECTORY: u8 = tag::context_constructed(4);
    pub(super) const EDI_PARTY: u8 = tag::context_constructed(5);
    pub(super) const URI: u8 = tag::context(6);
    pub(super) const IP: u8 = tag::context(7);
    pub(super) const REGISTERED_ID: u8 = tag::context(8);

    pub(super) fn read(element: Element<'a>) -> Result<Self, Malformed> {
        let Element { tag, content, .. } = element;
        match tag {
            Self::OTHER => {
                let mut reader = element.inner();
                reader.expect(tag::OBJECT_IDENTIFIER, "the type of an otherName")?;
                Element::only(
                    reader
                        .expect(tag::context_constructed(0), "the value of an otherName")?
                        .content,
                )?;
                reader.end()?;
            }
            Self::DIRECTORY => {
                Name::read(Element::only(content)?)?;
            }
            Self::MAIL | Self::DNS | Self::URI if !content.is_ascii() => {
                return Err(Malformed::Characters("IA5String"));
            }
            Self::MAIL | Self::DNS | Self::URI | Self::IP | Self::X400 | Self::EDI_PARTY | Self::REGISTERED_ID => {}
            found => {
                let expected = "a general name";
                return Err(Malformed::Unexpected { expected, found });
            }
        }
        Ok(Self { tag, content })
    }

    /// The text of a mail address, DNS name or URI; empty for other kinds.
    pub(super) fn text(&self) -> &'a str {
        match self.tag {
            Self::MAIL | Self::DNS | Self::URI => std::str::from_utf8(self.content).unwrap_or_default(),
            _ => "",
        }
    }
}
