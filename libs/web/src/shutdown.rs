//! The signal to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM or SIGINT (Ctrl-C). Called once, within a runtime.
///
/// # Panics
/// Outside a runtime.
pub fn shutdown_signal() -> CancellationToken {
    let handle =
        |kind| signal(kind).expect("SIGTERM and SIGINT are not among the signals that cannot be handled");
    let (mut terminate, mut interrupt) = (handle(SignalKind::terminate()), handle(SignalKind::interrupt()));
    let token = CancellationToken::new();
    let cancel = token.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "shutting down"),
            _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "shutting down"),
        }
        drop(cancel);
    });
    token
}
