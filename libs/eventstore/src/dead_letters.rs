//! Dead letters: what a reactor or a projection could not read, kept with the reason.

use std::sync::Arc;

use async_nats::{HeaderMap, jetstream};
use uuid::Uuid;

use crate::{
    event::Encoded,
    log::{AppendError, Log},
    nats::Connection,
};

/// Where dead letters go: `<prefix>.<reader>.<stream>.<sequence>` on a stream that all services share, where the reader is
/// a durable, or a projection together with the service it is in. Clones share it.
#[derive(Clone, Debug)]
pub struct DeadLetters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Log,
    prefix: String,
}

impl DeadLetters {
    /// Buries in `stream`, whose subjects are `<prefix>.>`.
    pub fn new(connection: &Connection, stream: &str, prefix: &str, source: &str) -> Self {
        Self(Arc::new(Inner { log: Log::reader(connection, stream, source), prefix: prefix.into() }))
    }

    /// Copies a message as it is, with headers that say where it was and what was wrong with it. Buried twice, it
    /// lies there once.
    pub(crate) async fn bury(
        &self,
        stream: &str,
        reader: &str,
        sequence: u64,
        message: &jetstream::Message,
        reason: &str,
    ) -> Result<(), AppendError> {
        let subject = format!("{}.{reader}.{stream}.{sequence}", self.0.prefix);
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            // The server's own instructions were meant for the stream it came from.
            if !name.to_string().to_ascii_lowercase().starts_with("nats-") {
                for value in values {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, subject.as_bytes());
        headers.insert("ce-id", id.to_string());
        headers.insert("dead-letter-stream", stream);
        headers.insert("dead-letter-sequence", sequence.to_string());
        headers.insert("dead-letter-subject", message.subject.as_str());
        headers.insert("dead-letter-reader", reader);
        headers.insert("dead-letter-reason", reason.replace(['\r', '\n'], " "));
        let encoded =
            Encoded { id, event_type: "dead-letter".into(), headers, payload: message.payload.clone() };
        let encoded = Arc::new(encoded);
        match self.0.log.append_in_turn(&subject, &encoded, 0).await {
            Ok(_) => {
                tracing::error!(stream, reader, sequence, reason, "a message is no event and was buried");
                metrics::counter!("eventstore_dead_letters_total", "stream" => stream.to_owned(), "reader" => reader.to_owned())
                    .increment(1);
                Ok(())
            }
            // It lies there already.
            Err(AppendError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
