//! Money and orders, in every order of events, on a real nats-server and a sandbox of Stripe.

mod service;

use std::time::Duration;

use contract::{Cents, PaymentId, event::OrderStatus};
use reqwest::StatusCode;
use sandbox::stripe::{Fault, Mode, Status, Step};
use serde_json::{Value, json};
use service::{BUYER, IMPATIENT, PATIENT, World, errors, eventually, ledger, log_of};

fn id(payment: &Value) -> PaymentId {
    payment["id"].as_str().unwrap().parse().unwrap()
}

fn stripe_id(payment: &Value) -> &str {
    payment["stripeId"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_ends_before_the_capture_is_not_charged() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let order = world.orders.place(Cents(1999)).await;

    let waiting = service.pay(order, "pm_card_visa").await;
    assert_eq!(waiting.status(), StatusCode::ACCEPTED);
    let payment: Value = waiting.json().await.unwrap();
    assert_eq!(payment, json!({ "id": payment["id"], "orderId": order, "status": "requested" }));
    service.shows(order, "authorized").await;

    assert!(world.orders.cancel(order).await);
    let voided = service.shows(order, "voided").await;
    assert_eq!(voided["id"], payment["id"]);
    assert_eq!(world.at_stripe(order), (Status::Canceled, 1, 0, 1));
    let refused = service.pay(order, "pm_card_visa").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(refused).await, [("Cannot pay for a cancelled order".to_owned(), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_ends_while_the_card_is_asked_is_not_charged() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let order = world.orders.place(Cents(1999)).await;
    world.stripe.add_fault(Fault::new(Mode::HoldAfter).at(Step::Create).times(1));

    let (refused, ()) = tokio::join!(service.pay(order, "pm_card_visa"), async {
        tokio::time::timeout(PATIENT, world.stripe.until_held(Step::Create)).await.expect("held in time");
        assert!(world.orders.cancel(order).await);
        world.stripe.clear_faults();
    });
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(refused).await, [("Cannot pay for a cancelled order".to_owned(), None)]);
    assert_eq!(world.at_stripe(order), (Status::Canceled, 1, 0, 1));
    let expected = ["payment:requested", "payment:authorized", "payment:voided"];
    assert_eq!(log_of(world.nats.url(), order).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_ends_as_it_is_paid_is_charged_or_cancelled_and_never_both() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();

    // The buyer gives up at once; when the request stands in the log; when the money is held. What comes first then,
    // the cancellation or `order:awaiting-payment`, is the log's to say.
    for seen in ["", "requested authorized created", "authorized created"].repeat(8) {
        let order = world.orders.place(Cents(1999)).await;
        let (paid, ended) = tokio::join!(service.pay(order, "pm_card_visa"), async {
            let is_there = async || {
                let payment: Value = service.get(BUYER, &order.to_string()).await.json().await.unwrap();
                payment["status"].as_str().is_some_and(|status| seen.contains(status))
            };
            if !seen.is_empty() {
                eventually("the payment is there", async || is_there().await.then_some(())).await;
            }
            world.orders.cancel(order).await
        });
        if ended {
            assert_eq!(paid.status(), StatusCode::BAD_REQUEST);
            let entries = ledger(&world.stripe, order);
            assert!(entries.iter().all(|entry| entry.status == Status::Canceled && entry.captures == 0));
        } else {
            assert_eq!(paid.status(), StatusCode::CREATED);
            assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
            world.orders.becomes(order, OrderStatus::Complete).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_goes_on_when_stripe_is_back() {
    let world = World::new().await;
    let service = world.service(Duration::from_millis(300)).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(820)).await;
    world.stripe.add_fault(Fault::new(Mode::Down));

    let waiting = service.pay(order, "pm_card_visa").await;
    assert_eq!(waiting.status(), StatusCode::ACCEPTED);
    let payment: Value = waiting.json().await.unwrap();
    assert_eq!(payment, json!({ "id": payment["id"], "orderId": order, "status": "requested" }));
    assert!(world.stripe.ledger().is_empty());

    world.stripe.clear_faults();
    world.stripe.add_fault(Fault::new(Mode::Status500).at(Step::Capture).times(2));
    let created = service.shows(order, "created").await;
    assert_eq!(created["id"], payment["id"]);
    let again = service.pay(order, "pm_card_visa").await;
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.json::<Value>().await.unwrap(), created);
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_did_without_an_answer_is_not_done_again() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    for step in [Step::Create, Step::Cancel] {
        world.stripe.add_fault(Fault::new(Mode::HoldAfter).at(step).times(1));
    }
    let order = world.orders.place(Cents(1999)).await;
    let (refused, ()) = tokio::join!(service.pay(order, "tok_visa"), async {
        service.shows(order, "authorized").await;
        assert!(world.orders.cancel(order).await);
    });
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.at_stripe(order), (Status::Canceled, 1, 0, 1));

    let _following = world.orders.follow_payments();
    world.stripe.add_fault(Fault::new(Mode::HoldAfter).at(Step::Capture).times(1));
    let order = world.orders.place(Cents(1999)).await;
    assert_eq!(service.pay(order, "tok_visa").await.status(), StatusCode::CREATED);
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
    assert!(world.stripe.faults().faults.is_empty(), "a fault was not met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_gone_ends_the_payment_and_money_that_is_taken_completes_it() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;

    let gone = world.orders.place(Cents(1999)).await;
    service.pay(gone, "pm_card_visa").await;
    let payment = service.shows(gone, "authorized").await;
    world.at_the_dashboard(&format!("payment_intents/{}/cancel", stripe_id(&payment)), &[]).await;
    world.orders.await_payment(gone, id(&payment)).await;
    service.shows(gone, "voided").await;
    assert_eq!(world.at_stripe(gone), (Status::Canceled, 1, 0, 1));
    // The order does not say so yet, and yet nobody pays for it any more.
    assert_eq!(service.pay(gone, "pm_card_visa").await.status(), StatusCode::BAD_REQUEST);

    let taken = world.orders.place(Cents(1999)).await;
    service.pay(taken, "pm_card_visa").await;
    let payment = service.shows(taken, "authorized").await;
    world.at_the_dashboard(&format!("payment_intents/{}/capture", stripe_id(&payment)), &[]).await;
    world.orders.await_payment(taken, id(&payment)).await;
    service.shows(taken, "created").await;
    assert_eq!(world.at_stripe(taken), (Status::Succeeded, 1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_with_nothing_but_the_log_all_goes_on() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let (requested, authorized) = (world.orders.place(Cents(1)).await, world.orders.place(Cents(2)).await);
    service.pay(authorized, "pm_card_visa").await;
    let held = service.shows(authorized, "authorized").await;
    world.stripe.add_fault(Fault::new(Mode::Down));
    service.pay(requested, "pm_card_visa").await;
    service.stop().await;

    world.orders.await_payment(authorized, id(&held)).await;
    let _following = world.orders.follow_payments();
    std::fs::remove_dir_all(world.data.path().join("payments")).unwrap();
    world.stripe.clear_faults();
    let service = world.service(PATIENT).await;
    for order in [requested, authorized] {
        service.shows(order, "created").await;
        assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
        world.orders.becomes(order, OrderStatus::Complete).await;
    }
    let again = service.shows(authorized, "created").await;
    assert_eq!((&again["id"], &again["stripeId"]), (&held["id"], &held["stripeId"]));
    // And nothing is done twice, however often the log is read.
    let before = log_of(world.nats.url(), requested).await;
    service.stop().await;
    std::fs::remove_dir_all(world.data.path().join("payments")).unwrap();
    let service = world.service(PATIENT).await;
    assert_eq!(service.pay(requested, "pm_card_visa").await.status(), StatusCode::CREATED);
    assert_eq!(log_of(world.nats.url(), requested).await, before);
}
