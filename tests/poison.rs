//! A message that nobody can read, in each stream: kept with the reason, and the rest goes on.

mod support;

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::json;
use support::{
    Layout,
    Service::{Auth, Tickets},
    System,
};

#[tokio::test(flavor = "multi_thread")]
async fn poison_in_each_stream_stops_nothing() {
    let system = System::start(Layout { window_seconds: 6, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let expiring = system.list_ticket(&seller, 10.0).await;

    // On the very subjects that go on to be used, but for USERS: which one a sign-up will use nobody can know who
    // has not svc-auth's key.
    let mut poisoned = Vec::new();
    for subject in [
        "ticketing.users.00".to_owned(),
        format!("ticketing.tickets.{ticket}"),
        format!("ticketing.orders.{ticket}"),
    ] {
        poisoned.push(poison(&system, subject).await);
    }
    signs_up_and_in(&system).await;
    let url = system.url(Tickets, 0, &format!("/api/tickets/{ticket}"));
    let edited = seller.put(&url, json!({ "title": "Concert, later", "price": 12 })).await;
    assert_eq!(edited.0, StatusCode::OK, "{}", edited.1);

    let order = system.reserve(&buyer, &ticket).await;
    poisoned.push(poison(&system, format!("ticketing.payments.{order}")).await);
    let (status, body) = system.try_pay(&buyer, &order, "pm_card_visa").await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    system.until_order(&buyer, &order, "complete").await;
    system.until_ticket(&ticket, "sold").await;

    let expired = system.reserve(&buyer, &expiring).await;
    let deadline = format!("ticketing.expirations.{expired}");
    poisoned.push(poison(&system, deadline.clone()).await);
    system.until_order(&buyer, &expired, "cancelled").await;
    system.until_ticket(&expiring, "available").await;
    let told = system.read_stream("EXPIRATIONS").await;
    let told: Vec<_> = told.iter().filter(|event| event.subject == deadline).collect();
    assert_eq!(told.len(), 2, "poison, then the deadline: {told:?}");
    assert_eq!(told[1].event_type, "expiration:complete");

    let buried = || async {
        let letters = system.read_stream("DEADLETTERS").await;
        // `….<reader>.<stream>.<sequence>`
        let places: HashSet<_> = letters
            .iter()
            .filter_map(|letter| {
                let mut tokens = letter.subject.rsplit('.');
                let sequence = tokens.next()?.parse::<u64>().ok()?;
                Some((tokens.next()?.to_owned(), sequence))
            })
            .collect();
        poisoned.iter().all(|place| places.contains(place)).then_some(letters)
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

/// Puts something there that no service can read; returns the stream it is in, and where.
async fn poison(system: &System, subject: String) -> (String, u64) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-type", "order:created");
    headers.insert("ce-id", uuid::Uuid::now_v7().to_string());
    let jetstream = system.jetstream().await;
    let published = jetstream.publish_with_headers(subject, headers, "{\"version\":0}".into()).await;
    let acknowledged = published.unwrap().await.unwrap();
    (acknowledged.stream, acknowledged.sequence)
}

async fn signs_up_and_in(system: &System) {
    let anybody = reqwest::Client::new();
    let body = json!({ "email": "somebody@example.com", "password": "correct horse battery" });
    for (path, expected) in
        [("/api/users/signup", StatusCode::CREATED), ("/api/users/signin", StatusCode::OK)]
    {
        let answer = anybody.post(system.url(Auth, 0, path)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{}", answer.text().await.unwrap());
    }
}
