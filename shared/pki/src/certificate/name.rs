//! Distinguished names (RFC 5280, 4.1.2.4): one attribute each, in the order given, repeated attributes kept.

use domain::request::TypedValue;

use super::{PrepareError, value};
use crate::asn1::{element, tag};

/// The DER `Name`; without attributes an empty sequence.
pub(crate) fn encode(attributes: &[TypedValue]) -> Result<Vec<u8>, PrepareError> {
    let mut relative = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        let field = field(&attribute.oid);
        let oid = value::object_identifier(field, &attribute.oid)?;
        let value = value::typed(field, attribute)?;
        relative.push(element(tag::SET, &[&element(tag::SEQUENCE, &[&oid, &value])]));
    }
    let relative: Vec<&[u8]> = relative.iter().map(Vec::as_slice).collect();
    Ok(element(tag::SEQUENCE, &relative))
}

/// HVCA's field for an attribute type.
fn field(oid: &str) -> &'static str {
    match oid {
        "2.5.4.3" => "subject_dn.common_name",
        "2.5.4.4" => "subject_dn.surname",
        "2.5.4.5" => "subject_dn.serial_number",
        "2.5.4.6" => "subject_dn.country",
        "2.5.4.7" => "subject_dn.locality",
        "2.5.4.8" => "subject_dn.state",
        "2.5.4.9" => "subject_dn.street_address",
        "2.5.4.10" => "subject_dn.organization",
        "2.5.4.11" => "subject_dn.organizational_unit",
        "2.5.4.15" => "subject_dn.business_category",
        "2.5.4.17" => "subject_dn.postal_code",
        "2.5.4.42" => "subject_dn.given_name",
        "2.5.4.65" => "subject_dn.pseudonym",
        "2.5.4.97" => "subject_dn.organization_identifier",
        "1.2.840.113549.1.9.1" => "subject_dn.email",
        "1.3.6.1.4.1.311.60.2.1.1" => "subject_dn.jurisdiction_of_incorporation_locality_name",
        "1.3.6.1.4.1.311.60.2.1.2" => "subject_dn.jurisdiction_of_incorporation_state_or_province_name",
        "1.3.6.1.4.1.311.60.2.1.3" => "subject_dn.jurisdiction_of_incorporation_country_name",
        _ => "subject_dn.extra_attributes",
    }
}
