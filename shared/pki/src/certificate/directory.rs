//! What qualified certificates say of persons: subject directory attributes (RFC 3739, 3.2.2) and qualified certificate statements
//! (RFC 3739, 3.2.6; ETSI EN 319 412-5, 4).

use std::collections::BTreeMap;

use domain::request::{QualifiedStatements, Semantics, SubjectDa, TypedValue};

use super::{
    PrepareError,
    extension::{DNS_NAME, RFC822_NAME, URI},
    value,
};
use crate::asn1::{element, tag};

const DATE_OF_BIRTH: &str = "1.3.6.1.5.5.7.9.1";
const PLACE_OF_BIRTH: &str = "1.3.6.1.5.5.7.9.2";
const GENDER: &str = "1.3.6.1.5.5.7.9.3";
const COUNTRY_OF_CITIZENSHIP: &str = "1.3.6.1.5.5.7.9.4";
const COUNTRY_OF_RESIDENCE: &str = "1.3.6.1.5.5.7.9.5";

/// Attributes in the order in which they were first named, each with the set of its values.
#[derive(Default)]
struct Attributes {
    all: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl Attributes {
    fn add(&mut self, oid: Vec<u8>, value: Vec<u8>) {
        match self.all.iter_mut().find(|(known, _)| *known == oid) {
            Some((_, values)) => values.push(value),
            None => self.all.push((oid, vec![value])),
        }
    }

    /// `SEQUENCE OF Attribute`; values as DER orders a SET OF.
    fn encode(self) -> Option<Vec<u8>> {
        let mut encoded = Vec::new();
        for (oid, mut values) in self.all {
            values.sort();
            values.dedup();
            encoded.extend(element(tag::SEQUENCE, &[&oid, &element(tag::SET, &[&values.concat()])]));
        }
        (!encoded.is_empty()).then(|| element(tag::SEQUENCE, &[&encoded]))
    }
}

/// `SubjectDirectoryAttributes`, if there are any.
pub(super) fn attributes(named: Option<&SubjectDa>, extra: &[TypedValue]) -> Result<Option<Vec<u8>>, PrepareError> {
    let mut all = Attributes::default();
    if let Some(named) = named {
        add_named(&mut all, named)?;
    }
    for attribute in extra {
        let field = "subject_da.extra_attributes";
        all.add(
            value::object_identifier(field, &attribute.oid)?,
            value::typed(field, attribute)?,
        );
    }
    Ok(all.encode())
}

fn add_named(all: &mut Attributes, named: &SubjectDa) -> Result<(), PrepareError> {
    if let Some(date) = &named.date_of_birth {
        let field = "subject_da.date_of_birth";
        all.add(value::object_identifier(field, DATE_OF_BIRTH)?, noon(field, date)?);
    }
    if let Some(place) = &named.place_of_birth {
        let field = "subject_da.place_of_birth";
        all.add(
            value::object_identifier(field, PLACE_OF_BIRTH)?,
            value::utf8(field, place)?,
        );
    }
    if let Some(gender) = &named.gender {
        let field = "subject_da.gender";
        if !matches!(gender.as_str(), "M" | "F" | "m" | "f") {
            return Err(PrepareError::new(field, "is neither M nor F (RFC 3739, section 3.2.2)"));
        }
        all.add(
            value::object_identifier(field, GENDER)?,
            value::printable(field, gender)?,
        );
    }
    for (field, oid, countries) in [
        (
            "subject_da.country_of_citizenship",
            COUNTRY_OF_CITIZENSHIP,
            &named.country_of_citizenship,
        ),
        (
            "subject_da.country_of_residence",
            COUNTRY_OF_RESIDENCE,
            &named.country_of_residence,
        ),
    ] {
        for country in countries {
            all.add(value::object_identifier(field, oid)?, two_letters(field, country)?);
        }
    }
    Ok(())
}

fn two_letters(field: &'static str, text: &str) -> Result<Vec<u8>, PrepareError> {
    if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(PrepareError::new(field, "is not a code of two letters"));
    }
    value::printable(field, text)
}

/// `GeneralizedTime` at noon GMT of a date written `YYYY-MM-DD`.
fn noon(field: &'static str, date: &str) -> Result<Vec<u8>, PrepareError> {
    let wrong = || PrepareError::new(field, "is not a date written YYYY-MM-DD");
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date.as_bytes() else {
        return Err(wrong());
    };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2];
    let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
    let number = |part: &str| part.parse::<u8>().map_err(|_| wrong());
    let year: u16 = digits[..4].parse().map_err(|_| wrong())?;
    let (month, day) = (number(&digits[4..6])?, number(&digits[6..])?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u8::from(leap),
        _ => 31,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !(1..=12).contains(&month) || !(1..=days).contains(&day) {
        return Err(wrong());
    }
    Ok(element(tag::GENERALIZED_TIME, &[digits.as_bytes(), b"120000Z"]))
}

/// `QCStatements`, if there are any.
pub(super) fn statements(qualified: &QualifiedStatements) -> Result<Option<Vec<u8>>, PrepareError> {
    let mut all = Vec::new();
    let mut add = |oid: &str, information: Option<Vec<u8>>| -> Result<(), PrepareError> {
        let oid = value::object_identifier("qualified_statements", oid)?;
        all.extend(element(tag::SEQUENCE, &[&oid, &information.unwrap_or_default()]));
        Ok(())
    };
    if let Some(semantics) = qualified.semantics.as_ref().map(semantics).transpose()?.flatten() {
        add("1.3.6.1.5.5.7.11.2", Some(semantics))?;
    }
    if qualified.etsi_qc_compliance == Some(true) {
        add("0.4.0.1862.1.1", None)?;
    }
    if let Some(years) = qualified.etsi_qc_retention_period {
        if years < 0 {
            let field = "qualified_statements.etsi_qc_retention_period";
            return Err(PrepareError::new(field, "is negative"));
        }
        add("0.4.0.1862.1.3", Some(value::whole_number(years.into())))?;
    }
    if qualified.etsi_qc_sscd_compliance == Some(true) {
        add("0.4.0.1862.1.4", None)?;
    }
    if !qualified.etsi_qc_pds.is_empty() {
        add("0.4.0.1862.1.5", Some(disclosure_statements(&qualified.etsi_qc_pds)?))?;
    }
    if let Some(oid) = &qualified.etsi_qc_type {
        let oid = value::object_identifier("qualified_statements.etsi_qc_type", oid)?;
        add("0.4.0.1862.1.6", Some(element(tag::SEQUENCE, &[&oid])))?;
    }
    Ok((!all.is_empty()).then(|| element(tag::SEQUENCE, &[&all])))
}

/// `SemanticsInformation` (RFC 3739, 3.2.6.1); a name authority is a URI, a mail address or a DNS name, as it looks.
fn semantics(semantics: &Semantics) -> Result<Option<Vec<u8>>, PrepareError> {
    let field = "qualified_statements.semantics.identifier";
    let identifier = semantics
        .identifier
        .as_deref()
        .map(|oid| value::object_identifier(field, oid))
        .transpose()?;
    let mut authorities = Vec::new();
    for authority in &semantics.name_authorities {
        let tag = match authority {
            uri if uri.contains(':') => URI,
            mail if mail.contains('@') => RFC822_NAME,
            _ => DNS_NAME,
        };
        authorities.extend(value::ia5(
            "qualified_statements.semantics.name_authorities",
            tag,
            authority,
        )?);
    }
    let mut all = identifier.unwrap_or_default();
    if !authorities.is_empty() {
        all.extend(element(tag::SEQUENCE, &[&authorities]));
    }
    Ok((!all.is_empty()).then(|| element(tag::SEQUENCE, &[&all])))
}

/// `PdsLocations` (ETSI EN 319 412-5, 4.3.4), ascending by language.
fn disclosure_statements(locations: &BTreeMap<String, String>) -> Result<Vec<u8>, PrepareError> {
    let field = "qualified_statements.etsi_qc_pds";
    let mut all = Vec::new();
    for (language, url) in locations {
        let url = value::ia5(field, tag::IA5_STRING, url)?;
        all.extend(element(tag::SEQUENCE, &[&url, &two_letters(field, language)?]));
    }
    Ok(element(tag::SEQUENCE, &[&all]))
}

#[cfg(test)]
mod tests {
    use domain::policy::ValueType;

    use super::*;

    #[test]
    fn a_date_of_birth_is_noon_gmt_and_must_be_a_date() {
        assert_eq!(noon("", "2000-02-29").expect("a leap day"), b"\x18\x0f20000229120000Z");
        for date in [
            "1900-02-29",
            "2001-13-01",
            "2001-00-01",
            "2001-04-31",
            "2001-1-1",
            "+001-01-01",
            "2001-01-01Z",
            "",
        ] {
            assert!(noon("", date).is_err(), "{date}");
        }
    }

    #[test]
    fn values_of_one_attribute_make_one_ordered_set() {
        let named = SubjectDa {
            country_of_citizenship: vec!["FR".into(), "DE".into(), "FR".into()],
            ..SubjectDa::default()
        };
        let der = attributes(Some(&named), &[])
            .expect("it can be encoded")
            .expect("there are some");
        assert!(der.ends_with(b"\x31\x08\x13\x02DE\x13\x02FR"), "{der:02x?}");
        assert_eq!(attributes(Some(&SubjectDa::default()), &[]), Ok(None));
    }

    #[test]
    fn an_extra_attribute_joins_the_named_one_of_its_type() {
        let named = SubjectDa {
            gender: Some("F".into()),
            ..SubjectDa::default()
        };
        let extra = [
            TypedValue {
                oid: "2.999.1".into(),
                value_type: ValueType::Utf8string,
                value: "b".into(),
            },
            TypedValue {
                oid: "2.999.1".into(),
                value_type: ValueType::Utf8string,
                value: "a".into(),
            },
        ];
        let der = attributes(Some(&named), &extra)
            .expect("it can be encoded")
            .expect("there are some");
        assert!(
            der.ends_with(b"\x06\x03\x88\x37\x01\x31\x06\x0c\x01a\x0c\x01b"),
            "{der:02x?}"
        );
        let wrong = SubjectDa {
            gender: Some("X".into()),
            ..SubjectDa::default()
        };
        assert_eq!(attributes(Some(&wrong), &[]).unwrap_err().field, "subject_da.gender");
    }

    #[test]
    fn qualified_statements_are_encoded_as_the_standards_say() {
        let qualified = QualifiedStatements {
            etsi_qc_compliance: Some(true),
            etsi_qc_sscd_compliance: Some(false),
            etsi_qc_retention_period: Some(7),
            etsi_qc_type: Some("0.4.0.1862.1.6.1".into()),
            etsi_qc_pds: [("en".to_owned(), "https://e.example/p".to_owned())].into(),
            ..QualifiedStatements::default()
        };
        let mut expected: Vec<u8> = Vec::new();
        expected.extend(b"\x30\x08\x06\x06\x04\x00\x8e\x46\x01\x01");
        expected.extend(b"\x30\x0b\x06\x06\x04\x00\x8e\x46\x01\x03\x02\x01\x07");
        expected
            .extend(b"\x30\x25\x06\x06\x04\x00\x8e\x46\x01\x05\x30\x1b\x30\x19\x16\x13https://e.example/p\x13\x02en");
        expected.extend(b"\x30\x13\x06\x06\x04\x00\x8e\x46\x01\x06\x30\x09\x06\x07\x04\x00\x8e\x46\x01\x06\x01");
        let der = statements(&qualified)
            .expect("it can be encoded")
            .expect("there are some");
        assert_eq!(der[2..], expected);
        assert_eq!(statements(&QualifiedStatements::default()), Ok(None));
    }

    #[test]
    fn name_authorities_take_the_form_they_look_like() {
        let wanted = Semantics {
            identifier: Some("0.4.0.194121.1.1".into()),
            name_authorities: vec!["ra@a.example".into(), "https://a.example".into(), "a.example".into()],
        };
        let der = semantics(&wanted).expect("it can be encoded").expect("there are some");
        assert!(
            der.ends_with(b"\x81\x0cra@a.example\x86\x11https://a.example\x82\x09a.example"),
            "{der:02x?}"
        );
    }
}
