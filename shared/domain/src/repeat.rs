//! What makes a request the same as another (`pki-rules`, Asking twice).

use serde::Serialize;

use crate::{
    id::{AccountId, ProfileId},
    request::Request,
};

/// The bytes whose SHA-256 is the same for the same request: account, profile, public key, the request without `not_before`, without
/// the CSR around the key and its signature, and with the requested duration in place of `not_after`.
///
/// Clients send a fresh `not_before` and a freshly signed CSR at each try; neither makes a new request.
pub fn canonical(account: &AccountId, profile: &ProfileId, request: &Request, public_key: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Canonical<'a> {
        account: &'a AccountId,
        profile: &'a ProfileId,
        duration: Option<i64>,
        request: &'a Request,
        public_key: &'a [u8],
    }
    let not_after = request.validity.not_after.filter(|&secs| secs != 0);
    let duration = not_after.map(|end| end.saturating_sub(request.validity.not_before.unwrap_or(0)));
    let mut normal = request.clone();
    normal.validity = crate::request::RequestedValidity::default();
    normal.public_key = String::new();
    normal.public_key_signature = None;
    for name in &mut normal.san.dns_names {
        name.make_ascii_lowercase();
    }
    let canonical = Canonical {
        account,
        profile,
        duration,
        request: &normal,
        public_key,
    };
    serde_json::to_vec(&canonical).expect("maps with text keys and plain values always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{RequestedSan, RequestedValidity};

    fn request(not_before: i64, not_after: Option<i64>) -> Request {
        Request {
            validity: RequestedValidity {
                not_before: Some(not_before),
                not_after,
            },
            san: RequestedSan {
                dns_names: vec!["WWW.example.com".into()],
                ..RequestedSan::default()
            },
            public_key: format!("-----BEGIN CERTIFICATE REQUEST----- signed at {not_before}"),
            ..Request::default()
        }
    }

    fn bytes(request: &Request, key: &[u8]) -> Vec<u8> {
        canonical(&"acme".parse().unwrap(), &"tls".parse().unwrap(), request, key)
    }

    #[test]
    fn a_fresh_not_before_and_a_fresh_csr_do_not_make_a_new_request() {
        assert_eq!(
            bytes(&request(100, None), b"key"),
            bytes(&request(160, Some(0)), b"key")
        );
        assert_eq!(
            bytes(&request(100, Some(1100)), b"key"),
            bytes(&request(160, Some(1160)), b"key")
        );
    }

    #[test]
    fn another_key_duration_account_or_name_does() {
        let base = bytes(&request(100, Some(1100)), b"key");
        assert_ne!(base, bytes(&request(100, Some(1100)), b"other"));
        assert_ne!(base, bytes(&request(100, Some(1101)), b"key"));
        let mut renamed = request(100, Some(1100));
        renamed.san.dns_names[0] = "mail.example.com".into();
        assert_ne!(base, bytes(&renamed, b"key"));
        let other = canonical(
            &"other".parse().unwrap(),
            &"tls".parse().unwrap(),
            &request(100, Some(1100)),
            b"key",
        );
        assert_ne!(base, other);
    }
}
