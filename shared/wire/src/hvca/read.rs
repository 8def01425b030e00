//! Reading what clients send: null, `[]` and `{}` are the same as nothing, and whatever is wrong is named by its path.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// Not a JSON object at all.
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// JSON, but a field is missing, unknown, or of the wrong type.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl BadDocument {
    pub(super) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Removes null, empty arrays and empty objects, from the inside out. Whether anything is left.
fn prune(value: &mut Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => {
            items.retain_mut(prune);
            !items.is_empty()
        }
        Value::Object(fields) => {
            fields.retain(|_, value| prune(value));
            !fields.is_empty()
        }
        _ => true,
    }
}

/// The fields of a JSON object that are there.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, BadDocument> {
    let not_json = |detail: String| BadDocument::NotJson(detail);
    let mut value: Value = serde_json::from_slice(body).map_err(|e| not_json(e.to_string()))?;
    prune(&mut value);
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Err(not_json("it is null".into())),
        _ => Err(not_json("it is something else".into())),
    }
}

/// Reads a document out of its fields, naming what does not fit by its path.
pub(super) fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, BadDocument> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.inner().to_string();
        let (field, problem) = match detail
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once('`'))
        {
            Some((name, _)) => {
                let parent = path.strip_suffix(name).unwrap_or(&path).trim_matches('.');
                let field = if parent.is_empty() {
                    name.to_owned()
                } else {
                    format!("{parent}.{name}")
                };
                (field, "is not a known field".to_owned())
            }
            None => match detail
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split_once('`'))
            {
                Some((name, _)) if path == "." => (name.to_owned(), "is required".to_owned()),
                Some((name, _)) => (format!("{path}.{name}"), "is required".to_owned()),
                None => (path, detail),
            },
        };
        BadDocument::field(field, problem)
    })
}

/// A text that must be there.
pub(super) fn required_text(fields: &Map<String, Value>, name: &str) -> Result<String, BadDocument> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(BadDocument::field(name, "must be a string")),
        None => Err(BadDocument::field(name, "is required")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_any_dress_is_nothing() {
        let body = br#"{"a":null,"b":[],"c":{},"d":{"e":[null,{}],"f":{"g":null}},"h":false,"i":0,"j":""}"#;
        let fields = object(body).unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["h", "i", "j"]);
        assert_eq!(object(b"{}").unwrap().len(), 0);
    }

    #[test]
    fn what_is_not_an_object_is_said_to_be_none() {
        for body in [
            "",
            "null",
            "[]",
            "[1]",
            "7",
            "\"x\"",
            "{",
            "{\"a\":1}}",
            "\u{feff}{}",
            "{'a':1}",
        ] {
            assert!(
                matches!(object(body.as_bytes()), Err(BadDocument::NotJson(_))),
                "{body:?}"
            );
        }
        let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
        assert!(matches!(object(deep.as_bytes()), Err(BadDocument::NotJson(_))));
        assert!(matches!(object(&[b'"', 0xff, b'"']), Err(BadDocument::NotJson(_))));
    }
}
