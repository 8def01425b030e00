//! How everything that can go wrong reads over HTTP: status, `Retry-After`, problem body. Nothing else in this service names a status
//! for a failure.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use domain::{
    admission::ViolationKind,
    estimate::Why,
    fair::Full,
    issuer::{Profile, Standing},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use pki::{csr::CsrError, key::KeyError};
use store::{AcceptError, Outcome, Revoked, StoreError};
use wire::{
    hvca::BadDocument,
    problem::{MEDIA_TYPE, Problem, ProblemId},
};

use crate::admission::refusal::Refusal;

/// A request that has failed, as its client will read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// A problem, with the status and the `Retry-After` that go with its id.
    pub fn new(id: ProblemId, description: impl Into<String>) -> Self {
        Self::of(Problem::new(id, description))
    }

    fn of(problem: Problem) -> Self {
        let id = problem.id.unwrap_or(ProblemId::Internal);
        Self {
            status: status(id),
            problem,
            retry_after_s: retry_after_s(id),
        }
    }

    /// The same, to be tried again after so many seconds (at least one).
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// One field or parameter is wrong: 422.
    pub fn field(field: &str, problem: &str) -> Self {
        let fields = [(field.to_owned(), problem.to_owned())];
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            ..Self::of(Problem::of_fields(ProblemId::InvalidRequest, fields))
        }
    }

    /// The request as a whole is wrong: 422.
    pub fn unprocessable(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            ..Self::new(ProblemId::InvalidRequest, description)
        }
    }

    /// One field is wrong, in a way that has an id of its own.
    pub fn of_field(id: ProblemId, field: &str, problem: &str) -> Self {
        Self::of(Problem::of_fields(id, [(field.to_owned(), problem.to_owned())]))
    }

    /// There is no such certificate, or it is another account's: nobody can tell which.
    pub fn no_certificate() -> Self {
        Self::new(ProblemId::NotFound, "no certificate has this serial number")
    }

    /// The problem's id.
    pub fn id(&self) -> ProblemId {
        self.problem.id.unwrap_or(ProblemId::Internal)
    }

    /// What is wrong, for people.
    pub fn description(&self) -> &str {
        &self.problem.description
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the framework says by a status alone, as a problem of ours.
    pub fn of_status(status: StatusCode) -> Self {
        let (id, description) = match status {
            StatusCode::NOT_FOUND => (ProblemId::NotFound, "no such path"),
            StatusCode::METHOD_NOT_ALLOWED => (
                ProblemId::MethodNotAllowed,
                "this path does not know the method; see `Allow`",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => (ProblemId::TooLarge, "the body is over the limit"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                (ProblemId::UnsupportedMediaType, "send the body as application/json")
            }
            status if status.is_client_error() => (ProblemId::InvalidRequest, "the request cannot be read"),
            StatusCode::SERVICE_UNAVAILABLE => (ProblemId::Overloaded, "too much is going on; come back"),
            _ => (ProblemId::Internal, "something is wrong on this side; it was logged"),
        };
        Self {
            status,
            ..Self::new(id, description)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).expect("a problem has text keys only, so it always serialises");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 11.6.1; RFC 6750, 3.
            let challenge = match self.id() {
                ProblemId::InvalidToken => r#"Bearer error="invalid_token""#,
                _ => "Bearer",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let id = HeaderValue::from_static(self.id().as_str());
        response.extensions_mut().insert(Failed(id));
        response
    }
}

/// The id of the problem in a response, for spans and metrics.
#[derive(Debug, Clone)]
pub struct Failed(HeaderValue);

impl Failed {
    /// The id.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The header that repeats what was preferred and done (RFC 7240, 3).
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The status of each problem. 401 is for bad logins and bad tokens alone: there are clients that answer it by logging in again, for ever.
fn status(id: ProblemId) -> StatusCode {
    use ProblemId as P;
    match id {
        P::InvalidRequest => StatusCode::BAD_REQUEST,
        P::InvalidCredentials | P::InvalidToken => StatusCode::UNAUTHORIZED,
        P::QuotaExceeded => StatusCode::PAYMENT_REQUIRED,
        P::Forbidden | P::AccountDisabled => StatusCode::FORBIDDEN,
        P::NotFound => StatusCode::NOT_FOUND,
        P::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        P::Pending | P::AlreadyRevoked | P::Conflict | P::CountMismatch => StatusCode::CONFLICT,
        P::LengthRequired => StatusCode::LENGTH_REQUIRED,
        P::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        P::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        P::PolicyViolation
        | P::KeyTypeMismatch
        | P::BadCsr
        | P::WeakKey
        | P::BlockedKey
        | P::KeyReused
        | P::LintFailed
        | P::IssuerDisabled
        | P::IssuerDestroyed
        | P::IssuerExpired
        | P::IdempotencyConflict
        | P::InvalidRevocation
        | P::Refused
        | P::Expired
        | P::Discarded
        | P::Superseded
        | P::ReasonRequired
        | P::UnknownIssuer => StatusCode::UNPROCESSABLE_ENTITY,
        P::RateLimited | P::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
        P::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        P::IssuerUnavailable
        | P::LaneDraining
        | P::Overloaded
        | P::StoreUnavailable
        | P::OutcomeUnknown
        | P::ShuttingDown
        | P::NotReady
        | P::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// When to come back, for what passes by itself.
fn retry_after_s(id: ProblemId) -> Option<u64> {
    use ProblemId as P;
    match id {
        P::RateLimited | P::OutcomeUnknown | P::ShuttingDown | P::Pending => Some(1),
        P::Overloaded | P::TooManyInFlight | P::StoreUnavailable | P::NotReady => Some(2),
        P::IssuerUnavailable | P::LaneDraining | P::KeysUnavailable => Some(10),
        _ => None,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "store call failed");
                Self::new(ProblemId::StoreUnavailable, "the ledger cannot be reached; come back")
            }
            StoreError::OutcomeUnknown(_) => {
                tracing::warn!(%error, "store call lost its answer");
                Self::new(
                    ProblemId::OutcomeUnknown,
                    "the ledger did not say whether this was done; repeat the request, it will not be done twice",
                )
            }
            StoreError::Rejected(_) | StoreError::Damaged(_) => {
                tracing::error!(%error, "store call failed");
                Self::internal()
            }
        }
    }
}

impl ApiError {
    /// A defect of ours, or damage: logged where it was met.
    pub fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<BadDocument> for ApiError {
    fn from(bad: BadDocument) -> Self {
        match bad {
            BadDocument::NotJson(_) => Self::new(ProblemId::InvalidRequest, bad.to_string()),
            BadDocument::Field { field, problem } => Self::field(&field, &problem),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Issuer(issuer, standing) => {
                let (id, what) = match standing {
                    Standing::Destroyed => (ProblemId::IssuerDestroyed, "its key was destroyed"),
                    Standing::Expired => (ProblemId::IssuerExpired, "its certificate has expired"),
                    Standing::Disabled | Standing::Good => (ProblemId::IssuerDisabled, "it is disabled"),
                };
                Self::new(
                    id,
                    format!("issuer {issuer} does not issue: {what}; nothing was queued"),
                )
            }
            Refusal::Full(full) => {
                let id = match full {
                    Full::Account => ProblemId::TooManyInFlight,
                    Full::Lane | Full::Queue => ProblemId::Overloaded,
                };
                Self::new(id, format!("too much waits already: {full}; come back"))
            }
            Refusal::NotInTime(issuer, refusal) => {
                let (id, what) = match refusal.why {
                    Why::Overloaded => (
                        ProblemId::Overloaded,
                        "has too many open requests for an answer in time",
                    ),
                    Why::Unavailable => (ProblemId::IssuerUnavailable, "cannot sign now"),
                };
                let description =
                    format!("issuer {issuer} {what}; nothing was queued. Come back, or do not ask to wait");
                Self::new(id, description).after(seconds(refusal.retry_after))
            }
            Refusal::Late => Self::new(
                ProblemId::Overloaded,
                "the time to wait was over before the request could be accepted; nothing was queued",
            ),
            Refusal::Throttled(after) => Self::new(
                ProblemId::RateLimited,
                "many of this account's requests were refused lately because too much waits; ask less often",
            )
            .after(seconds(after)),
            Refusal::Key(error, profile) => unfit_key(&error, &profile),
            Refusal::Blocked => one(
                ProblemId::BlockedKey,
                "public_key",
                &"this key is blocked; make another one",
            ),
            Refusal::Policy(violations) => {
                let mismatch = violations
                    .iter()
                    .any(|violation| violation.kind == ViolationKind::KeyType);
                let id = if mismatch {
                    ProblemId::KeyTypeMismatch
                } else {
                    ProblemId::PolicyViolation
                };
                // The key's type leads: with the wrong key nothing else matters.
                let (first, rest): (Vec<_>, Vec<_>) = violations
                    .into_iter()
                    .partition(|violation| violation.kind == ViolationKind::KeyType);
                let fields = first.into_iter().chain(rest);
                Self::of(Problem::of_fields(id, fields.map(|v| (v.field, v.problem))))
            }
            Refusal::Encoding(error) if error.field.is_empty() => {
                tracing::error!(%error, "intent cannot be encoded");
                Self::internal()
            }
            Refusal::Encoding(error) => one(ProblemId::PolicyViolation, error.field, &error.detail),
            Refusal::Lint(findings) => {
                let fields = findings.into_iter().map(|finding| {
                    let field = if finding.field.is_empty() {
                        finding.rule
                    } else {
                        finding.field
                    };
                    (
                        field.to_owned(),
                        format!("{} ({}, {})", finding.detail, finding.rule, finding.citation),
                    )
                });
                Self::of(Problem::of_fields(ProblemId::LintFailed, fields))
            }
            Refusal::NotAccepted(issuer, error) => match error {
                AcceptError::IssuerDisabled => Refusal::Issuer(issuer, Standing::Disabled).into(),
                AcceptError::IssuerDestroyed => Refusal::Issuer(issuer, Standing::Destroyed).into(),
                AcceptError::IssuerExpired => Refusal::Issuer(issuer, Standing::Expired).into(),
                AcceptError::IssuerUnknown => Self::new(
                    ProblemId::IssuerUnavailable,
                    format!("issuer {issuer} is not in the ledger yet; come back"),
                ),
                AcceptError::LaneDraining => Self::new(
                    ProblemId::LaneDraining,
                    format!("issuer {issuer} takes no new requests of this class for now"),
                ),
                AcceptError::LaneFull => Self::new(
                    ProblemId::Overloaded,
                    format!("issuer {issuer} has too many open requests of this class"),
                ),
                AcceptError::LaneShareFull | AcceptError::TooManyInFlight => {
                    Self::new(ProblemId::TooManyInFlight, error.to_string())
                }
                AcceptError::QuotaExceeded => Self::new(ProblemId::QuotaExceeded, error.to_string()),
                AcceptError::IdempotencyConflict => Self::new(ProblemId::IdempotencyConflict, error.to_string()),
                AcceptError::KeyReused => one(ProblemId::KeyReused, "public_key", &"has a certificate already"),
                AcceptError::SerialTaken => {
                    tracing::error!("every serial that was drawn was taken: is the source of randomness broken?");
                    Self::internal()
                }
                AcceptError::Store(error) => error.into(),
            },
            Refusal::Panicked => Self::internal(),
            Refusal::Dropped => Self::new(ProblemId::ShuttingDown, "this server is stopping; connect again"),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A key that cannot be certified, told apart by what the client can do about it.
fn unfit_key(error: &CsrError, profile: &Profile) -> ApiError {
    let field = error.field();
    match error {
        CsrError::Weak(_) | CsrError::Key(KeyError::Exponent(_) | KeyError::EvenModulus) => {
            one(ProblemId::WeakKey, field, error)
        }
        CsrError::Key(KeyError::Algorithm(_) | KeyError::ModulusBits(_) | KeyError::Curve(_)) => {
            let pins: Vec<_> = profile
                .policy
                .public_key
                .pins()
                .iter()
                .map(|pin| pin.as_str())
                .collect();
            let detail = format!("{error}; profile {} takes {}", profile.id, pins.join(" or "));
            one(ProblemId::KeyTypeMismatch, field, &detail)
        }
        _ => one(ProblemId::BadCsr, field, error),
    }
}

fn one(id: ProblemId, field: &str, problem: &dyn std::fmt::Display) -> ApiError {
    ApiError::of_field(id, field, &problem.to_string())
}

/// How a job that ended without a certificate reads; `None` for one that has a certificate.
pub fn ended(outcome: &Outcome, successor: Option<domain::id::Serial>) -> Option<ApiError> {
    if let (Some(successor), false) = (successor, matches!(outcome, Outcome::Issued { .. })) {
        let description = format!("submitted again as {successor}");
        return Some(ApiError::new(ProblemId::Superseded, description));
    }
    match outcome {
        Outcome::Issued { .. } => None,
        Outcome::Refused { id, detail, .. } => {
            // Whatever a signer calls it, a refusal is a refusal.
            let id = id
                .parse()
                .ok()
                .filter(|&id| status(id) == StatusCode::UNPROCESSABLE_ENTITY);
            Some(ApiError::new(id.unwrap_or(ProblemId::Refused), detail.clone()))
        }
        Outcome::Expired { .. } => Some(ApiError::new(
            ProblemId::Expired,
            "the request ran out before it was signed; ask again",
        )),
        Outcome::Discarded { reason, .. } => Some(ApiError::new(
            ProblemId::Discarded,
            format!("an operator discarded the request: {reason}"),
        )),
    }
}

/// How a revocation that was not done reads; `Ok` for one that was.
pub fn revoked(outcome: Revoked) -> Result<(), ApiError> {
    let invalid = |problem| one(ProblemId::InvalidRevocation, "revocation_time", &problem);
    match outcome {
        Revoked::Done | Revoked::Raised | Revoked::Cancelled => Ok(()),
        Revoked::Already(reason) => Err(ApiError::new(
            ProblemId::AlreadyRevoked,
            format!("the certificate is revoked already: {}", reason.as_str()),
        )),
        Revoked::Pending => Err(ApiError::new(ProblemId::Pending, "the certificate is not issued yet")),
        Revoked::Unknown => Err(ApiError::no_certificate()),
        Revoked::NeverIssued(state) => Err(ApiError::new(
            ProblemId::InvalidRevocation,
            format!("there is no certificate to revoke: the request is {state}"),
        )),
        Revoked::InTheFuture => Err(invalid("is in the future")),
        Revoked::TooEarly => Err(invalid(
            "is in the past, which only keyCompromise allows, or before not_before",
        )),
    }
}

#[cfg(test)]
mod tests {
    use domain::time::Timestamp;

    use super::*;

    #[test]
    fn only_bad_logins_and_bad_tokens_are_401_and_every_503_and_429_says_when_to_come_back() {
        for &id in ProblemId::ALL {
            let unauthorized = status(id) == StatusCode::UNAUTHORIZED;
            assert_eq!(
                unauthorized,
                matches!(id, ProblemId::InvalidCredentials | ProblemId::InvalidToken),
                "{id}"
            );
            if matches!(status(id).as_u16(), 429 | 503) {
                assert!(retry_after_s(id).is_some(), "{id} does not say when to come back");
            }
            assert!(!status(id).is_success());
        }
    }

    #[test]
    fn a_refusal_never_passes_for_another_kind_of_answer() {
        let at = Timestamp::default();
        for (id, status) in [
            ("weak_key", 422),
            ("invalid_token", 422),
            ("overloaded", 422),
            ("new", 422),
        ] {
            let outcome = Outcome::Refused {
                id: id.into(),
                detail: "no".into(),
                at,
            };
            assert_eq!(ended(&outcome, None).unwrap().status().as_u16(), status);
        }
    }

    #[test]
    fn what_an_operator_did_to_a_request_is_told_and_a_successor_is_named() {
        let at = Timestamp::default();
        let reason = "drill".to_owned();
        let discarded = ended(&Outcome::Discarded { reason, at }, None).unwrap();
        assert_eq!(
            (discarded.id(), discarded.status().as_u16()),
            (ProblemId::Discarded, 422)
        );
        assert!(discarded.description().ends_with("drill"));
        let successor = domain::id::Serial::new(at, [7; 10]);
        let superseded = ended(&Outcome::Expired { at }, Some(successor)).unwrap();
        assert_eq!(
            (superseded.id(), superseded.status().as_u16()),
            (ProblemId::Superseded, 422)
        );
        assert!(superseded.description().contains(&successor.to_string()));
        let signature = vec![1];
        assert_eq!(ended(&Outcome::Issued { signature, at }, Some(successor)), None);
    }
}
