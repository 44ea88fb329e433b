//! An exporter that tells once when spans stop to arrive, and once when they do again.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// Wraps an exporter whose every failure would be a line of the log otherwise, each second.
#[derive(Debug)]
pub(crate) struct Telling<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E> Telling<E> {
    pub(crate) fn of(exporter: E) -> Self {
        Self { exporter, is_failing: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(result.is_err(), Relaxed);
        match result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "spans are lost: the collector does not take them")
            }
            Ok(()) if was_failing => tracing::info!("spans are exported again"),
            _ => {}
        }
        // It is told.
        Ok(())
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
