//! The rush: nothing is sold twice, whoever asks wherever how often.

mod support;

use std::collections::HashMap;

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use support::{Layout, Service::Tickets, System};

const TICKETS: usize = 500;
const BUYERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn eight_buyers_at_once_for_each_of_five_hundred_tickets() {
    let system = System::start(Layout { orders_replicas: 2, ..Layout::default() }).await;
    let seller = system.person();
    let tickets: Vec<String> = stream::iter(0..TICKETS)
        .map(|_| system.list_ticket(&seller, 25.0))
        .buffer_unordered(32)
        .collect()
        .await;

    // All eight for a ticket stand next to each other, so they meet.
    let attempts = tickets.iter().flat_map(|ticket| (0..BUYERS).map(move |buyer| (ticket.clone(), buyer)));
    let answers: Vec<(String, StatusCode, String)> = stream::iter(attempts)
        .map(|(ticket, buyer)| {
            let (system, person) = (&system, system.person());
            async move {
                let (status, body) = system.try_reserve(&person, &ticket, buyer % 2).await;
                (ticket, status, body.to_string())
            }
        })
        .buffer_unordered(64)
        .collect()
        .await;

    let mut won = HashMap::<&str, usize>::new();
    for (ticket, status, body) in &answers {
        match *status {
            StatusCode::CREATED => *won.entry(ticket).or_default() += 1,
            StatusCode::BAD_REQUEST => assert!(body.contains("Ticket is already reserved"), "{body}"),
            StatusCode::CONFLICT => {}
            other => panic!("{other}: {body}"),
        }
    }
    assert_eq!(won.len(), TICKETS, "every ticket found a buyer");
    assert!(won.values().all(|orders| *orders == 1), "none found two");

    // The log alone proves it, whatever was answered.
    let orders = system.read_stream("ORDERS").await;
    assert_eq!(orders.len(), TICKETS);
    let mut subjects: Vec<_> = orders.iter().map(|event| event.subject.clone()).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), TICKETS);
    assert!(orders.iter().all(|event| event.event_type == "order:created" && event.payload["version"] == 0));

    for ticket in tickets.iter().step_by(50) {
        system.until_ticket(ticket, "reserved").await;
    }
    let (status, listed) = seller.get(&system.url(Tickets, 0, "/api/tickets?status=all&limit=1000")).await;
    assert_eq!((status, listed.as_array().unwrap().len()), (StatusCode::OK, TICKETS));
}
