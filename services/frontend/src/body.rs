//! Request bodies: JSON by their media type, of a declared length, not too long and not too slow.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http::{
    StatusCode, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
    request::Parts,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use wire::problem::ProblemId;

use crate::{App, error::ApiError};

/// A JSON body, not yet parsed.
#[derive(Debug)]
pub struct Json(pub Bytes);

impl FromRequest<App> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let limit = app.config.frontend.max_body_bytes;
        let (parts, body) = request.into_parts();
        check(&parts, limit)?;
        match tokio::time::timeout(app.config.frontend.body_timeout, read(body, limit)).await {
            Ok(read) => read.map(Self),
            Err(_) => Err(ApiError::of_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }
}

/// What the headers alone tell. Of the media type only the type counts, in any case and with any parameters.
fn check(parts: &Parts, limit: usize) -> Result<(), ApiError> {
    let length = parts.headers.get(CONTENT_LENGTH);
    if length.is_none() && parts.version <= Version::HTTP_11 && !parts.headers.contains_key(TRANSFER_ENCODING) {
        return Err(ApiError::new(
            ProblemId::LengthRequired,
            "send `Content-Length` and a JSON body",
        ));
    }
    let length: Option<usize> = length.and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Ok(())
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(_) => Err(ApiError::new(
            ProblemId::InvalidRequest,
            "the body ended before it was complete",
        )),
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        ProblemId::TooLarge,
        format!("the body is over the limit of {limit} bytes"),
    )
}
