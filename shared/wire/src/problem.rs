//! What a client is told when something is wrong: the body of every response that is not a success.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! problem_ids {
    ($($variant:ident $text:literal $doc:literal;)*) => {
        /// What is wrong, for programs. The list is closed: clients may rely on each, and new ones are only added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
        #[schema(rename_all = "snake_case")]
        pub enum ProblemId {
            $(#[doc = $doc] $variant,)*
        }

        impl ProblemId {
            /// Every id.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The id as it stands in a body.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What it means and what to do.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

problem_ids! {
    InvalidRequest "invalid_request" "The body is not the JSON that is expected, or a parameter cannot be read. Correct the request.";
    UnsupportedMediaType "unsupported_media_type" "The body is not declared as application/json. Send `Content-Type: application/json`.";
    TooLarge "too_large" "The body is over the limit. Send less.";
    LengthRequired "length_required" "The body has no declared length. Send `Content-Length`.";
    NotFound "not_found" "There is no such thing, or it belongs to another account.";
    MethodNotAllowed "method_not_allowed" "The path does not know this method.";
    InvalidCredentials "invalid_credentials" "API key and secret do not match, or the client certificate is not the account's. Check the credentials.";
    InvalidToken "invalid_token" "The bearer token is missing, unknown, or has run out. Log in again.";
    Forbidden "forbidden" "Known, but not allowed to do this. Ask an operator for the role.";
    AccountDisabled "account_disabled" "The account may not be used. Ask an operator.";
    PolicyViolation "policy_violation" "The profile does not allow what is asked for. `errors` names the fields; read the validation policy.";
    KeyTypeMismatch "key_type_mismatch" "The public key is not of the type and size that the profile pins. Make a key of the type that the description names.";
    BadCsr "bad_csr" "The certificate signing request or public key cannot be read, or its signature does not hold. Make it again.";
    WeakKey "weak_key" "The public key is known or provably weak. Make a new key with a sound generator.";
    BlockedKey "blocked_key" "The public key was reported compromised or is blocked. Make a new key.";
    KeyReused "key_reused" "The public key has a certificate already and the profile allows one only. Make a new key.";
    LintFailed "lint_failed" "The certificate would break a rule of its kind. `errors` names the rules; change the request.";
    IssuerDisabled "issuer_disabled" "An operator has switched the issuer off. Nothing was queued; ask the operator, or use another account.";
    IssuerDestroyed "issuer_destroyed" "The issuer's key is gone for ever. Use another account.";
    IssuerExpired "issuer_expired" "The issuer's certificate has run out. Use another account.";
    IssuerUnavailable "issuer_unavailable" "The issuer cannot sign now. Come back after `Retry-After`.";
    LaneDraining "lane_draining" "The issuer takes no new requests of this class for now. Come back after `Retry-After`.";
    Overloaded "overloaded" "Too much waits for this issuer already. Come back after `Retry-After`.";
    RateLimited "rate_limited" "The account asks faster than it may. Come back after `Retry-After`.";
    TooManyInFlight "too_many_in_flight" "The account has too many open requests. Fetch those first, then come back.";
    QuotaExceeded "quota_exceeded" "The account's issuance quota is used up. Ask an operator for more.";
    IdempotencyConflict "idempotency_conflict" "The idempotency key was used for a different request. Use a new key for a new request.";
    Pending "pending" "The certificate is not issued yet. Come back when it is.";
    AlreadyRevoked "already_revoked" "The certificate is revoked already.";
    InvalidRevocation "invalid_revocation" "Reason or time of the revocation cannot be. The description says why.";
    Refused "refused" "The request was refused after it had been accepted. The description says why.";
    Expired "expired" "Nobody wanted the certificate any more when its turn came, so it was not made. Ask again.";
    Discarded "discarded" "An operator discarded the request. Ask again, or ask the operator.";
    Superseded "superseded" "An operator submitted the request again under another serial, which the description names.";
    StoreUnavailable "store_unavailable" "The ledger cannot be reached. Come back after `Retry-After`.";
    OutcomeUnknown "outcome_unknown" "It is not known whether the request was accepted. Repeat it: it joins the one that may be there.";
    ShuttingDown "shutting_down" "This server is stopping. Connect again.";
    NotReady "not_ready" "This server has just started or has fallen behind. Come back after `Retry-After`.";
    Conflict "conflict" "The thing has changed since it was read, or stands in the way. Read it again.";
    ReasonRequired "reason_required" "What an operator changes needs a reason. Give one.";
    CountMismatch "count_mismatch" "The command would touch another number of things than was expected. Look again, then give the right number.";
    UnknownIssuer "unknown_issuer" "No issuer of that name is registered.";
    KeysUnavailable "keys_unavailable" "The token that holds the key cannot be used. See the signer's log.";
    Internal "internal" "Something is wrong on this side. It was logged; ask the operator.";
}

impl fmt::Display for ProblemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not a problem's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a problem id")]
pub struct UnknownProblem(String);

impl FromStr for ProblemId {
    type Err = UnknownProblem;
    fn from_str(text: &str) -> Result<Self, UnknownProblem> {
        let found = Self::ALL.iter().copied().find(|id| id.as_str() == text);
        found.ok_or_else(|| UnknownProblem(text.into()))
    }
}

impl Serialize for ProblemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The body of an error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, for people.
    #[serde(default)]
    pub description: String,
    /// What is wrong, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_id")]
    pub id: Option<ProblemId>,
    /// What is wrong with each field, by its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
}

/// An id of a newer server reads as none.
fn known_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ProblemId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

impl Problem {
    /// A problem with a description.
    pub fn new(id: ProblemId, description: impl Into<String>) -> Self {
        Self {
            description: description.into(),
            id: Some(id),
            errors: BTreeMap::new(),
        }
    }

    /// A problem of several fields. The description is the first, as clients of one line show it: `field: is required`.
    pub fn of_fields(id: ProblemId, fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut problem = Self::new(id, "");
        for (field, detail) in fields {
            if problem.description.is_empty() {
                problem.description = format!("{field}: {detail}");
            }
            problem
                .errors
                .entry(field)
                .and_modify(|before| {
                    before.push_str("; ");
                    before.push_str(&detail);
                })
                .or_insert(detail);
        }
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{} ({id})", self.description),
            None => f.write_str(&self.description),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_named_once_in_snake_case_and_says_what_it_means() {
        for (at, id) in ProblemId::ALL.iter().enumerate() {
            assert_eq!(id.as_str().parse(), Ok(*id));
            assert!(id.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{id}");
            assert!(id.doc().ends_with('.'), "{id}");
            assert!(
                ProblemId::ALL[at + 1..]
                    .iter()
                    .all(|other| other.as_str() != id.as_str()),
                "{id} is there twice"
            );
            let snake: String = format!("{id:?}").chars().fold(String::new(), |mut text, c| {
                if c.is_ascii_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.push(c.to_ascii_lowercase());
                text
            });
            assert_eq!(snake, id.as_str(), "the schema derives its names from the variants");
        }
    }

    #[test]
    fn a_problem_is_written_as_clients_read_it() {
        let problem = Problem::of_fields(
            ProblemId::PolicyViolation,
            [
                ("subject_dn.common_name", "is required"),
                ("san", "is forbidden"),
                ("san", "is static"),
            ]
            .map(|(field, detail)| (field.to_owned(), detail.to_owned())),
        );
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "description": "subject_dn.common_name: is required",
                "id": "policy_violation",
                "errors": {"subject_dn.common_name": "is required", "san": "is forbidden; is static"},
            })
        );
        let plain = serde_json::to_string(&Problem::new(ProblemId::NotFound, "no such certificate")).unwrap();
        assert_eq!(plain, r#"{"description":"no such certificate","id":"not_found"}"#);
    }

    #[test]
    fn a_problem_of_another_server_is_read_as_far_as_it_goes() {
        let problem: Problem = serde_json::from_str(r#"{"description":"moon","id":"new_moon","more":1}"#).unwrap();
        assert_eq!((problem.description.as_str(), problem.id), ("moon", None));
        assert_eq!(serde_json::from_str::<Problem>("{}").unwrap().description, "");
    }
}
