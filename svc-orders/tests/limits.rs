//! What one user may do, and for how long they are believed to be that user.

mod service;

use std::time::Duration;

use contract::{
    TicketId, UserEvent,
    event::{Sealed, UserErased, UserSignedOut, UserSignedUp},
    http::Order,
};
use futures::future::join_all;
use reqwest::{Method, Response, StatusCode};
use sandbox::nats::NatsServer;
use serde_json::json;
use service::{
    BUYER, Neighbours, STRANGER, Service, authorized, charged, errors, eventually, token, token_of,
};
use tokio::time::timeout;

async fn refused(response: Response) {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(response).await, [("You can hold at most 3 reservations at once".to_owned(), None)]);
}

async fn list(neighbours: &mut Neighbours, count: usize) -> Vec<TicketId> {
    let mut tickets = Vec::new();
    for number in 0..count {
        tickets.push(neighbours.list(&format!("concert {number}"), 1999).await);
    }
    tickets
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_the_whole_house() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start_with(nats.url(), data.path(), &[("MAX_OPEN_ORDERS", "3")]).await;
    let tickets = list(&mut neighbours, 8).await;
    let mut orders = Vec::new();
    for ticket in &tickets[..3] {
        orders.push(service.reserve(BUYER, *ticket).await);
    }
    refused(service.order(BUYER, tickets[3]).await).await;
    service.reserve(STRANGER, tickets[4]).await;

    // One given up makes room for one.
    assert_eq!(service.cancel(BUYER, orders[0].id).await.status(), StatusCode::NO_CONTENT);
    service.reserve(BUYER, tickets[3]).await;
    refused(service.order(BUYER, tickets[5]).await).await;

    // One that is being paid still holds its ticket; one that is paid has bought it.
    neighbours.pay(authorized(orders[1].id)).await;
    service.shows(&orders[1], "awaiting:payment").await;
    refused(service.order(BUYER, tickets[5]).await).await;
    neighbours.pay(charged(orders[1].id)).await;
    service.shows(&orders[1], "complete").await;
    service.reserve(BUYER, tickets[5]).await;
    refused(service.order(BUYER, tickets[6]).await).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_whoever_asks_for_all_of_it_at_once() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start_with(nats.url(), data.path(), &[("MAX_OPEN_ORDERS", "3")]).await;
    let tickets = list(&mut neighbours, 20).await;
    let answers = join_all(tickets.iter().map(|ticket| service.order(BUYER, *ticket))).await;
    let placed = answers.iter().filter(|answer| answer.status() == StatusCode::CREATED).count();
    assert!((1..=3).contains(&placed), "{placed}");
    for answer in answers.into_iter().filter(|answer| answer.status() != StatusCode::CREATED) {
        refused(answer).await;
    }
    let held: Vec<Order> = serde_json::from_value(service.read(BUYER, "/api/orders").await).unwrap();
    assert_eq!(held.len(), placed);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_has_to_wait_and_others_have_not() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    Neighbours::create(nats.url()).await;
    let service = Service::start_with(nats.url(), data.path(), &[("USER_REQUESTS_PER_MINUTE", "5")]).await;
    for _ in 0..5 {
        service.read(BUYER, "/api/orders").await;
    }
    let answer = service.get(BUYER, "/api/orders").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=12).contains(&retry_after), "{retry_after}");
    service.read(STRANGER, "/api/orders").await;
    let nobody = service.request(Method::GET, "/api/orders").send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_watches_so_many_orders_at_once() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let ticket = neighbours.list("concert", 1999).await;
    let order = service.reserve(BUYER, ticket).await;
    let path = format!("/api/orders/{}/events", order.id);
    let mut watching = Vec::new();
    for _ in 0..20 {
        let answer = service.get(BUYER, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        watching.push(answer);
    }
    let answer = service.get(BUYER, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers().contains_key("retry-after"));
    // Who leaves makes room.
    watching.pop();
    eventually("there is room again", async || {
        (service.get(BUYER, &path).send().await.ok()?.status() == StatusCode::OK).then_some(())
    })
    .await;
    drop(watching);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_over_when_its_user_says_so_or_is_erased() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let status = async |token: String| {
        let request = service.request(Method::GET, "/api/orders").bearer_auth(token);
        request.send().await.unwrap().status()
    };
    let ends = async |token: fn() -> String| {
        eventually("the session is over", async || {
            (status(token()).await == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    };
    let sealed = || Sealed("00".into());
    let signed_up = UserSignedUp { id: BUYER, email: sealed(), password_hash: sealed() };
    neighbours.account(1, UserEvent::SignedUp(signed_up)).await;
    assert_eq!(status(token(BUYER)).await, StatusCode::OK);

    // Who watches an order when their session ends is told no more of it.
    let ticket = neighbours.list("concert", 1999).await;
    let path = format!("/api/orders/{}/events", service.reserve(BUYER, ticket).await.id);
    let mut watching = service.get(BUYER, &path).send().await.unwrap();
    assert!(watching.chunk().await.unwrap().is_some());

    neighbours.account(1, UserEvent::SignedOut(UserSignedOut { id: BUYER, epoch: 1 })).await;
    ends(|| token(BUYER)).await;
    let ended = async { while watching.chunk().await.unwrap().is_some() {} };
    timeout(Duration::from_secs(10), ended).await.expect("the events end");
    assert_eq!(status(token_of(BUYER, 1)).await, StatusCode::OK);
    assert_eq!(status(token(STRANGER)).await, StatusCode::OK);

    neighbours.account(1, UserEvent::Erased(UserErased { id: BUYER })).await;
    ends(|| token_of(BUYER, 1)).await;
    assert_eq!(status(token_of(BUYER, 2)).await, StatusCode::UNAUTHORIZED);
    service.stop().await;

    // Also for a replica that was not there when it happened, before it serves anybody.
    std::fs::remove_dir_all(data.path().join("orders")).unwrap();
    let service = Service::start(nats.url(), data.path()).await;
    let answer = service.get(BUYER, "/api/orders").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(service.read(STRANGER, "/api/orders").await, json!([]));
    service.stop().await;
}
