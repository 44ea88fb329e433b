//! Deadlines, told in time, on a real nats-server.

mod service;

use std::fs;

use contract::{
    TicketId,
    stream::{DEAD_LETTERS, EXPIRATIONS, ORDERS, durable, order_subject},
};
use reqwest::{Method, StatusCode};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{Expirations, Orders, Service, eventually, in_millis};

/// Far from now.
const AN_HOUR: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_told_once_and_never_early() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let expirations = Expirations::of(nats.url()).await;

    let mut expected = Vec::new();
    for millis in [1_000, 1_500, 2_000] {
        let due = in_millis(millis);
        expected.push((orders.place(due).await, due));
    }
    orders.place(in_millis(AN_HOUR)).await;
    let told = expirations.are(&expected, 1).await;
    let order = told[0].order;

    let stream = expirations.0.get_stream(EXPIRATIONS.name).await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), format!("ticketing.expirations.{order}"));
    assert_eq!(message.headers.get("ce-type").unwrap().as_str(), "expiration:complete");
    assert_eq!(message.headers.get("ce-source").unwrap().as_str(), "svc-expiration");
    let orders = expirations.0.get_stream(ORDERS.name).await.unwrap();
    let placed = orders.get_last_raw_message_by_subject(&order_subject(TicketId(order.0))).await.unwrap();
    let cause = placed.headers.get("ce-id").unwrap().to_string();
    assert_eq!(message.headers.get("ce-causationid").unwrap().as_str(), cause);
    let mut payload: Value = serde_json::from_slice(&message.payload).unwrap();
    payload.as_object_mut().unwrap().remove("_trace").expect("a trace context");
    assert_eq!(payload, json!({ "orderId": order, "version": 0 }));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_no_longer_waits_is_not_told() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let expirations = Expirations::of(nats.url()).await;

    let due = in_millis(6_000);
    let waits = orders.place(due).await;
    let (cancelled, paying, paid) =
        (orders.place(due).await, orders.place(due).await, orders.place(due).await);
    orders.cancel(cancelled).await;
    orders.await_payment(paying).await;
    orders.await_payment(paid).await;
    orders.complete(paid).await;
    assert!(in_millis(0) < due, "too slow a machine to end an order before its deadline");
    expirations.are(&[(waits, due)], 0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_due_while_it_did_not_run_is_told_at_its_start() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let long_ago = in_millis(0);
    let overdue = orders.place(long_ago).await;
    let service = Service::start(nats.url(), data.path()).await;
    let expirations = Expirations::of(nats.url()).await;
    expirations.are(&[(overdue, long_ago)], 0).await;

    let (soon, later) = (in_millis(1_000), in_millis(3_000));
    let (first, second) = (orders.place(soon).await, orders.place(later).await);
    expirations.reached("both are looked at", |consumer| consumer.num_pending == 0).await;
    service.stop().await;
    // What it knows of them may be lost as well.
    fs::remove_dir_all(data.path().join("expiration")).unwrap();
    eventually("the first is due", async || (in_millis(0) > soon).then_some(())).await;
    let service = Service::start(nats.url(), data.path()).await;
    expirations.are(&[(overdue, long_ago), (first, soon), (second, later)], 0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_makes_no_deadline_early_and_loses_none() {
    let (mut nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let expirations = Expirations::of(nats.url()).await;
    let mut expected = Vec::new();
    for number in 0..30 {
        let due = in_millis(3_000 + 20 * number);
        expected.push((orders.place(due).await, due));
    }
    orders.place(in_millis(AN_HOUR)).await;
    expirations.reached("all wait", |consumer| consumer.num_pending == 0).await;
    nats.kill();
    // The delays are forgotten: everything comes back at once.
    nats.restart().await.unwrap();
    expirations.are(&expected, 1).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_tell_each_deadline_once_however_often_they_hear_of_it() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    let expirations = Expirations::of(nats.url()).await;
    let due = in_millis(8_000);
    let mut expected = Vec::new();
    for number in 0..40 {
        let order = orders.place(due).await;
        match number % 4 {
            0 => orders.cancel(order).await,
            _ => expected.push((order, due)),
        }
    }
    // A durable made anew hears everything again, whatever each replica has in its hands: before and after.
    for _ in 0..2 {
        let stream = expirations.0.get_stream(ORDERS.name).await.unwrap();
        stream.delete_consumer(durable::EXPIRATION).await.unwrap();
        expirations.are(&expected, 0).await;
    }
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_holds_no_deadline_up() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut orders = Orders::create(nats.url()).await;
    let expirations = Expirations::of(nats.url()).await;
    let poison = expirations.0.publish("ticketing.orders.poison", "{not json".into()).await.unwrap();
    poison.await.unwrap();
    let due = in_millis(500);
    let order = orders.place(due).await;
    let service = Service::start(nats.url(), data.path()).await;
    expirations.are(&[(order, due)], 0).await;
    eventually("the poison is buried", async || {
        let letters = expirations.0.get_stream(DEAD_LETTERS).await.unwrap();
        // By the reactor and by the projection: neither knows of the other.
        (letters.cached_info().state.messages == 2).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_probes_alone() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let _orders = Orders::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.request(Method::GET, path).await.status(), StatusCode::OK, "{path}");
    }
    eventually("the projections are measured", async || {
        let metrics = service.request(Method::GET, "/metrics").await.text().await.unwrap();
        metrics.contains("eventstore_projection_lag_events").then_some(())
    })
    .await;
    for (method, path) in
        [(Method::GET, "/"), (Method::GET, "/api/expirations"), (Method::POST, "/api/orders")]
    {
        let response = service.request(method, path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body, json!({ "errors": [{ "message": "Not Found" }] }), "{path}");
    }
    service.stop().await;
}
