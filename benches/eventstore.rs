//! What the event store costs beside what it is made of, measured in the same run on the same server:
//! `cargo bench --bench eventstore`.
//!
//! - appending with an expected sequence beside plain JetStream publishes, new subjects and growing ones;
//! - replaying into a projection beside an ordered consumer that only counts;
//! - from a command to its event being visible in the projection.
//!
//! Two that are compared take turns, and what counts is the median of their ratios, pair by pair: a machine that is
//! slow for a while is so for both. A plain publish has the same payload and no headers, so an append also pays for
//! a dozen CloudEvents headers.
#![allow(clippy::print_stdout, reason = "it is a report")]

use std::{
    convert::Infallible,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context;
use async_nats::jetstream::{self, consumer::pull};
use contract::{
    Cents, OrderEvent, OrderId, TicketId, Timestamp, UserId,
    event::{OrderCreated, OrderStatus, OrderedTicket},
    http::{Order, OrderTicket},
};
use eventstore::{
    Auth, Cause, Connection, Database, DeadLetters, Decider, Log, Projection, Recorded, Rows, Settings,
    StreamConfig, Table, View,
};
use futures::StreamExt;
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// How long one of a pair runs before the other's turn.
const ROUND: Duration = Duration::from_millis(600);
const PAIRS: usize = 5;
const REPLAYS: usize = 3;
/// How many events are replayed.
const EVENTS: u64 = 100_000;
const IN_FLIGHT: [usize; 4] = [1, 64, 256, 2_000];
/// sled's cache, as the services set it.
const CACHE: u64 = 16 << 20;

/// The C library's took a fifth of the time that an order takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs this too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let server = NatsServer::temporary().await?;
    let bench = Bench::on(server.url()).await?;
    println!("one nats-server, sync_interval always; payload {} bytes\n", bench.payload.len());

    let appends = bench.appends().await?;
    bench.fill().await?;
    let replays = bench.replays().await?;
    let latencies = bench.latencies().await?;
    println!("\n{}", json!({ "appends": appends, "replays": replays, "latencies": latencies }));
    Ok(())
}

/// An order's life as the bench needs it: what was ordered last, and one row for each event.
struct Orders;

const ORDERS: Table<Order> = Table::new("orders");

impl Projection for Orders {
    type Event = OrderEvent;
    type State = Option<OrderCreated>;

    const NAME: &'static str = "orders";
    const VERSION: u32 = 1;

    fn evolve(state: Self::State, event: &OrderEvent) -> Self::State {
        match event {
            OrderEvent::Created(created) => Some(created.clone()),
            OrderEvent::AwaitingPayment(_) | OrderEvent::Cancelled(_) | OrderEvent::Completed(_) => state,
        }
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<OrderEvent>, state: &Self::State) {
        let Some(order) = state else { return };
        let row = Order {
            id: order.id,
            user_id: order.user_id,
            status: order.status,
            expires_at: order.expires_at,
            ticket: OrderTicket {
                id: order.ticket.id,
                title: order.ticket.title.clone(),
                price: order.ticket.price_cents,
            },
            version: recorded.version,
        };
        rows.put(&ORDERS, order.id.as_bytes(), &row);
    }
}

/// Whether every event starts a subject of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subjects {
    New,
    Growing,
}

struct Bench {
    /// What is appended to.
    log: Log,
    /// A client as it comes, on a connection of its own.
    plain: jetstream::Context,
    payload: bytes::Bytes,
}

impl Bench {
    async fn on(url: &str) -> anyhow::Result<Self> {
        let settings = Settings { url: url.into(), auth: Auth::None, ca: None, name: "bench".into() };
        let connection = Connection::open(settings).await?;
        let plain = jetstream::new(async_nats::connect(url).await?);
        while !connection.is_up() {
            tokio::task::yield_now().await;
        }
        let stream = |name: &str, subjects: &str| StreamConfig {
            name: name.into(),
            subjects: subjects.into(),
            replicas: 1,
            source: "bench".into(),
        };
        Log::create(&connection, &stream("PLAIN", "plain.*")).await?;
        let log = Log::create(&connection, &stream("CAS", "cas.*")).await?;
        let first = log.append(&subject("cas"), &event(), 0, 0, Cause::Command).await?;
        let payload = plain.get_stream("CAS").await?.get_raw_message(first.sequence).await?.payload;
        Ok(Self { log, plain, payload })
    }

    async fn appends(&self) -> anyhow::Result<Vec<Value>> {
        println!("{:<46}{:>10}{:>10}{:>8}", "per second", "plain", "append", "ratio");
        // A cold start is nobody's measure.
        rate(64, |until| self.publish(Subjects::New, until)).await?;
        rate(64, |until| self.append(Subjects::New, until)).await?;

        let mut figures = Vec::new();
        for (subjects, named) in [(Subjects::New, "new"), (Subjects::Growing, "growing")] {
            for in_flight in IN_FLIGHT {
                let mut pairs = Vec::new();
                for turn in 0..PAIRS {
                    let plain = || rate(in_flight, |until| self.publish(subjects, until));
                    let append = || rate(in_flight, |until| self.append(subjects, until));
                    pairs.push(in_turn(turn, plain, append).await?);
                }
                let figure = Figure::of(pairs);
                figure.print(&format!("appends, {named} subjects, {in_flight} in flight"));
                figures.push(figure.json(json!({ "subjects": named, "inFlight": in_flight })));
            }
        }
        Ok(figures)
    }

    /// Publishes until then, one after the other; how many.
    fn publish(
        &self,
        subjects: Subjects,
        until: Instant,
    ) -> impl Future<Output = anyhow::Result<u64>> + Send + 'static {
        let (plain, payload) = (self.plain.clone(), self.payload.clone());
        async move {
            let (mut subject, mut done) = (self::subject("plain"), 0);
            while Instant::now() < until {
                if subjects == Subjects::New {
                    subject = self::subject("plain");
                }
                plain.publish(subject.clone(), payload.clone()).await?.await?;
                done += 1;
            }
            Ok(done)
        }
    }

    /// Appends until then, one after the other; how many.
    fn append(
        &self,
        subjects: Subjects,
        until: Instant,
    ) -> impl Future<Output = anyhow::Result<u64>> + Send + 'static {
        let log = self.log.clone();
        async move {
            let (mut subject, mut version, mut last, mut done) = (self::subject("cas"), 0, 0, 0);
            while Instant::now() < until {
                if subjects == Subjects::New {
                    (subject, version, last) = (self::subject("cas"), 0, 0);
                }
                last = log.append(&subject, &event(), version, last, Cause::Command).await?.sequence;
                version += 1;
                done += 1;
            }
            Ok(done)
        }
    }

    /// Appends until there are enough events to replay.
    async fn fill(&self) -> anyhow::Result<()> {
        while self.end().await? < EVENTS {
            rate(256, |until| self.append(Subjects::New, until)).await?;
        }
        Ok(())
    }

    async fn end(&self) -> anyhow::Result<u64> {
        Ok(self.log.state().await?.context("the stream is there")?.last_sequence)
    }

    async fn replays(&self) -> anyhow::Result<Vec<Value>> {
        println!("\n{:<46}{:>10}{:>10}{:>8}", "per second", "bare", "replay", "ratio");
        let end = self.end().await?;
        let mut figures = Vec::new();
        let (one_row, all_rows) = (Vec::new(), Vec::new());
        let mut pairs = [one_row, all_rows];
        for turn in 0..REPLAYS {
            pairs[0].push(in_turn(turn, || self.count(end), || self.replay::<Orders>(end)).await?);
            let own = || self.replay::<svc_orders::projections::Orders>(end);
            pairs[1].push(in_turn(turn, || self.count(end), own).await?);
        }
        let named = ["state and a row", "svc-orders' own, four rows"];
        for (pairs, named) in pairs.into_iter().zip(named) {
            let figure = Figure::of(pairs);
            figure.print(&format!("replay of {end}, {named}"));
            figures.push(figure.json(json!({ "events": end, "projection": named })));
        }
        Ok(figures)
    }

    /// Reads up to `end` and keeps nothing; events a second.
    async fn count(&self, end: u64) -> anyhow::Result<f64> {
        let started = Instant::now();
        let stream = self.plain.get_stream("CAS").await?;
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await?;
        let mut messages = consumer.messages().await?;
        let mut read = 0;
        while read < end {
            messages.next().await.context("the consumer ended")??;
            read += 1;
        }
        Ok(read as f64 / started.elapsed().as_secs_f64())
    }

    /// Projects up to `end` from nothing; events a second.
    async fn replay<P: Projection>(&self, end: u64) -> anyhow::Result<f64> {
        let directory = tempfile::tempdir()?;
        let started = Instant::now();
        let projected = Projected::<P>::start(directory.path(), &self.log).await?;
        let taken = started.elapsed();
        projected.close().await;
        Ok(end as f64 / taken.as_secs_f64())
    }

    async fn latencies(&self) -> anyhow::Result<Vec<Value>> {
        println!("\n{:<46}{:>10}{:>10}{:>8}", "milliseconds", "p50", "p99", "n");
        let directory = tempfile::tempdir()?;
        let projected = Projected::<Orders>::start(directory.path(), &self.log).await?;
        let mut figures = Vec::new();
        for in_flight in [1, 64] {
            let until = Instant::now() + 4 * ROUND;
            let workers: Vec<_> =
                (0..in_flight).map(|_| tokio::spawn(transact(projected.decider.clone(), until))).collect();
            let mut all = Vec::new();
            for worker in workers {
                all.extend(worker.await??);
            }
            all.sort();
            let milliseconds = |share: f64| all[(all.len() as f64 * share) as usize].as_secs_f64() * 1_000.0;
            let (p50, p99) = (milliseconds(0.5), milliseconds(0.99));
            let named = format!("command to visible, {in_flight} in flight");
            println!("{named:<46}{p50:>10.2}{p99:>10.2}{:>8}", all.len());
            figures.push(json!({ "inFlight": in_flight, "p50": p50, "p99": p99, "n": all.len() }));
        }
        projected.close().await;
        Ok(figures)
    }
}

/// Commands until then, one after the other; how long each took until its event was visible.
async fn transact(decider: Decider<Orders>, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut taken = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        let decide = |_: &Option<OrderCreated>| Ok::<_, Infallible>(Some(event()));
        decider.transact(&subject("cas"), Cause::Command, decide).await?;
        taken.push(started.elapsed());
    }
    Ok(taken)
}

/// A projection that has caught up.
struct Projected<P: Projection> {
    decider: Decider<P>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl<P: Projection> Projected<P> {
    async fn start(directory: &std::path::Path, log: &Log) -> anyhow::Result<Self> {
        let database = Database::open(&directory.join("bench"), CACHE)?;
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let dead_letters = DeadLetters::new(log.connection(), "DEADLETTERS", "deadletters", "bench");
        let view = View::<P>::start(&database, log.clone(), dead_letters, &tasks, closed.clone())?;
        view.caught_up().await;
        Ok(Self { decider: Decider::new(view), tasks, closed })
    }

    async fn close(self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Lets `in_flight` workers do one thing after the other for a [`ROUND`]; things a second.
async fn rate<F>(in_flight: usize, worker: impl Fn(Instant) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let started = Instant::now();
    let workers: Vec<_> = (0..in_flight).map(|_| tokio::spawn(worker(started + ROUND))).collect();
    let mut done = 0;
    for worker in workers {
        done += worker.await??;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Measures both, each first every other time.
async fn in_turn<A, B>(turn: usize, bare: impl Fn() -> A, ours: impl Fn() -> B) -> anyhow::Result<(f64, f64)>
where
    A: Future<Output = anyhow::Result<f64>>,
    B: Future<Output = anyhow::Result<f64>>,
{
    if turn.is_multiple_of(2) {
        let bare = bare().await?;
        Ok((bare, ours().await?))
    } else {
        let ours = ours().await?;
        Ok((bare().await?, ours))
    }
}

/// Medians of measured pairs.
struct Figure {
    bare: f64,
    ours: f64,
    ratios: Vec<f64>,
}

impl Figure {
    fn of(pairs: Vec<(f64, f64)>) -> Self {
        Self {
            bare: median(pairs.iter().map(|(bare, _)| *bare)),
            ours: median(pairs.iter().map(|(_, ours)| *ours)),
            ratios: pairs.iter().map(|(bare, ours)| ours / bare).collect(),
        }
    }

    fn ratio(&self) -> f64 {
        median(self.ratios.iter().copied())
    }

    fn print(&self, named: &str) {
        let pairs: Vec<_> = self.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!(
            "{named:<46}{:>10.0}{:>10.0}{:>8.2}  ({})",
            self.bare,
            self.ours,
            self.ratio(),
            pairs.join(" ")
        );
    }

    fn json(&self, mut of: Value) -> Value {
        of["bare"] = self.bare.round().into();
        of["ours"] = self.ours.round().into();
        of["ratio"] = ((self.ratio() * 1_000.0).round() / 1_000.0).into();
        of
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn subject(stream: &str) -> String {
    format!("{stream}.{}", Uuid::now_v7())
}

fn event() -> OrderEvent {
    OrderEvent::Created(OrderCreated {
        id: OrderId(Uuid::now_v7()),
        status: OrderStatus::Created,
        user_id: UserId(Uuid::now_v7()),
        expires_at: Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_secs(900)),
        ticket: OrderedTicket {
            id: TicketId(Uuid::now_v7()),
            title: "Dvořák: Rusalka, row 12 seat 7".into(),
            price_cents: Cents(1999),
        },
    })
}
