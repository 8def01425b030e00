//! What can be wrong with an operator's order, and, in the only place where that is decided, which HTTP status says so.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{failure::KeysFailure, registry::ChangeRefused};
use keys::KeysError;
use runtime::follow::FollowError;
use store::StoreError;
use wire::problem::{MEDIA_TYPE, Problem, ProblemId};

/// What a handler answers.
pub(crate) type Answer<T> = Result<Json<T>, RegistryError>;

/// Why an order was not carried out. Nothing was changed, unless the text says that the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// What the order names is not there, and the command that lists what is.
    #[error("{0} is not registered; `{1}` shows what is")]
    Unknown(String, &'static str),
    /// What the order would make is there already.
    #[error("{0} exists already; choose another name")]
    Exists(String),
    /// A field of the order is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The body is over the limit.
    #[error("body: is larger than this server takes; give a smaller history")]
    TooLarge,
    /// There is no reason, or a novel; the number of bytes that it may have.
    #[error("reason: say in 1 to {0} bytes why; it goes into the audit log")]
    NoReason(usize),
    /// The state does not allow it.
    #[error("{0}")]
    State(String),
    /// The change does not fit the registry.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The operator's role is too low.
    #[error("{0}")]
    Forbidden(String),
    /// Other control nodes were faster every time.
    #[error("others changed the registry {0} times meanwhile; try again")]
    Contended(u32),
    /// The chain of revisions cannot be believed.
    #[error("the registry's chain does not verify: {0}")]
    Trust(String),
    /// A token.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something of ours broke.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<FollowError> for RegistryError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Store(error) => Self::Store(error),
            FollowError::Revision(_) | FollowError::Unfit { .. } | FollowError::Rewound { .. } => {
                Self::Trust(error.to_string())
            }
        }
    }
}

impl RegistryError {
    fn answer(&self) -> (StatusCode, ProblemId) {
        match self {
            Self::Unknown(..) => (StatusCode::NOT_FOUND, ProblemId::NotFound),
            Self::Exists(_) | Self::State(_) | Self::Refused(_) | Self::Contended(_) => {
                (StatusCode::CONFLICT, ProblemId::Conflict)
            }
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, ProblemId::InvalidRequest),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ProblemId::TooLarge),
            Self::NoReason(_) => (StatusCode::UNPROCESSABLE_ENTITY, ProblemId::ReasonRequired),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, ProblemId::Forbidden),
            Self::Keys(error) => match error.failure {
                KeysFailure::KeyExists => (StatusCode::CONFLICT, ProblemId::Conflict),
                KeysFailure::KeyNotFound | KeysFailure::KeyUnfit => {
                    (StatusCode::UNPROCESSABLE_ENTITY, ProblemId::InvalidRequest)
                }
                KeysFailure::OperationFailed
                | KeysFailure::Slow
                | KeysFailure::Device
                | KeysFailure::Hang
                | KeysFailure::PinRefused
                | KeysFailure::StoreUnreadable => (StatusCode::SERVICE_UNAVAILABLE, ProblemId::KeysUnavailable),
            },
            Self::Store(StoreError::OutcomeUnknown(_)) => (StatusCode::SERVICE_UNAVAILABLE, ProblemId::OutcomeUnknown),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, ProblemId::StoreUnavailable),
            Self::Trust(_) | Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, ProblemId::Internal),
        }
    }
}

/// A refusal as every client reads it.
pub(crate) fn problem(status: StatusCode, id: ProblemId, description: impl Into<String>) -> Response {
    let mut response = (status, Json(Problem::new(id, description))).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let (status, id) = self.answer();
        if status.is_server_error() {
            tracing::error!(error = %self, "an operator's order failed");
        }
        let mut response = problem(status, id, self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
