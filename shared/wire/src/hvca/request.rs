//! The certificate request, and the policy that says what may be in it.

use domain::{policy::Policy, request::Request};
use serde::{Serialize, Serializer, ser::Error};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::read::{BadDocument, object, required_text, typed};

/// `POST /certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateRequest(pub Request);

/// Attributes of the subject that are not single texts.
const SUBJECT_LISTS: [&str; 2] = ["organizational_unit", "extra_attributes"];

impl CertificateRequest {
    /// Reads a body. Null, `[]` and `{}` are the same as nothing; an unknown field is refused by name, save within `subject_dn` and
    /// `key_usages`, whose members admission knows and names.
    pub fn from_json(body: &[u8]) -> Result<Self, BadDocument> {
        let mut fields = object(body)?;
        required_text(&fields, "public_key")?;
        if let Some(Value::Object(subject)) = fields.get_mut("subject_dn") {
            *subject = single_texts_apart(std::mem::take(subject))?;
        }
        typed(fields).map(Self)
    }
}

/// The domain keeps the single attributes of a subject by name, beside the repeatable ones.
fn single_texts_apart(subject: Map<String, Value>) -> Result<Map<String, Value>, BadDocument> {
    let (lists, single): (Map<_, _>, Map<_, _>) = subject
        .into_iter()
        .partition(|(name, _)| SUBJECT_LISTS.contains(&name.as_str()));
    if let Some((name, _)) = single.iter().find(|(_, value)| !value.is_string()) {
        return Err(BadDocument::field(format!("subject_dn.{name}"), "must be a string"));
    }
    let mut apart = lists;
    apart.insert("single".into(), Value::Object(single));
    Ok(apart)
}

impl Serialize for CertificateRequest {
    /// Writes the request as HVCA has it, without what is absent.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(&self.0).map_err(S::Error::custom)?;
        if let Some(Value::Object(subject)) = value.get_mut("subject_dn")
            && let Some(Value::Object(single)) = subject.remove("single")
        {
            subject.extend(single);
        }
        let text = serde_json::to_vec(&value).map_err(S::Error::custom)?;
        object(&text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

fn schema_of(text: &str) -> RefOr<Schema> {
    serde_json::from_str(text).expect("the schema beside this file is an OpenAPI schema, as a test checks")
}

impl PartialSchema for CertificateRequest {
    fn schema() -> RefOr<Schema> {
        schema_of(include_str!("certificate_request.json"))
    }
}
impl ToSchema for CertificateRequest {}

/// `GET /validationpolicy`: the policy of the account's profile, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PolicyDocument(pub Policy);

impl PartialSchema for PolicyDocument {
    fn schema() -> RefOr<Schema> {
        schema_of(include_str!("policy.json"))
    }
}
impl ToSchema for PolicyDocument {}

#[cfg(test)]
mod tests;
