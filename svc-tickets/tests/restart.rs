//! What is left after a stop, a lost projection and a lost server.

mod service;

use std::{fs, path::Path};

use contract::{OrderId, event::CancelReason};
use reqwest::{StatusCode, header};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{Orders, SELLER, Service, cancelled, completed, created, eventually};
use uuid::Uuid;

/// What every GET answers, for comparison.
async fn answers(service: &Service) -> Vec<Value> {
    let all = service.read("/api/tickets?status=all").await;
    let of_seller = service.read(&format!("/api/tickets?userId={SELLER}&search=T")).await;
    let mut answers = vec![service.read("/api/tickets").await, all.clone(), of_seller];
    for ticket in all.as_array().unwrap() {
        answers.push(service.read(&format!("/api/tickets/{}", ticket["id"].as_str().unwrap())).await);
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
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    let mut tickets = Vec::new();
    for number in 0..12 {
        tickets.push(service.list(&format!("ticket {number}"), 1.0 + f64::from(number)).await);
    }
    service.put(SELLER, &tickets[0].to_string(), &json!({ "title": "edited", "price": 0.5 })).await;
    let (reserving, buying) = (OrderId(Uuid::now_v7()), OrderId(Uuid::now_v7()));
    orders.append(created(reserving, tickets[1])).await;
    orders.append(created(buying, tickets[2])).await;
    orders.append(completed(buying, tickets[2])).await;
    service.shows(tickets[1], "reserved", |ticket| ticket["status"] == "reserved").await;
    service.shows(tickets[2], "sold", |ticket| ticket["status"] == "sold").await;
    let before = answers(&service).await;
    assert_eq!((before[0].as_array().unwrap().len(), before[1].as_array().unwrap().len()), (10, 12));
    service.stop().await;

    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "after a restart");
    service.stop().await;

    fs::remove_dir_all(data.path().join("tickets")).unwrap();
    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "without a projection");
    service.stop().await;

    corrupt(&data.path().join("tickets"));
    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(answers(&service).await, before, "with a corrupt projection");

    // What it was told while it did not run, it does when it runs again.
    service.stop().await;
    orders.append(cancelled(reserving, tickets[1], CancelReason::Buyer)).await;
    let service = Service::start(nats.url(), data.path()).await;
    service.shows(tickets[1], "free again", |ticket| ticket["status"] == "available").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_it_reads_on_and_writes_again_when_it_is_back() {
    let (mut nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let known = service.list("before", 1.0).await;
    nats.kill();
    let refused = eventually("a write is refused", async || {
        let response = service.post(SELLER, &json!({ "title": "meanwhile", "price": 1 })).await;
        (response.status() != StatusCode::CREATED).then_some(response)
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(service.read(&format!("/api/tickets/{known}")).await["title"], "before");
    assert_eq!(service.get("/healthz").send().await.unwrap().status(), StatusCode::OK);

    nats.restart().await.unwrap();
    let listed: Value = eventually("a write succeeds again", async || {
        let response = service.post(SELLER, &json!({ "title": "after", "price": 1 })).await;
        (response.status() == StatusCode::CREATED).then_some(response)
    })
    .await
    .json()
    .await
    .unwrap();
    let list = service.read("/api/tickets").await;
    assert!(list.as_array().unwrap().contains(&listed), "{list}");
    assert!(list.as_array().unwrap().iter().any(|ticket| ticket["id"] == known.to_string()), "{list}");
    service.stop().await;
}
