//! Which route took a request: what its span, its log line and its metrics are called by.

use std::{cell::Cell, convert::Infallible};

use warp::Filter;

tokio::task_local! {
    static ROUTE: Cell<Option<&'static str>>;
}

/// Names a route by its pattern, `/api/orders/:id`. Comes after its path, extracts nothing and takes every request.
///
/// What no named route took is counted as `unmatched`: paths that clients invent must not become series of their own.
pub fn route(
    pattern: &'static str,
) -> impl Filter<Extract = (), Error = Infallible> + Copy + Send + Sync + 'static {
    warp::any()
        .map(move || {
            // The last one that is asked before an answer is the one that gives it.
            let _ = ROUTE.try_with(|route| route.set(Some(pattern)));
        })
        .untuple_one()
}

/// Awaits an answer, and tells which route gave it.
pub(crate) async fn observed<T>(answer: impl Future<Output = T>) -> (T, Option<&'static str>) {
    ROUTE
        .scope(Cell::new(None), async {
            let answer = answer.await;
            (answer, ROUTE.with(Cell::get))
        })
        .await
}
