//! Purchases, and what has to be true of the money whatever happened: Stripe's ledger equals the log.

use std::collections::BTreeMap;

use futures::StreamExt;
use reqwest::StatusCode;
use sandbox::stripe::{LedgerEntry, Status};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    PATIENCE, Person,
    Service::{Orders, Payments},
    Stored, System, within,
};

/// A card that pays.
pub(crate) const VISA: &str = "pm_card_visa";
/// A card whose bank asks its owner first.
pub(crate) const ASKS_ITS_OWNER: &str = "pm_card_authenticationRequired";

/// How many purchases are prepared at once.
const AT_ONCE: usize = 32;

/// A ticket that somebody has ordered and may pay for.
pub(crate) struct Purchase {
    pub(crate) seller: Person,
    pub(crate) buyer: Person,
    pub(crate) ticket: String,
    pub(crate) order: String,
    /// What it costs, in cents.
    pub(crate) cents: i64,
}

impl Purchase {
    /// Ordered, and not paid for.
    pub(crate) async fn reserved(system: &System) -> Self {
        Self::at_price(system, 19.99).await
    }

    /// Likewise, for a ticket of that price.
    pub(crate) async fn at_price(system: &System, price: f64) -> Self {
        let (seller, buyer) = (system.person(), system.person());
        let ticket = system.list_ticket(&seller, price).await;
        let order = system.reserve(&buyer, &ticket).await;
        Self { seller, buyer, ticket, order, cents: (price * 100.0).round() as i64 }
    }

    /// Many of them.
    pub(crate) async fn many(system: &System, count: usize) -> Vec<Self> {
        let reserving = (0..count).map(|_| Self::reserved(system));
        futures::stream::iter(reserving).buffered(AT_ONCE).collect().await
    }

    /// Bought: paid for, and the log has all of it.
    pub(crate) async fn bought(system: &System) -> Self {
        Self::bought_with(system, VISA).await
    }

    /// Likewise, with that card.
    pub(crate) async fn bought_with(system: &System, card: &str) -> Self {
        let purchase = Self::reserved(system).await;
        let (status, payment) = purchase.pays(system, card).await;
        assert_eq!(status, StatusCode::CREATED, "{payment}");
        purchase.is_bought(system).await;
        purchase
    }

    /// Pays, and waits for the answer.
    pub(crate) async fn pays(&self, system: &System, card: &str) -> (StatusCode, Value) {
        system.try_pay(&self.buyer, &self.order, card).await
    }

    /// Asks to pay, in the background: whoever answers may hang, or be killed meanwhile.
    pub(crate) fn start_to_pay(
        &self,
        system: &System,
        card: &str,
        replica: usize,
    ) -> JoinHandle<(StatusCode, Value)> {
        let url = system.url(Payments, replica, "/api/payments");
        let (buyer, body) = (self.buyer.clone(), json!({ "token": card, "orderId": self.order }));
        tokio::spawn(async move { buyer.post(&url, body).await })
    }

    /// The seller asks for the money to go back, in the background.
    pub(crate) fn start_to_refund(&self, system: &System, replica: usize) -> JoinHandle<(StatusCode, Value)> {
        let url = self.refund_url(system, replica);
        let seller = self.seller.clone();
        tokio::spawn(async move { seller.post(&url, json!({})).await })
    }

    pub(crate) fn refund_url(&self, system: &System, replica: usize) -> String {
        system.url(Payments, replica, &format!("/api/payments/{}/refund", self.order))
    }

    /// The buyer gives the reservation up.
    pub(crate) async fn cancel(&self, system: &System) {
        let url = system.url(Orders, 0, &format!("/api/orders/{}", self.order));
        let (status, body) = self.buyer.delete(&url).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }

    /// The payment as its buyer sees it.
    pub(crate) async fn payment(&self, system: &System) -> Value {
        let url = system.url(Payments, 0, &format!("/api/payments/{}", self.order));
        self.buyer.get(&url).await.1
    }

    /// Waits until svc-payments says so of the payment, whoever answers.
    pub(crate) async fn until_payment(&self, system: &System, status: &str) {
        let has_it = || async { (self.payment(system).await["status"] == status).then_some(()) };
        if within(PATIENCE, has_it).await.is_none() {
            let payment = self.payment(system).await;
            panic!("the payment is not {status}: {payment}\n{}", system.log(Payments, 0));
        }
    }

    /// What the log has of its payments: the events, without their `payment:`.
    pub(crate) async fn logged(&self, system: &System) -> Vec<String> {
        let mut events = system.read_stream("PAYMENTS").await;
        events.retain(|event| event.subject.ends_with(&self.order));
        events.into_iter().map(|event| event.event_type.trim_start_matches("payment:").to_owned()).collect()
    }

    /// Waits until the log has such an event of it.
    pub(crate) async fn until_logged(&self, system: &System, event: &str) {
        let there = || async { self.logged(system).await.iter().any(|one| one == event).then_some(()) };
        if within(PATIENCE, there).await.is_none() {
            panic!("no {event}: {:?}\n{}", self.logged(system).await, system.log(Payments, 0));
        }
    }

    /// What Stripe has of it.
    pub(crate) fn intents(&self, system: &System) -> Vec<LedgerEntry> {
        let mut ledger = system.stripe.ledger();
        ledger.retain(|intent| intent.metadata.get("order_id") == Some(&self.order));
        ledger
    }

    /// The one intent that Stripe has of it.
    pub(crate) fn intent(&self, system: &System) -> LedgerEntry {
        let mut intents = self.intents(system);
        assert_eq!(intents.len(), 1, "{intents:?}");
        intents.remove(0)
    }

    /// Why its order was cancelled, if it was.
    pub(crate) async fn reason(&self, system: &System) -> Option<String> {
        let url = system.url(Orders, 0, &format!("/api/orders/{}/history", self.order));
        let (_, history) = self.buyer.get(&url).await;
        let last = history.as_array()?.last()?;
        last["data"]["reason"].as_str().map(str::to_owned)
    }

    /// Waits until it is bought; then it was charged once, and in full.
    pub(crate) async fn is_bought(&self, system: &System) {
        system.until_order(&self.buyer, &self.order, "complete").await;
        system.until_ticket(&self.ticket, "sold").await;
        self.until_payment(system, "created").await;
        let intents = self.intents(system);
        let captured = intents.iter().map(|intent| intent.captures).sum::<u32>();
        let amounts = intents.iter().map(|intent| intent.amount_captured - intent.amount_refunded);
        assert_eq!((captured, amounts.sum::<i64>()), (1, self.cents), "{intents:?}");
    }

    /// Waits until it is over and the ticket can be had; then nothing was charged.
    pub(crate) async fn is_not_bought(&self, system: &System, reason: &str) {
        system.until_order(&self.buyer, &self.order, "cancelled").await;
        assert_eq!(self.reason(system).await.as_deref(), Some(reason));
        system.until_ticket(&self.ticket, "available").await;
        let intents = self.intents(system);
        assert!(intents.iter().all(|intent| intent.captures == 0), "{intents:?}");
    }

    /// Waits until the sale is undone; then all that was charged went back, once.
    pub(crate) async fn is_refunded(&self, system: &System) {
        system.until_order(&self.buyer, &self.order, "cancelled").await;
        assert_eq!(self.reason(system).await.as_deref(), Some("refunded"));
        system.until_ticket(&self.ticket, "available").await;
        let intent = self.intent(system);
        assert_eq!((intent.captures, intent.refunds), (1, 1), "{intent:?}");
        assert_eq!((intent.amount_captured, intent.amount_refunded), (self.cents, self.cents), "{intent:?}");
    }
}

/// Waits until Stripe's ledger and the log say the same of every order, and nothing is left to be done.
pub(crate) async fn ledger_equals_log(system: &System) {
    let equal = || async { differences(system).await.is_empty().then_some(()) };
    if within(PATIENCE, equal).await.is_none() {
        let differences = differences(system).await.join("\n");
        panic!("ledger and log differ:\n{differences}\n{}", system.log(Payments, 0));
    }
}

/// What the log says became of one try to pay.
#[derive(Debug)]
struct Try {
    id: String,
    cents: i64,
    last: String,
    created: u32,
    refunded: bool,
}

/// Folds PAYMENTS as the server has it, by hand, and holds each order's tries against its intents.
async fn differences(system: &System) -> Vec<String> {
    let mut orders: BTreeMap<String, (Vec<Try>, Vec<LedgerEntry>)> = BTreeMap::new();
    for event in system.read_stream("PAYMENTS").await {
        let order = event.subject.rsplit('.').next().unwrap_or_default();
        follow(&mut orders.entry(order.to_owned()).or_default().0, &event);
    }
    for intent in system.stripe.ledger() {
        let order = intent.metadata.get("order_id").cloned().unwrap_or_default();
        orders.entry(order).or_default().1.push(intent);
    }
    let mut differences = Vec::new();
    for (order, (tries, intents)) in &orders {
        let wrong = wrong_with(tries, intents);
        differences.extend(wrong.into_iter().map(|what| format!("{order}: {what}: {tries:?} {intents:?}")));
    }
    differences
}

fn follow(tries: &mut Vec<Try>, event: &Stored) {
    let id = event.payload["id"].as_str().unwrap_or_default().to_owned();
    if event.event_type == "payment:requested" {
        let cents = event.payload["amountCents"].as_i64().unwrap_or_default();
        tries.push(Try { id: id.clone(), cents, last: String::new(), created: 0, refunded: false });
    }
    if let Some(last) = tries.iter_mut().find(|one| one.id == id) {
        last.last.clone_from(&event.event_type);
        last.created += u32::from(event.event_type == "payment:created");
        match &*event.event_type {
            "payment:refunded" => last.refunded = true,
            // After it had been said to succeed.
            "payment:refund-failed" => last.refunded = false,
            _ => {}
        }
    }
}

fn wrong_with(tries: &[Try], intents: &[LedgerEntry]) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let mut expect = |right: bool, what| {
        if !right {
            wrong.push(what);
        }
    };
    let charged =
        |intent: &&LedgerEntry| intent.captures > 0 && intent.amount_refunded < intent.amount_captured;
    expect(intents.iter().filter(charged).count() <= 1, "charged twice");
    expect(tries.iter().map(|one| one.created).sum::<u32>() <= 1, "twice paid in the log");
    for one in tries {
        let of_it: Vec<_> =
            intents.iter().filter(|intent| intent.metadata.get("payment_id") == Some(&one.id)).collect();
        let captures = of_it.iter().map(|intent| intent.captures).sum::<u32>();
        let captured = of_it.iter().map(|intent| intent.amount_captured).sum::<i64>();
        let refunded = of_it.iter().map(|intent| intent.amount_refunded).sum::<i64>();
        let paid = one.created > 0;
        expect((captures, captured) == if paid { (1, one.cents) } else { (0, 0) }, "paid, and not as logged");
        let in_full = captured > 0 && refunded == captured;
        expect(one.refunded == in_full, "given back, and not as logged");
        let settled = ["payment:declined", "payment:voided", "payment:refunded"].contains(&one.last.as_str());
        expect(settled || (paid && one.last != "payment:refund-requested"), "without an outcome");
    }
    for intent in intents {
        let known = tries.iter().any(|one| intent.metadata.get("payment_id") == Some(&one.id));
        expect(known || !charged(&intent), "a charge that the log does not know");
        let over = !matches!(intent.status, Status::RequiresCapture | Status::RequiresAction);
        expect(over, "money is held, or might be");
    }
    wrong
}
