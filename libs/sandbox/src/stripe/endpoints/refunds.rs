//! Refunds: never more than was captured.

use serde_json::Value;

use super::charges::charge_is;
use crate::stripe::books::{Books, Charge, Intent, Refund, Status, new_id, now};
use crate::stripe::cards::Later;
use crate::stripe::params::Params;
use crate::stripe::refusal::Refusal;
use crate::stripe::shapes;

/// The intent that a refund is asked of.
pub(super) fn intent<'a>(books: &'a Books, params: &Params) -> Result<&'a Intent, Refusal> {
    match (params.get("payment_intent"), params.get("charge")) {
        (Some(id), _) => {
            books.intents.get(id).ok_or_else(|| Refusal::no_such("payment_intent", id, "payment_intent"))
        }
        (None, Some(id)) => {
            let charge = books.charges.get(id);
            charge
                .and_then(|charge| books.intents.get(&charge.payment_intent))
                .ok_or_else(|| Refusal::no_such("charge", id, "charge"))
        }
        (None, None) => Err(Refusal::missing("payment_intent")),
    }
}

pub(super) fn create(books: &mut Books, params: &Params) -> Result<Value, Refusal> {
    let mut intent = intent(books, params)?.clone();
    let asked = params.integer("amount")?;
    let mut charge = match books.charge_of(&intent) {
        Some(charge) if intent.status == Status::Succeeded => charge.clone(),
        _ => {
            let message =
                format!("This PaymentIntent ({}) does not have a successful charge to refund.", intent.id);
            return Err(Refusal::unexpected_state(message, shapes::intent(books, &intent)));
        }
    };
    if charge.disputed {
        return Err(Refusal::charged_back(&charge.id));
    }
    let left = charge.left();
    if left == 0 {
        return Err(Refusal::already_refunded(&charge.id));
    }
    let amount = asked.unwrap_or(left);
    if amount < 1 {
        return Err(Refusal::too_small("amount", 1));
    }
    if amount > left {
        let [amount, left] = [amount, left].map(|cents| money(cents, &intent.currency));
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
        return Err(Refusal::invalid("amount", message));
    }
    let refund = Refund {
        id: new_id("re"),
        created: now(),
        amount,
        currency: intent.currency.clone(),
        payment_intent: intent.id.clone(),
        charge: charge.id.clone(),
        reason: params.text("reason"),
        metadata: params.metadata(),
        failure_reason: None,
    };
    charge.amount_refunded += amount;
    intent.amount_refunded += amount;
    intent.refunds += 1;
    let body = shapes::refund(&refund);
    books.put(refund.clone());
    books.put(intent.clone());
    books.happened("refund.created", body.clone());
    charge_is(books, charge.clone(), "charge.refunded");

    let method = charge.payment_method.as_deref().and_then(|id| books.methods.get(id));
    if method.is_some_and(|method| method.card().later == Later::RefundFails) {
        fail(books, refund, charge, intent);
    }
    Ok(body)
}

/// The bank sends the money back: the charge reads as if it had not been refunded.
fn fail(books: &mut Books, mut refund: Refund, mut charge: Charge, mut intent: Intent) {
    refund.failure_reason = Some("expired_or_canceled_card".into());
    charge.amount_refunded -= refund.amount;
    intent.amount_refunded -= refund.amount;
    intent.refunds -= 1;
    let body = shapes::refund(&refund);
    books.put(refund);
    books.put(charge);
    books.put(intent);
    for event in ["charge.refund.updated", "refund.updated", "refund.failed"] {
        books.happened(event, body.clone());
    }
}

fn money(cents: i64, currency: &str) -> String {
    let sign = if currency == "usd" { "$" } else { "" };
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}
