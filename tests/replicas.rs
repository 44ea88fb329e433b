//! Several replicas, several services: nobody is told that what they just did has not happened.

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Layout, Service::Orders, System};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_can_be_reserved_the_moment_it_is_listed() {
    let system = System::start(Layout { orders_replicas: 2, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    for number in 0..200 {
        let ticket = system.list_ticket(&seller, 5.0).await;
        let (status, body) = system.try_reserve(&buyer, &ticket, number % 2).await;
        assert_eq!(status, StatusCode::CREATED, "ticket {number}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_wrote_another_reads() {
    let system = System::start(Layout { orders_replicas: 2, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    let client = reqwest::Client::new();
    let token = format!("Bearer {}", buyer.token());
    for number in 1..=100 {
        let ticket = system.list_ticket(&seller, 5.0).await;
        let answer = client
            .post(system.url(Orders, 0, "/api/orders"))
            .header("authorization", &token)
            .json(&json!({ "ticketId": ticket }))
            .send()
            .await
            .unwrap();
        let position = answer.headers()["x-position"].clone();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let order: Value = answer.json().await.unwrap();

        // A list has no way to know what it lacks, but for the position that the writer was given.
        let list =
            client.get(system.url(Orders, 1, "/api/orders?limit=1000")).header("authorization", &token);
        let list = match number % 2 {
            0 => list.header("x-position", position),
            _ => list.header("cookie", cookie),
        };
        let listed: Value = list.send().await.unwrap().json().await.unwrap();
        assert_eq!(listed.as_array().unwrap().len(), number, "order {number}");

        // One order is asked for by its id: the replica looks again before it says that it does not exist.
        let url = system.url(Orders, 1, &format!("/api/orders/{}", order["id"].as_str().unwrap()));
        assert_eq!(buyer.get(&url).await.0, StatusCode::OK);
    }
}
