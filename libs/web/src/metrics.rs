//! The Prometheus recorder of the process, and what is counted of each request.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use warp::{Reply, reply::Response};

/// Upper bounds of histograms of how many: those whose names end in `_events`.
const COUNT_BUCKETS: &[f64] = &[50.0, 100.0, 200.0, 500.0, 1000.0];
/// Upper bounds in seconds of every other histogram.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The recorder of this process, installed by the first call. What is counted before that call is lost:
/// [`serve`](crate::serve) makes it, a `main` may make it earlier.
pub fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets(BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_events".into()), COUNT_BUCKETS)
            })
            .expect("there are buckets");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed, ours stays empty");
        }
        metrics::describe_counter!("http_requests_total", "Requests answered");
        metrics::describe_histogram!(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's"
        );
        let upkeep = handle.clone();
        // Samples of histograms pile up until they are folded in, also when nobody reads /metrics. A thread, as
        // the recorder outlives any one runtime.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(5));
                upkeep.run_upkeep();
            }
        });
        handle
    })
}

/// `/metrics`.
pub(crate) fn exposition() -> Response {
    if let Some(bytes) = resident_memory() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    let mut response = handle().render().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

/// As Linux tells; nothing elsewhere.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

pub(crate) fn count(method: &Method, route: &'static str, status: StatusCode, started: Instant) {
    let method = label(method);
    metrics::counter!(
        "http_requests_total",
        "method" => method, "route" => route, "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => route)
        .record(started.elapsed());
}

/// A client may invent methods; each would be a series for ever.
pub(crate) fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
