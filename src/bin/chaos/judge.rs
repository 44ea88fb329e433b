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
        match is_kept(promise, notes, log) {
            true => count.kept += 1,
            false => findings.push(format!("not in the log: {promise:?}")),
        }
    }
    kept
}

fn is_kept(promise: &Promise, notes: &Notes, log: &Log) -> bool {
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
            // A seller who is fast gives the money back before svc-orders has heard that it came.
            let is_given_back =
                notes.given_back.contains(&payment.order_id) && log.has("payment:refunded", payment.id);
            let is_sold = log.has("order:completed", payment.order_id);
            log.has("payment:created", payment.id) && (is_sold || is_given_back)
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

#[cfg(test)]
mod tests {
    use contract::{OrderId, TicketId, UserId, http, http::TicketStatus};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const TICKET: TicketId = TicketId(Uuid::from_u128(1));
    const ORDER: OrderId = OrderId(Uuid::from_u128(2));
    const SOMEBODY: UserId = UserId(Uuid::from_u128(3));

    /// A ticket of 19.99, ordered, and what became of that.
    fn log(ends: &[&str]) -> Log {
        let mut log = Log::default();
        let listed = json!({ "id": TICKET, "version": 0, "title": "Concert", "priceCents": 1999 });
        log.add("ticket:created", &listed).unwrap();
        let ticket = json!({ "id": TICKET, "priceCents": 1999 });
        let ordered = json!({ "id": ORDER, "userId": SOMEBODY, "ticket": ticket });
        log.add("order:created", &ordered).unwrap();
        for end in ends {
            log.add(end, &json!({ "id": ORDER, "ticket": { "id": TICKET } })).unwrap();
        }
        log
    }

    fn listed(price: i64, version: u64) -> Promise {
        Promise::Listed(http::Ticket {
            id: TICKET,
            title: "Concert".into(),
            price: Cents(price),
            user_id: SOMEBODY,
            order_id: None,
            status: TicketStatus::Available,
            version,
        })
    }

    fn broken(log: &Log, promises: Vec<Promise>) -> usize {
        let (notes, mut findings) = (Notes { promises, ..Notes::default() }, Vec::new());
        super::promises(&notes, log, &mut findings);
        findings.len()
    }

    /// What is wrong when Stripe has these sums of the order, taken and given back.
    fn charged(log: &Log, charges: &[(i64, i64)]) -> usize {
        let intent = |(captured, refunded): &(i64, i64)| LedgerEntry {
            id: "pi_1".into(),
            amount: *captured,
            currency: "usd".into(),
            status: Status::Succeeded,
            amount_captured: *captured,
            amount_refunded: *refunded,
            metadata: BTreeMap::from([("order_id".into(), ORDER.to_string())]),
            authorizations: 1,
            declines: 0,
            captures: 1,
            cancellations: 0,
            refunds: 0,
            disputed: false,
        };
        let (ledger, mut findings) = (charges.iter().map(intent).collect::<Vec<_>>(), Vec::new());
        money(log, &ledger, &mut findings);
        findings.len()
    }

    #[test]
    fn a_promise_is_kept_by_its_event_and_no_other() {
        assert_eq!(broken(&log(&[]), vec![listed(1999, 0)]), 0);
        assert_eq!(broken(&log(&[]), vec![listed(1998, 0), listed(1999, 1)]), 2);
        assert_eq!(broken(&log(&[]), vec![Promise::Cancelled(ORDER), Promise::Erased(SOMEBODY)]), 2);
        assert_eq!(broken(&log(&["order:cancelled"]), vec![Promise::Cancelled(ORDER)]), 0);
    }

    #[test]
    fn who_has_the_ticket_was_charged_once_and_nobody_else_was() {
        let (sold, cancelled) = (log(&["order:completed"]), log(&["order:cancelled"]));
        assert_eq!(charged(&sold, &[(1999, 0)]), 0);
        assert_eq!(charged(&cancelled, &[(1999, 1999)]), 0);
        for wrong in [&[][..], &[(1999, 0), (1999, 0)], &[(1998, 0)], &[(1999, 1999)]] {
            assert_eq!(charged(&sold, wrong), 1, "{wrong:?}");
        }
        assert_eq!(charged(&cancelled, &[(1999, 0)]), 1);
        assert_eq!(charged(&Log::default(), &[(1999, 0)]), 1);
    }

    #[test]
    fn a_ticket_sold_twice_is_seen() {
        let mut log = log(&[]);
        let second = json!({ "id": "other", "ticket": { "id": TICKET, "priceCents": 1999 } });
        log.add("order:created", &second).unwrap();
        assert_eq!(log.wrong.len(), 1);
    }
}
