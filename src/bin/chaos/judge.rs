//! What was promised, held against the log and Stripe's ledger.

use std::collections::{BTreeMap, HashMap};

use contract::Cents;
use sandbox::stripe::{LedgerEntry, Status};
use serde::Serialize;

use crate::{
    log::Log,
    notes::{Notes, Promise},
};

/// How many promises of a kind there were, and how many of them are kept.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Kept {
    pub(crate) noted: u64,
    pub(crate) kept: u64,
}

/// What Stripe has taken and given back, in cents.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Money {
    pub(crate) intents: u64,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
}

/// Whether each promise is kept; what is not, is added to `findings`.
pub(crate) fn promises(notes: &Notes, log: &Log, findings: &mut Vec<String>) -> BTreeMap<&'static str, Kept> {
    let mut kept: BTreeMap<_, Kept> = BTreeMap::new();
    for promise in &notes.promises {
        let count = kept.entry(promise.name()).or_default();
        count.noted += 1;
        match is_kept(promise, log) {
            true => count.kept += 1,
            false => findings.push(format!("not in the log: {promise:?}")),
        }
    }
    kept
}

fn is_kept(promise: &Promise, log: &Log) -> bool {
    match promise {
        Promise::SignedUp(user) => log.has("user:signed-up", user.id),
        Promise::Erased(user) => log.has("user:erased", user),
        Promise::Listed(ticket) | Promise::Edited(ticket) => {
            let Cents(cents) = ticket.price;
            log.terms(ticket.id, ticket.version) == Some((&ticket.title, cents))
        }
        Promise::Ordered(order) => {
            let Cents(cents) = order.ticket.price;
            log.orders.get(&order.id.to_string()).is_some_and(|known| {
                let known = (&known.ticket, &known.buyer, known.cents);
                known == (&order.ticket.id.to_string(), &order.user_id.to_string(), cents)
            })
        }
        Promise::Cancelled(order) => log.has("order:cancelled", order),
        Promise::Paid(payment) => {
            log.has("payment:created", payment.id) && log.has("order:completed", payment.order_id)
        }
        Promise::Requested(payment) => log.has("payment:requested", payment.id),
        Promise::Refunded(payment) => {
            log.has("payment:refunded", payment.id) && log.has("order:cancelled", payment.order_id)
        }
    }
}

/// Whether everybody was charged for what they have, and nobody for anything else.
pub(crate) fn money(log: &Log, ledger: &[LedgerEntry], findings: &mut Vec<String>) -> Money {
    let mut money = Money { intents: ledger.len() as u64, ..Money::default() };
    let mut charges: HashMap<&str, Vec<i64>> = HashMap::new();
    for intent in ledger {
        money.captured += intent.amount_captured;
        money.refunded += intent.amount_refunded;
        let order = intent.metadata.get("order_id").map_or("", String::as_str);
        if intent.captures > 1 {
            findings.push(format!("captured more than once: {intent:?}"));
        }
        if matches!(intent.status, Status::RequiresCapture | Status::RequiresAction) {
            findings.push(format!("money is held for nobody: {intent:?}"));
        }
        if intent.amount_captured > intent.amount_refunded {
            charges.entry(order).or_default().push(intent.amount_captured - intent.amount_refunded);
        }
    }
    for (id, order) in &log.orders {
        let charged = charges.remove(id.as_str()).unwrap_or_default();
        let due = if order.last == "order:completed" { vec![order.cents] } else { Vec::new() };
        if charged != due {
            findings.push(format!(
                "order {id} ends as {}, and was charged for {charged:?}, not {due:?}",
                order.last
            ));
        }
    }
    findings
        .extend(charges.iter().map(|(order, cents)| format!("{cents:?} for {order:?}, which the log lacks")));
    money
}
