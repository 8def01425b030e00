//! The small documents: login, certificate, revocation, rekey, counters, statistics.

use std::fmt;

use domain::{id::Serial, job::RevocationReason, request::RequestedSignature};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::read::{BadDocument, object, required_text, typed};

/// A text that is never shown and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Holds a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// `POST /login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Login {
    /// Public half of the credential.
    pub api_key: String,
    /// Secret half.
    #[schema(value_type = String)]
    #[serde(serialize_with = "exposed")]
    pub api_secret: Secret,
}

impl Login {
    /// Reads a body. Other members are ignored; no error repeats what was sent.
    pub fn from_json(body: &[u8]) -> Result<Self, BadDocument> {
        let fields = object(body)?;
        Ok(Self {
            api_key: required_text(&fields, "api_key")?,
            api_secret: Secret(required_text(&fields, "api_secret")?),
        })
    }
}

/// What a login gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessToken {
    /// The bearer token.
    #[schema(value_type = String)]
    #[serde(serialize_with = "exposed", deserialize_with = "secret")]
    pub access_token: Secret,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret)
}

/// What became of an issued certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CertificateStatus {
    /// It stands.
    Issued,
    /// It was revoked.
    Revoked,
}

/// `GET /certificates/{serial}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateDocument {
    /// One PEM block with lines of 64 columns.
    pub certificate: String,
    /// What became of it.
    pub status: CertificateStatus,
    /// When it was issued, or revoked: UNIX seconds.
    pub updated_at: i64,
}

/// The body of 202: the certificate is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InProgress {
    /// For people.
    #[schema(value_type = String, example = "Operation in progress")]
    pub description: &'static str,
}

impl Default for InProgress {
    fn default() -> Self {
        Self {
            description: "Operation in progress",
        }
    }
}

/// Counters and quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Value {
    /// How many.
    pub value: u64,
}

/// One line of `/stats/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatisticsEntry {
    /// 32 upper-case hexadecimal digits.
    #[schema(value_type = String)]
    pub serial_number: Serial,
    /// UNIX seconds.
    pub not_before: i64,
    /// UNIX seconds.
    pub not_after: i64,
}

/// `PATCH /certificates/{serial}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Revoke {
    /// Why.
    #[schema(value_type = String, example = "superseded")]
    pub revocation_reason: RevocationReason,
    /// From when: UNIX seconds. Absent or 0: now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_time: Option<i64>,
    /// PEM of a certificate signing request by the compromised key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_compromise_attestation: Option<String>,
}

impl Revoke {
    /// Reads a body.
    pub fn from_json(body: &[u8]) -> Result<Self, BadDocument> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sent {
            revocation_reason: String,
            revocation_time: Option<i64>,
            key_compromise_attestation: Option<String>,
        }
        let sent: Sent = typed(object(body)?)?;
        let reason = sent.revocation_reason.parse();
        Ok(Self {
            revocation_reason: reason
                .map_err(|e: domain::job::UnknownReason| BadDocument::field("revocation_reason", e.to_string()))?,
            revocation_time: sent.revocation_time.filter(|&time| time != 0),
            key_compromise_attestation: sent.key_compromise_attestation,
        })
    }
}

/// `POST /certificates/{serial}/rekey`: everything as it was, under another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rekey {
    /// PEM, as in a certificate request.
    pub public_key: String,
    /// base64, as in a certificate request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_signature: Option<String>,
    /// As in a certificate request.
    #[schema(value_type = Object)]
    #[serde(default)]
    pub signature: RequestedSignature,
}

impl Rekey {
    /// Reads a body.
    pub fn from_json(body: &[u8]) -> Result<Self, BadDocument> {
        typed(object(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of<T: fmt::Debug>(read: Result<T, BadDocument>) -> String {
        match read.unwrap_err() {
            BadDocument::Field { field, .. } => field,
            BadDocument::NotJson(detail) => panic!("not JSON: {detail}"),
        }
    }

    #[test]
    fn a_login_is_any_pair_of_texts() {
        let login = Login::from_json(br#"{"api_key":"k","api_secret":"s","extra":[1]}"#).unwrap();
        assert_eq!((login.api_key.as_str(), login.api_secret.expose()), ("k", "s"));
        assert_eq!(field_of(Login::from_json(br#"{"api_secret":"s"}"#)), "api_key");
        assert_eq!(
            field_of(Login::from_json(br#"{"api_key":"k","api_secret":null}"#)),
            "api_secret"
        );
        assert!(Login::from_json(b"api_key=k").is_err());
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_secret() {
        let error = Login::from_json(br#"{"api_key":"k","api_secret":["hunter2"]}"#).unwrap_err();
        assert_eq!(error.to_string(), "api_secret: must be a string");
        let login = Login::from_json(br#"{"api_key":"k","api_secret":"hunter2"}"#).unwrap();
        let token: AccessToken = serde_json::from_str(r#"{"access_token":"hunter2"}"#).unwrap();
        for shown in [format!("{login:?}"), format!("{token:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(serde_json::to_string(&token).unwrap(), r#"{"access_token":"hunter2"}"#);
    }

    #[test]
    fn a_revocation_without_time_or_with_time_0_is_now() {
        for body in [
            r#"{"revocation_reason":"unspecified"}"#,
            r#"{"revocation_reason":"unspecified","revocation_time":0,"key_compromise_attestation":null}"#,
        ] {
            let revoke = Revoke::from_json(body.as_bytes()).unwrap();
            assert_eq!(
                (revoke.revocation_reason, revoke.revocation_time),
                (RevocationReason::Unspecified, None)
            );
        }
        let revoke =
            Revoke::from_json(br#"{"revocation_reason":"keyCompromise","revocation_time":1700000000}"#).unwrap();
        assert_eq!(revoke.revocation_time, Some(1_700_000_000));
        assert_eq!(
            serde_json::to_string(&revoke).unwrap(),
            r#"{"revocation_reason":"keyCompromise","revocation_time":1700000000}"#
        );
    }

    #[test]
    fn a_wrong_revocation_names_the_field() {
        for (body, field) in [
            ("{}", "revocation_reason"),
            (r#"{"revocation_reason":"certificateHold"}"#, "revocation_reason"),
            (r#"{"revocation_reason":1}"#, "revocation_reason"),
            (
                r#"{"revocation_reason":"superseded","revocation_time":"now"}"#,
                "revocation_time",
            ),
            (r#"{"revocation_reason":"superseded","time":1}"#, "time"),
        ] {
            assert_eq!(field_of(Revoke::from_json(body.as_bytes())), field, "{body}");
        }
    }

    #[test]
    fn a_rekey_needs_a_key_alone() {
        let rekey = Rekey::from_json(br#"{"public_key":"PEM","signature":{"hash_algorithm":null}}"#).unwrap();
        assert_eq!(
            (rekey.public_key.as_str(), rekey.signature),
            ("PEM", RequestedSignature::default())
        );
        assert_eq!(field_of(Rekey::from_json(b"{}")), "public_key");
        assert_eq!(
            field_of(Rekey::from_json(
                br#"{"public_key":"PEM","subject_dn":{"country":"DE"}}"#
            )),
            "subject_dn"
        );
    }

    #[test]
    fn answers_are_written_as_clients_read_them() {
        let certificate = CertificateDocument {
            certificate: "PEM".into(),
            status: CertificateStatus::Revoked,
            updated_at: 7,
        };
        assert_eq!(
            json(&certificate),
            r#"{"certificate":"PEM","status":"REVOKED","updated_at":7}"#
        );
        assert_eq!(
            json(&InProgress::default()),
            r#"{"description":"Operation in progress"}"#
        );
        assert_eq!(json(&Value { value: 3 }), r#"{"value":3}"#);
        let serial_number = "1000000000000000000000000000abc".parse().unwrap();
        assert_eq!(
            json(&StatisticsEntry {
                serial_number,
                not_before: 1,
                not_after: 2
            }),
            r#"{"serial_number":"01000000000000000000000000000ABC","not_before":1,"not_after":2}"#
        );
    }

    fn json<T: Serialize>(document: &T) -> String {
        serde_json::to_string(document).unwrap()
    }
}
