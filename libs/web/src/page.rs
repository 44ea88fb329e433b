//! Query parameters, and lists in pages: `?limit=` and an opaque `?cursor=`, the next page in a `Link` header.

use std::convert::Infallible;

use http::{HeaderValue, header::LINK};
use warp::{Filter, Reply, reply::Response};

use crate::ApiError;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// A request's path and query parameters.
#[derive(Clone, Debug, Default)]
pub struct Query {
    path: String,
    raw: String,
    pairs: Vec<(String, String)>,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many rows: 1 to 1000.
    pub limit: usize,
    /// Where the page before ended, as given to [`Query::with_next`]; `None` at the start. It comes from the
    /// client: any bytes are possible. Use [`invalid_cursor`] when they are not one's own.
    pub cursor: Option<Vec<u8>>,
}

/// Extracts the query. Takes every request.
pub fn query() -> impl Filter<Extract = (Query,), Error = Infallible> + Clone + Send + Sync + 'static {
    let raw = warp::query::raw().or(warp::any().map(String::new)).unify();
    // An undecodable query is one without parameters.
    let pairs = warp::query::<Vec<(String, String)>>().or(warp::any().map(Vec::new)).unify();
    warp::path::full().and(raw).and(pairs).map(|path: warp::path::FullPath, raw, pairs| Query {
        path: path.as_str().to_owned(),
        raw,
        pairs,
    })
}

impl Query {
    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `limit` (default 100, at most 1000) and `cursor`, or a 400 with an entry for each that is wrong.
    pub fn page(&self) -> Result<Page, ApiError> {
        let limit = match self.get("limit") {
            None => Some(DEFAULT_LIMIT),
            Some(text) => text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)),
        };
        let cursor = match self.get("cursor") {
            None => Some(None),
            Some(text) => from_hex(text).map(Some),
        };
        match (limit, cursor) {
            (Some(limit), Some(cursor)) => Ok(Page { limit, cursor }),
            (None, Some(_)) => Err(invalid_limit()),
            (Some(_), None) => Err(invalid_cursor()),
            (None, None) => {
                let both = [invalid_limit(), invalid_cursor()];
                Err(ApiError::validation(both.iter().flat_map(ApiError::entries).cloned().collect()))
            }
        }
    }

    /// The reply with a `Link` to the page that starts after `cursor`. The other parameters are kept.
    pub fn with_next(&self, reply: impl Reply, cursor: &[u8]) -> Response {
        let mut response = reply.into_response();
        response.headers_mut().insert(LINK, self.next_link(cursor));
        response
    }

    fn next_link(&self, cursor: &[u8]) -> HeaderValue {
        // However its name is spelled: `%63ursor` is one, and would be read before the new one.
        let is_cursor =
            |pair: &str| form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name == "cursor");
        let others = self.raw.split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair));
        let cursor = format!("cursor={}", to_hex(cursor));
        let pairs: Vec<_> = others.map(ascii).chain([cursor]).collect();
        let link = format!("<{}?{}>; rel=\"next\"", ascii(&self.path), pairs.join("&"));
        HeaderValue::try_from(link).expect("a URI holds no control character, and the rest is ASCII by now")
    }
}

/// 400 for a `cursor` that is not one of ours.
pub fn invalid_cursor() -> ApiError {
    ApiError::invalid("cursor", "Cursor must be one from a Link header")
}

fn invalid_limit() -> ApiError {
    ApiError::invalid("limit", format!("Limit must be a number from 1 to {MAX_LIMIT}"))
}

/// A URI may hold raw bytes beyond ASCII where a header may not.
fn ascii(part: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    part.bytes().map(encode).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &str) -> Query {
        let pairs = raw.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Query { path: "/api/things".into(), raw: raw.into(), pairs }
    }

    fn wrong(raw: &str) -> Vec<Option<String>> {
        let error = query(raw).page().unwrap_err();
        error.entries().iter().map(|entry| entry.field.clone()).collect()
    }

    #[test]
    fn a_page_has_a_default_size_and_a_largest() {
        assert_eq!(query("").page().unwrap(), Page { limit: 100, cursor: None });
        assert_eq!(query("limit=1000").page().unwrap().limit, 1000);
        for raw in ["limit=1001", "limit=0", "limit=-1", "limit=", "limit=ten"] {
            assert_eq!(wrong(raw), [Some("limit".to_owned())], "{raw}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        let bytes: Vec<u8> = (0..=255).collect();
        let page = query(&format!("cursor={}", to_hex(&bytes))).page().unwrap();
        assert_eq!(page.cursor, Some(bytes));
        for raw in ["cursor=0", "cursor=+1", "cursor=zz", "cursor=é"] {
            assert_eq!(wrong(raw), [Some("cursor".to_owned())], "{raw}");
        }
        assert_eq!(wrong("limit=x&cursor=y").len(), 2);
    }

    #[test]
    fn the_next_page_keeps_the_other_parameters() {
        let link = query("status=all&cursor=00&limit=2").next_link(b"\x01\xff");
        assert_eq!(link, r#"</api/things?status=all&limit=2&cursor=01ff>; rel="next""#);
        assert_eq!(query("").next_link(b"a"), r#"</api/things?cursor=61>; rel="next""#);
        assert_eq!(query("q=é").next_link(b"a"), r#"</api/things?q=%C3%A9&cursor=61>; rel="next""#);
    }
}
