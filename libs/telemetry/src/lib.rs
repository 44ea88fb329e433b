//! tracing and OpenTelemetry set-up; trace context over HTTP headers.
//!
//! [`init`] once in `main`, and keep the [`Guard`] to the end:
//! ```
//! use telemetry::{LogFormat, Settings};
//!
//! let _guard = telemetry::init(Settings { service: "svc-orders".into(), log_format: LogFormat::Pretty });
//! tracing::info!(order.id = 7, "order placed");
//! ```
//! Every span has a trace id, whatever `RUST_LOG` lets through to the log. Spans are not exported yet.
//!
//! [`http`] carries the trace over HTTP. The payload field `_trace` of events is written and read by the event
//! store, through the global propagator that is set here: Jaeger's.

pub mod http;
mod jaeger;

use std::{io::IsTerminal, str::FromStr};

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// What a process says about itself, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name its traces carry: `svc-orders`.
    pub service: String,
    /// How a line of the log looks.
    pub log_format: LogFormat,
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
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(settings.service).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tracing"))
        // Not RUST_LOG: a quiet log must not break the traces of those who call through here.
        .with_filter(LevelFilter::INFO);
    if tracing_subscriber::registry().with(log(settings.log_format)).with(spans).try_init().is_err() {
        return Guard(None);
    }
    global::set_tracer_provider(provider.clone());
    Guard(Some(provider))
}

fn log(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    // The propagator warns of every request that brings no trace.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,opentelemetry=error"));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed()
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody is left to tell: logging ends here too.
        let _ = self.0.take().map(|provider| provider.shutdown());
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
        let settings = || Settings { service: "test".into(), log_format: LogFormat::Json };
        let first = init(settings());
        drop(init(settings()));
        let span = tracing::info_span!("after the second guard");
        assert!(span.in_scope(http::trace_id).is_some());
        drop(first);
    }
}
