//! Read your own writes: how far in each stream an answer reaches, and how far the next question must see.
//!
//! An answer to a write carries `x-position: ORDERS=12` and a short-lived cookie `position_ORDERS=12`; a request
//! brings either back, also to another replica.

use std::{collections::HashMap, convert::Infallible};

use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use warp::{Filter, Reply, reply::Response};

use crate::cookie;

const HEADER: HeaderName = HeaderName::from_static("x-position");
const COOKIE_PREFIX: &str = "position_";

/// How far the client has seen each stream.
#[derive(Clone, Debug, Default)]
pub struct Seen(HashMap<String, u64>);

impl Seen {
    /// The sequence in `stream` that an answer must reflect; `None` if any will do.
    pub fn at(&self, stream: &str) -> Option<u64> {
        self.0.get(stream).copied()
    }

    fn read(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        let values = headers.get_all(HEADER).into_iter().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.split(',')).filter_map(|item| item.trim().split_once('='));
        let kept =
            cookie::all(headers).filter_map(|(name, value)| Some((name.strip_prefix(COOKIE_PREFIX)?, value)));
        for (stream, sequence) in named.chain(kept) {
            // Garbage is ignored: at worst a read is as stale as it would be without.
            if let Ok(sequence) = sequence.parse::<u64>() {
                let latest = seen.0.entry(stream.to_owned()).or_default();
                *latest = sequence.max(*latest);
            }
        }
        seen
    }
}

/// Extracts how far the client has seen. Takes every request.
pub fn seen() -> impl Filter<Extract = (Seen,), Error = Infallible> + Copy + Send + Sync + 'static {
    warp::header::headers_cloned().map(|headers| Seen::read(&headers))
}

/// The reply to a write that was appended to `stream` at `sequence`. Can be applied once for each stream.
pub fn with_position(reply: impl Reply, stream: &str, sequence: u64) -> Response {
    let mut response = reply.into_response();
    let position = format!("{stream}={sequence}");
    // Ten seconds are far more than a projection is ever behind. For every path: a page is rendered elsewhere than the
    // routes are, and passes on what it is given.
    let cookie = format!("{COOKIE_PREFIX}{position}; Max-Age=10; Path=/; HttpOnly; SameSite=Lax");
    for (name, text) in [(HEADER, position), (SET_COOKIE, cookie)] {
        let value = HeaderValue::try_from(text).expect("a stream is named in letters and digits");
        response.headers_mut().append(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn read(headers: &[(HeaderName, &'static str)]) -> Seen {
        let pairs = headers.iter().cloned();
        Seen::read(&pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn an_answers_position_is_read_back() {
        let response = with_position(with_position("", "ORDERS", 12), "TICKETS", 3);
        let positions: Vec<_> = response.headers().get_all(HEADER).iter().collect();
        assert_eq!(positions, ["ORDERS=12", "TICKETS=3"]);
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
        assert_eq!(cookie, "position_ORDERS=12; Max-Age=10; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn the_furthest_of_header_and_cookie_counts() {
        let seen =
            read(&[(HEADER, "ORDERS=12, TICKETS=3"), (COOKIE, "position_ORDERS=9; position_TICKETS=30")]);
        assert_eq!((seen.at("ORDERS"), seen.at("TICKETS"), seen.at("USERS")), (Some(12), Some(30), None));
    }

    #[test]
    fn garbage_is_ignored() {
        let seen = read(&[
            (HEADER, "ORDERS=-1,,=,TICKETS=3=4"),
            (COOKIE, "position_ORDERS=x; position_=; position"),
        ]);
        assert_eq!((seen.at("ORDERS"), seen.at("TICKETS")), (None, None));
    }
}
