//! Reading the Cookie header, and setting cookies on an answer.

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use warp::{Reply, reply::Response};

/// Name and value of each cookie of a request; what is not `name=value` is left out.
pub(crate) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let pairs = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// The reply with one more cookie; those it has stay.
pub fn with_cookie(reply: impl Reply, cookie: HeaderValue) -> Response {
    let mut response = reply.into_response();
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_may_come_in_several_headers_among_garbage() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b; c=x=y"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"d=\xff").unwrap());
        headers.append(COOKIE, HeaderValue::from_static("e="));
        assert_eq!(all(&headers).collect::<Vec<_>>(), [("a", "1"), ("c", "x=y"), ("e", "")]);
    }
}
