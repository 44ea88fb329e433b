//! svc-payments in this process, a Stripe sandbox, its neighbour svc-orders as far as its log goes, and a client.

// Each file of tests uses its own part of this.
#![allow(dead_code)]

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use async_nats::jetstream;
use contract::{
    Cents, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketId, Timestamp, UserId,
    event::{
        CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
        OrderedTicket, TicketRef,
    },
    stream::{DEAD_LETTERS, DEAD_LETTERS_PREFIX, ORDERS, PAYMENTS, durable, order_subject, payment_subject},
};
use eventstore::{
    AppendError, Auth, Cause, Connection, DeadLetters, Log, Reaction, ReactorConfig, Recorded, Settings,
    StreamConfig, react,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sandbox::stripe::{LedgerEntry, StripeSandbox};
use serde_json::{Value, json};
use svc_payments::Config;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use web::Env;

pub(crate) const BUYER: UserId = UserId(Uuid::from_u128(0xb07e4));
pub(crate) const STRANGER: UserId = UserId(Uuid::from_u128(0x57a4));

/// Long enough for everything that is on this machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// Too short for anything.
pub(crate) const IMPATIENT: Duration = Duration::from_millis(1);

/// The sandbox answers at once, or as late as a test tells it to.
const STRIPE_TIMEOUT: Duration = Duration::from_secs(1);

const JWT_KEY: &str = "a key for tests, of more than 32 characters";

/// The service, ready.
pub(crate) struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), eventstore::StartError>>,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service on a free port and waits until it is ready. A request to pay waits for `patience`.
    pub(crate) async fn start(nats: &str, data: &Path, stripe: &str, patience: Duration) -> Self {
        let (nats, data) = (nats.to_owned(), data.to_str().unwrap().to_owned());
        let stripe = stripe.to_owned();
        let env = Env::from(move |name| match name {
            "NATS_URL" => Some(nats.clone()),
            "DATA_DIR" => Some(data.clone()),
            "JWT_KEY" => Some(JWT_KEY.into()),
            "STRIPE_KEY" => Some("sk_test_1".into()),
            "STRIPE_API_BASE" => Some(stripe.clone()),
            _ => None,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = Config { patience, stripe_timeout: STRIPE_TIMEOUT, ..Config::from_env(&env).unwrap() };
        let running = tokio::spawn(svc_payments::run(config, listener.into(), shutdown.clone()));
        let service = Self { url, shutdown, running, client: reqwest::Client::new() };
        eventually("the service is ready", async || {
            let ready = service.request(Method::GET, "/readyz").send().await.ok()?;
            (ready.status() == StatusCode::OK).then_some(())
        })
        .await;
        service
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn post(&self, user: UserId, body: &Value) -> Response {
        let request = self.request(Method::POST, "/api/payments").bearer_auth(token(user));
        request.json(body).send().await.unwrap()
    }

    pub(crate) async fn pay(&self, order: OrderId, with: &str) -> Response {
        self.post(BUYER, &json!({ "token": with, "orderId": order })).await
    }

    pub(crate) async fn get(&self, user: UserId, order: &str) -> Response {
        let request = self.request(Method::GET, &format!("/api/payments/{order}")).bearer_auth(token(user));
        request.send().await.unwrap()
    }

    /// Waits until the order's payment has the status; returns it.
    pub(crate) async fn shows(&self, order: OrderId, status: &str) -> Value {
        eventually(status, async || {
            let payment: Value = self.get(BUYER, &order.to_string()).await.json().await.ok()?;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }
}

/// A session of the user's, as svc-auth makes them.
pub(crate) fn token(user: UserId) -> String {
    web::Keys::new(JWT_KEY, None).sign(user.0, "somebody@example.com", Duration::from_secs(60))
}

/// The messages of an error, each with its field.
pub(crate) async fn errors(response: Response) -> Vec<(String, Option<String>)> {
    let body: Value = response.json().await.unwrap();
    let entries = body["errors"].as_array().unwrap_or_else(|| panic!("no errors: {body}"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    entries.iter().map(|entry| (text(&entry["message"]).unwrap(), text(&entry["field"]))).collect()
}

/// Asks again and again until there is an answer, for 20 seconds at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What Stripe has of an order, the first try first.
pub(crate) fn ledger(stripe: &StripeSandbox, order: OrderId) -> Vec<LedgerEntry> {
    let order = order.to_string();
    stripe.ledger().into_iter().filter(|entry| entry.metadata["order_id"] == order).collect()
}

/// The types of the events in the log of an order's payment.
pub(crate) async fn log_of(nats: &str, order: OrderId) -> Vec<String> {
    let client = async_nats::connect(nats).await.unwrap();
    let stream = jetstream::new(client).get_stream(PAYMENTS.name).await.unwrap();
    let mut types = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        if message.subject.as_str() == payment_subject(order) {
            types.push(message.headers.get("ce-type").unwrap().to_string());
        }
    }
    types
}

/// The log of svc-orders, written as svc-orders does.
#[derive(Clone)]
pub(crate) struct Orders(Arc<Mutex<Known>>, Log);

#[derive(Default)]
struct Known {
    orders: HashMap<OrderId, Order>,
}

struct Order {
    ticket: TicketId,
    status: OrderStatus,
    next_version: u64,
    last_sequence: u64,
}

impl Orders {
    pub(crate) async fn create(nats: &str) -> Self {
        let settings = Settings { url: nats.into(), auth: Auth::None, name: ORDERS.source.into() };
        let connection = Connection::open(settings).await.unwrap();
        let config = StreamConfig {
            name: ORDERS.name.into(),
            subjects: ORDERS.subjects.into(),
            replicas: 1,
            source: ORDERS.source.into(),
        };
        let log = eventually("nats answers", async || Log::create(&connection, &config).await.ok()).await;
        Self(Arc::default(), log)
    }

    /// An order of [`BUYER`]'s for a ticket of its own.
    pub(crate) async fn place(&self, price: Cents) -> OrderId {
        let (id, ticket) = (OrderId(Uuid::now_v7()), TicketId(Uuid::now_v7()));
        let order = Order { ticket, status: OrderStatus::Created, next_version: 0, last_sequence: 0 };
        self.0.lock().await.orders.insert(id, order);
        let created = OrderEvent::Created(OrderCreated {
            id,
            status: OrderStatus::Created,
            user_id: BUYER,
            expires_at: Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_secs(900)),
            ticket: OrderedTicket { id: ticket, title: "concert".into(), price_cents: price },
        });
        self.decide(id, |_, _| Some((OrderStatus::Created, created.clone()))).await.unwrap();
        id
    }

    /// The buyer gives it up, if it is not being paid; whether it is cancelled now.
    pub(crate) async fn cancel(&self, id: OrderId) -> bool {
        self.end(id, OrderStatus::Created, CancelReason::Buyer).await;
        self.0.lock().await.orders[&id].status == OrderStatus::Cancelled
    }

    pub(crate) async fn await_payment(&self, id: OrderId, payment_id: PaymentId) {
        self.decide(id, |status, ticket| {
            let event = OrderAwaitingPayment { id, payment_id, ticket };
            (status == OrderStatus::Created)
                .then_some((OrderStatus::AwaitingPayment, OrderEvent::AwaitingPayment(event)))
        })
        .await
        .unwrap();
    }

    async fn complete(&self, id: OrderId, payment_id: PaymentId) {
        self.decide(id, |status, ticket| {
            let event = OrderCompleted { id, payment_id, ticket };
            (status == OrderStatus::AwaitingPayment)
                .then_some((OrderStatus::Complete, OrderEvent::Completed(event)))
        })
        .await
        .unwrap();
    }

    async fn end(&self, id: OrderId, from: OrderStatus, reason: CancelReason) {
        self.decide(id, |status, ticket| {
            let event = OrderCancelled { id, reason, ticket };
            (status == from).then_some((OrderStatus::Cancelled, OrderEvent::Cancelled(event)))
        })
        .await
        .unwrap();
    }

    async fn decide(
        &self,
        id: OrderId,
        decide: impl Fn(OrderStatus, TicketRef) -> Option<(OrderStatus, OrderEvent)>,
    ) -> Result<(), AppendError> {
        let mut known = self.0.lock().await;
        let order = known.orders.get_mut(&id).unwrap();
        let Some((status, event)) = decide(order.status, TicketRef { id: order.ticket }) else {
            return Ok(());
        };
        let subject = order_subject(order.ticket);
        let appended =
            self.1.append(&subject, &event, order.next_version, order.last_sequence, Cause::Command).await?;
        order.status = status;
        order.next_version += 1;
        order.last_sequence = appended.sequence;
        Ok(())
    }

    /// Reacts to payments as svc-orders does, until the guard is dropped.
    pub(crate) fn follow_payments(&self) -> DropGuard {
        let shutdown = CancellationToken::new();
        let log = Log::reader(self.1.connection(), PAYMENTS.name, ORDERS.source);
        let dead_letters =
            DeadLetters::new(self.1.connection(), DEAD_LETTERS, DEAD_LETTERS_PREFIX, ORDERS.source);
        let orders = self.clone();
        let handle = move |recorded: Recorded<PaymentEvent>| {
            let orders = orders.clone();
            async move {
                match recorded.event {
                    PaymentEvent::Authorized(event) => orders.await_payment(event.order_id, event.id).await,
                    PaymentEvent::Created(event) => orders.complete(event.order_id, event.id).await,
                    PaymentEvent::Voided(event) => {
                        let (from, reason) = (OrderStatus::AwaitingPayment, CancelReason::PaymentFailed);
                        orders.end(event.order_id, from, reason).await;
                    }
                    PaymentEvent::Requested(_) | PaymentEvent::Declined(_) | PaymentEvent::Refunded(_) => {}
                }
                Ok::<_, AppendError>(Reaction::Done)
            }
        };
        let config = ReactorConfig { durable: durable::ORDERS, concurrency: 4 };
        tokio::spawn(react(log, config, dead_letters, handle, shutdown.clone()));
        shutdown.drop_guard()
    }

    /// Waits until the order has the status.
    pub(crate) async fn becomes(&self, id: OrderId, status: OrderStatus) {
        eventually("the order's status", async || {
            (self.0.lock().await.orders[&id].status == status).then_some(())
        })
        .await;
    }
}
