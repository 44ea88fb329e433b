//! A collector that keeps what it is sent: OTLP over HTTP, as Jaeger takes it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::span::SpanKind,
};
use prost::Message;
use tokio::net::TcpListener;
use warp::{Filter, http::StatusCode};

/// A span as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: it is a root.
    pub(crate) parent: String,
    /// Nanoseconds of the Unix epoch.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: HashMap<String, String>,
}

/// How a collector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// At once.
    Well,
    /// 500.
    WithAnError,
    /// After this time.
    Late(Duration),
    /// At once, and keeps nothing: for measurements.
    Forgetting,
}

/// A running collector.
pub(crate) struct Collector {
    pub(crate) url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    bodies: Arc<Mutex<Vec<bytes::Bytes>>>,
}

impl Collector {
    pub(crate) async fn start(answers: Answers) -> Self {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let bodies = Arc::new(Mutex::new(Vec::<bytes::Bytes>::new()));
        let (kept, seen) = (Arc::clone(&spans), Arc::clone(&bodies));
        let traces = warp::path!("v1" / "traces").and(warp::post()).and(warp::body::bytes()).then(
            move |body: bytes::Bytes| {
                let (kept, seen) = (Arc::clone(&kept), Arc::clone(&seen));
                async move {
                    match answers {
                        Answers::Well => {}
                        Answers::Forgetting => return StatusCode::OK,
                        Answers::WithAnError => return StatusCode::INTERNAL_SERVER_ERROR,
                        Answers::Late(delay) => tokio::time::sleep(delay).await,
                    }
                    seen.lock().unwrap().push(body.clone());
                    match ExportTraceServiceRequest::decode(body) {
                        Ok(request) => {
                            kept.lock().unwrap().extend(read(request));
                            StatusCode::OK
                        }
                        Err(_) => StatusCode::BAD_REQUEST,
                    }
                }
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(warp::serve(traces).incoming(listener).run());
        Self { url, spans, bodies }
    }

    /// Whether it stands anywhere in what was sent: in a name, an attribute, an event.
    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        let holds = |body: &bytes::Bytes| body.windows(needle.len()).any(|part| part == needle);
        self.bodies.lock().unwrap().iter().any(holds)
    }

    /// All spans so far.
    pub(crate) fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace so far.
    pub(crate) fn trace(&self, id: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.trace == id).cloned().collect()
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let service = text(service.and_then(|service| service.value?.value));
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let kind = span.kind();
            let attributes = span.attributes.into_iter();
            spans.push(Span {
                service: service.clone(),
                kind,
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes
                    .map(|pair| (pair.key, text(pair.value.and_then(|value| value.value))))
                    .collect(),
            });
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The services that a trace went through.
pub(crate) fn services(trace: &[Span]) -> HashSet<String> {
    trace.iter().map(|span| span.service.clone()).collect()
}

/// The trace as a tree, in the order in which things began: each line a span, with when it began and how long it took.
pub(crate) fn drawn(trace: &[Span]) -> String {
    let ids: HashSet<&str> = trace.iter().map(|span| span.id.as_str()).collect();
    let begin = trace.iter().map(|span| span.start).min().unwrap_or_default();
    let mut roots: Vec<_> = trace.iter().filter(|span| !ids.contains(span.parent.as_str())).collect();
    roots.sort_by_key(|span| span.start);
    let mut text = String::new();
    for root in roots {
        draw(trace, root, begin, 0, &mut text);
    }
    text
}

fn draw(trace: &[Span], span: &Span, begin: u64, depth: usize, text: &mut String) {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let name = format!("{}{}", "  ".repeat(depth), span.name);
    let (at, took) = (milliseconds(span.start - begin), milliseconds(span.end - span.start));
    text.push_str(&format!("{at:8.1} ms  {name:64} {:15} {took:8.1} ms\n", span.service));
    let mut children: Vec<_> = trace.iter().filter(|child| child.parent == span.id).collect();
    children.sort_by_key(|child| child.start);
    for child in children {
        draw(trace, child, begin, depth + 1, text);
    }
}
