//! A message that nobody can read, in each stream: kept with the reason, and the rest goes on.

mod support;

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::json;
use support::{Layout, Service::Tickets, System};

#[tokio::test(flavor = "multi_thread")]
async fn poison_in_each_stream_stops_nothing() {
    let system = System::start(Layout { window_seconds: 4, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let expiring = system.list_ticket(&seller, 10.0).await;

    // On the very subjects that go on to be used.
    let order_subject = format!("ticketing.orders.{ticket}");
    let poison = [
        ("USERS", "ticketing.users.00".to_owned()),
        ("TICKETS", format!("ticketing.tickets.{ticket}")),
        ("ORDERS", order_subject),
        ("PAYMENTS", format!("ticketing.payments.{}", uuid::Uuid::now_v7())),
        ("EXPIRATIONS", format!("ticketing.expirations.{}", uuid::Uuid::now_v7())),
    ];
    let jetstream = system.jetstream().await;
    for (_, subject) in &poison {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("ce-type", "order:created");
        headers.insert("ce-id", uuid::Uuid::now_v7().to_string());
        let published =
            jetstream.publish_with_headers(subject.clone(), headers, "{\"version\":0}".into()).await;
        published.unwrap().await.unwrap();
    }

    let url = system.url(Tickets, 0, &format!("/api/tickets/{ticket}"));
    let edited = seller.put(&url, json!({ "title": "Concert, later", "price": 12 })).await;
    assert_eq!(edited.0, StatusCode::OK, "{}", edited.1);
    let order = system.reserve(&buyer, &ticket).await;
    let (status, body) = system.try_pay(&buyer, &order, "pm_card_visa").await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    system.until_order(&buyer, &order, "complete").await;
    system.until_ticket(&ticket, "sold").await;
    let expired = system.reserve(&buyer, &expiring).await;
    system.until_order(&buyer, &expired, "cancelled").await;

    let buried = || async {
        let letters = system.read_stream("DEADLETTERS").await;
        let streams: HashSet<_> =
            letters.iter().map(|letter| letter.subject.split('.').nth(3).unwrap_or("").to_owned()).collect();
        poison.iter().all(|(stream, _)| streams.contains(*stream)).then_some(letters)
    };
    let letters = support::within(support::PATIENCE, buried).await.expect("all are kept");
    // Each reader keeps it once, however often it came.
    let subjects: HashSet<_> = letters.iter().map(|letter| &letter.subject).collect();
    assert_eq!(subjects.len(), letters.len());
    for reader in ["tickets-service", "orders-service", "payments-service", "expiration-service"] {
        assert!(
            subjects.iter().any(|subject| subject.contains(reader)),
            "{reader} buried nothing: {subjects:?}"
        );
    }
}
