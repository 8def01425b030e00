//! Subject directory attributes, qualified certificate statements and Microsoft's template (RFC 3739, 3.2.2 and 3.2.6;
//! ETSI EN 319 412-5).

use super::{
    Leaf, Rule, Verdict, ensure,
    extension::ExtensionKind,
    names::Uri,
    oid,
    parser::{Element, Malformed, Reader, tag},
    primitive::integer,
};

pub(super) const RULES: &[Rule] = &[
    Rule::leaf(
        "subject-directory-attributes",
        "RFC 5280 4.2.1.8; RFC 3739 3.2.2",
        "subject_da",
        directory_attributes,
    ),
    Rule::leaf(
        "qualified-statements",
        "RFC 3739 3.2.6; ETSI EN 319 412-5 4",
        "qualified_statements",
        qualified_statements,
    ),
    Rule::leaf(
        "ms-template",
        "Microsoft MS-WCCE 2.2.2.7.7.2",
        "ms_extension_template",
        ms_template,
    ),
];

/// Judges the value of an extension if there is one.
fn value_of(
    leaf: &Leaf<'_>,
    kind: ExtensionKind,
    judge: fn(&[u8]) -> Result<bool, Malformed>,
    wrong: &'static str,
) -> Verdict {
    let Some(extension) = leaf.tbs.extensions.find(kind) else {
        return Ok(());
    };
    match judge(extension.value) {
        Ok(good) => ensure(good, || wrong.into()),
        Err(reason) => ensure(false, || format!("{wrong}: {reason}")),
    }
}

fn directory_attributes(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "a subject directory attribute is malformed or repeated";
    value_of(
        leaf,
        ExtensionKind::SubjectDirectoryAttributes,
        directory_attributes_sound,
        wrong,
    )
}

fn directory_attributes_sound(value: &[u8]) -> Result<bool, Malformed> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut attributes = Reader::sequence_in(value, "SubjectDirectoryAttributes")?;
    while !attributes.is_empty() {
        let mut attribute = attributes.expect(tag::SEQUENCE, "an attribute")?.inner();
        let kind = attribute
            .expect(tag::OBJECT_IDENTIFIER, "the type of an attribute")?
            .content;
        let values = attribute
            .expect(tag::SET, "the values of an attribute")?
            .inner()
            .each(Ok)?;
        attribute.end()?;
        if seen.contains(&kind) || values.is_empty() {
            return Ok(false);
        }
        seen.push(kind);
        let single = values.len() == 1;
        let sound = match kind {
            oid::DATE_OF_BIRTH => single && values.iter().all(is_noon),
            oid::PLACE_OF_BIRTH => single && values.iter().all(|value| is_directory_string(value, 128)),
            oid::GENDER => single && values.iter().all(is_gender),
            oid::COUNTRY_OF_CITIZENSHIP | oid::COUNTRY_OF_RESIDENCE => values.iter().all(is_country),
            _ => true,
        };
        if !sound {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A GeneralizedTime; RFC 3739 wants noon, GMT, so that the day is the same nearly everywhere.
fn is_noon(value: &Element<'_>) -> bool {
    value.tag == tag::GENERALIZED_TIME && value.content.ends_with(b"120000Z")
}

fn is_directory_string(value: &Element<'_>, limit: usize) -> bool {
    matches!(value.tag, tag::PRINTABLE_STRING | tag::UTF8_STRING)
        && value
            .text()
            .is_some_and(|text| !text.is_empty() && text.chars().count() <= limit)
}

fn is_gender(value: &Element<'_>) -> bool {
    value.tag == tag::PRINTABLE_STRING && matches!(value.content, b"M" | b"F" | b"m" | b"f")
}

fn is_country(value: &Element<'_>) -> bool {
    value.tag == tag::PRINTABLE_STRING && value.content.len() == 2 && value.content.iter().all(u8::is_ascii_uppercase)
}

fn qualified_statements(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "a qualified statement is malformed or repeated";
    value_of(
        leaf,
        ExtensionKind::QualifiedStatements,
        qualified_statements_sound,
        wrong,
    )
}

fn qualified_statements_sound(value: &[u8]) -> Result<bool, Malformed> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut statements = Reader::sequence_in(value, "QCStatements")?;
    while !statements.is_empty() {
        let mut statement = statements.expect(tag::SEQUENCE, "QCStatement")?.inner();
        let id = statement.expect(tag::OBJECT_IDENTIFIER, "statementId")?.content;
        let info = if statement.is_empty() {
            None
        } else {
            Some(statement.element()?)
        };
        statement.end()?;
        if seen.contains(&id) {
            return Ok(false);
        }
        seen.push(id);
        let sound = match (id, info) {
            (oid::QC_RETENTION, Some(info)) => info.tag == tag::INTEGER && integer(info.content)?[0] < 0x80,
            (oid::QC_TYPE, Some(info)) => {
                let types = Reader::sequence_in(info.whole, "QcType")?.each(|element| Ok(element.tag))?;
                !types.is_empty() && types.iter().all(|found| *found == tag::OBJECT_IDENTIFIER)
            }
            (oid::QC_PDS, Some(info)) => pds_sound(info)?,
            (oid::QC_RETENTION | oid::QC_TYPE | oid::QC_PDS, None) => false,
            _ => true,
        };
        if !sound {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Locations of disclosure statements: an https URL and a language of two lower-case letters each.
fn pds_sound(info: Element<'_>) -> Result<bool, Malformed> {
    let mut locations = Reader::sequence_in(info.whole, "QcEuPDS")?;
    let mut some = false;
    while !locations.is_empty() {
        let mut location = locations.expect(tag::SEQUENCE, "PdsLocation")?.inner();
        let url = location.expect(tag::IA5_STRING, "url")?.text().unwrap_or_default();
        let language = location.expect(tag::PRINTABLE_STRING, "language")?.content;
        location.end()?;
        let secure = Uri::read(url).is_some_and(|uri| uri.scheme.eq_ignore_ascii_case("https") && uri.host.is_some());
        if !secure || language.len() != 2 || !language.iter().all(u8::is_ascii_lowercase) {
            return Ok(false);
        }
        some = true;
    }
    Ok(some)
}

fn ms_template(leaf: &Leaf<'_>) -> Verdict {
    let wrong = "the certificate template is malformed";
    value_of(leaf, ExtensionKind::MsTemplate, ms_template_sound, wrong)
}

/// An object identifier and up to two versions, not negative.
fn ms_template_sound(value: &[u8]) -> Result<bool, Malformed> {
    let mut template = Reader::sequence_in(value, "CertificateTemplate")?;
    template.expect(tag::OBJECT_IDENTIFIER, "templateID")?;
    for _ in 0..2 {
        if let Some(version) = template.optional(tag::INTEGER)?
            && integer(version.content)?[0] >= 0x80
        {
            return Ok(false);
        }
    }
    template.end()?;
    Ok(true)
}
