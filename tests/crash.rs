//! A service killed at each step of a purchase: after its restart the purchase ends right, with one charge at most.

mod support;

use std::time::Duration;

use futures::future::join_all;
use sandbox::stripe::{Fault, Mode, Step};
use serde_json::Value;
use support::{
    Layout,
    Service::{Expiration, Orders, Payments, Tickets},
    System,
    purchase::{Purchase, VISA},
};
use tokio::task::JoinHandle;

/// How many purchases there are at once where there are several.
const PURCHASES: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn payments_killed_around_each_call_to_stripe() {
    let mut system = System::start(Layout::default()).await;
    for (step, mode) in [
        (Step::Create, Mode::HoldBefore),
        (Step::Create, Mode::HoldAfter),
        (Step::Capture, Mode::HoldBefore),
        (Step::Capture, Mode::HoldAfter),
    ] {
        let purchase = Purchase::reserved(&system).await;
        system.stripe.add_fault(Fault::new(mode).at(step));
        let paying = purchase.start_to_pay(&system, VISA, 0);
        until_held(&system, step, &paying).await;
        system.kill(Payments, 0).await;
        system.stripe.clear_faults();
        let _ = paying.await;
        system.restart(Payments, 0).await;
        purchase.is_bought(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_asked_to_end_while_stripe_hangs() {
    let mut system = System::start(Layout::default()).await;
    // So many that some of them wait behind others for their turn to ask Stripe.
    let purchases = Purchase::many(&system, PURCHASES).await;
    system.stripe.add_fault(Fault::new(Mode::HoldBefore).at(Step::Create));
    let paying: Vec<_> = purchases.iter().map(|purchase| purchase.start_to_pay(&system, VISA, 0)).collect();
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
    system.restart(Payments, 0).await;
    for purchase in &purchases {
        purchase.is_bought(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_killed_before_they_hear_of_the_authorisation() {
    let mut system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    system.kill(Orders, 0).await;
    let paying = purchase.start_to_pay(&system, VISA, 0);
    until_event(&system, "PAYMENTS", "payment:authorized").await;
    // And payments too, before anyone could capture.
    system.kill(Payments, 0).await;
    let _ = paying.await;
    system.restart(Orders, 0).await;
    until_event(&system, "ORDERS", "order:awaiting-payment").await;
    system.restart(Payments, 0).await;
    purchase.is_bought(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_killed_before_they_hear_of_the_capture() {
    let mut system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    system.stripe.add_fault(Fault::new(Mode::HoldAfter).at(Step::Capture));
    let paying = purchase.start_to_pay(&system, VISA, 0);
    until_held(&system, Step::Capture, &paying).await;
    system.kill(Orders, 0).await;
    system.stripe.clear_faults();
    let _ = paying.await;
    until_event(&system, "PAYMENTS", "payment:created").await;
    system.restart(Orders, 0).await;
    purchase.is_bought(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_killed_while_their_orders_go_on() {
    let mut system = System::start(Layout::default()).await;
    let (one, two) = (Purchase::reserved(&system).await, Purchase::reserved(&system).await);
    system.kill(Tickets, 0).await;
    let _ = one.start_to_pay(&system, VISA, 0).await;
    system.until_order(&one.buyer, &one.order, "complete").await;
    two.buyer.delete(&system.url(Orders, 0, &format!("/api/orders/{}", two.order))).await;
    system.restart(Tickets, 0).await;
    one.is_bought(&system).await;
    system.until_ticket(&two.ticket, "available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiration_killed_while_an_order_is_due() {
    let mut system = System::start(Layout { window_seconds: 2, ..Layout::default() }).await;
    let purchase = Purchase::reserved(&system).await;
    system.kill(Expiration, 0).await;
    let due = system.order(&purchase.buyer, &purchase.order).await["expiresAt"].clone();
    let over = || async {
        let now = contract::Timestamp::from(std::time::SystemTime::now());
        (serde_json::to_value(now).unwrap().as_str() > due.as_str()).then_some(())
    };
    support::within(support::PATIENCE, over).await.expect("due");
    assert_eq!(system.order(&purchase.buyer, &purchase.order).await["status"], "created");
    system.restart(Expiration, 0).await;
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
