//! A client: what it sends, and what it is answered.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
};
use domain::{bytes::Digest, id::Serial};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use runtime::tls::PeerCertificate;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::ca::ClientKey;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The serial in `Location`.
    pub fn serial(&self) -> Serial {
        assert_eq!(self.status, 201, "{self:?}");
        let location = self.header("location").expect("a 201 has a Location");
        location.strip_prefix("/v2/certificates/").unwrap().parse().unwrap()
    }

    /// Checks that this is a problem of this status and id, and returns its description.
    #[track_caller]
    pub fn problem(&self, status: u16, id: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["id"], id, "{body}");
        let description = body["description"].as_str().unwrap().to_owned();
        assert!(!description.is_empty());
        if matches!(status, 429 | 503) {
            let after: u64 = self
                .header("retry-after")
                .expect("says when to come back")
                .parse()
                .unwrap();
            assert!(after > 0);
        }
        description
    }
}

/// An account that has logged in.
#[derive(Clone)]
pub struct Client {
    pub router: Router,
    pub token: String,
    pub certificate: Digest,
}

pub fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("/v2{path}"))
}

pub async fn send(router: &Router, certificate: Option<Digest>, request: http::Result<Request<Body>>) -> Answered {
    let mut request = request.unwrap();
    if let Some(fingerprint) = certificate {
        let der = Arc::from([]);
        request.extensions_mut().insert(PeerCertificate { fingerprint, der });
    }
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answered {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

impl Client {
    pub async fn send(&self, request: http::request::Builder, body: impl Into<Body>) -> Answered {
        let request = request
            .header("authorization", format!("Bearer {}", self.token))
            .body(body.into());
        send(&self.router, Some(self.certificate), request).await
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.send(request(Method::GET, path), Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Answered {
        self.send(request(Method::DELETE, path), Body::empty()).await
    }

    pub async fn json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        let mut request = request(method, path).header("content-type", "application/json");
        if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body.to_owned()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answered {
        self.json(Method::POST, path, &[], &body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answered {
        self.json(Method::PATCH, path, &[], &body.to_string()).await
    }

    pub async fn show(&self, serial: Serial) -> Answered {
        self.get(&format!("/certificates/{serial}")).await
    }

    /// Requests a certificate for a new key.
    pub async fn issue(&self, name: &str) -> Serial {
        self.post("/certificates", &plain(name, &ClientKey::p256()))
            .await
            .serial()
    }
}

/// A plain request, as clients of the contract write it.
pub fn plain(name: &str, key: &ClientKey) -> Value {
    json!({
        "validity": {"not_before": 0, "not_after": 0},
        "subject_dn": {"common_name": name},
        "san": {"dns_names": [name]},
        "public_key": key.csr(),
    })
}
