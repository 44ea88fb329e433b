//! The documents, held against what they describe: golden events, bodies and prices, and each against itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use contract::{
    Cents, OrderId, PaymentId, TicketId, Timestamp, UserId,
    asyncapi::{asyncapi, event_schema, event_types},
    event::{CancelReason, OrderStatus},
    http::{
        CurrentUser, Done, Health, HistoryEntry, Order, OrderTicket, Payment, PaymentStatus, Problem,
        Problems, Received, Sale, SignedIn, Ticket, TicketStatus, User,
    },
    openapi::openapi,
    stream,
};
use jsonschema::Validator;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use time::macros::datetime;
use uuid::{Uuid, uuid};

const ID: Uuid = uuid!("019aa9f2-44be-7f19-a1d7-38c05b6e92f4");

/// Each golden file's event: its type, with its schema version as event types have it, and its payload.
fn golden() -> Vec<(String, String, Value)> {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let golden: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let event_type = golden["type"].as_str().unwrap();
        let tag = match golden["schemaVersion"].as_u64().unwrap() {
            1 => event_type.to_owned(),
            version => format!("{event_type}/{version}"),
        };
        (path.file_name().unwrap().to_string_lossy().into_owned(), tag, golden["payload"].clone())
    };
    files.map(read).collect()
}

fn validator(schema: &Value) -> Validator {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(schema).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

/// A schema of the HTTP document, by its name.
fn component(name: &str) -> Validator {
    let document = serde_json::to_value(openapi()).unwrap();
    validator(
        &json!({ "$ref": format!("#/components/schemas/{name}"), "components": document["components"] }),
    )
}

fn errors(validator: &Validator, instance: &Value) -> Vec<String> {
    validator.iter_errors(instance).map(|error| error.to_string()).collect()
}

#[test]
fn every_golden_event_is_as_its_schema_says() {
    for (file, event_type, payload) in golden() {
        let schema = event_schema(&event_type).unwrap_or_else(|| panic!("{event_type} has no schema"));
        assert_eq!(errors(&validator(&schema), &payload), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn every_event_type_has_a_schema_and_a_golden_file() {
    let told: BTreeSet<String> = event_types().into_iter().collect();
    let there: BTreeSet<String> = golden().into_iter().map(|(_, event_type, _)| event_type).collect();
    assert_eq!(told, there);
    assert!(event_types().iter().all(|event_type| event_schema(event_type).is_some()));
    assert_eq!(event_schema("order:forgotten"), None);
}

#[test]
fn a_field_that_is_missing_or_wrong_is_found() {
    for (file, event_type, payload) in golden() {
        let validator = validator(&event_schema(&event_type).unwrap());
        let fields = payload.as_object().unwrap();
        for field in fields.keys() {
            // What may be left out, may be.
            if !["stripeId", "orderVersion"].contains(&field.as_str()) {
                let mut without = fields.clone();
                without.remove(field);
                assert!(!validator.is_valid(&without.into()), "{file} without {field}");
            }
            let mut wrong = fields.clone();
            wrong.insert(field.clone(), json!([]));
            assert!(!validator.is_valid(&wrong.into()), "{file} with another {field}");
        }
    }
    let refused = |event_type: &str, field: &str, value: Value| {
        let (_, _, mut payload) = golden().into_iter().find(|(_, of, _)| of == event_type).unwrap();
        payload[field] = value;
        assert!(!validator(&event_schema(event_type).unwrap()).is_valid(&payload), "{payload}");
    };
    refused("ticket:created", "priceCents", json!(19.99));
    refused("ticket:created", "id", json!("7"));
    refused("order:created", "expiresAt", json!("tomorrow"));
    refused("order:created", "status", json!("open"));
    refused("order:cancelled", "reason", json!("bored"));
    refused("order:cancelled", "version", json!(-1));
    refused("user:signed-up", "email", json!("seller@example.com"));
}

#[test]
fn a_later_field_is_as_the_schema_says() {
    for (file, event_type, mut payload) in golden() {
        payload["addedLater"] = json!({ "by": "a newer version" });
        assert!(validator(&event_schema(&event_type).unwrap()).is_valid(&payload), "{file}");
    }
}

fn check<T: Serialize>(name: &str, bodies: impl IntoIterator<Item = T>) {
    let validator = component(name);
    for body in bodies {
        let body = serde_json::to_value(body).unwrap();
        assert_eq!(errors(&validator, &body), Vec::<String>::new(), "{name}: {body}");
        assert!(!validator.is_valid(&json!("something else")), "{name}");
    }
}

#[test]
fn every_body_is_as_its_schema_says() {
    let (user, email) = (UserId(ID), String::from("ann@example.com"));
    check("User", [User { id: user, email: email.clone() }]);
    let signed_in = SignedIn { id: user, email, iat: 1, exp: 2 };
    check("CurrentUser", [Some(signed_in), None].map(|current_user| CurrentUser { current_user }));
    check("Done", [Done {}]);
    check("Received", [Received { received: true }]);
    let problem = |field: Option<&str>| Problem { message: "Wrong".into(), field: field.map(Into::into) };
    check("Problems", [Problems { errors: vec![problem(None), problem(Some("title"))] }]);
    let reasons = BTreeMap::from([("log".to_owned(), "replaying".to_owned())]);
    check("Health", [None, Some(reasons)].map(|reasons| Health { status: "ready".into(), reasons }));

    let statuses = [TicketStatus::Available, TicketStatus::Reserved, TicketStatus::Sold];
    check(
        "Ticket",
        statuses.map(|status| Ticket {
            id: TicketId(ID),
            title: "Concert".into(),
            price: Cents(1999),
            user_id: user,
            order_id: (status != TicketStatus::Available).then_some(OrderId(ID)),
            status,
            version: 0,
        }),
    );
    let time = Timestamp::from(datetime!(2026-11-22 05:38:55.120 UTC));
    let ticket = OrderTicket { id: TicketId(ID), title: "Concert".into(), price: Cents(5) };
    let statuses =
        [OrderStatus::Created, OrderStatus::AwaitingPayment, OrderStatus::Complete, OrderStatus::Cancelled];
    check(
        "Order",
        statuses.map(|status| Order {
            id: OrderId(ID),
            user_id: user,
            status,
            expires_at: time,
            ticket: ticket.clone(),
            version: 3,
        }),
    );
    let reasons =
        [CancelReason::Buyer, CancelReason::Expired, CancelReason::PaymentFailed, CancelReason::Refunded];
    check(
        "Sale",
        reasons.map(Some).into_iter().chain([None]).map(|reason| Sale {
            order_id: OrderId(ID),
            user_id: user,
            status: OrderStatus::Cancelled,
            reason,
            expires_at: time,
            ticket: ticket.clone(),
            version: 1,
            time,
        }),
    );
    let of_orders = golden().into_iter().filter(|(_, event_type, _)| event_type.starts_with("order:"));
    check(
        "HistoryEntry",
        of_orders.map(|(_, event_type, data)| HistoryEntry { event_type, version: 0, time, data }),
    );
    let statuses = [
        PaymentStatus::Requested,
        PaymentStatus::RequiresAction,
        PaymentStatus::Authorized,
        PaymentStatus::Created,
        PaymentStatus::Declined,
        PaymentStatus::Voided,
        PaymentStatus::Refunding,
        PaymentStatus::Refunded,
    ];
    check(
        "Payment",
        statuses.map(|status| Payment {
            id: PaymentId(ID),
            order_id: OrderId(ID),
            stripe_id: (status != PaymentStatus::Requested).then(|| "pi_1".into()),
            status,
            reason: None,
            client_secret: None,
        }),
    );
}

/// A body that lists a ticket for this.
fn listing(price: Value) -> Value {
    json!({ "title": "Concert", "price": price })
}

proptest! {
    #[test]
    fn every_amount_of_cents_is_a_price(cents in 0..=Cents::MAX_PRICE.0) {
        let order = json!({
            "id": ID,
            "title": "Concert",
            "price": if cents % 100 == 0 { json!(cents / 100) } else { json!(cents as f64 / 100.0) },
        });
        prop_assert_eq!(errors(&component("OrderTicket"), &order), Vec::<String>::new());
        let is_asked = component("NewTicket").is_valid(&listing(order["price"].clone()));
        prop_assert_eq!(is_asked, cents > 0);
    }

    #[test]
    fn a_price_may_be_asked_if_it_can_be_read(text in r"-?[0-9]{0,8}(\.[0-9]{0,5})?") {
        let can_be_read = |price: &Value| Cents::try_from(price).is_ok_and(|cents| cents.0 > 0);
        let validator = component("NewTicket");
        let price = json!(text);
        prop_assert_eq!(validator.is_valid(&listing(price.clone())), can_be_read(&price), "{}", price);
        if let Ok(price) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(validator.is_valid(&listing(price.clone())), can_be_read(&price), "{}", price);
        }
    }
}

fn documents() -> [(&'static str, Value); 2] {
    [("openapi", serde_json::to_value(openapi()).unwrap()), ("asyncapi", asyncapi())]
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let by_itself = event_types().into_iter().map(|event_type| {
        let schema = event_schema(&event_type).unwrap();
        (event_type, schema)
    });
    let documents = documents().map(|(name, document)| (name.to_owned(), document));
    for (name, document) in documents.into_iter().chain(by_itself) {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty(), "{name}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{name}: {reference}"));
            assert!(document.pointer(pointer).is_some(), "{name}: {reference}");
        }
    }
}

#[test]
fn every_schema_is_one_and_is_used() {
    for (name, document) in documents() {
        let mut used = Vec::new();
        references(&document, &mut used);
        for (schema, content) in document["components"]["schemas"].as_object().unwrap() {
            assert!(jsonschema::draft202012::meta::is_valid(content), "{name}: {schema}");
            assert!(used.contains(&format!("#/components/schemas/{schema}")), "{name}: {schema}");
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let [(_, document), _] = documents();
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{method} {path}: {name} is another one's");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
            // What stands in the path is asked for, and nothing else.
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let asked: Vec<String> =
                in_path.map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap())).collect();
            let there: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
            assert_eq!(asked, there, "{method} {path}");
        }
    }
}

#[test]
fn every_stream_is_a_channel_that_somebody_writes() {
    let document = asyncapi();
    for stream in stream::ALL {
        let channel = &document["channels"][stream.name];
        let address = channel["address"].as_str().unwrap_or_else(|| panic!("{} is no channel", stream.name));
        assert!(address.starts_with(stream.subjects.trim_end_matches('*')), "{address}");
        let writes = format!("{}-appends-to-{}", stream.source, stream.name);
        assert_eq!(document["operations"][writes]["action"], "send", "{}", stream.name);
    }
    let messages = document["channels"].as_object().unwrap().values();
    let messages: usize = messages.map(|channel| channel["messages"].as_object().unwrap().len()).sum();
    assert_eq!(messages, event_types().len() + 1, "all events, and the dead letter");
}
