//! tracing and OpenTelemetry set-up; trace context over HTTP headers.
//!
//! [`init`] once in `main`, and keep the [`Guard`] to the end:
//! ```
//! use telemetry::{LogFormat, Settings};
//!
//! let _guard = telemetry::init(Settings { log_format: LogFormat::Json, ..Settings::of("svc-orders") });
//! tracing::info!(order.id = 7, "order placed");
//! ```
//! Every span has a trace id, whatever `RUST_LOG` lets through to the log. With a [`Collector`], spans are exported in
//! batches by a thread of their own: nobody waits for it, and when it cannot keep up, or nobody is there, spans are
//! dropped.
//!
//! [`http`] carries the trace over HTTP. The payload field `_trace` of events is written and read by the event
//! store, through the global propagator that is set here: Jaeger's.
//!
//! | room | what is there |
//! |---|---|
//! | [`http`] | trace context in headers, and of the span at hand |
//! | `collector` `exporter` | where spans go, and who tells when they do not get there |
//! | `json` | lines of the log for machines |
//! | `jaeger` | the propagator |

mod collector;
mod exporter;
pub mod http;
mod jaeger;
mod json;

use std::{io::IsTerminal, str::FromStr, time::Duration};

use opentelemetry::{
    Value, global,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

pub use collector::{Collector, InvalidCollector};
use exporter::Telling;

/// Spans that wait for the exporter. More than that are dropped: telemetry never holds up what it tells of.
const QUEUE: usize = 16_384;
const BATCH: usize = 2_048;
const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the last spans to be exported: what runs may have taken nine of its ten seconds.
const FLUSH: Duration = Duration::from_millis(500);

/// What a process says about itself, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name its traces and its log carry: `svc-orders`.
    pub service: String,
    /// How a line of the log looks.
    pub log_format: LogFormat,
    /// Where spans go; `None`: nowhere.
    pub collector: Option<Collector>,
    /// Which part of the traces that begin here is exported, 0 to 1. A trace that comes from elsewhere says itself.
    pub sample_ratio: f64,
}

impl Settings {
    /// A log for people, and no collector.
    pub fn of(service: impl Into<String>) -> Self {
        Self { service: service.into(), log_format: LogFormat::Pretty, collector: None, sample_ratio: 1.0 }
    }
}

/// How a line of the log looks; it goes to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line, for machines.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// Neither `pretty` nor `json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

/// Flushes what is not yet exported when it is dropped, so it is dropped last.
#[derive(Debug)]
#[must_use = "dropping it ends tracing"]
pub struct Guard(Option<SdkTracerProvider>);

/// Starts logging and tracing. `RUST_LOG` says what is logged (`info` if unset); of a
/// wrong one, the directives that can be read.
///
/// A second call in one process, as tests make, changes nothing; its guard guards nothing.
pub fn init(settings: Settings) -> Guard {
    global::set_text_map_propagator(jaeger::propagator());
    let provider = provider(&settings);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tracing"))
        // Where in the source and on which thread: nobody asks, and each span would carry it.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        // Nor how long each was not polled: two looks at the clock for each time it is.
        .with_tracked_inactivity(false)
        // Not RUST_LOG: a quiet log must not break the traces of those who call through here.
        .with_filter(SPANS.parse::<Targets>().unwrap_or_default());
    if tracing_subscriber::registry().with(log(&settings)).with(spans).try_init().is_err() {
        return Guard(None);
    }
    global::set_tracer_provider(provider.clone());
    Guard(Some(provider))
}

/// Which spans there are: not those of libraries that tell what ours tell already.
const SPANS: &str = "info,stripe=off,h2=off";

fn provider(settings: &Settings) -> SdkTracerProvider {
    let builder = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(settings.service.clone()).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio))));
    let Some(collector) = &settings.collector else { return builder.build() };
    match collector.exporter() {
        Ok(exporter) => {
            let config = BatchConfigBuilder::default()
                .with_max_queue_size(QUEUE)
                .with_max_export_batch_size(BATCH)
                .with_scheduled_delay(EXPORT_EVERY)
                .build();
            let processor =
                BatchSpanProcessor::builder(Telling::of(exporter)).with_batch_config(config).build();
            builder.with_span_processor(processor).build()
        }
        Err(error) => {
            // Before there is a log. A process without traces is better than none.
            eprintln!("spans are not exported: {error}");
            builder.build()
        }
    }
}

/// Who says too much unless it is asked to: the propagator warns of every request that brings no trace, with what it
/// brought instead; the Stripe client of what is counted and told already.
const QUIET: &str = "opentelemetry=error,stripe=error";

fn log(settings: &Settings) -> Box<dyn Layer<Registry> + Send + Sync> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::new(format!("{QUIET},{}", wanted.as_deref().unwrap_or("info")));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Pretty => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => {
            let json = json::Json { service: settings.service.clone() };
            layer.event_format(json).with_filter(filter).boxed()
        }
    }
}

/// Names the span at hand, once it is known what it is about.
pub fn name_span(name: String) {
    http::current().span().update_name(name);
}

/// Says something of the span at hand, under a name of OpenTelemetry's or one that begins with what it is about, as
/// `order.id`.
pub fn attribute(name: &'static str, value: impl Into<Value>) {
    tracing::Span::current().set_attribute(name, value);
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody is left to tell: logging ends here too.
        let _ = self.0.take().map(|provider| provider.shutdown_with_timeout(FLUSH));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_format_is_one_of_two_words() {
        assert_eq!("pretty".parse(), Ok(LogFormat::Pretty));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("JSON".parse::<LogFormat>(), Err(UnknownFormat));
    }

    #[test]
    fn a_second_init_is_harmless() {
        let settings = || Settings { log_format: LogFormat::Json, ..Settings::of("test") };
        let first = init(settings());
        drop(init(settings()));
        let span = tracing::info_span!("after the second guard");
        assert!(span.in_scope(http::trace_id).is_some());
        drop(first);
    }
}
