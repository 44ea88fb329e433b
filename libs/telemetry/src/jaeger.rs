//! Jaeger's propagation format, in one place.
#![expect(
    deprecated,
    reason = "deprecated in favour of W3C's format, which is written beside it; `uber-trace-id` is in the contract"
)]

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_jaeger_propagator::Propagator;

/// Reads and writes `uber-trace-id`.
pub(crate) fn propagator() -> impl TextMapPropagator + Send + Sync + 'static {
    Propagator::new()
}
