//! A sale from outside, over HTTP, on this machine: how much the system takes, with every acknowledged event on disk.
//!
//! `cargo bench --bench onsale`, or with `-- --buyers 500 --tickets 200 --orders 5000 --layout five`. The five processes
//! are the programs that `cargo build --release --workspace --bins` has made before; cargo does not make them for a bench.
//!
//! A nats-server that syncs every write, the services and the crowd share the processors, so what the crowd costs the
//! services lack. Each buyer has a connection and a session of their own. Figures in the order in which they are taken:
//!
//! - `get_tickets_per_s`: the list, with 20 tickets in it, over 64 connections;
//! - `raw_durable_publish_per_s`: plain JetStream publishes on the same server, with as many in flight as there are
//!   buyers, before and after the orders; the payload is an order's;
//! - `orders_per_s`, `p50_ms`, `p99_ms`: every buyer orders one ticket after the other, each wanted by nobody else;
//! - `ratio`: those two. The bare client sends each message by itself, without headers and expectations; an order is an
//!   event that is expected, may share a batch (`batched_share` did), and is shown before it is answered;
//! - `flatness`: how many orders a second came towards the end (the ninth tenth) for each that came at the beginning (the second);
//! - `attempts_per_s`: the rush, ten buyers for each ticket, until everybody has an answer;
//! - `purchases_per_s`: what was won is paid for, from `POST /api/payments` until the order says `complete`;
//! - `expired_per_s`: orders that are due in the same second, until each has expired, is cancelled, and its ticket is free;
//! - `replay_events_per_s` beside `raw_ordered_read_per_s`: svc-orders' own projection from nothing, and reading alone;
//! - `rss_mb` of the services without the nats-server, `oversold` and all `audit_findings` (by `ticketing audit`), and `lost`
//!   (answered with 2xx, and not in the log) in the end: were there any, the bench would fail.
//!
//! Between them everything is left to come to rest: what one sets off is not to be the next one's load.
//! Pictures of the orders and the rush are in `target/onsale-*.svg`; the last line is the same as JSON.
#![allow(clippy::print_stdout, reason = "it is a report")]

mod load;
mod market;
mod plot;
mod raw;

#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/whole/mod.rs"]
mod whole;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use hyper::{Method, StatusCode};
use load::{Caller, Run, crowd};
use market::Market;
use serde_json::{Map, Value, json};
use support::{
    Service::{Orders, Payments, Tickets},
    text,
};

/// How many want each ticket in the rush.
const RIVALS: usize = 10;
/// Who looks at the list.
const READERS: usize = 64;
/// How long the list is read, and raw publishes go on.
const ROUND: Duration = Duration::from_secs(3);
/// By when everything that was set off is over.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Options {
    /// How many buyers there are, each with a connection
    #[arg(long, default_value_t = 2_000)]
    buyers: usize,
    /// How many tickets there are in the rush
    #[arg(long, default_value_t = 1_000)]
    tickets: usize,
    /// How many orders are placed without rivals
    #[arg(long, default_value_t = 20_000)]
    orders: usize,
    /// How many orders are due in the same second; 0 leaves that out
    #[arg(long, default_value_t = 20_000)]
    due: usize,
    /// What is measured
    #[arg(long, default_value = "both")]
    layout: Layouts,
    /// Cargo says so to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layouts {
    One,
    Five,
    Both,
}

/// The C library's took a fifth of the time that an order takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs this too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let options = Options::parse();
    let mut figures = Map::new();
    if options.layout != Layouts::Five {
        figures = sale(&Market::one_process().await, &options, "one process").await?;
    }
    if options.layout != Layouts::One {
        let five = sale(&Market::five_processes().await, &options, "five processes").await?;
        match options.layout {
            Layouts::Five => figures = five,
            Layouts::One | Layouts::Both => {
                figures.insert("five_processes".into(), five.into());
            }
        }
    }
    println!("\n{}", Value::Object(figures));
    Ok(())
}

/// One sale from beginning to end.
async fn sale(market: &Market, options: &Options, named: &str) -> anyhow::Result<Map<String, Value>> {
    println!("\n{named}, {} buyers, sync_interval always", options.buyers);
    let mut figures = Figures::default();
    let buyers: Vec<String> = (0..options.buyers).map(|_| market.session()).collect();

    list(market, 20).await;
    let looks = look(market).await;
    figures.add("get_tickets_per_s", looks.per_second());

    let tickets = list(market, options.orders).await;
    market.settle().await?;
    let before = raw::publish(market.nats_url(), options.buyers, ROUND).await?;
    let batched = market.batched().await;
    let orders = order(market, &buyers, tickets.iter().cloned().enumerate().collect()).await;
    let batched = market.batched().await - batched;
    market.settle().await?;
    let after = raw::publish(market.nats_url(), options.buyers, ROUND).await?;
    let raw = (before.per_second() + after.per_second()) / 2.0;
    let placed: Vec<Order> = orders.results.iter().flatten().cloned().collect();
    anyhow::ensure!(placed.len() == options.orders, "{} of {} orders", placed.len(), options.orders);
    figures.add("raw_durable_publish_per_s", raw);
    figures.add("raw_p99_ms", (before.percentile(0.99) + after.percentile(0.99)) / 2.0);
    figures.add("orders_per_s", orders.per_second());
    figures.add("ratio", orders.per_second() / raw);
    figures.add("flatness", orders.per_second_between(0.8, 0.9) / orders.per_second_between(0.1, 0.2));
    figures.add("p50_ms", orders.percentile(0.5));
    figures.add("p99_ms", orders.percentile(0.99));
    figures.add("batched_share", batched / options.orders as f64);
    plot::draw(&picture(named, "orders"), "POST /api/orders", &orders.answers)?;

    let wanted = list(market, options.tickets).await;
    market.settle().await?;
    let rush = order(market, &buyers, rivals(&wanted, buyers.len())).await;
    let won: Vec<Order> = rush.results.iter().flatten().cloned().collect();
    anyhow::ensure!(won.len() == wanted.len(), "{} of {} tickets found a buyer", won.len(), wanted.len());
    figures.add("attempts_per_s", rush.per_second());
    figures.add("sold_out_after_s", rush.lasted.as_secs_f64());
    plot::draw(&picture(named, "rush"), "the rush", &rush.answers)?;

    market.settle().await?;
    let purchases = pay(market, &buyers, won.clone()).await;
    figures.add("purchases_per_s", purchases.per_second());

    if options.due > 0 {
        let tickets = list(market, options.due).await;
        let lasted = market.expire(&tickets).await?;
        figures.add("expired_after_s", lasted.as_secs_f64());
        figures.add("expired_per_s", options.due as f64 / lasted.as_secs_f64());
    }

    market.settle().await?;
    let read = raw::read(market.nats_url()).await?;
    let replay = raw::replay(market.nats_url()).await?;
    figures.add("replay_events_per_s", replay);
    figures.add("raw_ordered_read_per_s", read);
    figures.add("rss_mb", market.resident_mb());

    let (audit, lost) = market.judge(placed.iter().chain(&won)).await?;
    figures.add("oversold", audit.oversold() as f64);
    figures.add("audit_findings", audit.findings() as f64);
    figures.add("lost", lost as f64);
    anyhow::ensure!(audit.findings() == 0 && lost == 0, "{audit:?}, {lost} lost");
    Ok(figures.0)
}

/// An order that was answered with 201.
#[derive(Clone)]
pub(crate) struct Order {
    id: String,
    buyer: usize,
}

/// Tickets of one seller's.
async fn list(market: &Market, count: usize) -> Vec<String> {
    let (address, seller) = (market.address(Tickets), market.session());
    let caller = async || Caller::connect(&address).await;
    let run = crowd(256, (0..count).collect(), caller, move |mut caller, number| {
        let seller = seller.clone();
        async move {
            let body = json!({ "title": format!("Concert, seat {number}"), "price": 19.99 }).to_string();
            let (status, answer) = caller.ask(Method::POST, "/api/tickets", Some(&seller), Some(body)).await;
            assert_eq!(status, StatusCode::CREATED, "{answer:?}");
            (caller, text(&parsed(&answer)["id"]))
        }
    });
    run.await.results
}

/// Everybody looks at the list for a while.
async fn look(market: &Market) -> Run<()> {
    let address = market.address(Tickets);
    let caller = async || Caller::connect(&address).await;
    let until = Instant::now() + ROUND;
    let run = crowd(READERS, vec![until; READERS], caller, |mut caller, until| async move {
        let mut answers = Vec::new();
        while Instant::now() < until {
            let asked = Instant::now();
            let (status, list) = caller.ask(Method::GET, "/api/tickets", None, None).await;
            assert!(status == StatusCode::OK && list.len() > 1_000, "{status} {list:?}");
            answers.push(asked.elapsed());
        }
        (caller, answers)
    });
    let Run { results, lasted, .. } = run.await;
    let took = results.into_iter().flatten();
    let answers = took.map(|took| load::Answered { at: Duration::ZERO, took }).collect();
    Run { answers, results: Vec::new(), lasted }
}

/// Each ticket as often as there are rivals for it, who stand next to each other, so that they meet; with who wants it.
fn rivals(tickets: &[String], buyers: usize) -> Vec<(usize, String)> {
    let wanted = tickets.iter().flat_map(|ticket| std::iter::repeat_n(ticket, RIVALS));
    wanted.enumerate().map(|(number, ticket)| (number % buyers, ticket.clone())).collect()
}

/// Buyers order; those who are told that somebody was faster get nothing.
async fn order(market: &Market, buyers: &[String], wants: Vec<(usize, String)>) -> Run<Option<Order>> {
    let address = market.address(Orders);
    let caller = async || Caller::connect(&address).await;
    let sessions = buyers.to_vec();
    let wants = wants.into_iter().map(|(buyer, ticket)| {
        let buyer = buyer % sessions.len();
        (buyer, sessions[buyer].clone(), ticket)
    });
    let run =
        crowd(buyers.len(), wants.collect(), caller, |mut caller, (buyer, session, ticket)| async move {
            let body = json!({ "ticketId": ticket }).to_string();
            let (status, answer) = caller.ask(Method::POST, "/api/orders", Some(&session), Some(body)).await;
            let order = match status {
                StatusCode::CREATED => Some(Order { id: text(&parsed(&answer)["id"]), buyer }),
                StatusCode::BAD_REQUEST => {
                    assert_eq!(parsed(&answer)["errors"][0]["message"], "Ticket is already reserved");
                    None
                }
                _ => panic!("{status} {answer:?}"),
            };
            (caller, order)
        });
    run.await
}

/// Buyers pay, and look until their orders are complete.
async fn pay(market: &Market, buyers: &[String], won: Vec<Order>) -> Run<()> {
    let (orders, payments) = (market.address(Orders), market.address(Payments));
    let callers = async || (Caller::connect(&orders).await, Caller::connect(&payments).await);
    let won = won.into_iter().map(|order| (buyers[order.buyer].clone(), order.id)).collect();
    let run = crowd(buyers.len(), won, callers, |(mut orders, mut payments), (session, id)| async move {
        let body = json!({ "orderId": id, "token": "pm_card_visa" }).to_string();
        let (status, answer) = payments.ask(Method::POST, "/api/payments", Some(&session), Some(body)).await;
        assert!(status == StatusCode::CREATED || status == StatusCode::ACCEPTED, "{status} {answer:?}");
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/api/orders/{id}");
        while parsed(&orders.ask(Method::GET, &path, Some(&session), None).await.1)["status"] != "complete" {
            assert!(Instant::now() < deadline, "{id} is not complete");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ((orders, payments), ())
    });
    run.await
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(body)))
}

fn picture(layout: &str, what: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target");
    target.join(format!("onsale-{}-{what}.svg", layout.replace(' ', "-")))
}

/// Figures, told as they come.
#[derive(Default)]
struct Figures(Map<String, Value>);

impl Figures {
    fn add(&mut self, name: &str, value: f64) {
        println!("  {name:<28}{value:>12.2}");
        self.0.insert(name.into(), ((value * 100.0).round() / 100.0).into());
    }
}
