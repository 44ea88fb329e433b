//! What is left after a stop, a lost projection and a lost server; and what many at once come to.

mod service;

use std::{fs, path::Path, time::Duration};

use async_nats::jetstream::stream;
use contract::{OrderEvent, UserId, stream::ORDERS};
use futures::future::join_all;
use reqwest::{Method, StatusCode, header};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{
    BUYER, Neighbours, STRANGER, Service, authorized, charged, config, errors, eventually, jetstream,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What every GET answers, for comparison.
async fn answers(service: &Service) -> Vec<Value> {
    let mut answers = Vec::new();
    for user in [BUYER, STRANGER] {
        let all = service.read(user, "/api/orders").await;
        for order in all.as_array().unwrap() {
            let path = format!("/api/orders/{}", order["id"].as_str().unwrap());
            answers.push(service.read(user, &path).await);
            answers.push(service.read(user, &format!("{path}/history")).await);
        }
        answers.push(all);
        answers.push(service.read(user, "/api/orders?order=newest").await);
        answers.push(service.read(user, "/api/orders/sales").await);
    }
    answers
}

/// Overwrites every file below a directory with other bytes.
fn corrupt(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            corrupt(&path);
        } else {
            let length = fs::metadata(&path).unwrap().len() as usize;
            let noise = (0..length.max(64)).map(|place| (place * 31 + 7) as u8);
            fs::write(&path, noise.collect::<Vec<_>>()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_lost_or_corrupted_comes_back_the_same() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Vec::new();
    for number in 0..8 {
        let ticket = neighbours.list(&format!("ticket {number}"), 100 + number).await;
        orders.push(service.reserve(BUYER, ticket).await);
    }
    let free = neighbours.list("free", 1).await;
    service.cancel(BUYER, orders[0].id).await;
    service.reserve(STRANGER, orders[0].ticket.id).await;
    neighbours.expire(orders[1].id).await;
    neighbours.pay(authorized(orders[2].id)).await;
    neighbours.pay(authorized(orders[3].id)).await;
    neighbours.pay(charged(orders[3].id)).await;
    for (order, status) in [(1, "cancelled"), (2, "awaiting:payment"), (3, "complete")] {
        service.shows(&orders[order], status).await;
    }
    let before = answers(&service).await;
    assert_eq!(before.len(), 2 * 9 + 6);
    let sales = before.last().unwrap().as_array().unwrap();
    assert_eq!(sales.len(), 8, "the seller's own is none");
    assert!(sales.iter().any(|sale| sale["reason"] == "expired"), "{sales:?}");
    service.stop().await;

    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "after a restart");
    service.stop().await;

    fs::remove_dir_all(data.path().join("orders")).unwrap();
    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "without a projection");
    service.stop().await;

    corrupt(&data.path().join("orders"));
    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "with a corrupt projection");
    assert_eq!(service.order(STRANGER, orders[3].ticket.id).await.status(), StatusCode::BAD_REQUEST);
    service.reserve(STRANGER, free).await;

    // What it was told while it did not run, it does when it runs again.
    service.stop().await;
    neighbours.expire(orders[4].id).await;
    neighbours.pay(charged(orders[2].id)).await;
    let service = Service::start(nats.url(), data.path()).await;
    service.shows(&orders[4], "cancelled").await;
    service.shows(&orders[2], "complete").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_it_reads_on_and_writes_again_when_it_is_back() {
    let (mut nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let (ticket, other) = (neighbours.list("concert", 1999).await, neighbours.list("play", 1).await);
    // Ordered and given up: so the projection knows the other ticket, too.
    let given_up = service.reserve(BUYER, other).await;
    service.cancel(BUYER, given_up.id).await;
    let known = service.reserve(BUYER, ticket).await;
    let before = answers(&service).await;

    nats.kill();
    for method in [Method::POST, Method::DELETE] {
        let refused = match method {
            Method::POST => service.order(STRANGER, other).await,
            _ => service.cancel(BUYER, known.id).await,
        };
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{method}");
        assert!(refused.headers().contains_key(header::RETRY_AFTER), "{method}");
        assert_eq!(errors(refused).await.len(), 1);
    }
    assert_eq!(answers(&service).await, before);
    let status = async |path| service.request(Method::GET, path).send().await.unwrap().status();
    assert_eq!(status("/healthz").await, StatusCode::OK);
    assert_eq!(status("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);

    nats.restart().await.unwrap();
    eventually("a write succeeds again", async || {
        (service.cancel(BUYER, known.id).await.status() == StatusCode::NO_CONTENT).then_some(())
    })
    .await;
    let placed = service.reserve(STRANGER, other).await;
    service.shows(&known, "cancelled").await;
    // The reactors are back as well, and nothing was refused that happened all the same.
    neighbours.pay(authorized(placed.id)).await;
    service.shows(&placed, "awaiting:payment").await;
    assert_eq!(service.read(STRANGER, "/api/orders").await.as_array().unwrap().len(), 1);
    assert_eq!(status("/readyz").await, StatusCode::OK);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_before_everybody_else_it_waits_for_them() {
    let (mut nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    nats.kill();
    let service = Service::launch(nats.url(), data.path()).await;
    let reasons = async || {
        let response = service.request(Method::GET, "/readyz").send().await.ok()?;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        Some(response.text().await.unwrap())
    };
    eventually("it says that it is not ready", reasons).await;
    let refused = service.get(BUYER, "/api/orders").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));

    nats.restart().await.unwrap();
    eventually("it waits for the tickets alone", async || {
        reasons().await.filter(|reasons| reasons.contains("tickets waits for its stream"))
    })
    .await;
    let mut neighbours = Neighbours::create(nats.url()).await;
    service.ready().await;
    let ticket = neighbours.list("concert", 1999).await;
    service.reserve(BUYER, ticket).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_buyers_at_two_replicas_one_gets_the_ticket() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    for round in 0..5 {
        let ticket = neighbours.list(&format!("ticket {round}"), 100).await;
        let buyers = (0..16_u128).map(async |number| {
            let replica = if number % 2 == 0 { &service } else { &other };
            replica.order(UserId(Uuid::from_u128(number)), ticket).await
        });
        let mut placed = 0;
        for response in join_all(buyers).await {
            match response.status() {
                StatusCode::CREATED => placed += 1,
                StatusCode::CONFLICT => {}
                _ => service::refused(response, StatusCode::BAD_REQUEST, "Ticket is already reserved").await,
            }
        }
        assert_eq!(placed, 1, "round {round}");
    }
    let stream = jetstream(nats.url()).await.get_stream(ORDERS.name).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 5, "the log alone proves it");
    for sequence in 1..=5 {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let tag = message.headers.get("ce-type").unwrap().as_str();
        let data: Value = serde_json::from_slice(&message.payload).unwrap();
        let event = serde_json::from_value(json!({ "type": tag, "data": data })).unwrap();
        assert!(matches!(event, OrderEvent::Created(_)), "{event:?}");
    }
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_other_settings_is_left_alone_and_stops_the_start() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let _neighbours = Neighbours::create(nats.url()).await;
    let config_of_another = stream::Config {
        name: ORDERS.name.into(),
        subjects: vec![ORDERS.subjects.into()],
        max_age: Duration::from_secs(3600),
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..Default::default()
    };
    let jetstream = jetstream(nats.url()).await;
    jetstream.create_stream(config_of_another).await.unwrap();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let run = svc_orders::run(config(nats.url(), data.path()), listener.into(), CancellationToken::new());
    let stopped = tokio::time::timeout(Duration::from_secs(20), run).await.expect("it stops by itself");
    let told = stopped.unwrap_err().to_string();
    assert!(told.contains("ORDERS") && told.contains("max_age"), "{told}");
    let stream = jetstream.get_stream(ORDERS.name).await.unwrap();
    assert_eq!(stream.cached_info().config.max_age, Duration::from_secs(3600));
}
