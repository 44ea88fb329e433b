//! The streams of the marketplace: who owns which, what their subjects are, and who listens.

use crate::{OrderId, TicketId};

/// A stream: the log of one service. One literal subject in it is one consistency boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name in JetStream.
    pub name: &'static str,
    /// The wildcard that all its subjects match.
    pub subjects: &'static str,
    /// The `ce-source` of its events: the service that writes it.
    pub source: &'static str,
}

/// Owned by svc-auth. Boundary: one email address.
pub const USERS: Stream = Stream { name: "USERS", subjects: "ticketing.users.*", source: "svc-auth" };
/// Owned by svc-tickets. Boundary: one ticket.
pub const TICKETS: Stream =
    Stream { name: "TICKETS", subjects: "ticketing.tickets.*", source: "svc-tickets" };
/// Owned by svc-orders. Boundary: all orders for one ticket, which is what makes selling it twice impossible.
pub const ORDERS: Stream = Stream { name: "ORDERS", subjects: "ticketing.orders.*", source: "svc-orders" };
/// Owned by svc-payments. Boundary: the payment of one order.
pub const PAYMENTS: Stream =
    Stream { name: "PAYMENTS", subjects: "ticketing.payments.*", source: "svc-payments" };
/// Owned by svc-expiration. Boundary: one order's deadline.
pub const EXPIRATIONS: Stream =
    Stream { name: "EXPIRATIONS", subjects: "ticketing.expirations.*", source: "svc-expiration" };

/// What no service could read, with the reason; written by all of them.
pub const DEAD_LETTERS: &str = "DEADLETTERS";
/// What the subjects of [`DEAD_LETTERS`] start with: `<prefix>.<durable>.<stream>.<sequence>`.
pub const DEAD_LETTERS_PREFIX: &str = "ticketing.deadletters";

/// All streams that carry the marketplace's events.
pub const ALL: [Stream; 5] = [USERS, TICKETS, ORDERS, PAYMENTS, EXPIRATIONS];

/// The durable consumers: one name for each service, on every stream that it listens to, shared by its replicas.
pub mod durable {
    /// svc-tickets, on ORDERS.
    pub const TICKETS: &str = "tickets-service";
    /// svc-orders, on PAYMENTS and EXPIRATIONS.
    pub const ORDERS: &str = "orders-service";
    /// svc-payments, on ORDERS and PAYMENTS.
    pub const PAYMENTS: &str = "payments-service";
    /// svc-expiration, on ORDERS.
    pub const EXPIRATION: &str = "expiration-service";
}

/// A service that listens to streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The service.
    pub service: &'static str,
    /// Its durable on each stream that it acts on.
    pub durable: &'static str,
    /// What it acts on, once among its replicas.
    pub reacts: &'static [Stream],
    /// What of the others' each replica reads for rows of its own.
    pub reads: &'static [Stream],
}

/// Who listens to what.
pub const LISTENERS: [Listener; 4] = [
    Listener { service: "svc-tickets", durable: durable::TICKETS, reacts: &[ORDERS], reads: &[USERS] },
    Listener {
        service: "svc-orders",
        durable: durable::ORDERS,
        reacts: &[PAYMENTS, EXPIRATIONS],
        reads: &[USERS, TICKETS],
    },
    Listener {
        service: "svc-payments",
        durable: durable::PAYMENTS,
        reacts: &[ORDERS, PAYMENTS],
        reads: &[USERS, TICKETS, ORDERS],
    },
    Listener { service: "svc-expiration", durable: durable::EXPIRATION, reacts: &[ORDERS], reads: &[ORDERS] },
];

/// The subject of one email address. `email_key` is a keyed hash of it in hex: the address never shows in a subject.
pub fn user_subject(email_key: &str) -> String {
    format!("ticketing.users.{email_key}")
}

/// The subject of one ticket.
pub fn ticket_subject(ticket: TicketId) -> String {
    format!("ticketing.tickets.{ticket}")
}

/// The subject of all orders for one ticket.
pub fn order_subject(ticket: TicketId) -> String {
    format!("ticketing.orders.{ticket}")
}

/// The subject of the payment of one order.
pub fn payment_subject(order: OrderId) -> String {
    format!("ticketing.payments.{order}")
}

/// The subject of one order's deadline.
pub fn expiration_subject(order: OrderId) -> String {
    format!("ticketing.expirations.{order}")
}
