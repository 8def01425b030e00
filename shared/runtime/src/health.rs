//! Whether the process lives, whether it is ready, and why not: by part and by lane.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use domain::{
    lane::Lane,
    time::{Clock, Timestamp},
};
use serde::Serialize;

use crate::{
    shutdown::Shutdown,
    telemetry::{METRICS_MEDIA_TYPE, Metrics},
};

/// What a condition is about.
type Subject = (&'static str, Option<Lane>);

#[derive(Debug, Clone)]
struct Known {
    ready: bool,
    reason: String,
    since: Timestamp,
}

/// The conditions of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    conditions: Arc<Mutex<BTreeMap<Subject, Known>>>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
}

/// One condition: the part that owns it says how it is. It is forgotten when this is dropped.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    subject: Subject,
}

impl Condition {
    /// All is well.
    pub fn ready(&self) {
        self.health.set(&self.subject, true, String::new());
    }

    /// It is not, for this reason.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.health.set(&self.subject, false, reason.into());
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.health.lock().remove(&self.subject);
    }
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether requests should be sent here: every part is ready and the process is not stopping.
    pub ready: bool,
    /// Whether the process is stopping.
    pub stopping: bool,
    /// Parts. One that is not ready makes the whole not ready.
    pub parts: Vec<PartReadiness>,
    /// Lanes. One that is not ready says so, and changes nothing for the others.
    pub lanes: Vec<PartReadiness>,
}

/// One condition as `/readyz` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartReadiness {
    /// Which part says so.
    pub part: &'static str,
    /// About which lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Whether all is well.
    pub ready: bool,
    /// If not, why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when, UNIX milliseconds.
    pub since: Timestamp,
}

impl Health {
    /// A process without conditions: not ready until its parts have said so.
    pub fn new(clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        Self {
            conditions: Arc::default(),
            clock,
            shutdown,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, Known>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A condition of a part, which begins as not ready: `starting`.
    pub fn part(&self, part: &'static str) -> Condition {
        self.condition((part, None))
    }

    /// A condition of one lane, as seen by a part.
    pub fn lane(&self, part: &'static str, lane: Lane) -> Condition {
        self.condition((part, Some(lane)))
    }

    fn condition(&self, subject: Subject) -> Condition {
        self.set(&subject, false, "starting".into());
        Condition {
            health: self.clone(),
            subject,
        }
    }

    fn set(&self, subject: &Subject, ready: bool, reason: String) {
        let since = self.clock.now();
        let mut conditions = self.lock();
        match conditions.get_mut(subject) {
            Some(state) if state.ready == ready => state.reason = reason,
            _ => drop(conditions.insert(subject.clone(), Known { ready, reason, since })),
        }
    }

    /// How things are.
    pub fn readiness(&self) -> Readiness {
        let all = self
            .lock()
            .clone()
            .into_iter()
            .map(|((part, lane), Known { ready, reason, since })| PartReadiness {
                part,
                lane: lane.map(|lane| lane.to_string()),
                ready,
                reason,
                since,
            });
        let (parts, lanes): (Vec<_>, Vec<_>) = all.partition(|condition| condition.lane.is_none());
        let stopping = self.shutdown.has_begun();
        let ready = !stopping && !parts.is_empty() && parts.iter().all(|part| part.ready);
        Readiness {
            ready,
            stopping,
            parts,
            lanes,
        }
    }

    /// `/livez`, `/readyz` and `/metrics`.
    pub fn router(&self, metrics: Metrics) -> Router {
        Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .with_state(self.clone())
            .route(
                "/metrics",
                get(async move || ([(header::CONTENT_TYPE, METRICS_MEDIA_TYPE)], metrics.encode())),
            )
    }
}

/// That this runs at all is the proof of life.
async fn live(State(health): State<Health>) -> Response {
    if health.shutdown.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else {
        "alive\n".into_response()
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{clock::ManualClock, shutdown::Cause};

    fn health() -> (Health, Arc<ManualClock>, Shutdown) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(100)));
        let shutdown = Shutdown::new(Duration::from_secs(1));
        (Health::new(clock.clone(), shutdown.clone()), clock, shutdown)
    }

    async fn get(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.router(Metrics::new()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_process_is_ready_when_all_its_parts_have_said_so() {
        let (health, clock, _) = health();
        assert_eq!(
            get(&health, "/readyz").await.0,
            StatusCode::SERVICE_UNAVAILABLE,
            "without parts"
        );
        let (store, broker) = (health.part("store"), health.part("broker"));
        store.ready();
        let (status, body) = get(&health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            body.contains(r#"{"part":"broker","ready":false,"reason":"starting","since":100000}"#),
            "{body}"
        );
        clock.advance(Duration::from_secs(5));
        broker.ready();
        assert_eq!(get(&health, "/readyz").await.0, StatusCode::OK);
        store.not_ready("no disk");
        store.not_ready("still no disk");
        clock.advance(Duration::from_secs(5));
        let parts = health.readiness().parts;
        assert_eq!(
            (parts[1].reason.as_str(), parts[1].since),
            ("still no disk", Timestamp::from_secs(105))
        );
        drop(store);
        assert!(health.readiness().ready);
    }

    #[tokio::test]
    async fn a_sick_lane_is_told_and_takes_nobody_else_with_it() {
        let (health, ..) = health();
        let part = health.part("signer");
        part.ready();
        let sick = health.lane("signer", "acme.bulk".parse().unwrap());
        sick.not_ready("breaker open");
        let (status, body) = get(&health, "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            body.contains(r#""lane":"acme.bulk","ready":false,"reason":"breaker open""#),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_stopping_process_is_neither_alive_nor_ready() {
        let (health, _, shutdown) = health();
        let part = health.part("signer");
        part.ready();
        assert_eq!(get(&health, "/livez").await, (StatusCode::OK, "alive\n".into()));
        shutdown.begin(Cause::Asked("a test".into()));
        assert_eq!(get(&health, "/livez").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&health, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let (health, ..) = health();
        let (status, body) = get(&health, "/metrics").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "# EOF\n"));
    }
}
