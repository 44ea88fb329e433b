//! Paying and giving back, from outside: how often, how much, and who may.

mod support;

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    Layout,
    Service::Payments,
    System,
    purchase::{Purchase, VISA, ledger_equals_log},
    text,
};
use uuid::Uuid;

/// How often somebody clicks.
const CLICKS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn six_clicks_on_pay_on_two_replicas_are_one_payment() {
    let system = System::start(Layout { payments_replicas: 2, ..Layout::default() }).await;
    let purchase = Purchase::reserved(&system).await;
    let clicks = (0..CLICKS).map(|click| purchase.start_to_pay(&system, VISA, click % 2));
    let answers: Vec<_> = join_all(clicks).await.into_iter().map(Result::unwrap).collect();
    for (status, payment) in &answers {
        assert_eq!(*status, StatusCode::CREATED, "{payment}");
        assert_eq!(payment, &answers[0].1, "all are told of the same");
    }
    purchase.is_bought(&system).await;
    assert_eq!(purchase.intent(&system).id, text(&answers[0].1["stripeId"]));
    ledger_equals_log(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_reach_stripe_as_exact_cents() {
    let system = System::start(Layout::default()).await;
    for (price, cents) in [(0.01, 1), (19.99, 1_999), (8.20, 820), (999_999.99, 99_999_999)] {
        let purchase = Purchase::at_price(&system, price).await;
        let (status, payment) = purchase.pays(&system, VISA).await;
        assert_eq!(status, StatusCode::CREATED, "{price}: {payment}");
        let intent = purchase.intent(&system);
        assert_eq!((intent.amount, intent.amount_captured, &*intent.currency), (cents, cents, "usd"));
    }
    ledger_equals_log(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_seller_gives_money_back_and_only_when_it_was_taken() {
    let system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    let url = purchase.refund_url(&system, 0);
    let (status, answer) = purchase.seller.post(&url, json!({})).await;
    assert_eq!(
        (status, message(&answer)),
        (StatusCode::BAD_REQUEST, "Cannot refund an order that is not paid".into())
    );
    assert_eq!(purchase.pays(&system, VISA).await.0, StatusCode::CREATED);
    purchase.is_bought(&system).await;

    for person in [&purchase.buyer, &system.person()] {
        let (status, answer) = person.post(&url, json!({})).await;
        assert_eq!((status, message(&answer)), (StatusCode::UNAUTHORIZED, "Not authorized".into()));
    }
    let signed_out = reqwest::Client::new().request(Method::POST, &url).send().await.unwrap();
    assert_eq!(signed_out.status(), StatusCode::UNAUTHORIZED);
    for order in [Uuid::now_v7().to_string(), "1".into()] {
        let url = system.url(Payments, 0, &format!("/api/payments/{order}/refund"));
        assert_eq!(purchase.seller.post(&url, json!({})).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(purchase.intent(&system).amount_refunded, 0);
    assert_eq!(system.order(&purchase.buyer, &purchase.order).await["status"], "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_asked_for_six_times_goes_back_once_and_the_ticket_is_for_sale_again() {
    let system = System::start(Layout { payments_replicas: 2, ..Layout::default() }).await;
    let first = Purchase::bought(&system).await;
    let clicks = (0..CLICKS).map(|click| first.start_to_refund(&system, click % 2));
    for (status, payment) in join_all(clicks).await.into_iter().map(Result::unwrap) {
        assert_eq!((status, &payment["status"]), (StatusCode::OK, &"refunded".into()), "{payment}");
    }
    first.is_refunded(&system).await;

    let buyer = system.person();
    let order = system.reserve(&buyer, &first.ticket).await;
    let (seller, ticket) = (first.seller.clone(), first.ticket.clone());
    let second = Purchase { seller, buyer, ticket, order, cents: first.cents };
    assert_eq!(second.pays(&system, VISA).await.0, StatusCode::CREATED);
    second.is_bought(&system).await;

    let again = first.start_to_refund(&system, 1).await.unwrap();
    assert_eq!((again.0, &again.1["status"]), (StatusCode::OK, &"refunded".into()));
    ledger_equals_log(&system).await;
    second.is_bought(&system).await;
    assert_eq!(first.intent(&system).refunds, 1);
    // Whoever had it first does not pay for it any more.
    let (status, answer) = first.pays(&system, VISA).await;
    assert_eq!(
        (status, message(&answer)),
        (StatusCode::BAD_REQUEST, "Cannot pay for a cancelled order".into())
    );
}

fn message(body: &Value) -> String {
    text(&body["errors"][0]["message"])
}
