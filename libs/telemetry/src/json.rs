//! Lines of the log for machines: one JSON object each.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// `{"timestamp", "level", "service", "target", "trace_id", "span_id", "message", …}`, then the event's fields under
/// the names they were given, dots and all. Nothing is nested, so that a name means the same in every line.
pub(crate) struct Json {
    pub(crate) service: String,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).map_err(|_| fmt::Error)?;
        let mut line = Map::new();
        line.insert("timestamp".into(), now.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("service".into(), self.service.as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        // Of the span that is entered: tracing-opentelemetry keeps the two in step.
        let context = Context::current();
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() {
            line.insert("trace_id".into(), span.trace_id().to_string().into());
            line.insert("span_id".into(), span.span_id().to_string().into());
        }
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged within `work`, line by line.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt::layer()
            .event_format(Json { service: "svc-test".into() })
            .with_writer(move || writer.clone());
        let tracer = SdkTracerProvider::builder().build().tracer("tracing");
        let spans = tracing_opentelemetry::layer().with_tracer(tracer);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log).with(spans), work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_one_flat_object() {
        let lines = logged(|| {
            tracing::info!(order.id = "7", duration.ms = 1.5, retried = true, count = 3, "order\nplaced");
        });
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        for (name, value) in [
            ("message", Value::from("order\nplaced")),
            ("order.id", "7".into()),
            ("duration.ms", 1.5.into()),
            ("retried", true.into()),
            ("count", 3.into()),
            ("level", "INFO".into()),
            ("service", "svc-test".into()),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line.get("trace_id"), None, "there is no span");
    }

    #[test]
    fn a_line_names_the_span_that_it_is_written_in() {
        let mut ids = None;
        let lines = logged(|| {
            let span = tracing::info_span!("outer");
            span.in_scope(|| {
                ids = crate::http::trace_id();
                tracing::info!("within");
            });
        });
        assert_eq!(lines[0]["trace_id"].as_str().map(str::to_owned), ids);
        assert_eq!(lines[0]["span_id"].as_str().unwrap().len(), 16);
    }
}
