//! Trace context over HTTP headers: `uber-trace-id` (Jaeger) and `traceparent` (W3C).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::jaeger;

const JAEGER: &str = "uber-trace-id";

/// The trace a request belongs to: from `uber-trace-id`, else from `traceparent`; an empty context, which starts
/// a new trace, if there is neither or only garbage.
pub fn extract(headers: &HeaderMap) -> Context {
    let found = |propagator: &dyn TextMapPropagator| {
        let context = propagator.extract_with_context(&Context::new(), &Reader(headers));
        context.span().span_context().is_valid().then_some(context)
    };
    // The Jaeger propagator complains in the log where the header is absent.
    let jaeger = headers.contains_key(JAEGER).then(|| found(&jaeger::propagator())).flatten();
    jaeger.or_else(|| found(&TraceContextPropagator::new())).unwrap_or_default()
}

/// Writes both headers for a request made within `context`: [`current`] as a rule.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    jaeger::propagator().inject_context(context, &mut Writer(headers));
    TraceContextPropagator::new().inject_context(context, &mut Writer(headers));
}

/// The context of the current span, to [`inject`] into a request.
pub fn current() -> Context {
    Span::current().context()
}

/// Makes a span that was not entered yet part of the trace that the headers name.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    // Fails where no telemetry was set up, as in tests, and then there is no trace to continue.
    let _ = span.set_parent(extract(headers));
}

/// Makes a span that was not entered yet part of a trace that was kept as text, Jaeger's, with a link to the span at
/// hand, whose part it would have been. Without such a text it stays that.
pub fn continue_text(span: &Span, trace: Option<&str>) {
    let mut headers = HeaderMap::new();
    if let Some(value) = trace.and_then(|trace| trace.parse().ok()) {
        headers.insert(JAEGER, value);
        let cause = current().span().span_context().clone();
        if cause.is_valid() {
            span.add_link(cause);
        }
        continue_trace(span, &headers);
    }
}

/// The trace id of the current span in 32 hex digits; `None` outside any span, or without [`init`](crate::init).
pub fn trace_id() -> Option<String> {
    let context = current();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

struct Reader<'a>(&'a HeaderMap);

impl Extractor for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Writer<'a>(&'a mut HeaderMap);

impl Injector for Writer<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate is not worth a header.
        if let (false, Ok(name), Ok(value)) =
            (value.is_empty(), HeaderName::try_from(key), HeaderValue::try_from(value))
        {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const UBER: &str = "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1";
    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(headers: &[(&'static str, &str)]) -> Context {
        let pairs =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        extract(&pairs.collect())
    }

    fn trace_of(context: &Context) -> String {
        context.span().span_context().trace_id().to_string()
    }

    #[test]
    fn jaegers_header_comes_before_the_w3c_one() {
        assert_eq!(trace_of(&read(&[("traceparent", W3C), (JAEGER, UBER)])), TRACE);
        assert_eq!(trace_of(&read(&[("traceparent", W3C)])), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(
            trace_of(&read(&[("traceparent", W3C), (JAEGER, "x")])),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
    }

    #[test]
    fn garbage_starts_a_new_trace() {
        for value in ["", "::::", "0:0:0:1", "zz:zz:0:1", "1:2:3", "é:1:0:1", &"a".repeat(5000)] {
            let context = read(&[(JAEGER, value), ("traceparent", value)]);
            assert!(!context.span().span_context().is_valid(), "{value}");
        }
    }

    #[test]
    fn what_is_injected_is_extracted_again() {
        let mut headers = HeaderMap::new();
        inject(&read(&[(JAEGER, UBER)]), &mut headers);
        assert_eq!(headers[JAEGER], UBER);
        assert_eq!(headers["traceparent"], format!("00-{TRACE}-b7ad6b7169203331-01"));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn a_span_continues_the_trace_of_the_request() {
        let spans = tracing_opentelemetry::layer().with_tracer(provider());
        let subscriber =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), spans);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            continue_trace(&span, &[(JAEGER.parse().unwrap(), UBER.parse().unwrap())].into_iter().collect());
            assert_eq!(span.in_scope(trace_id).as_deref(), Some(TRACE));
        });
        assert_eq!(trace_id(), None);
    }

    fn provider() -> opentelemetry_sdk::trace::SdkTracer {
        use opentelemetry::trace::TracerProvider;
        opentelemetry_sdk::trace::SdkTracerProvider::default().tracer("test")
    }
}
