//! One trace for each certificate, from the HTTP request through the broker to the signature and back.
//!
//! Stages are spans of the target [`TARGET`]; they exist only while spans are exported (`telemetry.otlp_endpoint`). Between processes
//! the context travels beside a message, as text that nobody believes (W3C Trace Context): a message about several jobs carries one
//! [`traceparent`] for each, in their order, separated by commas, empty where there is none.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use domain::id::NodeId;
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::config::Telemetry;

/// The target of spans that are stages of a certificate's way.
pub const TARGET: &str = "bulkhead::trace";

/// A stage of a certificate's way: a span, or nothing where none is exported.
#[macro_export]
macro_rules! stage {
    (parent: $parent:expr, $name:literal $(, $($field:tt)*)?) => {
        $crate::tracing::debug_span!(target: "bulkhead::trace", parent: $parent, $name $(, $($field)*)?)
    };
    ($name:literal $(, $($field:tt)*)?) => {
        $crate::tracing::debug_span!(target: "bulkhead::trace", $name $(, $($field)*)?)
    };
}

/// What exports spans. Dropped without [`Exporter::flush`], it loses the last ones.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Exports to the collector of the configuration, in batches, from a thread of its own. `None` without one. A process that has a name
    /// among others of its service says it with every span.
    pub(crate) fn new(
        telemetry: &Telemetry,
        node: Option<&NodeId>,
    ) -> Result<Option<Self>, opentelemetry_otlp::ExporterBuildError> {
        let endpoint = telemetry.otlp_endpoint.trim_end_matches('/');
        if endpoint.is_empty() {
            return Ok(None);
        }
        // The exporter's client is built with TLS, whatever the endpoint, and takes the process's provider. The second time, it is there.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Watched {
                exporter,
                is_failing: AtomicBool::new(false),
            })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                telemetry.trace_ratio,
            ))))
            .with_resource(
                Resource::builder()
                    .with_service_name(telemetry.service_name.clone())
                    .with_attributes(node.map(|node| KeyValue::new("service.instance.id", node.to_string())))
                    .build(),
            )
            .build();
        Ok(Some(Self(provider)))
    }

    /// The layer that hands spans to it: the stages, and the front end's requests.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let targets = Targets::new()
            .with_target(TARGET, Level::DEBUG)
            .with_target("frontend::gate", Level::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("bulkhead"))
            .with_location(false)
            .with_threads(false)
            .with_filter(targets)
    }

    /// Sends what is left, for a bounded time. Blocks.
    pub fn flush(&self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// What exports, and says once when spans begin to be lost and once when they arrive again.
#[derive(Debug)]
struct Watched {
    exporter: OtlpExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.exporter.export(batch).await;
        match (&exported, self.is_failing.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "the collector took none of {count} spans; spans are lost until it does, and nothing else");
            }
            (Ok(()), true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// W3C `traceparent` of a span, if it is recorded.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        format!("00-{trace}-{span}-{flags:02x}")
    })
}

/// Makes a new span a child of the span that a `traceparent` names. What is none is ignored.
pub fn continues(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = parse(traceparent) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // It fails for a span that was entered before: then it stays a trace of its own.
        let _ = span.set_parent(context);
    }
}

/// The contexts of a message's jobs, in their order; `None` if there are none.
pub fn join(contexts: &[Option<String>]) -> Option<String> {
    if contexts.iter().all(Option::is_none) {
        return None;
    }
    let texts: Vec<&str> = contexts
        .iter()
        .map(|context| context.as_deref().unwrap_or(""))
        .collect();
    Some(texts.join(","))
}

/// The context of each of a message's jobs, as [`join`] wrote them; nothing for jobs beyond them.
pub fn split(contexts: Option<&str>) -> impl Iterator<Item = Option<&str>> {
    contexts
        .into_iter()
        .flat_map(|contexts| contexts.split(','))
        .map(|context| Some(context).filter(|context| !context.is_empty()))
        .chain(std::iter::repeat(None))
}

/// Reads a `traceparent` (W3C Trace Context, 3.2).
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    if trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let context = parse(PARENT).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(parse(&PARENT.replace("00-", "cc-")).is_some(), "a later version");
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn contexts_of_several_jobs_keep_their_order_and_their_gaps() {
        let all = [None, Some(PARENT.to_owned()), None];
        let joined = join(&all);
        let back: Vec<_> = split(joined.as_deref()).take(4).collect();
        assert_eq!(back, [None, Some(PARENT), None, None]);
        assert_eq!(join(&[None, None]), None);
        assert_eq!(split(None).next(), Some(None));
    }

    #[test]
    fn a_span_that_nobody_exports_has_no_context_and_costs_no_text() {
        let span = stage!("issue", job = 1);
        continues(&span, PARENT);
        assert_eq!(traceparent(&span), None);
    }
}
