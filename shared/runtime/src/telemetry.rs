//! Logs to stderr, and the metrics that all parts of a process share.

use std::{
    collections::HashSet,
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use domain::id::{IssuerId, NodeId};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};
use tracing_subscriber::{EnvFilter, Layer, fmt::format::FmtSpan, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{LogFormat, Telemetry},
    trace::Exporter,
};

/// The environment variable that overrules the configured filter.
pub const FILTER_VARIABLE: &str = "BULKHEAD_LOG";

/// The media type of [`Metrics::encode`].
pub const METRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many issuers have series of their own; all others share one, called `other`.
pub const ISSUER_SERIES: usize = 500;

/// Upper bounds of latency histograms, in seconds.
pub const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{from}: {text:?} is not a log filter ({detail}); write for example \"info\" or \"info,signer=debug\"")]
    Filter {
        /// Where it came from.
        from: &'static str,
        /// The text.
        text: String,
        /// What is wrong.
        detail: String,
    },
    /// Spans cannot be exported.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// It was set up before.
    #[error("the log of this process is set up already")]
    Twice,
}

/// Sends logs to stderr, as people or as machines read them, and spans to the collector, if there is one, in the name of this node. Once
/// per process.
pub fn init(telemetry: &Telemetry, node: Option<&NodeId>) -> Result<Option<Exporter>, TelemetryError> {
    let (from, text) = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => (FILTER_VARIABLE, text),
        _ => ("telemetry.filter", telemetry.filter.clone()),
    };
    let filter = parse_filter(from, &text)?;
    let exporter = Exporter::new(telemetry, node)?;
    let registry = tracing_subscriber::registry().with(exporter.as_ref().map(Exporter::layer));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let set = match telemetry.format {
        LogFormat::Human => registry.with(layer.with_target(true).with_filter(filter)).try_init(),
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_filter(filter))
            .try_init(),
    };
    set.map_err(|_| TelemetryError::Twice)?;
    Ok(exporter)
}

/// Sends the last spans before the process ends.
pub async fn flush(exporter: Option<Exporter>) {
    if let Some(exporter) = exporter {
        // It blocks for a few seconds at most; a panic in it is nobody's loss any more.
        let _ = tokio::task::spawn_blocking(move || exporter.flush()).await;
    }
}

pub(crate) fn parse_filter(from: &'static str, text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(text).map_err(|e| TelemetryError::Filter {
        from,
        text: text.to_owned(),
        detail: e.to_string(),
    })
}

/// The metrics of a process: one registry with the prefix `bulkhead`, shared by all parts. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    issuers: Arc<Mutex<HashSet<IssuerId>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("bulkhead"))),
            issuers: Arc::default(),
        }
    }
}

/// The label of a series per issuer. Made by [`Metrics::issuer_label`] alone, so that there are never too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IssuerLabel {
    issuer: String,
}

impl Metrics {
    /// Metrics without any series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric under `bulkhead_NAME` and hands it back. Counters get `_total` at their end.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(name, help, metric.clone());
        metric
    }

    /// A counter per issuer.
    pub fn counter_per_issuer(&self, name: &str, help: &str) -> Family<IssuerLabel, Counter> {
        self.register(name, help, Family::default())
    }

    /// A gauge per issuer.
    pub fn gauge_per_issuer(&self, name: &str, help: &str) -> Family<IssuerLabel, Gauge> {
        self.register(name, help, Family::default())
    }

    /// The label of an issuer: its own for the first [`ISSUER_SERIES`] that were ever named, `other` for the rest.
    pub fn issuer_label(&self, issuer: &IssuerId) -> IssuerLabel {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = issuers.contains(issuer) || (issuers.len() < ISSUER_SERIES && issuers.insert(issuer.clone()));
        IssuerLabel {
            issuer: if own { issuer.as_str() } else { "other" }.to_owned(),
        }
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Panics
    /// Never: writing to a string does not fail.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_prefix_and_one_registry_per_process_part() {
        let metrics = Metrics::new();
        let counter: Counter =
            metrics
                .clone()
                .register("certificates_issued", "Certificates issued", Counter::default());
        counter.inc_by(3);
        let text = metrics.encode();
        assert!(text.contains("bulkhead_certificates_issued_total 3"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        assert!(
            !Metrics::new().encode().contains("certificates"),
            "registries are shared by accident"
        );
    }

    #[test]
    fn issuers_beyond_the_limit_share_one_series() {
        let metrics = Metrics::new();
        let family = metrics.counter_per_issuer("issued", "Issued");
        for n in 0..ISSUER_SERIES + 100 {
            family
                .get_or_create(&metrics.issuer_label(&format!("issuer-{n}").parse().unwrap()))
                .inc();
        }
        family
            .get_or_create(&metrics.issuer_label(&"issuer-0".parse().unwrap()))
            .inc();
        let text = metrics.encode();
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("bulkhead_issued_total{"))
                .count(),
            ISSUER_SERIES + 1
        );
        assert!(text.contains(r#"bulkhead_issued_total{issuer="other"} 100"#));
        assert!(text.contains(r#"bulkhead_issued_total{issuer="issuer-0"} 2"#));
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_an_example() {
        assert!(parse_filter("telemetry.filter", "info,signer=debug").is_ok());
        let error = parse_filter("telemetry.filter", "signer=loud").unwrap_err().to_string();
        assert!(
            error.starts_with("telemetry.filter: ") && error.contains("info,signer=debug"),
            "{error}"
        );
    }
}
