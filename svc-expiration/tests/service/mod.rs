//! svc-expiration in this process, its neighbour svc-orders as far as its log goes, and what it tells.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime},
};

use async_nats::jetstream;
use contract::{
    Cents, OrderEvent, OrderId, PaymentId, TicketId, Timestamp, UserId,
    event::{
        CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
        OrderedTicket, TicketRef,
    },
    stream::{EXPIRATIONS, ORDERS, durable, order_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings, StreamConfig};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use svc_expiration::Config;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use web::Env;

/// The service, ready.
pub(crate) struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), eventstore::StartError>>,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service on a free port and waits until it is ready.
    pub(crate) async fn start(nats: &str, data: &Path) -> Self {
        let (nats, data) = (nats.to_owned(), data.to_str().unwrap().to_owned());
        let env = Env::from(move |name| match name {
            "NATS_URL" => Some(nats.clone()),
            "DATA_DIR" => Some(data.clone()),
            _ => None,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = Config::from_env(&env).unwrap();
        let running = tokio::spawn(svc_expiration::run(config, listener.into(), shutdown.clone()));
        let service = Self { url, shutdown, running, client: reqwest::Client::new() };
        eventually("the service is ready", async || {
            (service.request(Method::GET, "/readyz").await.status() == StatusCode::OK).then_some(())
        })
        .await;
        service
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) async fn request(&self, method: Method, path: &str) -> Response {
        self.client.request(method, format!("{}{path}", self.url)).send().await.unwrap()
    }
}

/// Asks again and again until there is an answer, for 20 seconds at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A point in time so many milliseconds from now.
pub(crate) fn in_millis(millis: u64) -> Timestamp {
    Timestamp::from(SystemTime::now()).plus(Duration::from_millis(millis))
}

/// The log of svc-orders, written as svc-orders does: each order is for a ticket of its own.
pub(crate) struct Orders {
    log: Log,
    /// Each order's next version, and the sequence of the last.
    ends: HashMap<OrderId, (u64, u64)>,
}

impl Orders {
    pub(crate) async fn create(nats: &str) -> Self {
        let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: ORDERS.source.into() };
        let connection = Connection::open(settings).await.unwrap();
        let config = StreamConfig {
            name: ORDERS.name.into(),
            subjects: ORDERS.subjects.into(),
            replicas: 1,
            source: ORDERS.source.into(),
        };
        let log = Log::create(&connection, &config).await.unwrap();
        Self { log, ends: HashMap::new() }
    }

    /// An order that waits for a card until `due`.
    pub(crate) async fn place(&mut self, due: Timestamp) -> OrderId {
        let id = OrderId(Uuid::now_v7());
        let ticket = OrderedTicket { id: TicketId(id.0), title: "concert".into(), price_cents: Cents(1) };
        let (user_id, status) = (UserId(Uuid::nil()), OrderStatus::Created);
        let created = OrderCreated { id, status, user_id, expires_at: due, ticket };
        self.append(id, &OrderEvent::Created(created)).await;
        id
    }

    pub(crate) async fn cancel(&mut self, id: OrderId) {
        let ticket = TicketRef { id: TicketId(id.0) };
        let cancelled = OrderCancelled { id, reason: CancelReason::Buyer, ticket };
        self.append(id, &OrderEvent::Cancelled(cancelled)).await;
    }

    pub(crate) async fn await_payment(&mut self, id: OrderId) {
        let (payment_id, ticket) = (PaymentId(id.0), TicketRef { id: TicketId(id.0) });
        self.append(id, &OrderEvent::AwaitingPayment(OrderAwaitingPayment { id, payment_id, ticket })).await;
    }

    pub(crate) async fn complete(&mut self, id: OrderId) {
        let (payment_id, ticket) = (PaymentId(id.0), TicketRef { id: TicketId(id.0) });
        self.append(id, &OrderEvent::Completed(OrderCompleted { id, payment_id, ticket })).await;
    }

    async fn append(&mut self, id: OrderId, event: &OrderEvent) {
        let (version, last) = self.ends.get(&id).copied().unwrap_or_default();
        let subject = order_subject(TicketId(id.0));
        let appended = self.log.append(&subject, event, version, last, Cause::Command).await.unwrap();
        self.ends.insert(id, (version + 1, appended.sequence));
    }
}

/// What the service has told, read from its log.
pub(crate) struct Expirations(pub(crate) jetstream::Context);

/// One deadline that was told.
pub(crate) struct Told {
    pub(crate) order: OrderId,
    /// When the server took it.
    pub(crate) at: Timestamp,
}

impl Expirations {
    pub(crate) async fn of(nats: &str) -> Self {
        Self(jetstream::new(async_nats::connect(nats).await.unwrap()))
    }

    /// Every deadline that was told, in order.
    pub(crate) async fn told(&self) -> Vec<Told> {
        let stream = self.0.get_stream(EXPIRATIONS.name).await.unwrap();
        let mut told = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let data: Value = serde_json::from_slice(&message.payload).unwrap();
            let order = serde_json::from_value(data["orderId"].clone()).unwrap();
            told.push(Told { order, at: message.time.into() });
        }
        told
    }

    /// Waits until exactly these deadlines are told, each once and none early, and `waiting` orders are left that
    /// will be looked at again.
    pub(crate) async fn are(&self, expected: &[(OrderId, Timestamp)], waiting: usize) -> Vec<Told> {
        self.reached("every deadline is told", |consumer| {
            consumer.num_pending == 0 && consumer.num_ack_pending == waiting
        })
        .await;
        let told = self.told().await;
        let mut orders: Vec<_> = told.iter().map(|told| told.order).collect();
        let mut wanted: Vec<_> = expected.iter().map(|(order, _)| *order).collect();
        orders.sort();
        wanted.sort();
        assert_eq!(orders, wanted, "each once, and no other");
        for told in &told {
            let (order, due) = expected.iter().find(|(order, _)| *order == told.order).unwrap();
            assert!(told.at >= *due, "{order} was due {due} and told {}", told.at);
        }
        told
    }

    /// Waits until the durable is as a test of it says.
    pub(crate) async fn reached(&self, what: &str, is: impl Fn(&jetstream::consumer::Info) -> bool) {
        eventually(what, async || {
            let stream = self.0.get_stream(ORDERS.name).await.ok()?;
            let consumer = stream.consumer_info(durable::EXPIRATION).await.ok()?;
            is(&consumer).then_some(())
        })
        .await;
    }
}
