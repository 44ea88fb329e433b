//! Projections lost, nats-server killed: nothing that was acknowledged is.

mod support;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::StatusCode;
use serde_json::Value;
use support::{
    ALL, Layout, Person,
    Service::{Orders, Payments, Tickets},
    System,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_get_answers_the_same_after_the_projections_are_lost() {
    let mut system = System::start(Layout::default()).await;
    let (seller, buyer) = (system.person(), system.person());
    let mut tickets = Vec::new();
    let mut orders = Vec::new();
    for number in 0..12 {
        let ticket = system.list_ticket(&seller, f64::from(number) + 0.5).await;
        if number % 4 != 0 {
            let order = system.reserve(&buyer, &ticket).await;
            match number % 4 {
                1 => {
                    let (status, body) = system.try_pay(&buyer, &order, "tok_visa").await;
                    assert_eq!(status, StatusCode::CREATED, "{body}");
                    system.until_order(&buyer, &order, "complete").await;
                    system.until_ticket(&ticket, "sold").await;
                }
                2 => {
                    buyer.delete(&system.url(Orders, 0, &format!("/api/orders/{order}"))).await;
                    system.until_ticket(&ticket, "available").await;
                }
                _ => system.until_ticket(&ticket, "reserved").await,
            }
            orders.push(order);
        }
        tickets.push(ticket);
    }
    let before = answers(&system, &buyer, &tickets, &orders).await;
    assert!(before.iter().all(|(_, status, _)| status.is_success() || *status == StatusCode::NOT_FOUND));

    for service in ALL {
        let (clean, took) = system.terminate(service, 0).await;
        assert!(clean, "{service:?} ended with a failure:\n{}", system.log(service, 0));
        assert!(took.as_secs() < 10, "{service:?} took {took:?} to end");
    }
    for service in ALL {
        std::fs::remove_dir_all(system.data_dir(service, 0)).unwrap();
        system.spawn(service, 0);
    }
    for service in ALL {
        system.ready(service, 0).await;
    }
    assert_eq!(answers(&system, &buyer, &tickets, &orders).await, before, "after they were deleted");

    system.terminate(Orders, 0).await;
    // As a hard stop leaves it, which is what damages.
    std::fs::remove_file(system.data_dir(Orders, 0).join("orders/closed")).unwrap();
    overwrite_with_noise(system.data_dir(Orders, 0));
    system.spawn(Orders, 0);
    system.ready(Orders, 0).await;
    assert_eq!(answers(&system, &buyer, &tickets, &orders).await, before, "after they were damaged");
}

async fn answers(
    system: &System,
    buyer: &Person,
    tickets: &[String],
    orders: &[String],
) -> Vec<(String, StatusCode, Value)> {
    let mut paths = vec![
        (Tickets, "/api/tickets".to_owned()),
        (Tickets, "/api/tickets?status=all&limit=5".to_owned()),
        (Orders, "/api/orders".to_owned()),
    ];
    paths.extend(tickets.iter().map(|ticket| (Tickets, format!("/api/tickets/{ticket}"))));
    for order in orders {
        paths.push((Orders, format!("/api/orders/{order}")));
        paths.push((Orders, format!("/api/orders/{order}/history")));
        paths.push((Payments, format!("/api/payments/{order}")));
    }
    let mut answers = Vec::new();
    for (service, path) in paths {
        let (status, body) = buyer.get(&system.url(service, 0, &path)).await;
        answers.push((path, status, body));
    }
    answers
}

fn overwrite_with_noise(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => overwrite_with_noise(&path),
            false => {
                let mut bytes = std::fs::read(&path).unwrap();
                let mut noise = 0x2545_f491_4f6c_dd1d_u64;
                for byte in bytes.iter_mut().skip(16).step_by(7) {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    *byte = noise as u8;
                }
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_on_after_a_kill_of_nats_and_none_that_was_acknowledged_is_lost() {
    let mut system = System::start(Layout { orders_replicas: 2, ..Layout::default() }).await;
    let seller = system.person();
    let mut tickets = Vec::new();
    for _ in 0..400 {
        tickets.push(system.list_ticket(&seller, 5.0).await);
    }
    let tickets = Arc::new(tickets);
    let urls = [system.url(Orders, 0, "/api/orders"), system.url(Orders, 1, "/api/orders")];
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (taken, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));

    let buyers: Vec<_> = (0..8)
        .map(|number| {
            let (tickets, url, buyer) = (tickets.clone(), urls[number % 2].clone(), system.person());
            let (stop, next, taken, refused) = (stop.clone(), next.clone(), taken.clone(), refused.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let ticket = &tickets[next.fetch_add(1, Ordering::Relaxed) % tickets.len()];
                    let (status, body) = buyer.post(&url, serde_json::json!({ "ticketId": ticket })).await;
                    match status {
                        StatusCode::CREATED => {
                            taken.fetch_add(1, Ordering::Relaxed);
                            acknowledged.push(support::text(&body["id"]));
                        }
                        StatusCode::SERVICE_UNAVAILABLE => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                        }
                        StatusCode::BAD_REQUEST | StatusCode::CONFLICT => {}
                        other => panic!("{other}: {body}"),
                    }
                }
                acknowledged
            })
        })
        .collect();

    let reached = async |counter: &AtomicUsize, count: usize, what: &str| {
        let there = || async { (counter.load(Ordering::Relaxed) >= count).then_some(()) };
        support::within(support::PATIENCE, there).await.unwrap_or_else(|| panic!("{what} in time"));
    };
    reached(&taken, 50, "the first orders").await;
    system.nats.kill();
    reached(&refused, 20, "503s").await;
    let (status, _) = seller.get(&system.url(Tickets, 0, "/api/tickets")).await;
    assert_eq!(status, StatusCode::OK, "reads go on");
    let before = taken.load(Ordering::Relaxed);
    system.nats.restart().await.unwrap();
    reached(&taken, before + 50, "orders after the restart").await;
    stop.store(true, Ordering::Relaxed);

    let mut acknowledged = Vec::new();
    for buyer in buyers {
        acknowledged.extend(buyer.await.unwrap());
    }
    let log = system.read_stream("ORDERS").await;
    let created: HashSet<_> = log
        .iter()
        .filter(|event| event.event_type == "order:created")
        .map(|event| support::text(&event.payload["id"]))
        .collect();
    for order in &acknowledged {
        assert!(created.contains(order), "order {order} was acknowledged and is not in the log");
    }
    let subjects: HashSet<_> = log.iter().map(|event| &event.subject).collect();
    assert_eq!(subjects.len(), log.len(), "one order a ticket");
}
