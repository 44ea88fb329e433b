//! Which route took a request: what its span, its log line and its metrics are called by. And by which methods it could
//! have been asked.

use std::{cell::RefCell, convert::Infallible};

use http::{HeaderValue, Method, StatusCode, header::ALLOW};
use warp::{Filter, Rejection, Reply, reply::Response};

use crate::ApiError;

tokio::task_local! {
    static ASKED: RefCell<Asked>;
}

/// What the filters of a request have found out so far.
#[derive(Default)]
struct Asked {
    route: Option<&'static str>,
    /// The methods of all routes whose path it is.
    allowed: Vec<Method>,
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
            let _ = ASKED.try_with(|asked| asked.borrow_mut().route = Some(pattern));
        })
        .untuple_one()
}

/// Takes GET. Comes after the path: where no route of a path takes a method, the answer names those that they take.
pub fn get() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    allows(Method::GET).and(warp::get())
}

/// Takes POST, as [`get`] takes GET.
pub fn post() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    allows(Method::POST).and(warp::post())
}

/// Takes PUT, as [`get`] takes GET.
pub fn put() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    allows(Method::PUT).and(warp::put())
}

/// Takes DELETE, as [`get`] takes GET.
pub fn delete() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    allows(Method::DELETE).and(warp::delete())
}

/// Takes whatever is left for a path and answers 405. Comes before a route whose path has a place for any word: that would
/// take the method for its own.
pub fn nothing_else() -> impl Filter<Extract = (Response,), Error = Infallible> + Copy + Send + Sync + 'static
{
    warp::any().map(|| ApiError::method_not_allowed().into_response())
}

fn allows(method: Method) -> impl Filter<Extract = (), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::any()
        .map(move || {
            let _ = ASKED.try_with(|asked| asked.borrow_mut().allowed.push(method.clone()));
        })
        .untuple_one()
}

/// Awaits an answer, and tells which route gave it. One that says that the method is wrong says which are right
/// (RFC 9110, section 15.5.6).
pub(crate) async fn observed(answer: impl Future<Output = Response>) -> (Response, Option<&'static str>) {
    ASKED
        .scope(RefCell::default(), async {
            let mut answer = answer.await;
            let Asked { route, allowed } = ASKED.with(RefCell::take);
            if answer.status() == StatusCode::METHOD_NOT_ALLOWED
                && let Some(methods) = listed(&allowed)
            {
                answer.headers_mut().entry(ALLOW).or_insert(methods);
            }
            (answer, route)
        })
        .await
}

/// HEAD is GET to every route.
fn listed(allowed: &[Method]) -> Option<HeaderValue> {
    let mut names: Vec<_> = allowed.iter().map(Method::as_str).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    HeaderValue::try_from(names.join(", ")).ok().filter(|_| !names.is_empty())
}
