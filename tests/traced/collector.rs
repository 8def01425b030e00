//! A stand-in for a collector: it takes spans by OTLP over HTTP, late or not at all if it is told so.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use axum::{Router, body::Bytes, extract::State, routing::post};
use engines::chaos_proxy::ChaosProxy;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use reqwest::StatusCode;
use tokio::{sync::watch, task::JoinHandle};

/// How it treats what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes it, after this time. What waits is let go when the mood changes.
    Takes(Duration),
    /// Answers 500.
    Fails,
}

/// A span, and who sent it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`; empty if the process said none.
    pub instance: String,
    pub span: Span,
}

/// The stand-in, behind a link that can be cut.
#[derive(Debug)]
pub struct Collector {
    /// The link; its address is the collector's.
    pub link: ChaosProxy,
    book: Arc<Book>,
    mood: watch::Sender<Mood>,
    server: JoinHandle<std::io::Result<()>>,
}

/// What came.
#[derive(Debug, Default)]
struct Book {
    bodies: Mutex<Vec<Bytes>>,
    sent: Mutex<Vec<Sent>>,
    calls: AtomicUsize,
}

impl Collector {
    /// Starts it; it takes spans at once.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let link = ChaosProxy::start(listener.local_addr()?).await?;
        let (mood, _) = watch::channel(Mood::Takes(Duration::ZERO));
        let book = Arc::new(Book::default());
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state((book.clone(), mood.subscribe()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            link,
            book,
            mood,
            server,
        })
    }

    /// The lines of a process's configuration that have it send spans here.
    pub fn configuration(&self, service: &str, ratio: f64) -> String {
        format!(
            "[telemetry]\notlp_endpoint = \"http://{}\"\ntrace_ratio = {ratio:?}\nservice_name = \"{service}\"",
            self.address()
        )
    }

    fn address(&self) -> SocketAddr {
        self.link.address()
    }

    /// From now on.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Every span that came.
    pub fn sent(&self) -> Vec<Sent> {
        self.book.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often something was sent, whatever became of it.
    pub fn calls(&self) -> usize {
        self.book.calls.load(Ordering::Relaxed)
    }

    /// Waits for this many spans of a trace: those that came, in the order of their beginnings.
    pub async fn trace(&self, trace: &str, count: usize, patience: Duration) -> Result<Vec<Sent>> {
        let begun = Instant::now();
        loop {
            let mut spans = self.sent();
            spans.retain(|sent| hex::encode(&sent.span.trace_id) == trace);
            spans.sort_by_key(|sent| sent.span.start_time_unix_nano);
            if spans.len() >= count {
                return Ok(spans);
            }
            ensure!(
                begun.elapsed() < patience,
                "{} of {count} spans of trace {trace} came within {patience:?}: {:?}",
                spans.len(),
                spans.iter().map(|sent| &sent.span.name).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether any message held these bytes, anywhere.
    pub fn has_seen(&self, secret: &[u8]) -> bool {
        let bodies = self.book.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies
            .iter()
            .any(|body| body.windows(secret.len()).any(|part| part == secret))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State((book, mut mood)): State<(Arc<Book>, watch::Receiver<Mood>)>,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    book.calls.fetch_add(1, Ordering::Relaxed);
    let told = *mood.borrow_and_update();
    match told {
        Mood::Takes(after) => {
            let _ = tokio::time::timeout(after, mood.changed()).await;
        }
        Mood::Fails => return Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
    let request = ExportTraceServiceRequest::decode(body.clone()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut sent = book.sent.lock().unwrap_or_else(PoisonError::into_inner);
    for of_process in request.resource_spans {
        let resource = of_process.resource.unwrap_or_default();
        let (service, instance) = (said(&resource, "service.name"), said(&resource, "service.instance.id"));
        sent.extend(
            of_process
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
                .map(|span| Sent {
                    service: service.clone(),
                    instance: instance.clone(),
                    span,
                }),
        );
    }
    book.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

fn said(resource: &Resource, key: &str) -> String {
    text(&resource.attributes, key).unwrap_or_default().to_owned()
}

/// An attribute that is a text.
pub fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
