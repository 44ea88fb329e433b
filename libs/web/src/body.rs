//! Request bodies: read within a size and a time, then judged by the handler.

use std::{pin::pin, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use warp::{Filter, Rejection};

use crate::{ApiError, Entry};

const LIMIT: usize = 16 * 1024;
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read and dropped. A client that is still sending when the connection
/// closes sees a reset, and not the 413.
const DRAIN: usize = 1024 * 1024;

/// A request's body as it came, or why it could not be read. The handler decides when that matters: signed out
/// comes before malformed.
#[derive(Clone, Debug)]
pub struct Body {
    content_type: Option<String>,
    bytes: Result<Bytes, Unread>,
}

#[derive(Clone, Copy, Debug)]
enum Unread {
    TooLarge,
    TooSlow,
    Interrupted,
}

/// Extracts a body of up to 16 KiB. Rejects nothing; comes after path and method.
pub fn body() -> impl Filter<Extract = (Body,), Error = Rejection> + Clone + Send + Sync + 'static {
    body_up_to(LIMIT)
}

/// Extracts a body of up to `limit` bytes.
pub fn body_up_to(
    limit: usize,
) -> impl Filter<Extract = (Body,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::header::headers_cloned().and(warp::body::stream()).then(
        move |headers: HeaderMap, stream| async move {
            let content_type =
                headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let bytes = if hopeless(&headers, limit) {
                Err(Unread::TooLarge)
            } else {
                tokio::time::timeout(READ_TIMEOUT, read(stream, limit)).await.unwrap_or(Err(Unread::TooSlow))
            };
            Body { content_type, bytes }
        },
    )
}

/// Whether not even the first byte is worth reading: announced as far too large, or too large and the client
/// waits to be asked for it.
fn hopeless(headers: &HeaderMap, limit: usize) -> bool {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    announced.is_some_and(|length| length > limit + DRAIN || (length > limit && headers.contains_key(EXPECT)))
}

async fn read<B: Buf, E>(stream: impl Stream<Item = Result<B, E>>, limit: usize) -> Result<Bytes, Unread> {
    let mut stream = pin!(stream);
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Unread::Interrupted)?;
        length += chunk.remaining();
        if length <= limit {
            bytes.put(chunk);
        } else if length > limit + DRAIN {
            break;
        }
    }
    if length > limit { Err(Unread::TooLarge) } else { Ok(bytes.freeze()) }
}

impl Body {
    /// The bytes as they came, of any content type, or 413, 408.
    pub fn bytes(&self) -> Result<&Bytes, ApiError> {
        self.bytes.as_ref().map_err(|unread| match unread {
            Unread::TooLarge => ApiError::payload_too_large(),
            Unread::TooSlow => ApiError::request_timeout(),
            Unread::Interrupted => ApiError::bad_request("Body could not be read"),
        })
    }

    /// The fields of a JSON object, or 415, 413, 400.
    pub fn fields(&self) -> Result<Fields, ApiError> {
        match self.json_value()? {
            Value::Object(values) => Ok(Fields { values, wrong: Vec::new() }),
            _ => Err(ApiError::bad_request("Body must be a JSON object")),
        }
    }

    /// The body as a `T`, or 415, 413, 400. The 400 does not say which field is wrong: see [`fields`](Self::fields).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        // serde's own words name Rust types.
        serde_json::from_value(self.json_value()?)
            .map_err(|_| ApiError::bad_request("A field of the body is missing or of a wrong type"))
    }

    fn json_value(&self) -> Result<Value, ApiError> {
        let media_type = self.content_type.as_deref().and_then(|value| value.split(';').next());
        if !media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json")) {
            return Err(ApiError::unsupported_media_type());
        }
        serde_json::from_slice(self.bytes()?).map_err(|_| ApiError::bad_request("Body must be valid JSON"))
    }
}

/// The fields of a JSON object, taken one by one; what is wrong is collected, with the contract's message for
/// each field, and told at once.
///
/// ```
/// # fn handler(body: web::Body) -> Result<(), web::ApiError> {
/// let mut fields = body.fields()?;
/// let title = fields.text("title", "Title is required", |text| (!text.is_empty()).then(|| text.to_owned()));
/// let count = fields.get("count", "Count must be a number", |value| value.as_u64());
/// let (title, count) = fields.finish(title.zip(count))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    wrong: Vec<Entry>,
}

impl Fields {
    /// A field of any type, `null` if it is missing. Where `parse` yields nothing, `message` is noted.
    pub fn get<T>(
        &mut self,
        name: &str,
        message: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.values.get(name).unwrap_or(&Value::Null));
        if parsed.is_none() {
            self.wrong.push(Entry { message: message.to_owned(), field: Some(name.to_owned()) });
        }
        parsed
    }

    /// A field that is a string. Where it is none, or `parse` yields nothing, `message` is noted.
    pub fn text<T>(&mut self, name: &str, message: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.get(name, message, |value| value.as_str().and_then(parse))
    }

    /// A field of any type, `null` if it is missing, that can be wrong in several ways: `parse` says in which.
    pub fn judge<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, &'static str>,
    ) -> Option<T> {
        let parsed = parse(self.values.get(name).unwrap_or(&Value::Null));
        parsed
            .map_err(|message| self.wrong.push(Entry { message: message.into(), field: Some(name.into()) }))
            .ok()
    }

    /// What was made of the fields, or 400 with an entry for each that is wrong, in the order they were taken.
    pub fn finish<T>(self, made: Option<T>) -> Result<T, ApiError> {
        match made {
            Some(made) if self.wrong.is_empty() => Ok(made),
            None if self.wrong.is_empty() => {
                Err(ApiError::internal("fields: nothing made, and nothing wrong"))
            }
            _ => Err(ApiError::validation(self.wrong)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http::StatusCode;

    use super::*;

    fn body(content_type: Option<&str>, text: &'static str) -> Body {
        Body { content_type: content_type.map(str::to_owned), bytes: Ok(Bytes::from(text)) }
    }

    fn json(text: &'static str) -> Body {
        body(Some("application/json"), text)
    }

    fn status<T: std::fmt::Debug>(result: Result<T, ApiError>) -> StatusCode {
        result.unwrap_err().status()
    }

    #[test]
    fn only_json_is_read_as_json() {
        assert!(json("{}").fields().is_ok());
        assert!(body(Some("Application/JSON; charset=utf-8"), "{}").fields().is_ok());
        assert_eq!(status(body(None, "{}").fields()), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(status(body(Some("text/plain"), "{}").fields()), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(
            status(body(Some("application/jsonx"), "{}").fields()),
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
    }

    #[test]
    fn what_is_not_a_json_object_is_a_bad_request() {
        for text in ["", "{", "{}x", "\u{0}", "[]", "null", "\"\"", "{\"a\":1e999}"] {
            assert_eq!(status(json(text).fields()), StatusCode::BAD_REQUEST, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_is_told_without_rust_types() {
        let error = json("[1]").json::<Vec<String>>().unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(!error.entries()[0].message.contains("expected"));
        assert_eq!(json("[1]").json::<Vec<u8>>().unwrap(), [1]);
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let mut fields = json(r#"{"title":7,"count":-1,"note":"n"}"#).fields().unwrap();
        let title = fields.text("title", "Title is required", |text| Some(text.to_owned()));
        let count = fields.get("count", "Count must be a number", Value::as_u64);
        let missing = fields.text("missing", "Missing is required", |text| Some(text.to_owned()));
        let note = fields.text("note", "Note is required", |text| Some(text.to_owned()));
        assert_eq!(note.as_deref(), Some("n"));
        let error = fields.finish(title.zip(count).zip(missing)).unwrap_err();
        let wrong: Vec<_> = error.entries().iter().filter_map(|entry| entry.field.as_deref()).collect();
        assert_eq!(wrong, ["title", "count", "missing"]);
        assert_eq!(error.entries()[0].message, "Title is required");
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let chunks = |count: usize| stream::iter(vec![Ok::<_, ()>(Bytes::from_static(&[0; 8])); count]);
        assert_eq!(read(chunks(2), 16).await.unwrap().len(), 16);
        assert!(matches!(read(chunks(3), 16).await, Err(Unread::TooLarge)));
        let broken = stream::iter([Ok(Bytes::new()), Err(())]);
        assert!(matches!(read(broken, 16).await, Err(Unread::Interrupted)));
    }

    #[tokio::test]
    async fn an_endless_body_is_not_read_to_its_end() {
        let endless = stream::repeat_with(|| Ok::<_, ()>(Bytes::from_static(&[0; 4096])));
        assert!(matches!(read(endless, 16).await, Err(Unread::TooLarge)));
    }

    #[test]
    fn too_large_and_waiting_to_be_asked_is_not_asked() {
        let headers = |length: usize, expect: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_LENGTH, length.into());
            if expect {
                headers.insert(EXPECT, "100-continue".parse().unwrap());
            }
            headers
        };
        assert!(!hopeless(&headers(16, true), 16));
        assert!(hopeless(&headers(17, true), 16));
        assert!(!hopeless(&headers(17, false), 16));
        assert!(hopeless(&headers(17 + DRAIN, false), 16));
    }
}
