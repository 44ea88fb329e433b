//! Events on the wire: CloudEvents 1.0 in the binary mode of its NATS binding.
//!
//! An event is any type that serialises as an adjacently tagged enum, `#[serde(tag = "type", content = "data")]`, whose
//! data is an object. On the wire the tag is the header `ce-type`, and the payload is the data itself, flat, with
//! the aggregate's `version` and the trace context `_trace` beside it: readable with any NATS tool as it stands.
//!
//! A tag may end in a schema version, `deposited/2`: that is `ce-type: deposited` with `ce-schemaversion: 2`. Without
//! one the schema version is 1. Upcasters are serde's: `#[serde(from = "…")]` over an enum with all versions.

use std::collections::HashMap;

use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use opentelemetry::{Context, global};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// The payload field that carries the trace context.
pub const TRACE_FIELD: &str = "_trace";

/// What can be written to a log and read from it. Implemented by every type that has what it takes.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Event for T {}

/// Why an event is appended. It decides the event's id, and how sure one must be that nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it now. The id is a new UUIDv7.
    Command,
    /// Another event did. The id is the UUIDv5 of that event's id and the new one's type: handled again, the
    /// same cause makes the same event.
    Event(Uuid),
}

impl Cause {
    fn event_id(self, event_type: &str) -> Uuid {
        match self {
            Cause::Command => Uuid::now_v7(),
            Cause::Event(cause) => Uuid::new_v5(&cause, event_type.as_bytes()),
        }
    }
}

/// An event as it stands in the log.
#[derive(Clone, Debug)]
pub struct Recorded<E> {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// The subject it was appended to.
    pub subject: String,
    /// Its id, unique.
    pub id: Uuid,
    /// Its type without schema version.
    pub event_type: String,
    /// When it was recorded, by the writer's clock.
    pub time: OffsetDateTime,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// Its place on its subject, from 0.
    pub version: u64,
    /// What happened.
    pub event: E,
    payload: Bytes,
}

impl<E> Recorded<E> {
    /// The trace that the event belongs to; an empty context when it carries none that can be read.
    pub fn trace_context(&self) -> Context {
        let Some(trace) = self.trace() else { return Context::new() };
        global::get_text_map_propagator(|propagator| propagator.extract(&trace))
    }

    /// That trace as text, for where it has to be kept: the value of the propagator's field, the first by name if it
    /// writes several. The same however often it is asked for.
    pub fn trace_text(&self) -> Option<String> {
        self.trace()?.into_iter().min().map(|(_, text)| text)
    }

    fn trace(&self) -> Option<HashMap<String, String>> {
        #[derive(Deserialize)]
        struct Traced {
            _trace: HashMap<String, String>,
        }
        serde_json::from_slice::<Traced>(&self.payload).ok().map(|traced| traced._trace)
    }

    /// The payload as the log holds it: the event's data with `version` and `_trace`, as JSON, `null` when that is no text.
    /// [`data`] takes it apart.
    pub fn payload(&self) -> &str {
        // JSON is text; but nobody looks whether what they skip is.
        std::str::from_utf8(&self.payload).unwrap_or("null")
    }
}

/// The event's data in a payload as the log holds it, without `version` and `_trace`.
///
/// # Errors
/// When it is no JSON.
pub fn data(payload: &str) -> Result<serde_json::Value, serde_json::Error> {
    let mut data: serde_json::Value = serde_json::from_str(payload)?;
    if let Some(object) = data.as_object_mut() {
        object.remove("version");
        object.remove(TRACE_FIELD);
    }
    Ok(data)
}

/// Why a message is no event of the expected stream.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A header that every event has is missing or malformed, or names another subject.
    #[error("header {0} is missing or wrong")]
    Header(&'static str),
    /// The payload is not this type's, or the type is unknown.
    #[error("{0}")]
    Payload(#[from] serde_json::Error),
}

/// Why an event cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It does not serialise.
    #[error("the event does not serialise: {0}")]
    Serialize(#[from] serde_json::Error),
    /// It serialises as something else than `{"type": …, "data": {…}}`.
    #[error("an event serialises as an adjacently tagged enum: {{\"type\": …, \"data\": {{…}}}}")]
    Shape,
}

/// An event ready to be sent, with the id by which it is recognised.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// An event taken apart: its tag, and its data.
pub(crate) struct Tagged {
    tag: String,
    data: serde_json::Map<String, serde_json::Value>,
}

impl Tagged {
    pub(crate) fn of<E: Serialize>(event: &E) -> Result<Self, EncodeError> {
        let serde_json::Value::Object(mut tagged) = serde_json::to_value(event)? else {
            return Err(EncodeError::Shape);
        };
        match (tagged.remove("type"), tagged.remove("data")) {
            (Some(serde_json::Value::String(tag)), Some(serde_json::Value::Object(data))) => {
                Ok(Self { tag, data })
            }
            _ => Err(EncodeError::Shape),
        }
    }

    /// Its type, without schema version.
    pub(crate) fn event_type(&self) -> &str {
        self.tag.rsplit_once('/').map_or(&self.tag, |(event_type, _)| event_type)
    }
}

/// Encodes an event. The trace context of the current span goes with it.
pub(crate) fn encode(
    source: &str,
    subject: &str,
    event: Tagged,
    version: u64,
    cause: Cause,
) -> Result<Encoded, EncodeError> {
    let Tagged { tag, mut data } = event;
    let (event_type, schema_version) = tag.rsplit_once('/').unwrap_or((&tag, "1"));

    let mut trace = HashMap::<String, String>::new();
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut trace));
    data.insert("version".into(), version.into());
    data.insert(TRACE_FIELD.into(), serde_json::to_value(trace)?);

    let id = cause.event_id(event_type);
    let mut headers = HeaderMap::new();
    headers.insert(async_nats::header::NATS_MESSAGE_ID, id.to_string());
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", id.to_string());
    headers.insert("ce-type", event_type);
    headers.insert("ce-source", source);
    headers.insert("ce-subject", subject);
    headers.insert("ce-time", OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default());
    headers.insert("ce-schemaversion", schema_version);
    headers.insert("content-type", "application/json");
    if let Cause::Event(cause) = cause {
        headers.insert("ce-causationid", cause.to_string());
    }
    Ok(Encoded { id, event_type: event_type.into(), headers, payload: serde_json::to_vec(&data)?.into() })
}

/// Reads an event from a stored message, as projections and reactors do.
///
/// # Errors
/// When it is none: a header is missing or wrong, or the payload is no `E` with a version.
pub fn decode<E: DeserializeOwned>(
    sequence: u64,
    message: &async_nats::Message,
) -> Result<Recorded<E>, DecodeError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let event_type = header(message, "ce-type").ok_or(DecodeError::Header("ce-type"))?;
    // A server lets whoever may ask it something have the answer written to any subject: copies of others' events, too.
    if header(message, "ce-subject") != Some(message.subject.as_str()) {
        return Err(DecodeError::Header("ce-subject"));
    }
    let id = self::id(message).ok_or(DecodeError::Header("ce-id"))?;
    let tag = match header(message, "ce-schemaversion") {
        None | Some("1") => serde_json::to_string(event_type)?,
        Some(version) => serde_json::to_string(&format!("{event_type}/{version}"))?,
    };
    let time = header(message, "ce-time").and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());

    // The enum's own form put together again, tag first, so that serde reads the data in one pass.
    let mut tagged = Vec::with_capacity(message.payload.len() + tag.len() + 20);
    for part in [b"{\"type\":", tag.as_bytes(), b",\"data\":", &message.payload, b"}"] {
        tagged.extend_from_slice(part);
    }
    let event = serde_json::from_slice(&tagged)?;
    let Versioned { version } = serde_json::from_slice(&message.payload)?;
    Ok(Recorded {
        sequence,
        subject: message.subject.to_string(),
        id,
        event_type: event_type.into(),
        time: time.ok_or(DecodeError::Header("ce-time"))?,
        causation_id: uuid_header(message, "ce-causationid"),
        version,
        event,
        payload: message.payload.clone(),
    })
}

/// The id of a stored message, by which an append recognises its own.
pub(crate) fn stored_id(message: &jetstream::message::StreamMessage) -> Option<Uuid> {
    Uuid::parse_str(message.headers.get("ce-id")?.as_str()).ok()
}

/// The id of a message, if it has one.
pub(crate) fn id(message: &async_nats::Message) -> Option<Uuid> {
    uuid_header(message, "ce-id")
}

fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

fn uuid_header(message: &async_nats::Message, name: &str) -> Option<Uuid> {
    Uuid::parse_str(header(message, name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode<E: Serialize>(
        source: &str,
        subject: &str,
        event: &E,
        version: u64,
        cause: Cause,
    ) -> Result<Encoded, EncodeError> {
        super::encode(source, subject, Tagged::of(event)?, version, cause)
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type", content = "data")]
    enum Account {
        #[serde(rename = "deposited")]
        Deposited { cents: u64 },
        #[serde(rename = "deposited/2")]
        DepositedIn { cents: u64, currency: String },
    }

    fn message(encoded: &Encoded) -> async_nats::Message {
        async_nats::Message {
            subject: "accounts.7".into(),
            reply: None,
            payload: encoded.payload.clone(),
            headers: Some(encoded.headers.clone()),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        for (event, schema) in [
            (Account::Deposited { cents: 5 }, "1"),
            (Account::DepositedIn { cents: 5, currency: "eur".into() }, "2"),
        ] {
            let encoded = encode("bank", "accounts.7", &event, 3, Cause::Command).unwrap();
            assert_eq!(encoded.headers.get("ce-type").unwrap().as_str(), "deposited");
            assert_eq!(encoded.headers.get("ce-schemaversion").unwrap().as_str(), schema);
            let recorded = decode::<Account>(9, &message(&encoded)).unwrap();
            assert_eq!((recorded.event, recorded.version, recorded.sequence), (event, 3, 9));
            assert_eq!(recorded.id, encoded.id);
        }
    }

    #[test]
    fn the_payload_is_flat() {
        let encoded =
            encode("bank", "accounts.7", &Account::Deposited { cents: 5 }, 0, Cause::Command).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&encoded.payload).unwrap();
        assert_eq!(payload, serde_json::json!({ "cents": 5, "version": 0, "_trace": {} }));
    }

    #[test]
    fn the_same_cause_makes_the_same_id() {
        let id = |cause| encode("bank", "a.7", &Account::Deposited { cents: 5 }, 0, cause).unwrap().id;
        let cause = Cause::Event(Uuid::now_v7());
        assert_eq!(id(cause), id(cause));
        assert_ne!(id(Cause::Command), id(Cause::Command));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let good = encode("bank", "accounts.7", &Account::Deposited { cents: 5 }, 0, Cause::Command).unwrap();
        let refused = |change: &dyn Fn(&mut async_nats::Message)| {
            let mut message = message(&good);
            change(&mut message);
            assert!(decode::<Account>(1, &message).is_err(), "{message:?}");
        };
        refused(&|message| message.headers = None);
        refused(&|message| message.payload = Bytes::new());
        refused(&|message| message.payload = Bytes::from_static(b"{\"cents\":5}"));
        refused(&|message| {
            message.payload = Bytes::from_static(b"{\"cents\":5,\"version\":0}, \"x\": {\"y\":1}")
        });
        refused(&|message| message.headers.as_mut().unwrap().insert("ce-type", "withdrawn"));
        refused(&|message| message.headers.as_mut().unwrap().insert("ce-schemaversion", "3"));
        refused(&|message| message.headers.as_mut().unwrap().insert("ce-id", "7"));
        refused(&|message| message.subject = "accounts.8".into());
    }
}
