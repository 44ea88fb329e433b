//! Golden files: every event as it stands in some log already. Each must be read for ever, and mean the same.
//!
//! A file is never changed. A new variant does not compile here until it has one ([`Any::file`]); a new file fails
//! until the value it means stands in [`meanings`].

use std::{collections::BTreeSet, fs, path::Path};

use contract::{
    Cents, ExpirationEvent, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketEvent, TicketId, Timestamp,
    UserEvent, UserId,
    event::{
        CancelReason, ExpirationComplete, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated,
        OrderStatus, OrderedTicket, PaymentPartiallyRefunded, PaymentRequested, PaymentSettled,
        PaymentUnsettled, Sealed, TicketCreated, TicketRef, TicketUpdated, UserErased, UserSignedOut,
        UserSignedUp,
    },
    http::{PaymentStatus, TicketStatus},
    stream,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::macros::datetime;
use uuid::uuid;

const SELLER: UserId = UserId(uuid!("019aa9f0-1c3b-7d52-8e0a-4f6c1b9d2e31"));
const BUYER: UserId = UserId(uuid!("019aa9f0-5a77-7c04-9b21-d03e8f4a6c95"));
const TICKET: TicketId = TicketId(uuid!("019aa9f1-02d4-7a8e-b6c3-5e9f7d10a284"));
const ORDER: OrderId = OrderId(uuid!("019aa9f2-44be-7f19-a1d7-38c05b6e92f4"));
const PAYMENT: PaymentId = PaymentId(uuid!("019aa9f3-0b61-7e2c-8f95-c74d1a60b3e8"));
const INTENT: &str = "pi_3SVv2kLkdIwHu7ix0cWqN8aB";
const TITLE: &str = "Dvořák: Rusalka, row 12 seat 7";

/// A golden file: a message of a stream, with the headers that say what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Golden {
    /// The stream it stands in.
    stream: String,
    /// Its `ce-type`.
    r#type: String,
    /// Its `ce-schemaversion`.
    schema_version: u32,
    payload: serde_json::Map<String, Value>,
}

impl Golden {
    fn read(file: &str) -> Self {
        let path = directory().join(file);
        serde_json::from_str(&fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn tagged(&self, data: &serde_json::Map<String, Value>) -> Value {
        let tag = match self.schema_version {
            1 => self.r#type.clone(),
            version => format!("{}/{version}", self.r#type),
        };
        json!({ "type": tag, "data": data })
    }

    /// As readers of the log see it: with `version` and `_trace` among the data.
    fn stored(&self) -> Value {
        self.tagged(&self.payload)
    }

    fn without_envelope(&self) -> Value {
        let mut data = self.payload.clone();
        assert!(data.remove("version").is_some_and(|version| version.is_u64()), "{}: version", self.r#type);
        let trace = data.remove("_trace").unwrap_or_default();
        assert!(trace["uber-trace-id"].is_string(), "{}: _trace", self.r#type);
        self.tagged(&data)
    }
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

/// An event of any stream.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Any {
    User(UserEvent),
    Ticket(TicketEvent),
    Order(OrderEvent),
    Payment(PaymentEvent),
    Expiration(ExpirationEvent),
}

impl Any {
    /// Reads a tagged event of the stream called `stream`.
    fn read(stream: &str, tagged: Value) -> serde_json::Result<Self> {
        match stream {
            "USERS" => serde_json::from_value(tagged).map(Any::User),
            "TICKETS" => serde_json::from_value(tagged).map(Any::Ticket),
            "ORDERS" => serde_json::from_value(tagged).map(Any::Order),
            "PAYMENTS" => serde_json::from_value(tagged).map(Any::Payment),
            "EXPIRATIONS" => serde_json::from_value(tagged).map(Any::Expiration),
            other => panic!("{other} is no stream of ours"),
        }
    }

    /// The content of the variant's golden file. Exhaustive on purpose, and `include_str!` needs the file.
    fn file(&self) -> &'static str {
        match self {
            Any::User(event) => match event {
                UserEvent::SignedUp(_) => include_str!("golden/user-signed-up.json"),
                UserEvent::Erased(_) => include_str!("golden/user-erased.json"),
                UserEvent::SignedOut(_) => include_str!("golden/user-signed-out.json"),
            },
            Any::Ticket(event) => match event {
                TicketEvent::Created(_) => include_str!("golden/ticket-created.json"),
                TicketEvent::Updated(_) => include_str!("golden/ticket-updated.json"),
            },
            Any::Order(event) => match event {
                OrderEvent::Created(_) => include_str!("golden/order-created.json"),
                OrderEvent::AwaitingPayment(_) => include_str!("golden/order-awaiting-payment.json"),
                OrderEvent::Cancelled(_) => include_str!("golden/order-cancelled.json"),
                OrderEvent::Completed(_) => include_str!("golden/order-completed.json"),
            },
            Any::Payment(event) => match event {
                PaymentEvent::Requested(_) => include_str!("golden/payment-requested.json"),
                PaymentEvent::ActionRequired(_) => include_str!("golden/payment-action-required.json"),
                PaymentEvent::Authorized(_) => include_str!("golden/payment-authorized.json"),
                PaymentEvent::Declined(_) => include_str!("golden/payment-declined.json"),
                PaymentEvent::Created(_) => include_str!("golden/payment-created.json"),
                PaymentEvent::Voided(_) => include_str!("golden/payment-voided.json"),
                PaymentEvent::RefundRequested(_) => include_str!("golden/payment-refund-requested.json"),
                PaymentEvent::RefundFailed(_) => include_str!("golden/payment-refund-failed.json"),
                PaymentEvent::PartiallyRefunded(_) => {
                    include_str!("golden/payment-partially-refunded.json")
                }
                PaymentEvent::Disputed(_) => include_str!("golden/payment-disputed.json"),
                PaymentEvent::Refunded(_) => include_str!("golden/payment-refunded.json"),
            },
            Any::Expiration(event) => match event {
                ExpirationEvent::Complete(_) => include_str!("golden/expiration-complete.json"),
            },
        }
    }
}

/// What each file means.
fn meanings() -> Vec<(&'static str, Any)> {
    let ticket = TicketRef { id: TICKET };
    let updated = |order_id, sold, order_version| {
        Any::Ticket(TicketEvent::Updated(TicketUpdated {
            id: TICKET,
            title: TITLE.into(),
            price_cents: Cents(2450),
            user_id: SELLER,
            order_id,
            sold,
            order_version,
        }))
    };
    let cancelled = |reason| Any::Order(OrderEvent::Cancelled(OrderCancelled { id: ORDER, reason, ticket }));
    let settled = || PaymentSettled { id: PAYMENT, order_id: ORDER, stripe_id: INTENT.into() };
    let unsettled = |stripe_id: Option<&str>, reason: &str| PaymentUnsettled {
        id: PAYMENT,
        order_id: ORDER,
        stripe_id: stripe_id.map(Into::into),
        reason: reason.into(),
    };
    vec![
        (
            "user-signed-up.json",
            Any::User(UserEvent::SignedUp(UserSignedUp {
                id: SELLER,
                email: Sealed("4d125a330908dc05c88773920f86fbabe123c5534a9a49a538de0ac778ead0f36494da46ef7dc482db7e57648a078e".into()),
                password_hash: Sealed("a628449fbe29096f7c04f8a14aa016686098ece42ae2e4938f4d3302d6eed420af3203ee1a271ff52d772366c2dd98a0b9b30afac2de271cd4c6af33c65d907b292978ff12d6aa4008dbe7c393d68dbe090c7d44bd377319ac208d602fc7d4caea91e2f0e2e491f673ece90c569d93c935a3d324".into()),
            })),
        ),
        ("user-erased.json", Any::User(UserEvent::Erased(UserErased { id: SELLER }))),
        (
            "user-signed-out.json",
            Any::User(UserEvent::SignedOut(UserSignedOut { id: SELLER, epoch: 1 })),
        ),
        (
            "ticket-created.json",
            Any::Ticket(TicketEvent::Created(TicketCreated {
                id: TICKET,
                title: TITLE.into(),
                price_cents: Cents(1999),
                user_id: SELLER,
            })),
        ),
        ("ticket-updated.json", updated(None, false, None)),
        ("ticket-updated.reserved.json", updated(Some(ORDER), false, Some(0))),
        ("ticket-updated.sold.json", updated(Some(ORDER), true, Some(2))),
        (
            "order-created.json",
            Any::Order(OrderEvent::Created(OrderCreated {
                id: ORDER,
                status: OrderStatus::Created,
                user_id: BUYER,
                expires_at: Timestamp::from(datetime!(2026-11-22 05:38:55.120 UTC)),
                ticket: OrderedTicket { id: TICKET, title: TITLE.into(), price_cents: Cents(2450) },
            })),
        ),
        (
            "order-awaiting-payment.json",
            Any::Order(OrderEvent::AwaitingPayment(OrderAwaitingPayment {
                id: ORDER,
                payment_id: PAYMENT,
                ticket,
            })),
        ),
        ("order-cancelled.json", cancelled(CancelReason::Buyer)),
        ("order-cancelled.expired.json", cancelled(CancelReason::Expired)),
        ("order-cancelled.payment-failed.json", cancelled(CancelReason::PaymentFailed)),
        ("order-cancelled.refunded.json", cancelled(CancelReason::Refunded)),
        (
            "order-completed.json",
            Any::Order(OrderEvent::Completed(OrderCompleted { id: ORDER, payment_id: PAYMENT, ticket })),
        ),
        (
            "payment-requested.json",
            Any::Payment(PaymentEvent::Requested(PaymentRequested {
                id: PAYMENT,
                order_id: ORDER,
                user_id: BUYER,
                amount_cents: Cents(2450),
                currency: "usd".into(),
                payment_method: "pm_card_visa".into(),
            })),
        ),
        ("payment-action-required.json", Any::Payment(PaymentEvent::ActionRequired(settled()))),
        ("payment-authorized.json", Any::Payment(PaymentEvent::Authorized(settled()))),
        ("payment-created.json", Any::Payment(PaymentEvent::Created(settled()))),
        (
            "payment-declined.json",
            Any::Payment(PaymentEvent::Declined(unsettled(Some(INTENT), "Your card has insufficient funds."))),
        ),
        (
            "payment-declined.before-stripe.json",
            Any::Payment(PaymentEvent::Declined(unsettled(None, "No such PaymentMethod: 'pm_nobody'"))),
        ),
        (
            "payment-voided.json",
            Any::Payment(PaymentEvent::Voided(unsettled(Some(INTENT), "the order was cancelled"))),
        ),
        (
            "payment-refund-requested.json",
            Any::Payment(PaymentEvent::RefundRequested(unsettled(Some(INTENT), "asked for by the seller"))),
        ),
        (
            "payment-refund-failed.json",
            Any::Payment(PaymentEvent::RefundFailed(unsettled(Some(INTENT), "charge_disputed"))),
        ),
        (
            "payment-partially-refunded.json",
            Any::Payment(PaymentEvent::PartiallyRefunded(PaymentPartiallyRefunded {
                id: PAYMENT,
                order_id: ORDER,
                stripe_id: INTENT.into(),
                refunded_cents: Cents(500),
            })),
        ),
        ("payment-disputed.json", Any::Payment(PaymentEvent::Disputed(settled()))),
        (
            "payment-refunded.json",
            Any::Payment(PaymentEvent::Refunded(unsettled(Some(INTENT), "requested_by_customer"))),
        ),
        (
            "expiration-complete.json",
            Any::Expiration(ExpirationEvent::Complete(ExpirationComplete { order_id: ORDER })),
        ),
    ]
}

#[test]
fn every_event_there_ever_was_means_what_it_meant() {
    for (file, meaning) in meanings() {
        let golden = Golden::read(file);
        let event =
            Any::read(&golden.stream, golden.stored()).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(event, meaning, "{file}");
    }
}

#[test]
fn an_event_is_written_as_it_was_read() {
    for (file, meaning) in meanings() {
        assert_eq!(serde_json::to_value(&meaning).unwrap(), Golden::read(file).without_envelope(), "{file}");
    }
}

#[test]
fn every_file_has_a_meaning() {
    let there: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let meant: BTreeSet<String> = meanings().into_iter().map(|(file, _)| file.to_owned()).collect();
    assert_eq!(there, meant);
}

#[test]
fn every_variant_has_a_file_of_its_own() {
    for (file, meaning) in meanings() {
        let own: Golden = serde_json::from_str(meaning.file()).unwrap();
        assert_eq!(own.r#type, Golden::read(file).r#type, "{file}");
    }
}

#[test]
fn every_stream_has_golden_files() {
    let told: BTreeSet<String> = meanings().into_iter().map(|(file, _)| Golden::read(file).stream).collect();
    let all: BTreeSet<String> = stream::ALL.iter().map(|stream| stream.name.to_owned()).collect();
    assert_eq!(told, all);
}

#[test]
fn a_later_field_does_not_hinder_an_older_reader() {
    for (file, meaning) in meanings() {
        let mut golden = Golden::read(file);
        golden.payload.insert("addedLater".into(), json!({ "by": "a newer version" }));
        assert_eq!(Any::read(&golden.stream, golden.stored()).unwrap(), meaning, "{file}");
    }
}

fn check_spelling<T: Serialize>(values: impl IntoIterator<Item = T>, spelled: &[&str]) {
    let values: Vec<Value> = values.into_iter().map(|value| serde_json::to_value(value).unwrap()).collect();
    assert_eq!(values, spelled);
}

#[test]
fn statuses_and_reasons_are_spelled_as_in_the_contract() {
    use {CancelReason as Reason, OrderStatus as Order, PaymentStatus as Payment, TicketStatus as Ticket};
    check_spelling(
        [Order::Created, Order::AwaitingPayment, Order::Complete, Order::Cancelled],
        &["created", "awaiting:payment", "complete", "cancelled"],
    );
    check_spelling(
        [Reason::Buyer, Reason::Expired, Reason::PaymentFailed, Reason::Refunded],
        &["buyer", "expired", "payment-failed", "refunded"],
    );
    check_spelling([Ticket::Available, Ticket::Reserved, Ticket::Sold], &["available", "reserved", "sold"]);
    check_spelling(
        [
            Payment::Requested,
            Payment::RequiresAction,
            Payment::Authorized,
            Payment::Created,
            Payment::Declined,
            Payment::Voided,
            Payment::Refunding,
            Payment::Refunded,
        ],
        &[
            "requested",
            "requires_action",
            "authorized",
            "created",
            "declined",
            "voided",
            "refunding",
            "refunded",
        ],
    );
}
