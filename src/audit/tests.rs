//! The rules, on logs made by hand.

use std::collections::HashMap;

use async_nats::HeaderMap;
use contract::{
    Cents, ExpirationEvent, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketEvent, TicketId, UserEvent,
    UserId,
    event::{
        CancelReason, ExpirationComplete, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated,
        OrderStatus, OrderedTicket, PaymentRequested, PaymentSettled, PaymentUnsettled, Sealed,
        TicketCreated, TicketRef, TicketUpdated, UserErased, UserSignedOut, UserSignedUp,
    },
    stream::{
        EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS, expiration_subject, order_subject,
        payment_subject, ticket_subject, user_subject,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    finding::{Code, Finding, Findings, KEPT},
    orders::time,
    verdict::{self, Books, Keys, Moment},
};
use crate::streams::Stored;

const TICKET: TicketId = TicketId(Uuid::from_u128(1));
const SELLER: UserId = UserId(Uuid::from_u128(2));
const BUYER: UserId = UserId(Uuid::from_u128(3));
const A: OrderId = OrderId(Uuid::from_u128(0xA));
const B: OrderId = OrderId(Uuid::from_u128(0xB));

/// When everything was stored that a test says nothing of.
const STORED_MS: i64 = 1_800_000_000_000;
/// When windows end.
const ENDS_MS: i64 = STORED_MS + 900_000;

/// What each stream holds.
#[derive(Default)]
struct Logs {
    streams: HashMap<&'static str, Vec<Stored>>,
    /// The ends as of which is judged, where they are not the streams'.
    judged: HashMap<&'static str, u64>,
    keys: Option<Keys>,
}

impl Logs {
    /// Appends as the services do; returns the event's id.
    fn append<E: Serialize>(
        &mut self,
        stream: Stream,
        subject: &str,
        event: &E,
        cause: Option<Uuid>,
    ) -> Uuid {
        let mut tagged = serde_json::to_value(event).unwrap();
        let (event_type, mut data) = (tagged["type"].as_str().unwrap().to_owned(), tagged["data"].take());
        let id = cause.map_or_else(Uuid::now_v7, |cause| Uuid::new_v5(&cause, event_type.as_bytes()));
        let stored = self.streams.entry(stream.name).or_default();
        data["version"] = stored.iter().filter(|one| one.message.subject.as_str() == subject).count().into();
        data["_trace"] = json!({});
        let mut headers = HeaderMap::new();
        let id_text = id.to_string();
        let time = time(STORED_MS).to_string();
        for (name, value) in [
            ("Nats-Msg-Id", &*id_text),
            ("ce-id", &id_text),
            ("ce-type", &event_type),
            ("ce-source", stream.source),
            ("ce-subject", subject),
            ("ce-time", &time),
            ("ce-schemaversion", "1"),
        ] {
            headers.insert(name, value);
        }
        if let Some(cause) = cause {
            headers.insert("ce-causationid", cause.to_string());
        }
        let payload = serde_json::to_vec(&data).unwrap();
        let message = async_nats::Message {
            subject: subject.into(),
            reply: None,
            length: payload.len(),
            payload: payload.into(),
            headers: Some(headers),
            status: None,
            description: None,
        };
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(STORED_MS) * 1_000_000).unwrap();
        stored.push(Stored { sequence: stored.len() as u64 + 1, time, message });
        id
    }

    fn ticket(&mut self, event: &TicketEvent, cause: Option<Uuid>) -> Uuid {
        self.append(TICKETS, &ticket_subject(TICKET), event, cause)
    }

    fn order(&mut self, event: &OrderEvent, cause: Option<Uuid>) -> Uuid {
        self.append(ORDERS, &order_subject(TICKET), event, cause)
    }

    fn payment(&mut self, event: &PaymentEvent, cause: Option<Uuid>) -> Uuid {
        self.append(PAYMENTS, &payment_subject(A), event, cause)
    }

    /// Changes the payload of a message.
    fn edit(&mut self, stream: &str, sequence: u64, change: impl FnOnce(&mut Value)) {
        let message = &mut self.message(stream, sequence).message;
        let mut data = serde_json::from_slice(&message.payload).unwrap();
        change(&mut data);
        message.payload = serde_json::to_vec(&data).unwrap().into();
    }

    fn message(&mut self, stream: &str, sequence: u64) -> &mut Stored {
        &mut self.streams.get_mut(stream).unwrap()[sequence as usize - 1]
    }

    /// What is found at a moment: code, stream, sequence.
    fn found_at(&self, moment: Moment) -> Vec<(Code, &'static str, u64)> {
        let end = |stream: &Stream| {
            let last = self.streams.get(stream.name).map_or(0, |stored| stored.len() as u64);
            self.judged.get(stream.name).copied().unwrap_or(last)
        };
        let mut books = Books::until([&USERS, &TICKETS, &ORDERS, &PAYMENTS, &EXPIRATIONS].map(end));
        let of = |stream: Stream| self.streams.get(stream.name).map_or(&[][..], Vec::as_slice);
        of(USERS).iter().for_each(|stored| books.users.take(stored));
        of(TICKETS).iter().for_each(|stored| books.tickets.take(stored));
        of(ORDERS).iter().for_each(|stored| books.orders.take(stored));
        of(PAYMENTS).iter().for_each(|stored| books.payments.take(stored));
        of(EXPIRATIONS).iter().for_each(|stored| books.expirations.take(stored));
        let mut found = verdict::conclude(&books, moment, self.keys.as_ref()).findings;
        books.into_findings().into_iter().for_each(|of_a_stream| found.append(of_a_stream));
        let (all, _) = found.sorted(super::by_place);
        let mut all: Vec<_> =
            all.iter().map(|one| (one.code, one.stream, one.sequence.unwrap_or_default())).collect();
        all.sort_unstable();
        all
    }

    /// What is found when nothing is due: only what is wrong whatever comes.
    fn found(&self) -> Vec<(Code, &'static str, u64)> {
        self.found_at(Moment { as_of_ms: STORED_MS, grace_ms: 60_000 })
    }
}

fn payment_of(order: OrderId) -> PaymentId {
    PaymentId(Uuid::from_u128(order.0.as_u128() + 0x100))
}

fn listed() -> TicketEvent {
    TicketEvent::Created(TicketCreated {
        id: TICKET,
        title: "Concert".into(),
        price_cents: Cents(1999),
        user_id: SELLER,
    })
}

fn follows(order: Option<OrderId>, sold: bool, order_version: u64) -> TicketEvent {
    TicketEvent::Updated(TicketUpdated {
        id: TICKET,
        title: "Concert".into(),
        price_cents: Cents(1999),
        user_id: SELLER,
        order_id: order,
        sold,
        order_version: Some(order_version),
    })
}

fn edited(cents: i64) -> TicketEvent {
    TicketEvent::Updated(TicketUpdated {
        id: TICKET,
        title: "Concert".into(),
        price_cents: Cents(cents),
        user_id: SELLER,
        order_id: None,
        sold: false,
        order_version: None,
    })
}

fn created(id: OrderId) -> OrderEvent {
    OrderEvent::Created(OrderCreated {
        id,
        status: OrderStatus::Created,
        user_id: BUYER,
        expires_at: time(ENDS_MS),
        ticket: OrderedTicket { id: TICKET, title: "Concert".into(), price_cents: Cents(1999) },
    })
}

fn awaiting(id: OrderId) -> OrderEvent {
    OrderEvent::AwaitingPayment(OrderAwaitingPayment {
        id,
        payment_id: payment_of(id),
        ticket: TicketRef { id: TICKET },
    })
}

fn completed(id: OrderId) -> OrderEvent {
    OrderEvent::Completed(OrderCompleted { id, payment_id: payment_of(id), ticket: TicketRef { id: TICKET } })
}

fn cancelled(id: OrderId, reason: CancelReason) -> OrderEvent {
    OrderEvent::Cancelled(OrderCancelled { id, reason, ticket: TicketRef { id: TICKET } })
}

fn requested(order: OrderId) -> PaymentEvent {
    PaymentEvent::Requested(PaymentRequested {
        id: payment_of(order),
        order_id: order,
        user_id: BUYER,
        amount_cents: Cents(1999),
        currency: "usd".into(),
        payment_method: "pm_card_visa".into(),
    })
}

fn settled(order: OrderId) -> PaymentSettled {
    PaymentSettled { id: payment_of(order), order_id: order, stripe_id: format!("pi_{order}") }
}

fn unsettled(order: OrderId) -> PaymentUnsettled {
    PaymentUnsettled {
        id: payment_of(order),
        order_id: order,
        stripe_id: Some(format!("pi_{order}")),
        reason: "so".into(),
    }
}

/// Listed, and reserved by `A`: the order's event is what it returns.
fn reserved() -> (Logs, Uuid) {
    let mut logs = Logs::default();
    logs.ticket(&listed(), None);
    let order = logs.order(&created(A), None);
    logs.ticket(&follows(Some(A), false, 0), Some(order));
    (logs, order)
}

/// Bought by `A`.
fn bought() -> Logs {
    let (mut logs, _) = reserved();
    let request = logs.payment(&requested(A), None);
    let authorized = logs.payment(&PaymentEvent::Authorized(settled(A)), Some(request));
    let awaited = logs.order(&awaiting(A), Some(authorized));
    let captured = logs.payment(&PaymentEvent::Created(settled(A)), Some(awaited));
    let order = logs.order(&completed(A), Some(captured));
    logs.ticket(&follows(Some(A), true, 2), Some(order));
    logs
}

/// Bought by `A`, and the money went back.
fn refunded() -> Logs {
    let mut logs = bought();
    let asked = logs.payment(&PaymentEvent::RefundRequested(unsettled(A)), None);
    let gone = logs.payment(&PaymentEvent::Refunded(unsettled(A)), Some(asked));
    let order = logs.order(&cancelled(A, CancelReason::Refunded), Some(gone));
    logs.ticket(&follows(None, false, 3), Some(order));
    logs
}

/// Reserved by `A`, who did not pay.
fn expired() -> Logs {
    let (mut logs, order) = reserved();
    let event = ExpirationEvent::Complete(ExpirationComplete { order_id: A });
    let over = logs.append(EXPIRATIONS, &expiration_subject(A), &event, Some(order));
    logs.message("EXPIRATIONS", 1)
        .message
        .headers
        .as_mut()
        .unwrap()
        .insert("ce-time", time(ENDS_MS).to_string());
    let order = logs.order(&cancelled(A, CancelReason::Expired), Some(over));
    logs.ticket(&follows(None, false, 1), Some(order));
    logs
}

fn check(logs: &Logs, expected: &[(Code, &'static str, u64)]) {
    assert_eq!(logs.found(), expected);
}

/// Long after everything.
const LATE: Moment = Moment { as_of_ms: ENDS_MS + 3_600_000, grace_ms: 60_000 };

#[test]
fn what_went_well_is_sound_whenever_one_looks() {
    for logs in [bought(), refunded(), expired()] {
        assert_eq!(logs.found(), []);
        assert_eq!(logs.found_at(LATE), []);
    }
}

#[test]
fn a_ticket_has_one_holder_at_every_sequence() {
    let (mut logs, _) = reserved();
    logs.order(&created(B), None);
    check(&logs, &[(Code::DoubleSale, "ORDERS", 2)]);
    // Also when the second one gives up, in the end.
    logs.order(&cancelled(B, CancelReason::Buyer), None);
    check(&logs, &[(Code::DoubleSale, "ORDERS", 2)]);
    let mut logs = refunded();
    logs.order(&created(B), None);
    check(&logs, &[]);
}

#[test]
fn versions_have_no_gap_and_no_repetition() {
    for (version, code) in [(7, Code::VersionGap), (0, Code::VersionRepeated)] {
        let (mut logs, _) = reserved();
        logs.order(&cancelled(A, CancelReason::Buyer), None);
        logs.edit("ORDERS", 2, |data| data["version"] = version.into());
        let found = logs.found();
        assert!(found.contains(&(code, "ORDERS", 2)), "{found:?}");
    }
}

#[test]
fn messages_that_are_gone_are_missed() {
    let mut logs = bought();
    logs.streams.get_mut("PAYMENTS").unwrap().remove(1);
    let found = logs.found();
    assert!(found.contains(&(Code::MessagesMissing, "PAYMENTS", 3)), "{found:?}");
    assert!(found.contains(&(Code::VersionGap, "PAYMENTS", 3)), "{found:?}");
    assert!(found.contains(&(Code::CauseUnknown, "ORDERS", 2)), "{found:?}");
}

/// What `svc-orders` decides, and nothing else, is lawful: two statements of the same rules.
#[test]
fn the_table_of_orders_says_what_the_service_decides() {
    use svc_orders::domain;
    type Decide = fn(&domain::TicketOrders) -> Option<OrderEvent>;
    let decisions: [Decide; 6] = [
        |orders| domain::await_payment(orders, A, payment_of(A)),
        |orders| domain::complete(orders, A, payment_of(A)),
        |orders| domain::cancel(orders, A, BUYER).ok().flatten(),
        |orders| domain::expire(orders, A),
        |orders| domain::fail_payment(orders, A),
        |orders| domain::refund(orders, A),
    ];
    let events = [
        awaiting(A),
        completed(A),
        cancelled(A, CancelReason::Buyer),
        cancelled(A, CancelReason::Expired),
        cancelled(A, CancelReason::PaymentFailed),
        cancelled(A, CancelReason::Refunded),
    ];
    let histories = [
        vec![created(A)],
        vec![created(A), awaiting(A)],
        vec![created(A), awaiting(A), completed(A)],
        vec![created(A), cancelled(A, CancelReason::Buyer)],
    ];
    for history in histories {
        let orders = history.iter().fold(domain::TicketOrders::default(), domain::evolve);
        for (decide, event) in decisions.iter().zip(&events) {
            let mut logs = Logs::default();
            for event in history.iter().chain([event]) {
                logs.order(event, None);
            }
            let at = (Code::IllegalTransition, "ORDERS", history.len() as u64 + 1);
            let is_lawful = !logs.found().contains(&at);
            assert_eq!(is_lawful, decide(&orders).is_some(), "{event:?} after {history:?}");
        }
    }
}

#[test]
fn a_payment_goes_its_way() {
    let mut logs = bought();
    logs.payment(&PaymentEvent::Voided(unsettled(A)), None);
    check(&logs, &[(Code::IllegalTransition, "PAYMENTS", 4)]);
    let mut logs = bought();
    logs.payment(&requested(A), None);
    let found = logs.found();
    assert!(found.contains(&(Code::IllegalTransition, "PAYMENTS", 4)), "{found:?}");
    let mut logs = bought();
    logs.edit("PAYMENTS", 3, |data| data["stripeId"] = "pi_of_another".into());
    check(&logs, &[(Code::IllegalTransition, "PAYMENTS", 3)]);
    // After a declined card comes another.
    let (mut logs, _) = reserved();
    let request = logs.payment(&requested(A), None);
    logs.payment(&PaymentEvent::Declined(unsettled(A)), Some(request));
    logs.payment(&requested(A), None);
    logs.edit("PAYMENTS", 3, |data| data["id"] = json!(Uuid::from_u128(99)));
    check(&logs, &[]);
}

#[test]
fn a_ticket_is_edited_while_it_is_free_and_follows_its_orders() {
    let mut logs = Logs::default();
    logs.ticket(&listed(), None);
    logs.ticket(&edited(2500), None);
    check(&logs, &[]);
    logs.ticket(&listed(), None);
    check(&logs, &[(Code::IllegalTransition, "TICKETS", 3)]);
    let (mut logs, order) = reserved();
    logs.ticket(&edited(2500), None);
    let found = logs.found();
    assert!(found.contains(&(Code::IllegalTransition, "TICKETS", 3)), "{found:?}");
    // A stale event that is followed once more.
    let (mut logs, _) = reserved();
    logs.ticket(&follows(Some(A), false, 0), Some(order));
    let found = logs.found();
    assert!(found.contains(&(Code::IllegalTransition, "TICKETS", 3)), "{found:?}");
}

#[test]
fn an_order_is_over_when_its_window_is() {
    let (logs, _) = reserved();
    let at = |as_of_ms| logs.found_at(Moment { as_of_ms, grace_ms: 60_000 });
    assert_eq!(at(ENDS_MS + 60_000), []);
    assert_eq!(at(ENDS_MS + 60_001), [(Code::OrderOverdue, "ORDERS", 1)]);
}

#[test]
fn a_completed_order_has_one_captured_payment_of_its_amount() {
    let mut logs = bought();
    logs.edit("PAYMENTS", 1, |data| data["amountCents"] = 1.into());
    check(&logs, &[(Code::PaymentUnfit, "PAYMENTS", 1)]);
    let mut logs = bought();
    logs.edit("ORDERS", 3, |data| data["paymentId"] = json!(Uuid::from_u128(99)));
    check(&logs, &[(Code::CompletedUnpaid, "ORDERS", 3)]);
    let mut logs = bought();
    let second = json!(Uuid::from_u128(99));
    let request = logs.payment(&requested(A), None);
    logs.payment(&PaymentEvent::Created(settled(A)), Some(request));
    for sequence in [4, 5] {
        logs.edit("PAYMENTS", sequence, |data| data["id"] = second.clone());
    }
    check(&logs, &[(Code::IllegalTransition, "PAYMENTS", 4), (Code::PaidTwice, "ORDERS", 3)]);
}

#[test]
fn captured_money_is_for_a_completed_order() {
    let (mut logs, _) = reserved();
    let request = logs.payment(&requested(A), None);
    let order = logs.order(&cancelled(A, CancelReason::Buyer), None);
    logs.ticket(&follows(None, false, 1), Some(order));
    logs.payment(&PaymentEvent::Created(settled(A)), Some(request));
    check(&logs, &[]);
    assert_eq!(logs.found_at(LATE), [(Code::CapturedInVain, "PAYMENTS", 2)]);
    let asked = logs.payment(&PaymentEvent::RefundRequested(unsettled(A)), None);
    assert_eq!(logs.found_at(LATE), [(Code::PaymentUnsettled, "PAYMENTS", 3)]);
    logs.payment(&PaymentEvent::Refunded(unsettled(A)), Some(asked));
    assert_eq!(logs.found_at(LATE), []);
}

#[test]
fn a_refund_undoes_the_sale() {
    let mut logs = bought();
    let asked = logs.payment(&PaymentEvent::RefundRequested(unsettled(A)), None);
    logs.payment(&PaymentEvent::Refunded(unsettled(A)), Some(asked));
    check(&logs, &[]);
    assert_eq!(logs.found_at(LATE), [(Code::RefundUnheeded, "ORDERS", 3)]);
}

#[test]
fn a_ticket_shows_its_order_in_the_end() {
    let mut logs = bought();
    logs.streams.get_mut("TICKETS").unwrap().truncate(2);
    check(&logs, &[]);
    assert_eq!(logs.found_at(LATE), [(Code::TicketDisagrees, "TICKETS", 2)]);
    let mut logs = bought();
    logs.edit("TICKETS", 3, |data| data["sold"] = false.into());
    check(&logs, &[(Code::CauseUnfit, "TICKETS", 3), (Code::TicketDisagrees, "TICKETS", 3)]);
    let mut logs = bought();
    logs.edit("TICKETS", 3, |data| data["orderVersion"] = 9.into());
    check(&logs, &[(Code::CauseUnfit, "TICKETS", 3), (Code::TicketDisagrees, "TICKETS", 3)]);
}

#[test]
fn an_order_is_for_a_listed_ticket_at_a_price_that_it_had() {
    let mut logs = Logs::default();
    logs.order(&created(A), None);
    check(&logs, &[(Code::OrderUnfit, "ORDERS", 1)]);
    logs.ticket(&listed(), None);
    logs.ticket(&edited(2500), None);
    check(&logs, &[]);
    logs.edit("ORDERS", 1, |data| data["ticket"]["priceCents"] = 1.into());
    check(&logs, &[(Code::OrderUnfit, "ORDERS", 1)]);
}

#[test]
fn causes_are_there_and_fit() {
    let (mut logs, _) = reserved();
    logs.order(&cancelled(A, CancelReason::Expired), None);
    check(&logs, &[(Code::CauseMissing, "ORDERS", 2)]);
    let (mut logs, order) = reserved();
    logs.order(&cancelled(A, CancelReason::Expired), Some(order));
    check(&logs, &[(Code::CauseUnfit, "ORDERS", 2)]);
    let mut logs = expired();
    logs.streams.remove("EXPIRATIONS");
    check(&logs, &[(Code::CauseUnknown, "ORDERS", 2)]);
    // What is not judged may have a cause that was not read yet.
    logs.judged.insert("ORDERS", 1);
    check(&logs, &[]);
}

#[test]
fn an_order_awaits_the_payment_that_was_authorized() {
    let mut logs = bought();
    logs.edit("ORDERS", 2, |data| data["paymentId"] = json!(Uuid::from_u128(99)));
    check(&logs, &[(Code::CauseUnfit, "ORDERS", 2)]);
}

#[test]
fn a_window_is_no_longer_than_a_week() {
    const WEEK_MS: i64 = 7 * 24 * 3_600_000;
    let (mut logs, _) = reserved();
    logs.edit("ORDERS", 1, |data| data["expiresAt"] = json!(time(STORED_MS + WEEK_MS)));
    check(&logs, &[]);
    logs.edit("ORDERS", 1, |data| data["expiresAt"] = json!(time(STORED_MS + WEEK_MS + 1)));
    check(&logs, &[(Code::WindowUnfit, "ORDERS", 1)]);
}

#[test]
fn of_many_findings_the_first_are_told_and_the_rest_are_counted() {
    let finding = |code, sequence| Finding {
        code,
        stream: "ORDERS",
        sequence: Some(sequence),
        subject: String::new(),
        explanation: String::new(),
    };
    let (mut some, mut more) = (Findings::default(), Findings::default());
    for sequence in 1..=KEPT + 5 {
        some.push(finding(Code::DoubleSale, sequence + 1));
    }
    more.push(finding(Code::DoubleSale, 1));
    more.push(finding(Code::VersionGap, 7));
    some.append(more);
    let (told, counts) = some.sorted(super::by_place);
    assert_eq!(told.len() as u64, KEPT + 1);
    assert_eq!((told[0].code, told[0].sequence), (Code::DoubleSale, Some(1)));
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(Code::VersionGap, 1), (Code::DoubleSale, KEPT + 6)]);
}

#[test]
fn ids_are_unique_and_derived() {
    let (mut logs, _) = reserved();
    let id = Uuid::from_u128(5).to_string();
    let headers = logs.message("TICKETS", 2).message.headers.as_mut().unwrap();
    headers.insert("ce-id", &*id);
    headers.insert("Nats-Msg-Id", &*id);
    check(&logs, &[(Code::IdNotDerived, "TICKETS", 2)]);
    let (mut logs, order) = reserved();
    let headers = logs.message("TICKETS", 1).message.headers.as_mut().unwrap();
    headers.insert("ce-id", order.to_string());
    headers.insert("Nats-Msg-Id", order.to_string());
    assert_eq!(logs.found().iter().filter(|(code, ..)| *code == Code::IdRepeated).count(), 1);
}

#[test]
fn headers_and_payload_are_about_the_subject() {
    for (name, value) in [("ce-source", "svc-x"), ("ce-subject", "ticketing.orders.x"), ("Nats-Msg-Id", "x")]
    {
        let (mut logs, _) = reserved();
        logs.message("ORDERS", 1).message.headers.as_mut().unwrap().insert(name, value);
        check(&logs, &[(Code::HeaderUnfit, "ORDERS", 1)]);
    }
    let (mut logs, _) = reserved();
    logs.edit("TICKETS", 1, |data| data["id"] = json!(Uuid::from_u128(99)));
    check(&logs, &[(Code::SubjectUnfit, "TICKETS", 1)]);
}

#[test]
fn what_is_no_event_is_told() {
    let (mut logs, _) = reserved();
    logs.order(&cancelled(A, CancelReason::Buyer), None);
    let message = &mut logs.message("ORDERS", 2).message;
    message.payload = "{}".into();
    check(&logs, &[(Code::Unreadable, "ORDERS", 2)]);
    let headers = logs.message("ORDERS", 2).message.headers.as_mut().unwrap();
    headers.insert("ce-type", "ticket:created");
    check(&logs, &[(Code::Unreadable, "ORDERS", 2)]);
}

#[test]
fn no_window_ends_early() {
    let mut logs = expired();
    let headers = logs.message("EXPIRATIONS", 1).message.headers.as_mut().unwrap();
    headers.insert("ce-time", time(ENDS_MS - 1).to_string());
    check(&logs, &[(Code::ExpirationUnfit, "EXPIRATIONS", 1)]);
}

#[test]
fn an_address_is_one_persons_and_who_is_erased_has_no_key() {
    let signed_up = |id| {
        let sealed = || Sealed("00".into());
        UserEvent::SignedUp(UserSignedUp { id, email: sealed(), password_hash: sealed() })
    };
    let mut logs = Logs::default();
    let subject = user_subject("00ff");
    logs.append(USERS, &subject, &signed_up(SELLER), None);
    logs.append(USERS, &subject, &UserEvent::Erased(UserErased { id: SELLER }), None);
    logs.append(USERS, &subject, &signed_up(BUYER), None);
    logs.keys = Some(Keys::from([(SELLER.0, false), (BUYER.0, true)]));
    check(&logs, &[]);
    logs.keys = Some(Keys::from([(SELLER.0, true), (BUYER.0, true)]));
    check(&logs, &[(Code::KeyKept, "USERS", 2)]);
    logs.keys = None;
    check(&logs, &[(Code::KeysMissing, "USERS", 0)]);
    logs.keys = Some(Keys::from([(SELLER.0, false), (BUYER.0, true)]));
    logs.append(USERS, &subject, &signed_up(UserId(Uuid::from_u128(9))), None);
    logs.append(USERS, &subject, &UserEvent::Erased(UserErased { id: SELLER }), None);
    check(&logs, &[(Code::IllegalTransition, "USERS", 4), (Code::IllegalTransition, "USERS", 5)]);
}

#[test]
fn sessions_end_one_epoch_after_the_other() {
    let signed_up =
        UserSignedUp { id: SELLER, email: Sealed("00".into()), password_hash: Sealed("00".into()) };
    let signed_out = |id, epoch| UserEvent::SignedOut(UserSignedOut { id, epoch });
    let mut logs = Logs::default();
    let subject = user_subject("00ff");
    logs.append(USERS, &subject, &UserEvent::SignedUp(signed_up), None);
    logs.append(USERS, &subject, &signed_out(SELLER, 1), None);
    logs.append(USERS, &subject, &signed_out(SELLER, 2), None);
    logs.keys = Some(Keys::from([(SELLER.0, true)]));
    check(&logs, &[]);
    logs.append(USERS, &subject, &signed_out(SELLER, 4), None);
    logs.append(USERS, &subject, &signed_out(BUYER, 5), None);
    check(&logs, &[(Code::IllegalTransition, "USERS", 4), (Code::IllegalTransition, "USERS", 5)]);
}
