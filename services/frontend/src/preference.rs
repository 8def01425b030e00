//! The request headers beyond the contract: `Prefer: wait` (RFC 7240) and `Idempotency-Key`.

use std::time::Duration;

use domain::{bytes::Digest, id::AccountId};
use http::HeaderMap;

use crate::error::ApiError;

/// How long the client prefers to wait for the certificate. The first `wait` counts; one that is no number of seconds over 0 is
/// ignored, as RFC 7240, section 2, wants it.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then_some(value)
        })
        .and_then(|value| value.trim().trim_matches('"').parse().ok())
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs)
}

/// The longest idempotency key, in characters.
const MAX_KEY: usize = 255;

/// SHA-256 of account and idempotency key, if the client sent one.
pub fn idempotency(headers: &HeaderMap, account: &AccountId) -> Result<Option<Digest>, ApiError> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.as_bytes();
    if keys.next().is_some() || key.is_empty() || key.len() > MAX_KEY || !key.iter().all(u8::is_ascii_graphic) {
        return Err(ApiError::field(
            "Idempotency-Key",
            "must be one header of 1 to 255 visible ASCII characters",
        ));
    }
    let mut named = account.as_str().as_bytes().to_vec();
    named.push(0);
    named.extend_from_slice(key);
    Ok(Some(pki::sha256(&named)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values
            .map(|value| (http::HeaderName::from_static(name), value))
            .collect()
    }

    #[test]
    fn the_first_wait_counts_in_whatever_dress() {
        for (values, seconds) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, wait=5"], Some(5)),
            (&["respond-async; x=1", "WAIT = \"7\"; foo"], Some(7)),
            (&["wait=3, wait=9"], Some(3)),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&["wait=soon"], None),
            (&["return=minimal"], None),
            (&[], None),
        ] {
            assert_eq!(
                wait(&headers("prefer", values)),
                seconds.map(Duration::from_secs),
                "{values:?}"
            );
        }
    }

    #[test]
    fn an_idempotency_key_belongs_to_its_account() {
        let account = |name: &str| name.parse::<AccountId>().unwrap();
        let sent = headers("idempotency-key", &["a-key"]);
        let one = idempotency(&sent, &account("one")).unwrap();
        assert!(one.is_some());
        assert_ne!(one, idempotency(&sent, &account("two")).unwrap());
        assert_eq!(idempotency(&HeaderMap::new(), &account("one")), Ok(None));
        for bad in [&["a", "b"][..], &[""], &["a b"]] {
            assert!(
                idempotency(&headers("idempotency-key", bad), &account("one")).is_err(),
                "{bad:?}"
            );
        }
    }
}
