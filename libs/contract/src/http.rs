//! The bodies of HTTP answers.

use serde::{Deserialize, Serialize};

use crate::{
    Cents, OrderId, PaymentId, TicketId, Timestamp, UserId,
    event::{CancelReason, OrderStatus},
    money::dollars,
};

/// Who signed up or in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// Their email address.
    pub email: String,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// What is for sale.
    pub title: String,
    /// Its price in dollars.
    #[serde(with = "dollars")]
    pub price: Cents,
    /// Who sells it.
    pub user_id: UserId,
    /// The order that holds it or bought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    /// Whether it can be bought.
    pub status: TicketStatus,
    /// Counts its events from 0.
    pub version: u64,
}

/// Whether a ticket can be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketStatus {
    /// Yes.
    Available,
    /// An order holds it.
    Reserved,
    /// An order was paid for.
    Sold,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// The buyer.
    pub user_id: UserId,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// When the reservation ends unless a card was authorised before.
    pub expires_at: Timestamp,
    /// What is bought.
    pub ticket: OrderTicket,
    /// The version, on the ticket's subject of ORDERS, of this order's last event. Grows with every change; the
    /// first order of a ticket starts at 0.
    pub version: u64,
}

/// The ticket of an order, as it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTicket {
    /// The ticket.
    pub id: TicketId,
    /// Its title when it was ordered.
    pub title: String,
    /// Its price in dollars when it was ordered.
    #[serde(with = "dollars")]
    pub price: Cents,
}

/// An order, as the one who sells its ticket sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sale {
    /// The order.
    pub order_id: OrderId,
    /// The buyer.
    pub user_id: UserId,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// Why it was cancelled, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// When the reservation ends unless a card was authorised before.
    pub expires_at: Timestamp,
    /// What is bought, as it was ordered.
    pub ticket: OrderTicket,
    /// That of its last event, as in [`Order::version`].
    pub version: u64,
    /// When it was ordered.
    pub time: Timestamp,
}

/// One line of an order's history: an event of its.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The event's type, `order:created`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its version on the ticket's subject.
    pub version: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// Its data, as in the log.
    pub data: serde_json::Value,
}

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// The try to pay.
    pub id: PaymentId,
    /// What is paid for.
    pub order_id: OrderId,
    /// Stripe's PaymentIntent, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe_id: Option<String>,
    /// How far it is.
    pub status: PaymentStatus,
    /// Why the card was declined, in words for its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// While the buyer's bank wants to hear from the buyer: what Stripe.js needs for that. For the buyer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

/// How far a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Asked for; Stripe has not answered.
    Requested,
    /// The buyer's bank wants to hear from the buyer first.
    RequiresAction,
    /// The card is authorised, not charged.
    Authorized,
    /// The card is charged.
    Created,
    /// The card was refused.
    Declined,
    /// Nothing was charged, and nothing will be.
    Voided,
    /// The card was charged, and the money is to go back.
    Refunding,
    /// The money went back.
    Refunded,
}
