//! Server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderName, HeaderValue};
use warp::{Reply, reply::Response, sse::Event};

/// Proxies drop a connection that is silent for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Marks an answer that has no end of its own: it is ended when the service shuts down.
#[derive(Clone, Copy)]
pub(crate) struct Endless;

/// An answer of events as they happen, until the stream ends, the client leaves or the service shuts down. Until then it
/// holds `turn`, such as one of those that the client may have at once.
pub fn sse(turn: impl Send + 'static, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(move |event| {
        let _turn = &turn;
        Ok::<_, Infallible>(event)
    });
    let events = Shared(Mutex::new(events.boxed()));
    let events = warp::sse::keep_alive().interval(KEEP_ALIVE).stream(events);
    let mut response = warp::sse::reply(events).into_response();
    response.extensions_mut().insert(Endless);
    // nginx would hold events back to fill its buffer.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// warp wants a body to be `Sync`, which few streams are. The lock is never taken: polling has `&mut`.
struct Shared(Mutex<BoxStream<'static, Result<Event, Infallible>>>);

impl Stream for Shared {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}
