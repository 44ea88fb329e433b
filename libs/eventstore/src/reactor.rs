//! Reactors: somebody's events turned into commands of ours, by durable consumers.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    future::Future,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::{FutureExt, StreamExt};
use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span, TraceContextExt, Tracer},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    dead_letters::DeadLetters,
    event::{self, Event, Recorded},
    log::Log,
    nats::Connection,
};

/// How long the server waits for an acknowledgement before it delivers again.
/// Short, so that what a killed process had in hand comes again soon; [`PROGRESS`] keeps slow work from coming twice.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often the server hears that an event is still being handled.
const PROGRESS: Duration = Duration::from_secs(2);
/// How often the number of pending acknowledgements is looked up.
const LOOK: Duration = Duration::from_secs(5);
/// How long what runs at shutdown may take to finish. What is cut off comes again.
const GRACE: Duration = Duration::from_secs(9);
/// How long to wait before a consumer that failed is opened again, and after how many times in a row that is told.
const REOPEN: Duration = Duration::from_millis(250);
const TELL_EVERY: u32 = 20;

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
/// An error of `handle`, or a panic, is taken as passing: the event comes again, after a delay that grows with each
/// delivery up to nearly a minute. What cannot be decoded goes to `dead_letters` and does not come again.
pub async fn react<E, F, Fut, Error>(
    log: Log,
    config: ReactorConfig,
    dead_letters: DeadLetters,
    handle: F,
    shutdown: CancellationToken,
) where
    E: Event,
    F: Fn(Recorded<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reaction, Error>> + Send + 'static,
    Error: Display + Send + 'static,
{
    let reactor = Arc::new(Reactor {
        stream: log.name().to_owned(),
        source: log.source().to_owned(),
        connection: log.connection().clone(),
        durable: config.durable,
        dead_letters,
        handle,
        lanes: Mutex::default(),
        shutdown: shutdown.clone(),
        event: PhantomData,
    });
    let (running, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(config.concurrency.max(1))));
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let delivering = deliver(&log, &config, &reactor, &permits, &running);
        let reason = match shutdown.run_until_cancelled(delivering).await {
            None => break,
            Some(Ok(())) => "the consumer ended".to_owned(),
            Some(Err(error)) => error.to_string(),
        };
        failures += 1;
        if failures % TELL_EVERY == 0 {
            let stream = log.name();
            tracing::warn!(stream, durable = config.durable, %reason, failures, "a reactor hears nothing");
        }
        shutdown.run_until_cancelled(tokio::time::sleep(REOPEN)).await;
    }
    running.close();
    if tokio::time::timeout(GRACE, running.wait()).await.is_err() {
        tracing::warn!(
            stream = log.name(),
            durable = config.durable,
            "events in hand are cut off, and come again"
        );
    }
}

/// Hands deliveries to the reactor until the consumer fails.
async fn deliver<E, F, Fut, Error>(
    log: &Log,
    config: &ReactorConfig,
    reactor: &Arc<Reactor<E, F>>,
    permits: &Arc<Semaphore>,
    running: &TaskTracker,
) -> Result<(), async_nats::Error>
where
    E: Event,
    F: Fn(Recorded<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reaction, Error>> + Send + 'static,
    Error: Display + Send + 'static,
{
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
    // No more at a time than can be worked on: what waits here is not acknowledged meanwhile.
    let batch = config.concurrency.max(1);
    let mut messages =
        consumer.stream().max_messages_per_batch(batch).heartbeat(Duration::from_secs(2)).messages().await?;
    let pending = metrics::gauge!("eventstore_pending_acks", "stream" => log.name().to_owned(), "durable" => config.durable);
    let mut look = tokio::time::interval(LOOK);
    loop {
        let message = tokio::select! {
            message = messages.next() => match message {
                Some(message) => message?,
                None => return Ok(()),
            },
            _ = look.tick() => {
                if let Ok(info) = consumer.info().await {
                    pending.set(info.num_ack_pending as f64);
                }
                continue;
            }
        };
        let permit = permits.clone().acquire_owned().await?;
        reactor.take(message, permit, running);
    }
}

/// A delivery and its right to be worked on.
type Delivery = (jetstream::Message, OwnedSemaphorePermit);

struct Reactor<E, F> {
    stream: String,
    /// The service that listens.
    source: String,
    connection: Connection,
    durable: &'static str,
    dead_letters: DeadLetters,
    handle: F,
    /// What waits behind an event of the same subject that is in hand. A subject without one has no lane.
    lanes: Mutex<HashMap<String, VecDeque<Delivery>>>,
    shutdown: CancellationToken,
    event: PhantomData<fn() -> E>,
}

impl<E, F, Fut, Error> Reactor<E, F>
where
    E: Event,
    F: Fn(Recorded<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reaction, Error>> + Send + 'static,
    Error: Display + Send + 'static,
{
    /// Works on the delivery, after those of the same subject.
    fn take(
        self: &Arc<Self>,
        message: jetstream::Message,
        permit: OwnedSemaphorePermit,
        running: &TaskTracker,
    ) {
        let subject = message.subject.to_string();
        if let Some(lane) = self.lanes().get_mut(&subject) {
            lane.push_back((message, permit));
            return;
        }
        self.lanes().insert(subject.clone(), VecDeque::new());
        let reactor = Arc::clone(self);
        running.spawn(async move {
            let mut next = Some((message, permit));
            while let Some((message, _permit)) = next {
                if let Err(error) = reactor.deal_with(&message).await {
                    // The server will deliver it again, as it has not heard of us.
                    tracing::debug!(stream = reactor.stream, %error, "a delivery was not acknowledged");
                }
                next = reactor.next_of(&subject);
            }
        });
    }

    /// What waits on the lane. At its end, and at shutdown, the lane is closed: what still waits comes again.
    fn next_of(&self, subject: &str) -> Option<Delivery> {
        let mut lanes = self.lanes();
        let next = match self.shutdown.is_cancelled() {
            true => None,
            false => lanes.get_mut(subject).and_then(VecDeque::pop_front),
        };
        if next.is_none() {
            lanes.remove(subject);
        }
        next
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Delivery>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deal_with(&self, message: &jetstream::Message) -> Result<(), async_nats::Error> {
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
        let trace = recorded.trace_context();
        // Once: an event that fails for hours would draw its wait again and again.
        if delivered == 2 {
            show_wait(&recorded, &trace, &self.source);
        }
        let span = tracing::info_span!(
            "process",
            otel.name = format!("process {}", recorded.event_type),
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = self.stream,
            messaging.consumer.group.name = self.durable,
            messaging.message.id = %recorded.id,
            messaging.nats.subject = recorded.subject,
            messaging.nats.sequence = sequence,
            messaging.nats.delivery = delivered,
            messaging.nats.delay_ms = field::Empty,
            service = self.source,
        );
        let _ = span.set_parent(trace);
        let work = AssertUnwindSafe(async { (self.handle)(recorded).await });
        let work = work.catch_unwind().instrument(span.clone());
        let worked = self.in_progress(message, work).await;
        if !self.connection.is_up() {
            // Nobody hears us, and what is sent now would only pile up. It comes again.
            return Ok(());
        }
        let failure = match worked {
            Ok(Ok(Reaction::Done)) => return message.ack().await,
            // Confirmed: an unheard NAK would let the event rest for the whole ack wait.
            Ok(Ok(Reaction::Later(delay))) => {
                span.record("messaging.nats.delay_ms", delay.as_millis() as u64);
                return message.double_ack_with(AckKind::Nak(Some(delay))).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it made its handler panic".to_owned(),
        };
        let delay = backoff(delivered);
        span.record("otel.status_code", "ERROR");
        span.record("messaging.nats.delay_ms", delay.as_millis() as u64);
        span.in_scope(|| {
            tracing::warn!(
                stream = self.stream,
                durable = self.durable,
                sequence,
                delivered,
                error = failure,
                "an event will be handled again in {delay:?}"
            );
        });
        message.ack_with(AckKind::Nak(Some(delay))).await
    }

    /// Awaits `work` and keeps the server from delivering the event again meanwhile.
    async fn in_progress<T>(&self, message: &jetstream::Message, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(PROGRESS, &mut work).await {
                Ok(result) => return result,
                Err(_) if self.connection.is_up() => {
                    let _ = message.ack_with(AckKind::Progress).await;
                }
                Err(_) => {}
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

/// A span from when the event was recorded until now, in its trace: how long it has waited, whyever.
fn show_wait<E>(recorded: &Recorded<E>, trace: &Context, service: &str) {
    if !trace.span().span_context().is_valid() {
        return;
    }
    let tracer = global::tracer("eventstore");
    // Clocks differ: it did not end before it began.
    let began = SystemTime::from(recorded.time).min(SystemTime::now());
    let wait = tracer
        .span_builder(format!("wait {}", recorded.event_type))
        .with_start_time(began)
        .with_attributes([KeyValue::new("service", service.to_owned())]);
    wait.start_with_context(&tracer, trace).end();
}

/// 100 ms, 200 ms, … up to nearly a minute.
fn backoff(delivered: u64) -> Duration {
    Duration::from_millis(100 << delivered.clamp(1, 10).saturating_sub(1))
}
