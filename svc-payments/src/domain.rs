//! The rules of payments. Pure: ids are arguments, and what Stripe said is an argument too.
//!
//! The aggregate is the payment of one order: a row of tries of which at most one is alive, and that is always the
//! last. So the last is all that has to be remembered.
//!
//! Three questions are answered here. What does the log say to somebody who asks ([`request`], [`request_refund`])?
//! What is to be done next ([`next_step`])? And what is wrong, in the log or at Stripe, when both are laid side by side
//! ([`compare`])? The last one makes webhooks, polls and the reconciler one thing: whoever hears that something
//! happened at Stripe looks how it stands there now, so that nothing depends on what comes once, twice or in order.

use std::{fmt, str::FromStr};

use contract::{
    Cents, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketId, UserId,
    event::{OrderCreated, PaymentPartiallyRefunded, PaymentRequested, PaymentSettled, PaymentUnsettled},
};
use serde::{Deserialize, Serialize};

/// One try to pay for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// This try.
    pub id: PaymentId,
    /// What is paid for.
    pub order: OrderId,
    /// Who pays.
    pub buyer: UserId,
    /// How much.
    pub amount: Cents,
    /// In which currency.
    pub currency: String,
    /// What the buyer pays with, as Stripe names it.
    pub method: String,
    /// How far it is.
    pub status: Status,
}

/// How far a try to pay is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Asked for. Stripe may have been asked; nobody here knows its answer.
    Requested,
    /// The buyer's bank wants to hear from the buyer first (3-D Secure).
    ActionRequired {
        /// The PaymentIntent that waits.
        stripe_id: String,
    },
    /// The money is held, not taken.
    Authorized {
        /// The PaymentIntent that holds it.
        stripe_id: String,
    },
    /// The money is taken.
    Created(Charge),
    /// The money was taken and is to go back. Stripe may have been asked; nobody here knows its answer.
    Refunding(Charge),
    /// The card was refused. The order may be paid in another try.
    Declined(Undone),
    /// The hold was let go: the order was cancelled first, or the money could not be taken.
    Voided(Undone),
    /// The money went back.
    Refunded(Undone),
}

/// Money that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The PaymentIntent that took it.
    pub stripe_id: String,
    /// How much of it went back by somebody's hand at Stripe: less than all.
    pub refunded: Cents,
    /// Whether the card's owner disputes it.
    pub disputed: bool,
    /// How often Stripe would not give it back.
    pub refusals: u32,
}

impl Charge {
    fn of(stripe_id: &str) -> Self {
        Self { stripe_id: stripe_id.to_owned(), refunded: Cents(0), disputed: false, refusals: 0 }
    }
}

/// A try that left no money here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Stripe's PaymentIntent, if there was one.
    pub stripe_id: Option<String>,
    /// Why. For a declined card: what its owner may read.
    pub reason: String,
}

/// What is known here of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Who may pay for it.
    pub buyer: UserId,
    /// What is bought.
    pub ticket: TicketId,
    /// What it cost when it was ordered: what is charged.
    pub price: Cents,
    /// Where it is in its life.
    pub standing: Standing,
}

/// Where an order is in its life, as far as paying goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It can be paid, and it can end at any moment.
    Open,
    /// It waits for this payment to be captured and does not end before.
    Awaiting(PaymentId),
    /// It was paid.
    Complete,
    /// It ended without a sale, or the sale was undone.
    Cancelled,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is somebody else's order.
    NotYourOrder,
    /// It is over.
    OrderCancelled,
    /// Somebody else sold the ticket.
    NotYourTicket,
    /// No money was taken that could go back.
    NotCharged,
}

/// What the buyer pays with: a Stripe payment method (`pm_…`) or token (`tok_…`). A reference, never a card number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

/// A text that is no reference of Stripe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    /// Reads letters, digits and underscores, 255 characters at most: no id of Stripe's is longer
    /// (<https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible>).
    ///
    /// # Errors
    /// When it is anything else.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix("pm_").or_else(|| text.strip_prefix("tok_")).ok_or(InvalidToken)?;
        let fits = !rest.is_empty() && text.len() <= 255;
        match fits && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidToken),
        }
    }
}

/// ISO 4217 in lower case, as Stripe has it: `usd`. One that has cents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(String);

/// A text that is no currency with cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCurrency;

/// The currencies whose smallest unit is not a hundredth: an amount in cents would charge another sum
/// (<https://docs.stripe.com/currencies#zero-decimal>, `#three-decimal`).
const WITHOUT_CENTS: [&str; 21] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf", "bhd", "jod", "kwd", "omr", "tnd",
];

impl Default for Currency {
    fn default() -> Self {
        Self("usd".into())
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    /// Reads three lowercase letters.
    ///
    /// # Errors
    /// When it is anything else, or a currency without cents.
    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_lowercase());
        match is_code && !WITHOUT_CENTS.contains(&text) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidCurrency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What follows from a payment's event. Neither fails nor judges.
pub fn evolve(last: Option<Payment>, event: &PaymentEvent) -> Option<Payment> {
    match event {
        PaymentEvent::Requested(requested) => Some(Payment {
            id: requested.id,
            order: requested.order_id,
            buyer: requested.user_id,
            amount: requested.amount_cents,
            currency: requested.currency.clone(),
            method: requested.payment_method.clone(),
            status: Status::Requested,
        }),
        PaymentEvent::ActionRequired(event) => {
            enter(last, event.id, |_| Status::ActionRequired { stripe_id: event.stripe_id.clone() })
        }
        PaymentEvent::Authorized(event) => {
            enter(last, event.id, |_| Status::Authorized { stripe_id: event.stripe_id.clone() })
        }
        PaymentEvent::Created(event) => {
            enter(last, event.id, |_| Status::Created(Charge::of(&event.stripe_id)))
        }
        PaymentEvent::Declined(event) => enter(last, event.id, |_| Status::Declined(undone(event))),
        PaymentEvent::Voided(event) => enter(last, event.id, |_| Status::Voided(undone(event))),
        PaymentEvent::RefundRequested(event) => enter(last, event.id, |status| match status {
            Status::Created(charge) => Status::Refunding(charge),
            other => other,
        }),
        PaymentEvent::RefundFailed(event) => enter(last, event.id, |status| match status {
            Status::Refunding(charge) => Status::Created(Charge { refusals: charge.refusals + 1, ..charge }),
            // It had been said to succeed.
            Status::Refunded(Undone { stripe_id: Some(stripe_id), .. }) => {
                Status::Created(Charge { refusals: 1, ..Charge::of(&stripe_id) })
            }
            other => other,
        }),
        PaymentEvent::PartiallyRefunded(event) => enter(last, event.id, |status| {
            status.with_charge(|charge| Charge { refunded: event.refunded_cents, ..charge })
        }),
        PaymentEvent::Disputed(event) => {
            enter(last, event.id, |status| status.with_charge(|charge| Charge { disputed: true, ..charge }))
        }
        PaymentEvent::Refunded(event) => enter(last, event.id, |_| Status::Refunded(undone(event))),
    }
}

fn enter(last: Option<Payment>, id: PaymentId, status: impl FnOnce(Status) -> Status) -> Option<Payment> {
    last.map(|last| match last.id == id {
        true => Payment { status: status(last.status), ..last },
        // It tells of an earlier try, which is over.
        false => last,
    })
}

impl Status {
    fn with_charge(self, change: impl FnOnce(Charge) -> Charge) -> Self {
        match self {
            Status::Created(charge) => Status::Created(change(charge)),
            Status::Refunding(charge) => Status::Refunding(change(charge)),
            other => other,
        }
    }

    /// Stripe's PaymentIntent, once it is known.
    pub fn stripe_id(&self) -> Option<&str> {
        match self {
            Status::Requested => None,
            Status::ActionRequired { stripe_id } | Status::Authorized { stripe_id } => Some(stripe_id),
            Status::Created(charge) | Status::Refunding(charge) => Some(&charge.stripe_id),
            Status::Declined(undone) | Status::Voided(undone) | Status::Refunded(undone) => {
                undone.stripe_id.as_deref()
            }
        }
    }

    /// The money that was taken, until it went back.
    pub fn charge(&self) -> Option<&Charge> {
        match self {
            Status::Created(charge) | Status::Refunding(charge) => Some(charge),
            _ => None,
        }
    }

    /// Whether nothing is to come any more: no answer of Stripe's, nor of anybody else's.
    pub fn is_settled(&self) -> bool {
        match self {
            Status::Requested
            | Status::ActionRequired { .. }
            | Status::Authorized { .. }
            | Status::Refunding(_) => false,
            Status::Created(_) | Status::Declined(_) | Status::Voided(_) | Status::Refunded(_) => true,
        }
    }
}

fn undone(event: &PaymentUnsettled) -> Undone {
    Undone { stripe_id: event.stripe_id.clone(), reason: event.reason.clone() }
}

/// What follows from an order's event, for one order. Neither fails nor judges.
pub fn follow(order: Option<Order>, event: &OrderEvent) -> Option<Order> {
    let standing = match event {
        OrderEvent::Created(created) => return Some(placed(created)),
        OrderEvent::AwaitingPayment(event) => Standing::Awaiting(event.payment_id),
        OrderEvent::Completed(_) => Standing::Complete,
        OrderEvent::Cancelled(_) => Standing::Cancelled,
    };
    order.map(|order| Order { standing, ..order })
}

fn placed(created: &OrderCreated) -> Order {
    Order {
        id: created.id,
        buyer: created.user_id,
        ticket: created.ticket.id,
        price: created.ticket.price_cents,
        standing: Standing::Open,
    }
}

/// The buyer asks to pay, in a new try `id`.
///
/// Nothing when a try is under way or has succeeded: that one is the answer, too.
pub fn request(
    last: Option<&Payment>,
    order: &Order,
    by: UserId,
    id: PaymentId,
    with: &Token,
    currency: &Currency,
) -> Result<Option<PaymentEvent>, Rejection> {
    if order.buyer != by {
        return Err(Rejection::NotYourOrder);
    }
    if order.standing == Standing::Cancelled {
        return Err(Rejection::OrderCancelled);
    }
    match last.map(|last| &last.status) {
        Some(
            Status::Requested
            | Status::ActionRequired { .. }
            | Status::Authorized { .. }
            | Status::Created(_)
            | Status::Refunding(_),
        ) => Ok(None),
        // Either ends the order as well; its own log says so a moment later.
        Some(Status::Voided(_) | Status::Refunded(_)) => Err(Rejection::OrderCancelled),
        Some(Status::Declined(_)) | None => Ok(Some(PaymentEvent::Requested(PaymentRequested {
            id,
            order_id: order.id,
            user_id: by,
            amount_cents: order.price,
            currency: currency.0.clone(),
            payment_method: with.0.clone(),
        }))),
    }
}

/// The ticket's seller gives the money back.
///
/// Nothing when it is on its way or has arrived: asked twice, it goes back once.
pub fn request_refund(
    last: Option<&Payment>,
    seller: UserId,
    by: UserId,
) -> Result<Option<PaymentEvent>, Rejection> {
    if seller != by {
        return Err(Rejection::NotYourTicket);
    }
    match last.map(|last| (last, &last.status)) {
        Some((payment, Status::Created(charge))) => {
            Ok(Some(refund_requested(payment, charge, "asked for by the seller")))
        }
        Some((_, Status::Refunding(_) | Status::Refunded(_))) => Ok(None),
        _ => Err(Rejection::NotCharged),
    }
}

/// The try `id`, while Stripe's answer to it is not recorded.
pub fn unanswered(last: Option<&Payment>, id: PaymentId) -> Option<&Payment> {
    last.filter(|last| last.id == id && last.status == Status::Requested)
}

/// Stripe refused the card.
pub fn decline(last: Option<&Payment>, id: PaymentId, why: &Undone) -> Option<PaymentEvent> {
    let payment = unanswered(last, id)?;
    Some(PaymentEvent::Declined(unsettled(payment, why.stripe_id.clone(), &why.reason)))
}

/// What is to be done about money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take what is held: the order awaits just that.
    Capture(IntentRef),
    /// Let go what is held, or might yet be: the order is over.
    Void(IntentRef),
    /// Ask for it to go back, in the log: it was taken although the order was lost.
    RequestRefund,
    /// Give back what was taken: the log asks for it.
    Refund {
        /// What was taken.
        intent: IntentRef,
        /// How often Stripe refused before.
        refusals: u32,
    },
}

/// Stripe's PaymentIntent for a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentRef {
    /// The try.
    pub payment: PaymentId,
    /// The PaymentIntent.
    pub stripe_id: String,
}

/// What is to be done next. Nothing while the order has not decided, and when it is done.
pub fn next_step(last: Option<&Payment>, order: &Order) -> Option<Step> {
    let payment = last?;
    let intent = |stripe_id: &str| IntentRef { payment: payment.id, stripe_id: stripe_id.to_owned() };
    match (&payment.status, order.standing) {
        (Status::Authorized { stripe_id }, Standing::Awaiting(awaited)) if awaited == payment.id => {
            Some(Step::Capture(intent(stripe_id)))
        }
        (Status::Authorized { stripe_id } | Status::ActionRequired { stripe_id }, Standing::Cancelled) => {
            Some(Step::Void(intent(stripe_id)))
        }
        // At once, but once: what Stripe refuses is asked for again from time to time.
        (Status::Created(charge), Standing::Cancelled) if charge.refusals == 0 => Some(Step::RequestRefund),
        (Status::Refunding(charge), _) => {
            Some(Step::Refund { intent: intent(&charge.stripe_id), refusals: charge.refusals })
        }
        _ => None,
    }
}

/// Stripe has taken the money.
pub fn capture(last: Option<&Payment>, id: PaymentId) -> Option<PaymentEvent> {
    let (payment, stripe_id) = alive(last, id)?;
    Some(PaymentEvent::Created(settled(payment, stripe_id)))
}

/// Stripe has let the money go, or never had it.
pub fn void(last: Option<&Payment>, id: PaymentId, reason: &str) -> Option<PaymentEvent> {
    let (payment, stripe_id) = alive(last, id)?;
    Some(PaymentEvent::Voided(unsettled(payment, Some(stripe_id.to_owned()), reason)))
}

/// Whether money was taken for an order that is over.
pub fn is_charged_in_vain(last: Option<&Payment>, order: &Order) -> bool {
    order.standing == Standing::Cancelled && last.is_some_and(|last| last.status.charge().is_some())
}

/// The money was taken although the order is over: it is to go back.
pub fn refund_lost(last: Option<&Payment>, order: &Order) -> Option<PaymentEvent> {
    if order.standing != Standing::Cancelled {
        return None;
    }
    match last.map(|last| (last, &last.status)) {
        Some((payment, Status::Created(charge))) => {
            Some(refund_requested(payment, charge, "the order was over before it was paid"))
        }
        _ => None,
    }
}

/// Stripe has given the money back.
pub fn refund(last: Option<&Payment>, id: PaymentId) -> Option<PaymentEvent> {
    let (payment, charge) = refunding(last, id)?;
    Some(PaymentEvent::Refunded(unsettled(payment, Some(charge.stripe_id.clone()), "as asked for")))
}

/// Stripe does not give the money back.
pub fn fail_refund(last: Option<&Payment>, id: PaymentId, reason: &str) -> Option<PaymentEvent> {
    let (payment, charge) = refunding(last, id)?;
    Some(PaymentEvent::RefundFailed(unsettled(payment, Some(charge.stripe_id.clone()), reason)))
}

/// The try `id` with its intent, while money may be held for it.
fn alive(last: Option<&Payment>, id: PaymentId) -> Option<(&Payment, &str)> {
    let last = last.filter(|last| last.id == id)?;
    match &last.status {
        Status::Authorized { stripe_id } | Status::ActionRequired { stripe_id } => Some((last, stripe_id)),
        _ => None,
    }
}

fn refunding(last: Option<&Payment>, id: PaymentId) -> Option<(&Payment, &Charge)> {
    let last = last.filter(|last| last.id == id)?;
    match &last.status {
        Status::Refunding(charge) => Some((last, charge)),
        _ => None,
    }
}

/// What Stripe has of a try to pay, as it stands now: a PaymentIntent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// `pi_…`
    pub id: String,
    /// The try that it was made for, as its metadata has it.
    pub payment: PaymentId,
    /// Where the money is.
    pub money: Money,
    /// How much was taken, if it was.
    pub amount: Cents,
    /// Why the card was refused, if it was, in words for its owner.
    pub refusal: Option<String>,
}

/// Where the money of a PaymentIntent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    /// With the buyer, whose bank wants to hear from them first.
    ActionRequired,
    /// With the buyer: the card was refused. Whoever has the intent's secret may try another.
    Refused,
    /// Held for us.
    Held,
    /// Taken.
    Taken {
        /// How much of it went back.
        refunded: Cents,
        /// Whether that is all of it.
        in_full: bool,
        /// Whether the card's owner disputes it.
        disputed: bool,
    },
    /// With the buyer, for good: the intent was given up.
    Gone,
    /// On its way; Stripe does not know yet.
    Moving,
}

/// Where the log and Stripe differ, and what brings them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log does not know yet.
    Unrecorded(PaymentEvent),
    /// It undoes what the log says, so it may be what Stripe had before that: it counts if it is still so.
    Reversed(PaymentEvent),
    /// Stripe holds money, or could yet, that nobody waits for: the intent is to be given up.
    Stray,
    /// Stripe took money for a try that the log does not have: it is to go back.
    StrayCharge,
    /// Stripe has money of a try that the log does not have and the order is about: it was lost from the log, and
    /// a person has to look.
    Lost,
}

/// Lays Stripe's intent beside the log, which must hold all that was appended before Stripe was asked.
///
/// One difference at a time: an event that is recorded may leave another.
pub fn compare(last: Option<&Payment>, order: &Order, intent: &Intent) -> Option<Difference> {
    let ours = last.filter(|last| {
        last.id == intent.payment && last.status.stripe_id().is_none_or(|stripe_id| stripe_id == intent.id)
    });
    let Some(payment) = ours else {
        let has_charged = last
            .is_some_and(|last| last.status.charge().is_some() || matches!(last.status, Status::Refunded(_)));
        let is_sold = match order.standing {
            Standing::Awaiting(payment) => {
                payment == intent.payment && last.is_none_or(|last| last.id != payment)
            }
            Standing::Complete => !has_charged,
            Standing::Open | Standing::Cancelled => false,
        };
        return match intent.money {
            Money::Held | Money::Taken { in_full: false, .. } if is_sold => Some(Difference::Lost),
            Money::Held | Money::ActionRequired => Some(Difference::Stray),
            Money::Taken { in_full: false, .. } => Some(Difference::StrayCharge),
            // A refused intent whose secret nobody was told does no harm.
            Money::Taken { in_full: true, .. } | Money::Refused | Money::Gone | Money::Moving => None,
        };
    };
    let event = match (&payment.status, intent.money) {
        (Status::Requested, Money::ActionRequired) => {
            PaymentEvent::ActionRequired(settled(payment, &intent.id))
        }
        (Status::Requested | Status::ActionRequired { .. }, Money::Held) => {
            PaymentEvent::Authorized(settled(payment, &intent.id))
        }
        (Status::Requested, Money::Refused | Money::Gone) => declined(payment, intent),
        // Its secret is known: only given up can it be taken for refused.
        (Status::ActionRequired { .. }, Money::Refused) => return Some(Difference::Stray),
        (Status::ActionRequired { .. }, Money::Gone) if order.standing != Standing::Cancelled => {
            declined(payment, intent)
        }
        (Status::ActionRequired { .. } | Status::Authorized { .. }, Money::Gone) => {
            PaymentEvent::Voided(unsettled(payment, Some(intent.id.clone()), "it was given up at Stripe"))
        }
        (Status::Declined(_) | Status::Voided(_), Money::Held | Money::ActionRequired) => {
            return Some(Difference::Stray);
        }
        (
            Status::Requested
            | Status::ActionRequired { .. }
            | Status::Authorized { .. }
            | Status::Declined(_)
            | Status::Voided(_),
            Money::Taken { .. },
        ) => PaymentEvent::Created(settled(payment, &intent.id)),
        (Status::Created(_) | Status::Refunding(_), Money::Taken { in_full: true, .. }) => {
            PaymentEvent::Refunded(unsettled(payment, Some(intent.id.clone()), "given back at Stripe"))
        }
        (Status::Created(charge) | Status::Refunding(charge), Money::Taken { disputed: true, .. })
            if !charge.disputed =>
        {
            PaymentEvent::Disputed(settled(payment, &intent.id))
        }
        (Status::Created(charge) | Status::Refunding(charge), Money::Taken { refunded, .. })
            if refunded != charge.refunded =>
        {
            let event = PaymentEvent::PartiallyRefunded(PaymentPartiallyRefunded {
                id: payment.id,
                order_id: payment.order,
                stripe_id: intent.id.clone(),
                refunded_cents: refunded,
            });
            if refunded < charge.refunded {
                return Some(Difference::Reversed(event));
            }
            event
        }
        (Status::Refunded(_), Money::Taken { in_full: false, .. }) => {
            let why = "it failed after it had been said to succeed";
            let failed = unsettled(payment, Some(intent.id.clone()), why);
            return Some(Difference::Reversed(PaymentEvent::RefundFailed(failed)));
        }
        _ => return None,
    };
    Some(Difference::Unrecorded(event))
}

/// What Stripe says happened to an intent, before anyone looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The money is held.
    Held,
    /// The money was taken.
    Taken,
    /// The card was refused.
    Refused,
    /// The intent was given up.
    GivenUp,
    /// Money went back, or did not after all, or its owner disputes it: only a look tells.
    Reversed,
}

/// Whether a look at Stripe may show more than the log says. In doubt, yes.
pub fn is_news(last: Option<&Payment>, stripe_id: &str, happened: Happened) -> bool {
    // Another intent than the one in the log is news whatever happened to it, and be it of the same try.
    let Some(last) = last.filter(|last| last.status.stripe_id() == Some(stripe_id)) else { return true };
    match happened {
        Happened::Held | Happened::Refused => matches!(last.status, Status::ActionRequired { .. }),
        Happened::Taken => {
            !matches!(last.status, Status::Created(_) | Status::Refunding(_) | Status::Refunded(_))
        }
        Happened::GivenUp => !last.status.is_settled(),
        Happened::Reversed => true,
    }
}

fn declined(payment: &Payment, intent: &Intent) -> PaymentEvent {
    let reason = intent.refusal.as_deref().unwrap_or("The payment was given up.");
    PaymentEvent::Declined(unsettled(payment, Some(intent.id.clone()), reason))
}

fn refund_requested(payment: &Payment, charge: &Charge, reason: &str) -> PaymentEvent {
    PaymentEvent::RefundRequested(unsettled(payment, Some(charge.stripe_id.clone()), reason))
}

fn settled(payment: &Payment, stripe_id: &str) -> PaymentSettled {
    PaymentSettled { id: payment.id, order_id: payment.order, stripe_id: stripe_id.to_owned() }
}

fn unsettled(payment: &Payment, stripe_id: Option<String>, reason: &str) -> PaymentUnsettled {
    PaymentUnsettled { id: payment.id, order_id: payment.order, stripe_id, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use contract::{
        Timestamp,
        event::{
            CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderStatus, OrderedTicket,
            TicketRef,
        },
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const BUYER: UserId = UserId(Uuid::from_u128(1));
    const STRANGER: UserId = UserId(Uuid::from_u128(2));
    const SELLER: UserId = UserId(Uuid::from_u128(9));
    const ORDER: OrderId = OrderId(Uuid::from_u128(3));
    const TICKET: TicketId = TicketId(Uuid::from_u128(4));

    fn payment(number: u128) -> PaymentId {
        PaymentId(Uuid::from_u128(number))
    }

    fn intent(number: u128) -> String {
        format!("pi_{number}")
    }

    fn no_funds() -> Undone {
        Undone { stripe_id: None, reason: "Your card has insufficient funds.".into() }
    }

    fn ordered() -> OrderEvent {
        OrderEvent::Created(OrderCreated {
            id: ORDER,
            status: OrderStatus::Created,
            user_id: BUYER,
            expires_at: Timestamp::from(std::time::UNIX_EPOCH),
            ticket: OrderedTicket { id: TICKET, title: "Concert".into(), price_cents: Cents(1999) },
        })
    }

    fn awaiting(number: u128) -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::AwaitingPayment(OrderAwaitingPayment { id: ORDER, payment_id: payment(number), ticket })
    }

    fn completed(number: u128) -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::Completed(OrderCompleted { id: ORDER, payment_id: payment(number), ticket })
    }

    fn cancelled() -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::Cancelled(OrderCancelled { id: ORDER, reason: CancelReason::Expired, ticket })
    }

    fn requested(number: u128) -> PaymentEvent {
        PaymentEvent::Requested(PaymentRequested {
            id: payment(number),
            order_id: ORDER,
            user_id: BUYER,
            amount_cents: Cents(1999),
            currency: "usd".into(),
            payment_method: "pm_card_visa".into(),
        })
    }

    fn held(number: u128) -> PaymentSettled {
        PaymentSettled { id: payment(number), order_id: ORDER, stripe_id: intent(number) }
    }

    fn lost(number: u128, stripe_id: Option<String>, reason: &str) -> PaymentUnsettled {
        PaymentUnsettled { id: payment(number), order_id: ORDER, stripe_id, reason: reason.into() }
    }

    fn authorized(number: u128) -> PaymentEvent {
        PaymentEvent::Authorized(held(number))
    }

    fn created(number: u128) -> PaymentEvent {
        PaymentEvent::Created(held(number))
    }

    fn declined(number: u128) -> PaymentEvent {
        PaymentEvent::Declined(lost(number, None, &no_funds().reason))
    }

    fn voided(number: u128) -> PaymentEvent {
        PaymentEvent::Voided(lost(number, Some(intent(number)), "over"))
    }

    fn action_required(number: u128) -> PaymentEvent {
        PaymentEvent::ActionRequired(held(number))
    }

    fn refund_requested(number: u128) -> PaymentEvent {
        PaymentEvent::RefundRequested(lost(number, Some(intent(number)), "asked for by the seller"))
    }

    fn refund_failed(number: u128) -> PaymentEvent {
        PaymentEvent::RefundFailed(lost(number, Some(intent(number)), "no money"))
    }

    fn partially_refunded(number: u128, cents: i64) -> PaymentEvent {
        PaymentEvent::PartiallyRefunded(PaymentPartiallyRefunded {
            id: payment(number),
            order_id: ORDER,
            stripe_id: intent(number),
            refunded_cents: Cents(cents),
        })
    }

    fn disputed(number: u128) -> PaymentEvent {
        PaymentEvent::Disputed(held(number))
    }

    fn refunded(number: u128) -> PaymentEvent {
        PaymentEvent::Refunded(lost(number, Some(intent(number)), "as asked for"))
    }

    /// What Stripe has of a try.
    fn stripes(number: u128, money: Money) -> Intent {
        let refusal = (money == Money::Refused).then(|| "Your card was declined.".to_owned());
        Intent { id: intent(number), payment: payment(number), money, amount: Cents(1999), refusal }
    }

    const TAKEN: Money = Money::Taken { refunded: Cents(0), in_full: false, disputed: false };
    const GIVEN_BACK: Money = Money::Taken { refunded: Cents(1999), in_full: true, disputed: false };

    fn given(events: &[PaymentEvent]) -> Option<Payment> {
        events.iter().fold(None, evolve)
    }

    fn order(events: &[OrderEvent]) -> Order {
        events.iter().fold(None, follow).unwrap()
    }

    fn pay(
        last: Option<&Payment>,
        order: &Order,
        by: UserId,
        number: u128,
    ) -> Result<Option<PaymentEvent>, Rejection> {
        let (with, currency) = ("pm_card_visa".parse().unwrap(), "usd".parse().unwrap());
        request(last, order, by, payment(number), &with, &currency)
    }

    fn check<T: fmt::Debug + PartialEq>(
        history: &[PaymentEvent],
        decide: impl FnOnce(Option<&Payment>) -> T,
        expected: T,
    ) {
        assert_eq!(decide(given(history).as_ref()), expected, "given {history:#?}");
    }

    #[test]
    fn an_order_is_paid_at_the_price_it_was_ordered_for() {
        check(&[], |last| pay(last, &order(&[ordered()]), BUYER, 1), Ok(Some(requested(1))));
    }

    #[test]
    fn only_its_buyer_pays_for_an_order() {
        let rejected = Err(Rejection::NotYourOrder);
        check(&[], |last| pay(last, &order(&[ordered()]), STRANGER, 1), rejected.clone());
        check(&[], |last| pay(last, &order(&[ordered(), cancelled()]), STRANGER, 1), rejected);
    }

    #[test]
    fn a_cancelled_order_is_not_paid() {
        let order = order(&[ordered(), cancelled()]);
        for history in [vec![], vec![requested(1)], vec![requested(1), declined(1)]] {
            check(&history, |last| pay(last, &order, BUYER, 2), Err(Rejection::OrderCancelled));
        }
    }

    #[test]
    fn asked_again_it_is_the_same_payment() {
        let order = order(&[ordered()]);
        for history in [
            vec![requested(1)],
            vec![requested(1), action_required(1)],
            vec![requested(1), authorized(1)],
            vec![requested(1), authorized(1), created(1)],
            vec![requested(1), authorized(1), created(1), refund_requested(1)],
        ] {
            check(&history, |last| pay(last, &order, BUYER, 2), Ok(None));
        }
    }

    #[test]
    fn after_a_declined_card_another_may_be_tried() {
        let history = [requested(1), declined(1)];
        check(&history, |last| pay(last, &order(&[ordered()]), BUYER, 2), Ok(Some(requested(2))));
    }

    #[test]
    fn a_payment_that_was_let_go_ends_its_order() {
        let rejected = Err(Rejection::OrderCancelled);
        let history = [requested(1), authorized(1), voided(1)];
        check(&history, |last| pay(last, &order(&[ordered(), awaiting(1)]), BUYER, 2), rejected.clone());
        let history = [requested(1), authorized(1), created(1), refunded(1)];
        check(&history, |last| pay(last, &order(&[ordered(), completed(1)]), BUYER, 2), rejected);
    }

    /// What follows from Stripe's having `money` for the first try, while the order is open.
    fn seen(last: Option<&Payment>, money: Money) -> Option<Difference> {
        compare(last, &order(&[ordered()]), &stripes(1, money))
    }

    fn unrecorded(event: PaymentEvent) -> Option<Difference> {
        Some(Difference::Unrecorded(event))
    }

    #[test]
    fn stripes_answer_is_recorded_once() {
        let why = Undone { stripe_id: Some(intent(1)), reason: "Your card was declined.".into() };
        let refused = PaymentEvent::Declined(lost(1, Some(intent(1)), &why.reason));
        check(&[requested(1)], |last| seen(last, Money::Held), unrecorded(authorized(1)));
        check(&[requested(1)], |last| seen(last, Money::ActionRequired), unrecorded(action_required(1)));
        check(&[requested(1)], |last| seen(last, Money::Refused), unrecorded(refused.clone()));
        check(&[requested(1)], |last| seen(last, Money::Moving), None);
        check(&[requested(1)], |last| decline(last, payment(1), &why), Some(refused.clone()));
        check(&[requested(1), authorized(1)], |last| seen(last, Money::Held), None);
        check(&[requested(1), action_required(1)], |last| seen(last, Money::ActionRequired), None);
        for outcome in [authorized(1), action_required(1), refused] {
            check(&[requested(1), outcome], |last| decline(last, payment(1), &why), None);
        }
    }

    #[test]
    fn who_proves_to_be_the_cards_owner_goes_on() {
        let history = [requested(1), action_required(1)];
        check(&history, |last| seen(last, Money::Held), unrecorded(authorized(1)));
        check(&history, |last| seen(last, TAKEN), unrecorded(created(1)));
    }

    #[test]
    fn who_does_not_may_try_another_card_once_nobody_else_can_use_the_intent() {
        let history = [requested(1), action_required(1)];
        check(&history, |last| seen(last, Money::Refused), Some(Difference::Stray));
        let declined = PaymentEvent::Declined(lost(1, Some(intent(1)), "The payment was given up."));
        check(&history, |last| seen(last, Money::Gone), unrecorded(declined.clone()));
        let history = [requested(1), action_required(1), declined];
        check(&history, |last| pay(last, &order(&[ordered()]), BUYER, 2), Ok(Some(requested(2))));
    }

    #[test]
    fn an_intent_that_nobody_waits_for_is_given_up_and_its_money_given_back() {
        for history in [vec![], vec![requested(1), declined(1), requested(2)], vec![requested(3)]] {
            check(&history, |last| seen(last, Money::Held), Some(Difference::Stray));
            check(&history, |last| seen(last, Money::ActionRequired), Some(Difference::Stray));
            check(&history, |last| seen(last, TAKEN), Some(Difference::StrayCharge));
            for over in [Money::Gone, Money::Refused, Money::Moving, GIVEN_BACK] {
                check(&history, |last| seen(last, over), None);
            }
        }
        let settled = [requested(1), authorized(1), voided(1)];
        check(&settled, |last| seen(last, Money::Held), Some(Difference::Stray));
        check(&settled, |last| seen(last, Money::Gone), None);
    }

    #[test]
    fn of_two_intents_for_one_try_the_recorded_one_counts() {
        let history = [requested(1), authorized(1)];
        let second = Intent { id: "pi_second".into(), ..stripes(1, Money::Held) };
        check(&history, |last| compare(last, &order(&[ordered()]), &second), Some(Difference::Stray));
        check(&history, |last| seen(last, Money::Held), None);
    }

    #[test]
    fn what_somebody_does_at_stripe_ends_up_in_the_log() {
        let held = [requested(1), authorized(1)];
        let given_up = PaymentEvent::Voided(lost(1, Some(intent(1)), "it was given up at Stripe"));
        check(&held, |last| seen(last, TAKEN), unrecorded(created(1)));
        check(&held, |last| seen(last, Money::Gone), unrecorded(given_up));

        let taken = [requested(1), authorized(1), created(1)];
        let back = PaymentEvent::Refunded(lost(1, Some(intent(1)), "given back at Stripe"));
        let some = |cents, disputed| Money::Taken { refunded: Cents(cents), in_full: false, disputed };
        check(&taken, |last| seen(last, TAKEN), None);
        check(&taken, |last| seen(last, GIVEN_BACK), unrecorded(back));
        check(&taken, |last| seen(last, some(500, false)), unrecorded(partially_refunded(1, 500)));
        check(&taken, |last| seen(last, some(0, true)), unrecorded(disputed(1)));
        let told = [&taken[..], &[disputed(1), partially_refunded(1, 500)]].concat();
        check(&told, |last| seen(last, some(500, true)), None);
    }

    /// All guards notwithstanding: the log let it go, and Stripe took it.
    #[test]
    fn what_was_taken_after_all_is_recorded_and_goes_back() {
        let over = order(&[ordered(), cancelled()]);
        let history = [requested(1), authorized(1), voided(1)];
        check(&history, |last| seen(last, TAKEN), unrecorded(created(1)));
        let history = [&history[..], &[created(1)]].concat();
        check(&history, |last| next_step(last, &over), Some(Step::RequestRefund));
        let why = "the order was over before it was paid";
        let asked = PaymentEvent::RefundRequested(lost(1, Some(intent(1)), why));
        check(&history, |last| refund_lost(last, &over), Some(asked.clone()));
        let history = [&history[..], &[asked]].concat();
        check(&history, |last| refund(last, payment(1)), Some(refunded(1)));
        // Refused, it is not asked for at once and for ever, and yet it is not done.
        let history = [&history[..], &[refund_failed(1)]].concat();
        check(&history, |last| next_step(last, &over), None);
        check(&history, |last| is_charged_in_vain(last, &over), true);
        check(&history, |last| refund_lost(last, &over).is_some(), true);
    }

    #[test]
    fn what_undoes_the_log_counts_if_it_is_still_so() {
        let mut history = vec![requested(1), authorized(1), created(1), refund_requested(1), refunded(1)];
        let why = "it failed after it had been said to succeed";
        let failed = PaymentEvent::RefundFailed(lost(1, Some(intent(1)), why));
        check(&history, |last| seen(last, TAKEN), Some(Difference::Reversed(failed.clone())));
        check(&history, |last| seen(last, GIVEN_BACK), None);
        // Then it was never given back: the seller, or we, may ask again.
        history.push(failed);
        check(&history, |last| seen(last, TAKEN), None);
        check(&history, |last| request_refund(last, SELLER, SELLER), Ok(Some(refund_requested(1))));

        let history = [requested(1), authorized(1), created(1), partially_refunded(1, 1000)];
        let some = |cents| Money::Taken { refunded: Cents(cents), in_full: false, disputed: false };
        let less = Difference::Reversed(partially_refunded(1, 500));
        check(&history, |last| seen(last, some(500)), Some(less));
        check(&history, |last| seen(last, some(1500)), unrecorded(partially_refunded(1, 1500)));
    }

    /// As after a backup of PAYMENTS was restored that is older than ORDERS.
    #[test]
    fn what_the_log_has_lost_is_left_to_a_person() {
        let complete = order(&[ordered(), completed(1)]);
        let awaits = order(&[ordered(), awaiting(1)]);
        for history in [vec![], vec![requested(2)]] {
            for order in [&complete, &awaits] {
                let compare = |last: Option<&Payment>, money| compare(last, order, &stripes(1, money));
                check(&history, |last| compare(last, TAKEN), Some(Difference::Lost));
                check(&history, |last| compare(last, Money::Held), Some(Difference::Lost));
            }
        }
        // A second charge beside the one in the log is a stray.
        let paid = [requested(2), authorized(2), created(2)];
        let stray = Some(Difference::StrayCharge);
        check(&paid, |last| compare(last, &complete, &stripes(1, TAKEN)), stray);
    }

    #[test]
    fn only_the_tickets_seller_gives_money_back() {
        let history = [requested(1), authorized(1), created(1)];
        check(&history, |last| request_refund(last, SELLER, BUYER), Err(Rejection::NotYourTicket));
        check(&history, |last| request_refund(last, SELLER, SELLER), Ok(Some(refund_requested(1))));
    }

    #[test]
    fn only_money_that_was_taken_goes_back_and_once() {
        for history in
            [vec![], vec![requested(1)], vec![requested(1), declined(1)], vec![requested(1), authorized(1)]]
        {
            check(&history, |last| request_refund(last, SELLER, SELLER), Err(Rejection::NotCharged));
        }
        let mut history = vec![requested(1), authorized(1), created(1), refund_requested(1)];
        check(&history, |last| request_refund(last, SELLER, SELLER), Ok(None));
        history.push(refunded(1));
        check(&history, |last| request_refund(last, SELLER, SELLER), Ok(None));
        check(&history, |last| refund(last, payment(1)), None);
    }

    #[test]
    fn what_stripe_refused_may_be_asked_for_again() {
        let history = [requested(1), authorized(1), created(1), refund_requested(1)];
        let step = |refusals| {
            let intent = IntentRef { payment: payment(1), stripe_id: intent(1) };
            Some(Step::Refund { intent, refusals })
        };
        let complete = order(&[ordered(), completed(1)]);
        check(&history, |last| next_step(last, &complete), step(0));
        check(&history, |last| fail_refund(last, payment(1), "no money"), Some(refund_failed(1)));
        let history = [&history[..], &[refund_failed(1)]].concat();
        check(&history, |last| request_refund(last, SELLER, SELLER), Ok(Some(refund_requested(1))));
        let history = [&history[..], &[refund_requested(1)]].concat();
        check(&history, |last| next_step(last, &complete), step(1));
    }

    #[test]
    fn what_the_log_says_already_is_not_looked_at() {
        let paid = [requested(1), authorized(1), created(1)];
        check(&paid, |last| is_news(last, "pi_1", Happened::Held), false);
        check(&paid, |last| is_news(last, "pi_1", Happened::Taken), false);
        check(&paid, |last| is_news(last, "pi_1", Happened::GivenUp), false);
        check(&paid, |last| is_news(last, "pi_1", Happened::Reversed), true);
        check(&[requested(1), authorized(1)], |last| is_news(last, "pi_1", Happened::Taken), true);
        check(&[requested(1), action_required(1)], |last| is_news(last, "pi_1", Happened::Held), true);
    }

    /// Be it of the same try: Stripe may have made two.
    #[test]
    fn what_happens_to_an_intent_that_the_log_does_not_have_is_news() {
        for history in [vec![], vec![requested(1)], vec![requested(1), authorized(1), created(1)]] {
            for happened in [Happened::Held, Happened::Taken, Happened::Refused, Happened::GivenUp] {
                check(&history, |last| is_news(last, "pi_other", happened), true);
            }
        }
    }

    #[test]
    fn an_answer_to_an_earlier_try_says_nothing_about_this_one() {
        let history = [requested(1), declined(1), requested(2)];
        check(&history, |last| decline(last, payment(1), &no_funds()), None);
        let late = [&history[..], &[declined(1)]].concat();
        check(&late, |last| last.cloned(), given(&history));
    }

    #[test]
    fn held_money_is_taken_when_the_order_awaits_it_and_let_go_when_it_is_over() {
        let held = IntentRef { payment: payment(1), stripe_id: intent(1) };
        let history = [requested(1), authorized(1)];
        check(&history, |last| next_step(last, &order(&[ordered()])), None);
        let awaits = order(&[ordered(), awaiting(1)]);
        check(&history, |last| next_step(last, &awaits), Some(Step::Capture(held.clone())));
        let over = order(&[ordered(), cancelled()]);
        check(&history, |last| next_step(last, &over), Some(Step::Void(held.clone())));
        let history = [requested(1), action_required(1)];
        check(&history, |last| next_step(last, &order(&[ordered()])), None);
        check(&history, |last| next_step(last, &over), Some(Step::Void(held)));
    }

    #[test]
    fn money_that_is_not_held_is_neither_taken_nor_let_go() {
        for history in [
            vec![],
            vec![requested(1)],
            vec![requested(1), declined(1)],
            vec![requested(1), authorized(1), voided(1)],
            vec![requested(1), authorized(1), created(1), refunded(1)],
        ] {
            for end in [awaiting(1), completed(1), cancelled()] {
                check(&history, |last| next_step(last, &order(&[ordered(), end])), None);
            }
            check(&history, |last| capture(last, payment(1)), None);
            check(&history, |last| void(last, payment(1), "over"), None);
        }
    }

    #[test]
    fn what_was_held_ends_taken_or_let_go() {
        let history = [requested(1), authorized(1)];
        check(&history, |last| capture(last, payment(1)), Some(created(1)));
        check(&history, |last| void(last, payment(1), "over"), Some(voided(1)));
        check(&history, |last| capture(last, payment(2)), None);
        check(&history, |last| void(last, payment(2), "over"), None);
    }

    #[test]
    fn a_token_is_a_reference_of_stripes() {
        for text in ["pm_card_visa", "tok_visa", "pm_1Nv0FGQ9RKHgCVdK"] {
            assert_eq!(text.parse(), Ok(Token(text.into())));
        }
        let long = format!("pm_{}", "1".repeat(253));
        for text in
            ["", "pm_", "tok_", "visa", "4242424242424242", "PM_1", " pm_1", "tok_1&amount=1", "pm_é", &long]
        {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text:?}");
        }
    }

    #[test]
    fn a_currency_has_cents() {
        for text in ["usd", "eur"] {
            assert_eq!(text.parse::<Currency>().unwrap().to_string(), text);
        }
        for text in ["", "USD", "us", "usdollar", "u5d", "jpy", "kwd"] {
            assert_eq!(text.parse::<Currency>(), Err(InvalidCurrency), "{text:?}");
        }
    }

    /// What may happen, in any order and as often as it likes.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        /// Somebody asks to pay, in a try of that number.
        Asked(UserId, u128),
        /// Stripe is asked to authorise a try, be it the first time or again, and the card says this.
        Authorizes(u128, Money),
        /// Stripe fails in a way that makes a second intent for a try.
        Doubles(u128),
        /// The buyer's bank hears from the buyer, or from somebody else.
        BankHears(u128, Money),
        /// Somebody at Stripe's dashboard moves an intent's money, if it can be moved so.
        Dashboard(u128, Money),
        /// We hear of an intent, whatever of.
        Look(u128),
        /// svc-orders sees what is in our log, or ends the order if it may.
        OrdersReacts,
        OrderEnds,
        /// What is next is done.
        Steps,
        /// The seller gives the money back; Stripe may refuse once.
        SellerRefunds {
            refused: bool,
        },
        /// Money that was said to have gone back did not.
        RefundFails(u128),
        /// Somebody looks at an intent and is slow: what was seen is acted on later.
        Glance(u128),
        SlowLook,
    }

    /// The log of payments, the log of orders, and what Stripe has.
    #[derive(Default)]
    struct World {
        payments: Vec<PaymentEvent>,
        orders: Vec<OrderEvent>,
        intents: Vec<Intent>,
        refuses: bool,
        glanced: Option<Intent>,
    }

    impl World {
        fn last(&self) -> Option<Payment> {
            given(&self.payments)
        }

        fn order(&self) -> Order {
            order(&self.orders)
        }

        fn record(&mut self, event: Option<PaymentEvent>) {
            self.payments.extend(event);
        }

        /// As Stripe does: what is held can be taken or let go, what is taken can go back, and that is all.
        fn moves(&mut self, id: &str, to: Money) -> bool {
            let Some(intent) = self.intents.iter_mut().find(|intent| intent.id == id) else { return false };
            let can = matches!(
                (intent.money, to),
                (Money::Held, Money::Taken { in_full: false, .. } | Money::Gone)
                    | (Money::ActionRequired, Money::Held | Money::Refused | Money::Gone)
                    | (Money::Refused, Money::Gone)
                    | (Money::Taken { in_full: false, .. }, Money::Taken { in_full: true, .. })
            );
            if can {
                intent.money = to;
            }
            can
        }

        fn money(&self, id: &str) -> Money {
            self.intents.iter().find(|intent| intent.id == id).map_or(Money::Gone, |intent| intent.money)
        }

        fn happens(&mut self, what: Happens) {
            let (last, order) = (self.last(), self.order());
            let last = last.as_ref();
            match what {
                Happens::Asked(by, number) => {
                    // An id is never used twice.
                    let used = self.payments.contains(&requested(number));
                    self.record(pay(last, &order, by, number).ok().flatten().filter(|_| !used));
                }
                Happens::Authorizes(number, money) => {
                    if unanswered(last, payment(number)).is_none() {
                        return;
                    }
                    if self.intents.iter().all(|intent| intent.payment != payment(number)) {
                        self.intents.push(stripes(number, money));
                    }
                    let stripes = self.intents.iter().find(|intent| intent.payment == payment(number));
                    let found = compare(last, &order, stripes.unwrap());
                    if let Some(Difference::Unrecorded(event)) = found {
                        self.record(Some(event));
                    }
                }
                Happens::Doubles(number) => {
                    if unanswered(last, payment(number)).is_some() && self.intents.len() < 6 {
                        let id = format!("pi_{}_again", self.intents.len());
                        self.intents.push(Intent { id, ..stripes(number, Money::Held) });
                    }
                }
                Happens::BankHears(number, money) => {
                    if self.money(&intent(number)) == Money::ActionRequired {
                        self.moves(&intent(number), money);
                    }
                }
                Happens::Dashboard(number, money) => {
                    self.moves(&intent(number), money);
                }
                Happens::Look(number) => self.look(&intent(number)),
                Happens::Glance(number) => {
                    self.glanced = self.intents.iter().find(|seen| seen.id == intent(number)).cloned();
                }
                Happens::SlowLook => {
                    if let Some(seen) = self.glanced.take() {
                        self.compares(&seen);
                    }
                }
                Happens::RefundFails(number) => {
                    let id = intent(number);
                    let back = self.intents.iter_mut().find(|intent| intent.id == id);
                    if let Some(back) = back.filter(|intent| intent.money == GIVEN_BACK) {
                        back.money = TAKEN;
                    }
                }
                Happens::OrdersReacts => match (last.map(|last| (last.id, &last.status)), order.standing) {
                    (Some((id, Status::Authorized { .. })), Standing::Open) => {
                        self.orders.push(awaiting(id.0.as_u128()));
                    }
                    (Some((id, Status::Created(_))), Standing::Open | Standing::Awaiting(_)) => {
                        self.orders.push(completed(id.0.as_u128()));
                    }
                    (Some((_, Status::Voided(_))), Standing::Open | Standing::Awaiting(_)) => {
                        self.orders.push(cancelled());
                    }
                    (Some((_, Status::Refunded(_))), standing) if standing != Standing::Cancelled => {
                        self.orders.push(cancelled());
                    }
                    _ => {}
                },
                Happens::OrderEnds => self.orders.extend((order.standing == Standing::Open).then(cancelled)),
                Happens::Steps => self.step(),
                Happens::SellerRefunds { refused } => {
                    self.refuses = refused;
                    self.record(request_refund(last, SELLER, SELLER).ok().flatten());
                }
            }
        }

        fn look(&mut self, id: &str) {
            if let Some(intent) = self.intents.iter().find(|intent| intent.id == id).cloned() {
                self.compares(&intent);
            }
        }

        fn compares(&mut self, seen: &Intent) {
            let (last, order) = (self.last(), self.order());
            match compare(last.as_ref(), &order, seen) {
                Some(Difference::Unrecorded(event)) => self.record(Some(event)),
                Some(Difference::Reversed(event)) if self.money(&seen.id) == seen.money => {
                    self.record(Some(event));
                }
                Some(Difference::Reversed(_)) | None => {}
                Some(Difference::Stray) => drop(self.moves(&seen.id, Money::Gone)),
                Some(Difference::StrayCharge) => drop(self.moves(&seen.id, GIVEN_BACK)),
                Some(Difference::Lost) => panic!("the log has lost nothing: {seen:?} {last:?}"),
            }
        }

        fn step(&mut self) {
            let (last, order) = (self.last(), self.order());
            let last = last.as_ref();
            match next_step(last, &order) {
                Some(Step::Capture(held)) => {
                    let taken = self.moves(&held.stripe_id, TAKEN)
                        || matches!(self.money(&held.stripe_id), Money::Taken { .. });
                    self.record(match taken {
                        true => capture(last, held.payment),
                        false => void(last, held.payment, "over"),
                    });
                }
                Some(Step::Void(held)) => {
                    self.moves(&held.stripe_id, Money::Gone);
                    self.record(match self.money(&held.stripe_id) {
                        Money::Gone => void(last, held.payment, "over"),
                        _ => capture(last, held.payment),
                    });
                }
                Some(Step::RequestRefund) => self.record(refund_lost(last, &order)),
                Some(Step::Refund { intent, .. }) => {
                    let refused = std::mem::take(&mut self.refuses);
                    if refused && self.money(&intent.stripe_id) == TAKEN {
                        self.record(fail_refund(last, intent.payment, "no money"));
                    } else {
                        self.moves(&intent.stripe_id, GIVEN_BACK);
                        self.record(refund(last, intent.payment));
                    }
                }
                // What Stripe refused once is asked for again from time to time.
                None => self.record(refund_lost(last, &order)),
            }
        }

        /// All that is heard, looked at and done when nothing new happens any more.
        fn comes_to_rest(&mut self) {
            for _ in 0..8 {
                for id in self.intents.iter().map(|intent| intent.id.clone()).collect::<Vec<_>>() {
                    self.look(&id);
                }
                self.step();
                self.happens(Happens::OrdersReacts);
            }
        }

        /// How many intents have taken money that did not go back.
        fn charges(&self) -> usize {
            self.intents.iter().filter(|intent| intent.money == TAKEN).count()
        }
    }

    fn happenings() -> impl Strategy<Value = Vec<Happens>> {
        let number = 1..4_u128;
        let answer = || prop_oneof![3 => Just(Money::Held), 1 => Just(Money::ActionRequired), 1 => Just(Money::Refused)];
        let one = prop_oneof![
            3 => (prop_oneof![9 => Just(BUYER), 1 => Just(STRANGER)], number.clone())
                .prop_map(|(by, number)| Happens::Asked(by, number)),
            3 => (number.clone(), answer()).prop_map(|(number, money)| Happens::Authorizes(number, money)),
            1 => number.clone().prop_map(Happens::Doubles),
            2 => (number.clone(), prop_oneof![Just(Money::Held), Just(Money::Refused)])
                .prop_map(|(number, money)| Happens::BankHears(number, money)),
            1 => (number.clone(), prop_oneof![Just(TAKEN), Just(GIVEN_BACK), Just(Money::Gone)])
                .prop_map(|(number, money)| Happens::Dashboard(number, money)),
            2 => number.clone().prop_map(Happens::Look),
            3 => Just(Happens::OrdersReacts),
            1 => Just(Happens::OrderEnds),
            4 => Just(Happens::Steps),
            1 => any::<bool>().prop_map(|refused| Happens::SellerRefunds { refused }),
            1 => number.clone().prop_map(Happens::RefundFails),
            2 => number.clone().prop_map(Happens::Glance),
            2 => Just(Happens::SlowLook),
        ];
        prop::collection::vec(one, 0..80)
    }

    fn world_after(happenings: &[Happens]) -> World {
        let mut world = World { orders: vec![ordered()], ..World::default() };
        happenings.iter().for_each(|&what| world.happens(what));
        world
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Told from the logs and from Stripe's books, without `evolve`.
        #[test]
        fn whatever_happens_who_is_charged_has_the_ticket(happenings in happenings()) {
            let mut world = world_after(&happenings);
            world.comes_to_rest();
            // The window is over at last; who has not proved to be the card's owner by then is too late.
            world.happens(Happens::OrderEnds);
            world.comes_to_rest();

            let complete = world.order().standing == Standing::Complete;
            prop_assert!(world.charges() <= 1, "{:?}", world.intents);
            prop_assert_eq!(world.charges() == 1, complete, "{:?} {:?}", world.payments, world.intents);
            for intent in &world.intents {
                let open = matches!(intent.money, Money::Held | Money::ActionRequired);
                prop_assert!(!open, "{:?} of {:?}", intent, world.payments);
            }
            let created = world.last().is_some_and(|last| last.status.charge().is_some());
            prop_assert_eq!(created, world.charges() == 1, "the log and stripe differ: {:?}", world.payments);
        }

        #[test]
        fn when_all_is_done_there_is_nothing_more_to_do(happenings in happenings()) {
            let mut world = world_after(&happenings);
            world.comes_to_rest();
            let before = world.payments.len();
            world.comes_to_rest();
            prop_assert_eq!(world.payments.len(), before);
        }

        /// Only the buyer pays, one try at a time, and nothing follows an end but what tells that it was none.
        #[test]
        fn the_log_tells_a_story(happenings in happenings()) {
            let mut world = world_after(&happenings);
            world.comes_to_rest();
            let mut alive: Option<PaymentId> = None;
            let mut charged = false;
            for event in &world.payments {
                match event {
                    PaymentEvent::Requested(event) => {
                        prop_assert_eq!(alive.replace(event.id), None);
                        prop_assert!(!charged, "asked for after it was paid");
                        prop_assert_eq!(event.user_id, BUYER);
                    }
                    PaymentEvent::ActionRequired(event) | PaymentEvent::Authorized(event) => {
                        prop_assert_eq!(alive, Some(event.id));
                    }
                    PaymentEvent::Declined(event) | PaymentEvent::Voided(event) => {
                        prop_assert_eq!(alive.take(), Some(event.id));
                        prop_assert!(!charged);
                    }
                    PaymentEvent::Created(event) => {
                        alive = Some(event.id);
                        prop_assert!(!std::mem::replace(&mut charged, true), "charged twice");
                    }
                    // Or it had been said to have gone back.
                    PaymentEvent::RefundFailed(_) => charged = true,
                    PaymentEvent::RefundRequested(_)
                    | PaymentEvent::PartiallyRefunded(_)
                    | PaymentEvent::Disputed(_) => prop_assert!(charged),
                    PaymentEvent::Refunded(_) => {
                        prop_assert!(std::mem::replace(&mut charged, false), "nothing to give back");
                    }
                }
            }
        }

        #[test]
        fn a_look_that_is_repeated_changes_nothing(happenings in happenings()) {
            let mut world = World { orders: vec![ordered()], ..World::default() };
            for &what in &happenings {
                world.happens(what);
                if let Happens::Look(_) = what {
                    // One difference at a time: a few looks may be needed.
                    (0..4).for_each(|_| world.happens(what));
                    let before = world.payments.len();
                    world.happens(what);
                    prop_assert_eq!(world.payments.len(), before, "{:?}", what);
                }
            }
        }
    }
}
