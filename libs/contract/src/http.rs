//! The bodies of HTTP answers, and of what is asked.
//!
//! Those of questions at the end are schemas alone: services take a body apart field by field, to say of each what is wrong
//! with it, and make none of these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Cents, OrderId, PaymentId, TicketId, Timestamp, UserId,
    event::{CancelReason, OrderStatus},
    money::dollars,
    openapi::order_data,
};

/// Who signed up or in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// Their email address.
    #[schema(format = Email)]
    pub email: String,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// What is for sale.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// Its price in dollars.
    #[serde(with = "dollars")]
    #[schema(schema_with = dollars::schema)]
    pub price: Cents,
    /// Who sells it.
    pub user_id: UserId,
    /// The order that holds it or bought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub order_id: Option<OrderId>,
    /// Whether it can be bought.
    pub status: TicketStatus,
    /// Counts its events from 0.
    pub version: u64,
}

/// Whether a ticket can be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderTicket {
    /// The ticket.
    pub id: TicketId,
    /// Its title when it was ordered.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// Its price in dollars when it was ordered.
    #[serde(with = "dollars")]
    #[schema(schema_with = dollars::schema)]
    pub price: Cents,
}

/// An order, as the one who sells its ticket sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    #[schema(nullable = false)]
    pub reason: Option<CancelReason>,
    /// When the reservation ends unless a card was authorised before.
    pub expires_at: Timestamp,
    /// What is bought, as it was ordered.
    pub ticket: OrderTicket,
    /// That of its last event, as an order has it.
    pub version: u64,
    /// When it was ordered.
    pub time: Timestamp,
}

/// One line of an order's history: an event of its.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// The event's type, `order:created`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its version on the ticket's subject.
    pub version: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// Its data, as in the log.
    #[schema(schema_with = order_data)]
    pub data: serde_json::Value,
}

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// The try to pay.
    pub id: PaymentId,
    /// What is paid for.
    pub order_id: OrderId,
    /// Stripe's PaymentIntent, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^pi_")]
    pub stripe_id: Option<String>,
    /// How far it is.
    pub status: PaymentStatus,
    /// Why the card was declined, in words for its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// While the buyer's bank wants to hear from the buyer: what Stripe.js needs for that. For the buyer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_secret: Option<String>,
}

/// How far a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentUser {
    /// Null when signed out.
    #[schema(required = true)]
    pub current_user: Option<SignedIn>,
}

/// Who is signed in, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedIn {
    /// The user.
    pub id: UserId,
    /// The address that they signed in with.
    #[schema(format = Email)]
    pub email: String,
    /// When the session began, in seconds since 1970.
    pub iat: u64,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
}

/// Done, and nothing to tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {}

/// An event of Stripe's was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Received {
    /// Always true.
    pub received: bool,
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problems {
    /// One entry for each thing wrong.
    #[schema(min_items = 1)]
    pub errors: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, for people.
    pub message: String,
    /// The field of the request that is wrong; for validation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` when it lives; `ready` or `not ready`.
    pub status: String,
    /// By part, why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reasons: Option<BTreeMap<String, String>>,
}

/// A new account.
#[derive(Clone, Debug, ToSchema)]
pub struct SignUp {
    /// An address that mail can arrive at, whose name has a top-level domain. Blanks around it are dropped; upper case
    /// counts as lower case.
    #[schema(format = Email, max_length = 254)]
    pub email: String,
    /// Any characters, but none of the passwords that everybody tries first.
    #[schema(format = Password, min_length = 8, max_length = 128)]
    pub password: String,
}

/// An account that there is.
#[derive(Clone, Debug, ToSchema)]
pub struct SignIn {
    /// The address that was signed up with.
    #[schema(format = Email, max_length = 254)]
    pub email: String,
    /// Its password.
    #[schema(format = Password, min_length = 1)]
    pub password: String,
}

/// The end of one's own account.
#[derive(Clone, Debug, ToSchema)]
pub struct Erase {
    /// Its password.
    #[schema(format = Password, min_length = 1)]
    pub password: String,
}

/// What is for sale, and for how much.
#[derive(Clone, Debug, ToSchema)]
pub struct NewTicket {
    /// What is for sale. Blanks around it are dropped and do not count.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    pub title: String,
    /// Its price in dollars.
    #[schema(schema_with = dollars::asked)]
    pub price: Cents,
}

/// What to reserve.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewOrder {
    /// The ticket.
    pub ticket_id: TicketId,
}

/// What to pay for, and with what.
#[derive(Clone, Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct NewPayment {
    /// The order.
    pub order_id: OrderId,
    /// A Stripe payment method (`pm_…`) or token (`tok_…`): a reference, never a card number.
    #[schema(pattern = "^(pm|tok)_[A-Za-z0-9_]+$", max_length = 255)]
    pub token: String,
}
