//! The structure of the extensions (RFC 5280, 4.2) that the rules look into.

use super::{
    oid,
    parser::{Element, Malformed, Reader, check, tag},
    primitive::{bit_string, boolean, integer},
    tbs::{GeneralName, Unreadable, within},
};

/// Which extension it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtensionKind {
    SubjectDirectoryAttributes,
    SubjectKeyIdentifier,
    KeyUsage,
    SubjectAltName,
    IssuerAltName,
    BasicConstraints,
    NameConstraints,
    CrlDistributionPoints,
    CertificatePolicies,
    PolicyMappings,
    AuthorityKeyIdentifier,
    PolicyConstraints,
    ExtendedKeyUsage,
    FreshestCrl,
    InhibitAnyPolicy,
    AuthorityInfoAccess,
    QualifiedStatements,
    SubjectInfoAccess,
    OcspNoCheck,
    MsTemplate,
    Other,
}

impl ExtensionKind {
    const fn of(oid: &[u8]) -> Self {
        match oid {
            oid::SUBJECT_DIRECTORY_ATTRIBUTES => Self::SubjectDirectoryAttributes,
            oid::SUBJECT_KEY_IDENTIFIER => Self::SubjectKeyIdentifier,
            oid::KEY_USAGE => Self::KeyUsage,
            oid::SUBJECT_ALT_NAME => Self::SubjectAltName,
            oid::ISSUER_ALT_NAME => Self::IssuerAltName,
            oid::BASIC_CONSTRAINTS => Self::BasicConstraints,
            oid::NAME_CONSTRAINTS => Self::NameConstraints,
            oid::CRL_DISTRIBUTION_POINTS => Self::CrlDistributionPoints,
            oid::CERTIFICATE_POLICIES => Self::CertificatePolicies,
            oid::POLICY_MAPPINGS => Self::PolicyMappings,
            oid::AUTHORITY_KEY_IDENTIFIER => Self::AuthorityKeyIdentifier,
            oid::POLICY_CONSTRAINTS => Self::PolicyConstraints,
            oid::EXTENDED_KEY_USAGE => Self::ExtendedKeyUsage,
            oid::FRESHEST_CRL => Self::FreshestCrl,
            oid::INHIBIT_ANY_POLICY => Self::InhibitAnyPolicy,
            oid::AUTHORITY_INFO_ACCESS => Self::AuthorityInfoAccess,
            oid::QUALIFIED_STATEMENTS => Self::QualifiedStatements,
            oid::SUBJECT_INFO_ACCESS => Self::SubjectInfoAccess,
            oid::OCSP_NO_CHECK => Self::OcspNoCheck,
            oid::MS_TEMPLATE => Self::MsTemplate,
            _ => Self::Other,
        }
    }

    /// Name for reports, and the field of a request that the extension comes from.
    pub(super) const fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::SubjectDirectoryAttributes => ("subjectDirectoryAttributes", "subject_da"),
            Self::SubjectKeyIdentifier => ("subjectKeyIdentifier", ""),
            Self::KeyUsage => ("keyUsage", "key_usages"),
            Self::SubjectAltName => ("subjectAltName", "san"),
            Self::IssuerAltName => ("issuerAltName", "custom_extensions"),
            Self::BasicConstraints => ("basicConstraints", "custom_extensions"),
            Self::NameConstraints => ("nameConstraints", "custom_extensions"),
            Self::CrlDistributionPoints => ("cRLDistributionPoints", ""),
            Self::CertificatePolicies => ("certificatePolicies", ""),
            Self::PolicyMappings => ("policyMappings", "custom_extensions"),
            Self::AuthorityKeyIdentifier => ("authorityKeyIdentifier", ""),
            Self::PolicyConstraints => ("policyConstraints", "custom_extensions"),
            Self::ExtendedKeyUsage => ("extKeyUsage", "extended_key_usages"),
            Self::FreshestCrl => ("freshestCRL", "custom_extensions"),
            Self::InhibitAnyPolicy => ("inhibitAnyPolicy", "custom_extensions"),
            Self::AuthorityInfoAccess => ("authorityInfoAccess", ""),
            Self::QualifiedStatements => ("qcStatements", "qualified_statements"),
            Self::SubjectInfoAccess => ("subjectInfoAccess", "custom_extensions"),
            Self::OcspNoCheck => ("id-pkix-ocsp-nocheck", ""),
            Self::MsTemplate => ("certificateTemplate", "ms_extension_template"),
            Self::Other => ("an extension", "custom_extensions"),
        }
    }
}

/// An extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extension<'a> {
    pub kind: ExtensionKind,
    pub oid: &'a [u8],
    pub critical: bool,
    /// The DER inside the OCTET STRING.
    pub value: &'a [u8],
}

/// basicConstraints.
#[derive(Debug, Clone, Copy)]
pub(super) struct BasicConstraints {
    pub ca: bool,
    pub path_length: Option<u8>,
}

/// authorityKeyIdentifier.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthorityKeyIdentifier<'a> {
    pub key: Option<&'a [u8]>,
    /// Whether authorityCertIssuer or authorityCertSerialNumber is there.
    pub certificate: bool,
}

/// PolicyInformation.
#[derive(Debug, Clone, Copy)]
pub(super) struct PolicyInformation<'a> {
    pub oid: &'a [u8],
    /// Contents of the sequence of qualifiers.
    pub qualifiers: Option<Reader<'a>>,
}

/// AccessDescription.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessDescription<'a> {
    pub method: &'a [u8],
    pub location: GeneralName<'a>,
}

/// DistributionPoint.
#[derive(Debug)]
pub(super) struct DistributionPoint<'a> {
    /// The names of fullName.
    pub full_name: Vec<GeneralName<'a>>,
    /// Whether there is a relative name, reasons or a cRLIssuer.
    pub others: bool,
}

/// The extensions, and the contents of those that the rules look into. Of repeated ones the first counts.
#[derive(Debug, Default)]
pub(super) struct Extensions<'a> {
    /// In order of encoding.
    pub all: Vec<Extension<'a>>,
    pub subject_alt_name: Option<Vec<GeneralName<'a>>>,
    /// The bits of keyUsage, digitalSignature the highest.
    pub key_usage: Option<u16>,
    pub extended_key_usage: Option<Vec<&'a [u8]>>,
    pub basic_constraints: Option<BasicConstraints>,
    pub authority_key_identifier: Option<AuthorityKeyIdentifier<'a>>,
    pub subject_key_identifier: Option<&'a [u8]>,
    pub certificate_policies: Vec<PolicyInformation<'a>>,
    pub authority_info_access: Vec<AccessDescription<'a>>,
    pub crl_distribution_points: Vec<DistributionPoint<'a>>,
}

impl<'a> Extensions<'a> {
    pub(super) fn read(explicit: &'a [u8]) -> Result<Self, Unreadable> {
        let outer = within("extensions", "");
        let mut list = Reader::sequence_in(explicit, "Extensions").map_err(outer)?;
        let mut extensions = Self {
            all: Vec::with_capacity(16),
            ..Self::default()
        };
        if list.is_empty() {
            return Err(outer(Malformed::Shape("there are none")));
        }
        while !list.is_empty() {
            let extension = list.element().and_then(Extension::read).map_err(outer)?;
            let repeated = extension.kind != ExtensionKind::Other && extensions.find(extension.kind).is_some();
            extensions.all.push(extension);
            let (name, field) = extension.kind.named();
            check(extension.value).map_err(within(name, field))?;
            if !repeated {
                extensions.look_into(extension).map_err(within(name, field))?;
            }
        }
        Ok(extensions)
    }

    /// The first extension of this kind.
    pub(super) fn find(&self, kind: ExtensionKind) -> Option<&Extension<'a>> {
        self.all.iter().find(|extension| extension.kind == kind)
    }

    /// Alternative names of one kind.
    pub(super) fn names(&self, tag: u8) -> impl Iterator<Item = GeneralName<'a>> {
        self.subject_alt_name
            .iter()
            .flatten()
            .copied()
            .filter(move |name| name.tag == tag)
    }

    /// Whether extKeyUsage has this purpose.
    pub(super) fn has_purpose(&self, purpose: &[u8]) -> bool {
        self.extended_key_usage.iter().flatten().any(|oid| *oid == purpose)
    }

    fn look_into(&mut self, extension: Extension<'a>) -> Result<(), Malformed> {
        let value = extension.value;
        match extension.kind {
            ExtensionKind::SubjectAltName => {
                let names = Reader::sequence_in(value, "GeneralNames")?.each(GeneralName::read)?;
                self.subject_alt_name = Some(names);
            }
            ExtensionKind::KeyUsage => self.key_usage = Some(key_usage(value)?),
            ExtensionKind::ExtendedKeyUsage => {
                let purposes = Reader::sequence_in(value, "ExtKeyUsageSyntax")?;
                self.extended_key_usage = Some(purposes.each(|purpose| as_oid(purpose, "a key purpose"))?);
            }
            ExtensionKind::BasicConstraints => self.basic_constraints = Some(basic_constraints(value)?),
            ExtensionKind::AuthorityKeyIdentifier => {
                let mut reader = Reader::sequence_in(value, "AuthorityKeyIdentifier")?;
                let key = reader.optional(tag::context(0))?.map(|element| element.content);
                let certificate = !reader.is_empty();
                self.authority_key_identifier = Some(AuthorityKeyIdentifier { key, certificate });
            }
            ExtensionKind::SubjectKeyIdentifier => {
                let mut reader = Reader::new(value);
                let identifier = reader.expect(tag::OCTET_STRING, "KeyIdentifier")?;
                self.subject_key_identifier = Some(identifier.content);
            }
            ExtensionKind::CertificatePolicies => {
                self.certificate_policies = Reader::sequence_in(value, "certificatePolicies")?.each(policy)?;
            }
            ExtensionKind::AuthorityInfoAccess => {
                self.authority_info_access = Reader::sequence_in(value, "authorityInfoAccess")?.each(access)?;
            }
            ExtensionKind::CrlDistributionPoints => {
                let points = Reader::sequence_in(value, "cRLDistributionPoints")?;
                self.crl_distribution_points = points.each(distribution_point)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Extension<'a> {
    fn read(element: Element<'a>) -> Result<Self, Malformed> {
        if element.tag != tag::SEQUENCE {
            let expected = "an extension";
            let found = element.tag;
            return Err(Malformed::Unexpected { expected, found });
        }
        let mut reader = element.inner();
        let oid = reader.expect(tag::OBJECT_IDENTIFIER, "extnID")?.content;
        let critical = written(reader.optional(tag::BOOLEAN)?)?;
        let value = reader.expect(tag::OCTET_STRING, "extnValue")?.content;
        reader.end()?;
        let kind = ExtensionKind::of(oid);
        Ok(Self {
            kind,
            oid,
            critical,
            value,
        })
    }
}

/// A BOOLEAN DEFAULT FALSE: only TRUE may be written.
fn written(element: Option<Element<'_>>) -> Result<bool, Malformed> {
    match element {
        None => Ok(false),
        Some(element) if boolean(element.content)? => Ok(true),
        Some(_) => Err(Malformed::DefaultWritten),
    }
}

fn as_oid<'a>(element: Element<'a>, expected: &'static str) -> Result<&'a [u8], Malformed> {
    if element.tag == tag::OBJECT_IDENTIFIER {
        Ok(element.content)
    } else {
        let found = element.tag;
        Err(Malformed::Unexpected { expected, found })
    }
}

fn as_sequence<'a>(element: Element<'a>, expected: &'static str) -> Result<Reader<'a>, Malformed> {
    Reader::sequence_in(element.whole, expected)
}

/// A KeyUsage: a list of named bits, without zeros at its end (X.690, 11.2.2).
fn key_usage(value: &[u8]) -> Result<u16, Malformed> {
    let bits = Reader::new(value).expect(tag::BIT_STRING, "KeyUsage")?;
    let (unused, bytes) = bit_string(bits.content)?;
    if bytes.last().is_some_and(|last| last & (1 << unused) == 0) {
        return Err(Malformed::NamedBits);
    }
    match *bytes {
        [] => Ok(0),
        [first] => Ok(u16::from_be_bytes([first, 0])),
        [first, 0x80] => Ok(u16::from_be_bytes([first, 0x80])),
        _ => Err(Malformed::Shape("a bit that no RFC names")),
    }
}

fn basic_constraints(value: &[u8]) -> Result<BasicConstraints, Malformed> {
    let mut reader = Reader::sequence_in(value, "BasicConstraints")?;
    let ca = written(reader.optional(tag::BOOLEAN)?)?;
    let path_length = match reader
        .optional(tag::INTEGER)?
        .map(|element| integer(element.content))
        .transpose()?
    {
        None => None,
        Some(&[length]) if length < 0x80 => Some(length),
        Some(_) => return Err(Malformed::Shape("pathLenConstraint is negative or above 127")),
    };
    reader.end()?;
    Ok(BasicConstraints { ca, path_length })
}

fn policy(element: Element<'_>) -> Result<PolicyInformation<'_>, Malformed> {
    let mut reader = as_sequence(element, "PolicyInformation")?;
    let oid = reader.expect(tag::OBJECT_IDENTIFIER, "policyIdentifier")?.content;
    let qualifiers = reader.optional(tag::SEQUENCE)?.map(|element| element.inner());
    reader.end()?;
    Ok(PolicyInformation { oid, qualifiers })
}

fn access(element: Element<'_>) -> Result<AccessDescription<'_>, Malformed> {
    let mut reader = as_sequence(element, "AccessDescription")?;
    let method = reader.expect(tag::OBJECT_IDENTIFIER, "accessMethod")?.content;
    let location = GeneralName::read(reader.element()?)?;
    reader.end()?;
    Ok(AccessDescription { method, location })
}

fn distribution_point(element: Element<'_>) -> Result<DistributionPoint<'_>, Malformed> {
    let mut reader = as_sequence(element, "DistributionPoint")?;
    let mut full_name = Vec::new();
    if let Some(point) = reader.optional(tag::context_constructed(0))? {
        let mut name = point.inner();
        if let Some(names) = name.optional(tag::context_constructed(0))? {
            full_name = names.inner().each(GeneralName::read)?;
            name.end()?;
        }
    }
    let others = full_name.is_empty() || !reader.is_empty();
    Ok(DistributionPoint { full_name, others })
}
