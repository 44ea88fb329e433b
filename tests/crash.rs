//! A service killed at each step of a purchase: after its restart the purchase ends right, with one charge at most.

mod support;

use std::time::Duration;

use futures::future::join_all;
use sandbox::stripe::{Fault, Mode, Step};
use serde_json::Value;
use support::{
    Layout, Person, Service,
    Service::{Expiration, Orders, Payments, Tickets},
    System,
};
use tokio::task::JoinHandle;

/// How many purchases there are at once where there are several.
const PURCHASES: usize = 24;

struct Purchase {
    buyer: Person,
    ticket: String,
    order: String,
}

async fn reserved(system: &System) -> Purchase {
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 19.99).await;
    let order = system.reserve(&buyer, &ticket).await;
    Purchase { buyer, ticket, order }
}

impl Purchase {
    /// Asks to pay, in the background: whoever answers may be killed meanwhile.
    fn pay(&self, system: &System) -> JoinHandle<(reqwest::StatusCode, Value)> {
        let url = system.url(Payments, 0, "/api/payments");
        let (buyer, order) = (self.buyer.clone(), self.order.clone());
        tokio::spawn(async move {
            buyer.post(&url, serde_json::json!({ "token": "pm_card_visa", "orderId": order })).await
        })
    }

    /// Waits until all is settled, then checks that exactly one charge was made.
    async fn completes(&self, system: &System) {
        system.until_order(&self.buyer, &self.order, "complete").await;
        system.until_ticket(&self.ticket, "sold").await;
        let ledger = system.stripe.ledger();
        let charged: Vec<_> = ledger
            .iter()
            .filter(|intent| intent.metadata.values().any(|value| *value == self.order))
            .collect();
        assert_eq!(charged.len(), 1, "{charged:?}");
        assert_eq!((charged[0].amount_captured, charged[0].captures), (1999, 1));
        let (status, payment) =
            self.buyer.get(&system.url(Payments, 0, &format!("/api/payments/{}", self.order))).await;
        assert_eq!((status.as_u16(), &payment["status"]), (200, &"created".into()), "{payment}");
    }
}

async fn restart(system: &mut System, service: Service) {
    system.spawn(service, 0);
    system.ready(service, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_killed_around_each_call_to_stripe() {
    let mut system = System::start(Layout::default()).await;
    for (step, mode) in [
        (Step::Create, Mode::HoldBefore),
        (Step::Create, Mode::HoldAfter),
        (Step::Capture, Mode::HoldBefore),
        (Step::Capture, Mode::HoldAfter),
    ] {
        let purchase = reserved(&system).await;
        system.stripe.add_fault(Fault { step: Some(step), mode, times: None });
        let paying = purchase.pay(&system);
        until_held(&system, step, &paying).await;
        system.kill(Payments, 0).await;
        system.stripe.clear_faults();
        let _ = paying.await;
        restart(&mut system, Payments).await;
        purchase.completes(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_asked_to_end_while_stripe_hangs() {
    let mut system = System::start(Layout::default()).await;
    // So many that some of them wait behind others for their turn to ask Stripe.
    let purchases = join_all((0..PURCHASES).map(|_| reserved(&system))).await;
    system.stripe.add_fault(Fault { step: Some(Step::Create), mode: Mode::HoldBefore, times: None });
    let paying: Vec<_> = purchases.iter().map(|purchase| purchase.pay(&system)).collect();
    let held = || async {
        let requested = events(&system, "PAYMENTS", "payment:requested").await == PURCHASES;
        let held = system.stripe.faults().held.get(&Step::Create).copied().unwrap_or(0);
        (requested && held > 1).then_some(())
    };
    support::within(support::PATIENCE, held).await.expect("held in time");

    let (succeeded, took) = system.terminate(Payments, 0).await;
    assert!(succeeded && took <= Duration::from_secs(10), "{succeeded}, after {took:?}");
    assert!(system.stripe.ledger().is_empty());
    join_all(paying).await;
    system.stripe.clear_faults();
    restart(&mut system, Payments).await;
    for purchase in &purchases {
        purchase.completes(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_killed_before_they_hear_of_the_authorisation() {
    let mut system = System::start(Layout::default()).await;
    let purchase = reserved(&system).await;
    system.kill(Orders, 0).await;
    let paying = purchase.pay(&system);
    until_event(&system, "PAYMENTS", "payment:authorized").await;
    // And payments too, before anyone could capture.
    system.kill(Payments, 0).await;
    let _ = paying.await;
    restart(&mut system, Orders).await;
    until_event(&system, "ORDERS", "order:awaiting-payment").await;
    restart(&mut system, Payments).await;
    purchase.completes(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_killed_before_they_hear_of_the_capture() {
    let mut system = System::start(Layout::default()).await;
    let purchase = reserved(&system).await;
    system.stripe.add_fault(Fault { step: Some(Step::Capture), mode: Mode::HoldAfter, times: None });
    let paying = purchase.pay(&system);
    until_held(&system, Step::Capture, &paying).await;
    system.kill(Orders, 0).await;
    system.stripe.clear_faults();
    let _ = paying.await;
    until_event(&system, "PAYMENTS", "payment:created").await;
    restart(&mut system, Orders).await;
    purchase.completes(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_killed_while_their_orders_go_on() {
    let mut system = System::start(Layout::default()).await;
    let (one, two) = (reserved(&system).await, reserved(&system).await);
    system.kill(Tickets, 0).await;
    let _ = one.pay(&system).await;
    system.until_order(&one.buyer, &one.order, "complete").await;
    two.buyer.delete(&system.url(Orders, 0, &format!("/api/orders/{}", two.order))).await;
    restart(&mut system, Tickets).await;
    one.completes(&system).await;
    system.until_ticket(&two.ticket, "available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiration_killed_while_an_order_is_due() {
    let mut system = System::start(Layout { window_seconds: 2, ..Layout::default() }).await;
    let purchase = reserved(&system).await;
    system.kill(Expiration, 0).await;
    let due = system.order(&purchase.buyer, &purchase.order).await["expiresAt"].clone();
    let over = || async {
        let now = contract::Timestamp::from(std::time::SystemTime::now());
        (serde_json::to_value(now).unwrap().as_str() > due.as_str()).then_some(())
    };
    support::within(support::PATIENCE, over).await.expect("due");
    assert_eq!(system.order(&purchase.buyer, &purchase.order).await["status"], "created");
    restart(&mut system, Expiration).await;
    system.until_order(&purchase.buyer, &purchase.order, "cancelled").await;
    system.until_ticket(&purchase.ticket, "available").await;
}

/// Waits until Stripe hangs at the step.
async fn until_held(system: &System, step: Step, paying: &JoinHandle<(reqwest::StatusCode, Value)>) {
    let held = tokio::time::timeout(support::PATIENCE, system.stripe.until_held(step)).await;
    assert!(
        held.is_ok(),
        "nothing is held at {step:?}; the answer to paying was given: {}; svc-payments says:\n{}\nsvc-orders says:\n{}",
        paying.is_finished(),
        system.log(Payments, 0),
        system.log(Orders, 0),
    );
}

async fn until_event(system: &System, stream: &str, event_type: &str) {
    let there = || async { (events(system, stream, event_type).await > 0).then_some(()) };
    support::within(support::PATIENCE, there).await.unwrap_or_else(|| panic!("no {event_type} in {stream}"));
}

/// How many events of a type a stream holds.
async fn events(system: &System, stream: &str, event_type: &str) -> usize {
    let events = system.read_stream(stream).await;
    events.iter().filter(|event| event.event_type == event_type).count()
}
