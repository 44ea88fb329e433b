//! Listens to NATS_TEST with other listeners, each message going to one of them; or watches any stream.

use std::{
    io::{Write, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
};
use clap::Parser;
use futures::{Stream, StreamExt};
use nats_test::{DURABLE, STREAM, VARIABLES, connect, exit, own_stream, stream};
use serde_json::{Map, Value};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// How long a message rests with a listener that does not answer, until another one gets it.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long the end waits for a server that may be gone.
const FLUSH: Duration = Duration::from_secs(2);

/// Prints the messages of stream NATS_TEST, sharing them with other listeners. Ctrl-C ends it.
#[derive(Parser)]
#[command(after_help = VARIABLES)]
struct Arguments {
    /// Watch this stream from its beginning instead, sharing and acknowledging nothing
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("listener", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = connect("nats-test listener").await?;
    let jetstream = jetstream::new(client.clone());
    let result = match arguments.stream {
        None => share(&jetstream, &mut interrupt).await,
        Some(name) => watch(&jetstream, &name, &mut interrupt).await,
    };
    // The last acknowledgement may still be on its way.
    let _ = timeout(FLUSH, client.flush()).await;
    result
}

/// Takes messages with the other listeners, one at a time, and acknowledges each when it is printed. What is not
/// acknowledged goes to another one.
async fn share(jetstream: &jetstream::Context, interrupt: &mut Signal) -> Result<()> {
    let config = pull::Config {
        // Durable: a restart resumes after the last acknowledgement.
        durable_name: Some(DURABLE.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        ..Default::default()
    };
    let consumer = own_stream(jetstream)
        .await?
        .get_or_create_consumer(DURABLE, config)
        .await
        .map_err(|error| anyhow!("the consumer {DURABLE} of {STREAM} cannot be opened: {error}"))?;
    let mut messages = consumer.stream().max_messages_per_batch(1).messages().await?;
    eprintln!("listening to {STREAM} as {DURABLE}; Ctrl-C ends it");
    while let Some(message) = next(&mut messages, interrupt).await? {
        print(&message)?;
        if let Err(error) = message.double_ack().await {
            eprintln!("listener: not acknowledged, it will come again: {error}");
        }
    }
    Ok(())
}

/// Prints a stream from its beginning on. The consumer is this listener's alone and acknowledges nothing, so nobody
/// gets less because of it.
async fn watch(jetstream: &jetstream::Context, name: &str, interrupt: &mut Signal) -> Result<()> {
    let consumer = stream(jetstream, name)
        .await?
        .create_consumer(pull::OrderedConfig::default())
        .await
        .map_err(|error| anyhow!("stream {name} cannot be watched: {error}"))?;
    let mut messages = consumer.messages().await?;
    eprintln!("watching {name}; Ctrl-C ends it");
    while let Some(message) = next(&mut messages, interrupt).await? {
        print(&message)?;
    }
    Ok(())
}

/// The next message; `None` after Ctrl-C.
async fn next<E: std::error::Error + Send + Sync + 'static>(
    messages: &mut (impl Stream<Item = Result<jetstream::Message, E>> + Unpin),
    interrupt: &mut Signal,
) -> Result<Option<jetstream::Message>> {
    let message = tokio::select! {
        _ = interrupt.recv() => return Ok(None),
        message = messages.next() => message,
    };
    match message {
        Some(message) => Ok(Some(message?)),
        None => bail!("the consumer is gone"),
    }
}

fn print(message: &jetstream::Message) -> Result<()> {
    let sequence = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
    let (version, data) = read(&message.payload);
    Ok(writeln!(stdout(), "subject={} sequence={sequence} version={version} data={data}", message.subject)?)
}

/// An event's version, and its data without what is kept beside it. What is no event is shown as it is.
fn read(payload: &[u8]) -> (Value, Value) {
    let Ok(mut data) = serde_json::from_slice::<Map<String, Value>>(payload) else {
        return (Value::Null, String::from_utf8_lossy(payload).into());
    };
    data.remove("_trace");
    (data.remove("version").unwrap_or_default(), data.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_shown_without_its_trace() {
        let payload = br#"{"id":7,"version":3,"_trace":{"uber-trace-id":"1:2:0:1"}}"#;
        assert_eq!(read(payload), (json!(3), json!({ "id": 7 })));
    }

    #[test]
    fn what_is_no_event_is_shown_in_one_line() {
        let (version, data) = read(b"what\nis this");
        assert_eq!((version.to_string(), data.to_string()), ("null".into(), r#""what\nis this""#.into()));
        assert_eq!(read(b"[1]"), (Value::Null, json!("[1]")));
    }
}
