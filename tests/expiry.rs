//! Deadlines by the thousand: each order expires once, none early, and all as fast as the log takes them.

mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use contract::{
    Cents, OrderEvent, OrderId, TicketId, Timestamp, UserId,
    event::{OrderCreated, OrderStatus, OrderedTicket},
    stream::{ORDERS, order_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings};
use futures::{StreamExt, stream};
use support::{
    Layout,
    Service::{Payments, Tickets},
    System,
};
use uuid::Uuid;

/// One after the other: what is measured here is not to be the other test's load.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Puts `count` orders into the log that are all due at the same moment, `ahead` of when the last of them is there.
/// Returns the moment, and how many appends a second the log took of them.
async fn orders_due_together(system: &System, count: usize, ahead: Duration) -> (Timestamp, f64) {
    let settings =
        Settings { url: system.nats.url().into(), auth: Auth::None, ca: None, name: "svc-orders".into() };
    let connection = Connection::open(settings).await.unwrap();
    support::within(support::PATIENCE, || async { connection.is_up().then_some(()) }).await.unwrap();
    let log = Log::reader(&connection, ORDERS.name, ORDERS.source);

    // How fast it takes them is measured on a tenth, to know by when the rest is there.
    let warm_up = count / 10;
    let far = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(24 * 3600));
    let started = Instant::now();
    append(&log, warm_up, far).await;
    let rate = warm_up as f64 / started.elapsed().as_secs_f64();
    // And half as long again, as a disk has its moments.
    let needed = Duration::from_secs_f64(1.5 * count as f64 / rate);
    let due = Timestamp::from(SystemTime::now()).plus(needed + ahead);
    let started = Instant::now();
    append(&log, count, due).await;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    assert!(Timestamp::from(SystemTime::now()) < due, "the orders were there before they were due");
    (due, rate)
}

/// The orders here are of tickets that nobody listed: those who would look for them are out of the way.
async fn deadlines_alone() -> System {
    let mut system = System::start(Layout::default()).await;
    system.kill(Tickets, 0).await;
    system.kill(Payments, 0).await;
    system
}

async fn append(log: &Log, count: usize, expires_at: Timestamp) {
    let appends = stream::iter(0..count).map(|_| async {
        let ticket = TicketId(Uuid::now_v7());
        let event = OrderEvent::Created(OrderCreated {
            id: OrderId(Uuid::now_v7()),
            status: OrderStatus::Created,
            user_id: UserId(Uuid::now_v7()),
            expires_at,
            ticket: OrderedTicket { id: ticket, title: "Concert".into(), price_cents: Cents(1999) },
        });
        log.append(&order_subject(ticket), &event, 0, 0, Cause::Command).await.unwrap();
    });
    appends.buffer_unordered(256).collect::<()>().await;
}

/// Waits until `count` deadlines are told after `since`; returns how late each was, in order. Fails if one is early
/// or told twice.
async fn lateness(system: &System, due: Timestamp, since: usize, count: usize) -> Vec<Duration> {
    let told = || async {
        let stream = system.jetstream().await.get_stream("EXPIRATIONS").await.ok()?;
        (stream.cached_info().state.messages as usize >= since + count).then_some(())
    };
    if support::within(3 * support::PATIENCE, told).await.is_none() {
        let log = system.log(support::Service::Expiration, 0);
        panic!("not all were told in time:\n{}", &log[log.len().saturating_sub(4000)..]);
    }
    let events = system.read_stream("EXPIRATIONS").await;
    let mut times_told = HashMap::<String, usize>::new();
    for event in &events {
        *times_told.entry(event.subject.clone()).or_default() += 1;
    }
    assert!(times_told.values().all(|times| *times == 1), "each is told once");
    assert_eq!(events.len(), since + count, "and no other");
    let mut lateness: Vec<Duration> = events[since..]
        .iter()
        .map(|event| {
            let told = Timestamp::from(event.time);
            assert!(told >= due, "told early: {told}, due {due}");
            told.since(due)
        })
        .collect();
    lateness.sort();
    lateness
}

async fn until_cancelled(system: &System, count: usize) {
    let cancelled = || async {
        let events = system.read_stream("ORDERS").await;
        let cancelled = events.iter().filter(|event| event.event_type == "order:cancelled").count();
        (cancelled == count).then_some(())
    };
    support::within(3 * support::PATIENCE, cancelled).await.expect("every order is cancelled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_orders_due_at_once_expire_within_a_second() {
    let _alone = ALONE.lock().await;
    let system = deadlines_alone().await;
    let (due, _) = orders_due_together(&system, 1_000, Duration::from_secs(4)).await;
    let late = lateness(&system, due, 0, 1_000).await;
    println!("of 1,000: p50 {:?}, p99 {:?}, last {:?} late", late[500], late[990], late[999]);
    assert!(late[990] <= Duration::from_secs(1), "p99 was {:?} late", late[990]);
    until_cancelled(&system, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_orders_due_at_once_each_expire_once() {
    let _alone = ALONE.lock().await;
    let mut system = deadlines_alone().await;
    let (due, rate) = orders_due_together(&system, 20_000, Duration::from_secs(6)).await;
    let late = lateness(&system, due, 0, 20_000).await;
    // Each deadline is one append and each cancelled order another, at the same time, on the same disk; and the same
    // two cores decide and project them.
    let explained = Duration::from_secs_f64(2.0 * 20_000.0 / rate) + Duration::from_secs(2);
    println!(
        "of 20,000 at {rate:.0} appends/s: p50 {:?}, p99 {:?}, last {:?} late; explained {explained:?}",
        late[10_000], late[19_800], late[19_999]
    );
    assert!(late[19_999] <= explained, "the last was {:?} late, explained are {explained:?}", late[19_999]);
    until_cancelled(&system, 20_000).await;

    // Again, and nats-server dies in the middle: what it knew of delays is gone, what is in the log is not.
    let (due, _) = orders_due_together(&system, 20_000, Duration::from_secs(6)).await;
    let half = || async {
        let stream = system.jetstream().await.get_stream("EXPIRATIONS").await.ok()?;
        (stream.cached_info().state.messages > 25_000).then_some(())
    };
    support::within(2 * support::PATIENCE, half).await.expect("half of them");
    system.nats.kill();
    system.nats.restart().await.unwrap();
    let late = lateness(&system, due, 20_000, 20_000).await;
    println!("with a kill in between: the last {:?} late", late[19_999]);
    until_cancelled(&system, 40_000).await;
}
