//! How fast the front page comes: 64 visitors at once, each on a connection that stays open, with 1,000 tickets listed.
//! First byte and whole page, in milliseconds, and what has to be loaded, in bytes.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/whole/mod.rs"]
mod whole;

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all, stream};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use whole::Whole;

const TICKETS: usize = 1_000;
const VISITORS: usize = 64;
const LASTS: Duration = Duration::from_secs(10);
/// What is not measured before it: connections are made, caches are filled.
const WARM_UP: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let directory = TempDir::new().unwrap();
    // One seller lists what many would.
    let variables = [("RUST_LOG", "warn"), ("TRACE_SAMPLE_RATIO", "0"), ("USER_REQUESTS_PER_MINUTE", "0")];
    let whole = Whole::start(directory.path(), &variables).await;
    list_tickets(&whole.url).await;
    let page = load(&Client::new(), &whole.url).await.text;
    let css = size_of(&whole.url, &page, "/assets/style.css").await;
    let js = size_of(&whole.url, &page, "/assets/app.js").await;

    visit(&whole.url, WARM_UP).await;
    let started = Instant::now();
    let loads = visit(&whole.url, LASTS).await;
    let per_second = tenths(loads.len() as f64 / started.elapsed().as_secs_f64());
    let (first, all): (Vec<_>, Vec<_>) = loads.into_iter().unzip();
    let (first, all) = (Percentiles::of(first), Percentiles::of(all));

    println!("{TICKETS} tickets, {VISITORS} visitors at once, {} s", LASTS.as_secs());
    println!("                p50 ms   p99 ms");
    println!("first byte    {:8.1} {:8.1}", first.p50, first.p99);
    println!("whole page    {:8.1} {:8.1}", all.p50, all.p99);
    println!("pages a second  {per_second:7.0}");
    println!("bytes: html {}, css {css}, js {js}, together {}", page.len(), page.len() + css + js);
    let line = json!({
        "bench": "pages",
        "tickets": TICKETS,
        "visitors": VISITORS,
        "firstByteP50Ms": first.p50,
        "firstByteP99Ms": first.p99,
        "wholePageP50Ms": all.p50,
        "wholePageP99Ms": all.p99,
        "pagesPerSecond": per_second,
        "htmlBytes": page.len(),
        "cssBytes": css,
        "jsBytes": js,
    });
    println!("{line}");
}

/// All of them go on loading the front page until time is up; returns each one's time to the first byte and to the last.
async fn visit(url: &str, lasts: Duration) -> Vec<(f64, f64)> {
    let until = Instant::now() + lasts;
    let visitors = (0..VISITORS).map(|_| {
        let url = url.to_owned();
        tokio::spawn(async move {
            // A connection of its own.
            let client = Client::builder().pool_max_idle_per_host(1).build().unwrap();
            let mut loads = Vec::new();
            while Instant::now() < until {
                let loaded = load(&client, &url).await;
                loads.push((loaded.first_byte, loaded.all));
            }
            loads
        })
    });
    join_all(visitors).await.into_iter().flat_map(Result::unwrap).collect()
}

/// One page, and how long it took in milliseconds.
struct Loaded {
    first_byte: f64,
    all: f64,
    text: String,
}

async fn load(client: &Client, url: &str) -> Loaded {
    let asked = Instant::now();
    let milliseconds = || asked.elapsed().as_secs_f64() * 1000.0;
    let answer = client.get(url).send().await.unwrap();
    let first_byte = milliseconds();
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.unwrap();
    Loaded { first_byte, all: milliseconds(), text }
}

/// How large what the page refers to is.
async fn size_of(url: &str, page: &str, asset: &str) -> usize {
    let (_, rest) = page.split_once(asset).expect("it is referred to");
    let address = format!("{url}{asset}{}", rest.split('"').next().unwrap());
    reqwest::get(address).await.unwrap().bytes().await.unwrap().len()
}

async fn list_tickets(url: &str) {
    let seller = Client::builder().cookie_store(true).build().unwrap();
    let account = json!({ "email": "seller@example.com", "password": "correct horse" });
    seller.post(format!("{url}/api/users/signup")).json(&account).send().await.unwrap();
    let listing = (0..TICKETS).map(|number| {
        let ticket = json!({ "title": format!("Concert, seat {number}"), "price": 19.99 });
        let request = seller.post(format!("{url}/api/tickets")).json(&ticket);
        async move { assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED) }
    });
    stream::iter(listing).buffer_unordered(VISITORS).collect::<Vec<_>>().await;
}

struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| tenths(values[((values.len() - 1) as f64 * part).round() as usize]);
        Self { p50: at(0.5), p99: at(0.99) }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
