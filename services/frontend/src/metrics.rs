//! What a front end counts.

use std::time::Duration;

use domain::lane::{Class, Lane};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use runtime::telemetry::{IssuerLabel, LATENCY_BUCKETS};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    route: String,
    method: String,
    /// `2xx`, `4xx` ...
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassOutcome {
    class: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The series of a front end.
#[derive(Debug)]
pub struct Metrics {
    shared: runtime::telemetry::Metrics,
    requests: Family<Requested, Counter>,
    accept_seconds: Family<ClassOutcome, Histogram, fn() -> Histogram>,
    not_published: Family<Reason, Counter>,
    refused: Family<Reason, Counter>,
    depth: Family<IssuerLabel, Gauge>,
    /// Requests that were let through although the estimate was against them.
    pub probes: Counter,
    /// Envelopes that the broker confirmed.
    pub published: Counter,
    /// Jobs in a batch.
    pub batch: Histogram,
    /// Requests turned away because an account was too fast.
    pub rate_limited: Counter,
    /// Failed logins and tokens.
    pub unauthorized: Counter,
    /// Answers that could not be verified or read.
    pub answers_refused: Counter,
    /// Certificates in the ledger that did not verify.
    pub altered: Counter,
    /// Clients that wait.
    pub waiting: Gauge,
    /// Whether this front end is behind the registry: 1 or 0.
    pub behind: Gauge,
    /// Requests that are worked on.
    pub in_flight: Gauge,
}

impl Metrics {
    /// Registers the series.
    pub fn new(shared: &runtime::telemetry::Metrics) -> Self {
        let latency: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        let sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        Self {
            shared: shared.clone(),
            requests: shared.register(
                "frontend_requests",
                "Requests by route and class of status",
                Family::default(),
            ),
            accept_seconds: shared.register(
                "frontend_accept_seconds",
                "From the request to its job, by class and outcome",
                Family::new_with_constructor(latency),
            ),
            not_published: shared.register(
                "frontend_envelopes_not_published",
                "Envelopes that signers never saw; their jobs are claimed from the ledger",
                Family::default(),
            ),
            refused: shared.register(
                "frontend_refused",
                "Requests for certificates that were refused, by reason",
                Family::default(),
            ),
            probes: shared.register(
                "frontend_probes",
                "Requests let through to find out whether the estimate is right",
                Counter::default(),
            ),
            depth: shared.gauge_per_issuer("frontend_queued", "Requests that wait to be verified or accepted"),
            published: shared.register(
                "frontend_envelopes_published",
                "Envelopes confirmed by the broker",
                Counter::default(),
            ),
            batch: shared.register(
                "frontend_accept_batch_jobs",
                "Jobs accepted by one commit",
                Histogram::new(sizes),
            ),
            rate_limited: shared.register(
                "frontend_rate_limited",
                "Requests over an account's rate",
                Counter::default(),
            ),
            unauthorized: shared.register("frontend_unauthorized", "Failed logins and tokens", Counter::default()),
            answers_refused: shared.register(
                "frontend_answers_refused",
                "Answers that no signer may have given",
                Counter::default(),
            ),
            altered: shared.register(
                "frontend_altered",
                "Certificates in the ledger that did not verify",
                Counter::default(),
            ),
            waiting: shared.register(
                "frontend_waiting",
                "Clients that wait for a certificate",
                Gauge::default(),
            ),
            behind: shared.register(
                "frontend_behind",
                "Whether this front end is behind the registry",
                Gauge::default(),
            ),
            in_flight: shared.register(
                "frontend_requests_in_flight",
                "Requests that are worked on",
                Gauge::default(),
            ),
        }
    }

    /// Counts a request. `route` is the path as it is declared, so that there are never many.
    pub fn request(&self, route: &str, method: &http::Method, status: http::StatusCode) {
        let status = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        // Methods are the client's to invent; series are not.
        let method = match method.as_str() {
            known @ ("GET" | "POST" | "PATCH" | "DELETE" | "HEAD" | "PUT" | "OPTIONS") => known,
            _ => "other",
        };
        let label = Requested {
            route: route.into(),
            method: method.into(),
            status,
        };
        self.requests.get_or_create(&label).inc();
    }

    /// Observes how long a request took to become a job, or to be refused.
    pub fn accepted(&self, class: Class, outcome: &'static str, took: Duration) {
        let class = class.as_str();
        let label = ClassOutcome { class, outcome };
        self.accept_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Counts a request for a certificate that was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts an envelope that was not published.
    pub fn not_published(&self, reason: &'static str) {
        self.not_published.get_or_create(&Reason { reason }).inc();
    }

    /// Shows how much waits, by issuer. Issuers for which nothing waits any more fall to 0.
    pub fn depths(&self, before: &[(Lane, usize)], now: &[(Lane, usize)]) {
        for (lane, _) in before {
            self.depth.get_or_create(&self.shared.issuer_label(&lane.issuer)).set(0);
        }
        for (lane, depth) in now {
            let depth = i64::try_from(*depth).unwrap_or(i64::MAX);
            self.depth
                .get_or_create(&self.shared.issuer_label(&lane.issuer))
                .inc_by(depth);
        }
    }
}
