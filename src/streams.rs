//! The streams as they stand: read from the first message to the last one of a moment, changing nothing.
//!
//! Reading makes a consumer that nobody else knows, which the server forgets by itself, and acknowledges nothing: it is
//! possible for whoever may only look.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context, bail};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
    stream::{LastRawMessageErrorKind, RawMessageErrorKind},
};
use clap::Args;
use eventstore::{Connection, Log, Settings};
use futures::StreamExt;
use time::OffsetDateTime;
use uuid::Uuid;
use web::{Env, env::Invalid};

/// Where the all-in-one has its server.
const USUAL_ADDRESS: &str = "nats://localhost:4222";
/// How long a server may take to let us in.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// How long a stream that is not at its end may be silent. The consumer heals itself in between.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// How long the copy of a stream that is read may be behind the one that told its end.
const BEHIND_FOR: Duration = Duration::from_secs(2);
/// Messages to a batch, at most.
const BATCH: usize = 1024;

/// Which NATS to look at.
#[derive(Args)]
pub(crate) struct At {
    /// Where NATS is, in place of NATS_URL; without either nats://localhost:4222, where the all-in-one has its own
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
}

impl At {
    /// Where that is and who we are there, as `name`.
    ///
    /// # Errors
    /// With the first variable that is wrong.
    pub(crate) fn settings(self, env: &Env, name: &str) -> Result<Settings, Invalid> {
        let url = env.or("NATS_URL", USUAL_ADDRESS.to_owned(), "the address of NATS, nats://host:4222")?;
        service::nats_settings(env, self.nats.unwrap_or(url), name)
    }
}

/// A connection that is up. Whoever only looks does not wait for a server that is away.
///
/// # Errors
/// When nobody lets us in.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<Connection> {
    let connection = Connection::open(settings.clone()).await?;
    let up = async {
        while !connection.is_up() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(CONNECTED_WITHIN, up).await.is_err() {
        // Without a name and a password that the address may hold.
        let url = settings.url.rsplit('@').next().unwrap_or_default();
        bail!("NATS at {url} does not let us in; RUST_LOG=info tells why");
    }
    Ok(connection)
}

/// The last sequence that the stream has given by now, 0 when it is empty; `None` when there is no such stream.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn end(connection: &Connection, stream: &str) -> anyhow::Result<Option<u64>> {
    // Only read: there is nobody to name as the source.
    let state = Log::reader(connection, stream, "").state().await?;
    Ok(state.map(|state| state.last_sequence))
}

/// The sequence of the last message that `subject` has now; `None` when it has none.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn last_of(
    connection: &Connection,
    stream: &str,
    subject: &str,
) -> anyhow::Result<Option<u64>> {
    let handle = connection.jetstream().get_stream_no_info(stream).await?;
    match handle.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message.sequence)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{subject} of {stream} cannot be read")),
    }
}

/// When the message at `sequence` was stored; `None` when there is none.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn stored_at(
    connection: &Connection,
    stream: &str,
    sequence: u64,
) -> anyhow::Result<Option<OffsetDateTime>> {
    let handle = connection.jetstream().get_stream_no_info(stream).await?;
    match handle.get_raw_message(sequence).await {
        Ok(message) => Ok(Some(message.time)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{stream} cannot be read at {sequence}")),
    }
}

/// What to read.
pub(crate) struct Reading<'a> {
    /// The stream.
    pub(crate) stream: &'a str,
    /// One subject of it; `None`: all.
    pub(crate) subject: Option<&'a str>,
    /// Whether headers are enough.
    pub(crate) headers_only: bool,
    /// Messages that were stored before this are left out.
    pub(crate) since: Option<OffsetDateTime>,
    /// The sequence of the last message that is wanted.
    pub(crate) until: u64,
}

impl<'a> Reading<'a> {
    /// All of a stream, up to a sequence.
    pub(crate) fn all(stream: &'a str, until: u64) -> Self {
        Self { stream, subject: None, headers_only: false, since: None, until }
    }
}

/// A message as the stream holds it.
pub(crate) struct Stored {
    /// Its place in the stream.
    pub(crate) sequence: u64,
    /// When the server stored it.
    pub(crate) time: OffsetDateTime,
    /// The message.
    pub(crate) message: async_nats::Message,
}

/// Reads in order and hands `take` one batch after the other, until it breaks off; the next is read when it is done with
/// this one. Ends early when there is nothing more, as the last messages are gone.
///
/// # Errors
/// When the server does not go on, or `take` fails.
pub(crate) async fn read(
    connection: &Connection,
    what: Reading<'_>,
    mut take: impl AsyncFnMut(Vec<Stored>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let Reading { stream, subject, headers_only, since, until } = what;
    if until == 0 {
        return Ok(());
    }
    let handle = connection.jetstream().get_stream_no_info(stream).await?;
    let config = pull::OrderedConfig {
        // By a name: without one it could as well be somebody's durable, which nobody may make who only looks.
        name: Some(format!("look-{}", Uuid::now_v7().simple())),
        filter_subject: subject.unwrap_or_default().to_owned(),
        headers_only,
        deliver_policy: since
            .map_or(DeliverPolicy::All, |start_time| DeliverPolicy::ByStartTime { start_time }),
        ..Default::default()
    };
    let consumer =
        handle.create_consumer(config).await.with_context(|| format!("{stream} cannot be read"))?;
    let mut is_last = consumer.cached_info().num_pending == 0;
    let messages = consumer.messages().await.with_context(|| format!("{stream} cannot be read"))?;
    let mut batches = messages.ready_chunks(BATCH);
    let mut last = 0;
    while last < until {
        let patience = if is_last { BEHIND_FOR } else { SILENT_FOR };
        let batch = match tokio::time::timeout(patience, batches.next()).await {
            Ok(Some(batch)) => batch,
            Err(_) if is_last => break,
            Ok(None) | Err(_) => bail!("{stream} does not go on after {last}"),
        };
        let mut stored = Vec::with_capacity(batch.len());
        for message in batch {
            let message = message.with_context(|| format!("{stream} cannot be read after {last}"))?;
            let (message, to_come) =
                placed(message).with_context(|| format!("{stream} sends what it did not store"))?;
            is_last = to_come == 0;
            // A consumer that heals itself may say something twice.
            if last < message.sequence && message.sequence <= until {
                last = message.sequence;
                stored.push(message);
            }
        }
        if !stored.is_empty() && take(stored).await?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A message in its place, and how many were to come behind it.
fn placed(message: jetstream::Message) -> Option<(Stored, u64)> {
    let info = message.info().ok()?;
    let (sequence, time, to_come) = (info.stream_sequence, info.published, info.pending);
    Some((Stored { sequence, time, message: message.message }, to_come))
}
