//! The one shape of an error answer, and where warp's own rejections become it.

use std::{convert::Infallible, fmt};

use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use warp::{
    Rejection, Reply,
    reject::{
        InvalidHeader, InvalidQuery, LengthRequired, MethodNotAllowed, MissingCookie, MissingHeader,
        PayloadTooLarge, UnsupportedMediaType,
    },
    reply::Response,
};

/// An answer that is not a success: `{"errors":[{"message": …, "field"?: …}]}`.
///
/// A service maps its own error to this in one place; [`reply`] makes it the answer.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    errors: Vec<Entry>,
    retry_after: Option<u64>,
    cause: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What is wrong, for people.
    pub message: String,
    /// The field of the request that is wrong; for validation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ApiError {
    /// Any other status, with one message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let entry = Entry { message: message.into(), field: None };
        Self { status, errors: vec![entry], retry_after: None, cause: None }
    }

    /// 400: what was asked for cannot be done as things stand.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: one field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::validation(vec![Entry { message: message.into(), field: Some(field.into()) }])
    }

    /// 400 with one entry for each thing wrong.
    pub fn validation(errors: Vec<Entry>) -> Self {
        Self { errors, ..Self::bad_request("") }
    }

    /// 401: signed out, or not the owner.
    pub fn not_authorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Not authorized")
    }

    /// 402: the card was declined.
    pub fn payment_required(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, message)
    }

    /// 404: unknown id, malformed id in a path, unknown route.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// 405: the path exists, for another method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }

    /// 408: the body did not arrive in time.
    pub fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "Request Timeout")
    }

    /// 409: others changed the same thing again and again.
    pub fn conflict() -> Self {
        Self::new(StatusCode::CONFLICT, "Too many conflicts, try again")
    }

    /// 413: the body is over its limit.
    pub fn payload_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large")
    }

    /// 414: the address is over its limit.
    pub fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "URI Too Long")
    }

    /// 415: the body is not what the route reads.
    pub fn unsupported_media_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type")
    }

    /// 429, to be tried again after that many seconds.
    pub fn too_many_requests(retry_after: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests, try again later");
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 503, to be tried again after that many seconds.
    pub fn unavailable(retry_after: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable, try again later");
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 503 until the first catch-up is done.
    pub(crate) fn starting() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Starting");
        Self { retry_after: Some(1), ..error }
    }

    /// 500: our fault. The cause is logged with the answer and never part of it.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong");
        Self { cause: Some(cause.to_string()), ..error }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in the order it was found.
    pub fn entries(&self) -> &[Entry] {
        &self.errors
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(error = %cause, "request failed");
        }
        #[derive(Serialize)]
        struct Body {
            errors: Vec<Entry>,
        }
        let mut response = warp::reply::json(&Body { errors: self.errors }).into_response();
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            // What a program may come back with (RFC 9110, section 15.5.2). No browser asks its user for anything.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The adapter between handlers and warp: `.then(handler).map(web::reply)`.
///
/// A handler's error becomes the answer here, never a warp rejection: to warp a rejection means "try another
/// route", and a route tried later would answer 404 in place of a 409.
pub fn reply<R, E>(result: Result<R, E>) -> Response
where
    R: Reply,
    E: Into<ApiError>,
{
    match result {
        Ok(reply) => reply.into_response(),
        Err(error) => error.into().into_response(),
    }
}

/// What no route took, as the contract's error. [`serve`](crate::serve) applies it.
pub(crate) async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    Ok(from_rejection(&rejection).into_response())
}

fn from_rejection(rejection: &Rejection) -> ApiError {
    // One route's fault is listed together with "not mine" of all others, so the order matters: what was found
    // furthest along a route first, a wrong method last.
    if rejection.is_not_found() {
        ApiError::not_found()
    } else if rejection.find::<PayloadTooLarge>().is_some() || rejection.find::<LengthRequired>().is_some() {
        ApiError::payload_too_large()
    } else if rejection.find::<UnsupportedMediaType>().is_some() {
        ApiError::unsupported_media_type()
    } else if rejection.find::<InvalidQuery>().is_some() {
        ApiError::bad_request("Invalid query")
    } else if rejection.find::<MissingHeader>().is_some() || rejection.find::<InvalidHeader>().is_some() {
        ApiError::bad_request("Invalid header")
    } else if rejection.find::<MissingCookie>().is_some() {
        ApiError::bad_request("Invalid cookie")
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        ApiError::method_not_allowed()
    } else {
        ApiError::internal(format_args!("{rejection:?}"))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use warp::Filter;

    use super::*;

    async fn text(reply: impl Reply) -> String {
        let body = reply.into_response().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_error_names_its_field_only_when_it_has_one() {
        assert_eq!(text(ApiError::not_found()).await, r#"{"errors":[{"message":"Not Found"}]}"#);
        assert_eq!(
            text(ApiError::invalid("title", "Title is required")).await,
            r#"{"errors":[{"message":"Title is required","field":"title"}]}"#
        );
    }

    #[tokio::test]
    async fn an_internal_error_keeps_its_cause_to_itself() {
        let error = ApiError::internal("disk on fire");
        assert_eq!(text(error).await, r#"{"errors":[{"message":"Something went wrong"}]}"#);
    }

    #[test]
    fn an_answer_to_try_again_says_when() {
        let response = ApiError::unavailable(3).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
    }

    #[tokio::test]
    async fn a_handlers_error_is_an_answer_and_not_a_rejection() {
        let conflict = warp::path!("x").then(|| async { Err::<Response, _>(ApiError::conflict()) });
        let routes = conflict.map(reply).or(warp::path!("x").map(|| "another route")).recover(recover);
        assert_eq!(answer(routes, "/x").await, StatusCode::CONFLICT);
    }

    #[tokio::test]
    async fn a_wrong_method_is_not_an_unknown_path() {
        let read = warp::path!("things" / u32).and(warp::get()).map(|_| "a thing");
        let add = warp::path!("things").and(warp::post()).map(|| "added");
        let routes = read.or(add).recover(recover);
        assert_eq!(answer(routes, "/things").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer(routes, "/things/x").await, StatusCode::NOT_FOUND);
        assert_eq!(answer(routes, "/things/7").await, StatusCode::OK);
    }

    #[tokio::test]
    async fn an_invalid_query_is_a_bad_request_though_another_method_exists() {
        let find =
            warp::path!("things").and(warp::get()).and(warp::query::<Vec<(String, u32)>>()).map(|_| "found");
        let add = warp::path!("things").and(warp::post()).map(|| "added");
        assert_eq!(answer(find.or(add).recover(recover), "/things?limit=x").await, StatusCode::BAD_REQUEST);
    }

    async fn answer<F>(routes: F, path: &str) -> StatusCode
    where
        F: Filter<Error: Into<Rejection> + std::fmt::Debug, Extract: Reply + Send, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        use hyper::service::Service;
        let request = http::Request::get(path).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let service = hyper_util::service::TowerToHyperService::new(warp::service(routes));
        service.call(request).await.unwrap().status()
    }
}
