//! Distinguished names as operators type them: `C=DE,O=Example,CN=Example Issuing CA 1`.

use domain::{policy::ValueType, request::TypedValue};

/// Why a text is not a distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubject {
    /// There is nothing in it.
    #[error("subject: is empty; write for example C=DE,O=Example,CN=Example Issuing CA 1")]
    Empty,
    /// A part is not `NAME=value`.
    #[error("subject: {0:?} is not NAME=value (write a comma inside a value as \\,)")]
    Shape(String),
    /// The attribute is not known here.
    #[error(
        "subject: attribute {0:?} is not known; use C, ST, L, O, OU, CN, DC, serialNumber or organizationIdentifier"
    )]
    Unknown(String),
    /// An attribute stands twice that may not.
    #[error("subject: {0} stands twice; only OU and DC may")]
    Twice(String),
    /// A country is not two capital letters.
    #[error("subject: C must be two capital letters (ISO 3166-1), not {0:?}")]
    Country(String),
    /// A value is empty or too long.
    #[error("subject: {0} must have 1 to {1} characters")]
    Length(String, usize),
}

/// Name, object identifier, encoding, greatest length, and whether it may repeat.
type Attribute = (&'static str, &'static str, ValueType, usize, bool);

/// Encodings as RFC 5280 (section 4.1.2.4) wants them, lengths as its appendix A bounds them.
const ATTRIBUTES: [Attribute; 9] = [
    ("C", "2.5.4.6", ValueType::Printablestring, 2, false),
    ("ST", "2.5.4.8", ValueType::Utf8string, 128, false),
    ("L", "2.5.4.7", ValueType::Utf8string, 128, false),
    ("O", "2.5.4.10", ValueType::Utf8string, 64, false),
    ("OU", "2.5.4.11", ValueType::Utf8string, 64, true),
    ("CN", "2.5.4.3", ValueType::Utf8string, 64, false),
    ("DC", "0.9.2342.19200300.100.1.25", ValueType::Ia5string, 63, true),
    ("serialNumber", "2.5.4.5", ValueType::Printablestring, 64, false),
    ("organizationIdentifier", "2.5.4.97", ValueType::Utf8string, 256, false),
];

/// Reads a distinguished name, most significant attribute first, one relative name each.
pub fn parse(text: &str) -> Result<Vec<TypedValue>, BadSubject> {
    let mut name: Vec<TypedValue> = Vec::new();
    for part in split(text) {
        let (attribute, value) = part.split_once('=').ok_or_else(|| BadSubject::Shape(part.clone()))?;
        let (attribute, value) = (attribute.trim(), value.trim());
        let known = ATTRIBUTES
            .iter()
            .find(|(name, ..)| name.eq_ignore_ascii_case(attribute));
        let &(known, oid, value_type, bound, repeats) = known.ok_or_else(|| BadSubject::Unknown(attribute.into()))?;
        if !repeats && name.iter().any(|before| before.oid == oid) {
            return Err(BadSubject::Twice(known.into()));
        }
        if value.is_empty() || value.chars().count() > bound {
            return Err(BadSubject::Length(known.into(), bound));
        }
        if known == "C" && !(value.len() == 2 && value.bytes().all(|b| b.is_ascii_uppercase())) {
            return Err(BadSubject::Country(value.into()));
        }
        name.push(TypedValue {
            oid: oid.into(),
            value_type,
            value: value.into(),
        });
    }
    if name.is_empty() {
        Err(BadSubject::Empty)
    } else {
        Ok(name)
    }
}

/// The parts between commas that no backslash escapes, with the escapes taken away.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => parts.push(std::mem::take(&mut part)),
            '\\' => part.extend(characters.next()),
            other => part.push(other),
        }
    }
    parts.push(part);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_order_its_repeats_and_its_escaped_commas() {
        let name = parse(r"C=DE, O=Example\, Inc., OU=b, ou=a, CN=Example Issuing CA 1").unwrap();
        let values: Vec<_> = name
            .iter()
            .map(|typed| (typed.oid.as_str(), typed.value.as_str()))
            .collect();
        assert_eq!(
            values,
            [
                ("2.5.4.6", "DE"),
                ("2.5.4.10", "Example, Inc."),
                ("2.5.4.11", "b"),
                ("2.5.4.11", "a"),
                ("2.5.4.3", "Example Issuing CA 1"),
            ]
        );
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_its_reason() {
        assert_eq!(parse(" , "), Err(BadSubject::Empty));
        assert_eq!(parse("CN"), Err(BadSubject::Shape("CN".into())));
        assert_eq!(parse("X=1"), Err(BadSubject::Unknown("X".into())));
        assert_eq!(parse("O=a,o=b"), Err(BadSubject::Twice("O".into())));
        assert_eq!(parse("C=de"), Err(BadSubject::Country("de".into())));
        assert_eq!(parse("C=DEU"), Err(BadSubject::Length("C".into(), 2)));
        assert_eq!(parse("CN="), Err(BadSubject::Length("CN".into(), 64)));
    }
}
