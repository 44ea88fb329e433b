//! What tracing costs: orders a second and their latency with spans going to a collector that works, to one that is
//! away, fails, is slow or never says a word, beside no tracing at all. In turns, in one run, as the machine is shared.
//!
//! Before it: `cargo build --release --workspace`, as it starts the services of that build.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use support::{
    Layout, System,
    collector::{Answers, Collector},
};

/// Orders to a round, and how many are on their way at once.
const ORDERS: usize = 4_000;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let works = Collector::start(Answers::Forgetting).await;
    let fails = Collector::start(Answers::WithAnError).await;
    let slow = Collector::start(Answers::Late(Duration::from_secs(30))).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = |url: &str| vec![("JAEGER_COLLECTOR_URL", url.to_owned())];
    let kinds = [
        // No span is recorded, but for one that a caller asks for.
        ("off", vec![("TRACE_SAMPLE_RATIO", "0".to_owned())]),
        ("nowhere", vec![]),
        ("works", to(&works.url)),
        ("away", to("http://127.0.0.1:9")),
        ("500", to(&fails.url)),
        ("slow", to(&slow.url)),
        ("silent", to(&format!("grpc://{}", silent.local_addr().unwrap()))),
    ];
    // `-- works 500` measures these alone, beside the one that does not trace.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted =
        |kind: &str| kind == "off" || wanted.is_empty() || wanted.iter().any(|wanted| wanted == kind);
    let kinds: Vec<_> = kinds.into_iter().filter(|(kind, _)| is_wanted(kind)).collect();
    let mut rounds: Vec<Vec<(f64, f64)>> = vec![Vec::new(); kinds.len()];
    for number in 0..ROUNDS {
        for place in 0..kinds.len() {
            // Each kind is first, last and in between as often as the others.
            let index = (place + number) % kinds.len();
            rounds[index].push(round(kinds[index].1.clone()).await);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "collector  orders/s   of off   p50 ms   of off   ({ROUNDS} rounds of {ORDERS} orders, medians)"
    );
    for (index, (kind, _)) in kinds.iter().enumerate() {
        // Beside the one of the same turn that does not trace.
        let beside = |pick: fn(&(f64, f64)) -> f64| {
            median(rounds[index].iter().zip(&rounds[0]).map(|(this, off)| pick(this) / pick(off)).collect())
        };
        let of = |pick: fn(&(f64, f64)) -> f64| median(rounds[index].iter().map(pick).collect());
        println!(
            "{kind:9}  {:8.0}  {:7.3}  {:7.2}  {:7.3}",
            of(|round| round.0),
            beside(|round| round.0),
            of(|round| round.1),
            beside(|round| round.1),
        );
    }
}

/// Orders a second, and the median of their latency in milliseconds.
async fn round(variables: Vec<(&'static str, String)>) -> (f64, f64) {
    let variables: HashMap<_, _> = variables.into_iter().chain([("RUST_LOG", "warn".to_owned())]).collect();
    let system = System::start_with(Layout::default(), variables).await;
    let seller = system.person();
    let tickets: Vec<String> = stream::iter(0..ORDERS)
        .map(|_| system.list_ticket(&seller, 19.99))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let buyer = system.person();
    let started = Instant::now();
    let mut latencies: Vec<f64> = stream::iter(&tickets)
        .map(|ticket| async {
            let asked = Instant::now();
            system.reserve(&buyer, ticket).await;
            asked.elapsed().as_secs_f64() * 1000.0
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let orders_per_second = ORDERS as f64 / started.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    (orders_per_second, latencies[ORDERS / 2])
}
