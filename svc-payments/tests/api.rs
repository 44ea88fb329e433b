//! The routes, on a real nats-server and a sandbox of Stripe.

mod service;

use contract::{Cents, OrderId, event::OrderStatus};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::{BUYER, PATIENT, STRANGER, World, errors, ledger};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_charged_what_the_ticket_cost_to_the_cent() {
    let world = World::new().await;
    let (orders, stripe) = (&world.orders, &world.stripe);
    let service = world.service(PATIENT).await;
    let _following = orders.follow_payments();

    for (price, with) in
        [("0.01", "pm_card_visa"), ("19.99", "tok_visa"), ("8.20", "pm_card_visa"), ("999999.99", "tok_visa")]
    {
        let cents = Cents::parse_dollars(price).unwrap();
        let order = orders.place(cents).await;
        let paid = service.pay(order, with).await;
        assert_eq!(paid.status(), StatusCode::CREATED, "{price}");
        let positions: Vec<_> = paid.headers().get_all("x-position").iter().collect();
        assert!(positions[0].to_str().unwrap().starts_with("PAYMENTS="));
        let payment: Value = paid.json().await.unwrap();

        let [entry] = &ledger(stripe, order)[..] else { panic!("one PaymentIntent for {price}") };
        assert_eq!((entry.amount, entry.amount_captured, entry.captures), (cents.0, cents.0, 1), "{price}");
        assert_eq!(entry.currency, "usd");
        assert_eq!(entry.metadata["payment_id"], payment["id"]);
        assert_eq!(entry.metadata["user_id"], BUYER.to_string());
        let id = payment["id"].as_str().unwrap();
        assert_eq!(payment, json!({ "id": id, "orderId": order, "stripeId": entry.id, "status": "created" }));

        // Asked again, and asked for: the same payment, and nothing is done again.
        let again = service.pay(order, "pm_card_mastercard").await;
        assert_eq!(again.status(), StatusCode::CREATED);
        assert_eq!(again.json::<Value>().await.unwrap(), payment);
        let read = service.get(BUYER, &order.to_string()).await;
        assert_eq!(read.status(), StatusCode::OK);
        assert_eq!(read.json::<Value>().await.unwrap(), payment);
        let expected = ["payment:requested", "payment:authorized", "payment:created"];
        assert_eq!(world.log_of(order).await, expected);
        orders.becomes(order, OrderStatus::Complete).await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_declined_card_another_one_pays() {
    let world = World::new().await;
    let (orders, stripe) = (&world.orders, &world.stripe);
    let service = world.service(PATIENT).await;
    let _following = orders.follow_payments();
    let order = orders.place(Cents(1999)).await;

    for (with, message) in [
        ("pm_card_visa_chargeDeclined", "Your card was declined."),
        ("tok_chargeDeclinedInsufficientFunds", "Your card has insufficient funds."),
        ("pm_unknown", "Your card could not be used"),
    ] {
        let declined = service.pay(order, with).await;
        assert_eq!(declined.status(), StatusCode::PAYMENT_REQUIRED, "{with}");
        assert_eq!(errors(declined).await, [(message.to_owned(), None)]);
        service.shows(order, "declined").await;
    }
    assert_eq!(service.pay(order, "pm_card_visa").await.status(), StatusCode::CREATED);
    let tries = ledger(stripe, order);
    assert_eq!(tries.iter().map(|entry| entry.amount_captured).sum::<i64>(), 1999);
    assert_eq!(tries.iter().map(|entry| entry.captures).sum::<u32>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_clicks_are_one_payment() {
    let world = World::new().await;
    let (orders, stripe) = (&world.orders, &world.stripe);
    let service = world.service(PATIENT).await;
    let _following = orders.follow_payments();
    let order = orders.place(Cents(1999)).await;

    let click = || async {
        let paid = service.pay(order, "pm_card_visa").await;
        assert_eq!(paid.status(), StatusCode::CREATED);
        paid.json::<Value>().await.unwrap()
    };
    let paid = tokio::join!(click(), click(), click(), click(), click(), click());
    for other in [&paid.1, &paid.2, &paid.3, &paid.4, &paid.5] {
        assert_eq!(*other, paid.0);
    }
    let [entry] = &ledger(stripe, order)[..] else { panic!("one PaymentIntent") };
    assert_eq!((entry.authorizations, entry.captures, entry.amount_captured), (1, 1, 1999));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_paid_is_told_as_the_contract_says() {
    let world = World::new().await;
    let (orders, stripe) = (&world.orders, &world.stripe);
    let service = world.service(PATIENT).await;
    let order = orders.place(Cents(1999)).await;
    let body = json!({ "token": "pm_card_visa", "orderId": order });

    let signed_out = service.request(Method::POST, "/api/payments").body("{").send().await.unwrap();
    assert_eq!(signed_out.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(errors(signed_out).await, [("Not authorized".to_owned(), None)]);

    let token = ("Token must be provided".to_owned(), Some("token".to_owned()));
    let order_id = ("OrderId must be provided".to_owned(), Some("orderId".to_owned()));
    for (wrong, expected) in [
        (json!({}), vec![token.clone(), order_id.clone()]),
        (json!({ "token": "", "orderId": order }), vec![token.clone()]),
        (json!({ "token": 7, "orderId": order }), vec![token.clone()]),
        (json!({ "token": "4242424242424242", "orderId": order }), vec![token.clone()]),
        (json!({ "token": "tok_visa&amount=1", "orderId": order }), vec![token]),
        (json!({ "token": "pm_card_visa", "orderId": "7" }), vec![order_id.clone()]),
        (json!({ "token": "pm_card_visa", "orderId": null }), vec![order_id]),
        (json!([]), vec![("Body must be a JSON object".to_owned(), None)]),
    ] {
        let refused = service.post(BUYER, &wrong).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(errors(refused).await, expected, "{wrong}");
    }

    let unknown = json!({ "token": "pm_card_visa", "orderId": OrderId(Uuid::now_v7()) });
    assert_eq!(service.post(BUYER, &unknown).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(service.post(STRANGER, &body).await.status(), StatusCode::UNAUTHORIZED);

    for nothing in [order.to_string(), Uuid::now_v7().to_string(), "7".into()] {
        assert_eq!(service.get(BUYER, &nothing).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
    let path = format!("/api/payments/{order}");
    let signed_out = service.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(signed_out.status(), StatusCode::UNAUTHORIZED);
    let wrong_method = service.request(Method::PUT, "/api/payments").send().await.unwrap();
    assert_eq!(wrong_method.status(), StatusCode::METHOD_NOT_ALLOWED);

    assert!(orders.cancel(order).await);
    let refused = service.post(BUYER, &body).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(refused).await, [("Cannot pay for a cancelled order".to_owned(), None)]);
    assert_eq!(service.post(STRANGER, &body).await.status(), StatusCode::UNAUTHORIZED);
    assert!(stripe.ledger().is_empty(), "Stripe was asked");

    let other = orders.place(Cents(1)).await;
    let _following = orders.follow_payments();
    assert_eq!(service.pay(other, "pm_card_visa").await.status(), StatusCode::CREATED);
    assert_eq!(service.get(STRANGER, &other.to_string()).await.status(), StatusCode::UNAUTHORIZED);
}
