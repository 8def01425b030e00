//! Who asks: the client certificate of the connection, and the account whose token is shown over it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use domain::{bytes::Digest, id::AccountId, issuer::Account, registry::Terms};
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use runtime::{follow::Applied, tls::PeerCertificate};
use wire::problem::ProblemId;

use crate::{
    App, Frontend,
    admission::{refusal::Refusal, slot},
    error::ApiError,
    room::Place,
};

/// SHA-256 of the client certificate that the TLS session was opened with.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate(pub Digest);

impl FromRequestParts<App> for ClientCertificate {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if let Some(off) = app.presence.clock_off() {
            tracing::warn!(
                off_ms = off.as_millis(),
                "this host's clock is off: no login and no token is judged"
            );
            return Err(ApiError::new(
                ProblemId::NotReady,
                "this server cannot judge time now; come back",
            ));
        }
        // The listener lets nobody in without a certificate.
        let certificate = parts.extensions.get::<PeerCertificate>();
        let certificate =
            certificate.ok_or_else(|| ApiError::new(ProblemId::Forbidden, "show a client certificate"))?;
        Ok(Self(certificate.fingerprint))
    }
}

/// An account that may ask, and the state of the registry by which this request is judged from here on.
#[derive(Debug)]
pub struct Caller {
    /// The account, its issuer and its profile.
    pub terms: Terms,
    /// The registry's state.
    pub applied: Arc<Applied>,
    /// The place among the requests that are worked on.
    pub place: Place,
}

impl Caller {
    /// The account's name.
    pub fn account(&self) -> &AccountId {
        &self.terms.account.id
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let ClientCertificate(certificate) = ClientCertificate::from_request_parts(parts, app).await?;
        let applied = app.applied.load_full();
        let Some(token) = bearer(&parts.headers) else {
            let description = "send `Authorization: Bearer TOKEN`; `POST /v2/login` gives one";
            return Err(app.unauthorized(certificate, ProblemId::InvalidToken, description));
        };
        let account = app
            .tokens
            .check(token, &certificate, &applied.snapshot)
            .map_err(|error| {
                tracing::debug!(%error, "token refused");
                let description = "the token is unknown or has run out; log in again";
                app.unauthorized(certificate, ProblemId::InvalidToken, description)
            })?;
        app.let_in(&account)?;
        let terms = applied.snapshot.terms(&account.id).ok_or_else(|| {
            tracing::error!(account = %account.id, "the account's issuer or profile is not registered");
            ApiError::internal()
        })?;
        let place = app.work.enter(&slot(&terms));
        let place = place.map_err(|full| app.turn_away(Refusal::Full(full)))?;
        Ok(Self { terms, applied, place })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

impl Frontend {
    /// Lets an account in that is who it says it is: if it is enabled and not too fast.
    pub fn let_in(&self, account: &Account) -> Result<(), ApiError> {
        tracing::Span::current().record("account", account.id.as_str());
        if !account.enabled {
            return Err(ApiError::new(
                ProblemId::AccountDisabled,
                format!("account {} is disabled; ask the operator", account.id),
            ));
        }
        self.limiter
            .request(&account.id, account.requests_per_second)
            .map_err(|wait| self.too_fast(wait))
    }

    /// A login or a token that failed. Whoever fails all the time is told to slow down instead: some clients answer 401 by trying
    /// again at once, for ever.
    pub fn unauthorized(&self, certificate: Digest, id: ProblemId, description: &str) -> ApiError {
        self.metrics.unauthorized.inc();
        match self.limiter.failed(certificate) {
            Ok(()) => ApiError::new(id, description),
            Err(wait) => self.too_fast(wait),
        }
    }

    /// Counts a refusal, and says it as its client will read it.
    pub fn turn_away(&self, refusal: Refusal) -> ApiError {
        self.metrics.refused(refusal.reason());
        refusal.into()
    }

    fn too_fast(&self, wait: std::time::Duration) -> ApiError {
        self.metrics.rate_limited.inc();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        ApiError::new(ProblemId::RateLimited, "too many requests; come back").after(seconds)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_is_read_in_any_case_and_nothing_else_is_one() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            let headers: HeaderMap = [(AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(bearer(&headers), token, "{value:?}");
        }
    }
}
