//! What happens around every request: trace, log line, metrics, panics, headers, gate.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        X_FRAME_OPTIONS,
    },
};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::Service,
};
use hyper_util::service::TowerToHyperService;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::{Instrument, field};
use warp::{Filter, Rejection, Reply, reply::Response};

use crate::{ApiError, Health, error::recover, health::liveness, metrics, origin, route, sse::Endless};

const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// How long a request's address may be, in bytes.
const MAX_URI: usize = 8 * 1024;

/// How long an answer may take to begin. What handlers wait for has limits of its own, so this is for what went wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) type Request = http::Request<Incoming>;

/// An answer with the life of its service in it: endless ones end at shutdown, others delay it.
pub(crate) type Answer = http::Response<UnsyncBoxBody<Bytes, warp::Error>>;

/// A service behind one pointer, wherever it is mounted.
pub(crate) type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The life of a service: when it shall end, and what still runs.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: TaskTracker,
    /// Which of the services of this process it is, where there are several.
    pub(crate) service: Option<Arc<str>>,
}

impl Life {
    /// The life of a service with a socket of its own.
    pub(crate) fn until(shutdown: CancellationToken) -> Self {
        Self { shutdown, running: TaskTracker::new(), service: None }
    }
}

/// A service of routes.
pub(crate) fn handler<F>(routes: F, health: Health, life: Life) -> Handler
where
    F: Filter<Extract: Reply + Send, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    let routes = TowerToHyperService::new(warp::service(routes.recover(recover)));
    Arc::new(move |request| {
        let (routes, health) = (routes.clone(), health.clone());
        let answer = move |request: Request| async move {
            if let Some(response) = system(&request, &health) {
                return response;
            }
            let refusal = health
                .gate()
                .and_then(|()| check_length(&request))
                .and_then(|()| origin::check(request.method(), request.headers()));
            if let Err(error) = refusal {
                return error.into_response();
            }
            match tokio::time::timeout(ANSWER_TIMEOUT, routes.call(get_for_head(request))).await {
                Ok(answer) => answer.unwrap_or_else(|never| match never {}),
                Err(_) => {
                    tracing::error!("an answer took too long");
                    ApiError::unavailable(1).into_response()
                }
            }
        };
        observe(request, &life, answer).boxed()
    })
}

fn check_length(request: &Request) -> Result<(), ApiError> {
    let length = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URI { Err(ApiError::uri_too_long()) } else { Ok(()) }
}

/// The routes every service has.
pub(crate) fn system(request: &Request, health: &Health) -> Option<Response> {
    let answer: &dyn Fn() -> Response = match request.uri().path() {
        "/healthz" => &liveness,
        "/readyz" => &|| health.readiness(),
        "/metrics" => &metrics::exposition,
        _ => return None,
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(answer());
    }
    let mut refusal = ApiError::method_not_allowed().into_response();
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(refusal)
}

/// HEAD is GET to a route; the connection leaves the body out.
fn get_for_head(mut request: Request) -> Request {
    if request.method() == Method::HEAD {
        *request.method_mut() = Method::GET;
    }
    request
}

/// Answers a request within its span, whatever happens inside.
pub(crate) fn observe<F>(
    request: Request,
    life: &Life,
    answer: impl FnOnce(Request) -> F + Send + 'static,
) -> impl Future<Output = Answer> + Send + 'static
where
    F: Future<Output = Response> + Send,
{
    let started = Instant::now();
    // Taken before anything runs: a shutdown waits for this request from here on.
    let (running, shutdown) = (life.running.token(), life.shutdown.clone());
    // Probes come all the time, and tell nothing: they would be most of what there is to see.
    let probe = probe(request.uri().path());
    let span = if probe.is_some() { tracing::Span::none() } else { span(&request) };
    let service = life.service.clone();
    telemetry::http::continue_trace(&span, request.headers());
    async move {
        let method = request.method().clone();
        let trace_id = telemetry::http::trace_id();
        tracing::Span::current().record("trace.id", trace_id.as_deref());
        let answering = AssertUnwindSafe(async move { answer(request).await }).catch_unwind();
        let answering =
            answering.map(|answer| answer.unwrap_or_else(|panic| crashed(&*panic).into_response()));
        let (mut response, route) = route::observed(answering).await;
        complete(&mut response, trace_id);
        let route = route.or(probe);
        metrics::count(&method, route.unwrap_or("unmatched"), response.status(), started);
        tell(&method, route, response.status(), service.as_deref());
        log(&method, route, response.status(), started, service.as_deref(), probe.is_some());
        bind(response, running, shutdown)
    }
    .instrument(span)
}

/// By OpenTelemetry's conventions
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server>). Its name follows with the route.
fn span(request: &Request) -> tracing::Span {
    let (method, path) = (request.method(), request.uri().path());
    tracing::info_span!(
        "request",
        otel.name = metrics::label(method),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = metrics::label(method),
        url.path = path,
        trace.id = field::Empty,
    )
}

/// What is known of the request when it is answered, for its span.
fn tell(method: &Method, route: Option<&'static str>, status: StatusCode, service: Option<&str>) {
    if let Some(route) = route {
        telemetry::name_span(format!("{} {route}", metrics::label(method)));
        telemetry::attribute("http.route", route);
    }
    telemetry::attribute("http.response.status_code", i64::from(status.as_u16()));
    if let Some(service) = service {
        telemetry::attribute("service", service.to_owned());
    }
    if status.is_server_error() {
        tracing::Span::current().record("otel.status_code", "ERROR");
        telemetry::attribute("error.type", status.as_str().to_owned());
    }
}

/// The routes that are asked all the time.
fn probe(path: &str) -> Option<&'static str> {
    ["/healthz", "/readyz", "/metrics"].into_iter().find(|probe| *probe == path)
}

fn crashed(panic: &(dyn Any + Send)) -> ApiError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    ApiError::internal(format_args!("panic: {}", text.unwrap_or("of an unknown kind")))
}

fn complete(response: &mut Response, trace_id: Option<String>) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    // For answers that are no pages, should a browser show one as if it were.
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    if let Some(id) = trace_id.and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(TRACE_ID, id);
    }
}

fn log(
    method: &Method,
    route: Option<&'static str>,
    status: StatusCode,
    started: Instant,
    service: Option<&str>,
    quiet: bool,
) {
    let milliseconds = started.elapsed().as_micros() as f64 / 1000.0;
    let (method, route, status) = (metrics::label(method), route.unwrap_or("unmatched"), status.as_u16());
    if quiet {
        return tracing::debug!(http.route = route, http.response.status_code = status, "answered");
    }
    tracing::info!(
        service,
        http.request.method = method,
        http.route = route,
        http.response.status_code = status,
        duration.ms = milliseconds,
        "answered"
    );
}

fn bind(response: Response, running: TaskTrackerToken, shutdown: CancellationToken) -> Answer {
    let (parts, body) = response.into_parts();
    let endless = parts.extensions.get::<Endless>().is_some();
    let end = endless.then(|| Box::pin(shutdown.cancelled_owned()));
    http::Response::from_parts(parts, Bound { body, end, _running: running }.boxed_unsync())
}

struct Bound<B> {
    body: B,
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    // Given back when the last byte is out, or the client is gone.
    _running: TaskTrackerToken,
}

impl<B: hyper::body::Body + Unpin> hyper::body::Body for Bound<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        Poll::Ready(ready!(Pin::new(&mut self.body).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
