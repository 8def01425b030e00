//! Distinguished names as operators type them: `C=DE,O=Example,CN=Example Issuing CA 1`.

use rcgen::{DistinguishedName, DnType, DnValue};

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
    #[error("subject: attribute {0:?} is not known; use C, ST, L, O, OU, CN, serialNumber or organizationIdentifier")]
    Unknown(String),
    /// An attribute stands twice.
    #[error("subject: {0} stands twice; a CA's name has each attribute once")]
    Twice(String),
    /// A country is not two capital letters.
    #[error("subject: C must be two capital letters (ISO 3166-1), not {0:?}")]
    Country(String),
    /// A value is empty or too long.
    #[error("subject: {0} must have 1 to {1} characters")]
    Length(String, usize),
}

/// Reads a distinguished name, most significant attribute first. Values are encoded as `UTF8String`, the country as
/// `PrintableString` (RFC 5280, section 4.1.2.4), and bounded as in its appendix A.
pub fn parse(text: &str) -> Result<DistinguishedName, BadSubject> {
    let mut name = DistinguishedName::new();
    for part in split(text) {
        let (attribute, value) = part.split_once('=').ok_or_else(|| BadSubject::Shape(part.clone()))?;
        let (attribute, value) = (attribute.trim(), value.trim());
        let (kind, bound) = match attribute.to_ascii_lowercase().as_str() {
            "c" => (DnType::CountryName, 2),
            "st" => (DnType::StateOrProvinceName, 128),
            "l" => (DnType::LocalityName, 128),
            "o" => (DnType::OrganizationName, 64),
            "ou" => (DnType::OrganizationalUnitName, 64),
            "cn" => (DnType::CommonName, 64),
            "serialnumber" => (DnType::from_oid(&[2, 5, 4, 5]), 64),
            "organizationidentifier" => (DnType::from_oid(&[2, 5, 4, 97]), 256),
            _ => return Err(BadSubject::Unknown(attribute.into())),
        };
        if name.get(&kind).is_some() {
            return Err(BadSubject::Twice(attribute.into()));
        }
        if value.is_empty() || value.chars().count() > bound {
            return Err(BadSubject::Length(attribute.into(), bound));
        }
        let value = if kind == DnType::CountryName {
            if !value.bytes().all(|b| b.is_ascii_uppercase()) || value.len() != 2 {
                return Err(BadSubject::Country(value.into()));
            }
            DnValue::PrintableString(value.try_into().expect("two capital letters are printable"))
        } else {
            DnValue::Utf8String(value.into())
        };
        name.push(kind, value);
    }
    if name.iter().next().is_none() {
        return Err(BadSubject::Empty);
    }
    Ok(name)
}

/// The parts between commas that no backslash escapes, with the escapes taken away.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => parts.push(String::new()),
            '\\' => parts.last_mut().expect("begins with one").extend(characters.next()),
            other => parts.last_mut().expect("begins with one").push(other),
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_order_and_its_escaped_commas() {
        let name = parse(r"C=DE, O=Example\, Inc., CN=Example Issuing CA 1").unwrap();
        let values: Vec<_> = name.iter().map(|(kind, value)| (kind.clone(), value.clone())).collect();
        assert_eq!(
            values,
            [
                (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
                (DnType::OrganizationName, DnValue::Utf8String("Example, Inc.".into())),
                (DnType::CommonName, DnValue::Utf8String("Example Issuing CA 1".into())),
            ]
        );
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_its_reason() {
        assert_eq!(parse(" , "), Err(BadSubject::Empty));
        assert_eq!(parse("CN"), Err(BadSubject::Shape("CN".into())));
        assert_eq!(parse("X=1"), Err(BadSubject::Unknown("X".into())));
        assert_eq!(parse("OU=a,ou=b"), Err(BadSubject::Twice("ou".into())));
        assert_eq!(parse("C=de"), Err(BadSubject::Country("de".into())));
        assert_eq!(parse("C=DEU"), Err(BadSubject::Length("C".into(), 2)));
        assert_eq!(parse("CN="), Err(BadSubject::Length("CN".into(), 64)));
    }
}
