//! Request bodies: JSON, or a problem that says where it is wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

use crate::RegistryError;

/// A body that was read and understood.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = RegistryError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RegistryError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection: BytesRejection| {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    RegistryError::TooLarge
                } else {
                    RegistryError::Invalid(format!("body: {}", rejection.body_text()))
                }
            })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| RegistryError::Invalid(format!("body: {error}")))
    }
}
