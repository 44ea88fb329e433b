//! The system that the crowd meets, in one process or in five.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use contract::{
    Cents, OrderEvent, OrderId, TicketId, Timestamp, UserId,
    event::{OrderCreated, OrderStatus, OrderedTicket},
    stream::{EXPIRATIONS, ORDERS, PAYMENTS, TICKETS, order_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings};
use futures::{StreamExt, stream};
use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    Order, PATIENCE,
    load::Caller,
    support::{self, JWT_KEY, Layout, Service, System, within},
    whole::Whole,
};

/// What is the same for both, and not what a service has by default: a line in the log for each request, and scrypt's
/// cost (nobody signs in here).
// A crowd asks as a few thousand people would who cannot be told from it: nobody is told to slow down.
const VARIABLES: [(&str, &str); 4] =
    [("RUST_LOG", "warn"), ("JWT_KEY", JWT_KEY), ("USER_REQUESTS_PER_MINUTE", "0"), ("MAX_OPEN_ORDERS", "0")];
/// For how long nothing is appended when all is done.
const STILL: Duration = Duration::from_millis(750);
/// How far ahead of their being due orders are placed, and for each.
const AHEAD: Duration = Duration::from_secs(8);
const AHEAD_FOR_EACH: Duration = Duration::from_millis(1);

pub(crate) enum Market {
    One { whole: Box<Whole>, _directory: TempDir },
    Five(Box<System>),
}

impl Market {
    pub(crate) async fn one_process() -> Self {
        let directory = TempDir::new().unwrap();
        let whole = Whole::start(directory.path(), &VARIABLES).await;
        Self::One { whole: Box::new(whole), _directory: directory }
    }

    pub(crate) async fn five_processes() -> Self {
        let variables = VARIABLES.map(|(name, value)| (name, value.to_owned()));
        Self::Five(Box::new(System::start_with(Layout::default(), HashMap::from(variables)).await))
    }

    /// Where the service is, as host and port.
    pub(crate) fn address(&self, service: Service) -> String {
        let url = match self {
            Self::One { whole, .. } => whole.url.clone(),
            Self::Five(system) => system.url(service, 0, ""),
        };
        url.trim_start_matches("http://").to_owned()
    }

    pub(crate) fn nats_url(&self) -> &str {
        match self {
            Self::One { whole, .. } => whole.nats_url(),
            Self::Five(system) => system.nats.url(),
        }
    }

    /// A session of somebody new.
    pub(crate) fn session(&self) -> String {
        let id = Uuid::now_v7();
        let hour = Duration::from_secs(3600);
        web::Signer::new(JWT_KEY).sign(&web::Claims::new(id, &format!("{id}@example.com"), 0, hour))
    }

    /// How many orders' events have gone to the log together with others so far.
    pub(crate) async fn batched(&self) -> f64 {
        let mut caller = Caller::connect(&self.address(Service::Orders)).await;
        let (_, text) = caller.ask(Method::GET, "/metrics", None, None).await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let sums = text
            .lines()
            .filter_map(|line| line.strip_prefix("eventstore_batch_events_sum")?.rsplit_once(' '));
        let ours = sums.filter(|(labels, _)| {
            labels.contains(r#"stream="ORDERS""#) && labels.contains(r#"outcome="ok""#)
        });
        ours.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// What the services hold in memory, in megabytes.
    pub(crate) fn resident_mb(&self) -> f64 {
        let processes = match self {
            Self::One { whole, .. } => vec![whole.id()],
            Self::Five(system) => system.ids(),
        };
        processes.into_iter().map(resident_kb).sum::<f64>() / 1_024.0
    }

    /// Waits until nothing is appended any more.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let jetstream = async_nats::jetstream::new(async_nats::connect(self.nats_url()).await?);
        let mut before = None;
        loop {
            let mut ends = Vec::new();
            for stream in [TICKETS, ORDERS, PAYMENTS, EXPIRATIONS] {
                ends.push(jetstream.get_stream(stream.name).await?.cached_info().state.last_sequence);
            }
            if before.replace(ends.clone()) == Some(ends) {
                return Ok(());
            }
            tokio::time::sleep(STILL).await;
        }
    }

    /// Lets an order of each ticket be due at the same moment. How long after it each has expired, is cancelled, and its
    /// ticket can be ordered again.
    pub(crate) async fn expire(&self, tickets: &[String]) -> anyhow::Result<Duration> {
        let settings =
            Settings { url: self.nats_url().into(), auth: Auth::None, ca: None, name: ORDERS.source.into() };
        let connection = Connection::open(settings).await?;
        within(PATIENCE, || async { connection.is_up().then_some(()) }).await.expect("nats is there");
        let log = |stream: contract::stream::Stream| Log::reader(&connection, stream.name, stream.source);
        let end =
            async |stream| anyhow::Ok(log(stream).state().await?.map_or(0, |state| state.last_sequence));

        let orders = log(ORDERS);
        orders.state().await?;
        let due = Timestamp::from(SystemTime::now()).plus(AHEAD + AHEAD_FOR_EACH * tickets.len() as u32);
        let (expired, freed) = (end(EXPIRATIONS).await?, end(TICKETS).await?);
        let cancelled = end(ORDERS).await?;
        stream::iter(tickets)
            .for_each_concurrent(1_000, |ticket| async {
                let ticket: TicketId = ticket.parse().unwrap();
                let event = OrderEvent::Created(OrderCreated {
                    id: OrderId(Uuid::now_v7()),
                    status: OrderStatus::Created,
                    user_id: UserId(Uuid::now_v7()),
                    expires_at: due,
                    ticket: OrderedTicket { id: ticket, title: "Concert".into(), price_cents: Cents(1999) },
                });
                orders.append(&order_subject(ticket), &event, 0, 0, Cause::Command).await.unwrap();
            })
            .await;
        let count = tickets.len() as u64;
        // Reserved by now, every one of them: else what follows would measure that.
        let reserved = || async { (end(TICKETS).await.ok()? >= freed + count).then_some(()) };
        within(PATIENCE, reserved).await.expect("each ticket is reserved");
        let left = due.since(Timestamp::from(SystemTime::now()));
        anyhow::ensure!(left > Duration::ZERO, "the orders were due before all of them were placed");
        tokio::time::sleep(left).await;
        let started = Instant::now();
        let over = || async {
            let over = end(EXPIRATIONS).await.ok()? >= expired + count
                && end(ORDERS).await.ok()? >= cancelled + 2 * count
                && end(TICKETS).await.ok()? >= freed + 2 * count;
            over.then_some(())
        };
        within(PATIENCE, over).await.expect("each order expires");
        Ok(started.elapsed())
    }

    /// What the audit finds, and how many orders were promised and are not in the log.
    pub(crate) async fn judge<'a>(
        &self,
        promised: impl Iterator<Item = &'a Order>,
    ) -> anyhow::Result<(Audit, usize)> {
        let jetstream = async_nats::jetstream::new(async_nats::connect(self.nats_url()).await?);
        let events = support::read(&jetstream, ORDERS.name).await;
        let known: HashSet<_> = events.iter().filter_map(|event| event.payload["id"].as_str()).collect();
        let lost = promised.filter(|order| !known.contains(order.id.as_str())).count();
        Ok((Audit::of(self.nats_url())?, lost))
    }
}

/// How many findings of each code `ticketing audit` has.
#[derive(Debug)]
pub(crate) struct Audit(BTreeMap<String, usize>);

impl Audit {
    fn of(nats_url: &str) -> anyhow::Result<Self> {
        let mut audit = Command::new(env!("CARGO_BIN_EXE_ticketing"));
        let told = audit.args(["audit", "--json"]).env("NATS_URL", nats_url).output()?;
        let report: Value = serde_json::from_slice(&told.stdout).with_context(|| format!("{told:?}"))?;
        let mut findings = BTreeMap::new();
        for finding in report["findings"].as_array().context("findings")? {
            *findings.entry(support::text(&finding["code"])).or_default() += 1;
        }
        Ok(Self(findings))
    }

    /// How often two orders held or had bought one ticket.
    pub(crate) fn oversold(&self) -> usize {
        self.0.get("double-sale").copied().unwrap_or_default()
    }

    /// Everything that it finds.
    pub(crate) fn findings(&self) -> usize {
        self.0.values().sum()
    }
}

fn resident_kb(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
