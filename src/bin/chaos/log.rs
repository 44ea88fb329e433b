//! The log as the server has it, read past everything of ours, and what became of each order by it.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use async_nats::jetstream::{self, consumer::pull};
use contract::stream::{ALL, DEAD_LETTERS};
use futures::StreamExt;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What became of an order.
pub(crate) struct Order {
    pub(crate) ticket: String,
    pub(crate) buyer: String,
    pub(crate) cents: i64,
    /// Its last event.
    pub(crate) last: String,
}

/// All streams, as far as promises are about them.
#[derive(Default)]
pub(crate) struct Log {
    /// How many events each stream has.
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) dead_letters: u64,
    /// What there is of each type, by id.
    there: HashSet<(String, String)>,
    /// Title and price, by ticket and version.
    terms: HashMap<(String, u64), (String, i64)>,
    pub(crate) orders: HashMap<String, Order>,
    /// Who holds or has bought a ticket.
    pub(crate) holders: HashMap<String, String>,
    /// Tickets that were sold twice.
    pub(crate) wrong: Vec<String>,
    /// How far the times that events bear are behind the server's and ahead of it, in seconds.
    pub(crate) clocks: (f64, f64),
}

impl Log {
    /// Reads everything.
    ///
    /// # Errors
    /// When the server does not answer, or something cannot be read.
    pub(crate) async fn read(url: &str) -> anyhow::Result<Self> {
        let jetstream = jetstream::new(async_nats::connect(url).await?);
        let mut log = Self::default();
        for stream in ALL {
            let handle = jetstream.get_stream(stream.name).await?;
            let last = handle.cached_info().state.last_sequence;
            log.events.insert(stream.name, handle.cached_info().state.messages);
            if last == 0 {
                continue;
            }
            let consumer = handle.create_consumer(pull::OrderedConfig::default()).await?;
            let mut messages = consumer.messages().await?;
            loop {
                let message = messages.next().await.context("the consumer ended")??;
                let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
                let (sequence, stored) = (info.stream_sequence, info.published);
                log.take(&message, stored).with_context(|| format!("{} {sequence}", stream.name))?;
                if sequence >= last {
                    break;
                }
            }
        }
        // It is made with the first of them.
        if let Ok(stream) = jetstream.get_stream(DEAD_LETTERS).await {
            log.dead_letters = stream.cached_info().state.messages;
        }
        Ok(log)
    }

    fn take(&mut self, message: &async_nats::Message, stored: OffsetDateTime) -> anyhow::Result<()> {
        let header = |name| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(|value| value.as_str()).with_context(|| format!("no {name}"))
        };
        let told = OffsetDateTime::parse(header("ce-time")?, &Rfc3339)?;
        let ahead = (told - stored).as_seconds_f64();
        self.clocks = (self.clocks.0.min(ahead), self.clocks.1.max(ahead));

        self.add(header("ce-type")?, &serde_json::from_slice(&message.payload)?)
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When it lacks something.
    pub(crate) fn add(&mut self, kind: &str, data: &Value) -> anyhow::Result<()> {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let (id, ticket) = (text("id"), data["ticket"]["id"].as_str().unwrap_or_default().to_owned());
        match kind.split_once(':') {
            Some(("ticket", _)) => {
                let version = data["version"].as_u64().context("no version")?;
                let cents = data["priceCents"].as_i64().context("no price")?;
                self.terms.insert((id.clone(), version), (text("title"), cents));
            }
            Some(("order", "created")) => {
                let cents = data["ticket"]["priceCents"].as_i64().context("no price")?;
                let before = self.holders.insert(ticket.clone(), id.clone());
                let wrong = |other| format!("order {id} is for ticket {ticket}, which order {other} has");
                self.wrong.extend(before.map(wrong));
                let order = Order { ticket, buyer: text("userId"), cents, last: kind.to_owned() };
                self.orders.insert(id.clone(), order);
            }
            Some(("order", what)) => {
                let order = self.orders.get_mut(&id).with_context(|| format!("no order {id}"))?;
                order.last = kind.to_owned();
                if what == "cancelled" {
                    self.holders.remove(&ticket);
                }
            }
            _ => {}
        }
        self.there.insert((kind.to_owned(), id));
        Ok(())
    }

    /// Whether there is an event of the type about whatever has the id.
    pub(crate) fn has(&self, kind: &str, id: impl ToString) -> bool {
        self.there.contains(&(kind.to_owned(), id.to_string()))
    }

    /// What the ticket was from a version on: title, and price in cents.
    pub(crate) fn terms(&self, ticket: impl ToString, version: u64) -> Option<(&str, i64)> {
        self.terms.get(&(ticket.to_string(), version)).map(|(title, cents)| (title.as_str(), *cents))
    }

    /// How many orders there are of each last event.
    pub(crate) fn ends(&self) -> BTreeMap<String, u64> {
        let mut ends = BTreeMap::new();
        for order in self.orders.values() {
            *ends.entry(order.last.clone()).or_default() += 1;
        }
        ends
    }

    /// The orders that are still to end.
    pub(crate) fn alive(&self) -> Vec<&str> {
        let is_alive = |order: &Order| !matches!(&*order.last, "order:completed" | "order:cancelled");
        self.orders.iter().filter(|(_, order)| is_alive(order)).map(|(id, _)| id.as_str()).collect()
    }
}
