//! The subject's distinguished name (RFC 5280, 4.1.2.6 and appendix A.1; BR 7.1.4).

use super::{
    Leaf, Rule, Verdict, ensure,
    extension::ExtensionKind,
    names, oid,
    parser::tag,
    primitive::{dotted, is_dotted},
    tbs::Attribute,
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf(
        "subject-single-valued",
        "RFC 5280 4.1.2.4; BR 7.1.4.1",
        "subject_dn",
        single_valued,
    ),
    Rule::leaf(
        "subject-attribute-expected",
        "profile subject_dn.extra_attributes",
        "subject_dn.extra_attributes",
        expected,
    ),
    Rule::leaf("subject-order", "BR 7.1.4.2", "subject_dn", order),
    Rule::leaf("subject-repeated", "BR 7.1.4.1", "subject_dn", repeated),
    Rule::leaf(
        "subject-string-type",
        "RFC 5280 4.1.2.4, A.1; RFC 4519 2.4",
        "subject_dn",
        string_type,
    ),
    Rule::leaf(
        "subject-upper-bound",
        "RFC 5280 A.1; X.520 C; BR 7.1.4.2",
        "subject_dn",
        upper_bound,
    ),
    Rule::leaf("subject-blank", "RFC 5280 A.1; BR 7.1.4.4", "subject_dn", blank),
    Rule::leaf(
        "subject-control-character",
        "RFC 5280 A.1; RFC 4518 2.2",
        "subject_dn",
        control_character,
    ),
    Rule::leaf(
        "subject-country",
        "RFC 5280 A.1; ISO 3166-1; BR 7.1.4.2",
        "subject_dn.country",
        country,
    ),
    Rule::leaf(
        "subject-domain-component",
        "RFC 4519 2.4; RFC 2247 3",
        "subject_dn.extra_attributes",
        domain_component,
    ),
    Rule::leaf(
        "subject-email",
        "RFC 5280 4.1.2.6; RFC 2985 5.2.1",
        "subject_dn.email",
        email,
    ),
    Rule::leaf(
        "subject-or-alternative-name",
        "RFC 5280 4.1.2.6",
        "san",
        subject_or_alternative_name,
    ),
];

/// How the value of an attribute is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// PrintableString or UTF8String: what RFC 5280 leaves of DirectoryString.
    Directory,
    Printable,
    Ia5,
    /// Nothing is known about it: anything but the string types that RFC 5280 forbids.
    Any,
}

/// An attribute type and what is known about it.
#[derive(Debug)]
pub(super) struct AttributeType {
    oid: &'static [u8],
    field: &'static str,
    encoding: Encoding,
    /// Greatest number of characters.
    upper_bound: usize,
    /// How often it may occur.
    occurrence: Occurrence,
    /// Place in the name: greater comes later.
    rank: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occurrence {
    Once,
    /// Often, with different values.
    Distinct,
    /// Often, with any values.
    Often,
}

macro_rules! attributes {
    ($($rank:literal $oid:ident $field:literal $encoding:ident $upper_bound:literal $occurrence:ident;)*) => {
        &[$(AttributeType {
            oid: oid::$oid,
            field: $field,
            encoding: Encoding::$encoding,
            upper_bound: $upper_bound,
            occurrence: Occurrence::$occurrence,
            rank: $rank,
        }),*]
    };
}

/// The attribute types in the one order in which they may stand. Types of the same rank stand in any order, but together with their like.
const ATTRIBUTES: &[AttributeType] = attributes! {
    0 DOMAIN_COMPONENT "subject_dn.extra_attributes" Ia5 63 Often;
    1 COUNTRY "subject_dn.country" Printable 2 Once;
    2 STATE "subject_dn.state" Directory 128 Once;
    3 LOCALITY "subject_dn.locality" Directory 128 Once;
    4 POSTAL_CODE "subject_dn.postal_code" Directory 40 Once;
    5 STREET_ADDRESS "subject_dn.street_address" Directory 128 Distinct;
    6 ORGANIZATION "subject_dn.organization" Directory 64 Once;
    7 ORGANIZATION_IDENTIFIER "subject_dn.organization_identifier" Directory 256 Once;
    8 BUSINESS_CATEGORY "subject_dn.business_category" Directory 128 Once;
    9 JURISDICTION_COUNTRY "subject_dn.jurisdiction_of_incorporation_country_name" Printable 2 Once;
    10 JURISDICTION_STATE "subject_dn.jurisdiction_of_incorporation_state_or_province_name" Directory 128 Once;
    11 JURISDICTION_LOCALITY "subject_dn.jurisdiction_of_incorporation_locality_name" Directory 128 Once;
    12 SURNAME "subject_dn.surname" Directory 64 Once;
    13 GIVEN_NAME "subject_dn.given_name" Directory 64 Distinct;
    14 PSEUDONYM "subject_dn.pseudonym" Directory 128 Once;
    15 ORGANIZATIONAL_UNIT "subject_dn.organizational_unit" Directory 64 Distinct;
    16 SERIAL_NUMBER "subject_dn.serial_number" Printable 64 Once;
    17 EMAIL_ADDRESS "subject_dn.email" Ia5 255 Distinct;
    18 TITLE "subject_dn.extra_attributes" Directory 64 Distinct;
    18 NAME "subject_dn.extra_attributes" Directory 32768 Distinct;
    18 INITIALS "subject_dn.extra_attributes" Directory 32768 Distinct;
    18 GENERATION_QUALIFIER "subject_dn.extra_attributes" Directory 32768 Distinct;
    18 DN_QUALIFIER "subject_dn.extra_attributes" Printable 64 Distinct;
    18 USER_ID "subject_dn.extra_attributes" Directory 256 Distinct;
    19 COMMON_NAME "subject_dn.common_name" Directory 64 Once;
};

/// Any other type stands with the last of the extra attributes.
static OTHER: AttributeType = AttributeType {
    oid: &[],
    field: "subject_dn.extra_attributes",
    encoding: Encoding::Any,
    upper_bound: 32768,
    occurrence: Occurrence::Distinct,
    rank: 18,
};

impl AttributeType {
    /// What is known about the attribute type.
    pub(super) fn of(oid: &[u8]) -> &'static Self {
        ATTRIBUTES.iter().find(|known| known.oid == oid).unwrap_or(&OTHER)
    }
}

/// Judges every attribute; the field of the first bad one is blamed.
fn each(leaf: &Leaf<'_>, judge: impl Fn(&Attribute<'_>) -> Verdict) -> Verdict {
    leaf.tbs
        .subject
        .attributes
        .iter()
        .try_for_each(|attribute| judge(attribute).map_err(|fault| fault.blaming(attribute.kind.field)))
}

fn label(attribute: &Attribute<'_>) -> String {
    match attribute.kind.field.strip_prefix("subject_dn.") {
        Some(name) if name != "extra_attributes" => name.replace('_', " "),
        _ => format!("attribute {}", dotted(attribute.oid)),
    }
}

fn single_valued(leaf: &Leaf<'_>) -> Verdict {
    let attributes = &leaf.tbs.subject.attributes;
    ensure(attributes.is_sorted_by(|a, b| a.rdn < b.rdn), || {
        "a relative distinguished name has more than one attribute".into()
    })
}

/// Attributes without a field of their own have a place in the profile.
fn expected(leaf: &Leaf<'_>) -> Verdict {
    let known = &leaf.profile.policy.subject_dn.extra_attributes;
    each(leaf, |attribute| {
        let own_field = attribute.kind.field != OTHER.field;
        ensure(
            own_field || known.keys().any(|oid| is_dotted(attribute.oid, oid)),
            || format!("{} is not in the profile", label(attribute)),
        )
    })
}

/// The order of [`ATTRIBUTES`], and attributes of one type next to each other. The attributes of a multi-valued name have no order.
fn order(leaf: &Leaf<'_>) -> Verdict {
    let attributes = &leaf.tbs.subject.attributes;
    for pair in attributes.windows(2) {
        if pair[0].rdn < pair[1].rdn && pair[0].kind.rank > pair[1].kind.rank {
            let detail = format!("{} stands before {}", label(&pair[0]), label(&pair[1]));
            return ensure(false, || detail).map_err(|fault| fault.blaming(pair[1].kind.field));
        }
    }
    for (at, attribute) in attributes.iter().enumerate().skip(2) {
        let apart = attributes[..at - 1].iter().any(|other| other.oid == attribute.oid);
        if apart && attributes[at - 1].oid != attribute.oid && attribute.kind.rank == OTHER.rank {
            let detail = format!("values of {} stand apart from each other", label(attribute));
            return ensure(false, || detail).map_err(|fault| fault.blaming(attribute.kind.field));
        }
    }
    Ok(())
}

fn repeated(leaf: &Leaf<'_>) -> Verdict {
    let attributes = &leaf.tbs.subject.attributes;
    for (at, attribute) in attributes.iter().enumerate() {
        let again = attributes[..at].iter().any(|other| match attribute.kind.occurrence {
            Occurrence::Once => other.oid == attribute.oid,
            Occurrence::Distinct => other.oid == attribute.oid && other.value == attribute.value,
            Occurrence::Often => false,
        });
        ensure(!again, || format!("{} is repeated", label(attribute)))
            .map_err(|fault| fault.blaming(attribute.kind.field))?;
    }
    Ok(())
}

fn string_type(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let found = attribute.value.tag;
        let good = match attribute.kind.encoding {
            Encoding::Directory => matches!(found, tag::PRINTABLE_STRING | tag::UTF8_STRING),
            Encoding::Printable => found == tag::PRINTABLE_STRING,
            Encoding::Ia5 => found == tag::IA5_STRING,
            Encoding::Any => !matches!(found, tag::TELETEX_STRING | tag::BMP_STRING | tag::UNIVERSAL_STRING),
        };
        ensure(good, || {
            let wanted = match attribute.kind.encoding {
                Encoding::Printable => "PrintableString",
                Encoding::Ia5 => "IA5String",
                Encoding::Directory | Encoding::Any => "PrintableString or UTF8String",
            };
            format!(
                "{} is encoded with tag 0x{found:02x}, not as {wanted}",
                label(attribute)
            )
        })
    })
}

fn upper_bound(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let limit = attribute.kind.upper_bound;
        let content = attribute.value.content;
        // A text has at most as many characters as bytes.
        let length = || {
            attribute
                .value
                .text()
                .map_or(content.len(), |text| text.chars().count())
        };
        let good =
            content.len() <= limit || length() <= limit || attribute.kind.encoding == Encoding::Printable && limit == 2;
        ensure(good, || {
            format!("{} has {} characters of at most {limit}", label(attribute), length())
        })
    })
}

/// A value that says something, without white space around it. BR forbids those that are only `.`, `-` or space.
fn blank(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let Some(text) = attribute.value.text() else {
            return Ok(());
        };
        let placeholder = text.chars().all(|c| matches!(c, '.' | '-') || c.is_whitespace());
        ensure(!placeholder && text.trim() == text, || {
            format!(
                "{} is empty, a placeholder, or has white space around it",
                label(attribute)
            )
        })
    })
}

fn control_character(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let Some(text) = attribute.value.text() else {
            return Ok(());
        };
        ensure(!text.chars().any(char::is_control), || {
            format!("{} has a control character", label(attribute))
        })
    })
}

/// Two upper-case letters.
fn country(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let country = matches!(attribute.kind.oid, oid::COUNTRY | oid::JURISDICTION_COUNTRY);
        let content = attribute.value.content;
        ensure(
            !country || content.len() == 2 && content.iter().all(u8::is_ascii_uppercase),
            || format!("{} is not two upper-case letters", label(attribute)),
        )
    })
}

/// Each a label of a domain name.
fn domain_component(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let Some(text) = attribute.value.text() else {
            return Ok(());
        };
        ensure(
            attribute.kind.oid != oid::DOMAIN_COMPONENT || names::is_label(text),
            || "a domainComponent is not one label of letters, digits and hyphens".into(),
        )
    })
}

fn email(leaf: &Leaf<'_>) -> Verdict {
    each(leaf, |attribute| {
        let Some(text) = attribute.value.text() else {
            return Ok(());
        };
        ensure(
            attribute.kind.oid != oid::EMAIL_ADDRESS || names::is_mailbox(text),
            || "the emailAddress is not a mailbox: local-part@domain".into(),
        )
    })
}

fn subject_or_alternative_name(leaf: &Leaf<'_>) -> Verdict {
    let named = leaf.tbs.extensions.find(ExtensionKind::SubjectAltName).is_some();
    ensure(named || !leaf.tbs.subject.is_empty(), || {
        "there is neither a subject nor a subjectAltName".into()
    })
}

/// Whether two values say the same: their texts compared without regard to case and repeated spaces (RFC 5280, 7.1).
pub(super) fn same_value(a: &Attribute<'_>, b: &Attribute<'_>) -> bool {
    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split_whitespace().map(str::to_lowercase)
    }
    a.oid == b.oid
        && match (a.value.text(), b.value.text()) {
            (Some(a), Some(b)) => a == b || words(a).eq(words(b)),
            _ => a.value == b.value,
        }
}
