//! The events, stream by stream.
//!
//! Each enum serialises as `{"type": …, "data": {…}}`. In the log the type is the header `ce-type` and the data is
//! the payload, flat, together with the aggregate's `version` and `_trace`.
//!
//! A second schema version of an event is a variant of its own whose tag ends in `/2` (`order:created/2`; in the log
//! `ce-type: order:created`, `ce-schemaversion: 2`). The enum is then read through
//! `#[serde(from = "…")]`, and that `From` is the upcaster. Golden files in `tests/golden` hold every version there
//! ever was.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Cents, OrderId, PaymentId, TicketId, Timestamp, UserId};

/// An event of stream USERS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum UserEvent {
    /// Somebody signed up.
    #[serde(rename = "user:signed-up")]
    SignedUp(UserSignedUp),
    /// They signed out everywhere: sessions of an earlier epoch are over.
    #[serde(rename = "user:signed-out")]
    SignedOut(UserSignedOut),
    /// Their data was erased: what is sealed in earlier events can be opened no more.
    #[serde(rename = "user:erased")]
    Erased(UserErased),
}

/// Data of `user:signed-up`. What names a person is sealed with a key of that person's, kept outside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSignedUp {
    /// The new user.
    pub id: UserId,
    /// The email address, sealed.
    pub email: Sealed,
    /// The password's hash in PHC form, sealed.
    pub password_hash: Sealed,
}

/// Data of `user:signed-out`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSignedOut {
    /// Whose sessions ended.
    pub id: UserId,
    /// The epoch of the sessions to come: how often they signed out everywhere.
    pub epoch: u32,
}

/// Data of `user:erased`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserErased {
    /// Who was erased.
    pub id: UserId,
}

/// A secret, encrypted: lowercase hex of a 12-byte nonce, the AES-256-GCM ciphertext and its 16-byte tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(pattern = "^([0-9a-f]{2}){28,}$")]
pub struct Sealed(pub String);

/// An event of stream TICKETS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum TicketEvent {
    /// A seller listed a ticket.
    #[serde(rename = "ticket:created")]
    Created(TicketCreated),
    /// Its seller edited it, or it follows its order: reserved, free again, sold.
    #[serde(rename = "ticket:updated")]
    Updated(TicketUpdated),
}

/// Data of `ticket:created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketCreated {
    /// The ticket.
    pub id: TicketId,
    /// What is for sale, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// What it costs.
    pub price_cents: Cents,
    /// Who sells it.
    pub user_id: UserId,
}

/// Data of `ticket:updated`: the whole ticket as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketUpdated {
    /// The ticket.
    pub id: TicketId,
    /// What is for sale, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// What it costs.
    pub price_cents: Cents,
    /// Who sells it.
    pub user_id: UserId,
    /// The order that holds it or bought it; null when it is free.
    #[schema(required = true)]
    pub order_id: Option<OrderId>,
    /// Whether that order was paid for.
    pub sold: bool,
    /// The version, on this ticket's subject of ORDERS, that the two fields above reflect. An order event that is
    /// not newer changes nothing: so events may come twice or out of order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub order_version: Option<u64>,
}

/// An event of stream ORDERS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum OrderEvent {
    /// A buyer reserved a ticket.
    #[serde(rename = "order:created")]
    Created(OrderCreated),
    /// A card was authorised for it: from here it no longer expires.
    #[serde(rename = "order:awaiting-payment")]
    AwaitingPayment(OrderAwaitingPayment),
    /// It ended without a sale, or the sale was undone.
    #[serde(rename = "order:cancelled")]
    Cancelled(OrderCancelled),
    /// It was paid for.
    #[serde(rename = "order:completed")]
    Completed(OrderCompleted),
}

/// Data of `order:created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order.
    pub id: OrderId,
    /// Always `created`: for readers that look at the payload alone.
    pub status: OrderStatus,
    /// The buyer.
    pub user_id: UserId,
    /// When the reservation ends unless a card was authorised before.
    pub expires_at: Timestamp,
    /// The ticket as the buyer saw it; a later change of its price does not touch this order.
    pub ticket: OrderedTicket,
}

/// The ticket as it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderedTicket {
    /// The ticket.
    pub id: TicketId,
    /// Its title when it was ordered.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// Its price when it was ordered: what is charged.
    pub price_cents: Cents,
}

/// Names the ticket of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketRef {
    /// The ticket.
    pub id: TicketId,
}

/// Data of `order:awaiting-payment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderAwaitingPayment {
    /// The order.
    pub id: OrderId,
    /// The authorised payment that is to be captured.
    pub payment_id: PaymentId,
    /// Its ticket.
    pub ticket: TicketRef,
}

/// Data of `order:cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub id: OrderId,
    /// Why.
    pub reason: CancelReason,
    /// Its ticket, which is free again.
    pub ticket: TicketRef,
}

/// Data of `order:completed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCompleted {
    /// The order.
    pub id: OrderId,
    /// The captured payment.
    pub payment_id: PaymentId,
    /// Its ticket, which is sold.
    pub ticket: TicketRef,
}

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum OrderStatus {
    /// Reserved, inside its window.
    #[serde(rename = "created")]
    Created,
    /// A card is authorised and about to be charged.
    #[serde(rename = "awaiting:payment")]
    AwaitingPayment,
    /// Paid.
    #[serde(rename = "complete")]
    Complete,
    /// Ended without a sale.
    #[serde(rename = "cancelled")]
    Cancelled,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    /// The buyer gave it up.
    Buyer,
    /// It was not paid in time.
    Expired,
    /// An authorised card could not be charged.
    PaymentFailed,
    /// It was paid and the money went back.
    Refunded,
}

/// An event of stream PAYMENTS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum PaymentEvent {
    /// A buyer asked to pay. Stripe has not been asked yet.
    #[serde(rename = "payment:requested")]
    Requested(PaymentRequested),
    /// The buyer's bank wants to hear from the buyer first (3-D Secure). The order waits inside its window.
    #[serde(rename = "payment:action-required")]
    ActionRequired(PaymentSettled),
    /// The card is authorised for the amount, not charged.
    #[serde(rename = "payment:authorized")]
    Authorized(PaymentSettled),
    /// The card was refused. The order may be paid in another try.
    #[serde(rename = "payment:declined")]
    Declined(PaymentUnsettled),
    /// The card is charged.
    #[serde(rename = "payment:created")]
    Created(PaymentSettled),
    /// Nothing was charged, and nothing will be in this try.
    #[serde(rename = "payment:voided")]
    Voided(PaymentUnsettled),
    /// It was charged, and the money is to go back. Stripe has not been asked yet.
    #[serde(rename = "payment:refund-requested")]
    RefundRequested(PaymentUnsettled),
    /// Stripe does not give the money back; it may be asked for again.
    #[serde(rename = "payment:refund-failed")]
    RefundFailed(PaymentUnsettled),
    /// A part of the money went back, by somebody's hand at Stripe: the order stands.
    #[serde(rename = "payment:partially-refunded")]
    PartiallyRefunded(PaymentPartiallyRefunded),
    /// The card's owner disputes the charge: Stripe holds the money back until their bank has decided.
    #[serde(rename = "payment:disputed")]
    Disputed(PaymentSettled),
    /// It was charged and all of the money went back.
    #[serde(rename = "payment:refunded")]
    Refunded(PaymentUnsettled),
}

/// Data of `payment:requested`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequested {
    /// This try to pay.
    pub id: PaymentId,
    /// What is paid for.
    pub order_id: OrderId,
    /// Who pays.
    pub user_id: UserId,
    /// How much.
    pub amount_cents: Cents,
    /// ISO 4217 in lower case, as Stripe has it: `usd`.
    #[schema(pattern = "^[a-z]{3}$")]
    pub currency: String,
    /// A Stripe payment method (`pm_…`) or token (`tok_…`): a reference, never a card number.
    #[schema(pattern = "^(pm|tok)_[A-Za-z0-9_]+$", max_length = 255)]
    pub payment_method: String,
}

/// Data of `payment:action-required`, `payment:authorized`, `payment:created` and `payment:disputed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentSettled {
    /// The try to pay.
    pub id: PaymentId,
    /// What is paid for.
    pub order_id: OrderId,
    /// Stripe's PaymentIntent, `pi_…`.
    #[schema(pattern = "^pi_")]
    pub stripe_id: String,
}

/// Data of `payment:declined`, `payment:voided`, `payment:refund-requested`, `payment:refund-failed` and
/// `payment:refunded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentUnsettled {
    /// The try to pay.
    pub id: PaymentId,
    /// What was to be paid for.
    pub order_id: OrderId,
    /// Stripe's PaymentIntent, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^pi_")]
    pub stripe_id: Option<String>,
    /// Why: for a declined card what may be shown to its owner, as Stripe words it.
    pub reason: String,
}

/// Data of `payment:partially-refunded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPartiallyRefunded {
    /// The try to pay.
    pub id: PaymentId,
    /// What was paid for.
    pub order_id: OrderId,
    /// Stripe's PaymentIntent, `pi_…`.
    #[schema(pattern = "^pi_")]
    pub stripe_id: String,
    /// How much went back in all so far.
    pub refunded_cents: Cents,
}

/// An event of stream EXPIRATIONS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum ExpirationEvent {
    /// An order's window is over. Whether that ends the order, the order's log decides.
    #[serde(rename = "expiration:complete")]
    Complete(ExpirationComplete),
}

/// Data of `expiration:complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpirationComplete {
    /// The order whose window is over.
    pub order_id: OrderId,
}
