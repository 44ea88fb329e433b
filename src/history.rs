//! `ticketing history`: what happened to a ticket, an order or a user over all streams, and how it stood then.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    ops::ControlFlow,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use contract::{
    Cents, ExpirationEvent, OrderEvent, OrderId, PaymentEvent, TicketEvent, TicketId, Timestamp, UserEvent,
    UserId,
    event::OrderStatus,
    stream::{
        EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS, expiration_subject, order_subject,
        payment_subject, ticket_subject,
    },
};
use eventstore::{Connection, TRACE_FIELD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;
use web::Env;

use crate::{
    say,
    streams::{self, At, Reading, Stored},
};

/// How far the clock that made an id may have been ahead of the server's.
const SKEW: Duration = Duration::from_secs(3600);

/// Whose history, and until when.
#[derive(Args)]
pub struct History {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its id
    id: Uuid,
    /// As of then: a time (2026-11-22T05:23:55Z), or the sequence of an event on the stream of what it is: TICKETS,
    /// ORDERS, USERS
    #[arg(long, value_name = "SEQUENCE|TIME")]
    at: Option<Then>,
    #[command(flatten)]
    nats: At,
    /// Tells it as one JSON document
    #[arg(long)]
    json: bool,
}

/// What has a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Its own events, and its orders'
    Ticket,
    /// Its own events, its payments' and its deadline's
    Order,
    /// Their account, what they listed, ordered and paid
    User,
}

impl Kind {
    /// The stream that a sequence is one of.
    fn stream(self) -> Stream {
        match self {
            Kind::Ticket => TICKETS,
            Kind::Order => ORDERS,
            Kind::User => USERS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Ticket => "ticket",
            Kind::Order => "order",
            Kind::User => "user",
        }
    }
}

/// A moment in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Sequence(u64),
    Time(OffsetDateTime),
}

impl FromStr for Then {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sequence = text.parse().ok().filter(|sequence| *sequence > 0).map(Then::Sequence);
        let time = || OffsetDateTime::parse(text, &Rfc3339).ok().map(Then::Time);
        sequence.or_else(time).ok_or("neither a sequence from 1 nor a time like 2026-11-22T05:23:55Z")
    }
}

impl History {
    /// Reads, and tells.
    ///
    /// # Errors
    /// When it cannot be read, or there is nothing to tell.
    pub async fn run(self, env: &Env) -> anyhow::Result<ExitCode> {
        let Self { kind, id, at, nats, json } = self;
        let connection = streams::connect(&nats.settings(env, "ticketing-history")?).await?;
        let as_of = match at {
            None => OffsetDateTime::now_utc(),
            Some(Then::Time(time)) => time,
            Some(Then::Sequence(sequence)) => {
                let stream = kind.stream().name;
                let stored = streams::stored_at(&connection, stream, sequence).await?;
                stored.with_context(|| format!("{stream} has no event at sequence {sequence}"))?
            }
        };
        let mut events = match kind {
            Kind::Ticket => of_ticket(&connection, TicketId(id)).await?,
            Kind::Order => of_order(&connection, OrderId(id)).await?,
            Kind::User => of_user(&connection, UserId(id)).await?,
        };
        if events.is_empty() {
            bail!("the log has no {} {id}", kind.name());
        }
        events.retain(|event| event.time <= as_of);
        events.sort_by_key(|event| (event.time, event.sequence));
        let state = match kind {
            Kind::Ticket => ticket_state(&events),
            Kind::Order => order_state(&events),
            Kind::User => user_state(&events, UserId(id)),
        };
        let told = Told { kind: kind.name(), id, as_of: Timestamp::from(as_of), events, state };
        say(&if json { serde_json::to_string_pretty(&told)? } else { told.text() });
        Ok(ExitCode::SUCCESS)
    }
}

/// Something that happened.
#[derive(Debug, Serialize)]
struct Event {
    #[serde(serialize_with = "to_the_millisecond")]
    time: OffsetDateTime,
    stream: &'static str,
    sequence: u64,
    version: Option<u64>,
    #[serde(rename = "type")]
    name: String,
    #[serde(rename = "causationId", skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    data: Value,
    /// What it says; `None` when it cannot be read.
    #[serde(skip)]
    fact: Option<Fact>,
}

fn to_the_millisecond<S: serde::Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    Timestamp::from(*time).serialize(serializer)
}

/// An event of any stream.
#[derive(Debug)]
enum Fact {
    User(UserEvent),
    Ticket(TicketEvent),
    Order(OrderEvent),
    Payment(PaymentEvent),
    Expiration(ExpirationEvent),
}

impl Event {
    fn of(stream: &'static Stream, stored: &Stored) -> Self {
        let header = |name: &str| {
            let value = stored.message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(|value| value.as_str().to_owned())
        };
        let name = header("ce-type").unwrap_or_else(|| "?".into());
        let mut data = serde_json::from_slice(&stored.message.payload).unwrap_or(Value::Null);
        let fact = Fact::of(stream, &name, &data);
        let version = data["version"].as_u64();
        if let Some(data) = data.as_object_mut() {
            data.remove("version");
            data.remove(TRACE_FIELD);
        }
        let (time, sequence, cause) = (stored.time, stored.sequence, header("ce-causationid"));
        Self { time, stream: stream.name, sequence, version, name, cause, data, fact }
    }
}

impl Fact {
    fn of(stream: &Stream, name: &str, data: &Value) -> Option<Self> {
        fn read<E: DeserializeOwned>(name: &str, data: &Value) -> Option<E> {
            serde_json::from_value(json!({ "type": name, "data": data })).ok()
        }
        match *stream {
            USERS => read(name, data).map(Fact::User),
            TICKETS => read(name, data).map(Fact::Ticket),
            ORDERS => read(name, data).map(Fact::Order),
            PAYMENTS => read(name, data).map(Fact::Payment),
            _ => read(name, data).map(Fact::Expiration),
        }
    }

    /// What the event's type leaves open, in words.
    fn words(&self) -> String {
        match self {
            Fact::User(_) => String::new(),
            Fact::Expiration(ExpirationEvent::Complete(event)) => format!("order {}", event.order_id),
            Fact::Ticket(TicketEvent::Created(ticket)) => {
                format!("{:?} for {}, by {}", ticket.title, dollars(ticket.price_cents), ticket.user_id)
            }
            Fact::Ticket(TicketEvent::Updated(ticket)) => {
                let holder = match (ticket.order_id, ticket.sold) {
                    (None, _) => "for sale".to_owned(),
                    (Some(order), false) => format!("reserved by order {order}"),
                    (Some(order), true) => format!("sold to order {order}"),
                };
                format!("{:?} for {}, {holder}", ticket.title, dollars(ticket.price_cents))
            }
            Fact::Order(OrderEvent::Created(order)) => {
                let (id, buyer, until) = (order.id, order.user_id, order.expires_at);
                format!("order {id} by {buyer} for {} until {until}", dollars(order.ticket.price_cents))
            }
            Fact::Order(OrderEvent::AwaitingPayment(order)) => {
                format!("order {}, payment {}", order.id, order.payment_id)
            }
            Fact::Order(OrderEvent::Completed(order)) => {
                format!("order {}, payment {}", order.id, order.payment_id)
            }
            Fact::Order(OrderEvent::Cancelled(order)) => format!("order {}, {:?}", order.id, order.reason),
            Fact::Payment(payment) => payment_words(payment),
        }
    }
}

fn payment_words(payment: &PaymentEvent) -> String {
    match payment {
        PaymentEvent::Requested(payment) => {
            let amount = dollars(payment.amount_cents);
            format!("payment {} of {amount} {} with {}", payment.id, payment.currency, payment.payment_method)
        }
        PaymentEvent::ActionRequired(payment)
        | PaymentEvent::Authorized(payment)
        | PaymentEvent::Created(payment)
        | PaymentEvent::Disputed(payment) => format!("payment {} at {}", payment.id, payment.stripe_id),
        PaymentEvent::Declined(payment)
        | PaymentEvent::Voided(payment)
        | PaymentEvent::RefundRequested(payment)
        | PaymentEvent::RefundFailed(payment)
        | PaymentEvent::Refunded(payment) => format!("payment {}: {}", payment.id, payment.reason),
        PaymentEvent::PartiallyRefunded(payment) => {
            format!("payment {}, {} in all", payment.id, dollars(payment.refunded_cents))
        }
    }
}

fn dollars(Cents(cents): Cents) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// All events of one subject.
async fn of_subject(
    connection: &Connection,
    stream: &'static Stream,
    subject: &str,
) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    if streams::end(connection, stream.name).await?.is_none() {
        return Ok(events);
    }
    let Some(until) = streams::last_of(connection, stream.name, subject).await? else { return Ok(events) };
    let what = Reading { subject: Some(subject), ..Reading::all(stream.name, until) };
    streams::read(connection, what, async |batch| {
        events.extend(batch.iter().map(|stored| Event::of(stream, stored)));
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(events)
}

/// All events of a stream since then that `wanted` wants, until it breaks off.
async fn search(
    connection: &Connection,
    stream: &'static Stream,
    since: Option<OffsetDateTime>,
    mut wanted: impl FnMut(&Stored) -> (bool, ControlFlow<()>),
) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    let until = streams::end(connection, stream.name).await?.unwrap_or_default();
    if until == 0 {
        return Ok(events);
    }
    if let Some(since) = since
        && streams::stored_at(connection, stream.name, until).await?.is_some_and(|last| last < since)
    {
        return Ok(events);
    }
    let what = Reading { since, ..Reading::all(stream.name, until) };
    streams::read(connection, what, async |batch| {
        for stored in &batch {
            let (is_wanted, goes_on) = wanted(stored);
            if is_wanted {
                events.push(Event::of(stream, stored));
            }
            if goes_on.is_break() {
                return Ok(goes_on);
            }
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(events)
}

async fn of_ticket(connection: &Connection, ticket: TicketId) -> anyhow::Result<Vec<Event>> {
    let (own, orders) = (ticket_subject(ticket), order_subject(ticket));
    let (mut events, orders) =
        tokio::try_join!(of_subject(connection, &TICKETS, &own), of_subject(connection, &ORDERS, &orders))?;
    events.extend(orders);
    Ok(events)
}

async fn of_order(connection: &Connection, order: OrderId) -> anyhow::Result<Vec<Event>> {
    // Its subject is its ticket's, which only its first event tells. That was stored soon after the id was made.
    let mut first = find_order(connection, order, made_at(order.0)).await?;
    if first.is_empty() {
        first = find_order(connection, order, None).await?;
    }
    let Some(Event { fact: Some(Fact::Order(OrderEvent::Created(created))), .. }) = first.first() else {
        return Ok(Vec::new());
    };
    let (orders, payments, expirations) =
        (order_subject(created.ticket.id), payment_subject(order), expiration_subject(order));
    let (mut events, payments, expirations) = tokio::try_join!(
        of_subject(connection, &ORDERS, &orders),
        of_subject(connection, &PAYMENTS, &payments),
        of_subject(connection, &EXPIRATIONS, &expirations),
    )?;
    events.retain(|event| matches!(&event.fact, Some(Fact::Order(event)) if order_of(event) == order));
    events.extend(payments);
    events.extend(expirations);
    Ok(events)
}

async fn find_order(
    connection: &Connection,
    order: OrderId,
    since: Option<OffsetDateTime>,
) -> anyhow::Result<Vec<Event>> {
    let is_it = |stored: &Stored| match Ids::of(stored).id == Some(order.0) {
        true => (true, ControlFlow::Break(())),
        false => (false, ControlFlow::Continue(())),
    };
    search(connection, &ORDERS, since, is_it).await
}

async fn of_user(connection: &Connection, user: UserId) -> anyhow::Result<Vec<Event>> {
    // Nobody does anything before they have an id. Without their sign-up the search may have begun too late.
    let since = made_at(user.0);
    let events = find_user(connection, user, since).await?;
    let signs_up = |event: &Event| matches!(event.fact, Some(Fact::User(UserEvent::SignedUp(_))));
    match since {
        Some(_) if !events.iter().any(signs_up) => find_user(connection, user, None).await,
        _ => Ok(events),
    }
}

async fn find_user(
    connection: &Connection,
    user: UserId,
    since: Option<OffsetDateTime>,
) -> anyhow::Result<Vec<Event>> {
    let goes_on = ControlFlow::Continue(());
    let mut ordered = HashSet::new();
    let (mut events, tickets, orders) = tokio::try_join!(
        search(connection, &USERS, since, |stored| (Ids::of(stored).id == Some(user.0), goes_on)),
        search(connection, &TICKETS, since, |stored| (Ids::of(stored).user_id == Some(user.0), goes_on)),
        search(connection, &ORDERS, since, |stored| {
            let ids = Ids::of(stored);
            if ids.user_id == Some(user.0) {
                ordered.extend(ids.id);
            }
            (ids.id.is_some_and(|order| ordered.contains(&order)), goes_on)
        }),
    )?;
    let of_their_order =
        |stored: &Stored| (Ids::of(stored).order_id.is_some_and(|order| ordered.contains(&order)), goes_on);
    let (payments, expirations) = tokio::try_join!(
        search(connection, &PAYMENTS, since, of_their_order),
        search(connection, &EXPIRATIONS, since, of_their_order),
    )?;
    for of_a_stream in [tickets, orders, payments, expirations] {
        events.extend(of_a_stream);
    }
    Ok(events)
}

/// Whom an event names.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ids {
    id: Option<Uuid>,
    order_id: Option<Uuid>,
    user_id: Option<Uuid>,
}

impl Ids {
    /// Nobody, if it is no event.
    fn of(stored: &Stored) -> Self {
        serde_json::from_slice(&stored.message.payload).unwrap_or_default()
    }
}

/// Before when nothing can be about the id: a UUIDv7 has the time when it was made.
fn made_at(id: Uuid) -> Option<OffsetDateTime> {
    let (seconds, _) = id.get_timestamp()?.to_unix();
    let made = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    made.checked_sub(SKEW.try_into().ok()?)
}

fn order_of(event: &OrderEvent) -> OrderId {
    match event {
        OrderEvent::Created(order) => order.id,
        OrderEvent::AwaitingPayment(order) => order.id,
        OrderEvent::Cancelled(order) => order.id,
        OrderEvent::Completed(order) => order.id,
    }
}

/// How something stood: named values, in the order in which they are told.
type State = Vec<(&'static str, Value)>;

/// Once named twice, the later value counts, in the earlier one's place.
fn put(state: &mut State, name: &'static str, value: impl Into<Value>) {
    let value = value.into();
    match state.iter_mut().find(|(known, _)| *known == name) {
        Some((_, before)) => *before = value,
        None => state.push((name, value)),
    }
}

fn ticket_state(events: &[Event]) -> State {
    let mut state = vec![("status", json!("not listed"))];
    for event in events {
        match &event.fact {
            Some(Fact::Ticket(TicketEvent::Created(ticket))) => {
                put(&mut state, "status", "available");
                put(&mut state, "title", ticket.title.clone());
                put(&mut state, "price", dollars(ticket.price_cents));
                put(&mut state, "seller", ticket.user_id.to_string());
                put(&mut state, "order", Value::Null);
            }
            Some(Fact::Ticket(TicketEvent::Updated(ticket))) => {
                let status = match (ticket.order_id, ticket.sold) {
                    (None, _) => "available",
                    (Some(_), false) => "reserved",
                    (Some(_), true) => "sold",
                };
                put(&mut state, "status", status);
                put(&mut state, "title", ticket.title.clone());
                put(&mut state, "price", dollars(ticket.price_cents));
                put(&mut state, "order", ticket.order_id.map(|order| order.to_string()));
            }
            _ => continue,
        }
        put(&mut state, "version", event.version);
    }
    state
}

fn order_state(events: &[Event]) -> State {
    let mut state = vec![("status", json!("not created"))];
    for event in events {
        match &event.fact {
            Some(Fact::Order(event)) => {
                put(&mut state, "status", json!(status_after(event)));
                match event {
                    OrderEvent::Created(order) => {
                        put(&mut state, "buyer", order.user_id.to_string());
                        put(&mut state, "ticket", order.ticket.id.to_string());
                        put(&mut state, "title", order.ticket.title.clone());
                        put(&mut state, "price", dollars(order.ticket.price_cents));
                        put(&mut state, "expiresAt", order.expires_at.to_string());
                    }
                    OrderEvent::Cancelled(order) => put(&mut state, "reason", json!(order.reason)),
                    OrderEvent::AwaitingPayment(_) | OrderEvent::Completed(_) => {}
                }
            }
            Some(Fact::Payment(payment)) => {
                if let PaymentEvent::Requested(payment) = payment {
                    put(&mut state, "payment", payment.id.to_string());
                }
                put(&mut state, "paymentStatus", event.name.trim_start_matches("payment:"));
                continue;
            }
            _ => continue,
        }
        put(&mut state, "version", event.version);
    }
    state
}

fn status_after(event: &OrderEvent) -> OrderStatus {
    match event {
        OrderEvent::Created(_) => OrderStatus::Created,
        OrderEvent::AwaitingPayment(_) => OrderStatus::AwaitingPayment,
        OrderEvent::Cancelled(_) => OrderStatus::Cancelled,
        OrderEvent::Completed(_) => OrderStatus::Complete,
    }
}

fn user_state(events: &[Event], user: UserId) -> State {
    let mut state = vec![("account", json!("none"))];
    let (mut listed, mut sold) = (HashSet::new(), BTreeMap::new());
    let (mut orders, mut paid) = (BTreeMap::new(), BTreeMap::new());
    let mut amounts = BTreeMap::new();
    for event in events {
        match &event.fact {
            Some(Fact::User(UserEvent::SignedUp(_))) => put(&mut state, "account", "signed up"),
            Some(Fact::User(UserEvent::SignedOut(_))) => put(&mut state, "account", "signed up"),
            Some(Fact::User(UserEvent::Erased(_))) => put(&mut state, "account", "erased"),
            Some(Fact::Ticket(TicketEvent::Created(ticket))) if ticket.user_id == user => {
                listed.insert(ticket.id);
            }
            Some(Fact::Ticket(TicketEvent::Updated(ticket))) => {
                sold.insert(ticket.id, ticket.sold);
            }
            Some(Fact::Order(event)) => {
                orders.insert(
                    order_of(event),
                    json!(status_after(event)).as_str().unwrap_or_default().to_owned(),
                );
            }
            Some(Fact::Payment(PaymentEvent::Requested(payment))) => {
                amounts.insert(payment.id, payment.amount_cents);
            }
            Some(Fact::Payment(PaymentEvent::Created(payment))) => {
                paid.insert(payment.id, amounts.get(&payment.id).copied().unwrap_or(Cents(0)));
            }
            Some(Fact::Payment(PaymentEvent::Refunded(payment))) => {
                paid.remove(&payment.id);
            }
            _ => {}
        }
    }
    put(&mut state, "ticketsListed", listed.len());
    put(&mut state, "ticketsSold", sold.values().filter(|sold| **sold).count());
    let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
    for status in orders.into_values() {
        *by_status.entry(status).or_default() += 1;
    }
    put(&mut state, "orders", json!(by_status));
    put(&mut state, "paid", dollars(Cents(paid.values().map(|Cents(cents)| cents).sum())));
    state
}

/// All that is told.
struct Told {
    kind: &'static str,
    id: Uuid,
    as_of: Timestamp,
    events: Vec<Event>,
    state: State,
}

impl Serialize for Told {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state: Map<String, Value> =
            self.state.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (kind, id, as_of, events) = (self.kind, self.id, self.as_of, &self.events);
        json!({ "kind": kind, "id": id, "asOf": as_of, "events": events, "state": state })
            .serialize(serializer)
    }
}

impl Told {
    fn text(&self) -> String {
        let mut text = format!("{} {} as of {}\n\n", self.kind, self.id, self.as_of);
        let header = ["time", "stream", "sequence", "version", "event", ""].map(str::to_owned);
        let row = |event: &Event| {
            let version = event.version.map_or(String::new(), |version| version.to_string());
            let words = event.fact.as_ref().map_or("it cannot be read".into(), Fact::words);
            let time = Timestamp::from(event.time).to_string();
            [time, event.stream.to_owned(), event.sequence.to_string(), version, event.name.clone(), words]
        };
        let rows: Vec<_> = [header].into_iter().chain(self.events.iter().map(row)).collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 5] = std::array::from_fn(width);
        for [time, stream, sequence, version, event, words] in &rows {
            let [a, b, c, d, e] = widths;
            let line = format!("{time:a$}  {stream:b$}  {sequence:>c$}  {version:>d$}  {event:e$}  {words}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
        for (name, value) in &self.state {
            let value = match value {
                Value::Null => "none".to_owned(),
                Value::String(value) => value.clone(),
                value => value.to_string(),
            };
            let _ = writeln!(text, "{name:<14}  {value}");
        }
        text.trim_end().to_owned()
    }
}
