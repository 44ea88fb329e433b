//! Tickets following their orders, on a real nats-server.

mod service;

use async_nats::jetstream;
use contract::{
    OrderId, TicketEvent, TicketId,
    event::CancelReason,
    stream::{DEAD_LETTERS, ORDERS, TICKETS, durable, order_subject, ticket_subject},
};
use eventstore::{Auth, Connection, Settings};
use reqwest::StatusCode;
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{
    Orders, SELLER, STRANGER, Service, awaiting_payment, cancelled, completed, created, errors, eventually,
};
use uuid::Uuid;

fn order() -> OrderId {
    OrderId(Uuid::now_v7())
}

fn is(status: &'static str, order: Option<OrderId>) -> impl Fn(&Value) -> bool {
    move |ticket| {
        let held_by = ticket.get("orderId").map(|id| id.as_str().unwrap().to_owned());
        ticket["status"] == status && held_by == order.map(|order| order.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_follows_its_orders() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    let ticket = service.list("concert", 19.99).await;
    let (first, second) = (order(), order());
    let terms = json!({ "title": "edited", "price": 1 });

    orders.append(created(first, ticket)).await;
    service.shows(ticket, "reserved", is("reserved", Some(first))).await;
    assert_eq!(service.read("/api/tickets").await, json!([]));
    assert_eq!(service.read("/api/tickets?status=all").await[0]["status"], "reserved");
    let refused = service.put(SELLER, &ticket.to_string(), &terms).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(errors(refused).await, [("Cannot edit a reserved ticket".to_owned(), None)]);
    let refused = service.put(STRANGER, &ticket.to_string(), &terms).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

    orders.append(cancelled(first, ticket, CancelReason::Expired)).await;
    service.shows(ticket, "free again", is("available", None)).await;
    assert_eq!(service.read("/api/tickets").await[0]["id"], ticket.to_string());
    let edited = service.put(SELLER, &ticket.to_string(), &terms).await;
    assert_eq!(edited.status(), StatusCode::OK);

    orders.append(created(second, ticket)).await;
    orders.append(awaiting_payment(second, ticket)).await;
    orders.append(completed(second, ticket)).await;
    let sold = service.shows(ticket, "sold", is("sold", Some(second))).await;
    // Listed, reserved, freed, edited, reserved, sold: awaiting its payment changes nothing.
    assert_eq!((&sold["version"], &sold["title"], &sold["price"]), (&json!(5), &json!("edited"), &json!(1)));
    let refused = service.put(SELLER, &ticket.to_string(), &terms).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);

    orders.append(cancelled(second, ticket, CancelReason::Refunded)).await;
    service.shows(ticket, "for sale again", is("available", None)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_every_event_told_again_end_in_what_the_orders_say() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    let mut orders = Orders::create(nats.url()).await;

    let mut expected = Vec::new();
    for number in 0..24_u32 {
        let ticket = service.list(&format!("ticket {number}"), 1.0).await;
        for _ in 0..number % 3 {
            let given_up = order();
            orders.append(created(given_up, ticket)).await;
            orders.append(cancelled(given_up, ticket, CancelReason::Buyer)).await;
        }
        let last = order();
        orders.append(created(last, ticket)).await;
        expected.push(match number % 4 {
            0 => (ticket, is("reserved", Some(last))),
            1 => {
                orders.append(cancelled(last, ticket, CancelReason::Expired)).await;
                (ticket, is("available", None))
            }
            _ => {
                orders.append(awaiting_payment(last, ticket)).await;
                orders.append(completed(last, ticket)).await;
                (ticket, is("sold", Some(last)))
            }
        });
    }
    let check = async |replica: &Service| {
        for (ticket, is) in &expected {
            replica.shows(*ticket, "what its last order says", is).await;
        }
    };
    check(&service).await;
    check(&other).await;

    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let all_handled = async || {
        eventually("every order event is handled", async || {
            let stream = jetstream.get_stream(ORDERS.name).await.unwrap();
            let consumer = stream.consumer_info(durable::TICKETS).await.ok()?;
            (consumer.num_pending == 0 && consumer.num_ack_pending == 0).then_some(())
        })
        .await;
        jetstream.get_stream(TICKETS.name).await.unwrap().cached_info().state.last_sequence
    };
    let end = all_handled().await;
    // A durable made anew hears everything again, whatever each replica has in its hands.
    jetstream.get_stream(ORDERS.name).await.unwrap().delete_consumer(durable::TICKETS).await.unwrap();
    assert_eq!(all_handled().await, end, "nothing was appended for what was known");
    check(&service).await;

    for (ticket, _) in &expected {
        let versions = order_versions(&jetstream, *ticket, end).await;
        assert!(versions.is_sorted_by(|earlier, later| earlier < later), "{ticket}: {versions:?}");
    }
    service.stop().await;
    other.stop().await;
}

/// The clock readings in the ticket's events, in order.
async fn order_versions(jetstream: &jetstream::Context, ticket: TicketId, end: u64) -> Vec<Option<u64>> {
    let stream = jetstream.get_stream(TICKETS.name).await.unwrap();
    let (subject, mut next, mut versions) = (ticket_subject(ticket), 1, Vec::new());
    while next <= end {
        let Ok(message) = stream.get_first_raw_message_by_subject(subject.as_str(), next).await else {
            break;
        };
        let tag = message.headers.get("ce-type").unwrap().as_str();
        let data: Value = serde_json::from_slice(&message.payload).unwrap();
        match serde_json::from_value(json!({ "type": tag, "data": data })).unwrap() {
            TicketEvent::Created(_) => versions.push(None),
            TicketEvent::Updated(event) => versions.push(event.order_version),
        }
        next = message.sequence + 1;
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_is_buried_and_the_rest_goes_on() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    let poisoned = service.list("poisoned", 1.0).await;
    let healthy = service.list("healthy", 1.0).await;

    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    jetstream.publish(order_subject(poisoned), "{not json".into()).await.unwrap().await.unwrap();
    let holder = order();
    orders.append(created(holder, healthy)).await;
    service.shows(healthy, "reserved all the same", is("reserved", Some(holder))).await;
    eventually("the poison is buried", async || {
        let letters = jetstream.get_stream(DEAD_LETTERS).await.unwrap();
        (letters.cached_info().state.messages == 1).then_some(())
    })
    .await;
    service.shows(poisoned, "untouched", is("available", None)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_a_ticket_that_is_not_listed_yet_waits_for_it() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    let (ticket, holder) = (TicketId(Uuid::now_v7()), order());
    orders.append(created(holder, ticket)).await;

    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    eventually("the reservation was tried", async || {
        let stream = jetstream.get_stream(ORDERS.name).await.unwrap();
        let consumer = stream.consumer_info(durable::TICKETS).await.ok()?;
        (consumer.num_redelivered > 0).then_some(())
    })
    .await;
    list_as(nats.url(), ticket).await;
    service.shows(ticket, "reserved", is("reserved", Some(holder))).await;
    service.stop().await;
}

/// Lists a ticket under an id of one's own choice, past the service.
async fn list_as(nats: &str, id: TicketId) {
    let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: TICKETS.source.into() };
    let connection = Connection::open(settings).await.unwrap();
    let log = eventstore::Log::reader(&connection, TICKETS.name, TICKETS.source);
    let event = TicketEvent::Created(contract::event::TicketCreated {
        id,
        title: "late".into(),
        price_cents: contract::Cents(1),
        user_id: SELLER,
    });
    eventually("the ticket is listed", async || {
        log.append(&ticket_subject(id), &event, 0, 0, eventstore::Cause::Command).await.ok()
    })
    .await;
}
