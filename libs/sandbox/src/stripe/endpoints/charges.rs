//! Charges: what a card says, and what becomes of the money.

use serde_json::Value;

use super::{disputes, intents};
use crate::stripe::books::{Books, CaptureMethod, Charge, Intent, Status};
use crate::stripe::cards::Later;
use crate::stripe::refusal::Refusal;
use crate::stripe::shapes;

/// Charges the card of an intent that has one: authorised, taken at once, or declined.
pub(in crate::stripe) fn attempt(
    books: &mut Books,
    mut intent: Intent,
    authenticated: bool,
) -> Result<Value, Refusal> {
    let mut charge = Charge { authenticated, ..Charge::new(&intent) };
    intent.latest_charge = Some(charge.id.clone());
    intent.action = None;
    let method = charge.payment_method.as_deref().and_then(|id| books.methods.get(id));
    let method = method.expect("an intent is tried with a payment method");

    if let Some(decline) = &method.card().decline {
        let mut error = decline.error();
        error["charge"] = charge.id.as_str().into();
        error["payment_method"] = shapes::payment_method(method);
        charge.failure = Some(error.clone());
        charge_is(books, charge, "charge.failed");
        return Err(Refusal::declined(intents::decline(books, intent, error)));
    }
    intent.last_payment_error = None;
    intent.authorizations += 1;
    match intent.capture_method {
        CaptureMethod::Manual => {
            charge_is(books, charge, "charge.succeeded");
            intent.status = Status::RequiresCapture;
            Ok(intents::intent_is(books, intent, "payment_intent.amount_capturable_updated"))
        }
        CaptureMethod::Automatic | CaptureMethod::AutomaticAsync => {
            books.put(charge);
            let amount = intent.amount;
            Ok(take(books, intent, amount, "charge.succeeded"))
        }
    }
}

/// Takes authorised money; what is not taken of it is let go.
pub(super) fn take(books: &mut Books, mut intent: Intent, amount: i64, event: &'static str) -> Value {
    let mut charge = books.charge_of(&intent).expect("an authorised intent has a charge").clone();
    charge.captured = true;
    charge.amount_captured = amount;
    charge_is(books, charge.clone(), event);
    intent.status = Status::Succeeded;
    intent.amount_captured = amount;
    intent.captures += 1;
    let body = intents::intent_is(books, intent, "payment_intent.succeeded");
    let method = charge.payment_method.as_deref().and_then(|id| books.methods.get(id));
    if method.is_some_and(|method| method.card().later == Later::Dispute) {
        disputes::raise(books, charge);
    }
    body
}

/// Lets go what is authorised. On Stripe, too, the charge reads as refunded then, without a capture.
pub(super) fn release(books: &mut Books, intent: &Intent) {
    let mut charge = books.charge_of(intent).expect("an authorised intent has a charge").clone();
    charge.amount_refunded = charge.amount;
    charge_is(books, charge, "charge.refunded");
}

/// Keeps a charge as it has become, and tells of it.
pub(super) fn charge_is(books: &mut Books, charge: Charge, event: &'static str) {
    let body = shapes::charge(books, &charge);
    books.put(charge);
    books.happened(event, body);
}
