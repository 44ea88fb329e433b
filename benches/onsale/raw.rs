//! What everything here is made of, by itself: publishing and reading, without us.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::{self, consumer::pull, stream::Config};
use contract::stream::ORDERS;
use eventstore::{Auth, Connection, Database, DeadLetters, Log, Settings, View};
use futures::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::load::{Answered, Run, crowd};

/// As large as an order's event.
const PAYLOAD: &[u8] = &[b'x'; 420];

/// Publishes for a while, one after the other for each in flight, to subjects that are all new.
pub(crate) async fn publish(url: &str, in_flight: usize, lasts: Duration) -> anyhow::Result<Run<()>> {
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    let config = Config { name: "RAW".into(), subjects: vec!["raw.*".into()], ..Config::default() };
    jetstream.get_or_create_stream(config).await?;
    let until = Instant::now() + lasts;
    let publisher = async || jetstream.clone();
    let run = crowd(in_flight, vec![until; in_flight], publisher, |jetstream, until| async move {
        let mut took = Vec::new();
        while Instant::now() < until {
            let asked = Instant::now();
            let sent = jetstream.publish(format!("raw.{}", Uuid::now_v7()), PAYLOAD.into()).await;
            sent.unwrap().await.unwrap();
            took.push(asked.elapsed());
        }
        (jetstream, took)
    });
    let Run { results, lasted, .. } = run.await;
    let answers = results.into_iter().flatten().map(|took| Answered { at: Duration::ZERO, took }).collect();
    Ok(Run { answers, results: Vec::new(), lasted })
}

/// Reads ORDERS from its beginning and keeps nothing; events a second.
pub(crate) async fn read(url: &str) -> anyhow::Result<f64> {
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    let stream = jetstream.get_stream(ORDERS.name).await?;
    let end = stream.cached_info().state.messages;
    let started = Instant::now();
    let consumer = stream.create_consumer(pull::OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    for _ in 0..end {
        messages.next().await.context("the consumer ended")??;
    }
    Ok(end as f64 / started.elapsed().as_secs_f64())
}

/// Projects ORDERS as svc-orders does, from nothing; events a second.
pub(crate) async fn replay(url: &str) -> anyhow::Result<f64> {
    let settings = Settings { url: url.into(), auth: Auth::None, ca: None, name: "bench".into() };
    let connection = Connection::open(settings).await?;
    while !connection.is_up() {
        tokio::task::yield_now().await;
    }
    let log = Log::reader(&connection, ORDERS.name, "bench");
    let end = log.state().await?.context("there are orders")?.last_sequence;
    let directory = tempfile::tempdir()?;
    let database = Database::open(&directory.path().join("bench"), 16 << 20)?;
    let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
    let dead_letters = DeadLetters::new(&connection, "DEADLETTERS", "deadletters", "bench");
    let started = Instant::now();
    let view =
        View::<svc_orders::projections::Orders>::start(&database, log, dead_letters, &tasks, closed.clone())?;
    view.caught_up().await;
    let lasted = started.elapsed();
    closed.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(end as f64 / lasted.as_secs_f64())
}
