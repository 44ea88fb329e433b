//! How events get to the server: each by itself, or, when many wait, together as one atomic batch.
//!
//! A server that syncs every write spends most of an append's time on the disk. A batch is one write however many events
//! are in it, yet it costs as much as some fifty events by themselves: so it pays only under load, and nobody waits to
//! make one larger. While batches are on their way the next gathers.
//!
//! A batch does not weaken an append: each event keeps its own expected sequence, and the server takes all or none. Which
//! one it refused it does not say; so what is refused together is sent again one by one, and each has its own answer.
//! Subjects in a batch are distinct: only one append to a subject is on its way at a time, and whoever gave up while it
//! waited is not sent.
//!
//! The protocol is that of <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Request,
    jetstream::{self, ErrorCode, context::PublishErrorKind, message::PublishMessage, response::Response},
};
use futures::{StreamExt, stream::FuturesUnordered};
use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{event::Encoded, nats::Connection};

/// How many go by themselves, at once, before others wait for a batch. As many keep the server busy.
const SINGLES: usize = 32;
/// From how many on a batch is faster than each by itself.
const WORTH_A_BATCH: usize = 48;
/// How many groups are on their way at once: what one waits for, the disk, does not keep the server from the other.
const LANES: usize = 2;
/// How many a batch may have at most: the server's own default.
const LARGEST: usize = 1_000;
/// How long a batch may take before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(4);

/// What one try to publish came to.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    /// It is on disk, at this sequence.
    At(u64),
    /// The subject's last sequence is another.
    Conflict,
    /// The server says no, for a reason of its own.
    Refused(String),
    /// Nobody can say.
    Unknown(String),
}

/// Sends the events of one stream. Clones share what waits.
#[derive(Clone, Debug)]
pub(crate) struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    stream: String,
    /// Whether the stream takes atomic batches. Servers before 2.12 do not, and would store the parts of one.
    takes_batches: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many are on their way by themselves.
    singles: usize,
    waiting: Vec<Waiting>,
    /// How many take care of those who wait.
    lanes: usize,
}

/// An event that waits for the next batch.
#[derive(Debug)]
struct Waiting {
    message: Message,
    published: oneshot::Sender<Published>,
}

/// How an event is sent.
enum Way<'a> {
    Alone(Single<'a>, Message),
    /// By somebody else, who tells what came of it.
    Together(oneshot::Receiver<Published>),
}

/// An event on its way to its subject.
#[derive(Debug)]
struct Message {
    subject: String,
    event: Arc<Encoded>,
    expected: u64,
}

impl Publisher {
    pub(crate) fn new(connection: &Connection, stream: &str) -> Self {
        Self(Arc::new(Inner {
            connection: connection.clone(),
            stream: stream.to_owned(),
            takes_batches: AtomicBool::new(false),
            queue: Mutex::default(),
        }))
    }

    /// Notes what the stream's configuration says.
    pub(crate) fn takes_batches(&self, takes_batches: bool) {
        self.0.takes_batches.store(takes_batches, Ordering::Relaxed);
    }

    /// Sends an event once. Whoever drops this does not take it back.
    pub(crate) async fn publish(&self, subject: &str, event: &Arc<Encoded>, expected: u64) -> Published {
        let message = Message { subject: subject.to_owned(), event: Arc::clone(event), expected };
        match self.way(message) {
            Way::Alone(_single, message) => self.send(message).await,
            Way::Together(published) => {
                published.await.unwrap_or_else(|_| Published::Unknown("nobody sent it".into()))
            }
        }
    }

    fn way(&self, message: Message) -> Way<'_> {
        let mut queue = self.queue();
        let few = queue.singles < SINGLES && queue.waiting.is_empty();
        if few || !self.0.takes_batches.load(Ordering::Relaxed) {
            queue.singles += 1;
            return Way::Alone(Single(self), message);
        }
        let (published, receiver) = oneshot::channel();
        queue.waiting.push(Waiting { message, published });
        // The second begins when there is enough for it.
        if queue.lanes == 0 || (queue.lanes < LANES && queue.waiting.len() >= WORTH_A_BATCH) {
            queue.lanes += 1;
            let publisher = self.clone();
            tokio::spawn(async move { publisher.serve().await });
        }
        Way::Together(receiver)
    }

    /// Sends those who wait, until none does.
    async fn serve(&self) {
        // However it ends: else those who come after it would wait for nobody.
        let _lane = Lane(self);
        while let Some(group) = self.next_group() {
            let group = match group.len() {
                few if few < WORTH_A_BATCH => group,
                _ => self.send_together(group).await,
            };
            // All at once: the server takes them in this order, and answers each.
            let sending: FuturesUnordered<_> = group.into_iter().map(|one| self.send_one(one)).collect();
            sending.collect::<()>().await;
        }
    }

    /// Those who wait, as many as a batch may have. `None` when nobody does, or too few while another lane is at work; from
    /// there on this one is closed.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        // Whoever gave up has freed its subject, and another may wait for it by now.
        queue.waiting.retain(|waiting| !waiting.published.is_closed());
        let count = queue.waiting.len().min(LARGEST);
        // A few go with those who come while the other lane is at work.
        let is_needed = if queue.lanes > 1 { count >= WORTH_A_BATCH } else { count > 0 };
        if !is_needed {
            queue.lanes -= 1;
        }
        is_needed.then(|| queue.waiting.drain(..count).collect())
    }

    async fn send_one(&self, Waiting { message, published }: Waiting) {
        let _ = published.send(match self.0.connection.is_up() {
            true => self.send(message).await,
            false => Published::Refused("not connected".into()),
        });
    }

    async fn send(&self, message: Message) -> Published {
        let Message { subject, event, expected } = message;
        let message = PublishMessage::build()
            .payload(event.payload.clone())
            .headers(event.headers.clone())
            .expected_last_subject_sequence(expected);
        let error = match self.0.connection.jetstream().send_publish(subject, message).await {
            Ok(acknowledgement) => match acknowledgement.await {
                // A duplicate is ours as well: sent before, and acknowledged with where it landed then.
                Ok(acknowledgement) => return Published::At(acknowledgement.sequence),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error_code(&error) {
            Some(code) => refusal(code, error.to_string()),
            None if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Published::Refused(error.to_string())
            }
            None => Published::Unknown(error.to_string()),
        }
    }

    /// Sends a batch, and returns those who have no answer yet: all of them, when none of them got into the log.
    async fn send_together(&self, group: Vec<Waiting>) -> Vec<Waiting> {
        let batch = tokio::time::timeout(PATIENCE, self.try_batch(&group)).await;
        let outcome = batch.unwrap_or_else(|_| Batch::Unknown("no answer in time".into()));
        let (stream, count) = (self.0.stream.clone(), group.len() as f64);
        let named = match &outcome {
            Batch::Landed { .. } => "ok",
            Batch::Refused(_) => "refused",
            Batch::Unknown(_) => "unknown",
        };
        metrics::histogram!("eventstore_batch_events", "stream" => stream, "outcome" => named).record(count);
        match outcome {
            Batch::Landed { first } => {
                for (sequence, Waiting { published, .. }) in (first..).zip(group) {
                    let _ = published.send(Published::At(sequence));
                }
                Vec::new()
            }
            Batch::Refused(reason) => {
                tracing::debug!(stream = self.0.stream, reason, "a batch is sent one by one");
                group
            }
            Batch::Unknown(reason) => {
                for Waiting { published, .. } in group {
                    let _ = published.send(Published::Unknown(reason.clone()));
                }
                Vec::new()
            }
        }
    }

    async fn try_batch(&self, group: &[Waiting]) -> Batch {
        let client = self.0.connection.client();
        let id = Uuid::now_v7().to_string();
        let part = |place: usize, Message { subject, event, expected }: &Message| {
            let mut headers = event.headers.clone();
            headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (place + 1).to_string());
            (subject.clone(), headers, event.payload.clone())
        };
        let Some((last, before)) = group.split_last() else { return Batch::Refused("it is empty".into()) };
        for (place, one) in before.iter().enumerate() {
            let (subject, headers, payload) = part(place, &one.message);
            // Not answered: all of them are by the answer to the last. Without that one, nothing is stored.
            if let Err(error) = client.publish_with_headers(subject, headers, payload).await {
                return Batch::Refused(error.to_string());
            }
        }
        let (subject, mut headers, payload) = part(before.len(), &last.message);
        headers.insert("Nats-Batch-Commit", "1");
        let last = Request::new().headers(headers).payload(payload).timeout(Some(PATIENCE));
        match client.send_request(subject, last).await {
            Ok(answer) => Batch::told(&answer.payload, &id, group.len() as u64),
            Err(error) => Batch::Unknown(error.to_string()),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a batch.
enum Batch {
    /// All of it is on disk, in a row from here on.
    Landed { first: u64 },
    /// None of it is in the log.
    Refused(String),
    /// Nobody can say.
    Unknown(String),
}

impl Batch {
    /// What the server says of the batch `id` of so many events.
    fn told(answer: &[u8], id: &str, count: u64) -> Self {
        /// The acknowledgement of the last one.
        #[derive(Deserialize)]
        struct Committed {
            seq: u64,
            batch: Option<String>,
            count: Option<u64>,
        }
        match serde_json::from_slice::<Response<Committed>>(answer) {
            Ok(Response::Ok(Committed { seq, batch: Some(batch), count: Some(stored) }))
                if batch == id && stored == count && seq >= count =>
            {
                Self::Landed { first: seq - count + 1 }
            }
            Ok(Response::Ok(_)) => Self::Unknown("it was not taken as a batch".into()),
            Ok(Response::Err { error }) if BEFORE_ANYTHING.contains(&error.error_code()) => {
                Self::Refused(error.to_string())
            }
            Ok(Response::Err { error }) => Self::Unknown(error.to_string()),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}

/// What the server finds before it stores anything of a batch.
const BEFORE_ANYTHING: [ErrorCode; 9] = [
    ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
    ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
    ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT,
    ErrorCode::ATOMIC_PUBLISH_DISABLED,
    ErrorCode::ATOMIC_PUBLISH_MISSING_SEQ,
    ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_UNSUPPORTED_HEADER,
    ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE,
];

/// One who takes care of those who wait, until it is dropped.
struct Lane<'a>(&'a Publisher);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // At its proper end it has said so before, and another may have begun by now.
        if std::thread::panicking() {
            self.0.queue().lanes -= 1;
        }
    }
}

/// One on its way by itself, until it is dropped.
struct Single<'a>(&'a Publisher);

impl Drop for Single<'_> {
    fn drop(&mut self) {
        self.0.queue().singles -= 1;
    }
}

fn refusal(code: ErrorCode, reason: String) -> Published {
    match code {
        // Three replicas answer nearly every conflict with the second one.
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Published::Conflict
        }
        // The same event is on its way already: sent by us before, or by another replica for the same cause.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Published::Unknown(reason),
        _ => Published::Refused(reason),
    }
}

/// The server's own error code, wherever the client keeps it.
fn error_code(error: &jetstream::context::PublishError) -> Option<ErrorCode> {
    use std::error::Error;
    error.source()?.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::{Auth, Settings};

    /// One that takes batches and reaches nobody.
    async fn publisher() -> Publisher {
        let nowhere =
            Settings { url: "nats://127.0.0.1:1".into(), auth: Auth::None, ca: None, name: "bank".into() };
        let publisher = Publisher::new(&Connection::open(nowhere).await.unwrap(), "ACCOUNTS");
        publisher.takes_batches(true);
        publisher
    }

    fn message(subject: &str) -> Message {
        let event = Encoded {
            id: Uuid::nil(),
            event_type: "deposited".into(),
            headers: async_nats::HeaderMap::new(),
            payload: bytes::Bytes::new(),
        };
        Message { subject: subject.into(), event: Arc::new(event), expected: 0 }
    }

    #[tokio::test]
    async fn who_gave_up_while_it_waited_is_not_sent() {
        let publisher = publisher().await;
        // Nobody takes care of those who wait, so that they can be looked at.
        publisher.queue().lanes = 1;
        let singles: Vec<_> = (0..SINGLES).map(|_| publisher.way(message("single"))).collect();
        assert!(singles.iter().all(|way| matches!(way, Way::Alone(..))));
        let first = publisher.way(message("first"));
        drop(publisher.way(message("second")));
        let second = publisher.way(message("second"));
        assert!([&first, &second].iter().all(|way| matches!(way, Way::Together(_))));
        let group = publisher.next_group().unwrap();
        let subjects: Vec<_> = group.iter().map(|waiting| waiting.message.subject.as_str()).collect();
        assert_eq!(subjects, ["first", "second"], "each once");
        drop((first, second));
        assert!(publisher.next_group().is_none());
    }

    #[tokio::test]
    async fn the_second_lane_is_for_those_who_are_worth_a_batch() {
        let publisher = publisher().await;
        // Tasks of this test's run when it waits, which it does not: what they would do can be looked at.
        let _ways: Vec<_> =
            (0..SINGLES + WORTH_A_BATCH - 1).map(|_| publisher.way(message("another"))).collect();
        assert_eq!(publisher.queue().lanes, 1);
        publisher.queue().lanes = 2;
        assert!(publisher.next_group().is_none(), "a few go with those who come");
        assert_eq!(publisher.queue().lanes, 1);
        let _one_more = publisher.way(message("another"));
        assert_eq!(publisher.queue().lanes, 2);
        assert_eq!(publisher.next_group().unwrap().len(), WORTH_A_BATCH);
        assert_eq!(publisher.queue().lanes, 2);
    }
}
