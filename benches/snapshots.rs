//! How long a new replica takes until it is ready, with a long history behind it: `cargo bench --bench snapshots`, or
//! with `-- --events 100000`.
//!
//! A real svc-orders starts with nothing: once without a snapshot, when it replays every event and then makes one; and
//! then, each time in a directory of its own, from that. `ready_s` is from the start to the first 200 of `/readyz`.
//! Beside it stand what was read in between: how large the object is, and how large the database on disk.
#![allow(clippy::print_stdout, reason = "it is a report")]

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use clap::Parser;
use contract::{
    Cents, OrderEvent, OrderId, PaymentId, TicketId, Timestamp, UserId,
    event::{OrderAwaitingPayment, OrderCompleted, OrderCreated, OrderStatus, OrderedTicket, TicketRef},
    stream::{ORDERS, Stream, TICKETS, USERS, order_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings, StreamConfig};
use futures::{StreamExt, stream};
use sandbox::nats::NatsServer;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use web::{Env, Listener};

/// How many orders are written at once.
const WRITERS: usize = 4_000;
/// What each order's life consists of: created, awaiting payment, complete.
const EVENTS_AN_ORDER: u64 = 3;
/// How often the start from a snapshot is measured.
const STARTS: usize = 3;
/// By when a replica is ready, and a snapshot made.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Parser)]
struct Options {
    /// How many events there are
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Cargo says so to every bench
    #[arg(long, hide = true)]
    bench: bool,
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
    let server = NatsServer::temporary().await?;
    let settings =
        Settings { url: server.url().into(), auth: Auth::None, ca: None, name: ORDERS.source.into() };
    let connection = Connection::open(settings).await?;
    while !connection.is_up() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let events = write(&connection, options.events).await?;
    println!("{events} events of ORDERS written in {:.0} s\n", began.elapsed().as_secs_f64());

    // As often as by default, where there are a million.
    let snapshot_every = (options.events / 10).clamp(1, 100_000);
    let (replica, replayed) = Replica::start(server.url(), snapshot_every).await?;
    println!("{:<44}{:>10.2} s", "ready by replaying everything", seconds(replayed));
    let began = Instant::now();
    let object = made(&connection).await?;
    println!("{:<44}{:>10.2} s", "a snapshot was there after", began.elapsed().as_secs_f64());
    let (object_mb, database_mb) = (megabytes(object), megabytes(size(&replica.database())?));
    println!("{:<44}{object_mb:>10.1} MB", "its size");
    println!("{:<44}{database_mb:>10.1} MB", "the database's, on disk");
    replica.stop().await?;

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (replica, ready) = Replica::start(server.url(), snapshot_every).await?;
        println!("{:<44}{:>10.2} s", "ready from the snapshot", seconds(ready));
        starts.push(ready);
        replica.stop().await?;
    }
    starts.sort();
    let figures = json!({
        "events": events,
        "replay_ready_s": seconds(replayed),
        "snapshot_ready_s": seconds(starts[STARTS / 2]),
        "snapshot_ready_worst_s": seconds(starts[STARTS - 1]),
        "snapshot_mb": object_mb.round(),
        "database_mb": database_mb.round(),
    });
    println!("\n{figures}");
    Ok(())
}

/// Writes the lives of orders, of a ticket each, until there are so many events.
async fn write(connection: &Connection, events: u64) -> anyhow::Result<u64> {
    let create = |stream: Stream| {
        let config = StreamConfig {
            name: stream.name.into(),
            subjects: stream.subjects.into(),
            replicas: 1,
            source: stream.source.into(),
        };
        async move { Log::create(connection, &config).await }
    };
    // What a svc-orders reads beside its own: it is not ready before they are there.
    create(USERS).await?;
    create(TICKETS).await?;
    let orders = create(ORDERS).await?;
    let due = Timestamp::from(SystemTime::now()).plus(Duration::from_secs(900));
    let count = events.div_ceil(EVENTS_AN_ORDER);
    stream::iter(0..count)
        .map(|_| {
            let orders = orders.clone();
            async move {
                let (id, ticket) = (OrderId(Uuid::now_v7()), TicketId(Uuid::now_v7()));
                let payment_id = PaymentId(Uuid::now_v7());
                let subject = order_subject(ticket);
                let life = [
                    OrderEvent::Created(OrderCreated {
                        id,
                        status: OrderStatus::Created,
                        user_id: UserId(Uuid::now_v7()),
                        expires_at: due,
                        ticket: OrderedTicket {
                            id: ticket,
                            title: "Concert".into(),
                            price_cents: Cents(1999),
                        },
                    }),
                    OrderEvent::AwaitingPayment(OrderAwaitingPayment {
                        id,
                        payment_id,
                        ticket: TicketRef { id: ticket },
                    }),
                    OrderEvent::Completed(OrderCompleted {
                        id,
                        payment_id,
                        ticket: TicketRef { id: ticket },
                    }),
                ];
                let mut last = 0;
                for (version, event) in (0..).zip(&life) {
                    last = orders.append(&subject, event, version, last, Cause::Command).await?.sequence;
                }
                anyhow::Ok(())
            }
        })
        .buffer_unordered(WRITERS)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<anyhow::Result<Vec<()>>>()?;
    Ok(count * EVENTS_AN_ORDER)
}

/// Waits for the snapshot, and answers its size in bytes.
async fn made(connection: &Connection) -> anyhow::Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    let bucket = service::snapshot_bucket(ORDERS);
    loop {
        if let Ok(bucket) = connection.jetstream().get_object_store(&bucket).await
            && let Ok(object) = bucket.info("projections").await
        {
            return Ok(object.size as u64);
        }
        anyhow::ensure!(Instant::now() < deadline, "no snapshot was made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A svc-orders with a directory of its own.
struct Replica {
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), eventstore::StartError>>,
}

impl Replica {
    /// Starts one, and answers how long it took until it was ready.
    async fn start(nats_url: &str, snapshot_every: u64) -> anyhow::Result<(Self, Duration)> {
        let directory = tempfile::tempdir()?;
        let (url, data) = (nats_url.to_owned(), directory.path().display().to_string());
        let env = Env::from(move |name| match name {
            "NATS_URL" => Some(url.clone()),
            "DATA_DIR" => Some(data.clone()),
            "SNAPSHOT_EVERY_EVENTS" => Some(snapshot_every.to_string()),
            "JWT_KEY" => Some("a key that signs nothing that anybody believes".into()),
            _ => None,
        });
        let config = svc_orders::Config::from_env(&env)?;
        let listener = Listener::bind(0)?;
        let ready =
            format!("http://127.0.0.1:{}/readyz", listener.local_addr().context("it has a socket")?.port());
        let shutdown = CancellationToken::new();
        let began = Instant::now();
        let running = tokio::spawn(svc_orders::run(config, listener, shutdown.clone()));
        let client = reqwest::Client::new();
        loop {
            let answer = client.get(&ready).send().await.context("it ended")?;
            if answer.status().is_success() {
                break;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "it is not ready: {}", answer.text().await?);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok((Self { directory, shutdown, running }, began.elapsed()))
    }

    fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("orders")
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        Ok(self.running.await??)
    }
}

/// How many bytes the files in a directory have.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
