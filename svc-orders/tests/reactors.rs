//! Orders following their payments and deadlines, on a real nats-server.

mod service;

use contract::{
    OrderId,
    http::Order,
    stream::{
        DEAD_LETTERS, EXPIRATIONS, ORDERS, PAYMENTS, durable, expiration_subject, order_subject,
        payment_subject, ticket_subject,
    },
};
use reqwest::StatusCode;
use sandbox::nats::NatsServer;
use serde_json::json;
use service::{
    BUYER, Neighbours, STRANGER, Service, all_handled, authorized, charged, declined, eventually, jetstream,
    refunded, refused, voided,
};
use uuid::Uuid;

const CREATED: &str = "order:created";
const AWAITING: &str = "order:awaiting-payment";
const COMPLETED: &str = "order:completed";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_follows_its_payment() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let jetstream = jetstream(nats.url()).await;
    let ticket = neighbours.list("concert", 1999).await;
    let order = service.reserve(BUYER, ticket).await;

    neighbours.pay(declined(order.id)).await;
    all_handled(&jetstream).await;
    service.shows(&order, "created").await;

    neighbours.pay(authorized(order.id)).await;
    let awaiting = service.shows(&order, "awaiting:payment").await;
    assert_eq!(awaiting["version"], 1);
    let response = service.cancel(BUYER, order.id).await;
    refused(response, StatusCode::BAD_REQUEST, "Cannot cancel an order that is being paid").await;
    refused(service.cancel(STRANGER, order.id).await, StatusCode::UNAUTHORIZED, "Not authorized").await;
    neighbours.expire(order.id).await;
    all_handled(&jetstream).await;
    service.shows(&order, "awaiting:payment").await;

    neighbours.pay(charged(order.id)).await;
    service.shows(&order, "complete").await;
    let response = service.cancel(BUYER, order.id).await;
    refused(response, StatusCode::BAD_REQUEST, "Cannot cancel an order that is paid").await;
    let response = service.order(STRANGER, ticket).await;
    refused(response, StatusCode::BAD_REQUEST, "Ticket is already reserved").await;

    neighbours.pay(refunded(order.id)).await;
    service.shows(&order, "cancelled").await;
    let whole_life = [CREATED, AWAITING, COMPLETED, "order:cancelled refunded"];
    assert_eq!(service.history(&order).await, whole_life);
    let next = service.reserve(STRANGER, ticket).await;
    assert_eq!(next.version, 4);

    let stream = jetstream.get_stream(ORDERS.name).await.unwrap();
    let awaiting = stream.get_raw_message(2).await.unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&awaiting.payload).unwrap();
    assert_eq!((&payload["paymentId"], &payload["ticket"]["id"]), (&json!(order.id), &json!(ticket)));
    assert!(awaiting.headers.get("ce-causationid").is_some());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_or_a_failed_payment_ends_an_order_only_in_its_time() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let jetstream = jetstream(nats.url()).await;
    let mut orders = Vec::new();
    for number in 0..4 {
        let ticket = neighbours.list(&format!("ticket {number}"), 100).await;
        orders.push(service.reserve(BUYER, ticket).await);
    }
    let [expired, failed, overtaken, given_up] = orders.try_into().unwrap();

    neighbours.expire(expired.id).await;
    service.shows(&expired, "cancelled").await;
    assert_eq!(service.history(&expired).await, [CREATED, "order:cancelled expired"]);
    service.reserve(STRANGER, expired.ticket.id).await;
    // The card was authorised too late: it is the payment that finds nothing to do.
    neighbours.pay(authorized(expired.id)).await;

    neighbours.pay(authorized(failed.id)).await;
    service.shows(&failed, "awaiting:payment").await;
    neighbours.pay(voided(failed.id)).await;
    service.shows(&failed, "cancelled").await;
    assert_eq!(service.history(&failed).await, [CREATED, AWAITING, "order:cancelled payment-failed"]);
    service.reserve(STRANGER, failed.ticket.id).await;

    // The end of the payment is heard of before its beginning.
    neighbours.pay(voided(overtaken.id)).await;
    neighbours.pay(authorized(overtaken.id)).await;
    service.cancel(BUYER, given_up.id).await;
    neighbours.pay(authorized(given_up.id)).await;
    neighbours.expire(given_up.id).await;
    all_handled(&jetstream).await;
    assert_eq!(service.history(&overtaken).await, [CREATED, "order:cancelled payment-failed"]);
    assert_eq!(service.history(&given_up).await, [CREATED, "order:cancelled buyer"]);
    assert_eq!(service.history(&expired).await, [CREATED, "order:cancelled expired"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_every_event_told_again_come_to_the_same() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    let jetstream = jetstream(nats.url()).await;

    let mut orders: Vec<(Order, Vec<&str>)> = Vec::new();
    for number in 0..28 {
        let ticket = neighbours.list(&format!("ticket {number}"), 100).await;
        let order = service.reserve(BUYER, ticket).await;
        let id = order.id;
        if number % 7 > 1 {
            neighbours.pay(declined(id)).await;
            neighbours.pay(authorized(id)).await;
            // Payments charges and voids only what the order's log has agreed to.
            other.shows(&order, "awaiting:payment").await;
        }
        let history = match number % 7 {
            0 => vec![CREATED],
            1 => {
                neighbours.expire(id).await;
                service.shows(&order, "cancelled").await;
                other.shows(&order, "cancelled").await;
                orders.push((other.reserve(STRANGER, ticket).await, vec![CREATED]));
                vec![CREATED, "order:cancelled expired"]
            }
            2 => vec![CREATED, AWAITING],
            3 => {
                neighbours.pay(voided(id)).await;
                vec![CREATED, AWAITING, "order:cancelled payment-failed"]
            }
            4 => {
                neighbours.pay(charged(id)).await;
                neighbours.expire(id).await;
                service.shows(&order, "complete").await;
                neighbours.pay(refunded(id)).await;
                vec![CREATED, AWAITING, COMPLETED, "order:cancelled refunded"]
            }
            _ => {
                neighbours.expire(id).await;
                neighbours.pay(charged(id)).await;
                vec![CREATED, AWAITING, COMPLETED]
            }
        };
        orders.push((order, history));
    }
    let check = async |replica: &Service| {
        for (order, expected) in &orders {
            eventually("the order went as it was told", async || {
                (replica.history(order).await == *expected).then_some(())
            })
            .await;
        }
    };
    all_handled(&jetstream).await;
    check(&service).await;
    check(&other).await;

    let end = async || jetstream.get_stream(ORDERS.name).await.unwrap().cached_info().state.last_sequence;
    let before = end().await;
    // A durable made anew hears everything again, whatever each replica has in its hands.
    for stream in [PAYMENTS, EXPIRATIONS] {
        jetstream.get_stream(stream.name).await.unwrap().delete_consumer(durable::ORDERS).await.unwrap();
    }
    all_handled(&jetstream).await;
    assert_eq!(end().await, before, "nothing was appended for what was known");
    check(&other).await;
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_ignored_and_what_is_poison_is_buried() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let jetstream = jetstream(nats.url()).await;
    let (ticket, other) = (neighbours.list("concert", 1999).await, neighbours.list("play", 1).await);

    let poison = [
        payment_subject(OrderId(Uuid::now_v7())),
        expiration_subject(OrderId(Uuid::now_v7())),
        ticket_subject(ticket),
        order_subject(ticket),
    ];
    for subject in poison {
        jetstream.publish(subject, "{not json".into()).await.unwrap().await.unwrap();
    }
    let unknown = OrderId(Uuid::now_v7());
    for event in [authorized(unknown), charged(unknown), voided(unknown), refunded(unknown)] {
        neighbours.pay(event).await;
    }
    neighbours.expire(unknown).await;

    // The poison stands on the ticket's own subjects, and yet it is sold.
    let (paid, expired) = (service.reserve(BUYER, ticket).await, service.reserve(BUYER, other).await);
    neighbours.pay(authorized(paid.id)).await;
    neighbours.pay(charged(paid.id)).await;
    neighbours.expire(expired.id).await;
    service.shows(&paid, "complete").await;
    service.shows(&expired, "cancelled").await;
    all_handled(&jetstream).await;
    eventually("the poison is buried", async || {
        let letters = jetstream.get_stream(DEAD_LETTERS).await.unwrap();
        (letters.cached_info().state.messages == 4).then_some(())
    })
    .await;
    let orders = jetstream.get_stream(ORDERS.name).await.unwrap();
    assert_eq!(orders.cached_info().state.messages, 6, "the poison, two orders and their fates");
    service.stop().await;
}
