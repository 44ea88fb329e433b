//! All events, as AsyncAPI 3.0 (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>), and each by itself
//! as JSON Schema 2020-12.
//!
//! Made of the events' own types: their names, their data and what is said of them. Here stands only what types cannot
//! say: where an event goes, what is around its data, and who listens.

use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    ExpirationEvent, OrderEvent, PaymentEvent, TicketEvent, UserEvent,
    schema::{self, Schemas},
    stream::{
        DEAD_LETTERS, DEAD_LETTERS_PREFIX, EXPIRATIONS, LISTENERS, ORDERS, PAYMENTS, Stream, TICKETS, USERS,
    },
};

const JSON: &str = "application/json";
/// Where a document has its schemas, and where a schema by itself has them.
const COMPONENTS: &str = "#/components/schemas/";
const DEFS: &str = "#/$defs/";
/// What is around the data of every event.
const ENVELOPE: &str = "Envelope";
const HEADERS: &str = "EventHeaders";

const ABOUT: &str = "\
What the services of the marketplace tell each other: JetStream streams at NATS, one for each service, \
each written by that service alone. An event is for ever: fields are added, never renamed, removed or \
given another meaning.

A message is a CloudEvent 1.0 in binary mode: what it is stands in its headers, and its payload is the \
event's data, flat, with `version` and `_trace` beside it. Listeners meet an event at least once, those \
of one subject in order.";

/// The document.
pub fn asyncapi() -> Value {
    let (events, schemas) = events();
    let mut components = json_of(&schemas);
    components.insert(ENVELOPE.into(), envelope());
    components.insert(HEADERS.into(), headers());
    let mut messages: Map<String, Value> =
        events.iter().map(|event| (event.name(), event.message())).collect();
    messages.insert("dead-letter".into(), dead_letter());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ticketing",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT or Apache-2.0" },
        },
        "defaultContentType": JSON,
        "servers": { "nats": {
            "host": "localhost:4222",
            "protocol": "nats",
            "description": "JetStream. Each service is a user of its own, who may append to its own stream alone",
        } },
        "channels": channels(&events),
        "operations": operations(),
        "components": { "messages": messages, "schemas": components },
    })
}

/// The types of all events, stream by stream: `order:created`. A later schema version ends in its number:
/// `order:created/2`.
pub fn event_types() -> Vec<String> {
    events().0.into_iter().map(|event| event.tag).collect()
}

/// What the payload of such an event is, as JSON Schema 2020-12 with all that it refers to; `None` for a type that there
/// is not.
pub fn event_schema(event_type: &str) -> Option<Value> {
    let (events, schemas) = events();
    let event = events.into_iter().find(|event| event.tag == event_type)?;
    let mut all = json_of(&schemas);
    all.insert(ENVELOPE.into(), envelope());
    let mut defs = Map::new();
    gather(&[&event.data, ENVELOPE], &all, &mut defs);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event.tag,
        "description": event.what,
        "allOf": event.payload()["allOf"],
        "$defs": defs,
    });
    repoint(&mut schema);
    Some(schema)
}

// --- What the types say -------------------------------------------------------------------------------------------

/// One variant of one of the enums.
struct Event {
    stream: Stream,
    /// `order:created`, with its schema version unless that is the first.
    tag: String,
    what: String,
    /// The schema of its data, by name.
    data: String,
}

fn events() -> (Vec<Event>, Schemas) {
    let (mut events, mut schemas) = (Vec::new(), Schemas::new());
    add::<UserEvent>(USERS, &mut events, &mut schemas);
    add::<TicketEvent>(TICKETS, &mut events, &mut schemas);
    add::<OrderEvent>(ORDERS, &mut events, &mut schemas);
    add::<PaymentEvent>(PAYMENTS, &mut events, &mut schemas);
    add::<ExpirationEvent>(EXPIRATIONS, &mut events, &mut schemas);
    (events, schemas)
}

/// Each variant is `{"type": <one word>, "data": <a reference>}`.
fn add<E: ToSchema>(stream: Stream, events: &mut Vec<Event>, schemas: &mut Schemas) {
    schema::add_parts::<E>(schemas);
    let RefOr::T(Schema::OneOf(variants)) = E::schema() else { return };
    for variant in variants.items {
        let RefOr::T(Schema::Object(variant)) = variant else { continue };
        let (Some(RefOr::T(Schema::Object(tag))), Some(RefOr::Ref(data))) =
            (variant.properties.get("type"), variant.properties.get("data"))
        else {
            continue;
        };
        let tag = tag.enum_values.iter().flatten().find_map(Value::as_str).unwrap_or_default();
        events.push(Event {
            stream,
            tag: tag.into(),
            what: schema::plain(variant.description.as_deref().unwrap_or_default()),
            data: data.ref_location.trim_start_matches(COMPONENTS).into(),
        });
    }
}

impl Event {
    /// Its type as the header has it, and its schema version.
    fn type_and_version(&self) -> (&str, &str) {
        self.tag.split_once('/').unwrap_or((&self.tag, "1"))
    }

    /// What the document calls it: no colon may be in a name there.
    fn name(&self) -> String {
        self.tag.replace([':', '/'], "-")
    }

    fn payload(&self) -> Value {
        json!({ "allOf": [
            { "$ref": format!("{COMPONENTS}{}", self.data) },
            { "$ref": format!("{COMPONENTS}{ENVELOPE}") },
        ] })
    }

    fn message(&self) -> Value {
        let (event_type, version) = self.type_and_version();
        let own = json!({ "type": "object", "properties": {
            "ce-type": { "const": event_type },
            "ce-schemaversion": { "const": version },
            "ce-source": { "const": self.stream.source },
        } });
        json!({
            "name": self.tag,
            "title": self.tag,
            "summary": self.what,
            "contentType": JSON,
            "headers": { "type": "object", "allOf": [{ "$ref": format!("{COMPONENTS}{HEADERS}") }, own] },
            "payload": self.payload(),
            "correlationId": {
                "description": "The trace that it belongs to",
                "location": "$message.payload#/_trace/uber-trace-id",
            },
        })
    }
}

fn json_of(schemas: &Schemas) -> Map<String, Value> {
    let json = |schema: &RefOr<Schema>| serde_json::to_value(schema).unwrap_or_default();
    schemas.iter().map(|(name, schema)| (name.clone(), json(schema))).collect()
}

/// Takes the named schemas over, and whatever they refer to.
fn gather(names: &[&str], all: &Map<String, Value>, defs: &mut Map<String, Value>) {
    for name in names {
        if let (false, Some(schema)) = (defs.contains_key(*name), all.get(*name)) {
            defs.insert((*name).into(), schema.clone());
            let mut others = Vec::new();
            references(schema, &mut others);
            gather(&others, all, defs);
        }
    }
}

fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(|to| to.as_str()?.strip_prefix(COMPONENTS)));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Leads all references to where a schema by itself has them.
fn repoint(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref") {
                *to = to.replacen(COMPONENTS, DEFS, 1);
            }
            fields.values_mut().for_each(repoint);
        }
        Value::Array(items) => items.iter_mut().for_each(repoint),
        _ => {}
    }
}

// --- What is around an event's data -------------------------------------------------------------------------------

fn envelope() -> Value {
    json!({
        "type": "object",
        "description": "What stands beside the data in every payload.",
        "required": ["version", "_trace"],
        "properties": {
            "version": {
                "type": "integer",
                "minimum": 0,
                "description": "Counts the events of its subject from 0.",
            },
            "_trace": {
                "type": "object",
                "description": "The trace that it belongs to; empty when nobody traces.",
                "properties": { "uber-trace-id": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{1,32}:[0-9a-f]{1,16}:[0-9a-f]{1,16}:[0-9a-f]{1,2}$",
                    "description": "`<trace>:<span>:<parent>:<flags>`.",
                } },
                "additionalProperties": { "type": "string" },
            },
        },
        "additionalProperties": true,
    })
}

fn headers() -> Value {
    json!({
        "type": "object",
        "description": "What every event says of itself.",
        "required": [
            "Nats-Msg-Id", "ce-specversion", "ce-id", "ce-type", "ce-source", "ce-subject", "ce-time",
            "ce-schemaversion", "content-type",
        ],
        "properties": {
            "Nats-Msg-Id": {
                "type": "string",
                "format": "uuid",
                "description": "Its id again: sent twice, it is stored once.",
            },
            "ce-specversion": { "const": "1.0", "description": "Of CloudEvents." },
            "ce-id": {
                "type": "string",
                "format": "uuid",
                "description": "A UUIDv7; of an event that another one caused, the UUIDv5 of that one's id and \
                                this one's type.",
            },
            "ce-type": { "type": "string", "description": "Its type, without schema version." },
            "ce-source": { "type": "string", "description": "The service that wrote it." },
            "ce-subject": { "type": "string", "description": "The subject that it was appended to." },
            "ce-time": { "type": "string", "format": "date-time", "description": "When, by the writer's clock." },
            "ce-schemaversion": {
                "type": "string",
                "pattern": "^[1-9][0-9]*$",
                "description": "Of its payload, from 1.",
            },
            "ce-causationid": {
                "type": "string",
                "format": "uuid",
                "description": "The id of the event that caused it, if one did.",
            },
            "content-type": { "const": JSON },
            "Nats-Expected-Last-Subject-Sequence": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "The last sequence of its subject when it was decided on: the server takes it on no other.",
            },
        },
        "additionalProperties": true,
    })
}

/// What no listener could read, as it was, and why.
fn dead_letter() -> Value {
    let text = |what: &str| json!({ "type": "string", "description": what });
    json!({
        "name": "dead-letter",
        "title": "dead letter",
        "summary": "A message that somebody could not read, as it was, and why.",
        "headers": {
            "type": "object",
            "description": "Its own as well, but for those of the server.",
            "required": [
                "ce-id", "dead-letter-stream", "dead-letter-sequence", "dead-letter-subject", "dead-letter-reader",
                "dead-letter-reason",
            ],
            "properties": {
                "ce-id": { "type": "string", "format": "uuid" },
                "dead-letter-stream": text("Where it stood."),
                "dead-letter-sequence": text("And at which sequence."),
                "dead-letter-subject": text("Its subject there."),
                "dead-letter-reader": text("Who could not read it."),
                "dead-letter-reason": text("Why."),
            },
        },
        "payload": { "description": "As it was: it may be no JSON." },
    })
}

// --- Where events go, and who listens -----------------------------------------------------------------------------

/// What the last part of a stream's subjects is, by name, and what is decided there.
const SUBJECTS: [(Stream, &str, &str, &str); 5] = [
    (USERS, "emailKey", "A keyed hash of an email address, in hex", "One email address."),
    (TICKETS, "ticketId", "The ticket", "One ticket."),
    (
        ORDERS,
        "ticketId",
        "The ticket that is ordered",
        "All orders for one ticket: so it is never sold twice.",
    ),
    (PAYMENTS, "orderId", "The order that is paid", "The payment of one order."),
    (EXPIRATIONS, "orderId", "The order that may expire", "One order's deadline."),
];

fn channels(events: &[Event]) -> Value {
    let mut channels = Map::new();
    for (stream, parameter, what, about) in SUBJECTS {
        let own = events.iter().filter(|event| event.stream == stream);
        let messages: Map<String, Value> = own
            .map(|event| (event.name(), json!({ "$ref": format!("#/components/messages/{}", event.name()) })))
            .collect();
        let channel = json!({
            "address": stream.subjects.replace('*', &format!("{{{parameter}}}")),
            "title": stream.name,
            "description": about,
            "servers": [{ "$ref": "#/servers/nats" }],
            "parameters": { parameter: { "description": what } },
            "messages": messages,
        });
        channels.insert(stream.name.into(), channel);
    }
    let dead_letters = json!({
        "address": format!("{DEAD_LETTERS_PREFIX}.{{reader}}.{{stream}}.{{sequence}}"),
        "title": DEAD_LETTERS,
        "description": "What somebody could not read. For people: no service listens.",
        "servers": [{ "$ref": "#/servers/nats" }],
        "parameters": {
            "reader": { "description": "A durable, or a projection with the service that it is in" },
            "stream": { "description": "Where the message stood" },
            "sequence": { "description": "And at which sequence" },
        },
        "messages": { "dead-letter": { "$ref": "#/components/messages/dead-letter" } },
    });
    channels.insert(DEAD_LETTERS.into(), dead_letters);
    channels.into()
}

fn operations() -> Value {
    let channel = |name: &str| json!({ "$ref": format!("#/channels/{name}") });
    let mut operations = Map::new();
    for (stream, ..) in SUBJECTS {
        let (service, name) = (stream.source, stream.name);
        let appends = json!({
            "action": "send",
            "channel": channel(name),
            "summary": format!("{service} appends, expecting the sequence that it decided on"),
        });
        operations.insert(format!("{service}-appends-to-{name}"), appends);
        let buries = json!({
            "action": "send",
            "channel": channel(DEAD_LETTERS),
            "summary": format!("{service} keeps what it cannot read"),
        });
        operations.insert(format!("{service}-appends-to-{DEAD_LETTERS}"), buries);
    }
    for listener in &LISTENERS {
        let service = listener.service;
        for stream in listener.reads {
            let reads = json!({
                "action": "receive",
                "channel": channel(stream.name),
                "summary": format!("{service} keeps rows of its own of it, each replica for itself"),
            });
            operations.insert(format!("{service}-reads-{}", stream.name), reads);
        }
        for stream in listener.reacts {
            let acts = json!({
                "action": "receive",
                "channel": channel(stream.name),
                "summary": format!("{service} acts on it, by the durable {} that its replicas share", listener.durable),
                "bindings": { "nats": { "queue": listener.durable } },
            });
            operations.insert(format!("{service}-acts-on-{}", stream.name), acts);
        }
    }
    operations.into()
}
