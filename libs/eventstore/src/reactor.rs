//! Reactors: somebody's events turned into commands of ours, by durable consumers.

use std::{
    fmt::Display,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    dead_letters::DeadLetters,
    event::{self, Event, Recorded},
    log::Log,
};

/// How long the server waits for an acknowledgement before it delivers again.
/// Short, so that what a killed process had in hand comes again soon; [`PROGRESS`] keeps slow work from coming twice.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often the server hears that an event is still being handled.
const PROGRESS: Duration = Duration::from_secs(2);
/// How often the number of pending acknowledgements is looked up.
const LOOK: Duration = Duration::from_secs(5);
/// How many deliveries wait behind the one that a worker has in hand.
const QUEUE: usize = 8;
/// How many deliveries are asked for at a time, for each worker.
const PULL: usize = 4;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It is dealt with, which includes that nothing had to be done: it does not come again.
    Done,
    /// It is to come again after this time. The server forgets the delay when it is killed, so it may come earlier.
    Later(Duration),
}

/// How a reactor listens.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// The durable's name: what replicas share, and what resumes after a restart.
    pub durable: &'static str,
    /// How many events are handled at once. Those of one subject are handled one after the other.
    pub concurrency: usize,
}

/// Lets `handle` see every event of `log`, at least once, until `shutdown`; then lets what runs finish.
///
/// An error of `handle` is taken as passing: the event comes again, after a delay that grows with each delivery up to
/// a minute. What cannot be decoded goes to `dead_letters` and does not come again.
pub async fn react<E, F, Fut, Error>(
    log: Log,
    config: ReactorConfig,
    dead_letters: DeadLetters,
    handle: F,
    shutdown: CancellationToken,
) where
    E: Event,
    F: Fn(Recorded<E>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Reaction, Error>> + Send + 'static,
    Error: Display + Send + 'static,
{
    let workers = TaskTracker::new();
    let queues: Vec<mpsc::Sender<jetstream::Message>> = (0..config.concurrency.max(1))
        .map(|_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let worker = Worker {
                stream: log.name().to_owned(),
                durable: config.durable,
                dead_letters: dead_letters.clone(),
                handle: handle.clone(),
            };
            workers.spawn(worker.run::<E, Fut, Error>(receiver));
            sender
        })
        .collect();
    workers.close();

    while !shutdown.is_cancelled() {
        let reason = tokio::select! {
            () = shutdown.cancelled() => break,
            reason = deliver(&log, &config, &queues) => reason,
        };
        tracing::debug!(stream = log.name(), durable = config.durable, %reason, "a reactor's consumer is opened again");
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
    drop(queues);
    workers.wait().await;
}

/// Hands deliveries to the workers until the consumer fails; returns why.
async fn deliver(log: &Log, config: &ReactorConfig, queues: &[mpsc::Sender<jetstream::Message>]) -> String {
    match try_deliver(log, config, queues).await {
        Ok(()) => "the consumer ended".into(),
        Err(error) => error.to_string(),
    }
}

async fn try_deliver(
    log: &Log,
    config: &ReactorConfig,
    queues: &[mpsc::Sender<jetstream::Message>],
) -> Result<(), async_nats::Error> {
    // Creates it, or brings one with older settings up to date.
    let mut consumer = log
        .stream_handle()
        .await?
        .create_consumer(pull::Config {
            durable_name: Some(config.durable.into()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            // Delayed events count as pending: with a limit, enough of them would stall everything else.
            max_ack_pending: -1,
            ..Default::default()
        })
        .await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(PULL * queues.len())
        .heartbeat(Duration::from_secs(2))
        .messages()
        .await?;
    let pending = metrics::gauge!("eventstore_pending_acks", "stream" => log.name().to_owned(), "durable" => config.durable);
    let mut look = tokio::time::interval(LOOK);
    loop {
        let message = tokio::select! {
            message = messages.next() => match message {
                Some(message) => message?,
                None => return Ok(()),
            },
            _ = look.tick() => {
                pending.set(consumer.info().await?.num_ack_pending as f64);
                continue;
            }
        };
        let mut hasher = DefaultHasher::new();
        message.subject.hash(&mut hasher);
        let queue = &queues[(hasher.finish() % queues.len() as u64) as usize];
        if queue.send(message).await.is_err() {
            return Ok(());
        }
    }
}

struct Worker<F> {
    stream: String,
    durable: &'static str,
    dead_letters: DeadLetters,
    handle: F,
}

impl<F> Worker<F> {
    async fn run<E, Fut, Error>(self, mut deliveries: mpsc::Receiver<jetstream::Message>)
    where
        E: Event,
        F: Fn(Recorded<E>) -> Fut,
        Fut: Future<Output = Result<Reaction, Error>>,
        Error: Display,
    {
        while let Some(message) = deliveries.recv().await {
            if let Err(error) = self.deal_with::<E, Fut, Error>(&message).await {
                // The server will deliver it again, as it has not heard of us.
                tracing::debug!(stream = self.stream, %error, "a delivery was not acknowledged");
            }
        }
    }

    async fn deal_with<E, Fut, Error>(&self, message: &jetstream::Message) -> Result<(), async_nats::Error>
    where
        E: Event,
        F: Fn(Recorded<E>) -> Fut,
        Fut: Future<Output = Result<Reaction, Error>>,
        Error: Display,
    {
        let info = message.info()?;
        let (sequence, delivered) = (info.stream_sequence, info.delivered.unsigned_abs());
        metrics::counter!("eventstore_deliveries_total", "stream" => self.stream.clone(), "durable" => self.durable)
            .increment(1);
        if delivered > 1 {
            metrics::counter!("eventstore_redeliveries_total", "stream" => self.stream.clone(), "durable" => self.durable)
                .increment(1);
        }
        let recorded = match event::decode::<E>(sequence, message) {
            Ok(recorded) => recorded,
            Err(error) => return self.bury(message, sequence, delivered, &error.to_string()).await,
        };
        let span = tracing::info_span!(
            "process",
            otel.name = format!("process {}", recorded.event_type),
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.destination.name = self.stream,
            messaging.nats.subject = recorded.subject,
            messaging.nats.sequence = sequence,
            messaging.nats.delivery = delivered,
        );
        let _ = span.set_parent(recorded.trace_context());
        match self.in_progress(message, (self.handle)(recorded).instrument(span)).await {
            Ok(Reaction::Done) => message.ack().await,
            // Confirmed: an unheard NAK would let the event rest for the whole ack wait.
            Ok(Reaction::Later(delay)) => message.double_ack_with(AckKind::Nak(Some(delay))).await,
            Err(error) => {
                let delay = backoff(delivered);
                tracing::warn!(
                    stream = self.stream, durable = self.durable, sequence, delivered, %error,
                    "an event will be handled again in {delay:?}"
                );
                message.ack_with(AckKind::Nak(Some(delay))).await
            }
        }
    }

    /// Awaits `work` and keeps the server from delivering the event again meanwhile.
    async fn in_progress<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(PROGRESS, &mut work).await {
                Ok(result) => return result,
                Err(_) => {
                    let _ = message.ack_with(AckKind::Progress).await;
                }
            }
        }
    }

    async fn bury(
        &self,
        message: &jetstream::Message,
        sequence: u64,
        delivered: u64,
        reason: &str,
    ) -> Result<(), async_nats::Error> {
        match self.dead_letters.bury(&self.stream, self.durable, sequence, message, reason).await {
            Ok(()) => message.double_ack_with(AckKind::Term).await,
            Err(error) => {
                tracing::warn!(stream = self.stream, sequence, %error, "a dead letter will be tried again");
                message.ack_with(AckKind::Nak(Some(backoff(delivered)))).await
            }
        }
    }
}

/// 100 ms, 200 ms, … up to a minute.
fn backoff(delivered: u64) -> Duration {
    Duration::from_millis(100 << delivered.clamp(1, 10).saturating_sub(1)).min(Duration::from_secs(60))
}
