//! Money that goes back, on a real nats-server and a sandbox of Stripe.

mod service;

use contract::{Cents, event::OrderStatus};
use reqwest::{Method, StatusCode};
use sandbox::stripe::{Fault, Mode, Step};
use serde_json::{Value, json};
use service::{BUYER, IMPATIENT, PATIENT, SELLER, STRANGER, World, errors, eventually, ledger};
use uuid::Uuid;

const CHARGED: [&str; 3] = ["payment:requested", "payment:authorized", "payment:created"];

#[tokio::test(flavor = "multi_thread")]
async fn the_seller_gives_the_money_back_once() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let payment: Value = service.pay(order, "pm_card_visa").await.json().await.unwrap();
    world.orders.becomes(order, OrderStatus::Complete).await;

    let ask = || async {
        let back = service.refund(SELLER, &order.to_string()).await;
        assert_eq!(back.status(), StatusCode::OK);
        back.json::<Value>().await.unwrap()
    };
    let backs = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask());
    let expected = json!({
        "id": payment["id"], "orderId": order, "stripeId": payment["stripeId"], "status": "refunded",
    });
    for back in [backs.0, backs.1, backs.2, backs.3, backs.4, backs.5, ask().await] {
        assert_eq!(back, expected);
    }
    world.orders.becomes(order, OrderStatus::Cancelled).await;
    let [entry] = &ledger(&world.stripe, order)[..] else { panic!("one PaymentIntent") };
    assert_eq!((entry.amount_captured, entry.amount_refunded, entry.refunds), (1999, 1999, 1));
    let told = [&CHARGED[..], &["payment:refund-requested", "payment:refunded"]].concat();
    assert_eq!(world.log_of(order).await, told);
    // It is over for the buyer, too.
    let again = service.pay(order, "pm_card_visa").await;
    assert_eq!(errors(again).await, [("Cannot pay for a cancelled order".to_owned(), None)]);
    service.shows(order, "refunded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gives_money_back_and_only_what_was_taken() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let order = world.orders.place(Cents(1999)).await;

    let path = format!("/api/payments/{order}/refund");
    let signed_out = service.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(signed_out.status(), StatusCode::UNAUTHORIZED);
    let wrong_method = service.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(wrong_method.status(), StatusCode::METHOD_NOT_ALLOWED);
    for nothing in [Uuid::now_v7().to_string(), "7".into()] {
        assert_eq!(service.refund(SELLER, &nothing).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
    for other in [BUYER, STRANGER] {
        assert_eq!(service.refund(other, &order.to_string()).await.status(), StatusCode::UNAUTHORIZED);
    }
    let unpaid = service.refund(SELLER, &order.to_string()).await;
    assert_eq!(unpaid.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(unpaid).await, [("Cannot refund an order that is not paid".to_owned(), None)]);
    service.pay(order, "pm_card_chargeDeclined").await;
    assert_eq!(service.refund(SELLER, &order.to_string()).await.status(), StatusCode::BAD_REQUEST);
    assert!(world.log_of(order).await.iter().all(|event| !event.contains("refund")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_goes_on_when_stripe_is_back() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    service.shows(order, "created").await;

    world.stripe.add_fault(Fault::new(Mode::Down));
    let waiting = service.refund(SELLER, &order.to_string()).await;
    assert_eq!(waiting.status(), StatusCode::ACCEPTED);
    assert_eq!(waiting.json::<Value>().await.unwrap()["status"], "refunding");
    world.stripe.clear_faults();
    service.shows(order, "refunded").await;
    assert_eq!(ledger(&world.stripe, order)[0].refunds, 1);

    // Done, and the answer is lost.
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    service.shows(order, "created").await;
    world.stripe.add_fault(Fault::new(Mode::ResetAfter).at(Step::Refund).times(1));
    service.refund(SELLER, &order.to_string()).await;
    service.shows(order, "refunded").await;
    assert!(world.stripe.faults().faults.is_empty(), "the fault was not met");
    assert_eq!(world.charged(order), 0);
    assert_eq!(ledger(&world.stripe, order)[0].refunds, 1);

    // A failure that the key remembers.
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    service.shows(order, "created").await;
    world.stripe.add_fault(Fault::new(Mode::Status500Stored).at(Step::Refund).times(1));
    service.refund(SELLER, &order.to_string()).await;
    service.shows(order, "refunded").await;
    assert_eq!((world.charged(order), ledger(&world.stripe, order)[0].refunds), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_does_not_refund_is_told_and_stays_paid() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let payment: Value = service.pay(order, "pm_card_visa").await.json().await.unwrap();
    world.orders.becomes(order, OrderStatus::Complete).await;
    world.stripe.dispute(payment["stripeId"].as_str().unwrap()).unwrap();

    for _ in 0..2 {
        let refused = service.refund(SELLER, &order.to_string()).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(errors(refused).await, [("Stripe does not refund this payment".to_owned(), None)]);
    }
    service.shows(order, "created").await;
    assert_eq!(world.charged(order), 1999);
    let asked = ["payment:refund-requested", "payment:refund-failed"];
    assert_eq!(world.log_of(order).await, [&CHARGED[..], &asked, &asked].concat());
}

/// All guards notwithstanding: here somebody captures at Stripe's dashboard what is being let go.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_charged_for_a_lost_order_goes_back_by_itself() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let before = service.metric("payments_charged_in_vain_total").await;
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    let payment = service.shows(order, "authorized").await;
    let intent = payment["stripeId"].as_str().unwrap();
    world.at_the_dashboard(&format!("payment_intents/{intent}/capture"), &[]).await;
    assert!(world.orders.cancel(order).await);

    service.shows(order, "refunded").await;
    assert_eq!(world.charged(order), 0);
    let told = [&CHARGED[..], &["payment:refund-requested", "payment:refunded"]].concat();
    assert_eq!(world.log_of(order).await, told);
    eventually("it is counted", async || {
        (service.metric("payments_charged_in_vain_total").await > before).then_some(())
    })
    .await;
}
