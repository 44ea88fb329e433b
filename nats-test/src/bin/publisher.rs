//! Publishes sample tickets to NATS_TEST, as svc-tickets publishes real ones to TICKETS.

use std::{
    io::{Write, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, anyhow};
use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{self, message::PublishMessage},
};
use clap::{Parser, value_parser};
use contract::{Cents, TicketEvent, TicketId, UserId, event::TicketCreated};
use nats_test::{VARIABLES, connect, exit, own_stream};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

/// Publishes sample tickets to stream NATS_TEST, which it makes if it is missing. Prints where each one went.
#[derive(Parser)]
#[command(after_help = VARIABLES)]
struct Arguments {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    count: u64,
    /// One in that time, as 500ms, 2s or 1m; all at once if left out
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    every: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("publisher", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<()> {
    let client = connect("nats-test publisher").await?;
    let jetstream = jetstream::new(client.clone());
    own_stream(&jetstream).await?;
    let mut pace = arguments.every.map(interval);
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    for _ in 0..arguments.count {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        publish(&jetstream).await?;
    }
    Ok(())
}

/// Publishes one ticket: the event's data is the payload, what is said about it is in the headers.
async fn publish(jetstream: &jetstream::Context) -> Result<()> {
    let id = TicketId(Uuid::now_v7());
    let subject = format!("nats-test.tickets.{id}");
    let event = TicketEvent::Created(TicketCreated {
        id,
        title: "Sample ticket".into(),
        price_cents: Cents(1999),
        user_id: UserId(Uuid::nil()),
    });
    let message = PublishMessage::build()
        .headers(headers(&subject)?)
        .payload(payload(&event)?.to_string().into())
        // The first on its subject. Every append of the marketplace says so: two writers cannot both succeed.
        .expected_last_subject_sequence(0);
    // The acknowledgement comes when the message is on the server's disk.
    let acknowledgement = async { jetstream.send_publish(subject.clone(), message).await?.await }.await;
    let acknowledgement =
        acknowledgement.map_err(|error| anyhow!("{subject} is not acknowledged: {error}"))?;
    let (stream, sequence) = (acknowledgement.stream, acknowledgement.sequence);
    Ok(writeln!(stdout(), "stream={stream} subject={subject} sequence={sequence}")?)
}

/// CloudEvents 1.0, binary mode, as in the marketplace's streams.
fn headers(subject: &str) -> Result<HeaderMap> {
    let id = Uuid::now_v7().to_string();
    let mut headers = HeaderMap::new();
    // The server drops a second message with the same id.
    headers.insert(NATS_MESSAGE_ID, id.as_str());
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", id);
    headers.insert("ce-type", "ticket:created");
    headers.insert("ce-source", "nats-test");
    headers.insert("ce-subject", subject);
    headers.insert("ce-time", OffsetDateTime::now_utc().format(&Rfc3339)?);
    headers.insert("ce-schemaversion", "1");
    headers.insert("content-type", "application/json");
    Ok(headers)
}

/// The event's data, flat, with its version on its subject and the trace that it belongs to.
fn payload(event: &TicketEvent) -> Result<Value> {
    let mut payload = serde_json::to_value(event)?["data"].take();
    let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    payload["version"] = json!(0);
    payload["_trace"] = json!({ "uber-trace-id": format!("{trace}:{}:0:1", &span[..16]) });
    Ok(payload)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and its unit: 500ms, 2s or 1m".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    milliseconds.filter(|milliseconds| *milliseconds > 0).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_its_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "5", "s", "0s", "-1s", "1.5s", "1h", "18446744073709551615m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
