//! ORDERS: at most one order of a ticket is alive or complete at any sequence, and an order goes its way.

use std::collections::HashMap;

use contract::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    book::Fold,
    finding::Code,
    record::{Fact, Kind, Reason, Record, Wrong},
};

/// The longest window that is believed, in milliseconds: 7 days. `EXPIRATION_WINDOW_SECONDS` is 900 unless somebody says
/// otherwise, and has no maximum.
const LONGEST_WINDOW_MS: i64 = 7 * 24 * 3_600_000;

/// What ORDERS says.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) orders: HashMap<Uuid, Order>,
    pub(crate) tickets: HashMap<Uuid, Held>,
}

/// An order.
pub(crate) struct Order {
    pub(crate) ticket: Uuid,
    pub(crate) buyer: Uuid,
    pub(crate) price: i64,
    pub(crate) expires_ms: i64,
    pub(crate) status: Status,
    /// The sequence of its first event.
    pub(crate) created: u64,
    /// The sequence of its last event, and when that was stored.
    pub(crate) last: (u64, i64),
    /// The sequence at which it was completed, and the payment that it names.
    pub(crate) completed: Option<(u64, Uuid)>,
}

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    AwaitingPayment,
    Complete,
    Cancelled,
}

/// Who holds a ticket.
#[derive(Default)]
pub(crate) struct Held {
    /// The orders that are alive or complete: one, or the log is broken.
    holders: Vec<Uuid>,
    /// The last event that the ticket has to show.
    pub(crate) shown: Option<Shown>,
}

/// What a ticket has to show from an order's event on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The event's version.
    pub(crate) version: u64,
    /// When it was stored.
    pub(crate) stored_ms: i64,
    /// Which order holds it, and whether it bought it.
    pub(crate) order: Option<Uuid>,
    pub(crate) sold: bool,
}

/// What may follow what: the event, why an order is cancelled, and from where it gets there.
const LAWFUL: [(Kind, Option<Reason>, &[Status]); 6] = [
    (Kind::OrderAwaitingPayment, None, &[Status::Created]),
    // The payment's events may overtake each other.
    (Kind::OrderCompleted, None, &[Status::Created, Status::AwaitingPayment]),
    (Kind::OrderCancelled, Some(Reason::Buyer), &[Status::Created]),
    (Kind::OrderCancelled, Some(Reason::Expired), &[Status::Created]),
    (Kind::OrderCancelled, Some(Reason::PaymentFailed), &[Status::Created, Status::AwaitingPayment]),
    (
        Kind::OrderCancelled,
        Some(Reason::Refunded),
        &[Status::Created, Status::AwaitingPayment, Status::Complete],
    ),
];

impl Fold for Orders {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let (id, status) = match record.fact {
            Fact::Ordered { order: id, buyer, price, expires_ms } => {
                if expires_ms.saturating_sub(record.told_ms) > LONGEST_WINDOW_MS {
                    let (told, end) = (time(record.told_ms), time(expires_ms));
                    let what = format!("order {id} of {told} ends at {end}, more than 7 days later");
                    wrong.push((Code::WindowUnfit, what));
                }
                let order = Order {
                    ticket: record.key,
                    buyer,
                    price,
                    expires_ms,
                    status: Status::Created,
                    created: record.sequence,
                    last: (record.sequence, record.stored_ms),
                    completed: None,
                };
                if let Some(before) = self.orders.insert(id, order) {
                    let what = format!("order {id} was created before, at {}", before.created);
                    wrong.push((Code::IllegalTransition, what));
                }
                (id, Status::Created)
            }
            Fact::OrderChanged { order: id, payment, reason } => {
                let status = match record.kind {
                    Kind::OrderAwaitingPayment => Status::AwaitingPayment,
                    Kind::OrderCompleted => Status::Complete,
                    _ => Status::Cancelled,
                };
                let Some(order) = self.orders.get_mut(&id) else {
                    wrong.push((Code::IllegalTransition, format!("order {id} was never created")));
                    return;
                };
                if order.ticket != record.key {
                    let what = format!("order {id} is for ticket {}", order.ticket);
                    wrong.push((Code::IllegalTransition, what));
                }
                let kind = record.kind;
                let lawful = LAWFUL.iter().any(|(event, why, from)| {
                    (*event, *why) == (kind, reason) && from.contains(&order.status)
                });
                if !lawful {
                    let why = reason.map_or(String::new(), |reason| format!(" ({reason:?})"));
                    let what = format!("{kind}{why} of order {id}, which is {:?}", order.status);
                    wrong.push((Code::IllegalTransition, what));
                }
                order.status = status;
                order.last = (record.sequence, record.stored_ms);
                if status == Status::Complete {
                    order.completed = payment.map(|payment| (record.sequence, payment));
                }
                (id, status)
            }
            _ => return,
        };
        let held = self.tickets.entry(record.key).or_default();
        held.follow(id, status, wrong);
        if status != Status::AwaitingPayment {
            let order = (status != Status::Cancelled).then_some(id);
            let (version, stored_ms) = (record.version, record.stored_ms);
            held.shown = Some(Shown { version, stored_ms, order, sold: status == Status::Complete });
        }
    }
}

impl Held {
    /// At this sequence too the ticket has one holder at most.
    fn follow(&mut self, order: Uuid, status: Status, wrong: &mut Vec<Wrong>) {
        if status == Status::Cancelled {
            self.holders.retain(|holder| *holder != order);
        } else if !self.holders.contains(&order) {
            if let Some(holder) = self.holders.last() {
                wrong.push((
                    Code::DoubleSale,
                    format!("order {order} has the ticket, and order {holder} too"),
                ));
            }
            self.holders.push(order);
        }
    }
}

/// Milliseconds since 1970 as a time.
pub(crate) fn time(milliseconds: i64) -> Timestamp {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    Timestamp::from(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}
