//! An event as far as the rules look at it, read from a message.
//!
//! Written apart from the services' own reading: an audit that believed the code that it audits would prove little.

use std::{borrow::Cow, fmt, str::FromStr};

use contract::{Timestamp, stream::Stream};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::finding::Code;
use crate::streams::Stored;

/// An event.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    /// When the server stored it, in milliseconds since 1970.
    pub(crate) stored_ms: i64,
    /// When it was made, by its writer's clock.
    pub(crate) told_ms: i64,
    /// What its subject ends with: the boundary within the stream.
    pub(crate) key: Uuid,
    pub(crate) id: Uuid,
    pub(crate) cause: Option<Uuid>,
    pub(crate) version: u64,
    pub(crate) kind: Kind,
    pub(crate) fact: Fact,
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    UserSignedUp,
    UserSignedOut,
    UserErased,
    TicketCreated,
    TicketUpdated,
    OrderCreated,
    OrderAwaitingPayment,
    OrderCancelled,
    OrderCompleted,
    PaymentRequested,
    PaymentActionRequired,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentCreated,
    PaymentVoided,
    PaymentRefundRequested,
    PaymentRefundFailed,
    PaymentPartiallyRefunded,
    PaymentDisputed,
    PaymentRefunded,
    ExpirationComplete,
}

impl Kind {
    const ALL: [(Kind, &str); 21] = [
        (Kind::UserSignedUp, "user:signed-up"),
        (Kind::UserSignedOut, "user:signed-out"),
        (Kind::UserErased, "user:erased"),
        (Kind::TicketCreated, "ticket:created"),
        (Kind::TicketUpdated, "ticket:updated"),
        (Kind::OrderCreated, "order:created"),
        (Kind::OrderAwaitingPayment, "order:awaiting-payment"),
        (Kind::OrderCancelled, "order:cancelled"),
        (Kind::OrderCompleted, "order:completed"),
        (Kind::PaymentRequested, "payment:requested"),
        (Kind::PaymentActionRequired, "payment:action-required"),
        (Kind::PaymentAuthorized, "payment:authorized"),
        (Kind::PaymentDeclined, "payment:declined"),
        (Kind::PaymentCreated, "payment:created"),
        (Kind::PaymentVoided, "payment:voided"),
        (Kind::PaymentRefundRequested, "payment:refund-requested"),
        (Kind::PaymentRefundFailed, "payment:refund-failed"),
        (Kind::PaymentPartiallyRefunded, "payment:partially-refunded"),
        (Kind::PaymentDisputed, "payment:disputed"),
        (Kind::PaymentRefunded, "payment:refunded"),
        (Kind::ExpirationComplete, "expiration:complete"),
    ];

    /// As `ce-type` has it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The kind of that name, if it belongs to the stream: `ORDERS` has those that begin with `order:`.
    fn parse(name: &str, stream: &Stream) -> Option<Self> {
        let (noun, _) = name.split_once(':')?;
        let plural = stream.name.strip_suffix('S')?;
        let belongs = plural.eq_ignore_ascii_case(noun);
        Self::ALL.iter().find(|(_, known)| belongs && *known == name).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened, as far as the rules look at it.
#[derive(Debug)]
pub(crate) enum Fact {
    User { user: Uuid, epoch: u32 },
    Ticket(TicketFact),
    Ordered { order: Uuid, buyer: Uuid, price: i64, expires_ms: i64 },
    OrderChanged { order: Uuid, payment: Option<Uuid>, reason: Option<Reason> },
    PaymentRequested { payment: Uuid, buyer: Uuid, amount: i64 },
    PaymentChanged { payment: Uuid, intent: Option<Box<str>>, refunded: i64 },
    Expired,
}

/// A ticket as its event has it.
#[derive(Debug)]
pub(crate) struct TicketFact {
    pub(crate) seller: Uuid,
    pub(crate) price: i64,
    pub(crate) order: Option<Uuid>,
    pub(crate) sold: bool,
    pub(crate) order_version: Option<u64>,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    Buyer,
    Expired,
    PaymentFailed,
    Refunded,
}

/// What is wrong with a message by itself.
pub(crate) type Wrong = (Code, String);

/// Reads a message of `stream`. What is wrong with it goes to `wrong`; `None` when it is no event at all.
pub(crate) fn read(stream: &Stream, stored: &Stored, wrong: &mut Vec<Wrong>) -> Option<Record> {
    let headers = Headers::of(&stored.message);
    match parse(stream, stored, &headers) {
        Ok((record, about)) => {
            headers.check(stream, &stored.message.subject, wrong);
            if !spells(token(&stored.message.subject), about) && stream.name != contract::stream::USERS.name {
                wrong.push((Code::SubjectUnfit, format!("its {} is about {about}", record.kind)));
            }
            Some(record)
        }
        Err(reason) => {
            wrong.push((Code::Unreadable, reason));
            None
        }
    }
}

/// The record, and the id in the payload that its subject has to end with.
fn parse(stream: &Stream, stored: &Stored, headers: &Headers<'_>) -> Result<(Record, Uuid), String> {
    let name = headers.event_type.ok_or("no header ce-type")?;
    let kind = Kind::parse(name, stream).ok_or_else(|| format!("{name:?} is no event of this stream"))?;
    if let Some(version) = headers.schema_version.filter(|version| *version != "1") {
        return Err(format!("{kind} has no schema version {version:?} here"));
    }
    let id = headers.id.and_then(|text| Uuid::from_str(text).ok()).ok_or("no id in header ce-id")?;
    let told = headers.time.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let cause =
        headers.cause.map(Uuid::from_str).transpose().map_err(|_| "no id in header ce-causationid")?;
    let Payload { version, about, fact } =
        Payload::read(kind, &stored.message.payload).map_err(|error| format!("{kind} without {error}"))?;
    let record = Record {
        sequence: stored.sequence,
        stored_ms: milliseconds(stored.time),
        told_ms: milliseconds(told.ok_or("no time in header ce-time")?),
        key: key(token(&stored.message.subject)),
        id,
        cause,
        version,
        kind,
        fact,
    };
    Ok((record, about))
}

/// The headers that count.
#[derive(Default)]
struct Headers<'a> {
    id: Option<&'a str>,
    event_type: Option<&'a str>,
    source: Option<&'a str>,
    subject: Option<&'a str>,
    time: Option<&'a str>,
    schema_version: Option<&'a str>,
    cause: Option<&'a str>,
    message_id: Option<&'a str>,
}

impl<'a> Headers<'a> {
    /// In one pass: a look-up of each by its name would be most of an audit's time.
    fn of(message: &'a async_nats::Message) -> Self {
        let mut found = Self::default();
        for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
            let field = match name.as_ref() {
                "ce-id" => &mut found.id,
                "ce-type" => &mut found.event_type,
                "ce-source" => &mut found.source,
                "ce-subject" => &mut found.subject,
                "ce-time" => &mut found.time,
                "ce-schemaversion" => &mut found.schema_version,
                "ce-causationid" => &mut found.cause,
                "Nats-Msg-Id" => &mut found.message_id,
                _ => continue,
            };
            *field = values.first().map(|value| value.as_str());
        }
        found
    }

    fn check(&self, stream: &Stream, subject: &str, wrong: &mut Vec<Wrong>) {
        let expected = [
            ("ce-source", self.source, Some(stream.source)),
            ("ce-subject", self.subject, Some(subject)),
            ("Nats-Msg-Id", self.message_id, self.id),
        ];
        for (name, found, expected) in expected {
            if found != expected {
                let (found, expected) = (found.unwrap_or("missing"), expected.unwrap_or_default());
                wrong.push((Code::HeaderUnfit, format!("{name} is {found}, not {expected}")));
            }
        }
    }
}

struct Payload {
    version: u64,
    about: Uuid,
    fact: Fact,
}

impl Payload {
    fn read(kind: Kind, payload: &[u8]) -> Result<Self, String> {
        match kind {
            Kind::UserSignedUp | Kind::UserSignedOut | Kind::UserErased => {
                let user: User<'_> = json(payload)?;
                if kind == Kind::UserSignedUp {
                    user.email.as_ref().and(user.password_hash.as_ref()).ok_or("what is sealed in it")?;
                }
                if kind == Kind::UserSignedOut {
                    user.epoch.ok_or("missing field `epoch`")?;
                }
                let fact = Fact::User { user: user.id, epoch: user.epoch.unwrap_or_default() };
                Ok(Self { version: user.version, about: user.id, fact })
            }
            Kind::TicketCreated | Kind::TicketUpdated => {
                let ticket: Ticket<'_> = json(payload)?;
                if kind == Kind::TicketUpdated {
                    ticket.sold.ok_or("missing field `sold`")?;
                }
                let fact = TicketFact {
                    seller: ticket.user_id,
                    price: ticket.price_cents,
                    order: ticket.order_id,
                    sold: ticket.sold.unwrap_or_default(),
                    order_version: ticket.order_version,
                };
                Ok(Self { version: ticket.version, about: ticket.id, fact: Fact::Ticket(fact) })
            }
            Kind::OrderCreated => {
                let order: Ordered<'_> = json(payload)?;
                let fact = Fact::Ordered {
                    order: order.id,
                    buyer: order.user_id,
                    price: order.ticket.price_cents,
                    expires_ms: milliseconds(order.expires_at.into()),
                };
                Ok(Self { version: order.version, about: order.ticket.id, fact })
            }
            Kind::OrderAwaitingPayment | Kind::OrderCancelled | Kind::OrderCompleted => {
                let order: OrderChanged = json(payload)?;
                match kind {
                    Kind::OrderCancelled => order.reason.map(drop).ok_or("missing field `reason`")?,
                    _ => order.payment_id.map(drop).ok_or("missing field `paymentId`")?,
                }
                let fact =
                    Fact::OrderChanged { order: order.id, payment: order.payment_id, reason: order.reason };
                Ok(Self { version: order.version, about: order.ticket.id, fact })
            }
            Kind::PaymentRequested => {
                let request: PaymentRequested<'_> = json(payload)?;
                let fact = Fact::PaymentRequested {
                    payment: request.id,
                    buyer: request.user_id,
                    amount: request.amount_cents,
                };
                Ok(Self { version: request.version, about: request.order_id, fact })
            }
            Kind::ExpirationComplete => {
                let expired: Expired = json(payload)?;
                Ok(Self { version: expired.version, about: expired.order_id, fact: Fact::Expired })
            }
            _ => {
                let payment: PaymentChanged<'_> = json(payload)?;
                let settles = matches!(
                    kind,
                    Kind::PaymentActionRequired
                        | Kind::PaymentAuthorized
                        | Kind::PaymentCreated
                        | Kind::PaymentDisputed
                        | Kind::PaymentPartiallyRefunded
                );
                if settles {
                    payment.stripe_id.as_ref().ok_or("missing field `stripeId`")?;
                } else {
                    payment.reason.as_ref().ok_or("missing field `reason`")?;
                }
                if kind == Kind::PaymentPartiallyRefunded {
                    payment.refunded_cents.ok_or("missing field `refundedCents`")?;
                }
                let fact = Fact::PaymentChanged {
                    payment: payment.id,
                    intent: payment.stripe_id.map(Box::from),
                    refunded: payment.refunded_cents.unwrap_or_default(),
                };
                Ok(Self { version: payment.version, about: payment.order_id, fact })
            }
        }
    }
}

fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("a readable payload: {error}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User<'a> {
    id: Uuid,
    #[serde(borrow)]
    email: Option<Cow<'a, str>>,
    #[serde(borrow)]
    password_hash: Option<Cow<'a, str>>,
    epoch: Option<u32>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticket<'a> {
    id: Uuid,
    #[serde(rename = "title", borrow)]
    _title: Cow<'a, str>,
    price_cents: i64,
    user_id: Uuid,
    order_id: Option<Uuid>,
    sold: Option<bool>,
    order_version: Option<u64>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ordered<'a> {
    id: Uuid,
    #[serde(rename = "status", borrow)]
    _status: Cow<'a, str>,
    user_id: Uuid,
    expires_at: Timestamp,
    #[serde(borrow)]
    ticket: OrderedTicket<'a>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderedTicket<'a> {
    id: Uuid,
    #[serde(rename = "title", borrow)]
    _title: Cow<'a, str>,
    price_cents: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderChanged {
    id: Uuid,
    payment_id: Option<Uuid>,
    reason: Option<Reason>,
    ticket: TicketRef,
    version: u64,
}

#[derive(Deserialize)]
struct TicketRef {
    id: Uuid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRequested<'a> {
    id: Uuid,
    order_id: Uuid,
    user_id: Uuid,
    amount_cents: i64,
    #[serde(rename = "currency", borrow)]
    _currency: Cow<'a, str>,
    #[serde(rename = "paymentMethod", borrow)]
    _payment_method: Cow<'a, str>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaymentChanged<'a> {
    id: Uuid,
    order_id: Uuid,
    #[serde(borrow)]
    stripe_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    refunded_cents: Option<i64>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expired {
    order_id: Uuid,
    version: u64,
}

/// What a subject ends with.
fn token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// A token as a key: the id that it is, or one made of its text.
pub(crate) fn key(token: &str) -> Uuid {
    Uuid::from_str(token).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, token.as_bytes()))
}

/// Whether the text is the one spelling of the id.
fn spells(text: &str, id: Uuid) -> bool {
    id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
}

fn milliseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}
