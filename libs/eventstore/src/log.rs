//! A stream as an append-only log: created once, appended to with an expected sequence, never without one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self, ErrorCode,
    context::CreateStreamErrorKind,
    stream::{self, LastRawMessageErrorKind, RawMessageErrorKind},
};
use serde::Serialize;
use time::OffsetDateTime;
use tracing::{Instrument, field};
use uuid::Uuid;

use crate::{
    event::{self, Cause, EncodeError, Encoded, Tagged},
    nats::Connection,
    publisher::{Published, Publisher},
    turns::Turns,
};

/// How long an append goes on trying before it is given up as unavailable.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait before an event is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// What a stream is to be.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Its name in JetStream.
    pub name: String,
    /// The wildcard that all its subjects match.
    pub subjects: String,
    /// How many servers keep a copy: 1, or 3 on a cluster.
    pub replicas: usize,
    /// The `ce-source` of what we append.
    pub source: String,
}

/// One stream. Clones share it.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    publisher: Publisher,
    turns: Turns,
    name: String,
    source: String,
}

/// Where an append landed.
pub(crate) struct Landed {
    pub(crate) sequence: u64,
    /// Whether its answer was lost, and it was found in the log.
    pub(crate) recovered: bool,
}

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It exists and is not what it should be. It is left as it is: an operator decides.
    #[error(
        "stream {stream} exists, but its {setting} is {found} where {wanted} is wanted; change it, or the configuration, by hand"
    )]
    Different {
        /// The stream.
        stream: String,
        /// Which of its settings.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The server cannot keep it as it should be: it is asked for copies on several servers and is alone.
    #[error("stream {stream} cannot be kept on {replicas} servers: this NATS is a single one")]
    Alone {
        /// The stream.
        stream: String,
        /// How many copies were asked for.
        replicas: usize,
    },
    /// The server did not answer, or refused for a reason that may pass.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The server did not answer in time, or refused for a reason of its own.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} {stream}: {reason}")]
pub struct Unavailable {
    /// What was tried.
    pub what: &'static str,
    /// The stream it was tried on.
    pub stream: String,
    /// What came of it.
    pub reason: String,
}

/// Why an event was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The subject has moved on since the state was read: read it again, decide again.
    #[error("the subject has moved on")]
    Conflict {
        /// A sequence that it is known to have reached; `None` when the server did not say.
        reached: Option<u64>,
    },
    /// Nobody can say whether it was appended, or it was refused for a reason that may pass. The caller may try
    /// again: the same event is never appended twice.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It can never be appended.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A stream's identity and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When the stream was created, in nanoseconds since 1970: another stream of the same name has another.
    pub created: i128,
    /// The last sequence, 0 when it is empty.
    pub last_sequence: u64,
}

/// Where an event was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its id.
    pub id: Uuid,
    /// Its type.
    pub event_type: String,
}

impl Log {
    /// The log that we own: creates the stream if it is missing.
    ///
    /// # Errors
    /// When the stream exists with other settings, or the server does not answer.
    pub async fn create(connection: &Connection, config: &StreamConfig) -> Result<Self, OpenError> {
        let log = Self::reader(connection, &config.name, &config.source);
        let wanted = stream::Config {
            name: config.name.clone(),
            subjects: vec![config.subjects.clone()],
            retention: stream::RetentionPolicy::Limits,
            storage: stream::StorageType::File,
            num_replicas: config.replicas,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_bytes: -1,
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            // Servers before 2.12 know nothing of it, and leave it out.
            allow_atomic_publish: true,
            ..Default::default()
        };
        let unavailable = |error: &dyn std::fmt::Display| log.unavailable("creating stream", error);
        let stream = match connection.jetstream().get_stream(&config.name).await {
            Ok(stream) => {
                log.compare(&wanted, &stream.cached_info().config)?;
                stream
            }
            Err(error) if is_stream_missing(&error) => {
                connection.jetstream().create_stream(wanted).await.map_err(|error| match error.kind() {
                    CreateStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED =>
                    {
                        OpenError::Alone { stream: config.name.clone(), replicas: config.replicas }
                    }
                    _ => unavailable(&error).into(),
                })?
            }
            Err(error) => return Err(unavailable(&error).into()),
        };
        let takes_batches = stream.cached_info().config.allow_atomic_publish;
        log.0.publisher.takes_batches(takes_batches);
        if !takes_batches {
            let stream = &config.name;
            tracing::info!(stream, "without allow_atomic each event is written by itself, however many wait");
        }
        Ok(log)
    }

    /// A log that somebody else owns, and that may not be there yet. `source` names us on what we append.
    pub fn reader(connection: &Connection, stream: &str, source: &str) -> Self {
        Self(Arc::new(Inner {
            connection: connection.clone(),
            publisher: Publisher::new(connection, stream),
            turns: Turns::default(),
            name: stream.into(),
            source: source.into(),
        }))
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Who we are on what we append.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The connection it is reached by.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Appends `event` as `version` of `subject`, whose last message must be at `expected`, 0 for none.
    ///
    /// When this returns `Ok` the event is on disk. A try whose outcome is unknown is settled by reading the log back,
    /// so an event is appended once however often it had to be sent.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append<E: Serialize>(
        &self,
        subject: &str,
        event: &E,
        version: u64,
        expected: u64,
        cause: Cause,
    ) -> Result<Appended, AppendError> {
        let event = Tagged::of(event)?;
        // By OpenTelemetry's conventions (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>).
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {}", event.event_type()),
            otel.kind = "producer",
            otel.status_code = field::Empty,
            messaging.system = "nats",
            messaging.operation.name = "publish",
            messaging.operation.type = "send",
            messaging.destination.name = self.0.name,
            messaging.nats.subject = subject,
            messaging.nats.sequence = field::Empty,
            messaging.message.id = field::Empty,
            outcome = field::Empty,
            service = self.0.source,
        );
        // What reacts to the event continues from this very span.
        let encoded = span.in_scope(|| event::encode(&self.0.source, subject, event, version, cause))?;
        let encoded = Arc::new(encoded);
        let started = Instant::now();
        let result = self.append_in_turn(subject, &encoded, expected).instrument(span.clone()).await;
        let outcome = match &result {
            Ok(Landed { recovered: false, .. }) => "ok",
            Ok(Landed { recovered: true, .. }) => "recovered",
            Err(AppendError::Conflict { .. }) => "conflict",
            Err(_) => "failed",
        };
        span.record("outcome", outcome);
        match &result {
            Ok(Landed { sequence, .. }) => {
                span.record("messaging.nats.sequence", sequence);
                span.record("messaging.message.id", field::display(encoded.id));
            }
            // To lose against another is no failure.
            Err(AppendError::Conflict { .. }) => {}
            Err(_) => {
                span.record("otel.status_code", "ERROR");
            }
        }
        let stream = self.0.name.clone();
        metrics::counter!("eventstore_appends_total", "stream" => stream.clone(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("eventstore_append_seconds", "stream" => stream).record(started.elapsed());
        let Landed { sequence, .. } = result?;
        Ok(Appended { sequence, id: encoded.id, event_type: encoded.event_type.clone() })
    }

    /// Returns once no append of ours to `subject` is on its way, with where the one that was landed: a decision that
    /// is taken then has a chance.
    ///
    /// # Errors
    /// When that takes longer than an append may.
    pub(crate) async fn settled(&self, subject: &str) -> Result<Option<u64>, Unavailable> {
        self.over(subject, Instant::now() + APPEND_DEADLINE).await
    }

    async fn over(&self, subject: &str, deadline: Instant) -> Result<Option<u64>, Unavailable> {
        let over = tokio::time::timeout_at(deadline.into(), self.0.turns.over(subject)).await;
        over.map_err(|_| self.unavailable("appending to", &"the append before it has no answer"))
    }

    /// After those of ours that are on their way to the same subject: whoever expects what was there before them has
    /// lost, and the server need not be asked.
    pub(crate) async fn append_in_turn(
        &self,
        subject: &str,
        encoded: &Arc<Encoded>,
        expected: u64,
    ) -> Result<Landed, AppendError> {
        let deadline = Instant::now() + APPEND_DEADLINE;
        let turn = loop {
            // Nothing was sent yet, so nothing is unknown: better to say so at once than to queue behind an outage.
            if !self.0.connection.is_up() {
                return Err(self.unavailable("appending to", &"not connected").into());
            }
            match self.0.turns.take(subject) {
                Some(turn) => break turn,
                None => match self.over(subject, deadline).await? {
                    Some(reached) if reached > expected => {
                        return Err(AppendError::Conflict { reached: Some(reached) });
                    }
                    Some(_) | None => {}
                },
            }
        };
        let result = self.append_encoded(subject, encoded, expected, deadline).await;
        if let Ok(Landed { sequence, .. }) = &result {
            turn.landed(*sequence);
        }
        result
    }

    async fn append_encoded(
        &self,
        subject: &str,
        encoded: &Arc<Encoded>,
        expected: u64,
        deadline: Instant,
    ) -> Result<Landed, AppendError> {
        let mut sent_before = false;
        loop {
            let reason = match self.0.publisher.publish(subject, encoded, expected).await {
                Published::At(sequence) => return Ok(Landed { sequence, recovered: false }),
                Published::Conflict if !sent_before => return Err(AppendError::Conflict { reached: None }),
                Published::Refused(reason) if !sent_before => {
                    return Err(self.unavailable("appending to", &reason).into());
                }
                // What is said of a second try says nothing of the first.
                Published::Conflict => "a conflict after a retry".into(),
                Published::Refused(reason) | Published::Unknown(reason) => reason,
            };
            sent_before = true;
            while !self.0.connection.is_up() && Instant::now() < deadline {
                tokio::time::sleep(RETRY).await;
            }
            // The next message after the expected one is ours, or it is what we lost against.
            match self.first_after(subject, expected).await {
                Ok(Some((sequence, id))) if id == Some(encoded.id) => {
                    return Ok(Landed { sequence, recovered: true });
                }
                Ok(Some((sequence, _))) => {
                    return Err(AppendError::Conflict { reached: Some(sequence) });
                }
                Ok(None) | Err(_) if Instant::now() < deadline => {
                    tracing::debug!(stream = self.0.name, subject, %reason, "sending an event again");
                    tokio::time::sleep(RETRY).await;
                }
                Ok(None) | Err(_) => return Err(self.unavailable("appending to", &reason).into()),
            }
        }
    }

    /// The stream's identity and end, from its leader; `None` when there is no such stream.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn state(&self) -> Result<Option<StreamState>, Unavailable> {
        if !self.0.connection.is_up() {
            return Err(self.unavailable("asking the end of", &"not connected"));
        }
        match self.0.connection.jetstream().get_stream(&self.0.name).await {
            Ok(stream) => {
                let info = stream.cached_info();
                self.0.publisher.takes_batches(info.config.allow_atomic_publish);
                Ok(Some(StreamState {
                    created: info.created.unix_timestamp_nanos(),
                    last_sequence: info.state.last_sequence,
                }))
            }
            Err(error) if is_stream_missing(&error) => Ok(None),
            Err(error) => Err(self.unavailable("asking the end of", &error)),
        }
    }

    /// The sequence of the subject's last message, from the leader; 0 when there is none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn last_on(&self, subject: &str) -> Result<u64, Unavailable> {
        match self.stream_handle().await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(self.unavailable("reading the last message of a subject in", &error)),
        }
    }

    /// The first message on `subject` after `sequence`, from the leader: direct get may be served by a replica
    /// that has not heard of it yet.
    async fn first_after(
        &self,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<(u64, Option<Uuid>)>, Unavailable> {
        match self.stream_handle().await?.get_first_raw_message_by_subject(subject, sequence + 1).await {
            Ok(message) => Ok(Some((message.sequence, event::stored_id(&message)))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.unavailable("reading back from", &error)),
        }
    }

    /// Whether the message at `sequence` has the id `event`, as far as anybody can tell: not when it had none, nor when
    /// a person has deleted it.
    pub(crate) async fn holds(&self, sequence: u64, event: Option<Uuid>) -> Result<bool, Unavailable> {
        let Some(event) = event else { return Ok(true) };
        match self.stream_handle().await?.get_raw_message(sequence).await {
            Ok(message) => Ok(event::stored_id(&message) == Some(event)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(true),
            Err(error) => Err(self.unavailable("reading back from", &error)),
        }
    }

    pub(crate) async fn stream_handle(&self) -> Result<stream::Stream<()>, Unavailable> {
        if !self.0.connection.is_up() {
            return Err(self.unavailable("opening stream", &"not connected"));
        }
        let jetstream = self.0.connection.jetstream();
        jetstream
            .get_stream_no_info(&self.0.name)
            .await
            .map_err(|error| self.unavailable("opening stream", &error))
    }

    pub(crate) fn unavailable(&self, what: &'static str, reason: &dyn std::fmt::Display) -> Unavailable {
        Unavailable { what, stream: self.0.name.clone(), reason: reason.to_string() }
    }

    fn compare(&self, wanted: &stream::Config, found: &stream::Config) -> Result<(), OpenError> {
        let settings = [
            ("list of subjects", format!("{:?}", found.subjects), format!("{:?}", wanted.subjects)),
            ("number of replicas", found.num_replicas.to_string(), wanted.num_replicas.to_string()),
            ("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage)),
            ("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention)),
            ("max_age", format!("{:?}", found.max_age), format!("{:?}", wanted.max_age)),
            ("max_bytes", found.max_bytes.to_string(), wanted.max_bytes.to_string()),
            ("max_msgs", found.max_messages.to_string(), wanted.max_messages.to_string()),
            (
                "max_msgs_per_subject",
                found.max_messages_per_subject.to_string(),
                wanted.max_messages_per_subject.to_string(),
            ),
            ("deny_delete", found.deny_delete.to_string(), wanted.deny_delete.to_string()),
            ("deny_purge", found.deny_purge.to_string(), wanted.deny_purge.to_string()),
            ("allow_direct", found.allow_direct.to_string(), wanted.allow_direct.to_string()),
        ];
        match settings.into_iter().find(|(_, found, wanted)| found != wanted) {
            None => Ok(()),
            Some((setting, found, wanted)) => {
                Err(OpenError::Different { stream: self.0.name.clone(), setting, found, wanted })
            }
        }
    }
}

fn is_stream_missing(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::context::GetStreamErrorKind::JetStream;
    matches!(error.kind(), JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Nanoseconds since 1970 as a time, for showing a stream's identity.
pub(crate) fn shown(created: i128) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(created)
        .map_or_else(|_| created.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::{Auth, Settings};

    #[tokio::test]
    async fn nobody_waits_for_ever_for_the_append_before() {
        let nowhere =
            Settings { url: "nats://127.0.0.1:1".into(), auth: Auth::None, ca: None, name: "bank".into() };
        let log = Log::reader(&Connection::open(nowhere).await.unwrap(), "ACCOUNTS", "bank");
        let _turn = log.0.turns.take("bank.accounts.1").unwrap();
        let settled = tokio::time::timeout(2 * APPEND_DEADLINE, log.settled("bank.accounts.1")).await;
        let refused = settled.expect("an answer in time").unwrap_err().to_string();
        assert!(refused.contains("has no answer"), "{refused}");
        assert_eq!(log.settled("bank.accounts.2").await.unwrap(), None, "nobody is on the way there");
    }
}
